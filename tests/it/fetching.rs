//! Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords: what a consumer sees.

use std::time::{Duration, Instant};

use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use ottla::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic,
};
use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopic,
};
use ottla::protocol::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use ottla::record::{BatchBuilder, BatchOptions};
use ottla::types::{TimestampMs, Uuid};

use crate::support::{Client, TestBroker, batch, fetch_request, now, values};

#[track_caller]
fn check_code(code: i16, expected: ErrorCode) {
    assert_eq!(ErrorCode::from_i16(code), expected);
}

fn node() -> (TestBroker, Client) {
    let node = TestBroker::in_memory();
    let client = node.client();
    (node, client)
}

#[test]
fn a_fetch_starts_with_the_batch_that_holds_the_offset() {
    let (_world, mut client) = node();
    client.create_topic("t", 1, &[]);
    client.produce("t", 0, -1, batch(&[b"a", b"b", b"c"]));
    client.produce("t", 0, -1, batch(&[b"d"]));
    let data = client.fetch("t", 0, 1);
    assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset), (4, 4, 0));
    let offsets: Vec<_> = values(data.records.unwrap()).into_iter().map(|(at, _)| at).collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    let end = client.fetch("t", 0, 4);
    assert_eq!((end.error_code, end.records.unwrap().len()), (0, 0));
    for offset in [-1, 5] {
        let outside = client.fetch("t", 0, offset);
        check_code(outside.error_code, ErrorCode::OffsetOutOfRange);
        assert_eq!(outside.high_watermark, -1);
    }
}

#[test]
fn one_batch_comes_whatever_the_limits_and_no_more_than_they_allow() {
    let (_world, mut client) = node();
    client.create_topic("t", 2, &[]);
    let one = batch(&[&[7; 1000]]);
    for partition in [0, 1] {
        for _ in 0..5 {
            client.produce("t", partition, -1, one.clone());
        }
    }
    let mut request = fetch_request("t", 0, 0);
    request.max_bytes = 1;
    request.topics[0].partitions[0].partition_max_bytes = 1;
    request.topics[0].partitions.push(FetchPartition {
        partition: 1,
        partition_max_bytes: 1,
        ..FetchPartition::default()
    });
    let sizes = |response: &FetchResponse| -> Vec<usize> {
        let partitions = &response.responses[0].partitions;
        partitions.iter().map(|data| data.records.as_ref().unwrap().len() / one.len()).collect()
    };
    assert_eq!(sizes(&client.call(12, request.clone())), [1, 0], "the first of all, whole");
    request.max_bytes = i32::MAX;
    let two = one.len() as i32 * 2 + 10;
    for partition in &mut request.topics[0].partitions {
        partition.partition_max_bytes = two;
    }
    assert_eq!(sizes(&client.call(12, request.clone())), [2, 2]);
    request.max_bytes = one.len() as i32 * 3;
    assert_eq!(sizes(&client.call(12, request)), [2, 1]);
}

