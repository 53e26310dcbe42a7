//! A segment, as its readers see it.
//!
//! A segment is a `.log` file of batches and its indexes. The active one grows: its size and its end
//! offset are published by the writer after the bytes are written (`SEG-1`: a reader that has loaded
//! a size may read every byte below it). A sealed one never changes; its files are opened and mapped
//! when they are first read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::epochs::EpochCache;
use super::index::{OFFSET_ENTRY_BYTES, OffsetEntry, OffsetIndex, TIME_ENTRY_BYTES, TimeIndex};
use super::layout;
use super::scan::{Damage, Expected, Found, Scan, check_crc};
use super::verified::Verified;
use crate::env::{Disk, File, Mapping, OpenMode};
use crate::error::{Error, Result};
use crate::types::{LeaderEpoch, Offset, Stored, TimestampMs};

/// Index files up to this size are read into memory; larger ones are mapped.
const INDEX_READ_MAX: u64 = 16 << 10;

/// What all segments of a log have in common.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: Arc<Path>,
    /// Whether offsets may be missing, as compaction leaves them. Once set it stays.
    pub(super) gaps: Arc<AtomicBool>,
}

impl Home {
    pub(super) fn gaps(&self) -> bool {
        self.gaps.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base_offset: Offset,
    home: Home,
    path: PathBuf,
    /// The file of the active segment.
    file: Option<Arc<dyn File>>,
    mapping: Mutex<Option<Arc<dyn Mapping>>>,
    /// The most bytes of the file that are mapped.
    limit: AtomicU64,
    size: AtomicU64,
    next_offset: AtomicI64,
    /// Of the active segment; `i64::MIN` when it is to be looked up in the time index.
    max_timestamp: AtomicI64,
    offset_index: OnceLock<OffsetIndex>,
    time_index: OnceLock<TimeIndex>,
    pub(super) verified: Arc<Verified>,
}

/// How a segment is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) offset: Offset,
    pub(super) max_bytes: u64,
    pub(super) upper: Offset,
    pub(super) at_least_one: bool,
}

/// What a read of one segment found.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Whole batches.
    Chunk(Chunk),
    /// The batch that holds the offset reaches the upper bound, or alone is too large.
    Stop,
    /// The segment ends before the offset: compaction leaves gaps at its end.
    Beyond,
}

/// Whole batches of a segment.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) records: Bytes,
    pub(super) stored: Option<Stored>,
    pub(super) base_offset: Offset,
    pub(super) next_offset: Offset,
}

impl Segment {
    /// The segment that is written to.
    pub(super) fn active(
        home: &Home,
        base_offset: Offset,
        file: Arc<dyn File>,
        limit: u64,
        verified_from: u64,
    ) -> Self {
        let segment = Self::sealed(home, base_offset, base_offset, 0);
        let segment = Self {
            file: Some(file),
            limit: AtomicU64::new(limit),
            max_timestamp: AtomicI64::new(TimestampMs::NONE.0),
            verified: Arc::new(Verified::from(verified_from)),
            ..segment
        };
        drop(segment.offset_index.set(OffsetIndex::live()));
        drop(segment.time_index.set(TimeIndex::live()));
        segment
    }

    /// A segment that no longer changes, of which nothing is verified yet.
    pub(super) fn sealed(home: &Home, base_offset: Offset, next_offset: Offset, size: u64) -> Self {
        Self {
            base_offset,
            home: home.clone(),
            path: layout::file(&home.directory, base_offset, layout::LOG),
            file: None,
            mapping: Mutex::new(None),
            limit: AtomicU64::new(size),
            size: AtomicU64::new(size),
            next_offset: AtomicI64::new(next_offset.0),
            max_timestamp: AtomicI64::new(i64::MIN),
            offset_index: OnceLock::new(),
            time_index: OnceLock::new(),
            verified: Arc::new(Verified::from(u64::MAX)),
        }
    }

