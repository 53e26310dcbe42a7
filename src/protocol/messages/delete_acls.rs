//! DeleteAcls (API key 31).

use crate::protocol::primitives::Str;

message! {
    /// The body of the DeleteAcls request.
    struct DeleteAclsRequest versions [1-3] flexible [2+] {
        filters: Vec<DeleteAclsFilter>, "Filters" [0+];
    }

    /// An element of [`DeleteAclsRequest::filters`].
    struct DeleteAclsFilter {
        resource_type_filter: i8, "ResourceTypeFilter" [0+];
        resource_name_filter: Option<Str> = Some(Str::EMPTY),
            "ResourceNameFilter" [0+] nullable [0+];
        pattern_type_filter: i8 = 3, "PatternTypeFilter" [1+];
        principal_filter: Option<Str> = Some(Str::EMPTY), "PrincipalFilter" [0+] nullable [0+];
        host_filter: Option<Str> = Some(Str::EMPTY), "HostFilter" [0+] nullable [0+];
        operation: i8, "Operation" [0+];
        permission_type: i8, "PermissionType" [0+];
    }

    /// The body of the DeleteAcls response.
    struct DeleteAclsResponse versions [1-3] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        filter_results: Vec<DeleteAclsFilterResult>, "FilterResults" [0+];
    }

    /// An element of [`DeleteAclsResponse::filter_results`].
    struct DeleteAclsFilterResult {
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
        matching_acls: Vec<DeleteAclsMatchingAcl>, "MatchingAcls" [0+];
    }

    /// An element of [`DeleteAclsFilterResult::matching_acls`].
    struct DeleteAclsMatchingAcl {
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
        resource_type: i8, "ResourceType" [0+];
        resource_name: Str, "ResourceName" [0+];
        pattern_type: i8 = 3, "PatternType" [1+];
        principal: Str, "Principal" [0+];
        host: Str, "Host" [0+];
        operation: i8, "Operation" [0+];
        permission_type: i8, "PermissionType" [0+];
    }
}
