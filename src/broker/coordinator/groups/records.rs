//! The coordinator's records as Kafka writes them, and back.
//!
//! Why: a shard's records must be readable by Kafka's own tools, and by a Kafka that takes over the
//! directory. Values are written in the versions that Kafka 4.4 writes; older versions are read.
//!
//! An unknown record type (share groups, streams groups) is skipped, as Kafka skips what a newer
//! broker wrote: [`decode`] returns `None`.

use bytes::Bytes;

use super::KeyAndValue;
use crate::error::{Error, Result};
use crate::machine::group::{
    AssignedPartitions, ClassicGroupValue, ClassicMemberMetadata, ClassicMemberValue,
    ClassicProtocol, ConsumerGroupValue, ConsumerMemberValue, CurrentAssignmentValue, GroupRecord,
    OffsetKey, OffsetValue, RegularExpressionValue, TargetAssignmentValue, TopicPartitions,
};
use crate::protocol::records::consumer_assignment as assignment;
use crate::protocol::records::consumer_group as consumer;
use crate::protocol::records::group_metadata::{
    GroupMetadataKey, GroupMetadataValue, MemberMetadata,
};
use crate::protocol::records::offset_commit::{OffsetCommitKey, OffsetCommitValue};
use crate::protocol::records::{read_key, read_value, record_type, write_key, write_versioned};
use crate::protocol::{Decoder, Message, Str};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs};

/// The record types, by the number at the start of a key.
mod types {
    pub(super) const LEGACY_OFFSET_COMMIT: i16 = 0;
    pub(super) const OFFSET_COMMIT: i16 = 1;
    pub(super) const GROUP_METADATA: i16 = 2;
    pub(super) const CONSUMER_GROUP_METADATA: i16 = 3;
    pub(super) const CONSUMER_GROUP_PARTITION_METADATA: i16 = 4;
    pub(super) const CONSUMER_GROUP_MEMBER_METADATA: i16 = 5;
    pub(super) const CONSUMER_GROUP_TARGET_METADATA: i16 = 6;
    pub(super) const CONSUMER_GROUP_TARGET_MEMBER: i16 = 7;
    pub(super) const CONSUMER_GROUP_CURRENT_MEMBER: i16 = 8;
    pub(super) const CONSUMER_GROUP_REGEX: i16 = 16;
}

/// The version of an offset without its own retention.
const OFFSET_VERSION: i16 = 4;
/// The version of an offset with its own retention.
const OFFSET_WITH_EXPIRY_VERSION: i16 = 1;
/// The version of a classic group: the last one before tagged fields, as Kafka writes it (KIP-915).
const GROUP_VERSION: i16 = 3;
/// The version of everything else.
const CONSUMER_VERSION: i16 = 0;

fn pair<K: Message, V: Message>(
    record_type: i16,
    key: &K,
    value: Option<(V, i16)>,
) -> Result<KeyAndValue> {
    let value = value.map(|(value, version)| write_versioned(&value, version)).transpose()?;
    Ok((write_key(record_type, key)?, value))
}

/// Writes a record.
///
/// # Errors
///
/// When a name is longer than Kafka's strings can be.
pub(super) fn encode(record: &GroupRecord) -> Result<KeyAndValue> {
    match record {
        GroupRecord::OffsetCommit { key, value } => encode_offset(key, value.as_ref()),
        GroupRecord::PendingOffset { key, value, .. } => encode_offset(key, Some(value)),
        GroupRecord::TransactionEnd { producer, .. } => {
            let context = format!("the end of the transaction of producer {producer}");
            Err(Error::invalid(format!("{context} is not a record but a control batch")))
        }
        GroupRecord::GroupMetadata { group, value } => {
            let key = GroupMetadataKey { group: group.into() };
            let value = value.as_ref().map(|value| (write_classic(value), GROUP_VERSION));
            pair(types::GROUP_METADATA, &key, value)
        }
        GroupRecord::ConsumerGroupRegularExpression { group, regex, value } => {
            let key = consumer::ConsumerGroupRegularExpressionKey {
                group_id: group.into(),
                regular_expression: regex.into(),
            };
            let write = |value: &RegularExpressionValue| {
                let value = consumer::ConsumerGroupRegularExpressionValue {
                    topics: value.topics.iter().map(Str::from).collect(),
                    version: value.version,
                    timestamp: value.timestamp.0,
                };
                (value, CONSUMER_VERSION)
            };
            pair(types::CONSUMER_GROUP_REGEX, &key, value.as_ref().map(write))
        }
        record => encode_consumer(record),
    }
}

