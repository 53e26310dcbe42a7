//! EndTxn, and what ends a transaction otherwise: another producer, or its timeout.
//!
//! In the second version the epoch is raised here, and whoever repeats the request is known by the epoch before:
//!
//! | state | abort, repeated | abort | commit, repeated | commit |
//! |---|---|---|---|---|
//! | Empty | fenced | an empty transaction | fenced | invalid |
//! | CompleteAbort | done | an empty transaction | invalid | invalid |
//! | CompleteCommit | invalid | an empty transaction | done | invalid |
//!
//! An empty transaction raises the epoch: the producer does not know how the last one ended, and wants nothing
//! of it to come late.

use std::sync::Arc;

#[cfg(any(test, feature = "sim"))]
use super::mistakes::{Mistake, is_planted};
use super::partitions::is_current;
use super::record::{EPOCH_MAX, Producer, RAISES_EPOCH, TransactionState, TransactionValue};
use super::request::{EndRequest, TransactionReply};
use super::shard::TransactionShard;
use crate::error::ErrorCode;
use crate::machine::coordinator::RequestId;
use crate::types::{ProducerId, TimestampMs};

/// What a producer that ends its transaction gets.
enum Ending {
    /// This answer.
    Answer(Result<Producer, ErrorCode>),
    /// The end of the transaction that is open, or of an empty one.
    Prepare,
    /// It asks once more, but the epoch that it would get is for fencing only.
    Rotate,
}

impl TransactionShard {
    /// Takes an EndTxn.
    pub(super) fn end(&mut self, request: RequestId, asked: &EndRequest) {
        let answer = |answer| TransactionReply::Producer(answer);
        let id = &asked.transactional_id;
        let Some(value) = self.value(id) else {
            return self.reply(request, answer(Err(ErrorCode::InvalidProducerIdMapping)));
        };
        if asked.version < RAISES_EPOCH {
            return match first_version(value, asked) {
                Ending::Answer(result) => self.reply(request, answer(result)),
                Ending::Prepare | Ending::Rotate => {
                    let value = TransactionValue {
                        version: 0,
                        ..value.change(prepared(asked.commits), self.now)
                    };
                    self.prepare(id, value, Some((request, answer(Ok(Producer::NONE)))));
                }
            };
        }
        let ending = match second_version(value, asked) {
            Ending::Answer(result) => return self.reply(request, answer(result)),
            ending => ending,
        };
        let fresh = if value.is_exhausted() {
            let Some(fresh) = asked.fresh else {
                return self.reply(request, TransactionReply::NeedsProducerId);
            };
            fresh
        } else {
            ProducerId::NONE
        };
        if matches!(ending, Ending::Rotate) {
            let producer = Producer { id: fresh, epoch: 0 };
            let value = TransactionValue {
                producer_id: fresh,
                producer_epoch: 0,
                ..value.change(value.state, self.now)
            };
            let record = self.record(id, Some(value));
            return self.commit(vec![record], Some((request, answer(Ok(producer)))));
        }
        let was_ongoing = value.state == TransactionState::Ongoing;
        let value = TransactionValue {
            next_producer_id: fresh,
            producer_epoch: value.producer_epoch + 1,
            last_producer_epoch: value.producer_epoch,
            start: if was_ongoing { value.start } else { self.now },
            version: asked.version,
            ..value.change(prepared(asked.commits), self.now)
        };
        let producer = after(&value);
        self.prepare(id, value, Some((request, answer(Ok(producer)))));
    }

    /// Aborts the transaction that is open, and raises the epoch above that of its producer.
    pub(super) fn fence(&mut self, id: &Arc<str>, reply: Option<(RequestId, TransactionReply)>) {
        let Some(value) = self.value(id) else { return };
        let raises = self.config.version >= RAISES_EPOCH;
        let value = TransactionValue {
            next_producer_id: ProducerId::NONE,
            // One that is ongoing has an epoch that was told, and so one above it (TXN-5).
            producer_epoch: value.producer_epoch.saturating_add(1),
            last_producer_epoch: if raises { value.producer_epoch } else { -1 },
            version: if raises { self.config.version } else { 0 },
            ..value.change(TransactionState::PrepareAbort, self.now)
        };
        self.prepare(id, value, reply);
    }

