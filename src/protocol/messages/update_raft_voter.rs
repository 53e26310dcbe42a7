//! UpdateRaftVoter (API key 82).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the UpdateRaftVoter request.
    struct UpdateRaftVoterRequest versions [0] flexible [0+] {
        cluster_id: Option<Str> = Some(Str::EMPTY), "ClusterId" [0+] nullable [0+];
        current_leader_epoch: i32, "CurrentLeaderEpoch" [0+];
        voter_id: i32, "VoterId" [0+];
        voter_directory_id: Uuid, "VoterDirectoryId" [0+];
        listeners: Vec<Listener>, "Listeners" [0+];
        kraft_version_feature: KRaftVersionFeature, "KRaftVersionFeature" [0+];
    }

    /// An element of [`UpdateRaftVoterRequest::listeners`].
    struct Listener {
        name: Str, "Name" [0+];
        host: Str, "Host" [0+];
        port: u16, "Port" [0+];
    }

    /// The value of [`UpdateRaftVoterRequest::kraft_version_feature`].
    struct KRaftVersionFeature {
        min_supported_version: i16, "MinSupportedVersion" [0+];
        max_supported_version: i16, "MaxSupportedVersion" [0+];
    }

    /// The body of the UpdateRaftVoter response.
    struct UpdateRaftVoterResponse versions [0] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        current_leader: CurrentLeader, "CurrentLeader" [0+] tag 0 [0+];
    }

    /// The value of [`UpdateRaftVoterResponse::current_leader`].
    struct CurrentLeader {
        leader_id: i32 = -1, "LeaderId" [0+];
        leader_epoch: i32 = -1, "LeaderEpoch" [0+];
        host: Str, "Host" [0+];
        port: i32, "Port" [0+];
    }
}
