//! AlterPartitionReassignments (API key 45).

use crate::protocol::primitives::Str;

message! {
    /// The body of the AlterPartitionReassignments request.
    struct AlterPartitionReassignmentsRequest versions [0-1] flexible [0+] {
        timeout_ms: i32 = 60000, "TimeoutMs" [0+];
        allow_replication_factor_change: bool = true, "AllowReplicationFactorChange" [1+];
        topics: Vec<ReassignableTopic>, "Topics" [0+];
    }

    /// An element of [`AlterPartitionReassignmentsRequest::topics`].
    struct ReassignableTopic {
        name: Str, "Name" [0+];
        partitions: Vec<ReassignablePartition>, "Partitions" [0+];
    }

    /// An element of [`ReassignableTopic::partitions`].
    struct ReassignablePartition {
        partition_index: i32, "PartitionIndex" [0+];
        replicas: Option<Vec<i32>>, "Replicas" [0+] nullable [0+];
    }

    /// The body of the AlterPartitionReassignments response.
    struct AlterPartitionReassignmentsResponse versions [0-1] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        allow_replication_factor_change: bool = true,
            "AllowReplicationFactorChange" [1+], ignorable;
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
        responses: Vec<ReassignableTopicResponse>, "Responses" [0+];
    }

    /// An element of [`AlterPartitionReassignmentsResponse::responses`].
    struct ReassignableTopicResponse {
        name: Str, "Name" [0+];
        partitions: Vec<ReassignablePartitionResponse>, "Partitions" [0+];
    }

    /// An element of [`ReassignableTopicResponse::partitions`].
    struct ReassignablePartitionResponse {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
    }
}
