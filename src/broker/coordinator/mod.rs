//! The group coordinator: which broker is responsible for a group, and the tasks that serve its
//! groups.
//!
//! Why: [`crate::machine::group`] decides what a group does; this module makes its decisions
//! durable. Each partition of `__consumer_offsets` that this broker leads has one task (`shard`),
//! which alone knows the groups that map to it. This module starts and stops the tasks as the
//! metadata requires, and passes requests to them.
//!
//! ```text
//! handler -> Coordinators::send -> queue -> shard task -> GroupShard::step
//!                                             |  records: one batch, acks=all
//!    reply  <-  when it is committed  <-------+
//! ```
//!
//! Invariants:
//! - `COORD-1` a request is answered exactly once, even at a shutdown or when leadership is lost.
//! - `COORD-2` an answer that depends on records is given once they are committed, and so is every
//!   answer that was decided after them: nobody reads what may still be lost. Heartbeats of groups that the records
//!   say nothing about do not depend on them, and are answered while the disk is waited for.
//! - `COORD-3` a shard's state is defined by its log: it is read back at the start, and again after
//!   a failed append.
//!   Its records are appended in the epoch in which it was read, or not at all.
//! - `COORD-4` a group belongs to the partition given by Kafka's hash of its id.

mod ahead;
mod records;
mod replay;
mod settings;
mod shard;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::shard::{Job, ShardTask, Status};
use super::log_threads::LogThreads;
use super::parking::PartitionKey;
use super::partition::Partition;
use super::partitions::Partitions;
use crate::config::BrokerConfig;
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::group::{GroupConfig, GroupReply, GroupRequest, TopicsView};
use crate::machine::metadata::MetadataImage;
use crate::types::LeaderEpoch;

pub(super) use self::settings::offsets_topic;

/// The topic that holds groups and their offsets.
pub(super) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// How many requests may wait for one shard; beyond that the caller waits, and its connection with
/// it.
const QUEUE_MAX: usize = 1024;
/// How long a request waits for a shard that is reading its log before the client is told to retry.
const LOAD_WAIT: Duration = Duration::from_secs(1);

/// What every shard must know about the cluster.
#[derive(Clone, Debug)]
struct World {
    topics: Arc<TopicsView>,
    config: Arc<GroupConfig>,
}

/// A shard, seen from outside.
#[derive(Clone, Debug)]
struct Shard {
    key: PartitionKey,
    leader_epoch: LeaderEpoch,
    jobs: mpsc::Sender<Job>,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
}

/// What the shards need to run.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) env: Env,
    pub(super) log_threads: Arc<LogThreads>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Coordinators {
    ground: Ground,
    world: watch::Sender<World>,
    shards: RwLock<BTreeMap<i32, Shard>>,
}

/// A request that was passed to a shard; its answer comes later.
#[derive(Debug)]
pub(super) struct PendingReply {
    receiver: oneshot::Receiver<Result<GroupReply>>,
}

impl PendingReply {
    /// Waits for the answer.
    ///
    /// # Errors
    ///
    /// When the shard was unloaded, or could not write.
    pub(super) async fn wait(self) -> Result<GroupReply> {
        self.receiver.await.map_err(|_dropped| stopped())?
    }
}

fn stopped() -> Error {
    let context = "the coordinator of this group stopped before it answered";
    Error::kafka(ErrorCode::NotCoordinator, context)
}

impl Coordinators {
    pub(super) fn new(ground: Ground) -> Self {
        let world = World { topics: Arc::default(), config: Arc::default() };
        Self { ground, world: watch::Sender::new(world), shards: RwLock::default() }
    }

