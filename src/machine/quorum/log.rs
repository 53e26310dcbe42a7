//! What the quorum knows of its own log: where it starts and ends, its epochs, and how far it is on disk.
//!
//! The records themselves lie with the shell. It carries out what it is told about the log in order, and says
//! with the ticket of an operation that this and all before it are on stable storage. `end` is where
//! the log ends once all that was told is done, `stable` what no crash takes away.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::message::Ticket;
use crate::types::{LeaderEpoch, Offset};

/// The end of a part of the log, and the epoch of the record before it.
///
/// The order is that of Raft: of two logs, the one with the later last epoch is more up to date, and with the
/// same, the longer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetAndEpoch {
    /// The epoch of the last record; 0 where there is none.
    pub epoch: LeaderEpoch,
    /// The offset behind the last record.
    pub offset: Offset,
}

impl OffsetAndEpoch {
    /// An end.
    #[must_use]
    pub const fn new(offset: Offset, epoch: LeaderEpoch) -> Self {
        Self { epoch, offset }
    }
}

/// How a replica's place relates to the leader's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The logs agree up to here.
    Valid,
    /// They do not: this is the leader's last epoch not after the replica's, and where it ends.
    Diverging(OffsetAndEpoch),
    /// The leader has no records there any more.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Operation {
    ticket: Ticket,
    end: Offset,
}

/// The bounds and epochs of a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Log {
    /// The first record that is there, and the epoch of the one before it.
    start: OffsetAndEpoch,
    end: Offset,
    /// The first offset of each epoch that has a record at `start` or later.
    epochs: Vec<(LeaderEpoch, Offset)>,
    /// The end of what is on stable storage, of what shall stay.
    stable: Offset,
    pending: VecDeque<Operation>,
    last_ticket: Ticket,
}

impl Log {
    /// A log that was found, all of it on stable storage.
    pub(super) fn new(
        start: OffsetAndEpoch,
        end: Offset,
        epochs: Vec<(LeaderEpoch, Offset)>,
    ) -> Self {
        let pending = VecDeque::new();
        Self { start, end, epochs, stable: end, pending, last_ticket: Ticket(0) }
    }

    pub(super) fn start(&self) -> OffsetAndEpoch {
        self.start
    }

    pub(super) fn end(&self) -> Offset {
        self.end
    }

    pub(super) fn stable(&self) -> Offset {
        self.stable
    }

    pub(super) fn is_stable(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many operations are not known to be on stable storage.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The end and the last epoch.
    pub(super) fn last(&self) -> OffsetAndEpoch {
        self.until(self.end)
    }

    /// An offset, and the epoch of the record before it. It must not be before the start.
    pub(super) fn until(&self, offset: Offset) -> OffsetAndEpoch {
        let before = self.epochs.iter().rev().find(|(_, start)| *start < offset);
        let epoch = before.map_or(self.start.epoch, |(epoch, _)| *epoch);
        OffsetAndEpoch { epoch, offset }
    }

    /// The last epoch that is not after `epoch`, and where it ends.
    fn end_of(&self, epoch: LeaderEpoch) -> OffsetAndEpoch {
        let behind = self.epochs.partition_point(|(known, _)| *known <= epoch);
        let offset = self.epochs.get(behind).map_or(self.end, |(_, start)| *start);
        let epoch = match behind {
            0 => self.start.epoch,
            behind => self.epochs[behind - 1].0,
        };
        OffsetAndEpoch { epoch, offset }
    }

    /// Where a replica stands whose log ends at `last`.
    pub(super) fn place(&self, last: OffsetAndEpoch) -> Place {
        if last.offset < self.start.offset {
            return Place::Gone;
        }
        if last.offset <= self.end && self.until(last.offset).epoch == last.epoch {
            return Place::Valid;
        }
        let known = self.end_of(last.epoch);
        // Where they part is before the start of this log.
        if known.epoch > last.epoch { Place::Gone } else { Place::Diverging(known) }
    }

    /// Where to cut this log, which diverges from a leader's that has its last epoch not after ours up to `theirs`.
    pub(super) fn common_end(&self, theirs: OffsetAndEpoch) -> Offset {
        let ours = self.end_of(theirs.epoch);
        match ours.epoch.cmp(&theirs.epoch) {
            Ordering::Less => ours.offset,
            Ordering::Equal => ours.offset.min(theirs.offset),
            Ordering::Greater => self.start.offset,
        }
    }

    /// One record was added.
    pub(super) fn appended(&mut self, epoch: LeaderEpoch) {
        if self.epochs.last().map_or(self.start.epoch, |(last, _)| *last) < epoch {
            self.epochs.push((epoch, self.end));
        }
        self.end = self.end.next();
    }

    /// The log ends at `end` now.
    pub(super) fn truncate(&mut self, end: Offset) {
        self.end = end;
        self.epochs.retain(|(_, start)| *start < end);
        self.stable = self.stable.min(end);
        for operation in &mut self.pending {
            operation.end = operation.end.min(end);
        }
    }

    /// The log starts at `start` now, at or before its end.
    pub(super) fn prune(&mut self, start: Offset) {
        let mut kept = Vec::new();
        for (index, (epoch, first)) in self.epochs.iter().enumerate() {
            let next = self.epochs.get(index + 1).map_or(self.end, |(_, first)| *first);
            if next > start {
                kept.push((*epoch, (*first).max(start)));
            }
        }
        self.start = self.until(start);
        self.epochs = kept;
    }

    /// A snapshot took the place of the log; it is on stable storage.
    pub(super) fn replace(&mut self, snapshot: OffsetAndEpoch) {
        self.start = snapshot;
        self.end = snapshot.offset;
        self.stable = snapshot.offset;
        self.epochs.clear();
        self.pending.clear();
    }

    /// The ticket of the operation that was just applied here.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.last_ticket = self.last_ticket.next();
        self.pending.push_back(Operation { ticket: self.last_ticket, end: self.end });
        self.last_ticket
    }

    /// Everything up to `ticket` is on stable storage. Says whether that is news.
    pub(super) fn stored(&mut self, ticket: Ticket) -> bool {
        let mut is_news = false;
        while self.pending.front().is_some_and(|operation| operation.ticket <= ticket) {
            if let Some(operation) = self.pending.pop_front() {
                self.stable = operation.end;
                is_news = true;
            }
        }
        is_news
    }

    /// Numbers the operations under way from 1, and says by how much less that is: for the search of
    /// states, in which it makes no difference how many there have been.
    #[cfg(test)]
    pub(super) fn renumber(&mut self) -> u64 {
        let next = self.pending.front().map_or(self.last_ticket.next(), |first| first.ticket);
        let base = next.0 - 1;
        self.last_ticket.0 -= base;
        for operation in &mut self.pending {
            operation.ticket.0 -= base;
        }
        base
    }
}
