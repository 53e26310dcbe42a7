//! Filling Arrow columns from the records of a batch: the hot loop of every scan.
//!
//! Keys and values become *views*: 16 bytes that hold a short value itself, or its size, its first
//! four bytes, and its position in one of the array's buffers. Those buffers are the very bytes
//! that were fetched or mapped.
//!
//! ```text
//! size <= 12   │ size u32 │ the bytes, padded with zeros                         │
//! size  > 12   │ size u32 │ first 4 bytes │ buffer index u32 │ offset in it u32  │
//! ```
//!
//! Invariants:
//!
//! - **CD-1** No buffer of an array reaches 2 GiB; offsets in views are i32 to other readers.
//! - **CD-2** A view refers to a place that [`Walker`] found within the records, relative to the
//!   start of a buffer that covers them: `Place`.
//! - **CD-3** All columns have the same number of rows after every record.
//!
//! This is the only file of `columnar` with unsafe code: arrays are made from views without
//! reading all their bytes a second time, checked UTF-8 is not checked again, and the processor is
//! asked to prefetch the lines ahead of the walk.

#![allow(unsafe_code, reason = "the module doc says where and why")]

mod constants;
mod fill;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryViewArray, BooleanBufferBuilder, Int64Array, StringViewArray,
    TimestampMillisecondArray, UInt32Array,
};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::take;
use arrow::error::ArrowError;
use bytes::Bytes;

use constants::CONSTANT_COLUMNS;
pub(in crate::columnar) use constants::Constants;

use super::headers::HeaderColumn;
use crate::columnar::columns::{KafkaColumn, Projection, UTC};
use crate::error::Result;
use crate::record::{TimestampType, WalkError};
use crate::types::PartitionIndex;

/// A null while rows are collected: no key or value is this long.
const NULL_VIEW: u128 = u32::MAX as u128;
const INLINE_MAX: usize = 12;
/// Small decompressed batches are copied together up to here, so that an array has few buffers.
const SHARED_BUFFER_MAX: usize = 64 << 20;
/// Header bytes after which an output is full, far below the i32 offsets of its arrays.
const HEADER_BYTES_MAX: usize = 512 << 20;

/// The size at which the next buffer of copied texts is begun.
const TEXT_BUFFER_MAX: usize = 1 << 30;

/// Where the records of a batch are in the buffers of the output.
#[derive(Clone, Copy, Debug)]
pub(in crate::columnar) struct Place {
    pub(in crate::columnar) buffer: u32,
    /// The offset of the records' first byte in that buffer.
    pub(in crate::columnar) at: u32,
}

/// What a batch contributes to each of its rows, and which of its records are wanted.
#[derive(Clone, Copy, Debug)]
pub(in crate::columnar) struct Span {
    pub(in crate::columnar) base_offset: i64,
    /// No record comes after it.
    pub(in crate::columnar) last_offset_delta: u32,
    pub(in crate::columnar) base_timestamp: i64,
    /// The time of all records, if the broker set it.
    pub(in crate::columnar) log_append_time: Option<i64>,
    pub(in crate::columnar) start: i64,
    pub(in crate::columnar) end: i64,
}

/// How far a batch was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::columnar) struct Progress {
    /// How many records are left in the batch.
    pub(in crate::columnar) left: i32,
    /// Where the next one starts.
    pub(in crate::columnar) at: usize,
    /// Whether a record at or beyond the end of the range was met.
    pub(in crate::columnar) reached_end: bool,
    /// The offset after the last record that was read or skipped.
    pub(in crate::columnar) next_offset: i64,
}

#[derive(Debug)]
enum Source {
    Whole(Bytes),
    Shared(Vec<u8>),
}

#[derive(Debug)]
struct Run {
    partition: usize,
    rows: usize,
    timestamp_type: TimestampType,
}

/// The columns of one output while it is being filled.
#[derive(Debug)]
pub(in crate::columnar) struct Filler {
    projection: Projection,
    max_rows: usize,
    /// The record bytes, uncompressed, after which the output is full.
    max_bytes: usize,
    rows: usize,
    bytes: usize,
    runs: Vec<Run>,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    keys: Vec<u128>,
    values: Vec<u128>,
    /// Whether a key is null, and whether a value is.
    null_key: bool,
    null_value: bool,
    headers: HeaderColumn,
    sources: Vec<Source>,
}

