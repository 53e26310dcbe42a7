//! ListConfigResources (API key 74).

use crate::protocol::primitives::Str;

message! {
    /// The body of the ListConfigResources request.
    struct ListConfigResourcesRequest versions [0-1] flexible [0+] {
        resource_types: Vec<i8>, "ResourceTypes" [1+];
    }

    /// The body of the ListConfigResources response.
    struct ListConfigResourcesResponse versions [0-1] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        config_resources: Vec<ConfigResource>, "ConfigResources" [0+];
    }

    /// An element of [`ListConfigResourcesResponse::config_resources`].
    struct ConfigResource {
        resource_name: Str, "ResourceName" [0+];
        resource_type: i8 = 16, "ResourceType" [1+], ignorable;
    }
}
