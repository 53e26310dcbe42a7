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
//! `PRD-1`: the state is a function of the batches in the log; recovery rebuilds it from a snapshot
//! and the batches after it.

use std::collections::{BTreeMap, VecDeque};

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

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Producers {
    states: BTreeMap<ProducerId, ProducerState>,
    /// First offset → producer of the open transactions.
    open: BTreeMap<Offset, ProducerId>,
    /// First offset → marker offset, of transactions that ended at or above the high watermark.
    ended: BTreeMap<Offset, Offset>,
}

impl Producers {
    pub(super) fn states(&self) -> impl Iterator<Item = &ProducerState> {
        self.states.values()
    }

    pub(super) fn state(&self, id: ProducerId) -> Option<&ProducerState> {
        self.states.get(&id)
    }

    pub(super) fn insert(&mut self, state: ProducerState) {
        if let Some(first) = state.current_txn_first_offset {
            self.open.insert(first, state.producer_id);
        }
        self.states.insert(state.producer_id, state);
    }

    /// Takes in what is known of a producer from its next batch on; earlier batches of the same epoch stay known.
    pub(super) fn insert_newer(&mut self, mut state: ProducerState) {
        let known = self.states.remove(&state.producer_id);
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

    /// The first offset that a `read_committed` consumer must not see yet.
    pub(super) fn first_unstable(&self) -> Option<Offset> {
        let open = self.open.keys().next().copied();
        let ended = self.ended.keys().next().copied();
        open.into_iter().chain(ended).min()
    }

    /// Forgets ended transactions whose marker is below the high watermark.
    pub(super) fn on_high_watermark(&mut self, high_watermark: Offset) {
        self.ended.retain(|_, marker| *marker >= high_watermark);
    }

    /// Checks a client's batch.
    pub(super) fn check(&self, header: &BatchHeader) -> Result<Check> {
        if !header.has_producer_id() {
            return Ok(Check::Append);
        }
        let Some(state) = self.states.get(&header.producer_id) else { return Ok(Check::Append) };
        #[cfg(feature = "sim")]
        if is_planted(Mutation::AppendsDuplicates) {
            return Ok(Check::Append);
        }
        if let Some(batch) = state.duplicate_of(header) {
            return Ok(Check::Duplicate(batch));
        }
        let refuse = |code, detail: String| {
            Err(Error::kafka(
                code,
                format!(
                    "producer {} with epoch {} and sequence {}: {detail}",
                    header.producer_id, header.producer_epoch, header.base_sequence
                ),
            ))
        };
        if header.producer_epoch < state.epoch {
            let detail = format!("epoch {} of the producer is newer", state.epoch);
            return refuse(ErrorCode::InvalidProducerEpoch, detail);
        }
        if header.producer_epoch > state.epoch {
            if header.base_sequence != Sequence(0) && state.epoch != ProducerEpoch::NONE {
                let detail = format!(
                    "a new epoch must start with sequence 0, the last epoch was {}",
                    state.epoch
                );
                return refuse(ErrorCode::OutOfOrderSequenceNumber, detail);
            }
        } else {
            let last = state.last_sequence();
            let follows = last.plus(1) == header.base_sequence;
            if !(follows || last == Sequence::NONE && header.base_sequence == Sequence(0)) {
                let detail = format!("the last sequence number was {last}");
                return refuse(ErrorCode::OutOfOrderSequenceNumber, detail);
            }
        }
        if state.current_txn_first_offset.is_some() && !header.is_transactional() {
            let detail = "its transaction is open, but the batch is not transactional".to_owned();
            return refuse(ErrorCode::InvalidTxnState, detail);
        }
        Ok(Check::Append)
    }

    /// Records a batch that was appended. Returns the transaction that it aborts.
    pub(super) fn apply(
        &mut self,
        header: &BatchHeader,
        marker: Option<TransactionMarker>,
        now: TimestampMs,
    ) -> Option<AbortedTransaction> {
        if !header.has_producer_id() {
            return None;
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
            let marker = marker?;
            state.coordinator_epoch = marker.coordinator_epoch;
            let first = state.current_txn_first_offset.take()?;
            return self.end(header, first, marker.committed);
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
        }
        None
    }

    fn end(
        &mut self,
        header: &BatchHeader,
        first: Offset,
        committed: bool,
    ) -> Option<AbortedTransaction> {
        self.open.remove(&first);
        let marker = header.last_offset();
        self.ended.insert(first, marker);
        let next_open = self.open.keys().next().copied();
        (!committed).then(|| AbortedTransaction {
            producer_id: header.producer_id,
            first_offset: first,
            last_offset: marker,
            last_stable_offset: next_open.unwrap_or_else(|| marker.next()),
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BatchOptions};

    fn header(epoch: i16, sequence: i32, count: i32, offset: i64) -> BatchHeader {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: Offset(offset),
            producer_id: ProducerId(7),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: Sequence(sequence),
            ..BatchOptions::default()
        });
        for _ in 0..count {
            builder.append(TimestampMs(1), None, Some(b"v"), &[]).unwrap();
        }
        BatchHeader::parse(&builder.finish().unwrap()).unwrap()
    }

    fn check(producers: &Producers, header: &BatchHeader) -> Result<Check, ErrorCode> {
        producers.check(header).map_err(|error| error.code())
    }

    #[test]
    fn sequences_must_follow_and_duplicates_are_found() {
        let mut producers = Producers::default();
        // Nothing is known: any sequence may come first.
        let first = header(0, 17, 3, 100);
        assert_eq!(check(&producers, &first), Ok(Check::Append));
        producers.apply(&first, None, TimestampMs(5));
        let Ok(Check::Duplicate(found)) = check(&producers, &first) else { panic!("no duplicate") };
        assert_eq!((found.first_offset(), found.last_offset), (Offset(100), Offset(102)));
        let refused = Err(ErrorCode::OutOfOrderSequenceNumber);
        assert_eq!(check(&producers, &header(0, 21, 1, 103)), refused);
        assert_eq!(check(&producers, &header(0, 17, 2, 103)), refused);
        assert_eq!(check(&producers, &header(1, 20, 1, 103)), refused, "a new epoch starts with 0");
        for (sequence, offset) in (20..26).zip(103..) {
            let next = header(0, sequence, 1, offset);
            assert_eq!(check(&producers, &next), Ok(Check::Append));
            producers.apply(&next, None, TimestampMs(5));
        }
        // The first batch is no longer among the last five.
        assert_eq!(check(&producers, &first), refused);
        assert!(matches!(check(&producers, &header(0, 21, 1, 0)), Ok(Check::Duplicate(_))));
        let newer = header(1, 0, 1, 200);
        assert_eq!(check(&producers, &newer), Ok(Check::Append));
        producers.apply(&newer, None, TimestampMs(6));
        assert_eq!(check(&producers, &header(0, 26, 1, 201)), Err(ErrorCode::InvalidProducerEpoch));
        producers.expire(TimestampMs(100), 50);
        assert_eq!(check(&producers, &header(0, 26, 1, 201)), Ok(Check::Append));
    }

    #[test]
    fn a_sequence_wraps_to_zero() {
        let mut producers = Producers::default();
        producers.apply(&header(0, i32::MAX - 1, 2, 0), None, TimestampMs(0));
        assert_eq!(check(&producers, &header(0, 0, 2, 2)), Ok(Check::Append));
        producers.apply(&header(0, 0, 2, 2), None, TimestampMs(0));
        assert_eq!(check(&producers, &header(0, 2, 1, 4)), Ok(Check::Append));
        let straddling = header(1, i32::MAX, 3, 10);
        producers.apply(&straddling, None, TimestampMs(0));
        let Ok(Check::Duplicate(found)) = check(&producers, &straddling) else { panic!() };
        assert_eq!(found.first_sequence(), Sequence(i32::MAX));
        assert_eq!(check(&producers, &header(1, 2, 1, 13)), Ok(Check::Append));
    }
}
