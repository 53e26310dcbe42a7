//! The rules of a replica, said without the machine: from the list of everything that happened in the epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::tests::{ME, image};
use super::*;
use crate::error::ErrorCode;
use crate::types::PartitionEpoch;

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Assign { leader: i32, epochs_on: i32, isr: Vec<i32>, changes_on: i32 },
    Register { node: i32, epoch: Option<i64> },
    Rules { synced_counts: bool, min_in_sync: usize },
    Append(i64),
    Sync(i64),
    Fetch { node: i32, behind: i64, before: i64, broker_epoch: i64 },
    Tick(u64),
    Answer(Answered),
    Heard { high_watermark: i64, log_start: i64 },
    Truncate { back: i64, unclean: bool },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Answered {
    Committed,
    Ineligible,
    OutOfDate,
    NotController,
}

pub(super) const LAG: Duration = Duration::from_millis(100);

struct Fetched {
    node: i32,
    offset: i64,
    leader_end: i64,
    at: Duration,
    broker_epoch: i64,
}

struct Registered(BTreeMap<i32, i64>);

impl Brokers for Registered {
    fn active_epoch(&self, node: NodeId) -> Option<BrokerEpoch> {
        self.0.get(&node.0).copied().map(BrokerEpoch)
    }
}

pub(super) struct Model {
    leader: i32,
    epoch: i32,
    epoch_start: i64,
    began: (Duration, Vec<i32>),
    isr: Vec<i32>,
    partition_epoch: i32,
    pending: Option<(IsrRequest, Vec<i32>)>,
    image_isr: Vec<i32>,
    image_epoch: i32,
    registered: Registered,
    fetches: Vec<Fetched>,
    /// Who had everything when something was appended since the last tick, and who had it at a tick.
    had_everything: BTreeSet<i32>,
    had_it_at: BTreeMap<i32, Duration>,
    copied: bool,
    log_end: i64,
    synced_end: i64,
    high_watermark: i64,
    rules: Rules,
    now: Duration,
}

