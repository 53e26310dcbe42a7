//! DeleteGroups (API key 42).

use crate::protocol::primitives::Str;

message! {
    /// The body of the DeleteGroups request.
    struct DeleteGroupsRequest versions [0-3] flexible [2+] {
        groups_names: Vec<Str>, "GroupsNames" [0+];
    }

    /// The body of the DeleteGroups response.
    struct DeleteGroupsResponse versions [0-3] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        results: Vec<DeletableGroupResult>, "Results" [0+];
    }

    /// An element of [`DeleteGroupsResponse::results`].
    struct DeletableGroupResult {
        group_id: Str, "GroupId" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str>, "ErrorMessage" [3+] nullable [3+], ignorable;
    }
}
