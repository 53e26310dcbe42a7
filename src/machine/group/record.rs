//! The records of `__consumer_offsets`: what a restart rebuilds the groups from.
//!
//! One variant per kind of key that Kafka's coordinator writes, with the fields of its newest
//! schema. A value of `None` is a tombstone. Their encoding is the shell's business.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::{LeaderEpoch, Offset, PartitionIndex, ProducerId, TimestampMs, TopicId};

/// One record: a key, and a value or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    /// A committed offset (key type 1).
    OffsetCommit {
        /// Whose offset.
        key: OffsetKey,
        /// The offset; `None` deletes it.
        value: Option<OffsetValue>,
    },
    /// An offset that was committed in a transaction (key type 1, in a transactional batch): it counts from when
    /// the transaction is committed.
    PendingOffset {
        /// Whose transaction.
        producer: ProducerId,
        /// Whose offset.
        key: OffsetKey,
        /// The offset.
        value: OffsetValue,
    },
    /// The transaction of a producer ended (a control batch).
    TransactionEnd {
        /// Whose transaction.
        producer: ProducerId,
        /// Whether it was committed; aborted otherwise.
        committed: bool,
    },
    /// A classic group (key type 2).
    GroupMetadata {
        /// The group.
        group: Arc<str>,
        /// Its generation; `None` deletes the group.
        value: Option<ClassicGroupValue>,
    },
    /// A consumer group (key type 3).
    ConsumerGroupMetadata {
        /// The group.
        group: Arc<str>,
        /// Its epoch; `None` deletes the group.
        value: Option<ConsumerGroupValue>,
    },
    /// What brokers before 4.1 wrote about subscribed topics (key type 4). No longer written,
    /// except as a tombstone over one that was loaded.
    ConsumerGroupPartitionMetadata {
        /// The group.
        group: Arc<str>,
        /// Whether this is the tombstone.
        tombstone: bool,
    },
    /// A member of a consumer group (key type 5).
    ConsumerGroupMemberMetadata {
        /// The group.
        group: Arc<str>,
        /// The member.
        member: Arc<str>,
        /// What it said about itself; `None` removes it.
        value: Option<ConsumerMemberValue>,
    },
    /// The epoch of a target assignment (key type 6).
    ConsumerGroupTargetAssignmentMetadata {
        /// The group.
        group: Arc<str>,
        /// The epoch; `None` deletes it.
        value: Option<TargetAssignmentValue>,
    },
    /// What one member is to have (key type 7).
    ConsumerGroupTargetAssignmentMember {
        /// The group.
        group: Arc<str>,
        /// The member.
        member: Arc<str>,
        /// The partitions; `None` deletes them.
        value: Option<Vec<TopicPartitions>>,
    },
    /// What one member has (key type 8).
    ConsumerGroupCurrentMemberAssignment {
        /// The group.
        group: Arc<str>,
        /// The member.
        member: Arc<str>,
        /// Its state; `None` deletes it.
        value: Option<CurrentAssignmentValue>,
    },
    /// The topics that a regular expression matched (key type 16).
    ConsumerGroupRegularExpression {
        /// The group.
        group: Arc<str>,
        /// The expression.
        regex: Arc<str>,
        /// The topics; `None` deletes them.
        value: Option<RegularExpressionValue>,
    },
}

impl GroupRecord {
    /// The group that it is about; a transaction may be about several.
    #[must_use]
    pub const fn group(&self) -> Option<&Arc<str>> {
        let group = match self {
            Self::TransactionEnd { .. } => return None,
            Self::OffsetCommit { key, .. } | Self::PendingOffset { key, .. } => &key.group,
            Self::GroupMetadata { group, .. }
            | Self::ConsumerGroupMetadata { group, .. }
            | Self::ConsumerGroupPartitionMetadata { group, .. }
            | Self::ConsumerGroupMemberMetadata { group, .. }
            | Self::ConsumerGroupTargetAssignmentMetadata { group, .. }
            | Self::ConsumerGroupTargetAssignmentMember { group, .. }
            | Self::ConsumerGroupCurrentMemberAssignment { group, .. }
            | Self::ConsumerGroupRegularExpression { group, .. } => group,
        };
        Some(group)
    }
}

