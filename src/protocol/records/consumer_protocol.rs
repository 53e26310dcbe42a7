//! What consumers put into the opaque bytes of JoinGroup and SyncGroup: the protocol `consumer`.
//!
//! In those bytes the version comes first, as an `int16`; a reader of a later version reads the
//! fields that it knows (see [`read_embedded`](super::read_embedded)).

use bytes::Bytes;

use crate::protocol::primitives::Str;

message! {
    /// The metadata of a consumer that joins a group of protocol type `consumer`.
    struct ConsumerProtocolSubscription versions [0-3] flexible [none] {
        topics: Vec<Str>, "Topics" [0+];
        user_data: Option<Bytes>, "UserData" [0+] nullable [0+];
        owned_partitions: Vec<OwnedPartition>, "OwnedPartitions" [1+], ignorable;
        generation_id: i32 = -1, "GenerationId" [2+], ignorable;
        rack_id: Option<Str>, "RackId" [3+] nullable [3+], ignorable;
    }

    /// An element of [`ConsumerProtocolSubscription::owned_partitions`].
    struct OwnedPartition as "TopicPartition" {
        topic: Str, "Topic" [1+];
        partitions: Vec<i32>, "Partitions" [1+];
    }

    /// What the leader of such a group assigns to one member.
    struct ConsumerProtocolAssignment versions [0-3] flexible [none] {
        assigned_partitions: Vec<AssignedPartition>, "AssignedPartitions" [0+];
        user_data: Option<Bytes>, "UserData" [0+] nullable [0+];
    }

    /// An element of [`ConsumerProtocolAssignment::assigned_partitions`].
    struct AssignedPartition as "TopicPartition" {
        topic: Str, "Topic" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
    }
}
