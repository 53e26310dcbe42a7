//! What the readings of a scan counted, so that a later one notices what is missing.
//!
//! Compaction removes records from the middle of a log, and no broker's answer shows it. But a batch
//! keeps the range of its offsets when it is compacted, and states how many records it holds. So two
//! readings that count records up to the same offset get the same number, unless something was
//! removed in between.
//!
//! ```text
//!   first reading    │ 10 records │ 10 records │ 10 records │      marks: 10, 20, 30
//!   after compaction │ 1 record │              │ 2 records  │              1 ≠ 10: noticed
//! ```
//!
//! Invariants:
//! - SEE-1: two readings of the same records never differ, however they end, and whatever marks were
//!   dropped.
//! - SEE-2: a record that one reading counted and a later one does not is noticed at the first mark
//!   after it; the end of the range is a mark.
//! - SEE-3: the memory is bounded by a number of marks.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::types::Offset;

/// A position in a partition, and how many records precede it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    at: Offset,
    records: u64,
}

/// How far one reading of a partition has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    at: Offset,
    records: u64,
}

impl Tally {
    /// The start of a reading.
    #[must_use]
    pub const fn new(start: Offset) -> Self {
        Self { at: start, records: 0 }
    }

    /// The offset up to which it has counted.
    #[must_use]
    pub const fn at(&self) -> Offset {
        self.at
    }
}

/// The part of a batch that is in the range of the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The first offset that it covers.
    pub from: Offset,
    /// The offset after the last one.
    pub until: Offset,
    /// The records in it that a reader sees.
    pub records: u64,
}

/// Two readings counted differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Up to this offset.
    pub at: Offset,
    /// What an earlier reading counted.
    pub before: u64,
    /// What this reading counted.
    pub now: u64,
}

/// What was counted in one partition. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Seen {
    /// In order; the furthest reading added the last ones.
    marks: Vec<Mark>,
    marks_max: usize,
    /// A mark is added after this many batches.
    stride: u64,
    /// The batches since the last mark.
    unmarked: u64,
}

impl Seen {
    /// Nothing yet; at least two marks are kept.
    #[must_use]
    pub const fn new(marks_max: usize) -> Self {
        let marks_max = if marks_max < 2 { 2 } else { marks_max };
        Self { marks: Vec::new(), marks_max, stride: 1, unmarked: 0 }
    }

    /// Counts a batch of a reading; batches come in the order of their offsets.
    ///
    /// # Errors
    ///
    /// An earlier reading found another number of records up to here.
    pub fn count(&mut self, tally: &mut Tally, batch: Counted) -> Result<(), Difference> {
        if batch.until <= tally.at {
            return Ok(());
        }
        self.pass(tally, batch.from)?;
        let records = tally.records.saturating_add(batch.records);
        // What an earlier reading recorded within this batch cannot be compared with it.
        let end = self.marks.partition_point(|mark| mark.at < batch.until);
        if let Some(mark) = self.marks.get(end).filter(|mark| mark.at == batch.until) {
            compare(*mark, records)?;
        }
        *tally = Tally { at: batch.until, records };
        if self.is_news(tally.at) {
            self.unmarked = self.unmarked.saturating_add(1);
            if self.unmarked >= self.stride {
                self.mark(*tally);
            }
        }
        Ok(())
    }

    /// Counts nothing up to a position: there are no more batches before it.
    ///
    /// # Errors
    ///
    /// An earlier reading found some there.
    pub fn pass(&mut self, tally: &mut Tally, position: Offset) -> Result<(), Difference> {
        if position <= tally.at {
            return Ok(());
        }
        let first = self.marks.partition_point(|mark| mark.at <= tally.at);
        let behind = self.marks.get(first..).unwrap_or_default();
        for mark in behind.iter().take_while(|mark| mark.at <= position) {
            compare(*mark, tally.records)?;
        }
        tally.at = position;
        Ok(())
    }

    /// A reading is at the end of the range.
    ///
    /// # Errors
    ///
    /// An earlier reading found another number of records in the whole range.
    pub fn finish(&mut self, tally: &mut Tally, end: Offset) -> Result<(), Difference> {
        self.pass(tally, end)?;
        if self.is_news(end) {
            self.mark(Tally { at: end, ..*tally });
        }
        Ok(())
    }

    fn is_news(&self, at: Offset) -> bool {
        self.marks.last().is_none_or(|last| last.at < at)
    }

