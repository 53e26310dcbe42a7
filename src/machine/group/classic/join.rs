//! JoinGroup.

use std::sync::Arc;

use bytes::Bytes;

use super::super::consumer;
use super::super::reply::{GroupError, GroupReply, JoinReply};
use super::super::request::{JoinRequest, RequestId};
use super::super::shard::{Context, Group, GroupShard};
use super::super::timers::GroupTimer;
use super::{ClassicGroup, ClassicMember, ClassicState};
use crate::error::ErrorCode;

/// Takes a JoinGroup, for a group of either protocol.
pub(in super::super) fn join(shard: &mut GroupShard, id: RequestId, mut request: JoinRequest) {
    unique_names(&mut request);
    let failed = match shard.groups.get(&request.group_id) {
        _ if request.group_id.is_empty() => Err(empty_group_id()),
        _ if !session_timeout_is_allowed(&shard.context, &request) => {
            Err(session_timeout_refused(&shard.context, &request))
        }
        Some(Group::Consumer(group)) if !group.is_empty() => {
            return consumer::classic_join(shard, id, request);
        }
        Some(Group::Classic(_)) => Ok(()),
        Some(Group::Consumer(_)) | None if !request.member_id.is_empty() => {
            let message =
                format!("there is no group {}: join without a member id", request.group_id);
            Err(GroupError::new(ErrorCode::UnknownMemberId, message))
        }
        Some(Group::Consumer(_)) | None => {
            let new = ClassicGroup::new(request.group_id.clone(), shard.context.now);
            if new.supports(&request.protocol_type, &request.protocols) {
                create(shard, new);
                Ok(())
            } else {
                Err(new.inconsistent(&request.protocol_type))
            }
        }
    };
    if let Err(error) = failed {
        let reply = JoinReply::failed(request.member_id, error);
        return shard.context.reply(id, GroupReply::Join(reply));
    }
    if let Some(Group::Classic(group)) = shard.groups.get_mut(&request.group_id) {
        group.join(&mut shard.context, id, request);
    }
}

/// Puts a new group in the log, in place of a consumer group without members.
fn create(shard: &mut GroupShard, group: ClassicGroup) {
    let mut records = Vec::new();
    if let Some(Group::Consumer(before)) = shard.groups.get(&group.id) {
        before.tombstones(&group.id, &mut records);
        if let Err(misfit) = shard.apply_all(&records) {
            return shard.context.undo(misfit);
        }
    }
    records.push(group.record());
    shard.groups.insert(group.id.clone(), Group::Classic(Box::new(group)));
    shard.context.append(records, None);
}

/// A protocol that is listed twice counts once.
fn unique_names(request: &mut JoinRequest) {
    let mut kept = Vec::with_capacity(request.protocols.len());
    for protocol in request.protocols.drain(..) {
        if kept.iter().all(|other: &super::ClassicProtocol| other.name != protocol.name) {
            kept.push(protocol);
        }
    }
    request.protocols = kept;
}

pub(super) fn empty_group_id() -> GroupError {
    GroupError::new(ErrorCode::InvalidGroupId, "the group id is empty: set group.id")
}

fn session_timeout_is_allowed(context: &Context, request: &JoinRequest) -> bool {
    let config = &context.config;
    (config.classic_session_timeout_ms_min..=config.classic_session_timeout_ms_max)
        .contains(&request.session_timeout_ms)
}

fn session_timeout_refused(context: &Context, request: &JoinRequest) -> GroupError {
    let message = format!(
        "group {}: session.timeout.ms={} is outside group.min.session.timeout.ms={} and \
         group.max.session.timeout.ms={}",
        request.group_id,
        request.session_timeout_ms,
        context.config.classic_session_timeout_ms_min,
        context.config.classic_session_timeout_ms_max,
    );
    GroupError::new(ErrorCode::InvalidSessionTimeout, message)
}

impl ClassicGroup {
    fn join(&mut self, context: &mut Context, id: RequestId, request: JoinRequest) {
        let refused = |member: Arc<str>, error| GroupReply::Join(JoinReply::failed(member, error));
        if !self.has_room(context, &request.member_id) {
            self.remove(context, &request.member_id);
            let error = self.full(context);
            context.reply(id, refused("".into(), error));
            return self.maybe_complete_join(context);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            let error = self.inconsistent(&request.protocol_type);
            return context.reply(id, refused(request.member_id, error));
        }
        if request.member_id.is_empty() {
            return self.join_unknown(context, id, request);
        }
        if self.pending_joins.contains(&request.member_id) && request.instance_id.is_none() {
            let member = request.member_id.clone();
            return self.add(context, id, member, request);
        }
        if let Err(error) = self.validate_member(&request.member_id, request.instance_id.as_deref())
        {
            return context.reply(id, refused(request.member_id, error));
        }
        self.join_known(context, id, request);
    }

    /// Whether there is room for this member. While joins are parked, those who have joined count,
    /// not those who are members, so the last to come back are turned away from a group over its
    /// size.
    fn has_room(&self, context: &Context, member: &Arc<str>) -> bool {
        let size_max = context.config.classic_size_max;
        match self.state {
            ClassicState::Empty => true,
            ClassicState::PreparingRebalance => {
                let parked = |member: &ClassicMember| member.awaiting_join.is_some();
                self.members.get(member).is_some_and(parked) || self.joins_parked < size_max
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                self.members.contains_key(member) || self.members.len() < size_max
            }
        }
    }

    fn full(&self, context: &Context) -> GroupError {
        let size_max = context.config.classic_size_max;
        let message =
            format!("group {} is full: it has group.max.size={size_max} members", self.id);
        GroupError::new(ErrorCode::GroupMaxSizeReached, message)
    }

