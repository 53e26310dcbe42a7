//! The hard state of a consumer group: the sum of its records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::assignor::Partitions;
use super::member::{Current, LEAVE_EPOCH, Member, target_from, target_into};
use crate::machine::group::TopicsView;
use crate::machine::group::record::{
    ConsumerGroupValue, ConsumerMemberValue, CurrentAssignmentValue, GroupRecord,
    RegularExpressionValue, TargetAssignmentValue, TopicPartitions,
};
use crate::types::{PartitionIndex, TimestampMs, TopicId};

/// A group of the consumer protocol.
#[derive(Debug, Default)]
pub(in crate::machine::group) struct ConsumerGroup {
    /// Raised whenever the target must be computed again.
    pub(super) epoch: i32,
    /// A hash over the topics that the members subscribe to, as they were when the epoch was
    /// raised.
    pub(super) metadata_hash: i64,
    /// The epoch that the target was computed for.
    pub(super) target_epoch: i32,
    /// When it was computed; 0 when not known.
    pub(super) target_timestamp: TimestampMs,
    members: BTreeMap<Arc<str>, Member>,
    targets: BTreeMap<Arc<str>, Partitions>,
    /// The topics that each regular expression matches.
    patterns: BTreeMap<Arc<str>, RegularExpressionValue>,
    /// Whether the log has a record of the subscribed topics from before 4.1.
    has_partition_metadata: bool,

    /// Static members by instance id. From `members`.
    instances: BTreeMap<Arc<str>, Arc<str>>,
    /// Which member has which partition, assigned or still to be given up. From `members`.
    holders: BTreeMap<TopicId, BTreeMap<PartitionIndex, Arc<str>>>,

    /// Whether the topics of the cluster have changed since they were last looked at. Soft.
    pub(super) is_stale: bool,
    /// When the regular expressions were last matched. Soft.
    pub(super) patterns_checked: TimestampMs,
}

impl ConsumerGroup {
    pub(super) fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    /// The id of a member, as it is shared.
    pub(super) fn known_id(&self, id: &str) -> Option<&Arc<str>> {
        self.members.get_key_value(id).map(|(known, _)| known)
    }

    /// The members, by id.
    pub(super) fn members(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Member)> {
        self.members.iter()
    }

    /// The member id of that instance.
    pub(super) fn instance(&self, instance_id: &str) -> Option<&Arc<str>> {
        self.instances.get(instance_id)
    }

    pub(super) fn target(&self, member: &str) -> Option<&Partitions> {
        self.targets.get(member)
    }

    pub(super) fn pattern(&self, regex: &str) -> Option<&RegularExpressionValue> {
        self.patterns.get(regex)
    }

    pub(super) fn patterns(&self) -> impl Iterator<Item = &Arc<str>> {
        self.patterns.keys()
    }

    /// Who has that partition, assigned or still to be given up.
    pub(super) fn holder(&self, topic: TopicId, partition: PartitionIndex) -> Option<&Arc<str>> {
        self.holders.get(&topic)?.get(&partition)
    }

