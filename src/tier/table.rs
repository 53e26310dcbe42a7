//! The batch table: what the rows do not say about each batch, in log order.
//!
//! It is cut where the row groups are, so that a fetch reads the lines of one of them only. The lines of a group are
//! stored by field, each as its difference from what the line before leads to expect: next to nothing, compressed,
//! but for the checksums.

use std::path::Path;

use super::numbers::{Put, Take};
use crate::error::{Error, Result};
use crate::record::{Attributes, BatchHeader, Compression};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// A line has at least so many bytes: a count that the bytes cannot hold is refused before memory is allocated.
pub(super) const LINE_BYTES_MIN: usize = 16;

const HAS_ROWS: u8 = 1;
const HAS_RAW: u8 = 2;
const IS_PACKED: u8 = 4;

/// A batch that is kept as it was, among those of its row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raw {
    /// Where it starts, counted from the first one of the group.
    pub(super) at: u64,
    /// How many bytes it takes in the file.
    pub(super) size: u64,
    /// Whether these are zstd, since the batch itself is not compressed.
    pub(super) is_packed: bool,
}

/// One batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The header of the batch as it is served. The attributes are those of the log: a batch that is rebuilt from
    /// rows is served without its compression.
    pub(super) header: BatchHeader,
    /// Whether its records are rows, as those that are committed are.
    pub(super) has_rows: bool,
    /// Where the batch itself is, if it is served from there and not rebuilt from rows.
    pub(super) raw: Option<Raw>,
}

impl Line {
    /// How many rows are its records.
    pub(super) fn row_count(&self) -> usize {
        if self.has_rows { usize::try_from(self.header.record_count).unwrap_or(0) } else { 0 }
    }

    fn form(&self) -> u8 {
        let rows = if self.has_rows { HAS_ROWS } else { 0 };
        match self.raw {
            None => rows,
            Some(raw) => rows | HAS_RAW | if raw.is_packed { IS_PACKED } else { 0 },
        }
    }
}

/// The records of a batch that covers `last_offset_delta`, without gaps.
fn full_count(header: &BatchHeader) -> i64 {
    i64::from(header.last_offset_delta) + 1
}

/// The lines of a group that begins at `base_offset`.
pub(super) fn encode(base_offset: Offset, lines: &[Line]) -> Vec<u8> {
    let mut put = Put::default();
    for line in lines {
        put.u8(line.form());
    }
    let mut before = base_offset.0;
    for header in headers(lines) {
        put.signed(header.base_offset.0.wrapping_sub(before));
        before = header.base_offset.0;
    }
    for header in headers(lines) {
        put.signed(header.last_offset_delta.into());
    }
    let mut field = |of: fn(&BatchHeader) -> i64| {
        let mut before = 0_i64;
        for header in headers(lines) {
            let value = of(header);
            put.signed(value.wrapping_sub(before));
            before = value;
        }
    };
    field(|header| header.leader_epoch.0.into());
    field(|header| header.attributes.0.into());
    field(|header| header.base_timestamp.0);
    field(|header| header.max_timestamp.0.wrapping_sub(header.base_timestamp.0));
    field(|header| header.producer_id.0);
    field(|header| header.producer_epoch.0.into());
    field(|header| header.base_sequence.0.into());
    field(|header| full_count(header) - i64::from(header.record_count));
    field(|header| i64::try_from(header.size_bytes).unwrap_or(i64::MAX));
    for header in headers(lines) {
        put.u32(header.crc);
    }
    for raw in lines.iter().filter_map(|line| line.raw) {
        put.varint(raw.size);
    }
    put.0
}

fn headers(lines: &[Line]) -> impl Iterator<Item = &BatchHeader> {
    lines.iter().map(|line| &line.header)
}

