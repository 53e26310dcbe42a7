//! What a leader knows of the others, and what it commits.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::log::OffsetAndEpoch;
use super::message::{BeginQuorumEpochRequest, EndQuorumEpochRequest, Leader};
use super::message::{Effect, Entry, Payload, Peer, Refusal, Request, Tag, Token};
use super::role::Role;
use super::voters::ReplicaKey;
use super::{Mutation, OBSERVERS_MAX, PROPOSALS_MAX, Quorum};
use crate::types::{LeaderEpoch, NodeId, Offset};

/// A leader's own state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leading {
    /// The offset of the epoch's first record.
    pub(super) start: Offset,
    since: Duration,
    /// When those who do not fetch are told again who leads.
    announce: Duration,
    pub(super) replicas: BTreeMap<ReplicaKey, Replica>,
    pub(super) proposals: BTreeMap<Offset, Tag>,
}

/// What is known of a replica that fetches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    /// The end of what it has on stable storage, as far as its log was found to agree.
    pub(super) end: Option<Offset>,
    pub(super) heard: Duration,
    pub(super) parked: Option<Parked>,
    pub(super) pace: Pace,
}

/// How a replica keeps up, for those who ask about it. Nothing is decided by it, so it is no part of what makes two
/// replicas equal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When it last fetched records, and where the leader's log ended then.
    last: Option<(Duration, Offset)>,
    caught_up: Option<Duration>,
}

impl Pace {
    /// It fetches, with everything before `end` on stable storage, while the leader's log ends at `leader_end`. Who has what
    /// there was at its fetch before, had caught up then.
    pub(super) fn fetched(&mut self, now: Duration, end: Offset, leader_end: Offset) {
        if end >= leader_end {
            self.caught_up = Some(now);
        } else if let Some((before, leader_end)) = self.last
            && end >= leader_end
        {
            self.caught_up = self.caught_up.max(Some(before));
        }
        self.last = Some((now, leader_end));
    }

    /// When it last had everything that the leader had.
    pub(super) const fn caught_up(&self) -> Option<Duration> {
        self.caught_up
    }
}

impl PartialEq for Pace {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Pace {}

impl Hash for Pace {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

/// How far a leader knows a replica to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The replica.
    pub key: ReplicaKey,
    /// The end of what it has on stable storage; none before that is known.
    pub end: Option<Offset>,
    /// When it last fetched records, on the leader's clock.
    pub last_fetch: Option<Duration>,
    /// When it last had everything that the leader had.
    pub caught_up: Option<Duration>,
}

/// A fetch that waits for something to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Parked {
    pub(super) token: Token,
    pub(super) last: OffsetAndEpoch,
    pub(super) sent: Duration,
    pub(super) until: Duration,
    pub(super) wants_records: bool,
    pub(super) high_watermark: Offset,
}

impl Leading {
    /// What is left when it ends: the proposals, and the fetches that wait.
    pub(super) fn dissolve(self) -> (Vec<Tag>, Vec<Parked>) {
        let parked = self.replicas.into_values().filter_map(|replica| replica.parked);
        (self.proposals.into_values().collect(), parked.collect())
    }

    /// The replica that a voter is. Where the voter's directory is not known, the one that was heard last.
    pub(super) fn replica(&self, voter: &ReplicaKey) -> Option<&Replica> {
        let of_node = self.replicas.iter().filter(|(key, _)| key.matches(voter));
        of_node.map(|(_, replica)| replica).max_by_key(|replica| replica.heard)
    }

    fn acknowledged(&self, voter: &ReplicaKey) -> Offset {
        self.replica(voter).and_then(|replica| replica.end).unwrap_or(Offset::ZERO)
    }

    fn heard(&self, voter: &ReplicaKey) -> Duration {
        self.replica(voter).map_or(self.since, |replica| replica.heard.max(self.since))
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let parked = self.replicas.values().filter_map(|replica| replica.parked);
        parked.map(|parked| parked.until).chain([self.announce]).min()
    }
}

