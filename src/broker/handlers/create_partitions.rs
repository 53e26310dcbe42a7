//! CreatePartitions: v0-v3.
//!
//! Behaviour: adds partitions to topics, each topic independently; when the answer arrives they are
//! in Metadata and can be written to. With validate_only the request is only checked. Versions: v2
//! flexible; v3 quota violations (there are no quotas). Errors: UNKNOWN_TOPIC_OR_PARTITION,
//! INVALID_PARTITIONS, INVALID_REPLICA_ASSIGNMENT; INVALID_REQUEST for a topic that is listed
//! twice; REQUEST_TIMED_OUT.

use std::collections::BTreeSet;

use super::common;
use crate::broker::dispatch::Call;
use crate::error::Result;
use crate::machine::controller::{CreatePartitions, NewPartitions};
use crate::protocol::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsResponse,
    CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use crate::types::NodeId;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &CreatePartitionsRequest,
) -> Result<CreatePartitionsResponse> {
    let topics = request.topics.iter().map(new_partitions).collect();
    let command = CreatePartitions { topics, validate_only: request.validate_only };
    let results = call.state.submit(command, request.timeout_ms).await?;
    let mut named = BTreeSet::new();
    let results = request
        .topics
        .iter()
        .zip(results)
        .filter(|(topic, _)| named.insert(topic.name.as_str()))
        .map(|(topic, result)| {
            let (error_code, error_message) = common::refusal(result);
            CreatePartitionsTopicResult { name: topic.name.clone(), error_code, error_message }
        })
        .collect();
    Ok(CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() })
}

fn new_partitions(topic: &CreatePartitionsTopic) -> NewPartitions {
    let nodes = |assignment: &CreatePartitionsAssignment| {
        assignment.broker_ids.iter().copied().map(NodeId).collect()
    };
    NewPartitions {
        name: (&topic.name).into(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|all| all.iter().map(nodes).collect()),
    }
}
