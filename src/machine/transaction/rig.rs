//! A shard with a clock, a log and a record of answers, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::error::ErrorCode;
use crate::machine::coordinator::{Coordinator as _, RequestId};
use crate::machine::{Machine as _, Replicated as _};
use crate::types::{ProducerId, TimestampMs, TopicPartition};

/// The transactional id of tests that need only one.
pub(super) const ID: &str = "t";
/// The timeout of its transactions.
pub(super) const TIMEOUT_MS: i32 = 60_000;

pub(super) fn config(version: i16) -> TransactionConfig {
    TransactionConfig {
        version,
        timeout_ms_max: 900_000,
        abort_interval_ms: 10_000,
        expiration_ms: 600_000,
        expiration_interval_ms: 100_000,
    }
}

pub(super) fn partitions(of: &[(&str, i32)]) -> BTreeSet<TopicPartition> {
    of.iter().map(|(topic, partition)| TopicPartition::new(*topic, *partition)).collect()
}

pub(super) struct Rig {
    pub(super) shard: TransactionShard,
    pub(super) now: TimestampMs,
    /// Everything that was appended.
    pub(super) log: Vec<TransactionRecord>,
    /// The ids that were given.
    pub(super) last_id: i64,
    answers: BTreeMap<RequestId, TransactionReply>,
    asked: u64,
    restarts: u64,
    config: TransactionConfig,
}

impl Rig {
    /// Of a cluster with this version of transactions.
    pub(super) fn new(version: i16) -> Self {
        let config = config(version);
        let mut rig = Self {
            shard: TransactionShard::new(config.clone(), 0),
            now: TimestampMs(1_000_000),
            log: Vec::new(),
            last_id: 999,
            answers: BTreeMap::new(),
            asked: 0,
            restarts: 0,
            config,
        };
        let mut out = Vec::new();
        rig.shard.restored(rig.now, &mut out);
        rig.carry_out(out);
        rig
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let answer = match effect {
                Effect::Append { records, reply } => {
                    assert!(!records.is_empty(), "nothing is appended");
                    self.log.extend(records);
                    reply
                }
                Effect::Reply { request, reply } => Some((request, reply)),
                Effect::AppendInTransaction { .. } | Effect::EndTransaction { .. } => {
                    panic!("what the coordinator decides is itself part of no transaction")
                }
                Effect::Undo(misfit) => panic!("{misfit}"),
            };
            if let Some((request, reply)) = answer {
                assert!(self.answers.insert(request, reply).is_none(), "answered twice");
            }
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        let mut out = Vec::new();
        self.shard.step(self.now, event, &mut out);
        self.carry_out(out);
    }

    /// Asks, and returns the token of the answer.
    pub(super) fn ask(&mut self, request: TransactionRequest) -> RequestId {
        self.asked += 1;
        let id = RequestId(self.asked);
        self.event(Event::Request { id, request });
        id
    }

    /// The answer to a request, if it is there.
    pub(super) fn answer(&mut self, id: RequestId) -> Option<TransactionReply> {
        self.answers.remove(&id)
    }

    /// Asks something that is answered at once.
    pub(super) fn tell(&mut self, request: TransactionRequest) -> TransactionReply {
        let id = self.ask(request);
        self.answer(id).expect("answered at once")
    }

