//! What a coordinator can be asked: the requests of clients without their wire format.
//!
//! A handler turns whatever differs between versions into plain values, so that the machine never
//! sees a version number.

use std::sync::Arc;

use bytes::Bytes;

use super::record::{ClassicProtocol, GroupRecord, TopicPartitions};
use super::topics::TopicsView;
use super::{GroupConfig, GroupReply};
use crate::machine::coordinator::{self, Producer, TransactionEnd};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicId};

pub use crate::machine::coordinator::RequestId;

/// What a shard must be told about the cluster.
#[derive(Clone, Debug)]
pub enum GroupNews {
    /// The topics are now these.
    Topics(Arc<TopicsView>),
    /// Topics are permanently gone, and their committed offsets with them.
    TopicsDeleted(Vec<(TopicId, Arc<str>)>),
    /// The settings are now these.
    Config(Arc<GroupConfig>),
}

/// What can happen to a shard.
pub type Event = coordinator::Event<GroupRequest, GroupNews>;

/// What a shard asks of its runtime.
pub type Effect = coordinator::Effect<GroupRecord, GroupReply>;

/// A request about groups.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRequest {
    /// Answered with [`GroupReply::Join`].
    Join(JoinRequest),
    /// Answered with [`GroupReply::Sync`].
    Sync(SyncRequest),
    /// Answered with [`GroupReply::Heartbeat`].
    Heartbeat(HeartbeatRequest),
    /// Answered with [`GroupReply::Leave`].
    Leave(LeaveRequest),
    /// Answered with [`GroupReply::CommitOffsets`].
    CommitOffsets(CommitOffsetsRequest),
    /// A transaction with offsets of this shard ends; answered with [`GroupReply::EndTransaction`].
    EndTransaction(TransactionEnd),
    /// Answered with [`GroupReply::FetchOffsets`].
    FetchOffsets(FetchOffsetsRequest),
    /// Answered with [`GroupReply::DeleteOffsets`].
    DeleteOffsets(DeleteOffsetsRequest),
    /// DescribeGroups; answered with [`GroupReply::Describe`].
    Describe {
        /// Groups of this shard.
        groups: Vec<Arc<str>>,
    },
    /// ListGroups; answered with [`GroupReply::List`].
    List(ListRequest),
    /// DeleteGroups; answered with [`GroupReply::Delete`].
    Delete {
        /// Groups of this shard.
        groups: Vec<Arc<str>>,
    },
    /// Answered with [`GroupReply::ConsumerHeartbeat`].
    ConsumerHeartbeat(ConsumerHeartbeatRequest),
    /// ConsumerGroupDescribe; answered with [`GroupReply::ConsumerDescribe`].
    ConsumerDescribe {
        /// Groups of this shard.
        groups: Vec<Arc<str>>,
    },
}

/// A member wants to be in the next generation of a classic group.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// The member; empty when it has no id yet.
    pub member_id: Arc<str>,
    /// Its instance, when it is static (KIP-345).
    pub instance_id: Option<Arc<str>>,
    /// The client id.
    pub client_id: Arc<str>,
    /// The host of the client, as Kafka prints it.
    pub client_host: Arc<str>,
    /// The session timeout.
    pub session_timeout_ms: i32,
    /// The rebalance timeout; the session timeout where the version has none.
    pub rebalance_timeout_ms: i32,
    /// The type of protocol, for example `consumer`.
    pub protocol_type: Arc<str>,
    /// The protocols that it supports, best first.
    pub protocols: Vec<ClassicProtocol>,
    /// Whether a dynamic member without an id is sent back with one (KIP-394; version 4 on).
    pub requires_known_member_id: bool,
    /// Whether a leader can be told not to assign (KIP-814; version 9 on).
    pub supports_skipping_assignment: bool,
}

/// A member wants its assignment; the leader brings everyone's.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// The generation.
    pub generation_id: i32,
    /// The member.
    pub member_id: Arc<str>,
    /// Its instance, when it is static.
    pub instance_id: Option<Arc<str>>,
    /// The type of protocol, where the version says it (KIP-559).
    pub protocol_type: Option<Arc<str>>,
    /// The protocol, where the version says it (KIP-559).
    pub protocol_name: Option<Arc<str>>,
    /// From the leader: member ids and what they get.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

/// A classic member is alive.
#[derive(Clone, Debug, PartialEq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// The generation.
    pub generation_id: i32,
    /// The member.
    pub member_id: Arc<str>,
    /// Its instance, when it is static.
    pub instance_id: Option<Arc<str>>,
}