impl Filler {
    pub(in crate::columnar) fn new(
        projection: Projection,
        max_rows: usize,
        max_bytes: usize,
    ) -> Self {
        Self {
            projection,
            max_rows: max_rows.max(1),
            max_bytes: max_bytes.max(1),
            rows: 0,
            bytes: 0,
            runs: Vec::new(),
            offsets: Vec::new(),
            timestamps: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            null_key: false,
            null_value: false,
            headers: HeaderColumn::new(),
            sources: Vec::new(),
        }
    }

    pub(in crate::columnar) const fn rows(&self) -> usize {
        self.rows
    }

    pub(in crate::columnar) fn is_full(&self) -> bool {
        self.rows >= self.max_rows
            || self.bytes >= self.max_bytes
            || self.headers.bytes() > HEADER_BYTES_MAX
    }

    /// Whether any views are created, so that buffers are needed.
    pub(in crate::columnar) const fn wants_views(&self) -> bool {
        self.projection.has(KafkaColumn::Key) || self.projection.has(KafkaColumn::Value)
    }

    /// Adds a buffer that `place`s of later batches refer to; the slot is filled by
    /// [`Filler::set_buffer`] once it is known how much of it is used.
    pub(in crate::columnar) fn add_buffer(&mut self) -> u32 {
        self.sources.push(Source::Whole(Bytes::new()));
        self.last_buffer()
    }

    pub(in crate::columnar) fn set_buffer(&mut self, buffer: u32, bytes: Bytes) {
        if let Some(source) = self.sources.get_mut(buffer as usize) {
            *source = Source::Whole(bytes);
        }
    }

    /// Copies a small decompressed batch after the others.
    pub(in crate::columnar) fn share(&mut self, data: &[u8]) -> Place {
        match self.sources.last_mut() {
            Some(Source::Shared(shared))
                if shared.len().saturating_add(data.len()) <= SHARED_BUFFER_MAX =>
            {
                let at = shared.len() as u32;
                shared.extend_from_slice(data);
                Place { buffer: self.last_buffer(), at }
            }
            _ => {
                self.sources.push(Source::Shared(data.to_vec()));
                Place { buffer: self.last_buffer(), at: 0 }
            }
        }
    }

    fn last_buffer(&self) -> u32 {
        self.sources.len().saturating_sub(1) as u32
    }

    /// Appends the records of one batch, from `at` on, until the batch or the output ends.
    ///
    /// CD-2: `place` must be where `data` lies in a buffer of this output.
    pub(in crate::columnar) fn fill(
        &mut self,
        data: &[u8],
        place: Place,
        span: &Span,
        (mut progress, partition): (Progress, usize),
    ) -> Result<Progress, (Progress, WalkError)> {
        let (before, began) = (self.rows, progress.at);
        let result = self.fill_rows(data, place, span, &mut progress);
        let timestamp_type = match span.log_append_time {
            Some(_) => TimestampType::LogAppendTime,
            None => TimestampType::CreateTime,
        };
        self.bytes = self.bytes.saturating_add(progress.at.saturating_sub(began));
        // CD-3: rows before a broken record count as well.
        self.add_run(partition, self.rows.wrapping_sub(before), timestamp_type);
        match result {
            Ok(()) => Ok(progress),
            Err(error) => Err((progress, error)),
        }
    }

    fn reserve(&mut self, rows: usize) {
        // Grow to the whole output at once where it is small, as outputs are.
        let room = self.max_rows.saturating_sub(self.rows);
        let rows = if self.rows == 0 { rows.max(1 << 16).min(room) } else { rows.min(room) };
        if self.projection.has(KafkaColumn::Offset) {
            self.offsets.reserve(rows);
        }
        if self.projection.has(KafkaColumn::Timestamp) {
            self.timestamps.reserve(rows);
        }
        if self.projection.has(KafkaColumn::Key) {
            self.keys.reserve(rows);
        }
        if self.projection.has(KafkaColumn::Value) {
            self.values.reserve(rows);
        }
        if self.projection.has(KafkaColumn::Headers) {
            self.headers.reserve(rows);
        }
    }

    fn add_run(&mut self, partition: usize, rows: usize, timestamp_type: TimestampType) {
        if rows == 0 {
            return;
        }
        match self.runs.last_mut() {
            Some(run) if run.partition == partition && run.timestamp_type == timestamp_type => {
                run.rows = run.rows.saturating_add(rows);
            }
            _ => self.runs.push(Run { partition, rows, timestamp_type }),
        }
    }

