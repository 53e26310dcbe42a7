//! DeleteRecords (API key 21).

use crate::protocol::primitives::Str;

message! {
    /// The body of the DeleteRecords request.
    struct DeleteRecordsRequest versions [0-2] flexible [2+] {
        topics: Vec<DeleteRecordsTopic>, "Topics" [0+];
        timeout_ms: i32, "TimeoutMs" [0+];
    }

    /// An element of [`DeleteRecordsRequest::topics`].
    struct DeleteRecordsTopic {
        name: Str, "Name" [0+];
        partitions: Vec<DeleteRecordsPartition>, "Partitions" [0+];
    }

    /// An element of [`DeleteRecordsTopic::partitions`].
    struct DeleteRecordsPartition {
        partition_index: i32, "PartitionIndex" [0+];
        offset: i64, "Offset" [0+];
    }

    /// The body of the DeleteRecords response.
    struct DeleteRecordsResponse versions [0-2] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        topics: Vec<DeleteRecordsTopicResult>, "Topics" [0+];
    }

    /// An element of [`DeleteRecordsResponse::topics`].
    struct DeleteRecordsTopicResult {
        name: Str, "Name" [0+];
        partitions: Vec<DeleteRecordsPartitionResult>, "Partitions" [0+];
    }

    /// An element of [`DeleteRecordsTopicResult::partitions`].
    struct DeleteRecordsPartitionResult {
        partition_index: i32, "PartitionIndex" [0+];
        low_watermark: i64, "LowWatermark" [0+];
        error_code: i16, "ErrorCode" [0+];
    }
}
