//! A member of the consumer protocol (KIP-848): one request, the heartbeat, carries everything.
//!
//! ```text
//!   Joining (epoch 0) ──► Stable ◄──► Releasing (the caller gives up) ──► acknowledge at once
//!       ▲                    │
//!       ├──── fenced: lost ──┴── Away (the caller stays away) ── Closed
//!       └─► closed before the answer: Leaving ─► Closed
//! ```
//!
//! The coordinator sends the partitions that the member is to have; it names new ones only once
//! their former owners have given them up. The member gives up what is missing, takes what is new,
//! and says what it holds in the next heartbeat, which it sends at once.
//!
//! After anything but a plain answer the next heartbeat carries every field, since it is not known
//! what the coordinator heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{
    Answer, Attempt, Beat, Beaten, Effect, Event, Identity, Liveness, PartitionIds, Partitions,
    Refusal, Request, Settings, Wanted, patience_ms,
};
use crate::error::ErrorCode;
use crate::machine::Machine;
use crate::types::{PartitionIndex, TimestampMs, TopicId, TopicPartition};

const JOIN: i32 = 0;
const LEAVE: i32 = -1;
const LEAVE_FOR_A_WHILE: i32 = -2;

/// How long a static member waits for its predecessor's session to end.
const UNRELEASED_MS: i64 = 60_000;

/// How often unknown names are asked for.
const RESOLVE_MS: i64 = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Joining,
    Stable,
    Releasing {
        until: TimestampMs,
    },
    Away,
    /// Leaves once its joining is answered: a leave that overtakes it would be in vain.
    Leaving,
    Closed,
}

/// The membership. See the module's documentation.
#[expect(clippy::struct_excessive_bools, reason = "facts that hold or not, one by one")]
#[derive(Debug)]
pub struct Consumer {
    settings: Settings,
    state: State,
    attempt: Attempt,
    member_id: String,
    epoch: i32,
    wanted: Option<Wanted>,
    names: BTreeMap<TopicId, Arc<str>>,
    /// What the coordinator says that the member is to have.
    target: PartitionIds,
    /// What the member holds.
    held: PartitionIds,
    owned: Partitions,
    releasing: Partitions,
    /// Every field goes into the next heartbeat.
    in_full: bool,
    /// The subscription changed since it was last sent.
    says_wanted: bool,
    /// What is held changed since it was last sent.
    says_owned: bool,
    beating: bool,
    beat_at: TimestampMs,
    resolve_at: Option<TimestampMs>,
    interval_ms: i64,
    /// An answer in this epoch said nothing new: the assignment, even an empty one, is no longer
    /// merely what there was before the coordinator considered the member.
    is_settled: bool,
    /// The caller's side knows that the member is in the group.
    has_joined: bool,
    unreleased_since: Option<TimestampMs>,
    failures: u32,
    random: u64,
    liveness: Liveness,
}

impl Consumer {
    /// A member that has not joined, under an id of its own (KIP-1082).
    #[must_use]
    pub fn new(settings: Settings, member_id: String, now: TimestampMs, seed: u64) -> Self {
        let liveness = Liveness { seen_at: now, limit_ms: settings.poll_ms_max };
        Self {
            interval_ms: settings.heartbeat_ms,
            settings,
            state: State::Idle,
            attempt: Attempt::default(),
            member_id,
            epoch: JOIN,
            wanted: None,
            names: BTreeMap::new(),
            target: PartitionIds::new(),
            held: PartitionIds::new(),
            owned: Partitions::new(),
            releasing: Partitions::new(),
            in_full: true,
            says_wanted: false,
            says_owned: false,
            beating: false,
            beat_at: TimestampMs::NONE,
            resolve_at: None,
            is_settled: false,
            has_joined: false,
            unreleased_since: None,
            failures: 0,
            random: seed,
            liveness,
        }
    }

