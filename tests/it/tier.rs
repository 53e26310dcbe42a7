//! A topic whose closed segments are in the tier: clients notice nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::messages::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use ottla::protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ottla::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use ottla::protocol::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest,
};
use ottla::protocol::messages::fetch::FetchPartition;
use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use ottla::protocol::messages::own::TierState;
use ottla::record::{BatchBuilder, BatchOptions, Batches, Compression};
use ottla::types::TimestampMs;

use crate::support::{Client, PATIENCE, TestBroker, fetch_request, values};

const BATCHES: i64 = 90;
const RECORDS: i64 = 10;
/// The value of each record; a segment has about ten batches.
const SIZE: usize = 10_000;
const TOPIC: &[(&str, &str)] = &[
    ("remote.storage.enable", "true"),
    ("segment.bytes", "1048576"),
    ("retention.ms", "-1"),
    ("local.retention.bytes", "1"),
    ("file.delete.delay.ms", "1"),
];

fn options(directory: &Path) -> BrokerOptions {
    BrokerOptions::in_directory(directory.join("data"))
        .with("remote.log.storage.system.enable", "true")
        .with("ottla.tier.url", format!("file://{}", directory.join("tier").display()))
        .with("remote.log.manager.task.interval.ms", "20")
        .with("log.retention.check.interval.ms", "20")
}

fn time(offset: i64) -> i64 {
    1_700_000_000_000 + offset * 3
}

fn batch(index: i64) -> Bytes {
    let codecs = [Compression::None, Compression::Zstd, Compression::None, Compression::Snappy];
    let compression = codecs[usize::try_from(index).unwrap() % codecs.len()];
    let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
    let mut seed = index.unsigned_abs() + 1;
    for offset in index * RECORDS..(index + 1) * RECORDS {
        let noise = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        });
        let value: Vec<u8> = noise.take(SIZE).collect();
        let key = offset.to_be_bytes();
        builder.append(TimestampMs(time(offset)), Some(&key), Some(&value), &[]).unwrap();
    }
    builder.finish().unwrap()
}

fn list(client: &mut Client, partition: i32, timestamp: i64) -> (i64, i64) {
    let wanted = ListOffsetsPartition {
        partition_index: partition,
        timestamp,
        ..ListOffsetsPartition::default()
    };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![wanted] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    let found = client.call(11, request).topics.remove(0).partitions.remove(0);
    assert_eq!(found.error_code, 0, "{found:?}");
    (found.offset, found.timestamp)
}

const EARLIEST: i64 = -2;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Waits until only the open segment is on the disk.
fn await_tier(client: &mut Client, partition: i32) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let local = list(client, partition, EARLIEST_LOCAL).0;
        let tiered = list(client, partition, LATEST_TIERED).0;
        if local >= (BATCHES - 12) * RECORDS && tiered == local - 1 {
            return local;
        }
        assert!(Instant::now() < deadline, "local start {local}, tiered up to {tiered}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn node(directory: &Path) -> (TestBroker, Client, i64) {
    let node = TestBroker::start(options(directory));
    let mut client = node.client();
    client.create_topic("t", 2, TOPIC);
    for partition in [0, 1] {
        for index in 0..BATCHES {
            let answer = client.produce("t", partition, -1, batch(index));
            assert_eq!(answer.base_offset, index * RECORDS);
        }
    }
    await_tier(&mut client, 1);
    let local = await_tier(&mut client, 0);
    (node, client, local)
}

