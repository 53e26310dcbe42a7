//! Metadata (API key 3).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the Metadata request.
    struct MetadataRequest versions [0-13] flexible [9+] {
        topics: Option<Vec<MetadataRequestTopic>> = Some(Vec::new()), "Topics" [0+] nullable [1+];
        allow_auto_topic_creation: bool = true, "AllowAutoTopicCreation" [4+];
        include_cluster_authorized_operations: bool, "IncludeClusterAuthorizedOperations" [8-10];
        include_topic_authorized_operations: bool, "IncludeTopicAuthorizedOperations" [8+];
    }

    /// An element of [`MetadataRequest::topics`].
    struct MetadataRequestTopic {
        topic_id: Uuid, "TopicId" [10+], ignorable;
        name: Option<Str> = Some(Str::EMPTY), "Name" [0+] nullable [10+];
    }

    /// The body of the Metadata response.
    struct MetadataResponse versions [0-13] flexible [9+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [3+], ignorable;
        brokers: Vec<MetadataResponseBroker>, "Brokers" [0+];
        cluster_id: Option<Str>, "ClusterId" [2+] nullable [2+], ignorable;
        controller_id: i32 = -1, "ControllerId" [1+], ignorable;
        topics: Vec<MetadataResponseTopic>, "Topics" [0+];
        cluster_authorized_operations: i32 = i32::MIN, "ClusterAuthorizedOperations" [8-10];
        error_code: i16, "ErrorCode" [13+], ignorable;
    }

    /// An element of [`MetadataResponse::brokers`].
    struct MetadataResponseBroker {
        node_id: i32, "NodeId" [0+];
        host: Str, "Host" [0+];
        port: i32, "Port" [0+];
        rack: Option<Str>, "Rack" [1+] nullable [1+], ignorable;
    }

    /// An element of [`MetadataResponse::topics`].
    struct MetadataResponseTopic {
        error_code: i16, "ErrorCode" [0+];
        name: Option<Str> = Some(Str::EMPTY), "Name" [0+] nullable [12+];
        topic_id: Uuid, "TopicId" [10+], ignorable;
        is_internal: bool, "IsInternal" [1+], ignorable;
        partitions: Vec<MetadataResponsePartition>, "Partitions" [0+];
        topic_authorized_operations: i32 = i32::MIN, "TopicAuthorizedOperations" [8+];
    }

    /// An element of [`MetadataResponseTopic::partitions`].
    struct MetadataResponsePartition {
        error_code: i16, "ErrorCode" [0+];
        partition_index: i32, "PartitionIndex" [0+];
        leader_id: i32, "LeaderId" [0+];
        leader_epoch: i32 = -1, "LeaderEpoch" [7+], ignorable;
        replica_nodes: Vec<i32>, "ReplicaNodes" [0+];
        isr_nodes: Vec<i32>, "IsrNodes" [0+];
        offline_replicas: Vec<i32>, "OfflineReplicas" [5+], ignorable;
    }
}