    /// Finishes the output. `partitions` are those that the runs refer to: topic and index.
    pub(in crate::columnar) fn finish(
        self,
        partitions: &[(Arc<str>, PartitionIndex)],
        last: &mut Option<Constants>,
    ) -> std::result::Result<Filled, ArrowError> {
        let wants = |column| self.projection.has(column);
        let rows = self.rows;
        let mut columns: [Option<ArrayRef>; 8] = Default::default();
        let mut set = |column: KafkaColumn, array: ArrayRef| {
            if let Some(slot) = columns.get_mut(column as usize) {
                *slot = Some(array);
            }
        };
        if CONSTANT_COLUMNS.into_iter().any(wants) {
            let constants = Constants::reused(last, &self.runs, partitions, rows)?;
            for (column, array) in CONSTANT_COLUMNS.into_iter().zip(constants) {
                if wants(column) {
                    set(column, array);
                }
            }
        }
        if wants(KafkaColumn::Offset) {
            set(KafkaColumn::Offset, Arc::new(Int64Array::from(self.offsets)));
        }
        if wants(KafkaColumn::Timestamp) {
            set(KafkaColumn::Timestamp, timestamp_column(self.timestamps));
        }
        let buffers: Arc<[Buffer]> = self
            .sources
            .into_iter()
            .map(|source| match source {
                Source::Whole(bytes) => Buffer::from(bytes),
                Source::Shared(bytes) => Buffer::from_vec(bytes),
            })
            .collect();
        if wants(KafkaColumn::Key) {
            set(KafkaColumn::Key, Arc::new(view_column(self.keys, self.null_key, &buffers)));
        }
        if wants(KafkaColumn::Value) {
            set(KafkaColumn::Value, Arc::new(view_column(self.values, self.null_value, &buffers)));
        }
        if wants(KafkaColumn::Headers) {
            set(KafkaColumn::Headers, self.headers.finish()?);
        }
        Ok(Filled { rows, columns })
    }
}

/// The finished columns of one output; those that were not wanted are none.
#[derive(Clone, Debug)]
pub(in crate::columnar) struct Filled {
    pub(in crate::columnar) rows: usize,
    columns: [Option<ArrayRef>; 8],
}

impl Filled {
    /// The same columns with other rows, taken by their indices.
    pub(in crate::columnar) fn taken(&self, rows: &UInt32Array) -> Result<Self, ArrowError> {
        let mut columns = self.columns.clone();
        for column in columns.iter_mut().flatten() {
            *column = take(column, rows, None)?;
        }
        Ok(Self { rows: rows.len(), columns })
    }

    pub(in crate::columnar) fn column(&self, column: KafkaColumn) -> Option<&ArrayRef> {
        self.columns.get(column as usize).and_then(Option::as_ref)
    }
}