fn encode_consumer(record: &GroupRecord) -> Result<KeyAndValue> {
    match record {
        GroupRecord::ConsumerGroupMetadata { group, value } => {
            let key = consumer::ConsumerGroupMetadataKey { group_id: group.into() };
            let write = |value: &ConsumerGroupValue| {
                let ConsumerGroupValue { epoch, metadata_hash } = *value;
                let value = consumer::ConsumerGroupMetadataValue { epoch, metadata_hash };
                (value, CONSUMER_VERSION)
            };
            pair(types::CONSUMER_GROUP_METADATA, &key, value.as_ref().map(write))
        }
        GroupRecord::ConsumerGroupPartitionMetadata { group, tombstone } => {
            let key = consumer::ConsumerGroupPartitionMetadataKey { group_id: group.into() };
            let empty = consumer::ConsumerGroupPartitionMetadataValue::default();
            let value = (!tombstone).then_some((empty, CONSUMER_VERSION));
            pair(types::CONSUMER_GROUP_PARTITION_METADATA, &key, value)
        }
        GroupRecord::ConsumerGroupMemberMetadata { group, member, value } => {
            let key = consumer::ConsumerGroupMemberMetadataKey {
                group_id: group.into(),
                member_id: member.into(),
            };
            let value = value.as_ref().map(|value| (write_member(value), CONSUMER_VERSION));
            pair(types::CONSUMER_GROUP_MEMBER_METADATA, &key, value)
        }
        GroupRecord::ConsumerGroupTargetAssignmentMetadata { group, value } => {
            let key =
                assignment::ConsumerGroupTargetAssignmentMetadataKey { group_id: group.into() };
            let write = |value: &TargetAssignmentValue| {
                let value = assignment::ConsumerGroupTargetAssignmentMetadataValue {
                    assignment_epoch: value.epoch,
                    assignment_timestamp: value.timestamp.0,
                };
                (value, CONSUMER_VERSION)
            };
            pair(types::CONSUMER_GROUP_TARGET_METADATA, &key, value.as_ref().map(write))
        }
        GroupRecord::ConsumerGroupTargetAssignmentMember { group, member, value } => {
            let key = assignment::ConsumerGroupTargetAssignmentMemberKey {
                group_id: group.into(),
                member_id: member.into(),
            };
            let value = value.as_ref().map(|value| (write_target(value), CONSUMER_VERSION));
            pair(types::CONSUMER_GROUP_TARGET_MEMBER, &key, value)
        }
        GroupRecord::ConsumerGroupCurrentMemberAssignment { group, member, value } => {
            let key = assignment::ConsumerGroupCurrentMemberAssignmentKey {
                group_id: group.into(),
                member_id: member.into(),
            };
            let value = value.as_ref().map(|value| (write_current(value), CONSUMER_VERSION));
            pair(types::CONSUMER_GROUP_CURRENT_MEMBER, &key, value)
        }
        // Written by `encode`, which calls this for the others.
        GroupRecord::OffsetCommit { .. }
        | GroupRecord::PendingOffset { .. }
        | GroupRecord::TransactionEnd { .. }
        | GroupRecord::GroupMetadata { .. }
        | GroupRecord::ConsumerGroupRegularExpression { .. } => encode(record),
    }
}

fn encode_offset(key: &OffsetKey, value: Option<&OffsetValue>) -> Result<KeyAndValue> {
    let key = OffsetCommitKey {
        group: (&key.group).into(),
        topic: (&key.topic).into(),
        partition: key.partition.0,
    };
    pair(types::OFFSET_COMMIT, &key, value.map(write_offset))
}

