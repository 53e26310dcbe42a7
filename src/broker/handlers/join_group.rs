//! JoinGroup: v0-v9.
//!
//! Behaviour: asks to be a member of the next generation of a classic group; answered once the
//! generation exists. Its leader receives all members, and assigns. Versions: v1 rebalance timeout;
//! v4 a dynamic member without an id is sent back with one (KIP-394); v5 static members (KIP-345);
//! v7 type and name of the protocol (KIP-559); v8 reason (KIP-800); v9 a leader may be told not to
//! assign (KIP-814). Errors: INVALID_GROUP_ID; INVALID_SESSION_TIMEOUT; MEMBER_ID_REQUIRED;
//! UNKNOWN_MEMBER_ID; FENCED_INSTANCE_ID; INCONSISTENT_GROUP_PROTOCOL; GROUP_MAX_SIZE_REACHED;
//! REBALANCE_IN_PROGRESS; NOT_COORDINATOR; COORDINATOR_NOT_AVAILABLE; COORDINATOR_LOAD_IN_PROGRESS.

use bytes::Bytes;

use super::groups;
use crate::broker::dispatch::{Answer, Call};
use crate::error::Result;
use crate::machine::group::{ClassicProtocol, GroupReply, GroupRequest, JoinReply, JoinRequest};
use crate::protocol::Str;
use crate::protocol::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember,
};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &JoinGroupRequest,
) -> Result<Answer> {
    let version = call.context.api_version;
    let protocol = |protocol: &JoinGroupRequestProtocol| ClassicProtocol {
        name: (&protocol.name).into(),
        // The group keeps it, but must not keep the frame that it arrived in.
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    };
    if let Some(reason) = &request.reason {
        let (group, member) = (&request.group_id, &request.member_id);
        tracing::debug!(%group, %member, %reason, "a member asks to join");
    }
    let join = JoinRequest {
        group_id: (&request.group_id).into(),
        member_id: (&request.member_id).into(),
        instance_id: groups::optional(request.group_instance_id.as_ref()),
        client_id: groups::client_id(call),
        client_host: groups::client_host(call),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: match version {
            0 => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        },
        protocol_type: (&request.protocol_type).into(),
        protocols: request.protocols.iter().map(protocol).collect(),
        requires_known_member_id: version >= 4,
        supports_skipping_assignment: version >= 9,
    };
    let pending = groups::send(call, &request.group_id, GroupRequest::Join(join)).await?;
    Ok(groups::later(pending, move |reply| match reply {
        GroupReply::Join(reply) => Some(show(&reply, version).into()),
        _ => None,
    }))
}

fn show(reply: &JoinReply, version: i16) -> JoinGroupResponse {
    let name = reply.protocol_name.as_ref().map(Str::from);
    JoinGroupResponse {
        error_code: groups::code(reply.error.as_ref()),
        generation_id: reply.generation_id,
        protocol_type: reply.protocol_type.as_ref().map(Str::from),
        // Before version 7 the name is not nullable.
        protocol_name: if version < 7 { Some(name.unwrap_or_default()) } else { name },
        leader: (&reply.leader).into(),
        skip_assignment: reply.skip_assignment && version >= 9,
        member_id: (&reply.member_id).into(),
        members: reply
            .members
            .iter()
            .map(|member| JoinGroupResponseMember {
                member_id: (&member.member_id).into(),
                group_instance_id: member.instance_id.as_ref().map(Str::from),
                metadata: member.metadata.clone(),
            })
            .collect(),
        ..JoinGroupResponse::default()
    }
}
