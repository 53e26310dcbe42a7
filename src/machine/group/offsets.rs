//! Committed offsets: kept, read, deleted, expired.
//!
//! Invariants:
//!
//! - OFFSETS-1: an offset changes by a record alone; a fetch shows the last record of each
//!   key.
//! - OFFSETS-2: an offset of a topic that its group consumes does not expire, and is not deleted on
//!   request.
//! - OFFSETS-3: a group that exists only for its offsets disappears with the last of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::classic::{ClassicGroup, ClassicState, ExpiryBase};
use super::record::{GroupRecord, OffsetKey, OffsetValue};
use super::reply::{FetchedPartition, FetchedTopic, GroupError, GroupReply, PartitionResults};
use super::request::{
    CommitOffsetsRequest, CommitPartition, DeleteOffsetsRequest, FetchOffsetsRequest, FetchTopic,
    RequestId,
};
use super::shard::{Group, GroupShard};
use super::timers::TimerKey;
use crate::error::ErrorCode;
use crate::types::{LeaderEpoch, Offset, TimestampMs, TopicId};

type PartitionOffsets = BTreeMap<i32, OffsetValue>;
type TopicOffsets = BTreeMap<Arc<str>, PartitionOffsets>;

/// The committed offsets of every group of a shard.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    groups: BTreeMap<Arc<str>, TopicOffsets>,
}

impl Offsets {
    fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&OffsetValue> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    fn insert(&mut self, key: &OffsetKey, value: OffsetValue) {
        let topics = match self.groups.get_mut(&key.group) {
            Some(topics) => topics,
            None => self.groups.entry(key.group.clone()).or_default(),
        };
        let partitions = match topics.get_mut(&key.topic) {
            Some(partitions) => partitions,
            None => topics.entry(key.topic.clone()).or_default(),
        };
        partitions.insert(key.partition, value);
    }

    fn remove(&mut self, key: &OffsetKey) {
        let Some(topics) = self.groups.get_mut(&key.group) else { return };
        let Some(partitions) = topics.get_mut(&key.topic) else { return };
        partitions.remove(&key.partition);
        if partitions.is_empty() {
            topics.remove(&key.topic);
        }
        if topics.is_empty() {
            self.groups.remove(&key.group);
        }
    }

    /// Takes one record of the log.
    pub(super) fn apply(&mut self, key: &OffsetKey, value: Option<&OffsetValue>) {
        match value {
            Some(value) => self.insert(key, value.clone()),
            None => self.remove(key),
        }
    }

    fn of<'a>(
        &'a self,
        group: &'a Arc<str>,
    ) -> impl Iterator<Item = (OffsetKey, &'a OffsetValue)> + 'a {
        let key = |topic: &Arc<str>, partition: i32| OffsetKey {
            group: group.clone(),
            topic: topic.clone(),
            partition,
        };
        self.groups.get(group).into_iter().flatten().flat_map(move |(topic, partitions)| {
            partitions.iter().map(move |(&partition, value)| (key(topic, partition), value))
        })
    }

    /// The records that delete every offset of a group.
    pub(super) fn tombstones(&self, group: &Arc<str>, records: &mut Vec<GroupRecord>) {
        records.extend(self.of(group).map(|(key, _)| tombstone(key)));
    }

    /// Every offset as a record.
    #[cfg(test)]
    pub(super) fn records(&self) -> Vec<GroupRecord> {
        let record = |(key, value): (OffsetKey, &OffsetValue)| GroupRecord::OffsetCommit {
            key,
            value: Some(value.clone()),
        };
        self.groups.keys().flat_map(|group| self.of(group).map(record)).collect()
    }
}

fn tombstone(key: OffsetKey) -> GroupRecord {
    GroupRecord::OffsetCommit { key, value: None }
}

/// Takes an OffsetCommit, for a group of either protocol.
pub(super) fn commit(shard: &mut GroupShard, id: RequestId, request: CommitOffsetsRequest) {
    if let Err(error) = validate_commit(shard, &request) {
        return shard.context.reply(id, GroupReply::CommitOffsets(Err(error)));
    }
    if let Some(Group::Classic(group)) = shard.groups.get(&request.group_id)
        && matches!(group.state(), ClassicState::Stable | ClassicState::PreparingRebalance)
    {
        group.touch(&mut shard.context, &request.member_id);
    }
    let retention_ms = request.retention_ms.filter(|&retention_ms| retention_ms >= 0);
    let now = shard.context.now;
    let expire_timestamp = retention_ms.map_or(TimestampMs::NONE, |after| now.plus(after));
    let mut records = Vec::new();
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut codes = Vec::with_capacity(topic.partitions.len());
        let known = shard.context.topics.topic(&topic.name).map(|known| known.id);
        let topic_id = Some(topic.id).filter(|&id| id != TopicId::ZERO).or(known);
        for partition in &topic.partitions {
            let topic_id = topic_id.unwrap_or(TopicId::ZERO);
            let code = validate_partition(shard, &request, topic_id, partition);
            codes.push((partition.partition, code));
            if !code.is_ok() {
                continue;
            }
            let key = OffsetKey {
                group: request.group_id.clone(),
                topic: topic.name.clone(),
                partition: partition.partition,
            };
            let value = OffsetValue {
                offset: partition.offset,
                leader_epoch: partition.leader_epoch,
                metadata: partition.metadata.clone().unwrap_or_else(|| shard.context.empty()),
                commit_timestamp: now,
                expire_timestamp,
                topic_id: topic.id,
            };
            records.push(GroupRecord::OffsetCommit { key, value: Some(value) });
        }
        let (name, id) = (topic.name.clone(), topic.id);
        results.push(PartitionResults { name, id, partitions: codes });
    }
    shard.commit(records, Some((id, GroupReply::CommitOffsets(Ok(results)))));
}

