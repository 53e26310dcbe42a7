//! What goes in and out: events, effects, and the requests between replicas.
//!
//! The requests are Kafka's (Vote, BeginQuorumEpoch, EndQuorumEpoch, Fetch, FetchSnapshot,
//! UpdateRaftVoter) as plain values. A response repeats what of its request decides what it means; the shell, which
//! knows the request of each response, fills that in where the frame does not carry it. So a
//! response that comes late, twice or out of order is recognised by what it says.

use std::time::Duration;

use bytes::Bytes;

use super::log::OffsetAndEpoch;
use super::voters::{ReplicaKey, Snapshot, Voter, VoterSet};
use crate::machine::metadata::Endpoint;
use crate::types::{LeaderEpoch, NodeId, Offset};

/// Names an operation on stable storage; later ones have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

impl Ticket {
    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Names a request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Names a proposal, or a change of the voters, towards who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// One record of the log. Each takes one offset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry<P> {
    /// Its place.
    pub offset: Offset,
    /// The epoch of the leader that appended it.
    pub epoch: LeaderEpoch,
    /// What it says.
    pub payload: Payload<P>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload<P> {
    /// The first record of an epoch.
    LeaderChange {
        /// The epoch's leader.
        leader: NodeId,
    },
    /// Who votes from here on.
    Voters(VoterSet),
    /// What was proposed.
    Records(P),
}

/// What a voter must not forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VoteState {
    /// The latest epoch that is known.
    pub epoch: LeaderEpoch,
    /// For whom it voted there.
    pub voted: Option<ReplicaKey>,
}

/// A leader, and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    /// The node.
    pub id: NodeId,
    /// Where it listens for the others; nothing where the voters say it.
    pub endpoints: Vec<Endpoint>,
}

/// What a replica knows of who leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaderAndEpoch {
    /// The latest epoch that it knows.
    pub epoch: LeaderEpoch,
    /// The leader there, if it knows it.
    pub leader: Option<Leader>,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A voter, or the leader.
    Node(NodeId),
    /// One of the addresses that the configuration lists.
    Bootstrap(usize),
}

/// Asks for a vote, or with `pre_vote` whether there would be one (KIP-996).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VoteRequest {
    /// The candidate's epoch; before a pre-vote it has not raised it.
    pub epoch: LeaderEpoch,
    /// Who wants to lead.
    pub candidate: ReplicaKey,
    /// Who is asked. Another replica on the same node refuses.
    pub voter: ReplicaKey,
    /// The end of the candidate's log.
    pub last: OffsetAndEpoch,
    /// Nothing is promised by the answer.
    pub pre_vote: bool,
}

/// The answer to [`VoteRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VoteResponse {
    /// The request's epoch.
    pub epoch: LeaderEpoch,
    /// The request's voter.
    pub voter: ReplicaKey,
    /// The request's kind.
    pub pre_vote: bool,
    /// The vote.
    pub granted: bool,
    /// What the voter knows.
    pub current: LeaderAndEpoch,
}

/// Tells a voter who leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BeginQuorumEpochRequest {
    /// The leader's epoch.
    pub epoch: LeaderEpoch,
    /// The leader.
    pub leader: Leader,
    /// Who is told.
    pub voter: ReplicaKey,
}

/// Tells a voter that its leader leads no more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndQuorumEpochRequest {
    /// The epoch that ends.
    pub epoch: LeaderEpoch,
    /// Its leader.
    pub leader: Leader,
    /// Who should lead next, the best first.
    pub successors: Vec<ReplicaKey>,
}

/// Asks the leader for the records behind what the replica has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FetchRequest {
    /// The replica's epoch.
    pub epoch: LeaderEpoch,
    /// The replica.
    pub replica: ReplicaKey,
    /// The end of what it has on stable storage, so that the request acknowledges what is before.
    pub last: OffsetAndEpoch,
    /// When it was sent, on the replica's clock: of several requests in flight, only the last one's answer counts.
    pub sent: Duration,
    /// The high watermark that it was told last.
    pub high_watermark: Offset,
    /// How long the leader may wait for something to tell.
    pub max_wait: Duration,
    /// Without, the replica is busy with what it got before, and only says that it is alive.
    pub wants_records: bool,
}

