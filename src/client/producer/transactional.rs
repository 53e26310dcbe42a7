//! What a producer does differently when its records belong to transactions.
//!
//! The machine of the transaction stands beside the accumulator, under the same lock: a record is accepted, and a
//! batch drained, only as the transaction allows it. [`crate::client::transaction`] drives the machine.

use std::sync::Arc;

use super::{Inner, Payload, State};
use crate::client::transaction::{Answered, Identity};
use crate::error::{Error, Result};
use crate::machine::client::accumulator;
use crate::machine::client::backoff::Backoff;
use crate::machine::client::transaction::{Transaction, Version};
use crate::types::{TimestampMs, TopicPartition};

/// The transactions of a producer, and why the open one cannot be committed.
#[derive(Debug)]
pub(in crate::client) struct Transactional {
    pub(in crate::client) machine: Transaction,
    /// The first failure of the open transaction.
    pub(in crate::client) cause: Option<Arc<Error>>,
    /// The id and epoch that the accumulator was given.
    used: Option<Identity>,
}

impl Transactional {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { machine: Transaction::new(backoff), cause: None, used: None }
    }

    /// Keeps the first cause.
    fn note(&mut self, cause: Option<Arc<Error>>) {
        if self.cause.is_none() {
            self.cause = cause;
        }
    }
}

impl State {
    /// Counts records that are lost without anybody being told. Of a transaction, the commit tells.
    pub(super) fn note_lost(&mut self, payload: &Payload, reason: &Error) {
        if self.transaction.is_none() {
            self.lost.note(&payload.promise, reason);
        }
    }

    pub(super) fn batch_failed(
        &mut self,
        payload: &Payload,
        failure: accumulator::Failure,
        reason: &Error,
    ) {
        self.note_lost(payload, reason);
        if let Some(transaction) = &mut self.transaction {
            let (code, expired) = match failure {
                accumulator::Failure::Refused(code) => (Some(code), false),
                accumulator::Failure::Lost => (None, false),
                accumulator::Failure::Expired(last) => (last, true),
            };
            transaction.machine.batch_failed(code, expired);
            transaction.note(Some(Arc::new(reason.clone())));
        }
    }
}

impl Inner {
    /// Lets a record or batch for a partition into the transaction.
    pub(super) fn join(&self, state: &mut State, partition: &TopicPartition) -> Result<()> {
        let (Some(transaction), Some(coordinators)) = (&mut state.transaction, &self.coordinators)
        else {
            return Ok(());
        };
        let joined = transaction.machine.join(partition);
        joined.map_err(|failure| coordinators.error(failure, transaction.cause.clone()))
    }

    /// The transactional id and the version of the transaction.
    pub(super) fn transaction(&self) -> Option<(String, Version)> {
        let coordinators = self.coordinators.as_ref()?;
        let version = self.state().transaction.as_ref()?.machine.version();
        Some((coordinators.id().to_owned(), version))
    }

    /// Partitions that the coordinator is to add now.
    pub(super) fn to_add(&self, now: TimestampMs) -> Option<(Vec<TopicPartition>, Identity)> {
        let mut state = self.state();
        let machine = &mut state.transaction.as_mut()?.machine;
        let producer = machine.producer()?;
        let partitions = machine.to_add(now);
        (!partitions.is_empty()).then_some((partitions, producer))
    }

    pub(super) fn added(&self, Answered { answer, error }: Answered) {
        let now = self.cluster.now();
        let random = self.cluster.env.random.u64();
        if let Some(transaction) = &mut self.state().transaction {
            transaction.machine.added(now, answer, random);
            if transaction.machine.obstacle().is_none() {
                return;
            }
            transaction.note(error);
        }
        self.progress.notify_waiters();
    }

    /// Gives up what waits to be sent, if the transaction cannot be committed any more.
    pub(super) fn abandon_transaction(&self) {
        let Some(coordinators) = &self.coordinators else { return };
        let reason = {
            let state = self.state();
            let Some(transaction) = &state.transaction else { return };
            let Some(failure) = transaction.machine.obstacle() else { return };
            coordinators.error(failure, transaction.cause.clone())
        };
        // It also wakes who waits for the last batch to be settled.
        self.abandon(|_| reason.clone());
    }
}

/// What the driver of the transactions needs of the producer.
impl super::Producer {
    /// Looks at the transaction. When it has another id or epoch afterwards, batches are sent under these.
    pub(in crate::client) fn transaction<T>(
        &self,
        look: impl FnOnce(&mut Transactional) -> T,
    ) -> Result<T> {
        let State { transaction, accumulator, .. } = &mut *self.inner.state();
        let transaction = transaction.as_mut();
        let transaction = transaction
            .ok_or_else(|| Error::invalid("the producer was not made for transactions"))?;
        let seen = look(transaction);
        let producer = transaction.machine.producer();
        if producer != transaction.used {
            transaction.used = producer;
            if let Some((id, epoch)) = producer {
                accumulator.set_producer(id, epoch);
            }
        }
        Ok(seen)
    }

    /// Waits until nothing of a transaction that was given up is on its way: no batch, and no partition.
    pub(in crate::client) async fn settled(&self) {
        loop {
            let progress = self.inner.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            self.inner.abandon_transaction();
            {
                let State { transaction, accumulator, .. } = &mut *self.inner.state();
                let Some(transaction) = transaction else { return };
                let machine = &mut transaction.machine;
                let is_settled = !accumulator.is_in_flight() && !machine.is_adding();
                if is_settled || self.task.is_finished() {
                    if accumulator.has_gap() {
                        machine.lose_sequence();
                    }
                    return;
                }
            }
            progress.await;
        }
    }
}
