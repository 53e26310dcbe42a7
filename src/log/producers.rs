//! What a partition knows about its idempotent and transactional producers (KIP-98, KIP-360).
//!
//! For each producer id: its epoch, its last five batches (a retry of one of them is answered with
//! the original offset), and where its open transaction starts. The rules and the error codes are
//! Kafka's:
//!
//! - an epoch older than the known one is `INVALID_PRODUCER_EPOCH`;
//! - a new epoch starts with sequence 0, otherwise `OUT_OF_ORDER_SEQUENCE_NUMBER`;
//! - within an epoch each batch starts where the last one ended, otherwise the same error; 0
//!   follows `i32::MAX`;
//! - a producer that is not known (never seen, expired, or its records are deleted) may start with any
//!   sequence.
//!
//! - the first batch of a transaction must have been verified ([`Guard`], KIP-890), and whoever continues one must be
//!   its producer in the same epoch, otherwise `INVALID_TXN_STATE`;
//! - a marker is not older than its producer (`INVALID_PRODUCER_EPOCH`; from transaction version 2 on it is newer) nor
//!   than the last coordinator that wrote one (`TRANSACTION_COORDINATOR_FENCED`).
//!
//! `PRD-1`: the state is a function of the batches in the log; recovery rebuilds it from a snapshot
//! and the batches after it. `PRD-2`: a transaction is unstable from its first batch until its *marker* is below the
//! high watermark: before that, another leader may have to write the marker again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::verification::{Guard, Verifications};
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, ErrorCode, Result};
use crate::record::BatchHeader;
use crate::record::control::TransactionMarker;
use crate::types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// A batch among the last five of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// The sequence of its last record.
    pub last_sequence: Sequence,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// The number of its records, less one.
    pub offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: TimestampMs,
}

impl ProducerBatch {
    /// The sequence of its first record.
    #[must_use]
    pub fn first_sequence(&self) -> Sequence {
        self.last_sequence.plus(self.offset_delta.wrapping_neg())
    }

    /// The offset of its first record.
    #[must_use]
    pub const fn first_offset(&self) -> Offset {
        Offset(self.last_offset.0 - self.offset_delta as i64)
    }
}

/// What is known about one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its newest epoch.
    pub epoch: ProducerEpoch,
    /// Its last batches of this epoch, oldest first, at most five.
    pub batches: VecDeque<ProducerBatch>,
    /// The epoch of the coordinator that wrote its last transaction marker; -1 for none.
    pub coordinator_epoch: i32,
    /// When it was last heard from.
    pub last_timestamp: TimestampMs,
    /// Where its open transaction starts.
    pub current_txn_first_offset: Option<Offset>,
}

const BATCHES_MAX: usize = 5;

impl ProducerState {
    /// The sequence of its last record; -1 when no batch of this epoch is known.
    #[must_use]
    pub fn last_sequence(&self) -> Sequence {
        self.batches.back().map_or(Sequence::NONE, |batch| batch.last_sequence)
    }

    /// The offset of its last record; -1 when no batch of this epoch is known.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.batches.back().map_or(Offset::UNKNOWN, |batch| batch.last_offset)
    }

    /// Whether a marker of an epoch must be of a newer one than the transaction. From transaction version 2 on it is, but
    /// for the last epoch there is, and for a marker that is written once more after the transaction has ended.
    #[must_use]
    pub fn must_be_raised(&self, epoch: ProducerEpoch, transaction_version: i16) -> bool {
        transaction_version >= 2
            && self.current_txn_first_offset.is_some()
            && epoch != ProducerEpoch(i16::MAX)
    }

    /// Whether a transaction of this epoch is open. One of an older epoch may have ended elsewhere.
    #[must_use]
    pub fn has_open_transaction(&self, epoch: ProducerEpoch) -> bool {
        self.current_txn_first_offset.is_some() && self.epoch == epoch
    }

    fn duplicate_of(&self, header: &BatchHeader) -> Option<ProducerBatch> {
        if header.producer_epoch != self.epoch {
            return None;
        }
        let same = |batch: &&ProducerBatch| {
            batch.last_sequence == header.last_sequence()
                && batch.first_sequence() == header.base_sequence
        };
        self.batches.iter().find(same).copied()
    }
}

/// A transaction that was aborted, as the `.txnindex` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// The producer.
    pub producer_id: ProducerId,
    /// The first offset of the transaction.
    pub first_offset: Offset,
    /// The offset of the abort marker.
    pub last_offset: Offset,
    /// The last stable offset when the marker was written.
    pub last_stable_offset: Offset,
}

