//! DescribeAcls (API key 29).

use crate::protocol::primitives::Str;

message! {
    /// The body of the DescribeAcls request.
    struct DescribeAclsRequest versions [1-3] flexible [2+] {
        resource_type_filter: i8, "ResourceTypeFilter" [0+];
        resource_name_filter: Option<Str> = Some(Str::EMPTY),
            "ResourceNameFilter" [0+] nullable [0+];
        pattern_type_filter: i8 = 3, "PatternTypeFilter" [1+];
        principal_filter: Option<Str> = Some(Str::EMPTY), "PrincipalFilter" [0+] nullable [0+];
        host_filter: Option<Str> = Some(Str::EMPTY), "HostFilter" [0+] nullable [0+];
        operation: i8, "Operation" [0+];
        permission_type: i8, "PermissionType" [0+];
    }

    /// The body of the DescribeAcls response.
    struct DescribeAclsResponse versions [1-3] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
        resources: Vec<DescribeAclsResource>, "Resources" [0+];
    }

    /// An element of [`DescribeAclsResponse::resources`].
    struct DescribeAclsResource {
        resource_type: i8, "ResourceType" [0+];
        resource_name: Str, "ResourceName" [0+];
        pattern_type: i8 = 3, "PatternType" [1+];
        acls: Vec<AclDescription>, "Acls" [0+];
    }

    /// An element of [`DescribeAclsResource::acls`].
    struct AclDescription {
        principal: Str, "Principal" [0+];
        host: Str, "Host" [0+];
        operation: i8, "Operation" [0+];
        permission_type: i8, "PermissionType" [0+];
    }
}
