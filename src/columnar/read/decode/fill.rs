//! The loop over the records of one batch.
//!
//! Most batches are entirely within the wanted range, and most records are short ([`ShortRecord`]).
//! Those are first walked in blocks and then written column by column: the walk is a chain of
//! dependent loads, and the columns are branch-free loops next to it. Everything else goes record
//! by record ([`Filler::fill_one`]), which alone handles ranges, headers and damage.
//!
//! Invariant **CD-4**: both ways give the same rows; `columnar::tests` compares them with a model.

use super::{Filler, HEADER_BYTES_MAX, Place, Progress, Span, prefetch, view};
use crate::columnar::columns::KafkaColumn;
use crate::error::Result;
use crate::record::{ShortRecord, WalkError, Walker};

/// The records in a block: few enough that they and what they point to stay in the L1 cache.
const BLOCK: usize = 64;
/// How far ahead of the walk bytes are prefetched.
const AHEAD: usize = 2048;
/// After a block without short records, this many are read one by one before the next try.
const LONG_RUN: usize = 32;

impl Filler {
    pub(super) fn fill_rows(
        &mut self,
        data: &[u8],
        place: Place,
        span: &Span,
        progress: &mut Progress,
    ) -> Result<(), WalkError> {
        self.reserve(usize::try_from(progress.left).unwrap_or(0));
        let last_offset = span.base_offset.saturating_add(i64::from(span.last_offset_delta));
        let is_inside = span.base_offset >= span.start && last_offset < span.end;
        let mut walker = Walker::resume(data, progress.at);
        let mut block = [ShortRecord::default(); BLOCK];
        let mut long = 0_usize;
        // The record that reaches the limit is the last one.
        let stop_at = progress.at.saturating_add(self.max_bytes.saturating_sub(self.bytes));
        while progress.left > 0 && self.rows < self.max_rows && progress.at < stop_at {
            if is_inside && long == 0 {
                let room = self.max_rows.wrapping_sub(self.rows).min(BLOCK);
                let most = room.min(progress.left.unsigned_abs() as usize);
                let count =
                    walk_short(&mut walker, data, span, stop_at, block.iter_mut().take(most));
                let records = block.get(..count).unwrap_or_default();
                self.push_short(data, place, span, records);
                if let Some(last) = records.last() {
                    let offset = span.base_offset.wrapping_add(i64::from(last.offset_delta));
                    progress.left = progress.left.wrapping_sub_unsigned(count as u32);
                    progress.at = walker.position();
                    progress.next_offset = offset.wrapping_add(1);
                }
                if count == most || progress.at >= stop_at {
                    continue;
                }
                long = if count == 0 { LONG_RUN } else { 1 };
            }
            long = long.saturating_sub(1);
            if !self.fill_one(&mut walker, (data, place), span, progress)? {
                return Ok(());
            }
        }
        if progress.left == 0 && !walker.is_at_end() {
            return Err(WalkError::Unfilled);
        }
        Ok(())
    }

    /// Appends one record of any kind; false where the range or the output ends.
    fn fill_one(
        &mut self,
        walker: &mut Walker<'_>,
        (data, place): (&[u8], Place),
        span: &Span,
        progress: &mut Progress,
    ) -> Result<bool, WalkError> {
        let wants = |column| self.projection.has(column);
        let record = walker.next_record()?;
        // A negative delta becomes a large one.
        if record.offset_delta as u32 > span.last_offset_delta {
            return Err(WalkError::Offset);
        }
        let offset = span.base_offset.wrapping_add(i64::from(record.offset_delta));
        if offset >= span.end {
            progress.reached_end = true;
            return Ok(false);
        }
        if offset >= span.start {
            if wants(KafkaColumn::Headers) {
                self.headers.push(data, &record)?;
            }
            if wants(KafkaColumn::Offset) {
                self.offsets.push(offset);
            }
            if wants(KafkaColumn::Timestamp) {
                let time = span.base_timestamp.wrapping_add(record.timestamp_delta);
                self.timestamps.push(span.log_append_time.unwrap_or(time));
            }
            if wants(KafkaColumn::Key) {
                self.null_key |= record.key_size < 0;
                self.keys.push(view(data, place, record.key_at, record.key_size));
            }
            if wants(KafkaColumn::Value) {
                self.null_value |= record.value_size < 0;
                self.values.push(view(data, place, record.value_at, record.value_size));
            }
            self.rows = self.rows.wrapping_add(1);
        }
        progress.left = progress.left.wrapping_sub(1);
        progress.at = record.end;
        progress.next_offset = offset.wrapping_add(1);
        Ok(!wants(KafkaColumn::Headers) || self.headers.bytes() <= HEADER_BYTES_MAX)
    }

    /// Appends short records within the range.
    fn push_short(&mut self, data: &[u8], place: Place, span: &Span, records: &[ShortRecord]) {
        let wants = |column| self.projection.has(column);
        if wants(KafkaColumn::Headers) {
            self.headers.push_empty(records.len());
        }
        if wants(KafkaColumn::Offset) {
            let base = span.base_offset;
            let offset = |record: &ShortRecord| base.wrapping_add(i64::from(record.offset_delta));
            self.offsets.extend(records.iter().map(offset));
        }
        if wants(KafkaColumn::Timestamp) {
            let base = span.base_timestamp;
            let time = |record: &ShortRecord| base.wrapping_add(i64::from(record.timestamp_delta));
            match span.log_append_time {
                Some(time) => self.timestamps.extend(std::iter::repeat_n(time, records.len())),
                None => self.timestamps.extend(records.iter().map(time)),
            }
        }
        if wants(KafkaColumn::Key) {
            let mut any_null = false;
            self.keys.extend(records.iter().map(|record| {
                any_null |= record.key_size < 0;
                view(data, place, record.key_at as usize, record.key_size)
            }));
            self.null_key |= any_null;
        }
        if wants(KafkaColumn::Value) {
            let mut any_null = false;
            self.values.extend(records.iter().map(|record| {
                any_null |= record.value_size < 0;
                view(data, place, record.value_at as usize, record.value_size)
            }));
            self.null_value |= any_null;
        }
        self.rows = self.rows.wrapping_add(records.len());
    }
}

/// Walks as many short records as there is room for, none that starts at `stop_at` or beyond;
/// returns how many.
#[inline]
fn walk_short<'a>(
    walker: &mut Walker<'_>,
    data: &[u8],
    span: &Span,
    stop_at: usize,
    places: impl Iterator<Item = &'a mut ShortRecord>,
) -> usize {
    let mut count = 0_usize;
    for place in places {
        let at = walker.position();
        if at >= stop_at {
            break;
        }
        prefetch(data, at.wrapping_add(AHEAD));
        let Some(record) = walker.next_short(span.last_offset_delta) else { break };
        *place = record;
        count = count.wrapping_add(1);
    }
    count
}