impl<P> Quorum<P> {
    pub(super) fn become_leader(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let (epoch, start) = (self.vote.epoch, self.log.end());
        self.leader_gone = false;
        self.chance.settle();
        self.role = Role::Leader(Leading {
            start,
            since: now,
            announce: now,
            replicas: BTreeMap::new(),
            proposals: BTreeMap::new(),
        });
        out.push(Effect::BecameLeader { epoch, start });
        let payload = Payload::LeaderChange { leader: self.me.key.id };
        let mut entries = vec![Entry { offset: start, epoch, payload }];
        let voters = self.voters.last();
        let is_described = voters.get(self.me.key.id) == Some(&self.me);
        if voters.contains(&self.me.key) && !(is_described && self.voters.is_recorded()) {
            // The same voters, so that nothing of what a majority is changes with it.
            let payload = Payload::Voters(voters.with(self.me.clone()));
            entries.push(Entry { offset: start.next(), epoch, payload });
        }
        self.append(entries, out);
    }

    pub(super) fn on_propose(&mut self, tag: Tag, payload: P, out: &mut Vec<Effect<P>>) {
        if let Err(refusal) = self.propose(tag, Payload::Records(payload), out) {
            out.push(Effect::Outcome(tag, Err(refusal)));
        }
    }

    pub(super) fn propose(
        &mut self,
        tag: Tag,
        payload: Payload<P>,
        out: &mut Vec<Effect<P>>,
    ) -> Result<(), Refusal> {
        let (offset, epoch) = (self.log.end(), self.vote.epoch);
        let Role::Leader(leading) = &mut self.role else { return Err(Refusal::NotLeader) };
        // While the own disk stands still the others go on committing, so what waits for it is bounded by itself.
        let waiting = leading.proposals.len().max(self.log.pending());
        if waiting >= PROPOSALS_MAX {
            return Err(Refusal::TooManyProposals);
        }
        leading.proposals.insert(offset, tag);
        self.append(vec![Entry { offset, epoch, payload }], out);
        self.answer_parked(out);
        Ok(())
    }

    /// Commits what a majority has (QUORUM-F).
    pub(super) fn advance(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let Role::Leader(leading) = &self.role else { return };
        let own = if self.has(Mutation::UnsyncedLeaderCounts) {
            self.log.end()
        } else {
            self.log.stable()
        };
        let voters = self.voters.last();
        let mut ends: Vec<Offset> = voters
            .iter()
            .map(|voter| {
                if voter.key.matches(&self.me.key) { own } else { leading.acknowledged(&voter.key) }
            })
            .collect();
        ends.sort_unstable_by(|one, other| other.cmp(one));
        if self.has(Mutation::RemovedLeaderCounts) && !voters.contains(&self.me.key) {
            ends.insert(0, own);
        }
        let Some(end) = ends.get(voters.majority() - 1).copied() else { return };
        let is_own_epoch = end > leading.start || self.has(Mutation::OlderEpochIsCommitted);
        if !is_own_epoch || end <= self.high_watermark {
            return;
        }
        self.commit(end, out);
        if let Role::Leader(leading) = &mut self.role {
            let rest = leading.proposals.split_off(&end);
            for (offset, tag) in std::mem::replace(&mut leading.proposals, rest) {
                out.push(Effect::Outcome(tag, Ok(offset)));
            }
        }
        self.answer_parked(out);
        let is_removed = !self.voters.last().contains(&self.me.key);
        if is_removed && self.voters.last_offset().is_none_or(|offset| offset < end) {
            self.resign(now, out);
        }
    }

    /// Hands the leadership over, if this replica has it.
    pub(super) fn resign(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let Role::Leader(leading) = &self.role else { return };
        let others = self.voters.last().iter().map(|voter| voter.key);
        let mut successors: Vec<_> = others.filter(|voter| !voter.matches(&self.me.key)).collect();
        successors.sort_by_key(|voter| std::cmp::Reverse(leading.acknowledged(voter)));
        let leader = Leader { id: self.me.key.id, endpoints: self.me.endpoints.clone() };
        for voter in &successors {
            let (leader, successors) = (leader.clone(), successors.clone());
            let request = EndQuorumEpochRequest { epoch: self.vote.epoch, leader, successors };
            out.push(Effect::Send(Peer::Node(voter.id), Request::EndQuorumEpoch(request)));
        }
        self.leave(out);
        self.unattach(now);
        if self.has(Mutation::ResignedLeaderVotesAgain) {
            self.vote.voted = None;
            self.save_vote(out);
        }
    }

