//! DescribeTransactions: v0.
//!
//! Behaviour: how the transactional ids stand that are coordinated here, with the partitions that have no marker yet.
//! Errors, for each id: INVALID_REQUEST for an empty one; TRANSACTIONAL_ID_NOT_FOUND; NOT_COORDINATOR,
//! COORDINATOR_NOT_AVAILABLE, COORDINATOR_LOAD_IN_PROGRESS.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::dispatch::{Answer, Call};
use crate::broker::state::BrokerState;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::transaction::{DescribedTransaction, TransactionReply, TransactionRequest};
use crate::protocol::Str;
use crate::protocol::messages::describe_transactions::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, TopicData, TransactionState,
};
use crate::types::{PartitionIndex, TopicPartition};

type Described = Result<DescribedTransaction, ErrorCode>;

pub(in crate::broker) fn handle(call: &Call<'_>, request: &DescribeTransactionsRequest) -> Answer {
    let (state, ids) = (Arc::clone(call.state), request.transactional_ids.clone());
    Answer::Later(Box::pin(async move {
        let found = describe(&state, &ids).await;
        let states = ids.iter().map(|id| {
            let missing = Err(ErrorCode::UnknownServerError);
            shown(id, found.get(id.as_str()).unwrap_or(&missing))
        });
        let response = DescribeTransactionsResponse {
            transaction_states: states.collect(),
            ..DescribeTransactionsResponse::default()
        };
        Ok(response.into())
    }))
}

async fn describe(state: &BrokerState, ids: &[Str]) -> BTreeMap<Arc<str>, Described> {
    let mut by_shard: BTreeMap<PartitionIndex, Vec<Arc<str>>> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for id in ids {
        match state.transaction_partition(id) {
            _ if id.is_empty() => {
                found.insert(id.into(), Err(ErrorCode::InvalidRequest));
            }
            Ok(partition) => by_shard.entry(partition).or_default().push(id.into()),
            Err(_) => {
                found.insert(id.into(), Err(ErrorCode::NotCoordinator));
            }
        }
    }
    let mut pending = Vec::new();
    for (partition, ids) in by_shard {
        let request = TransactionRequest::Describe { ids: ids.clone() };
        pending.push((ids, state.transactions().send(partition, request).await));
    }
    for (ids, sent) in pending {
        let reply = match sent {
            Ok(sent) => sent.wait().await,
            Err(error) => Err(error),
        };
        match reply {
            Ok(TransactionReply::Described(described)) => found.extend(described),
            Ok(_) => {}
            Err(error) => found.extend(failed(&ids, &error)),
        }
    }
    found
}

fn failed(ids: &[Arc<str>], error: &Error) -> Vec<(Arc<str>, Described)> {
    ids.iter().map(|id| (Arc::clone(id), Err(error.code()))).collect()
}

fn shown(id: &Str, described: &Described) -> TransactionState {
    let transactional_id = id.clone();
    match described {
        Err(code) => TransactionState {
            error_code: code.to_i16(),
            transactional_id,
            ..TransactionState::default()
        },
        Ok(described) => {
            let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
            for TopicPartition { topic, partition } in &described.partitions {
                topics.entry(topic).or_default().push(partition.0);
            }
            let topic = |(topic, partitions): (&Arc<str>, Vec<i32>)| TopicData {
                topic: topic.into(),
                partitions,
            };
            TransactionState {
                error_code: 0,
                transactional_id,
                transaction_state: Str::from_static(described.state.name()),
                transaction_timeout_ms: described.timeout_ms,
                transaction_start_time_ms: described.start.0,
                producer_id: described.producer.id.0,
                producer_epoch: described.producer.epoch,
                topics: topics.into_iter().map(topic).collect(),
            }
        }
    }
}
