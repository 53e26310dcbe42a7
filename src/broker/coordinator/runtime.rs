//! Starting and stopping the shards of one kind of coordinator, and passing requests to them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fencing::Proof;
use super::kind::{Kind, ReplyOf, RequestOf};
use super::shard::{Job, ShardTask};
use super::status::{self, Shown, Status};
use crate::broker::change::Change;
use crate::broker::log_threads::LogThreads;
use crate::broker::parking::PartitionKey;
use crate::broker::partition::Partition;
use crate::broker::partitions::Partitions;
use crate::broker::words;
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::types::{LeaderEpoch, PartitionIndex, TopicPartition};

/// How many requests may wait for one shard; beyond that the caller waits, and its connection with
/// it.
const QUEUE_MAX: usize = 1024;
/// How long a request waits for a shard that is reading its log before the client is told to retry.
const LOAD_WAIT: Duration = Duration::from_secs(1);

/// What the shards need to run.
#[derive(Clone, Debug)]
pub(in crate::broker) struct ShardParts {
    pub(in crate::broker) env: Env,
    pub(in crate::broker) log_threads: Arc<LogThreads>,
    pub(in crate::broker) tasks: TaskTracker,
    pub(in crate::broker) stop: CancellationToken,
}

/// The coordinators of one kind that this broker runs.
#[derive(Debug)]
pub(in crate::broker) struct Runtime<K: Kind> {
    parts: ShardParts,
    attendant: K::Attendant,
    world: watch::Sender<K::World>,
    shards: RwLock<BTreeMap<PartitionIndex, Shard<K>>>,
}

/// A shard, seen from outside.
#[derive(Debug)]
struct Shard<K: Kind> {
    key: PartitionKey,
    handle: ShardHandle<K>,
}

/// The way to one shard: to its task, and to no later one of the same partition.
#[derive(Debug)]
pub(in crate::broker) struct ShardHandle<K: Kind> {
    partition: PartitionIndex,
    leader_epoch: LeaderEpoch,
    jobs: mpsc::Sender<Job<K>>,
    status: Shown,
    stop: CancellationToken,
}