    /// A client that has no member id yet.
    fn join_unknown(&mut self, context: &mut Context, id: RequestId, request: JoinRequest) {
        if let Some(instance) = request.instance_id.clone() {
            let new = context.new_member_id(&instance);
            return match self.statics.get(&instance).cloned() {
                Some(old) => self.replace_static(context, id, (old, new), request),
                None => self.add(context, id, new, request),
            };
        }
        let new = context.new_member_id(&request.client_id);
        if !request.requires_known_member_id {
            return self.add(context, id, new, request);
        }
        self.pending_joins.insert(new.clone());
        let timer = GroupTimer::ClassicSession(new.clone());
        context.arm(&self.id, timer, i64::from(request.session_timeout_ms));
        let message = format!("group {}: join again as member {new}", self.id);
        let error = GroupError::new(ErrorCode::MemberIdRequired, message);
        context.reply(id, GroupReply::Join(JoinReply::failed(new, error)));
    }

    /// An existing member.
    fn join_known(&mut self, context: &mut Context, id: RequestId, request: JoinRequest) {
        let member = request.member_id.clone();
        let same = self.members.get(&member).is_some_and(|now| now.protocols == request.protocols);
        let current = match self.state {
            ClassicState::Empty => {
                let reply = JoinReply::failed(member.clone(), self.unknown(&member));
                return context.reply(id, GroupReply::Join(reply));
            }
            ClassicState::PreparingRebalance => false,
            // It may not have received the answer to its join.
            ClassicState::CompletingRebalance => same,
            // A leader that rejoins wants to assign again, because its topics have changed.
            ClassicState::Stable => same && !self.is_leader(&member),
        };
        if current {
            let members = if self.is_leader(&member) { self.joined_members() } else { Vec::new() };
            let reply = self.generation_for(&member, members);
            return context.reply(id, GroupReply::Join(reply));
        }
        self.update(context, id, &member, request);
        self.rebalance_or_complete_join(context);
    }

    fn add(
        &mut self,
        context: &mut Context,
        id: RequestId,
        member: Arc<str>,
        request: JoinRequest,
    ) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        if let Some(initial) = &mut self.initial {
            initial.member_added = true;
        }
        let new = ClassicMember {
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(id),
            awaiting_sync: None,
            is_new: true,
        };
        self.insert(member.clone(), new);
        // It cannot send heartbeats before it knows its id, and a vanished client would come back
        // under a new id with every retry.
        let patience_ms = context.config.classic_new_member_join_timeout_ms;
        context.arm(&self.id, GroupTimer::ClassicSession(member), patience_ms);
        self.rebalance_or_complete_join(context);
    }

    /// Records what a member says about itself, and parks its join.
    fn update(
        &mut self,
        context: &mut Context,
        id: RequestId,
        member: &Arc<str>,
        request: JoinRequest,
    ) {
        let Some(known) = self.members.get_mut(member) else { return };
        let before = std::mem::replace(&mut known.protocols, request.protocols);
        let after = known.protocols.clone();
        known.rebalance_timeout_ms = request.rebalance_timeout_ms;
        known.session_timeout_ms = request.session_timeout_ms;
        known.client_id = request.client_id;
        known.client_host = request.client_host;
        self.discount_protocols(&before);
        self.count_protocols(&after);
        self.park_join(context, member, id);
    }

    /// A static member is back without its id: it takes the place of its former self, which is
    /// fenced.
    fn replace_static(
        &mut self,
        context: &mut Context,
        id: RequestId,
        (old, new): (Arc<str>, Arc<str>),
        request: JoinRequest,
    ) {
        let leader_before = self.leader.clone();
        self.rename(context, &old, &new);
        let skips = request.supports_skipping_assignment;
        self.update(context, id, &new, request);
        self.touch(context, &new);
        match self.state {
            ClassicState::Stable if self.vote() == self.protocol => {}
            ClassicState::Stable => return self.rebalance_or_complete_join(context),
            // The leader may have been told the old id, and would assign to nobody.
            ClassicState::CompletingRebalance => return self.prepare_rebalance(context),
            ClassicState::Empty | ClassicState::PreparingRebalance => {
                return self.maybe_complete_join(context);
            }
        }
        let is_leader = self.is_leader(&new);
        let members = if skips && is_leader { self.joined_members() } else { Vec::new() };
        let mut reply = self.generation_for(&new, members);
        if skips {
            reply.skip_assignment = is_leader;
        } else {
            // A client that cannot skip the assignment must not believe that it is the leader.
            reply.leader = leader_before.unwrap_or_else(|| "".into());
        }
        if let Some(member) = self.members.get_mut(&new)
            && member.awaiting_join.take().is_some()
        {
            self.joins_parked -= 1;
        }
        context.append(vec![self.record()], Some((id, GroupReply::Join(reply))));
    }

    /// Gives a static member another id.
    fn rename(&mut self, context: &mut Context, old: &Arc<str>, new: &Arc<str>) {
        let message = format!(
            "group {}: another process has taken over the instance of member {old}",
            self.id
        );
        let fenced = GroupError::new(ErrorCode::FencedInstanceId, message);
        self.answer_join(context, old, Err((fenced.clone(), old.clone())));
        self.answer_sync(context, old, Err(fenced));
        context.disarm(&self.id, GroupTimer::ClassicSession(old.clone()));
        if self.pending_syncs.remove(old) && self.pending_syncs.is_empty() {
            context.disarm(&self.id, GroupTimer::ClassicSync);
        }
        let Some(member) = self.members.remove(old) else { return };
        if let Some(instance) = &member.instance_id {
            self.statics.insert(instance.clone(), new.clone());
        }
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        self.members.insert(new.clone(), ClassicMember { is_new: false, ..member });
    }
}
