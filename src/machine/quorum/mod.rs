//! The metadata quorum: which record is committed, and who may append the next one.
//!
//! Raft in the shape that Kafka gave it (KRaft: KIP-595, KIP-853, KIP-996). Replicas fetch; a fetch acknowledges
//! what is before its offset. The leader commits what a majority of the voters has on stable storage.
//! Who hears nothing from the leader asks the others whether they would vote for it (pre-vote), and only
//! then raises the epoch. A leader that hears from no majority resigns. Voters are named by node and log
//! directory, and change one at a time by records of the log. Observers fetch and do not count; one that hears nothing
//! from the leader asks the voters who leads.
//!
//! ```text
//!             silence, or proof of a crash          would be elected           elected
//!  Follower ───────────────────────────► Prospective ─────────────► Candidate ────────► Leader
//!   ▲    ▲                                  │     ▲                   │  │                │
//!   │    └──── would not be elected ────────┘     └──── not elected ──┘  │                │ no majority fetches,
//!   │ learns who leads                                                   ▼                ▼ shut down, removed
//!   └───────────────────────────── Unattached ◄──────────────── a later epoch
//! ```
//!
//! Storage is asynchronous: the machine asks for a vote to be saved or records to be appended, goes on, and is
//! told when they are on stable storage. A slow disk delays votes and commits, and neither timers nor heartbeats.
//!
//! Invariants, which the tests below check in simulation, exhaustively for small clusters, and by mutations:
//!
//! - QUORUM-A: an epoch has one leader (election safety).
//! - QUORUM-B: two logs with a record of the same offset and epoch are equal up to it (log matching).
//! - QUORUM-C: the leader of an epoch has every record committed in an earlier one (leader completeness).
//! - QUORUM-D: no two replicas see different records committed at an offset; the high watermark never goes back.
//! - QUORUM-E: a vote, an epoch or a record counts only once it is on stable storage: nothing is sent in
//!   an epoch before it is saved, and a fetch starts at the stable end of the log.
//! - QUORUM-F: only a record of the leader's own epoch is committed by counting; those before it go along.
//! - QUORUM-G: once faults end there is a leader within bounded time, and it stays; a replica that was cut off
//!   and comes back does not depose it.
//! - QUORUM-H: every queue here has a bound.
//!
//! Where it differs from Kafka's: a pre-vote is refused for as long as the leader was heard within the
//! shortest election timeout, not forever; proof that the leader's process is dead ends that at once; a leader that
//! resigned stays in its epoch, in which it has voted for itself; a replica whose disk is busy goes on fetching
//! without asking for records, so that it counts as alive.
//!
//! What the shell owes it:
//!
//! - Effects are carried out in their order; a log is read for an answer as of its place in the order.
//! - Votes and the log are two queues to stable storage, so that a vote need not wait for an append. Each is
//!   reported in its order; a report covers everything before, so one sync does for all that waits. Of several
//!   votes that have not begun to be saved, the last is enough.
//! - Before a start, what is found in the log is synced, because it counts. A snapshot that reaches beyond the log, or
//!   whose epoch the log contradicts, takes the log's place, as if its installation had been completed.
//! - A response comes with what its request said. A request that cannot be sent, or is not answered, is forgotten.
//! - It is stepped with [`Event::Tick`] when [`Quorum::next_deadline`] has passed, and not made up for calls missed.
//!
//! Pure: time is an argument on a monotonic clock, randomness a seed. Its shell is `broker::quorum`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod changes;
mod election;
mod following;
mod leading;
mod log;
mod message;
mod role;
mod serving;
#[cfg(test)]
mod tests;
mod voters;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use self::leading::Progress;
use self::log::Log;
pub use self::log::OffsetAndEpoch;
pub use self::message::*;
use self::role::{Chance, Role};
use self::voters::VoterHistory;
pub use self::voters::{ReplicaKey, Snapshot, Voter, VoterSet};
use crate::types::{LeaderEpoch, NodeId, Offset};

