//! Which transactions are being verified before their first batch is appended (KIP-890).
//!
//! A transaction must not be begun in a log that its coordinator does not know of: its end would never be written, and
//! nobody could read beyond it. So whoever brings the first batch of a transaction asks the coordinator first. Between
//! the coordinator's answer and the append, the transaction may end, and its marker may be appended. Therefore a
//! verification begins with a [`Guard`], the append needs the same guard, and both the first batch and the marker
//! take it away. A verification that was overtaken has the wrong guard, or none.
//!
//! Nothing of it is on disk: after a restart or a change of leaders, the first batch is verified again.

use std::collections::BTreeMap;

use crate::types::{ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// One verification of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(u64);

/// The first batch of a transaction that is to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstBatch {
    /// Who sends it.
    pub producer_id: ProducerId,
    /// In which epoch.
    pub producer_epoch: ProducerEpoch,
    /// Its first sequence; of a coordinator's records, which have none, 0.
    pub base_sequence: Sequence,
    /// Whether the epoch of the producer is raised at the end of each transaction (transaction version 2).
    pub supports_epoch_bump: bool,
}

/// A verification that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    guard: Guard,
    since: TimestampMs,
    epoch: ProducerEpoch,
    pub(super) supports_epoch_bump: bool,
    /// A batch with a higher sequence must not come first: the one with this sequence may be sent again.
    pub(super) lowest_sequence: Sequence,
}

/// The verifications of one partition.
#[derive(Debug, Default)]
pub(super) struct Verifications {
    begun: BTreeMap<ProducerId, Begun>,
    next: u64,
}

impl Verifications {
    /// Begins a verification, or joins the one that has begun.
    pub(super) fn begin(&mut self, batch: &FirstBatch, now: TimestampMs) -> Guard {
        let next = Guard(self.next);
        let begun = self.begun.entry(batch.producer_id).or_insert_with(|| {
            self.next += 1;
            Begun {
                guard: next,
                since: now,
                epoch: batch.producer_epoch,
                supports_epoch_bump: batch.supports_epoch_bump,
                lowest_sequence: batch.base_sequence,
            }
        });
        if batch.producer_epoch > begun.epoch {
            begun.epoch = batch.producer_epoch;
            begun.lowest_sequence = batch.base_sequence;
        } else if batch.producer_epoch == begun.epoch {
            begun.lowest_sequence = begun.lowest_sequence.min(batch.base_sequence);
        }
        begun.guard
    }

    pub(super) fn get(&self, producer: ProducerId) -> Option<&Begun> {
        self.begun.get(&producer)
    }

    /// Whether a batch may begin a transaction.
    pub(super) fn accept(&self, producer: ProducerId, guard: Option<Guard>) -> bool {
        guard.is_some() && self.begun.get(&producer).map(|begun| begun.guard) == guard
    }

    /// A batch of a transaction was appended. A marker does not end the verification of the next transaction, which
    /// with transaction version 2 has the epoch of the marker.
    pub(super) fn appended(&mut self, producer: ProducerId, epoch: ProducerEpoch, is_marker: bool) {
        let is_next =
            |begun: &Begun| is_marker && begun.supports_epoch_bump && begun.epoch == epoch;
        if self.begun.get(&producer).is_some_and(|begun| !is_next(begun)) {
            self.begun.remove(&producer);
        }
    }

    /// The coordinator does not know the transaction: nothing of it will be appended.
    pub(super) fn give_up(&mut self, batch: &FirstBatch, guard: Guard) {
        let same = |begun: &Begun| begun.guard == guard && begun.epoch == batch.producer_epoch;
        if self.begun.get(&batch.producer_id).is_some_and(same) {
            self.begun.remove(&batch.producer_id);
        }
    }

    /// Forgets those that nobody finished.
    pub(super) fn expire(&mut self, now: TimestampMs, expiration_ms: i64) {
        self.begun.retain(|_, begun| now.0.saturating_sub(begun.since.0) < expiration_ms);
    }

    /// Forgets all; guards that were given are worth nothing from now on.
    pub(super) fn clear(&mut self) {
        self.begun.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(epoch: i16, sequence: i32, supports_epoch_bump: bool) -> FirstBatch {
        FirstBatch {
            producer_id: ProducerId(7),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: Sequence(sequence),
            supports_epoch_bump,
        }
    }

    #[test]
    fn a_marker_in_between_takes_the_guard_away() {
        let mut verifications = Verifications::default();
        let (id, now) = (ProducerId(7), TimestampMs(0));
        let guard = verifications.begin(&first(3, 0, false), now);
        assert!(verifications.accept(id, Some(guard)));
        assert!(!verifications.accept(id, None));
        assert!(!verifications.accept(ProducerId(8), Some(guard)));
        verifications.appended(id, ProducerEpoch(3), true);
        assert!(!verifications.accept(id, Some(guard)));
        let next = verifications.begin(&first(3, 0, false), now);
        assert!(!verifications.accept(id, Some(guard)), "of the transaction before");
        assert!(verifications.accept(id, Some(next)));
    }

    #[test]
    fn the_marker_before_the_next_epoch_leaves_its_verification() {
        let mut verifications = Verifications::default();
        let (id, now) = (ProducerId(7), TimestampMs(0));
        let guard = verifications.begin(&first(4, 0, true), now);
        verifications.appended(id, ProducerEpoch(4), true);
        assert!(verifications.accept(id, Some(guard)));
        verifications.appended(id, ProducerEpoch(5), true);
        assert!(!verifications.accept(id, Some(guard)));
    }

    #[test]
    fn the_lowest_sequence_is_that_of_the_newest_epoch() {
        let mut verifications = Verifications::default();
        let (id, now) = (ProducerId(7), TimestampMs(0));
        let lowest = |verifications: &Verifications| verifications.get(id).unwrap().lowest_sequence;
        let guard = verifications.begin(&first(3, 12, false), now);
        assert_eq!(verifications.begin(&first(3, 9, false), now), guard);
        assert_eq!(verifications.begin(&first(2, 1, false), now), guard);
        assert_eq!(lowest(&verifications), Sequence(9));
        assert_eq!(verifications.begin(&first(4, 20, false), now), guard);
        assert_eq!(lowest(&verifications), Sequence(20));
        verifications.give_up(&first(3, 12, false), guard);
        assert!(verifications.accept(id, Some(guard)), "not of this epoch");
        verifications.give_up(&first(4, 20, false), guard);
        assert!(!verifications.accept(id, Some(guard)));
        verifications.begin(&first(4, 20, false), now);
        verifications.expire(TimestampMs(10), 10);
        assert!(verifications.get(id).is_none());
    }
}
