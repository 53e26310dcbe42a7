//! The records of `__transaction_state`: a transactional id, and how its transaction stands.

use crate::protocol::primitives::Str;

message! {
    /// The key.
    struct TransactionLogKey versions [0] flexible [none] {
        transactional_id: Str, "TransactionalId" [0];
    }

    /// The value.
    struct TransactionLogValue versions [0-1] flexible [1+] {
        producer_id: i64, "ProducerId" [0+];
        previous_producer_id: i64 = -1, "PreviousProducerId" [1+] tag 0 [1+];
        next_producer_id: i64 = -1, "NextProducerId" [1+] tag 1 [1+];
        producer_epoch: i16, "ProducerEpoch" [0+];
        next_producer_epoch: i16 = -1, "NextProducerEpoch" [1+] tag 3 [1+];
        transaction_timeout_ms: i32, "TransactionTimeoutMs" [0+];
        transaction_status: i8, "TransactionStatus" [0+];
        transaction_partitions: Option<Vec<PartitionsSchema>> = Some(Vec::new()),
            "TransactionPartitions" [0+] nullable [0+];
        transaction_last_update_timestamp_ms: i64, "TransactionLastUpdateTimestampMs" [0+];
        transaction_start_timestamp_ms: i64, "TransactionStartTimestampMs" [0+];
        client_transaction_version: i16, "ClientTransactionVersion" [1+] tag 2 [1+];
    }

    /// An element of [`TransactionLogValue::transaction_partitions`].
    struct PartitionsSchema {
        topic: Str, "Topic" [0+];
        partition_ids: Vec<i32>, "PartitionIds" [0+];
    }
}
