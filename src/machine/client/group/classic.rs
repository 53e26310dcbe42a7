//! A member of the classic protocol.
//!
//! ```text
//!            ┌────────────────────────── refused: wait, join anew ◄────────────────┐
//!            ▼                                                                     │
//!  Idle ─► Joining ─► (leader: Assigning) ─► Syncing ─► Stable ─► rebalance ─► Releasing ─► Joining
//!            ▲                                  │          │                       ▲
//!            │                                  └─ cooperative, something to give ─┘
//!            └── Away ◄── the caller stays away for too long (from anywhere)
//!  Joining for the first time ─► closed ─► Leaving ─► Closed
//! ```
//!
//! Eager members give everything up before they rejoin; cooperative ones join with what they hold,
//! then give up what the assignment takes from them, and join once more.
//!
//! Heartbeats continue while the caller is being waited for (Releasing), but not while a join or
//! sync is at the coordinator, which counts that as a sign of life in itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assignor::{Assignor, MemberSubscription, Topics};
use super::{
    Answer, Attempt, Effect, Event, Identity, Joined, Liveness, Partitions, Refusal, Request,
    Settings, Wanted, patience_ms,
};
use crate::error::ErrorCode;
use crate::machine::Machine;
use crate::types::TimestampMs;

/// Why a member leaves.
const CLOSED: &str = "the consumer is closed";

/// No generation: the member is not in the group.
const NO_GENERATION: i32 = -1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is not known yet what to consume.
    Idle,
    /// Joins at this time.
    Waiting { until: TimestampMs },
    /// Joins once the caller gave up what was revoked, or at this time.
    Releasing { until: TimestampMs },
    /// JoinGroup is on its way.
    Joining,
    /// The leader looks up topics.
    Assigning,
    /// SyncGroup is on its way.
    Syncing,
    /// In the group, with an assignment.
    Stable,
    /// Left, because the caller stays away.
    Away,
    /// Leaves once it knows what the coordinator, which waits for it, calls it.
    Leaving,
    /// Left for good.
    Closed,
}

/// The membership. See the module's documentation.
#[derive(Debug)]
pub struct Classic {
    settings: Settings,
    state: State,
    attempt: Attempt,
    member_id: String,
    generation: i32,
    assignor: Option<Assignor>,
    /// What is wanted now, and what was wanted when the member joined last.
    topics: BTreeSet<Arc<str>>,
    joined_with: BTreeSet<Arc<str>>,
    owned: Partitions,
    /// What the caller is to give up.
    releasing: Partitions,
    /// The last assignment and its generation, for the user data of the sticky assignors.
    last: Option<(Partitions, i32)>,
    /// The members that this leader is to assign to.
    members: Option<super::Members>,
    is_leader: bool,
    /// The topics of all members, for the leader.
    watched: BTreeSet<Arc<str>>,
    /// What the leader found of them when it assigned; when it changes the group must rebalance.
    assigned_upon: Option<Topics>,
    heartbeat_at: TimestampMs,
    /// A heartbeat is on its way.
    beating: bool,
    /// Something changed while a rebalance was going on.
    rejoin: bool,
    failures: u32,
    liveness: Liveness,
    reason: &'static str,
    random: u64,
}

impl Classic {
    /// A member that has not joined. `seed` spreads its retries.
    #[must_use]
    pub fn new(settings: Settings, now: TimestampMs, seed: u64) -> Self {
        let liveness = Liveness { seen_at: now, limit_ms: settings.poll_ms_max };
        Self {
            settings,
            state: State::Idle,
            attempt: Attempt::default(),
            member_id: String::new(),
            generation: NO_GENERATION,
            assignor: None,
            topics: BTreeSet::new(),
            joined_with: BTreeSet::new(),
            owned: Partitions::new(),
            releasing: Partitions::new(),
            last: None,
            members: None,
            is_leader: false,
            watched: BTreeSet::new(),
            assigned_upon: None,
            heartbeat_at: TimestampMs::NONE,
            beating: false,
            rejoin: false,
            failures: 0,
            liveness,
            reason: "the member is new",
            random: seed,
        }
    }

