//! AlterPartitionReassignments: v0-v1.
//!
//! Behaviour: moves partitions to other brokers, each independently: the new replicas copy, and when all of
//! them are in sync, those that are not wanted any more leave. Null replicas stop a move and return to
//! the replicas before it. Versions: v1 whether the number of replicas may change (KIP-860). Errors:
//! INVALID_REPLICA_ASSIGNMENT, INVALID_REPLICATION_FACTOR, NO_REASSIGNMENT_IN_PROGRESS,
//! UNKNOWN_TOPIC_OR_PARTITION; INVALID_REQUEST for a partition that is listed twice; POLICY_VIOLATION
//! for more partitions than one request may move; REQUEST_TIMED_OUT.

use std::sync::Arc;

use super::common;
use crate::broker::dispatch::Call;
use crate::error::Result;
use crate::machine::controller::{AlterPartitionReassignments, Reassignment};
use crate::protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopic, ReassignableTopicResponse,
};
use crate::types::{NodeId, TopicPartition};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &AlterPartitionReassignmentsRequest,
) -> Result<AlterPartitionReassignmentsResponse> {
    if request.topics.is_empty() {
        return Ok(AlterPartitionReassignmentsResponse::default());
    }
    let allow_replication_factor_change = request.allow_replication_factor_change;
    let reassignments = request.topics.iter().flat_map(reassignments).collect();
    let command = AlterPartitionReassignments { reassignments, allow_replication_factor_change };
    let mut outcomes = call.state.submit(command, request.timeout_ms).await?.into_iter();
    let partition = |(partition, outcome): (&ReassignablePartition, _)| {
        let (error_code, error_message) = common::refusal(outcome);
        let partition_index = partition.partition_index;
        ReassignablePartitionResponse { partition_index, error_code, error_message }
    };
    let topic = |topic: &ReassignableTopic| ReassignableTopicResponse {
        name: topic.name.clone(),
        partitions: topic.partitions.iter().zip(outcomes.by_ref()).map(partition).collect(),
    };
    Ok(AlterPartitionReassignmentsResponse {
        allow_replication_factor_change,
        error_message: None,
        responses: request.topics.iter().map(topic).collect(),
        ..AlterPartitionReassignmentsResponse::default()
    })
}

fn reassignments(topic: &ReassignableTopic) -> impl Iterator<Item = Reassignment> {
    let name: Arc<str> = (&topic.name).into();
    topic.partitions.iter().map(move |wanted| Reassignment {
        partition: TopicPartition::new(name.clone(), wanted.partition_index),
        replicas: wanted.replicas.as_ref().map(|ids| ids.iter().copied().map(NodeId).collect()),
    })
}
