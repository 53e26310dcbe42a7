//! Who is told what when the role of a partition changes, and what may be appended then.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::oneshot::error::TryRecvError;

use super::super::{Acks, Appended, Appending, Isolation, OpenLog, Room, Source, Surroundings};
use super::*;
use crate::broker::parking::Parking;
use crate::broker::storage::log_config;
use crate::config::{BrokerConfig, ConfigMap};
use crate::env::Env;
use crate::log::{Append, Health, OpenOptions};
use crate::machine::fetch_session::{FetchInterest, FollowerView};
use crate::machine::metadata::{MetadataImage, PartitionImage};
use crate::record::{Batch, BatchBuilder, BatchOptions, Batches};
use crate::types::{NodeId, Offset, PartitionEpoch, PartitionIndex, TimestampMs, Uuid};

const NOW: TimestampMs = TimestampMs(1_000);
const LAG: Duration = Duration::from_secs(30);

fn image(leader: i32, epoch: i32, isr: &[i32]) -> PartitionImage {
    let nodes = |ids: &[i32]| ids.iter().copied().map(NodeId).collect();
    PartitionImage {
        replicas: nodes(isr),
        isr: nodes(isr),
        removing: Vec::new(),
        adding: Vec::new(),
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader: NodeId(leader),
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: PartitionEpoch(epoch),
    }
}

fn config(settings: &[(&str, &str)]) -> Arc<TopicConfig> {
    let settings: ConfigMap =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Arc::new(TopicConfig::resolve(&settings, &BrokerConfig::default()).unwrap())
}

/// Nothing is committed before it is synced, and nothing syncs but the test.
fn by_fsync() -> Arc<TopicConfig> {
    config(&[("durability", "fsync")])
}

fn open(
    directory: &Path,
    high_watermark: i64,
    image: &PartitionImage,
    config: Arc<TopicConfig>,
) -> Result<Arc<Partition>> {
    open_on(&Env::real(), directory, high_watermark, image, config)
}

fn open_on(
    env: &Env,
    directory: &Path,
    high_watermark: i64,
    image: &PartitionImage,
    config: Arc<TopicConfig>,
) -> Result<Arc<Partition>> {
    let health = Health::new(directory);
    let options = OpenOptions {
        partition: TopicPartition::new("orders", 0),
        topic_id: Uuid([7; 16]),
        config: log_config(&config, &BrokerConfig::default()),
        health: health.clone(),
        recovery_point: Offset::ZERO,
        log_start_offset: Offset::ZERO,
        clean_shutdown: false,
        clean_until: None,
    };
    let log = Log::create(env, &directory.join("orders-0"), options)?;
    let around = Surroundings {
        node_id: NodeId(1),
        health,
        parking: Arc::new(Parking::new()),
        isr_requests: Arc::default(),
        store: None,
        volatile: false,
    };
    let brokers = MetadataImage::default();
    let now = Duration::ZERO;
    let assignment = Assignment { state: image, config, brokers: &brokers, lag_time_max: LAG, now };
    let log = OpenLog { log, high_watermark: Offset(high_watermark) };
    Partition::new((Uuid([7; 16]), PartitionIndex(0)), log, &assignment, &around)
}

fn update(partition: &Partition, state: &PartitionImage, config: Arc<TopicConfig>) {
    let brokers = MetadataImage::default();
    let (lag_time_max, now) = (LAG, Duration::ZERO);
    partition.update(&Assignment { state, config, brokers: &brokers, lag_time_max, now });
}

fn records() -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(NOW, None, Some(b"value"), &[]).unwrap();
    builder.finish().unwrap()
}

fn append(partition: &Partition) -> Appended {
    append_as(partition, Acks::All)
}

fn append_as(partition: &Partition, acks: Acks) -> Appended {
    let (appending, answer) = Appending::produced(Batch::parse(&records()).unwrap(), None, acks);
    partition.append_now(appending, NOW);
    answer
}

fn code(mut answer: Appended) -> Option<ErrorCode> {
    answer.try_recv().unwrap().err().map(|error| error.code())
}

fn fetch(partition: &Partition) -> Result<usize> {
    let interest = FetchInterest {
        fetch_offset: Offset::ZERO,
        max_bytes: 1 << 20,
        current_leader_epoch: LeaderEpoch::UNKNOWN,
        last_fetched_epoch: LeaderEpoch::UNKNOWN,
        known: FollowerView::UNASKED,
    };
    let room = Room { max_bytes: 1 << 20, at_least_one: true };
    partition
        .fetch(&interest, room, Isolation::Uncommitted, Source::Leader)
        .map(|read| read.records.len())
}