    fn mark(&mut self, tally: Tally) {
        if self.marks.len() >= self.marks_max {
            let mut keep = self.marks.len().is_multiple_of(2);
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride = self.stride.saturating_mul(2);
        }
        self.marks.push(Mark { at: tally.at, records: tally.records });
        self.unmarked = 0;
    }
}

const fn compare(mark: Mark, now: u64) -> Result<(), Difference> {
    if mark.records == now {
        return Ok(());
    }
    Err(Difference { at: mark.at, before: mark.records, now })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;

    /// The batches of a log: the offsets that each covers, and the records that are left of them.
    type Log = Vec<(Range<i64>, u64)>;

    fn log() -> impl Strategy<Value = Log> {
        // How long a batch is, how much of it an earlier compaction left, and the gap behind it.
        prop::collection::vec((1_i64..8, 0_u64..9, 0_i64..4), 1..60).prop_map(|batches| {
            let mut next = 0;
            let batch = |(length, left, gap): (i64, u64, i64)| {
                let from = next;
                next = from + length + gap;
                (from..from + length, left.min(length.unsigned_abs()))
            };
            batches.into_iter().map(batch).collect()
        })
    }

    fn end(log: &Log) -> Offset {
        Offset(log.last().map_or(0, |(range, _)| range.end + 3))
    }

    /// Reads some batches, or all and to the end.
    fn read(seen: &mut Seen, log: &Log, batches: Option<usize>) -> Result<(), Difference> {
        let mut tally = Tally::new(Offset::ZERO);
        for (range, records) in log.iter().take(batches.unwrap_or(usize::MAX)) {
            let (from, until) = (Offset(range.start), Offset(range.end));
            seen.count(&mut tally, Counted { from, until, records: *records })?;
        }
        match batches {
            Some(_) => Ok(()),
            None => seen.finish(&mut tally, end(log)),
        }
    }

    proptest! {
        #[test]
        fn readings_of_the_same_records_never_differ(
            log in log(),
            marks_max in 2_usize..12,
            readings in prop::collection::vec(prop::option::of(0_usize..70), 1..6),
        ) {
            let mut seen = Seen::new(marks_max);
            for batches in readings {
                prop_assert_eq!(read(&mut seen, &log, batches), Ok(()));
                prop_assert!(seen.marks.len() <= marks_max.max(2));
                prop_assert!(seen.marks.is_sorted_by_key(|mark| mark.at));
            }
        }

        #[test]
        fn a_record_that_was_counted_is_missed(
            log in log(),
            marks_max in 2_usize..12,
            first in prop::option::of(0_usize..70),
            removed in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..8),
        ) {
            let mut seen = Seen::new(marks_max);
            read(&mut seen, &log, first).unwrap();
            read(&mut seen, &log, None).unwrap();
            let mut compacted = log.clone();
            for (index, whole) in removed {
                let (_, records) = &mut compacted[index.index(log.len())];
                *records = if whole { 0 } else { records.saturating_sub(1) };
            }
            let count = |log: &Log| log.iter().map(|(_, records)| records).sum::<u64>();
            let is_less = count(&compacted) < count(&log);
            // Batches without records may be gone altogether.
            let mut bare = compacted.clone();
            bare.retain(|(_, records)| *records > 0);
            for now in [&compacted, &bare] {
                let mut tally = Tally::new(Offset::ZERO);
                let mut found = Ok(());
                for (range, records) in now {
                    let (from, until) = (Offset(range.start), Offset(range.end));
                    let batch = Counted { from, until, records: *records };
                    found = found.and_then(|()| seen.count(&mut tally, batch));
                }
                found = found.and_then(|()| seen.finish(&mut tally, end(&log)));
                prop_assert_eq!(found.is_err(), is_less);
            }
        }
    }

    #[test]
    fn a_reading_that_was_broken_off_is_a_measure_too() {
        let mut seen = Seen::new(100);
        let log: Log = (0..10).map(|batch| (batch * 10..batch * 10 + 10, 10)).collect();
        read(&mut seen, &log, Some(2)).unwrap();
        let mut compacted = log.clone();
        compacted[3].1 = 1;
        let mut other = seen.clone();
        assert_eq!(read(&mut other, &compacted, None), Ok(()), "nobody had counted so far");
        compacted[1].1 = 1;
        let difference = Difference { at: Offset(20), before: 20, now: 11 };
        assert_eq!(read(&mut seen, &compacted, Some(2)), Err(difference));
    }
}
