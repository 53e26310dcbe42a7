//! One member's way from what it has to what it is to have.
//!
//! ```text
//!             target moved, something to give up
//!   ┌─────────┐ ────────────────────────────► ┌──────────────────────┐
//!   │ stable  │                               │ unrevoked partitions │ waits until the member no
//!   └─────────┘ ◄──────────────────────────── └──────────────────────┘ longer reports them
//!      │   ▲      given up, all is free                  │
//!      │   │                                             │ given up, others have the rest
//!      ▼   │ the last one is free                        ▼
//!   ┌───────────────────────┐ ◄──────────────────────────┘
//!   │ unreleased partitions │ in the target's epoch, gets what becomes free
//!   └───────────────────────┘
//! ```
//!
//! Invariants:
//! - `RECONCILE-1` a partition is added to a member only when no other has it, whether assigned or
//!   still to be given up.
//! - `RECONCILE-2` a partition that a member must give up remains its own until the member reports
//!   without it, or is removed.
//! - `RECONCILE-3` the epoch only becomes the target's when nothing is left to give up.

use std::collections::{BTreeMap, BTreeSet};

use super::assignor::Partitions;
use super::member::{Current, MemberState, Owned};
use crate::machine::group::record::TopicPartitions;
use crate::types::{PartitionIndex, TopicId};

/// What is known when a member is moved on.
pub(super) struct Reconciliation<'a> {
    pub(super) current: &'a Current,
    pub(super) target_epoch: i32,
    pub(super) target: &'a Partitions,
    /// The topics that it subscribes to now. The target may be older than that.
    pub(super) subscribed: &'a BTreeSet<TopicId>,
    /// Whether it has just changed what it subscribes to.
    pub(super) subscription_changed: bool,
    /// What it says it owns; `None` when it did not say.
    pub(super) reported: Option<&'a [TopicPartitions]>,
    /// Whether another member has that partition.
    pub(super) taken: &'a dyn Fn(TopicId, PartitionIndex) -> bool,
}

/// The member is in a state that this version does not know, and still owns something: it must
/// rejoin without it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownState;

impl Reconciliation<'_> {
    /// What the member has from now on; `None` when nothing changed.
    pub(super) fn next(&self) -> Result<Option<Current>, UnknownState> {
        let current = self.current;
        if current.is_reconciled_to(self.target_epoch) && !self.subscription_changed {
            return Ok(None);
        }
        let next = match current.state {
            MemberState::Stable if current.epoch == self.target_epoch => self.unsubscribe(),
            MemberState::UnrevokedPartitions if self.still_owns(&current.pending_revocation) => {
                if !self.subscription_changed {
                    return Ok(None);
                }
                self.unsubscribe()
            }
            MemberState::Unknown if self.reported.is_none_or(|list| !list.is_empty()) => {
                return Err(UnknownState);
            }
            _ => self.towards_target(),
        };
        Ok((next != *current).then_some(next))
    }

    fn still_owns(&self, revoked: &Owned) -> bool {
        let Some(reported) = self.reported else { return true };
        reported.iter().any(|topic| {
            revoked.get(&topic.topic_id).is_some_and(|list| {
                topic.partitions.iter().any(|partition| list.contains_key(partition))
            })
        })
    }

    /// Takes away the topics that the member no longer subscribes to, without waiting for a target.
    fn unsubscribe(&self) -> Current {
        let mut next = self.current.clone();
        let gone: Vec<TopicId> = next
            .assigned
            .keys()
            .filter(|topic| !self.subscribed.contains(topic))
            .copied()
            .collect();
        for topic in gone {
            if let Some(list) = next.assigned.remove(&topic) {
                next.pending_revocation.entry(topic).or_default().extend(list);
            }
        }
        if next == *self.current {
            return next;
        }
        next.previous_epoch = next.epoch;
        if self.still_owns(&next.pending_revocation) {
            next.state = MemberState::UnrevokedPartitions;
        } else {
            next.pending_revocation.clear();
        }
        next
    }

    fn towards_target(&self) -> Current {
        let mut assigned = Owned::new();
        let mut revoked = Owned::new();
        let mut granted: BTreeMap<TopicId, Vec<PartitionIndex>> = BTreeMap::new();
        let mut waits = false;

        for (&topic, had) in &self.current.assigned {
            for (&partition, &epoch) in had {
                let kept = self.wants(topic, partition);
                let side = if kept { &mut assigned } else { &mut revoked };
                side.entry(topic).or_default().insert(partition, epoch);
            }
        }
        for (&topic, wanted) in self.target {
            if !self.subscribed.contains(&topic) {
                continue;
            }
            let had = self.current.assigned.get(&topic);
            for &partition in wanted {
                if had.is_some_and(|had| had.contains_key(&partition)) {
                    continue;
                }
                if (self.taken)(topic, partition) {
                    waits = true;
                } else {
                    granted.entry(topic).or_default().push(partition);
                }
            }
        }
        if !revoked.is_empty() && self.still_owns(&revoked) {
            return Current {
                epoch: self.current.epoch,
                previous_epoch: self.current.epoch,
                state: MemberState::UnrevokedPartitions,
                assigned,
                pending_revocation: revoked,
            };
        }
        for (topic, partitions) in granted {
            let list = assigned.entry(topic).or_default();
            list.extend(partitions.into_iter().map(|partition| (partition, self.target_epoch)));
        }
        Current {
            epoch: self.target_epoch,
            previous_epoch: self.current.epoch,
            state: if waits { MemberState::UnreleasedPartitions } else { MemberState::Stable },
            assigned,
            pending_revocation: Owned::new(),
        }
    }

    fn wants(&self, topic: TopicId, partition: PartitionIndex) -> bool {
        self.subscribed.contains(&topic)
            && self.target.get(&topic).is_some_and(|list| list.contains(&partition))
    }
}