#[test]
fn who_waits_is_told_when_another_broker_leads() {
    let directory = TempDir::new().unwrap();
    let partition = open(directory.path(), 0, &image(1, 0, &[1]), by_fsync()).unwrap();
    let mut waiting = append(&partition);
    assert_eq!(waiting.try_recv().unwrap_err(), TryRecvError::Empty, "it is not synced yet");
    // The members of the ISR are no reason to stop waiting.
    update(&partition, &image(1, 0, &[1, 2]), by_fsync());
    assert_eq!(waiting.try_recv().unwrap_err(), TryRecvError::Empty);
    update(&partition, &image(2, 1, &[2]), by_fsync());
    assert_eq!(code(waiting), Some(ErrorCode::NotLeaderOrFollower));
    let end = partition.reader().log_end_offset();
    assert_eq!(code(append(&partition)), Some(ErrorCode::NotLeaderOrFollower));
    assert_eq!(partition.reader().log_end_offset(), end, "only a leader appends");
    assert_eq!(fetch(&partition).unwrap_err().code(), ErrorCode::NotLeaderOrFollower);
    // A sync that was under way commits nothing: the leader decides what is.
    partition.sync_now();
    assert_eq!(partition.high_watermark(), Offset::ZERO);
    update(&partition, &image(1, 2, &[1]), by_fsync());
    assert_eq!(partition.high_watermark(), Offset(1));
    let again = append(&partition);
    partition.sync_now();
    assert_eq!(code(again), None);
}

#[test]
fn an_epoch_has_a_start_before_it_has_records() {
    let directory = TempDir::new().unwrap();
    let partition = open(directory.path(), 0, &image(1, 5, &[1]), by_fsync()).unwrap();
    let end = |epoch| {
        let end = partition.end_of_epoch(LeaderEpoch(epoch))?;
        Some((end.epoch, end.end_offset))
    };
    assert_eq!(end(5), Some((LeaderEpoch(5), Offset(0))), "of an empty log, too");
    let waiting = append(&partition);
    update(&partition, &image(1, 7, &[1]), by_fsync());
    assert_eq!(end(5), Some((LeaderEpoch(5), Offset(1))), "a follower of epoch 5 is told");
    assert_eq!(end(6), Some((LeaderEpoch(5), Offset(1))));
    assert_eq!(end(7), Some((LeaderEpoch(7), Offset(1))));
    assert_eq!(end(8), None);
    // Who leads on may still commit what was appended before.
    let later = append(&partition);
    partition.sync_now();
    assert_eq!((code(waiting), code(later)), (None, None));
    let request = crate::log::ReadRequest {
        offset: Offset::ZERO,
        max_bytes: 1 << 20,
        upper: partition.end(Isolation::Uncommitted),
        at_least_one: true,
    };
    let read = partition.reader().read(request).unwrap();
    let epochs = Batches::new(read.records).map(|batch| batch.unwrap().header().leader_epoch.0);
    assert_eq!(epochs.collect::<Vec<_>>(), [5, 7]);
}

#[test]
fn an_epoch_that_goes_back_takes_the_partition_offline() {
    let directory = TempDir::new().unwrap();
    let partition = open(directory.path(), 0, &image(1, 5, &[1]), by_fsync()).unwrap();
    update(&partition, &image(1, 4, &[1]), by_fsync());
    assert_eq!(code(append(&partition)), Some(ErrorCode::KafkaStorageError));
    drop(partition);
    // The log remembers, too, as soon as it has records of the later epoch.
    let partition = open(directory.path(), 0, &image(1, 5, &[1]), by_fsync()).unwrap();
    drop(append(&partition));
    partition.sync_now();
    drop(partition);
    open(directory.path(), 0, &image(1, 4, &[1]), by_fsync()).unwrap_err();
}

#[test]
fn the_saved_high_watermark_holds_until_the_followers_are_heard_of() {
    let directory = TempDir::new().unwrap();
    let replicated = config(&[("min.insync.replicas", "2")]);
    let partition = open(directory.path(), 0, &image(1, 0, &[1]), by_fsync()).unwrap();
    for _ in 0..4 {
        drop(append(&partition));
    }
    partition.sync_now();
    drop(partition);
    let both = image(1, 1, &[1, 2]);
    let partition = open(directory.path(), 3, &both, Arc::clone(&replicated)).unwrap();
    assert_eq!(partition.high_watermark(), Offset(3), "the log end is not known to be committed");
    let mut shrunk = both;
    shrunk.isr = vec![NodeId(1)];
    shrunk.partition_epoch = shrunk.partition_epoch.next();
    update(&partition, &shrunk, replicated);
    assert_eq!(partition.high_watermark(), Offset(3), "not with fewer in sync than there must be");
    update(&partition, &shrunk, config(&[("durability", "os")]));
    assert_eq!(partition.high_watermark(), Offset(4));
    // A rule that asks for a sync is not kept by what was written before: one becomes due.
    let due = || partition.is_flush_due(Duration::ZERO);
    assert!(!due());
    update(&partition, &shrunk, by_fsync());
    assert!(due());
    partition.sync_now();
    assert!(!due());
    drop(partition);
    let alone = open(directory.path(), 0, &image(1, 2, &[1]), by_fsync()).unwrap();
    assert_eq!(alone.high_watermark(), Offset(4), "the only copy is what is committed");
}

