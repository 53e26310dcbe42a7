//! From one generation to the next.

use std::sync::Arc;

use bytes::Bytes;

use super::super::shard::{Context, Group, GroupShard};
use super::super::timers::GroupTimer;
use super::{ClassicGroup, ClassicState, InitialDelay};

/// A deadline of a classic group has passed.
pub(in super::super) fn timer_fired(shard: &mut GroupShard, id: &Arc<str>, timer: &GroupTimer) {
    let Some(Group::Classic(group)) = shard.groups.get_mut(id) else { return };
    let context = &mut shard.context;
    match timer {
        GroupTimer::ClassicJoin => group.join_deadline(context),
        GroupTimer::ClassicSync => group.sync_deadline(context),
        GroupTimer::ClassicSession(member) => group.session_deadline(context, member),
        _ => {}
    }
}

impl ClassicGroup {
    /// Starts a rebalance, or continues the one under way.
    pub(super) fn rebalance_or_complete_join(&mut self, context: &mut Context) {
        if self.state == ClassicState::PreparingRebalance {
            self.maybe_complete_join(context);
        } else {
            self.prepare_rebalance(context);
        }
    }

    /// Starts a rebalance; there must be none in its join phase.
    pub(in super::super) fn prepare_rebalance(&mut self, context: &mut Context) {
        if self.state == ClassicState::CompletingRebalance {
            let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
            for id in ids {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = Bytes::new();
                }
                if self.answer_sync(context, &id, Err(self.rebalancing())) {
                    self.touch(context, &id);
                }
            }
        }
        self.pending_syncs.clear();
        context.disarm(&self.id, GroupTimer::ClassicSync);
        let is_first = self.is_empty();
        self.transition(context, ClassicState::PreparingRebalance);
        if is_first {
            let delay_ms = context.config.classic_initial_rebalance_delay_ms;
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.initial = Some(InitialDelay { delay_ms, remaining_ms, member_added: false });
            context.arm(&self.id, GroupTimer::ClassicJoin, delay_ms);
        } else if self.all_joined() {
            self.complete_join(context);
        } else {
            context.arm(&self.id, GroupTimer::ClassicJoin, self.rebalance_timeout_ms());
        }
    }

    /// Ends the join phase if everyone has joined. The first rebalance waits for its deadline.
    pub(super) fn maybe_complete_join(&mut self, context: &mut Context) {
        let waits = self.state == ClassicState::PreparingRebalance && self.initial.is_none();
        if waits && self.all_joined() {
            self.complete_join(context);
        }
    }

    fn join_deadline(&mut self, context: &mut Context) {
        if self.state != ClassicState::PreparingRebalance {
            return;
        }
        if let Some(initial) = &mut self.initial
            && initial.member_added
            && initial.remaining_ms > 0
        {
            let waited_ms = initial.delay_ms;
            initial.member_added = false;
            initial.delay_ms =
                context.config.classic_initial_rebalance_delay_ms.min(initial.remaining_ms);
            initial.remaining_ms = (initial.remaining_ms - waited_ms).max(0);
            let delay_ms = initial.delay_ms;
            return context.arm(&self.id, GroupTimer::ClassicJoin, delay_ms);
        }
        self.complete_join(context);
    }

    /// Ends the join phase: a member that has not joined is removed, unless it is static.
    fn complete_join(&mut self, context: &mut Context) {
        context.disarm(&self.id, GroupTimer::ClassicJoin);
        let late: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(|(_, member)| member.awaiting_join.is_none() && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in &late {
            self.remove(context, id);
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only static members are left and none is back: wait until their sessions expire.
            return context.arm(&self.id, GroupTimer::ClassicJoin, self.rebalance_timeout_ms());
        }
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.pending_syncs.clear();
        self.protocol = self.vote();
        self.subscribed = self.subscriptions();
        if self.members.is_empty() {
            self.transition(context, ClassicState::Empty);
            return context.append(vec![self.record()], None);
        }
        self.transition(context, ClassicState::CompletingRebalance);
        self.announce_generation(context);
    }

    /// A leader must be present to assign.
    fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |id: &Arc<str>| {
            self.members.get(id).is_some_and(|member| member.awaiting_join.is_some())
        };
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        match self.members.keys().find(|id| has_joined(id)).cloned() {
            Some(elected) => {
                self.leader = Some(elected);
                true
            }
            None => false,
        }
    }

    /// Tells everyone about the generation, and waits for their syncs.
    fn announce_generation(&mut self, context: &mut Context) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            let members = if self.is_leader(id) { self.joined_members() } else { Vec::new() };
            let reply = self.generation_for(id, members);
            self.answer_join(context, id, Ok(reply));
            if let Some(member) = self.members.get_mut(id) {
                member.is_new = false;
            }
            self.touch(context, id);
        }
        self.pending_syncs.extend(ids);
        context.arm(&self.id, GroupTimer::ClassicSync, self.rebalance_timeout_ms());
    }

    /// Members that did not sync in time are removed.
    fn sync_deadline(&mut self, context: &mut Context) {
        let is_due = matches!(self.state, ClassicState::CompletingRebalance | ClassicState::Stable);
        if !is_due || self.pending_syncs.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_syncs) {
            self.remove(context, &id);
        }
        self.prepare_rebalance(context);
    }

    /// A member was silent for too long. A member waiting for an answer is not silent, unless
    /// it waits for its first generation.
    fn session_deadline(&mut self, context: &mut Context, id: &Arc<str>) {
        match self.members.get(id) {
            None if !self.pending_joins.contains(id) => return,
            Some(member)
                if !member.is_new
                    && (member.awaiting_join.is_some() || member.awaiting_sync.is_some()) =>
            {
                return;
            }
            _ => {}
        }
        self.member_gone(context, id);
    }

    /// Removes a member or a pending one, and continues without it.
    pub(super) fn member_gone(&mut self, context: &mut Context, id: &Arc<str>) {
        let was_member = self.members.contains_key(id);
        self.remove(context, id);
        self.go_on(context, was_member);
    }

    /// After removals: a rebalance when members are gone, or the end of a join phase that only
    /// waited for those.
    pub(super) fn go_on(&mut self, context: &mut Context, members_are_gone: bool) {
        match self.state {
            ClassicState::Stable | ClassicState::CompletingRebalance if members_are_gone => {
                self.prepare_rebalance(context);
            }
            ClassicState::PreparingRebalance => self.maybe_complete_join(context),
            _ => {}
        }
    }
}
