//! Consumer groups as ConsumerGroupDescribe shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::member::{Member, Owned, target_into, topic_partitions};
use super::work::Work;
use crate::error::ErrorCode;
use crate::machine::group::TopicsView;
use crate::machine::group::record::TopicPartitions;
use crate::machine::group::reply::{
    DescribedConsumerGroup, DescribedConsumerMember, GroupError, NamedPartitions,
};
use crate::machine::group::shard::{Group, GroupShard};

/// Describes consumer groups, one for each id.
pub(in crate::machine::group) fn describe(
    shard: &GroupShard,
    groups: &[Arc<str>],
) -> Vec<DescribedConsumerGroup> {
    groups.iter().map(|id| describe_one(shard, id)).collect()
}

fn describe_one(shard: &GroupShard, id: &Arc<str>) -> DescribedConsumerGroup {
    let Some(Group::Consumer(group)) = shard.groups.get(id) else {
        let message = if shard.groups.contains_key(id) {
            format!("group {id} uses the classic protocol; describe it as a classic group")
        } else {
            format!("group {id} does not exist")
        };
        let error = GroupError::new(ErrorCode::GroupIdNotFound, message);
        return DescribedConsumerGroup::failed(Arc::clone(id), error);
    };
    let topics = &shard.context.topics;
    DescribedConsumerGroup {
        error: None,
        group_id: Arc::clone(id),
        state: group.state_name(),
        group_epoch: group.epoch,
        assignment_epoch: group.target_epoch,
        assignor: Work::assignor_of(group, &shard.context.config).name().into(),
        members: group
            .members()
            .map(|(member, state)| {
                let target = group.target(member).map(target_into).unwrap_or_default();
                describe_member(member, state, &target, topics)
            })
            .collect(),
    }
}

fn describe_member(
    id: &Arc<str>,
    member: &Member,
    target: &[TopicPartitions],
    topics: &TopicsView,
) -> DescribedConsumerMember {
    let said = &member.said;
    DescribedConsumerMember {
        member_id: Arc::clone(id),
        instance_id: said.instance_id.clone(),
        rack_id: said.rack_id.clone(),
        member_epoch: member.current.epoch,
        client_id: Arc::clone(&said.client_id),
        client_host: Arc::clone(&said.client_host),
        subscribed_topic_names: said.subscribed_topic_names.clone(),
        subscribed_topic_regex: said.subscribed_topic_regex.clone(),
        assignment: named(&topic_partitions(&held(member)), topics),
        target_assignment: named(target, topics),
        is_classic: member.uses_classic_protocol(),
    }
}

/// What a member has, including what it is to give up and has not yet.
fn held(member: &Member) -> Owned {
    let mut held = member.current.assigned.clone();
    for (topic, partitions) in &member.current.pending_revocation {
        held.entry(*topic).or_default().extend(partitions);
    }
    held
}

fn named(partitions: &[TopicPartitions], topics: &TopicsView) -> Vec<NamedPartitions> {
    let by_name: BTreeMap<&Arc<str>, &TopicPartitions> = partitions
        .iter()
        .filter_map(|entry| Some((&topics.topic_by_id(entry.topic_id)?.name, entry)))
        .collect();
    by_name
        .into_iter()
        .map(|(name, entry)| NamedPartitions {
            topic_id: entry.topic_id,
            topic_name: Arc::clone(name),
            partitions: entry.partitions.clone(),
        })
        .collect()
}