    /// Who the member is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let generation = if self.epoch > JOIN { self.epoch } else { -1 };
        Identity { member_id: self.member_id.clone(), generation }
    }

    /// What the member holds, also what it is about to give up.
    #[must_use]
    pub const fn owned(&self) -> &Partitions {
        &self.owned
    }

    /// Whether the member holds what it is to have.
    #[must_use]
    pub fn is_stable(&self) -> bool {
        let has_some = !self.target.is_empty() || self.is_settled;
        self.state == State::Stable && self.held == self.target && !self.says_owned && has_some
    }

    /// The epoch in which the member may be waiting for others, since the coordinator does not say
    /// which partitions it will still get; none when it is not.
    #[must_use]
    pub fn doubt(&self) -> Option<i32> {
        let is_member = self.state == State::Stable && self.epoch > JOIN;
        (is_member || self.unreleased_since.is_some()).then_some(self.epoch)
    }

    fn is_in(&self) -> bool {
        !matches!(self.state, State::Idle | State::Away | State::Leaving | State::Closed)
    }

    /// Whether it was closed and has yet to leave.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.state == State::Leaving
    }

    fn is_static(&self) -> bool {
        self.settings.instance_id.is_some()
    }

    fn join(&mut self, now: TimestampMs) {
        self.state = State::Joining;
        self.epoch = JOIN;
        self.target.clear();
        self.held.clear();
        self.resolve_at = None;
        self.is_settled = false;
        self.in_full = true;
        self.beat_at = now;
    }

    fn beat(&mut self, out: &mut Vec<Effect>) {
        let joining = self.state == State::Joining;
        let in_full = self.in_full || joining;
        let wanted = self.wanted.clone().filter(|_| in_full || self.says_wanted);
        let owned = (in_full || self.says_owned).then(|| self.held.clone());
        self.says_wanted = false;
        self.says_owned = false;
        self.in_full = false;
        self.beating = true;
        let beat = Beat {
            member_id: self.member_id.clone(),
            epoch: self.epoch,
            joining: in_full,
            wanted,
            owned,
        };
        out.push(Effect::Send { attempt: self.attempt.next(), request: Request::Beat(beat) });
    }

    fn beaten(&mut self, now: TimestampMs, beaten: Beaten, out: &mut Vec<Effect>) {
        self.failures = 0;
        self.unreleased_since = None;
        self.is_settled = self.epoch == beaten.epoch && beaten.assignment.is_none();
        self.epoch = beaten.epoch;
        self.interval_ms = beaten.interval_ms.max(1);
        // Whatever changed while the heartbeat was in flight is reported at once.
        let is_due = self.says_owned || self.says_wanted;
        self.beat_at = if is_due { now } else { now.plus(self.interval_ms) };
        if self.state == State::Joining {
            self.state = State::Stable;
        }
        if let Some(target) = beaten.assignment {
            self.target = target;
            if self.state == State::Stable {
                self.says_owned = true;
                self.reconcile(now, out);
            }
        }
        if self.is_settled && !self.has_joined {
            self.has_joined = true;
            out.push(Effect::Assign(Partitions::new()));
        }
    }

    /// Brings the holdings closer to the target.
    fn reconcile(&mut self, now: TimestampMs, out: &mut Vec<Effect>) {
        let removed: PartitionIds = self.held.difference(&self.target).copied().collect();
        let releasing: Partitions = removed.iter().filter_map(|one| self.named(one)).collect();
        if !releasing.is_empty() {
            let patience = patience_ms(&self.settings, self.interval_ms);
            self.state = State::Releasing { until: now.plus(patience) };
            self.releasing.clone_from(&releasing);
            out.push(Effect::Revoke(releasing));
            return;
        }
        self.take(now, out);
    }

    /// Takes what is new, as far as its names are known.
    fn take(&mut self, now: TimestampMs, out: &mut Vec<Effect>) {
        let mut added = Partitions::new();
        let mut unknown = BTreeSet::new();
        for one in self.target.difference(&self.held).copied().collect::<Vec<_>>() {
            match self.named(&one) {
                Some(partition) => {
                    self.held.insert(one);
                    self.says_owned = true;
                    added.insert(partition);
                }
                None => {
                    unknown.insert(one.0);
                }
            }
        }
        if unknown.is_empty() {
            self.resolve_at = None;
        } else {
            self.resolve_at = Some(now.plus(RESOLVE_MS));
            out.push(Effect::Resolve(unknown.clone()));
        }
        if !added.is_empty() {
            self.has_joined = true;
            self.owned.extend(added.iter().cloned());
            out.push(Effect::Assign(added));
        }
        if self.says_owned && unknown.is_empty() {
            self.beat_at = now;
        }
    }

    fn named(&self, (topic, partition): &(TopicId, PartitionIndex)) -> Option<TopicPartition> {
        Some(TopicPartition::new(Arc::clone(self.names.get(topic)?), *partition))
    }

    /// Gives up what was to be released.
    fn release(&mut self) {
        let releasing = std::mem::take(&mut self.releasing);
        let gone: PartitionIds = self
            .held
            .iter()
            .filter(|one| self.named(one).is_some_and(|one| releasing.contains(&one)))
            .copied()
            .collect();
        self.held.retain(|one| !gone.contains(one));
        self.owned.retain(|one| !releasing.contains(one));
        self.says_owned = true;
    }

    /// After something was given up: on with the target of now.
    fn go_on(&mut self, now: TimestampMs, out: &mut Vec<Effect>) {
        self.state = State::Stable;
        self.beat_at = now;
        self.reconcile(now, out);
    }

    fn lose_all(&mut self, reason: String, out: &mut Vec<Effect>) {
        self.releasing.clear();
        self.held.clear();
        self.target.clear();
        let partitions = std::mem::take(&mut self.owned);
        if !partitions.is_empty() {
            out.push(Effect::Lose { partitions, reason });
        }
    }

    fn refused(&mut self, now: TimestampMs, refusal: Refusal, out: &mut Vec<Effect>) {
        self.in_full = true;
        match refusal.code {
            ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => {
                let reason = "the coordinator put the member out of the group".to_owned();
                self.lose_all(reason, out);
                let was_joining = self.state == State::Joining;
                self.join(now);
                if was_joining {
                    self.back_off(now);
                }
            }
            ErrorCode::UnreleasedInstanceId => {
                let since = *self.unreleased_since.get_or_insert(now);
                if since.plus(UNRELEASED_MS) <= now {
                    self.fail(refusal, out);
                } else {
                    self.back_off(now);
                }
            }
            code if code.retriable() => self.back_off(now),
            _ => self.fail(refusal, out),
        }
    }

    fn fail(&mut self, refusal: Refusal, out: &mut Vec<Effect>) {
        self.lose_all(refusal.detail.clone(), out);
        self.state = State::Closed;
        out.push(Effect::Fail(refusal));
    }

    fn back_off(&mut self, now: TimestampMs) {
        self.failures = self.failures.saturating_add(1);
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let wait_ms = self.settings.backoff.delay_ms(self.failures, self.random >> 33);
        self.beat_at = now.plus(i64::try_from(wait_ms).unwrap_or(i64::MAX));
    }

    fn leave(&mut self, out: &mut Vec<Effect>) {
        if self.is_in() || self.is_leaving() {
            self.epoch = if self.is_static() { LEAVE_FOR_A_WHILE } else { LEAVE };
            let beat =
                Beat { member_id: self.member_id.clone(), epoch: self.epoch, ..Beat::default() };
            out.push(Effect::Send { attempt: self.attempt.next(), request: Request::Beat(beat) });
        }
        self.attempt.next();
        self.beating = false;
    }

    fn tick(&mut self, now: TimestampMs, out: &mut Vec<Effect>) {
        if self.is_in() && self.liveness.is_over(now) {
            let reason = self.liveness.reason();
            self.lose_all(reason, out);
            self.leave(out);
            self.state = State::Away;
            return;
        }
        if let State::Releasing { until } = self.state
            && until <= now
        {
            let partitions = self.releasing.clone();
            self.release();
            let reason = format!(
                "the caller did not give them up within the rebalance timeout of {} ms",
                self.settings.rebalance_ms
            );
            out.push(Effect::Lose { partitions, reason });
            self.go_on(now, out);
        }
        if self.state == State::Stable && self.resolve_at.is_some_and(|at| at <= now) {
            self.take(now, out);
        }
        if self.is_in() && !self.beating && self.beat_at <= now {
            self.beat(out);
        }
    }
}

