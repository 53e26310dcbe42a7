//! The sender task: takes batches from the accumulator, in up to `max.in.flight` requests per node,
//! and settles them with the answers.
//!
//! Everything that the task waits for (connections, answers, a producer id, metadata) is an event
//! in one set, so that a slow broker only holds up its own partitions. Requests to a node are
//! started in one place, in the order of draining ([`Sender::send_to`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::trouble::Troubles;
use super::{Inner, Payload};
use crate::client::cluster::Snapshot;
use crate::client::config::Acks;
use crate::client::route::Route;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::accumulator::{Drained, Failure, Outcome, Settled};
use crate::protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData,
};
use crate::protocol::{ApiKey, Records, Str};
use crate::types::{NodeId, Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition, Uuid};

/// The first version of Produce that names topics by id (KIP-516).
const TOPIC_IDS_SINCE: i16 = 13;

/// The most requests in flight to one node: as many as its connection queues.
const IN_FLIGHT_LIMIT: usize = 32;

type Batches = Vec<Drained<Payload>>;

enum Event {
    Connected(NodeId, Result<Arc<Route>>),
    Answered {
        node: NodeId,
        batches: Batches,
        by_id: bool,
        result: Result<Option<ProduceResponse>>,
    },
    GotProducerId(Result<InitProducerIdResponse>),
    Refreshed(Result<()>),
}

enum NodeRoute {
    Connecting,
    Ready(Arc<Route>),
    Failed { until: TimestampMs, failures: u32 },
}

#[derive(Default)]
struct NodeState {
    route: Option<NodeRoute>,
    in_flight: usize,
}

struct Sender {
    inner: Arc<Inner>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    nodes: BTreeMap<NodeId, NodeState>,
    asking_id: bool,
    id_retry_at: TimestampMs,
    id_failures: u32,
    refreshing: bool,
    wants_refresh: bool,
    refresh_at: TimestampMs,
}

