//! Three brokers: whichever leads a partition, the coordinator of the transaction is asked, here or on another node.

use std::net::TcpListener;
use std::time::Instant;

use super::*;
use crate::broker::{Broker, BrokerOptions};
use crate::machine::controller::{CreateTopics, NewTopic};
use crate::machine::transaction::InitRequest;
use crate::protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};

const NODES: [i32; 3] = [1, 2, 3];
/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(60);

async fn cluster(directory: &std::path::Path) -> Vec<Broker> {
    let held = NODES.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = held.each_ref().map(|socket| socket.local_addr().unwrap().port());
    drop(held);
    let voters: Vec<String> =
        NODES.iter().zip(ports).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
    let starts = NODES.iter().zip(ports).map(|(id, port)| {
        let mut options = BrokerOptions::in_directory(directory.join(id.to_string()))
            .with("node.id", id.to_string())
            .with("transaction.state.log.num.partitions", "6")
            .with("controller.quorum.voters", voters.join(","));
        options.listeners = Some(format!("PLAINTEXT://127.0.0.1:{port}"));
        Broker::start(options)
    });
    let started = futures::future::join_all(starts).await;
    started.into_iter().map(Result::unwrap).collect()
}

async fn create(broker: &Broker, topic: NewTopic) {
    let command = CreateTopics { topics: vec![topic], validate_only: false };
    let created = broker.state().submit(command, 30_000).await.unwrap();
    assert!(created.iter().all(std::result::Result::is_ok), "{created:?}");
}