impl Model {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            leader: -1,
            epoch: -1,
            epoch_start: 0,
            began: (Duration::ZERO, Vec::new()),
            isr: Vec::new(),
            partition_epoch: -1,
            pending: None,
            image_isr: vec![1],
            image_epoch: 0,
            registered: Registered(BTreeMap::from([(2, 12), (3, 13)])),
            fetches: Vec::new(),
            had_everything: BTreeSet::new(),
            had_it_at: BTreeMap::new(),
            copied: false,
            log_end: 0,
            synced_end: 0,
            high_watermark: 0,
            rules,
            now: Duration::ZERO,
        }
    }

    fn leads(&self) -> bool {
        self.leader == ME.0
    }

    fn end(&self, node: i32) -> Option<i64> {
        self.fetches.iter().rfind(|one| one.node == node).map(|one| one.offset)
    }

    fn caught_up(&self, node: i32) -> bool {
        if self.end(node) == Some(self.log_end) || self.had_everything.contains(&node) {
            return true;
        }
        let mut at = self.began.1.contains(&node).then_some(self.began.0);
        at = at.max(self.had_it_at.get(&node).copied());
        let of_node: Vec<&Fetched> = self.fetches.iter().filter(|one| one.node == node).collect();
        for (index, one) in of_node.iter().enumerate() {
            let before = &of_node[..index];
            if one.offset >= one.leader_end {
                at = at.max(Some(one.at));
            } else if before.iter().map(|one| one.leader_end).max().is_some_and(|e| one.offset >= e)
            {
                at = at.max(before.last().map(|one| one.at));
            }
        }
        at.is_some_and(|at| self.now.saturating_sub(at) <= LAG)
    }

    fn eligible(&self, node: i32) -> bool {
        let fetched = self.fetches.iter().rfind(|one| one.node == node).map(|one| one.broker_epoch);
        let registered = self.registered.0.get(&node).copied();
        fetched.is_some() && registered.is_some() && (fetched == Some(-1) || fetched == registered)
    }

    fn advance(&mut self) {
        if !self.leads() || self.isr.len() < self.rules.min_in_sync {
            return;
        }
        let synced = self.rules.durability == LocalDurability::Synced;
        let mut ends = vec![Some(if synced { self.synced_end } else { self.log_end })];
        for node in [2, 3] {
            let asked = self.pending.as_ref().is_some_and(|(_, isr)| isr.contains(&node));
            if self.isr.contains(&node) || asked || self.caught_up(node) && self.eligible(node) {
                ends.push(self.end(node));
            }
        }
        if ends.iter().all(Option::is_some) {
            let line = ends.into_iter().flatten().min().unwrap();
            self.high_watermark = self.high_watermark.max(line);
        }
    }

    fn image(&self) -> PartitionImage {
        PartitionImage {
            partition_epoch: PartitionEpoch(self.image_epoch),
            ..image(self.leader, self.epoch, &self.image_isr)
        }
    }

    fn assign(&mut self, replica: &mut Replica) {
        if self.leads() && self.image_epoch > self.partition_epoch {
            self.isr.clone_from(&self.image_isr);
            self.partition_epoch = self.image_epoch;
            self.pending = None;
        }
        drop(replica.assign(&self.image(), &self.registered, self.now).unwrap());
        self.advance();
    }

    fn expect_request(&mut self, found: Option<IsrRequest>, wanted: Option<Vec<i32>>) {
        let wanted = wanted.filter(|_| self.pending.is_none());
        let nodes = |one: &IsrRequest| one.isr.iter().map(|one| one.node.0).collect::<Vec<_>>();
        assert_eq!(found.as_ref().map(nodes), wanted, "the ISR that is asked for");
        if let (Some(request), Some(isr)) = (found, wanted) {
            assert_eq!(request.leader_epoch.0, self.epoch);
            assert_eq!(request.partition_epoch.0, self.partition_epoch);
            for member in request.isr.iter().filter(|one| one.node != ME) {
                let fetched = self.fetches.iter().rfind(|one| one.node == member.node.0);
                assert_eq!(member.broker_epoch.0, fetched.map_or(-1, |one| one.broker_epoch));
            }
            self.pending = Some((request, isr));
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each thing that happens")]
    pub(super) fn apply(&mut self, step: &Step, replica: &mut Replica) {
        match step {
            Step::Assign { leader, epochs_on, isr, changes_on } => {
                let epoch = self.epoch + epochs_on;
                let contradicts =
                    epoch < self.epoch || epoch == self.epoch && *leader != self.leader;
                if contradicts {
                    let image = image(*leader, epoch, isr);
                    replica.assign(&image, &self.registered, self.now).expect_err("ROLE-1");
                    return;
                }
                if epoch > self.epoch {
                    (self.epoch, self.epoch_start) = (epoch, self.log_end);
                    self.leader = *leader;
                    (self.fetches, self.copied) = (Vec::new(), false);
                    self.had_everything.clear();
                    self.had_it_at.clear();
                    self.began = (self.now, isr.clone());
                    self.image_epoch += 1;
                    self.image_isr.clone_from(isr);
                    self.isr.clone_from(isr);
                    self.partition_epoch = self.image_epoch;
                    self.pending = None;
                } else {
                    self.image_epoch = (self.image_epoch + changes_on).max(0);
                    self.image_isr.clone_from(isr);
                }
                self.assign(replica);
            }
            Step::Register { node, epoch } => {
                match epoch {
                    Some(epoch) => self.registered.0.insert(*node, *epoch),
                    None => self.registered.0.remove(node),
                };
                if self.epoch >= 0 {
                    self.assign(replica);
                }
            }
            Step::Rules { synced_counts, min_in_sync } => {
                self.rules.min_in_sync = *min_in_sync;
                self.rules.durability =
                    if *synced_counts { LocalDurability::Synced } else { LocalDurability::Written };
                self.advance();
                drop(replica.set_rules(self.rules));
            }
            Step::Append(count) => {
                if *count > 0 {
                    let had = [2, 3].into_iter().filter(|id| self.end(*id) == Some(self.log_end));
                    self.had_everything.extend(had.collect::<Vec<_>>());
                }
                self.log_end += count;
                self.copied |= *count > 0;
                self.advance();
                drop(replica.appended(Offset(self.log_end)));
            }
            Step::Sync(back) => {
                self.synced_end = self.synced_end.max(self.log_end - back);
                self.advance();
                drop(replica.synced(Offset(self.log_end - back)));
            }
            Step::Fetch { node, behind, before, broker_epoch } => {
                let offset = (self.log_end - behind).max(0);
                let leader_end = (self.log_end - before).max(0);
                let fetch = FollowerFetch {
                    node: NodeId(*node),
                    broker_epoch: BrokerEpoch(*broker_epoch),
                    offset: Offset(offset),
                    leader_end: Offset(leader_end),
                    log_start: None,
                    local_start: None,
                };
                let fetched = replica.fetched(&fetch, self.now);
                let registered = self.registered.0.get(node);
                let refusal = if !self.leads() {
                    Some(FetchRefusal::NotLeader)
                } else if *node > 3 {
                    Some(FetchRefusal::NotReplica)
                } else if *broker_epoch >= 0 && registered.is_some_and(|known| known > broker_epoch)
                {
                    Some(FetchRefusal::StaleBroker)
                } else {
                    None
                };
                assert_eq!(fetched.as_ref().err(), refusal.as_ref());
                let Ok(effects) = fetched else { return };
                let (at, broker_epoch) = (self.now, *broker_epoch);
                self.fetches.push(Fetched { node: *node, offset, leader_end, at, broker_epoch });
                let in_sync = offset >= self.high_watermark && offset >= self.epoch_start;
                let joins = in_sync && self.eligible(*node) && !self.isr.contains(node);
                let mut isr = self.isr.clone();
                isr.sort_unstable();
                isr.push(*node);
                self.expect_request(effects.request, joins.then_some(isr));
                self.advance();
            }
            Step::Tick(ms) => {
                self.now += Duration::from_millis(*ms);
                let effects = replica.tick(self.now);
                let mut had = std::mem::take(&mut self.had_everything);
                had.extend([2, 3].into_iter().filter(|id| self.end(*id) == Some(self.log_end)));
                self.had_it_at.extend(had.into_iter().map(|id| (id, self.now)));
                let keeps_up = |node: &i32| *node == ME.0 || self.caught_up(*node);
                let mut kept: Vec<i32> = self.isr.iter().copied().filter(keeps_up).collect();
                kept.sort_unstable();
                let shrinks = self.leads() && kept.len() < self.isr.len();
                self.expect_request(effects.request, shrinks.then_some(kept));
                self.advance();
            }
            Step::Answer(answered) => self.answer(*answered, replica),
            Step::Heard { high_watermark, log_start } => {
                let from = FromLeader {
                    high_watermark: Offset(*high_watermark),
                    log_start: Offset(*log_start),
                    local_start: Some(Offset(*log_start + 1)),
                };
                let (_, starts) = replica.heard(from);
                if !self.leads() {
                    let reached = (*high_watermark).min(self.log_end);
                    self.high_watermark = self.high_watermark.max(reached);
                    assert_eq!(starts.log.0, (*log_start).min(self.high_watermark), "HW-3");
                    assert_eq!(starts.local.0, (*log_start + 1).min(self.high_watermark));
                }
            }
            Step::Truncate { back, unclean } => {
                let end = (self.log_end - back).max(0);
                let how = if *unclean { Truncation::Unclean } else { Truncation::Clean };
                let allowed = !self.leads()
                    && (!self.copied || end > self.log_end)
                    && (*unclean || end >= self.high_watermark);
                assert_eq!(replica.truncated(Offset(end), how).is_ok(), allowed, "ROLE-2");
                if allowed {
                    let restarts = end > self.log_end;
                    (self.log_end, self.synced_end) = (end, self.synced_end.min(end));
                    let high_watermark = self.high_watermark.min(end);
                    self.high_watermark = if restarts { end } else { high_watermark };
                }
            }
        }
    }

    fn answer(&mut self, answered: Answered, replica: &mut Replica) {
        let Some((request, isr)) = self.pending.clone() else { return };
        let answer = match answered {
            Answered::Committed => IsrAnswer::Committed {
                leader_epoch: request.leader_epoch,
                partition_epoch: request.partition_epoch.next(),
                isr: isr.iter().copied().map(NodeId).collect(),
            },
            Answered::Ineligible => IsrAnswer::Refused(ErrorCode::IneligibleReplica),
            Answered::OutOfDate => IsrAnswer::Refused(ErrorCode::InvalidUpdateVersion),
            Answered::NotController => IsrAnswer::Refused(ErrorCode::NotController),
        };
        let effects = replica.isr_answered(&request, answer);
        match answered {
            // A smaller ISR comes with the metadata.
            Answered::Committed if !self.isr.iter().all(|id| isr.contains(id)) => {}
            Answered::Committed => {
                self.isr = isr;
                self.partition_epoch += 1;
                self.pending = None;
            }
            Answered::Ineligible => self.pending = None,
            Answered::OutOfDate | Answered::NotController => {}
        }
        let again = matches!(answered, Answered::NotController).then_some(request);
        assert_eq!(effects.request, again, "what is sent once more");
        self.advance();
    }

    pub(super) fn compare(&self, replica: &Replica, before: Offset, step: &Step) {
        let after = replica.high_watermark();
        let unclean = matches!(step, Step::Truncate { unclean: true, .. });
        assert!(after >= before || unclean, "HW-1: from {before} to {after}");
        assert!(after.0 <= self.log_end, "HW-2: {after} is beyond the log end {}", self.log_end);
        assert_eq!(after.0, self.high_watermark, "HW-2");
        assert_eq!(replica.token().leads().is_some(), self.leads());
        assert_eq!(replica.in_sync(), self.leads().then_some(self.isr.len()));
    }
}
