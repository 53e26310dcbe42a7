//! Transactions that go wrong: strangers, partitions that are not there, more transactions than anybody has, and producers
//! that never come back.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use ottla::broker::BrokerOptions;
use ottla::client::{Client as OttlaClient, ClientConfig, IsolationLevel, ScanOptions};
use ottla::error::ErrorCode;
use ottla::protocol::api::Call;
use ottla::protocol::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use ottla::protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use ottla::protocol::messages::end_txn::EndTxnRequest;
use ottla::protocol::messages::fetch::{FetchRequest, PartitionData};
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::init_producer_id::InitProducerIdRequest;
use ottla::protocol::messages::produce::ProduceRequest;
use ottla::protocol::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use ottla::protocol::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use ottla::record::BatchOptions;
use ottla::types::{ProducerEpoch, ProducerId, Sequence};

use crate::support::{
    Client, PATIENCE, TestBroker, anonymous_memory, batch, batch_with, fetch_request,
    produce_request,
};
use crate::transactions::{add, coordinator, describe, end, init, list, wait_for};

type Producer = (i64, i16);

/// The first version of Produce that adds its partitions to the transaction.
const ADDS: i16 = 12;

/// A batch of one record of a transaction.
fn transactional(producer: Producer, value: &[u8]) -> Bytes {
    let options = BatchOptions {
        producer_id: ProducerId(producer.0),
        producer_epoch: ProducerEpoch(producer.1),
        base_sequence: Sequence(0),
        transactional: true,
        ..BatchOptions::default()
    };
    batch_with(options, &[value])
}

fn produce_of(
    (id, producer): (&str, Producer),
    (topic, partition): (&str, i32),
    value: &[u8],
) -> ProduceRequest {
    let request = produce_request(topic, partition, -1, transactional(producer, value));
    ProduceRequest { transactional_id: Some(id.into()), ..request }
}

/// Produces the first record of a transaction in a partition to its leader, as soon as that and the coordinator are ready.
pub(crate) fn produce(
    client: &mut Client,
    of: (&str, Producer),
    place: (&str, i32),
    value: &[u8],
) -> i64 {
    let began = Instant::now();
    loop {
        let mut response = client.call(ADDS, produce_of(of, place, value));
        let answer = response.responses.remove(0).partition_responses.remove(0);
        if answer.error_code == 0 {
            return answer.base_offset;
        }
        let code = ErrorCode::from_i16(answer.error_code);
        assert!(code.retriable() && began.elapsed() < PATIENCE, "{answer:?}");
    }
}

/// Sends requests without waiting for each other's answers; returns the answers in order.
fn all<C: Call>(client: &mut Client, version: i16, requests: Vec<C>) -> Vec<C::Response> {
    let mut answers = Vec::new();
    let mut sent = std::collections::VecDeque::new();
    for request in requests {
        sent.push_back(client.send(version, request));
        if sent.len() >= 60 {
            answers.push(client.receive::<C>(version, sent.pop_front().unwrap()));
        }
    }
    answers.extend(sent.into_iter().map(|number| client.receive::<C>(version, number)));
    answers
}

pub(crate) fn fetch_committed(
    client: &mut Client,
    place: (&str, i32),
    offset: i64,
) -> PartitionData {
    let request = FetchRequest { isolation_level: 1, ..fetch_request(place.0, place.1, offset) };
    client.call(12, request).responses.remove(0).partitions.remove(0)
}

/// The committed values of a topic, sorted.
pub(crate) fn committed(brokers: &[&TestBroker], topic: &str) -> Vec<String> {
    use arrow::array::AsArray as _;
    let config = ClientConfig {
        bootstrap_servers: brokers.iter().map(|broker| broker.address().to_string()).collect(),
        ..ClientConfig::default()
    };
    brokers[0].block_on(async {
        let client = OttlaClient::connect(config).unwrap();
        let level = Some(IsolationLevel::ReadCommitted);
        let options = ScanOptions { isolation_level: level, ..ScanOptions::default() };
        let mut reader = client.scan(topic, options).await.unwrap().read().unwrap();
        let mut values = Vec::new();
        while let Some(decoded) = reader.next().await.unwrap() {
            let column = decoded.rows.column_by_name("value").unwrap().as_binary_view().clone();
            let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
            values.extend(column.iter().map(text));
        }
        values.sort();
        values
    })
}

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_i16(code)
}

