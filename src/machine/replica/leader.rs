//! What a leader knows of its followers, and what follows from it: the ISR and the high watermark.
//!
//! The rules are Apache Kafka's (`Partition` and `Replica` there):
//! - a follower has everything before the offset that it fetches;
//! - it was *caught up* when it last fetched from the leader's end, or from where that was at its fetch before, and as
//!   long as nothing has been appended since: one that has everything is not asked to say so again;
//! - it joins the ISR when it has come to the high watermark and to the start of the leader's epoch, is registered,
//!   neither fenced nor stopping, and fetches as the broker that is registered;
//! - it leaves when it has not been caught up for `replica.lag.time.max.ms`;
//! - the high watermark is where the last member of the maximal ISR has come, and the last of those who are
//!   caught up and may join: without these, the high watermark of a leader that is alone would run away from a
//!   follower that is about to join. It stands while the ISR is smaller than `min.insync.replicas` (KIP-966).

use std::collections::BTreeMap;
use std::time::Duration;

use super::isr::{Isr, IsrAnswer, IsrMember, IsrRequest};
#[cfg(any(test, feature = "sim"))]
use super::mistakes::{Mistake, is_planted};
use super::{Brokers, Rules};
use crate::machine::metadata::PartitionImage;
use crate::types::{BrokerEpoch, LeaderEpoch, NodeId, Offset};

/// A fetch of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    /// The follower.
    pub node: NodeId,
    /// The registration that it fetches in; [`BrokerEpoch::UNKNOWN`] before Fetch v15.
    pub broker_epoch: BrokerEpoch,
    /// What it asks for: it has everything before.
    pub offset: Offset,
    /// The leader's end before the fetch was answered: what is appended meanwhile does not make it lag.
    pub leader_end: Offset,
    /// Where the follower's log starts, as far as it says.
    pub log_start: Option<Offset>,
    /// Where it starts on its disk, if it has a tier and says so.
    pub local_start: Option<Offset>,
}

/// Why a follower's fetch says nothing about its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchRefusal {
    /// This replica does not lead the partition.
    NotLeader,
    /// The fetcher has no replica of the partition, as far as this broker knows.
    NotReplica,
    /// The fetcher is registered anew since.
    StaleBroker,
}

/// One follower, since this epoch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Follower {
    /// How far it has come; none when it has not been heard of.
    end: Option<Offset>,
    /// The registration in which it fetched.
    broker_epoch: Option<BrokerEpoch>,
    /// The registration that the metadata knows, unless it is fenced or stopping.
    registered: Option<BrokerEpoch>,
    /// When it fetched last, and where the leader's end was then.
    fetched_at: Option<Duration>,
    leader_end: Option<Offset>,
    /// When it was last caught up.
    caught_up_at: Option<Duration>,
    /// It still was when something was appended, at a time that is not known: since the last tick.
    was_caught_up: bool,
    /// Where its log starts, as far as it said.
    log_start: Option<Offset>,
    /// Where it starts on its disk.
    local_start: Option<Offset>,
}

impl Follower {
    fn is_caught_up(&self, leader_end: Offset, now: Duration, lag_max: Duration) -> bool {
        let recently = |at: Duration| now.saturating_sub(at) <= lag_max;
        self.end == Some(leader_end)
            || self.was_caught_up
            || self.caught_up_at.is_some_and(recently)
    }