/// The lines of a group that begins at `base_offset`; `at` is where they are in `path`.
///
/// # Errors
///
/// [`Error::Corrupt`] when the bytes are not what [`encode`] writes.
pub(super) fn decode(
    bytes: &[u8],
    count: usize,
    base_offset: Offset,
    (path, at): (&Path, u64),
) -> Result<Vec<Line>> {
    if count > bytes.len() / LINE_BYTES_MIN {
        let detail = format!("{} bytes cannot hold {count} lines of the batch table", bytes.len());
        return Err(Error::corrupt(path, at, detail));
    }
    let mut take = Take(bytes);
    match decode_lines(&mut take, count, base_offset) {
        Some(lines) if take.0.is_empty() => Ok(lines),
        Some(_) => Err(Error::corrupt(path, at, "there are bytes behind the batch table")),
        None => Err(Error::corrupt(path, at, "the batch table is not one")),
    }
}

fn decode_lines(take: &mut Take<'_>, count: usize, base_offset: Offset) -> Option<Vec<Line>> {
    let forms = take.bytes(count)?;
    let mut before = base_offset.0;
    let mut lines = Vec::with_capacity(count);
    for form in forms {
        if form & !(HAS_ROWS | HAS_RAW | IS_PACKED) != 0 {
            return None;
        }
        before = before.wrapping_add(take.signed()?);
        let raw = (form & HAS_RAW != 0).then_some(Raw {
            at: 0,
            size: 0,
            is_packed: form & IS_PACKED != 0,
        });
        lines.push(Line { header: blank(Offset(before)), has_rows: form & HAS_ROWS != 0, raw });
    }
    for line in &mut lines {
        line.header.last_offset_delta = i32::try_from(take.signed()?).ok()?;
    }
    decode_fields(take, &mut lines)?;
    for line in &mut lines {
        line.header.crc = take.u32()?;
    }
    let mut at = 0_u64;
    for raw in lines.iter_mut().filter_map(|line| line.raw.as_mut()) {
        let size = take.varint()?;
        (raw.at, raw.size) = (at, size);
        at = at.checked_add(size)?;
    }
    Some(lines)
}

/// What is stored as differences.
fn decode_fields(take: &mut Take<'_>, lines: &mut [Line]) -> Option<()> {
    let mut field = |set: fn(&mut BatchHeader, i64) -> Option<()>| {
        let mut value = 0_i64;
        for line in &mut *lines {
            value = value.wrapping_add(take.signed()?);
            set(&mut line.header, value)?;
        }
        Some(())
    };
    field(|header, value| {
        header.leader_epoch = LeaderEpoch(value.try_into().ok()?);
        Some(())
    })?;
    field(|header, value| {
        header.attributes = Attributes(value.try_into().ok()?);
        header.compression = header.attributes.compression().ok()?;
        Some(())
    })?;
    field(|header, value| {
        header.base_timestamp = TimestampMs(value);
        Some(())
    })?;
    field(|header, value| {
        header.max_timestamp = TimestampMs(value.wrapping_add(header.base_timestamp.0));
        Some(())
    })?;
    field(|header, value| {
        header.producer_id = ProducerId(value);
        Some(())
    })?;
    field(|header, value| {
        header.producer_epoch = ProducerEpoch(value.try_into().ok()?);
        Some(())
    })?;
    field(|header, value| {
        header.base_sequence = Sequence(value.try_into().ok()?);
        Some(())
    })?;
    field(|header, value| {
        header.record_count = full_count(header).checked_sub(value)?.try_into().ok()?;
        Some(())
    })?;
    field(|header, value| {
        header.size_bytes = value.try_into().ok()?;
        Some(())
    })
}

fn blank(base_offset: Offset) -> BatchHeader {
    BatchHeader {
        base_offset,
        size_bytes: 0,
        leader_epoch: LeaderEpoch::UNKNOWN,
        crc: 0,
        attributes: Attributes::default(),
        compression: Compression::None,
        last_offset_delta: 0,
        base_timestamp: TimestampMs::NONE,
        max_timestamp: TimestampMs::NONE,
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch::NONE,
        base_sequence: Sequence::NONE,
        record_count: 0,
    }
}
