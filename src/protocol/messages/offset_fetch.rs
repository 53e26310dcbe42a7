//! OffsetFetch (API key 9).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the OffsetFetch request.
    struct OffsetFetchRequest versions [1-10] flexible [6+] {
        group_id: Str, "GroupId" [0-7];
        topics: Option<Vec<OffsetFetchRequestTopic>> = Some(Vec::new()),
            "Topics" [0-7] nullable [2-7];
        groups: Vec<OffsetFetchRequestGroup>, "Groups" [8+];
        require_stable: bool, "RequireStable" [7+];
    }

    /// An element of [`OffsetFetchRequest::topics`].
    struct OffsetFetchRequestTopic {
        name: Str, "Name" [0-7];
        partition_indexes: Vec<i32>, "PartitionIndexes" [0-7];
    }

    /// An element of [`OffsetFetchRequest::groups`].
    struct OffsetFetchRequestGroup {
        group_id: Str, "GroupId" [8+];
        member_id: Option<Str>, "MemberId" [9+] nullable [9+], ignorable;
        member_epoch: i32 = -1, "MemberEpoch" [9+], ignorable;
        topics: Option<Vec<OffsetFetchRequestTopics>> = Some(Vec::new()),
            "Topics" [8+] nullable [8+];
    }

    /// An element of [`OffsetFetchRequestGroup::topics`].
    struct OffsetFetchRequestTopics {
        name: Str, "Name" [8-9], ignorable;
        topic_id: Uuid, "TopicId" [10+], ignorable;
        partition_indexes: Vec<i32>, "PartitionIndexes" [8+];
    }

    /// The body of the OffsetFetch response.
    struct OffsetFetchResponse versions [1-10] flexible [6+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [3+], ignorable;
        topics: Vec<OffsetFetchResponseTopic>, "Topics" [0-7];
        error_code: i16, "ErrorCode" [2-7], ignorable;
        groups: Vec<OffsetFetchResponseGroup>, "Groups" [8+];
    }

    /// An element of [`OffsetFetchResponse::topics`].
    struct OffsetFetchResponseTopic {
        name: Str, "Name" [0-7];
        partitions: Vec<OffsetFetchResponsePartition>, "Partitions" [0-7];
    }

    /// An element of [`OffsetFetchResponseTopic::partitions`].
    struct OffsetFetchResponsePartition {
        partition_index: i32, "PartitionIndex" [0-7];
        committed_offset: i64, "CommittedOffset" [0-7];
        committed_leader_epoch: i32 = -1, "CommittedLeaderEpoch" [5-7], ignorable;
        metadata: Option<Str> = Some(Str::EMPTY), "Metadata" [0-7] nullable [0-7];
        error_code: i16, "ErrorCode" [0-7];
    }

    /// An element of [`OffsetFetchResponse::groups`].
    struct OffsetFetchResponseGroup {
        group_id: Str, "GroupId" [8+];
        topics: Vec<OffsetFetchResponseTopics>, "Topics" [8+];
        error_code: i16, "ErrorCode" [8+];
    }

    /// An element of [`OffsetFetchResponseGroup::topics`].
    struct OffsetFetchResponseTopics {
        name: Str, "Name" [8-9], ignorable;
        topic_id: Uuid, "TopicId" [10+], ignorable;
        partitions: Vec<OffsetFetchResponsePartitions>, "Partitions" [8+];
    }

    /// An element of [`OffsetFetchResponseTopics::partitions`].
    struct OffsetFetchResponsePartitions {
        partition_index: i32, "PartitionIndex" [8+];
        committed_offset: i64, "CommittedOffset" [8+];
        committed_leader_epoch: i32 = -1, "CommittedLeaderEpoch" [8+], ignorable;
        metadata: Option<Str> = Some(Str::EMPTY), "Metadata" [8+] nullable [8+];
        error_code: i16, "ErrorCode" [8+];
    }
}
