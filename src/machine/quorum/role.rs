//! The roles of a replica, and how it gets from one to another.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::leading::Leading;
use super::log::OffsetAndEpoch;
use super::message::{Effect, Found, Leader, LeaderAndEpoch, Refusal, Response, VoteState};
use super::{Mutation, Quorum};
use crate::types::{LeaderEpoch, NodeId, Offset, SplitMix64};

/// What a replica is in its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// It knows of no leader.
    Unattached(Unattached),
    /// It copies a leader.
    Follower(Follower),
    /// It asks who would vote for it.
    Prospective(Election),
    /// It asks for votes.
    Candidate(Election),
    /// It leads.
    Leader(Leading),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Unattached {
    /// When it wants an election.
    pub(super) election: Duration,
    /// When it asks somebody who leads.
    pub(super) probe: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Follower {
    pub(super) leader: Leader,
    /// When the leader itself was heard last.
    pub(super) heard: Option<Duration>,
    /// When it wants an election.
    pub(super) election: Duration,
    /// When it sends the next fetch.
    pub(super) fetch: Duration,
    /// When it tells the leader how it is to be described.
    pub(super) update: Duration,
    pub(super) asked: Option<Asked>,
    pub(super) download: Option<Download>,
    /// The high watermark that the leader told last; it may be beyond this log.
    pub(super) high_watermark: Offset,
}

/// What a follower asked its leader for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    /// From where, and when.
    Records(OffsetAndEpoch, Duration),
    Snapshot(Download),
}

/// A snapshot that is being fetched, and how much of it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Download {
    pub(super) id: OffsetAndEpoch,
    pub(super) position: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Election {
    pub(super) votes: BTreeMap<NodeId, bool>,
    /// When it gives up.
    pub(super) deadline: Duration,
    /// When it asks again.
    pub(super) ask: Duration,
    /// Whom a prospective replica followed.
    pub(super) previous: Option<Leader>,
    /// A candidate that somebody refused: another one has that vote.
    pub(super) is_split: bool,
}

/// Random numbers, and how long to wait after elections that came to nothing. Both decide only when something
/// happens, so they are no part of what makes two replicas equal.
#[derive(Clone, Debug)]
pub(super) struct Chance {
    random: SplitMix64,
    failed_elections: u32,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: SplitMix64::new(seed), failed_elections: 0 }
    }

    /// A duration from `min` to below `max`.
    pub(super) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let range = u64::try_from(max.saturating_sub(min).as_micros()).unwrap_or(u64::MAX);
        min + Duration::from_micros(if range == 0 { 0 } else { self.random.draw() % range })
    }

    /// How long a candidate waits that has met another one: longer each time, as the disks may be slow on which the
    /// votes are saved.
    pub(super) fn backoff(&mut self, heartbeat: Duration) -> Duration {
        let factor = 1 << self.failed_elections.min(4);
        self.failed_elections = self.failed_elections.saturating_add(1);
        self.between(heartbeat / 2, heartbeat * 3 / 2) * factor
    }

    /// There is a leader.
    pub(super) fn settle(&mut self) {
        self.failed_elections = 0;
    }

    /// A number below `count`, which is not 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        usize::try_from(self.random.draw() % count).unwrap_or(0)
    }
}

impl PartialEq for Chance {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Chance {}

impl Hash for Chance {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

impl<P> Quorum<P> {
    /// Whether it can want to lead. Also a replica whose removal is in its log and not known to be committed: it
    /// may be the only one that has the record, without which nobody else is elected.
    pub(super) fn may_stand(&self) -> bool {
        let me = &self.me.key;
        let is_voter = if self.has(Mutation::RemovedDoesNotStand) {
            self.voters.last().contains(me)
        } else {
            self.voters.may_count(me, self.high_watermark)
        };
        is_voter && !self.stopping && self.installing.is_none()
    }

    /// Whether it votes in no set that may count.
    fn is_observer(&self) -> bool {
        !self.voters.may_count(&self.me.key, self.high_watermark)
    }

    /// Whether nobody else votes.
    pub(super) fn is_alone(&self) -> bool {
        let voters = self.voters.last();
        voters.len() == 1 && voters.contains(&self.me.key)
    }

    pub(super) fn election_timeout(&mut self) -> Duration {
        self.chance.between(self.timing.election_min, self.timing.election_max)
    }

    /// Somebody said who leads in some epoch.
    pub(super) fn observe(
        &mut self,
        now: Duration,
        said: &LeaderAndEpoch,
        out: &mut Vec<Effect<P>>,
    ) {
        // What is said about this replica itself, it knows better: perhaps it was restarted.
        let leader = said.leader.as_ref().filter(|leader| leader.id != self.me.key.id);
        if said.epoch > self.vote.epoch {
            self.enter_epoch(now, said.epoch, out);
        }
        let is_free = match &self.role {
            Role::Unattached(_) | Role::Candidate(_) => true,
            Role::Prospective(election) => election.previous.is_none(),
            Role::Follower(_) | Role::Leader(_) => false,
        };
        if let Some(leader) = leader
            && said.epoch == self.vote.epoch
            && is_free
        {
            self.follow(now, leader.clone());
        }
    }

