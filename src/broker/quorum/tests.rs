use std::fs;
use std::path::Path;

use super::entry::Entry;
use super::store::Job;
use super::*;
use crate::config::{AlterOp, ConfigChange, ConfigMap};
use crate::machine::controller::{
    AllocateProducerIds, BrokerRegistration, CreateTopics, DeleteTopics, IncrementalAlterConfigs,
    IncrementalAlteration, NewTopic, ProducerIdBlock, TopicRef, UnregisterBroker,
};
use crate::machine::metadata::{ConfigResource, MetadataRecord};
use crate::machine::quorum::Payload;
use crate::types::{BrokerEpoch, PartitionIndex, ProducerId, TopicId};

fn options(directory: &Path) -> QuorumOptions {
    options_on(Env::real(), directory)
}

pub(super) fn options_on(env: Env, directory: &Path) -> QuorumOptions {
    QuorumOptions {
        env,
        log_dir: directory.to_path_buf(),
        health: Health::new(directory),
        node_id: NodeId(1),
        cluster_id: Some("test-cluster".into()),
        directory_id: Uuid([1; 16]),
        endpoints: Vec::new(),
        voters: VoterSet::default(),
        bootstrap: 0,
        timing: Timing::default(),
        config: BrokerConfig::default(),
        fsync: true,
    }
}

async fn open(directory: &Path) -> Quorum {
    Quorum::open(options(directory)).await.unwrap()
}

pub(super) async fn register(quorum: &Quorum, process: u8) -> Result<BrokerEpoch> {
    let registration = BrokerRegistration {
        id: NodeId(1),
        incarnation: Uuid([process; 16]),
        directory_id: Uuid([1; 16]),
        is_first: true,
        predecessor: None,
        cluster_id: Some("test-cluster".into()),
        endpoints: vec![],
        rack: None,
        ready: true,
    };
    Ok(quorum.submit(registration).await?.reply?)
}

pub(super) async fn create(quorum: &Quorum, name: &str) -> Result<TopicId> {
    let topics = vec![NewTopic::new(name, 2, 1)];
    let created = quorum.submit(CreateTopics { topics, validate_only: false }).await?;
    created.reply.into_iter().next().unwrap().map(|topic| topic.id).map_err(Error::from)
}

pub(super) async fn retain(quorum: &Quorum, topic: &str, ms: i64) -> Result<()> {
    let change =
        ConfigChange { name: "retention.ms".into(), op: AlterOp::Set, value: Some(ms.to_string()) };
    let resource = ConfigResource::Topic(topic.into());
    let resources = vec![IncrementalAlteration { resource, changes: vec![change] }];
    let altered =
        quorum.submit(IncrementalAlterConfigs { resources, validate_only: false }).await?;
    altered.reply.into_iter().next().unwrap().map_err(Error::from)
}

/// What a crash would leave: the files as they are while the quorum runs.
fn crash_copy(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let from = directory.join(METADATA_DIRECTORY);
    let to = copy.path().join(METADATA_DIRECTORY);
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        // A temporary file may have got its name meanwhile.
        let copied = fs::copy(file.path(), to.join(file.file_name()));
        assert!(copied.is_ok() || !file.path().exists());
    }
    copy
}

const FIRST_SEGMENT: &str = "00000000000000000000.log";

fn segment_files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(directory.join(METADATA_DIRECTORY)).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

/// The image without its place in the log.
pub(super) fn content(quorum: &Quorum) -> Vec<MetadataRecord> {
    quorum.image().to_records()
}