fn write_offset(value: &OffsetValue) -> (OffsetCommitValue, i16) {
    let expires = value.expire_timestamp != TimestampMs::NONE;
    let version = if expires { OFFSET_WITH_EXPIRY_VERSION } else { OFFSET_VERSION };
    let value = OffsetCommitValue {
        offset: value.offset.0,
        leader_epoch: value.leader_epoch.0,
        metadata: (&value.metadata).into(),
        commit_timestamp: value.commit_timestamp.0,
        expire_timestamp: value.expire_timestamp.0,
        topic_id: value.topic_id,
    };
    (value, version)
}

fn write_classic(value: &ClassicGroupValue) -> GroupMetadataValue {
    let member = |member: &ClassicMemberValue| MemberMetadata {
        member_id: (&member.member_id).into(),
        group_instance_id: member.instance_id.as_ref().map(Str::from),
        client_id: (&member.client_id).into(),
        client_host: (&member.client_host).into(),
        rebalance_timeout: member.rebalance_timeout_ms,
        session_timeout: member.session_timeout_ms,
        subscription: member.subscription.clone(),
        assignment: member.assignment.clone(),
    };
    GroupMetadataValue {
        protocol_type: (&value.protocol_type).into(),
        generation: value.generation,
        protocol: value.protocol.as_ref().map(Str::from),
        leader: value.leader.as_ref().map(Str::from),
        current_state_timestamp: value.current_state_timestamp.0,
        members: value.members.iter().map(member).collect(),
    }
}

fn write_member(value: &ConsumerMemberValue) -> consumer::ConsumerGroupMemberMetadataValue {
    let protocol = |protocol: &ClassicProtocol| consumer::ClassicProtocol {
        name: (&protocol.name).into(),
        metadata: protocol.metadata.clone(),
    };
    let classic = |classic: &ClassicMemberMetadata| consumer::ClassicMemberMetadata {
        session_timeout_ms: classic.session_timeout_ms,
        supported_protocols: classic.protocols.iter().map(protocol).collect(),
    };
    consumer::ConsumerGroupMemberMetadataValue {
        instance_id: value.instance_id.as_ref().map(Str::from),
        rack_id: value.rack_id.as_ref().map(Str::from),
        client_id: (&value.client_id).into(),
        client_host: (&value.client_host).into(),
        subscribed_topic_names: value.subscribed_topic_names.iter().map(Str::from).collect(),
        subscribed_topic_regex: value.subscribed_topic_regex.as_ref().map(Str::from),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        server_assignor: value.server_assignor.as_ref().map(Str::from),
        classic_member_metadata: value.classic.as_ref().map(classic),
    }
}

fn write_target(value: &[TopicPartitions]) -> assignment::ConsumerGroupTargetAssignmentMemberValue {
    let topic = |topic: &TopicPartitions| assignment::TargetTopicPartition {
        topic_id: topic.topic_id,
        partitions: PartitionIndex::numbers(&topic.partitions),
    };
    assignment::ConsumerGroupTargetAssignmentMemberValue {
        topic_partitions: value.iter().map(topic).collect(),
    }
}

fn write_current(
    value: &CurrentAssignmentValue,
) -> assignment::ConsumerGroupCurrentMemberAssignmentValue {
    let topic = |topic: &AssignedPartitions| assignment::CurrentTopicPartitions {
        topic_id: topic.topic_id,
        partitions: PartitionIndex::numbers(&topic.partitions),
        assignment_epochs: topic.assignment_epochs.clone(),
    };
    assignment::ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: value.member_epoch,
        previous_member_epoch: value.previous_member_epoch,
        state: value.state,
        assigned_partitions: value.assigned.iter().map(topic).collect(),
        partitions_pending_revocation: value.pending_revocation.iter().map(topic).collect(),
    }
}

