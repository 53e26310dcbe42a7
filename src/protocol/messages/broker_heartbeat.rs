//! BrokerHeartbeat (API key 63).

use super::own::Outcome;
use crate::types::Uuid;

message! {
    /// The body of the BrokerHeartbeat request.
    struct BrokerHeartbeatRequest versions [0-2] flexible [0+] {
        broker_id: i32, "BrokerId" [0+];
        broker_epoch: i64 = -1, "BrokerEpoch" [0+];
        current_metadata_offset: i64, "CurrentMetadataOffset" [0+];
        want_fence: bool, "WantFence" [0+];
        want_shut_down: bool, "WantShutDown" [0+];
        offline_log_dirs: Vec<Uuid>, "OfflineLogDirs" [1+] tag 0 [1+];
        cordoned_log_dirs: Option<Vec<Uuid>>, "CordonedLogDirs" [2+] nullable [2+] tag 1 [2+];
        ottla: OttlaHeartbeat, "Ottla" [0+] tag 10000 [0+];
    }

    /// The value of [`BrokerHeartbeatRequest::ottla`].
    struct OttlaHeartbeat {
        handed_over: i64 = -1, "HandedOver" [0+];
    }

    /// The body of the BrokerHeartbeat response.
    struct BrokerHeartbeatResponse versions [0-2] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        is_caught_up: bool = false, "IsCaughtUp" [0+];
        is_fenced: bool = true, "IsFenced" [0+];
        should_shut_down: bool, "ShouldShutDown" [0+];
        ottla: Outcome, "Ottla" [0+] tag 10000 [0+];
    }
}
