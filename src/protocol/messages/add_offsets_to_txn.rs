//! AddOffsetsToTxn (API key 25).

use crate::protocol::primitives::Str;

message! {
    /// The body of the AddOffsetsToTxn request.
    struct AddOffsetsToTxnRequest versions [0-4] flexible [3+] {
        transactional_id: Str, "TransactionalId" [0+];
        producer_id: i64, "ProducerId" [0+];
        producer_epoch: i16, "ProducerEpoch" [0+];
        group_id: Str, "GroupId" [0+];
    }

    /// The body of the AddOffsetsToTxn response.
    struct AddOffsetsToTxnResponse versions [0-4] flexible [3+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
    }
}
