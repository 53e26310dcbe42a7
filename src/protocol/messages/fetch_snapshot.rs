//! FetchSnapshot (API key 59).

use crate::protocol::primitives::{Records, Str};
use crate::types::Uuid;

message! {
    /// The body of the FetchSnapshot request.
    struct FetchSnapshotRequest versions [0-1] flexible [0+] {
        cluster_id: Option<Str>, "ClusterId" [0+] nullable [0+] tag 0 [0+];
        replica_id: i32 = -1, "ReplicaId" [0+];
        max_bytes: i32 = i32::MAX, "MaxBytes" [0+];
        topics: Vec<TopicSnapshot>, "Topics" [0+];
    }

    /// An element of [`FetchSnapshotRequest::topics`].
    struct TopicSnapshot {
        name: Str, "Name" [0+];
        partitions: Vec<PartitionSnapshot>, "Partitions" [0+];
    }

    /// An element of [`TopicSnapshot::partitions`].
    struct PartitionSnapshot {
        partition: i32, "Partition" [0+];
        current_leader_epoch: i32, "CurrentLeaderEpoch" [0+];
        snapshot_id: SnapshotId, "SnapshotId" [0+];
        position: i64, "Position" [0+];
        replica_directory_id: Uuid, "ReplicaDirectoryId" [1+] tag 0 [1+], ignorable;
    }

    /// The value of [`PartitionSnapshot::snapshot_id`].
    struct SnapshotId {
        end_offset: i64, "EndOffset" [0+];
        epoch: i32, "Epoch" [0+];
    }

    /// The body of the FetchSnapshot response.
    struct FetchSnapshotResponse versions [0-1] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+], ignorable;
        error_code: i16, "ErrorCode" [0+];
        topics: Vec<TopicPart>, "Topics" [0+];
        node_endpoints: Vec<NodeEndpoint>, "NodeEndpoints" [1+] tag 0 [1+];
    }

    /// An element of [`FetchSnapshotResponse::topics`].
    struct TopicPart as "TopicSnapshot" {
        name: Str, "Name" [0+];
        partitions: Vec<PartitionPart>, "Partitions" [0+];
    }

    /// An element of [`TopicPart::partitions`].
    struct PartitionPart as "PartitionSnapshot" {
        index: i32, "Index" [0+];
        error_code: i16, "ErrorCode" [0+];
        snapshot_id: SnapshotId, "SnapshotId" [0+];
        current_leader: LeaderIdAndEpoch, "CurrentLeader" [0+] tag 0 [0+];
        size: i64, "Size" [0+];
        position: i64, "Position" [0+];
        unaligned_records: Records, "UnalignedRecords" [0+];
    }

    /// The value of [`PartitionPart::current_leader`].
    struct LeaderIdAndEpoch {
        leader_id: i32, "LeaderId" [0+];
        leader_epoch: i32, "LeaderEpoch" [0+];
    }

    /// An element of [`FetchSnapshotResponse::node_endpoints`].
    struct NodeEndpoint {
        node_id: i32, "NodeId" [1+];
        host: Str, "Host" [1+];
        port: u16, "Port" [1+];
    }
}
