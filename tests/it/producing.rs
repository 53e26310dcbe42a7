//! Produce: acks, offsets, idempotence, refusals, order.

use std::io::Write;

use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::init_producer_id::InitProducerIdRequest;
use ottla::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use ottla::protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ottla::protocol::{Records, RequestHeader, Response, Str, frame};
use ottla::record::{BatchOptions, Compression};
use ottla::types::{ProducerEpoch, ProducerId, Sequence, Uuid};

use crate::support::{TestBroker, batch, batch_with, now, produce_request};

#[track_caller]
fn check_code(code: i16, expected: ErrorCode) {
    assert_eq!(ErrorCode::from_i16(code), expected);
}

#[test]
fn every_kind_of_acks_appends_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let node = TestBroker::start(BrokerOptions::in_directory(directory.path()));
    let mut client = node.client();
    for durability in ["auto", "fsync", "os"] {
        let topic = format!("t-{durability}");
        client.create_topic(&topic, 1, &[("durability", durability)]);
        assert_eq!(client.produce(&topic, 0, -1, batch(&[b"a", b"b"])).base_offset, 0);
        assert_eq!(client.produce(&topic, 0, 1, batch(&[b"c"])).base_offset, 2);
        // Not answered: the next answer on this connection is the one to the next request.
        client.send(9, produce_request(&topic, 0, 0, batch(&[b"d"])));
        assert_eq!(client.produce(&topic, 0, -1, batch(&[b"e"])).base_offset, 4);
        let values: Vec<_> = client.values(&topic, 0, 0).into_iter().map(|(_, v)| v).collect();
        assert_eq!(values, [b"a", b"b", b"c", b"d", b"e"], "{durability}");
    }
    node.stop();
}

/// As in Kafka the timeout is for replication: a record that is in the log is not reported as late.
#[test]
fn acks_of_the_leader_do_not_time_out() {
    let directory = tempfile::tempdir().unwrap();
    let node = TestBroker::start(BrokerOptions::in_directory(directory.path()));
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    for offset in 0..20 {
        let request =
            ProduceRequest { timeout_ms: 0, ..produce_request("t", 0, 1, batch(&[b"a"])) };
        let response = client.call(9, request).responses.remove(0).partition_responses.remove(0);
        assert_eq!((response.error_code, response.base_offset), (0, offset));
    }
    node.stop();
}

#[test]
fn requests_sent_ahead_are_appended_in_order_and_answered_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let node = TestBroker::start(BrokerOptions::in_directory(directory.path()));
    let mut client = node.client();
    client.create_topic("t", 3, &[]);
    let sent: Vec<i32> = (0..200)
        .map(|index: i32| {
            let value = index.to_string();
            client.send(9, produce_request("t", index % 3, -1, batch(&[value.as_bytes()])))
        })
        .collect();
    for (index, correlation_id) in sent.into_iter().enumerate() {
        let response = client.receive::<ProduceRequest>(9, correlation_id);
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, index as i64 / 3));
    }
}

/// A client in the process polls its calls in any order, and a request for two partitions may wait between them.
#[test]
fn calls_in_the_process_are_appended_in_order() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 2, &[]);
    let service = node.broker().service();
    let calls: Vec<_> = (0..10)
        .map(|index: i32| {
            let value = index.to_string();
            let mut request = produce_request("t", 0, -1, batch(&[value.as_bytes()]));
            let mut second = request.topic_data[0].partition_data[0].clone();
            second.index = 1;
            request.topic_data[0].partition_data.push(second);
            service.call(&Str::EMPTY, 9, request.into())
        })
        .collect();
    node.block_on(async {
        for answer in futures::future::join_all(calls.into_iter().rev()).await {
            answer.unwrap();
        }
    });
    let expected: Vec<_> = (0..10).map(|index: i64| (index, index.to_string().into())).collect();
    for partition in 0..2 {
        assert_eq!(client.values("t", partition, 0), expected);
    }
}