/// Whether a client's batch is to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It is new.
    Append,
    /// It was appended before: answer as before.
    Duplicate(ProducerBatch),
}

/// A batch of a coordinator on this node, and what it is checked by.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnBatch<'a> {
    pub(super) header: &'a BatchHeader,
    pub(super) marker: Option<TransactionMarker>,
    /// The version of transactions that a marker goes by.
    pub(super) transaction_version: i16,
    pub(super) guard: Option<Guard>,
}

/// Which transactions are verified, and whether they must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verified<'a> {
    /// None when no batch is part of a transaction.
    pub(super) verifications: Option<&'a Verifications>,
    /// `transaction.partition.verification.enable`.
    pub(super) is_required: bool,
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Producers {
    states: BTreeMap<ProducerId, ProducerState>,
    /// First offset → producer of the open transactions.
    open: BTreeMap<Offset, ProducerId>,
    /// Transactions that ended at or above the high watermark, by marker.
    ended: VecDeque<Ended>,
    /// The first offsets of both (`PRD-2`).
    unstable: BTreeSet<Offset>,
}

/// A transaction that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    first: Offset,
    marker: Offset,
}

impl Producers {
    pub(super) fn states(&self) -> impl Iterator<Item = &ProducerState> {
        self.states.values()
    }

    pub(super) fn get(&self, producer: ProducerId) -> Option<&ProducerState> {
        self.states.get(&producer)
    }

    pub(super) fn insert(&mut self, state: ProducerState) {
        if let Some(first) = state.current_txn_first_offset {
            self.open.insert(first, state.producer_id);
            self.unstable.insert(first);
        }
        self.states.insert(state.producer_id, state);
    }

    /// Takes in what is known of a producer from its next batch on; earlier batches of the same epoch stay known.
    pub(super) fn insert_newer(&mut self, mut state: ProducerState) {
        let known = self.states.remove(&state.producer_id);
        if let Some(first) = known.as_ref().and_then(|known| known.current_txn_first_offset) {
            self.open.remove(&first);
            self.unstable.remove(&first);
        }
        if let Some(known) = known.filter(|known| known.epoch == state.epoch) {
            let mut batches = known.batches;
            batches.append(&mut state.batches);
            while batches.len() > BATCHES_MAX {
                batches.pop_front();
            }
            state.batches = batches;
        }
        self.insert(state);
    }

    /// Takes over which transactions had ended before `offset` and are not stable yet: a snapshot does not say it.
    pub(super) fn take_ended(&mut self, before: &Self, offset: Offset) {
        let ended = before.ended.iter().filter(|ended| ended.marker < offset).copied();
        for ended in ended.rev() {
            self.unstable.insert(ended.first);
            self.ended.push_front(ended);
        }
    }

    /// The first offset that a `read_committed` consumer must not see yet.
    pub(super) fn first_unstable(&self) -> Option<Offset> {
        self.unstable.first().copied()
    }

    /// The first marker that keeps its transaction unstable until it is below the high watermark.
    pub(super) fn first_unstable_marker(&self) -> Option<Offset> {
        self.ended.front().map(|ended| ended.marker)
    }

    /// Forgets ended transactions whose marker is below the high watermark.
    pub(super) fn on_high_watermark(&mut self, high_watermark: Offset) {
        while let Some(&Ended { first, marker }) = self.ended.front()
            && marker < high_watermark
        {
            self.unstable.remove(&first);
            self.ended.pop_front();
        }
    }

    /// Checks a client's batch; `guard` is that of its verification.
    pub(super) fn check(
        &self,
        header: &BatchHeader,
        guard: Option<Guard>,
        verified: Verified<'_>,
    ) -> Result<Check> {
        if !header.has_producer_id() {
            return Ok(Check::Append);
        }
        let known = self.states.get(&header.producer_id);
        #[cfg(feature = "sim")]
        if is_planted(Mutation::AppendsDuplicates) && known.is_some() {
            return Ok(Check::Append);
        }
        if let Some(batch) = known.and_then(|state| state.duplicate_of(header)) {
            return Ok(Check::Duplicate(batch));
        }
        self.check_transaction(header, guard, verified)?;
        if header.is_transactional() {
            check_verified_sequence(header, known, verified)?;
        }
        let Some(state) = known else { return Ok(Check::Append) };
        check_epoch(header, state, false)?;
        check_sequence(header, state)?;
        if state.current_txn_first_offset.is_some() && !header.is_transactional() {
            let detail = "its transaction is open, but the batch is not transactional";
            return Err(refused(header, ErrorCode::InvalidTxnState, detail));
        }
        Ok(Check::Append)
    }

