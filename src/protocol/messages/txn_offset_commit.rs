//! TxnOffsetCommit (API key 28).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the TxnOffsetCommit request.
    struct TxnOffsetCommitRequest versions [0-6] flexible [3+] {
        transactional_id: Str, "TransactionalId" [0+];
        group_id: Str, "GroupId" [0+];
        producer_id: i64, "ProducerId" [0+];
        producer_epoch: i16, "ProducerEpoch" [0+];
        generation_id_or_member_epoch: i32 = -1, "GenerationIdOrMemberEpoch" [3+];
        member_id: Str, "MemberId" [3+];
        group_instance_id: Option<Str>, "GroupInstanceId" [3+] nullable [3+];
        topics: Vec<TxnOffsetCommitRequestTopic>, "Topics" [0+];
    }

    /// An element of [`TxnOffsetCommitRequest::topics`].
    struct TxnOffsetCommitRequestTopic {
        name: Str, "Name" [0-5], ignorable;
        topic_id: Uuid, "TopicId" [6+], ignorable;
        partitions: Vec<TxnOffsetCommitRequestPartition>, "Partitions" [0+];
    }

    /// An element of [`TxnOffsetCommitRequestTopic::partitions`].
    struct TxnOffsetCommitRequestPartition {
        partition_index: i32, "PartitionIndex" [0+];
        committed_offset: i64, "CommittedOffset" [0+];
        committed_leader_epoch: i32 = -1, "CommittedLeaderEpoch" [2+], ignorable;
        committed_metadata: Option<Str> = Some(Str::EMPTY), "CommittedMetadata" [0+] nullable [0+];
    }

    /// The body of the TxnOffsetCommit response.
    struct TxnOffsetCommitResponse versions [0-6] flexible [3+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        topics: Vec<TxnOffsetCommitResponseTopic>, "Topics" [0+];
    }

    /// An element of [`TxnOffsetCommitResponse::topics`].
    struct TxnOffsetCommitResponseTopic {
        name: Str, "Name" [0-5], ignorable;
        topic_id: Uuid, "TopicId" [6+], ignorable;
        partitions: Vec<TxnOffsetCommitResponsePartition>, "Partitions" [0+];
    }

    /// An element of [`TxnOffsetCommitResponseTopic::partitions`].
    struct TxnOffsetCommitResponsePartition {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
    }
}
