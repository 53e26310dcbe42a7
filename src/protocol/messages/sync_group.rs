//! SyncGroup (API key 14).

use bytes::Bytes;

use crate::protocol::primitives::Str;

message! {
    /// The body of the SyncGroup request.
    struct SyncGroupRequest versions [0-5] flexible [4+] {
        group_id: Str, "GroupId" [0+];
        generation_id: i32, "GenerationId" [0+];
        member_id: Str, "MemberId" [0+];
        group_instance_id: Option<Str>, "GroupInstanceId" [3+] nullable [3+];
        protocol_type: Option<Str>, "ProtocolType" [5+] nullable [5+], ignorable;
        protocol_name: Option<Str>, "ProtocolName" [5+] nullable [5+], ignorable;
        assignments: Vec<SyncGroupRequestAssignment>, "Assignments" [0+];
    }

    /// An element of [`SyncGroupRequest::assignments`].
    struct SyncGroupRequestAssignment {
        member_id: Str, "MemberId" [0+];
        assignment: Bytes, "Assignment" [0+];
    }

    /// The body of the SyncGroup response.
    struct SyncGroupResponse versions [0-5] flexible [4+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [1+], ignorable;
        error_code: i16, "ErrorCode" [0+];
        protocol_type: Option<Str>, "ProtocolType" [5+] nullable [5+], ignorable;
        protocol_name: Option<Str>, "ProtocolName" [5+] nullable [5+], ignorable;
        assignment: Bytes, "Assignment" [0+];
    }
}
