//! The offset index and the time index of a segment, in Kafka's formats.
//!
//! ```text
//! .index      relative offset u32 │ position u32                 8 bytes an entry
//! .timeindex  timestamp i64       │ relative offset u32         12 bytes an entry
//! ```
//!
//! Both are sparse: one entry per roughly `index.interval.bytes` of batches, big-endian, ascending.
//! An offset entry names the *last* offset of a batch and the position where that batch starts; a
//! time entry names the largest timestamp so far and the last offset of the batch that has it.
//!
//! The index of the active segment lives in memory (`AtomicList`: one writer appends, readers read
//! without a lock) and is written out from time to time and when the segment is sealed; that of a
//! sealed segment is a mapped file. Recovery rebuilds what it cannot trust, so a file that lags
//! behind or was lost costs a scan, never a wrong answer: a lookup only says where to begin
//! scanning.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;

use crate::types::TimestampMs;

pub(super) const OFFSET_ENTRY_BYTES: u32 = 8;
pub(super) const TIME_ENTRY_BYTES: u32 = 12;

/// A list to which one thread appends while others read what was published.
#[derive(Debug, Default)]
pub(super) struct AtomicList {
    /// Chunk `k` has `FIRST_CHUNK << k` words, so that 24 chunks hold more than any index.
    chunks: [OnceLock<Box<[AtomicU64]>>; 24],
    /// How many words are published.
    len: AtomicUsize,
}

const FIRST_CHUNK: usize = 64;

impl AtomicList {
    fn place(index: usize) -> (usize, usize) {
        let shifted = index / FIRST_CHUNK + 1;
        let chunk = shifted.ilog2() as usize;
        (chunk, index - FIRST_CHUNK * ((1 << chunk) - 1))
    }

    /// Appends words and publishes them together. Only the log's writer calls this.
    fn push(&self, words: &[u64]) {
        let len = self.len.load(Ordering::Relaxed);
        for (count, &word) in words.iter().enumerate() {
            let (chunk, place) = Self::place(len + count);
            let Some(chunk_cell) = self.chunks.get(chunk) else { return };
            let cells = chunk_cell.get_or_init(|| {
                (0..FIRST_CHUNK << chunk).map(|_| AtomicU64::new(0)).collect::<Box<[_]>>()
            });
            if let Some(cell) = cells.get(place) {
                cell.store(word, Ordering::Relaxed);
            }
        }
        self.len.store(len + words.len(), Ordering::Release);
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    fn get(&self, index: usize) -> Option<u64> {
        let (chunk, place) = Self::place(index);
        Some(self.chunks.get(chunk)?.get()?.get(place)?.load(Ordering::Relaxed))
    }
}

/// One entry of an offset index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OffsetEntry {
    /// The last offset of the batch, relative to the segment's base offset.
    pub(super) relative: u32,
    /// Where the batch starts.
    pub(super) position: u32,
}

/// Offset → position.
#[derive(Debug)]
pub(super) enum OffsetIndex {
    /// Of the active segment.
    Live(Box<AtomicList>),
    /// Of a sealed segment: the file.
    Stored(Bytes),
}

