//! What a follower appends: the leader's batches, as they are.
//!
//! - `COPY-1` what is copied has the leader's bytes, its offsets and epochs included, and follows what is there
//!   (`LOG-7`). Its checksums are verified before anything is written.

use bytes::Bytes;

use super::append::Prepared;
use super::writer::Log;
use crate::error::{Error, Result};
use crate::record::Batches;
use crate::types::{LeaderEpoch, Offset, TimestampMs};

impl Log {
    /// Appends a leader's batches with the offsets and epochs that they have, up to the first of an epoch above
    /// `leader_epoch`: a later leader wrote it after the one that was asked. Returns the log end offset.
    ///
    /// # Errors
    ///
    /// [`Error::Kafka`] with `CORRUPT_MESSAGE` for damaged batches, [`Error::InvalidArgument`] for
    /// batches that do not continue the log: nothing is appended then; otherwise as [`Log::append_as_leader`].
    pub fn append_as_follower(
        &mut self,
        records: &Bytes,
        leader_epoch: LeaderEpoch,
        now: TimestampMs,
    ) -> Result<Offset> {
        self.shared.health.check()?;
        let copied = self.prepare_copied(records, leader_epoch)?;
        let segment_bytes = self.config.segment_bytes as usize;
        let mut rest = copied.as_slice();
        while !rest.is_empty() {
            let mut size = 0;
            let fits = |batch: &&Prepared| {
                size += batch.header.size_bytes;
                size <= segment_bytes
            };
            // One that was written when segments could be larger has a segment to itself.
            let count = rest.iter().take_while(fits).count().max(1);
            let (first, others) = rest.split_at(count);
            self.write(first, now)?;
            rest = others;
        }
        Ok(self.log_end_offset())
    }

    /// Checks that batches continue the log.
    fn prepare_copied(&self, records: &Bytes, leader_epoch: LeaderEpoch) -> Result<Vec<Prepared>> {
        let mut prepared = Vec::new();
        let mut next = self.log_end_offset();
        let mut latest = self.shared.epochs.load().latest();
        let mut batches = Batches::new(records.clone());
        for batch in &mut batches {
            let batch = batch?;
            batch.verify_crc()?;
            let (base, epoch) = (batch.header().base_offset, batch.header().leader_epoch);
            if epoch > leader_epoch {
                break;
            }
            if epoch.0 >= 0 {
                self.check_epoch(epoch, latest)?;
                latest = Some(epoch);
            }
            if base < next || base > next && !self.home.gaps() {
                let name = &self.shared.partition;
                let detail = format!("a batch at offset {base} does not continue {name} at {next}");
                return Err(Error::invalid(detail));
            }
            next = batch.header().next_offset();
            prepared.push(Prepared::as_is(batch)?);
        }
        Ok(prepared)
    }
}
