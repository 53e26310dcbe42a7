//! DescribeQuorum (API key 55).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the DescribeQuorum request.
    struct DescribeQuorumRequest versions [0-2] flexible [0+] {
        topics: Vec<TopicData>, "Topics" [0+];
    }

    /// An element of [`DescribeQuorumRequest::topics`].
    struct TopicData {
        topic_name: Str, "TopicName" [0+];
        partitions: Vec<PartitionData>, "Partitions" [0+];
    }

    /// An element of [`TopicData::partitions`].
    struct PartitionData {
        partition_index: i32, "PartitionIndex" [0+];
    }

    /// The body of the DescribeQuorum response.
    struct DescribeQuorumResponse versions [0-2] flexible [0+] {
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [2+] nullable [2+], ignorable;
        topics: Vec<TopicQuorum>, "Topics" [0+];
        nodes: Vec<Node>, "Nodes" [2+];
    }

    /// An element of [`DescribeQuorumResponse::topics`].
    struct TopicQuorum as "TopicData" {
        topic_name: Str, "TopicName" [0+];
        partitions: Vec<PartitionQuorum>, "Partitions" [0+];
    }

    /// An element of [`TopicQuorum::partitions`].
    struct PartitionQuorum as "PartitionData" {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [2+] nullable [2+], ignorable;
        leader_id: i32, "LeaderId" [0+];
        leader_epoch: i32, "LeaderEpoch" [0+];
        high_watermark: i64, "HighWatermark" [0+];
        current_voters: Vec<ReplicaState>, "CurrentVoters" [0+];
        observers: Vec<ReplicaState>, "Observers" [0+];
    }

    /// An element of [`DescribeQuorumResponse::nodes`].
    struct Node {
        node_id: i32, "NodeId" [2+];
        listeners: Vec<Listener>, "Listeners" [2+];
    }

    /// An element of [`Node::listeners`].
    struct Listener {
        name: Str, "Name" [2+];
        host: Str, "Host" [2+];
        port: u16, "Port" [2+];
    }

    /// A structure that several fields of [`DescribeQuorumResponse`] share.
    struct ReplicaState {
        replica_id: i32, "ReplicaId" [0+];
        replica_directory_id: Uuid, "ReplicaDirectoryId" [2+];
        log_end_offset: i64, "LogEndOffset" [0+];
        last_fetch_timestamp: i64 = -1, "LastFetchTimestamp" [1+], ignorable;
        last_caught_up_timestamp: i64 = -1, "LastCaughtUpTimestamp" [1+], ignorable;
    }
}
