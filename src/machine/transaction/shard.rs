//! The shard: its state, and the order of what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::describe;
use super::markers::MarkerQueue;
#[cfg(any(test, feature = "sim"))]
use super::mistakes::{Mistake, is_planted};
use super::record::{TransactionRecord, TransactionState, TransactionValue};
use super::request::{Effect, Event, TransactionConfig, TransactionNews};
use super::request::{TransactionReply, TransactionRequest};
use super::timers::Timers;
use crate::machine::coordinator::{Coordinator, Misfit, RequestId};
use crate::machine::{Machine, Replicated};
use crate::types::{TimestampMs, TopicPartition};

/// The state of all transactional ids of one `__transaction_state` partition.
#[derive(Debug)]
pub struct TransactionShard {
    pub(super) config: Arc<TransactionConfig>,
    pub(super) transactions: BTreeMap<Arc<str>, Transaction>,
    pub(super) markers: MarkerQueue,
    /// See [`Markers::round`](super::markers::Markers::round).
    pub(super) round: u64,
    pub(super) timers: Timers,
    /// The time of the current step.
    pub(super) now: TimestampMs,
    effects: Vec<Effect>,
}

/// One transactional id.
#[derive(Debug)]
pub(super) struct Transaction {
    /// As the log has it.
    pub(super) value: TransactionValue,
    /// The partitions that have no marker yet, while the markers are being written.
    pub(super) unmarked: BTreeSet<TopicPartition>,
    /// How often markers had to be written once more.
    pub(super) retries: u32,
}

impl TransactionShard {
    /// A shard without transactional ids. The round must differ from those of shards before it.
    #[must_use]
    pub fn new(config: TransactionConfig, round: u64) -> Self {
        Self {
            config: Arc::new(config),
            transactions: BTreeMap::new(),
            markers: MarkerQueue::default(),
            round,
            timers: Timers::default(),
            now: TimestampMs::NONE,
            effects: Vec::new(),
        }
    }

    pub(super) fn value(&self, id: &str) -> Option<&TransactionValue> {
        self.transactions.get(id).map(|transaction| &transaction.value)
    }

    /// Answers when everything appended so far is committed.
    pub(super) fn reply(&mut self, request: RequestId, reply: TransactionReply) {
        self.effects.push(Effect::Reply { request, reply });
    }

    /// A record of a transactional id, in the form that the cluster has agreed on.
    pub(super) fn record(
        &self,
        id: &Arc<str>,
        value: Option<TransactionValue>,
    ) -> TransactionRecord {
        let transactional_id = Arc::clone(id);
        TransactionRecord { transactional_id, value, has_tags: self.config.version >= 1 }
    }

    /// Applies records and appends them.
    pub(super) fn commit(
        &mut self,
        records: Vec<TransactionRecord>,
        reply: Option<(RequestId, TransactionReply)>,
    ) {
        match records.iter().try_for_each(|record| self.apply(record)) {
            Ok(()) => self.effects.push(Effect::Append { records, reply }),
            Err(misfit) => self.effects.push(Effect::Undo(misfit)),
        }
    }

    fn request(&mut self, id: RequestId, request: TransactionRequest) {
        let reply = match request {
            TransactionRequest::Init(request) => return self.init(id, request),
            TransactionRequest::Add(request) => return self.add(id, request),
            TransactionRequest::End(request) => return self.end(id, &request),
            TransactionRequest::TakeMarkers => return self.take_markers(id),
            TransactionRequest::MarkersAnswered(answers) => {
                self.markers_answered(&answers);
                TransactionReply::Noted
            }
            TransactionRequest::Verify(request) => TransactionReply::Verified(self.verify(request)),
            TransactionRequest::Describe { ids } => describe::describe(self, ids),
            TransactionRequest::List(request) => describe::list(self, &request),
        };
        self.reply(id, reply);
    }
}

impl Replicated for TransactionShard {
    type Record = TransactionRecord;
    type Error = Misfit;

    fn apply(&mut self, record: &TransactionRecord) -> Result<(), Misfit> {
        let id = &record.transactional_id;
        let Some(value) = &record.value else {
            self.transactions.remove(id);
            self.timers.forget(id);
            return Ok(());
        };
        let is_whole = value.producer_id.0 >= 0
            && value.producer_epoch >= 0
            && (value.state != TransactionState::Empty || value.partitions.is_empty());
        if !is_whole {
            let what = format!("transactional id {id:?} cannot be {value:?}");
            return Err(Misfit(what));
        }
        let unmarked = if value.state.is_prepared() {
            BTreeSet::clone(&value.partitions)
        } else {
            BTreeSet::new()
        };
        let transaction = Transaction { value: value.clone(), unmarked, retries: 0 };
        self.transactions.insert(Arc::clone(id), transaction);
        Ok(())
    }
}

impl Machine for TransactionShard {
    type Event = Event;
    type Effect = Effect;

    /// Deadlines pass in [`Event::Tick`] alone: requests that arrived before are heard first.
    fn step(&mut self, now: TimestampMs, event: Event, out: &mut Vec<Effect>) {
        self.now = now;
        match event {
            Event::Request { id, request } => self.request(id, request),
            Event::News(TransactionNews::Config(config)) => self.config = config,
            Event::ClockSet { by_ms } => self.timers.shift(by_ms),
            Event::Tick => self.tick(),
        }
        self.hand_out_markers();
        out.append(&mut self.effects);
    }

    fn next_deadline(&self) -> Option<TimestampMs> {
        self.timers.next()
    }
}

impl Coordinator for TransactionShard {
    type Request = TransactionRequest;
    type Reply = TransactionReply;
    type News = TransactionNews;

    fn restored(&mut self, now: TimestampMs, out: &mut Vec<Effect>) {
        self.now = now;
        let ids: Vec<Arc<str>> = self.transactions.keys().map(Arc::clone).collect();
        for id in &ids {
            self.restore(id);
        }
        self.hand_out_markers();
        out.append(&mut self.effects);
    }
}

impl TransactionShard {
    /// Takes up what a leader before has left undone of one transactional id.
    fn restore(&mut self, id: &Arc<str>) {
        let Some(value) = self.value(id) else { return };
        match value.state {
            TransactionState::Ongoing => {
                // The clocks of two brokers may differ: the timeout passes once more at most.
                let timeout_ms = i64::from(value.timeout_ms);
                let until = value.start.plus(timeout_ms).min(self.now.plus(timeout_ms));
                self.arm_timeout(id, until);
            }
            #[cfg(any(test, feature = "sim"))]
            state if state.is_prepared() && is_planted(Mistake::ForgetsMarkers) => {}
            state if state.is_prepared() => self.prepared(id),
            _ => {}
        }
        self.arm_expiry();
    }
}
