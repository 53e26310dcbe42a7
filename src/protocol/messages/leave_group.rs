//! LeaveGroup (API key 13).

use crate::protocol::primitives::Str;

message! {
    /// The body of the LeaveGroup request.
    struct LeaveGroupRequest versions [0-5] flexible [4+] {
        group_id: Str, "GroupId" [0+];
        member_id: Str, "MemberId" [0-2];
        members: Vec<MemberIdentity>, "Members" [3+];
    }

    /// An element of [`LeaveGroupRequest::members`].
    struct MemberIdentity {
        member_id: Str, "MemberId" [3+];
        group_instance_id: Option<Str>, "GroupInstanceId" [3+] nullable [3+];
        reason: Option<Str>, "Reason" [5+] nullable [5+], ignorable;
    }

    /// The body of the LeaveGroup response.
    struct LeaveGroupResponse versions [0-5] flexible [4+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [1+], ignorable;
        error_code: i16, "ErrorCode" [0+];
        members: Vec<MemberResponse>, "Members" [3+];
    }

    /// An element of [`LeaveGroupResponse::members`].
    struct MemberResponse {
        member_id: Str, "MemberId" [3+];
        group_instance_id: Option<Str> = Some(Str::EMPTY), "GroupInstanceId" [3+] nullable [3+];
        error_code: i16, "ErrorCode" [3+];
    }
}
