//! Who should own which partition: the server-side assignors `uniform` and `range`.
//!
//! Why: with KIP-848 the coordinator, not a member, divides the partitions. An assignor is a
//! function of who is there, what each wants and what each was promised before; its result is the
//! target that the members are brought to, one heartbeat at a time.
//!
//! Invariants, of both:
//! - `ASSIGN-1` every partition that somebody subscribes to has exactly one member, and that member
//!   subscribes to its topic; a partition without a subscriber has none.
//! - `ASSIGN-2` the same input gives the same output; the order of the members only matters for
//!   ties.
//!
//! Of `uniform`:
//! - `UNIFORM-1` no single partition can go from a member to another that subscribes to its topic and
//!   has at least two fewer. When all subscribe to the same topics, the counts differ by at most one.
//! - `UNIFORM-2` a balanced assignment of the same members and topics is left as it is, and a
//!   change moves no more partitions than the new balance requires.
//!
//! Of `range`:
//! - `RANGE-1` a member has one contiguous range of each topic; the ranges of topics with the same
//!   subscribers and the same number of partitions are the same (co-partitioning).
//! - `RANGE-2` of each topic the counts of its subscribers differ by at most one. Static members
//!   come first, in the order of their instance ids, so that a restart does not move ranges.
//!
//! As in Kafka 4.4, neither considers racks: a change of rack only makes the group recompute.

mod mixed;
mod range;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::types::{PartitionIndex, TopicId};

#[cfg(test)]
mod tests;

/// Partitions by topic. A topic without a partition has no entry.
pub(super) type Partitions = BTreeMap<TopicId, BTreeSet<PartitionIndex>>;

/// A way to divide partitions, by the name that members ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Assignor {
    /// Equal counts, and as few moves as possible.
    Uniform,
    /// Contiguous ranges, the same in topics of the same size.
    Range,
}

impl Assignor {
    /// All of them, in the order of Kafka's default `group.consumer.assignors`.
    pub(super) const ALL: &'static [Self] = &[Self::Uniform, Self::Range];

    /// The name on the wire.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The assignor of that name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|assignor| assignor.name() == name)
    }

    /// Divides the partitions of `topics` (their counts) among `members`; the answer has one entry
    /// per member, in their order. Topics that `topics` does not know are ignored.
    pub(super) fn assign(
        self,
        members: &[MemberSpec],
        topics: &BTreeMap<TopicId, i32>,
    ) -> Vec<Partitions> {
        if members.is_empty() {
            return Vec::new();
        }
        match self {
            Self::Range => range::assign(members, topics),
            Self::Uniform if all_want_the_same(members) => uniform::assign(members, topics),
            Self::Uniform => mixed::assign(members, topics),
        }
    }
}

/// A member, as an assignor sees it.
#[derive(Clone, Debug)]
pub(super) struct MemberSpec {
    /// The member.
    pub(super) id: Arc<str>,
    /// Its instance id, when it is static.
    pub(super) instance_id: Option<Arc<str>>,
    /// What it subscribes to.
    pub(super) topics: Arc<BTreeSet<TopicId>>,
    /// Its target until now.
    pub(super) owned: Partitions,
}

fn all_want_the_same(members: &[MemberSpec]) -> bool {
    let Some((first, rest)) = members.split_first() else { return true };
    rest.iter()
        .all(|member| Arc::ptr_eq(&member.topics, &first.topics) || member.topics == first.topics)
}

/// What members keep a claim to: existing partitions of topics that they subscribe to, each
/// claimed by the first member that lists it.
struct Claims {
    /// By member.
    kept: Vec<Partitions>,
    /// How many of each member.
    counts: Vec<usize>,
    /// Claimed by anyone.
    taken: Partitions,
}

impl Claims {
    fn of(members: &[MemberSpec], topics: &BTreeMap<TopicId, i32>) -> Self {
        let mut claims = Self {
            kept: vec![Partitions::new(); members.len()],
            counts: vec![0; members.len()],
            taken: Partitions::new(),
        };
        for ((member, kept), count) in members.iter().zip(&mut claims.kept).zip(&mut claims.counts)
        {
            for (topic, partitions) in &member.owned {
                let Some(&end) = topics.get(topic) else { continue };
                if !member.topics.contains(topic) {
                    continue;
                }
                let taken = claims.taken.entry(*topic).or_default();
                let mine: BTreeSet<PartitionIndex> = partitions
                    .range(PartitionIndex(0)..PartitionIndex(end))
                    .copied()
                    .filter(|&index| taken.insert(index))
                    .collect();
                if !mine.is_empty() {
                    *count += mine.len();
                    kept.insert(*topic, mine);
                }
            }
        }
        claims
    }

    fn is_taken(&self, topic: TopicId, partition: PartitionIndex) -> bool {
        self.taken.get(&topic).is_some_and(|partitions| partitions.contains(&partition))
    }
}
