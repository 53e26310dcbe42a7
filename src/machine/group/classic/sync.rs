//! SyncGroup and Heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::super::consumer;
use super::super::reply::{GroupError, GroupReply, SyncReply};
use super::super::request::{HeartbeatRequest, RequestId, SyncRequest};
use super::super::shard::{Context, Group, GroupShard};
use super::super::timers::GroupTimer;
use super::join::empty_group_id;
use super::{ClassicGroup, ClassicState};
use crate::error::ErrorCode;

fn unknown_group(group: &str) -> GroupError {
    GroupError::new(ErrorCode::UnknownMemberId, format!("there is no group {group}: join it"))
}

/// Takes a SyncGroup, for a group of either protocol.
pub(in super::super) fn sync(shard: &mut GroupShard, id: RequestId, request: SyncRequest) {
    let error = match shard.groups.get_mut(&request.group_id) {
        _ if request.group_id.is_empty() => empty_group_id(),
        Some(Group::Consumer(group)) if !group.is_empty() => {
            return consumer::classic_sync(shard, id, request);
        }
        Some(Group::Classic(group)) if !group.is_empty() => {
            return group.sync(&mut shard.context, id, request);
        }
        _ => unknown_group(&request.group_id),
    };
    shard.context.reply(id, GroupReply::Sync(SyncReply::failed(error)));
}

/// Takes a Heartbeat, for a group of either protocol.
pub(in super::super) fn heartbeat(
    shard: &mut GroupShard,
    id: RequestId,
    request: HeartbeatRequest,
) {
    let result = match shard.groups.get(&request.group_id) {
        _ if request.group_id.is_empty() => Err(empty_group_id()),
        Some(Group::Classic(group)) => group.heartbeat(&mut shard.context, &request),
        Some(Group::Consumer(_)) => return consumer::classic_heartbeat(shard, id, &request),
        None => Err(unknown_group(&request.group_id)),
    };
    shard.context.reply(id, GroupReply::Heartbeat(result));
}

impl ClassicGroup {
    fn heartbeat(
        &self,
        context: &mut Context,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        self.validate_member(&request.member_id, request.instance_id.as_deref())?;
        self.validate_generation(request.generation_id)?;
        self.touch(context, &request.member_id);
        match self.state {
            ClassicState::PreparingRebalance => Err(self.rebalancing()),
            ClassicState::Empty => Err(self.unknown(&request.member_id)),
            ClassicState::CompletingRebalance | ClassicState::Stable => Ok(()),
        }
    }

    fn sync(&mut self, context: &mut Context, id: RequestId, request: SyncRequest) {
        let refused = |error| GroupReply::Sync(SyncReply::failed(error));
        if let Err(error) = self.validate_sync(&request) {
            return context.reply(id, refused(error));
        }
        match self.state {
            ClassicState::Empty | ClassicState::PreparingRebalance => {
                context.reply(id, refused(self.rebalancing()));
            }
            ClassicState::CompletingRebalance => {
                self.synced(context, &request.member_id);
                self.answer_sync(context, &request.member_id, Err(self.rebalancing()));
                if let Some(member) = self.members.get_mut(&request.member_id) {
                    member.awaiting_sync = Some(id);
                }
                if self.is_leader(&request.member_id) {
                    self.assign(context, request.assignments);
                }
            }
            ClassicState::Stable => {
                self.synced(context, &request.member_id);
                let reply = self.assignment_of(&request.member_id);
                context.reply(id, GroupReply::Sync(reply));
            }
        }
    }

    fn validate_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.validate_member(&request.member_id, request.instance_id.as_deref())?;
        self.validate_generation(request.generation_id)?;
        let differs = |said: &Option<Arc<str>>, is: &Option<Arc<str>>| {
            said.is_some() && is.is_some() && said != is
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            let message = format!(
                "group {} voted for protocol '{}' of type '{}'",
                self.id,
                self.protocol.as_deref().unwrap_or_default(),
                self.protocol_type.as_deref().unwrap_or_default(),
            );
            return Err(GroupError::new(ErrorCode::InconsistentGroupProtocol, message));
        }
        Ok(())
    }

    fn synced(&mut self, context: &mut Context, member: &Arc<str>) {
        self.pending_syncs.remove(member);
        if self.pending_syncs.is_empty() {
            context.disarm(&self.id, GroupTimer::ClassicSync);
        }
    }

    fn assignment_of(&self, member: &Arc<str>) -> SyncReply {
        let assignment = self.members.get(member).map(|member| member.assignment.clone());
        SyncReply {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: assignment.unwrap_or_default(),
        }
    }

    /// The leader has assigned: the generation goes to the log, and then to everyone who is
    /// waiting.
    fn assign(&mut self, context: &mut Context, assignments: Vec<(Arc<str>, Bytes)>) {
        let mut assignments: BTreeMap<Arc<str>, Bytes> = assignments.into_iter().collect();
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
        }
        self.transition(context, ClassicState::Stable);
        context.append(vec![self.record()], None);
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            let reply = self.assignment_of(id);
            if self.answer_sync(context, id, Ok(reply)) {
                self.touch(context, id);
            }
        }
    }
}