    /// This active segment as a sealed one. What readers hold of the old one stays valid.
    pub(super) fn seal(&self) -> Self {
        let mut sealed =
            Self::sealed(&self.home, self.base_offset, self.next_offset(), self.size());
        sealed.verified = Arc::clone(&self.verified);
        sealed.max_timestamp = AtomicI64::new(self.max_timestamp.load(Ordering::Acquire));
        sealed
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(super) fn next_offset(&self) -> Offset {
        Offset(self.next_offset.load(Ordering::Acquire))
    }

    /// Publishes what was appended (`SEG-1`).
    pub(super) fn publish(&self, size: u64, next_offset: Offset, max_timestamp: TimestampMs) {
        self.max_timestamp.fetch_max(max_timestamp.0, Ordering::AcqRel);
        self.next_offset.store(next_offset.0, Ordering::Release);
        self.size.store(size, Ordering::Release);
    }

    pub(super) fn offset_index(&self) -> &OffsetIndex {
        self.offset_index.get_or_init(|| {
            let bytes = self.index_bytes(layout::OFFSET_INDEX, OFFSET_ENTRY_BYTES);
            let index = OffsetIndex::Stored(bytes);
            // An index that points beyond its segment is useless; a scan works without one.
            match index.last() {
                Some(last) if u64::from(last.position) >= self.size() => {
                    OffsetIndex::Stored(Bytes::new())
                }
                _ => index,
            }
        })
    }

    pub(super) fn time_index(&self) -> &TimeIndex {
        self.time_index.get_or_init(|| {
            TimeIndex::Stored(self.index_bytes(layout::TIME_INDEX, TIME_ENTRY_BYTES))
        })
    }

    /// The complete entries of an index file; nothing when it cannot be read, which costs a scan.
    fn index_bytes(&self, extension: &str, entry_bytes: u32) -> Bytes {
        let path = layout::file(&self.home.directory, self.base_offset, extension);
        let read = || -> io::Result<Bytes> {
            let file = self.home.disk.open(&path, OpenMode::Read)?;
            let len = file.len()? / u64::from(entry_bytes) * u64::from(entry_bytes);
            if len > INDEX_READ_MAX {
                return file.map(len)?.slice(0..len);
            }
            let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes.into())
        };
        read().unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "index is not readable, scanning instead");
            Bytes::new()
        })
    }

    /// Lets the active segment grow further: the next read maps it again.
    pub(super) fn raise_limit(&self, limit: u64) {
        if self.limit.fetch_max(limit, Ordering::AcqRel) < limit {
            *self.mapping.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn mapping(&self) -> Result<Arc<dyn Mapping>> {
        let mut slot = self.mapping.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapping) = &*slot {
            return Ok(Arc::clone(mapping));
        }
        let limit = self.limit.load(Ordering::Acquire);
        let map = || match &self.file {
            Some(file) => file.map(limit),
            None => self.home.disk.open(&self.path, OpenMode::Read)?.map(limit),
        };
        let mapping = map().map_err(|error| Error::io("map", &self.path, error))?;
        *slot = Some(Arc::clone(&mapping));
        Ok(mapping)
    }

    /// Opens everything that a reader of this sealed segment may still need, because its file names are
    /// about to refer to other files.
    pub(super) fn pin(&self) -> Result<()> {
        self.mapping()?;
        self.offset_index();
        self.time_index();
        Ok(())
    }

    /// What the segment has in common with the others of its log.
    pub(super) const fn home(&self) -> &Home {
        &self.home
    }

    /// The bytes from `start` to `end`, which must be published.
    pub(super) fn slice(&self, start: u64, end: u64) -> Result<Bytes> {
        if start >= end {
            return Ok(Bytes::new());
        }
        let sliced = self.mapping()?.slice(start..end);
        sliced.map_err(|error| Error::io("read", &self.path, error))
    }

    pub(super) fn corrupt(&self, damage: Damage) -> Error {
        Error::corrupt(&self.path, damage.position, damage.detail)
    }

    /// Where to begin scanning for `offset`, and what to expect there.
    pub(super) fn seek(&self, offset: Offset) -> (u64, Expected) {
        let relative = offset.0 - self.base_offset.0;
        match self.offset_index().floor(|entry| i64::from(entry.relative) <= relative) {
            Some(entry) => self.indexed(entry),
            None => (0, self.at_start()),
        }
    }

    /// Where an index entry points, and what to expect there.
    pub(super) fn indexed(&self, entry: OffsetEntry) -> (u64, Expected) {
        let expected =
            Expected { next: self.base_offset, exact: false, epoch: LeaderEpoch::UNKNOWN };
        (u64::from(entry.position), expected)
    }

    /// What the first batch must look like.
    pub(super) fn at_start(&self) -> Expected {
        Expected { next: self.base_offset, exact: !self.home.gaps(), epoch: LeaderEpoch::UNKNOWN }
    }

    /// Whether a read would probably wait for the disk: its range was neither appended nor read by this
    /// process before. At most reads an index itself.
    pub(super) fn is_cold(&self, want: &Want) -> bool {
        if self.file.is_none() && self.offset_index.get().is_none() {
            return true;
        }
        let (start, _) = self.seek(want.offset);
        let end = self.size().min(start.saturating_add(want.max_bytes));
        start < end && !self.verified.covers(&(start..end))
    }

    /// Whole batches, starting with the one that holds `want.offset`.
    pub(super) fn read(&self, want: &Want, epochs: &EpochCache) -> Result<Outcome> {
        let size = self.size();
        let (start, expected) = self.seek(want.offset);
        let data = self.slice(start, size)?;
        let mut scan = Scan::new(&data, start, expected);
        let Some(first) = self.find(&mut scan, |header| header.last_offset() >= want.offset)?
        else {
            return Ok(Outcome::Beyond);
        };
        let first_size = first.header.size_bytes as u64;
        if first.header.next_offset() > want.upper
            || first_size > want.max_bytes && !want.at_least_one
        {
            return Ok(Outcome::Stop);
        }
        let limit = first.position.saturating_add(want.max_bytes).min(size);
        let (mut end, mut next_offset) = (first.end(), first.header.next_offset());
        self.jump_ahead(&mut scan, limit, want.upper, end);
        while end < limit {
            let Some(found) = self.next(&mut scan)? else { break };
            // What a jump skipped is within the limits, whether this batch is or not.
            if found.position > end {
                (end, next_offset) = (found.position, found.header.base_offset);
            }
            if found.end() > limit || found.header.next_offset() > want.upper {
                break;
            }
            (end, next_offset) = (found.end(), found.header.next_offset());
        }
        self.verify(first.position, end, epochs)?;
        let slice = |position: u64| usize::try_from(position - start).unwrap_or(usize::MAX);
        Ok(Outcome::Chunk(Chunk {
            records: data.slice(slice(first.position)..slice(end)),
            stored: self.mapping()?.stored(first.position),
            base_offset: first.header.base_offset,
            next_offset,
        }))
    }

    /// Skips batches that the index proves to be within the limits.
    fn jump_ahead(&self, scan: &mut Scan<'_>, limit: u64, upper: Offset, from: u64) {
        let last = upper.0 - self.base_offset.0;
        let ahead = self
            .offset_index()
            .floor(|entry| u64::from(entry.position) < limit && i64::from(entry.relative) < last);
        if let Some(entry) = ahead
            && u64::from(entry.position) > from
        {
            scan.jump(u64::from(entry.position), self.base_offset);
        }
    }

    /// The next batch of a scan, which must not reach beyond the segment.
    fn next(&self, scan: &mut Scan<'_>) -> Result<Option<Found>> {
        let found = scan.next().map_err(|damage| self.corrupt(damage))?;
        // Loaded after the size that bounds the scan, so it is not too old (`SEG-1`).
        let end = self.next_offset();
        match &found {
            Some(Found { position, header }) if header.next_offset() > end => {
                let last = header.last_offset();
                let detail =
                    format!("the batch reaches offset {last}, but its segment ends before {end}");
                Err(self.corrupt(Damage { position: *position, detail }))
            }
            _ => Ok(found),
        }
    }

    fn find(
        &self,
        scan: &mut Scan<'_>,
        wanted: impl Fn(&crate::record::BatchHeader) -> bool,
    ) -> Result<Option<Found>> {
        while let Some(found) = self.next(scan)? {
            if wanted(&found.header) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Compares the checksums of a range of whole batches, once per process; see [`Verified`].
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] with file and position of the first damaged batch.
    pub(super) fn verify(&self, start: u64, end: u64, epochs: &EpochCache) -> Result<()> {
        let range = start..end;
        if range.is_empty() || self.verified.covers(&range) {
            return Ok(());
        }
        self.mapping()?.prefault(range.clone());
        // The batch after the range, if there is one, must fit as well.
        let (size, behind) = (self.size(), crate::record::HEADER_SIZE as u64);
        let data = self.slice(start, end.saturating_add(behind).min(size))?;
        let inner =
            data.slice(..usize::try_from(end - start).unwrap_or(data.len()).min(data.len()));
        let mut expected = self.at_start();
        if start > 0 {
            expected = self.expected_at(start)?;
        }
        let mut scan = Scan::new(&inner, start, expected);
        while let Some(found) = self.next(&mut scan)? {
            let bytes = scan.bytes_of(&found).unwrap_or_default();
            check_crc(&found, bytes).map_err(|damage| self.corrupt(damage))?;
            self.check_epoch(&found, epochs)?;
        }
        let after = data.slice(inner.len()..);
        if let Ok(header) = crate::record::BatchHeader::parse(&after) {
            let due = scan.next_offset();
            if header.base_offset < due || !self.home.gaps() && header.base_offset != due {
                let detail =
                    format!("the batch has base offset {}, expected {due}", header.base_offset);
                return Err(self.corrupt(Damage { position: end, detail }));
            }
        } else if scan.next_offset() > self.next_offset()
            || self.file.is_none() && !self.home.gaps() && scan.next_offset() != self.next_offset()
        {
            let (due, end) = (self.next_offset(), scan.next_offset());
            let detail = format!("the last batch ends at offset {end} instead of {due}");
            return Err(self.corrupt(Damage { position: start, detail }));
        }
        self.verified.mark(range);
        Ok(())
    }

    /// What the batch at `position` must look like, from the batches before it.
    fn expected_at(&self, position: u64) -> Result<Expected> {
        let before = self.offset_index().floor(|entry| u64::from(entry.position) < position);
        let (start, expected) = match before {
            Some(entry) => self.indexed(entry),
            None => (0, self.at_start()),
        };
        let data = self.slice(start, position)?;
        let mut scan = Scan::new(&data, start, expected);
        let mut epoch = LeaderEpoch::UNKNOWN;
        while let Some(found) = self.next(&mut scan)? {
            epoch = found.header.leader_epoch;
        }
        Ok(Expected { next: scan.next_offset(), exact: !self.home.gaps(), epoch })
    }

    fn check_epoch(&self, found: &Found, epochs: &EpochCache) -> Result<()> {
        let header = &found.header;
        match epochs.epoch_of(header.base_offset) {
            Some(known) if known != header.leader_epoch && header.leader_epoch.0 >= 0 => {
                let detail = format!(
                    "the batch at offset {} has leader epoch {}, but the epoch there was {known}",
                    header.base_offset, header.leader_epoch
                );
                Err(self.corrupt(Damage { position: found.position, detail }))
            }
            _ => Ok(()),
        }
    }

    /// The position of the first batch that reaches `offset`; the size when there is none.
    pub(super) fn position_of(&self, offset: Offset) -> Result<u64> {
        let (start, expected) = self.seek(offset);
        let data = self.slice(start, self.size())?;
        let mut scan = Scan::new(&data, start, expected);
        let found = self.find(&mut scan, |header| header.last_offset() >= offset)?;
        Ok(found.map_or(self.size(), |found| found.position))
    }

    /// The largest timestamp of a record; -1 when none has one.
    pub(super) fn max_timestamp(&self) -> Result<TimestampMs> {
        let known = self.max_timestamp.load(Ordering::Acquire);
        if known != i64::MIN {
            return Ok(TimestampMs(known));
        }
        let found = if let Some(entry) = self.time_index().last() {
            entry.timestamp
        } else {
            let data = self.slice(0, self.size())?;
            let mut scan = Scan::new(&data, 0, self.at_start());
            let mut max = TimestampMs::NONE;
            while let Some(found) = self.next(&mut scan)? {
                max = max.max(found.header.max_timestamp);
            }
            max
        };
        self.max_timestamp.fetch_max(found.0, Ordering::AcqRel);
        Ok(found)
    }

    /// The largest timestamp of the first batch; none when it has none.
    pub(super) fn first_timestamp(&self) -> Result<Option<TimestampMs>> {
        let data = self.slice(0, self.size())?;
        let first = self.next(&mut Scan::new(&data, 0, self.at_start()))?;
        Ok(first.map(|found| found.header.max_timestamp).filter(|time| time.0 >= 0))
    }

    /// The first record from `from` on, below `upper`, that is at least as late as `target`.
    pub(super) fn find_timestamp(
        &self,
        target: TimestampMs,
        from: Offset,
        upper: Offset,
        limits: (usize, &EpochCache),
    ) -> Result<Option<(TimestampMs, Offset, LeaderEpoch)>> {
        let (uncompressed_max, epochs) = limits;
        let hint = self.time_index().floor(target).map_or(self.base_offset, |entry| {
            Offset(self.base_offset.0.saturating_add(i64::from(entry.relative)))
        });
        let (start, expected) = self.seek(hint.max(from));
        let data = self.slice(start, self.size())?;
        let mut scan = Scan::new(&data, start, expected);
        while let Some(found) = self.next(&mut scan)? {
            let header = &found.header;
            if header.base_offset >= upper {
                break;
            }
            if header.max_timestamp < target || header.last_offset() < from {
                continue;
            }
            self.verify(found.position, found.end(), epochs)?;
            let batch = scan.batch_of(&found).map_err(|damage| self.corrupt(damage))?;
            for record in &batch.records(uncompressed_max)? {
                let record = record?;
                if record.timestamp >= target && record.offset >= from && record.offset < upper {
                    return Ok(Some((record.timestamp, record.offset, header.leader_epoch)));
                }
            }
        }
        Ok(None)
    }
}
