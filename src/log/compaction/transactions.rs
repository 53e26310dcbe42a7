//! Which batches belong to aborted transactions, and which markers are no longer needed by any
//! batch.
//!
//! A pass over the log feeds every batch, in order. The rules are Kafka's (`CleanedTransactionMetadata`):
//! data of an aborted transaction is removed at once; a marker may be removed only after a pass that
//! met no batch of its transaction, because until then readers need it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::log::producers::AbortedTransaction;
use crate::record::BatchHeader;
use crate::record::control::TransactionMarker;
use crate::types::{Offset, ProducerId};

/// The transactions of one pass.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// By first offset; those that the pass has not reached.
    ahead: VecDeque<AbortedTransaction>,
    /// Aborted ones that are open at this point, and whether any of their batches was met.
    aborting: BTreeMap<ProducerId, (AbortedTransaction, bool)>,
    /// Producers of which a batch of a committed transaction was met.
    committing: BTreeSet<ProducerId>,
}

impl Transactions {
    /// For a pass from some offset on; `aborted` lists those with a marker after it.
    pub(super) fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_by_key(|entry| entry.first_offset);
        Self { ahead: aborted.into(), ..Self::default() }
    }

    fn advance(&mut self, last: Offset) {
        while self.ahead.front().is_some_and(|next| next.first_offset <= last) {
            if let Some(next) = self.ahead.pop_front() {
                self.aborting.insert(next.producer_id, (next, false));
            }
        }
    }

    /// Takes a data batch; true when its transaction was aborted.
    pub(super) fn data(&mut self, header: &BatchHeader) -> bool {
        self.advance(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        if let Some((_, met)) = self.aborting.get_mut(&header.producer_id) {
            *met = true;
            return true;
        }
        self.committing.insert(header.producer_id);
        false
    }

    /// Takes a control batch; `None` is one that ends no transaction, or one whose marker was removed.
    pub(super) fn control(
        &mut self,
        header: &BatchHeader,
        marker: Option<TransactionMarker>,
    ) -> Marker {
        self.advance(header.last_offset());
        match marker {
            Some(marker) if marker.committed => {
                Marker { needed: self.committing.remove(&header.producer_id), aborted: None }
            }
            Some(_) => match self.aborting.remove(&header.producer_id) {
                Some((entry, true)) => Marker { needed: true, aborted: Some(entry) },
                _ => Marker { needed: false, aborted: None },
            },
            // Other control records describe the log, not records: they are kept.
            None => Marker { needed: header.record_count > 0, aborted: None },
        }
    }
}

/// What a pass learned about a control batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// Whether a batch of its transaction was met, or it is not about a transaction.
    pub(super) needed: bool,
    /// The entry of the transaction index that must be kept.
    pub(super) aborted: Option<AbortedTransaction>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BatchOptions};
    use crate::types::{ProducerEpoch, Sequence, TimestampMs};

    fn header(producer: i64, offset: i64, transactional: bool) -> BatchHeader {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: Offset(offset),
            producer_id: ProducerId(producer),
            producer_epoch: ProducerEpoch(0),
            base_sequence: Sequence(0),
            transactional,
            ..BatchOptions::default()
        });
        builder.append(TimestampMs(1), Some(b"k"), None, &[]).unwrap();
        BatchHeader::parse(&builder.finish().unwrap()).unwrap()
    }

    fn marker(committed: bool) -> TransactionMarker {
        TransactionMarker { committed, coordinator_epoch: 0 }
    }

    #[test]
    fn a_marker_is_needed_while_batches_of_its_transaction_are_met() {
        let aborted = AbortedTransaction {
            producer_id: ProducerId(1),
            first_offset: Offset(0),
            last_offset: Offset(2),
            last_stable_offset: Offset(3),
        };
        let gone =
            AbortedTransaction { first_offset: Offset(4), last_offset: Offset(5), ..aborted };
        let mut pass = Transactions::new(vec![gone, aborted]);
        assert!(pass.data(&header(1, 0, true)));
        assert!(!pass.data(&header(2, 1, true)));
        let found = pass.control(&header(1, 2, true), Some(marker(false)));
        assert_eq!(found, Marker { needed: true, aborted: Some(aborted) });
        assert!(pass.control(&header(2, 3, true), Some(marker(true))).needed);
        let found = pass.control(&header(1, 5, true), Some(marker(false)));
        assert_eq!(found, Marker { needed: false, aborted: None });
        assert!(!pass.control(&header(2, 6, true), Some(marker(true))).needed);
        assert!(!pass.data(&header(1, 7, true)), "its next transaction is not aborted");
        assert!(!pass.data(&header(1, 8, false)));
    }
}
