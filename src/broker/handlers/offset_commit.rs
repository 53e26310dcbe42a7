//! OffsetCommit: v2-v10.
//!
//! Behaviour: stores offsets of a group; answered once they are committed to the log. Accepted from
//! members of a classic group with their generation, from members of a consumer group with their epoch,
//! and from anybody (generation -1, no member) while the group is empty. Versions: v2-v4 a retention per
//! commit; v6 leader epochs (KIP-320); v7 static members; v9 epochs of consumer groups and
//! STALE_MEMBER_EPOCH; v10 topic ids. Errors, per partition: UNKNOWN_TOPIC_OR_PARTITION,
//! UNKNOWN_TOPIC_ID; OFFSET_METADATA_TOO_LARGE; UNKNOWN_MEMBER_ID; FENCED_INSTANCE_ID;
//! ILLEGAL_GENERATION; STALE_MEMBER_EPOCH; REBALANCE_IN_PROGRESS; GROUP_ID_NOT_FOUND; NOT_COORDINATOR;
//! COORDINATOR_NOT_AVAILABLE; COORDINATOR_LOAD_IN_PROGRESS.

use super::topics::{TopicKey, Topics};
use super::{commits, groups};
use crate::broker::dispatch::{Answer, Call};
use crate::error::Result;
use crate::machine::group::{CommitOffsetsRequest, CommitTopic, GroupReply, GroupRequest};
use crate::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::types::PartitionIndex;

/// The first version with topic ids instead of names.
const TOPIC_IDS: i16 = 10;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &OffsetCommitRequest,
) -> Result<Answer> {
    let version = call.context.api_version;
    let known = Topics::of(call);
    let mut response = OffsetCommitResponse::default();
    let mut topics = Vec::new();
    for topic in &request.topics {
        let (shown, wanted) = split(topic, version, &known);
        response.topics.push(shown);
        topics.extend(wanted);
    }
    if topics.is_empty() {
        return Ok(response.into());
    }
    let commit = CommitOffsetsRequest {
        group_id: (&request.group_id).into(),
        generation_or_epoch: request.generation_id_or_member_epoch,
        member_id: (&request.member_id).into(),
        instance_id: groups::optional(request.group_instance_id.as_ref()),
        retention_ms: (request.retention_time_ms >= 0).then_some(request.retention_time_ms),
        knows_member_epochs: version >= 9,
        transaction: None,
        topics,
    };
    let request_of_group = GroupRequest::CommitOffsets(commit);
    let pending = groups::send(call, &request.group_id, request_of_group).await?;
    Ok(groups::later(pending, move |reply| match reply {
        GroupReply::CommitOffsets(result) => {
            commits::fill(places(&mut response), result, |code| code);
            Some(response.into())
        }
        _ => None,
    }))
}

/// See [`commits::split`].
fn split(
    topic: &OffsetCommitRequestTopic,
    version: i16,
    topics: &Topics,
) -> (OffsetCommitResponseTopic, Option<CommitTopic>) {
    let key = TopicKey::of(&topic.name, topic.topic_id, version >= TOPIC_IDS);
    let partition = |partition: &OffsetCommitRequestPartition| {
        let at = (partition.committed_offset, partition.committed_leader_epoch);
        let index = PartitionIndex(partition.partition_index);
        commits::partition(index, at, partition.committed_metadata.as_ref())
    };
    let asked = topic.partitions.iter().map(partition).collect();
    let (codes, wanted) = commits::split(topics, key, asked);
    let told =
        topic.partitions.iter().zip(codes).map(|(partition, code)| OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: code.to_i16(),
        });
    let shown = OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: told.collect(),
    };
    (shown, wanted)
}

/// Where the result for each partition is told.
fn places(response: &mut OffsetCommitResponse) -> impl Iterator<Item = &mut i16> {
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    partitions.map(|partition| &mut partition.error_code)
}