/// Members leave a group, or an administrator removes them (KIP-571).
#[derive(Clone, Debug, PartialEq)]
pub struct LeaveRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// A member that leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct LeavingMember {
    /// The member; empty when only the instance is known.
    pub member_id: Arc<str>,
    /// Its instance, when it is static.
    pub instance_id: Option<Arc<str>>,
}

/// Offsets are committed.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitOffsetsRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// The generation of a classic member, the epoch of a consumer member, or -1 from a client
    /// that is not in a group.
    pub generation_or_epoch: i32,
    /// The member; empty when there is none.
    pub member_id: Arc<str>,
    /// Its instance, when it is static.
    pub instance_id: Option<Arc<str>>,
    /// How long to keep the offsets, where the version says so (2 to 4); `None` for the default.
    pub retention_ms: Option<i64>,
    /// Whether the client understands `STALE_MEMBER_EPOCH` (OffsetCommit from version 9 on, TxnOffsetCommit from 6).
    pub knows_member_epochs: bool,
    /// The transaction that the offsets are part of, if there is one.
    pub transaction: Option<Producer>,
    /// The offsets.
    pub topics: Vec<CommitTopic>,
}

impl CommitOffsetsRequest {
    /// Whether it is part of a transaction, and does not say which member reads: older producers
    /// do not know, and are believed.
    pub(super) fn is_transaction_without_member(&self) -> bool {
        self.transaction.is_some()
            && self.generation_or_epoch < 0
            && self.member_id.is_empty()
            && self.instance_id.is_none()
    }
}

/// Offsets of one topic.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitTopic {
    /// The topic.
    pub name: Arc<str>,
    /// Its id; zero when not known.
    pub id: TopicId,
    /// The offsets.
    pub partitions: Vec<CommitPartition>,
}

/// The offset of one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitPartition {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The leader epoch of the last record that was read; -1 when not known.
    pub leader_epoch: LeaderEpoch,
    /// Metadata that the client keeps with it.
    pub metadata: Option<Arc<str>>,
}

/// Committed offsets of one group are read.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchOffsetsRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// The member, where the version says it (9 on).
    pub member_id: Option<Arc<str>>,
    /// The epoch of the member; -1 when it is not in a consumer group.
    pub member_epoch: i32,
    /// Which; `None` for all.
    pub topics: Option<Vec<FetchTopic>>,
    /// Whether an offset that a transaction may still change is an error (KIP-447).
    pub require_stable: bool,
}

/// Partitions of a topic whose offsets are read.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchTopic {
    /// The topic.
    pub name: Arc<str>,
    /// Its id, returned unchanged.
    pub id: TopicId,
    /// The partitions.
    pub partitions: Vec<PartitionIndex>,
}

/// Committed offsets are deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct DeleteOffsetsRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// Topics and their partitions.
    pub topics: Vec<(Arc<str>, Vec<PartitionIndex>)>,
}

/// Which groups are listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListRequest {
    /// The states, by Kafka's names, ignoring case; empty for all.
    pub states: Vec<Arc<str>>,
    /// The types, by Kafka's names, ignoring case; empty for all.
    pub types: Vec<Arc<str>>,
}

/// A member of the consumer protocol reports (KIP-848).
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerHeartbeatRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// The member; empty when the version lets the coordinator choose the id (0).
    pub member_id: Arc<str>,
    /// Its epoch: 0 to join, -1 to leave, -2 when a static member leaves for a while.
    pub member_epoch: i32,
    /// Its instance, when it is static.
    pub instance_id: Option<Arc<str>>,
    /// Its rack.
    pub rack_id: Option<Arc<str>>,
    /// The client id.
    pub client_id: Arc<str>,
    /// The host of the client, as Kafka prints it.
    pub client_host: Arc<str>,
    /// The rebalance timeout; -1 when it has not changed.
    pub rebalance_timeout_ms: i32,
    /// The topics it subscribes to by name; `None` when they have not changed.
    pub subscribed_topic_names: Option<Vec<Arc<str>>>,
    /// The expression it subscribes with; `None` when it has not changed, empty to drop it.
    pub subscribed_topic_regex: Option<Arc<str>>,
    /// The assignor it wants; `None` when it has not changed or does not care.
    pub server_assignor: Option<Arc<str>>,
    /// What it owns; `None` when that has not changed.
    pub topic_partitions: Option<Vec<TopicPartitions>>,
    /// Whether the client must bring its own member id (version 1 on).
    pub requires_member_id: bool,
}
