//! Committed offsets: taken, read, deleted, expired.
//!
//! Invariants:
//!
//! - OFFSETS-1: an offset changes by a record alone; a fetch shows the last record of each
//!   key, those of transactions that are open or aborted excepted.
//! - OFFSETS-2: an offset of a topic that its group consumes does not expire, and is not deleted on
//!   request.
//! - OFFSETS-3: a group that exists only for its offsets disappears with the last of them, but not while a transaction
//!   may still commit one.
//! - OFFSETS-4: an offset that an open transaction may change does not expire. Deleting it takes what the
//!   transaction committed, too.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::classic::{ClassicGroup, ClassicState, ExpiryBase};
use super::offset_table::tombstone;
use super::record::{GroupRecord, OffsetKey, OffsetValue};
use super::reply::{FetchedPartition, FetchedTopic, GroupError, GroupReply, PartitionResults};
use super::request::{
    CommitOffsetsRequest, CommitPartition, DeleteOffsetsRequest, FetchOffsetsRequest, FetchTopic,
    RequestId,
};
use super::shard::{Group, GroupShard};
use super::timers::TimerKey;
use crate::error::ErrorCode;
use crate::machine::Replicated as _;
use crate::machine::coordinator::{Producer, TransactionEnd};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId};

/// Takes an OffsetCommit or a TxnOffsetCommit, for a group of either protocol.
pub(super) fn commit(shard: &mut GroupShard, id: RequestId, request: CommitOffsetsRequest) {
    if let Err(error) = validate_commit(shard, &request) {
        return shard.context.reply(id, GroupReply::CommitOffsets(Err(error)));
    }
    if request.transaction.is_none()
        && let Some(Group::Classic(group)) = shard.groups.get(&request.group_id)
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
        let topic_id = match request.transaction {
            // Kafka looks up what the member has by an id that these versions do not give.
            Some(_) if !request.knows_member_epochs => None,
            _ => Some(topic.id).filter(|&id| id != TopicId::ZERO).or(known),
        };
        for partition in &topic.partitions {
            let topic_id = topic_id.unwrap_or(TopicId::ZERO);
            let code = validate_partition(shard, &request, topic_id, partition);
            if request.transaction.is_some() && is_of_member(code) {
                // As Kafka does it, the member commits everything or nothing.
                let message = format!(
                    "group {}: {} does not commit partition {} of {} any more",
                    request.group_id, request.member_id, partition.partition, topic.name
                );
                let reply = GroupReply::CommitOffsets(Err(GroupError::new(code, message)));
                return shard.context.reply(id, reply);
            }
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
            records.push(match request.transaction {
                None => GroupRecord::OffsetCommit { key, value: Some(value) },
                Some(Producer { id, .. }) => {
                    GroupRecord::PendingOffset { producer: id, key, value }
                }
            });
        }
        let (name, id) = (topic.name.clone(), topic.id);
        results.push(PartitionResults { name, id, partitions: codes });
    }
    let reply = (id, GroupReply::CommitOffsets(Ok(results)));
    match request.transaction {
        None => shard.commit(records, Some(reply)),
        Some(producer) => shard.commit_in_transaction(producer, records, reply),
    }
}

/// Whether an error says that the member must not commit, rather than what is wrong with the offset.
const fn is_of_member(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::IllegalGeneration | ErrorCode::StaleMemberEpoch)
}

/// The transaction of a producer ends: what it committed counts, or is forgotten.
pub(super) fn end_transaction(shard: &mut GroupShard, id: RequestId, end: TransactionEnd) {
    let TransactionEnd { producer, committed, .. } = end;
    match shard.apply(&GroupRecord::TransactionEnd { producer: producer.id, committed }) {
        Ok(()) => shard.context.end_transaction(end, (id, GroupReply::EndTransaction)),
        Err(misfit) => shard.context.undo(misfit),
    }
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
    let group_id = &request.group_id;
    let fetched = |topic: &str, partition: PartitionIndex, value: Option<&OffsetValue>| {
        let is_unstable =
            request.require_stable && shard.offsets.is_pending(group_id, topic, partition);
        let value = value.filter(|_| !is_unstable);
        FetchedPartition {
            partition,
            offset: value.map_or(Offset::UNKNOWN, |value| value.offset),
            leader_epoch: value.map_or(LeaderEpoch::UNKNOWN, |value| value.leader_epoch),
            metadata: value.map_or_else(|| shard.context.empty(), |value| value.metadata.clone()),
            error: if is_unstable { ErrorCode::UnstableOffsetCommit } else { ErrorCode::None },
        }
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
                        let offset = shard.offsets.get(group_id, &topic.name, partition);
                        fetched(&topic.name, partition, offset)
                    })
                    .collect(),
            };
            topics.iter().map(one).collect()
        }
        None => {
            let all = shard.offsets.topics(group_id);
            all.map(|(name, id, partitions)| FetchedTopic {
                name: name.clone(),
                id,
                partitions: partitions.map(|(at, value)| fetched(name, at, Some(value))).collect(),
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
            let offsets = &shard.offsets;
            let is_there = offsets.get(group_id, &topic, partition).is_some()
                || offsets.is_pending(group_id, &topic, partition);
            if is_there && !is_subscribed {
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
    for group in shard.offsets.groups() {
        let offsets = &shard.offsets;
        let gone = offsets.of(&group).filter(|(key, value)| is_gone(key, value));
        let mut keys: BTreeSet<OffsetKey> = gone.map(|(key, _)| key).collect();
        // A tombstone takes both: what counts, and is of a topic that is there, is kept.
        let is_kept = |key: &OffsetKey| {
            let value = offsets.get(&key.group, &key.topic, key.partition);
            value.is_some_and(|value| !is_gone(key, value))
        };
        let pending = offsets.pending_of(&group).filter(|(key, value)| is_gone(key, value));
        keys.extend(pending.map(|(key, _)| key).filter(|key| !is_kept(key)));
        shard.commit(keys.into_iter().map(tombstone).collect(), None);
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

/// The tombstones of what has expired in a group. Returns whether no offset is left, nor one that is pending.
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
    let mut is_last = !shard.offsets.has_pending(id);
    for (key, value) in shard.offsets.of(id) {
        let deadline = match base {
            ExpiryBase::Never => None,
            _ if shard.offsets.is_pending(id, &key.topic, key.partition) => None,
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
