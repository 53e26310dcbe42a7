//! DeleteGroups: v0-v3.
//!
//! Behaviour: deletes groups without members, and their offsets.
//! Versions: v3 says in words why a group was not deleted.
//! Errors: GROUP_ID_NOT_FOUND; NON_EMPTY_GROUP; INVALID_GROUP_ID; NOT_COORDINATOR;
//! COORDINATOR_NOT_AVAILABLE; COORDINATOR_LOAD_IN_PROGRESS.

use super::groups;
use crate::broker::dispatch::{Answer, Call};
use crate::error::Result;
use crate::machine::group::{GroupError, GroupReply, GroupRequest};
use crate::protocol::Str;
use crate::protocol::messages::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &DeleteGroupsRequest,
) -> Result<Answer> {
    let delete = |groups| GroupRequest::Delete { groups };
    // Kafka's answer lists each group once.
    let mut wanted: Vec<Str> = Vec::with_capacity(request.groups_names.len());
    for group in &request.groups_names {
        if !wanted.contains(group) {
            wanted.push(group.clone());
        }
    }
    let sent = groups::send_each(call, &wanted, delete).await?;
    Ok(Answer::Later(Box::pin(async move {
        let result = |group: &str, error: Option<&GroupError>| DeletableGroupResult {
            group_id: group.into(),
            error_code: groups::code(error),
            error_message: error.map(|error| Str::from(error.message.as_str())),
        };
        let mut results = Vec::with_capacity(wanted.len());
        for (ids, pending) in sent {
            let failed = |error: GroupError| -> Vec<DeletableGroupResult> {
                ids.iter().map(|id| result(id, Some(&error))).collect()
            };
            results.extend(match groups::wait(pending).await {
                Ok(GroupReply::Delete(deleted)) => deleted
                    .into_iter()
                    .map(|(group, outcome)| result(&group, outcome.err().as_ref()))
                    .collect(),
                Ok(_) => failed(groups::wrong_reply()),
                Err(error) => failed(error),
            });
        }
        let missing = |group: &Str, error: GroupError| result(group, Some(&error));
        let results = groups::in_order(&wanted, results, |one| one.group_id.as_str(), missing);
        let response = DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() };
        Ok(response.into())
    })))
}
