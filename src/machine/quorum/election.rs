//! Votes: asking for them, giving them, counting them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message::{Effect, Leader, LeaderAndEpoch, Peer, Request, Response, Token};
use super::message::{VoteRequest, VoteResponse, VoteState};
use super::role::{Election, Role};
use super::{Mutation, Quorum};
use crate::types::{LeaderEpoch, NodeId};

impl<P> Quorum<P> {
    /// Asks who would vote for this replica, in its epoch as it is.
    pub(super) fn become_prospective(
        &mut self,
        now: Duration,
        previous: Option<Leader>,
        out: &mut Vec<Effect<P>>,
    ) {
        if self.is_alone() || self.has(Mutation::PreVoteIsSkipped) {
            self.become_candidate(now, out);
            return;
        }
        let mut election = self.election(now);
        election.previous = previous;
        election.votes.insert(self.me.key.id, true);
        self.role = Role::Prospective(election);
    }

    pub(super) fn become_candidate(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        if self.vote.epoch.0 == i32::MAX {
            self.halt("there is no epoch left".to_owned(), out);
            return;
        }
        self.vote = VoteState { epoch: self.vote.epoch.next(), voted: Some(self.me.key) };
        self.leader_gone = false;
        self.save_vote(out);
        self.role = Role::Candidate(self.election(now));
        if self.has(Mutation::UnsavedVoteCounts) {
            self.count_own_vote(now, out);
        }
    }

    fn election(&mut self, now: Duration) -> Election {
        let deadline = now + self.election_timeout();
        let votes = BTreeMap::new();
        Election { votes, deadline, ask: now, previous: None, is_split: false }
    }

    /// A pre-vote came to nothing. The next one is soon if there is no leader to wait for.
    pub(super) fn give_up(&mut self, now: Duration) {
        let Role::Prospective(election) = &self.role else { return };
        let previous = election.previous.clone();
        let heartbeat = self.timing.heartbeat;
        if let Some(leader) = previous {
            self.follow(now, leader);
            let soon = now + self.chance.between(heartbeat / 2, heartbeat * 3 / 2);
            if let Role::Follower(follower) = &mut self.role
                && self.leader_gone
            {
                follower.election = soon;
            }
        } else {
            self.unattach(now);
            let soon = now + self.chance.between(2 * heartbeat, 5 * heartbeat);
            if let Role::Unattached(unattached) = &mut self.role {
                unattached.election = soon;
            }
        }
    }

    /// Asks those who may answer otherwise than so far.
    pub(super) fn ask_for_votes(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let ask_again = now + self.timing.heartbeat;
        let (pre_vote, election) = match &mut self.role {
            Role::Prospective(election) => (true, election),
            Role::Candidate(election) => (false, election),
            Role::Unattached(_) | Role::Follower(_) | Role::Leader(_) => return,
        };
        if now < election.ask {
            return;
        }
        election.ask = ask_again;
        let (me, epoch, last) = (self.me.key, self.vote.epoch, self.log.last());
        for voter in self.voters.last().iter() {
            let id = voter.key.id;
            // A candidate's question is answered for good, a pre-vote as of now.
            let is_answered = match election.votes.get(&id) {
                Some(granted) => *granted || !pre_vote,
                None => false,
            };
            if id != me.id && !is_answered {
                let request =
                    VoteRequest { epoch, candidate: me, voter: voter.key, last, pre_vote };
                out.push(Effect::Send(Peer::Node(id), Request::Vote(request)));
            }
        }
    }

    pub(super) fn on_vote(
        &mut self,
        now: Duration,
        token: Token,
        request: VoteRequest,
        out: &mut Vec<Effect<P>>,
    ) {
        let VoteRequest { epoch, candidate, voter, last, pre_vote } = request;
        // A candidate has no record of the epoch that it wants to lead.
        let is_valid = if pre_vote { last.epoch <= epoch } else { last.epoch < epoch };
        let for_me = voter.matches(&self.me.key) || self.has(Mutation::DirectoryIsIgnored);
        let is_other = candidate.id != self.me.key.id && candidate.id.0 >= 0;
        let is_proper = is_valid && for_me && is_other;
        if is_proper {
            self.observe(now, &LeaderAndEpoch { epoch, leader: None }, out);
        }
        let granted = is_proper && epoch == self.vote.epoch && self.grants(now, &request);
        if granted && !pre_vote && self.vote.voted != Some(candidate) {
            self.vote.voted = Some(candidate);
            self.save_vote(out);
            self.unattach(now);
        }
        let current = self.current();
        let response = VoteResponse { epoch, voter, pre_vote, granted, current };
        self.answer(token, Response::Vote(response), out);
    }

    fn grants(&self, now: Duration, request: &VoteRequest) -> bool {
        if request.last < self.log.last() && !self.has(Mutation::LogIsNotCompared) {
            return false;
        }
        if request.pre_vote {
            return !self.hears_leader(now);
        }
        let is_free = matches!(self.role, Role::Unattached(_) | Role::Prospective(_));
        let voted = self.vote.voted.is_none_or(|voted| voted == request.candidate);
        (is_free && voted) || self.has(Mutation::TwoVotesInAnEpoch)
    }

    pub(super) fn on_vote_response(
        &mut self,
        now: Duration,
        from: NodeId,
        response: &VoteResponse,
        out: &mut Vec<Effect<P>>,
    ) {
        let is_known = self.voters.last().get(from).is_some_and(|voter| {
            voter.key.matches(&response.voter) || self.has(Mutation::DirectoryIsIgnored)
        });
        let is_about = |epoch: LeaderEpoch| response.epoch == epoch && is_known;
        match &mut self.role {
            Role::Prospective(election) if response.pre_vote && is_about(self.vote.epoch) => {
                election.votes.insert(from, response.granted);
            }
            Role::Candidate(election) if !response.pre_vote && is_about(self.vote.epoch) => {
                // What was promised stays promised, whatever a later answer to the same question says.
                *election.votes.entry(from).or_default() |= response.granted;
            }
            _ => return,
        }
        self.count(now, out);
    }

    /// The own vote is on stable storage, and counts.
    pub(super) fn count_own_vote(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        if let Role::Candidate(election) = &mut self.role {
            election.votes.insert(self.me.key.id, true);
            self.count(now, out);
        }
    }

    fn count(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let (election, is_candidate) = match &self.role {
            Role::Prospective(election) => (election, false),
            Role::Candidate(election) => (election, true),
            Role::Unattached(_) | Role::Follower(_) | Role::Leader(_) => return,
        };
        let voters = self.voters.last();
        let answers = voters.iter().filter_map(|voter| election.votes.get(&voter.key.id));
        let (granted, refused): (Vec<bool>, Vec<bool>) = answers.partition(|vote| **vote);
        let is_won = granted.len() >= voters.majority();
        let is_lost = refused.len() > voters.len() - voters.majority();
        let is_refused = !refused.is_empty();
        if is_won && is_candidate {
            self.become_leader(now, out);
        } else if is_won {
            self.become_candidate(now, out);
        } else if is_refused && is_candidate {
            self.expect_little(now);
        } else if is_lost {
            self.give_up(now);
        }
    }

    /// Another candidate has a vote. When nobody else answers, neither of the two is elected, so both give up after a
    /// time that is not the same.
    fn expect_little(&mut self, now: Duration) {
        let split_waits = self.has(Mutation::SplitVotesWait);
        let Role::Candidate(election) = &mut self.role else { return };
        if !election.is_split && !split_waits {
            election.is_split = true;
            let soon = now + self.chance.backoff(self.timing.heartbeat);
            election.deadline = election.deadline.min(soon);
        }
    }
}