/// The name that a client gives itself allows nothing.
#[test]
fn internal_topics_are_not_written_to_whatever_the_client_calls_itself() {
    let node = TestBroker::in_memory();
    let request =
        FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    node.client().call(4, request);
    let service = node.broker().service();
    for client_id in ["", "me", "__admin_client"] {
        let request = produce_request("__consumer_offsets", 0, -1, batch(&[b"x"])).into();
        let answer = service.call(&Str::from_static(client_id), 9, request);
        let Some(Response::Produce(answer)) = node.block_on(answer).unwrap() else {
            panic!("not an answer to Produce")
        };
        let code = answer.responses[0].partition_responses[0].error_code;
        check_code(code, ErrorCode::InvalidTopicException);
    }
}

/// Compressed batches of this size go through the queue of a log thread, small ones do not. There
/// are more partitions than log threads, so that something waits in the queues.
#[test]
fn a_small_batch_does_not_overtake_a_large_one() {
    const PARTITIONS: i32 = 8;
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", PARTITIONS, &[]);
    let mut noise = 0_u64;
    let large: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (noise >> 56) as u8
    })
    .take(500_000)
    .collect();
    let lz4 = BatchOptions { compression: Compression::Lz4, ..BatchOptions::default() };
    let batches = [batch_with(lz4, &[&large]), batch(&[b"small"])];
    let mut sent = Vec::new();
    for offset in 0..6 {
        for partition in 0..PARTITIONS {
            let request = produce_request("t", partition, -1, batches[offset % 2].clone());
            sent.push((offset as i64, client.send(9, request)));
        }
    }
    for (offset, correlation_id) in sent {
        let response = client.receive::<ProduceRequest>(9, correlation_id);
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset));
    }
}

#[test]
fn a_partition_that_fails_does_not_keep_the_others_from_being_written() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 2, &[("max.message.bytes", "1000")]);
    let mut request = produce_request("t", 0, -1, batch(&[b"fits"]));
    request.topic_data[0].partition_data.push(PartitionProduceData {
        index: 1,
        records: Some(Records::from(batch(&[&[7; 2000]]))),
    });
    request.topic_data[0]
        .partition_data
        .push(PartitionProduceData { index: 2, records: Some(Records::from(batch(&[b"x"]))) });
    request.topic_data.push(TopicProduceData {
        name: "missing".into(),
        partition_data: vec![PartitionProduceData {
            index: 0,
            records: Some(Records::from(batch(&[b"x"]))),
        }],
        ..TopicProduceData::default()
    });
    let response = client.call(9, request);
    let first = &response.responses[0].partition_responses;
    assert_eq!((first[0].error_code, first[0].base_offset), (0, 0));
    check_code(first[1].error_code, ErrorCode::MessageTooLarge);
    assert!(first[1].error_message.as_deref().unwrap().contains("max.message.bytes"));
    check_code(first[2].error_code, ErrorCode::UnknownTopicOrPartition);
    let second = &response.responses[1].partition_responses[0];
    check_code(second.error_code, ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn acks_that_do_not_exist_are_refused_for_each_partition() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    for acks in [2, -2, i16::MAX] {
        let response = client.produce("t", 0, acks, batch(&[b"x"]));
        check_code(response.error_code, ErrorCode::InvalidRequiredAcks);
        assert_eq!(response.base_offset, -1);
    }
    assert_eq!(client.fetch("t", 0, 0).high_watermark, 0);
}

#[test]
fn an_error_without_acks_closes_the_connection() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.send(9, produce_request("missing", 0, 0, batch(&[b"x"])));
    assert!(client.is_closed());
}

fn idempotent(id: i64, epoch: i16, sequence: i32, values: &[&[u8]]) -> bytes::Bytes {
    let options = BatchOptions {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        ..BatchOptions::default()
    };
    batch_with(options, values)
}

