//! JoinGroup (API key 11).

use bytes::Bytes;

use crate::protocol::primitives::Str;

message! {
    /// The body of the JoinGroup request.
    struct JoinGroupRequest versions [0-9] flexible [6+] {
        group_id: Str, "GroupId" [0+];
        session_timeout_ms: i32, "SessionTimeoutMs" [0+];
        rebalance_timeout_ms: i32 = -1, "RebalanceTimeoutMs" [1+], ignorable;
        member_id: Str, "MemberId" [0+];
        group_instance_id: Option<Str>, "GroupInstanceId" [5+] nullable [5+];
        protocol_type: Str, "ProtocolType" [0+];
        protocols: Vec<JoinGroupRequestProtocol>, "Protocols" [0+];
        reason: Option<Str>, "Reason" [8+] nullable [8+], ignorable;
    }

    /// An element of [`JoinGroupRequest::protocols`].
    struct JoinGroupRequestProtocol {
        name: Str, "Name" [0+];
        metadata: Bytes, "Metadata" [0+];
    }

    /// The body of the JoinGroup response.
    struct JoinGroupResponse versions [0-9] flexible [6+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [2+], ignorable;
        error_code: i16, "ErrorCode" [0+];
        generation_id: i32 = -1, "GenerationId" [0+];
        protocol_type: Option<Str>, "ProtocolType" [7+] nullable [7+], ignorable;
        protocol_name: Option<Str> = Some(Str::EMPTY), "ProtocolName" [0+] nullable [7+];
        leader: Str, "Leader" [0+];
        skip_assignment: bool, "SkipAssignment" [9+];
        member_id: Str, "MemberId" [0+];
        members: Vec<JoinGroupResponseMember>, "Members" [0+];
    }

    /// An element of [`JoinGroupResponse::members`].
    struct JoinGroupResponseMember {
        member_id: Str, "MemberId" [0+];
        group_instance_id: Option<Str>, "GroupInstanceId" [5+] nullable [5+], ignorable;
        metadata: Bytes, "Metadata" [0+];
    }
}
