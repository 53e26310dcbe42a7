//! Produce: v3-v13.
//!
//! Behaviour: each partition is appended on its own and has its own error. acks=0 is not answered (the
//! connection is closed when something failed, as the only way to tell). acks=1 and acks=-1 are answered
//! when the records are below the high watermark: synced where this is the only copy (ADR 0001, ADR 0014).
//! The timeout of the request is for acks=-1, as in Kafka: acks=1 waits for as long as the disk takes.
//! Appends of one connection keep the order of its requests; their waits overlap. Idempotent batches are
//! checked and deduplicated by the log.
//! Versions: v7 zstd; v8 record errors and messages (KIP-467); v10 the current leader (KIP-951); v13
//! topic ids (KIP-516). Versions 0 to 2 are advertised and refused, see `protocol/api.rs`.
//! Record errors: the records without a key of a compacted topic, with a timestamp that is out of
//! bounds, or with a wrong offset delta are named, the first hundred of them.
//! Errors: INVALID_REQUIRED_ACKS; UNKNOWN_TOPIC_OR_PARTITION or UNKNOWN_TOPIC_ID; INVALID_RECORD for
//! anything but one batch of magic 2 per partition, and for control batches; UNSUPPORTED_COMPRESSION_TYPE
//! for zstd before v7; CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, INVALID_TIMESTAMP and those of idempotence
//! from the log; NOT_LEADER_OR_FOLLOWER; NOT_ENOUGH_REPLICAS; REQUEST_TIMED_OUT;
//! KAFKA_STORAGE_ERROR when the disk is full or failed; INVALID_TOPIC_EXCEPTION for internal topics.
//! Transactions: what begins one in a partition is verified by its coordinator first, or added to the transaction from v12 on;
//! later requests of the connection wait meanwhile. INVALID_PRODUCER_EPOCH; INVALID_TXN_STATE, from v11 on TRANSACTION_ABORTABLE, for what
//! is in no transaction; CONCURRENT_TRANSACTIONS (before v12 NOT_ENOUGH_REPLICAS) while the one before is ended; NOT_ENOUGH_REPLICAS
//! while the coordinator cannot be asked; INVALID_PRODUCER_ID_MAPPING; TRANSACTIONAL_ID_AUTHORIZATION_FAILED without an id.

mod verification;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::verification::Verification;
use super::common;
use super::topics::{TopicKey, Topics};
use crate::broker::dispatch::{Answer, Call};
use crate::broker::full_disk;
use crate::broker::listener::Reached;
use crate::broker::partition::{Acks, AppendAnswer};
use crate::broker::state::BrokerState;
use crate::broker::words;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Guard;
use crate::machine::metadata::is_internal_topic;
use crate::protocol::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData,
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use crate::protocol::{Response, Str};
use crate::record::{Batch, Compression};
use crate::types::{Offset, PartitionIndex, TopicPartition, Uuid};

/// One partition: answered, or waited for.
enum Pending {
    Done(PartitionProduceResponse),
    Waiting { index: i32, receiver: oneshot::Receiver<Result<AppendAnswer>> },
}

struct PendingTopic {
    name: Str,
    topic_id: Uuid,
    partitions: Vec<Pending>,
}

