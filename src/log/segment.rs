//! A segment, as its readers see it.
//!
//! A segment is a `.log` file of batches and its indexes. The active one grows: its size and its end
//! offset are published by the writer after the bytes are written (`SEG-1`: a reader that has loaded
//! a size may read every byte below it). A sealed one never changes; its files are opened and mapped
//! when they are first read.
//!
//! `SEG-2`: only what is committed is read through the mapping ([`Committed`]). The rest is read into a buffer, by
//! followers and by the log itself; a consumer does not see it.

mod read;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::committed::{Committed, Mark};
use super::index::{OFFSET_ENTRY_BYTES, OffsetEntry, OffsetIndex, TIME_ENTRY_BYTES, TimeIndex};
use super::layout;
use super::scan::{Damage, Expected, Found, PIECE_BYTES, Scan, read_batches};
use super::verified::Verified;
use crate::env::{Disk, File, Mapping, OpenMode};
use crate::error::{Error, Result};
use crate::types::{LeaderEpoch, Offset, TimestampMs};

pub(super) use read::{ReadBatches, SegmentRead, Want};

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
    /// The file of a sealed segment whose name is about to refer to another.
    pinned: OnceLock<Arc<dyn File>>,
    committed: Arc<Committed>,
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
            pinned: OnceLock::new(),
            committed: Arc::default(),
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
        sealed.committed = Arc::clone(&self.committed);
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

    /// The file of the active segment.
    pub(super) fn active_file(&self) -> Option<&Arc<dyn File>> {
        self.file.as_ref()
    }

    /// The end of what lies below the high watermark and may be mapped (`SEG-2`).
    pub(super) fn committed(&self) -> u64 {
        self.committed.position().min(self.size())
    }

    /// Notes the ends of appended batches, before they are published.
    pub(super) fn appended(&self, ends: impl Iterator<Item = Mark>) {
        self.committed.appended(ends);
    }

    /// The high watermark moved to `offset`.
    pub(super) fn commit(&self, offset: Offset) {
        // The size first: the end that is loaded after it is not below what belongs to it (`SEG-1`).
        let size = self.size();
        if self.next_offset() <= offset {
            self.committed.reach(size);
        } else if !self.committed.advance(offset) {
            // It was found on disk, without marks. What lies before the batch of an index entry is older.
            let relative = offset.0 - self.base_offset.0;
            let before = self.offset_index().floor(|entry| i64::from(entry.relative) < relative);
            self.committed.reach(before.map_or(0, |entry| u64::from(entry.position)));
        }
    }

    /// What of another segment's file, which is this one's, is known to be committed.
    pub(super) fn commit_as(&self, other: &Self) {
        self.committed.reach(other.committed().min(self.size()));
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
        if self.committed() < self.size() {
            let file = self.open_file()?;
            self.pinned.get_or_init(|| file);
        }
        self.offset_index();
        self.time_index();
        Ok(())
    }

    fn open_file(&self) -> Result<Arc<dyn File>> {
        match self.file.as_ref().or_else(|| self.pinned.get()) {
            Some(file) => Ok(Arc::clone(file)),
            None => {
                let opened = self.home.disk.open(&self.path, OpenMode::Read);
                opened.map_err(|error| Error::io("open", &self.path, error))
            }
        }
    }

    /// What the segment has in common with the others of its log.
    pub(super) const fn home(&self) -> &Home {
        &self.home
    }

    /// Whether anybody holds bytes of the file from `position` on, out of a mapping.
    pub(super) fn is_handed_out(&self, position: u64) -> Result<bool> {
        let answer = self.open_file()?.is_handed_out(position);
        answer.map_err(|error| Error::io("inspect", &self.path, error))
    }

    /// The bytes from `start` to `end` in the mapping; they must be committed (`SEG-2`).
    fn slice(&self, start: u64, end: u64) -> Result<Bytes> {
        if start >= end {
            return Ok(Bytes::new());
        }
        let committed = self.committed();
        assert!(end <= committed, "SEG-2: byte {end} of {}, {committed}", self.path.display());
        let sliced = self.mapping()?.slice(start..end);
        sliced.map_err(|error| Error::io("read", &self.path, error))
    }

    /// Whole batches from `position` on, in a buffer: about `wanted` bytes, at least one batch.
    pub(super) fn buffer(&self, position: u64, wanted: u64) -> Result<Bytes> {
        let read = read_batches(&*self.open_file()?, position, self.size(), wanted);
        read.map_err(|error| Error::io("read", &self.path, error))
    }

    /// Whole batches from `position` on: all that are committed, or a buffer of those that are not. Empty
    /// at the end.
    pub(super) fn piece(&self, position: u64) -> Result<Bytes> {
        let committed = self.committed();
        if position < committed {
            return self.slice(position, committed);
        }
        if position >= self.size() {
            return Ok(Bytes::new());
        }
        self.buffer(position, PIECE_BYTES)
    }

    /// Walks the batches from `start` on, until `visit` says that it has seen enough.
    pub(super) fn walk(
        &self,
        start: (u64, Expected),
        mut visit: impl FnMut(&Scan<'_>, &Found) -> Result<bool>,
    ) -> Result<()> {
        let (mut at, mut expected) = start;
        loop {
            let data = self.piece(at)?;
            if data.is_empty() {
                return Ok(());
            }
            let mut scan = Scan::new(&data, at, expected);
            while let Some(found) = self.next(&mut scan)? {
                if !visit(&scan, &found)? {
                    return Ok(());
                }
            }
            (at, expected) = (scan.position(), scan.expected());
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
        (u64::from(entry.position), Expected::anywhere(self.base_offset))
    }

    /// What the first batch must look like.
    pub(super) fn at_start(&self) -> Expected {
        Expected { next: self.base_offset, exact: !self.home.gaps(), epoch: LeaderEpoch::UNKNOWN }
    }
}