impl Machine for Consumer {
    type Event = Event;
    type Effect = Effect;

    fn step(&mut self, now: TimestampMs, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Wanted(wanted) => {
                if self.wanted.as_ref() != Some(&wanted) {
                    self.wanted = Some(wanted);
                    self.says_wanted = true;
                    match self.state {
                        State::Idle => self.join(now),
                        _ => self.beat_at = now,
                    }
                }
            }
            Event::Answered { attempt, .. } if attempt == self.attempt && self.is_leaving() => {
                self.leave(out);
                self.state = State::Closed;
            }
            Event::Answered { attempt, answer } if attempt == self.attempt => {
                self.beating = false;
                match answer {
                    Ok(Answer::Beaten(beaten)) if self.is_in() => self.beaten(now, beaten, out),
                    Ok(_) => {}
                    Err(refusal) => self.refused(now, refusal, out),
                }
            }
            Event::Names(names) => {
                self.names.extend(names);
                let is_missing = self.held != self.target;
                if self.state == State::Stable && is_missing && self.resolve_at.is_some() {
                    let has_news = self
                        .target
                        .difference(&self.held)
                        .any(|(topic, _)| self.names.contains_key(topic));
                    if has_news {
                        self.take(now, out);
                    }
                }
            }
            Event::Released => {
                if matches!(self.state, State::Releasing { .. }) {
                    self.release();
                    self.go_on(now, out);
                }
            }
            Event::Seen => {
                self.liveness.seen_at = now;
                if self.state == State::Away {
                    self.join(now);
                }
            }
            Event::Close => {
                self.owned.clear();
                self.releasing.clear();
                if self.state == State::Joining && self.beating {
                    self.state = State::Leaving;
                } else {
                    self.leave(out);
                    self.state = State::Closed;
                }
            }
            Event::Tick | Event::Answered { .. } | Event::Topics(_) => {}
        }
        self.tick(now, out);
    }

    fn next_deadline(&self) -> Option<TimestampMs> {
        if !self.is_in() {
            return None;
        }
        let releasing = match self.state {
            State::Releasing { until } => Some(until),
            _ => None,
        };
        let beat = Some(self.beat_at).filter(|_| !self.beating);
        let resolve = self.resolve_at.filter(|_| self.state == State::Stable);
        [releasing, beat, resolve, self.liveness.deadline()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