    /// What is due for a leader because time has passed.
    pub(super) fn lead_on(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let Role::Leader(leading) = &self.role else { return };
        let deadline = self.quorum_deadline(leading);
        if deadline.is_some_and(|deadline| now >= deadline) && !self.has(Mutation::NoCheckQuorum) {
            self.resign(now, out);
        } else {
            self.answer_waited(now, out);
        }
    }

    /// When the leader resigns, because it will not have heard from a majority for too long.
    pub(super) fn quorum_deadline(&self, leading: &Leading) -> Option<Duration> {
        let voters = self.voters.last();
        let mut heard: Vec<Duration> = voters
            .iter()
            .filter(|voter| !voter.key.matches(&self.me.key))
            .map(|voter| leading.heard(&voter.key))
            .collect();
        heard.sort_unstable_by(|one, other| other.cmp(one));
        let own = voters.len() - heard.len();
        let needed = voters.majority().saturating_sub(own);
        let oldest = heard.get(needed.checked_sub(1)?)?;
        Some(*oldest + self.timing.election_max)
    }

    /// Tells voters that do not fetch who leads.
    pub(super) fn announce_epoch(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let heartbeat = self.timing.heartbeat;
        let Role::Leader(leading) = &mut self.role else { return };
        if now < leading.announce {
            return;
        }
        leading.announce = now + heartbeat;
        let leader = Leader { id: self.me.key.id, endpoints: self.me.endpoints.clone() };
        for voter in self.voters.last().iter() {
            let replica = leading.replica(&voter.key);
            let fetches = replica.is_some_and(|replica| now < replica.heard + 3 * heartbeat);
            if !fetches && !voter.key.matches(&self.me.key) {
                let (epoch, leader) = (self.vote.epoch, leader.clone());
                let request = BeginQuorumEpochRequest { epoch, leader, voter: voter.key };
                let request = Request::BeginQuorumEpoch(request);
                out.push(Effect::Send(Peer::Node(voter.key.id), request));
            }
        }
    }

    /// The state of a replica that asked for something, and makes room for it.
    pub(super) fn heard_from(
        &mut self,
        now: Duration,
        key: ReplicaKey,
        out: &mut Vec<Effect<P>>,
    ) -> Option<&mut Replica> {
        let Role::Leader(leading) = &mut self.role else { return None };
        let voters = self.voters.last();
        let room = OBSERVERS_MAX + voters.len();
        if !leading.replicas.contains_key(&key) && leading.replicas.len() >= room {
            let observers = leading.replicas.iter().filter(|(key, _)| !voters.contains(key));
            let oldest = observers.min_by_key(|(_, replica)| replica.heard);
            let oldest = oldest.map(|(key, _)| *key);
            let gone = oldest.and_then(|key| leading.replicas.remove(&key));
            out.extend(gone.and_then(|gone| gone.parked).map(|gone| Effect::Abandon(gone.token)));
        }
        let new = Replica { end: None, heard: now, parked: None, pace: Pace::default() };
        let replica = leading.replicas.entry(key).or_insert(new);
        replica.heard = replica.heard.max(now);
        Some(replica)
    }

    /// How far a leader knows the others to be, for those who ask about the quorum.
    pub fn progress(&self) -> Vec<Progress> {
        let Role::Leader(leading) = &self.role else { return Vec::new() };
        let of = |(key, replica): (&ReplicaKey, &Replica)| Progress {
            key: *key,
            end: replica.end,
            last_fetch: replica.pace.last.map(|(at, _)| at),
            caught_up: replica.pace.caught_up(),
        };
        leading.replicas.iter().map(of).collect()
    }

    /// The epoch, if this replica leads and `epoch` is its own.
    pub(super) fn leads(&self, epoch: LeaderEpoch, asker: NodeId) -> bool {
        self.is_leader() && epoch == self.vote.epoch && asker != self.me.key.id && asker.0 >= 0
    }
}
