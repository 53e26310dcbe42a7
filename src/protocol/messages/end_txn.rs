//! EndTxn (API key 26).

use crate::protocol::primitives::Str;

message! {
    /// The body of the EndTxn request.
    struct EndTxnRequest versions [0-5] flexible [3+] {
        transactional_id: Str, "TransactionalId" [0+];
        producer_id: i64, "ProducerId" [0+];
        producer_epoch: i16, "ProducerEpoch" [0+];
        committed: bool, "Committed" [0+];
    }

    /// The body of the EndTxn response.
    struct EndTxnResponse versions [0-5] flexible [3+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        producer_id: i64 = -1, "ProducerId" [5+], ignorable;
        producer_epoch: i16 = -1, "ProducerEpoch" [5+], ignorable;
    }
}
