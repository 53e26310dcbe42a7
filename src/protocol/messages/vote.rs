//! Vote (API key 52).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the Vote request.
    struct VoteRequest versions [0-2] flexible [0+] {
        cluster_id: Option<Str>, "ClusterId" [0+] nullable [0+];
        voter_id: i32 = -1, "VoterId" [1+], ignorable;
        topics: Vec<TopicData>, "Topics" [0+];
    }

    /// An element of [`VoteRequest::topics`].
    struct TopicData {
        topic_name: Str, "TopicName" [0+];
        partitions: Vec<PartitionData>, "Partitions" [0+];
    }

    /// An element of [`TopicData::partitions`].
    struct PartitionData {
        partition_index: i32, "PartitionIndex" [0+];
        replica_epoch: i32, "ReplicaEpoch" [0+];
        replica_id: i32, "ReplicaId" [0+];
        replica_directory_id: Uuid, "ReplicaDirectoryId" [1+], ignorable;
        voter_directory_id: Uuid, "VoterDirectoryId" [1+], ignorable;
        last_offset_epoch: i32, "LastOffsetEpoch" [0+];
        last_offset: i64, "LastOffset" [0+];
        pre_vote: bool, "PreVote" [2+];
    }

    /// The body of the Vote response.
    struct VoteResponse versions [0-2] flexible [0+] {
        error_code: i16, "ErrorCode" [0+];
        topics: Vec<TopicVotes>, "Topics" [0+];
        node_endpoints: Vec<NodeEndpoint>, "NodeEndpoints" [1+] tag 0 [1+];
    }

    /// An element of [`VoteResponse::topics`].
    struct TopicVotes as "TopicData" {
        topic_name: Str, "TopicName" [0+];
        partitions: Vec<PartitionVote>, "Partitions" [0+];
    }

    /// An element of [`TopicVotes::partitions`].
    struct PartitionVote as "PartitionData" {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
        leader_id: i32, "LeaderId" [0+];
        leader_epoch: i32, "LeaderEpoch" [0+];
        vote_granted: bool, "VoteGranted" [0+];
    }

    /// An element of [`VoteResponse::node_endpoints`].
    struct NodeEndpoint {
        node_id: i32, "NodeId" [1+];
        host: Str, "Host" [1+];
        port: u16, "Port" [1+];
    }
}
