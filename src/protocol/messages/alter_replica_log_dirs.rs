//! AlterReplicaLogDirs (API key 34).

use crate::protocol::primitives::Str;

message! {
    /// The body of the AlterReplicaLogDirs request.
    struct AlterReplicaLogDirsRequest versions [1-2] flexible [2+] {
        dirs: Vec<AlterReplicaLogDir>, "Dirs" [0+];
    }

    /// An element of [`AlterReplicaLogDirsRequest::dirs`].
    struct AlterReplicaLogDir {
        path: Str, "Path" [0+];
        topics: Vec<AlterReplicaLogDirTopic>, "Topics" [0+];
    }

    /// An element of [`AlterReplicaLogDir::topics`].
    struct AlterReplicaLogDirTopic {
        name: Str, "Name" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
    }

    /// The body of the AlterReplicaLogDirs response.
    struct AlterReplicaLogDirsResponse versions [1-2] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        results: Vec<AlterReplicaLogDirTopicResult>, "Results" [0+];
    }

    /// An element of [`AlterReplicaLogDirsResponse::results`].
    struct AlterReplicaLogDirTopicResult {
        topic_name: Str, "TopicName" [0+];
        partitions: Vec<AlterReplicaLogDirPartitionResult>, "Partitions" [0+];
    }

    /// An element of [`AlterReplicaLogDirTopicResult::partitions`].
    struct AlterReplicaLogDirPartitionResult {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
    }
}
