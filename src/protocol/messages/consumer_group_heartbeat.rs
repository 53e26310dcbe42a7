//! ConsumerGroupHeartbeat (API key 68).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the ConsumerGroupHeartbeat request.
    struct ConsumerGroupHeartbeatRequest versions [0-1] flexible [0+] {
        group_id: Str, "GroupId" [0+];
        member_id: Str, "MemberId" [0+];
        member_epoch: i32, "MemberEpoch" [0+];
        instance_id: Option<Str>, "InstanceId" [0+] nullable [0+];
        rack_id: Option<Str>, "RackId" [0+] nullable [0+];
        rebalance_timeout_ms: i32 = -1, "RebalanceTimeoutMs" [0+];
        subscribed_topic_names: Option<Vec<Str>>, "SubscribedTopicNames" [0+] nullable [0+];
        subscribed_topic_regex: Option<Str>, "SubscribedTopicRegex" [1+] nullable [1+];
        server_assignor: Option<Str>, "ServerAssignor" [0+] nullable [0+];
        topic_partitions: Option<Vec<OwnedTopicPartitions>>, "TopicPartitions" [0+] nullable [0+];
    }

    /// An element of [`ConsumerGroupHeartbeatRequest::topic_partitions`].
    struct OwnedTopicPartitions as "TopicPartitions" {
        topic_id: Uuid, "TopicId" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
    }

    /// The body of the ConsumerGroupHeartbeat response.
    struct ConsumerGroupHeartbeatResponse versions [0-1] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str>, "ErrorMessage" [0+] nullable [0+];
        member_id: Option<Str>, "MemberId" [0+] nullable [0+];
        member_epoch: i32, "MemberEpoch" [0+];
        heartbeat_interval_ms: i32, "HeartbeatIntervalMs" [0+];
        assignment: Option<Assignment>, "Assignment" [0+] nullable [0+];
    }

    /// The value of [`ConsumerGroupHeartbeatResponse::assignment`].
    struct Assignment {
        topic_partitions: Vec<TopicPartitions>, "TopicPartitions" [0+];
    }

    /// An element of [`Assignment::topic_partitions`].
    struct TopicPartitions {
        topic_id: Uuid, "TopicId" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
    }
}
