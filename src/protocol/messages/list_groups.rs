//! ListGroups (API key 16).

use crate::protocol::primitives::Str;

message! {
    /// The body of the ListGroups request.
    struct ListGroupsRequest versions [0-5] flexible [3+] {
        states_filter: Vec<Str>, "StatesFilter" [4+];
        types_filter: Vec<Str>, "TypesFilter" [5+];
    }

    /// The body of the ListGroups response.
    struct ListGroupsResponse versions [0-5] flexible [3+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [1+], ignorable;
        error_code: i16, "ErrorCode" [0+];
        groups: Vec<ListedGroup>, "Groups" [0+];
    }

    /// An element of [`ListGroupsResponse::groups`].
    struct ListedGroup {
        group_id: Str, "GroupId" [0+];
        protocol_type: Str, "ProtocolType" [0+];
        group_state: Str, "GroupState" [4+], ignorable;
        group_type: Str, "GroupType" [5+], ignorable;
    }
}
