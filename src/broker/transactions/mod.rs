//! The way from the parts of a broker to the coordinators of transactions, here or on another node.
//!
//! Why: the leader of a partition must know that the partition belongs to a transaction before it appends records of
//! it (KIP-890), and so must the coordinator of a group before it takes offsets. Who coordinates the transaction is found
//! in the metadata; another node is asked by AddPartitionsToTxn, as brokers of Apache Kafka do.

mod peers;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use super::coordinator::{PendingTransaction, TRANSACTIONS_TOPIC, partition_of};
use super::state::BrokerState;
use crate::broker::words;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::transaction::{
    AddPartitionsRequest, Producer, TransactionReply, TransactionRequest,
};
use crate::protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
};
use crate::types::{NodeId, PartitionIndex, ProducerId, TopicPartition};

pub(super) use self::peers::Peers;

/// How long a coordinator on another node may take; Kafka's default for requests between brokers.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The version of transactions of producers whose partitions are added for them.
const SECOND_VERSION: i16 = 2;

/// What is asked of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum AddOrVerify {
    /// To add the partitions to the transaction, which begins with the first.
    Add,
    /// Whether the partitions belong to the transaction.
    Verify,
}

impl BrokerState {
    /// Has partitions added to a transaction, or asks whether they belong to it. One code for each partition, in
    /// their order: NONE if it belongs to the transaction.
    ///
    /// TRANSACTION_ABORTABLE: it does not, and was not to be added. INVALID_PRODUCER_EPOCH: the producer is fenced.
    /// CONCURRENT_TRANSACTIONS: the transaction before is being ended; when adding, this was waited for already, for
    /// `add.partitions.to.txn.retry.backoff.max.ms`. COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR,
    /// COORDINATOR_LOAD_IN_PROGRESS, NETWORK_EXCEPTION: it is not known, and may be tried once more. Each caller knows
    /// what its client makes of these.
    ///
    /// Bounded in time. No partitions is no question.
    pub(in crate::broker) async fn add_partitions(
        &self,
        transactional_id: &str,
        producer_id: ProducerId,
        producer_epoch: i16,
        partitions: &[TopicPartition],
        how: AddOrVerify,
    ) -> Vec<ErrorCode> {
        if partitions.is_empty() {
            return Vec::new();
        }
        let producer = Producer { id: producer_id, epoch: producer_epoch };
        let asked = AddPartitionsRequest {
            transactional_id: transactional_id.into(),
            producer,
            partitions: partitions.iter().cloned().collect(),
            version: SECOND_VERSION,
        };
        let config = self.config();
        let (pause, max) =
            (config.verification.retry_backoff, config.verification.retry_backoff_max);
        let mut waited = Duration::ZERO;
        loop {
            let codes = self.ask_coordinator(&asked, how, partitions).await;
            let is_busy = codes.contains(&ErrorCode::ConcurrentTransactions);
            if how == AddOrVerify::Verify || !is_busy || waited + pause > max {
                return codes;
            }
            waited += pause;
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask_coordinator(
        &self,
        asked: &AddPartitionsRequest,
        how: AddOrVerify,
        partitions: &[TopicPartition],
    ) -> Vec<ErrorCode> {
        let all = |code: ErrorCode| vec![for_leaders(code); partitions.len()];
        let coordinator = match self.transaction_coordinator(&asked.transactional_id) {
            Ok(coordinator) => coordinator,
            Err(error) => return all(error.code()),
        };
        if coordinator == self.node_id() {
            let answered = self.add_partitions_here(asked.clone(), how);
            let answered = tokio::time::timeout(ANSWER_MAX, answered).await;
            let codes = answered.unwrap_or(AddedHere::All(ErrorCode::CoordinatorNotAvailable));
            return partitions.iter().map(|partition| for_leaders(codes.of(partition))).collect();
        }
        let request = between_brokers(asked, how);
        match self.transaction_peers().call(self, coordinator, request, ANSWER_MAX).await {
            Ok(response) => partitions
                .iter()
                .map(|partition| for_leaders(code_in(&response, partition)))
                .collect(),
            Err(error) => {
                let error = error.chain();
                tracing::debug!(
                    error, transactional_id = %asked.transactional_id,
                    "the coordinator of a transaction did not answer"
                );
                all(ErrorCode::NetworkException)
            }
        }
    }

    /// The partition of `__transaction_state` that a transactional id belongs to.
    ///
    /// # Errors
    ///
    /// `COORDINATOR_NOT_AVAILABLE`: there is no such topic yet.
    pub(in crate::broker) fn transaction_partition(
        &self,
        transactional_id: &str,
    ) -> Result<PartitionIndex> {
        let image = self.image();
        let topic = image.topic(TRANSACTIONS_TOPIC).ok_or_else(|| {
            let context = format!("{TRANSACTIONS_TOPIC} does not exist yet");
            Error::kafka(ErrorCode::CoordinatorNotAvailable, context)
        })?;
        Ok(partition_of(transactional_id, topic.partition_count()))
    }

    fn transaction_coordinator(&self, transactional_id: &str) -> Result<NodeId> {
        let index = self.transaction_partition(transactional_id)?;
        let image = self.image();
        let partition = image.topic(TRANSACTIONS_TOPIC).and_then(|topic| topic.partition(index));
        partition
            .map(|partition| partition.leader)
            .filter(|leader| *leader != NodeId::NONE)
            .ok_or_else(|| {
                let name = TopicPartition::new(TRANSACTIONS_TOPIC, index);
                words::no_leader(ErrorCode::CoordinatorNotAvailable, &name)
            })
    }

    /// Adds partitions, or verifies them, as the coordinator of the transaction. All must exist: one that does not gets
    /// UNKNOWN_TOPIC_OR_PARTITION, and the others are not attempted.
    pub(in crate::broker) async fn add_partitions_here(
        &self,
        asked: AddPartitionsRequest,
        how: AddOrVerify,
    ) -> AddedHere {
        if asked.transactional_id.is_empty() {
            return AddedHere::All(ErrorCode::InvalidRequest);
        }
        let image = self.image();
        let exists = |partition: &TopicPartition| {
            let topic = image.topic(&partition.topic);
            topic.and_then(|topic| topic.partition(partition.partition)).is_some()
        };
        let unknown: BTreeSet<TopicPartition> =
            asked.partitions.iter().filter(|partition| !exists(partition)).cloned().collect();
        if !unknown.is_empty() {
            return AddedHere::Unknown(unknown);
        }
        let request = match how {
            AddOrVerify::Add => TransactionRequest::Add(asked),
            AddOrVerify::Verify => TransactionRequest::Verify(asked),
        };
        match self.ask_transaction(request).await {
            Ok(TransactionReply::Added(Ok(()))) => AddedHere::All(ErrorCode::None),
            Ok(TransactionReply::Verified(Ok(foreign))) => AddedHere::Foreign(foreign),
            Ok(TransactionReply::Added(Err(code)) | TransactionReply::Verified(Err(code))) => {
                AddedHere::All(code)
            }
            Ok(_) => AddedHere::All(ErrorCode::UnknownServerError),
            Err(error) => AddedHere::All(error.code()),
        }
    }

    /// Passes a request about one transactional id to its coordinator, which must be here.
    ///
    /// # Errors
    ///
    /// Those of the runtime of coordinators.
    pub(in crate::broker) async fn send_transaction(
        &self,
        request: TransactionRequest,
    ) -> Result<PendingTransaction> {
        let id = match &request {
            TransactionRequest::Init(asked) => &asked.transactional_id,
            TransactionRequest::Add(asked) | TransactionRequest::Verify(asked) => {
                &asked.transactional_id
            }
            TransactionRequest::End(asked) => &asked.transactional_id,
            _ => {
                let context = "the request is not about one transactional id";
                return Err(Error::kafka(ErrorCode::UnknownServerError, context));
            }
        };
        let partition = self.transaction_partition(id).map_err(|error| {
            // Nobody coordinates it, and this broker does not.
            error.under_code(ErrorCode::NotCoordinator)
        })?;
        self.transactions().send(partition, request).await
    }

    /// As [`Self::send_transaction`], with the answer.
    ///
    /// # Errors
    ///
    /// As [`Self::send_transaction`].
    pub(in crate::broker) async fn ask_transaction(
        &self,
        request: TransactionRequest,
    ) -> Result<TransactionReply> {
        self.send_transaction(request).await?.wait().await
    }
}

/// What became of partitions at their coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) enum AddedHere {
    /// The same of all.
    All(ErrorCode),
    /// These do not belong to the transaction; the others do.
    Foreign(BTreeSet<TopicPartition>),
    /// These do not exist; the others were not looked at.
    Unknown(BTreeSet<TopicPartition>),
}

impl AddedHere {
    /// The code for one partition.
    pub(in crate::broker) fn of(&self, partition: &TopicPartition) -> ErrorCode {
        match self {
            Self::All(code) => *code,
            Self::Foreign(foreign) if foreign.contains(partition) => {
                ErrorCode::TransactionAbortable
            }
            Self::Foreign(_) => ErrorCode::None,
            Self::Unknown(unknown) if unknown.contains(partition) => {
                ErrorCode::UnknownTopicOrPartition
            }
            Self::Unknown(_) => ErrorCode::OperationNotAttempted,
        }
    }
}

/// What a leader says of a producer that is fenced (KIP-588): the transaction can be aborted.
fn for_leaders(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

fn between_brokers(asked: &AddPartitionsRequest, how: AddOrVerify) -> AddPartitionsToTxnRequest {
    let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
    for TopicPartition { topic, partition } in &asked.partitions {
        match topics.last_mut() {
            Some(last) if *last.name == **topic => last.partitions.push(partition.0),
            _ => topics.push(AddPartitionsToTxnTopic {
                name: topic.into(),
                partitions: vec![partition.0],
            }),
        }
    }
    let transaction = AddPartitionsToTxnTransaction {
        transactional_id: (&asked.transactional_id).into(),
        producer_id: asked.producer.id.0,
        producer_epoch: asked.producer.epoch,
        verify_only: how == AddOrVerify::Verify,
        topics,
    };
    AddPartitionsToTxnRequest { transactions: vec![transaction], ..Default::default() }
}

fn code_in(response: &AddPartitionsToTxnResponse, partition: &TopicPartition) -> ErrorCode {
    if response.error_code != 0 {
        return ErrorCode::from_i16(response.error_code);
    }
    let topics = response.results_by_transaction.iter().flat_map(|result| &result.topic_results);
    let found = topics
        .filter(|topic| *topic.name == *partition.topic)
        .flat_map(|topic| &topic.results_by_partition)
        .find(|result| PartitionIndex(result.partition_index) == partition.partition);
    // An answer that leaves a partition out is not one.
    found.map_or(ErrorCode::UnknownServerError, |result| {
        ErrorCode::from_i16(result.partition_error_code)
    })
}
