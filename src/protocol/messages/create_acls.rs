//! CreateAcls (API key 30).

use crate::protocol::primitives::Str;

message! {
    /// The body of the CreateAcls request.
    struct CreateAclsRequest versions [1-3] flexible [2+] {
        creations: Vec<AclCreation>, "Creations" [0+];
    }

    /// An element of [`CreateAclsRequest::creations`].
    struct AclCreation {
        resource_type: i8, "ResourceType" [0+];
        resource_name: Str, "ResourceName" [0+];
        resource_pattern_type: i8 = 3, "ResourcePatternType" [1+];
        principal: Str, "Principal" [0+];
        host: Str, "Host" [0+];
        operation: i8, "Operation" [0+];
        permission_type: i8, "PermissionType" [0+];
    }

    /// The body of the CreateAcls response.
    struct CreateAclsResponse versions [1-3] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        results: Vec<AclCreationResult>, "Results" [0+];
    }

    /// An element of [`CreateAclsResponse::results`].
    struct AclCreationResult {
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
    }
}