    /// Kafka's name for the state.
    pub(in crate::machine::group) fn state_name(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self
            .members
            .values()
            .all(|member| member.current.is_reconciled_to(self.target_epoch))
        {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Whether it has no members.
    pub(in crate::machine::group) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a member subscribes to that topic.
    pub(in crate::machine::group) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.members.values().any(|member| {
            member.said.subscribed_topic_names.iter().any(|name| **name == *topic)
                || member
                    .regex()
                    .and_then(|regex| self.patterns.get(regex))
                    .is_some_and(|pattern| pattern.topics.iter().any(|name| **name == *topic))
        })
    }

    /// The names that a member subscribes to, by name and by its expression.
    pub(super) fn subscribed_names<'a>(
        &'a self,
        member: &'a Member,
    ) -> impl Iterator<Item = &'a Arc<str>> {
        let matched = member.regex().and_then(|regex| self.patterns.get(regex));
        member
            .said
            .subscribed_topic_names
            .iter()
            .chain(matched.into_iter().flat_map(|pattern| &pattern.topics))
    }

    /// The topics that a member subscribes to, as far as they exist.
    pub(super) fn subscribed_topics(
        &self,
        member: &Member,
        view: &TopicsView,
    ) -> BTreeSet<TopicId> {
        self.subscribed_names(member)
            .filter_map(|name| view.topic(name).map(|topic| topic.id))
            .collect()
    }

    /// The records that produce this group.
    #[cfg(test)]
    pub(super) fn snapshot(&self, id: &Arc<str>, records: &mut Vec<GroupRecord>) {
        for (member, state) in &self.members {
            let value = Some(state.said.clone());
            records.push(member_record(id, member, value));
        }
        for (regex, value) in &self.patterns {
            records.push(pattern_record(id, regex, Some(value.clone())));
        }
        records.push(epoch_record(id, self.epoch, self.metadata_hash));
        for (member, target) in &self.targets {
            records.push(target_record(id, member, Some(target)));
        }
        records.push(GroupRecord::ConsumerGroupTargetAssignmentMetadata {
            group: Arc::clone(id),
            value: Some(TargetAssignmentValue {
                epoch: self.target_epoch,
                timestamp: self.target_timestamp,
            }),
        });
        for (member, state) in &self.members {
            records.push(current_record(id, member, Some(&state.current)));
        }
    }

    /// The records that delete this group, in the order in which they must be applied.
    pub(in crate::machine::group) fn tombstones(
        &self,
        id: &Arc<str>,
        records: &mut Vec<GroupRecord>,
    ) {
        records.extend(self.members.keys().map(|member| current_record(id, member, None)));
        records.extend(self.targets.keys().map(|member| target_record(id, member, None)));
        records.push(GroupRecord::ConsumerGroupTargetAssignmentMetadata {
            group: Arc::clone(id),
            value: None,
        });
        records.extend(self.members.keys().map(|member| member_record(id, member, None)));
        records.extend(self.patterns.keys().map(|regex| pattern_record(id, regex, None)));
        if self.has_partition_metadata {
            let group = Arc::clone(id);
            records.push(GroupRecord::ConsumerGroupPartitionMetadata { group, tombstone: true });
        }
        records.push(GroupRecord::ConsumerGroupMetadata { group: Arc::clone(id), value: None });
    }

    pub(super) fn set_epoch(&mut self, value: &ConsumerGroupValue) {
        self.epoch = value.epoch;
        self.metadata_hash = value.metadata_hash;
    }

    pub(super) fn set_partition_metadata(&mut self, present: bool) {
        self.has_partition_metadata = present;
    }

    pub(super) fn set_target_epoch(&mut self, value: Option<TargetAssignmentValue>) {
        self.target_epoch = value.map_or(-1, |value| value.epoch);
        self.target_timestamp = value.map_or(TimestampMs(0), |value| value.timestamp);
    }

    pub(super) fn set_target(&mut self, member: &Arc<str>, value: Option<&[TopicPartitions]>) {
        match value {
            Some(list) => self.targets.insert(Arc::clone(member), target_from(list)),
            None => self.targets.remove(member),
        };
    }

    pub(super) fn set_pattern(&mut self, regex: &Arc<str>, value: Option<&RegularExpressionValue>) {
        match value {
            Some(value) => self.patterns.insert(Arc::clone(regex), value.clone()),
            None => self.patterns.remove(regex),
        };
    }

    pub(super) fn set_said(&mut self, id: &Arc<str>, value: Option<&ConsumerMemberValue>) {
        let Some(value) = value else { return self.remove_member(id) };
        let member = self.members.entry(Arc::clone(id)).or_insert_with(Member::new);
        if let Some(before) = &member.said.instance_id
            && self.instances.get(before) == Some(id)
        {
            self.instances.remove(before);
        }
        if let Some(instance) = &value.instance_id {
            self.instances.insert(Arc::clone(instance), Arc::clone(id));
        }
        member.said = value.clone();
    }

    pub(super) fn set_current(&mut self, id: &Arc<str>, value: Option<&CurrentAssignmentValue>) {
        let current = match value {
            Some(value) => Current::from_value(value),
            None if self.members.contains_key(id) => {
                Current { epoch: LEAVE_EPOCH, previous_epoch: LEAVE_EPOCH, ..Current::default() }
            }
            None => return,
        };
        let member = self.members.entry(Arc::clone(id)).or_insert_with(Member::new);
        release(&mut self.holders, &member.current, id);
        for (topic, partition) in current.held() {
            self.holders.entry(topic).or_default().insert(partition, Arc::clone(id));
        }
        member.current = current;
    }

    fn remove_member(&mut self, id: &Arc<str>) {
        let Some(member) = self.members.remove(id) else { return };
        release(&mut self.holders, &member.current, id);
        if let Some(instance) = &member.said.instance_id
            && self.instances.get(instance) == Some(id)
        {
            self.instances.remove(instance);
        }
    }

    /// Recomputes the holders. A compacted log may lack the record in which a member gave a
    /// partition up before another got it.
    pub(super) fn rebuild(&mut self) {
        self.holders.clear();
        for (id, member) in &self.members {
            for (topic, partition) in member.current.held() {
                self.holders.entry(topic).or_default().insert(partition, Arc::clone(id));
            }
        }
        self.is_stale = true;
    }
}

