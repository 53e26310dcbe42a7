//! Which ranges of a segment had their checksums verified in this process.
//!
//! A batch on disk may have rotted there. So the first read of a range checks the CRC of every
//! batch in it, and later reads do not: the cost is paid once per range and process. What this
//! process appended itself counts as verified (append validates the CRC, and the bytes are served
//! from the page cache that they were written to), and so does what recovery scanned.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Islands beyond this number are forgotten, and checked again when they are read again.
const ISLANDS_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Verified {
    /// Everything below it was checked: grows with a reader that starts at the beginning.
    prefix: AtomicU64,
    /// Everything from here on was appended or recovered by this process.
    own: AtomicU64,
    /// Checked ranges between the two, start → end, neither touching nor overlapping.
    islands: Mutex<BTreeMap<u64, u64>>,
}

impl Verified {
    /// Nothing below `own` is checked, everything from there on is.
    pub(super) fn from(own: u64) -> Self {
        Self {
            prefix: AtomicU64::new(0),
            own: AtomicU64::new(own),
            islands: Mutex::new(BTreeMap::new()),
        }
    }

    /// Sets the position from which on everything is checked.
    pub(super) fn set_own(&self, own: u64) {
        self.own.store(own, Ordering::Release);
    }

    pub(super) fn covers(&self, range: &Range<u64>) -> bool {
        let prefix = self.prefix.load(Ordering::Acquire);
        let own = self.own.load(Ordering::Acquire);
        if range.end <= prefix || range.start >= own || prefix >= own {
            return true;
        }
        let islands = self.islands.lock().unwrap_or_else(PoisonError::into_inner);
        let start = range.start.max(prefix);
        let end = range.end.min(own);
        islands.range(..=start).next_back().is_some_and(|(_, &island_end)| island_end >= end)
    }

    pub(super) fn mark(&self, range: Range<u64>) {
        let mut islands = self.islands.lock().unwrap_or_else(PoisonError::into_inner);
        let Range { mut start, mut end } = range;
        let touching: Vec<(u64, u64)> = islands
            .range(..=end)
            .rev()
            .take_while(|&(_, &island_end)| island_end >= start)
            .map(|(&from, &to)| (from, to))
            .collect();
        for (from, to) in touching {
            islands.remove(&from);
            start = start.min(from);
            end = end.max(to);
        }
        if start <= self.prefix.load(Ordering::Acquire) {
            self.prefix.fetch_max(end, Ordering::AcqRel);
        } else {
            if islands.len() >= ISLANDS_MAX {
                islands.clear();
            }
            islands.insert(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_reach_the_own_part() {
        let verified = Verified::from(1000);
        assert!(verified.covers(&(1000..5000)));
        assert!(!verified.covers(&(999..5000)));
        verified.mark(100..200);
        verified.mark(300..400);
        assert!(verified.covers(&(120..200)) && !verified.covers(&(120..201)));
        verified.mark(200..300);
        assert!(verified.covers(&(100..400)) && !verified.covers(&(99..400)));
        verified.mark(0..100);
        assert!(verified.covers(&(0..400)) && !verified.covers(&(0..401)));
        verified.mark(400..1000);
        assert!(verified.covers(&(0..9999)));
    }

    #[test]
    fn nothing_is_checked_twice_against_a_model() {
        let verified = Verified::from(500);
        let mut model = [false; 500];
        let mut seed = 7_u64;
        for _ in 0..2000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let start = (seed >> 33) % 500;
            let end = (start + 1 + (seed >> 50) % 40).min(500);
            let known = model[start as usize..end as usize].iter().all(|&seen| seen);
            assert_eq!(verified.covers(&(start..end)), known);
            if seed.is_multiple_of(3) {
                verified.mark(start..end);
                model[start as usize..end as usize].fill(true);
            }
        }
    }
}
