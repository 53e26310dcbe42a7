//! DescribeGroups (API key 15).

use bytes::Bytes;

use crate::protocol::primitives::Str;

message! {
    /// The body of the DescribeGroups request.
    struct DescribeGroupsRequest versions [0-6] flexible [5+] {
        groups: Vec<Str>, "Groups" [0+];
        include_authorized_operations: bool, "IncludeAuthorizedOperations" [3+];
    }

    /// The body of the DescribeGroups response.
    struct DescribeGroupsResponse versions [0-6] flexible [5+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [1+], ignorable;
        groups: Vec<DescribedGroup>, "Groups" [0+];
    }

    /// An element of [`DescribeGroupsResponse::groups`].
    struct DescribedGroup {
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str>, "ErrorMessage" [6+] nullable [6+];
        group_id: Str, "GroupId" [0+];
        group_state: Str, "GroupState" [0+];
        protocol_type: Str, "ProtocolType" [0+];
        protocol_data: Str, "ProtocolData" [0+];
        members: Vec<DescribedGroupMember>, "Members" [0+];
        authorized_operations: i32 = i32::MIN, "AuthorizedOperations" [3+];
    }

    /// An element of [`DescribedGroup::members`].
    struct DescribedGroupMember {
        member_id: Str, "MemberId" [0+];
        group_instance_id: Option<Str>, "GroupInstanceId" [4+] nullable [4+], ignorable;
        client_id: Str, "ClientId" [0+];
        client_host: Str, "ClientHost" [0+];
        member_metadata: Bytes, "MemberMetadata" [0+];
        member_assignment: Bytes, "MemberAssignment" [0+];
    }
}
