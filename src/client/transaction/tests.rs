//! A producer against a coordinator that answers, keeps silent or refuses as a test wants it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::{Client, ClientConfig, ProducerRecord, TransactionalProducer};
use crate::error::{Error, ErrorCode};
use crate::protocol::api::KNOWN;
use crate::protocol::messages::api_versions::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey,
};
use crate::protocol::messages::end_txn::EndTxnResponse;
use crate::protocol::messages::find_coordinator::{Coordinator, FindCoordinatorResponse};
use crate::protocol::messages::init_producer_id::InitProducerIdResponse;
use crate::protocol::messages::metadata::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::protocol::messages::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use crate::protocol::{ApiKey, Request, Response, Service, ServiceFuture, Str};
use crate::record::Batch;
use crate::types::{NodeId, Uuid};

const TOPIC: Uuid = Uuid([7; 16]);
/// How long each step waits for its coordinator.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the coordinator does about EndTxn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Answers,
    Silent,
    Refuses(ErrorCode),
}

#[derive(Debug, Default)]
struct Told {
    end: End,
    /// An earlier transaction of the id is still being ended.
    is_ending: bool,
    epoch: i16,
    /// What was asked for, with the epochs.
    heard: Vec<String>,
}

/// A broker that leads the one partition, and coordinates.
#[derive(Debug, Default)]
struct Fake(Mutex<Told>);

impl Fake {
    fn set(&self, end: End) {
        self.0.lock().unwrap().end = end;
    }

    /// What was asked for since the last call of this.
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().heard)
    }

    fn produce(told: &mut Told, request: ProduceRequest) -> ProduceResponse {
        let id = request.transactional_id.as_deref().unwrap_or("none");
        let mut responses = Vec::new();
        for topic in request.topic_data {
            let mut partition_responses = Vec::new();
            for one in topic.partition_data {
                let batch = Batch::parse(&one.records.unwrap().into_bytes()).unwrap();
                let header = batch.header();
                assert!(header.is_transactional());
                let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
                told.heard.push(format!("produce {id} epoch {epoch} sequence {sequence}"));
                partition_responses.push(PartitionProduceResponse {
                    index: one.index,
                    ..PartitionProduceResponse::default()
                });
            }
            let topic_id = topic.topic_id;
            responses.push(TopicProduceResponse {
                topic_id,
                partition_responses,
                ..TopicProduceResponse::default()
            });
        }
        ProduceResponse { responses, ..ProduceResponse::default() }
    }

    fn answer(&self, request: Request) -> Option<Response> {
        let told = &mut *self.0.lock().unwrap();
        Some(match request {
            Request::ApiVersions(_) => versions().into(),
            Request::Metadata(_) => metadata().into(),
            Request::FindCoordinator(asked) => {
                assert_eq!(asked.key_type, 1);
                let found = Coordinator { node_id: 1, ..Coordinator::default() };
                FindCoordinatorResponse { coordinators: vec![found], ..Default::default() }.into()
            }
            Request::InitProducerId(asked) => {
                told.heard.push(format!("initialize, had {}", asked.producer_epoch));
                let refusal = told.is_ending.then_some(ErrorCode::ConcurrentTransactions);
                told.epoch += i16::from(!told.is_ending);
                InitProducerIdResponse {
                    error_code: refusal.unwrap_or_default().to_i16(),
                    producer_id: 5,
                    producer_epoch: told.epoch,
                    ..Default::default()
                }
                .into()
            }
            Request::Produce(request) => Self::produce(told, request).into(),
            Request::EndTxn(asked) => {
                let verb = if asked.committed { "commit" } else { "abort" };
                told.heard.push(format!("{verb} epoch {}", asked.producer_epoch));
                match told.end {
                    End::Silent => return None,
                    End::Refuses(code) => {
                        EndTxnResponse { error_code: code.to_i16(), ..Default::default() }.into()
                    }
                    End::Answers => {
                        told.epoch += 1;
                        EndTxnResponse {
                            producer_id: 5,
                            producer_epoch: told.epoch,
                            ..Default::default()
                        }
                        .into()
                    }
                }
            }
            other => panic!("nobody expected {other:?}"),
        })
    }
}

