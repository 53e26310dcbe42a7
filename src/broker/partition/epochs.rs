//! What the epochs of leaders tell those who read: where one ended, and where two logs part.

use super::Partition;
use crate::error::{Error, Result};
use crate::log::{Divergence, EpochEnd};
use crate::machine::fetch_session::FetchInterest;
use crate::types::LeaderEpoch;

impl Partition {
    /// Where an epoch ends; `None` when the log does not reach back to it.
    pub(in crate::broker) fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        self.reader.end_offset_for_epoch(epoch)
    }

    /// Where the log of a fetcher that states the last epoch it read diverges from this one
    /// (KIP-595).
    pub(super) fn divergence(&self, interest: &FetchInterest) -> Result<Option<EpochEnd>> {
        let (epoch, offset) = (interest.last_fetched_epoch, interest.fetch_offset);
        if epoch.0 < 0 {
            return Ok(None);
        }
        let start = self.reader.log_start_offset();
        match self.reader.divergence(epoch, offset) {
            Divergence::None if offset >= start => Ok(None),
            Divergence::At(end) if offset >= start => Ok(Some(end)),
            _ => Err(Error::OffsetOutOfRange {
                partition: self.name.clone(),
                offset,
                start,
                end: self.reader.log_end_offset(),
            }),
        }
    }
}
