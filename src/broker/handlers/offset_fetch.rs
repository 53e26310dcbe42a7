//! OffsetFetch: v1-v10.
//!
//! Behaviour: the committed offsets of groups: for the partitions listed, or for all that have one.
//! A partition without a committed offset has -1 and no error. Versions: v2 all partitions, error
//! for the group; v5 leader epochs; v7 stable offsets (KIP-447: an error for those that an open transaction may
//! change); v8 many groups (KIP-709); v9 members of consumer groups with their epochs; v10 topic
//! ids. Errors: UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH; NOT_COORDINATOR;
//! COORDINATOR_LOAD_IN_PROGRESS; per partition UNKNOWN_TOPIC_ID, UNSTABLE_OFFSET_COMMIT.

use std::sync::Arc;

use super::groups;
use super::topics::{TopicKey, Topics};
use crate::broker::coordinator::PendingReply;
use crate::broker::dispatch::{Answer, Call};
use crate::error::{ErrorCode, Result};
use crate::machine::group::{
    FetchOffsetsRequest, FetchTopic, FetchedPartition, FetchedTopic, GroupError, GroupReply,
    GroupRequest,
};
use crate::protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::protocol::{Response, Str};
use crate::types::{PartitionIndex, Uuid};

/// The first version that asks for many groups.
const MANY_GROUPS: i16 = 8;
/// The first version with topic ids instead of names.
const TOPIC_IDS: i16 = 10;

/// A requested group.
struct Asked {
    group_id: Str,
    pending: Result<PendingReply>,
    /// Topics that do not exist, already answered.
    unknown: Vec<OffsetFetchResponseTopics>,
}

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &OffsetFetchRequest,
) -> Result<Answer> {
    let version = call.context.api_version;
    let known = Topics::of(call);
    let single;
    let wanted = if version >= MANY_GROUPS {
        &request.groups
    } else {
        single = vec![one_group(request)];
        &single
    };
    let mut asked = Vec::with_capacity(wanted.len());
    for group in wanted {
        asked.push(ask(call, group, request.require_stable, &known).await);
    }
    let request = request.clone();
    Ok(Answer::Later(Box::pin(async move {
        let mut answered = Vec::with_capacity(asked.len());
        for group in asked {
            answered.push(answer(group, version, &known).await);
        }
        let response: Response = if version >= MANY_GROUPS {
            OffsetFetchResponse { groups: answered, ..OffsetFetchResponse::default() }.into()
        } else {
            let group = answered.pop().unwrap_or_default();
            show_single(group, &request, version).into()
        };
        Ok(response)
    })))
}

/// The request of a version before [`MANY_GROUPS`], in the later form.
fn one_group(request: &OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topic = |topic: &OffsetFetchRequestTopic| OffsetFetchRequestTopics {
        name: topic.name.clone(),
        partition_indexes: topic.partition_indexes.clone(),
        ..OffsetFetchRequestTopics::default()
    };
    OffsetFetchRequestGroup {
        group_id: request.group_id.clone(),
        topics: request.topics.as_ref().map(|topics| topics.iter().map(topic).collect()),
        ..OffsetFetchRequestGroup::default()
    }
}

async fn ask(
    call: &Call<'_>,
    group: &OffsetFetchRequestGroup,
    require_stable: bool,
    known: &Topics,
) -> Asked {
    let by_id = call.context.api_version >= TOPIC_IDS;
    let mut unknown = Vec::new();
    let topics = group.topics.as_ref().map(|topics| {
        let mut found = Vec::with_capacity(topics.len());
        for topic in topics {
            let name: Result<Arc<str>> = if by_id {
                known.find(TopicKey::Id(topic.topic_id)).map(|known| known.name.clone())
            } else {
                Ok((&topic.name).into())
            };
            let partitions = PartitionIndex::list(&topic.partition_indexes);
            match name {
                Ok(name) => found.push(FetchTopic { name, id: topic.topic_id, partitions }),
                Err(error) => unknown.push(unknown_topic(topic, error.code())),
            }
        }
        found
    });
    let fetch = FetchOffsetsRequest {
        group_id: (&group.group_id).into(),
        member_id: groups::optional(group.member_id.as_ref()),
        member_epoch: group.member_epoch,
        topics,
        require_stable,
    };
    let pending = groups::send(call, &group.group_id, GroupRequest::FetchOffsets(fetch)).await;
    Asked { group_id: group.group_id.clone(), pending, unknown }
}

fn unknown_topic(topic: &OffsetFetchRequestTopics, code: ErrorCode) -> OffsetFetchResponseTopics {
    let partition = |&partition_index: &i32| OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: -1,
        error_code: code.to_i16(),
        ..OffsetFetchResponsePartitions::default()
    };
    OffsetFetchResponseTopics {
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(partition).collect(),
        ..OffsetFetchResponseTopics::default()
    }
}

async fn answer(asked: Asked, version: i16, known: &Topics) -> OffsetFetchResponseGroup {
    let Asked { group_id, pending, unknown } = asked;
    let fetched = match groups::wait(pending).await {
        Ok(GroupReply::FetchOffsets(fetched)) => fetched,
        Ok(_) => Err(groups::wrong_reply()),
        Err(error) => Err(error),
    };
    match fetched {
        Ok(topics) => {
            let shown = topics.into_iter().filter_map(|topic| show_topic(topic, version, known));
            let topics = shown.chain(unknown).collect();
            OffsetFetchResponseGroup { group_id, topics, error_code: 0 }
        }
        Err(error) => {
            let error_code = to_client(&error).to_i16();
            OffsetFetchResponseGroup { group_id, error_code, ..Default::default() }
        }
    }
}

/// Clients before 3.9 do not retry on COORDINATOR_NOT_AVAILABLE here, as Kafka discovered.
fn to_client(error: &GroupError) -> ErrorCode {
    match error.code {
        ErrorCode::CoordinatorNotAvailable => ErrorCode::NotCoordinator,
        code => code,
    }
}

/// With ids, a deleted topic has none that a client could know.
fn show_topic(
    topic: FetchedTopic,
    version: i16,
    known: &Topics,
) -> Option<OffsetFetchResponseTopics> {
    let topic_id = match version {
        ..TOPIC_IDS => Uuid::ZERO,
        _ if topic.id == Uuid::ZERO => known.find(TopicKey::Name(&topic.name)).ok()?.id,
        _ => topic.id,
    };
    let partition = |partition: FetchedPartition| OffsetFetchResponsePartitions {
        partition_index: partition.partition.0,
        committed_offset: partition.offset.0,
        committed_leader_epoch: partition.leader_epoch.0,
        metadata: Some(partition.metadata.into()),
        error_code: partition.error.to_i16(),
    };
    Some(OffsetFetchResponseTopics {
        name: topic.name.into(),
        topic_id,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    })
}

/// The answer in the form of the versions before [`MANY_GROUPS`].
fn show_single(
    group: OffsetFetchResponseGroup,
    request: &OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if group.error_code != 0 {
        let code = ErrorCode::from_i16(group.error_code);
        let error = crate::error::Error::kafka(code, "the group has an error");
        let request = request.clone().into();
        if let Response::OffsetFetch(response) = super::errors::response(&request, version, &error)
        {
            return response;
        }
    }
    let partition = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    };
    let topic = |topic: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    };
    OffsetFetchResponse {
        topics: group.topics.into_iter().map(topic).collect(),
        ..OffsetFetchResponse::default()
    }
}
