//! What is kept of a transactional id.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::types::{ProducerId, TimestampMs, TopicPartition};

/// The highest epoch. It is for fencing: no producer is told it (TXN-5).
pub const EPOCH_MAX: i16 = i16::MAX;

/// From this level of `transaction.version` on, the epoch is raised at the end of a transaction (KIP-890).
pub(super) const RAISES_EPOCH: i16 = 2;

/// A producer id and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Producer {
    /// The id.
    pub id: ProducerId,
    /// The epoch; -1 for none.
    pub epoch: i16,
}

impl Producer {
    /// Nobody.
    pub const NONE: Self = Self { id: ProducerId::NONE, epoch: -1 };
}

/// How a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionState {
    /// There has been none since the producer was initialised.
    Empty,
    /// Partitions are added.
    Ongoing,
    /// It is committed; the markers are being written.
    PrepareCommit,
    /// It is aborted; the markers are being written.
    PrepareAbort,
    /// It was committed.
    CompleteCommit,
    /// It was aborted.
    CompleteAbort,
}

impl TransactionState {
    const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// Kafka's names for passing states of its own, which no transactional id has here.
    const NOT_HERE: [&str; 2] = ["Dead", "PrepareEpochFence"];

    /// The number in records.
    #[must_use]
    pub const fn id(self) -> i8 {
        match self {
            Self::Empty => 0,
            Self::Ongoing => 1,
            Self::PrepareCommit => 2,
            Self::PrepareAbort => 3,
            Self::CompleteCommit => 4,
            Self::CompleteAbort => 5,
        }
    }

    /// The state with a number.
    #[must_use]
    pub fn from_id(id: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.id() == id)
    }

    /// The name that clients see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Whether Kafka has a state of this name.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        Self::ALL.iter().any(|state| state.name() == name) || Self::NOT_HERE.contains(&name)
    }

    /// Whether the markers are being written.
    #[must_use]
    pub const fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    /// Whether nothing is open.
    #[must_use]
    pub const fn is_idle(self) -> bool {
        matches!(self, Self::Empty | Self::CompleteCommit | Self::CompleteAbort)
    }
}

/// One record of `__transaction_state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRecord {
    /// The transactional id.
    pub transactional_id: Arc<str>,
    /// How it stands; none when it is forgotten.
    pub value: Option<TransactionValue>,
    /// Whether the value may have tagged fields: from level 1 of `transaction.version` on.
    pub has_tags: bool,
}

/// What a record says of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionValue {
    /// The producer id.
    pub producer_id: ProducerId,
    /// The producer id before the last change.
    pub previous_producer_id: ProducerId,
    /// The producer id that the producer has been told, and gets once the markers are written.
    pub next_producer_id: ProducerId,
    /// The epoch.
    pub producer_epoch: i16,
    /// The epoch before it, if the one producer had both. Records have no place for it.
    pub last_producer_epoch: i16,
    /// How long a transaction may last.
    pub timeout_ms: i32,
    /// How the transaction stands.
    pub state: TransactionState,
    /// Its partitions.
    pub partitions: Arc<BTreeSet<TopicPartition>>,
    /// When this was decided.
    pub last_update: TimestampMs,
    /// When the transaction began; -1 before the first.
    pub start: TimestampMs,
    /// The version of transactions in which the producer ended, or is in, its transaction.
    pub version: i16,
}

impl TransactionValue {
    /// The producer.
    #[must_use]
    pub const fn producer(&self) -> Producer {
        Producer { id: self.producer_id, epoch: self.producer_epoch }
    }

    /// Whether another epoch would be [`EPOCH_MAX`].
    pub(super) const fn is_exhausted(&self) -> bool {
        is_exhausted(self.producer_epoch)
    }

    /// A change of this: the producer id before is noted.
    pub(super) fn change(&self, state: TransactionState, now: TimestampMs) -> Self {
        Self { state, previous_producer_id: self.producer_id, last_update: now, ..self.clone() }
    }
}

/// Whether the epoch after this one is for fencing only.
pub(super) const fn is_exhausted(epoch: i16) -> bool {
    epoch >= EPOCH_MAX - 1
}
