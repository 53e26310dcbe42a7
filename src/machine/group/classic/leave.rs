//! LeaveGroup: members that go, and removal by an administrator (KIP-571).

use super::super::consumer;
use super::super::reply::{GroupError, GroupReply, LeftMember};
use super::super::request::{LeaveRequest, LeavingMember, RequestId};
use super::super::shard::{Context, Group, GroupShard};
use super::ClassicGroup;
use super::join::empty_group_id;
use crate::error::ErrorCode;

/// Takes a LeaveGroup, for a group of either protocol.
pub(in super::super) fn leave(shard: &mut GroupShard, id: RequestId, request: LeaveRequest) {
    let result = match shard.groups.get_mut(&request.group_id) {
        _ if request.group_id.is_empty() => Err(empty_group_id()),
        Some(Group::Classic(group)) => Ok(group.leave(&mut shard.context, request.members)),
        Some(Group::Consumer(_)) => return consumer::classic_leave(shard, id, request),
        None => {
            let message = format!("there is no group {}", request.group_id);
            let error = GroupError::new(ErrorCode::UnknownMemberId, message);
            let unknown = |member| left(member, Err(error.clone()));
            Ok(request.members.into_iter().map(unknown).collect())
        }
    };
    shard.context.reply(id, GroupReply::Leave(result));
}

fn left(member: LeavingMember, result: Result<(), GroupError>) -> LeftMember {
    let LeavingMember { member_id, instance_id } = member;
    LeftMember { member_id, instance_id, error: result.err() }
}

impl ClassicGroup {
    fn leave(&mut self, context: &mut Context, leaving: Vec<LeavingMember>) -> Vec<LeftMember> {
        let members_before = self.members.len();
        let mut results = Vec::with_capacity(leaving.len());
        for member in leaving {
            let result = self.leave_one(context, &member);
            results.push(left(member, result));
        }
        self.go_on(context, self.members.len() < members_before);
        results
    }

    fn leave_one(
        &mut self,
        context: &mut Context,
        leaving: &LeavingMember,
    ) -> Result<(), GroupError> {
        let instance = leaving.instance_id.as_deref();
        let id = match instance {
            // An administrator knows the instance only.
            Some(instance) if leaving.member_id.is_empty() => {
                let current = self.statics.get(instance).cloned();
                current.ok_or_else(|| self.unknown_instance(instance))?
            }
            _ if self.pending_joins.contains(&leaving.member_id) => leaving.member_id.clone(),
            _ => {
                self.validate_member(&leaving.member_id, instance)?;
                leaving.member_id.clone()
            }
        };
        self.remove(context, &id);
        Ok(())
    }
}
