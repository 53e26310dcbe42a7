//! DescribeProducers: v0.
//!
//! Behaviour: the producers that the log of a partition remembers, with the epoch, sequence and time
//! of their last batch (KIP-664). Followers answer, too: `kafka-transactions find-hanging --broker-id` asks a broker about all
//! that it has a copy of.
//! Errors: INVALID_TOPIC_EXCEPTION, UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER,
//! KAFKA_STORAGE_ERROR.

use super::topics::{TopicKey, Topics};
use crate::broker::dispatch::Call;
use crate::error::Result;
use crate::protocol::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicRequest, TopicResponse,
};
use crate::types::PartitionIndex;

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &DescribeProducersRequest,
) -> DescribeProducersResponse {
    let known = Topics::of(call);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for &partition_index in &topic.partition_indexes {
            let mut response =
                PartitionResponse { partition_index, ..PartitionResponse::default() };
            match producers(&known, topic, PartitionIndex(partition_index)) {
                Ok(found) => response.active_producers = found,
                Err(error) => {
                    response.error_code = error.code().to_i16();
                    response.error_message = Some(error.chain().into());
                }
            }
            partitions.push(response);
        }
        topics.push(TopicResponse { name: topic.name.clone(), partitions });
    }
    DescribeProducersResponse { topics, ..DescribeProducersResponse::default() }
}

fn producers(
    topics: &Topics,
    topic: &TopicRequest,
    index: PartitionIndex,
) -> Result<Vec<ProducerState>> {
    topics.find_valid(&topic.name)?;
    let partition = topics.replica(TopicKey::Name(&topic.name), index)?;
    let states = partition.reader().producers();
    Ok(states
        .iter()
        .map(|state| ProducerState {
            producer_id: state.producer_id.0,
            producer_epoch: i32::from(state.epoch.0),
            last_sequence: state.last_sequence().0,
            last_timestamp: state.last_timestamp.0,
            coordinator_epoch: state.coordinator_epoch,
            current_txn_start_offset: state.current_txn_first_offset.map_or(-1, |first| first.0),
        })
        .collect())
}
