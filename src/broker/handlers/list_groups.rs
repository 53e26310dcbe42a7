//! ListGroups: v0-v5.
//!
//! Behaviour: the groups that this broker coordinates, by id.
//! Versions: v4 filter by state (KIP-518); v5 type, and filter by it (KIP-848). A state or type that does
//! not exist matches no group. Errors: COORDINATOR_NOT_AVAILABLE; COORDINATOR_LOAD_IN_PROGRESS.

use super::groups;
use crate::broker::dispatch::{Answer, Call};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::group::{GroupReply, GroupRequest, ListRequest};
use crate::protocol::Str;
use crate::protocol::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &ListGroupsRequest,
) -> Result<Answer> {
    let wanted = ListRequest {
        states: groups::names(&request.states_filter),
        types: groups::names(&request.types_filter),
    };
    let coordinators = call.state.coordinators();
    let mut pending = Vec::new();
    for partition in coordinators.led() {
        match coordinators.send(partition, GroupRequest::List(wanted.clone())).await {
            Ok(sent) => pending.push(sent),
            // Its groups now belong to another broker.
            Err(error) if error.code() == ErrorCode::NotCoordinator => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Answer::Later(Box::pin(async move {
        let mut response = ListGroupsResponse::default();
        for sent in pending {
            match sent.wait().await {
                Ok(GroupReply::List(found)) => {
                    response.groups.extend(found.into_iter().map(|group| ListedGroup {
                        group_id: group.group_id.into(),
                        protocol_type: group.protocol_type.into(),
                        group_state: Str::from_static(group.state),
                        group_type: Str::from_static(group.group_type),
                    }));
                }
                Ok(_) => return Ok(failed(ErrorCode::UnknownServerError).into()),
                Err(error) if error.code() == ErrorCode::NotCoordinator => {}
                Err(error) => return Ok(refused(&error).into()),
            }
        }
        response.groups.sort_by(|one, other| one.group_id.as_str().cmp(&other.group_id));
        Ok(response.into())
    })))
}

fn refused(error: &Error) -> ListGroupsResponse {
    tracing::debug!(error = %error.chain(), "could not list groups");
    failed(error.code())
}

fn failed(code: ErrorCode) -> ListGroupsResponse {
    ListGroupsResponse { error_code: code.to_i16(), ..ListGroupsResponse::default() }
}