    /// Checks a batch of a coordinator on this node, which has no sequence.
    pub(super) fn check_own(&self, batch: &OwnBatch<'_>, verified: Verified<'_>) -> Result<()> {
        let OwnBatch { header, marker, transaction_version, guard } = *batch;
        if !header.has_producer_id() {
            return Ok(());
        }
        let known = self.states.get(&header.producer_id);
        let Some(marker) = marker else {
            self.check_transaction(header, guard, verified)?;
            return known.map_or(Ok(()), |state| check_epoch(header, state, false));
        };
        let Some(state) = known else { return Ok(()) };
        check_epoch(
            header,
            state,
            state.must_be_raised(header.producer_epoch, transaction_version),
        )?;
        if marker.coordinator_epoch < state.coordinator_epoch {
            let (epoch, newer) = (marker.coordinator_epoch, state.coordinator_epoch);
            let detail = format!("a coordinator of epoch {epoch} ends it, and {newer} was there");
            return Err(refused(header, ErrorCode::TransactionCoordinatorFenced, &detail));
        }
        Ok(())
    }

    /// A batch of a transaction continues one that is open, or begins one that the coordinator knows of (KIP-890).
    fn check_transaction(
        &self,
        header: &BatchHeader,
        guard: Option<Guard>,
        verified: Verified<'_>,
    ) -> Result<()> {
        let known = self.states.get(&header.producer_id);
        if !header.is_transactional()
            || known.is_some_and(|state| state.has_open_transaction(header.producer_epoch))
        {
            return Ok(());
        }
        // The epoch first: a producer that was only overtaken may go on after it has aborted.
        if let Some(state) = known {
            check_epoch(header, state, false)?;
        }
        #[cfg(feature = "sim")]
        if is_planted(Mutation::ForgetsGuards) {
            return Ok(());
        }
        let accept = |begun: &Verifications| begun.accept(header.producer_id, guard);
        if verified.is_required && !verified.verifications.is_some_and(accept) {
            let detail = "the batch is not part of an ongoing transaction";
            return Err(refused(header, ErrorCode::InvalidTxnState, detail));
        }
        Ok(())
    }

    /// The transactions that batches abort, which follow what is known here; each with its marker if it has one.
    pub(super) fn aborted_by<'a>(
        &self,
        batches: impl IntoIterator<Item = (&'a BatchHeader, Option<TransactionMarker>)>,
    ) -> Vec<AbortedTransaction> {
        let mut aborted = Vec::new();
        // Where the transactions of producers start that the batches are about.
        let mut changed: BTreeMap<ProducerId, Option<Offset>> = BTreeMap::new();
        for (header, marker) in batches {
            let producer = header.producer_id;
            if !header.has_producer_id() {
                continue;
            }
            let known = || self.states.get(&producer)?.current_txn_first_offset;
            let first = changed.get(&producer).copied().unwrap_or_else(known);
            match (header.is_control(), first) {
                (false, None) if header.is_transactional() => {
                    changed.insert(producer, Some(header.base_offset));
                }
                (true, Some(first_offset)) => {
                    let Some(marker) = marker else { continue };
                    changed.insert(producer, None);
                    if !marker.committed {
                        let last_offset = header.last_offset();
                        let others =
                            self.open.iter().find(|(_, other)| !changed.contains_key(other));
                        let others = others.map(|(first, _)| *first);
                        let next_open =
                            others.into_iter().chain(changed.values().flatten().copied());
                        aborted.push(AbortedTransaction {
                            producer_id: producer,
                            first_offset,
                            last_offset,
                            last_stable_offset: next_open.min().unwrap_or(last_offset.next()),
                        });
                    }
                }
                _ => {}
            }
        }
        aborted
    }

