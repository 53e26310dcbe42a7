//! Groups of the consumer protocol (KIP-848). Until they are there, every request for one is
//! refused.

use std::sync::Arc;

use super::record::GroupRecord;
use super::reply::{DescribedConsumerGroup, GroupError, GroupReply};
use super::request::{ConsumerHeartbeatRequest, RequestId};
use super::shard::GroupShard;
use super::timers::GroupTimer;
use crate::error::ErrorCode;

/// A group of the consumer protocol.
#[derive(Debug)]
pub(super) struct ConsumerGroup {}

impl ConsumerGroup {
    /// The records that give this group.
    #[allow(clippy::unused_self, reason = "the seam of what is to come")]
    pub(super) fn snapshot(&self, _id: &Arc<str>, _records: &mut Vec<GroupRecord>) {}
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
