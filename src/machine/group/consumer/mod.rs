//! Groups of the consumer protocol (KIP-848): members report, the coordinator divides.
//!
//! Why: in the classic protocol every change stops the whole group and one member computes for all.
//! Here each member is brought to its new partitions individually, one heartbeat at a time, and
//! only partitions that move are given up.
//!
//! ```text
//!  subscriptions, topics ──► group epoch ──► target of that epoch ──► each member's current
//!  (heartbeats, metadata)    (work)          (assignor)               (reconcile)
//! ```
//!
//! Invariants, held by the tests here (those for every sequence: `tests/sharing.rs`):
//! - `CONSUMER-1` no partition is with two members at once; a member that must give one up has it
//!   until it reports without it.
//! - `CONSUMER-2` once nothing changes any more, every member that keeps reporting is stable in the
//!   epoch of the group, and each partition that somebody subscribes to has a member.
//! - `CONSUMER-3` a member's epoch never goes back while it is a member; the group's never does.
//! - `CONSUMER-4` the state is what the records say: each is applied by the code that replays it.
//!
//! | file | what it covers |
//! |------|------------------|
//! | `assignor/` | who should own what |
//! | `reconcile` | one member's way there |
//! | `member`, `state` | what the records add up to |
//! | `work` | one event: records, applied as they are written |
//! | `heartbeat` | join, report, leave |
//! | `patterns` | topics by regular expression |
//! | `classic` | members that use the classic protocol in such a group |
//! | `convert` | from a classic group and back |
//! | `offsets` | who may commit and read offsets |
//!
//! Called by [`GroupShard`](super::GroupShard) alone.

mod assignor;
mod classic;
mod convert;
mod describe;
mod heartbeat;
mod member;
mod offsets;
mod patterns;
mod reconcile;
mod state;
mod work;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::record::GroupRecord;
use super::reply::GroupReply;
use super::request::{ConsumerHeartbeatRequest, RequestId};
use super::shard::{Group, GroupShard};
use super::timers::GroupTimer;
use crate::machine::coordinator::Misfit;
use member::MemberState;
use work::Work;

pub(super) use classic::{classic_heartbeat, classic_join, classic_leave, classic_sync};
pub(super) use describe::describe;
pub(super) use state::ConsumerGroup;

/// The consumer group of that id; created when it does not exist and `create` is set. A group that
/// was created for its offsets becomes one.
fn group_mut<'a>(
    shard: &'a mut GroupShard,
    id: &Arc<str>,
    create: bool,
) -> Result<Option<&'a mut ConsumerGroup>, Misfit> {
    let is_free = match shard.groups.get(id) {
        None => true,
        Some(Group::Classic(group)) => group.is_empty(),
        Some(Group::Consumer(_)) => false,
    };
    if create && is_free {
        shard.groups.insert(Arc::clone(id), Group::Consumer(Box::default()));
    }
    match shard.groups.get_mut(id) {
        Some(Group::Consumer(group)) => Ok(Some(group)),
        Some(Group::Classic(_)) if create => {
            Err(Misfit(format!("a record of a consumer group, but group {id} is a classic one")))
        }
        _ => Ok(None),
    }
}