/// Runs until it is aborted.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut sender = Sender {
        inner,
        events: FuturesUnordered::new(),
        nodes: BTreeMap::new(),
        asking_id: false,
        id_retry_at: TimestampMs::NONE,
        id_failures: 0,
        refreshing: false,
        wants_refresh: false,
        refresh_at: TimestampMs::NONE,
    };
    let inner = Arc::clone(&sender.inner);
    loop {
        sender.turn();
        let now = inner.cluster.now();
        let deadline = sender.next_deadline(now);
        let wait_ms = deadline.map_or(u64::MAX, |at| u64::try_from(at.0 - now.0).unwrap_or(0));
        let wait = Duration::from_millis(wait_ms.clamp(1, 60_000));
        tokio::select! {
            biased;
            Some(event) = sender.events.next() => sender.handle(event),
            () = inner.work.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Sender {
    /// Does everything that can be done now.
    fn turn(&mut self) {
        let inner = Arc::clone(&self.inner);
        let now = inner.cluster.now();
        self.expire(now);
        self.ask_producer_id(now);
        let snapshot = inner.cluster.snapshot();
        let mut leaders = BTreeSet::new();
        let mut has_work = false;
        {
            let state = inner.state();
            for partition in state.accumulator.waiting_partitions() {
                has_work = true;
                match snapshot.leader(partition) {
                    Some((leader, _)) => drop(leaders.insert(leader)),
                    None => self.wants_refresh = true,
                }
            }
        }
        if has_work {
            self.refresh(now);
        }
        for leader in leaders {
            self.send_to(leader, now, &snapshot);
        }
    }

    /// Fails the batches that have waited too long.
    fn expire(&self, now: TimestampMs) {
        let expired: Vec<(Payload, Error)> = {
            let mut state = self.inner.state();
            let state = &mut *state;
            state.accumulator.seal_lingered(now);
            let expired = state.accumulator.expire(now).into_iter();
            let counted = expired.map(|(partition, payload, failure)| {
                let reason = self.reason(&state.troubles, &partition, failure, None);
                state.lost.note(&payload.promise, &reason);
                (payload, reason)
            });
            counted.collect()
        };
        if expired.is_empty() {
            return;
        }
        for (payload, reason) in expired {
            self.inner.give_up(payload, reason);
        }
        self.inner.progress.notify_waiters();
    }

    fn next_deadline(&self, now: TimestampMs) -> Option<TimestampMs> {
        let routes = self.nodes.values().filter_map(|node| match node.route {
            Some(NodeRoute::Failed { until, .. }) => Some(until),
            _ => None,
        });
        let refresh = self.wants_refresh.then_some(self.refresh_at);
        let accumulator = self.inner.state().accumulator.next_deadline(now);
        routes
            .chain([self.id_retry_at])
            .chain(refresh)
            .filter(|&at| at > now)
            .chain(accumulator)
            .min()
    }

    /// Starts requests to a node, as many as there are batches and free slots.
    fn send_to(&mut self, leader: NodeId, now: TimestampMs, snapshot: &Snapshot) {
        let inner = Arc::clone(&self.inner);
        if !inner.state().accumulator.has_ready(now) {
            return;
        }
        let in_flight_max = inner.config.in_flight_max.min(IN_FLIGHT_LIMIT);
        let node = self.nodes.entry(leader).or_default();
        let route = match &node.route {
            Some(NodeRoute::Ready(route)) if !route.is_closed() => Arc::clone(route),
            Some(NodeRoute::Connecting) => return,
            Some(NodeRoute::Failed { until, .. }) if *until > now => return,
            other => {
                let failures = match other {
                    Some(NodeRoute::Failed { failures, .. }) => *failures,
                    _ => 0,
                };
                self.connect(leader, failures);
                return;
            }
        };
        while self.nodes.get(&leader).is_some_and(|node| node.in_flight < in_flight_max) {
            let leader_of = |partition: &TopicPartition| Some(snapshot.leader(partition)?.0);
            let batches = inner.state().accumulator.drain(now, leader, leader_of);
            if batches.is_empty() {
                return;
            }
            self.produce(leader, &route, batches, snapshot);
        }
    }

    fn connect(&mut self, node: NodeId, failures: u32) {
        let inner = Arc::clone(&self.inner);
        self.nodes.entry(node).or_default().route = Some(if failures == 0 {
            NodeRoute::Connecting
        } else {
            // Keeps the count until the outcome is known.
            NodeRoute::Failed { until: TimestampMs(i64::MAX), failures }
        });
        self.events.push(Box::pin(async move {
            Event::Connected(node, inner.cluster.route(node, inner.lane).await)
        }));
    }

    fn produce(&mut self, node: NodeId, route: &Route, mut batches: Batches, snapshot: &Snapshot) {
        let timeout = self.inner.cluster.config.request_timeout;
        let acks = self.inner.config.acks;
        let built = build_request(route, &mut batches, snapshot, acks, timeout);
        let (request, version) = match built {
            Ok(built) => built,
            Err((error, index)) => return self.refuse(batches, &error, index),
        };
        let by_id = version >= TOPIC_IDS_SINCE;
        self.nodes.entry(node).or_default().in_flight += 1;
        let answer = route.start(request, version, timeout, acks != Acks::None);
        self.events.push(Box::pin(async move {
            Event::Answered { node, batches, by_id, result: answer.await }
        }));
    }

    /// Handles a request that could not be built: the batch at fault fails, the others are put
    /// back.
    fn refuse(&mut self, batches: Batches, error: &Error, fault: Option<usize>) {
        for (index, batch) in batches.into_iter().enumerate() {
            let is_fault = fault.is_none_or(|fault| fault == index);
            let code =
                if is_fault { ErrorCode::InvalidRecord } else { ErrorCode::NotLeaderOrFollower };
            let reason = is_fault.then(|| error.clone());
            self.settle(batch, Outcome::Refused(code), None, reason);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.inner.cluster.now();
        match event {
            Event::Connected(node, Ok(route)) => {
                self.inner.state().troubles.end(Some(node));
                self.nodes.entry(node).or_default().route = Some(NodeRoute::Ready(route));
            }
            Event::Connected(node, Err(error)) => self.connect_failed(node, &error, now),
            Event::Answered { node, batches, by_id, result } => {
                if let Some(state) = self.nodes.get_mut(&node) {
                    state.in_flight = state.in_flight.saturating_sub(1);
                }
                self.answered(node, batches, by_id, result);
            }
            Event::GotProducerId(result) => self.got_producer_id(result, now),
            Event::Refreshed(result) => {
                self.refreshing = false;
                match result {
                    Ok(()) => self.inner.state().troubles.end(None),
                    Err(error) => {
                        tracing::debug!(error = %error.chain(), "metadata refresh failed");
                        self.note_trouble(None, &error);
                        self.wants_refresh = true;
                    }
                }
            }
        }
    }

    fn connect_failed(&mut self, node: NodeId, error: &Error, now: TimestampMs) {
        tracing::debug!(%node, error = %error.chain(), "cannot connect to produce");
        self.note_trouble(Some(node), error);
        let state = self.nodes.entry(node).or_default();
        let failures = match state.route {
            Some(NodeRoute::Failed { failures, .. }) => failures + 1,
            _ => 1,
        };
        let cluster = &self.inner.cluster;
        let wait_ms = cluster.config.backoff.delay_ms(failures, cluster.env.random.u64());
        let until = now.plus(i64::try_from(wait_ms).unwrap_or(i64::MAX));
        state.route = Some(NodeRoute::Failed { until, failures });
        self.wants_refresh = true;
    }

    fn answered(
        &mut self,
        node: NodeId,
        batches: Batches,
        by_id: bool,
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
                    self.settle(batch, Outcome::Acknowledged, Some(&ack), None);
                }
                return;
            }
            Err(error) => {
                tracing::debug!(error = %error.chain(), "produce request failed");
                self.wants_refresh = true;
                for batch in batches {
                    self.settle(batch, Outcome::Lost, None, None);
                }
                self.note_trouble(Some(node), &error);
                return;
            }
        };
        let snapshot = self.inner.cluster.snapshot();
        let mut answers: BTreeMap<(Uuid, &str, i32), &PartitionProduceResponse> = BTreeMap::new();
        for topic in &response.responses {
            for answer in &topic.partition_responses {
                let (id, name) =
                    if by_id { (topic.topic_id, "") } else { (Uuid::ZERO, &*topic.name) };
                answers.insert((id, name, answer.index), answer);
            }
        }
        for batch in batches {
            let partition = batch.partition.clone();
            let id = snapshot.topics.get(&partition.topic).map_or(Uuid::ZERO, |topic| topic.id);
            let key = if by_id {
                (id, "", partition.partition)
            } else {
                (Uuid::ZERO, &*partition.topic, partition.partition)
            };
            match answers.get(&key) {
                Some(answer) => {
                    let code = ErrorCode::from_i16(answer.error_code);
                    if code.is_ok() {
                        self.settle(batch, Outcome::Acknowledged, Some(answer), None);
                    } else {
                        self.wants_refresh |= code.retriable();
                        self.settle(batch, self.inner.refused(code), Some(answer), None);
                    }
                }
                None => self.settle(batch, Outcome::Lost, None, None),
            }
        }
    }

    /// Returns a batch to the accumulator, and tells its caller if that settled it.
    fn settle(
        &mut self,
        batch: Drained<Payload>,
        outcome: Outcome,
        answer: Option<&PartitionProduceResponse>,
        reason: Option<Error>,
    ) {
        let partition = batch.partition.clone();
        let now = self.inner.cluster.now();
        let random = self.inner.cluster.env.random.u64();
        let mut state = self.inner.state();
        match state.accumulator.settle(now, batch, outcome, random) {
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
                if let Outcome::Refused(code) = outcome {
                    let refusal = refusal(format!("the broker of {partition}"), code, answer);
                    self.inner.cluster.obstacles.refused(&partition, refusal);
                }
            }
            Settled::Failed(payload, failure) => {
                let known = || self.reason(&state.troubles, &partition, failure, answer);
                let reason = reason.unwrap_or_else(known);
                state.lost.note(&payload.promise, &reason);
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

    fn ask_producer_id(&mut self, now: TimestampMs) {
        let needed = {
            let state = self.inner.state();
            state.accumulator.needs_producer_id() && !state.accumulator.is_idle()
        };
        if !needed || self.asking_id || self.id_retry_at > now {
            return;
        }
        self.asking_id = true;
        let inner = Arc::clone(&self.inner);
        self.events.push(Box::pin(async move {
            let ask = async {
                let route = inner.cluster.any_route().await?;
                let request = InitProducerIdRequest {
                    transactional_id: None,
                    transaction_timeout_ms: i32::MAX,
                    ..Default::default()
                };
                route.call(request, inner.cluster.config.request_timeout).await
            };
            Event::GotProducerId(ask.await)
        }));
    }

    fn got_producer_id(&mut self, result: Result<InitProducerIdResponse>, now: TimestampMs) {
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
                let cluster = &self.inner.cluster;
                let wait_ms =
                    cluster.config.backoff.delay_ms(self.id_failures, cluster.env.random.u64());
                self.id_retry_at = now.plus(i64::try_from(wait_ms).unwrap_or(i64::MAX));
            }
            Err(error) => {
                // Nothing can be sent without it, and retrying does not help.
                self.inner.abandon(|_| error.clone());
            }
        }
    }

    fn refresh(&mut self, now: TimestampMs) {
        if !self.wants_refresh || self.refreshing || self.refresh_at > now {
            return;
        }
        self.wants_refresh = false;
        self.refreshing = true;
        let cluster = Arc::clone(&self.inner.cluster);
        let pause_ms = i64::try_from(cluster.config.backoff.initial_ms).unwrap_or(i64::MAX);
        self.refresh_at = now.plus(pause_ms);
        self.events.push(Box::pin(async move { Event::Refreshed(cluster.refresh_known().await) }));
    }
}

