//! How far a segment is committed, as a position in its file.
//!
//! What lies below the high watermark is never cut but by an unclean election, so it may be mapped and
//! given away. What lies above may be cut at any time, as the tail that no leader has, and a page of a mapping that
//! lost its file raises SIGBUS: it is read into buffers (`CUT-1`, see `log/truncation.rs`).
//!
//! The high watermark is an offset and moves without the log's writer, so the writer leaves a mark for each batch
//! that it appends, and whoever moves the high watermark turns the marks below it into a position. Marks may be
//! missing: then the position is lower than it could be, and a little more is read into buffers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::Offset;

/// How many marks a segment keeps. With more batches above the high watermark than this, every second mark goes.
const MARKS_MAX: usize = 1024;

/// The end of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) next_offset: Offset,
    pub(super) position: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Committed {
    position: AtomicU64,
    /// The ends of batches above `position`, ascending.
    marks: Mutex<VecDeque<Mark>>,
}

impl Committed {
    /// Every batch that starts below it lies below the high watermark.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Notes the ends of batches that were appended.
    pub(super) fn appended(&self, ends: impl Iterator<Item = Mark>) {
        let mut marks = self.marks();
        for end in ends {
            if marks.len() >= MARKS_MAX {
                let mut keep = true;
                marks.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            marks.push_back(end);
        }
    }

    /// The high watermark moved to `offset`; false when no mark says how far that is.
    pub(super) fn advance(&self, offset: Offset) -> bool {
        let mut marks = self.marks();
        let passed = marks.partition_point(|mark| mark.next_offset <= offset);
        let Some(last) = marks.drain(..passed).next_back() else { return false };
        self.position.fetch_max(last.position, Ordering::AcqRel);
        true
    }

    /// Everything below `position` is known to lie below the high watermark.
    pub(super) fn reach(&self, position: u64) {
        let mut marks = self.marks();
        let passed = marks.partition_point(|mark| mark.position <= position);
        drop(marks.drain(..passed));
        self.position.fetch_max(position, Ordering::AcqRel);
    }

    /// The last known end of a batch that is not above `offset`.
    pub(super) fn floor(&self, offset: Offset) -> Option<Mark> {
        let marks = self.marks();
        let passed = marks.partition_point(|mark| mark.next_offset <= offset);
        marks.get(passed.checked_sub(1)?).copied()
    }

    fn marks(&self) -> MutexGuard<'_, VecDeque<Mark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(count: i64) -> Mark {
        Mark { next_offset: Offset(count * 3), position: count.unsigned_abs() * 100 }
    }

    #[test]
    fn the_position_follows_the_high_watermark_by_whole_batches() {
        let committed = Committed::default();
        committed.appended((1..=4).map(mark));
        assert!(!committed.advance(Offset(2)));
        assert_eq!(committed.position(), 0);
        assert!(committed.advance(Offset(7)), "in the middle of the third batch");
        assert_eq!(committed.position(), 200);
        assert_eq!(committed.floor(Offset(6)), None, "passed marks are gone");
        assert_eq!(committed.floor(Offset(11)), Some(mark(3)));
        committed.reach(400);
        assert_eq!((committed.position(), committed.floor(Offset(99))), (400, None));
        assert!(!committed.advance(Offset(99)));
    }

    #[test]
    fn many_uncommitted_batches_make_the_position_coarse_but_never_too_high() {
        let committed = Committed::default();
        let count = 10 * i64::try_from(MARKS_MAX).unwrap();
        committed.appended((1..=count).map(mark));
        assert!(committed.marks().len() <= MARKS_MAX);
        for batch in 1..=count {
            committed.advance(Offset(batch * 3));
            assert!(committed.position() <= batch.unsigned_abs() * 100);
        }
        assert_eq!(committed.position(), count.unsigned_abs() * 100);
    }
}
