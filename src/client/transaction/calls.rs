//! The requests to the coordinator of transactions, and to that of a group: one at a time, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::client::cluster::{Cluster, Lane};
use crate::client::config::ProducerConfig;
use crate::client::consumer::group::{GroupMetadata, OffsetAndMetadata};
use crate::client::coordinator::{Coordinator, by_topic};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::transaction::{Answer, Call, Version};
use crate::protocol::Str;
use crate::protocol::api;
use crate::protocol::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use crate::protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic,
};
use crate::protocol::messages::end_txn::EndTxnRequest;
use crate::protocol::messages::init_producer_id::InitProducerIdRequest;
use crate::protocol::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use crate::types::{ProducerEpoch, ProducerId, TopicPartition};

/// The id and epoch of a producer.
pub(in crate::client) type Identity = (ProducerId, ProducerEpoch);

/// The newest version of AddPartitionsToTxn for clients; brokers use later ones among themselves.
const ADD_PARTITIONS_MAX: i16 = 3;
/// The first version of EndTxn that raises the epoch (KIP-890).
const RAISES_EPOCH_SINCE: i16 = 5;
/// The first version of TxnOffsetCommit that makes the group part of the transaction (KIP-890).
const ADDS_GROUP_SINCE: i16 = 5;
/// The last version of TxnOffsetCommit that names topics; a later one has their ids.
const NAMES_UNTIL: i16 = 5;
/// The first version of TxnOffsetCommit that names the member (KIP-447).
const MEMBER_SINCE: i16 = 3;
/// The first version of InitProducerId that takes the current id and epoch (KIP-360).
const EXPECTS_SINCE: i16 = 3;

/// What came of a call, and the error behind it.
#[derive(Clone, Debug)]
pub(in crate::client) struct Answered {
    pub(in crate::client) answer: Answer,
    pub(in crate::client) error: Option<Arc<Error>>,
}

impl Answered {
    fn said(code: ErrorCode, given: Option<Identity>, what: impl FnOnce() -> String) -> Self {
        let error = (!code.is_ok()).then(|| Arc::new(Error::kafka(code, what())));
        Self { answer: Answer::Said(code, given), error }
    }

    /// It was not asked. A refusal that will not change counts as its answer.
    fn not_asked(error: Error) -> Self {
        let is_final = !error.retriable() && matches!(error, Error::Kafka { .. });
        let answer = if is_final { Answer::Said(error.code(), None) } else { Answer::NotAsked };
        Self { answer, error: Some(Arc::new(error)) }
    }

    fn lost(error: Error) -> Self {
        Self { answer: Answer::Lost, error: Some(Arc::new(error)) }
    }
}

/// Offsets on their way into a transaction.
#[derive(Debug)]
pub(super) struct Offsets {
    coordinator: Coordinator,
    wanted: BTreeMap<TopicPartition, OffsetAndMetadata>,
    member: GroupMetadata,
}

impl Offsets {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        wanted: BTreeMap<TopicPartition, OffsetAndMetadata>,
        member: GroupMetadata,
    ) -> Self {
        let coordinator = Coordinator::new(cluster, member.group_id.as_str());
        Self { coordinator, wanted, member }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }
}

/// The coordinator of one transactional id, and how it is asked.
#[derive(Debug)]
pub(in crate::client) struct Coordinators {
    of_transactions: Coordinator,
    /// `transaction.timeout.ms`.
    pub(super) timeout: Duration,
    /// `max.block.ms`.
    pub(super) block_max: Duration,
}

impl Coordinators {
    pub(super) fn new(cluster: Arc<Cluster>, id: &str, config: &ProducerConfig) -> Self {
        Self {
            of_transactions: Coordinator::of_transactions(cluster, id),
            timeout: config.transaction_timeout,
            block_max: config.block_max,
        }
    }

    /// The transactional id.
    pub(in crate::client) fn id(&self) -> &str {
        &self.of_transactions.id
    }

    /// Asks once, within the limit.
    pub(super) async fn ask(
        &self,
        call: Call,
        version: Version,
        producer: Option<Identity>,
        offsets: Option<&Offsets>,
        limit: Duration,
    ) -> Answered {
        let (id, epoch) = producer.unwrap_or((ProducerId::NONE, ProducerEpoch::NONE));
        match (call, offsets) {
            (Call::Initialize, _) => self.initialize(producer, limit).await,
            (Call::Commit, _) => self.end(true, version, (id, epoch), limit).await,
            (Call::Abort, _) => self.end(false, version, (id, epoch), limit).await,
            (Call::AddOffsets, Some(offsets)) => {
                self.add_offsets((id, epoch), offsets, limit).await
            }
            (Call::CommitOffsets, Some(offsets)) => {
                self.commit_offsets(version, (id, epoch), offsets, limit).await
            }
            (Call::AddOffsets | Call::CommitOffsets | Call::AddPartitions, _) => {
                Answered::not_asked(Error::invalid("there is nothing to add"))
            }
        }
    }

