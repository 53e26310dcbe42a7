//! DescribeGroups, ListGroups and DeleteGroups.

use std::sync::Arc;

use bytes::Bytes;

use super::classic::{ClassicGroup, ClassicState};
use super::offsets::no_group;
use super::reply::{DescribedGroup, DescribedMember, GroupError, GroupReply, ListedGroup};
use super::request::{ListRequest, RequestId};
use super::shard::{Group, GroupShard};
use crate::error::ErrorCode;

/// Takes a DescribeGroups: classic groups, one answer for each id.
pub(super) fn describe(shard: &GroupShard, ids: Vec<Arc<str>>) -> GroupReply {
    let described = ids.into_iter().map(|id| match shard.groups.get(&id) {
        Some(Group::Classic(group)) => describe_classic(id, group),
        Some(Group::Consumer(_)) => {
            let message = format!("group {id} is not a classic group");
            dead(id, GroupError::new(ErrorCode::GroupIdNotFound, message))
        }
        None => {
            let error = no_group(&id);
            dead(id, error)
        }
    });
    GroupReply::Describe(described.collect())
}

fn dead(group_id: Arc<str>, error: GroupError) -> DescribedGroup {
    DescribedGroup {
        error: Some(error),
        group_id,
        state: "Dead",
        protocol_type: "".into(),
        protocol: "".into(),
        members: Vec::new(),
    }
}

fn describe_classic(group_id: Arc<str>, group: &ClassicGroup) -> DescribedGroup {
    let protocol = match (group.state(), group.protocol()) {
        (ClassicState::Stable, Some(protocol)) => Some(protocol),
        _ => None,
    };
    let members = group.members().iter().map(|(id, member)| DescribedMember {
        member_id: id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: protocol.map_or_else(Bytes::new, |protocol| member.metadata(protocol)),
        assignment: member.assignment.clone(),
    });
    DescribedGroup {
        error: None,
        group_id,
        state: group.state().name(),
        protocol_type: group.protocol_type().cloned().unwrap_or_else(|| "".into()),
        protocol: protocol.cloned().unwrap_or_else(|| "".into()),
        members: members.collect(),
    }
}

/// Takes a ListGroups.
pub(super) fn list(shard: &GroupShard, request: &ListRequest) -> GroupReply {
    let wanted = |filter: &[Arc<str>], word: &str| {
        filter.is_empty() || filter.iter().any(|given| given.trim().eq_ignore_ascii_case(word))
    };
    let listed = shard.groups.iter().map(|(id, group)| match group {
        Group::Classic(group) => ListedGroup {
            group_id: id.clone(),
            protocol_type: group.protocol_type().cloned().unwrap_or_else(|| "".into()),
            state: group.state().name(),
            group_type: "classic",
        },
        Group::Consumer(group) => ListedGroup {
            group_id: id.clone(),
            protocol_type: super::classic::CONSUMER_PROTOCOL.into(),
            state: group.state_name(),
            group_type: "consumer",
        },
    });
    let is_wanted = |group: &ListedGroup| {
        wanted(&request.states, group.state) && wanted(&request.types, group.group_type)
    };
    GroupReply::List(listed.filter(is_wanted).collect())
}

/// Takes a DeleteGroups, for groups of either protocol.
pub(super) fn delete(shard: &mut GroupShard, id: RequestId, groups: Vec<Arc<str>>) {
    let mut results = Vec::with_capacity(groups.len());
    for group_id in groups {
        let result = match shard.groups.get(&group_id) {
            None => Err(no_group(&group_id)),
            Some(group) if !group.is_empty() => {
                let message = format!("group {group_id} has members: stop them first");
                Err(GroupError::new(ErrorCode::NonEmptyGroup, message))
            }
            Some(group) => {
                let mut records = Vec::new();
                shard.offsets.tombstones(&group_id, &mut records);
                group.tombstones(&group_id, &mut records);
                shard.commit(records, None);
                Ok(())
            }
        };
        results.push((group_id, result));
    }
    shard.context.reply(id, GroupReply::Delete(results));
}
