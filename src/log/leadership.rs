//! The leaders' epochs of a log, as its writer keeps them.
//!
//! - `EPOCH-1` the epoch of a record is at least that of the one before it.
//! - `EPOCH-2` an epoch starts at the log end when its leader is made, as in Kafka (`Partition.makeLeader`):
//!   between that and its first record, the leader knows already where every older epoch ended. Without it, a follower
//!   with records of an epoch that this log never had would be told that it is not known, and keep them.

use std::sync::Arc;

use super::epochs::EpochEntry;
use super::writer::Log;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, Result};
use crate::record::BatchHeader;
use crate::types::{LeaderEpoch, Offset};

impl Log {
    /// Makes this the log of a leader of `epoch`, which starts at the log end (`EPOCH-2`). Returns where.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] when the log has records of a later epoch (`EPOCH-1`).
    pub fn start_epoch(&mut self, epoch: LeaderEpoch) -> Result<Offset> {
        let (end, current) = (self.log_end_offset(), self.shared.epochs.load());
        self.check_epoch(epoch, current.latest())?;
        #[cfg(feature = "sim")]
        if is_planted(Mutation::StartsEpochsLate) {
            return Ok(end);
        }
        let mut changed = (**current).clone();
        // Not dirty: an epoch without records is forgotten when the log is opened, and started again by whoever
        // is then made leader. Its first record makes it so.
        if changed.assign(epoch, end) {
            self.shared.epochs.store(Arc::new(changed));
        }
        Ok(end)
    }

    /// Makes this the log of a follower: epochs that began here and have no records are forgotten. The next leader may
    /// have records at these offsets that are of an earlier epoch.
    pub fn forget_empty_epochs(&mut self) {
        let mut changed = (**self.shared.epochs.load()).clone();
        if changed.truncate_end(self.log_end_offset()) {
            self.shared.epochs.store(Arc::new(changed));
        }
    }

    /// `EPOCH-1`.
    pub(super) fn check_epoch(
        &self,
        epoch: LeaderEpoch,
        latest: Option<LeaderEpoch>,
    ) -> Result<()> {
        match latest {
            Some(latest) if epoch < latest => {
                let name = &self.shared.partition;
                let detail =
                    format!("{name} has leader epoch {latest} and cannot go back to {epoch}");
                Err(Error::invalid(detail))
            }
            _ => Ok(()),
        }
    }

    /// Notes the epoch of a batch that was written.
    pub(super) fn note_epoch(&self, header: &BatchHeader) {
        let current = self.shared.epochs.load();
        let first = EpochEntry { epoch: header.leader_epoch, start_offset: header.base_offset };
        if current.entries().last() == Some(&first) {
            // The first record of an epoch that began before it.
            self.shared.dirty().epochs();
        } else if header.leader_epoch.0 >= 0 && current.latest() != Some(header.leader_epoch) {
            let mut changed = (**current).clone();
            if changed.assign(header.leader_epoch, header.base_offset) {
                self.shared.epochs.store(Arc::new(changed));
                self.shared.dirty().epochs();
            }
        }
    }
}