/// What a refusal means to the caller, with the broker's message and a remedy.
fn refusal(mut text: String, code: ErrorCode, answer: Option<&PartitionProduceResponse>) -> Error {
    let mut is_told = false;
    if let Some(answer) = answer {
        if let Some(message) = answer.error_message.as_ref().filter(|text| !text.is_empty()) {
            text.push_str(": ");
            // The code follows at the end of the text.
            text.push_str(message.strip_suffix(&format!(" ({code})")).unwrap_or(message));
            is_told = true;
        }
        if let Some(first) = answer.record_errors.first() {
            let message = first.batch_index_error_message.as_deref().unwrap_or_default();
            // The message of ottla's broker names the record, that of Apache Kafka does not.
            if !text.contains(message) {
                text.push_str("; record ");
                text.push_str(&first.batch_index.to_string());
                text.push_str(" of the batch: ");
                text.push_str(message);
            }
        }
    }
    if code == ErrorCode::MessageTooLarge {
        text.push_str("; raise max.message.bytes of the topic, or write smaller batches");
    }
    if is_told { Error::told(code, text) } else { Error::kafka(code, text) }
}

/// Builds one request of batches for one node; an error names the batch at fault.
fn build_request(
    route: &Route,
    batches: &mut [Drained<Payload>],
    snapshot: &Snapshot,
    acks: Acks,
    timeout: Duration,
) -> std::result::Result<(ProduceRequest, i16), (Error, Option<usize>)> {
    let mut version = route.version(ApiKey::Produce).map_err(|error| (error, None))?;
    let id_of = |topic: &str| snapshot.topics.get(topic).map_or(Uuid::ZERO, |topic| topic.id);
    if batches.iter().any(|batch| id_of(&batch.partition.topic) == Uuid::ZERO) {
        version = version.min(TOPIC_IDS_SINCE - 1);
    }
    let mut topics: BTreeMap<Arc<str>, Vec<PartitionProduceData>> = BTreeMap::new();
    for (index, batch) in batches.iter_mut().enumerate() {
        let bytes = batch.payload.seal(batch.stamp).map_err(|error| (error, Some(index)))?;
        let data = PartitionProduceData {
            index: batch.partition.partition,
            records: Some(Records::from(bytes)),
        };
        topics.entry(Arc::clone(&batch.partition.topic)).or_default().push(data);
    }
    let topic_data = topics.into_iter().map(|(name, partition_data)| TopicProduceData {
        topic_id: if version >= TOPIC_IDS_SINCE { id_of(&name) } else { Uuid::ZERO },
        name: if version >= TOPIC_IDS_SINCE { Str::EMPTY } else { Str::from(&*name) },
        partition_data,
    });
    let request = ProduceRequest {
        transactional_id: None,
        acks: acks.to_i16(),
        timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        topic_data: topic_data.collect(),
    };
    Ok((request, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::produce::BatchIndexAndErrorMessage;

    fn told(code: ErrorCode, message: &str, record: &str) -> String {
        let record = BatchIndexAndErrorMessage {
            batch_index: 3,
            batch_index_error_message: Some(record.into()),
        };
        let answer = PartitionProduceResponse {
            error_message: Some(message.into()),
            record_errors: vec![record],
            ..PartitionProduceResponse::default()
        };
        refusal("producing to x-0".to_owned(), code, Some(&answer)).to_string()
    }

    #[test]
    fn a_refusal_is_said_once() {
        let ours = Error::RecordsRefused {
            code: ErrorCode::InvalidRecord,
            detail: "record 3 of the batch: it has no key".to_owned(),
            records: Vec::new(),
        };
        assert_eq!(
            told(ErrorCode::InvalidRecord, &ours.to_string(), "it has no key"),
            "producing to x-0: record 3 of the batch: it has no key (INVALID_RECORD)"
        );
        assert_eq!(
            told(ErrorCode::InvalidRecord, "Some records were rejected.", "it has no key"),
            "producing to x-0: Some records were rejected.; record 3 of the batch: it has no key \
             (INVALID_RECORD)"
        );
    }
}