#[test]
fn duplicates_of_an_idempotent_producer_get_their_first_offset() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let init = InitProducerIdRequest { transactional_id: None, ..Default::default() };
    let first = client.call(4, init.clone());
    let second = client.call(0, init);
    assert_eq!((first.error_code, first.producer_epoch), (0, 0));
    assert_ne!(first.producer_id, second.producer_id);
    let id = first.producer_id;
    assert_eq!(client.produce("t", 0, -1, idempotent(id, 0, 0, &[b"a", b"b"])).base_offset, 0);
    assert_eq!(client.produce("t", 0, -1, idempotent(id, 0, 2, &[b"c"])).base_offset, 2);
    let again = client.produce("t", 0, -1, idempotent(id, 0, 0, &[b"a", b"b"]));
    assert_eq!((again.error_code, again.base_offset), (0, 0));
    let gap = client.produce("t", 0, -1, idempotent(id, 0, 9, &[b"z"]));
    check_code(gap.error_code, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(client.produce("t", 0, -1, idempotent(id, 1, 0, &[b"d"])).base_offset, 3);
    let old = client.produce("t", 0, -1, idempotent(id, 0, 3, &[b"e"]));
    check_code(old.error_code, ErrorCode::InvalidProducerEpoch);
    assert_eq!(client.fetch("t", 0, 0).high_watermark, 4);
}

#[test]
fn a_batch_of_a_transaction_needs_the_id_of_one() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let empty = InitProducerIdRequest { transactional_id: Some("".into()), ..Default::default() };
    check_code(client.call(5, empty).error_code, ErrorCode::InvalidRequest);
    let options = BatchOptions {
        producer_id: ProducerId(1),
        producer_epoch: ProducerEpoch(0),
        base_sequence: Sequence(0),
        transactional: true,
        ..BatchOptions::default()
    };
    let response = client.produce("t", 0, -1, batch_with(options, &[b"x"]));
    // As Apache Kafka says it, with or without authorization.
    check_code(response.error_code, ErrorCode::TransactionalIdAuthorizationFailed);
    let control = BatchOptions { control: true, transactional: false, ..options };
    let response = client.produce("t", 0, -1, batch_with(control, &[b"x"]));
    check_code(response.error_code, ErrorCode::InvalidRecord);
}

#[test]
fn topic_ids_are_understood_and_unknown_ones_refused() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let topic = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    let id = client.call(12, request).topics[0].topic_id;
    assert_ne!(id, Uuid::ZERO);
    let by_id = |topic_id: Uuid| {
        let mut request = produce_request("", 0, -1, batch(&[b"x"]));
        request.topic_data[0].topic_id = topic_id;
        request
    };
    let response = client.call(13, by_id(id));
    assert_eq!(response.responses[0].topic_id, id);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    let other = Uuid([9; 16]);
    let response = client.call(13, by_id(other));
    assert_eq!(response.responses[0].topic_id, other);
    let code = response.responses[0].partition_responses[0].error_code;
    check_code(code, ErrorCode::UnknownTopicId);
}

#[test]
fn zstd_needs_a_client_that_knows_it() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let options = BatchOptions { compression: Compression::Zstd, ..BatchOptions::default() };
    let records = batch_with(options, &[b"x"]);
    let response = client.call(6, produce_request("t", 0, -1, records.clone()));
    let code = response.responses[0].partition_responses[0].error_code;
    check_code(code, ErrorCode::UnsupportedCompressionType);
    let response = client.call(7, produce_request("t", 0, -1, records));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

#[test]
fn log_append_time_is_the_brokers_and_is_told() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let before = now();
    let response = client.produce("t", 0, -1, batch(&[b"x"]));
    assert!(response.log_append_time_ms >= before.0 && response.log_append_time_ms <= now().0);
    client.create_topic("u", 1, &[]);
    assert_eq!(client.produce("u", 0, -1, batch(&[b"x"])).log_append_time_ms, -1);
}

#[test]
fn a_client_that_sends_without_acks_and_leaves_has_written() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let mut socket = node.socket();
    for index in 0..50 {
        let header =
            RequestHeader { api_key: 0, api_version: 9, correlation_id: index, client_id: None };
        let request = produce_request("t", 0, 0, batch(&[b"x"])).into();
        let bytes = frame::encode_request(&header, &request).unwrap().concat();
        socket.write_all(&bytes).unwrap();
    }
    drop(socket);
    let mut waiting = crate::support::fetch_request("t", 0, 0);
    waiting.max_wait_ms = 10_000;
    waiting.min_bytes = 50 * batch(&[b"x"]).len() as i32;
    let response = client.call(12, waiting);
    assert_eq!(response.responses[0].partitions[0].high_watermark, 50);
}