/// Applies one record of a consumer group. A tombstone for something that does not exist is
/// accepted too: a compacted log has those.
pub(super) fn apply(shard: &mut GroupShard, record: &GroupRecord) -> Result<(), Misfit> {
    let Some(id) = record.group() else {
        return Err(Misfit(
            "the end of a transaction was applied to the members of a group".into(),
        ));
    };
    match record {
        GroupRecord::ConsumerGroupMetadata { value: Some(value), .. } => {
            if let Some(group) = group_mut(shard, id, true)? {
                group.set_epoch(value);
            }
        }
        GroupRecord::ConsumerGroupMetadata { value: None, .. } => {
            if group_mut(shard, id, false)?.is_some() {
                shard.groups.remove(id);
                shard.context.timers.cancel_group(id);
            }
        }
        GroupRecord::ConsumerGroupPartitionMetadata { tombstone, .. } => {
            if let Some(group) = group_mut(shard, id, !tombstone)? {
                group.set_partition_metadata(!tombstone);
            }
        }
        GroupRecord::ConsumerGroupMemberMetadata { member, value, .. } => {
            if let Some(group) = group_mut(shard, id, value.is_some())? {
                group.set_said(member, value.as_ref());
            }
        }
        GroupRecord::ConsumerGroupTargetAssignmentMetadata { value, .. } => {
            if let Some(group) = group_mut(shard, id, value.is_some())? {
                group.set_target_epoch(*value);
            }
        }
        GroupRecord::ConsumerGroupTargetAssignmentMember { member, value, .. } => {
            if let Some(group) = group_mut(shard, id, value.is_some())? {
                group.set_target(member, value.as_deref());
            }
        }
        GroupRecord::ConsumerGroupCurrentMemberAssignment { member, value, .. } => {
            if let Some(group) = group_mut(shard, id, value.is_some())? {
                group.set_current(member, value.as_ref());
            }
        }
        GroupRecord::ConsumerGroupRegularExpression { regex, value, .. } => {
            if let Some(group) = group_mut(shard, id, value.is_some())? {
                group.set_pattern(regex, value.as_ref());
            }
        }
        GroupRecord::OffsetCommit { .. }
        | GroupRecord::PendingOffset { .. }
        | GroupRecord::TransactionEnd { .. }
        | GroupRecord::GroupMetadata { .. } => {
            let text = format!("group {id}: a record of another kind was applied to its members");
            return Err(Misfit(text));
        }
    }
    Ok(())
}

/// After a replay: every member gets a new session, and those that were giving partitions up get
/// their full time again.
pub(super) fn restored(shard: &mut GroupShard) {
    let mut ids = Vec::new();
    for (id, group) in &mut shard.groups {
        if let Group::Consumer(group) = group {
            group.rebuild();
            ids.push(Arc::clone(id));
        }
    }
    for id in ids {
        let mut work = Work::new(shard, &id);
        let members: Vec<(Arc<str>, bool, i32)> = work
            .group()
            .members()
            .map(|(member, state)| {
                let gives_up = state.current.state == MemberState::UnrevokedPartitions
                    && !state.uses_classic_protocol();
                (Arc::clone(member), gives_up, state.said.rebalance_timeout_ms)
            })
            .collect();
        for (member, gives_up, timeout_ms) in members {
            work.touch(&member);
            if gives_up {
                let timer = GroupTimer::ConsumerRebalance(member);
                work.shard.context.arm(&id, timer, i64::from(timeout_ms));
            }
        }
    }
}

/// Takes a ConsumerGroupHeartbeat.
pub(super) fn heartbeat(shard: &mut GroupShard, id: RequestId, request: ConsumerHeartbeatRequest) {
    let mut work = Work::new(shard, &request.group_id);
    let result = work.heartbeat(&request);
    work.append(Some((id, GroupReply::ConsumerHeartbeat(result))));
}

/// A deadline of a consumer group has passed.
pub(super) fn timer_fired(shard: &mut GroupShard, group: &Arc<str>, timer: &GroupTimer) {
    let mut work = Work::new(shard, group);
    let (GroupTimer::ConsumerSession(member)
    | GroupTimer::ConsumerJoin(member)
    | GroupTimer::ConsumerSync(member)
    | GroupTimer::ConsumerRebalance(member)) = timer
    else {
        return;
    };
    let Some(state) = work.group().member(member).map(|member| member.current.state) else {
        return;
    };
    let gave_up = state != MemberState::UnrevokedPartitions;
    if gave_up && matches!(timer, GroupTimer::ConsumerRebalance(_)) {
        return;
    }
    work.dismiss(&[Arc::clone(member)]);
    work.append(None);
}

/// The topics have changed: each group looks at them with its next report.
pub(super) fn metadata_changed(shard: &mut GroupShard) {
    for group in shard.groups.values_mut() {
        if let Group::Consumer(group) = group {
            group.is_stale = true;
        }
    }
}