fn release(
    holders: &mut BTreeMap<TopicId, BTreeMap<PartitionIndex, Arc<str>>>,
    current: &Current,
    id: &Arc<str>,
) {
    for (topic, partition) in current.held() {
        if let Some(list) = holders.get_mut(&topic) {
            if list.get(&partition) == Some(id) {
                list.remove(&partition);
            }
            if list.is_empty() {
                holders.remove(&topic);
            }
        }
    }
}

/// The epoch of a group.
pub(super) fn epoch_record(group: &Arc<str>, epoch: i32, metadata_hash: i64) -> GroupRecord {
    GroupRecord::ConsumerGroupMetadata {
        group: Arc::clone(group),
        value: Some(ConsumerGroupValue { epoch, metadata_hash }),
    }
}

/// What a member said, or that it is gone.
pub(super) fn member_record(
    group: &Arc<str>,
    member: &Arc<str>,
    value: Option<ConsumerMemberValue>,
) -> GroupRecord {
    GroupRecord::ConsumerGroupMemberMetadata {
        group: Arc::clone(group),
        member: Arc::clone(member),
        value,
    }
}

/// What a member is to have, or that it is gone.
pub(super) fn target_record(
    group: &Arc<str>,
    member: &Arc<str>,
    target: Option<&Partitions>,
) -> GroupRecord {
    GroupRecord::ConsumerGroupTargetAssignmentMember {
        group: Arc::clone(group),
        member: Arc::clone(member),
        value: target.map(target_into),
    }
}

/// What a member has, or that it is gone.
pub(super) fn current_record(
    group: &Arc<str>,
    member: &Arc<str>,
    current: Option<&Current>,
) -> GroupRecord {
    GroupRecord::ConsumerGroupCurrentMemberAssignment {
        group: Arc::clone(group),
        member: Arc::clone(member),
        value: current.map(Current::to_value),
    }
}

/// What a regular expression matches, or that nobody uses it any more.
pub(super) fn pattern_record(
    group: &Arc<str>,
    regex: &Arc<str>,
    value: Option<RegularExpressionValue>,
) -> GroupRecord {
    GroupRecord::ConsumerGroupRegularExpression {
        group: Arc::clone(group),
        regex: Arc::clone(regex),
        value,
    }
}