#[cfg(feature = "sim")]
#[test]
fn a_disk_that_is_full_for_a_while_keeps_nobody_from_being_answered_later() {
    use crate::env::sim::{Fault, Simulation};

    let simulation = Simulation::new(1);
    let (env, directory) = (simulation.env(), Path::new("/data"));
    let partition = open_on(&env, directory, 0, &image(1, 0, &[1]), by_fsync()).unwrap();
    let mut waiting = append(&partition);
    simulation.disk.inject(Fault {
        call: "write",
        path_suffix: "leader-epoch-checkpoint.tmp".to_owned(),
        skip: 0,
        kind: std::io::ErrorKind::StorageFull,
    });
    partition.sync_now();
    assert_eq!(waiting.try_recv().unwrap_err(), TryRecvError::Empty);
    assert!(partition.is_flush_due(Duration::ZERO), "it is tried once more");
    partition.sync_now();
    assert_eq!(code(waiting), None);
    assert_eq!(partition.high_watermark(), Offset(1));
}

#[test]
fn too_few_in_sync_refuse_all_but_not_the_leader_alone() {
    let directory = TempDir::new().unwrap();
    let two = config(&[("min.insync.replicas", "2")]);
    let mut alone = image(1, 0, &[1]);
    alone.replicas = vec![NodeId(1), NodeId(2)];
    let partition = open(directory.path(), 0, &alone, Arc::clone(&two)).unwrap();
    assert_eq!(code(append(&partition)), Some(ErrorCode::NotEnoughReplicas));
    assert_eq!(code(append_as(&partition, Acks::Leader)), None);
    // Once a follower is in sync, the append is made, and waits for it.
    let mut both = image(1, 0, &[1, 2]);
    both.partition_epoch = both.partition_epoch.next();
    update(&partition, &both, two);
    assert_eq!(append(&partition).try_recv().unwrap_err(), TryRecvError::Empty);
}

#[test]
fn one_copy_is_enough_for_acks_1_when_there_are_more() {
    let directory = TempDir::new().unwrap();
    let both = image(1, 0, &[1, 2]);
    let partition = open(directory.path(), 0, &both, by_fsync()).unwrap();
    let (mut one, mut all) = (append_as(&partition, Acks::Leader), append(&partition));
    assert_eq!(one.try_recv().unwrap_err(), TryRecvError::Empty, "it is not synced yet");
    partition.sync_now();
    assert_eq!(code(one), None);
    assert_eq!(all.try_recv().unwrap_err(), TryRecvError::Empty, "the follower has not come");
    assert_eq!(partition.high_watermark(), Offset::ZERO);
    let written = config(&[("durability", "os")]);
    update(&partition, &both, Arc::clone(&written));
    assert_eq!(code(append_as(&partition, Acks::Leader)), None);
    let mut later = append_as(&partition, Acks::Leader);
    assert!(later.try_recv().is_ok());
    update(&partition, &image(2, 1, &[2]), written);
    assert_eq!(code(all), Some(ErrorCode::NotLeaderOrFollower));
}

#[test]
fn whoever_waits_hears_of_the_end() {
    let directory = TempDir::new().unwrap();
    let partition = open(directory.path(), 0, &image(1, 0, &[1]), by_fsync()).unwrap();
    let waiting = append(&partition);
    partition.close(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(code(waiting), Some(ErrorCode::UnknownTopicOrPartition));
    // The first reason stays, and no metadata brings it back.
    partition.close(ErrorCode::KafkaStorageError);
    update(&partition, &image(1, 1, &[1]), by_fsync());
    assert_eq!(code(append(&partition)), Some(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(fetch(&partition).unwrap_err().code(), ErrorCode::UnknownTopicOrPartition);
    drop(partition.take_log());
    assert_eq!(code(append(&partition)), Some(ErrorCode::UnknownTopicOrPartition));
}

#[test]
fn a_coordinator_of_an_older_epoch_writes_nothing() {
    let directory = TempDir::new().unwrap();
    let partition = open(directory.path(), 0, &image(1, 3, &[1]), by_fsync()).unwrap();
    let own = |epoch| {
        let (appending, answer) = Appending::own(Append::own(records()), LeaderEpoch(epoch));
        partition.append_now(appending, NOW);
        partition.sync_now();
        code(answer)
    };
    assert_eq!(own(3), None);
    // It was replaced, here of all places, and does not know yet.
    update(&partition, &image(2, 4, &[2]), by_fsync());
    update(&partition, &image(1, 5, &[1]), by_fsync());
    assert_eq!(own(3), Some(ErrorCode::NotLeaderOrFollower));
    assert_eq!(partition.reader().log_end_offset(), Offset(1));
    assert_eq!(own(5), None);
}
