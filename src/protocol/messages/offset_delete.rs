//! OffsetDelete (API key 47).

use crate::protocol::primitives::Str;

message! {
    /// The body of the OffsetDelete request.
    struct OffsetDeleteRequest versions [0] flexible [none] {
        group_id: Str, "GroupId" [0+];
        topics: Vec<OffsetDeleteRequestTopic>, "Topics" [0+];
    }

    /// An element of [`OffsetDeleteRequest::topics`].
    struct OffsetDeleteRequestTopic {
        name: Str, "Name" [0+];
        partitions: Vec<OffsetDeleteRequestPartition>, "Partitions" [0+];
    }

    /// An element of [`OffsetDeleteRequestTopic::partitions`].
    struct OffsetDeleteRequestPartition {
        partition_index: i32, "PartitionIndex" [0+];
    }

    /// The body of the OffsetDelete response.
    struct OffsetDeleteResponse versions [0] flexible [none] {
        error_code: i16, "ErrorCode" [0+];
        throttle_time_ms: i32, "ThrottleTimeMs" [0+], ignorable;
        topics: Vec<OffsetDeleteResponseTopic>, "Topics" [0+];
    }

    /// An element of [`OffsetDeleteResponse::topics`].
    struct OffsetDeleteResponseTopic {
        name: Str, "Name" [0+];
        partitions: Vec<OffsetDeleteResponsePartition>, "Partitions" [0+];
    }

    /// An element of [`OffsetDeleteResponseTopic::partitions`].
    struct OffsetDeleteResponsePartition {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
    }
}
