//! ElectLeaders (API key 43).

use crate::protocol::primitives::Str;

message! {
    /// The body of the ElectLeaders request.
    struct ElectLeadersRequest versions [0-2] flexible [2+] {
        election_type: i8, "ElectionType" [1+];
        topic_partitions: Option<Vec<TopicPartitions>> = Some(Vec::new()),
            "TopicPartitions" [0+] nullable [0+];
        timeout_ms: i32 = 60000, "TimeoutMs" [0+];
    }

    /// An element of [`ElectLeadersRequest::topic_partitions`].
    struct TopicPartitions {
        topic: Str, "Topic" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
    }

    /// The body of the ElectLeaders response.
    struct ElectLeadersResponse versions [0-2] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [1+];
        replica_election_results: Vec<ReplicaElectionResult>, "ReplicaElectionResults" [0+];
    }

    /// An element of [`ElectLeadersResponse::replica_election_results`].
    struct ReplicaElectionResult {
        topic: Str, "Topic" [0+];
        partition_result: Vec<PartitionResult>, "PartitionResult" [0+];
    }

    /// An element of [`ReplicaElectionResult::partition_result`].
    struct PartitionResult {
        partition_id: i32, "PartitionId" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
    }
}