    /// A later epoch, of which nothing else is known.
    fn enter_epoch(&mut self, now: Duration, epoch: LeaderEpoch, out: &mut Vec<Effect<P>>) {
        self.vote = VoteState { epoch, voted: None };
        self.leader_gone = false;
        self.save_vote(out);
        self.leave(out);
        self.unattach(now);
    }

    pub(super) fn follow(&mut self, now: Duration, leader: Leader) {
        let election = now + self.election_timeout();
        self.role = Role::Follower(Follower {
            leader,
            heard: None,
            election,
            fetch: now,
            update: now,
            asked: None,
            download: None,
            high_watermark: self.high_watermark,
        });
    }

    pub(super) fn unattach(&mut self, now: Duration) {
        let election = now + self.election_timeout();
        self.role = Role::Unattached(Unattached { election, probe: now });
    }

    /// Stops leading, if it does. Its role is to be set afterwards.
    pub(super) fn leave(&mut self, out: &mut Vec<Effect<P>>) {
        if !self.is_leader() {
            return;
        }
        let idle = Unattached { election: Duration::MAX, probe: Duration::MAX };
        let Role::Leader(leading) = std::mem::replace(&mut self.role, Role::Unattached(idle))
        else {
            return;
        };
        out.push(Effect::LostLeadership);
        let (proposals, parked) = leading.dissolve();
        for tag in proposals {
            out.push(Effect::Outcome(tag, Err(Refusal::LeadershipLost)));
        }
        for parked in parked {
            let response = self.fetch_response(parked.last, parked.sent, Found::NotLeader);
            let token = parked.token;
            self.answer(token, Response::Fetch(response), out);
        }
    }

    /// What is due because time has passed.
    pub(super) fn on_time(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        match &self.role {
            Role::Unattached(unattached) => {
                if now >= unattached.election && self.may_stand() {
                    self.become_prospective(now, None, out);
                }
            }
            Role::Follower(follower) => {
                if now >= follower.election && self.may_stand() {
                    let previous = follower.leader.clone();
                    self.become_prospective(now, Some(previous), out);
                } else if now >= follower.election && self.is_observer() {
                    // Nobody tells it who leads now, so it asks.
                    self.unattach(now);
                }
            }
            Role::Prospective(election) => {
                if now >= election.deadline {
                    self.give_up(now);
                }
            }
            Role::Candidate(election) => {
                if now >= election.deadline {
                    if self.may_stand() {
                        self.become_prospective(now, None, out);
                    } else {
                        self.unattach(now);
                    }
                }
            }
            Role::Leader(_) => self.lead_on(now, out),
        }
    }

    /// Sends what is due, and says who leads when that changed.
    pub(super) fn act(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        if self.may_speak() {
            match &self.role {
                Role::Unattached(_) => self.probe(now, out),
                Role::Follower(_) => self.fetch(now, out),
                Role::Prospective(_) | Role::Candidate(_) => self.ask_for_votes(now, out),
                Role::Leader(_) => self.announce_epoch(now, out),
            }
        }
        let current = self.current();
        if current != self.announced {
            self.announced = current.clone();
            out.push(Effect::LeaderChanged(current));
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let may_speak = self.may_speak();
        let stand = |at: Duration| self.may_stand().then_some(at);
        let speak = |at: Duration| may_speak.then_some(at);
        let due = match &self.role {
            Role::Unattached(unattached) => [stand(unattached.election), speak(unattached.probe)],
            Role::Follower(follower) => {
                let over = (self.may_stand() || self.is_observer()).then_some(follower.election);
                [over, speak(follower.fetch)]
            }
            Role::Prospective(election) | Role::Candidate(election) => {
                [Some(election.deadline), speak(election.ask)]
            }
            Role::Leader(leading) => [self.quorum_deadline(leading), leading.deadline()],
        };
        due.into_iter().flatten().min()
    }

    /// Proof that the process of a node is dead.
    pub(super) fn on_crash(&mut self, now: Duration, node: NodeId) {
        if matches!(&self.role, Role::Follower(follower) if follower.leader.id == node) {
            self.leader_is_gone(now);
        }
    }

    /// The leader that is followed leads no more: who is up to date may stand soon.
    pub(super) fn leader_is_gone(&mut self, now: Duration) {
        self.leader_gone = true;
        let soon = now + self.chance.between(Duration::ZERO, self.timing.crash_jitter);
        if let Role::Follower(follower) = &mut self.role {
            follower.election = follower.election.min(soon);
        }
    }

    /// The leader that is followed, and when it was last heard itself.
    pub fn leader_heard(&self) -> Option<(NodeId, Duration)> {
        match &self.role {
            Role::Follower(follower) => Some((follower.leader.id, follower.heard?)),
            _ => None,
        }
    }

    /// Whether the leader is there, as far as this replica can tell.
    pub(super) fn hears_leader(&self, now: Duration) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(follower) => {
                let heard = follower.heard.map(|heard| now.saturating_sub(heard));
                !self.leader_gone
                    && heard.is_some_and(|silence| silence < self.timing.election_min)
                    && !self.has(Mutation::PreVoteIsAlwaysGranted)
            }
            Role::Unattached(_) | Role::Prospective(_) | Role::Candidate(_) => false,
        }
    }
}
