//! AlterConfigs (API key 33).

use crate::protocol::primitives::Str;

message! {
    /// The body of the AlterConfigs request.
    struct AlterConfigsRequest versions [0-2] flexible [2+] {
        resources: Vec<AlterConfigsResource>, "Resources" [0+];
        validate_only: bool, "ValidateOnly" [0+];
    }

    /// An element of [`AlterConfigsRequest::resources`].
    struct AlterConfigsResource {
        resource_type: i8, "ResourceType" [0+];
        resource_name: Str, "ResourceName" [0+];
        configs: Vec<AlterableConfig>, "Configs" [0+];
    }

    /// An element of [`AlterConfigsResource::configs`].
    struct AlterableConfig {
        name: Str, "Name" [0+];
        value: Option<Str> = Some(Str::EMPTY), "Value" [0+] nullable [0+];
    }

    /// The body of the AlterConfigs response.
    struct AlterConfigsResponse versions [0-2] flexible [2+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        responses: Vec<AlterConfigsResourceResponse>, "Responses" [0+];
    }

    /// An element of [`AlterConfigsResponse::responses`].
    struct AlterConfigsResourceResponse {
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
        resource_type: i8, "ResourceType" [0+];
        resource_name: Str, "ResourceName" [0+];
    }
}
