//! The broker's state follows changes: what is open, what is gone, and which settings hold.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::connection::BoxFuture;
use crate::broker::coordinator::{
    GroupCoordinators, MarkerSender, ShardParts, TransactionCoordinators,
};
use crate::broker::log_threads::LogThreads;
use crate::broker::metadata_log::{MetadataLog, Question, QuorumStatus};
use crate::broker::parking::Parking;
use crate::broker::partition::{Partition, Surroundings};
use crate::broker::partitions::Partitions;
use crate::broker::replication::{FetcherParts, Replication};
use crate::broker::state::{BrokerState, Identity, Parts};
use crate::broker::storage::Storage;
use crate::config::BrokerConfig;
use crate::env::{DirEntry, Disk, Env, File, Lock, OpenMode};
use crate::error::{Error, ErrorCode, Result};
use crate::log::LogDirectory;
use crate::machine::controller::{AnyCommand, CommandAnswer};
use crate::machine::metadata::{
    ConfigResource, MetadataDelta, MetadataImage, MetadataRecord, MetadataUpdate, PartitionImage,
    PartitionRecord,
};
use crate::machine::quorum;
use crate::types::{LeaderEpoch, NodeId, Offset, PartitionEpoch, PartitionIndex, TopicId, Uuid};

const ME: NodeId = NodeId(1);

/// Nobody asks it anything here.
#[derive(Debug)]
struct NoLog;

impl MetadataLog for NoLog {
    fn send(&self, _question: Box<dyn Question>) -> BoxFuture<Result<()>> {
        Box::pin(async { Err(Error::Closed { what: "the metadata quorum" }) })
    }

    fn subscribe(&self) -> (Arc<MetadataImage>, mpsc::Receiver<MetadataUpdate>) {
        (Arc::default(), mpsc::channel(1).1)
    }

    fn image(&self) -> Arc<MetadataImage> {
        Arc::default()
    }

