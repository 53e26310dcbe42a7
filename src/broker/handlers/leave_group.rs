//! LeaveGroup: v0-v5.
//!
//! Behaviour: members leave a group, or an administrator removes static ones by their instance ids
//! (KIP-571). A dynamic member leaves the group in the next rebalance, which begins at once.
//! Versions: v0-v2 one member, whose error is that of the whole response; v3 many, each with its own;
//! v5 reason. Errors: INVALID_GROUP_ID; UNKNOWN_MEMBER_ID; FENCED_INSTANCE_ID; NOT_COORDINATOR;
//! COORDINATOR_NOT_AVAILABLE; COORDINATOR_LOAD_IN_PROGRESS.

use super::groups;
use crate::broker::dispatch::{Answer, Call};
use crate::error::Result;
use crate::machine::group::{
    GroupError, GroupReply, GroupRequest, LeaveRequest, LeavingMember, LeftMember,
};
use crate::protocol::Str;
use crate::protocol::messages::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &LeaveGroupRequest,
) -> Result<Answer> {
    let version = call.context.api_version;
    let member = |member: &MemberIdentity| LeavingMember {
        member_id: (&member.member_id).into(),
        instance_id: groups::optional(member.group_instance_id.as_ref()),
    };
    let members = if version >= 3 {
        request.members.iter().map(member).collect()
    } else {
        let member_id = (&request.member_id).into();
        vec![LeavingMember { member_id, instance_id: None }]
    };
    for (member, reason) in
        request.members.iter().filter_map(|member| Some((member, member.reason.as_ref()?)))
    {
        let (group, member) = (&request.group_id, &member.member_id);
        tracing::debug!(%group, %member, %reason, "a member leaves");
    }
    let leave = LeaveRequest { group_id: (&request.group_id).into(), members };
    let pending = groups::send(call, &request.group_id, GroupRequest::Leave(leave)).await?;
    Ok(groups::later(pending, move |reply| match reply {
        GroupReply::Leave(result) => Some(show(result, version).into()),
        _ => None,
    }))
}

fn show(result: Result<Vec<LeftMember>, GroupError>, version: i16) -> LeaveGroupResponse {
    let members = match result {
        Ok(members) => members,
        Err(error) => {
            let error_code = error.code.to_i16();
            return LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() };
        }
    };
    if version < 3 {
        let error_code = members.first().map_or(0, |member| groups::code(member.error.as_ref()));
        return LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() };
    }
    let member = |member: &LeftMember| MemberResponse {
        member_id: (&member.member_id).into(),
        group_instance_id: member.instance_id.as_ref().map(Str::from),
        error_code: groups::code(member.error.as_ref()),
    };
    LeaveGroupResponse {
        members: members.iter().map(member).collect(),
        ..LeaveGroupResponse::default()
    }
}
