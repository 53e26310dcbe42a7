//! ElectLeaders: v0-v2.
//!
//! Behaviour: elects the preferred leader of each partition or, where nobody leads, any replica that is
//! alive (unclean: what only others have is lost). Null asks for all partitions; those that need no
//! election are then not in the answer. Versions: v1 election types (KIP-460) and an error for the whole
//! request; v2 flexible. Errors: ELECTION_NOT_NEEDED, PREFERRED_LEADER_NOT_AVAILABLE,
//! ELIGIBLE_LEADERS_NOT_AVAILABLE, UNKNOWN_TOPIC_OR_PARTITION; INVALID_REQUEST for an election type
//! that does not exist; REQUEST_TIMED_OUT.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::common;
use crate::broker::dispatch::Call;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::{ElectLeaders, Election, Refusal};
use crate::protocol::Str;
use crate::protocol::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
    TopicPartitions,
};
use crate::types::{PartitionIndex, TopicPartition};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &ElectLeadersRequest,
) -> Result<ElectLeadersResponse> {
    if request.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
        return Ok(ElectLeadersResponse::default());
    }
    let election = match request.election_type {
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        other => {
            let context = format!("there is no election type {other}");
            return Err(Error::kafka(ErrorCode::InvalidRequest, context));
        }
    };
    let asked = request.topic_partitions.as_deref();
    let partitions = asked.map(|topics| topics.iter().flat_map(named).collect());
    let outcomes = call.state.submit(ElectLeaders { election, partitions }, request.timeout_ms);
    let outcomes = outcomes.await?;
    let replica_election_results = match asked {
        Some(topics) => in_order(topics, outcomes.into_iter().collect()),
        None => by_topic(outcomes),
    };
    Ok(ElectLeadersResponse { replica_election_results, ..ElectLeadersResponse::default() })
}

fn named(topic: &TopicPartitions) -> impl Iterator<Item = TopicPartition> {
    let name: Arc<str> = (&topic.topic).into();
    topic.partitions.iter().map(move |&index| TopicPartition::new(name.clone(), index))
}

/// The outcomes as they were asked for.
fn in_order(
    topics: &[TopicPartitions],
    outcomes: BTreeMap<TopicPartition, Result<(), Refusal>>,
) -> Vec<ReplicaElectionResult> {
    let outcome = |partition: TopicPartition| {
        let outcome = outcomes.get(&partition)?.clone();
        Some(result(partition.partition, outcome))
    };
    let of = |topic: &TopicPartitions| ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: named(topic).filter_map(outcome).collect(),
    };
    topics.iter().map(of).collect()
}

fn by_topic(outcomes: Vec<(TopicPartition, Result<(), Refusal>)>) -> Vec<ReplicaElectionResult> {
    let mut topics: BTreeMap<_, Vec<PartitionResult>> = BTreeMap::new();
    for (partition, outcome) in outcomes {
        topics.entry(partition.topic).or_default().push(result(partition.partition, outcome));
    }
    let of = |(topic, partition_result): (Arc<str>, _)| ReplicaElectionResult {
        topic: Str::from(&topic),
        partition_result,
    };
    topics.into_iter().map(of).collect()
}

fn result(partition: PartitionIndex, outcome: Result<(), Refusal>) -> PartitionResult {
    let (error_code, error_message) = common::refusal(outcome);
    PartitionResult { partition_id: partition.0, error_code, error_message }
}