    fn shard(&self, partition: i32) -> Option<Shard> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        shards.get(&partition).cloned()
    }

    /// The partitions whose groups this broker coordinates.
    pub(super) fn led(&self) -> Vec<i32> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Passes a request to the shard of a partition. Requests of one caller are processed in the
    /// order in which this returns.
    ///
    /// # Errors
    ///
    /// `NOT_COORDINATOR`, `COORDINATOR_LOAD_IN_PROGRESS`, `COORDINATOR_NOT_AVAILABLE`.
    pub(super) async fn send(&self, partition: i32, request: GroupRequest) -> Result<PendingReply> {
        let Some(mut shard) = self.shard(partition) else {
            let context = format!("this broker does not lead {OFFSETS_TOPIC}-{partition}");
            return Err(Error::kafka(ErrorCode::NotCoordinator, context));
        };
        shard.ready(partition).await?;
        let (reply, receiver) = oneshot::channel();
        let job = Job { request, reply };
        shard.jobs.send(job).await.map_err(|_closed| stopped())?;
        Ok(PendingReply { receiver })
    }

    /// Applies an image: starts the shards of partitions now led here, stops the others, and tells
    /// all of them about topics and settings. Must run within the runtime.
    pub(super) fn apply(
        &self,
        image: &MetadataImage,
        config: &BrokerConfig,
        partitions: &Partitions,
    ) {
        self.tell(image, config);
        let mut led: BTreeMap<i32, Arc<Partition>> = BTreeMap::new();
        if let Some(topic) = image.topic(OFFSETS_TOPIC) {
            for (index, _) in topic.indexed() {
                if let Ok(partition) = partitions.leader(topic, index) {
                    led.insert(index, partition);
                }
            }
        }
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        shards.retain(|index, shard| {
            let stays = led.get(index).is_some_and(|partition| {
                partition.key() == shard.key && partition.leader_epoch() == shard.leader_epoch
            });
            if !stays {
                shard.stop.cancel();
            }
            stays
        });
        for (index, partition) in led {
            shards.entry(index).or_insert_with(|| self.start(index, partition));
        }
    }

    fn tell(&self, image: &MetadataImage, config: &BrokerConfig) {
        let topics = TopicsView::of(image);
        let config = settings::group_config(config, image);
        self.world.send_if_modified(|world| {
            let same_topics = *world.topics == topics;
            let same_config = *world.config == config;
            if !same_topics {
                world.topics = Arc::new(topics);
            }
            if !same_config {
                world.config = Arc::new(config);
            }
            !same_topics || !same_config
        });
    }

    fn start(&self, index: i32, partition: Arc<Partition>) -> Shard {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (status_sender, status) = watch::channel(Status::Loading);
        let stop = self.ground.stop.child_token();
        let leader_epoch = partition.leader_epoch();
        let shard = Shard { key: partition.key(), leader_epoch, jobs, status, stop: stop.clone() };
        let task = ShardTask::new(
            (index, partition, leader_epoch),
            (self.ground.env.clone(), Arc::clone(&self.ground.log_threads)),
            queue,
            (self.world.subscribe(), status_sender, stop),
        );
        self.ground.tasks.spawn(task.run());
        shard
    }
}

impl Shard {
    /// Waits a little for a shard that is loading.
    async fn ready(&mut self, partition: i32) -> Result<()> {
        let loaded = self.status.wait_for(|status| !matches!(status, Status::Loading));
        let name = || format!("{OFFSETS_TOPIC}-{partition}");
        match tokio::time::timeout(LOAD_WAIT, loaded).await {
            Ok(Ok(status)) => match &*status {
                Status::Failed(why) => {
                    let context = format!("{} could not be read: {why}", name());
                    Err(Error::kafka(ErrorCode::CoordinatorNotAvailable, context))
                }
                Status::Loading | Status::Active => Ok(()),
            },
            Ok(Err(_ended)) => Err(stopped()),
            Err(_elapsed) => {
                let context = format!("{} is being read", name());
                Err(Error::kafka(ErrorCode::CoordinatorLoadInProgress, context))
            }
        }
    }
}

/// The partition of `count` that a group belongs to: the absolute value of Java's hash of its id,
/// over UTF-16 as in Java, modulo the count.
pub(super) fn partition_of(group: &str, count: i32) -> i32 {
    let hash = group
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's `Utils.abs`: the smallest integer, which has no positive counterpart, counts as 0.
    hash.checked_abs().unwrap_or(0).checked_rem(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::partition_of;

    #[test]
    fn groups_map_to_partitions_as_in_kafka() {
        // The hashes were computed by Java: "".hashCode() and so on.
        for (group, hash) in [("", 0), ("a", 97), ("group", 98_629_247), ("\u{1f980}", 1_772_802)] {
            assert_eq!(partition_of(group, 50), hash % 50, "{group}");
        }
        // "polygenelubricants".hashCode() is the smallest integer.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("a", 0), 0);
    }
}