/// Reads a record; `None` for an unknown type.
///
/// # Errors
///
/// When the bytes do not match their type, or their version is unknown.
pub(super) fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<GroupRecord>> {
    let (found, rest) = record_type(key)?;
    let record = match found {
        types::LEGACY_OFFSET_COMMIT | types::OFFSET_COMMIT => {
            let key: OffsetCommitKey = read_key(rest)?;
            GroupRecord::OffsetCommit {
                key: OffsetKey {
                    group: key.group.into(),
                    topic: key.topic.into(),
                    partition: PartitionIndex(key.partition),
                },
                value: read(value, read_offset)?,
            }
        }
        types::GROUP_METADATA => GroupRecord::GroupMetadata {
            group: read_key::<GroupMetadataKey>(rest)?.group.into(),
            value: read(value, read_classic)?,
        },
        _ => return decode_consumer(found, rest, value),
    };
    Ok(Some(record))
}

/// Reads a record of a group of the consumer protocol; `None` for an unknown type.
fn decode_consumer(found: i16, rest: Decoder, value: Option<Bytes>) -> Result<Option<GroupRecord>> {
    let record = match found {
        types::CONSUMER_GROUP_METADATA => GroupRecord::ConsumerGroupMetadata {
            group: read_key::<consumer::ConsumerGroupMetadataKey>(rest)?.group_id.into(),
            value: read(value, |value: consumer::ConsumerGroupMetadataValue| ConsumerGroupValue {
                epoch: value.epoch,
                metadata_hash: value.metadata_hash,
            })?,
        },
        types::CONSUMER_GROUP_PARTITION_METADATA => GroupRecord::ConsumerGroupPartitionMetadata {
            group: read_key::<consumer::ConsumerGroupPartitionMetadataKey>(rest)?.group_id.into(),
            tombstone: value.is_none(),
        },
        types::CONSUMER_GROUP_MEMBER_METADATA => {
            let key: consumer::ConsumerGroupMemberMetadataKey = read_key(rest)?;
            GroupRecord::ConsumerGroupMemberMetadata {
                group: key.group_id.into(),
                member: key.member_id.into(),
                value: read(value, read_member)?,
            }
        }
        types::CONSUMER_GROUP_TARGET_METADATA => {
            let key: assignment::ConsumerGroupTargetAssignmentMetadataKey = read_key(rest)?;
            GroupRecord::ConsumerGroupTargetAssignmentMetadata {
                group: key.group_id.into(),
                value: read(
                    value,
                    |value: assignment::ConsumerGroupTargetAssignmentMetadataValue| {
                        TargetAssignmentValue {
                            epoch: value.assignment_epoch,
                            timestamp: TimestampMs(value.assignment_timestamp),
                        }
                    },
                )?,
            }
        }
        types::CONSUMER_GROUP_TARGET_MEMBER => {
            let key: assignment::ConsumerGroupTargetAssignmentMemberKey = read_key(rest)?;
            GroupRecord::ConsumerGroupTargetAssignmentMember {
                group: key.group_id.into(),
                member: key.member_id.into(),
                value: read(value, read_target)?,
            }
        }
        types::CONSUMER_GROUP_CURRENT_MEMBER => {
            let key: assignment::ConsumerGroupCurrentMemberAssignmentKey = read_key(rest)?;
            GroupRecord::ConsumerGroupCurrentMemberAssignment {
                group: key.group_id.into(),
                member: key.member_id.into(),
                value: read(value, read_current)?,
            }
        }
        types::CONSUMER_GROUP_REGEX => {
            let key: consumer::ConsumerGroupRegularExpressionKey = read_key(rest)?;
            GroupRecord::ConsumerGroupRegularExpression {
                group: key.group_id.into(),
                regex: key.regular_expression.into(),
                value: read(value, read_regex)?,
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(record))
}

fn read<V: Message, T>(value: Option<Bytes>, convert: impl FnOnce(V) -> T) -> Result<Option<T>> {
    value.map(|value| read_value(value).map(convert)).transpose()
}

/// A copy that does not keep alive what the bytes were cut from: a frame, or a mapped segment.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn read_offset(value: OffsetCommitValue) -> OffsetValue {
    OffsetValue {
        offset: Offset(value.offset),
        leader_epoch: LeaderEpoch(value.leader_epoch),
        metadata: value.metadata.into(),
        commit_timestamp: TimestampMs(value.commit_timestamp),
        expire_timestamp: TimestampMs(value.expire_timestamp),
        topic_id: value.topic_id,
    }
}

fn read_classic(value: GroupMetadataValue) -> ClassicGroupValue {
    let member = |member: MemberMetadata| ClassicMemberValue {
        member_id: member.member_id.into(),
        instance_id: member.group_instance_id.map(Into::into),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        rebalance_timeout_ms: member.rebalance_timeout,
        session_timeout_ms: member.session_timeout,
        subscription: own(&member.subscription),
        assignment: own(&member.assignment),
    };
    ClassicGroupValue {
        protocol_type: value.protocol_type.into(),
        generation: value.generation,
        protocol: value.protocol.map(Into::into),
        leader: value.leader.map(Into::into),
        current_state_timestamp: TimestampMs(value.current_state_timestamp),
        members: value.members.into_iter().map(member).collect(),
    }
}

fn read_member(value: consumer::ConsumerGroupMemberMetadataValue) -> ConsumerMemberValue {
    let protocol = |protocol: consumer::ClassicProtocol| ClassicProtocol {
        name: protocol.name.into(),
        metadata: own(&protocol.metadata),
    };
    let classic = |classic: consumer::ClassicMemberMetadata| ClassicMemberMetadata {
        session_timeout_ms: classic.session_timeout_ms,
        protocols: classic.supported_protocols.into_iter().map(protocol).collect(),
    };
    ConsumerMemberValue {
        instance_id: value.instance_id.map(Into::into),
        rack_id: value.rack_id.map(Into::into),
        client_id: value.client_id.into(),
        client_host: value.client_host.into(),
        subscribed_topic_names: value.subscribed_topic_names.into_iter().map(Into::into).collect(),
        subscribed_topic_regex: value.subscribed_topic_regex.map(Into::into),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        server_assignor: value.server_assignor.map(Into::into),
        classic: value.classic_member_metadata.map(classic),
    }
}

fn read_target(
    value: assignment::ConsumerGroupTargetAssignmentMemberValue,
) -> Vec<TopicPartitions> {
    let topic = |topic: assignment::TargetTopicPartition| TopicPartitions {
        topic_id: topic.topic_id,
        partitions: PartitionIndex::list(&topic.partitions),
    };
    value.topic_partitions.into_iter().map(topic).collect()
}

fn read_current(
    value: assignment::ConsumerGroupCurrentMemberAssignmentValue,
) -> CurrentAssignmentValue {
    let topic = |topic: assignment::CurrentTopicPartitions| AssignedPartitions {
        topic_id: topic.topic_id,
        partitions: PartitionIndex::list(&topic.partitions),
        assignment_epochs: topic.assignment_epochs,
    };
    CurrentAssignmentValue {
        member_epoch: value.member_epoch,
        previous_member_epoch: value.previous_member_epoch,
        state: value.state,
        assigned: value.assigned_partitions.into_iter().map(topic).collect(),
        pending_revocation: value.partitions_pending_revocation.into_iter().map(topic).collect(),
    }
}

fn read_regex(value: consumer::ConsumerGroupRegularExpressionValue) -> RegularExpressionValue {
    RegularExpressionValue {
        topics: value.topics.into_iter().map(Into::into).collect(),
        version: value.version,
        timestamp: TimestampMs(value.timestamp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Uuid;

    fn check(record: &GroupRecord) {
        let (key, value) = encode(record).unwrap();
        assert_eq!(decode(key, value).unwrap().as_ref(), Some(record));
    }

    fn offset(expire: i64) -> GroupRecord {
        GroupRecord::OffsetCommit {
            key: OffsetKey { group: "g".into(), topic: "t".into(), partition: PartitionIndex(3) },
            value: Some(OffsetValue {
                offset: Offset(7),
                leader_epoch: if expire < 0 { LeaderEpoch(2) } else { LeaderEpoch::UNKNOWN },
                metadata: "m".into(),
                commit_timestamp: TimestampMs(11),
                expire_timestamp: TimestampMs(expire),
                topic_id: if expire < 0 { Uuid([7; 16]) } else { Uuid::ZERO },
            }),
        }
    }

    #[test]
    fn offsets_and_classic_groups_come_back() {
        check(&offset(-1));
        check(&offset(99));
        let group = || "g".into();
        check(&GroupRecord::GroupMetadata { group: group(), value: None });
        let member = ClassicMemberValue {
            member_id: "m".into(),
            instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 1,
            session_timeout_ms: 2,
            subscription: Bytes::from_static(b"s"),
            assignment: Bytes::new(),
        };
        let value = ClassicGroupValue {
            protocol_type: "consumer".into(),
            generation: 5,
            protocol: Some("range".into()),
            leader: None,
            current_state_timestamp: TimestampMs(9),
            members: vec![member],
        };
        check(&GroupRecord::GroupMetadata { group: group(), value: Some(value) });
    }

    #[test]
    fn records_of_consumer_groups_come_back() {
        let group = || "g".into();
        let member = || "m".into();
        let value = Some(ConsumerGroupValue { epoch: 4, metadata_hash: -3 });
        check(&GroupRecord::ConsumerGroupMetadata { group: group(), value });
        for tombstone in [true, false] {
            check(&GroupRecord::ConsumerGroupPartitionMetadata { group: group(), tombstone });
        }
        let said = ConsumerMemberValue {
            instance_id: None,
            rack_id: Some("r".into()),
            client_id: "c".into(),
            client_host: "h".into(),
            subscribed_topic_names: vec!["t".into()],
            subscribed_topic_regex: Some("t.*".into()),
            rebalance_timeout_ms: 1,
            server_assignor: None,
            classic: Some(ClassicMemberMetadata {
                session_timeout_ms: 3,
                protocols: vec![ClassicProtocol { name: "range".into(), metadata: "x".into() }],
            }),
        };
        let value = Some(said);
        check(&GroupRecord::ConsumerGroupMemberMetadata {
            group: group(),
            member: member(),
            value,
        });
        let value = Some(TargetAssignmentValue { epoch: 2, timestamp: TimestampMs(0) });
        check(&GroupRecord::ConsumerGroupTargetAssignmentMetadata { group: group(), value });
        let topic_id = Uuid([1; 16]);
        let value =
            Some(vec![TopicPartitions { topic_id, partitions: PartitionIndex::list(&[0, 2]) }]);
        check(&GroupRecord::ConsumerGroupTargetAssignmentMember {
            group: group(),
            member: member(),
            value,
        });
        let assigned = |assignment_epochs| {
            vec![AssignedPartitions {
                topic_id,
                partitions: vec![PartitionIndex(1)],
                assignment_epochs,
            }]
        };
        let value = Some(CurrentAssignmentValue {
            member_epoch: 2,
            previous_member_epoch: 1,
            state: 1,
            assigned: assigned(Some(vec![2])),
            pending_revocation: assigned(None),
        });
        check(&GroupRecord::ConsumerGroupCurrentMemberAssignment {
            group: group(),
            member: member(),
            value,
        });
        let value = RegularExpressionValue {
            topics: vec!["t".into()],
            version: 3,
            timestamp: TimestampMs(4),
        };
        check(&GroupRecord::ConsumerGroupRegularExpression {
            group: group(),
            regex: "t.*".into(),
            value: Some(value),
        });
    }

    #[test]
    fn an_unknown_type_is_left_alone_and_a_broken_one_is_an_error() {
        assert_eq!(decode(Bytes::from_static(b"\0\x0b\0\x01g"), None).unwrap(), None);
        assert!(decode(Bytes::from_static(b"\0\x01\0"), None).is_err());
        assert!(decode(Bytes::new(), None).is_err());
    }
}
