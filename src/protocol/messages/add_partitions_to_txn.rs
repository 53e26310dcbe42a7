//! AddPartitionsToTxn (API key 24).

use crate::protocol::primitives::Str;

message! {
    /// The body of the AddPartitionsToTxn request.
    struct AddPartitionsToTxnRequest versions [0-5] flexible [3+] {
        transactions: Vec<AddPartitionsToTxnTransaction>, "Transactions" [4+];
        v3_and_below_transactional_id: Str, "V3AndBelowTransactionalId" [0-3];
        v3_and_below_producer_id: i64, "V3AndBelowProducerId" [0-3];
        v3_and_below_producer_epoch: i16, "V3AndBelowProducerEpoch" [0-3];
        v3_and_below_topics: Vec<AddPartitionsToTxnTopic>, "V3AndBelowTopics" [0-3];
    }

    /// An element of [`AddPartitionsToTxnRequest::transactions`].
    struct AddPartitionsToTxnTransaction {
        transactional_id: Str, "TransactionalId" [4+];
        producer_id: i64, "ProducerId" [4+];
        producer_epoch: i16, "ProducerEpoch" [4+];
        verify_only: bool, "VerifyOnly" [4+];
        topics: Vec<AddPartitionsToTxnTopic>, "Topics" [4+];
    }

    /// An element of [`AddPartitionsToTxnRequest::v3_and_below_topics`].
    struct AddPartitionsToTxnTopic {
        name: Str, "Name" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
    }

    /// The body of the AddPartitionsToTxn response.
    struct AddPartitionsToTxnResponse versions [0-5] flexible [3+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [4+], ignorable;
        results_by_transaction: Vec<AddPartitionsToTxnResult>, "ResultsByTransaction" [4+];
        results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult>, "ResultsByTopicV3AndBelow" [0-3];
    }

    /// An element of [`AddPartitionsToTxnResponse::results_by_transaction`].
    struct AddPartitionsToTxnResult {
        transactional_id: Str, "TransactionalId" [4+];
        topic_results: Vec<AddPartitionsToTxnTopicResult>, "TopicResults" [4+];
    }

    /// An element of [`AddPartitionsToTxnResponse::results_by_topic_v3_and_below`].
    struct AddPartitionsToTxnTopicResult {
        name: Str, "Name" [0+];
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult>, "ResultsByPartition" [0+];
    }

    /// An element of [`AddPartitionsToTxnTopicResult::results_by_partition`].
    struct AddPartitionsToTxnPartitionResult {
        partition_index: i32, "PartitionIndex" [0+];
        partition_error_code: i16, "PartitionErrorCode" [0+];
    }
}
