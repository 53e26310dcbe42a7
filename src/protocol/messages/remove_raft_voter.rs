//! RemoveRaftVoter (API key 81).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the RemoveRaftVoter request.
    struct RemoveRaftVoterRequest versions [0] flexible [0+] {
        cluster_id: Option<Str> = Some(Str::EMPTY), "ClusterId" [0+] nullable [0+];
        voter_id: i32, "VoterId" [0+];
        voter_directory_id: Uuid, "VoterDirectoryId" [0+];
    }

    /// The body of the RemoveRaftVoter response.
    struct RemoveRaftVoterResponse versions [0] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+], ignorable;
    }
}
