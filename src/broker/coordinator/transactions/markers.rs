//! The markers of ended transactions on their way to the leaders of the partitions.
//!
//! ```text
//! shard ── Markers ──► attend ── by leader ──► queue of a node ── WriteTxnMarkers ──► its leaders
//!   ▲                                                │                                      │
//!   └──────────────────── MarkersAnswered ◄──────────┴──────────────────────────────────────┘
//! ```
//!
//! Invariants:
//! - `MARKERS-1` a node gets one request at a time; what comes up meanwhile travels together in the next.
//! - `MARKERS-2` a shard hears of every marker that it handed out: written, gone with its topic, or to be tried once
//!   more; when, the shard decides. So nothing waits here for a leader that does not exist.
//! - `MARKERS-3` a queue holds a marker once. It cannot get larger than the open transactions of the shards, whose
//!   memory is what bounds it.
//! - `MARKERS-4` no marker of a shard that has been read anew since is sent any more, and none of a later round while one is
//!   under way: it would come in the next transaction.
//! - `MARKERS-5` a marker carries the leader epoch of the shard that handed it out. A coordinator that has been
//!   succeeded is known by that.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Transactions;
use crate::broker::coordinator::runtime::ShardHandle;
use crate::broker::dispatch;
use crate::broker::state::BrokerState;
use crate::broker::transactions::Peers;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::metadata::MetadataImage;
use crate::machine::transaction::{
    MarkerAnswer, MarkerOutcome, Markers, TransactionReply, TransactionRequest,
};
use crate::protocol::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use crate::types::{NodeId, PartitionIndex, ProducerId, TopicPartition};

/// The most transactions in one request.
const TRANSACTIONS_MAX: usize = 1000;
/// How long a leader may take to write markers; as in Kafka, by default.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long to wait before a shard that cannot answer is asked once more.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct MarkerSender {
    /// Known once the broker is put together.
    state: OnceLock<Weak<BrokerState>>,
    peers: Peers,
    tasks: TaskTracker,
    stop: CancellationToken,
    nodes: Mutex<BTreeMap<NodeId, Arc<Queue>>>,
}

/// What one node is to write.
#[derive(Debug, Default)]
struct Queue {
    work: Mutex<Work>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Work {
    waiting: BTreeMap<Key, Waiting>,
    /// What the node is writing, and the round.
    under_way: BTreeMap<Key, u64>,
}

/// The partition of the shard, and the transactional id.
type Key = (PartitionIndex, Arc<str>);

#[derive(Debug)]
struct Waiting {
    shard: ShardHandle<Transactions>,
    markers: Markers,
}

impl Queue {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, shard: &ShardHandle<Transactions>, markers: Markers) {
        let key = (shard.partition(), Arc::clone(&markers.transactional_id));
        match self.work().waiting.entry(key) {
            Entry::Occupied(mut before) => {
                before.get_mut().markers.partitions.extend(markers.partitions);
            }
            Entry::Vacant(place) => {
                place.insert(Waiting { shard: shard.clone(), markers });
            }
        }
        self.arrived.notify_one();
    }

    /// Drops what waits of other rounds; returns whether something of one is under way.
    fn has_other_round(&self, key: &Key, round: u64) -> bool {
        let mut work = self.work();
        if work.waiting.get(key).is_some_and(|waiting| waiting.markers.round != round) {
            work.waiting.remove(key);
        }
        work.under_way.get(key).is_some_and(|under_way| *under_way != round)
    }

    fn take(&self) -> Vec<Waiting> {
        let mut work = self.work();
        let mut taken = Vec::new();
        while taken.len() < TRANSACTIONS_MAX
            && let Some((key, next)) = work.waiting.pop_first()
        {
            work.under_way.insert(key, next.markers.round);
            taken.push(next);
        }
        if !work.waiting.is_empty() {
            self.arrived.notify_one();
        }
        taken
    }

    fn answered(&self) {
        self.work().under_way.clear();
    }
}

