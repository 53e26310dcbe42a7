//! Who gets which partition: the assignors that the leader of a classic group runs.
//!
//! Members of other clients take part in the same group, so what the assignors exchange is Kafka's:
//! the names, the user data of `sticky` and `cooperative-sticky`, the owned partitions and the
//! generation that a subscription carries. Which of several equally good assignments results is up
//! to the leader, and need not be Java's.
//!
//! Invariants, whatever the subscriptions are:
//! - ASG-1: every partition of a subscribed topic is given to exactly one member that subscribed to
//!   its topic, and nothing else is given.
//! - ASG-2: `roundrobin`, `sticky` and `cooperative-sticky` leave no pair of members where one has
//!   two more than the other and could give it one. (`range` is balanced per topic only.)
//! - ASG-3: when nothing changed, `sticky` and `cooperative-sticky` move nothing.
//! - ASG-4: with `cooperative-sticky`, a partition that another member still holds is withheld
//!   (the only exception to ASG-1) until that member has given it up and the group rebalances
//!   again.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod range;
mod round_robin;
mod sticky;
mod user_data;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::types::TopicPartition;

#[cfg(test)]
mod tests;

/// A strategy, by Kafka's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// `range`: partitions with the same number in all topics go to the same member.
    Range,
    /// `roundrobin`: one after the other.
    RoundRobin,
    /// `sticky`: balanced, with as few moves as possible.
    Sticky,
    /// `cooperative-sticky`: the same, and members keep what does not move while they rebalance.
    CooperativeSticky,
}

/// What a member wants, as it says when it joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberSubscription {
    /// The topics.
    pub topics: Vec<Arc<str>>,
    /// What the assignor wrote on the member's side.
    pub user_data: Option<Vec<u8>>,
    /// The partitions that the member holds while it joins; none under the eager protocol.
    pub owned: Vec<TopicPartition>,
    /// The generation in which it got them; none from members that do not say.
    pub generation: Option<i32>,
    /// Its rack (KIP-881).
    pub rack: Option<String>,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
}

/// The members that joined, by member id.
pub type Members = BTreeMap<String, MemberSubscription>;

/// The subscribed topics that exist: for each partition, the racks of its replicas.
pub type Topics = BTreeMap<Arc<str>, Vec<BTreeSet<String>>>;

/// The partitions of each member, by member id.
pub type Assignment = BTreeMap<String, Vec<TopicPartition>>;

impl Assignor {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Range, Self::RoundRobin, Self::Sticky, Self::CooperativeSticky];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::Sticky => "sticky",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// Reads a name, or the Java class of that assignor.
    ///
    /// # Errors
    ///
    /// It is not known.
    pub fn parse(text: &str) -> Result<Self> {
        let short = text.strip_prefix("org.apache.kafka.clients.consumer.").unwrap_or(text);
        match short {
            "range" | "RangeAssignor" => Ok(Self::Range),
            "roundrobin" | "RoundRobinAssignor" => Ok(Self::RoundRobin),
            "sticky" | "StickyAssignor" => Ok(Self::Sticky),
            "cooperative-sticky" | "CooperativeStickyAssignor" => Ok(Self::CooperativeSticky),
            other => Err(Error::invalid(format!(
                "assignor {other:?}: use range, roundrobin, sticky or cooperative-sticky"
            ))),
        }
    }

    /// Whether members may keep their partitions while they join again.
    #[must_use]
    pub const fn is_cooperative(self) -> bool {
        matches!(self, Self::CooperativeSticky)
    }

    /// The user data of a member's subscription, given its last assignment and the generation of
    /// that.
    #[must_use]
    pub fn user_data(self, last: Option<(&BTreeSet<TopicPartition>, i32)>) -> Option<Vec<u8>> {
        match self {
            Self::Range | Self::RoundRobin => None,
            Self::Sticky => last.map(|(held, generation)| user_data::sticky(held, generation)),
            Self::CooperativeSticky => {
                let generation =
                    last.map_or(user_data::NO_GENERATION, |(_, generation)| generation);
                Some(user_data::cooperative(generation))
            }
        }
    }

    /// Assigns the partitions of the subscribed topics.
    #[must_use]
    pub fn assign(self, topics: &Topics, members: &Members) -> Assignment {
        let subscribed: BTreeSet<&Arc<str>> =
            members.values().flat_map(|member| &member.topics).collect();
        let topics: Topics = topics
            .iter()
            .filter(|(name, _)| subscribed.contains(name))
            .map(|(name, racks)| (Arc::clone(name), racks.clone()))
            .collect();
        match self {
            Self::Range => range::assign(&topics, members),
            Self::RoundRobin => round_robin::assign(&topics, members),
            Self::Sticky => {
                let held = members.iter().map(|(id, member)| (id, user_data::held(member)));
                sticky::assign(&topics, members, &sticky::settle(held))
            }
            Self::CooperativeSticky => {
                let held = members.iter().map(|(id, member)| {
                    (id, (member.owned.clone(), user_data::generation(member)))
                });
                let settled = sticky::settle(held);
                let mut assignment = sticky::assign(&topics, members, &settled);
                withhold(&mut assignment, members, &settled);
                assignment
            }
        }
    }
}

/// Takes out of an assignment what another member still holds (ASG-4).
fn withhold(
    assignment: &mut Assignment,
    members: &Members,
    settled: &BTreeMap<TopicPartition, String>,
) {
    let mut holders: BTreeMap<&TopicPartition, BTreeSet<&String>> = BTreeMap::new();
    for (id, member) in members {
        for partition in &member.owned {
            holders.entry(partition).or_default().insert(id);
        }
    }
    for (id, partitions) in assignment {
        partitions.retain(|partition| {
            settled.get(partition) == Some(id)
                || holders
                    .get(partition)
                    .is_none_or(|holders| holders.iter().all(|holder| *holder == id))
        });
    }
}

/// The members in the order in which Kafka's assignors take them: static ones first, by instance
/// id, so that a restart under another member id changes nothing.
fn in_order(members: &Members) -> Vec<(&String, &MemberSubscription)> {
    let mut order: Vec<_> = members.iter().collect();
    order.sort_by(|(left_id, left), (right_id, right)| {
        let key = |id, member: &MemberSubscription| match &member.instance_id {
            Some(instance) => (false, String::clone(instance), String::clone(id)),
            None => (true, String::new(), String::clone(id)),
        };
        key(*left_id, left).cmp(&key(*right_id, right))
    });
    order
}
