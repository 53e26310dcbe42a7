//! What the log demands of what belongs to a transaction, asked before a shard decides.
//!
//! Why: a shard's state is ahead of its log, so an append that the log refuses makes it read all of the log again. A
//! producer that was fenced, or a transaction coordinator that was, is no reason for that. Only the shard appends to
//! its partition, so what is so before a step is so at the append, except for what the step itself appends: a step has
//! one request of a producer at most.

use crate::broker::partition::Partition;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::coordinator::{Producer, TransactionEnd};
use crate::types::ProducerId;

/// What a request is to a transaction.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) enum OfTransaction {
    /// It adds to the transaction of this producer.
    Part(Producer),
    /// It ends a transaction.
    End(TransactionEnd),
}

impl OfTransaction {
    pub(super) const fn producer_id(&self) -> ProducerId {
        match self {
            Self::Part(producer) => producer.id,
            Self::End(end) => end.producer.id,
        }
    }
}

/// The first version of transactions in which the epoch of a marker is newer than that of its transaction.
const EPOCH_PER_TRANSACTION: i16 = 2;

/// Whether the log of a partition will take what belongs to a transaction.
///
/// # Errors
///
/// `INVALID_PRODUCER_EPOCH`, `TRANSACTION_COORDINATOR_FENCED`.
pub(super) fn check(partition: &Partition, what: &OfTransaction) -> Result<()> {
    let Some(known) = partition.reader().producer(what.producer_id()) else { return Ok(()) };
    let (epoch, is_too_old) = match what {
        OfTransaction::Part(producer) => (producer.epoch, producer.epoch < known.epoch),
        OfTransaction::End(end) if end.transaction_version >= EPOCH_PER_TRANSACTION => {
            (end.producer.epoch, end.producer.epoch <= known.epoch)
        }
        OfTransaction::End(end) => (end.producer.epoch, end.producer.epoch < known.epoch),
    };
    let (id, name) = (what.producer_id(), partition.name());
    if is_too_old {
        let context =
            format!("{name}: producer {id} is in epoch {}, {epoch} is too old", known.epoch);
        return Err(Error::kafka(ErrorCode::InvalidProducerEpoch, context));
    }
    if let OfTransaction::End(end) = what
        && end.coordinator_epoch < known.coordinator_epoch
    {
        let context = format!(
            "{name}: the end of the transaction of producer {id} comes from a transaction coordinator of epoch {}, but \
             one of epoch {} has written there",
            end.coordinator_epoch, known.coordinator_epoch
        );
        return Err(Error::kafka(ErrorCode::TransactionCoordinatorFenced, context));
    }
    Ok(())
}
