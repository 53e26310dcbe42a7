//! Transactional ids at their coordinator, through a socket: producers come, work and are fenced; coordinators move.

use std::time::Instant;

use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::Str;
use ottla::protocol::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use ottla::protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic,
};
use ottla::protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use ottla::protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use ottla::protocol::messages::describe_transactions::{
    DescribeTransactionsRequest, TransactionState,
};
use ottla::protocol::messages::end_txn::{EndTxnRequest, EndTxnResponse};
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ottla::protocol::messages::list_transactions::{
    ListTransactionsRequest, ListTransactionsResponse,
};

use crate::support::{Client, PATIENCE, TestBroker};
use crate::three::{self, NODES};

/// The coordinator of a transactional id, as soon as there is one.
pub(crate) fn coordinator(client: &mut Client, id: &str) -> i32 {
    let request = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec![id.into()],
        ..FindCoordinatorRequest::default()
    };
    let began = Instant::now();
    loop {
        let found = client.call(6, request.clone()).coordinators.remove(0);
        if found.error_code == 0 {
            return found.node_id;
        }
        let code = ErrorCode::from_i16(found.error_code);
        assert_eq!(code, ErrorCode::CoordinatorNotAvailable, "{:?}", found.error_message);
        assert!(began.elapsed() < PATIENCE);
    }
}

pub(crate) fn init_at(
    client: &mut Client,
    version: i16,
    id: &str,
    had: (i64, i16),
) -> InitProducerIdResponse {
    let request = InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: 60_000,
        producer_id: had.0,
        producer_epoch: had.1,
        ..InitProducerIdRequest::default()
    };
    client.call(version, request)
}

/// A producer's id and epoch, once what was open is aborted and the coordinator is loaded.
pub(crate) fn init(client: &mut Client, id: &str) -> (i64, i16) {
    let began = Instant::now();
    loop {
        let response = init_at(client, 5, id, (-1, -1));
        if response.error_code == 0 {
            return (response.producer_id, response.producer_epoch);
        }
        let code = ErrorCode::from_i16(response.error_code);
        assert!(code.retriable(), "{code:?}");
        assert!(began.elapsed() < PATIENCE, "{code:?}");
    }
}

/// The codes of the partitions, in order.
pub(crate) fn add(
    client: &mut Client,
    version: i16,
    id: &str,
    producer: (i64, i16),
    partitions: &[(&str, &[i32])],
) -> Vec<ErrorCode> {
    let topic = |(name, partitions): &(&str, &[i32])| AddPartitionsToTxnTopic {
        name: (*name).into(),
        partitions: partitions.to_vec(),
    };
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: id.into(),
        v3_and_below_producer_id: producer.0,
        v3_and_below_producer_epoch: producer.1,
        v3_and_below_topics: partitions.iter().map(topic).collect(),
        ..AddPartitionsToTxnRequest::default()
    };
    let response = client.call(version, request);
    let results = response.results_by_topic_v3_and_below.into_iter();
    let results = results.flat_map(|topic| topic.results_by_partition);
    results.map(|result| ErrorCode::from_i16(result.partition_error_code)).collect()
}

pub(crate) fn end(
    client: &mut Client,
    version: i16,
    id: &str,
    producer: (i64, i16),
    committed: bool,
) -> EndTxnResponse {
    let request = EndTxnRequest {
        transactional_id: id.into(),
        producer_id: producer.0,
        producer_epoch: producer.1,
        committed,
    };
    client.call(version, request)
}

pub(crate) fn describe(client: &mut Client, id: &str) -> TransactionState {
    let request = DescribeTransactionsRequest { transactional_ids: vec![id.into()] };
    client.call(0, request).transaction_states.remove(0)
}

/// Waits until the transaction is in this state.
pub(crate) fn wait_for(client: &mut Client, id: &str, state: &str) -> TransactionState {
    let began = Instant::now();
    loop {
        let described = describe(client, id);
        if described.transaction_state.as_str() == state {
            return described;
        }
        assert!(began.elapsed() < PATIENCE, "{described:?} is not {state}");
    }
}

pub(crate) fn list(client: &mut Client, states: &[&str]) -> ListTransactionsResponse {
    let request = ListTransactionsRequest {
        state_filters: states.iter().map(|&state| Str::from(state)).collect(),
        duration_filter: -1,
        ..ListTransactionsRequest::default()
    };
    client.call(2, request)
}

