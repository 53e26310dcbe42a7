//! From the classic protocol to the consumer protocol and back, while members are there.
//!
//! - Up: the first member of the consumer protocol joins a classic group of consumers. Its members
//!   keep what they have, and their generation is the first group epoch.
//! - Down: the last member of the consumer protocol is gone, and classic ones are left. They keep
//!   their targets as assignments, and rebalance.
//!
//! Both are records: the tombstones of the one group, then the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::assignor::Partitions;
use super::member::{Current, Owned, sorted_names};
use super::state::{current_record, epoch_record, member_record, target_record};
use super::work::Work;
use crate::error::ErrorCode;
use crate::machine::group::classic::{CONSUMER_PROTOCOL, ClassicGroup};
use crate::machine::group::embedded::{self, NamedIndexes};
use crate::machine::group::record::{
    ClassicGroupValue, ClassicMemberMetadata, ClassicMemberValue, ConsumerMemberValue, GroupRecord,
    TargetAssignmentValue,
};
use crate::machine::group::reply::GroupError;
use crate::machine::group::shard::Group;

type Result<T> = std::result::Result<T, GroupError>;

/// A classic member on its way into a consumer group.
struct Convert {
    id: Arc<str>,
    said: ConsumerMemberValue,
    current: Current,
}

impl Work<'_> {
    /// Makes sure that there is, or may be, a consumer group to work on.
    pub(super) fn enter(&mut self, joins: bool) -> Result<()> {
        match self.shard.groups.get(&self.id) {
            Some(Group::Consumer(_)) => Ok(()),
            None if joins => Ok(()),
            Some(Group::Classic(group)) if joins && group.is_empty() => {
                let group = Arc::clone(&self.id);
                self.write(GroupRecord::GroupMetadata { group, value: None });
                Ok(())
            }
            Some(Group::Classic(group)) if joins => {
                let members = self.converts(group)?;
                let generation = group.generation();
                self.upgrade(members, generation);
                Ok(())
            }
            Some(Group::Classic(_)) => Err(self.not_found("is not a consumer group")),
            None => Err(self.not_found("does not exist")),
        }
    }

    fn not_found(&self, why: &str) -> GroupError {
        GroupError::new(ErrorCode::GroupIdNotFound, format!("group {} {why}", self.id))
    }

    /// The members of a classic group as those of a consumer group.
    fn converts(&self, group: &ClassicGroup) -> Result<Vec<Convert>> {
        let config = &self.shard.context.config;
        if !config.consumer_migration_policy.allows_upgrade() {
            let why = "uses the classic protocol, and group.consumer.migration.policy does not \
                       allow it to change while it has members";
            return Err(self.not_found(why));
        }
        if !group.is_of_consumers() {
            return Err(self.not_found("has members that are not consumers"));
        }
        if group.members().len() > config.consumer_size_max {
            return Err(self.not_found("has more members than group.consumer.max.size"));
        }
        let unreadable = || self.not_found("has a member whose subscription cannot be read");
        let mut taken = Partitions::new();
        let mut members = Vec::with_capacity(group.members().len());
        for (id, member) in group.members() {
            let metadata = match group.protocol() {
                Some(protocol) => member.metadata(protocol),
                None => member.protocols.first().map(|p| p.metadata.clone()).unwrap_or_default(),
            };
            let subscription = embedded::subscription(&metadata).ok_or_else(unreadable)?;
            let assignment = embedded::assignment(&member.assignment).ok_or_else(unreadable)?;
            members.push(Convert {
                id: Arc::clone(id),
                said: ConsumerMemberValue {
                    instance_id: member.instance_id.clone(),
                    rack_id: subscription.rack,
                    client_id: Arc::clone(&member.client_id),
                    client_host: Arc::clone(&member.client_host),
                    subscribed_topic_names: sorted_names(subscription.topics),
                    subscribed_topic_regex: None,
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    server_assignor: None,
                    classic: Some(ClassicMemberMetadata {
                        session_timeout_ms: member.session_timeout_ms,
                        protocols: member.protocols.clone(),
                    }),
                },
                current: Current {
                    epoch: group.generation(),
                    previous_epoch: group.generation(),
                    assigned: self.owned_once(&assignment, group.generation(), &mut taken),
                    ..Current::default()
                },
            });
        }
        Ok(members)
    }

    /// What an assignment gives, without what another member was given before: a leader may make
    /// mistakes.
    fn owned_once(&self, assignment: &[NamedIndexes], epoch: i32, taken: &mut Partitions) -> Owned {
        let mut owned = Owned::new();
        for (name, indexes) in assignment {
            let Some(topic) = self.shard.context.topics.topic(name) else { continue };
            for &index in indexes {
                let exists = index.is_below(topic.partition_count());
                if exists && taken.entry(topic.id).or_default().insert(index) {
                    owned.entry(topic.id).or_default().insert(index, epoch);
                }
            }
        }
        owned
    }

    fn upgrade(&mut self, members: Vec<Convert>, epoch: i32) {
        let id = Arc::clone(&self.id);
        self.write(GroupRecord::GroupMetadata { group: Arc::clone(&id), value: None });
        for member in &members {
            self.write(member_record(&id, &member.id, Some(member.said.clone())));
        }
        let hash = self.metadata_hash();
        self.write(epoch_record(&id, epoch, hash));
        for member in &members {
            let target: Partitions = member
                .current
                .assigned
                .iter()
                .map(|(&topic, list)| (topic, list.keys().copied().collect()))
                .collect();
            self.write(target_record(&id, &member.id, Some(&target)));
        }
        self.write(GroupRecord::ConsumerGroupTargetAssignmentMetadata {
            group: Arc::clone(&id),
            // Not known: the joining member is to get its share at once.
            value: Some(TargetAssignmentValue { epoch, timestamp: crate::types::TimestampMs(0) }),
        });
        for member in &members {
            self.write(current_record(&id, &member.id, Some(&member.current)));
            self.touch(&member.id);
        }
    }

    /// Removes members that left or were silent for too long; if only classic ones are left, the
    /// group becomes classic.
    pub(super) fn dismiss(&mut self, members: &[Arc<str>]) {
        if !members.is_empty() && self.is_ready_to_downgrade(members) {
            self.downgrade(members);
        } else {
            self.remove(members);
        }
    }

    /// Whether the group is to become classic when these are gone.
    pub(super) fn is_ready_to_downgrade(&self, leaving: &[Arc<str>]) -> bool {
        let config = &self.shard.context.config;
        let mut count = 0;
        let all_classic = self
            .group()
            .members()
            .filter(|(id, _)| !leaving.contains(id))
            .inspect(|_| count += 1)
            .all(|(_, member)| member.uses_classic_protocol());
        all_classic
            && count > 0
            && count <= config.classic_size_max
            && config.consumer_migration_policy.allows_downgrade()
    }

    /// Makes a classic group of those who are not leaving.
    pub(super) fn downgrade(&mut self, leaving: &[Arc<str>]) {
        let value = self.classic_value(leaving);
        let id = Arc::clone(&self.id);
        let mut tombstones = Vec::new();
        self.group().tombstones(&id, &mut tombstones);
        for record in tombstones {
            self.write(record);
        }
        self.write(GroupRecord::GroupMetadata { group: Arc::clone(&id), value: Some(value) });
        if let Some(Group::Classic(group)) = self.shard.groups.get_mut(&id) {
            group.restored(&mut self.shard.context);
            if !group.is_rebalancing() {
                group.prepare_rebalance(&mut self.shard.context);
            }
        }
    }

    fn classic_value(&self, leaving: &[Arc<str>]) -> ClassicGroupValue {
        let group = self.group();
        let staying: Vec<(&Arc<str>, &ConsumerMemberValue, &ClassicMemberMetadata)> = group
            .members()
            .filter(|(id, _)| !leaving.contains(id))
            .filter_map(|(id, member)| Some((id, &member.said, member.said.classic.as_ref()?)))
            .collect();
        let protocol = vote(staying.iter().map(|(_, _, classic)| *classic));
        let members = staying.into_iter().map(|(id, said, classic)| {
            let chosen = classic.protocols.iter().find(|p| Some(&p.name) == protocol.as_ref());
            let subscription = chosen.map(|p| p.metadata.clone()).unwrap_or_default();
            let target: Vec<NamedIndexes> = group
                .target(id)
                .into_iter()
                .flatten()
                .filter_map(|(&topic, list)| {
                    let topic = self.shard.context.topics.topic_by_id(topic)?;
                    Some((Arc::clone(&topic.name), list.iter().copied().collect()))
                })
                .collect();
            ClassicMemberValue {
                member_id: Arc::clone(id),
                instance_id: said.instance_id.clone(),
                client_id: Arc::clone(&said.client_id),
                client_host: Arc::clone(&said.client_host),
                rebalance_timeout_ms: said.rebalance_timeout_ms,
                session_timeout_ms: classic.session_timeout_ms,
                assignment: embedded::write_assignment(&target, &subscription),
                subscription,
            }
        });
        ClassicGroupValue {
            protocol_type: CONSUMER_PROTOCOL.into(),
            generation: group.epoch,
            members: members.collect(),
            protocol,
            leader: None,
            current_state_timestamp: self.shard.context.now,
        }
    }
}

/// The protocol that most members prefer among those that all support.
fn vote<'a>(members: impl Iterator<Item = &'a ClassicMemberMetadata>) -> Option<Arc<str>> {
    let members: Vec<&ClassicMemberMetadata> = members.collect();
    let names = |member: &ClassicMemberMetadata| -> BTreeSet<Arc<str>> {
        member.protocols.iter().map(|protocol| Arc::clone(&protocol.name)).collect()
    };
    let mut common = members.first().map(|member| names(member))?;
    for member in &members {
        let theirs = names(member);
        common.retain(|name| theirs.contains(name));
    }
    let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for member in &members {
        if let Some(choice) = member.protocols.iter().find(|p| common.contains(&p.name)) {
            *votes.entry(&choice.name).or_default() += 1;
        }
    }
    votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(name, _)| Arc::clone(name))
}