impl Service for Shared {
    fn call(&self, _client_id: &Str, _version: i16, request: Request) -> ServiceFuture {
        match self.0.answer(request) {
            Some(response) => Box::pin(async move { Ok(Some(response)) }),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// The fake, for the client and the test.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Fake>);

fn versions() -> ApiVersionsResponse {
    let line = |entry: &crate::protocol::api::Entry| ApiVersion {
        api_key: entry.api.to_i16(),
        min_version: entry.versions.min,
        max_version: entry.versions.max,
    };
    let feature = FinalizedFeatureKey {
        name: Str::from_static("transaction.version"),
        max_version_level: 2,
        min_version_level: 2,
    };
    ApiVersionsResponse {
        api_keys: KNOWN.iter().map(line).collect(),
        finalized_features_epoch: 1,
        finalized_features: vec![feature],
        ..ApiVersionsResponse::default()
    }
}

fn metadata() -> MetadataResponse {
    let partition = MetadataResponsePartition {
        leader_id: 1,
        leader_epoch: 0,
        replica_nodes: vec![1],
        isr_nodes: vec![1],
        ..MetadataResponsePartition::default()
    };
    let topic = MetadataResponseTopic {
        name: Some(Str::from_static("orders")),
        topic_id: TOPIC,
        partitions: vec![partition],
        ..MetadataResponseTopic::default()
    };
    let broker = MetadataResponseBroker { node_id: 1, ..MetadataResponseBroker::default() };
    MetadataResponse {
        brokers: vec![broker],
        topics: vec![topic],
        controller_id: 1,
        ..MetadataResponse::default()
    }
}

fn producer(fake: &Shared) -> TransactionalProducer {
    let mut config = ClientConfig { request_timeout: PATIENCE / 4, ..ClientConfig::default() };
    config.producer.block_max = PATIENCE;
    config.producer.linger = Duration::ZERO;
    let service: Arc<dyn Service> = Arc::new(fake.clone());
    let client = Client::local(service, Some(NodeId(1)), config).unwrap();
    client.transactional("t", &client.config().producer).unwrap()
}

async fn send(producer: &TransactionalProducer) {
    producer.producer().send_and_wait(ProducerRecord::new("orders", "x")).await.unwrap();
}

#[tokio::test]
async fn each_transaction_has_the_epoch_that_the_end_of_the_last_one_gave() {
    let fake = Shared::default();
    let producer = producer(&fake);
    for _ in 0..2 {
        producer.begin().await.unwrap();
        send(&producer).await;
        send(&producer).await;
        producer.commit().await.unwrap();
    }
    let expected = [
        "initialize, had -1",
        "produce t epoch 1 sequence 0",
        "produce t epoch 1 sequence 1",
        "commit epoch 1",
        "produce t epoch 2 sequence 0",
        "produce t epoch 2 sequence 1",
        "commit epoch 2",
    ];
    assert_eq!(fake.0.heard(), expected);
}

#[tokio::test]
async fn a_commit_without_an_answer_is_unknown_and_a_new_epoch_settles_it() {
    let fake = Shared::default();
    let producer = producer(&fake);
    producer.begin().await.unwrap();
    send(&producer).await;
    fake.0.set(End::Silent);
    let error = producer.commit().await.unwrap_err();
    assert!(matches!(error, Error::UnknownOutcome { .. }), "{}", error.chain());
    assert!(error.chain().contains("END_TXN"), "{}", error.chain());
    assert!(!error.retriable() && !producer.is_open());
    let heard = fake.0.heard();
    // It was asked again as long as there was time.
    assert!(heard.iter().filter(|one| *one == "commit epoch 1").count() > 1, "{heard:?}");
    let error = producer.commit().await.unwrap_err();
    assert!(error.to_string().contains("no transaction is open"), "{error}");

    fake.0.set(End::Answers);
    producer.begin().await.unwrap();
    send(&producer).await;
    producer.abort().await.unwrap();
    let expected = ["initialize, had 1", "produce t epoch 2 sequence 0", "abort epoch 2"];
    assert_eq!(fake.0.heard(), expected);
}

#[tokio::test]
async fn an_operation_that_nobody_waits_for_goes_on() {
    let fake = Shared::default();
    let producer = producer(&fake);
    producer.begin().await.unwrap();
    send(&producer).await;
    fake.0.set(End::Refuses(ErrorCode::ConcurrentTransactions));
    let commit = tokio::time::timeout(Duration::from_millis(1), producer.commit()).await;
    assert!(commit.is_err());
    fake.0.set(End::Answers);
    // This waits for it.
    producer.begin().await.unwrap();
    assert_eq!(fake.0.heard().last().unwrap(), "commit epoch 1");
    producer.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn who_was_closed_does_not_take_the_id_over_later() {
    let fake = Shared::default();
    let is_ending = |it: bool| fake.0.0.lock().unwrap().is_ending = it;
    is_ending(true);
    let producer = producer(&fake);
    let early = producer.clone();
    let early = tokio::spawn(async move { early.initialize().await });
    while fake.0.heard().is_empty() {
        tokio::task::yield_now().await;
    }
    producer.close(Duration::from_secs(5)).await.unwrap();
    is_ending(false);
    drop(fake.0.heard());
    early.await.unwrap().unwrap_err();
    assert_eq!(fake.0.heard(), Vec::<String>::new());
}

#[tokio::test]
async fn refusals_of_the_coordinator_become_errors_with_a_remedy() {
    let told: BTreeMap<ErrorCode, (ErrorCode, &str)> = BTreeMap::from([
        (ErrorCode::ProducerFenced, (ErrorCode::ProducerFenced, "took over")),
        (ErrorCode::InvalidProducerEpoch, (ErrorCode::ProducerFenced, "took over")),
        (ErrorCode::InvalidTxnState, (ErrorCode::TransactionAbortable, "longer than its timeout")),
        (ErrorCode::TransactionAbortable, (ErrorCode::TransactionAbortable, "do its work again")),
        (
            ErrorCode::InvalidProducerIdMapping,
            (ErrorCode::InvalidProducerIdMapping, "make a new one"),
        ),
        // It was not carried out, for certain.
        (
            ErrorCode::CoordinatorLoadInProgress,
            (ErrorCode::TransactionAbortable, "not committed in time"),
        ),
    ]);
    for (refusal, (code, words)) in told {
        let fake = Shared::default();
        let producer = producer(&fake);
        producer.begin().await.unwrap();
        send(&producer).await;
        fake.0.set(End::Refuses(refusal));
        let error = producer.commit().await.unwrap_err();
        assert_eq!(error.code(), code, "{refusal}: {}", error.chain());
        assert!(error.chain().contains(words), "{refusal}: {}", error.chain());
        assert_eq!(producer.is_over(), code != ErrorCode::TransactionAbortable);
    }
}

#[tokio::test]
async fn only_who_was_made_for_transactions_begins_one() {
    let service: Arc<dyn Service> = Arc::new(Shared::default());
    let client = Client::local(service, Some(NodeId(1)), ClientConfig::default()).unwrap();
    let mut config = client.config().producer.clone();
    config.idempotence = Some(false);
    let refused = client.transactional("t", &config).unwrap_err();
    assert!(refused.to_string().contains("enable.idempotence"), "{refused}");
    assert!(client.transactional("", &client.config().producer).is_err());
    assert!(ApiKey::EndTxn.versions().contains(5));
}