    /// Asks for a producer, with a fresh id if one is needed.
    fn producer(
        &mut self,
        request: impl Fn(Option<ProducerId>) -> TransactionRequest,
    ) -> Result<Producer, ErrorCode> {
        let reply = match self.tell(request(None)) {
            TransactionReply::NeedsProducerId => {
                self.last_id += 1;
                self.tell(request(Some(ProducerId(self.last_id))))
            }
            reply => reply,
        };
        match reply {
            TransactionReply::Producer(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn init_of(
        &mut self,
        id: &str,
        expected: Option<Producer>,
    ) -> Result<Producer, ErrorCode> {
        let id: Arc<str> = id.into();
        self.producer(|fresh| {
            TransactionRequest::Init(InitRequest {
                transactional_id: Arc::clone(&id),
                timeout_ms: TIMEOUT_MS,
                expected,
                fresh,
            })
        })
    }

    pub(super) fn init(&mut self, expected: Option<Producer>) -> Result<Producer, ErrorCode> {
        self.init_of(ID, expected)
    }

    pub(super) fn add_of(
        &mut self,
        id: &str,
        producer: Producer,
        of: &[(&str, i32)],
        version: i16,
    ) -> Result<(), ErrorCode> {
        let asked = AddPartitionsRequest {
            transactional_id: id.into(),
            producer,
            partitions: partitions(of),
            version,
        };
        match self.tell(TransactionRequest::Add(asked)) {
            TransactionReply::Added(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn add(
        &mut self,
        producer: Producer,
        of: &[(&str, i32)],
        version: i16,
    ) -> Result<(), ErrorCode> {
        self.add_of(ID, producer, of, version)
    }

    pub(super) fn verify(
        &mut self,
        producer: Producer,
        of: &[(&str, i32)],
    ) -> Result<BTreeSet<TopicPartition>, ErrorCode> {
        let asked = AddPartitionsRequest {
            transactional_id: ID.into(),
            producer,
            partitions: partitions(of),
            version: 2,
        };
        match self.tell(TransactionRequest::Verify(asked)) {
            TransactionReply::Verified(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn end_of(
        &mut self,
        id: &str,
        producer: Producer,
        commits: bool,
        version: i16,
    ) -> Result<Producer, ErrorCode> {
        let id: Arc<str> = id.into();
        self.producer(|fresh| {
            TransactionRequest::End(EndRequest {
                transactional_id: Arc::clone(&id),
                producer,
                commits,
                version,
                fresh,
            })
        })
    }

    pub(super) fn end(
        &mut self,
        producer: Producer,
        commits: bool,
        version: i16,
    ) -> Result<Producer, ErrorCode> {
        self.end_of(ID, producer, commits, version)
    }

    /// The markers that are to be written; none if none are.
    pub(super) fn take(&mut self) -> Vec<Markers> {
        let request = self.ask(TransactionRequest::TakeMarkers);
        match self.answer(request) {
            None => Vec::new(),
            Some(TransactionReply::Markers(markers)) => markers,
            Some(other) => panic!("{other:?}"),
        }
    }

    /// Tells what became of markers: the same for all.
    pub(super) fn fared(&mut self, markers: &Markers, outcome: MarkerOutcome) {
        let outcomes = markers.partitions.iter().map(|one| (one.clone(), outcome)).collect();
        self.answered(markers, outcomes);
    }

    pub(super) fn answered(
        &mut self,
        markers: &Markers,
        outcomes: Vec<(TopicPartition, MarkerOutcome)>,
    ) {
        let answer = MarkerAnswer {
            transactional_id: Arc::clone(&markers.transactional_id),
            round: markers.round,
            producer: markers.producer,
            outcomes,
        };
        self.tell(TransactionRequest::MarkersAnswered(vec![answer]));
    }

    /// Has all markers written that are to be written.
    pub(super) fn settle(&mut self) {
        for markers in self.take() {
            self.fared(&markers, MarkerOutcome::Written);
        }
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn pass(&mut self, duration_ms: i64) {
        let end = self.now.plus(duration_ms);
        while let Some(deadline) = self.shard.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(deadline);
            self.event(Event::Tick);
        }
        self.now = end;
    }

    /// Another broker takes over: the state from the first `kept` records of the log, as they are written there, and
    /// nobody waits.
    pub(super) fn restart_at(&mut self, kept: usize) {
        self.log.truncate(kept);
        self.restarts += 1;
        self.shard = TransactionShard::new(self.config.clone(), self.restarts);
        for record in &self.log {
            let mut record = record.clone();
            if let Some(value) = &mut record.value {
                value.last_producer_epoch = -1;
                if !record.has_tags {
                    value.previous_producer_id = ProducerId::NONE;
                    value.next_producer_id = ProducerId::NONE;
                    value.version = 0;
                }
            }
            self.shard.apply(&record).unwrap();
        }
        let mut out = Vec::new();
        self.shard.restored(self.now, &mut out);
        self.carry_out(out);
    }

    pub(super) fn restart(&mut self) {
        self.restart_at(self.log.len());
    }

    pub(super) fn value(&self) -> &TransactionValue {
        &self.shard.transactions[ID].value
    }

    pub(super) fn state(&self) -> TransactionState {
        self.value().state
    }

    /// Gives the id this epoch, in the state in which it is.
    pub(super) fn set_epoch(&mut self, epoch: i16) -> Producer {
        let value = TransactionValue { producer_epoch: epoch, ..self.value().clone() };
        let has_tags = self.config.version >= 1;
        let record =
            TransactionRecord { transactional_id: ID.into(), value: Some(value), has_tags };
        self.shard.apply(&record).unwrap();
        self.log.push(record);
        self.value().producer()
    }
}