    fn status(&self) -> QuorumStatus {
        QuorumStatus {
            leader: NodeId::NONE,
            epoch: LeaderEpoch::UNKNOWN,
            high_watermark: Offset::UNKNOWN,
            voters: Vec::new(),
            observers: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    fn voters(&self) -> quorum::VoterSet {
        quorum::VoterSet::default()
    }

    fn change_voters(
        &self,
        _: quorum::VoterChange,
        _: bool,
    ) -> BoxFuture<Result<Result<(), quorum::Refusal>>> {
        Box::pin(async { Ok(Err(quorum::Refusal::NotLeader)) })
    }

    fn answer(&self, _: quorum::Request) -> BoxFuture<Option<quorum::Response<Bytes>>> {
        Box::pin(std::future::ready(None))
    }

    fn carry_out(&self, _: AnyCommand) -> BoxFuture<CommandAnswer> {
        unreachable!("no other node asks it")
    }

    fn crashed(&self, _: NodeId) {}

    fn abandon(&self) -> BoxFuture<()> {
        self.shutdown()
    }

    fn shutdown(&self) -> BoxFuture<()> {
        Box::pin(async {})
    }
}

fn state(env: &Env, directory: &Path) -> BrokerState {
    let opened = LogDirectory::open(env, directory, ME, None).unwrap();
    let storage = Arc::new(Storage::new(env, Arc::new(opened)));
    let parking = Arc::new(Parking::new());
    let log_threads = Arc::new(LogThreads::start(env).unwrap());
    let around = Surroundings {
        node_id: ME,
        health: storage.health().clone(),
        parking: Arc::clone(&parking),
        isr_requests: Arc::default(),
        store: None,
        volatile: false,
    };
    let parts = FetcherParts {
        env: env.clone(),
        node_id: ME,
        config: BrokerConfig::default().replication,
        storage: Arc::clone(&storage),
        log_threads: Arc::clone(&log_threads),
        broker_epoch: Arc::default(),
        throttles: Arc::default(),
    };
    let replication = Replication::new(parts, TaskTracker::new(), CancellationToken::new());
    let shards = ShardParts {
        env: env.clone(),
        log_threads: Arc::clone(&log_threads),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    let markers = MarkerSender::new(shards.tasks.clone(), shards.stop.clone());
    BrokerState::new(Parts {
        env: env.clone(),
        identity: Identity { node_id: ME, bound: Vec::new() },
        config: BrokerConfig::default(),
        metadata: Arc::new(NoLog),
        partitions: Partitions::new(around, storage),
        replication,
        coordinators: GroupCoordinators::new(shards.clone(), ()),
        transactions: TransactionCoordinators::new(shards, markers),
        log_threads,
        parking,
    })
}

/// A broker, and the metadata that it is told of.
pub(in crate::broker) struct Rig {
    pub(in crate::broker) state: Arc<BrokerState>,
    image: Arc<MetadataImage>,
    _directory: tempfile::TempDir,
}

impl Rig {
    pub(in crate::broker) fn new() -> Self {
        Self::on(&Env::real())
    }

    fn on(env: &Env) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(state(env, directory.path()));
        let mut rig = Self { state, image: Arc::default(), _directory: directory };
        let first = rig.change(&[MetadataRecord::Cluster { id: "c".into() }]);
        rig.state.follow(&first);
        rig
    }

    /// Changes the metadata; the broker is not told.
    pub(in crate::broker) fn change(&mut self, records: &[MetadataRecord]) -> MetadataUpdate {
        let mut delta = MetadataDelta::new(MetadataImage::clone(&self.image));
        for record in records {
            delta.replay(record).unwrap();
        }
        self.image = Arc::new(delta.apply(self.image.offset.next(), LeaderEpoch(1)));
        MetadataUpdate { delta: Arc::new(delta), image: Arc::clone(&self.image) }
    }

    fn follow(&mut self, records: &[MetadataRecord]) {
        let update = self.change(records);
        self.state.follow(&update);
    }

    fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>> {
        let image = self.state.image();
        let unknown = || Error::kafka(ErrorCode::UnknownTopicOrPartition, topic);
        let topic = image.topic(topic).ok_or_else(unknown)?;
        self.state.partitions().leader(topic, PartitionIndex(index))
    }

    pub(in crate::broker) fn open(&self) -> Vec<String> {
        let all = self.state.partitions().all();
        let mut names: Vec<_> = all.iter().map(|partition| partition.name().to_string()).collect();
        names.sort();
        names
    }
}

fn led_by(leader: NodeId) -> PartitionImage {
    PartitionImage {
        replicas: vec![leader],
        isr: vec![leader],
        removing: vec![],
        adding: vec![],
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
    }
}

pub(in crate::broker) fn create(name: &str, id: u8, partitions: i32) -> Vec<MetadataRecord> {
    let id: TopicId = Uuid([id; 16]);
    let mut records = vec![MetadataRecord::Topic { name: name.into(), id }];
    records.extend(
        PartitionIndex::all(partitions)
            .map(|index| PartitionRecord::create(id, index, &led_by(ME))),
    );
    records
}

fn set(resource: ConfigResource, name: &str, value: &str) -> MetadataRecord {
    MetadataRecord::Config { resource, name: name.to_owned(), value: Some(value.to_owned()) }
}

pub(in crate::broker) fn remove(id: u8) -> MetadataRecord {
    MetadataRecord::RemoveTopic { id: Uuid([id; 16]) }
}

#[tokio::test]
async fn partitions_are_opened_changed_and_closed_with_the_metadata() {
    let mut rig = Rig::new();
    rig.follow(&create("a", 1, 2));
    rig.follow(&create("b", 2, 1));
    assert_eq!(rig.open(), ["a-0", "a-1", "b-0"]);
    // One more partition of a, and one of which another broker has the only replica.
    let elsewhere = PartitionRecord::create(Uuid([1; 16]), PartitionIndex(3), &led_by(NodeId(2)));
    rig.follow(&[
        PartitionRecord::create(Uuid([1; 16]), PartitionIndex(2), &led_by(ME)),
        elsewhere,
    ]);
    assert_eq!(rig.open(), ["a-0", "a-1", "a-2", "b-0"]);
    let leaving = rig.partition("a", 2).unwrap();
    let moved = PartitionRecord::change(
        Uuid([1; 16]),
        PartitionIndex(2),
        LeaderEpoch(1),
        PartitionEpoch(1),
    );
    let other = Some(vec![NodeId(2)]);
    rig.follow(&[MetadataRecord::ChangePartition(PartitionRecord {
        replicas: other.clone(),
        isr: other,
        leader: Some(NodeId(2)),
        ..moved
    })]);
    assert_eq!(rig.open(), ["a-0", "a-1", "b-0"]);
    // Who still has it, or asks for it, is to look for its leader elsewhere.
    let told = |error: Error| error.code();
    assert_eq!(leaving.check_leader().unwrap_err().code(), ErrorCode::NotLeaderOrFollower);
    assert_eq!(rig.partition("a", 2).map(drop).map_err(told), Err(ErrorCode::NotLeaderOrFollower));
    let term = PartitionRecord::change(
        Uuid([1; 16]),
        PartitionIndex(0),
        LeaderEpoch(4),
        PartitionEpoch(1),
    );
    rig.follow(&[MetadataRecord::ChangePartition(term)]);
    assert_eq!(rig.partition("a", 0).unwrap().leader_epoch(), LeaderEpoch(4));
    // Deleted and created again in one step.
    let leaving = rig.partition("a", 1).unwrap();
    let mut again = vec![remove(1)];
    again.extend(create("a", 3, 1));
    rig.follow(&again);
    assert_eq!(rig.open(), ["a-0", "b-0"]);
    assert_eq!(leaving.check_leader().unwrap_err().code(), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(rig.partition("a", 0).unwrap().key(), (Uuid([3; 16]), PartitionIndex(0)));
    rig.follow(&[remove(2), remove(3)]);
    assert_eq!(rig.open(), [""; 0]);
}

#[tokio::test]
async fn settings_reach_the_partitions_of_their_topic_and_those_of_the_broker_all() {
    let mut rig = Rig::new();
    rig.follow(&create("a", 1, 1));
    rig.follow(&create("b", 2, 1));
    let bytes_max = |rig: &Rig| {
        ["a", "b"].map(|topic| rig.partition(topic, 0).unwrap().config().max_message_bytes)
    };
    let [default, _] = bytes_max(&rig);
    rig.follow(&[set(ConfigResource::Topic("a".into()), "max.message.bytes", "5000")]);
    assert_eq!(bytes_max(&rig), [5000, default]);
    rig.follow(&[set(ConfigResource::ClusterDefault, "message.max.bytes", "6000")]);
    assert_eq!(bytes_max(&rig), [5000, 6000]);
    rig.follow(&[set(ConfigResource::Broker(ME), "message.max.bytes", "7000")]);
    assert_eq!(bytes_max(&rig), [5000, 7000]);
    rig.follow(&[set(ConfigResource::Broker(NodeId(2)), "message.max.bytes", "8000")]);
    assert_eq!(bytes_max(&rig), [5000, 7000]);
    // A setting of logs that is the broker's and no topic's.
    rig.follow(&[set(ConfigResource::ClusterDefault, "producer.id.expiration.ms", "1234")]);
    let expiration =
        rig.partition("a", 0).unwrap().with_log(|log| Ok(log.config().producer_id_expiration_ms));
    assert_eq!(expiration.unwrap(), 1234);
}

#[tokio::test]
async fn a_change_that_was_missed_is_made_up_for_by_the_next() {
    let mut rig = Rig::new();
    rig.follow(&create("old", 1, 1));
    rig.change(&create("a", 2, 1));
    rig.change(&[remove(1), set(ConfigResource::ClusterDefault, "message.max.bytes", "6000")]);
    rig.follow(&create("b", 3, 1));
    assert_eq!(rig.open(), ["a-0", "b-0"]);
    assert_eq!(rig.partition("a", 0).unwrap().config().max_message_bytes, 6000);
}

/// A disk that fails badly: the next calls that rename something, or create the directory of a partition, panic.
#[derive(Debug)]
struct FaultyDisk {
    inner: Arc<dyn Disk>,
    renames: AtomicU32,
    creations: AtomicU32,
}

fn strike(left: &AtomicU32) {
    let less = |left: u32| left.checked_sub(1);
    if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
        std::panic::resume_unwind(Box::new("on purpose"));
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.inner.open(path, mode)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        strike(&self.creations);
        self.inner.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        strike(&self.renames);
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.inner.lock(path)
    }

    fn open_files_max(&self) -> Option<u64> {
        self.inner.open_files_max()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.total_bytes(path)
    }

    fn boot_id(&self) -> Option<String> {
        self.inner.boot_id()
    }
}

impl Rig {
    fn on_faulty_disk() -> (Self, Arc<FaultyDisk>) {
        let real = Env::real();
        let disk = Arc::new(FaultyDisk {
            inner: Arc::clone(&real.disk),
            renames: AtomicU32::new(0),
            creations: AtomicU32::new(0),
        });
        let env = Env { disk: Arc::<FaultyDisk>::clone(&disk), ..real };
        (Self::on(&env), disk)
    }
}

#[tokio::test]
async fn a_log_whose_opening_panics_keeps_no_other_from_being_opened() {
    let (mut rig, disk) = Rig::on_faulty_disk();
    disk.creations.store(1, Ordering::SeqCst);
    rig.follow(&create("a", 1, 8));
    assert_eq!(rig.open().len(), 7);
    let codes = (0..8).filter_map(|index| Some(rig.partition("a", index).err()?.code()));
    assert_eq!(codes.collect::<Vec<_>>(), [ErrorCode::KafkaStorageError]);
}

#[tokio::test]
async fn logs_whose_deletion_panics_are_left_behind_and_nothing_else() {
    let (mut rig, disk) = Rig::on_faulty_disk();
    rig.follow(&create("a", 1, 2));
    disk.renames.store(1, Ordering::SeqCst);
    let mut both = vec![remove(1)];
    both.extend(create("b", 2, 1));
    rig.follow(&both);
    assert_eq!(disk.renames.load(Ordering::SeqCst), 0);
    assert_eq!(rig.open(), ["b-0"]);
}

#[tokio::test]
async fn what_is_being_deleted_is_unknown_before_the_image_says_so() {
    let mut rig = Rig::new();
    rig.follow(&create("a", 1, 1));
    rig.follow(&create("b", 2, 1));
    let update = rig.change(&[remove(1)]);
    let config = BrokerConfig::default();
    let change = super::Change {
        delta: &update.delta,
        image: &update.image,
        config: &config,
        has_new_config: false,
    };
    rig.state.partitions().apply(&change);
    let code = |rig: &Rig, topic: &str| rig.partition(topic, 0).err().map(|error| error.code());
    assert!(rig.state.image().topic("a").is_some());
    assert_eq!(code(&rig, "a"), Some(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(code(&rig, "b"), None);
    // A topic of the same name is another one.
    rig.state.follow(&update);
    rig.follow(&create("a", 3, 1));
    assert_eq!(code(&rig, "a"), None);
}