pub(crate) fn delete(client: &mut Client, topic: &str) {
    let topic = DeleteTopicState { name: Some(topic.into()), ..DeleteTopicState::default() };
    let request =
        DeleteTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(client.call(6, request).responses[0].error_code, 0);
}

#[test]
fn a_transaction_lasts_from_its_first_partition_to_its_end() {
    let broker = TestBroker::in_memory();
    let mut client = broker.client();
    client.create_topic("a", 2, &[]);
    assert_eq!(coordinator(&mut client, "t"), 1);
    let producer = init(&mut client, "t");
    assert_eq!(describe(&mut client, "t").transaction_state.as_str(), "Empty");
    let unknown = add(&mut client, 3, "t", producer, &[("a", &[0, 7])]);
    let codes = [ErrorCode::OperationNotAttempted, ErrorCode::UnknownTopicOrPartition];
    assert_eq!(unknown, codes);
    assert_eq!(add(&mut client, 3, "t", producer, &[("a", &[0, 1])]), [ErrorCode::None; 2]);
    let described = describe(&mut client, "t");
    assert_eq!(described.transaction_state.as_str(), "Ongoing");
    assert_eq!((described.producer_id, described.producer_epoch), producer);
    assert_eq!((described.transaction_timeout_ms, described.topics.len()), (60_000, 1));
    assert_eq!(described.topics[0].partitions, [0, 1]);
    let listed = list(&mut client, &["Ongoing", "Dead", "Nonsense"]);
    assert_eq!(listed.unknown_state_filters, ["Nonsense"]);
    assert_eq!(listed.transaction_states[0].transactional_id.as_str(), "t");
    // The offsets of a group belong to it, too.
    let request = AddOffsetsToTxnRequest {
        transactional_id: "t".into(),
        producer_id: producer.0,
        producer_epoch: producer.1,
        group_id: "g".into(),
    };
    assert_eq!(client.call(4, request).error_code, 0);
    assert_eq!(describe(&mut client, "t").topics.len(), 2);
    broker.stop();
}

#[test]
fn who_is_fenced_is_told_in_the_words_of_its_version() {
    let broker = TestBroker::in_memory();
    let mut client = broker.client();
    client.create_topic("a", 1, &[]);
    coordinator(&mut client, "t");
    let old = init(&mut client, "t");
    let new = init(&mut client, "t");
    assert_eq!(new, (old.0, old.1 + 1));
    for (version, code) in [(3, ErrorCode::InvalidProducerEpoch), (4, ErrorCode::ProducerFenced)] {
        let other = (old.0 + 1000, 0);
        assert_eq!(init_at(&mut client, version, "t", other).error_code, code.to_i16());
    }
    for (version, code) in [(1, ErrorCode::InvalidProducerEpoch), (2, ErrorCode::ProducerFenced)] {
        assert_eq!(add(&mut client, version, "t", old, &[("a", &[0])]), [code]);
        assert_eq!(end(&mut client, version, "t", old, true).error_code, code.to_i16());
    }
    let request = InitProducerIdRequest {
        transactional_id: Some("t".into()),
        transaction_timeout_ms: 900_001,
        ..InitProducerIdRequest::default()
    };
    let code = ErrorCode::from_i16(client.call(5, request).error_code);
    assert_eq!(code, ErrorCode::InvalidTransactionTimeout);
    assert_eq!(
        ErrorCode::from_i16(end(&mut client, 5, "", new, true).error_code),
        ErrorCode::InvalidRequest
    );
    broker.stop();
}

#[test]
fn an_end_raises_the_epoch_in_the_second_version_only() {
    let broker = TestBroker::in_memory();
    let mut client = broker.client();
    coordinator(&mut client, "t");
    let producer = init(&mut client, "t");
    let invalid = ErrorCode::InvalidTxnState.to_i16();
    for version in 0..=4 {
        for committed in [true, false] {
            assert_eq!(end(&mut client, version, "t", producer, committed).error_code, invalid);
        }
    }
    assert_eq!(end(&mut client, 5, "t", producer, true).error_code, invalid);
    let ended = end(&mut client, 5, "t", producer, false);
    assert_eq!((ended.error_code, ended.producer_id, ended.producer_epoch), (0, producer.0, 1));
    assert_eq!(end(&mut client, 5, "t", producer, false), ended, "repeated");
    assert_eq!(describe(&mut client, "t").transaction_state.as_str(), "CompleteAbort");
    broker.stop();
}