/// What somebody who is not the producer gets when asking for everything that a producer may ask for.
fn refusals(client: &mut Client, id: &str, producer: Producer) -> Vec<(String, ErrorCode)> {
    let mut found = Vec::new();
    let mut note = |what: &str, version: i16, code: ErrorCode| {
        found.push((format!("{what}, version {version}"), code));
    };
    for version in 0..=3 {
        for code in add(client, version, id, producer, &[("a", &[0, 1])]) {
            note("partitions", version, code);
        }
    }
    for version in 4..=5 {
        for verify_only in [false, true] {
            let topic = AddPartitionsToTxnTopic { name: "a".into(), partitions: vec![0, 1] };
            let transaction = AddPartitionsToTxnTransaction {
                transactional_id: id.into(),
                producer_id: producer.0,
                producer_epoch: producer.1,
                verify_only,
                topics: vec![topic],
            };
            let request = AddPartitionsToTxnRequest {
                transactions: vec![transaction],
                ..AddPartitionsToTxnRequest::default()
            };
            for result in client.call(version, request).results_by_transaction {
                for one in result.topic_results.iter().flat_map(|topic| &topic.results_by_partition)
                {
                    note("partitions of brokers", version, code(one.partition_error_code));
                }
            }
        }
    }
    for version in 0..=4 {
        let request = AddOffsetsToTxnRequest {
            transactional_id: id.into(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            group_id: "g".into(),
        };
        note("offsets", version, code(client.call(version, request).error_code));
    }
    for version in 0..=5 {
        let partition = TxnOffsetCommitRequestPartition {
            committed_offset: 7,
            ..TxnOffsetCommitRequestPartition::default()
        };
        let topic = TxnOffsetCommitRequestTopic {
            name: "a".into(),
            partitions: vec![partition],
            ..TxnOffsetCommitRequestTopic::default()
        };
        let request = TxnOffsetCommitRequest {
            transactional_id: id.into(),
            group_id: "g".into(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            topics: vec![topic],
            ..TxnOffsetCommitRequest::default()
        };
        let answer = client.call(version, request).topics.remove(0).partitions.remove(0);
        note("offsets of a group", version, code(answer.error_code));
    }
    for version in 3..=ADDS {
        let mut answer = client.call(version, produce_of((id, producer), ("a", 1), b"foreign"));
        let answer = answer.responses.remove(0).partition_responses.remove(0);
        note("records", version, code(answer.error_code));
    }
    for version in 0..=5 {
        for committed in [true, false] {
            let answer = end(client, version, id, producer, committed);
            note("the end", version, code(answer.error_code));
        }
    }
    found
}

#[test]
fn strangers_change_nothing() {
    let broker = TestBroker::in_memory();
    let mut client = broker.client();
    client.create_topic("a", 2, &[]);
    let request =
        FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    let began = Instant::now();
    while client.call(6, request.clone()).coordinators[0].error_code != 0 {
        assert!(began.elapsed() < PATIENCE);
    }
    coordinator(&mut client, "t");
    let older = init(&mut client, "t");
    let producer = init(&mut client, "t");
    let other = init(&mut client, "other");
    produce(&mut client, ("t", producer), ("a", 0), b"mine");
    let before = describe(&mut client, "t");
    let (id, epoch) = producer;
    for stranger in [
        older,
        other,
        (id, epoch + 1),
        (id, -1),
        (id, i16::MAX),
        (id, i16::MIN),
        (id + 1_000_000, epoch),
        (-1, -1),
        (-1, epoch),
        (i64::MAX, i16::MAX),
        (i64::MIN, 0),
    ] {
        for (what, code) in refusals(&mut client, "t", stranger) {
            assert_ne!(code, ErrorCode::None, "{stranger:?}: {what}");
            assert_ne!(code, ErrorCode::UnknownServerError, "{stranger:?}: {what}");
        }
        assert_eq!(describe(&mut client, "t"), before, "{stranger:?}");
    }
    for name in ["nobody", ""] {
        for (what, code) in refusals(&mut client, name, producer) {
            // Who asks for another id under the same producer adds to no transaction.
            assert_ne!(code, ErrorCode::None, "{name:?}: {what}");
            assert_ne!(code, ErrorCode::UnknownServerError, "{name:?}: {what}");
        }
    }
    assert_eq!(describe(&mut client, "t"), before);
    assert_eq!(end(&mut client, 5, "t", producer, true).error_code, 0);
    wait_for(&mut client, "t", "CompleteCommit");
    assert_eq!(committed(&[&broker], "a"), ["mine"]);
    broker.stop();
}

#[test]
fn partitions_that_do_not_exist_are_refused_however_many() {
    const COUNT: i32 = 200_000;
    let broker = TestBroker::alone(BrokerOptions::in_memory());
    let mut client = broker.client();
    client.create_topic("a", 1, &[]);
    coordinator(&mut client, "t");
    let producer = init(&mut client, "t");
    let before = anonymous_memory();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let strange: Vec<i32> = (1..COUNT).chain([-1, i32::MIN, i32::MAX]).collect();
    let codes = add(&mut client, 3, "t", producer, &[("a", &strange), ("none", &[0]), ("", &[0])]);
    assert_eq!(codes.len(), strange.len() + 2);
    assert!(codes.iter().all(|code| *code == unknown));
    assert_eq!(describe(&mut client, "t").transaction_state.as_str(), "Empty");

    let partitions = strange.iter().map(|&partition_index| TxnOffsetCommitRequestPartition {
        partition_index,
        committed_offset: 1,
        ..TxnOffsetCommitRequestPartition::default()
    });
    let topic = TxnOffsetCommitRequestTopic {
        name: "a".into(),
        partitions: partitions.collect(),
        ..TxnOffsetCommitRequestTopic::default()
    };
    let request = TxnOffsetCommitRequest {
        transactional_id: "t".into(),
        group_id: "g".into(),
        producer_id: producer.0,
        producer_epoch: producer.1,
        topics: vec![topic],
        ..TxnOffsetCommitRequest::default()
    };
    let answer = client.call(5, request).topics.remove(0);
    assert!(answer.partitions.iter().all(|one| code(one.error_code) == unknown));

    // Markers: of one producer in many partitions, and of many producers.
    let topic = |partition_indexes| WritableTxnMarkerTopic { name: "a".into(), partition_indexes };
    let marker = |producer_id, topic| WritableTxnMarker {
        producer_id,
        topics: vec![topic],
        ..WritableTxnMarker::default()
    };
    let many = (0..i64::from(COUNT)).map(|producer_id| marker(producer_id, topic(vec![1])));
    for markers in [vec![marker(5, topic(strange.clone()))], many.collect()] {
        let count = markers.iter().flat_map(|marker| &marker.topics[0].partition_indexes).count();
        let answer = client.call(2, WriteTxnMarkersRequest { markers });
        let results = answer.markers.iter().flat_map(|marker| &marker.topics);
        let results: Vec<_> = results.flat_map(|topic| &topic.partitions).collect();
        assert_eq!(results.len(), count);
        assert!(results.iter().all(|one| code(one.error_code) == unknown));
    }
    let grown = anonymous_memory().saturating_sub(before);
    // Other tests of this process use some, too.
    assert!(grown < 320 << 20, "{grown} bytes");
    // All that is there is there for others.
    produce(&mut client, ("t", producer), ("a", 0), b"mine");
    assert_eq!(end(&mut client, 5, "t", producer, true).error_code, 0);
    wait_for(&mut client, "t", "CompleteCommit");
    assert_eq!(committed(&[&broker], "a"), ["mine"]);
    broker.stop();
}

/// How many transactions are in these states.
fn count(client: &mut Client, states: &[&str]) -> usize {
    let listed = list(client, states);
    assert_eq!(listed.error_code, 0);
    listed.transaction_states.len()
}

fn wait_until_ended(client: &mut Client) {
    let began = Instant::now();
    while count(client, &["Ongoing", "PrepareCommit", "PrepareAbort"]) > 0 {
        assert!(began.elapsed() < PATIENCE, "some do not end");
    }
}

#[test]
fn ten_thousand_transactions_are_open_at_once() {
    const COUNT: usize = 10_000;
    const PARTITIONS: i32 = 4;
    let directory = tempfile::tempdir().unwrap();
    let options = || BrokerOptions::in_directory(directory.path());
    let broker = TestBroker::alone(options());
    let mut client = broker.client();
    client.create_topic("a", PARTITIONS, &[]);
    coordinator(&mut client, "0");
    let before = anonymous_memory();
    let ids: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    let request = |id: &String| InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: 600_000,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    let mut producers: BTreeMap<&str, Producer> = BTreeMap::new();
    let mut left: Vec<&String> = ids.iter().collect();
    let began = Instant::now();
    while !left.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{} are left", left.len());
        let answers = all(&mut client, 5, left.iter().map(|id| request(id)).collect());
        let mut again = Vec::new();
        for (id, answer) in left.into_iter().zip(answers) {
            if answer.error_code == 0 {
                producers.insert(id, (answer.producer_id, answer.producer_epoch));
            } else {
                assert!(code(answer.error_code).retriable(), "{answer:?}");
                again.push(id);
            }
        }
        left = again;
    }
    let place = |id: &str| ("a", id.parse::<i32>().unwrap() % PARTITIONS);
    let requests =
        ids.iter().map(|id| produce_of((id, producers[&**id]), place(id), id.as_bytes()));
    for answer in all(&mut client, ADDS, requests.collect()) {
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "{answer:?}");
    }
    let grown = anonymous_memory().saturating_sub(before);
    assert!(grown < 128 << 20, "{} bytes for each", grown / COUNT as u64);
    assert_eq!(count(&mut client, &["Ongoing"]), COUNT);
    // What is open holds back who reads what is committed, and nobody else.
    assert_eq!(client.produce("a", 0, -1, batch(&[b"plain"])).error_code, 0);
    for partition in 0..PARTITIONS {
        let data = fetch_committed(&mut client, ("a", partition), 0);
        assert_eq!((data.error_code, data.last_stable_offset), (0, 0), "{data:?}");
        assert!(data.records.unwrap().is_empty());
    }
    drop(client);
    broker.kill();

    let broker = TestBroker::alone(options());
    let mut client = broker.client();
    let began = Instant::now();
    while count_loaded(&mut client, "Ongoing") < COUNT {
        assert!(began.elapsed() < PATIENCE, "{}", count_loaded(&mut client, "Ongoing"));
    }
    let committed_ids = |id: &&String| id.parse::<usize>().unwrap() % 2 == 0;
    let requests = ids.iter().map(|id| EndTxnRequest {
        transactional_id: id.into(),
        producer_id: producers[&**id].0,
        producer_epoch: producers[&**id].1,
        committed: committed_ids(&id),
    });
    for answer in all(&mut client, 5, requests.collect()) {
        assert_eq!(answer.error_code, 0, "{answer:?}");
    }
    wait_until_ended(&mut client);
    let mut expected: Vec<String> = ids.iter().filter(committed_ids).cloned().collect();
    expected.push("plain".to_owned());
    expected.sort();
    assert_eq!(committed(&[&broker], "a"), expected);
    broker.stop();
}

