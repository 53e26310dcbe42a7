//! Compaction: keeps the last record of each key (`cleanup.policy=compact`).
//!
//! Why: a topic that holds state (`__consumer_offsets`, a table of changes) would otherwise grow forever,
//! and reading it back would take ever longer. The rules are Apache Kafka's (`LogCleaner`).
//!
//! ```text
//!   clean                       dirty                       not yet
//! ├───────────────────────────┼───────────────────────────┼──────────────┤
//! 0                      first dirty              first uncleanable   log end
//!                                                  (LSO, active segment, min.compaction.lag.ms)
//!
//!  1. the keys of the dirty part go into a map, until it is full        (the "end" of the round)
//!  2. all segments below the end are written anew, several small ones into one:
//!     X.log.cleaned ─ synced ─▶ X.log.swap ─ the old ones removed ─▶ X.log
//! ```
//!
//! A [`Cleaner`] does the reading and writing on any thread, in steps, and takes no lock; only
//! [`Log::replace_segments`](super::Log::replace_segments) belongs to the log's writer, and is short.
//!
//! # Invariants
//!
//! - `CMP-1` to `CMP-5`: what is kept, see `filter.rs`.
//! - `CMP-6`: a crash at any call leaves either the old segments or the new one, see `swap.rs`.
//! - `CMP-7`: the active segment and what is not durable are not touched.
//! - `CMP-8`: readers that hold the old segments keep reading them: their files are mapped before the
//!   names refer to other files, and nothing is written into a file that has been published.
//! - `CMP-9`: memory is bounded by [`CleanerLimits`] and the largest batch.

mod cleaner;
mod filter;
mod offset_map;
mod output;
pub(super) mod swap;
mod transactions;

use super::config::LogConfig;
use super::reader::LogReader;
use crate::error::Result;
use crate::types::{Offset, TimestampMs};

pub use cleaner::{Cleaner, CleanerSummary, Progress};
pub use output::Cleaned;

/// How much memory a cleaner may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanerLimits {
    /// For the map of keys (`log.cleaner.dedupe.buffer.size` by the number of threads).
    pub map_bytes: usize,
    /// How full the map may get (`log.cleaner.io.buffer.load.factor`).
    pub load_factor: f64,
    /// How much is collected before it is written (`log.cleaner.io.buffer.size` by the number of
    /// threads).
    pub buffer_bytes: usize,
}

impl Default for CleanerLimits {
    /// Apache Kafka's defaults.
    fn default() -> Self {
        Self { map_bytes: 128 << 20, load_factor: 0.9, buffer_bytes: 512 << 10 }
    }
}

/// How much there is to compact in a log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dirtiness {
    /// Everything below it is clean.
    pub first_dirty: Offset,
    /// Nothing from here on may be compacted yet.
    pub first_uncleanable: Offset,
    /// The size of the clean segments.
    pub clean_bytes: u64,
    /// The size of the segments that may be compacted and are not yet.
    pub dirty_bytes: u64,
    /// Whether a record has waited longer than `max.compaction.lag.ms`.
    pub overdue: bool,
    /// Whether compaction should run now.
    pub is_due: bool,
}

impl Dirtiness {
    /// The dirty fraction of what may be compacted; 0 when there is nothing.
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no 52 bits")]
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let total = self.clean_bytes.saturating_add(self.dirty_bytes);
        if total == 0 { 0.0 } else { self.dirty_bytes as f64 / total as f64 }
    }
}

impl LogReader {
    /// How much there is to compact. `clean_until` comes from
    /// [`super::LogDirectory::cleaner_offset`]. May read indexes.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Io`], [`crate::error::Error::Corrupt`].
    pub fn dirtiness(
        &self,
        config: &LogConfig,
        clean_until: Option<Offset>,
        now: TimestampMs,
    ) -> Result<Dirtiness> {
        let start = self.log_start_offset();
        let view = self.shared.view.load_full();
        let Some((active, sealed)) = view.segments.split_last() else {
            return Ok(Dirtiness::nothing(start));
        };
        // A checkpoint beyond the log belongs to another log of that name: everything is dirty.
        let known = clean_until.filter(|&known| known >= start && known <= self.log_end_offset());
        let first_dirty = known.unwrap_or(start);
        let mut upper = self.last_stable_offset().min(active.base_offset);
        let dirty = || sealed.iter().filter(|segment| segment.next_offset() > first_dirty);
        if config.min_compaction_lag_ms > 0 {
            let limit = now.0.saturating_sub(config.min_compaction_lag_ms);
            for segment in dirty().take_while(|segment| segment.base_offset < upper) {
                if segment.max_timestamp()?.0 > limit {
                    upper = segment.base_offset;
                    break;
                }
            }
        }
        let mut found = Dirtiness::nothing(first_dirty);
        found.first_uncleanable = upper.max(first_dirty);
        for segment in sealed {
            if segment.next_offset() <= first_dirty {
                found.clean_bytes += segment.size();
            } else if segment.base_offset < found.first_uncleanable {
                found.dirty_bytes += segment.size();
            }
        }
        if found.first_uncleanable == first_dirty {
            found.dirty_bytes = 0;
        }
        if config.max_compaction_lag_ms < i64::MAX {
            let limit = now.0.saturating_sub(config.max_compaction_lag_ms);
            for segment in dirty() {
                found.overdue |= segment.first_timestamp()?.is_some_and(|first| first.0 < limit);
            }
        }
        found.is_due = found.dirty_bytes > 0
            && (found.overdue || found.ratio() > config.min_cleanable_dirty_ratio);
        Ok(found)
    }
}

impl Dirtiness {
    const fn nothing(first_dirty: Offset) -> Self {
        Self {
            first_dirty,
            first_uncleanable: first_dirty,
            clean_bytes: 0,
            dirty_bytes: 0,
            overdue: false,
            is_due: false,
        }
    }
}
