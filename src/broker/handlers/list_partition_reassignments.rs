//! ListPartitionReassignments: v0.
//!
//! Behaviour: the reassignments in progress of the requested topics, or of all (null). A partition
//! that is not being moved, or does not exist, is not in the answer.
//! Errors: none of its own.

use super::topics::{TopicKey, Topics};
use crate::broker::dispatch::Call;
use crate::machine::metadata::TopicImage;
use crate::protocol::Str;
use crate::protocol::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use crate::types::{NodeId, PartitionIndex};

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let known = Topics::of(call);
    let mut topics = Vec::new();
    match &request.topics {
        None => topics.extend(known.all().filter_map(|topic| ongoing(topic, None))),
        Some(wanted) => {
            for wanted in wanted {
                let Ok(topic) = known.find(TopicKey::Name(&wanted.name)) else { continue };
                topics.extend(ongoing(topic, Some(&wanted.partition_indexes)));
            }
        }
    }
    ListPartitionReassignmentsResponse { topics, error_message: None, ..Default::default() }
}

fn ongoing(topic: &TopicImage, only: Option<&[i32]>) -> Option<OngoingTopicReassignment> {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let partitions: Vec<_> = topic
        .indexed()
        .filter(|(index, _)| only.is_none_or(|only| only.contains(&index.0)))
        .filter(|(_, state)| state.is_reassigning())
        .map(|(PartitionIndex(partition_index), state)| OngoingPartitionReassignment {
            partition_index,
            replicas: numbers(&state.replicas),
            adding_replicas: numbers(&state.adding),
            removing_replicas: numbers(&state.removing),
        })
        .collect();
    (!partitions.is_empty())
        .then(|| OngoingTopicReassignment { name: Str::from(&topic.name), partitions })
}
