//! OffsetForLeaderEpoch: v2-v4.
//!
//! Behaviour: the end of the largest epoch that is not above the requested one (KIP-101, KIP-279),
//! from which a client learns that records it has read were truncated (KIP-320). For an epoch that
//! this log does not reach back to, epoch and end offset are -1. Versions: v3 replica id; v4
//! flexible. Errors: UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH,
//! UNKNOWN_LEADER_EPOCH, KAFKA_STORAGE_ERROR.

use super::topics::{TopicKey, Topics};
use crate::broker::dispatch::Call;
use crate::error::Result;
use crate::log::EpochEnd;
use crate::protocol::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use crate::types::{LeaderEpoch, PartitionIndex};

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let known = Topics::of(call);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let answer = |wanted: &OffsetForLeaderPartition| {
            let mut response =
                EpochEndOffset { partition: wanted.partition, ..EpochEndOffset::default() };
            match look_up(&known, &topic.topic, wanted) {
                Ok(Some(end)) => {
                    response.leader_epoch = end.epoch.0;
                    response.end_offset = end.end_offset.0;
                }
                Ok(None) => {}
                Err(error) => response.error_code = error.code().to_i16(),
            }
            response
        };
        topics.push(OffsetForLeaderTopicResult {
            topic: topic.topic.clone(),
            partitions: topic.partitions.iter().map(answer).collect(),
        });
    }
    OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() }
}

fn look_up(
    topics: &Topics,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<Option<EpochEnd>> {
    let partition = topics.leader(TopicKey::Name(topic), PartitionIndex(wanted.partition))?;
    partition.check_epoch(LeaderEpoch(wanted.current_leader_epoch))?;
    Ok(partition.end_of_epoch(LeaderEpoch(wanted.leader_epoch)))
}
