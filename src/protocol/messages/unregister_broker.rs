//! UnregisterBroker (API key 64).

use crate::protocol::primitives::Str;

message! {
    /// The body of the UnregisterBroker request.
    struct UnregisterBrokerRequest versions [0] flexible [0+] {
        broker_id: i32, "BrokerId" [0+];
    }

    /// The body of the UnregisterBroker response.
    struct UnregisterBrokerResponse versions [0] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
    }
}