#[test]
fn a_fetch_waits_for_records_and_no_longer_than_told() {
    let (node, mut client) = node();
    client.create_topic("t", 1, &[]);
    let mut request = fetch_request("t", 0, 0);
    request.min_bytes = 1;
    request.max_wait_ms = 100;
    let started = Instant::now();
    let response = client.call(12, request.clone());
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert_eq!(response.responses[0].partitions[0].records.as_ref().unwrap().len(), 0);
    request.max_wait_ms = 15_000;
    let started = Instant::now();
    let waiting = client.send(12, request);
    node.client().produce("t", 0, 1, batch(&[b"now"]));
    let response = client.receive::<FetchRequest>(12, waiting);
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(!response.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
}

#[test]
fn a_fetch_waits_for_as_many_bytes_as_it_asks_for() {
    let (node, mut client) = node();
    client.create_topic("t", 1, &[]);
    let mut request = fetch_request("t", 0, 0);
    request.min_bytes = 2500;
    request.max_wait_ms = 15_000;
    let waiting = client.send(12, request);
    let mut producer = node.client();
    for _ in 0..3 {
        producer.produce("t", 0, 1, batch(&[&[7; 1000]]));
    }
    let response = client.receive::<FetchRequest>(12, waiting);
    let data = &response.responses[0].partitions[0];
    assert!(data.records.as_ref().unwrap().len() >= 2500);
}

#[test]
fn a_parked_fetch_ends_when_the_topic_is_deleted_or_the_broker_stops() {
    let (node, mut client) = node();
    client.create_topic("t", 1, &[]);
    client.create_topic("u", 1, &[]);
    let mut request = fetch_request("t", 0, 0);
    request.min_bytes = 1;
    request.max_wait_ms = 60_000;
    let waiting = client.send(12, request.clone());
    let delete = ottla::protocol::messages::delete_topics::DeleteTopicsRequest {
        topic_names: vec!["t".into()],
        timeout_ms: 10_000,
        ..Default::default()
    };
    assert_eq!(node.client().call(5, delete).responses[0].error_code, 0);
    let response = client.receive::<FetchRequest>(12, waiting);
    let code = response.responses[0].partitions[0].error_code;
    check_code(code, ErrorCode::UnknownTopicOrPartition);
    request.topics[0].topic = "u".into();
    client.send(12, request);
    let started = Instant::now();
    node.stop();
    // If parked, it was answered; if still on its way to the broker, it ends with the connection.
    drop(client.next_frame());
    assert!(started.elapsed() < Duration::from_secs(60), "it waited for its own deadline");
}

fn session(epoch: i32, id: i32, offsets: &[(i32, i64)]) -> FetchRequest {
    let partitions = offsets.iter().map(|&(partition, fetch_offset)| FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    });
    let partitions: Vec<_> = partitions.collect();
    let topics = if partitions.is_empty() {
        Vec::new()
    } else {
        vec![FetchTopic { topic: "t".into(), partitions, ..FetchTopic::default() }]
    };
    FetchRequest { session_id: id, session_epoch: epoch, topics, ..FetchRequest::default() }
}

fn indexes(response: &FetchResponse) -> Vec<i32> {
    let topics = response.responses.iter();
    topics.flat_map(|topic| topic.partitions.iter().map(|data| data.partition_index)).collect()
}

