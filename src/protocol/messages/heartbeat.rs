//! Heartbeat (API key 12).

use crate::protocol::primitives::Str;

message! {
    /// The body of the Heartbeat request.
    struct HeartbeatRequest versions [0-4] flexible [4+] {
        group_id: Str, "GroupId" [0+];
        generation_id: i32, "GenerationId" [0+];
        member_id: Str, "MemberId" [0+];
        group_instance_id: Option<Str>, "GroupInstanceId" [3+] nullable [3+];
    }

    /// The body of the Heartbeat response.
    struct HeartbeatResponse versions [0-4] flexible [4+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [1+], ignorable;
        error_code: i16, "ErrorCode" [0+];
    }
}
