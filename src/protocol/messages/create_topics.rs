//! CreateTopics (API key 19).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the CreateTopics request.
    struct CreateTopicsRequest versions [2-7] flexible [5+] {
        topics: Vec<CreatableTopic>, "Topics" [0+];
        timeout_ms: i32 = 60000, "timeoutMs" [0+];
        validate_only: bool, "validateOnly" [1+];
    }

    /// An element of [`CreateTopicsRequest::topics`].
    struct CreatableTopic {
        name: Str, "Name" [0+];
        num_partitions: i32, "NumPartitions" [0+];
        replication_factor: i16, "ReplicationFactor" [0+];
        assignments: Vec<CreatableReplicaAssignment>, "Assignments" [0+];
        configs: Vec<CreatableTopicConfig>, "Configs" [0+];
    }

    /// An element of [`CreatableTopic::assignments`].
    struct CreatableReplicaAssignment {
        partition_index: i32, "PartitionIndex" [0+];
        broker_ids: Vec<i32>, "BrokerIds" [0+];
    }

    /// An element of [`CreatableTopic::configs`].
    struct CreatableTopicConfig {
        name: Str, "Name" [0+];
        value: Option<Str> = Some(Str::EMPTY), "Value" [0+] nullable [0+];
    }

    /// The body of the CreateTopics response.
    struct CreateTopicsResponse versions [2-7] flexible [5+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [2+], ignorable;
        topics: Vec<CreatableTopicResult>, "Topics" [0+];
    }

    /// An element of [`CreateTopicsResponse::topics`].
    struct CreatableTopicResult {
        name: Str, "Name" [0+];
        topic_id: Uuid, "TopicId" [7+], ignorable;
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [1+] nullable [0+], ignorable;
        topic_config_error_code: i16, "TopicConfigErrorCode" [5+] tag 0 [5+], ignorable;
        num_partitions: i32 = -1, "NumPartitions" [5+], ignorable;
        replication_factor: i16 = -1, "ReplicationFactor" [5+], ignorable;
        configs: Option<Vec<CreatableTopicConfigs>> = Some(Vec::new()),
            "Configs" [5+] nullable [5+], ignorable;
    }

    /// An element of [`CreatableTopicResult::configs`].
    struct CreatableTopicConfigs {
        name: Str, "Name" [5+];
        value: Option<Str> = Some(Str::EMPTY), "Value" [5+] nullable [5+];
        read_only: bool, "ReadOnly" [5+];
        config_source: i8 = -1, "ConfigSource" [5+], ignorable;
        is_sensitive: bool, "IsSensitive" [5+];
    }
}
