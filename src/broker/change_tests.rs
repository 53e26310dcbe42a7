//! The broker's state follows changes: what is open, what is gone, and which settings hold.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::connection::BoxFuture;
use crate::broker::coordinator::{GroupCoordinators, ShardParts};
use crate::broker::log_threads::LogThreads;
use crate::broker::metadata_log::{MetadataLog, Question, QuorumStatus};
use crate::broker::parking::Parking;
use crate::broker::partition::{Partition, Surroundings};
use crate::broker::partitions::Partitions;
use crate::broker::state::{BrokerState, Identity, Parts};
use crate::broker::storage::Storage;
use crate::config::BrokerConfig;
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::log::LogDirectory;
use crate::machine::metadata::{
    ConfigResource, MetadataDelta, MetadataImage, MetadataRecord, MetadataUpdate, PartitionImage,
    PartitionRecord,
};
use crate::types::{LeaderEpoch, NodeId, Offset, PartitionEpoch, TopicId, Uuid};

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

    fn status(&self) -> QuorumStatus {
        QuorumStatus {
            leader: NodeId::NONE,
            epoch: LeaderEpoch::UNKNOWN,
            high_watermark: Offset::UNKNOWN,
            voters: Vec::new(),
        }
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
        volatile: false,
    };
    BrokerState::new(Parts {
        env: env.clone(),
        identity: Identity {
            node_id: ME,
            cluster_id: "c".to_owned(),
            bound: Vec::new(),
            advertised: Vec::new(),
        },
        config: BrokerConfig::default(),
        metadata: Arc::new(NoLog),
        partitions: Partitions::new(around, storage),
        coordinators: GroupCoordinators::new(ShardParts {
            env: env.clone(),
            log_threads: Arc::clone(&log_threads),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }),
        log_threads,
        parking,
    })
}

/// A broker, and the metadata that it is told of.
struct Rig {
    state: BrokerState,
    image: Arc<MetadataImage>,
    _directory: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = state(&Env::real(), directory.path());
        let mut rig = Self { state, image: Arc::default(), _directory: directory };
        let first = rig.change(&[MetadataRecord::Cluster { id: "c".into() }]);
        rig.state.follow(&first);
        rig
    }

    /// Changes the metadata; the broker is not told.
    fn change(&mut self, records: &[MetadataRecord]) -> MetadataUpdate {
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
        self.state.partitions().leader(topic, index)
    }

    fn open(&self) -> Vec<String> {
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
        leader,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
    }
}

fn create(name: &str, id: u8, partitions: i32) -> Vec<MetadataRecord> {
    let id: TopicId = Uuid([id; 16]);
    let mut records = vec![MetadataRecord::Topic { name: name.into(), id }];
    records.extend((0..partitions).map(|index| PartitionRecord::create(id, index, &led_by(ME))));
    records
}

fn set(resource: ConfigResource, name: &str, value: &str) -> MetadataRecord {
    MetadataRecord::Config { resource, name: name.to_owned(), value: Some(value.to_owned()) }
}

fn remove(id: u8) -> MetadataRecord {
    MetadataRecord::RemoveTopic { id: Uuid([id; 16]) }
}

#[tokio::test]
async fn partitions_are_opened_changed_and_closed_with_the_metadata() {
    let mut rig = Rig::new();
    rig.follow(&create("a", 1, 2));
    rig.follow(&create("b", 2, 1));
    assert_eq!(rig.open(), ["a-0", "a-1", "b-0"]);
    // One more partition of a, and one of which another broker has the only replica.
    let elsewhere = PartitionRecord::create(Uuid([1; 16]), 3, &led_by(NodeId(2)));
    rig.follow(&[PartitionRecord::create(Uuid([1; 16]), 2, &led_by(ME)), elsewhere]);
    assert_eq!(rig.open(), ["a-0", "a-1", "a-2", "b-0"]);
    let moved = PartitionRecord::change(Uuid([1; 16]), 2, LeaderEpoch(1), PartitionEpoch(1));
    let other = Some(vec![NodeId(2)]);
    rig.follow(&[MetadataRecord::ChangePartition(PartitionRecord {
        replicas: other.clone(),
        isr: other,
        leader: Some(NodeId(2)),
        ..moved
    })]);
    assert_eq!(rig.open(), ["a-0", "a-1", "b-0"]);
    let term = PartitionRecord::change(Uuid([1; 16]), 0, LeaderEpoch(4), PartitionEpoch(1));
    rig.follow(&[MetadataRecord::ChangePartition(term)]);
    assert_eq!(rig.partition("a", 0).unwrap().leader_epoch(), LeaderEpoch(4));
    // Deleted and created again in one step.
    let mut again = vec![remove(1)];
    again.extend(create("a", 3, 1));
    rig.follow(&again);
    assert_eq!(rig.open(), ["a-0", "b-0"]);
    assert_eq!(rig.partition("a", 0).unwrap().key(), (Uuid([3; 16]), 0));
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
