//! ListOffsets (API key 2).

use crate::protocol::primitives::Str;

message! {
    /// The body of the ListOffsets request.
    struct ListOffsetsRequest versions [1-11] flexible [6+] {
        replica_id: i32, "ReplicaId" [0+];
        isolation_level: i8, "IsolationLevel" [2+];
        topics: Vec<ListOffsetsTopic>, "Topics" [0+];
        timeout_ms: i32, "TimeoutMs" [10+], ignorable;
    }

    /// An element of [`ListOffsetsRequest::topics`].
    struct ListOffsetsTopic {
        name: Str, "Name" [0+];
        partitions: Vec<ListOffsetsPartition>, "Partitions" [0+];
    }

    /// An element of [`ListOffsetsTopic::partitions`].
    struct ListOffsetsPartition {
        partition_index: i32, "PartitionIndex" [0+];
        current_leader_epoch: i32 = -1, "CurrentLeaderEpoch" [4+], ignorable;
        timestamp: i64, "Timestamp" [0+];
    }

    /// The body of the ListOffsets response.
    struct ListOffsetsResponse versions [1-11] flexible [6+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [2+], ignorable;
        topics: Vec<ListOffsetsTopicResponse>, "Topics" [0+];
    }

    /// An element of [`ListOffsetsResponse::topics`].
    struct ListOffsetsTopicResponse {
        name: Str, "Name" [0+];
        partitions: Vec<ListOffsetsPartitionResponse>, "Partitions" [0+];
    }

    /// An element of [`ListOffsetsTopicResponse::partitions`].
    struct ListOffsetsPartitionResponse {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
        timestamp: i64 = -1, "Timestamp" [1+];
        offset: i64 = -1, "Offset" [1+];
        leader_epoch: i32 = -1, "LeaderEpoch" [4+];
    }
}
