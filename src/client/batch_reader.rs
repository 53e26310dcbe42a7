//! One reading of a partition of a scan as the batches of the log, for whoever keeps them as they are.
//!
//! It is the reading of [`super::ScanReader`] without its decoder: the same range, the same promise that a second reading
//! finds the same records, and the same view of transactions.

use std::collections::VecDeque;

use super::consumer::Prefetcher;
use super::recount::{Recount, Visible};
use crate::error::Result;
use crate::record::{Batch, Batches};

/// A batch of a scan.
#[derive(Clone, Debug)]
pub struct ScannedBatch {
    /// The batch, whole: it may begin before the range of the scan, and end behind it.
    pub batch: Batch,
    /// Whether the scan shows its records: they are data, and are not left out because their transaction was aborted.
    pub is_shown: bool,
}

/// Reads the batches of a partition, in order.
#[derive(Debug)]
pub struct BatchReader {
    prefetcher: Prefetcher,
    recount: Recount,
    fetched: VecDeque<ScannedBatch>,
}

impl BatchReader {
    pub(super) const fn new(prefetcher: Prefetcher, recount: Recount) -> Self {
        Self { prefetcher, recount, fetched: VecDeque::new() }
    }

    /// The next batch; none at the end.
    ///
    /// # Errors
    ///
    /// [`Error::DataLoss`](crate::error::Error::DataLoss) when records of the range do not exist any more, or what a
    /// broker refused.
    pub async fn next(&mut self) -> Result<Option<ScannedBatch>> {
        loop {
            if let Some(batch) = self.fetched.pop_front() {
                return Ok(Some(batch));
            }
            self.recount.check()?;
            let (chunk, next) = match self.prefetcher.try_next()? {
                (Some(chunk), _) => chunk,
                (None, true) => return Ok(None),
                (None, false) => {
                    self.prefetcher.wait().await;
                    continue;
                }
            };
            self.recount.add(&chunk, next.offset)?;
            let mut visible = Visible::new(&chunk);
            for batch in Batches::new(chunk.bytes.clone()) {
                let batch = batch?;
                let header = *batch.header();
                let is_shown = visible.pass(&header);
                if header.last_offset() >= chunk.start && header.base_offset < chunk.end {
                    self.fetched.push_back(ScannedBatch { batch, is_shown });
                }
            }
        }
    }
}