fn files(directory: &Path, partition: i32) -> Vec<PathBuf> {
    let folder = directory.join(format!("tier/topic=t/partition={partition}"));
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// All batches of partition 0 are those that were produced.
fn check_all(client: &mut Client, from: i64) {
    let mut offset = from;
    while offset < BATCHES * RECORDS {
        let data = client.fetch("t", 0, offset);
        assert_eq!((data.error_code, data.high_watermark), (0, BATCHES * RECORDS), "{offset}");
        for batch_found in Batches::new(data.records.unwrap().into_bytes()) {
            let found = batch_found.unwrap();
            let base = found.header().base_offset.0;
            assert!(base <= offset && offset <= found.header().last_offset().0, "{base} {offset}");
            let produced = batch(base / RECORDS);
            let values = |bytes: &Bytes| -> Vec<Vec<u8>> {
                values(bytes.clone().into()).into_iter().map(|(_, value)| value).collect()
            };
            assert_eq!(values(found.bytes()), values(&produced));
            if found.header().compression == Compression::None && (base / RECORDS) % 2 == 0 {
                // But for the offset and the epoch, which the broker enters.
                assert_eq!(found.bytes()[16..], produced[16..]);
            }
            offset = found.header().next_offset().0;
        }
    }
}

#[test]
fn a_topic_is_read_from_its_start_when_its_segments_are_in_the_tier() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client, local) = node(directory.path());
    assert_eq!(list(&mut client, 0, EARLIEST).0, 0);
    assert_eq!(list(&mut client, 0, EARLIEST_PENDING_UPLOAD).0, local);
    assert!(files(directory.path(), 0).len() >= 6);
    let sizes = client.call(4, DescribeLogDirsRequest { topics: None });
    for partition in &sizes.results[0].topics[0].partitions {
        assert!(partition.partition_size <= 1 << 20, "only what is here: {partition:?}");
    }
    check_all(&mut client, 0);
    for offset in (0..BATCHES * RECORDS).step_by(97) {
        check_all(&mut client, offset);
        let found = list(&mut client, 0, time(offset));
        assert_eq!(found, (offset, time(offset)), "of {local}");
        assert_eq!(list(&mut client, 0, time(offset) - 1).0, offset);
    }
    assert_eq!(list(&mut client, 0, time(BATCHES * RECORDS)).0, -1);
    node.stop();
}

#[test]
fn several_partitions_share_what_a_fetch_may_have() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client, local) = node(directory.path());
    let mut request = fetch_request("t", 0, 0);
    request.topics[0].partitions.push(FetchPartition {
        partition: 1,
        fetch_offset: 200,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    });
    let mut sizes = |max_bytes, request: &mut ottla::protocol::messages::fetch::FetchRequest| {
        request.max_bytes = max_bytes;
        let response = client.call(12, request.clone());
        let partitions = &response.responses[0].partitions;
        let of = |at: usize| {
            assert_eq!(partitions[at].error_code, 0);
            values(partitions[at].records.clone().unwrap())
        };
        [of(0), of(1)].map(|values| (values.len(), values.first().map(|value| value.0)))
    };
    assert_eq!(sizes(1, &mut request), [(10, Some(0)), (0, None)], "the first of all, whole");
    // Nine or ten batches in each.
    assert_eq!(sizes(1_150_000, &mut request), [(100, Some(0)), (10, Some(200))]);
    let [first, second] = sizes(i32::MAX, &mut request);
    assert_eq!((first, second), ((100, Some(0)), (100, Some(200))));
    // What is on this disk counts first, but whoever is the first of the request does not go without.
    request.topics[0].partitions[1].fetch_offset = local;
    request.topics[0].partitions[1].partition_max_bytes = 1;
    assert_eq!(sizes(120_000, &mut request), [(10, Some(0)), (10, Some(local))]);
    request.topics[0].partitions.swap(0, 1);
    assert_eq!(sizes(120_000, &mut request), [(10, Some(local)), (0, None)]);
    node.stop();
}

#[test]
fn a_restart_and_deleted_records_change_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (mut node, mut client, local) = node(directory.path());
    let mut start = 0;
    for stops in [true, false, true] {
        drop(client);
        if stops {
            node.stop();
        } else {
            node.crash();
        }
        node = TestBroker::start(options(directory.path()));
        client = node.client();
        assert_eq!(await_tier(&mut client, 0), local);
        assert_eq!(list(&mut client, 0, EARLIEST).0, start);
        check_all(&mut client, start);
        start += 155;
        let partition = DeleteRecordsPartition { partition_index: 0, offset: start };
        let topic = DeleteRecordsTopic { name: "t".into(), partitions: vec![partition] };
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 10_000 };
        let answer = client.call(2, request).topics.remove(0).partitions.remove(0);
        assert_eq!((answer.low_watermark, answer.error_code), (start, 0));
        let gone = client.fetch("t", 0, start - 1);
        assert_eq!(ErrorCode::from_i16(gone.error_code), ErrorCode::OffsetOutOfRange);
        check_all(&mut client, start);
        assert_eq!(list(&mut client, 0, time(0)).0, start);
    }
    node.stop();
}

