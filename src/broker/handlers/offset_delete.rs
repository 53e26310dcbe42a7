//! OffsetDelete: v0.
//!
//! Behaviour: deletes committed offsets of a group, except for topics that a live member is subscribed
//! to. Errors: INVALID_GROUP_ID; GROUP_ID_NOT_FOUND; NON_EMPTY_GROUP; NOT_COORDINATOR;
//! COORDINATOR_NOT_AVAILABLE; COORDINATOR_LOAD_IN_PROGRESS; per partition UNKNOWN_TOPIC_OR_PARTITION
//! and GROUP_SUBSCRIBED_TO_TOPIC.

use std::sync::Arc;

use super::groups;
use super::topics::{TopicKey, Topics};
use crate::broker::dispatch::{Answer, Call};
use crate::broker::words;
use crate::error::{ErrorCode, Result};
use crate::machine::group::{DeleteOffsetsRequest, GroupReply, GroupRequest};
use crate::protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteResponse,
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use crate::types::PartitionIndex;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &OffsetDeleteRequest,
) -> Result<Answer> {
    if request.group_id.is_empty() {
        return Err(words::no_group_id());
    }
    let known_topics = Topics::of(call);
    let mut response = OffsetDeleteResponse::default();
    let mut topics: Vec<(Arc<str>, Vec<PartitionIndex>)> = Vec::new();
    for topic in &request.topics {
        let known = known_topics.find(TopicKey::Name(&topic.name)).ok();
        let exists =
            |index: PartitionIndex| known.is_some_and(|topic| topic.partition(index).is_some());
        let place = |partition: &OffsetDeleteRequestPartition| {
            let partition_index = partition.partition_index;
            let code = if exists(PartitionIndex(partition_index)) {
                ErrorCode::None
            } else {
                ErrorCode::UnknownTopicOrPartition
            };
            OffsetDeleteResponsePartition { partition_index, error_code: code.to_i16() }
        };
        response.topics.push(OffsetDeleteResponseTopic {
            name: topic.name.clone(),
            partitions: topic.partitions.iter().map(place).collect(),
        });
        let wanted =
            topic.partitions.iter().map(|partition| PartitionIndex(partition.partition_index));
        let wanted: Vec<PartitionIndex> = wanted.filter(|&index| exists(index)).collect();
        if !wanted.is_empty() {
            topics.push(((&topic.name).into(), wanted));
        }
    }
    let delete = DeleteOffsetsRequest { group_id: (&request.group_id).into(), topics };
    let request_of_group = GroupRequest::DeleteOffsets(delete);
    let pending = groups::send(call, &request.group_id, request_of_group).await?;
    Ok(groups::later(pending, move |reply| {
        let GroupReply::DeleteOffsets(result) = reply else { return None };
        let results = match result {
            Ok(results) => results,
            Err(error) => {
                let error_code = error.code.to_i16();
                return Some(OffsetDeleteResponse { error_code, ..Default::default() }.into());
            }
        };
        // In the same order as the places that have no error yet.
        let codes = results.into_iter().flat_map(|topic| topic.partitions);
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let places = partitions.filter(|partition| partition.error_code == 0);
        places.zip(codes).for_each(|(place, (_, code))| place.error_code = code.to_i16());
        Some(response.into())
    }))
}
