//! ConsumerGroupDescribe: v0-v1.
//!
//! Behaviour: groups of the consumer protocol (KIP-848) with their members, in the order of the request.
//! Versions: v1 whether a member uses the classic or the consumer protocol (KIP-1099).
//! Errors: INVALID_GROUP_ID; GROUP_ID_NOT_FOUND, also for a classic group; NOT_COORDINATOR;
//! COORDINATOR_NOT_AVAILABLE; COORDINATOR_LOAD_IN_PROGRESS; UNSUPPORTED_VERSION below `group.version` 1.

use super::groups;
use crate::broker::dispatch::{Answer, Call};
use crate::error::{ErrorCode, Result};
use crate::machine::group::{
    DescribedConsumerGroup, DescribedConsumerMember, GroupError, GroupReply, GroupRequest,
    NamedPartitions,
};
use crate::protocol::Str;
use crate::protocol::messages::consumer_group_describe::{
    Assignment, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribedGroup,
    Member, TopicPartitions,
};
use crate::types::PartitionIndex;

/// The member types of version 1.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &ConsumerGroupDescribeRequest,
) -> Result<Answer> {
    groups::check_consumer_protocol(call)?;
    let describe = |groups| GroupRequest::ConsumerDescribe { groups };
    let named = request.group_ids.iter().filter(|group| !group.is_empty());
    let named: Vec<Str> = named.cloned().collect();
    let sent = groups::send_each(call, &named, describe).await?;
    let wanted = request.group_ids.clone();
    let operations = request.include_authorized_operations;
    Ok(Answer::Later(Box::pin(async move {
        let mut described = Vec::with_capacity(wanted.len());
        for (ids, pending) in sent {
            let failed = |error: GroupError| -> Vec<DescribedGroup> {
                ids.iter().map(|id| refused(&Str::from(id), &error)).collect()
            };
            described.extend(match groups::wait(pending).await {
                Ok(GroupReply::ConsumerDescribe(groups)) => {
                    groups.into_iter().map(|group| show(group, operations)).collect()
                }
                Ok(_) => failed(groups::wrong_reply()),
                Err(error) => failed(error),
            });
        }
        let missing = |group: &Str, error: GroupError| {
            if group.is_empty() {
                let text = "the group id must not be empty";
                return refused(group, &GroupError::new(ErrorCode::InvalidGroupId, text));
            }
            refused(group, &error)
        };
        let groups = groups::in_order(&wanted, described, |group| group.group_id.as_str(), missing);
        let response =
            ConsumerGroupDescribeResponse { groups, ..ConsumerGroupDescribeResponse::default() };
        Ok(response.into())
    })))
}

fn refused(group: &Str, error: &GroupError) -> DescribedGroup {
    DescribedGroup {
        error_code: error.code.to_i16(),
        error_message: Some(Str::from(error.message.as_str())),
        group_id: group.clone(),
        ..DescribedGroup::default()
    }
}

fn show(group: DescribedConsumerGroup, operations: bool) -> DescribedGroup {
    let operations = operations && group.error.is_none();
    DescribedGroup {
        error_code: groups::code(group.error.as_ref()),
        error_message: group.error.map(|error| Str::from(error.message)),
        group_id: group.group_id.into(),
        group_state: Str::from_static(group.state),
        group_epoch: group.group_epoch,
        assignment_epoch: group.assignment_epoch,
        assignor_name: group.assignor.into(),
        members: group.members.into_iter().map(show_member).collect(),
        authorized_operations: if operations { groups::GROUP_OPERATIONS } else { i32::MIN },
    }
}

fn show_member(member: DescribedConsumerMember) -> Member {
    let assignment = |topics: Vec<NamedPartitions>| Assignment {
        topic_partitions: topics
            .into_iter()
            .map(|topic| TopicPartitions {
                topic_id: topic.topic_id,
                topic_name: topic.topic_name.into(),
                partitions: PartitionIndex::numbers(&topic.partitions),
            })
            .collect(),
    };
    Member {
        member_id: member.member_id.into(),
        instance_id: member.instance_id.map(Str::from),
        rack_id: member.rack_id.map(Str::from),
        member_epoch: member.member_epoch,
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        subscribed_topic_names: member.subscribed_topic_names.iter().map(Str::from).collect(),
        // Nullable in the schema; Kafka writes an empty one when there is none.
        subscribed_topic_regex: Some(
            member.subscribed_topic_regex.map(Str::from).unwrap_or_default(),
        ),
        assignment: assignment(member.assignment),
        target_assignment: assignment(member.target_assignment),
        member_type: if member.is_classic { CLASSIC_MEMBER } else { CONSUMER_MEMBER },
    }
}
