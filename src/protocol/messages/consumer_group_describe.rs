//! ConsumerGroupDescribe (API key 69).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the ConsumerGroupDescribe request.
    struct ConsumerGroupDescribeRequest versions [0-1] flexible [0+] {
        group_ids: Vec<Str>, "GroupIds" [0+];
        include_authorized_operations: bool, "IncludeAuthorizedOperations" [0+];
    }

    /// The body of the ConsumerGroupDescribe response.
    struct ConsumerGroupDescribeResponse versions [0-1] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        groups: Vec<DescribedGroup>, "Groups" [0+];
    }

    /// An element of [`ConsumerGroupDescribeResponse::groups`].
    struct DescribedGroup {
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str>, "ErrorMessage" [0+] nullable [0+];
        group_id: Str, "GroupId" [0+];
        group_state: Str, "GroupState" [0+];
        group_epoch: i32, "GroupEpoch" [0+];
        assignment_epoch: i32, "AssignmentEpoch" [0+];
        assignor_name: Str, "AssignorName" [0+];
        members: Vec<Member>, "Members" [0+];
        authorized_operations: i32 = i32::MIN, "AuthorizedOperations" [0+];
    }

    /// An element of [`DescribedGroup::members`].
    struct Member {
        member_id: Str, "MemberId" [0+];
        instance_id: Option<Str>, "InstanceId" [0+] nullable [0+];
        rack_id: Option<Str>, "RackId" [0+] nullable [0+];
        member_epoch: i32, "MemberEpoch" [0+];
        client_id: Str, "ClientId" [0+];
        client_host: Str, "ClientHost" [0+];
        subscribed_topic_names: Vec<Str>, "SubscribedTopicNames" [0+];
        subscribed_topic_regex: Option<Str>, "SubscribedTopicRegex" [0+] nullable [0+];
        assignment: Assignment, "Assignment" [0+];
        target_assignment: Assignment, "TargetAssignment" [0+];
        member_type: i8 = -1, "MemberType" [1+], ignorable;
    }

    /// The value of [`Member::assignment`].
    struct Assignment {
        topic_partitions: Vec<TopicPartitions>, "TopicPartitions" [0+];
    }

    /// An element of [`Assignment::topic_partitions`].
    struct TopicPartitions {
        topic_id: Uuid, "TopicId" [0+];
        topic_name: Str, "TopicName" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
    }
}
