//! AddRaftVoter (API key 80).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the AddRaftVoter request.
    struct AddRaftVoterRequest versions [0-1] flexible [0+] {
        cluster_id: Option<Str> = Some(Str::EMPTY), "ClusterId" [0+] nullable [0+];
        timeout_ms: i32, "TimeoutMs" [0+];
        voter_id: i32, "VoterId" [0+];
        voter_directory_id: Uuid, "VoterDirectoryId" [0+];
        listeners: Vec<Listener>, "Listeners" [0+];
        ack_when_committed: bool = true, "AckWhenCommitted" [1+];
    }

    /// An element of [`AddRaftVoterRequest::listeners`].
    struct Listener {
        name: Str, "Name" [0+];
        host: Str, "Host" [0+];
        port: u16, "Port" [0+];
    }

    /// The body of the AddRaftVoter response.
    struct AddRaftVoterResponse versions [0-1] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+], ignorable;
    }
}