/// Prefetches the cache lines of a short record that is roughly there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of the hot loop")]
fn prefetch(data: &[u8], at: usize) {
    for line in 0..3_usize {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = data.as_ptr().wrapping_add(at.wrapping_add(line * 64));
        // SAFETY: a hint about an address; it reads nothing, whatever is there.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
}

/// Does nothing: elsewhere the standard library has no such hint.
#[cfg(not(target_arch = "x86_64"))]
const fn prefetch(_data: &[u8], _at: usize) {}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of the hot loop")]
fn view(data: &[u8], place: Place, at: usize, size: i32) -> u128 {
    if size < 0 {
        return NULL_VIEW;
    }
    let size = size as usize;
    if size <= INLINE_MAX {
        return inline_view(data, at, size);
    }
    // The record was walked, so the bytes are there; a miss cannot happen and would be a null.
    let Some(prefix) = data.get(at..).and_then(|rest| rest.first_chunk::<4>()) else {
        return NULL_VIEW;
    };
    let prefix = u32::from_le_bytes(*prefix);
    let offset = place.at.wrapping_add(at as u32);
    size as u128
        | (u128::from(prefix) << 32)
        | (u128::from(place.buffer) << 64)
        | (u128::from(offset) << 96)
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of the hot loop")]
fn inline_view(data: &[u8], at: usize, size: usize) -> u128 {
    // Usually more bytes follow: one load and a mask instead of a copy of variable size.
    if let Some(sixteen) = data.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
        let kept = (1_u128 << (size as u32).wrapping_mul(8)).wrapping_sub(1);
        return ((u128::from_le_bytes(*sixteen) & kept) << 32) | size as u128;
    }
    let value = data.get(at..at.wrapping_add(size)).unwrap_or_default();
    (short_bytes(value) << 32) | size as u128
}

/// Up to twelve bytes, from the low end on: two loads that may overlap, or none.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of the hot loop")]
fn short_bytes(value: &[u8]) -> u128 {
    let size = value.len() as u32;
    if let (Some(low), Some(high)) = (value.first_chunk::<8>(), value.last_chunk::<8>()) {
        let high = u128::from(u64::from_le_bytes(*high));
        return u128::from(u64::from_le_bytes(*low)) | (high << (size.wrapping_sub(8) * 8));
    }
    if let (Some(low), Some(high)) = (value.first_chunk::<4>(), value.last_chunk::<4>()) {
        let high = u128::from(u32::from_le_bytes(*high));
        return u128::from(u32::from_le_bytes(*low)) | (high << (size.wrapping_sub(4) * 8));
    }
    match *value {
        [one] => u128::from(one),
        [one, two] => u128::from(u16::from_le_bytes([one, two])),
        [one, two, three] => u128::from(u32::from_le_bytes([one, two, three, 0])),
        _ => 0,
    }
}

/// Whether a view that holds its text inline holds ASCII: its size is below 0x80, and zeros follow.
#[inline]
const fn is_ascii(text_view: u128) -> bool {
    text_view & u128::from_le_bytes([0x80; 16]) == 0
}

fn view_column(mut views: Vec<u128>, any_null: bool, buffers: &Arc<[Buffer]>) -> BinaryViewArray {
    let nulls = if any_null { take_nulls(&mut views, NULL_VIEW, 0) } else { None };
    let views = ScalarBuffer::from(views);
    // SAFETY: `view` made every view: inline with zeros after its bytes, or (CD-2) with a place
    // within the buffer that it names and the four bytes at that place; nulls are zero views.
    unsafe { BinaryViewArray::new_unchecked(views, Arc::clone(buffers), nulls) }
}

/// The null bitmap of values that mark nulls with a sentinel, which is replaced; none without.
fn take_nulls<T: Copy + PartialEq>(values: &mut [T], null: T, zero: T) -> Option<NullBuffer> {
    if !values.contains(&null) {
        return None;
    }
    let mut valid = BooleanBufferBuilder::new(values.len());
    for value in values {
        let is_null = *value == null;
        valid.append(!is_null);
        if is_null {
            *value = zero;
        }
    }
    Some(NullBuffer::new(valid.finish()))
}

fn timestamp_column(mut timestamps: Vec<i64>) -> ArrayRef {
    let nulls = take_nulls(&mut timestamps, -1, 0);
    let array = TimestampMillisecondArray::new(ScalarBuffer::from(timestamps), nulls);
    Arc::new(array.with_timezone(UTC))
}

/// Turns bytes into text without copying them; rows that are not UTF-8 become null and are
/// reported.
pub(in crate::columnar) fn text_column(array: &BinaryViewArray) -> (StringViewArray, Vec<usize>) {
    let is_text = |value: &[u8]| simdutf8::basic::from_utf8(value).is_ok();
    let rows = array.iter().enumerate();
    let bad: Vec<usize> = rows
        .filter(|(_, value)| value.is_some_and(|value| !is_text(value)))
        .map(|(row, _)| row)
        .collect();
    if bad.is_empty() {
        // SAFETY: every value was just found to be UTF-8, and nulls are zero views.
        return (unsafe { array.clone().to_string_view_unchecked() }, bad);
    }
    let mut views: Vec<u128> = array.views().to_vec();
    let mut valid: Vec<bool> = (0..array.len()).map(|row| array.is_valid(row)).collect();
    for &row in &bad {
        if let (Some(view), Some(valid)) = (views.get_mut(row), valid.get_mut(row)) {
            *view = 0;
            *valid = false;
        }
    }
    let buffers = Arc::clone(array.data_buffers());
    let nulls = Some(NullBuffer::from(valid));
    // SAFETY: the views of all other rows were valid and name values found to be UTF-8.
    let text = unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), buffers, nulls) };
    (text, bad)
}