impl MarkerSender {
    /// Sends nothing before it knows the broker. Its tasks will be among these, and end when they are to stop.
    pub(in crate::broker) fn new(tasks: TaskTracker, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            state: OnceLock::new(),
            peers: Peers::new("txn-markers"),
            tasks,
            stop,
            nodes: Mutex::default(),
        })
    }

    /// The broker is put together.
    pub(in crate::broker) fn set_state(&self, state: &Arc<BrokerState>) {
        // A second one cannot come: a broker is put together once.
        drop(self.state.set(Arc::downgrade(state)));
    }

    fn state(&self) -> Option<Arc<BrokerState>> {
        self.state.get().and_then(Weak::upgrade)
    }

    /// Has markers sent to the leaders; what cannot be sent is answered at once.
    async fn send(self: &Arc<Self>, shard: &ShardHandle<Transactions>, markers: Vec<Markers>) {
        let Some(image) = self.state().map(|state| state.image()) else { return };
        let mut answers = Vec::new();
        for markers in markers {
            let (by_node, outcomes) = if self.has_other_round(shard, &markers) {
                let again = |partition: &TopicPartition| (partition.clone(), MarkerOutcome::Again);
                (BTreeMap::new(), markers.partitions.iter().map(again).collect())
            } else {
                route(&image, &markers)
            };
            for (node, markers) in by_node {
                self.queue(node).put(shard, markers);
            }
            if !outcomes.is_empty() {
                answers.push(answer(&markers, outcomes));
            }
        }
        report(shard, answers).await;
    }

    fn has_other_round(&self, shard: &ShardHandle<Transactions>, markers: &Markers) -> bool {
        let key = (shard.partition(), Arc::clone(&markers.transactional_id));
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        // Each is asked: what waits is dropped.
        nodes.values().filter(|queue| queue.has_other_round(&key, markers.round)).count() > 0
    }

    fn queue(self: &Arc<Self>, node: NodeId) -> Arc<Queue> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = nodes.entry(node).or_insert_with(|| {
            let queue = Arc::new(Queue::default());
            let (sender, sent) = (Arc::clone(self), Arc::clone(&queue));
            let stop = self.stop.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = sender.empty(node, &sent) => {}
                }
            });
            queue
        });
        Arc::clone(queue)
    }

    /// Sends what is in the queue of a node, request by request.
    async fn empty(&self, node: NodeId, queue: &Queue) {
        loop {
            queue.arrived.notified().await;
            let taken = queue.take();
            if taken.is_empty() {
                continue;
            }
            let codes = match self.ask(node, &taken).await {
                Ok(response) => codes(&response),
                Err(error) => {
                    let error = error.chain();
                    tracing::debug!(%node, error, "markers of transactions were not written");
                    BTreeMap::new()
                }
            };
            queue.answered();
            for (shard, answers) in answers(&taken, &codes) {
                report(&shard, answers).await;
            }
        }
    }

    async fn ask(&self, node: NodeId, taken: &[Waiting]) -> Result<WriteTxnMarkersResponse> {
        let Some(state) = self.state() else { return Err(Error::Closed { what: "the broker" }) };
        let request = WriteTxnMarkersRequest { markers: taken.iter().map(written).collect() };
        if node == state.node_id() {
            let answered = dispatch::ask_itself(&state, request);
            return tokio::time::timeout(ANSWER_MAX, answered).await.unwrap_or_else(|_elapsed| {
                Err(Error::timeout("markers of transactions to be written", ANSWER_MAX))
            });
        }
        self.peers.call(&state, node, request, ANSWER_MAX).await
    }
}

/// Takes markers from a shard, and has them sent, until it is stopped.
pub(super) async fn attend(sender: Arc<MarkerSender>, shard: ShardHandle<Transactions>) {
    tokio::select! {
        biased;
        () = shard.stopped() => {}
        () = take_markers(&sender, &shard) => {}
    }
}

