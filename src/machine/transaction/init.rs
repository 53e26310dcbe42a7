//! InitProducerId: a producer comes, or comes back.
//!
//! Whoever comes fences whoever was there, by a higher epoch. A producer that says what it had (KIP-360) goes on with the
//! next epoch, gets the same answer when it asks once more, and is fenced if another has come meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::record::{EPOCH_MAX, Producer, TransactionState, TransactionValue, is_exhausted};
use super::request::{InitRequest, TransactionReply};
use super::shard::TransactionShard;
use crate::error::ErrorCode;
use crate::machine::coordinator::RequestId;
use crate::types::{ProducerId, TimestampMs};

/// What becomes of the producer.
enum Next {
    /// The next epoch, and the last one that the same producer had.
    Epoch { epoch: i16, last: i16 },
    /// A new id at epoch 0.
    Id { last: i16 },
}

impl TransactionShard {
    /// Takes an InitProducerId.
    pub(super) fn init(&mut self, request: RequestId, asked: InitRequest) {
        let refuse = |code| TransactionReply::Producer(Err(code));
        if asked.timeout_ms <= 0 || asked.timeout_ms > self.config.timeout_ms_max {
            return self.reply(request, refuse(ErrorCode::InvalidTransactionTimeout));
        }
        let id = &asked.transactional_id;
        let Some(value) = self.value(id) else { return self.create(request, &asked) };
        if value.state.is_prepared() {
            return self.reply(request, refuse(ErrorCode::ConcurrentTransactions));
        }
        if asked.expected.is_some_and(|expected| !is_of(value, expected)) {
            return self.reply(request, refuse(ErrorCode::ProducerFenced));
        }
        if value.state == TransactionState::Ongoing {
            // The one who asks comes again, and is then told an epoch above the one that fenced.
            let refusal = refuse(ErrorCode::ConcurrentTransactions);
            return self.fence(id, Some((request, refusal)));
        }
        let next = match next(value, asked.expected) {
            Ok(next) => next,
            Err(code) => return self.reply(request, refuse(code)),
        };
        let (producer, last) = match (next, asked.fresh) {
            (Next::Epoch { epoch, last }, _) => (Producer { id: value.producer_id, epoch }, last),
            (Next::Id { last }, Some(fresh)) => (Producer { id: fresh, epoch: 0 }, last),
            (Next::Id { .. }, None) => {
                return self.reply(request, TransactionReply::NeedsProducerId);
            }
        };
        let value = TransactionValue {
            producer_id: producer.id,
            next_producer_id: ProducerId::NONE,
            producer_epoch: producer.epoch,
            last_producer_epoch: last,
            timeout_ms: asked.timeout_ms,
            partitions: Arc::default(),
            start: TimestampMs::NONE,
            ..value.change(TransactionState::Empty, self.now)
        };
        self.initialise(request, id, value);
    }

    fn create(&mut self, request: RequestId, asked: &InitRequest) {
        let Some(fresh) = asked.fresh else {
            return self.reply(request, TransactionReply::NeedsProducerId);
        };
        let value = TransactionValue {
            producer_id: fresh,
            previous_producer_id: fresh,
            next_producer_id: ProducerId::NONE,
            producer_epoch: 0,
            last_producer_epoch: -1,
            timeout_ms: asked.timeout_ms,
            state: TransactionState::Empty,
            partitions: Arc::new(BTreeSet::new()),
            last_update: self.now,
            start: TimestampMs::NONE,
            version: 0,
        };
        self.initialise(request, &asked.transactional_id, value);
        self.arm_expiry();
    }

    fn initialise(&mut self, request: RequestId, id: &Arc<str>, value: TransactionValue) {
        let reply = TransactionReply::Producer(Ok(value.producer()));
        let record = self.record(id, Some(value));
        self.commit(vec![record], Some((request, reply)));
    }
}

/// Whether a producer had the id that there is now, or the one before it, to its last epoch.
fn is_of(value: &TransactionValue, expected: Producer) -> bool {
    expected.id == value.producer_id
        || expected.id == value.previous_producer_id && is_exhausted(expected.epoch)
}

fn next(value: &TransactionValue, expected: Option<Producer>) -> Result<Next, ErrorCode> {
    let current = value.producer_epoch;
    let raise = |last| match value.is_exhausted() {
        true => Next::Id { last },
        false => Next::Epoch { epoch: current + 1, last },
    };
    match expected.map(|expected| expected.epoch) {
        None => Ok(raise(-1)),
        Some(epoch) if epoch == current => Ok(raise(current)),
        // Asked once more. The highest epoch was not told to anybody.
        Some(last) if last == value.last_producer_epoch && current == EPOCH_MAX => {
            Ok(Next::Id { last })
        }
        Some(last) if last == value.last_producer_epoch => Ok(Next::Epoch { epoch: current, last }),
        Some(_) => Err(ErrorCode::ProducerFenced),
    }
}
