//! The sender task: takes batches from the accumulator, in up to `max.in.flight` requests per node,
//! and settles them with the answers.
//!
//! Requests to a node are started in one place, in the order of draining ([`Sender::send_to`]). What it has in
//! common with the fetcher of a consumer is in [`crate::client::driver`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::request::{self, Answers, Built, Unbuildable, refusal};
use super::trouble::Troubles;
use super::{Inner, Payload, State};
use crate::client::cluster::Snapshot;
use crate::client::config::Acks;
use crate::client::driver::{self, Driver, Refreshed};
use crate::client::route::Route;
use crate::client::transaction::Answered;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::accumulator::{Drained, Failure, Settled, Verdict};
use crate::protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::protocol::messages::produce::{PartitionProduceResponse, ProduceResponse};
use crate::types::{NodeId, Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

/// The most requests in flight to one node: as many as its connection queues.
const IN_FLIGHT_LIMIT: usize = 32;

type Batches = Vec<Drained<Payload>>;

enum Event {
    Answered {
        node: NodeId,
        batches: Batches,
        version: i16,
        result: Result<Option<ProduceResponse>>,
    },
    GotProducerId(Result<InitProducerIdResponse>),
    /// The coordinator's answer to partitions of the transaction.
    Added(Answered),
}

struct Sender {
    inner: Arc<Inner>,
    driver: Driver<Event>,
    asking_id: bool,
    id_retry_at: TimestampMs,
    id_failures: u32,
}

/// Runs until it is aborted.
pub(super) async fn run(inner: Arc<Inner>) {
    let sender = Sender {
        driver: Driver::new(Arc::clone(&inner.cluster), inner.lane),
        inner: Arc::clone(&inner),
        asking_id: false,
        id_retry_at: TimestampMs::NONE,
        id_failures: 0,
    };
    driver::run(sender, &inner.work).await;
}

impl driver::Task for Sender {
    type Event = Event;

    fn driver(&mut self) -> &mut Driver<Event> {
        &mut self.driver
    }

    fn turn(&mut self, now: TimestampMs) {
        let inner = Arc::clone(&self.inner);
        self.expire(now);
        inner.abandon_transaction();
        self.ask_producer_id(now);
        self.add_partitions(now);
        let snapshot = inner.cluster.snapshot();
        let mut leaders = BTreeSet::new();
        let mut has_work = false;
        for partition in inner.state().accumulator.waiting_partitions() {
            has_work = true;
            match snapshot.leader(partition) {
                Some(leader) => drop(leaders.insert(leader.node)),
                None => self.driver.want_metadata(),
            }
        }
        if has_work {
            self.driver.refresh(now, || snapshot.topics.keys().cloned().collect());
        }
        for leader in leaders {
            self.send_to(leader, now, &snapshot);
        }
    }

    fn next_deadline(&self, now: TimestampMs) -> Option<TimestampMs> {
        let state = self.inner.state();
        let accumulator = state.accumulator.next_deadline(now);
        let adding =
            state.transaction.as_ref().and_then(|transaction| transaction.machine.add_at());
        drop(state);
        let own = [Some(self.id_retry_at), adding].into_iter().flatten().filter(|&at| at > now);
        own.chain(accumulator).min()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Answered { node, batches, version, result } => {
                self.answered(node, batches, version, result);
            }
            Event::GotProducerId(result) => self.got_producer_id(result),
            Event::Added(answered) => self.inner.added(answered),
        }
    }

    fn connected(&mut self, node: NodeId, result: Result<()>) {
        match result {
            Ok(()) => self.inner.state().troubles.end(Some(node)),
            Err(error) => self.note_trouble(Some(node), &error),
        }
    }

    fn refreshed(&mut self, result: Refreshed) {
        match result {
            Ok(_) => self.inner.state().troubles.end(None),
            Err(error) => {
                tracing::debug!(error = %error.chain(), "metadata refresh failed");
                self.note_trouble(None, &error);
                self.driver.want_metadata();
            }
        }
    }
}

impl Sender {
    /// Fails the batches that have waited too long.
    fn expire(&self, now: TimestampMs) {
        let expired: Vec<(Payload, Error)> = {
            let mut state = self.inner.state();
            let state = &mut *state;
            state.accumulator.seal_lingered(now);
            let expired = state.accumulator.expire(now).into_iter();
            let counted = expired.map(|(partition, payload, failure)| {
                let reason = self.reason(&state.troubles, &partition, failure, None);
                (payload, failure, reason)
            });
            let counted: Vec<_> = counted.collect();
            let note = |(payload, failure, reason)| {
                state.batch_failed(&payload, failure, &reason);
                (payload, reason)
            };
            counted.into_iter().map(note).collect()
        };
        if expired.is_empty() {
            return;
        }
        for (payload, reason) in expired {
            self.inner.give_up(payload, reason);
        }
        self.inner.progress.notify_waiters();
    }

