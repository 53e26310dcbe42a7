//! DescribeTopicPartitions: v0.
//!
//! Behaviour: topics in the order of their names, all of them when none is named, up to a number of
//! partitions; then a cursor says where to continue (KIP-966). A cursor skips the topics before it.
//! Errors: UNKNOWN_TOPIC_OR_PARTITION or INVALID_TOPIC_EXCEPTION per named topic; INVALID_REQUEST for
//! a cursor of a topic that is not among the named ones, or with a negative partition.

use std::collections::BTreeSet;

use super::common::{self, Leaders, TOPIC_OPERATIONS};
use super::topics::Topics;
use crate::broker::dispatch::Call;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::metadata::{PartitionImage, TopicImage, is_internal_topic};
use crate::protocol::Str;
use crate::protocol::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use crate::types::{NodeId, PartitionIndex};

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &DescribeTopicPartitionsRequest,
) -> Result<DescribeTopicPartitionsResponse> {
    let known = Topics::of(call);
    let (first, first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), PartitionIndex(cursor.partition_index)),
        None => ("", PartitionIndex(0)),
    };
    let all = request.topics.is_empty();
    let names: BTreeSet<&str> = if all {
        known.all().map(|topic| &*topic.name).filter(|&name| name >= first).collect()
    } else {
        request
            .topics
            .iter()
            .map(|topic| topic.name.as_str())
            .filter(|&name| name >= first)
            .collect()
    };
    check_cursor(request.cursor.as_ref(), all || names.contains(first))?;
    let limit = call.state.config().max_request_partition_size_limit;
    let mut left = usize::try_from(request.response_partition_limit.min(limit).max(1)).unwrap_or(1);
    let leaders = Leaders::of(call.state, known.image());
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        if left == 0 {
            response.next_cursor = Some(Cursor { topic_name: name.into(), partition_index: 0 });
            break;
        }
        let topic = match known.find_valid(name) {
            Ok(topic) => topic,
            Err(error) => {
                response.topics.push(unknown(name, error.code()));
                continue;
            }
        };
        let start = if name == first { first_partition } else { PartitionIndex(0) };
        let (described, next) = describe(&leaders, topic, start, left);
        left = left.saturating_sub(described.partitions.len());
        response.topics.push(described);
        if let Some(PartitionIndex(partition_index)) = next {
            response.next_cursor = Some(Cursor { topic_name: name.into(), partition_index });
            break;
        }
    }
    Ok(response)
}

fn check_cursor(cursor: Option<&Cursor>, is_among_topics: bool) -> Result<()> {
    let Some(cursor) = cursor else { return Ok(()) };
    let wrong = |what: String| Err(Error::kafka(ErrorCode::InvalidRequest, what));
    if !is_among_topics {
        return wrong(format!(
            "the requested topics do not include the cursor's, {}",
            cursor.topic_name
        ));
    }
    if cursor.partition_index < 0 {
        return wrong(format!("the cursor's partition {} is not valid", cursor.partition_index));
    }
    Ok(())
}

fn unknown(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: code.to_i16(),
        name: Some(name.into()),
        is_internal: is_internal_topic(name),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

/// At most `count` partitions from `start` on, and where to continue.
fn describe(
    leaders: &Leaders<'_>,
    topic: &TopicImage,
    start: PartitionIndex,
    count: usize,
) -> (DescribeTopicPartitionsResponseTopic, Option<PartitionIndex>) {
    let mut rest = topic.indexed().skip(start.place().unwrap_or(0));
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let line = |(index, state): (PartitionIndex, &PartitionImage)| {
        let alive = leaders.has(state.leader);
        DescribeTopicPartitionsResponsePartition {
            partition_index: index.0,
            leader_id: if alive { state.leader.0 } else { -1 },
            leader_epoch: state.leader_epoch.0,
            replica_nodes: ids(&state.replicas),
            isr_nodes: ids(&state.isr),
            eligible_leader_replicas: Some(ids(&state.elr)),
            last_known_elr: Some(ids(&state.last_known_elr)),
            offline_replicas: common::offline(leaders.image, &state.replicas),
            ..DescribeTopicPartitionsResponsePartition::default()
        }
    };
    let partitions: Vec<_> = rest.by_ref().take(count).map(line).collect();
    let described = DescribeTopicPartitionsResponseTopic {
        name: Some(Str::from(&topic.name)),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions,
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    };
    (described, rest.next().map(|(index, _)| index))
}