/// Collects copied texts, for decoded values.
#[derive(Debug, Default)]
pub(in crate::columnar) struct TextBuilder {
    bytes: BytesBuilder,
}

impl TextBuilder {
    pub(in crate::columnar) fn reserve(&mut self, rows: usize) {
        self.bytes.reserve(rows);
    }

    pub(in crate::columnar) fn truncate(&mut self, rows: usize) {
        self.bytes.truncate(rows);
    }

    pub(in crate::columnar) fn push_null(&mut self) {
        self.bytes.push_null();
    }

    #[inline]
    pub(in crate::columnar) fn push(&mut self, text: &str) {
        self.bytes.push(text.as_bytes());
    }

    /// Appends the first `size` bytes if they are UTF-8; false changes nothing. Further bytes after
    /// them make a short text cheaper.
    #[inline]
    pub(in crate::columnar) fn push_utf8(&mut self, bytes: &[u8], size: usize) -> bool {
        let Some(text) = bytes.get(..size) else { return false };
        if size > INLINE_MAX {
            return self.push_long(text);
        }
        let text_view = inline_view(bytes, 0, size);
        let is_text = is_ascii(text_view) || simdutf8::basic::from_utf8(text).is_ok();
        if is_text {
            self.bytes.views.push(text_view);
        }
        is_text
    }

    fn push_long(&mut self, bytes: &[u8]) -> bool {
        let is_text = bytes.is_ascii() || simdutf8::basic::from_utf8(bytes).is_ok();
        if is_text {
            self.bytes.push(bytes);
        }
        is_text
    }

    /// The collected texts; the builder is empty afterwards.
    pub(in crate::columnar) fn finish(&mut self) -> StringViewArray {
        let bytes = self.bytes.finish();
        // SAFETY: `push` takes text, `push_utf8` checks that it is, and all others are nulls.
        unsafe { bytes.to_string_view_unchecked() }
    }
}

/// Collects copied bytes, for decoded values.
#[derive(Debug, Default)]
pub(in crate::columnar) struct BytesBuilder {
    views: Vec<u128>,
    /// Whether a null was appended since the last array.
    any_null: bool,
    bytes: Vec<u8>,
    full: Vec<Buffer>,
}

impl BytesBuilder {
    pub(in crate::columnar) fn reserve(&mut self, rows: usize) {
        self.views.reserve(rows);
    }

    pub(in crate::columnar) fn truncate(&mut self, rows: usize) {
        // The bytes of removed values are after all others in the current buffer.
        let in_work = self.full.len() as u32;
        let copied = self.views.iter().skip(rows).find(|view| {
            let size = **view as u32;
            size as usize > INLINE_MAX && size != u32::MAX && (**view >> 64) as u32 == in_work
        });
        if let Some(view) = copied {
            self.bytes.truncate((view >> 96) as usize);
        }
        self.views.truncate(rows);
    }

    pub(in crate::columnar) fn push_null(&mut self) {
        self.any_null = true;
        self.views.push(NULL_VIEW);
    }

    #[inline]
    pub(in crate::columnar) fn push(&mut self, value: &[u8]) {
        let size = value.len();
        if size <= INLINE_MAX {
            self.views.push(inline_view(value, 0, size));
            return;
        }
        if self.bytes.len().saturating_add(size) > TEXT_BUFFER_MAX && !self.bytes.is_empty() {
            self.full.push(Buffer::from_vec(std::mem::take(&mut self.bytes)));
        }
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value);
        let place = Place { buffer: self.full.len() as u32, at };
        self.views.push(view(value, place, 0, size as i32));
    }

    /// The collected values; the builder is empty afterwards.
    pub(in crate::columnar) fn finish(&mut self) -> BinaryViewArray {
        let mut views = std::mem::take(&mut self.views);
        let any_null = std::mem::take(&mut self.any_null);
        let nulls = if any_null { take_nulls(&mut views, NULL_VIEW, 0) } else { None };
        let mut buffers = std::mem::take(&mut self.full);
        if !self.bytes.is_empty() {
            buffers.push(Buffer::from_vec(std::mem::take(&mut self.bytes)));
        }
        // SAFETY: `push` makes views from whole values, either inline or with the place that it has
        // just copied the value to; those of a `TextBuilder` make inline ones; all others are nulls.
        unsafe { BinaryViewArray::new_unchecked(ScalarBuffer::from(views), buffers.into(), nulls) }
    }
}
