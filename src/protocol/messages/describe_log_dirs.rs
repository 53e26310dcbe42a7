//! DescribeLogDirs (API key 35).

use super::own::TierState;
use crate::protocol::primitives::Str;

message! {
    /// The body of the DescribeLogDirs request.
    struct DescribeLogDirsRequest versions [1-5] flexible [2+] {
        topics: Option<Vec<DescribableLogDirTopic>> = Some(Vec::new()), "Topics" [0+] nullable [0+];
    }

    /// An element of [`DescribeLogDirsRequest::topics`].
    struct DescribableLogDirTopic {
        topic: Str, "Topic" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
    }

    /// The body of the DescribeLogDirs response.
    struct DescribeLogDirsResponse versions [1-5] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [3+], ignorable;
        results: Vec<DescribeLogDirsResult>, "Results" [0+];
    }

    /// An element of [`DescribeLogDirsResponse::results`].
    struct DescribeLogDirsResult {
        error_code: i16, "ErrorCode" [0+];
        log_dir: Str, "LogDir" [0+];
        topics: Vec<DescribeLogDirsTopic>, "Topics" [0+];
        total_bytes: i64 = -1, "TotalBytes" [4+], ignorable;
        usable_bytes: i64 = -1, "UsableBytes" [4+], ignorable;
        is_cordoned: bool, "IsCordoned" [5+], ignorable;
    }

    /// An element of [`DescribeLogDirsResult::topics`].
    struct DescribeLogDirsTopic {
        name: Str, "Name" [0+];
        partitions: Vec<DescribeLogDirsPartition>, "Partitions" [0+];
    }

    /// An element of [`DescribeLogDirsTopic::partitions`].
    struct DescribeLogDirsPartition {
        partition_index: i32, "PartitionIndex" [0+];
        partition_size: i64, "PartitionSize" [0+];
        offset_lag: i64, "OffsetLag" [0+];
        is_future_key: bool, "IsFutureKey" [0+];
        tier: TierState, "Tier" [2+] tag 10000 [2+], ignorable;
    }
}
