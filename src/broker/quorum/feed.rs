//! What the applier works on: the newest entries in memory, how far they are committed, and a snapshot that took the
//! place of the log.
//!
//! The driver writes it as the machine tells, so that what is read here is the log as of now, on disk or not. Only
//! entries that are on stable storage leave memory, so that the rest of the log can be read from disk.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::entry::Entry;
use super::snapshot::Checkpoint;
use super::store::{CHUNK_BYTES, size_of};
use crate::types::Offset;

/// How many bytes of entries that are on disk stay in memory.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// What to apply next.
#[derive(Debug)]
pub(super) enum Work {
    /// These entries.
    Entries(Vec<Entry>),
    /// The entries from the first offset up to the second, or the first of them, which lie on disk.
    OnDisk(Offset, Offset),
    /// A snapshot.
    Snapshot(Box<Checkpoint>),
    /// Nothing any more.
    End,
}

#[derive(Debug)]
struct State {
    /// The newest entries, up to the end of the log.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    end: Offset,
    committed: Offset,
    /// A snapshot is taking the place of the log.
    is_installing: bool,
    snapshot: Option<Box<Checkpoint>>,
    is_closed: bool,
}

/// See the module. One task writes it, one takes work from it.
#[derive(Debug)]
pub(super) struct Feed {
    state: Mutex<State>,
    changed: Notify,
}

impl Feed {
    /// Of a log that ends at `end`.
    pub(super) fn new(end: Offset) -> Self {
        let state = State {
            tail: VecDeque::new(),
            tail_bytes: 0,
            end,
            committed: Offset::ZERO,
            is_installing: false,
            snapshot: None,
            is_closed: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries were added to the log.
    pub(super) fn append(&self, entries: &[Entry]) {
        let mut state = self.state();
        for entry in entries {
            debug_assert_eq!(entry.offset, state.end, "a gap in the metadata log");
            state.end = entry.offset.next();
            state.tail_bytes += size_of(entry);
            state.tail.push_back(entry.clone());
        }
    }

    /// The log was cut.
    pub(super) fn truncate(&self, end: Offset) {
        let mut state = self.state();
        state.end = end;
        while state.tail.back().is_some_and(|entry| entry.offset >= end) {
            if let Some(entry) = state.tail.pop_back() {
                state.tail_bytes -= size_of(&entry);
            }
        }
    }

    /// Forgets entries that are on stable storage, which is everything before `stable`, as far as too many are kept.
    pub(super) fn trim(&self, stable: Offset) {
        let mut state = self.state();
        while state.tail_bytes > TAIL_BYTES_MAX
            && state.tail.front().is_some_and(|entry| entry.offset < stable)
        {
            if let Some(entry) = state.tail.pop_front() {
                state.tail_bytes -= size_of(&entry);
            }
        }
    }

    /// Everything before is committed.
    pub(super) fn commit(&self, offset: Offset) {
        self.state().committed = offset;
        self.changed.notify_one();
    }

    /// A snapshot is about to take the place of the log.
    pub(super) fn begin_install(&self) {
        self.state().is_installing = true;
    }

    /// It has.
    pub(super) fn install(&self, checkpoint: Checkpoint) {
        let mut state = self.state();
        state.end = checkpoint.id.offset;
        state.tail.clear();
        state.tail_bytes = 0;
        state.is_installing = false;
        state.snapshot = Some(Box::new(checkpoint));
        drop(state);
        self.changed.notify_one();
    }

    /// Whether the log is, or was just now, replaced, so that it cannot be read where it was.
    pub(super) fn is_replaced(&self) -> bool {
        let state = self.state();
        state.is_installing || state.snapshot.is_some()
    }

    /// There is no more to apply than this.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }

    /// The entries from `from` up to `end`, or the first of them, if they are in memory.
    pub(super) fn read(&self, from: Offset, end: Offset) -> Option<Vec<Entry>> {
        self.state().read(from, end)
    }

    /// What to apply next, when everything before `applied` is.
    pub(super) async fn next(&self, applied: Offset) -> Work {
        loop {
            if let Some(work) = self.state().next(applied) {
                return work;
            }
            self.changed.notified().await;
        }
    }
}

impl State {
    fn read(&self, from: Offset, end: Offset) -> Option<Vec<Entry>> {
        let first = self.tail.front()?.offset;
        if from < first || from >= end.min(self.end) {
            return None;
        }
        let skipped = usize::try_from(from.since(first)).ok()?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.tail.iter().skip(skipped).take_while(|entry| entry.offset < end) {
            bytes += size_of(entry);
            if bytes > CHUNK_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }

    fn next(&mut self, applied: Offset) -> Option<Work> {
        if let Some(snapshot) = self.snapshot.take() {
            return Some(Work::Snapshot(snapshot));
        }
        if !self.is_installing && applied < self.committed {
            return Some(match self.read(applied, self.committed) {
                Some(entries) => Work::Entries(entries),
                None => {
                    let first = self.tail.front().map_or(self.end, |first| first.offset);
                    Work::OnDisk(applied, self.committed.min(first))
                }
            });
        }
        self.is_closed.then_some(Work::End)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::quorum::Payload;
    use crate::types::LeaderEpoch;

    fn entries(offsets: std::ops::Range<i64>, size: usize) -> Vec<Entry> {
        let entry = |offset| Entry {
            offset: Offset(offset),
            epoch: LeaderEpoch(1),
            payload: Payload::Records(vec![b'x'; size].into()),
        };
        offsets.map(entry).collect()
    }

    fn offsets(entries: &[Entry]) -> Vec<i64> {
        entries.iter().map(|entry| entry.offset.0).collect()
    }

    #[tokio::test]
    async fn what_is_committed_comes_from_memory_as_long_as_it_is_there() {
        let feed = Feed::new(Offset(3));
        feed.append(&entries(3..6, 10));
        feed.commit(Offset(5));
        let Work::OnDisk(from, end) = feed.next(Offset(1)).await else { panic!() };
        assert_eq!((from, end), (Offset(1), Offset(3)));
        let Work::Entries(read) = feed.next(Offset(3)).await else { panic!() };
        assert_eq!(offsets(&read), [3, 4]);
        assert!(feed.read(Offset(6), Offset(9)).is_none());
        feed.truncate(Offset(5));
        assert_eq!(offsets(&feed.read(Offset(4), Offset(9)).unwrap()), [4]);
        feed.close();
        assert!(matches!(feed.next(Offset(5)).await, Work::End));
    }

    #[test]
    fn only_what_is_on_disk_leaves_memory() {
        let feed = Feed::new(Offset(0));
        feed.append(&entries(0..10, TAIL_BYTES_MAX / 4));
        feed.trim(Offset(2));
        assert_eq!(feed.state().tail.front().unwrap().offset, Offset(2));
        feed.trim(Offset(10));
        assert_eq!(feed.state().tail.front().unwrap().offset, Offset(7));
        let read = feed.read(Offset(7), Offset(10)).unwrap();
        assert_eq!(offsets(&read), [7, 8, 9]);
        assert!(feed.read(Offset(6), Offset(10)).is_none());
        feed.truncate(Offset(0));
        assert_eq!(feed.state().tail_bytes, 0);
    }
}
