//! The storage of a simulated replica: what is stable, what is under way, and what a crash leaves.

use std::collections::{BTreeMap, VecDeque};

use super::super::*;
use crate::types::SplitMix64;

pub(super) type Record = Entry<u64>;

/// A log as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Image {
    pub(super) start: OffsetAndEpoch,
    pub(super) entries: Vec<Record>,
}

impl Image {
    pub(super) fn end(&self) -> Offset {
        self.start.offset.plus(self.entries.len() as i64)
    }

    pub(super) fn get(&self, offset: Offset) -> Option<&Record> {
        if offset < self.start.offset {
            return None;
        }
        self.entries.get(offset.since(self.start.offset) as usize)
    }

    pub(super) fn last(&self) -> OffsetAndEpoch {
        let epoch = self.entries.last().map_or(self.start.epoch, |entry| entry.epoch);
        OffsetAndEpoch { epoch, offset: self.end() }
    }

    /// The records from `from` up to `end`, at most `count`.
    pub(super) fn read(&self, from: Offset, end: Offset, count: usize) -> Vec<Record> {
        let wanted = self.entries.iter().filter(|entry| entry.offset >= from && entry.offset < end);
        wanted.take(count).cloned().collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Write {
    Append(Vec<Record>),
    Truncate(Offset),
    Prune(Offset),
    Install(Snapshot),
}

impl Image {
    pub(super) fn apply(&mut self, write: &Write) {
        match write {
            Write::Append(entries) => {
                assert_eq!(entries[0].offset, self.end(), "a gap in the log");
                self.entries.extend(entries.iter().cloned());
            }
            Write::Truncate(end) => {
                assert!(*end >= self.start.offset, "cut before the start");
                self.entries.truncate(end.since(self.start.offset) as usize);
            }
            Write::Prune(start) => {
                let gone = start.since(self.start.offset) as usize;
                if gone > 0 {
                    let epoch = self.entries[gone - 1].epoch;
                    self.entries.drain(..gone);
                    self.start = OffsetAndEpoch { epoch, offset: *start };
                }
            }
            Write::Install(snapshot) => {
                self.start = snapshot.id;
                self.entries.clear();
            }
        }
    }
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    pub(super) vote: VoteState,
    pub(super) log: Image,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) votes: VecDeque<(Ticket, VoteState)>,
    pub(super) writes: VecDeque<(Ticket, Write)>,
}

impl Disk {
    /// What a replica that starts finds.
    pub(super) fn found(&self) -> Stored {
        let mut epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
        let mut voters = BTreeMap::new();
        for entry in &self.log.entries {
            if epochs.last().is_none_or(|(epoch, _)| *epoch < entry.epoch) {
                epochs.push((entry.epoch, entry.offset));
            }
            if let Payload::Voters(set) = &entry.payload {
                voters.insert(entry.offset, set.clone());
            }
        }
        let (start, end) = (self.log.start, self.log.end());
        Stored { vote: self.vote, snapshot: self.snapshot.clone(), start, end, epochs, voters }
    }

    /// The first vote under way becomes stable.
    pub(super) fn finish_vote(&mut self) -> Option<Ticket> {
        let (ticket, vote) = self.votes.pop_front()?;
        let (old, new) = (self.vote, vote);
        assert!(new.epoch >= old.epoch, "QUORUM-E: the epoch went from {old:?} to {new:?}");
        let changed = new.epoch == old.epoch && old.voted.is_some() && new.voted != old.voted;
        assert!(!changed, "QUORUM-E: the vote went from {old:?} to {new:?}");
        self.vote = vote;
        Some(ticket)
    }

    /// The first write under way becomes stable.
    pub(super) fn finish_write(&mut self) -> Option<(Ticket, Write)> {
        let (ticket, write) = self.writes.pop_front()?;
        self.log.apply(&write);
        if let Write::Install(snapshot) = &write {
            self.snapshot = Some(snapshot.clone());
        }
        Some((ticket, write))
    }

    /// Power is cut: of what is under way, a part is there and the rest is not.
    pub(super) fn crash(&mut self, random: &mut SplitMix64) {
        for _ in 0..random.draw() as usize % (self.votes.len() + 1) {
            self.finish_vote();
        }
        for _ in 0..random.draw() as usize % (self.writes.len() + 1) {
            self.finish_write();
        }
        if let Some((_, Write::Append(entries))) = self.writes.front() {
            let whole = random.draw() as usize % (entries.len() + 1);
            if whole > 0 {
                self.log.apply(&Write::Append(entries[..whole].to_vec()));
            }
        }
        self.votes.clear();
        self.writes.clear();
    }
}
