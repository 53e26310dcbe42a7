//! The active segment, the one being written to, with the state that only its writer has.

use std::sync::Arc;

use super::config::LogConfig;
use super::index::{OffsetEntry, TimeEntry};
use super::layout;
use super::segment::{Home, Segment};
use super::shared::Shared;
use super::writer::Log;
use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};
use crate::record::BatchHeader;
use crate::types::{Offset, TimestampMs};

impl Log {
    /// Begins a new segment if the active one has records, whatever its age and size.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Offline`].
    pub fn roll(&mut self, now: TimestampMs) -> Result<()> {
        self.shared.health.check()?;
        if self.active.segment.size() == 0 {
            return Ok(());
        }
        self.roll_at(self.log_end_offset(), now)
    }
}

/// What only the writer knows about the active segment.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn File>,
    pub(super) created: TimestampMs,
    /// The timestamp of the first batch, which `segment.ms` counts from.
    pub(super) first_timestamp: Option<TimestampMs>,
    pub(super) jitter_ms: i64,
    pub(super) bytes_since_index: u64,
    /// The largest timestamp, and the last offset of the batch that has it.
    pub(super) largest: Option<(TimestampMs, Offset)>,
    /// How many entries of each index are in the file.
    pub(super) offset_entries_written: usize,
    pub(super) time_entries_written: usize,
    /// The `.txnindex`, once a transaction was aborted here, and how many entries it has.
    pub(super) transaction_index: Option<Arc<dyn File>>,
    pub(super) aborted_written: usize,
    /// Whether a failed write left bytes beyond the published end, also of the `.txnindex`.
    pub(super) tail_dirty: bool,
}

impl Active {
    pub(super) fn new(
        segment: Arc<Segment>,
        file: Arc<dyn File>,
        created: TimestampMs,
        jitter_ms: i64,
    ) -> Self {
        Self {
            segment,
            file,
            created,
            first_timestamp: None,
            jitter_ms,
            bytes_since_index: 0,
            largest: None,
            offset_entries_written: 0,
            time_entries_written: 0,
            transaction_index: None,
            aborted_written: 0,
            tail_dirty: false,
        }
    }

    /// Adds a batch to the indexes, as Kafka's `LogSegment.append` does.
    pub(super) fn index(&mut self, header: &BatchHeader, position: u64, interval: u32) {
        if self.first_timestamp.is_none() && header.max_timestamp.0 >= 0 {
            self.first_timestamp = Some(header.max_timestamp);
        }
        if self.largest.is_none_or(|(largest, _)| header.max_timestamp > largest) {
            self.largest = Some((header.max_timestamp, header.last_offset()));
        }
        if self.bytes_since_index > u64::from(interval) {
            let relative = self.relative(header.last_offset());
            if let (Some(relative), Ok(position)) = (relative, u32::try_from(position)) {
                self.segment.offset_index().push(OffsetEntry { relative, position });
                self.note_time();
            }
            self.bytes_since_index = 0;
        }
        self.bytes_since_index += header.size_bytes as u64;
    }

    fn relative(&self, offset: Offset) -> Option<u32> {
        i32::try_from(offset.0 - self.segment.base_offset.0).ok()?.try_into().ok()
    }

    /// Adds the largest timestamp so far to the time index.
    pub(super) fn note_time(&self) {
        if let Some((timestamp, offset)) = self.largest
            && let Some(relative) = self.relative(offset)
        {
            self.segment.time_index().push_if_later(TimeEntry { timestamp, relative });
        }
    }
}

/// Creates the files of an empty segment.
pub(super) fn create_segment(
    home: &Home,
    shared: &Shared,
    config: &LogConfig,
    base_offset: Offset,
    env: &Env,
) -> Result<Active> {
    let create = |extension| {
        let path = layout::file(&home.directory, base_offset, extension);
        let created = home.disk.open(&path, OpenMode::CreateEmpty);
        created.map_err(|error| Error::io("create", &path, error))
    };
    // The batches come last: a segment exists once its `.log` does.
    create(layout::OFFSET_INDEX)?;
    create(layout::TIME_INDEX)?;
    let file = create(layout::LOG)?;
    shared.dirty().directory();
    let limit = u64::from(config.segment_bytes);
    let segment = Segment::active(home, base_offset, Arc::clone(&file), limit, 0);
    let bound = config.segment_jitter_ms.min(config.segment_ms);
    let jitter_ms = match u64::try_from(bound) {
        Ok(bound) if bound > 0 => (env.random.u64() % bound).cast_signed(),
        _ => 0,
    };
    Ok(Active::new(Arc::new(segment), file, env.clock.now(), jitter_ms))
}
