//! UpdateFeatures: v0-v2.
//!
//! Behaviour: changes the levels of finalized features, all of them or none (KIP-584). With
//! `group.version` at level 0 the APIs of the consumer protocol are refused. Versions: v1 which way a
//! level may go, and validate_only (KIP-778); v2 no results for single features. Errors:
//! INVALID_UPDATE_VERSION, also for a way that does not exist; REQUEST_TIMED_OUT.

use super::common;
use crate::broker::dispatch::Call;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::{FeatureUpdate, UpdateFeatures, UpgradeType};
use crate::protocol::Str;
use crate::protocol::messages::update_features::{
    FeatureUpdateKey, UpdatableFeatureResult, UpdateFeaturesRequest, UpdateFeaturesResponse,
};

/// What Kafka writes where nothing went wrong with a feature.
const NO_ERROR: Str = Str::from_static("NONE");

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &UpdateFeaturesRequest,
) -> Result<UpdateFeaturesResponse> {
    let version = call.context.api_version;
    let updates = request.feature_updates.iter().map(|key| update(key, version));
    let updates = updates.collect::<Result<_>>()?;
    let command = UpdateFeatures { updates, validate_only: request.validate_only };
    let outcome = call.state.submit(command, request.timeout_ms).await?;
    let result = |key: &FeatureUpdateKey| UpdatableFeatureResult {
        feature: key.feature.clone(),
        error_code: 0,
        error_message: Some(NO_ERROR),
    };
    let has_results = version <= 1 && outcome.is_ok();
    let results = request.feature_updates.iter().filter(|_| has_results).map(result).collect();
    let (error_code, error_message) = common::refusal(outcome);
    Ok(UpdateFeaturesResponse { error_code, error_message, results, throttle_time_ms: 0 })
}

fn update(key: &FeatureUpdateKey, version: i16) -> Result<FeatureUpdate> {
    let upgrade = match (version, key.upgrade_type) {
        (0, _) if key.allow_downgrade => UpgradeType::SafeDowngrade,
        (0, _) | (_, 1) => UpgradeType::Upgrade,
        (_, 2) => UpgradeType::SafeDowngrade,
        (_, 3) => UpgradeType::UnsafeDowngrade,
        (_, other) => {
            let context = format!("feature {:?}: there is no upgrade type {other}", key.feature);
            return Err(Error::kafka(ErrorCode::InvalidUpdateVersion, context));
        }
    };
    Ok(FeatureUpdate { feature: (&key.feature).into(), level: key.max_version_level, upgrade })
}
