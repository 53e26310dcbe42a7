//! SyncGroup: v0-v5.
//!
//! Behaviour: asks for the member's assignment in its generation; the leader sends everybody's. Answered
//! once the leader has sent them. Versions: v3 static members (KIP-345); v5 type and name of the
//! protocol, which are required and must match the group's (KIP-559). Errors: INVALID_GROUP_ID;
//! UNKNOWN_MEMBER_ID; FENCED_INSTANCE_ID; ILLEGAL_GENERATION; INCONSISTENT_GROUP_PROTOCOL;
//! REBALANCE_IN_PROGRESS; NOT_COORDINATOR; COORDINATOR_NOT_AVAILABLE; COORDINATOR_LOAD_IN_PROGRESS.

use bytes::Bytes;

use super::groups;
use crate::broker::dispatch::{Answer, Call};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::group::{GroupReply, GroupRequest, SyncRequest};
use crate::protocol::Str;
use crate::protocol::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &SyncGroupRequest,
) -> Result<Answer> {
    if call.context.api_version >= 5
        && (request.protocol_type.is_none() || request.protocol_name.is_none())
    {
        let context = "a sync of version 5 must give the type and the name of its protocol";
        return Err(Error::kafka(ErrorCode::InconsistentGroupProtocol, context));
    }
    let assignment = |one: &SyncGroupRequestAssignment| {
        ((&one.member_id).into(), Bytes::copy_from_slice(&one.assignment))
    };
    let sync = SyncRequest {
        group_id: (&request.group_id).into(),
        generation_id: request.generation_id,
        member_id: (&request.member_id).into(),
        instance_id: groups::optional(request.group_instance_id.as_ref()),
        protocol_type: groups::optional(request.protocol_type.as_ref()),
        protocol_name: groups::optional(request.protocol_name.as_ref()),
        assignments: request.assignments.iter().map(assignment).collect(),
    };
    let pending = groups::send(call, &request.group_id, GroupRequest::Sync(sync)).await?;
    Ok(groups::later(pending, |reply| match reply {
        GroupReply::Sync(reply) => Some(
            SyncGroupResponse {
                error_code: groups::code(reply.error.as_ref()),
                protocol_type: reply.protocol_type.as_ref().map(Str::from),
                protocol_name: reply.protocol_name.as_ref().map(Str::from),
                assignment: reply.assignment,
                ..SyncGroupResponse::default()
            }
            .into(),
        ),
        _ => None,
    }))
}