    /// Whether the broker that fetches may be in the ISR.
    fn is_eligible(&self) -> bool {
        #[cfg(any(test, feature = "sim"))]
        if is_planted(Mistake::TrustsAnyBroker) {
            return self.broker_epoch.is_some();
        }
        match (self.broker_epoch, self.registered) {
            (Some(fetched), Some(registered)) => {
                fetched == BrokerEpoch::UNKNOWN || fetched == registered
            }
            _ => false,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Leader {
    node: NodeId,
    epoch: LeaderEpoch,
    epoch_start: Offset,
    isr: Isr,
    followers: BTreeMap<NodeId, Follower>,
    /// The latest time that anybody told.
    now: Duration,
}

impl Leader {
    /// A new leader, or an old one in a new epoch: nothing is known of the followers.
    pub(super) fn new(
        (node, image): (NodeId, &PartitionImage),
        epoch_start: Offset,
        brokers: &impl Brokers,
        now: Duration,
    ) -> Self {
        let (epoch, isr) = (image.leader_epoch, Isr::of(image));
        let followers = BTreeMap::new();
        let mut leader = Self { node, epoch, epoch_start, isr, followers, now };
        leader.place(image, brokers);
        for (id, follower) in &mut leader.followers {
            // Who is in the ISR has the time of a lag to show that it still belongs there.
            follower.caught_up_at = leader.isr.committed().contains(id).then_some(now);
        }
        leader
    }

    /// The metadata changed within the epoch. What is known of the followers stays.
    pub(super) fn update(&mut self, image: &PartitionImage, brokers: &impl Brokers, now: Duration) {
        self.now = self.now.max(now);
        self.isr.update(image);
        self.place(image, brokers);
    }

    fn place(&mut self, image: &PartitionImage, brokers: &impl Brokers) {
        #[cfg(any(test, feature = "sim"))]
        if is_planted(Mistake::ForgetsFollowers) {
            self.followers.clear();
        }
        let others = image.replicas.iter().filter(|id| **id != self.node);
        let known = std::mem::take(&mut self.followers);
        self.followers = others
            .map(|id| {
                let known = known.get(id).copied().unwrap_or_default();
                (*id, Follower { registered: brokers.active_epoch(*id), ..known })
            })
            .collect();
    }

    pub(super) const fn isr(&self) -> &Isr {
        &self.isr
    }

    /// A follower fetches. `high_watermark` is that of before. Returns a larger ISR to ask for.
    pub(super) fn fetched(
        &mut self,
        fetch: &FollowerFetch,
        high_watermark: Offset,
        now: Duration,
    ) -> Result<Option<IsrRequest>, FetchRefusal> {
        self.now = self.now.max(now);
        let now = self.now;
        let follower = self.followers.get_mut(&fetch.node).ok_or(FetchRefusal::NotReplica)?;
        let stale = |registered: BrokerEpoch| registered > fetch.broker_epoch;
        if fetch.broker_epoch != BrokerEpoch::UNKNOWN && follower.registered.is_some_and(stale) {
            return Err(FetchRefusal::StaleBroker);
        }
        let caught_up = if fetch.offset >= fetch.leader_end {
            Some(now)
        } else if follower.leader_end.is_some_and(|end| fetch.offset >= end) {
            follower.fetched_at
        } else {
            None
        };
        follower.caught_up_at = follower.caught_up_at.max(caught_up);
        follower.end = Some(fetch.offset);
        follower.leader_end = follower.leader_end.max(Some(fetch.leader_end));
        follower.fetched_at = Some(now);
        follower.broker_epoch = Some(fetch.broker_epoch);
        follower.log_start = fetch.log_start.or(follower.log_start);
        follower.local_start = fetch.local_start.or(follower.local_start);
        let starts_at = self.epoch_start;
        #[cfg(any(test, feature = "sim"))]
        let starts_at =
            if is_planted(Mistake::JoinsBeforeEpochStart) { Offset(0) } else { starts_at };
        let in_sync = fetch.offset >= high_watermark && fetch.offset >= starts_at;
        if !in_sync || !follower.is_eligible() || self.isr.committed().contains(&fetch.node) {
            return Ok(None);
        }
        let isr = self.isr.committed().iter().copied().chain([fetch.node]).collect();
        Ok(self.ask(isr))
    }

    /// Something was appended at this offset.
    pub(super) fn appended(&mut self, at: Offset) {
        for follower in self.followers.values_mut() {
            follower.was_caught_up |= follower.end == Some(at);
        }
    }

    /// A smaller ISR to ask for, when members lag.
    pub(super) fn without_lagging(
        &mut self,
        log_end: Offset,
        now: Duration,
        rules: &Rules,
    ) -> Option<IsrRequest> {
        self.now = self.now.max(now);
        for follower in self.followers.values_mut() {
            if std::mem::take(&mut follower.was_caught_up) || follower.end == Some(log_end) {
                follower.caught_up_at = Some(self.now);
            }
        }
        let lags = |id: &NodeId| {
            let follower = self.followers.get(id);
            let keeps_up = |one: &Follower| one.is_caught_up(log_end, self.now, rules.lag_time_max);
            *id != self.node && !follower.is_some_and(keeps_up)
        };
        let kept: Vec<NodeId> =
            self.isr.committed().iter().copied().filter(|id| !lags(id)).collect();
        if kept.len() == self.isr.committed().len() { None } else { self.ask(kept) }
    }

    fn ask(&mut self, isr: Vec<NodeId>) -> Option<IsrRequest> {
        let member = |node| {
            let known = self.followers.get(&node).and_then(|follower| follower.broker_epoch);
            IsrMember { node, broker_epoch: known.unwrap_or(BrokerEpoch::UNKNOWN) }
        };
        let members = isr.into_iter().map(member).collect();
        self.isr.ask(self.epoch, members)
    }

    pub(super) fn answered(
        &mut self,
        request: &IsrRequest,
        answer: IsrAnswer,
    ) -> Option<IsrRequest> {
        self.isr.answered(request, answer)
    }

    /// Of some brokers, the one in sync that has most, if it has `offset`; of those that have as much, the one that was
    /// caught up last.
    pub(super) fn nearest(&self, nodes: &[NodeId], offset: Offset) -> Option<NodeId> {
        let reads = |id: NodeId| {
            let follower = self.followers.get(&id)?;
            let end = follower.end.filter(|end| *end >= offset)?;
            // What only the tier has, the leader reads there.
            let start = follower.local_start.max(follower.log_start);
            let has = start.is_some_and(|start| start <= offset);
            let is_in_sync = self.isr.committed().contains(&id) && follower.registered.is_some();
            (has && is_in_sync).then_some((end, follower.caught_up_at, id))
        };
        nodes.iter().filter_map(|id| reads(*id)).max().map(|(_, _, id)| id)
    }

    /// Whether every replica whose broker is active has deleted what lies before `offset`.
    pub(super) fn have_deleted(&self, offset: Offset) -> bool {
        let mut active = self.followers.values().filter(|follower| follower.registered.is_some());
        active.all(|follower| follower.log_start.is_some_and(|start| start >= offset))
    }

    /// How far everybody has come who counts, when the leader itself counts up to `own`; none when that is not
    /// known, or when too few count.
    pub(super) fn line(&self, own: Offset, log_end: Offset, rules: &Rules) -> Option<Offset> {
        let too_few = self.isr.committed().len() < rules.min_in_sync;
        #[cfg(any(test, feature = "sim"))]
        let too_few = too_few && !is_planted(Mistake::CommitsBelowMinIsr);
        if too_few {
            return None;
        }
        let mut line = own;
        for (id, follower) in &self.followers {
            let joins = follower.is_caught_up(log_end, self.now, rules.lag_time_max)
                && follower.is_eligible();
            let counts = self.isr.may_contain(*id);
            #[cfg(any(test, feature = "sim"))]
            let (joins, counts) = (
                joins && !is_planted(Mistake::LeavesJoiningBehind),
                counts
                    && (self.isr.committed().contains(id)
                        || !is_planted(Mistake::IgnoresPendingIsr)),
            );
            if counts || joins {
                // One that has not been heard of holds the line.
                line = line.min(follower.end?);
            }
        }
        #[cfg(any(test, feature = "sim"))]
        if is_planted(Mistake::CommitsLogEnd) {
            return Some(log_end);
        }
        Some(line)
    }
}
