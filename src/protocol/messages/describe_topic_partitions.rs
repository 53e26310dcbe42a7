//! DescribeTopicPartitions (API key 75).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the DescribeTopicPartitions request.
    struct DescribeTopicPartitionsRequest versions [0] flexible [0+] {
        topics: Vec<TopicRequest>, "Topics" [0+];
        response_partition_limit: i32 = 2000, "ResponsePartitionLimit" [0+];
        cursor: Option<Cursor>, "Cursor" [0+] nullable [0+];
    }

    /// An element of [`DescribeTopicPartitionsRequest::topics`].
    struct TopicRequest {
        name: Str, "Name" [0+];
    }

    /// The value of [`DescribeTopicPartitionsRequest::cursor`].
    struct Cursor {
        topic_name: Str, "TopicName" [0+];
        partition_index: i32, "PartitionIndex" [0+];
    }

    /// The body of the DescribeTopicPartitions response.
    struct DescribeTopicPartitionsResponse versions [0] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+], ignorable;
        topics: Vec<DescribeTopicPartitionsResponseTopic>, "Topics" [0+];
        next_cursor: Option<Cursor>, "NextCursor" [0+] nullable [0+];
    }

    /// An element of [`DescribeTopicPartitionsResponse::topics`].
    struct DescribeTopicPartitionsResponseTopic {
        error_code: i16, "ErrorCode" [0+];
        name: Option<Str> = Some(Str::EMPTY), "Name" [0+] nullable [0+];
        topic_id: Uuid, "TopicId" [0+], ignorable;
        is_internal: bool, "IsInternal" [0+], ignorable;
        partitions: Vec<DescribeTopicPartitionsResponsePartition>, "Partitions" [0+];
        topic_authorized_operations: i32 = i32::MIN, "TopicAuthorizedOperations" [0+];
    }

    /// An element of [`DescribeTopicPartitionsResponseTopic::partitions`].
    struct DescribeTopicPartitionsResponsePartition {
        error_code: i16, "ErrorCode" [0+];
        partition_index: i32, "PartitionIndex" [0+];
        leader_id: i32, "LeaderId" [0+];
        leader_epoch: i32 = -1, "LeaderEpoch" [0+], ignorable;
        replica_nodes: Vec<i32>, "ReplicaNodes" [0+];
        isr_nodes: Vec<i32>, "IsrNodes" [0+];
        eligible_leader_replicas: Option<Vec<i32>>, "EligibleLeaderReplicas" [0+] nullable [0+];
        last_known_elr: Option<Vec<i32>>, "LastKnownElr" [0+] nullable [0+];
        offline_replicas: Vec<i32>, "OfflineReplicas" [0+], ignorable;
    }
}
