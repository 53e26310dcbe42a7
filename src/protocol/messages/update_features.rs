//! UpdateFeatures (API key 57).

use crate::protocol::primitives::Str;

message! {
    /// The body of the UpdateFeatures request.
    struct UpdateFeaturesRequest versions [0-2] flexible [0+] {
        timeout_ms: i32 = 60000, "timeoutMs" [0+];
        feature_updates: Vec<FeatureUpdateKey>, "FeatureUpdates" [0+];
        validate_only: bool, "ValidateOnly" [1+];
    }

    /// An element of [`UpdateFeaturesRequest::feature_updates`].
    struct FeatureUpdateKey {
        feature: Str, "Feature" [0+];
        max_version_level: i16, "MaxVersionLevel" [0+];
        allow_downgrade: bool, "AllowDowngrade" [0];
        upgrade_type: i8 = 1, "UpgradeType" [1+];
    }

    /// The body of the UpdateFeatures response.
    struct UpdateFeaturesResponse versions [0-2] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
        results: Vec<UpdatableFeatureResult>, "Results" [0-1], ignorable;
    }

    /// An element of [`UpdateFeaturesResponse::results`].
    struct UpdatableFeatureResult {
        feature: Str, "Feature" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
    }
}