/// As [`count`], also while coordinators are read: those that are not known yet are missing.
fn count_loaded(client: &mut Client, state: &str) -> usize {
    let listed = list(client, &[state]);
    let is_expected =
        matches!(code(listed.error_code), ErrorCode::None | ErrorCode::CoordinatorLoadInProgress);
    assert!(is_expected, "{:?}", code(listed.error_code));
    listed.transaction_states.len()
}

#[test]
fn producers_that_vanish_leave_nothing_open() {
    let options = BrokerOptions::in_memory()
        .with("transaction.abort.timed.out.transaction.cleanup.interval.ms", "50");
    let broker = TestBroker::start(options);
    let mut client = broker.client();
    client.create_topic("a", 2, &[]);
    coordinator(&mut client, "t");
    let mut vanished = Vec::new();
    for number in 0..50 {
        let id = format!("t{number}");
        let mut other = broker.client();
        let request = InitProducerIdRequest {
            transactional_id: Some(id.as_str().into()),
            transaction_timeout_ms: 1_000,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let began = Instant::now();
        let producer = loop {
            let answer = other.call(5, request.clone());
            if answer.error_code == 0 {
                break (answer.producer_id, answer.producer_epoch);
            }
            assert!(code(answer.error_code).retriable(), "{answer:?}");
            assert!(began.elapsed() < PATIENCE);
        };
        produce(&mut other, (&id, producer), ("a", number % 2), b"lost");
        vanished.push((id, producer));
    }
    client.produce("a", 0, -1, batch(&[b"behind them"]));
    wait_until_ended(&mut client);
    assert_eq!(committed(&[&broker], "a"), ["behind them"]);
    for (id, producer) in vanished {
        assert_eq!(describe(&mut client, &id).transaction_state.as_str(), "CompleteAbort");
        for version in [4, 5] {
            let late = code(end(&mut client, version, &id, producer, true).error_code);
            assert_ne!(late, ErrorCode::None, "{id}, version {version}");
        }
        let late = client.call(ADDS, produce_of((&id, producer), ("a", 0), b"late"));
        assert_ne!(late.responses[0].partition_responses[0].error_code, 0, "{id}");
    }
    assert_eq!(committed(&[&broker], "a"), ["behind them"]);
    broker.stop();
}
