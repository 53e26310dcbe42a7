//! Who votes from now on (KIP-853): one change at a time, and only once the leader has committed a
//! record of its epoch, so that no change of an earlier leader is still open.

use std::time::Duration;

use super::message::{Effect, Entry, Payload, Refusal, Response, Tag, Token};
use super::message::{UpdateVoterRequest, VoterChange};
use super::role::Role;
use super::voters::{ReplicaKey, VoterSet};
use super::{Mutation, Quorum};
use crate::types::Uuid;

impl<P> Quorum<P> {
    pub(super) fn on_change(
        &mut self,
        now: Duration,
        tag: Tag,
        change: VoterChange,
        out: &mut Vec<Effect<P>>,
    ) {
        let changed = self.changed(now, change);
        let done = changed.and_then(|set| self.propose(tag, Payload::Voters(set), out));
        if let Err(refusal) = done {
            out.push(Effect::Outcome(tag, Err(refusal)));
        }
        // With fewer voters, a majority may have everything already.
        self.advance(now, out);
    }

    fn changed(&self, now: Duration, change: VoterChange) -> Result<VoterSet, Refusal> {
        self.may_change()?;
        let voters = self.voters.last();
        match change {
            VoterChange::Add(voter) => {
                if voters.get(voter.key.id).is_some() {
                    return Err(Refusal::DuplicateVoter);
                }
                if !self.has_caught_up(now, &voter.key) {
                    return Err(Refusal::NotCaughtUp);
                }
                Ok(voters.with(voter))
            }
            VoterChange::Remove(key) => {
                if !voters.contains(&key) {
                    return Err(Refusal::VoterNotFound);
                }
                if voters.len() == 1 {
                    return Err(Refusal::LastVoter);
                }
                Ok(voters.without(key.id))
            }
        }
    }

    fn may_change(&self) -> Result<(), Refusal> {
        let Role::Leader(leading) = &self.role else { return Err(Refusal::NotLeader) };
        let is_established =
            self.high_watermark > leading.start || self.has(Mutation::ChangeBeforeCommit);
        let last = self.voters.last_offset();
        let is_settled = last.is_none_or(|offset| offset < self.high_watermark)
            || self.has(Mutation::ChangesOverlap)
            || self.has(Mutation::ChangeBeforeCommit);
        if is_established && is_settled { Ok(()) } else { Err(Refusal::ChangePending) }
    }

    /// Whether a replica fetches, and has everything that is committed.
    fn has_caught_up(&self, now: Duration, key: &ReplicaKey) -> bool {
        let Role::Leader(leading) = &self.role else { return false };
        leading.replicas.get(key).is_some_and(|replica| {
            replica.end >= Some(self.high_watermark)
                && now.saturating_sub(replica.heard) <= self.timing.election_max
        })
    }

    /// A voter says how it is to be described. It asks again, so nothing needs to be answered.
    pub(super) fn on_update(
        &mut self,
        token: Token,
        request: UpdateVoterRequest,
        out: &mut Vec<Effect<P>>,
    ) {
        let UpdateVoterRequest { epoch, voter } = request;
        let known = self.voters.last().get(voter.key.id);
        let is_same = known.is_some_and(|known| {
            voter.key.directory_id != Uuid::ZERO && known.key.matches(&voter.key) && *known != voter
        });
        if is_same && self.leads(epoch, voter.key.id) && self.may_change().is_ok() {
            let (offset, epoch) = (self.log.end(), self.vote.epoch);
            let payload = Payload::Voters(self.voters.last().with(voter));
            self.append(vec![Entry { offset, epoch, payload }], out);
            self.answer_parked(out);
        }
        self.answer(token, Response::Current(self.current()), out);
    }
}