async fn take_markers(sender: &Arc<MarkerSender>, shard: &ShardHandle<Transactions>) {
    loop {
        let taken = match shard.send(TransactionRequest::TakeMarkers).await {
            Ok(pending) => pending.wait().await,
            Err(error) => Err(error),
        };
        match taken {
            Ok(TransactionReply::Markers(markers)) => sender.send(shard, markers).await,
            // It is being read, or cannot be.
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Which node leads what, and what becomes of the markers that nobody leads the partitions of.
fn route(
    image: &MetadataImage,
    markers: &Markers,
) -> (BTreeMap<NodeId, Markers>, Vec<(TopicPartition, MarkerOutcome)>) {
    let mut by_node: BTreeMap<NodeId, Markers> = BTreeMap::new();
    let mut outcomes = Vec::new();
    for partition in &markers.partitions {
        let topic = image.topic(&partition.topic);
        // Whoever leads a shard knows every topic that a leader before knew: it leads by a later change of the metadata.
        let Some(state) = topic.and_then(|topic| topic.partition(partition.partition)) else {
            tracing::info!(
                transactional_id = %markers.transactional_id, %partition,
                "the partition was deleted in mid-transaction"
            );
            outcomes.push((partition.clone(), MarkerOutcome::Gone));
            continue;
        };
        if state.leader == NodeId::NONE {
            outcomes.push((partition.clone(), MarkerOutcome::Again));
            continue;
        }
        let of_node = by_node
            .entry(state.leader)
            .or_insert_with(|| Markers { partitions: BTreeSet::new(), ..markers.clone() });
        of_node.partitions.insert(partition.clone());
    }
    (by_node, outcomes)
}

fn written(Waiting { shard, markers }: &Waiting) -> WritableTxnMarker {
    let mut topics: Vec<WritableTxnMarkerTopic> = Vec::new();
    for TopicPartition { topic, partition } in &markers.partitions {
        match topics.last_mut() {
            Some(last) if *last.name == **topic => last.partition_indexes.push(partition.0),
            _ => topics.push(WritableTxnMarkerTopic {
                name: topic.into(),
                partition_indexes: vec![partition.0],
            }),
        }
    }
    WritableTxnMarker {
        producer_id: markers.producer.id.0,
        producer_epoch: markers.producer.epoch,
        transaction_result: markers.commits,
        topics,
        coordinator_epoch: shard.leader_epoch().0,
        transaction_version: i8::try_from(markers.version).unwrap_or(i8::MAX),
    }
}

type Codes = BTreeMap<(ProducerId, TopicPartition), ErrorCode>;

/// What a node answered, marker by marker.
fn codes(response: &WriteTxnMarkersResponse) -> Codes {
    let mut codes = BTreeMap::new();
    for marker in &response.markers {
        for topic in &marker.topics {
            let name: Arc<str> = (&topic.name).into();
            for partition in &topic.partitions {
                let place = TopicPartition::new(Arc::clone(&name), partition.partition_index);
                let code = ErrorCode::from_i16(partition.error_code);
                codes.insert((ProducerId(marker.producer_id), place), code);
            }
        }
    }
    codes
}

/// What the shards are told; a marker that was not answered is to be tried once more.
fn answers(
    taken: &[Waiting],
    codes: &Codes,
) -> Vec<(ShardHandle<Transactions>, Vec<MarkerAnswer>)> {
    let mut by_shard: BTreeMap<PartitionIndex, (ShardHandle<Transactions>, Vec<MarkerAnswer>)> =
        BTreeMap::new();
    for Waiting { shard, markers } in taken {
        let outcome = |partition: &TopicPartition| {
            let code = codes.get(&(markers.producer.id, partition.clone()));
            if let Some(code) = code.filter(|code| !code.is_ok()) {
                tracing::debug!(
                    transactional_id = %markers.transactional_id, %partition, code = code.name(),
                    "a marker was not written"
                );
            }
            let outcome = code.map_or(MarkerOutcome::Again, |code| MarkerOutcome::of(*code));
            (partition.clone(), outcome)
        };
        let answer = answer(markers, markers.partitions.iter().map(outcome).collect());
        let of_shard = by_shard.entry(shard.partition());
        let (_, answers) = of_shard.or_insert_with(|| (shard.clone(), Vec::new()));
        answers.push(answer);
    }
    by_shard.into_values().collect()
}

fn answer(markers: &Markers, outcomes: Vec<(TopicPartition, MarkerOutcome)>) -> MarkerAnswer {
    let transactional_id = Arc::clone(&markers.transactional_id);
    MarkerAnswer { transactional_id, round: markers.round, producer: markers.producer, outcomes }
}

/// Tells a shard. One that does not serve is being read, or will be, and hands out its markers once more.
async fn report(shard: &ShardHandle<Transactions>, answers: Vec<MarkerAnswer>) {
    if !answers.is_empty() {
        shard.tell(TransactionRequest::MarkersAnswered(answers)).await;
    }
}
