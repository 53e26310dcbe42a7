//! Counts the records of a scan while it is read, and compares the count with earlier readings.
//!
//! A scan is a value: reading it twice yields the same rows, or an error. If records are gone from
//! its start, a fetch fails. If compaction removed them from its middle, it does not;
//! [`crate::machine::client::seen`] notices that here, batch by batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::columnar::FetchedBytes;
use crate::error::{Error, Result};
use crate::machine::client::bounds::Offsets;
use crate::machine::client::seen::{Counted, Difference, Seen, Tally};
use crate::record::{Batch, BatchHeader, Batches};
use crate::types::{Offset, PartitionIndex, TopicPartition};

/// How many marks are kept for all partitions of a scan, and for one of them at least.
const MARKS_MAX: usize = 1 << 16;
const MARKS_MIN: usize = 16;

/// The largest uncompressed size of a batch whose records must be examined.
const UNCOMPRESSED_MAX: usize = 256 << 20;

/// What the readings of one scan have counted so far.
#[derive(Debug)]
pub(crate) struct Memory {
    partitions: Mutex<BTreeMap<PartitionIndex, Seen>>,
    marks_max: usize,
}

impl Memory {
    /// For a scan of this many partitions.
    pub(crate) fn new(partitions: usize) -> Self {
        let marks_max = (MARKS_MAX / partitions.max(1)).max(MARKS_MIN);
        Self { partitions: Mutex::default(), marks_max }
    }
}

/// The count of one reading.
#[derive(Debug)]
pub(crate) struct Recount {
    memory: Arc<Memory>,
    offsets: Arc<Offsets>,
    tallies: BTreeMap<PartitionIndex, Tally>,
    /// Whether a difference is logged, once, instead of being an error.
    is_tolerant: bool,
    /// What was found to be missing: the reading cannot continue.
    found: Option<(TopicPartition, String)>,
}

impl Recount {
    pub(crate) fn new(memory: Arc<Memory>, offsets: Arc<Offsets>, is_tolerant: bool) -> Self {
        let begin =
            |(&partition, range): (&PartitionIndex, &crate::machine::client::bounds::Range)| {
                (partition, Tally::new(range.start))
            };
        let tallies = offsets.partitions.iter().map(begin).collect();
        Self { memory, offsets, tallies, is_tolerant, found: None }
    }

    /// Checks that nothing was missing so far.
    ///
    /// # Errors
    ///
    /// What [`Self::add`] found.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.found {
            None => Ok(()),
            Some((partition, detail)) => {
                Err(Error::DataLoss { partition: partition.clone(), detail: detail.clone() })
            }
        }
    }

    /// Counts what was fetched from a partition, up to the position after it.
    ///
    /// # Errors
    ///
    /// [`Error::DataLoss`] when an earlier reading found other records there.
    pub(crate) fn add(&mut self, chunk: &FetchedBytes, next: Offset) -> Result<()> {
        let index = chunk.partition.partition;
        let (Some(tally), Some(range)) =
            (self.tallies.get_mut(&index), self.offsets.partitions.get(&index))
        else {
            return Ok(());
        };
        let mut partitions = self.memory.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = partitions.entry(index).or_insert_with(|| Seen::new(self.memory.marks_max));
        let mut visible = Visible::new(chunk);
        let mut difference = None;
        for batch in Batches::new(chunk.bytes.clone()) {
            let batch = batch?;
            let header = *batch.header();
            let is_shown = visible.pass(&header);
            let from = header.base_offset.max(range.start);
            let until = header.next_offset().min(range.end);
            if from >= until {
                continue;
            }
            let records = if is_shown { records_within(&batch, from, until)? } else { 0 };
            difference = seen.count(tally, Counted { from, until, records }).err();
            if difference.is_some() {
                break;
            }
        }
        let difference = difference.or_else(|| {
            let is_end = next >= range.end;
            let all = if is_end { Seen::finish } else { Seen::pass };
            all(seen, tally, next.min(range.end)).err()
        });
        drop(partitions);
        if let Some(difference) = difference {
            let detail = describe(range.start, &difference);
            if self.is_tolerant {
                tracing::warn!(partition = %chunk.partition, detail, "data loss");
                self.tallies.remove(&index);
            } else {
                self.found = Some((chunk.partition.clone(), detail));
            }
        }
        self.check()
    }
}

fn describe(start: Offset, difference: &Difference) -> String {
    let Difference { at, before, now } = difference;
    format!(
        "when this scan was read before, there were {before} records between the offsets {start} \
         and {at}, and now there are {now}: the topic has been compacted since; make a new scan to \
         read what is left of it, or pass on_data_loss=\"warn\""
    )
}

/// Decides which batches a reader sees: no control batches, and with `read_committed` nothing that
/// was aborted.
pub(super) struct Visible<'a> {
    chunk: &'a FetchedBytes,
    aborted_seen: usize,
    aborting: BTreeSet<i64>,
}

impl<'a> Visible<'a> {
    pub(super) const fn new(chunk: &'a FetchedBytes) -> Self {
        Self { chunk, aborted_seen: 0, aborting: BTreeSet::new() }
    }

    /// Whether the reader sees the next batch.
    pub(super) fn pass(&mut self, header: &BatchHeader) -> bool {
        let aborted = self.chunk.aborted.as_deref().unwrap_or_default();
        while let Some(next) = aborted.get(self.aborted_seen) {
            if next.first_offset > header.last_offset() {
                break;
            }
            self.aborting.insert(next.producer_id.0);
            self.aborted_seen = self.aborted_seen.saturating_add(1);
        }
        if header.is_control() {
            // A control batch is the marker that ends a transaction.
            self.aborting.remove(&header.producer_id.0);
            return false;
        }
        !(header.is_transactional() && self.aborting.contains(&header.producer_id.0))
    }
}

/// The records of a batch within some offsets. Only a compacted batch that spans a bound must be
/// examined.
fn records_within(batch: &Batch, from: Offset, until: Offset) -> Result<u64> {
    let header = batch.header();
    let all = u64::try_from(header.record_count).unwrap_or(0);
    let covered = header.next_offset().since(header.base_offset).unsigned_abs();
    if all == 0 || (from <= header.base_offset && header.next_offset() <= until) {
        return Ok(all);
    }
    if all == covered {
        return Ok(until.since(from).unsigned_abs());
    }
    let mut count = 0;
    for record in &batch.records(UNCOMPRESSED_MAX)? {
        if (from..until).contains(&record?.offset) {
            count += 1;
        }
    }
    Ok(count)
}
