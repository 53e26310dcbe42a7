//! Heartbeat: v0-v4.
//!
//! Behaviour: a member of a classic group is alive. While the coordinator reads its log, the answer is
//! not an error, as in Kafka: the member should not rejoin because of it. Versions: v3 static members
//! (KIP-345). Errors: INVALID_GROUP_ID; UNKNOWN_MEMBER_ID; FENCED_INSTANCE_ID; ILLEGAL_GENERATION;
//! REBALANCE_IN_PROGRESS; NOT_COORDINATOR; COORDINATOR_NOT_AVAILABLE.

use super::groups;
use crate::broker::dispatch::{Answer, Call};
use crate::error::{ErrorCode, Result};
use crate::machine::group::{GroupReply, GroupRequest, HeartbeatRequest as Heartbeat};
use crate::protocol::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &HeartbeatRequest,
) -> Result<Answer> {
    let heartbeat = Heartbeat {
        group_id: (&request.group_id).into(),
        generation_id: request.generation_id,
        member_id: (&request.member_id).into(),
        instance_id: groups::optional(request.group_instance_id.as_ref()),
    };
    let sent = groups::send(call, &request.group_id, GroupRequest::Heartbeat(heartbeat)).await;
    let pending = match sent {
        Err(error) if error.code() == ErrorCode::CoordinatorLoadInProgress => {
            return Ok(HeartbeatResponse::default().into());
        }
        sent => sent?,
    };
    Ok(groups::later(pending, |reply| match reply {
        GroupReply::Heartbeat(result) => {
            let error_code = groups::code(result.err().as_ref());
            Some(HeartbeatResponse { error_code, ..HeartbeatResponse::default() }.into())
        }
        _ => None,
    }))
}