    /// Who the member is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { member_id: self.member_id.clone(), generation: self.generation }
    }

    /// What the member holds, including what it is about to give up.
    #[must_use]
    pub const fn owned(&self) -> &Partitions {
        &self.owned
    }

    /// Whether the member has an assignment, and knows of no rebalance.
    #[must_use]
    pub fn is_stable(&self) -> bool {
        self.state == State::Stable
    }

    /// The generation in which the member may be waiting for others; none when it is not.
    #[must_use]
    pub fn doubt(&self) -> Option<i32> {
        let is_pending = matches!(
            self.state,
            State::Waiting { .. } | State::Joining | State::Assigning | State::Syncing
        );
        is_pending.then_some(self.generation)
    }

    /// Whether it was closed and has yet to leave.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.state == State::Leaving
    }

    /// The topics that the leader watches.
    #[must_use]
    pub fn watched(&self) -> Option<&BTreeSet<Arc<str>>> {
        self.is_leader.then_some(&self.watched)
    }

    fn is_cooperative(&self) -> bool {
        self.settings.assignors.iter().all(|assignor| assignor.is_cooperative())
    }

    fn is_in(&self) -> bool {
        !matches!(self.state, State::Idle | State::Away | State::Leaving | State::Closed)
    }

    fn is_static(&self) -> bool {
        self.settings.instance_id.is_some()
    }

    /// Leaves the state as it is, and joins after a while.
    fn back_off(&mut self, now: TimestampMs) {
        self.failures = self.failures.saturating_add(1);
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let wait_ms = self.settings.backoff.delay_ms(self.failures, self.random >> 33);
        let wait_ms = i64::try_from(wait_ms).unwrap_or(i64::MAX);
        self.state = State::Waiting { until: now.plus(wait_ms) };
    }

    /// Begins another round: gives up what must be given up first, then joins.
    fn rejoin(&mut self, now: TimestampMs, reason: &'static str, out: &mut Vec<Effect>) {
        self.reason = reason;
        self.rejoin = false;
        let give_up: Partitions = if self.is_cooperative() {
            let is_wanted = |topic| self.topics.contains(topic);
            self.owned.iter().filter(|one| !is_wanted(&one.topic)).cloned().collect()
        } else {
            self.owned.clone()
        };
        self.release(now, give_up, out);
    }

    /// Waits for the caller to give partitions up; joins at once when there are none.
    fn release(&mut self, now: TimestampMs, partitions: Partitions, out: &mut Vec<Effect>) {
        if partitions.is_empty() {
            self.join(out);
            return;
        }
        let patience = patience_ms(&self.settings, self.settings.heartbeat_ms);
        self.state = State::Releasing { until: now.plus(patience) };
        self.releasing.clone_from(&partitions);
        out.push(Effect::Revoke(partitions));
    }

    fn released(&mut self) {
        for partition in std::mem::take(&mut self.releasing) {
            self.owned.remove(&partition);
        }
    }

    fn join(&mut self, out: &mut Vec<Effect>) {
        let is_cooperative = self.is_cooperative();
        let last = self.last.as_ref().map(|(partitions, generation)| (partitions, *generation));
        let subscription = |assignor: &Assignor| MemberSubscription {
            topics: self.topics.iter().cloned().collect(),
            user_data: assignor.user_data(last),
            owned: self.owned.iter().filter(|_| is_cooperative).cloned().collect(),
            generation: Some(last.map_or(NO_GENERATION, |(_, generation)| generation)),
            rack: self.settings.rack.clone(),
            instance_id: self.settings.instance_id.clone(),
        };
        let protocols = self
            .settings
            .assignors
            .iter()
            .map(|assignor| (*assignor, subscription(assignor)))
            .collect();
        self.state = State::Joining;
        self.beating = false;
        self.is_leader = false;
        self.members = None;
        self.joined_with.clone_from(&self.topics);
        let request =
            Request::Join { member_id: self.member_id.clone(), protocols, reason: self.reason };
        out.push(Effect::Send { attempt: self.attempt.next(), request });
    }

    fn joined(&mut self, joined: Joined, out: &mut Vec<Effect>) {
        let Ok(assignor) = Assignor::parse(&joined.assignor) else {
            let detail = format!("the coordinator chose {:?}", joined.assignor);
            return out.push(Effect::Fail(Refusal {
                code: ErrorCode::InconsistentGroupProtocol,
                detail,
            }));
        };
        self.failures = 0;
        self.member_id = joined.member_id;
        self.generation = joined.generation;
        self.assignor = Some(assignor);
        self.is_leader = joined.members.is_some();
        self.assigned_upon = None;
        self.watched = (joined.members.iter().flat_map(|members| members.values()))
            .flat_map(|member| member.topics.clone())
            .collect();
        match joined.members.filter(|_| !joined.skip_assignment) {
            Some(members) => {
                self.members = Some(members);
                self.state = State::Assigning;
                out.push(Effect::LookUp(self.watched.clone()));
            }
            None => self.sync(assignor, super::Assignment::new(), out),
        }
    }

    fn sync(&mut self, assignor: Assignor, assignment: super::Assignment, out: &mut Vec<Effect>) {
        self.state = State::Syncing;
        let request = Request::Sync {
            member_id: self.member_id.clone(),
            generation: self.generation,
            assignor,
            assignment,
        };
        self.beating = false;
        out.push(Effect::Send { attempt: self.attempt.next(), request });
    }

    fn looked_up(&mut self, now: TimestampMs, topics: Topics, out: &mut Vec<Effect>) {
        match (self.state, self.assignor, self.members.take()) {
            (State::Assigning, Some(assignor), Some(members)) => {
                let assignment = assignor.assign(&topics, &members);
                self.assigned_upon = Some(topics);
                self.sync(assignor, assignment, out);
            }
            _ if !self.is_leader => {}
            _ => {
                let is_news = self.assigned_upon.as_ref().is_some_and(|known| *known != topics);
                self.assigned_upon = Some(topics);
                if is_news {
                    self.changed(now, "topics or partitions changed", out);
                }
            }
        }
    }

    /// The group must rebalance, now or when this rebalance is over.
    fn changed(&mut self, now: TimestampMs, reason: &'static str, out: &mut Vec<Effect>) {
        match self.state {
            State::Stable => self.rejoin(now, reason, out),
            State::Joining | State::Assigning | State::Syncing => self.rejoin = true,
            // The next join says it.
            State::Waiting { .. }
            | State::Releasing { .. }
            | State::Away
            | State::Leaving
            | State::Closed => {}
            State::Idle => self.join(out),
        }
    }

    fn synced(&mut self, now: TimestampMs, assigned: Partitions, out: &mut Vec<Effect>) {
        self.failures = 0;
        self.state = State::Stable;
        self.heartbeat_at = now.plus(self.settings.heartbeat_ms);
        let added: Partitions = assigned.difference(&self.owned).cloned().collect();
        let removed: Partitions = self.owned.difference(&assigned).cloned().collect();
        self.last = Some((assigned, self.generation));
        self.owned.extend(added.iter().cloned());
        out.push(Effect::Assign(added));
        if !removed.is_empty() {
            self.reason = "partitions were given up";
            self.rejoin = false;
            self.release(now, removed, out);
        } else if self.rejoin {
            self.rejoin(now, "topics or partitions changed", out);
        }
    }

    /// The coordinator does not (or no longer) know the member: what it held is gone.
    fn reset(&mut self, with_member_id: bool, why: &str, out: &mut Vec<Effect>) {
        self.lose_all(why.to_owned(), out);
        self.generation = NO_GENERATION;
        if with_member_id {
            self.member_id.clear();
        }
    }

    fn lose_all(&mut self, reason: String, out: &mut Vec<Effect>) {
        self.releasing.clear();
        let partitions = std::mem::take(&mut self.owned);
        if !partitions.is_empty() {
            out.push(Effect::Lose { partitions, reason });
        }
    }

    fn refused(&mut self, now: TimestampMs, refusal: Refusal, out: &mut Vec<Effect>) {
        let code = refusal.code;
        let was = self.state;
        match code {
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => {
                let with_member_id = code == ErrorCode::UnknownMemberId && !self.is_static();
                self.reset(
                    with_member_id,
                    "the coordinator removed the member from the group",
                    out,
                );
                self.reason = "the member was removed from the group";
                if was == State::Joining {
                    // Once more, immediately, but not in a loop.
                    self.back_off(now);
                } else {
                    self.join(out);
                }
            }
            ErrorCode::RebalanceInProgress => match was {
                State::Stable | State::Syncing | State::Assigning => {
                    self.rejoin(now, "the group rebalances", out);
                }
                State::Joining => self.back_off(now),
                _ => self.heartbeat_at = now.plus(self.settings.heartbeat_ms),
            },
            code if code.retriable() => match was {
                State::Joining | State::Syncing => {
                    self.reason = "the coordinator did not answer";
                    self.back_off(now);
                }
                _ => {
                    let wait_ms = i64::try_from(self.settings.backoff.initial_ms).unwrap_or(0);
                    self.heartbeat_at = now.plus(wait_ms.min(self.settings.heartbeat_ms));
                }
            },
            _ => {
                let detail = refusal.detail.clone();
                self.reset(true, &detail, out);
                self.state = State::Closed;
                out.push(Effect::Fail(refusal));
            }
        }
    }

    fn answered(
        &mut self,
        now: TimestampMs,
        answer: Result<Answer, Refusal>,
        out: &mut Vec<Effect>,
    ) {
        self.beating = false;
        match (self.state, answer) {
            (State::Leaving, answer) => {
                if let Ok(
                    Answer::Joined(Joined { member_id, .. }) | Answer::MemberIdRequired(member_id),
                ) = answer
                {
                    self.member_id = member_id;
                }
                self.leave(CLOSED, out);
                self.state = State::Closed;
            }
            (State::Joining, Ok(Answer::Joined(joined))) => self.joined(joined, out),
            (State::Joining, Ok(Answer::MemberIdRequired(member_id))) => {
                self.member_id = member_id;
                self.join(out);
            }
            (State::Syncing, Ok(Answer::Synced(assigned))) => self.synced(now, assigned, out),
            (_, Ok(_)) => self.heartbeat_at = now.plus(self.settings.heartbeat_ms),
            (_, Err(refusal)) => self.refused(now, refusal, out),
        }
    }

    fn leave(&mut self, reason: &'static str, out: &mut Vec<Effect>) {
        // Static members stay members: they come back within the session timeout.
        if !self.member_id.is_empty() && !self.is_static() {
            let request = Request::Leave { member_id: self.member_id.clone(), reason };
            out.push(Effect::Send { attempt: self.attempt.next(), request });
            self.member_id.clear();
        }
        self.attempt.next();
        self.generation = NO_GENERATION;
    }

    fn tick(&mut self, now: TimestampMs, out: &mut Vec<Effect>) {
        if self.is_in() && self.liveness.is_over(now) {
            let reason = self.liveness.reason();
            self.lose_all(reason, out);
            self.leave("the caller stays away", out);
            self.state = State::Away;
            return;
        }
        match self.state {
            State::Waiting { until } if until <= now => self.join(out),
            State::Releasing { until } if until <= now => {
                let partitions = self.releasing.clone();
                self.released();
                let reason = format!(
                    "the caller did not give them up within the rebalance timeout of {} ms",
                    self.settings.rebalance_ms
                );
                out.push(Effect::Lose { partitions, reason });
                self.join(out);
            }
            State::Stable | State::Releasing { .. } | State::Assigning
                if !self.beating && self.heartbeat_at <= now =>
            {
                self.beating = true;
                let (member_id, generation) = (self.member_id.clone(), self.generation);
                let request = Request::Heartbeat { member_id, generation };
                out.push(Effect::Send { attempt: self.attempt.next(), request });
            }
            _ => {}
        }
    }
}