/// The answer to [`FetchRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchResponse<P> {
    /// The request's place.
    pub last: OffsetAndEpoch,
    /// The request's time.
    pub sent: Duration,
    /// What the one who was asked knows.
    pub current: LeaderAndEpoch,
    /// Everything before is committed.
    pub high_watermark: Offset,
    /// What was found at that place.
    pub found: Found<P>,
}

/// What a leader has at the place of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Found<P> {
    /// The next records, perhaps none.
    Records(Vec<Entry<P>>),
    /// The replica must cut its log: the leader's last epoch not after the replica's, and where it ends.
    Diverging(OffsetAndEpoch),
    /// The records are gone; the replica must take this snapshot.
    Snapshot(OffsetAndEpoch),
    /// Who was asked does not lead, or not in the epoch of the request.
    NotLeader,
}

/// Asks the leader for a part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FetchSnapshotRequest {
    /// The replica's epoch.
    pub epoch: LeaderEpoch,
    /// The replica.
    pub replica: ReplicaKey,
    /// The snapshot.
    pub snapshot: OffsetAndEpoch,
    /// How many bytes of it the replica has.
    pub position: u64,
}

/// The answer to [`FetchSnapshotRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchSnapshotResponse {
    /// The request's snapshot.
    pub snapshot: OffsetAndEpoch,
    /// The request's position.
    pub position: u64,
    /// What the one who was asked knows.
    pub current: LeaderAndEpoch,
    /// The part and the size of the whole; nothing when there is no such snapshot or no leader.
    pub part: Option<SnapshotPart>,
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotPart {
    /// The bytes.
    pub bytes: Bytes,
    /// The size of the whole.
    pub size: u64,
}

/// Tells the leader how a voter is to be described from now on: its directory, its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpdateVoterRequest {
    /// The voter's epoch.
    pub epoch: LeaderEpoch,
    /// The voter.
    pub voter: Voter,
}

/// A request of a replica to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// For a vote.
    Vote(VoteRequest),
    /// An epoch has a leader.
    BeginQuorumEpoch(BeginQuorumEpochRequest),
    /// An epoch has no leader any more.
    EndQuorumEpoch(EndQuorumEpochRequest),
    /// For records.
    Fetch(FetchRequest),
    /// For a part of a snapshot.
    FetchSnapshot(FetchSnapshotRequest),
    /// To change a voter's description.
    UpdateVoter(UpdateVoterRequest),
}

impl Request {
    /// Who asks.
    #[must_use]
    pub fn sender(&self) -> NodeId {
        match self {
            Self::Vote(request) => request.candidate.id,
            Self::BeginQuorumEpoch(request) => request.leader.id,
            Self::EndQuorumEpoch(request) => request.leader.id,
            Self::Fetch(request) => request.replica.id,
            Self::FetchSnapshot(request) => request.replica.id,
            Self::UpdateVoter(request) => request.voter.key.id,
        }
    }