    /// The transaction has lasted too long.
    pub(super) fn time_out(&mut self, id: &Arc<str>) {
        #[cfg(any(test, feature = "sim"))]
        if is_planted(Mistake::ForgetsTimeouts) {
            return;
        }
        if self.value(id).is_some_and(|value| value.state == TransactionState::Ongoing) {
            self.fence(id, None);
        }
    }

    /// Decides how a transaction ends. Without partitions that is all.
    fn prepare(
        &mut self,
        id: &Arc<str>,
        value: TransactionValue,
        reply: Option<(RequestId, TransactionReply)>,
    ) {
        self.timers.ended(id);
        let complete = value.partitions.is_empty().then(|| completed(&value, self.now));
        let is_complete = complete.is_some();
        let values = [Some(value), complete];
        let records = values.into_iter().flatten().map(|value| self.record(id, Some(value)));
        let records = records.collect();
        self.commit(records, reply);
        if !is_complete {
            self.prepared(id);
        }
    }

    /// Every partition has its marker.
    pub(super) fn complete(&mut self, id: &Arc<str>) {
        let Some(value) = self.value(id) else { return };
        let value = completed(value, self.now);
        let record = self.record(id, Some(value));
        self.commit(vec![record], None);
    }
}

fn prepared(commits: bool) -> TransactionState {
    if commits { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort }
}

/// The producer once the markers are written.
fn after(prepared: &TransactionValue) -> Producer {
    if prepared.version >= RAISES_EPOCH && prepared.next_producer_id != ProducerId::NONE {
        return Producer { id: prepared.next_producer_id, epoch: 0 };
    }
    prepared.producer()
}

fn completed(prepared: &TransactionValue, now: TimestampMs) -> TransactionValue {
    let producer = after(prepared);
    let state = match prepared.state {
        TransactionState::PrepareCommit => TransactionState::CompleteCommit,
        _ => TransactionState::CompleteAbort,
    };
    TransactionValue {
        producer_id: producer.id,
        next_producer_id: ProducerId::NONE,
        producer_epoch: producer.epoch,
        partitions: Arc::default(),
        ..prepared.change(state, now)
    }
}

/// In the first version a producer keeps its epoch, so that a request that is repeated looks like the first.
fn first_version(value: &TransactionValue, asked: &EndRequest) -> Ending {
    if let Err(code) = is_current(value, asked.producer) {
        return Ending::Answer(Err(code));
    }
    match (value.state, asked.commits) {
        (TransactionState::Ongoing, _) => Ending::Prepare,
        (TransactionState::PrepareCommit | TransactionState::PrepareAbort, _) => {
            Ending::Answer(Err(ErrorCode::ConcurrentTransactions))
        }
        (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => {
            Ending::Answer(Ok(Producer::NONE))
        }
        _ => Ending::Answer(Err(ErrorCode::InvalidTxnState)),
    }
}

fn second_version(value: &TransactionValue, asked: &EndRequest) -> Ending {
    if value.state.is_prepared() {
        return Ending::Answer(Err(ErrorCode::ConcurrentTransactions));
    }
    let Producer { id, epoch } = asked.producer;
    // One that was ended in the first version has the epoch of whoever did that: of another producer, perhaps.
    let was_raised = value.version >= RAISES_EPOCH
        && value.state.is_idle()
        && value.state != TransactionState::Empty;
    let before_rotation =
        value.previous_producer_id == id && epoch == EPOCH_MAX - 1 && value.producer_epoch == 0;
    let is_known = value.producer_id == id;
    if !is_known && !before_rotation {
        return Ending::Answer(Err(ErrorCode::InvalidProducerIdMapping));
    }
    let before = is_known && i32::from(value.producer_epoch) == i32::from(epoch) + 1;
    let is_repeated = was_raised && (before || before_rotation);
    if !is_repeated && let Err(code) = is_current(value, asked.producer) {
        // The id is known, or was until the epochs ran out.
        let code = if is_known { code } else { ErrorCode::ProducerFenced };
        return Ending::Answer(Err(code));
    }
    match (value.state, asked.commits) {
        (TransactionState::Ongoing, _) => Ending::Prepare,
        (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false)
            if is_repeated =>
        {
            if value.producer_epoch == EPOCH_MAX {
                return Ending::Rotate;
            }
            Ending::Answer(Ok(value.producer()))
        }
        (_, false) if !is_repeated => Ending::Prepare,
        _ => Ending::Answer(Err(ErrorCode::InvalidTxnState)),
    }
}