#[test]
fn a_topic_that_is_deleted_does_not_keep_an_id() {
    let broker = TestBroker::in_memory();
    let mut client = broker.client();
    for (version, committed) in [(4, true), (5, true), (4, false), (5, false)] {
        client.create_topic("a", 3, &[]);
        coordinator(&mut client, "t");
        let producer = init(&mut client, "t");
        assert_eq!(add(&mut client, 3, "t", producer, &[("a", &[0, 1, 2])]), [ErrorCode::None; 3]);
        if version == 5 {
            delete(&mut client, "a");
        }
        assert_eq!(end(&mut client, version, "t", producer, committed).error_code, 0);
        if version == 4 {
            delete(&mut client, "a");
        }
        let state = if committed { "CompleteCommit" } else { "CompleteAbort" };
        assert!(wait_for(&mut client, "t", state).topics.is_empty());
    }
    broker.stop();
}

#[test]
fn what_is_open_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = || BrokerOptions::in_directory(directory.path());
    let broker = TestBroker::start(options());
    let mut client = broker.client();
    client.create_topic("a", 1, &[]);
    coordinator(&mut client, "t");
    let producer = init(&mut client, "t");
    assert_eq!(add(&mut client, 3, "t", producer, &[("a", &[0])]), [ErrorCode::None]);
    let before = describe(&mut client, "t");
    broker.kill();
    let broker = TestBroker::start(options());
    let mut client = broker.client();
    assert_eq!(wait_for(&mut client, "t", "Ongoing"), before);
    assert_eq!(end(&mut client, 5, "t", producer, true).error_code, 0);
    // The markers of a transaction that is decided are written by whoever leads next.
    broker.kill();
    let broker = TestBroker::start(options());
    let mut client = broker.client();
    delete(&mut client, "a");
    wait_for(&mut client, "t", "CompleteCommit");
    assert_eq!(init(&mut client, "t"), (producer.0, producer.1 + 2));
    broker.stop();
}

#[test]
fn a_transaction_outlives_its_coordinator() {
    let directory = tempfile::tempdir().unwrap();
    let options = three::options(directory.path());
    let all = NODES.iter().map(|id| options[id].clone()).collect();
    let mut nodes: Vec<(i32, TestBroker)> =
        NODES.into_iter().zip(TestBroker::start_together(all)).collect();
    let mut client = nodes[0].1.client();
    let topic = CreatableTopic {
        name: "a".into(),
        num_partitions: 3,
        replication_factor: 3,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    assert_eq!(client.call(7, request).topics[0].error_code, 0);
    let first = coordinator(&mut client, "t");
    let place = nodes.iter().position(|(id, _)| *id == first).unwrap();
    let mut at_first = nodes[place].1.client();
    let producer = init(&mut at_first, "t");
    assert_eq!(add(&mut at_first, 3, "t", producer, &[("a", &[0, 1, 2])]), [ErrorCode::None; 3]);
    // Nobody else answers for it.
    for (id, node) in &nodes {
        let code = describe(&mut node.client(), "t").error_code;
        let is_here = *id == first;
        assert_eq!(code, if is_here { 0 } else { ErrorCode::NotCoordinator.to_i16() }, "{id}");
    }
    nodes.remove(place).1.kill();
    let began = Instant::now();
    let second = loop {
        let second = coordinator(&mut nodes[0].1.client(), "t");
        if second != first {
            break second;
        }
        assert!(began.elapsed() < PATIENCE);
    };
    let node = &nodes.iter().find(|(id, _)| *id == second).unwrap().1;
    let mut client = node.client();
    assert_eq!(wait_for(&mut client, "t", "Ongoing").topics[0].partitions, [0, 1, 2]);
    let ended = end(&mut client, 5, "t", producer, true);
    assert_eq!((ended.error_code, ended.producer_epoch), (0, producer.1 + 1));
    let repeated = ErrorCode::from_i16(end(&mut client, 5, "t", producer, true).error_code);
    assert!(matches!(repeated, ErrorCode::None | ErrorCode::ConcurrentTransactions));
    for (_, node) in nodes {
        node.kill();
    }
}