    /// Records a batch that was appended.
    pub(super) fn apply(
        &mut self,
        header: &BatchHeader,
        marker: Option<TransactionMarker>,
        now: TimestampMs,
    ) {
        if !header.has_producer_id() {
            return;
        }
        let state = self.states.entry(header.producer_id).or_insert_with(|| ProducerState {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            batches: VecDeque::new(),
            coordinator_epoch: -1,
            last_timestamp: now,
            current_txn_first_offset: None,
        });
        if header.producer_epoch != state.epoch {
            state.epoch = header.producer_epoch;
            state.batches.clear();
        }
        state.last_timestamp = now;
        if header.is_control() {
            let Some(marker) = marker else { return };
            state.coordinator_epoch = marker.coordinator_epoch;
            if let Some(first) = state.current_txn_first_offset.take() {
                self.end(Ended { first, marker: header.last_offset() });
            }
            return;
        }
        if state.batches.len() >= BATCHES_MAX {
            state.batches.pop_front();
        }
        state.batches.push_back(ProducerBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        if header.is_transactional() && state.current_txn_first_offset.is_none() {
            state.current_txn_first_offset = Some(header.base_offset);
            self.open.insert(header.base_offset, header.producer_id);
            self.unstable.insert(header.base_offset);
        }
    }

    fn end(&mut self, ended: Ended) {
        self.open.remove(&ended.first);
        #[cfg(feature = "sim")]
        if is_planted(Mutation::StableBeforeMarker) {
            self.unstable.remove(&ended.first);
            return;
        }
        self.ended.push_back(ended);
    }

    /// Forgets producers that were silent for longer than `expiration_ms`, but none with an open
    /// transaction.
    pub(super) fn expire(&mut self, now: TimestampMs, expiration_ms: i64) {
        self.states.retain(|_, state| {
            state.current_txn_first_offset.is_some()
                || now.0.saturating_sub(state.last_timestamp.0) < expiration_ms
        });
    }
}

/// A batch of an older epoch is refused; a marker from transaction version 2 on also when its epoch is the same, as the
/// coordinator raised it at the end of the transaction.
fn check_epoch(header: &BatchHeader, state: &ProducerState, must_be_newer: bool) -> Result<()> {
    let (epoch, known) = (header.producer_epoch, state.epoch);
    #[cfg(feature = "sim")]
    if is_planted(Mutation::TakesOldProducers) {
        return Ok(());
    }
    if epoch > known || epoch == known && !must_be_newer {
        return Ok(());
    }
    let detail = if epoch == known {
        "the marker must be of a newer epoch than its transaction".to_owned()
    } else {
        format!("epoch {known} of the producer is newer")
    };
    Err(refused(header, ErrorCode::InvalidProducerEpoch, &detail))
}

fn check_sequence(header: &BatchHeader, state: &ProducerState) -> Result<()> {
    let detail = if header.producer_epoch == state.epoch {
        let last = state.last_sequence();
        let follows = last.plus(1) == header.base_sequence;
        if follows || last == Sequence::NONE && header.base_sequence == Sequence(0) {
            return Ok(());
        }
        format!("the last sequence number was {last}")
    } else if header.base_sequence == Sequence(0) || state.epoch == ProducerEpoch::NONE {
        return Ok(());
    } else {
        format!("a new epoch must start with sequence 0, the last epoch was {}", state.epoch)
    };
    Err(refused(header, ErrorCode::OutOfOrderSequenceNumber, &detail))
}

/// The first batch that is appended is the first that was to be verified: a later one must not overtake it while it is
/// sent again. From transaction version 2 on, every epoch begins with sequence 0.
fn check_verified_sequence(
    header: &BatchHeader,
    known: Option<&ProducerState>,
    verified: Verified<'_>,
) -> Result<()> {
    let begun = verified.verifications.and_then(|begun| begun.get(header.producer_id));
    let Some(begun) = begun else { return Ok(()) };
    let detail = if begun.supports_epoch_bump
        && header.base_sequence != Sequence(0)
        && known.is_none_or(|state| state.batches.is_empty())
    {
        "the first batch of the epoch must have sequence 0".to_owned()
    } else if header.base_sequence > begun.lowest_sequence {
        format!("a batch with sequence {} must come first", begun.lowest_sequence)
    } else {
        return Ok(());
    };
    Err(refused(header, ErrorCode::OutOfOrderSequenceNumber, &detail))
}

fn refused(header: &BatchHeader, code: ErrorCode, detail: &str) -> Error {
    Error::kafka(
        code,
        format!(
            "producer {} with epoch {} and sequence {}: {detail}",
            header.producer_id, header.producer_epoch, header.base_sequence
        ),
    )
}

#[cfg(test)]
#[path = "producers_tests.rs"]
mod tests;