    async fn initialize(&self, expected: Option<Identity>, limit: Duration) -> Answered {
        let timeout_ms = i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX);
        let asked = self
            .call(&self.of_transactions, limit, (0, i16::MAX), |version| {
                if expected.is_some() && version < EXPECTS_SINCE {
                    return Err(too_old("a new epoch after a transaction that failed", "2.5"));
                }
                let (id, epoch) = expected.unwrap_or((ProducerId::NONE, ProducerEpoch::NONE));
                Ok(InitProducerIdRequest {
                    transactional_id: Some(Str::from(self.id())),
                    transaction_timeout_ms: timeout_ms,
                    producer_id: id.0,
                    producer_epoch: epoch.0,
                    ..InitProducerIdRequest::default()
                })
            })
            .await;
        let response = match asked {
            Ok(response) => response,
            Err(answered) => return answered,
        };
        let given = (ProducerId(response.producer_id), ProducerEpoch(response.producer_epoch));
        heard(&self.of_transactions, response.error_code, Some(given), || {
            format!("transactional id {}: asking for an epoch", self.id())
        })
    }

    /// Has the coordinator add partitions (version 1): the answer is the worst of all partitions.
    pub(in crate::client) async fn add_partitions(
        &self,
        (id, epoch): Identity,
        partitions: &[TopicPartition],
    ) -> Answered {
        let topics = by_topic(partitions.iter()).into_iter();
        let topics = topics.map(|(name, partitions)| AddPartitionsToTxnTopic {
            name: Str::from(name),
            partitions,
        });
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: Str::from(self.id()),
            v3_and_below_producer_id: id.0,
            v3_and_below_producer_epoch: epoch.0,
            v3_and_below_topics: topics.collect(),
            ..AddPartitionsToTxnRequest::default()
        };
        let limit = self.of_transactions.cluster.config.request_timeout;
        let range = (0, ADD_PARTITIONS_MAX);
        let response = match self.call(&self.of_transactions, limit, range, |_| Ok(request)).await {
            Ok(response) => response,
            Err(answered) => return answered,
        };
        let mut worst = (ErrorCode::None, String::new());
        let mut answers = 0;
        for topic in &response.results_by_topic_v3_and_below {
            for one in &topic.results_by_partition {
                answers += 1;
                let code = ErrorCode::from_i16(one.partition_error_code);
                if outweighs(code, worst.0) {
                    worst = (code, format!("{}-{}", topic.name, one.partition_index));
                }
            }
        }
        if answers < partitions.len() {
            return Answered::lost(Error::malformed("response", "it leaves out partitions"));
        }
        let (code, partition) = worst;
        heard(&self.of_transactions, code.to_i16(), None, || {
            format!("transactional id {}: adding {partition}", self.id())
        })
    }

    async fn add_offsets(
        &self,
        (id, epoch): Identity,
        offsets: &Offsets,
        limit: Duration,
    ) -> Answered {
        let request = AddOffsetsToTxnRequest {
            transactional_id: Str::from(self.id()),
            producer_id: id.0,
            producer_epoch: epoch.0,
            group_id: Str::from(offsets.member.group_id.as_str()),
        };
        let asked = self.call(&self.of_transactions, limit, (0, i16::MAX), |_| Ok(request)).await;
        let response = match asked {
            Ok(response) => response,
            Err(answered) => return answered,
        };
        heard(&self.of_transactions, response.error_code, None, || {
            let group = &offsets.member.group_id;
            format!("transactional id {}: adding the offsets of group {group}", self.id())
        })
    }

    async fn commit_offsets(
        &self,
        version: Version,
        (id, epoch): Identity,
        offsets: &Offsets,
        limit: Duration,
    ) -> Answered {
        let range = match version {
            Version::One => (0, ADDS_GROUP_SINCE - 1),
            Version::Two => (ADDS_GROUP_SINCE, NAMES_UNTIL),
        };
        let Offsets { coordinator, wanted, member } = offsets;
        let asked = self
            .call(coordinator, limit, range, |version| {
                if version < MEMBER_SINCE {
                    // Without the member, one that was replaced would move the group's offsets.
                    return Err(too_old("offsets of a group in a transaction", "2.5"));
                }
                Ok(TxnOffsetCommitRequest {
                    transactional_id: Str::from(self.id()),
                    group_id: Str::from(member.group_id.as_str()),
                    producer_id: id.0,
                    producer_epoch: epoch.0,
                    generation_id_or_member_epoch: member.generation,
                    member_id: Str::from(member.member_id.as_str()),
                    group_instance_id: member.instance_id.as_deref().map(Str::from),
                    topics: topics_of(wanted),
                })
            })
            .await;
        let response = match asked {
            Ok(response) => response,
            Err(answered) => return answered,
        };
        let mut worst = (ErrorCode::None, String::new());
        let mut answers = 0;
        for topic in &response.topics {
            for one in &topic.partitions {
                answers += 1;
                let code = ErrorCode::from_i16(one.error_code);
                if outweighs(code, worst.0) {
                    worst = (code, format!("{}-{}", topic.name, one.partition_index));
                }
            }
        }
        if answers < wanted.len() {
            return Answered::lost(Error::malformed("response", "it leaves out partitions"));
        }
        let (code, partition) = worst;
        heard(coordinator, code.to_i16(), None, || {
            format!("group {}: the offset of {partition} in a transaction", member.group_id)
        })
    }

    async fn end(
        &self,
        committed: bool,
        version: Version,
        (id, epoch): Identity,
        limit: Duration,
    ) -> Answered {
        let request = EndTxnRequest {
            transactional_id: Str::from(self.id()),
            producer_id: id.0,
            producer_epoch: epoch.0,
            committed,
        };
        let range = match version {
            Version::One => (0, RAISES_EPOCH_SINCE - 1),
            Version::Two => (RAISES_EPOCH_SINCE, i16::MAX),
        };
        let response = match self.call(&self.of_transactions, limit, range, |_| Ok(request)).await {
            Ok(response) => response,
            Err(answered) => return answered,
        };
        let given = (ProducerId(response.producer_id), ProducerEpoch(response.producer_epoch));
        let given = Some(given).filter(|(id, _)| *id != ProducerId::NONE);
        heard(&self.of_transactions, response.error_code, given, || {
            let verb = if committed { "committing" } else { "aborting" };
            format!("transactional id {}: {verb}", self.id())
        })
    }

    /// Calls a coordinator at the newest version of a range.
    async fn call<C: api::Call>(
        &self,
        coordinator: &Coordinator,
        limit: Duration,
        (min, max): (i16, i16),
        build: impl FnOnce(i16) -> Result<C>,
    ) -> Result<C::Response, Answered> {
        let limit = limit.min(coordinator.cluster.config.request_timeout);
        let timed_out = |what: &str| {
            let what = format!("{what} the coordinator of {}", coordinator.id);
            Error::timeout(what, limit).because(coordinator.cluster.obstacle())
        };
        let finding = tokio::time::timeout(limit, coordinator.route(Lane::Control)).await;
        let (node, route) = finding
            .unwrap_or_else(|_elapsed| Err(timed_out("finding")))
            .map_err(Answered::not_asked)?;
        let version = route.version(C::API).map(|version| version.min(max));
        let version = version.map_err(Answered::not_asked)?;
        if version < min {
            let what = format!("{} version {min}, with {route},", C::API);
            return Err(Answered::not_asked(too_old(&what, "4.0")));
        }
        let request = build(version).map_err(Answered::not_asked)?;
        // A broker that stands still may not be the coordinator any more.
        let asking = route.call_at(request, version, limit);
        let asking = coordinator.cluster.unless_gone((node, &route), Duration::ZERO, asking);
        let answer = tokio::time::timeout(limit, asking).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err(timed_out("asking")));
        answer.map_err(|error| {
            coordinator.forget();
            Answered::lost(error)
        })
    }
}