/// The most answers that wait for a vote to be saved.
const HELD_MAX: usize = 256;
/// The most proposals that wait to be committed.
pub const PROPOSALS_MAX: usize = 1024;
/// The most observers that a leader remembers.
pub const OBSERVERS_MAX: usize = 1024;

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// The shortest silence after which a replica wants an election.
    pub election_min: Duration,
    /// The longest; also how long a leader leads without hearing from a majority.
    pub election_max: Duration,
    /// How often a follower and its leader hear from each other, and a request is repeated.
    pub heartbeat: Duration,
    /// How long a replica waits at most after proof that its leader is dead, so that not all stand at once.
    pub crash_jitter: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            election_min: Duration::from_secs(1),
            election_max: Duration::from_millis(1500),
            heartbeat: Duration::from_millis(100),
            crash_jitter: Duration::from_millis(30),
        }
    }
}

/// What a replica is told of itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// How it is described among the voters, should it be one.
    pub me: Voter,
    /// Who votes as long as no log says so.
    pub voters: VoterSet,
    /// How many addresses the configuration lists for those who know no voter.
    pub bootstrap: usize,
    /// How long things take.
    pub timing: Timing,
    /// What its random numbers come from.
    pub seed: u64,
}

/// What a replica has on stable storage when it starts.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Its vote.
    pub vote: VoteState,
    /// Its latest snapshot.
    pub snapshot: Option<Snapshot>,
    /// Where its log starts, and the epoch of the record before.
    pub start: OffsetAndEpoch,
    /// Where its log ends.
    pub end: Offset,
    /// The first offset of each epoch in the log.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// The records of voters in the log.
    pub voters: BTreeMap<Offset, VoterSet>,
}

/// A replica of the metadata log. `P` is what is proposed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quorum<P> {
    me: Voter,
    bootstrap: usize,
    timing: Timing,
    chance: Chance,
    vote: VoteState,
    /// The last vote that was to be saved, and the last that is.
    vote_asked: Ticket,
    vote_stored: Ticket,
    log: Log,
    voters: VoterHistory,
    snapshot: Option<OffsetAndEpoch>,
    /// A snapshot that is about to take the place of the log.
    installing: Option<OffsetAndEpoch>,
    high_watermark: Offset,
    role: Role,
    /// The leader of this epoch is proven dead, or said that it resigned.
    leader_gone: bool,
    /// Answers that wait for the vote of their ticket.
    held: VecDeque<(Ticket, Token, Response<P>)>,
    stopping: bool,
    halted: bool,
    /// What was last said about who leads.
    announced: LeaderAndEpoch,
    #[cfg(test)]
    planted: &'static [Mutation],
}

/// Mistakes that tests plant, to see that they are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mutation {
    UnsavedVoteCounts,
    UnsavedVoteIsAnswered,
    TwoVotesInAnEpoch,
    LogIsNotCompared,
    OlderEpochIsCommitted,
    UnsyncedIsAcknowledged,
    UnsyncedLeaderCounts,
    DivergenceIsNotSeen,
    ResponseIsNotMatched,
    PreVoteIsAlwaysGranted,
    PreVoteIsSkipped,
    NoCheckQuorum,
    ChangeBeforeCommit,
    ChangesOverlap,
    DirectoryIsIgnored,
    VotersAreNotTruncated,
    SnapshotEpochIsIgnored,
    HeldUpHighWatermark,
    RemovedLeaderCounts,
    RemovedDoesNotStand,
    SplitVotesWait,
    BusyReplicaIsSilent,
    ResignedLeaderVotesAgain,
}

impl<P> Quorum<P> {
    /// A replica that starts, with the effects of that.
    pub fn start(
        options: Options,
        stored: Stored,
        now: Duration,
        out: &mut Vec<Effect<P>>,
    ) -> Self {
        let mut replica = Self::at_rest(options, stored, now);
        replica.wake_up(now, out);
        replica
    }

