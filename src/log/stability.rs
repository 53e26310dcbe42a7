//! What of a log is stable: below every transaction that is open, or whose end may still be lost.
//!
//! A `read_committed` consumer sees what lies below the last stable offset: the high watermark, or the first unstable
//! offset if that is lower. Every fetch asks for it, so it is published in atomics, and no fetch waits for the producers.
//!
//! - `STB-1` a reader never takes an offset for stable that is not: it loads the high watermark first, and the first
//!   unstable offset afterwards. Whoever appends publishes a transaction's start before the log end, and the high watermark
//!   does not pass the log end. A transaction stops being unstable when its marker is below the high watermark (`PRD-2`), and
//!   then what was loaded before is stable anyway.
//! - `STB-2` what moves the high watermark takes the producers' lock only when it passes a marker.

use std::sync::atomic::{AtomicI64, Ordering};

use super::producers::Producers;
use crate::types::Offset;

const NONE: i64 = i64::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Stability {
    first_unstable: AtomicI64,
    first_marker: AtomicI64,
}

impl Stability {
    pub(super) const fn new() -> Self {
        Self { first_unstable: AtomicI64::new(NONE), first_marker: AtomicI64::new(NONE) }
    }

    /// Publishes what the producers say, with their lock held.
    pub(super) fn publish(&self, producers: &Producers) {
        let number = |offset: Option<Offset>| offset.map_or(NONE, |offset| offset.0);
        self.first_marker.store(number(producers.first_unstable_marker()), Ordering::Release);
        self.first_unstable.store(number(producers.first_unstable()), Ordering::Release);
    }

    /// Whether transactions become stable by this high watermark (`STB-2`).
    pub(super) fn is_changed_by(&self, high_watermark: Offset) -> bool {
        self.first_marker.load(Ordering::Acquire) < high_watermark.0
    }

    /// The first unstable offset, to be loaded after the high watermark (`STB-1`); above everything if there is none.
    pub(super) fn first_unstable(&self) -> Offset {
        Offset(self.first_unstable.load(Ordering::Acquire))
    }
}
