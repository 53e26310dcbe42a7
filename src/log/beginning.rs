//! A log that begins in the middle: what lies before is in a tier, and this replica never had it, or has it no more.
//!
//! - `BEGIN-1` what is known at the beginning is there before the log begins: leader epochs and producers are durable before
//!   there is a segment. Wherever the power goes, the log that is opened next has all of it, or is empty and starts at 0
//!   (`CUT-3`).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::active::create_segment;
use super::epochs::{EpochCache, EpochEntry};
use super::layout;
use super::rebuild::{newest_snapshot, walk_producers};
use super::snapshot;
use super::writer::Log;
use crate::error::{Error, Result};
use crate::types::Offset;

/// What is known where a log begins.
#[derive(Clone)]
pub struct Beginning {
    /// The first offset on this disk.
    pub offset: Offset,
    /// Where the log starts altogether.
    pub log_start: Offset,
    /// Which leader wrote which offsets before.
    pub epochs: Vec<EpochEntry>,
    /// The producers there, as a `.snapshot` file.
    pub producers: Bytes,
}

impl fmt::Debug for Beginning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, log_start, epochs, producers: _ } = self;
        let mut written = formatter.debug_struct("Beginning");
        written.field("offset", offset).field("log_start", log_start).field("epochs", epochs);
        written.finish_non_exhaustive()
    }
}

impl Beginning {
    /// Fails when what is known contradicts itself, or cannot be read.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`].
    pub fn check(&self) -> Result<()> {
        self.known().map(drop)
    }

    fn known(&self) -> Result<EpochCache> {
        let Self { offset, log_start, epochs, producers } = self;
        let refused = |detail: &str| {
            Err(Error::invalid(format!("no log begins at {offset} with what is known: {detail}")))
        };
        if log_start > offset {
            return refused("the log starts behind it");
        }
        if let Err(detail) = snapshot::decode(producers) {
            return refused(&detail);
        }
        let Some(mut epochs) = EpochCache::of(epochs) else {
            return refused("the leader epochs do not ascend");
        };
        epochs.truncate_end(*offset);
        epochs.truncate_start(*log_start);
        Ok(epochs)
    }
}

impl Log {
    /// Deletes everything, and begins at the offset with what is known there. What the checkpoints say of this log must have
    /// been lowered to 0 before, see [`Log::truncate_to`]. Returns the offset.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] below the high watermark, or when what is known contradicts itself: nothing is changed
    /// then. [`Error::Io`]; the log must then be reopened.
    pub fn begin_at(&mut self, beginning: &Beginning) -> Result<Offset> {
        let Beginning { offset, log_start, .. } = *beginning;
        self.check_committed(offset)?;
        self.shared.health.check()?;
        let epochs = beginning.known()?;
        self.doom_all()?;
        // What is known of the new beginning says nothing of the old one.
        self.sync_dir()?;
        self.shared.epochs.store(Arc::new(epochs));
        self.forget_derived(Offset::UNKNOWN)?;
        self.write_durable_snapshot(offset, &beginning.producers)?;
        self.active = create_segment(&self.home, &self.shared, &self.config, offset, &self.env)?;
        self.shared.aborted_mut().clear();
        self.start_empty((log_start, offset))?;
        Ok(offset)
    }

    /// The producers as of an offset where a segment was begun, as a `.snapshot` file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Corrupt`].
    pub fn producer_snapshot(&self, offset: Offset) -> Result<Bytes> {
        let path = layout::file(&self.home.directory, offset, layout::SNAPSHOT);
        let bytes = self.home.disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
        if let Some(bytes) = bytes.filter(|bytes| snapshot::decode(bytes).is_ok()) {
            return Ok(bytes.into());
        }
        // A crash has taken it; the batches say the same.
        let earlier = self.snapshots()?.into_iter().map(|(at, _)| at).filter(|at| *at < offset);
        let earlier: Vec<Offset> = earlier.collect();
        let start = self.shared.local_start();
        let (mut producers, from) = newest_snapshot(&self.home, &earlier, start)?;
        walk_producers(&self.shared, &mut producers, from..offset)?;
        Ok(snapshot::encode(&producers).into())
    }

    /// Writes a snapshot that is durable when this returns, with its name.
    pub(super) fn write_durable_snapshot(&self, offset: Offset, bytes: &[u8]) -> Result<()> {
        let path = layout::file(&self.home.directory, offset, layout::SNAPSHOT);
        let written = self.home.disk.write_atomically(&path, bytes);
        written.map_err(|error| Error::io("write", &path, error))
    }
}