impl Machine for Classic {
    type Event = Event;
    type Effect = Effect;

    fn step(&mut self, now: TimestampMs, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Wanted(Wanted::Topics(topics)) => {
                self.topics = topics;
                if self.topics != self.joined_with || self.state == State::Idle {
                    self.changed(now, "the subscription changed", out);
                }
            }
            Event::Answered { attempt, answer } if attempt == self.attempt => {
                self.answered(now, answer, out);
            }
            Event::Topics(topics) => self.looked_up(now, topics, out),
            Event::Released => {
                if matches!(self.state, State::Releasing { .. }) {
                    self.released();
                    self.join(out);
                }
            }
            Event::Seen => {
                self.liveness.seen_at = now;
                if self.state == State::Away {
                    self.reason = "the caller is back";
                    self.join(out);
                }
            }
            Event::Close => {
                self.owned.clear();
                self.releasing.clear();
                if self.state == State::Joining && self.member_id.is_empty() {
                    self.state = State::Leaving;
                    return;
                }
                self.leave(CLOSED, out);
                self.state = State::Closed;
            }
            Event::Tick => self.tick(now, out),
            Event::Wanted(Wanted::Pattern(_)) | Event::Answered { .. } | Event::Names(_) => {}
        }
    }

    fn next_deadline(&self) -> Option<TimestampMs> {
        let beat = Some(self.heartbeat_at).filter(|_| !self.beating);
        let own = match self.state {
            State::Waiting { until } => Some(until),
            State::Releasing { until } => Some(beat.map_or(until, |beat| beat.min(until))),
            State::Stable | State::Assigning => beat,
            _ => None,
        };
        own.into_iter().chain(self.liveness.deadline().filter(|_| self.is_in())).min()
    }
}

#[cfg(test)]
mod tests;