/// The key of a committed offset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetKey {
    /// The group.
    pub group: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionIndex,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The leader epoch of the last record that was read; -1 when not known.
    pub leader_epoch: LeaderEpoch,
    /// Metadata that the client keeps with it.
    pub metadata: Arc<str>,
    /// When it was committed.
    pub commit_timestamp: TimestampMs,
    /// When it expires, if the client asked for its own retention; [`TimestampMs::NONE`]
    /// otherwise (version 1 of the value).
    pub expire_timestamp: TimestampMs,
    /// The id of the topic; zero when not known.
    pub topic_id: TopicId,
}

/// A generation of a classic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicGroupValue {
    /// The type of protocol, for example `consumer`; empty when there is none.
    pub protocol_type: Arc<str>,
    /// The generation.
    pub generation: i32,
    /// The protocol that was voted for.
    pub protocol: Option<Arc<str>>,
    /// The leader.
    pub leader: Option<Arc<str>>,
    /// When the group entered its state; [`TimestampMs::NONE`] when not known.
    pub current_state_timestamp: TimestampMs,
    /// The members.
    pub members: Vec<ClassicMemberValue>,
}

/// A member of a classic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicMemberValue {
    /// The member.
    pub member_id: Arc<str>,
    /// Its instance, when it is static.
    pub instance_id: Option<Arc<str>>,
    /// The client id.
    pub client_id: Arc<str>,
    /// The host of the client.
    pub client_host: Arc<str>,
    /// The rebalance timeout; -1 when not known.
    pub rebalance_timeout_ms: i32,
    /// The session timeout.
    pub session_timeout_ms: i32,
    /// Its metadata for the protocol that was voted for.
    pub subscription: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupValue {
    /// The group epoch.
    pub epoch: i32,
    /// A hash over the topics that the group is subscribed to (KIP-1101).
    pub metadata_hash: i64,
}

/// What a member of a consumer group said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerMemberValue {
    /// Its instance, when it is static.
    pub instance_id: Option<Arc<str>>,
    /// Its rack.
    pub rack_id: Option<Arc<str>>,
    /// The client id.
    pub client_id: Arc<str>,
    /// The host of the client.
    pub client_host: Arc<str>,
    /// The topics it subscribed to by name.
    pub subscribed_topic_names: Vec<Arc<str>>,
    /// The expression it subscribed with.
    pub subscribed_topic_regex: Option<Arc<str>>,
    /// The rebalance timeout; -1 when not known.
    pub rebalance_timeout_ms: i32,
    /// The assignor it asked for.
    pub server_assignor: Option<Arc<str>>,
    /// What it said in the classic protocol, if it uses that.
    pub classic: Option<ClassicMemberMetadata>,
}

/// What a consumer group keeps about a member that uses the classic protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicMemberMetadata {
    /// The session timeout.
    pub session_timeout_ms: i32,
    /// The protocols that it supports, best first.
    pub protocols: Vec<ClassicProtocol>,
}

/// A protocol that a classic member supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicProtocol {
    /// Its name, for example `range`.
    pub name: Arc<str>,
    /// What the member says under it; for consumers the encoded subscription.
    pub metadata: Bytes,
}

/// A computed target assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetAssignmentValue {
    /// The group epoch it was computed for.
    pub epoch: i32,
    /// When its computation was finished (KIP-1263); 0 when not known.
    pub timestamp: TimestampMs,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartitions {
    /// The topic.
    pub topic_id: TopicId,
    /// The partitions.
    pub partitions: Vec<PartitionIndex>,
}

/// Partitions of one topic, with the epochs in which they were assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedPartitions {
    /// The topic.
    pub topic_id: TopicId,
    /// The partitions.
    pub partitions: Vec<PartitionIndex>,
    /// For each partition the epoch in which the member got it; `None` when it was not written.
    pub assignment_epochs: Option<Vec<i32>>,
}

/// What a member of a consumer group has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentAssignmentValue {
    /// The epoch that the member is expected to report.
    pub member_epoch: i32,
    /// The previous epoch, which it reports when an answer was lost.
    pub previous_member_epoch: i32,
    /// Kafka's number of the state: 0 stable, 1 unrevoked partitions, 2 unreleased partitions,
    /// 127 unknown.
    pub state: i8,
    /// What it owns.
    pub assigned: Vec<AssignedPartitions>,
    /// What it must give up.
    pub pending_revocation: Vec<AssignedPartitions>,
}

/// What a regular expression matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegularExpressionValue {
    /// The topics.
    pub topics: Vec<Arc<str>>,
    /// The version of the metadata it was matched with.
    pub version: i64,
    /// When it was matched.
    pub timestamp: TimestampMs,
}
