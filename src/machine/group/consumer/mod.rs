//! Groups of the consumer protocol (KIP-848). Until they are there, every request for one is
//! refused.

use std::sync::Arc;

use super::record::GroupRecord;
use super::reply::{DescribedConsumerGroup, GroupError, GroupReply};
use super::reply::{JoinReply, SyncReply};
use super::request::{
    CommitOffsetsRequest, ConsumerHeartbeatRequest, HeartbeatRequest, JoinRequest, LeaveRequest,
    RequestId, SyncRequest,
};
use super::shard::GroupShard;
use super::timers::GroupTimer;
use crate::error::ErrorCode;
use crate::types::TopicId;

/// A group of the consumer protocol.
#[derive(Debug)]
pub(super) struct ConsumerGroup {}

#[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "the seam of what is to come")]
impl ConsumerGroup {
    /// Whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        true
    }

    /// Kafka's word for its state.
    pub(super) fn state_name(&self) -> &'static str {
        "Empty"
    }

    /// Whether a member consumes a topic.
    pub(super) fn is_subscribed_to(&self, _topic: &str) -> bool {
        false
    }

    /// The records that delete it.
    pub(super) fn tombstones(&self, _id: &Arc<str>, _records: &mut Vec<GroupRecord>) {}

    /// Whether offsets may be committed in its name.
    pub(super) fn validate_commit(&self, _: &CommitOffsetsRequest) -> Result<(), GroupError> {
        Ok(())
    }

    /// Whether the offset of one partition may be, in a commit that is valid as a whole.
    pub(super) fn validate_commit_partition(
        &self,
        _request: &CommitOffsetsRequest,
        _topic: TopicId,
        _partition: i32,
    ) -> ErrorCode {
        ErrorCode::None
    }

    /// Whether offsets may be read in its name.
    pub(super) fn validate_fetch(&self, _: Option<&str>, _: i32) -> Result<(), GroupError> {
        Ok(())
    }
}

fn refusal(group: &str) -> GroupError {
    let message = format!("group {group}: the consumer protocol is not served yet");
    GroupError::new(ErrorCode::UnsupportedVersion, message)
}

/// Takes one record of a consumer group. It must not fail on a tombstone of what is not there.
pub(super) fn apply(_shard: &mut GroupShard, _record: &GroupRecord) -> Result<(), GroupError> {
    Ok(())
}

/// Takes a ConsumerGroupHeartbeat.
pub(super) fn heartbeat(shard: &mut GroupShard, id: RequestId, request: ConsumerHeartbeatRequest) {
    let reply = GroupReply::ConsumerHeartbeat(Err(refusal(&request.group_id)));
    shard.context.reply(id, reply);
}

/// Describes consumer groups, one for each id.
pub(super) fn describe(_shard: &GroupShard, groups: &[Arc<str>]) -> Vec<DescribedConsumerGroup> {
    let failed = |group: &Arc<str>| DescribedConsumerGroup::failed(group.clone(), refusal(group));
    groups.iter().map(failed).collect()
}

/// A deadline of a consumer group has passed.
pub(super) fn timer_fired(_shard: &mut GroupShard, _group: &Arc<str>, _timer: &GroupTimer) {}

/// The topics are others now.
pub(super) fn metadata_changed(_shard: &mut GroupShard) {}

/// After the last record of a replay.
pub(super) fn restored(_shard: &mut GroupShard) {}

/// Takes a JoinGroup for a consumer group that has members.
pub(super) fn classic_join(shard: &mut GroupShard, id: RequestId, request: JoinRequest) {
    let error = refusal(&request.group_id);
    shard.context.reply(id, GroupReply::Join(JoinReply::failed(request.member_id, error)));
}

/// Takes a SyncGroup for a consumer group that has members.
pub(super) fn classic_sync(shard: &mut GroupShard, id: RequestId, request: SyncRequest) {
    let error = refusal(&request.group_id);
    shard.context.reply(id, GroupReply::Sync(SyncReply::failed(error)));
}

/// Takes a Heartbeat of the classic protocol for a consumer group.
pub(super) fn classic_heartbeat(shard: &mut GroupShard, id: RequestId, request: &HeartbeatRequest) {
    shard.context.reply(id, GroupReply::Heartbeat(Err(refusal(&request.group_id))));
}

/// Takes a LeaveGroup for a consumer group.
pub(super) fn classic_leave(shard: &mut GroupShard, id: RequestId, request: LeaveRequest) {
    shard.context.reply(id, GroupReply::Leave(Err(refusal(&request.group_id))));
}
