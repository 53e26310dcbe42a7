//! Shared by the tests of the log: batches, and a log in a directory.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::Path;

use bytes::Bytes;
use ottla::env::Env;
use ottla::error::Result;
use ottla::log::{
    Append, AppendInfo, FirstBatch, Health, Log, LogConfig, LogReader, OpenOptions, ReadRequest,
    ReadResult, RecoveryReport,
};
use ottla::record::control::TransactionMarker;
use ottla::record::{Batch, BatchBuilder, BatchOptions, Batches};
use ottla::types::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition, Uuid,
};

pub(crate) const EPOCH: LeaderEpoch = LeaderEpoch(3);

/// One batch of records with the same timestamp.
pub(crate) fn batch(timestamp: i64, values: &[&str]) -> Bytes {
    batch_with(BatchOptions::default(), timestamp, values)
}

pub(crate) fn batch_with(options: BatchOptions, timestamp: i64, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for value in values {
        builder
            .append(TimestampMs(timestamp), Some(b"key"), Some(value.as_bytes()), &[])
            .expect("a small record");
    }
    builder.finish().expect("a small batch")
}

pub(crate) fn idempotent(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let options = BatchOptions {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        ..BatchOptions::default()
    };
    batch_with(options, 1000, values)
}

/// A batch of a transaction.
pub(crate) fn transactional(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let options = BatchOptions {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        transactional: true,
        ..BatchOptions::default()
    };
    batch_with(options, 1000, values)
}

/// Appends a producer's batch, verified if it begins a transaction.
pub(crate) fn append_verified(
    log: &mut Log,
    records: &Bytes,
    now: TimestampMs,
) -> Result<AppendInfo> {
    let batch = Batch::parse(records)?;
    let header = *batch.header();
    let first = FirstBatch {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        supports_epoch_bump: false,
    };
    let guard = if header.is_transactional() { log.verifier().begin(&first, now)? } else { None };
    log.append(Append::Produced { batch, guard }, EPOCH, now)
}

/// The end of a transaction.
pub(crate) fn marker(id: i64, epoch: i16, committed: bool) -> Append {
    let marker = TransactionMarker { committed, coordinator_epoch: 2 };
    let batch = marker.batch(ProducerId(id), ProducerEpoch(epoch), TimestampMs(1000));
    Append::Marker { batch: batch.expect("a small batch"), transaction_version: 1 }
}

pub(crate) fn options(config: LogConfig) -> OpenOptions {
    OpenOptions {
        partition: TopicPartition::new("orders", 0),
        topic_id: Uuid([7; 16]),
        config,
        health: Health::new(Path::new("data")),
        recovery_point: Offset::ZERO,
        log_start_offset: Offset::ZERO,
        clean_shutdown: false,
        clean_until: None,
    }
}

pub(crate) fn create(env: &Env, directory: &Path, config: LogConfig) -> Log {
    Log::create(env, directory, options(config)).expect("a new log")
}

pub(crate) fn reopen(
    env: &Env,
    directory: &Path,
    config: LogConfig,
    recovery_point: Offset,
) -> Result<(Log, RecoveryReport)> {
    Log::open(env, directory, OpenOptions { recovery_point, ..options(config) })
}

pub(crate) fn request(offset: i64) -> ReadRequest {
    ReadRequest {
        offset: Offset(offset),
        max_bytes: u64::MAX,
        upper: Offset(i64::MAX),
        at_least_one: true,
    }
}

/// The values in some batches, with their offsets.
pub(crate) fn values_of(result: &ReadResult) -> Vec<(i64, String)> {
    let mut values = Vec::new();
    for batch in Batches::new(result.records.clone()) {
        let batch = batch.expect("a whole batch");
        for record in &batch.records(1 << 20).expect("records") {
            let record = record.expect("a record");
            let value = record.value.unwrap_or_default();
            values.push((record.offset.0, String::from_utf8_lossy(value).into_owned()));
        }
    }
    values
}

/// Everything from `start` on.
pub(crate) fn read_from(reader: &LogReader, start: i64) -> Result<Vec<(i64, String)>> {
    let mut all = Vec::new();
    let mut offset = start;
    loop {
        let result = reader.read(request(offset))?;
        if result.records.is_empty() {
            return Ok(all);
        }
        all.extend(values_of(&result).into_iter().filter(|(found, _)| *found >= start));
        offset = result.next_offset.0;
    }
}

pub(crate) fn read_all(reader: &LogReader) -> Result<Vec<(i64, String)>> {
    read_from(reader, reader.log_start_offset().0)
}
