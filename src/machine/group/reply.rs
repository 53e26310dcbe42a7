//! What a coordinator answers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::record::TopicPartitions;
use crate::error::ErrorCode;
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicId};

/// Why a coordinator refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupError {
    /// What the client is told.
    pub code: ErrorCode,
    /// The same for a person, with the names involved.
    pub message: String,
}

impl GroupError {
    /// An error.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for GroupError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code.name(), self.message)
    }
}

/// The answer to a request; [`super::GroupRequest`] says which belongs to which.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupReply {
    /// To a join.
    Join(JoinReply),
    /// To a sync.
    Sync(SyncReply),
    /// To a heartbeat.
    Heartbeat(Result<(), GroupError>),
    /// To a leave: one result for each member that leaves, in the order of the request.
    Leave(Result<Vec<LeftMember>, GroupError>),
    /// To a commit. An error for the whole request applies to each of its partitions.
    CommitOffsets(Result<Vec<PartitionResults>, GroupError>),
    /// The end of a transaction is in the log.
    EndTransaction,
    /// To a fetch of offsets.
    FetchOffsets(Result<Vec<FetchedTopic>, GroupError>),
    /// To a deletion of offsets.
    DeleteOffsets(Result<Vec<PartitionResults>, GroupError>),
    /// To DescribeGroups: one for each group of the request, in its order.
    Describe(Vec<DescribedGroup>),
    /// To ListGroups.
    List(Vec<ListedGroup>),
    /// To DeleteGroups: one for each group of the request, in its order.
    Delete(Vec<(Arc<str>, Result<(), GroupError>)>),
    /// To a ConsumerGroupHeartbeat.
    ConsumerHeartbeat(Result<ConsumerHeartbeatReply, GroupError>),
    /// To ConsumerGroupDescribe: one for each group of the request, in its order.
    ConsumerDescribe(Vec<DescribedConsumerGroup>),
}

/// The answer to a join.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinReply {
    /// Why there is no generation for this member.
    pub error: Option<GroupError>,
    /// The generation; -1 with an error.
    pub generation_id: i32,
    /// The type of protocol.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol that was voted for.
    pub protocol_name: Option<Arc<str>>,
    /// The leader; empty when there is none.
    pub leader: Arc<str>,
    /// Whether the leader must not assign (KIP-814).
    pub skip_assignment: bool,
    /// The id of the member; with `MEMBER_ID_REQUIRED` the one to come back with.
    pub member_id: Arc<str>,
    /// To the leader: all members.
    pub members: Vec<JoinedMember>,
}

impl JoinReply {
    /// An answer that is an error.
    #[must_use]
    pub fn failed(member_id: Arc<str>, error: GroupError) -> Self {
        Self {
            error: Some(error),
            generation_id: -1,
            protocol_type: None,
            protocol_name: None,
            leader: "".into(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

/// A member as described to its leader.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedMember {
    /// The member.
    pub member_id: Arc<str>,
    /// Its instance, when it is static.
    pub instance_id: Option<Arc<str>>,
    /// What it said under the protocol that was voted for.
    pub metadata: Bytes,
}

/// The answer to a sync.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncReply {
    /// Why there is no assignment.
    pub error: Option<GroupError>,
    /// The type of protocol.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol.
    pub protocol_name: Option<Arc<str>>,
    /// The assignment; empty with an error.
    pub assignment: Bytes,
}

impl SyncReply {
    /// An answer that is an error.
    #[must_use]
    pub const fn failed(error: GroupError) -> Self {
        Self {
            error: Some(error),
            protocol_type: None,
            protocol_name: None,
            assignment: Bytes::new(),
        }
    }
}

/// The outcome for a member that wanted to leave.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftMember {
    /// The member, as the request named it.
    pub member_id: Arc<str>,
    /// Its instance, as the request named it.
    pub instance_id: Option<Arc<str>>,
    /// Why it could not.
    pub error: Option<GroupError>,
}

/// Results of the partitions of one topic.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionResults {
    /// The topic.
    pub name: Arc<str>,
    /// Its id, as the request gave it.
    pub id: TopicId,
    /// The partitions, in the order of the request.
    pub partitions: Vec<(PartitionIndex, ErrorCode)>,
}

