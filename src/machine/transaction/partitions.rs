//! Partitions of a transaction: added before, or with, the first records in them, and asked for by their leaders.

use std::collections::BTreeSet;
use std::sync::Arc;

#[cfg(any(test, feature = "sim"))]
use super::mistakes::{Mistake, is_planted};
use super::record::{EPOCH_MAX, Producer, TransactionState, TransactionValue};
use super::request::{AddPartitionsRequest, TransactionReply};
use super::shard::TransactionShard;
use crate::error::ErrorCode;
use crate::machine::coordinator::RequestId;
use crate::types::TopicPartition;

impl TransactionShard {
    /// Adds partitions to a transaction, or begins one with them.
    pub(super) fn add(&mut self, request: RequestId, asked: AddPartitionsRequest) {
        let AddPartitionsRequest { transactional_id: id, producer, partitions: more, version } =
            asked;
        let value = match self.addable(&id, producer) {
            Ok(value) => value,
            Err(code) => return self.reply(request, TransactionReply::Added(Err(code))),
        };
        let is_ongoing = value.state == TransactionState::Ongoing;
        if is_ongoing && more.is_subset(&value.partitions) {
            return self.reply(request, TransactionReply::Added(Ok(())));
        }
        let mut partitions = BTreeSet::clone(&value.partitions);
        partitions.extend(more);
        let value = TransactionValue {
            partitions: Arc::new(partitions),
            start: if is_ongoing { value.start } else { self.now },
            version,
            ..value.change(TransactionState::Ongoing, self.now)
        };
        let until = self.now.plus(i64::from(value.timeout_ms));
        let record = self.record(&id, Some(value));
        self.commit(vec![record], Some((request, TransactionReply::Added(Ok(())))));
        if !is_ongoing {
            self.arm_timeout(&id, until);
        }
    }

    /// While markers are being written, everybody has to come again: the producer may already have the id and the epoch
    /// that come after.
    fn addable(&self, id: &str, producer: Producer) -> Result<&TransactionValue, ErrorCode> {
        match self.value(id) {
            None => Err(ErrorCode::InvalidProducerIdMapping),
            Some(value) if value.state.is_prepared() => Err(ErrorCode::ConcurrentTransactions),
            Some(value) => is_current(value, producer).map(|()| value),
        }
    }

    /// The partitions that do not belong to the transaction.
    pub(super) fn verify(
        &self,
        asked: AddPartitionsRequest,
    ) -> Result<BTreeSet<TopicPartition>, ErrorCode> {
        let value =
            self.value(&asked.transactional_id).ok_or(ErrorCode::InvalidProducerIdMapping)?;
        is_current(value, asked.producer)?;
        if value.state.is_prepared() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let mut foreign = asked.partitions;
        foreign.retain(|partition| !value.partitions.contains(partition));
        Ok(foreign)
    }
}

/// Whether the producer is the one that the id has now.
pub(super) fn is_current(value: &TransactionValue, producer: Producer) -> Result<(), ErrorCode> {
    if value.producer_id != producer.id {
        return Err(ErrorCode::InvalidProducerIdMapping);
    }
    #[cfg(any(test, feature = "sim"))]
    if is_planted(Mistake::TakesOldEpochs) {
        return Ok(());
    }
    // Nobody was told the highest epoch, so whoever has it has made it up.
    if value.producer_epoch != producer.epoch || producer.epoch == EPOCH_MAX {
        return Err(ErrorCode::ProducerFenced);
    }
    Ok(())
}
