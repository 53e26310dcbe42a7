//! What every coordinator is to the runtime that runs it: a machine over the log of one partition.
//!
//! Why: groups, transactions and share groups differ in what they decide, and in nothing else. Each keeps its state
//! in the partitions of an internal topic, runs ahead of its log by what it has just decided, and answers once that
//! is committed. `broker::coordinator` does all of this for any [`Coordinator`]; [`super::group`] is one.
//!
//! ```text
//! request ──► step ──► Append { records, reply }   to the log; the reply when it is committed
//!                 ├──► AppendInTransaction         the same, but the records count when their transaction ends
//!                 ├──► EndTransaction              the marker that ends it
//!                 └──► Reply                       when all that was appended before is committed
//! restart:  apply(record)* ──► restored ──► step …
//! ```

use std::fmt::{self, Debug};

use super::{Machine, Replicated};
use crate::types::{ProducerEpoch, ProducerId, TimestampMs};

/// The token by which a request is answered; unique among those of its coordinator that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A producer in one of its epochs: whose transaction something is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
}

/// The end of a producer's transaction, as the transaction coordinator has it written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEnd {
    /// Whose transaction ends.
    pub producer: Producer,
    /// Whether it is committed; aborted otherwise.
    pub committed: bool,
    /// The epoch of the transaction coordinator that decided.
    pub coordinator_epoch: i32,
    /// The version of transactions that the coordinator goes by: from 2 on, the marker's epoch is newer than that of
    /// the transaction.
    pub transaction_version: i16,
}

/// What can happen to a coordinator.
#[derive(Clone, Debug)]
pub enum Event<Request, News> {
    /// A client asks.
    Request {
        /// The token for the answer.
        id: RequestId,
        /// What it asks.
        request: Request,
    },
    /// The cluster has changed.
    News(News),
    /// The clock was set: the time of this event is this far ahead of, or behind, where it would
    /// otherwise have been. Deadlines are durations and move along.
    ClockSet {
        /// By how much; negative when it was set back.
        by_ms: i64,
    },
    /// The time of the next deadline has come.
    Tick,
}

/// What a coordinator asks of its runtime. Records of one [`Effect::Append`] go to the log together or
/// not at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<Record, Reply> {
    /// Append records, which the state already contains, and answer when they are committed.
    Append {
        /// What is appended.
        records: Vec<Record>,
        /// Who is then answered.
        reply: Option<(RequestId, Reply)>,
    },
    /// Append records as part of a producer's transaction, in a batch of their own, and answer when they are
    /// committed to the log. They count when the transaction ends ([`Effect::EndTransaction`]), if it is committed.
    AppendInTransaction {
        /// Whose transaction.
        producer: Producer,
        /// What is appended.
        records: Vec<Record>,
        /// Who is then answered.
        reply: (RequestId, Reply),
    },
    /// Append the marker that ends a producer's transaction, and answer when it is committed.
    EndTransaction {
        /// What ends, and how.
        end: TransactionEnd,
        /// Who is then answered.
        reply: (RequestId, Reply),
    },
    /// Answer when everything that was appended before is committed, so that nobody reads what
    /// may still be lost.
    Reply {
        /// Which request.
        request: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Undo everything that is not committed: the coordinator decided on a record that does not fit its
    /// own state. No replay of the log would accept it.
    Undo(Misfit),
}

/// Why a record does not fit the state that those before it add up to: the log is damaged, or was
/// written by a newer version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit(pub String);

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A machine over the log of one partition.
pub trait Coordinator:
    Replicated<Record: Debug + Send + 'static, Error = Misfit>
    + Machine<
        Event = Event<<Self as Coordinator>::Request, <Self as Coordinator>::News>,
        Effect = Effect<<Self as Replicated>::Record, <Self as Coordinator>::Reply>,
    >
{
    /// What clients ask.
    type Request: Debug + Send + 'static;
    /// What they are answered.
    type Reply: Debug + Send + 'static;
    /// What it must be told about the cluster.
    type News: Debug + Send + 'static;

    /// After the last [`Replicated::apply`] of a replay: arms the deadlines, and finishes what must be
    /// finished.
    fn restored(&mut self, now: TimestampMs, out: &mut Vec<<Self as Machine>::Effect>);
}
