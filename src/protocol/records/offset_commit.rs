//! An offset that a group committed for one partition.

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The key of record type 1.
    struct OffsetCommitKey versions [0] flexible [none] {
        group: Str, "group" [0];
        topic: Str, "topic" [0];
        partition: i32, "partition" [0];
    }

    /// The value of record type 1.
    struct OffsetCommitValue versions [0-4] flexible [4+] {
        offset: i64, "offset" [0+];
        leader_epoch: i32 = -1, "leaderEpoch" [3+], ignorable;
        metadata: Str, "metadata" [0+];
        commit_timestamp: i64, "commitTimestamp" [0+];
        expire_timestamp: i64 = -1, "expireTimestamp" [1], ignorable;
        topic_id: Uuid, "topicId" [4+] tag 0 [4+], ignorable;
    }
}
