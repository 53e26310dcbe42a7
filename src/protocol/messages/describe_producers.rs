//! DescribeProducers (API key 61).

use crate::protocol::primitives::Str;

message! {
    /// The body of the DescribeProducers request.
    struct DescribeProducersRequest versions [0] flexible [0+] {
        topics: Vec<TopicRequest>, "Topics" [0+];
    }

    /// An element of [`DescribeProducersRequest::topics`].
    struct TopicRequest {
        name: Str, "Name" [0+];
        partition_indexes: Vec<i32>, "PartitionIndexes" [0+];
    }

    /// The body of the DescribeProducers response.
    struct DescribeProducersResponse versions [0] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        topics: Vec<TopicResponse>, "Topics" [0+];
    }

    /// An element of [`DescribeProducersResponse::topics`].
    struct TopicResponse {
        name: Str, "Name" [0+];
        partitions: Vec<PartitionResponse>, "Partitions" [0+];
    }

    /// An element of [`TopicResponse::partitions`].
    struct PartitionResponse {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str>, "ErrorMessage" [0+] nullable [0+];
        active_producers: Vec<ProducerState>, "ActiveProducers" [0+];
    }

    /// An element of [`PartitionResponse::active_producers`].
    struct ProducerState {
        producer_id: i64, "ProducerId" [0+];
        producer_epoch: i32, "ProducerEpoch" [0+];
        last_sequence: i32 = -1, "LastSequence" [0+];
        last_timestamp: i64 = -1, "LastTimestamp" [0+];
        coordinator_epoch: i32, "CoordinatorEpoch" [0+];
        current_txn_start_offset: i64 = -1, "CurrentTxnStartOffset" [0+];
    }
}
