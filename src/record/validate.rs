//! What a leader checks before it appends a batch, in one pass.
//!
//! The pass gathers facts; from them the caller decides what the configuration forbids (timestamps
//! too old, keys missing in a compacted topic, sizes). For uncompressed batches the pass
//! touches only the head of each record.

use crate::error::{Error, ErrorCode, Result};
use crate::record::batch::{Batch, broken_record};
use crate::record::compression::Compression;
use crate::record::header::{BatchHeader, TimestampType, corrupt, invalid};
use crate::record::walk::{Walker, check_headers};
use crate::types::TimestampMs;

/// How a batch is checked.
#[derive(Clone, Copy, Debug)]
pub struct AppendRules {
    /// Whether control batches are accepted: from coordinators and from the leader, never from
    /// clients.
    pub control: bool,
    /// The most bytes that the records may have uncompressed.
    pub uncompressed_size_max: usize,
}

impl AppendRules {
    /// The rules for batches of clients.
    #[must_use]
    pub const fn client(uncompressed_size_max: usize) -> Self {
        Self { control: false, uncompressed_size_max }
    }
}

/// Facts about a batch that may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendFacts {
    /// The number of records, at least one.
    pub record_count: i32,
    /// The largest timestamp of the records; the header's may differ and must then be patched.
    pub max_timestamp: TimestampMs,
    /// The distance from the base offset to the first record with that timestamp (KIP-734).
    pub max_timestamp_offset_delta: i32,
    /// The smallest timestamp among the records that have one.
    pub min_timestamp: TimestampMs,
    /// The index of the first record without a key.
    pub first_keyless: Option<i32>,
    /// The size of the largest record, uncompressed.
    pub largest_record_size: usize,
    /// The size of the records uncompressed.
    pub uncompressed_size: usize,
}

/// Checks a whole batch as the leader of a partition does.
///
/// It checks the CRC, the header's counts and sequences, and the lengths and headers of every
/// record, and that the offset deltas are 0, 1, 2 and so on.
///
/// # Errors
/// `CORRUPT_MESSAGE` for damaged bytes or a bomb, `INVALID_RECORD` for a batch that is intact but
/// not acceptable.
pub fn validate_for_append(batch: &Batch, rules: AppendRules) -> Result<AppendFacts> {
    batch.verify_crc()?;
    let header = batch.header();
    check_header(header, rules)?;
    let facts = batch.look_at_uncompressed(rules.uncompressed_size_max, |data| {
        header.check_count(data.len())?;
        walk(header, data)
    })?;
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Ok(AppendFacts {
            max_timestamp: header.max_timestamp,
            max_timestamp_offset_delta: 0,
            min_timestamp: header.max_timestamp,
            ..facts
        });
    }
    Ok(facts)
}

fn check_header(header: &BatchHeader, rules: AppendRules) -> Result<()> {
    let base_offset = header.base_offset;
    if header.is_control() && !rules.control {
        return Err(invalid(base_offset, "clients may not write control records"));
    }
    if header.record_count < 1 {
        return Err(invalid(base_offset, "the batch has no records"));
    }
    if header.last_offset_delta != header.record_count.saturating_sub(1) {
        return Err(invalid(
            base_offset,
            format!(
                "last offset delta {} does not fit {} records",
                header.last_offset_delta, header.record_count
            ),
        ));
    }
    if header.has_producer_id() && header.base_sequence.0 < 0 && !header.is_control() {
        return Err(invalid(
            base_offset,
            format!(
                "producer {} sent the impossible sequence {}",
                header.producer_id, header.base_sequence
            ),
        ));
    }
    if header.has_producer_id() && header.producer_epoch.0 < 0 {
        return Err(invalid(
            base_offset,
            format!(
                "producer {} sent the impossible epoch {}",
                header.producer_id, header.producer_epoch
            ),
        ));
    }
    if header.is_transactional() && !header.has_producer_id() {
        return Err(invalid(base_offset, "a transactional batch needs a producer id"));
    }
    if header.attributes.has_delete_horizon() {
        return Err(invalid(base_offset, "only compaction sets a delete horizon"));
    }
    Ok(())
}

/// The smallest and the largest, by delta; a record without a timestamp (-1) does not count as the
/// smallest.
struct Times {
    base: i64,
    max: i64,
    max_at: i32,
    min: i64,
}

fn walk(header: &BatchHeader, data: &[u8]) -> Result<AppendFacts> {
    let base = header.base_timestamp.0;
    let mut times = Times { base, max: i64::MIN, max_at: 0, min: i64::MAX };
    let mut first_keyless = None;
    let mut largest = 0;
    let mut walker = Walker::new(data);
    for index in 0..header.record_count {
        if walker.is_at_end() {
            return Err(wrong_count(header, index));
        }
        let start = walker.position();
        let record = walker
            .next_record()
            .map_err(|error| broken_record(header, walker.position(), error))?;
        largest = largest.max(walker.position().saturating_sub(start));
        if record.header_count != 0 {
            check_headers(data, &record)
                .map_err(|error| broken_record(header, walker.position(), error))?;
        }
        if record.offset_delta != index {
            return Err(wrong_delta(header, index, record.offset_delta));
        }
        let timestamp = times.base.wrapping_add(record.timestamp_delta);
        if timestamp > times.max {
            times.max = timestamp;
            times.max_at = index;
        }
        if timestamp < times.min && timestamp != TimestampMs::NONE.0 {
            times.min = timestamp;
        }
        if record.key_size < 0 && first_keyless.is_none() {
            first_keyless = Some(index);
        }
    }
    if !walker.is_at_end() {
        return Err(wrong_count(header, header.record_count.saturating_add(1)));
    }
    let max_timestamp = TimestampMs(times.max.max(TimestampMs::NONE.0));
    Ok(AppendFacts {
        record_count: header.record_count,
        max_timestamp,
        max_timestamp_offset_delta: times.max_at,
        min_timestamp: if times.min == i64::MAX { max_timestamp } else { TimestampMs(times.min) },
        first_keyless,
        largest_record_size: largest,
        uncompressed_size: data.len(),
    })
}

#[cold]
fn wrong_count(header: &BatchHeader, found: i32) -> Error {
    if header.compression == Compression::None {
        invalid(
            header.base_offset,
            format!(
                "the header counts {} records, but the bytes hold {}",
                header.record_count,
                if found > header.record_count {
                    "more than".to_owned()
                } else {
                    found.to_string()
                },
            ),
        )
    } else {
        corrupt(header.base_offset, "the compressed bytes do not hold the records of the header")
    }
}

#[cold]
fn wrong_delta(header: &BatchHeader, index: i32, delta: i32) -> Error {
    let detail = format!(
        "record batch at offset {}: record {index} has the offset delta {delta}; the deltas of a \
         produced batch count up from 0",
        header.base_offset
    );
    let records = vec![(index, format!("the offset delta {delta} is not {index}"))];
    Error::RecordsRefused { code: ErrorCode::InvalidRecord, detail, records }
}
