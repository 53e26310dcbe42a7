//! DescribeProducers: v0.
//!
//! Behaviour: the producers that the log of a partition remembers, with the epoch, sequence and time
//! of their last batch (KIP-664).
//! Errors: INVALID_TOPIC_EXCEPTION, UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER,
//! KAFKA_STORAGE_ERROR.

use super::common;
use crate::broker::dispatch::Call;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::metadata::MetadataImage;
use crate::protocol::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicRequest, TopicResponse,
};

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &DescribeProducersRequest,
) -> DescribeProducersResponse {
    let image = call.state.image();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for &partition_index in &topic.partition_indexes {
            let mut response =
                PartitionResponse { partition_index, ..PartitionResponse::default() };
            match producers(call, &image, topic, partition_index) {
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
    call: &Call<'_>,
    image: &MetadataImage,
    topic: &TopicRequest,
    index: i32,
) -> Result<Vec<ProducerState>> {
    if !common::is_topic_name(&topic.name) {
        let context = format!("{:?} is not the name of a topic", topic.name.as_str());
        return Err(Error::kafka(ErrorCode::InvalidTopicException, context));
    }
    let known = common::find_topic(image, &topic.name)?;
    let partition = call.state.partitions().leader(known, index)?;
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
