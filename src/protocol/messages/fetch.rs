//! Fetch (API key 1).

use crate::protocol::primitives::{Records, Str};
use crate::types::Uuid;

message! {
    /// The body of the Fetch request.
    struct FetchRequest versions [4-18] flexible [12+] {
        cluster_id: Option<Str>, "ClusterId" [12+] nullable [12+] tag 0 [12+], ignorable;
        replica_id: i32 = -1, "ReplicaId" [0-14];
        replica_state: ReplicaState, "ReplicaState" [15+] tag 1 [15+];
        max_wait_ms: i32, "MaxWaitMs" [0+];
        min_bytes: i32, "MinBytes" [0+];
        max_bytes: i32 = i32::MAX, "MaxBytes" [3+], ignorable;
        isolation_level: i8, "IsolationLevel" [4+], ignorable;
        session_id: i32, "SessionId" [7+], ignorable;
        session_epoch: i32 = -1, "SessionEpoch" [7+], ignorable;
        topics: Vec<FetchTopic>, "Topics" [0+];
        forgotten_topics_data: Vec<ForgottenTopic>, "ForgottenTopicsData" [7+];
        rack_id: Str, "RackId" [11+], ignorable;
    }

    /// The value of [`FetchRequest::replica_state`].
    struct ReplicaState {
        replica_id: i32 = -1, "ReplicaId" [15+];
        replica_epoch: i64 = -1, "ReplicaEpoch" [15+];
    }

    /// An element of [`FetchRequest::topics`].
    struct FetchTopic {
        topic: Str, "Topic" [0-12], ignorable;
        topic_id: Uuid, "TopicId" [13+], ignorable;
        partitions: Vec<FetchPartition>, "Partitions" [0+];
    }

    /// An element of [`FetchTopic::partitions`].
    struct FetchPartition {
        partition: i32, "Partition" [0+];
        current_leader_epoch: i32 = -1, "CurrentLeaderEpoch" [9+], ignorable;
        fetch_offset: i64, "FetchOffset" [0+];
        last_fetched_epoch: i32 = -1, "LastFetchedEpoch" [12+];
        log_start_offset: i64 = -1, "LogStartOffset" [5+], ignorable;
        partition_max_bytes: i32, "PartitionMaxBytes" [0+];
        replica_directory_id: Uuid, "ReplicaDirectoryId" [17+] tag 0 [17+], ignorable;
        high_watermark: i64 = i64::MAX, "HighWatermark" [18+] tag 1 [18+], ignorable;
        local_log_start_offset: i64 = -1, "LocalLogStartOffset" [12+] tag 10000 [12+], ignorable;
    }

    /// An element of [`FetchRequest::forgotten_topics_data`].
    struct ForgottenTopic {
        topic: Str, "Topic" [7-12], ignorable;
        topic_id: Uuid, "TopicId" [13+], ignorable;
        partitions: Vec<i32>, "Partitions" [7+];
    }

    /// The body of the Fetch response.
    struct FetchResponse versions [4-18] flexible [12+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [1+], ignorable;
        error_code: i16, "ErrorCode" [7+], ignorable;
        session_id: i32, "SessionId" [7+];
        responses: Vec<FetchableTopicResponse>, "Responses" [0+];
        node_endpoints: Vec<NodeEndpoint>, "NodeEndpoints" [16+] tag 0 [16+];
    }

    /// An element of [`FetchResponse::responses`].
    struct FetchableTopicResponse {
        topic: Str, "Topic" [0-12], ignorable;
        topic_id: Uuid, "TopicId" [13+], ignorable;
        partitions: Vec<PartitionData>, "Partitions" [0+];
    }

    /// An element of [`FetchableTopicResponse::partitions`].
    struct PartitionData {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
        high_watermark: i64, "HighWatermark" [0+];
        last_stable_offset: i64 = -1, "LastStableOffset" [4+], ignorable;
        log_start_offset: i64 = -1, "LogStartOffset" [5+], ignorable;
        diverging_epoch: EpochEndOffset, "DivergingEpoch" [12+] tag 0 [12+];
        current_leader: LeaderIdAndEpoch, "CurrentLeader" [12+] tag 1 [12+];
        snapshot_id: SnapshotId, "SnapshotId" [12+] tag 2 [12+];
        aborted_transactions: Option<Vec<AbortedTransaction>> = Some(Vec::new()),
            "AbortedTransactions" [4+] nullable [4+], ignorable;
        preferred_read_replica: i32 = -1, "PreferredReadReplica" [11+];
        records: Option<Records>, "Records" [0+] nullable [0+];
        local_log_start_offset: i64 = -1, "LocalLogStartOffset" [12+] tag 10000 [12+], ignorable;
    }

    /// The value of [`PartitionData::diverging_epoch`].
    struct EpochEndOffset {
        epoch: i32 = -1, "Epoch" [12+];
        end_offset: i64 = -1, "EndOffset" [12+];
    }

    /// The value of [`PartitionData::current_leader`].
    struct LeaderIdAndEpoch {
        leader_id: i32 = -1, "LeaderId" [12+];
        leader_epoch: i32 = -1, "LeaderEpoch" [12+];
    }

    /// The value of [`PartitionData::snapshot_id`].
    struct SnapshotId {
        end_offset: i64 = -1, "EndOffset" [0+];
        epoch: i32 = -1, "Epoch" [0+];
    }

    /// An element of [`PartitionData::aborted_transactions`].
    struct AbortedTransaction {
        producer_id: i64, "ProducerId" [4+];
        first_offset: i64, "FirstOffset" [4+];
    }

    /// An element of [`FetchResponse::node_endpoints`].
    struct NodeEndpoint {
        node_id: i32, "NodeId" [16+];
        host: Str, "Host" [16+];
        port: i32, "Port" [16+];
        rack: Option<Str>, "Rack" [16+] nullable [16+];
    }
}