fn validate_commit(shard: &GroupShard, request: &CommitOffsetsRequest) -> Result<(), GroupError> {
    match shard.groups.get(&request.group_id) {
        Some(Group::Classic(group)) => group.validate_commit(request),
        Some(Group::Consumer(group)) => group.validate_commit(request),
        // A consumer that assigns its own partitions creates a group by committing.
        None if request.generation_or_epoch < 0 => Ok(()),
        None => {
            let code = if request.knows_member_epochs {
                ErrorCode::GroupIdNotFound
            } else {
                ErrorCode::IllegalGeneration
            };
            let message = format!(
                "there is no group {}, let alone its generation {}",
                request.group_id, request.generation_or_epoch
            );
            Err(GroupError::new(code, message))
        }
    }
}

fn validate_partition(
    shard: &GroupShard,
    request: &CommitOffsetsRequest,
    topic: TopicId,
    partition: &CommitPartition,
) -> ErrorCode {
    let size_max = shard.context.config.offset_metadata_bytes_max;
    // Kafka counts the length as Java does.
    let is_too_large =
        |text: &Arc<str>| text.len() > size_max && text.encode_utf16().count() > size_max;
    if partition.metadata.as_ref().is_some_and(is_too_large) {
        return ErrorCode::OffsetMetadataTooLarge;
    }
    match shard.groups.get(&request.group_id) {
        Some(Group::Consumer(group)) => {
            group.validate_commit_partition(request, topic, partition.partition)
        }
        _ => ErrorCode::None,
    }
}

/// Takes an OffsetFetch, for a group of either protocol.
pub(super) fn fetch(shard: &GroupShard, request: &FetchOffsetsRequest) -> GroupReply {
    if let Some(Group::Consumer(group)) = shard.groups.get(&request.group_id)
        && let Err(error) = group.validate_fetch(
            &request.group_id,
            request.member_id.as_deref(),
            request.member_epoch,
        )
    {
        return GroupReply::FetchOffsets(Err(error));
    }
    let fetched = |partition: i32, value: Option<&OffsetValue>| FetchedPartition {
        partition,
        offset: value.map_or(Offset::UNKNOWN, |value| value.offset),
        leader_epoch: value.map_or(LeaderEpoch::UNKNOWN, |value| value.leader_epoch),
        metadata: value.map_or_else(|| shard.context.empty(), |value| value.metadata.clone()),
        error: ErrorCode::None,
    };
    let topics = match &request.topics {
        Some(topics) => {
            let one = |topic: &FetchTopic| FetchedTopic {
                name: topic.name.clone(),
                id: topic.id,
                partitions: topic
                    .partitions
                    .iter()
                    .map(|&partition| {
                        let offset = shard.offsets.get(&request.group_id, &topic.name, partition);
                        fetched(partition, offset)
                    })
                    .collect(),
            };
            topics.iter().map(one).collect()
        }
        None => {
            let all = shard.offsets.groups.get(&request.group_id).into_iter().flatten();
            all.map(|(name, partitions)| FetchedTopic {
                name: name.clone(),
                id: partitions.values().next_back().map_or(TopicId::ZERO, |value| value.topic_id),
                partitions: partitions
                    .iter()
                    .map(|(&at, value)| fetched(at, Some(value)))
                    .collect(),
            })
            .collect()
        }
    };
    GroupReply::FetchOffsets(Ok(topics))
}

