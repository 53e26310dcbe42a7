//! The markers of transactions whose end is decided: handed out, answered, tried once more.
//!
//! The machine is the queue: what is to be written is part of its state, and is handed out to the one who asks. So
//! whoever writes markers needs no more memory than the open transactions do, and after a restart it is all there again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

#[cfg(any(test, feature = "sim"))]
use super::mistakes::{Mistake, is_planted};
use super::record::{Producer, TransactionState};
use super::request::TransactionReply;
use super::shard::TransactionShard;
use crate::error::ErrorCode;
use crate::machine::coordinator::RequestId;
use crate::types::TopicPartition;

/// How many transactions are handed out at once.
const HANDED_OUT_MAX: usize = 1000;
/// How soon a marker is tried once more; doubled with each time.
const RETRY_MS_MIN: i64 = 20;
/// How often it is doubled.
const DOUBLINGS_MAX: u32 = 5;

/// The markers of one transaction that are to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Markers {
    /// Its transactional id.
    pub transactional_id: Arc<str>,
    /// Which shard handed them out: one that is read from the log anew is another, and hands out everything once more.
    pub round: u64,
    /// The id and the epoch that the markers carry.
    pub producer: Producer,
    /// Whether it is committed.
    pub commits: bool,
    /// The version of transactions in which it was ended.
    pub version: i16,
    /// Where they go.
    pub partitions: BTreeSet<TopicPartition>,
}

/// How markers of one transaction fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkerAnswer {
    /// Its transactional id.
    pub transactional_id: Arc<str>,
    /// That of the markers.
    pub round: u64,
    /// The id and the epoch that the markers carried.
    pub producer: Producer,
    /// How it went, partition by partition.
    pub outcomes: Vec<(TopicPartition, MarkerOutcome)>,
}

/// How one marker fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerOutcome {
    /// The transaction is over in this partition.
    Written,
    /// There is no such partition any more.
    Gone,
    /// It is to be tried once more.
    Again,
}

impl MarkerOutcome {
    /// What the answer of the partition's leader says.
    ///
    /// A leader knows a higher epoch of the producer only where this transaction is over: in the second version, from
    /// this very marker, whose first answer was lost; in the first, from a later coordinator, and then nothing that is
    /// decided here gets into the log any more. Whoever is fenced as a coordinator tries until it hears of its
    /// successor, so that an id cannot hang where there is none.
    #[must_use]
    pub const fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::None | ErrorCode::InvalidProducerEpoch => Self::Written,
            ErrorCode::UnsupportedForMessageFormat => Self::Gone,
            _ => Self::Again,
        }
    }
}

/// What is to be handed out, and to whom.
#[derive(Debug, Default)]
pub(super) struct MarkerQueue {
    ready: VecDeque<(Arc<str>, BTreeSet<TopicPartition>)>,
    /// What waits until it is tried once more.
    again: BTreeMap<Arc<str>, BTreeSet<TopicPartition>>,
    taker: Option<RequestId>,
}

impl TransactionShard {
    /// The end of a transaction is decided. Its markers are handed out, or there are none to be written.
    pub(super) fn prepared(&mut self, id: &Arc<str>) {
        let Some(transaction) = self.transactions.get(id) else { return };
        if transaction.unmarked.is_empty() {
            return self.complete(id);
        }
        self.markers.ready.push_back((Arc::clone(id), transaction.unmarked.clone()));
    }

    /// Somebody wants markers.
    pub(super) fn take_markers(&mut self, request: RequestId) {
        if let Some(before) = self.markers.taker.replace(request) {
            self.reply(before, TransactionReply::Markers(Vec::new()));
        }
    }

    /// Gives markers to the one who waits for them, if there are any.
    pub(super) fn hand_out_markers(&mut self) {
        if self.markers.taker.is_none() {
            return;
        }
        let mut handed_out = Vec::new();
        #[cfg(any(test, feature = "sim"))]
        let mut completed = Vec::new();
        while handed_out.len() < HANDED_OUT_MAX
            && let Some((transactional_id, partitions)) = self.markers.ready.pop_front()
        {
            let Some(value) = self.value(&transactional_id) else { continue };
            if value.state.is_prepared() {
                #[cfg(any(test, feature = "sim"))]
                if is_planted(Mistake::CompletesBeforeMarkers) {
                    completed.push(Arc::clone(&transactional_id));
                }
                handed_out.push(Markers {
                    round: self.round,
                    producer: value.producer(),
                    commits: value.state == TransactionState::PrepareCommit,
                    version: value.version,
                    transactional_id,
                    partitions,
                });
            }
        }
        if !handed_out.is_empty()
            && let Some(taker) = self.markers.taker.take()
        {
            self.reply(taker, TransactionReply::Markers(handed_out));
        }
        #[cfg(any(test, feature = "sim"))]
        for id in completed {
            self.complete(&id);
        }
    }

    /// Takes what became of markers.
    pub(super) fn markers_answered(&mut self, answers: &[MarkerAnswer]) {
        for answer in answers {
            self.marker_answered(answer);
        }
    }

    fn marker_answered(&mut self, answer: &MarkerAnswer) {
        let id = &answer.transactional_id;
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        let value = &transaction.value;
        // An answer to another round says nothing of the markers of this one, which are still on their way: in the first
        // version they would end the next transaction of the same producer, if this one were over before they are written.
        let is_of = answer.round == self.round && answer.producer == value.producer();
        if !value.state.is_prepared() || !is_of {
            return;
        }
        let mut has_more = false;
        for (partition, outcome) in &answer.outcomes {
            match outcome {
                MarkerOutcome::Written | MarkerOutcome::Gone => {
                    transaction.unmarked.remove(partition);
                }
                MarkerOutcome::Again if transaction.unmarked.contains(partition) => {
                    let again = self.markers.again.entry(Arc::clone(id)).or_default();
                    again.insert(partition.clone());
                    has_more = true;
                }
                MarkerOutcome::Again => {}
            }
        }
        if transaction.unmarked.is_empty() {
            self.markers.again.remove(id);
            self.timers.forget(id);
            return self.complete(id);
        }
        if has_more {
            let after_ms = RETRY_MS_MIN << transaction.retries.min(DOUBLINGS_MAX);
            transaction.retries = transaction.retries.saturating_add(1);
            self.timers.retry(id, self.now.plus(after_ms));
        }
    }

    /// The time has come to try markers of a transaction once more.
    pub(super) fn retry_markers(&mut self, id: &Arc<str>) {
        if let Some(partitions) = self.markers.again.remove(id) {
            self.markers.ready.push_back((Arc::clone(id), partitions));
        }
    }
}
