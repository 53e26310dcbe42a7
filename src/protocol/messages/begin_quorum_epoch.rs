//! BeginQuorumEpoch (API key 53).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the BeginQuorumEpoch request.
    struct BeginQuorumEpochRequest versions [0-1] flexible [1+] {
        cluster_id: Option<Str>, "ClusterId" [0+] nullable [0+];
        voter_id: i32 = -1, "VoterId" [1+], ignorable;
        topics: Vec<TopicData>, "Topics" [0+];
        leader_endpoints: Vec<LeaderEndpoint>, "LeaderEndpoints" [1+], ignorable;
    }

    /// An element of [`BeginQuorumEpochRequest::topics`].
    struct TopicData {
        topic_name: Str, "TopicName" [0+];
        partitions: Vec<PartitionData>, "Partitions" [0+];
    }

    /// An element of [`TopicData::partitions`].
    struct PartitionData {
        partition_index: i32, "PartitionIndex" [0+];
        voter_directory_id: Uuid, "VoterDirectoryId" [1+], ignorable;
        leader_id: i32, "LeaderId" [0+];
        leader_epoch: i32, "LeaderEpoch" [0+];
    }

    /// An element of [`BeginQuorumEpochRequest::leader_endpoints`].
    struct LeaderEndpoint {
        name: Str, "Name" [1+];
        host: Str, "Host" [1+];
        port: u16, "Port" [1+];
    }

    /// The body of the BeginQuorumEpoch response.
    struct BeginQuorumEpochResponse versions [0-1] flexible [1+] {
        error_code: i16, "ErrorCode" [0+];
        topics: Vec<TopicEpoch>, "Topics" [0+];
        node_endpoints: Vec<NodeEndpoint>, "NodeEndpoints" [1+] tag 0 [1+];
    }

    /// An element of [`BeginQuorumEpochResponse::topics`].
    struct TopicEpoch as "TopicData" {
        topic_name: Str, "TopicName" [0+];
        partitions: Vec<PartitionEpoch>, "Partitions" [0+];
    }

    /// An element of [`TopicEpoch::partitions`].
    struct PartitionEpoch as "PartitionData" {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
        leader_id: i32, "LeaderId" [0+];
        leader_epoch: i32, "LeaderEpoch" [0+];
    }

    /// An element of [`BeginQuorumEpochResponse::node_endpoints`].
    struct NodeEndpoint {
        node_id: i32, "NodeId" [1+];
        host: Str, "Host" [1+];
        port: u16, "Port" [1+];
    }
}