    /// Starts requests to a node, as many as there are batches and free slots.
    fn send_to(&mut self, leader: NodeId, now: TimestampMs, snapshot: &Snapshot) {
        let inner = Arc::clone(&self.inner);
        if !inner.state().accumulator.has_ready(now) {
            return;
        }
        let in_flight_max = inner.config.in_flight_max.min(IN_FLIGHT_LIMIT);
        let Some(route) = self.driver.route(leader, now) else { return };
        while self.driver.unanswered(leader) < in_flight_max {
            let batches = {
                let State { accumulator, transaction, .. } = &mut *inner.state();
                let may_send = |partition: &TopicPartition| {
                    transaction.as_ref().is_none_or(|one| one.machine.may_send(partition))
                };
                accumulator.drain(now, leader, |partition| {
                    let leader = snapshot.leader(partition)?.node;
                    may_send(partition).then_some(leader)
                })
            };
            if batches.is_empty() {
                return;
            }
            self.produce(leader, &route, batches, snapshot);
        }
    }

    fn produce(
        &mut self,
        node: NodeId,
        route: &Arc<Route>,
        mut batches: Batches,
        snapshot: &Snapshot,
    ) {
        let timeout = self.inner.cluster.config.request_timeout;
        let acks = self.inner.config.acks;
        let transaction = self.inner.transaction();
        let transaction = transaction.as_ref().map(|(id, version)| (id.as_str(), *version));
        let built = request::build(route, &mut batches, snapshot, acks, timeout, transaction);
        let Built { request, version } = match built {
            Ok(built) => built,
            Err(unbuildable) => return self.refuse(batches, &unbuildable),
        };
        let answer = route.start(request, version, timeout, acks != Acks::None);
        let (cluster, route) = (Arc::clone(&self.inner.cluster), Arc::clone(route));
        self.driver.start_request(node, async move {
            let result = cluster.unless_gone((node, &route), Duration::ZERO, answer).await;
            Event::Answered { node, batches, version, result }
        });
    }

    /// Handles a request that could not be built: the batch at fault fails, the others are put
    /// back.
    fn refuse(&mut self, batches: Batches, Unbuildable { error, fault }: &Unbuildable) {
        for (index, batch) in batches.into_iter().enumerate() {
            let is_fault = fault.is_none_or(|fault| fault == index);
            let code =
                if is_fault { ErrorCode::InvalidRecord } else { ErrorCode::NotLeaderOrFollower };
            let reason = is_fault.then(|| error.clone());
            self.settle(batch, Verdict::Refused(code), None, reason);
        }
    }

    fn answered(
        &mut self,
        node: NodeId,
        batches: Batches,
        version: i16,
        result: Result<Option<ProduceResponse>>,
    ) {
        if result.is_ok() {
            self.inner.state().troubles.end(Some(node));
        }
        let response = match result {
            Ok(Some(response)) => response,
            // acks=0: it is only known that the request was written.
            Ok(None) => {
                for batch in batches {
                    let ack = PartitionProduceResponse { base_offset: -1, ..Default::default() };
                    self.settle(batch, Verdict::Acknowledged, Some(&ack), None);
                }
                return;
            }
            Err(error) => {
                tracing::debug!(error = %error.chain(), "produce request failed");
                self.driver.want_metadata();
                for batch in batches {
                    self.settle(batch, Verdict::Lost, None, None);
                }
                self.note_trouble(Some(node), &error);
                return;
            }
        };
        let snapshot = self.inner.cluster.snapshot();
        let answers = Answers::of(&response, version);
        for batch in batches {
            let Some(answer) = answers.get(&batch.partition, &snapshot) else {
                self.settle(batch, Verdict::Lost, None, None);
                continue;
            };
            let code = ErrorCode::from_i16(answer.error_code);
            if code.is_ok() {
                self.settle(batch, Verdict::Acknowledged, Some(answer), None);
            } else {
                if code.retriable() {
                    self.driver.want_metadata();
                }
                self.settle(batch, self.inner.refused(code), Some(answer), None);
            }
        }
    }