#[tokio::test]
async fn topics_settings_and_ids_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let quorum = open(directory.path()).await;
    register(&quorum, 1).await.unwrap();
    let id = create(&quorum, "orders").await.unwrap();
    retain(&quorum, "orders", 77).await.unwrap();
    let allocate = AllocateProducerIds { broker: NodeId(1), epoch: BrokerEpoch(0) };
    let allocated = quorum.submit(allocate).await.unwrap();
    assert_eq!(allocated.reply, Ok(ProducerIdBlock { first: ProducerId(0), count: 1000 }));
    let before = content(&quorum);
    let offset = quorum.image().offset;
    quorum.shutdown().await.unwrap();
    assert!(matches!(
        quorum.submit(UnregisterBroker { id: NodeId(1) }).await,
        Err(Error::Closed { .. })
    ));

    let quorum = open(directory.path()).await;
    let image = quorum.image();
    assert_eq!(content(&quorum), before);
    assert!(image.offset >= offset);
    assert_eq!(image.topic("orders").unwrap().id, id);
    assert_eq!(image.topic_config("orders")["retention.ms"], "77");
    assert_eq!(image.next_producer_id(), ProducerId(1000));
    assert_eq!(&**image.cluster_id().unwrap(), "test-cluster");
    assert_eq!(image.feature("metadata.version"), 30);
    assert_eq!(quorum.leader(), NodeId(1));
    quorum.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_answered_survives_a_crash_at_any_command() {
    let directory = tempfile::tempdir().unwrap();
    let quorum = open(directory.path()).await;
    register(&quorum, 1).await.unwrap();
    let mut copies = Vec::new();
    for count in 0..5 {
        create(&quorum, &format!("topic-{count}")).await.unwrap();
        copies.push((crash_copy(directory.path()), content(&quorum)));
    }
    quorum.shutdown().await.unwrap();
    for (copy, expected) in copies {
        let quorum = open(copy.path()).await;
        assert_eq!(content(&quorum), expected);
        register(&quorum, 2).await.unwrap();
        let topic = quorum.image().topic("topic-0").unwrap().clone();
        assert_eq!(topic.partition(PartitionIndex(0)).unwrap().leader_epoch, LeaderEpoch(1));
        quorum.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn an_entry_that_was_appended_and_not_yet_committed_is_committed_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).await.shutdown().await.unwrap();
    {
        let Opened { mut store, stored, .. } = Store::open(&options(directory.path())).unwrap();
        let record = MetadataRecord::Topic { name: "half".into(), id: Uuid([5; 16]) };
        let value = entry::encode_records(NodeId(1), &[record]).unwrap();
        let (offset, epoch) = (stored.end, stored.vote.epoch);
        let entry = Entry { offset, epoch, payload: Payload::Records(value) };
        store.run(&mut [Job::Append(vec![entry])].into(), &mut Vec::new()).unwrap();
        // Dropped without being closed: the process was killed here.
    }
    let quorum = open(directory.path()).await;
    assert_eq!(quorum.image().topic("half").unwrap().id, Uuid([5; 16]));
    quorum.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_torn_append_is_cut_and_the_rest_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let quorum = open(directory.path()).await;
    register(&quorum, 1).await.unwrap();
    create(&quorum, "orders").await.unwrap();
    let copy = crash_copy(directory.path());
    let expected = content(&quorum);
    quorum.shutdown().await.unwrap();
    let segment = segment_files(copy.path(), "log").pop().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let torn = bytes[bytes.len() - 90..].to_vec();
    bytes.extend(&torn[..50]);
    fs::write(&segment, bytes).unwrap();
    let quorum = open(copy.path()).await;
    assert_eq!(content(&quorum), expected);
    create(&quorum, "more").await.unwrap();
    quorum.shutdown().await.unwrap();
}

#[tokio::test]
async fn snapshots_bound_the_log_and_hold_everything() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    let settings = ConfigMap::from([(
        "metadata.log.max.record.bytes.between.snapshots".to_owned(),
        "20000".to_owned(),
    )]);
    options.config = BrokerConfig::resolve(&settings).unwrap();
    let quorum = Quorum::open(options.clone()).await.unwrap();
    register(&quorum, 1).await.unwrap();
    create(&quorum, "orders").await.unwrap();
    let before = quorum.log_end_offset();
    for ms in 0..600 {
        retain(&quorum, "orders", ms).await.unwrap();
    }
    let entries = quorum.log_end_offset().since(before);
    assert_eq!(entries, 600);
    // A snapshot is taken, and the log cut, while commands go on.
    let mut more = 0;
    while segment_files(directory.path(), "log").iter().any(|path| path.ends_with(FIRST_SEGMENT)) {
        retain(&quorum, "orders", more).await.unwrap();
        more += 1;
        assert!(more < 10_000, "the log is not cut");
    }
    // 600 entries of 200 bytes; what is left is what came since the last snapshot but one.
    let logs = segment_files(directory.path(), "log");
    let left: u64 = logs.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(left < 60_000, "{left} bytes of log are left");
    let copy = crash_copy(directory.path());
    let expected = content(&quorum);
    quorum.shutdown().await.unwrap();
    for place in [directory.path(), copy.path()] {
        let options = QuorumOptions { log_dir: place.to_path_buf(), ..options.clone() };
        let quorum = Quorum::open(options).await.unwrap();
        assert_eq!(content(&quorum), expected);
        // The next one may be under way: it is on disk before the old one is removed.
        let snapshots = segment_files(place, "checkpoint").len();
        assert!((1..=2).contains(&snapshots), "{snapshots} snapshots");
        retain(&quorum, "orders", 1).await.unwrap();
        quorum.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_subscriber_sees_every_change_after_its_first_image() {
    let directory = tempfile::tempdir().unwrap();
    let quorum = open(directory.path()).await;
    register(&quorum, 1).await.unwrap();
    create(&quorum, "early").await.unwrap();
    let (mut image, mut updates) = quorum.subscribe();
    assert!(image.topic("early").is_some());
    for name in ["a", "b", "c"] {
        create(&quorum, name).await.unwrap();
    }
    let topics = vec![TopicRef::Name("b".into())];
    quorum.submit(DeleteTopics { topics }).await.unwrap();
    let mut seen = Vec::new();
    while let Ok(update) = updates.try_recv() {
        assert_eq!(update.delta.base(), &*image, "QUORUM-3");
        seen.extend(update.delta.changed_topics().map(|topic| format!("+{}", topic.name)));
        let gone = update.delta.deleted_topics().values();
        seen.extend(gone.map(|topic| format!("-{}", topic.name)));
        image = update.image;
    }
    assert_eq!(seen, ["+a", "+b", "+c", "-b"]);
    assert_eq!(image, quorum.image());
    quorum.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_together_share_an_entry() {
    let directory = tempfile::tempdir().unwrap();
    let quorum = open(directory.path()).await;
    register(&quorum, 1).await.unwrap();
    let before = quorum.log_end_offset();
    let waiting: Vec<_> = (0..200)
        .map(|count| {
            let topics = vec![NewTopic::new(format!("topic-{count}"), 1, 1)];
            quorum.submit(CreateTopics { topics, validate_only: false })
        })
        .collect();
    for reply in futures::future::join_all(waiting).await {
        assert!(reply.unwrap().reply[0].is_ok());
    }
    assert_eq!(quorum.image().topics().len(), 200);
    let entries = quorum.log_end_offset().since(before);
    assert!(entries < 100, "{entries} entries for 200 commands");
    quorum.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_log_of_another_cluster_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).await.shutdown().await.unwrap();
    let options = QuorumOptions { cluster_id: Some("other".into()), ..options(directory.path()) };
    let error = Quorum::open(options).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InconsistentClusterId, "{error}");
}