    fn at_rest(options: Options, stored: Stored, now: Duration) -> Self {
        let Stored { vote, snapshot, start, end, epochs, voters } = stored;
        let base = snapshot.as_ref().map_or(options.voters, |snapshot| snapshot.voters.clone());
        let log = Log::new(start, end, epochs);
        let snapshot_end = snapshot.as_ref().map(|snapshot| snapshot.id);
        let mut chance = Chance::new(options.seed);
        // Nothing is lost by asking early, and a leader that is there is found sooner.
        let soon = now + chance.between(options.timing.heartbeat, 3 * options.timing.heartbeat);
        Self {
            bootstrap: options.bootstrap,
            timing: options.timing,
            role: Role::Unattached(role::Unattached { election: soon, probe: now }),
            chance,
            vote,
            vote_asked: Ticket(0),
            vote_stored: Ticket(0),
            voters: VoterHistory::new(base, snapshot_end.is_some(), voters),
            high_watermark: snapshot_end.map_or(Offset::ZERO, |id| id.offset).max(start.offset),
            snapshot: snapshot_end,
            log,
            me: options.me,
            installing: None,
            leader_gone: false,
            held: VecDeque::new(),
            stopping: false,
            halted: false,
            announced: LeaderAndEpoch { epoch: LeaderEpoch::UNKNOWN, leader: None },
            #[cfg(test)]
            planted: &[],
        }
    }

    fn wake_up(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let last = self.log.last().epoch;
        if last > self.vote.epoch {
            self.vote = VoteState { epoch: last, voted: None };
            self.save_vote(out);
        }
        if self.high_watermark > Offset::ZERO {
            out.push(Effect::Committed(self.high_watermark));
        }
        if self.may_stand() && self.is_alone() {
            self.become_candidate(now, out);
        }
        self.act(now, out);
    }

    /// Takes one event. `out` gets the effects in the order in which they must be carried out.
    pub fn step(&mut self, now: Duration, event: Event<P>, out: &mut Vec<Effect<P>>) {
        if self.halted {
            if let Event::Request { token, .. } = event {
                out.push(Effect::Abandon(token));
            }
            return;
        }
        match event {
            Event::Tick => self.on_time(now, out),
            Event::Request { token, request } => self.on_request(now, token, request, out),
            Event::Response { from, response } => self.on_response(now, from, response, out),
            Event::VoteStored(ticket) => self.on_vote_stored(now, ticket, out),
            Event::LogStored(ticket) => self.on_log_stored(now, ticket, out),
            Event::Propose { tag, payload } => self.on_propose(tag, payload, out),
            Event::ChangeVoters { tag, change } => self.on_change(now, tag, change, out),
            Event::Crashed(node) => self.on_crash(now, node),
            Event::SnapshotTaken { id, log_start } => self.on_snapshot_taken(id, log_start, out),
            Event::SnapshotInstalled(snapshot) => self.on_installed(now, snapshot, out),
            Event::Resign => {
                self.stopping = true;
                self.resign(now, out);
            }
        }
        self.act(now, out);
    }