pub(in crate::broker) async fn handle(call: &Call<'_>, request: &ProduceRequest) -> Result<Answer> {
    let acks = Acks::from_i16(request.acks);
    let timeout = Duration::from_millis(request.timeout_ms.max(0).unsigned_abs().into());
    let deadline = (acks != Some(Acks::Leader)).then(|| Instant::now() + timeout);
    let known = Topics::of(call);
    let mut verified = match acks {
        Some(_) => verification::verify(call, request, &known).await,
        None => Ok(Verification::default()),
    };
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for (topic_place, topic) in request.topic_data.iter().enumerate() {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for (place, partition) in topic.partition_data.iter().enumerate() {
            if !topics.is_empty() || !partitions.is_empty() {
                // Whoever the append before woke is not to wait behind this one if the disk stands still.
                tokio::task::yield_now().await;
            }
            let pending = match acks {
                None => Pending::Done(failed(partition.index, &bad_acks(request.acks))),
                Some(acks) => {
                    let guard = match &mut verified {
                        Ok(verified) => verified.take((topic_place, place)),
                        Err(all) => Err(Error::kafka(all.code(), all.to_string())),
                    };
                    let begun = match guard {
                        Ok(guard) => begin(call, (&known, topic, partition), acks, guard).await,
                        Err(error) => Err(error),
                    };
                    match begun {
                        Ok(receiver) => Pending::Waiting { index: partition.index, receiver },
                        Err(error) => Pending::Done(failed(partition.index, &error)),
                    }
                }
            };
            partitions.push(pending);
        }
        topics.push(PendingTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions,
        });
    }
    let endpoints = Endpoints::of(call, known);
    let version = call.context.api_version;
    let work = async move { finish(topics, deadline, &endpoints, version).await };
    Ok(match acks {
        Some(Acks::None) => {
            Answer::Unanswered(Box::pin(async move { refuse_unanswered(&work.await) }))
        }
        _ => Answer::Later(Box::pin(async move { Ok(Response::Produce(work.await)) })),
    })
}

fn bad_acks(acks: i16) -> Error {
    Error::kafka(ErrorCode::InvalidRequiredAcks, format!("acks={acks} is not -1, 0 or 1"))
}

/// With acks=0 the client hears of an error by losing the connection.
fn refuse_unanswered(response: &ProduceResponse) -> Result<()> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    let failed = partitions.into_iter().find(|partition| partition.error_code != 0);
    match failed {
        None => Ok(()),
        Some(partition) => {
            let code = ErrorCode::from_i16(partition.error_code);
            let message = partition.error_message.as_deref().unwrap_or_default();
            Err(Error::kafka(code, format!("produce with acks=0 failed: {message}")))
        }
    }
}

/// Checks one partition's records and queues them for its log.
async fn begin(
    call: &Call<'_>,
    (known, topic, data): (&Topics, &TopicProduceData, &PartitionProduceData),
    acks: Acks,
    guard: Option<Guard>,
) -> Result<oneshot::Receiver<Result<AppendAnswer>>> {
    let version = call.context.api_version;
    let known = known.find(TopicKey::of(&topic.name, topic.topic_id, version >= 13))?;
    if is_internal_topic(&known.name) {
        let context = format!("topic {} is internal and may not be written to", known.name);
        return Err(Error::kafka(ErrorCode::InvalidTopicException, context));
    }
    let index = PartitionIndex(data.index);
    let partition = call.state.partitions().leader(known, index)?;
    let records = data.records.clone().unwrap_or_default().into_bytes();
    let batch = take_batch(&records, version).map_err(|error| {
        error.in_partition(&TopicPartition::new(Arc::clone(&known.name), index))
    })?;
    call.state.log_threads().append(&partition, (batch, guard), acks).await
}

/// The one batch of a partition, with what the version of the request demands of it; the log checks the rest.
fn take_batch(records: &Bytes, version: i16) -> Result<Batch> {
    let invalid = |context: &str| Error::kafka(ErrorCode::InvalidRecord, context);
    if records.is_empty() {
        return Err(invalid("a produce request needs one record batch per partition"));
    }
    if records.get(16).is_some_and(|&magic| magic != 2) {
        return Err(invalid("only record batches of magic 2 are accepted"));
    }
    let batch = Batch::parse(records)?;
    let header = batch.header();
    if version < 7 && header.compression == Compression::Zstd {
        let context = format!("zstd needs version 7 of Produce, not {version}");
        return Err(Error::kafka(ErrorCode::UnsupportedCompressionType, context));
    }
    if header.size_bytes < records.len() {
        return Err(invalid("a produce request has exactly one record batch per partition"));
    }
    if header.base_offset != Offset::ZERO {
        return Err(invalid("the base offset of a batch that is produced is 0"));
    }
    if header.is_control() {
        return Err(invalid("clients may not write control records"));
    }
    Ok(batch)
}

