//! AllocateProducerIds (API key 67).

use super::own::Outcome;

message! {
    /// The body of the AllocateProducerIds request.
    struct AllocateProducerIdsRequest versions [0] flexible [0+] {
        broker_id: i32, "BrokerId" [0+];
        broker_epoch: i64 = -1, "BrokerEpoch" [0+];
    }

    /// The body of the AllocateProducerIds response.
    struct AllocateProducerIdsResponse versions [0] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        producer_id_start: i64, "ProducerIdStart" [0+];
        producer_id_len: i32, "ProducerIdLen" [0+];
        ottla: Outcome, "Ottla" [0+] tag 10000 [0+];
    }
}