/// Takes an answer; a coordinator that moved is looked up again.
fn heard(
    coordinator: &Coordinator,
    code: i16,
    given: Option<Identity>,
    what: impl FnOnce() -> String,
) -> Answered {
    let code = ErrorCode::from_i16(code);
    if matches!(
        code,
        ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable | ErrorCode::RequestTimedOut
    ) {
        coordinator.forget();
    }
    Answered::said(code, given.filter(|_| code.is_ok()), what)
}

/// Whether one partition's code decides over another's: what cannot be retried does, and what says something about
/// itself before what only says that others failed.
fn outweighs(code: ErrorCode, other: ErrorCode) -> bool {
    let weight = |code: ErrorCode| match code {
        ErrorCode::None => 0,
        code if code.retriable() => 1,
        ErrorCode::OperationNotAttempted => 2,
        _ => 3,
    };
    weight(code) > weight(other)
}

fn too_old(what: &str, since: &str) -> Error {
    crate::client::errors::unsupported(format!("{what}: it needs Apache Kafka {since} or newer"))
}

fn topics_of(
    offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>,
) -> Vec<TxnOffsetCommitRequestTopic> {
    let mut topics: BTreeMap<&str, Vec<TxnOffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, value) in offsets {
        topics.entry(&partition.topic).or_default().push(TxnOffsetCommitRequestPartition {
            partition_index: partition.partition.0,
            committed_offset: value.offset.0,
            committed_leader_epoch: value.leader_epoch.0,
            committed_metadata: Some(Str::from(value.metadata.as_str())),
        });
    }
    let topic = |(name, partitions)| TxnOffsetCommitRequestTopic {
        name: Str::from(name),
        partitions,
        ..TxnOffsetCommitRequestTopic::default()
    };
    topics.into_iter().map(topic).collect()
}
