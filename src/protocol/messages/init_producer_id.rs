//! InitProducerId (API key 22).

use crate::protocol::primitives::Str;

message! {
    /// The body of the InitProducerId request.
    struct InitProducerIdRequest versions [0-6] flexible [2+] {
        transactional_id: Option<Str> = Some(Str::EMPTY), "TransactionalId" [0+] nullable [0+];
        transaction_timeout_ms: i32, "TransactionTimeoutMs" [0+];
        producer_id: i64 = -1, "ProducerId" [3+];
        producer_epoch: i16 = -1, "ProducerEpoch" [3+];
        enable2_pc: bool, "Enable2Pc" [6+];
        keep_prepared_txn: bool, "KeepPreparedTxn" [6+];
    }

    /// The body of the InitProducerId response.
    struct InitProducerIdResponse versions [0-6] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+], ignorable;
        error_code: i16, "ErrorCode" [0+];
        producer_id: i64 = -1, "ProducerId" [0+];
        producer_epoch: i16, "ProducerEpoch" [0+];
        ongoing_txn_producer_id: i64 = -1, "OngoingTxnProducerId" [6+];
        ongoing_txn_producer_epoch: i16 = -1, "OngoingTxnProducerEpoch" [6+];
    }
}
