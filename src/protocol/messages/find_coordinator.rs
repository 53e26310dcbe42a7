//! FindCoordinator (API key 10).

use crate::protocol::primitives::Str;

message! {
    /// The body of the FindCoordinator request.
    struct FindCoordinatorRequest versions [0-6] flexible [3+] {
        key: Str, "Key" [0-3];
        key_type: i8, "KeyType" [1+];
        coordinator_keys: Vec<Str>, "CoordinatorKeys" [4+];
    }

    /// The body of the FindCoordinator response.
    struct FindCoordinatorResponse versions [0-6] flexible [3+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [1+], ignorable;
        error_code: i16, "ErrorCode" [0-3];
        error_message: Option<Str> = Some(Str::EMPTY),
            "ErrorMessage" [1-3] nullable [1-3], ignorable;
        node_id: i32, "NodeId" [0-3];
        host: Str, "Host" [0-3];
        port: i32, "Port" [0-3];
        coordinators: Vec<Coordinator>, "Coordinators" [4+];
    }

    /// An element of [`FindCoordinatorResponse::coordinators`].
    struct Coordinator {
        key: Str, "Key" [4+];
        node_id: i32, "NodeId" [4+];
        host: Str, "Host" [4+];
        port: i32, "Port" [4+];
        error_code: i16, "ErrorCode" [4+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [4+] nullable [4+], ignorable;
    }
}