/// Has the coordinator, whoever that is, initialise the id; returns its node.
async fn init(brokers: &[Broker], id: &str) -> (usize, Producer) {
    let asked = InitRequest {
        transactional_id: id.into(),
        timeout_ms: 60_000,
        expected: None,
        fresh: Some(brokers[0].state().next_producer_id().await.unwrap()),
    };
    let began = Instant::now();
    loop {
        for (place, broker) in brokers.iter().enumerate() {
            let request = TransactionRequest::Init(asked.clone());
            match broker.state().ask_transaction(request).await {
                Ok(TransactionReply::Producer(Ok(producer))) => return (place, producer),
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert!(error.code().retriable(), "{error:?}"),
            }
        }
        assert!(began.elapsed() < PATIENCE, "nobody coordinates {id}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_finds_the_coordinator_and_hears_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let brokers = cluster(directory.path()).await;
    let state = brokers[0].state();
    let topic = crate::broker::coordinator::transactions_topic(&state.config(), &state.image());
    assert_eq!((topic.replication_factor, topic.partitions), (3, 6));
    let offsets = crate::broker::coordinator::offsets_topic(&state.config(), &state.image());
    assert_eq!(offsets.replication_factor, 3);
    let in_sync = ("min.insync.replicas".to_owned(), Some("2".to_owned()));
    assert!(topic.configs.contains(&in_sync));
    create(&brokers[0], topic).await;
    create(&brokers[0], NewTopic::new("a", 2, 3)).await;
    // The other nodes hear of it a moment later.
    for broker in &brokers {
        broker.state().published_when(|image| image.topic("a").is_some()).await;
    }
    let place = |partition| TopicPartition::new("a", partition);
    let nobody = Producer { id: ProducerId(77_777), epoch: 0 };
    let mut coordinators = BTreeSet::new();
    for index in 0..12 {
        let id = format!("t{index}");
        let (coordinator, producer) = init(&brokers, &id).await;
        coordinators.insert(coordinator);
        for (asker, broker) in brokers.iter().enumerate() {
            let ask = async |producer: Producer, partitions: &[TopicPartition], how| {
                let state = broker.state();
                state.add_partitions(&id, producer.id, producer.epoch, partitions, how).await
            };
            let both = [place(0), place(1)];
            if asker == 0 {
                let codes = ask(producer, &both, AddOrVerify::Verify).await;
                assert_eq!(codes, [ErrorCode::TransactionAbortable; 2], "{id}");
                let codes = ask(producer, &both[..1], AddOrVerify::Add).await;
                assert_eq!(codes, [ErrorCode::None], "{id}");
            }
            let codes = ask(producer, &both, AddOrVerify::Verify).await;
            assert_eq!(codes, [ErrorCode::None, ErrorCode::TransactionAbortable], "{id}");
            let codes = ask(nobody, &both[..1], AddOrVerify::Verify).await;
            assert_eq!(codes, [ErrorCode::InvalidProducerIdMapping]);
            let fenced = Producer { epoch: producer.epoch + 1, ..producer };
            let codes = ask(fenced, &both[..1], AddOrVerify::Add).await;
            assert_eq!(codes, [ErrorCode::InvalidProducerEpoch], "as leaders say it");
            let codes = ask(producer, &[place(1), place(9)], AddOrVerify::Add).await;
            let unknown = ErrorCode::UnknownTopicOrPartition;
            assert_eq!(codes, [ErrorCode::OperationNotAttempted, unknown]);
            assert!(ask(producer, &[], AddOrVerify::Add).await.is_empty());
        }
    }
    assert!(coordinators.len() > 1, "all on one node says little");
    for broker in brokers {
        broker.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn without_a_topic_nobody_coordinates() {
    let broker = Broker::start(BrokerOptions::in_memory()).await.unwrap();
    let partitions = [TopicPartition::new("a", 0)];
    let state = broker.state();
    let codes = state.add_partitions("t", ProducerId(1), 0, &partitions, AddOrVerify::Verify).await;
    assert_eq!(codes, [ErrorCode::CoordinatorNotAvailable]);
    broker.shutdown().await.unwrap();
}

fn asked(partitions: &[(&str, i32)]) -> AddPartitionsRequest {
    let partitions = partitions.iter().map(|(topic, id)| TopicPartition::new(*topic, *id));
    AddPartitionsRequest {
        transactional_id: "t".into(),
        producer: Producer { id: ProducerId(7), epoch: 3 },
        partitions: partitions.collect(),
        version: 2,
    }
}

#[test]
fn another_node_is_asked_for_each_partition_once() {
    let request = between_brokers(&asked(&[("a", 1), ("b", 0), ("a", 0)]), AddOrVerify::Verify);
    let [transaction] = &*request.transactions else { panic!("not one") };
    assert!(transaction.verify_only);
    let topics: Vec<(&str, &[i32])> =
        transaction.topics.iter().map(|one| (one.name.as_str(), &*one.partitions)).collect();
    assert_eq!(topics, [("a", &[0, 1][..]), ("b", &[0])]);
    assert!(!between_brokers(&asked(&[("a", 1)]), AddOrVerify::Add).transactions[0].verify_only);
}

#[test]
fn what_a_node_answers_is_found_and_what_it_leaves_out_is_an_error() {
    let result = AddPartitionsToTxnPartitionResult {
        partition_index: 1,
        partition_error_code: ErrorCode::ProducerFenced.to_i16(),
    };
    let topic =
        AddPartitionsToTxnTopicResult { name: "a".into(), results_by_partition: vec![result] };
    let mut response = AddPartitionsToTxnResponse {
        results_by_transaction: vec![AddPartitionsToTxnResult {
            transactional_id: "t".into(),
            topic_results: vec![topic],
        }],
        ..Default::default()
    };
    let code = |response: &_, partition| {
        for_leaders(code_in(response, &TopicPartition::new("a", partition)))
    };
    assert_eq!(code(&response, 1), ErrorCode::InvalidProducerEpoch);
    assert_eq!(code(&response, 0), ErrorCode::UnknownServerError);
    response.error_code = ErrorCode::ClusterAuthorizationFailed.to_i16();
    assert_eq!(code(&response, 1), ErrorCode::ClusterAuthorizationFailed);
}
