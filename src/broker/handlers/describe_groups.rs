//! DescribeGroups: v0-v6.
//!
//! Behaviour: classic groups with their members, in the order of the request.
//! Versions: v3 authorized operations (all of them: there is no authorizer); v4 instance ids; v6 a group
//! that does not exist, or is of the consumer protocol, is GROUP_ID_NOT_FOUND with a message, before
//! that it is in the state Dead (KIP-1043).
//! Errors: GROUP_ID_NOT_FOUND; NOT_COORDINATOR; COORDINATOR_NOT_AVAILABLE; COORDINATOR_LOAD_IN_PROGRESS.

use super::groups;
use crate::broker::dispatch::{Answer, Call};
use crate::error::{ErrorCode, Result};
use crate::machine::group::{
    DescribedGroup as Group, DescribedMember, GroupError, GroupReply, GroupRequest,
};
use crate::protocol::Str;
use crate::protocol::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &DescribeGroupsRequest,
) -> Result<Answer> {
    let version = call.context.api_version;
    let describe = |groups| GroupRequest::Describe { groups };
    let sent = groups::send_each(call, &request.groups, describe).await?;
    let wanted = request.groups.clone();
    let operations = version >= 3 && request.include_authorized_operations;
    Ok(Answer::Later(Box::pin(async move {
        let mut described = Vec::with_capacity(wanted.len());
        for (ids, pending) in sent {
            let failed = |error: GroupError| -> Vec<DescribedGroup> {
                ids.iter().map(|id| refused(&Str::from(id), &error, version)).collect()
            };
            described.extend(match groups::wait(pending).await {
                Ok(GroupReply::Describe(groups)) => {
                    groups.into_iter().map(|group| show(group, version, operations)).collect()
                }
                Ok(_) => failed(groups::wrong_reply()),
                Err(error) => failed(error),
            });
        }
        let missing = |group: &Str, error: GroupError| refused(group, &error, version);
        let groups = groups::in_order(&wanted, described, |group| group.group_id.as_str(), missing);
        let response = DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() };
        Ok(response.into())
    })))
}

fn refused(group: &Str, error: &GroupError, version: i16) -> DescribedGroup {
    DescribedGroup {
        error_code: error.code.to_i16(),
        error_message: (version >= 6).then(|| Str::from(error.message.as_str())),
        group_id: group.clone(),
        ..DescribedGroup::default()
    }
}

fn show(group: Group, version: i16, operations: bool) -> DescribedGroup {
    let member = |member: DescribedMember| DescribedGroupMember {
        member_id: member.member_id.into(),
        group_instance_id: member.instance_id.map(Str::from),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    };
    let error =
        group.error.filter(|error| version >= 6 || error.code != ErrorCode::GroupIdNotFound);
    let operations = operations && error.is_none();
    DescribedGroup {
        error_code: groups::code(error.as_ref()),
        error_message: error.filter(|_| version >= 6).map(|error| Str::from(error.message)),
        group_id: group.group_id.into(),
        group_state: Str::from_static(group.state),
        protocol_type: group.protocol_type.into(),
        protocol_data: group.protocol.into(),
        members: group.members.into_iter().map(member).collect(),
        authorized_operations: if operations { groups::GROUP_OPERATIONS } else { i32::MIN },
    }
}