fn failed(index: i32, error: &Error) -> PartitionProduceResponse {
    full_disk::warn_of(error);
    let record_errors = match error {
        Error::RecordsRefused { records, .. } => records
            .iter()
            .map(|(index, why)| BatchIndexAndErrorMessage {
                batch_index: *index,
                batch_index_error_message: Some(why.as_str().into()),
            })
            .collect(),
        _ => Vec::new(),
    };
    PartitionProduceResponse {
        index,
        error_code: error.code().to_i16(),
        base_offset: -1,
        record_errors,
        error_message: Some(error.chain().into()),
        ..PartitionProduceResponse::default()
    }
}

fn appended(index: i32, answer: &AppendAnswer) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        base_offset: answer.base_offset.0,
        log_append_time_ms: answer.log_append_time.0,
        log_start_offset: answer.log_start_offset.0,
        ..PartitionProduceResponse::default()
    }
}

async fn finish(
    topics: Vec<PendingTopic>,
    deadline: Option<Instant>,
    endpoints: &Endpoints,
    version: i16,
) -> ProduceResponse {
    let mut response = ProduceResponse::default();
    for topic in topics {
        let mut partition_responses = Vec::with_capacity(topic.partitions.len());
        for pending in topic.partitions {
            let mut partition = match pending {
                Pending::Done(response) => response,
                Pending::Waiting { index, receiver } => wait(index, receiver, deadline).await,
            };
            if version >= 10 && partition.error_code == ErrorCode::NotLeaderOrFollower.to_i16() {
                endpoints.name_leader(
                    TopicKey::of(&topic.name, topic.topic_id, version >= 13),
                    &mut partition,
                    &mut response.node_endpoints,
                );
            }
            partition_responses.push(partition);
        }
        response.responses.push(TopicProduceResponse {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses,
        });
    }
    response
}

async fn wait(
    index: i32,
    receiver: oneshot::Receiver<Result<AppendAnswer>>,
    deadline: Option<Instant>,
) -> PartitionProduceResponse {
    let answered = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, receiver).await,
        None => Ok(receiver.await),
    };
    match answered {
        Ok(Ok(Ok(answer))) => appended(index, &answer),
        Ok(Ok(Err(error))) => failed(index, &error),
        Ok(Err(_dropped)) => failed(index, &words::closed_before_commit("the records were")),
        Err(_elapsed) => failed(
            index,
            &Error::kafka(
                ErrorCode::RequestTimedOut,
                "the records were appended, but not committed in time",
            ),
        ),
    }
}

/// Who leads, for clients that asked the wrong broker (KIP-951).
struct Endpoints {
    state: Arc<BrokerState>,
    topics: Topics,
    reached: Option<Reached>,
}

impl Endpoints {
    fn of(call: &Call<'_>, topics: Topics) -> Self {
        Self { state: Arc::clone(call.state), topics, reached: call.context.reached().cloned() }
    }

    fn name_leader(
        &self,
        topic: TopicKey<'_>,
        partition: &mut PartitionProduceResponse,
        endpoints: &mut Vec<NodeEndpoint>,
    ) {
        let topics = self.topics.as_of_now();
        let found = topics.find(topic).ok();
        let state = found.and_then(|topic| topic.partition(PartitionIndex(partition.index)));
        let Some(leader) = state else { return };
        partition.current_leader =
            LeaderIdAndEpoch { leader_id: leader.leader.0, leader_epoch: leader.leader_epoch.0 };
        let known = endpoints.iter().any(|endpoint| endpoint.node_id == leader.leader.0);
        let nodes = common::brokers(&self.state, self.reached.as_ref());
        if let Some(node) = nodes.into_iter().find(|node| node.id == leader.leader && !known) {
            endpoints.push(NodeEndpoint {
                node_id: node.id.0,
                host: node.host,
                port: node.port,
                rack: node.rack,
            });
        }
    }
}
