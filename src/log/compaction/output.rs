//! The segment that replaces a group of old ones, while it is being written.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::{File, OpenMode};
use crate::error::{Error, Result};
use crate::log::active::Active;
use crate::log::config::LogConfig;
use crate::log::health::Health;
use crate::log::layout;
use crate::log::producers::AbortedTransaction;
use crate::log::segment::{Home, Segment};
use crate::log::snapshot;
use crate::record::BatchHeader;
use crate::types::{Offset, TimestampMs};

/// The files of a segment that compaction writes, batches last (`CMP-6`).
pub(super) const KINDS: [&str; 4] =
    [layout::OFFSET_INDEX, layout::TIME_INDEX, layout::TXN_INDEX, layout::LOG];

/// A new segment that is complete on disk, but not yet in place. Dropping it removes it.
#[derive(Debug)]
pub struct Cleaned {
    pub(super) sources: Vec<Arc<Segment>>,
    pub(super) size: u64,
    /// The entries of its transaction index.
    pub(super) aborted: Vec<AbortedTransaction>,
    pub(super) files: Files,
}

impl Cleaned {
    /// The offset range of the segments that it replaces.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<Offset> {
        let start = self.sources.first().map_or(Offset::ZERO, |first| first.base_offset);
        start..self.sources.last().map_or(start, |last| last.next_offset())
    }
}

/// The temporary files of a segment; removed when this is dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) home: Home,
    pub(super) base: Offset,
    pub(super) kept: bool,
}

impl Files {
    pub(super) fn path(&self, kind: &str, suffix: &str) -> PathBuf {
        layout::with_suffix(&layout::file(&self.home.directory, self.base, kind), suffix)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Whatever is in the way of the swap is removed first, as in recovery.
        for suffix in [layout::SWAP, layout::CLEANED] {
            for kind in KINDS {
                let path = self.path(kind, suffix);
                match self.home.disk.remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        tracing::debug!(path = %path.display(), %error, "left for the next start to remove");
                        return;
                    }
                    _ => {}
                }
            }
            if self.home.disk.sync_dir(&self.home.directory).is_err() {
                return;
            }
        }
    }
}

/// Collects batches and writes them.
#[derive(Debug)]
pub(super) struct Output {
    files: Files,
    health: Health,
    sources: Vec<Arc<Segment>>,
    active: Active,
    interval: u32,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    buffer_bytes: usize,
    written: u64,
    aborted: Vec<AbortedTransaction>,
}

impl Output {
    /// Begins the segment that replaces `sources`.
    pub(super) fn new(
        home: &Home,
        health: &Health,
        config: &LogConfig,
        sources: Vec<Arc<Segment>>,
        buffer_bytes: usize,
    ) -> Result<Self> {
        let base = sources.first().map_or(Offset::ZERO, |first| first.base_offset);
        let files = Files { home: home.clone(), base, kept: false };
        // The renames of an earlier swap must be durable before recovery finds a `.cleaned` file.
        sync_dir(home, health)?;
        let path = files.path(layout::LOG, layout::CLEANED);
        let file = home.disk.open(&path, OpenMode::CreateEmpty);
        let file = file.map_err(|error| Error::io("create", &path, error))?;
        let segment = Segment::active(home, base, Arc::clone(&file), u64::MAX, 0);
        Ok(Self {
            files,
            health: health.clone(),
            sources,
            active: Active::new(Arc::new(segment), file, TimestampMs::NONE, 0),
            interval: config.index_interval_bytes,
            pending: Vec::new(),
            pending_bytes: 0,
            buffer_bytes,
            written: 0,
            aborted: Vec::new(),
        })
    }

    pub(super) fn sources(&self) -> &[Arc<Segment>] {
        &self.sources
    }

    /// Adds a batch; returns the bytes that were written out.
    pub(super) fn append(&mut self, header: &BatchHeader, bytes: Bytes) -> Result<u64> {
        let position = self.written + self.pending_bytes as u64;
        self.active.index(header, position, self.interval);
        self.pending_bytes += bytes.len();
        self.pending.push(bytes);
        if self.pending_bytes >= self.buffer_bytes { self.flush() } else { Ok(0) }
    }

    pub(super) fn note_aborted(&mut self, entry: AbortedTransaction) {
        self.aborted.push(entry);
    }

    fn flush(&mut self) -> Result<u64> {
        let parts: Vec<&[u8]> = self.pending.iter().map(AsRef::as_ref).collect();
        let written = self.active.file.write_all_at(&parts, self.written);
        written.map_err(|error| self.failed(error))?;
        let bytes = self.pending_bytes as u64;
        self.written += bytes;
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(bytes)
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io("write", self.files.path(layout::LOG, layout::CLEANED), error)
    }

    /// Writes the rest and syncs everything to disk, ready to be swapped in.
    pub(super) fn finish(mut self) -> Result<Cleaned> {
        self.flush()?;
        self.active.note_time();
        let segment = Arc::clone(&self.active.segment);
        let aborted: Vec<u8> = self.aborted.iter().flat_map(snapshot::encode_aborted).collect();
        let side = [
            (layout::OFFSET_INDEX, segment.offset_index().encode(0)),
            (layout::TIME_INDEX, segment.time_index().encode(0)),
            (layout::TXN_INDEX, aborted),
        ];
        let mut files: Vec<Arc<dyn File>> = vec![Arc::clone(&self.active.file)];
        for (kind, bytes) in &side {
            if *kind == layout::TXN_INDEX && bytes.is_empty() && !self.had_txn_index()? {
                continue;
            }
            let path = self.files.path(kind, layout::CLEANED);
            let write = || {
                let file = self.files.home.disk.open(&path, OpenMode::CreateEmpty)?;
                file.write_all_at(&[bytes], 0)?;
                Ok(file)
            };
            files.push(write().map_err(|error| Error::io("write", &path, error))?);
        }
        for file in files {
            if let Err(error) = file.sync_data() {
                self.health.take_offline(self.failed(error).chain());
                self.health.check()?;
            }
        }
        sync_dir(&self.files.home, &self.health)?;
        for kind in KINDS.into_iter().filter(|&kind| kind != layout::LOG) {
            let names = [layout::CLEANED, layout::SWAP].map(|suffix| self.files.path(kind, suffix));
            rename(&self.files.home, &names)?;
        }
        sync_dir(&self.files.home, &self.health)?;
        let Self { sources, written: size, aborted, files, .. } = self;
        Ok(Cleaned { sources, size, aborted, files })
    }

    /// An index of the old segment must not be left next to the new one.
    fn had_txn_index(&self) -> Result<bool> {
        let path = layout::file(&self.files.home.directory, self.files.base, layout::TXN_INDEX);
        self.files.home.disk.exists(&path).map_err(|error| Error::io("look for", &path, error))
    }
}

/// Renames a file; a missing file is not an error.
pub(super) fn rename(home: &Home, [from, to]: &[PathBuf; 2]) -> Result<()> {
    match home.disk.rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("rename", from, error))
        }
        _ => Ok(()),
    }
}

/// Makes names durable; a failure takes the directory offline (`SYN-2`).
pub(super) fn sync_dir(home: &Home, health: &Health) -> Result<()> {
    if let Err(error) = home.disk.sync_dir(&home.directory) {
        health.take_offline(format!("could not sync {}: {error}", home.directory.display()));
    }
    health.check()
}
