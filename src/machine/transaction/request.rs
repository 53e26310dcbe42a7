//! What the coordinator is asked, and what it answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use regex::Regex;

use super::markers::{MarkerAnswer, Markers};
use super::record::{Producer, TransactionRecord, TransactionState};
use crate::error::ErrorCode;
use crate::machine::coordinator;
use crate::types::{ProducerId, TimestampMs, TopicPartition};

/// What can happen to a shard.
pub type Event = coordinator::Event<TransactionRequest, TransactionNews>;
/// What a shard asks of its runtime.
pub type Effect = coordinator::Effect<TransactionRecord, TransactionReply>;

/// The settings of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionConfig {
    /// The finalized level of the feature `transaction.version`.
    pub version: i16,
    /// `transaction.max.timeout.ms`.
    pub timeout_ms_max: i32,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_interval_ms: i64,
    /// `transactional.id.expiration.ms`.
    pub expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiration_interval_ms: i64,
}

/// What the coordinator must be told about the cluster.
#[derive(Clone, Debug)]
pub enum TransactionNews {
    /// The settings.
    Config(Arc<TransactionConfig>),
}

/// What can be asked.
#[derive(Clone, Debug)]
pub enum TransactionRequest {
    /// InitProducerId with a transactional id; answered with [`TransactionReply::Producer`], or `NeedsProducerId`.
    Init(InitRequest),
    /// Adds partitions to the transaction; answered with [`TransactionReply::Added`].
    Add(AddPartitionsRequest),
    /// Asks which partitions belong to the transaction; answered with [`TransactionReply::Verified`].
    Verify(AddPartitionsRequest),
    /// EndTxn; answered with [`TransactionReply::Producer`], or `NeedsProducerId`.
    End(EndRequest),
    /// DescribeTransactions; answered with [`TransactionReply::Described`].
    Describe {
        /// Transactional ids of this shard.
        ids: Vec<Arc<str>>,
    },
    /// ListTransactions; answered with [`TransactionReply::Listed`].
    List(ListTransactionsRequest),
    /// Asks for markers to write. Answered with [`TransactionReply::Markers`] as soon as there are any; the transactions that
    /// they end are decided in the log by then. One asks at a time: a later question answers an earlier one.
    TakeMarkers,
    /// How markers fared; answered with [`TransactionReply::Noted`].
    MarkersAnswered(Vec<MarkerAnswer>),
}

/// A producer wants an id and an epoch.
#[derive(Clone, Debug)]
pub struct InitRequest {
    /// Its transactional id.
    pub transactional_id: Arc<str>,
    /// How long its transactions may last.
    pub timeout_ms: i32,
    /// What it had (KIP-360).
    pub expected: Option<Producer>,
    /// An id that nobody has, if the coordinator said that it needs one.
    pub fresh: Option<ProducerId>,
}

/// Partitions of a transaction.
#[derive(Clone, Debug)]
pub struct AddPartitionsRequest {
    /// The transactional id.
    pub transactional_id: Arc<str>,
    /// Whose transaction it is.
    pub producer: Producer,
    /// The partitions.
    pub partitions: BTreeSet<TopicPartition>,
    /// The version of transactions that the producer speaks.
    pub version: i16,
}

/// A producer ends its transaction.
#[derive(Clone, Debug)]
pub struct EndRequest {
    /// Its transactional id.
    pub transactional_id: Arc<str>,
    /// Its id and epoch.
    pub producer: Producer,
    /// Whether it commits.
    pub commits: bool,
    /// The version of transactions that it speaks.
    pub version: i16,
    /// An id that nobody has, if the coordinator said that it needs one.
    pub fresh: Option<ProducerId>,
}

/// Which transactions are wanted.
#[derive(Clone, Debug, Default)]
pub struct ListTransactionsRequest {
    /// Names of states; all if there are none. Unknown names fit nothing.
    pub states: Vec<Arc<str>>,
    /// Producer ids; all if there are none.
    pub producer_ids: BTreeSet<ProducerId>,
    /// Only those that are older than this; all if it is negative.
    pub duration_ms: i64,
    /// Only ids of this form.
    pub pattern: Option<Regex>,
}

/// What is answered; [`TransactionRequest`] says to what.
#[derive(Clone, Debug, PartialEq)]
pub enum TransactionReply {
    /// The producer as it is from now on. None after an end in the first version, which leaves it as it is.
    Producer(Result<Producer, ErrorCode>),
    /// The same request once more, please, with an id that nobody has.
    NeedsProducerId,
    /// Whether all partitions belong to the transaction.
    Added(Result<(), ErrorCode>),
    /// The partitions that do not belong to the transaction.
    Verified(Result<BTreeSet<TopicPartition>, ErrorCode>),
    /// One for each transactional id of the request, in its order.
    Described(Vec<(Arc<str>, Result<DescribedTransaction, ErrorCode>)>),
    /// Those that fit.
    Listed(Vec<ListedTransaction>),
    /// Markers to write, each handed out once until it is answered.
    Markers(Vec<Markers>),
    /// Noted.
    Noted,
}

/// How one transactional id stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedTransaction {
    /// Its producer.
    pub producer: Producer,
    /// How long its transactions may last.
    pub timeout_ms: i32,
    /// How the transaction stands.
    pub state: TransactionState,
    /// When it began; -1 if none has.
    pub start: TimestampMs,
    /// The partitions that are still without a marker.
    pub partitions: BTreeSet<TopicPartition>,
}

/// One transactional id of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTransaction {
    /// The transactional id.
    pub transactional_id: Arc<str>,
    /// Its producer id.
    pub producer_id: ProducerId,
    /// How its transaction stands.
    pub state: TransactionState,
}