#[tokio::test]
async fn an_entry_of_a_newer_version_stops_the_quorum_with_a_clear_error() {
    let value = br#"{"version":9,"leader":1,"kind":"future"}"#;
    let error = entry::decode(Offset(1), LeaderEpoch(1), value).unwrap_err().to_string();
    assert!(error.contains("has version 9") && error.contains("start the newer"), "{error}");
}

#[tokio::test]
async fn a_reply_says_at_which_offset_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let quorum = open(directory.path()).await;
    register(&quorum, 1).await.unwrap();
    let ask = |name: &str, validate_only| {
        let topics = vec![NewTopic::new(name, 1, 1)];
        quorum.submit(CreateTopics { topics, validate_only })
    };
    let before = quorum.image().offset;
    let checked = ask("a", true).await.unwrap();
    assert_eq!(checked.offset, before, "nothing was written");
    let first = ask("a", false).await.unwrap();
    assert!(first.offset > before);
    let refused = ask("a", false).await.unwrap();
    assert!(refused.reply[0].is_err());
    assert_eq!(refused.offset, first.offset, "it exists from there on");
    let second = ask("b", false).await.unwrap();
    assert!(second.offset > first.offset);
    assert_eq!(quorum.image().offset, second.offset);
    quorum.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quorum_of_several_voters_says_that_it_has_no_leader() {
    let directory = tempfile::tempdir().unwrap();
    let voter = |id| Voter {
        key: ReplicaKey { id: NodeId(id), directory_id: Uuid::ZERO },
        endpoints: Vec::new(),
    };
    let voters = VoterSet::new([voter(1), voter(2)]);
    let options = QuorumOptions { voters, ..options(directory.path()) };
    let quorum = Quorum::open(options).await.unwrap();
    let error = quorum.submit(UnregisterBroker { id: NodeId(2) }).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotController);
    assert_eq!(quorum.voters(), [NodeId(1), NodeId(2)]);
    quorum.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_fsync_the_same_is_there_after_closing() {
    let directory = tempfile::tempdir().unwrap();
    let options = QuorumOptions { fsync: false, ..options(directory.path()) };
    let quorum = Quorum::open(options.clone()).await.unwrap();
    register(&quorum, 1).await.unwrap();
    create(&quorum, "orders").await.unwrap();
    let before = content(&quorum);
    quorum.shutdown().await.unwrap();
    let quorum = Quorum::open(options).await.unwrap();
    assert_eq!(content(&quorum), before);
    quorum.shutdown().await.unwrap();
}

/// Prints how long it takes to lead and to commit: `cargo test --release -- --ignored speed`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed_of_opening_and_committing() {
    for fsync in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let options = QuorumOptions { fsync, ..options(directory.path()) };
        let clock = options.env.clock.clone();
        for what in ["new", "restart"] {
            let start = clock.monotonic();
            let quorum = Quorum::open(options.clone()).await.unwrap();
            let opened = clock.monotonic().saturating_sub(start);
            register(&quorum, 1).await.unwrap();
            let start = clock.monotonic();
            for ms in 0..200 {
                let name = format!("{what}-{ms}");
                create(&quorum, &name).await.unwrap();
            }
            let commit = (clock.monotonic().saturating_sub(start)) / 200;
            println!("fsync={fsync} {what}: leader after {opened:?}, commit {commit:?}");
            let start = clock.monotonic();
            quorum.shutdown().await.unwrap();
            println!("  shutdown {:?}", clock.monotonic().saturating_sub(start));
        }
    }
}