#[test]
fn a_file_that_is_damaged_or_gone_is_an_error_and_the_broker_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client, _) = node(directory.path());
    // Files that nobody has read yet.
    let path = &files(directory.path(), 0)[2];
    let whole = std::fs::read(path).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    std::fs::write(path, &damaged).unwrap();
    let mut offset = 0;
    let failed = loop {
        let data = client.fetch("t", 0, offset);
        if data.error_code != 0 {
            assert_eq!(data.records.unwrap().len(), 0);
            break ErrorCode::from_i16(data.error_code);
        }
        offset = values(data.records.unwrap()).last().unwrap().0 + 1;
    };
    assert_eq!(failed, ErrorCode::KafkaStorageError);
    assert!(offset > 100 && offset < 400, "{offset}");
    std::fs::write(path, &whole).unwrap();
    check_all(&mut client, 0);
    let root = directory.path().join("tier");
    std::fs::rename(&root, directory.path().join("away")).unwrap();
    // Nothing of this partition was read.
    let away = client.fetch("t", 1, 0);
    assert_eq!(ErrorCode::from_i16(away.error_code), ErrorCode::KafkaStorageError);
    assert_eq!(client.produce("t", 1, -1, batch(0)).error_code, 0);
    std::fs::rename(directory.path().join("away"), &root).unwrap();
    assert_eq!(client.fetch("t", 1, 0).error_code, 0);
    node.stop();
}

#[test]
fn the_local_limits_are_not_above_those_of_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    let node = TestBroker::start(options(directory.path()));
    let mut client = node.client();
    let configs =
        [("remote.storage.enable", "true"), ("retention.ms", "5"), ("local.retention.ms", "6")];
    let configs = configs
        .map(|(name, value)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) });
    let topic = CreatableTopic {
        name: "t".into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: configs.to_vec(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    let refused = client.call(7, request).topics.remove(0);
    assert_eq!(ErrorCode::from_i16(refused.error_code), ErrorCode::InvalidConfig);
    let text = refused.error_message.unwrap();
    assert!(
        text.as_str().contains("Value must not be more than retention.ms property value: 5"),
        "{text:?}"
    );
    node.stop();
}

fn described(client: &mut Client, version: i16, topic: &str) -> DescribeLogDirsPartition {
    let topics = vec![DescribableLogDirTopic { topic: topic.into(), partitions: vec![0] }];
    let answer = client.call(version, DescribeLogDirsRequest { topics: Some(topics) });
    answer.results[0].topics[0].partitions[0].clone()
}

#[test]
fn what_is_moved_to_the_place_of_the_tier_is_copied_there() {
    let directory = tempfile::tempdir().unwrap();
    let node = TestBroker::start(options(directory.path()));
    let mut client = node.client();
    client.create_topic("t", 1, TOPIC);
    client.create_topic("plain", 1, &[]);
    for index in 0..3 {
        client.produce("t", 0, -1, batch(index));
    }
    let place = format!("file://{}", directory.path().join("tier").display());
    let move_to = |client: &mut Client, path: &str, topic: &str, index: i32| {
        let topics = vec![AlterReplicaLogDirTopic { name: topic.into(), partitions: vec![index] }];
        let dirs = vec![AlterReplicaLogDir { path: path.into(), topics }];
        let answer = client.call(2, AlterReplicaLogDirsRequest { dirs });
        ErrorCode::from_i16(answer.results[0].partitions[0].error_code)
    };
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(move_to(&mut client, "file:///elsewhere", "t", 0), ErrorCode::LogDirNotFound);
    assert_eq!(move_to(&mut client, &place, "plain", 0), ErrorCode::InvalidConfig);
    assert_eq!(move_to(&mut client, &place, "t", 9), unknown);
    assert_eq!(move_to(&mut client, &place, "missing", 0), unknown);
    assert_eq!(described(&mut client, 5, "t").tier.wanted_offset, -1);
    assert!(move_to(&mut client, &place, "t", 0).is_ok());
    let deadline = Instant::now() + PATIENCE;
    let state = loop {
        let state = described(&mut client, 5, "t").tier;
        if state.pending_offset == 3 * RECORDS {
            break state;
        }
        assert!(Instant::now() < deadline, "{state:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let [file] = &*files(directory.path(), 0) else { panic!("one file") };
    let size = i64::try_from(std::fs::metadata(file).unwrap().len()).unwrap();
    assert_eq!((state.files, state.file_bytes, state.pending_bytes), (1, size, 0));
    assert_eq!((state.wanted_offset, &state.failure), (3 * RECORDS, &None));
    assert!(state.log_bytes > 0);
    // Who cannot read the field does not get it.
    for (version, topic) in [(1, "t"), (5, "plain")] {
        assert_eq!(described(&mut client, version, topic).tier, TierState::default());
    }
    node.stop();
}