impl OffsetIndex {
    pub(super) fn live() -> Self {
        Self::Live(Box::default())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Live(list) => list.len(),
            Self::Stored(bytes) => bytes.len() / OFFSET_ENTRY_BYTES as usize,
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<OffsetEntry> {
        let word = match self {
            Self::Live(list) => list.get(index)?,
            Self::Stored(bytes) => u64::from_be_bytes(*bytes.get(index * 8..)?.first_chunk()?),
        };
        let low = word & u64::from(u32::MAX);
        Some(OffsetEntry {
            relative: u32::try_from(word >> 32).ok()?,
            position: u32::try_from(low).ok()?,
        })
    }

    pub(super) fn last(&self) -> Option<OffsetEntry> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Appends to a live index; a stored one never changes.
    pub(super) fn push(&self, entry: OffsetEntry) {
        if let Self::Live(list) = self {
            list.push(&[u64::from(entry.relative) << 32 | u64::from(entry.position)]);
        }
    }

    /// The last entry that `is_before` holds for; it must hold for a prefix of the entries.
    pub(super) fn floor(&self, is_before: impl Fn(OffsetEntry) -> bool) -> Option<OffsetEntry> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(self.get(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.get(low.checked_sub(1)?)
    }

    /// The entries from `start` on as they are stored in the file.
    pub(super) fn encode(&self, start: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((self.len() - start.min(self.len())) * 8);
        for entry in (start..self.len()).filter_map(|index| self.get(index)) {
            bytes.extend_from_slice(&entry.relative.to_be_bytes());
            bytes.extend_from_slice(&entry.position.to_be_bytes());
        }
        bytes
    }
}

/// One entry of a time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeEntry {
    /// The largest timestamp up to this entry.
    pub(super) timestamp: TimestampMs,
    /// The last offset of the batch that has it, relative to the segment's base offset.
    pub(super) relative: u32,
}

/// Timestamp → offset.
#[derive(Debug)]
pub(super) enum TimeIndex {
    /// Of the active segment.
    Live(Box<AtomicList>),
    /// Of a sealed segment: the file.
    Stored(Bytes),
}

impl TimeIndex {
    pub(super) fn live() -> Self {
        Self::Live(Box::default())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Live(list) => list.len() / 2,
            Self::Stored(bytes) => bytes.len() / TIME_ENTRY_BYTES as usize,
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<TimeEntry> {
        Some(match self {
            Self::Live(list) => TimeEntry {
                timestamp: TimestampMs(list.get(index * 2)?.cast_signed()),
                relative: u32::try_from(list.get(index * 2 + 1)?).ok()?,
            },
            Self::Stored(bytes) => {
                let entry = bytes.get(index * TIME_ENTRY_BYTES as usize..)?;
                TimeEntry {
                    timestamp: TimestampMs(i64::from_be_bytes(*entry.first_chunk()?)),
                    relative: u32::from_be_bytes(*entry.get(8..)?.first_chunk()?),
                }
            }
        })
    }

    pub(super) fn last(&self) -> Option<TimeEntry> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Appends when the timestamp is larger than that of the last entry, as Kafka does.
    pub(super) fn push_if_later(&self, entry: TimeEntry) {
        let last = self.last().map_or(TimestampMs::NONE, |last| last.timestamp);
        if let Self::Live(list) = self
            && entry.timestamp > last
        {
            list.push(&[entry.timestamp.0.cast_unsigned(), u64::from(entry.relative)]);
        }
    }

    /// The last entry whose timestamp is at most `timestamp`.
    pub(super) fn floor(&self, timestamp: TimestampMs) -> Option<TimeEntry> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle)?.timestamp <= timestamp {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.get(low.checked_sub(1)?)
    }

    /// The entries from `start` on as they are stored in the file.
    pub(super) fn encode(&self, start: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((self.len() - start.min(self.len())) * 12);
        for entry in (start..self.len()).filter_map(|index| self.get(index)) {
            bytes.extend_from_slice(&entry.timestamp.0.to_be_bytes());
            bytes.extend_from_slice(&entry.relative.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_index_answers_as_the_stored_one() {
        let live = OffsetIndex::live();
        let times = TimeIndex::live();
        for step in 0..5000_u32 {
            live.push(OffsetEntry { relative: step * 10 + 9, position: step * 4096 });
            times.push_if_later(TimeEntry {
                timestamp: TimestampMs(i64::from(step) * 7),
                relative: step,
            });
            times.push_if_later(TimeEntry {
                timestamp: TimestampMs(i64::from(step) * 7),
                relative: 0,
            });
        }
        let stored = OffsetIndex::Stored(live.encode(0).into());
        let stored_times = TimeIndex::Stored(times.encode(0).into());
        assert_eq!((live.len(), stored.len()), (5000, 5000));
        assert_eq!((times.len(), stored_times.len()), (5000, 5000));
        for target in [0, 8, 9, 10, 25_000, 49_999, 60_000] {
            let floor = live.floor(|entry| entry.relative <= target);
            assert_eq!(floor, stored.floor(|entry| entry.relative <= target));
            let expected = (target + 1).checked_div(10).and_then(|count| count.checked_sub(1));
            assert_eq!(floor.map(|entry| entry.position / 4096), expected.map(|at| at.min(4999)));
            let time = TimestampMs(i64::from(target));
            assert_eq!(times.floor(time), stored_times.floor(time));
        }
        assert_eq!(live.encode(4999).len(), 8);
    }
}
