//! OffsetCommit (API key 8).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the OffsetCommit request.
    struct OffsetCommitRequest versions [2-10] flexible [8+] {
        group_id: Str, "GroupId" [0+];
        generation_id_or_member_epoch: i32 = -1, "GenerationIdOrMemberEpoch" [1+], ignorable;
        member_id: Str, "MemberId" [1+], ignorable;
        group_instance_id: Option<Str>, "GroupInstanceId" [7+] nullable [7+];
        retention_time_ms: i64 = -1, "RetentionTimeMs" [2-4], ignorable;
        topics: Vec<OffsetCommitRequestTopic>, "Topics" [0+];
    }

    /// An element of [`OffsetCommitRequest::topics`].
    struct OffsetCommitRequestTopic {
        name: Str, "Name" [0-9], ignorable;
        topic_id: Uuid, "TopicId" [10+], ignorable;
        partitions: Vec<OffsetCommitRequestPartition>, "Partitions" [0+];
    }

    /// An element of [`OffsetCommitRequestTopic::partitions`].
    struct OffsetCommitRequestPartition {
        partition_index: i32, "PartitionIndex" [0+];
        committed_offset: i64, "CommittedOffset" [0+];
        committed_leader_epoch: i32 = -1, "CommittedLeaderEpoch" [6+], ignorable;
        committed_metadata: Option<Str> = Some(Str::EMPTY), "CommittedMetadata" [0+] nullable [0+];
    }

    /// The body of the OffsetCommit response.
    struct OffsetCommitResponse versions [2-10] flexible [8+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [3+], ignorable;
        topics: Vec<OffsetCommitResponseTopic>, "Topics" [0+];
    }

    /// An element of [`OffsetCommitResponse::topics`].
    struct OffsetCommitResponseTopic {
        name: Str, "Name" [0-9], ignorable;
        topic_id: Uuid, "TopicId" [10+], ignorable;
        partitions: Vec<OffsetCommitResponsePartition>, "Partitions" [0+];
    }

    /// An element of [`OffsetCommitResponseTopic::partitions`].
    struct OffsetCommitResponsePartition {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
    }
}
