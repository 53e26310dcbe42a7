//! OffsetForLeaderEpoch (API key 23).

use crate::protocol::primitives::Str;

message! {
    /// The body of the OffsetForLeaderEpoch request.
    struct OffsetForLeaderEpochRequest versions [2-4] flexible [4+] {
        replica_id: i32 = -2, "ReplicaId" [3+], ignorable;
        topics: Vec<OffsetForLeaderTopic>, "Topics" [0+];
    }

    /// An element of [`OffsetForLeaderEpochRequest::topics`].
    struct OffsetForLeaderTopic {
        topic: Str, "Topic" [0+];
        partitions: Vec<OffsetForLeaderPartition>, "Partitions" [0+];
    }

    /// An element of [`OffsetForLeaderTopic::partitions`].
    struct OffsetForLeaderPartition {
        partition: i32, "Partition" [0+];
        current_leader_epoch: i32 = -1, "CurrentLeaderEpoch" [2+], ignorable;
        leader_epoch: i32, "LeaderEpoch" [0+];
    }

    /// The body of the OffsetForLeaderEpoch response.
    struct OffsetForLeaderEpochResponse versions [2-4] flexible [4+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [2+], ignorable;
        topics: Vec<OffsetForLeaderTopicResult>, "Topics" [0+];
    }

    /// An element of [`OffsetForLeaderEpochResponse::topics`].
    struct OffsetForLeaderTopicResult {
        topic: Str, "Topic" [0+];
        partitions: Vec<EpochEndOffset>, "Partitions" [0+];
    }

    /// An element of [`OffsetForLeaderTopicResult::partitions`].
    struct EpochEndOffset {
        error_code: i16, "ErrorCode" [0+];
        partition: i32, "Partition" [0+];
        leader_epoch: i32 = -1, "LeaderEpoch" [1+], ignorable;
        end_offset: i64 = -1, "EndOffset" [0+];
    }
}