    /// Returns a batch to the accumulator, and tells its caller if that settled it.
    fn settle(
        &mut self,
        batch: Drained<Payload>,
        verdict: Verdict,
        answer: Option<&PartitionProduceResponse>,
        reason: Option<Error>,
    ) {
        let partition = batch.partition.clone();
        let now = self.inner.cluster.now();
        let random = self.inner.cluster.env.random.u64();
        let mut state = self.inner.state();
        match state.accumulator.settle(now, batch, verdict, random) {
            Settled::Acknowledged(payload) => {
                drop(state);
                self.inner.cluster.obstacles.settled(&partition);
                let base_offset =
                    answer.map_or(Offset::UNKNOWN, |answer| Offset(answer.base_offset));
                let append_time = answer.map(|answer| TimestampMs(answer.log_append_time_ms));
                let append_time = append_time.filter(|&time| time > TimestampMs::NONE);
                self.inner.memory.add_permits(payload.charged);
                payload.promise.acknowledge(base_offset, append_time);
                self.inner.progress.notify_waiters();
            }
            Settled::Retrying => {
                if let Verdict::Refused(code) = verdict {
                    let refusal = refusal(format!("the broker of {partition}"), code, answer);
                    self.inner.cluster.obstacles.refused(&partition, refusal);
                }
            }
            Settled::Failed(payload, failure) => {
                let known = || self.reason(&state.troubles, &partition, failure, answer);
                let reason = reason.unwrap_or_else(known);
                state.batch_failed(&payload, failure, &reason);
                drop(state);
                self.inner.cluster.obstacles.settled(&partition);
                self.inner.give_up(payload, reason);
                self.inner.progress.notify_waiters();
            }
        }
    }

    fn reason(
        &self,
        troubles: &Troubles,
        partition: &TopicPartition,
        failure: Failure,
        answer: Option<&PartitionProduceResponse>,
    ) -> Error {
        match failure {
            Failure::Refused(code) => refusal(format!("producing to {partition}"), code, answer),
            Failure::Lost => {
                let context =
                    format!("producing to {partition}; the records may have been written");
                Error::kafka(ErrorCode::NetworkException, context)
                    .because(self.inner.trouble(troubles, partition))
            }
            Failure::Expired(last) => {
                let trouble = self.inner.trouble(troubles, partition);
                let why = match (&trouble, last) {
                    (Some(_), _) => String::new(),
                    (None, Some(code)) => format!("; last answer: {code}"),
                    (None, None) => "; no broker took the batch".to_owned(),
                };
                let what = format!("producing to {partition} (delivery.timeout.ms){why}");
                Error::timeout(what, self.inner.config.delivery_timeout).because(trouble)
            }
        }
    }

    /// Remembers why a broker cannot be reached. An embedded broker does not come back once it is
    /// closed, so then nothing waits for it.
    fn note_trouble(&self, with: Option<NodeId>, error: &Error) {
        self.inner.state().troubles.note(with, error.clone());
        if matches!(error, Error::Closed { .. }) && self.inner.cluster.is_local() {
            self.inner.abandon_broker(&error.to_string());
        }
    }

    /// Has the coordinator add the partitions of the transaction that are to be sent to (version 1).
    fn add_partitions(&mut self, now: TimestampMs) {
        let Some(coordinators) = self.inner.coordinators.clone() else { return };
        let Some((partitions, producer)) = self.inner.to_add(now) else { return };
        self.driver.start(async move {
            Event::Added(coordinators.add_partitions(producer, &partitions).await)
        });
    }

    fn ask_producer_id(&mut self, now: TimestampMs) {
        let needed = {
            let state = self.inner.state();
            state.transaction.is_none()
                && state.accumulator.needs_producer_id()
                && !state.accumulator.is_idle()
        };
        if !needed || self.asking_id || self.id_retry_at > now {
            return;
        }
        self.asking_id = true;
        let inner = Arc::clone(&self.inner);
        self.driver.start(async move {
            let ask = async |route: Arc<Route>| {
                let request = InitProducerIdRequest {
                    transactional_id: None,
                    transaction_timeout_ms: i32::MAX,
                    ..Default::default()
                };
                route.call(request, inner.cluster.config.request_timeout).await
            };
            Event::GotProducerId(inner.cluster.ask_any(ask).await)
        });
    }

    fn got_producer_id(&mut self, result: Result<InitProducerIdResponse>) {
        self.asking_id = false;
        let result = result.and_then(|response| match ErrorCode::from_i16(response.error_code) {
            ErrorCode::KafkaStorageError => {
                let text = "asking for a producer id: the disk is full where the broker keeps \
                                its metadata, or it failed; the broker's log says which";
                Err(Error::told(ErrorCode::KafkaStorageError, text))
            }
            code => code.into_result("asking for a producer id").map(|()| response),
        });
        match result {
            Ok(response) => {
                let id = ProducerId(response.producer_id);
                let epoch = ProducerEpoch(response.producer_epoch);
                self.id_failures = 0;
                self.id_retry_at = TimestampMs::NONE;
                self.inner.state().accumulator.set_producer(id, epoch);
                self.inner.cluster.obstacles.producer_id_given();
            }
            Err(error) if error.retriable() && !self.inner.is_final(&error) => {
                tracing::debug!(error = %error.chain(), "no producer id yet");
                self.inner.cluster.obstacles.producer_id_refused(error);
                self.id_failures += 1;
                self.id_retry_at = self.inner.cluster.after_failures(self.id_failures);
            }
            Err(error) => {
                // Nothing can be sent without it, and retrying does not help.
                self.inner.abandon(|_| error.clone());
            }
        }
    }
}
