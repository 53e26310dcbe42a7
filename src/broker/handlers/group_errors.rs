//! The answer to a group request that failed as a whole, in the form of its API.
//!
//! Part of `errors`, in a file of its own because there are many.

use super::errors::Failure;
use crate::protocol::Str;
use crate::protocol::messages::{
    consumer_group_describe as consumer_describe, consumer_group_heartbeat as consumer_heartbeat,
    delete_groups, describe_groups, join_group, offset_commit, offset_fetch,
};

impl Failure {
    pub(super) fn join_group(&self) -> join_group::JoinGroupResponse {
        join_group::JoinGroupResponse {
            error_code: self.code,
            // Before version 7 the name is not nullable.
            protocol_name: (self.version < 7).then_some(Str::EMPTY),
            ..Default::default()
        }
    }

    pub(super) fn consumer_group_heartbeat(
        &self,
    ) -> consumer_heartbeat::ConsumerGroupHeartbeatResponse {
        consumer_heartbeat::ConsumerGroupHeartbeatResponse {
            error_code: self.code,
            error_message: Some(self.text.clone()),
            ..Default::default()
        }
    }

    pub(super) fn offset_commit(
        &self,
        request: &offset_commit::OffsetCommitRequest,
    ) -> offset_commit::OffsetCommitResponse {
        use offset_commit as m;
        let partition =
            |partition: &m::OffsetCommitRequestPartition| m::OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: self.code,
            };
        let topic = |topic: &m::OffsetCommitRequestTopic| m::OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic.partitions.iter().map(partition).collect(),
        };
        m::OffsetCommitResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    /// Version 1 has errors for partitions only, 2 to 7 one for the group, 8 one for each group.
    pub(super) fn offset_fetch(
        &self,
        request: &offset_fetch::OffsetFetchRequest,
    ) -> offset_fetch::OffsetFetchResponse {
        use offset_fetch as m;
        if self.version >= 8 {
            let group = |group: &m::OffsetFetchRequestGroup| m::OffsetFetchResponseGroup {
                group_id: group.group_id.clone(),
                error_code: self.code,
                ..Default::default()
            };
            let groups = request.groups.iter().map(group).collect();
            return m::OffsetFetchResponse { groups, ..Default::default() };
        }
        if self.version >= 2 {
            return m::OffsetFetchResponse { error_code: self.code, ..Default::default() };
        }
        let partition = |&partition_index: &i32| m::OffsetFetchResponsePartition {
            partition_index,
            committed_offset: -1,
            error_code: self.code,
            ..Default::default()
        };
        let topic = |topic: &m::OffsetFetchRequestTopic| m::OffsetFetchResponseTopic {
            name: topic.name.clone(),
            partitions: topic.partition_indexes.iter().map(partition).collect(),
        };
        m::OffsetFetchResponse {
            topics: request.topics.iter().flatten().map(topic).collect(),
            ..Default::default()
        }
    }

    pub(super) fn describe_groups(
        &self,
        request: &describe_groups::DescribeGroupsRequest,
    ) -> describe_groups::DescribeGroupsResponse {
        use describe_groups as m;
        let group = |group_id: &Str| m::DescribedGroup {
            error_code: self.code,
            error_message: (self.version >= 6).then(|| self.text.clone()),
            group_id: group_id.clone(),
            ..Default::default()
        };
        m::DescribeGroupsResponse {
            groups: request.groups.iter().map(group).collect(),
            ..Default::default()
        }
    }

    pub(super) fn delete_groups(
        &self,
        request: &delete_groups::DeleteGroupsRequest,
    ) -> delete_groups::DeleteGroupsResponse {
        use delete_groups as m;
        let result = |group_id: &Str| m::DeletableGroupResult {
            group_id: group_id.clone(),
            error_code: self.code,
            error_message: Some(self.text.clone()),
        };
        m::DeleteGroupsResponse {
            results: request.groups_names.iter().map(result).collect(),
            ..Default::default()
        }
    }

    pub(super) fn consumer_group_describe(
        &self,
        request: &consumer_describe::ConsumerGroupDescribeRequest,
    ) -> consumer_describe::ConsumerGroupDescribeResponse {
        use consumer_describe as m;
        let group = |group_id: &Str| m::DescribedGroup {
            error_code: self.code,
            error_message: Some(self.text.clone()),
            group_id: group_id.clone(),
            ..Default::default()
        };
        m::ConsumerGroupDescribeResponse {
            groups: request.group_ids.iter().map(group).collect(),
            ..Default::default()
        }
    }
}
