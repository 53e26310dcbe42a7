//! DescribeTransactions (API key 65).

use crate::protocol::primitives::Str;

message! {
    /// The body of the DescribeTransactions request.
    struct DescribeTransactionsRequest versions [0] flexible [0+] {
        transactional_ids: Vec<Str>, "TransactionalIds" [0+];
    }

    /// The body of the DescribeTransactions response.
    struct DescribeTransactionsResponse versions [0] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        transaction_states: Vec<TransactionState>, "TransactionStates" [0+];
    }

    /// An element of [`DescribeTransactionsResponse::transaction_states`].
    struct TransactionState {
        error_code: i16, "ErrorCode" [0+];
        transactional_id: Str, "TransactionalId" [0+];
        transaction_state: Str, "TransactionState" [0+];
        transaction_timeout_ms: i32, "TransactionTimeoutMs" [0+];
        transaction_start_time_ms: i64, "TransactionStartTimeMs" [0+];
        producer_id: i64, "ProducerId" [0+];
        producer_epoch: i16, "ProducerEpoch" [0+];
        topics: Vec<TopicData>, "Topics" [0+];
    }

    /// An element of [`TransactionState::topics`].
    struct TopicData {
        topic: Str, "Topic" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
    }
}
