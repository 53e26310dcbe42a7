//! ApiVersions (API key 18).

use crate::protocol::primitives::Str;

message! {
    /// The body of the ApiVersions request.
    struct ApiVersionsRequest versions [0-5] flexible [3+] {
        client_software_name: Str, "ClientSoftwareName" [3+], ignorable;
        client_software_version: Str, "ClientSoftwareVersion" [3+], ignorable;
        cluster_id: Option<Str>, "ClusterId" [5+] nullable [5+], ignorable;
        node_id: i32 = -1, "NodeId" [5+], ignorable;
    }

    /// The body of the ApiVersions response.
    struct ApiVersionsResponse versions [0-5] flexible [3+] {
        error_code: i16, "ErrorCode" [0+];
        api_keys: Vec<ApiVersion>, "ApiKeys" [0+];
        throttle_time_ms: i32, "ThrottleTimeMs" [1+], ignorable;
        supported_features: Vec<SupportedFeatureKey>,
            "SupportedFeatures" [3+] tag 0 [3+], ignorable;
        finalized_features_epoch: i64 = -1, "FinalizedFeaturesEpoch" [3+] tag 1 [3+], ignorable;
        finalized_features: Vec<FinalizedFeatureKey>,
            "FinalizedFeatures" [3+] tag 2 [3+], ignorable;
        zk_migration_ready: bool, "ZkMigrationReady" [3+] tag 3 [3+], ignorable;
    }

    /// An element of [`ApiVersionsResponse::api_keys`].
    struct ApiVersion {
        api_key: i16, "ApiKey" [0+];
        min_version: i16, "MinVersion" [0+];
        max_version: i16, "MaxVersion" [0+];
    }

    /// An element of [`ApiVersionsResponse::supported_features`].
    struct SupportedFeatureKey {
        name: Str, "Name" [3+];
        min_version: i16, "MinVersion" [3+];
        max_version: i16, "MaxVersion" [3+];
    }

    /// An element of [`ApiVersionsResponse::finalized_features`].
    struct FinalizedFeatureKey {
        name: Str, "Name" [3+];
        max_version_level: i16, "MaxVersionLevel" [3+];
        min_version_level: i16, "MinVersionLevel" [3+];
    }
}