/// Offsets of one topic.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchedTopic {
    /// The topic.
    pub name: Arc<str>,
    /// Its id: as the request gave it, or as it was committed when all were asked for.
    pub id: TopicId,
    /// The offsets.
    pub partitions: Vec<FetchedPartition>,
}

/// The offset of one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchedPartition {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset; -1 when there is none.
    pub offset: Offset,
    /// The leader epoch; -1 when not known.
    pub leader_epoch: LeaderEpoch,
    /// The client's metadata.
    pub metadata: Arc<str>,
    /// `None`, or `UnstableOffsetCommit`.
    pub error: ErrorCode,
}

/// A group as DescribeGroups shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedGroup {
    /// Why it cannot be shown; the state is then `Dead`.
    pub error: Option<GroupError>,
    /// The group.
    pub group_id: Arc<str>,
    /// Kafka's word for the state.
    pub state: &'static str,
    /// The type of protocol; empty when there is none.
    pub protocol_type: Arc<str>,
    /// The protocol; empty unless the group is stable.
    pub protocol: Arc<str>,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// A member as DescribeGroups shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedMember {
    /// The member.
    pub member_id: Arc<str>,
    /// Its instance, when it is static.
    pub instance_id: Option<Arc<str>>,
    /// The client id.
    pub client_id: Arc<str>,
    /// The host of the client.
    pub client_host: Arc<str>,
    /// What it said under the protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// What it was assigned; empty unless the group is stable.
    pub assignment: Bytes,
}

/// A group as ListGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group_id: Arc<str>,
    /// The type of protocol; empty when there is none.
    pub protocol_type: Arc<str>,
    /// Kafka's word for the state.
    pub state: &'static str,
    /// Kafka's name for the type: `classic` or `consumer`.
    pub group_type: &'static str,
}

/// The answer to a member of the consumer protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerHeartbeatReply {
    /// The id of the member.
    pub member_id: Arc<str>,
    /// Its epoch.
    pub member_epoch: i32,
    /// When it is to report again.
    pub heartbeat_interval_ms: i32,
    /// What it is to own now; `None` when that has not changed.
    pub assignment: Option<Vec<TopicPartitions>>,
}

/// A group as ConsumerGroupDescribe shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedConsumerGroup {
    /// Why it cannot be shown.
    pub error: Option<GroupError>,
    /// The group.
    pub group_id: Arc<str>,
    /// Kafka's name for the state; empty with an error.
    pub state: &'static str,
    /// The group epoch.
    pub group_epoch: i32,
    /// The epoch of the target assignment.
    pub assignment_epoch: i32,
    /// The assignor; empty when none is chosen.
    pub assignor: Arc<str>,
    /// The members.
    pub members: Vec<DescribedConsumerMember>,
}

impl DescribedConsumerGroup {
    /// A group that cannot be shown.
    #[must_use]
    pub fn failed(group_id: Arc<str>, error: GroupError) -> Self {
        Self {
            error: Some(error),
            group_id,
            state: "",
            group_epoch: 0,
            assignment_epoch: 0,
            assignor: "".into(),
            members: Vec::new(),
        }
    }
}

/// A member as ConsumerGroupDescribe shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedConsumerMember {
    /// The member.
    pub member_id: Arc<str>,
    /// Its instance, when it is static.
    pub instance_id: Option<Arc<str>>,
    /// Its rack.
    pub rack_id: Option<Arc<str>>,
    /// Its epoch.
    pub member_epoch: i32,
    /// The client id.
    pub client_id: Arc<str>,
    /// The host of the client.
    pub client_host: Arc<str>,
    /// The topics it subscribed to by name.
    pub subscribed_topic_names: Vec<Arc<str>>,
    /// The expression it subscribed with.
    pub subscribed_topic_regex: Option<Arc<str>>,
    /// What it has; deleted topics are left out.
    pub assignment: Vec<NamedPartitions>,
    /// What it is to have.
    pub target_assignment: Vec<NamedPartitions>,
    /// Whether it uses the classic protocol (member type 0; otherwise 1).
    pub is_classic: bool,
}

/// Partitions of one topic, which is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPartitions {
    /// The topic.
    pub topic_id: TopicId,
    /// Its name.
    pub topic_name: Arc<str>,
    /// The partitions.
    pub partitions: Vec<PartitionIndex>,
}
