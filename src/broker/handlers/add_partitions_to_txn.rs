//! AddPartitionsToTxn: v0-v5.
//!
//! Behaviour: adds partitions to transactions that are coordinated here. All partitions of a transaction are added, or
//! none. Versions: v2 PRODUCER_FENCED, before it INVALID_PRODUCER_EPOCH; v4 is for brokers: many transactions, and
//! `verify_only`, which asks whether the partitions have been added (KIP-890); v5 TRANSACTION_ABORTABLE. Errors, for each
//! partition: UNKNOWN_TOPIC_OR_PARTITION, and OPERATION_NOT_ATTEMPTED for the others then; INVALID_REQUEST for an empty
//! transactional id; INVALID_PRODUCER_ID_MAPPING; PRODUCER_FENCED; CONCURRENT_TRANSACTIONS; TRANSACTION_ABORTABLE for what
//! does not belong to the transaction; NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE, COORDINATOR_LOAD_IN_PROGRESS.

use std::sync::Arc;

use futures::future::join_all;

use super::transactions;
use crate::broker::dispatch::{Answer, Call};
use crate::broker::state::BrokerState;
use crate::broker::transactions::AddOrVerify;
use crate::error::ErrorCode;
use crate::machine::transaction::{AddPartitionsRequest, Producer};
use crate::protocol::Str;
use crate::protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult, AddPartitionsToTxnTopic, AddPartitionsToTxnTopicResult,
};
use crate::types::{ProducerId, TopicPartition};

/// The first version with PRODUCER_FENCED.
const FENCED_SINCE: i16 = 2;
/// The first version for brokers, which add partitions for clients of the second version of transactions.
const BROKERS_SINCE: i16 = 4;

pub(in crate::broker) fn handle(call: &Call<'_>, request: &AddPartitionsToTxnRequest) -> Answer {
    let (state, version) = (Arc::clone(call.state), call.context.api_version);
    if version < BROKERS_SINCE {
        let producer = Producer {
            id: ProducerId(request.v3_and_below_producer_id),
            epoch: request.v3_and_below_producer_epoch,
        };
        let topics = request.v3_and_below_topics.clone();
        let asked = asked(&request.v3_and_below_transactional_id, producer, &topics, 0);
        return Answer::Later(Box::pin(async move {
            let results = results(&state, asked, AddOrVerify::Add, &topics, version).await;
            let response = AddPartitionsToTxnResponse {
                results_by_topic_v3_and_below: results,
                ..AddPartitionsToTxnResponse::default()
            };
            Ok(response.into())
        }));
    }
    let transactions = request.transactions.clone();
    Answer::Later(Box::pin(async move {
        let each = transactions.into_iter().map(async |transaction| {
            let producer = Producer {
                id: ProducerId(transaction.producer_id),
                epoch: transaction.producer_epoch,
            };
            let (id, topics) = (&transaction.transactional_id, &transaction.topics);
            let asked = asked(id, producer, topics, 2);
            let how = if transaction.verify_only { AddOrVerify::Verify } else { AddOrVerify::Add };
            AddPartitionsToTxnResult {
                transactional_id: id.clone(),
                topic_results: results(&state, asked, how, topics, version).await,
            }
        });
        let response = AddPartitionsToTxnResponse {
            results_by_transaction: join_all(each).await,
            ..AddPartitionsToTxnResponse::default()
        };
        Ok(response.into())
    }))
}

fn asked(
    id: &Str,
    producer: Producer,
    topics: &[AddPartitionsToTxnTopic],
    version: i16,
) -> AddPartitionsRequest {
    let partitions = topics.iter().flat_map(|topic| {
        let name: Arc<str> = (&topic.name).into();
        topic.partitions.iter().map(move |&index| TopicPartition::new(Arc::clone(&name), index))
    });
    AddPartitionsRequest {
        transactional_id: id.into(),
        producer,
        partitions: partitions.collect(),
        version,
    }
}

async fn results(
    state: &BrokerState,
    asked: AddPartitionsRequest,
    how: AddOrVerify,
    topics: &[AddPartitionsToTxnTopic],
    version: i16,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let added = state.add_partitions_here(asked, how).await;
    let code = |topic: &Str, index: i32| -> ErrorCode {
        let code = added.of(&TopicPartition::new(topic, index));
        transactions::for_client(code, version, FENCED_SINCE)
    };
    let topic = |topic: &AddPartitionsToTxnTopic| AddPartitionsToTxnTopicResult {
        name: topic.name.clone(),
        results_by_partition: topic
            .partitions
            .iter()
            .map(|&index| AddPartitionsToTxnPartitionResult {
                partition_index: index,
                partition_error_code: code(&topic.name, index).to_i16(),
            })
            .collect(),
    };
    topics.iter().map(topic).collect()
}
