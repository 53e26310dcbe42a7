//! ListPartitionReassignments (API key 46).

use crate::protocol::primitives::Str;

message! {
    /// The body of the ListPartitionReassignments request.
    struct ListPartitionReassignmentsRequest versions [0] flexible [0+] {
        timeout_ms: i32 = 60000, "TimeoutMs" [0+];
        topics: Option<Vec<ListPartitionReassignmentsTopics>>, "Topics" [0+] nullable [0+];
    }

    /// An element of [`ListPartitionReassignmentsRequest::topics`].
    struct ListPartitionReassignmentsTopics {
        name: Str, "Name" [0+];
        partition_indexes: Vec<i32>, "PartitionIndexes" [0+];
    }

    /// The body of the ListPartitionReassignments response.
    struct ListPartitionReassignmentsResponse versions [0] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
        topics: Vec<OngoingTopicReassignment>, "Topics" [0+];
    }

    /// An element of [`ListPartitionReassignmentsResponse::topics`].
    struct OngoingTopicReassignment {
        name: Str, "Name" [0+];
        partitions: Vec<OngoingPartitionReassignment>, "Partitions" [0+];
    }

    /// An element of [`OngoingTopicReassignment::partitions`].
    struct OngoingPartitionReassignment {
        partition_index: i32, "PartitionIndex" [0+];
        replicas: Vec<i32>, "Replicas" [0+];
        adding_replicas: Vec<i32>, "AddingReplicas" [0+];
        removing_replicas: Vec<i32>, "RemovingReplicas" [0+];
    }
}
