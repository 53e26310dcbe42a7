//! Making a log durable on another thread while appends go on (group commit).
//!
//! [`Log::sync_handle`](super::Log::sync_handle) notes what is dirty; [`SyncHandle::run`] syncs it on any
//! thread and then moves the recovery point. Appends that arrive meanwhile belong to the next handle.
//!
//! `SYN-1`: the recovery point moves only after every byte below it, the names of the files and the leader
//! epochs are on disk. `SYN-2`: a failed sync takes the log directory offline and is never retried;
//! the kernel may have dropped the dirty pages.

use std::path::Path;
use std::sync::Arc;

use super::layout;
use super::shared::Shared;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::env::{Disk, File};
use crate::error::{Error, Result};
use crate::types::Offset;

/// What must be synced for the log to be durable up to an offset. Dropping it without running it
/// loses nothing but that sync: the next handle covers the same changes and later ones.
#[derive(Debug)]
pub struct SyncHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: Arc<Path>,
    pub(super) generation: u64,
    pub(super) end: Offset,
    /// The handle includes everything that was dirty up to this mark of [`super::shared::Dirty`].
    pub(super) mark: u64,
    pub(super) files: Vec<Arc<dyn File>>,
    pub(super) directory_dirty: bool,
    /// The text of the leader epochs, when it changed.
    pub(super) epochs: Option<String>,
}

impl SyncHandle {
    /// The log is durable up to here (exclusive) once the handle has run.
    #[must_use]
    pub const fn end_offset(&self) -> Offset {
        self.end
    }

    /// Syncs, and returns the recovery point. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Offline`] after a failed sync, and for every later use of the log directory;
    /// [`Error::Io`] when the disk is too full to write the leader epochs, in which case a later
    /// handle may succeed.
    pub fn run(self) -> Result<Offset> {
        self.shared.health.check()?;
        self.write_epochs()?;
        let synced = self.sync();
        #[cfg(feature = "sim")]
        let synced = if is_planted(Mutation::IgnoresFailedSync) { Ok(()) } else { synced };
        if let Err(error) = synced {
            self.shared.health.take_offline(error.chain());
            self.shared.health.check()?;
        }
        self.shared.dirty().done(self.mark);
        let mut synced = self.shared.synced();
        if synced.generation == self.generation {
            synced.recovery_point = synced.recovery_point.max(self.end);
        }
        Ok(synced.recovery_point)
    }

    fn write_epochs(&self) -> Result<()> {
        let Some(text) = &self.epochs else { return Ok(()) };
        let path = self.directory.join(layout::LEADER_EPOCHS);
        self.disk.write_atomically(&path, text.as_bytes()).map_err(|error| {
            let full = is_full(&error);
            let error = Error::io("write", &path, error);
            if !full {
                self.shared.health.take_offline(error.chain());
            }
            error
        })
    }

    fn sync(&self) -> Result<()> {
        let failed = |error| Error::io("sync", &*self.directory, error);
        for file in &self.files {
            file.sync_data().map_err(failed)?;
        }
        if self.directory_dirty {
            self.disk.sync_dir(&self.directory).map_err(failed)?;
        }
        Ok(())
    }
}

/// Whether a write failed because the disk was full, which may pass.
pub(super) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
