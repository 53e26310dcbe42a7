//! Decides which parts of a batch compaction keeps.
//!
//! `CMP-1`: the last record of each key below the end of the round is kept. `CMP-2`: offsets,
//! timestamps and order never change; a batch keeps its base offset, its last offset, its producer
//! and its first sequence, even when records are removed from it. `CMP-3`: what is at or above the
//! end of the round is copied unchanged. `CMP-4`: the last batch of each known producer, and the
//! last one of the round, are kept at least as empty batches, so that sequences and offsets can be
//! recovered from the log. `CMP-5`: a tombstone and a marker without batches get a delete horizon
//! when they are first met, and are removed in the first round after it (KIP-534).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::offset_map::OffsetMap;
use super::transactions::Transactions;
use crate::error::Result;
use crate::log::producers::AbortedTransaction;
use crate::record::control::read_control_batch;
use crate::record::{
    Batch, BatchBuilder, BatchHeader, BatchOptions, Compression, Header, TimestampType,
};
use crate::types::{Offset, ProducerEpoch, ProducerId, TimestampMs};

/// The basis for deciding about records; it does not change during a round.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) map: OffsetMap,
    /// The first offset that the map does not cover.
    pub(super) end: Offset,
    pub(super) now: TimestampMs,
    pub(super) delete_retention_ms: i64,
    /// The level at which batches of a codec are compressed; others get their codec's default.
    pub(super) level: Option<(Compression, i32)>,
    pub(super) uncompressed_bytes_max: usize,
    /// The last data batch of each producer; none when its epoch has none.
    pub(super) producers: BTreeMap<ProducerId, (ProducerEpoch, Option<Offset>)>,
}

/// What compaction makes of a batch.
#[derive(Debug)]
pub(super) struct Filtered {
    /// The bytes to be written; none when the batch is dropped.
    pub(super) bytes: Option<Bytes>,
    /// How many records are kept.
    pub(super) records: i32,
    /// An entry of the transaction index that belongs to the batch.
    pub(super) aborted: Option<AbortedTransaction>,
}

impl Rules {
    /// Decides about one batch.
    pub(super) fn filter(
        &self,
        batch: &Batch,
        transactions: &mut Transactions,
    ) -> Result<Filtered> {
        let header = *batch.header();
        if header.base_offset >= self.end {
            let bytes = Some(batch.bytes().clone());
            return Ok(Filtered { bytes, records: header.record_count, aborted: None });
        }
        let mut aborted = None;
        let mut orphaned = false;
        let discard = if header.is_control() {
            let marker = transactions.control(&header, read_marker(batch)?);
            aborted = marker.aborted;
            orphaned = !marker.needed;
            orphaned && header.delete_horizon().is_some_and(|horizon| horizon <= self.now)
        } else {
            transactions.data(&header)
        };
        let batches = self.rewrite(batch, discard, orphaned)?;
        let (bytes, records) = match batches {
            Kept::Original => (Some(batch.bytes().clone()), header.record_count),
            Kept::Written(bytes, records) => (Some(bytes), records),
            Kept::Nothing if self.must_stay(&header) => (Some(self.emptied(batch)?), 0),
            Kept::Nothing => (None, 0),
        };
        Ok(Filtered { bytes, records, aborted })
    }

    /// `CMP-4`.
    fn must_stay(&self, header: &BatchHeader) -> bool {
        if header.next_offset() == self.end {
            return true;
        }
        match self.producers.get(&header.producer_id) {
            Some((_, Some(last))) => *last == header.last_offset(),
            Some((epoch, None)) => header.is_control() && *epoch == header.producer_epoch,
            None => false,
        }
    }

    fn rewrite(&self, batch: &Batch, discard: bool, orphaned: bool) -> Result<Kept> {
        let header = *batch.header();
        if discard || header.record_count == 0 {
            return Ok(Kept::Nothing);
        }
        let records = batch.records(self.uncompressed_bytes_max)?;
        let (mut kept, mut tombstones) = (0_i32, false);
        for record in &records {
            let record = record?;
            if header.is_control() || self.keeps(&header, record.offset, record.key, record.value) {
                kept = kept.saturating_add(1);
                tombstones |= record.value.is_none();
            }
        }
        if kept == 0 {
            return Ok(Kept::Nothing);
        }
        let known = header.delete_horizon();
        let horizon = if known.is_none() && (tombstones || orphaned) {
            Some(TimestampMs(self.now.0.saturating_add(self.delete_retention_ms)))
        } else {
            known
        };
        if kept == header.record_count && horizon == known {
            return Ok(Kept::Original);
        }
        let mut builder = self.builder(&header, horizon, batch.bytes().len());
        let mut headers: Vec<Header<'_>> = Vec::new();
        for record in &records {
            let record = record?;
            if header.is_control() || self.keeps(&header, record.offset, record.key, record.value) {
                headers.clear();
                headers.extend(record.headers);
                let (key, value) = (record.key, record.value);
                builder.append_at(record.offset, record.timestamp, key, value, &headers)?;
            }
        }
        builder.extend_to(header.last_offset())?;
        Ok(Kept::Written(builder.finish()?, kept))
    }

    /// `CMP-1`, and the end of tombstones.
    fn keeps(
        &self,
        header: &BatchHeader,
        offset: Offset,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> bool {
        if offset >= self.end {
            return true;
        }
        // Only a topic that was not compacted before can have records without a key.
        let Some(key) = key else { return false };
        if self.map.get(key).is_some_and(|last| offset < last) {
            return false;
        }
        value.is_some() || header.delete_horizon().is_none_or(|horizon| self.now < horizon)
    }

    fn emptied(&self, batch: &Batch) -> Result<Bytes> {
        let header = batch.header();
        if header.record_count == 0 {
            return Ok(batch.bytes().clone());
        }
        let mut builder = self.builder(header, None, 0);
        builder.extend_to(header.last_offset())?;
        // The producer's age is judged by it.
        builder.raise_max_timestamp(header.max_timestamp);
        builder.finish()
    }

    fn builder(
        &self,
        header: &BatchHeader,
        horizon: Option<TimestampMs>,
        capacity: usize,
    ) -> BatchBuilder {
        let append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        let level = self.level.filter(|(codec, _)| *codec == header.compression);
        let options = BatchOptions {
            base_offset: header.base_offset,
            leader_epoch: header.leader_epoch,
            compression: header.compression,
            level: level.map(|(_, level)| level),
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            transactional: header.is_transactional(),
            control: header.is_control(),
            log_append_time: append_time.then_some(header.max_timestamp),
            delete_horizon: horizon,
        };
        BatchBuilder::with_capacity(options, capacity)
    }
}

enum Kept {
    Nothing,
    Original,
    Written(Bytes, i32),
}

/// The marker of a control batch; none when it is about something else or was removed.
pub(super) fn read_marker(
    batch: &Batch,
) -> Result<Option<crate::record::control::TransactionMarker>> {
    if batch.header().record_count == 0 {
        return Ok(None);
    }
    Ok(read_control_batch(batch)?.1)
}