impl<K: Kind> Clone for ShardHandle<K> {
    fn clone(&self) -> Self {
        Self {
            partition: self.partition,
            leader_epoch: self.leader_epoch,
            jobs: self.jobs.clone(),
            status: self.status.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<K: Kind> ShardHandle<K> {
    /// The partition of the topic.
    pub(in crate::broker) const fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// The epoch in which this broker leads it.
    pub(in crate::broker) const fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Waits until the shard is stopped.
    pub(in crate::broker) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Passes a request to the shard.
    ///
    /// # Errors
    ///
    /// As [`Runtime::send`].
    pub(in crate::broker) async fn send(
        &self,
        request: RequestOf<K>,
    ) -> Result<PendingReply<ReplyOf<K>>> {
        self.send_with(request, Proof::Unneeded).await
    }

    /// The same, for a request that adds to a transaction.
    async fn send_with(
        &self,
        request: RequestOf<K>,
        proof: Proof,
    ) -> Result<PendingReply<ReplyOf<K>>> {
        ready(&self.status, (K::TOPIC, self.partition)).await?;
        let (reply, receiver) = oneshot::channel();
        let job = Job { request, proof, reply };
        self.jobs.send(job).await.map_err(|_closed| stopped())?;
        Ok(PendingReply { receiver })
    }

    /// Tells a shard that serves; what it answers, nobody needs to know. Others are told nothing.
    pub(in crate::broker) async fn tell(&self, request: RequestOf<K>) {
        if self.status.is_active() {
            let (reply, _) = oneshot::channel();
            // It may have been stopped.
            drop(self.jobs.send(Job { request, proof: Proof::Unneeded, reply }).await);
        }
    }
}

/// A request that was passed to a shard; its answer comes later.
#[derive(Debug)]
pub(in crate::broker) struct PendingReply<R> {
    receiver: oneshot::Receiver<Result<R>>,
}

impl<R> PendingReply<R> {
    /// Waits for the answer.
    ///
    /// # Errors
    ///
    /// When the shard was unloaded, or could not write.
    pub(in crate::broker) async fn wait(self) -> Result<R> {
        self.receiver.await.map_err(|_dropped| stopped())?
    }
}

pub(super) fn stopped() -> Error {
    let context = "the coordinator stopped before it answered";
    Error::kafka(ErrorCode::NotCoordinator, context)
}

impl<K: Kind> Runtime<K> {
    pub(in crate::broker) fn new(parts: ShardParts, attendant: K::Attendant) -> Self {
        Self { parts, attendant, world: watch::Sender::default(), shards: RwLock::default() }
    }

    /// The partitions that this broker coordinates.
    pub(in crate::broker) fn led(&self) -> Vec<PartitionIndex> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Passes a request to the shard of a partition. Requests of one caller are processed in the
    /// order in which this returns.
    ///
    /// # Errors
    ///
    /// `NOT_COORDINATOR`, `COORDINATOR_LOAD_IN_PROGRESS`, `COORDINATOR_NOT_AVAILABLE`.
    pub(in crate::broker) async fn send(
        &self,
        partition: PartitionIndex,
        request: RequestOf<K>,
    ) -> Result<PendingReply<ReplyOf<K>>> {
        self.send_with(partition, request, Proof::Unneeded).await
    }

    /// The same, for a request that adds to a transaction, with what shows that it may.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub(in crate::broker) async fn send_with(
        &self,
        partition: PartitionIndex,
        request: RequestOf<K>,
        proof: Proof,
    ) -> Result<PendingReply<ReplyOf<K>>> {
        let handle = {
            let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
            shards.get(&partition).map(|shard| shard.handle.clone())
        };
        let Some(handle) = handle else {
            let name = TopicPartition::new(K::TOPIC, partition);
            return Err(words::not_led(ErrorCode::NotCoordinator, &name));
        };
        handle.send_with(request, proof).await
    }

    /// Applies a change: tells all shards what they must know of it and, when it is about the partitions of their
    /// topic, starts and stops them. Must run within the runtime of tokio.
    pub(in crate::broker) fn apply(&self, change: &Change<'_>, partitions: &Partitions) {
        self.tell(change);
        if !change.touches(K::TOPIC) {
            return;
        }
        let mut led = BTreeMap::new();
        if let Some(topic) = change.image.topic(K::TOPIC) {
            for (index, _) in topic.indexed() {
                if let Ok(partition) = partitions.leader(topic, index) {
                    led.insert(index, partition);
                }
            }
        }
        self.lead(led);
    }

    /// Tells all shards what they must know of the cluster, as far as it has changed.
    pub(super) fn tell(&self, change: &Change<'_>) {
        self.world.send_if_modified(|world| K::look(world, change));
    }

    /// Starts the shards of partitions that are led from now on, and stops all others.
    pub(super) fn lead(&self, led: BTreeMap<PartitionIndex, Arc<Partition>>) {
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        shards.retain(|index, shard| {
            let stays = led.get(index).is_some_and(|partition| {
                partition.key() == shard.key
                    && partition.leader_epoch() == shard.handle.leader_epoch
            });
            if !stays {
                shard.handle.stop.cancel();
            }
            stays
        });
        for (index, partition) in led {
            shards.entry(index).or_insert_with(|| self.start(index, partition));
        }
    }

    fn start(&self, index: PartitionIndex, partition: Arc<Partition>) -> Shard<K> {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (setter, status) = status::loading();
        let stop = self.parts.stop.child_token();
        let leader_epoch = partition.leader_epoch();
        let key = partition.key();
        let handle =
            ShardHandle { partition: index, leader_epoch, jobs, status, stop: stop.clone() };
        if let Some(attending) = K::attend(&self.attendant, handle.clone()) {
            self.parts.tasks.spawn(attending);
        }
        let task = ShardTask::<K>::new(
            (partition, leader_epoch),
            (self.parts.env.clone(), Arc::clone(&self.parts.log_threads)),
            queue,
            (self.world.subscribe(), setter, stop),
        );
        self.parts.tasks.spawn(task.run());
        Shard { key, handle }
    }
}

/// Waits a little for a shard that is loading.
async fn ready(status: &Shown, name: (&str, PartitionIndex)) -> Result<()> {
    let name = || format!("{}-{}", name.0, name.1);
    match tokio::time::timeout(LOAD_WAIT, status.loaded()).await {
        Ok(Status::Failed(why)) => {
            let context = format!("{} could not be read: {why}", name());
            Err(Error::kafka(ErrorCode::CoordinatorNotAvailable, context))
        }
        Ok(Status::Loading | Status::Active) => Ok(()),
        Ok(Status::Ended) => Err(stopped()),
        Err(_elapsed) => {
            let context = format!("{} is being read", name());
            Err(Error::kafka(ErrorCode::CoordinatorLoadInProgress, context))
        }
    }
}