/// Takes an OffsetDelete, for a group of either protocol.
pub(super) fn delete(shard: &mut GroupShard, id: RequestId, request: DeleteOffsetsRequest) {
    let group_id = &request.group_id;
    let refused = match shard.groups.get(group_id) {
        Some(Group::Classic(group)) if !group.is_empty() && !group.is_of_consumers() => {
            let message = format!(
                "group {group_id} has members but does not say which topics \
                 they read"
            );
            Some(GroupError::new(ErrorCode::NonEmptyGroup, message))
        }
        Some(_) => None,
        None => Some(no_group(group_id)),
    };
    if let Some(error) = refused {
        return shard.context.reply(id, GroupReply::DeleteOffsets(Err(error)));
    }
    let mut records = Vec::new();
    let mut results = Vec::with_capacity(request.topics.len());
    for (topic, partitions) in request.topics {
        let is_subscribed = shard.groups.get(group_id).is_some_and(|g| g.is_subscribed_to(&topic));
        let code = if is_subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
        for &partition in &partitions {
            if !is_subscribed && shard.offsets.get(group_id, &topic, partition).is_some() {
                let (group, topic) = (group_id.clone(), topic.clone());
                records.push(tombstone(OffsetKey { group, topic, partition }));
            }
        }
        let partitions = partitions.into_iter().map(|partition| (partition, code)).collect();
        results.push(PartitionResults { name: topic, id: TopicId::ZERO, partitions });
    }
    shard.commit(records, Some((id, GroupReply::DeleteOffsets(Ok(results)))));
}

pub(super) fn no_group(group: &str) -> GroupError {
    GroupError::new(ErrorCode::GroupIdNotFound, format!("there is no group {group}"))
}

/// Topics are deleted, and so are their offsets, unless they were committed for a later topic of
/// the same name.
pub(super) fn topics_deleted(shard: &mut GroupShard, topics: &[(TopicId, Arc<str>)]) {
    let ids: BTreeSet<TopicId> = topics.iter().map(|(id, _)| *id).collect();
    let names: BTreeSet<&Arc<str>> = topics.iter().map(|(_, name)| name).collect();
    delete_where(shard, |key, value| match value.topic_id {
        TopicId::ZERO => names.contains(&key.topic),
        id => ids.contains(&id),
    });
}

/// Deletes the offsets of topics that were deleted while nobody was told, or whose tombstones were not written.
pub(super) fn topics_missed(shard: &mut GroupShard) {
    let known = Arc::clone(&shard.context.topics);
    delete_where(shard, |_, value| {
        value.topic_id != TopicId::ZERO && known.topic_by_id(value.topic_id).is_none()
    });
}

/// Deletes offsets, by one append for each group, so that none is too large.
fn delete_where(shard: &mut GroupShard, is_gone: impl Fn(&OffsetKey, &OffsetValue) -> bool) {
    let groups: Vec<Arc<str>> = shard.offsets.groups.keys().cloned().collect();
    for group in groups {
        let gone = shard.offsets.of(&group).filter(|(key, value)| is_gone(key, value));
        let records = gone.map(|(key, _)| tombstone(key)).collect();
        shard.commit(records, None);
    }
}

/// Looks for what has expired, and when to look again.
pub(super) fn expire(shard: &mut GroupShard) {
    arm_expiry(shard);
    let ids: Vec<Arc<str>> = shard.groups.keys().cloned().collect();
    for id in ids {
        let Some(group) = shard.groups.get(&id) else { continue };
        let mut records = Vec::new();
        let is_last = expired(shard, &id, group, &mut records);
        if is_last && group.is_empty() {
            group.tombstones(&id, &mut records);
        }
        // One append for each group, so that none is too large.
        shard.commit(records, None);
    }
}

/// When to look for expired offsets next.
pub(super) fn arm_expiry(shard: &mut GroupShard) {
    let interval_ms = shard.context.config.offsets_retention_check_interval_ms;
    let deadline = shard.context.now.plus(interval_ms);
    shard.context.timers.set(TimerKey::OffsetExpiry, deadline);
}

/// The tombstones of what has expired in a group. Returns whether no offset is left.
fn expired(
    shard: &GroupShard,
    id: &Arc<str>,
    group: &Group,
    records: &mut Vec<GroupRecord>,
) -> bool {
    let base = match group {
        Group::Classic(group) => ClassicGroup::expiry_base(group),
        Group::Consumer(_) => ExpiryBase::Commit,
    };
    let retention_ms = shard.context.config.offsets_retention_ms;
    let now = shard.context.now;
    let mut is_last = true;
    for (key, value) in shard.offsets.of(id) {
        let deadline = match base {
            ExpiryBase::Never => None,
            _ if group.is_subscribed_to(&key.topic) => None,
            _ if value.expire_timestamp != TimestampMs::NONE => Some(value.expire_timestamp),
            ExpiryBase::Commit => Some(value.commit_timestamp.plus(retention_ms)),
            ExpiryBase::Since(since) => Some(since.plus(retention_ms)),
        };
        if deadline.is_some_and(|deadline| now >= deadline) {
            records.push(tombstone(key));
        } else {
            is_last = false;
        }
    }
    is_last
}