    /// The epoch of who asks.
    #[must_use]
    pub fn epoch(&self) -> LeaderEpoch {
        match self {
            Self::Vote(request) => request.epoch,
            Self::BeginQuorumEpoch(request) => request.epoch,
            Self::EndQuorumEpoch(request) => request.epoch,
            Self::Fetch(request) => request.epoch,
            Self::FetchSnapshot(request) => request.epoch,
            Self::UpdateVoter(request) => request.epoch,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Response<P> {
    /// To [`Request::Vote`].
    Vote(VoteResponse),
    /// To [`Request::BeginQuorumEpoch`], [`Request::EndQuorumEpoch`] and [`Request::UpdateVoter`].
    Current(LeaderAndEpoch),
    /// To [`Request::Fetch`].
    Fetch(FetchResponse<P>),
    /// To [`Request::FetchSnapshot`].
    FetchSnapshot(FetchSnapshotResponse),
}

impl<P> Response<P> {
    /// What the one who answers knows of who leads.
    #[must_use]
    pub fn current(&self) -> &LeaderAndEpoch {
        match self {
            Self::Vote(response) => &response.current,
            Self::Current(current) => current,
            Self::Fetch(response) => &response.current,
            Self::FetchSnapshot(response) => &response.current,
        }
    }
}

/// A change of who votes, as an operator asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VoterChange {
    /// An observer that has caught up becomes a voter.
    Add(Voter),
    /// A voter becomes an observer.
    Remove(ReplicaKey),
}

/// Why something that was asked for is not done, or not known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// This replica does not lead.
    NotLeader,
    /// It stopped leading before it was known to be committed; it may be yet.
    LeadershipLost,
    /// As much waits to be committed as is allowed.
    TooManyProposals,
    /// The leader has not committed a record of its epoch yet, or another change is under way.
    ChangePending,
    /// The voter is one already, or another replica of its node is.
    DuplicateVoter,
    /// There is no such voter.
    VoterNotFound,
    /// The last voter stays.
    LastVoter,
    /// The observer has not fetched lately, or not everything that is committed.
    NotCaughtUp,
}

/// What happens to a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event<P> {
    /// Time passed.
    Tick,
    /// A request arrived.
    Request {
        /// Names it.
        token: Token,
        /// The request.
        request: Request,
    },
    /// The answer to a request came.
    Response {
        /// Who answers.
        from: NodeId,
        /// The answer.
        response: Response<P>,
    },
    /// The vote state of this ticket is on stable storage, or a later one.
    VoteStored(Ticket),
    /// The operations on the log up to this ticket are on stable storage.
    LogStored(Ticket),
    /// Something is to be committed.
    Propose {
        /// Names it.
        tag: Tag,
        /// What.
        payload: P,
    },
    /// The voters are to be changed.
    ChangeVoters {
        /// Names it.
        tag: Tag,
        /// How.
        change: VoterChange,
    },
    /// The process of a node is proven to be dead: the connection ended, and a new one was refused.
    Crashed(NodeId),
    /// The state below `id` was written to a snapshot, and the log is not needed before `log_start`.
    SnapshotTaken {
        /// The snapshot.
        id: OffsetAndEpoch,
        /// Where the log shall start; at most where the snapshot ends.
        log_start: Offset,
    },
    /// The snapshot of [`Effect::InstallSnapshot`] has taken the place of the log, on stable storage.
    SnapshotInstalled(Snapshot),
    /// The node shuts down: it hands over the leadership and stands for no election any more.
    Resign,
}

/// What a replica wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect<P> {
    /// Put the vote state on stable storage, then report [`Event::VoteStored`].
    SaveVote(Ticket, VoteState),
    /// Add the records to the log; report [`Event::LogStored`] when they are on stable storage. They can be read at
    /// once.
    Append(Ticket, Vec<Entry<P>>),
    /// Cut the log, so that it ends there; then as for `Append`.
    Truncate(Ticket, Offset),
    /// Remove the records before this offset, when convenient; then as for `Append`.
    Prune(Ticket, Offset),
    /// Send a request.
    Send(Peer, Request),
    /// Answer a request.
    Answer(Token, Response<P>),
    /// Answer a fetch with the records from its place up to an offset, or with the first of them.
    AnswerRecords {
        /// The request.
        token: Token,
        /// The answer, without the records.
        response: FetchResponse<P>,
        /// The end of the log.
        end: Offset,
    },
    /// Answer a fetch of a snapshot with the bytes from its position, or with the first of them.
    AnswerSnapshot {
        /// The request.
        token: Token,
        /// The answer, without the part.
        response: FetchSnapshotResponse,
    },
    /// A request will not be answered.
    Abandon(Token),
    /// Add bytes to the snapshot that is being fetched; at position 0, a new one.
    WriteSnapshot {
        /// The snapshot.
        id: OffsetAndEpoch,
        /// Where the bytes belong.
        position: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The fetched snapshot is complete: put it in the place of the log, in one step as far as a crash can tell,
    /// load it, and report [`Event::SnapshotInstalled`]. When that fails, the node stops.
    InstallSnapshot(OffsetAndEpoch),
    /// Everything before is committed.
    Committed(Offset),
    /// A proposal or a change of the voters is committed at this offset, or is not known to be.
    Outcome(Tag, Result<Offset, Refusal>),
    /// This replica leads from now on; the epoch's first record is at `start`.
    BecameLeader {
        /// The epoch.
        epoch: LeaderEpoch,
        /// Once this is committed, so is everything before.
        start: Offset,
    },
    /// This replica leads no more.
    LostLeadership,
    /// What is known of who leads has changed.
    LeaderChanged(LeaderAndEpoch),
    /// The replica contradicts the cluster, which only lost or foreign data explains. It does nothing any more.
    Halt(String),
}
