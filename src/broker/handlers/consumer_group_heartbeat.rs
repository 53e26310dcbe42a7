//! ConsumerGroupHeartbeat: v0-v1.
//!
//! Behaviour: a member of the consumer protocol (KIP-848) joins, reports that it is alive, or leaves,
//! and is told its changes. The coordinator assigns. Versions: v1 subscription by pattern, and the
//! member chooses its own id (KIP-1082). Errors: INVALID_REQUEST; UNKNOWN_MEMBER_ID;
//! FENCED_MEMBER_EPOCH; UNRELEASED_INSTANCE_ID; UNSUPPORTED_ASSIGNOR; INVALID_REGULAR_EXPRESSION;
//! GROUP_MAX_SIZE_REACHED; GROUP_ID_NOT_FOUND; NOT_COORDINATOR; COORDINATOR_NOT_AVAILABLE;
//! COORDINATOR_LOAD_IN_PROGRESS; UNSUPPORTED_VERSION below `group.version` 1.

use super::groups;
use crate::broker::dispatch::{Answer, Call};
use crate::error::Result;
use crate::machine::group::{
    ConsumerHeartbeatReply, ConsumerHeartbeatRequest, GroupError, GroupReply, GroupRequest,
    TopicPartitions as Partitions,
};
use crate::protocol::Str;
use crate::protocol::messages::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    OwnedTopicPartitions, TopicPartitions,
};
use crate::types::PartitionIndex;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &ConsumerGroupHeartbeatRequest,
) -> Result<Answer> {
    groups::check_consumer_protocol(call)?;
    let owned = |topic: &OwnedTopicPartitions| Partitions {
        topic_id: topic.topic_id,
        partitions: PartitionIndex::list(&topic.partitions),
    };
    let heartbeat = ConsumerHeartbeatRequest {
        group_id: (&request.group_id).into(),
        member_id: (&request.member_id).into(),
        member_epoch: request.member_epoch,
        instance_id: groups::optional(request.instance_id.as_ref()),
        rack_id: groups::optional(request.rack_id.as_ref()),
        client_id: groups::client_id(call),
        client_host: groups::client_host(call),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        subscribed_topic_names: request.subscribed_topic_names.as_deref().map(groups::names),
        subscribed_topic_regex: groups::optional(request.subscribed_topic_regex.as_ref()),
        server_assignor: groups::optional(request.server_assignor.as_ref()),
        topic_partitions: request
            .topic_partitions
            .as_ref()
            .map(|topics| topics.iter().map(owned).collect()),
        requires_member_id: call.context.api_version >= 1,
    };
    let request_of_group = GroupRequest::ConsumerHeartbeat(heartbeat);
    let pending = groups::send(call, &request.group_id, request_of_group).await?;
    Ok(groups::later(pending, |reply| match reply {
        GroupReply::ConsumerHeartbeat(result) => Some(show(result).into()),
        _ => None,
    }))
}

fn show(result: Result<ConsumerHeartbeatReply, GroupError>) -> ConsumerGroupHeartbeatResponse {
    let reply = match result {
        Ok(reply) => reply,
        Err(error) => {
            return ConsumerGroupHeartbeatResponse {
                error_code: error.code.to_i16(),
                error_message: Some(Str::from(error.message)),
                ..ConsumerGroupHeartbeatResponse::default()
            };
        }
    };
    let topic = |topic: Partitions| TopicPartitions {
        topic_id: topic.topic_id,
        partitions: PartitionIndex::numbers(&topic.partitions),
    };
    ConsumerGroupHeartbeatResponse {
        member_id: Some(reply.member_id.into()),
        member_epoch: reply.member_epoch,
        heartbeat_interval_ms: reply.heartbeat_interval_ms,
        assignment: reply
            .assignment
            .map(|topics| Assignment { topic_partitions: topics.into_iter().map(topic).collect() }),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}
