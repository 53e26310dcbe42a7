//! FindCoordinator: v0-v6.
//!
//! Behaviour: the broker that leads the partition of `__consumer_offsets` that a group belongs to, or that of
//! `__transaction_state` that a transactional id belongs to. The topic is created when it does not exist. Versions: v1 key
//! type and message; v4 many keys at once (KIP-699). Errors: COORDINATOR_NOT_AVAILABLE when the topic cannot be created or
//! its partition has no leader; INVALID_REQUEST for share groups, which ottla does not have, and for an unknown key type.

use super::topics::{TopicKey, Topics};
use super::{common, groups, transactions};
use crate::broker::coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC, partition_of};
use crate::broker::dispatch::Call;
use crate::broker::words;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::Str;
use crate::protocol::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use crate::types::{PartitionIndex, TopicPartition};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let keys = match call.context.api_version {
        ..4 => std::slice::from_ref(&request.key),
        _ => request.coordinator_keys.as_slice(),
    };
    let count = topic_of(call, request.key_type).await;
    let find = |key: &Str| {
        let found = match &count {
            Ok((topic, count)) => leader(call, topic, partition_of(key, *count)),
            Err(error) => Err(error.under_code(error.code())),
        };
        found.map_or_else(
            |error| refused(key, &error),
            |found| Coordinator { key: key.clone(), ..found },
        )
    };
    let mut coordinators: Vec<Coordinator> = keys.iter().map(find).collect();
    if call.context.api_version >= 4 {
        return FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() };
    }
    let found = coordinators.pop().unwrap_or_default();
    FindCoordinatorResponse {
        error_code: found.error_code,
        // Kafka writes a message here even without an error.
        error_message: match found.error_code {
            0 => Some(Str::from_static("NONE")),
            _ => found.error_message,
        },
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }
}

/// The topic of a kind of coordinator, and how many partitions it has.
async fn topic_of(call: &Call<'_>, key_type: i8) -> Result<(&'static str, i32)> {
    let refuse = |context: &str| Err(Error::kafka(ErrorCode::InvalidRequest, context));
    match key_type {
        GROUP => Ok((OFFSETS_TOPIC, groups::partition_count(call).await?)),
        TRANSACTION => Ok((TRANSACTIONS_TOPIC, transactions::partition_count(call).await?)),
        SHARE => refuse("this broker does not support share groups"),
        _ => refuse("unknown key type"),
    }
}

/// The broker that leads a partition of the topic, and is alive.
fn leader(call: &Call<'_>, topic_name: &str, partition: PartitionIndex) -> Result<Coordinator> {
    let topics = Topics::of(call);
    let topic = topics.find(TopicKey::Name(topic_name))?;
    let leader = topic.partition(partition).map(|partition| partition.leader);
    let nodes = common::brokers(call.state, call.context.reached());
    let node = nodes.into_iter().find(|node| Some(node.id) == leader).ok_or_else(|| {
        let name = TopicPartition::new(topic_name, partition);
        words::no_leader(ErrorCode::CoordinatorNotAvailable, &name)
    })?;
    Ok(Coordinator {
        node_id: node.id.0,
        host: node.host,
        port: node.port,
        ..Coordinator::default()
    })
}

fn refused(key: &Str, error: &Error) -> Coordinator {
    Coordinator {
        key: key.clone(),
        node_id: -1,
        port: -1,
        error_code: error.code().to_i16(),
        error_message: Some(error.chain().into()),
        ..Coordinator::default()
    }
}