    /// When it must be stepped again at the latest.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.halted { None } else { self.deadline() }
    }

    fn on_request(
        &mut self,
        now: Duration,
        token: Token,
        request: Request,
        out: &mut Vec<Effect<P>>,
    ) {
        match request {
            Request::Vote(request) => self.on_vote(now, token, request, out),
            Request::BeginQuorumEpoch(request) => self.on_begin(now, token, request, out),
            Request::EndQuorumEpoch(request) => self.on_end(now, token, &request, out),
            Request::Fetch(request) => self.on_fetch(now, token, request, out),
            Request::FetchSnapshot(request) => self.on_fetch_snapshot(now, token, request, out),
            Request::UpdateVoter(request) => self.on_update(token, request, out),
        }
    }

    fn on_response(
        &mut self,
        now: Duration,
        from: NodeId,
        response: Response<P>,
        out: &mut Vec<Effect<P>>,
    ) {
        self.observe(now, response.current(), out);
        match response {
            Response::Vote(response) => self.on_vote_response(now, from, &response, out),
            Response::Current(_) => {}
            Response::Fetch(response) => self.on_fetched(now, from, response, out),
            Response::FetchSnapshot(response) => self.on_part(now, from, response, out),
        }
    }

    fn on_vote_stored(&mut self, now: Duration, ticket: Ticket, out: &mut Vec<Effect<P>>) {
        self.vote_stored = self.vote_stored.max(ticket);
        while self.held.front().is_some_and(|(needed, ..)| *needed <= self.vote_stored) {
            if let Some((_, token, response)) = self.held.pop_front() {
                out.push(Effect::Answer(token, response));
            }
        }
        if self.is_saved() {
            self.count_own_vote(now, out);
        }
    }

    fn on_log_stored(&mut self, now: Duration, ticket: Ticket, out: &mut Vec<Effect<P>>) {
        if !self.log.stored(ticket) {
            return;
        }
        self.advance(now, out);
        self.fetch_again(now);
    }

    fn on_snapshot_taken(
        &mut self,
        id: OffsetAndEpoch,
        log_start: Offset,
        out: &mut Vec<Effect<P>>,
    ) {
        let is_newer = self.snapshot.is_none_or(|known| known.offset < id.offset);
        if !is_newer || id.offset > self.high_watermark || id.offset < self.log.start().offset {
            return;
        }
        self.snapshot = Some(id);
        let log_start = log_start.min(id.offset);
        if log_start > self.log.start().offset {
            self.log.prune(log_start);
            self.voters.prune(log_start);
            out.push(Effect::Prune(self.log.ticket(), log_start));
        }
    }

    /// Everything before is committed.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Where the log ends, once everything that was asked for is done.
    pub fn log_end(&self) -> Offset {
        self.log.end()
    }

    /// Where the log starts.
    #[cfg(test)]
    pub(crate) fn log_start(&self) -> Offset {
        self.log.start().offset
    }

    /// The epoch of the record before an offset of the log, which names a snapshot that ends there.
    pub fn until(&self, offset: Offset) -> OffsetAndEpoch {
        self.log.until(offset)
    }

    /// Who votes.
    pub fn voters(&self) -> &VoterSet {
        self.voters.last()
    }

    /// Who votes according to the records before an offset, for the snapshot that ends there.
    pub fn voters_below(&self, end: Offset) -> &VoterSet {
        self.voters.below(end)
    }

    /// Who leads, as far as is known.
    pub fn current(&self) -> LeaderAndEpoch {
        let leader = match &self.role {
            Role::Leader(_) => {
                Some(Leader { id: self.me.key.id, endpoints: self.me.endpoints.clone() })
            }
            Role::Follower(follower) => Some(follower.leader.clone()),
            Role::Unattached(_) | Role::Prospective(_) | Role::Candidate(_) => None,
        };
        LeaderAndEpoch { epoch: self.vote.epoch, leader }
    }

    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    fn is_saved(&self) -> bool {
        self.vote_stored >= self.vote_asked
    }

    /// Requests name the epoch, so they wait until it is saved.
    fn may_speak(&self) -> bool {
        self.is_saved() || self.has(Mutation::UnsavedVoteCounts)
    }

    fn save_vote(&mut self, out: &mut Vec<Effect<P>>) {
        self.vote_asked = self.vote_asked.next();
        out.push(Effect::SaveVote(self.vote_asked, self.vote));
    }

    /// Answers once the epoch that the answer names, and the vote that it gives, are saved.
    fn answer(&mut self, token: Token, response: Response<P>, out: &mut Vec<Effect<P>>) {
        if self.is_saved() || self.has(Mutation::UnsavedVoteIsAnswered) {
            out.push(Effect::Answer(token, response));
            return;
        }
        self.held.push_back((self.vote_asked, token, response));
        if self.held.len() > HELD_MAX
            && let Some((_, token, _)) = self.held.pop_front()
        {
            out.push(Effect::Abandon(token));
        }
    }

    fn commit(&mut self, offset: Offset, out: &mut Vec<Effect<P>>) {
        if offset > self.high_watermark {
            self.high_watermark = offset;
            out.push(Effect::Committed(offset));
        }
    }

    fn append(&mut self, entries: Vec<Entry<P>>, out: &mut Vec<Effect<P>>) {
        for entry in &entries {
            self.log.appended(entry.epoch);
            if let Payload::Voters(set) = &entry.payload {
                self.voters.record(entry.offset, set.clone());
            }
        }
        out.push(Effect::Append(self.log.ticket(), entries));
    }

    fn halt(&mut self, why: String, out: &mut Vec<Effect<P>>) {
        self.leave(out);
        self.halted = true;
        out.push(Effect::Halt(why));
    }

    #[cfg(test)]
    fn has(&self, mutation: Mutation) -> bool {
        self.planted.contains(&mutation)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests plant mutations in the replica")]
    const fn has(&self, _mutation: Mutation) -> bool {
        false
    }
}
