//! What the log demands of what belongs to a transaction, asked before a shard decides.
//!
//! Why: a shard's state is ahead of its log, so an append that the log refuses makes it read all of the log again. A
//! producer that was fenced, or a transaction coordinator that was, is no reason for that. Only the shard appends to
//! its partition, so what is so before a step is so at the append, except for what the step itself appends: a step has
//! one request of a producer at most.

use crate::broker::partition::Partition;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Guard, ProducerState};
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

/// What shows that a request may add to a transaction (KIP-890).
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) enum Proof {
    /// Nobody asks for it: it does not add to one, or verification is turned off.
    Unneeded,
    /// The transaction was open in the partition.
    Open,
    /// Its coordinator knows that it has a part in the partition.
    Confirmed(Guard),
}

/// Whether the log of a partition will take what belongs to a transaction.
///
/// # Errors
///
/// `INVALID_PRODUCER_EPOCH`, `INVALID_TXN_STATE`, `TRANSACTION_COORDINATOR_FENCED`.
pub(super) fn check(partition: &Partition, what: &OfTransaction, proof: Proof) -> Result<()> {
    let reader = partition.reader();
    let known = reader.producer(what.producer_id());
    let (id, name) = (what.producer_id(), partition.name());
    let refuse = |code, what: String| {
        Err(Error::kafka(code, format!("{name}: the transaction of producer {id}: {what}")))
    };
    let (epoch, must_be_newer) = match what {
        OfTransaction::Part(producer) => (producer.epoch, false),
        OfTransaction::End(end) => {
            let epoch = end.producer.epoch;
            let must_be_newer =
                |known: &ProducerState| known.must_be_raised(epoch, end.transaction_version);
            (epoch, known.as_ref().is_some_and(must_be_newer))
        }
    };
    if let Some(known) = &known
        && (epoch < known.epoch || must_be_newer && epoch == known.epoch)
    {
        let newer = known.epoch;
        return refuse(
            ErrorCode::InvalidProducerEpoch,
            format!("epoch {epoch} is over; it is in {newer}"),
        );
    }
    match (what, proof) {
        (OfTransaction::End(end), _) => match &known {
            Some(known) if end.coordinator_epoch < known.coordinator_epoch => {
                let (epoch, newer) = (end.coordinator_epoch, known.coordinator_epoch);
                let text = format!("a coordinator of epoch {epoch} ends it, and {newer} was there");
                refuse(ErrorCode::TransactionCoordinatorFenced, text)
            }
            _ => Ok(()),
        },
        (OfTransaction::Part(_), Proof::Unneeded) => Ok(()),
        (OfTransaction::Part(_), proof) => {
            let is_open = known.is_some_and(|known| known.has_open_transaction(epoch));
            let is_confirmed = || match proof {
                Proof::Confirmed(guard) => reader.verifier().accepts(id, guard),
                Proof::Open | Proof::Unneeded => false,
            };
            if is_open || is_confirmed() {
                return Ok(());
            }
            refuse(ErrorCode::InvalidTxnState, "it has ended meanwhile".to_owned())
        }
    }
}