#[test]
fn a_session_tells_only_what_changed() {
    let (_world, mut client) = node();
    client.create_topic("t", 3, &[]);
    let first = client.call(12, session(0, 0, &[(0, 0), (1, 0), (2, 0)]));
    assert_eq!((first.error_code, indexes(&first)), (0, vec![0, 1, 2]));
    let id = first.session_id;
    assert_ne!(id, 0);
    let quiet = client.call(12, session(1, id, &[]));
    assert_eq!((quiet.error_code, quiet.session_id, indexes(&quiet)), (0, id, vec![]));
    client.produce("t", 1, -1, batch(&[b"x"]));
    let moved = client.call(12, session(2, id, &[]));
    assert_eq!(indexes(&moved), [1]);
    let mut forget = session(3, id, &[(1, 1)]);
    forget.forgotten_topics_data =
        vec![ForgottenTopic { topic: "t".into(), partitions: vec![0, 2], ..Default::default() }];
    assert_eq!(indexes(&client.call(12, forget)), Vec::<i32>::new());
    client.produce("t", 0, -1, batch(&[b"x"]));
    client.produce("t", 1, -1, batch(&[b"x"]));
    assert_eq!(indexes(&client.call(12, session(4, id, &[]))), [1]);
    check_code(
        client.call(12, session(9, id, &[])).error_code,
        ErrorCode::InvalidFetchSessionEpoch,
    );
    check_code(
        client.call(12, session(5, id ^ 1, &[])).error_code,
        ErrorCode::FetchSessionIdNotFound,
    );
    check_code(
        client.call(13, session(5, id, &[])).error_code,
        ErrorCode::FetchSessionTopicIdError,
    );
    let last = client.call(12, session(-1, id, &[(0, 0)]));
    assert_eq!((last.session_id, indexes(&last)), (0, vec![0]));
    check_code(client.call(12, session(5, id, &[])).error_code, ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn unknown_topics_and_ids_are_named_in_the_response() {
    let (_world, mut client) = node();
    client.create_topic("t", 1, &[]);
    let missing = client.fetch("missing", 0, 0);
    check_code(missing.error_code, ErrorCode::UnknownTopicOrPartition);
    check_code(client.fetch("t", 7, 0).error_code, ErrorCode::UnknownTopicOrPartition);
    let mut request = fetch_request("", 0, 0);
    request.topics[0].topic_id = Uuid([3; 16]);
    let response = client.call(17, request);
    assert_eq!(response.responses[0].topic_id, Uuid([3; 16]));
    let code = response.responses[0].partitions[0].error_code;
    check_code(code, ErrorCode::UnknownTopicId);
}

#[test]
fn leader_epochs_are_checked_and_told() {
    let (_world, mut client) = node();
    client.create_topic("t", 1, &[]);
    client.produce("t", 0, -1, batch(&[b"a", b"b"]));
    let with_epoch = |epoch: i32| {
        let mut request = fetch_request("t", 0, 0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        request
    };
    assert_eq!(client.call(12, with_epoch(0)).responses[0].partitions[0].error_code, 0);
    let newer = client.call(12, with_epoch(7));
    let code = newer.responses[0].partitions[0].error_code;
    check_code(code, ErrorCode::UnknownLeaderEpoch);
    let end = |client: &mut Client, current: i32, epoch: i32| -> EpochEndOffset {
        let partition = OffsetForLeaderPartition {
            partition: 0,
            current_leader_epoch: current,
            leader_epoch: epoch,
        };
        let topic = OffsetForLeaderTopic { topic: "t".into(), partitions: vec![partition] };
        let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
        client.call(4, request).topics.remove(0).partitions.remove(0)
    };
    let known = end(&mut client, 0, 0);
    assert_eq!((known.error_code, known.leader_epoch, known.end_offset), (0, 0, 2));
    check_code(end(&mut client, 5, 0).error_code, ErrorCode::UnknownLeaderEpoch);
    let future = end(&mut client, -1, 9);
    assert_eq!((future.leader_epoch, future.end_offset), (-1, -1));
    assert_eq!(list(&mut client, 7, -1).leader_epoch, 0);
}

#[test]
fn a_follower_that_is_no_replica_is_refused() {
    let (_world, mut client) = node();
    client.create_topic("t", 1, &[]);
    let request = FetchRequest { replica_id: 3, ..fetch_request("t", 0, 0) };
    let response = client.call(12, request);
    let code = response.responses[0].partitions[0].error_code;
    check_code(code, ErrorCode::NotLeaderOrFollower);
    // Who names the epoch is told to ask again: the metadata may be on its way.
    for (epoch, refusal) in [(0, ErrorCode::UnknownLeaderEpoch), (9, ErrorCode::UnknownLeaderEpoch)]
    {
        let mut request = FetchRequest { replica_id: 3, ..fetch_request("t", 0, 0) };
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = client.call(12, request);
        check_code(response.responses[0].partitions[0].error_code, refusal);
    }
    let request = FetchRequest { replica_id: -2, ..fetch_request("t", 0, 0) };
    assert_eq!(client.call(12, request).responses[0].partitions[0].error_code, 0);
}

fn list(client: &mut Client, version: i16, timestamp: i64) -> ListOffsetsPartitionResponse {
    let partition =
        ListOffsetsPartition { partition_index: 0, timestamp, ..ListOffsetsPartition::default() };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    client.call(version, request).topics.remove(0).partitions.remove(0)
}

#[test]
fn offsets_are_found_by_time_record_by_record() {
    let (_world, mut client) = node();
    client.create_topic("t", 1, &[]);
    let base = now().0 - 100_000;
    for start in [0, 30, 10] {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for step in [0, 5] {
            let at = TimestampMs(base + start + step);
            builder.append(at, None, Some(b"x"), &[]).unwrap();
        }
        assert_eq!(client.produce("t", 0, -1, builder.finish().unwrap()).error_code, 0);
    }
    // Timestamps by offset: 0, 5, 30, 35, 10, 15.
    let at = |client: &mut Client, timestamp| {
        let found = list(client, 7, timestamp);
        (found.offset, found.timestamp)
    };
    assert_eq!(at(&mut client, base), (0, base));
    assert_eq!(at(&mut client, base + 1), (1, base + 5));
    assert_eq!(at(&mut client, base + 6), (2, base + 30));
    assert_eq!(at(&mut client, base + 31), (3, base + 35));
    assert_eq!(at(&mut client, base + 36), (-1, -1), "past the end, and no error");
    assert_eq!(at(&mut client, -1), (6, -1));
    assert_eq!(at(&mut client, -2), (0, -1));
    assert_eq!(at(&mut client, -3), (3, base + 35));
    assert_eq!(list(&mut client, 8, -4).offset, 0);
    assert_eq!(list(&mut client, 9, -5).offset, -1);
    assert_eq!(list(&mut client, 11, -6).offset, -1);
    for (version, timestamp) in [(6, -3), (7, -4), (8, -5), (10, -6), (11, -7)] {
        let code = list(&mut client, version, timestamp).error_code;
        check_code(code, ErrorCode::UnsupportedVersion);
    }
}

fn delete_before(client: &mut Client, offset: i64) -> (i64, ErrorCode) {
    let partition = DeleteRecordsPartition { partition_index: 0, offset };
    let topic = DeleteRecordsTopic { name: "t".into(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 5000 };
    let result = client.call(2, request).topics.remove(0).partitions.remove(0);
    (result.low_watermark, ErrorCode::from_i16(result.error_code))
}

/// Whatever the number of acks: its client may ask for the end, for a time, for the record or for its removal.
#[test]
fn an_acknowledged_record_is_there_for_the_next_request() {
    let directory = tempfile::tempdir().unwrap();
    let node = TestBroker::start(BrokerOptions::in_directory(directory.path()));
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let base = now().0;
    for offset in 0..40_i64 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(TimestampMs(base + offset), None, Some(b"x"), &[]).unwrap();
        let records = builder.finish().unwrap();
        let acks = if offset % 4 == 3 { -1 } else { 1 };
        assert_eq!(client.produce("t", 0, acks, records).base_offset, offset);
        // Each is the first to ask in its turn.
        match offset % 5 {
            0 => assert_eq!(list(&mut client, 7, -1).offset, offset + 1),
            1 => assert_eq!(list(&mut client, 7, base + offset).offset, offset),
            2 => assert_eq!(list(&mut client, 7, -3).offset, offset),
            3 => {
                let data = client.fetch("t", 0, offset);
                assert_eq!(data.high_watermark, offset + 1);
                assert_eq!(values(data.records.unwrap()), [(offset, b"x".to_vec())]);
            }
            _ => {
                let next = offset + 1;
                assert_eq!(delete_before(&mut client, next), (next, ErrorCode::None));
            }
        }
    }
    node.stop();
}

#[test]
fn deleted_records_are_gone_also_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::in_directory(directory.path());
    let node = TestBroker::start(options.clone());
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    for _ in 0..4 {
        client.produce("t", 0, -1, batch(&[b"a", b"b"]));
    }
    assert_eq!(delete_before(&mut client, 3), (3, ErrorCode::None));
    assert_eq!(delete_before(&mut client, 1), (3, ErrorCode::None), "never back");
    assert_eq!(delete_before(&mut client, 9), (-1, ErrorCode::OffsetOutOfRange));
    assert_eq!(delete_before(&mut client, -2), (-1, ErrorCode::OffsetOutOfRange));
    check_code(client.fetch("t", 0, 2).error_code, ErrorCode::OffsetOutOfRange);
    assert_eq!(list(&mut client, 7, -2).offset, 3);
    drop(client);
    node.crash();
    let node = TestBroker::start(options);
    let mut client = node.client();
    assert_eq!(list(&mut client, 7, -2).offset, 3);
    assert_eq!(delete_before(&mut client, -1), (8, ErrorCode::None), "-1 is the high watermark");
    assert_eq!(client.fetch("t", 0, 8).log_start_offset, 8);
}
