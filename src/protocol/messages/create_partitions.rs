//! CreatePartitions (API key 37).

use crate::protocol::primitives::Str;

message! {
    /// The body of the CreatePartitions request.
    struct CreatePartitionsRequest versions [0-3] flexible [2+] {
        topics: Vec<CreatePartitionsTopic>, "Topics" [0+];
        timeout_ms: i32, "TimeoutMs" [0+];
        validate_only: bool, "ValidateOnly" [0+];
    }

    /// An element of [`CreatePartitionsRequest::topics`].
    struct CreatePartitionsTopic {
        name: Str, "Name" [0+];
        count: i32, "Count" [0+];
        assignments: Option<Vec<CreatePartitionsAssignment>> = Some(Vec::new()),
            "Assignments" [0+] nullable [0+];
    }

    /// An element of [`CreatePartitionsTopic::assignments`].
    struct CreatePartitionsAssignment {
        broker_ids: Vec<i32>, "BrokerIds" [0+];
    }

    /// The body of the CreatePartitions response.
    struct CreatePartitionsResponse versions [0-3] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        results: Vec<CreatePartitionsTopicResult>, "Results" [0+];
    }

    /// An element of [`CreatePartitionsResponse::results`].
    struct CreatePartitionsTopicResult {
        name: Str, "Name" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str>, "ErrorMessage" [0+] nullable [0+];
    }
}
