//! Finalized features: what all brokers of the cluster have agreed on (KIP-584).

use std::collections::BTreeSet;

use super::Controller;
use super::command::Refusal;
use super::items::{FeatureUpdate, UpgradeType};
use crate::error::ErrorCode;
use crate::machine::metadata::{
    ELR_FEATURE, MetadataRecord, SUPPORTED_FEATURES, TRANSACTION_FEATURE,
};

impl Controller {
    /// The records that give a new cluster its features, and one that was founded by an older version those
    /// that have been added since. The version of transactions is then the one that it has had so far, as in Kafka: it is
    /// raised by whoever operates the cluster, once the clients are new enough.
    pub(super) fn add_features(&self, records: &mut Vec<MetadataRecord>) {
        let is_new = SUPPORTED_FEATURES.iter().all(|one| !self.image.has_decided(one.name));
        let missing =
            SUPPORTED_FEATURES.iter().filter(|feature| !self.image.has_decided(feature.name));
        if missing.clone().any(|feature| feature.name == ELR_FEATURE) {
            self.settle_min_in_sync(records);
        }
        records.extend(missing.map(|feature| {
            let stays = feature.name == TRANSACTION_FEATURE && !is_new;
            let level = if stays { feature.min_level } else { feature.max_level };
            MetadataRecord::Feature { name: feature.name.into(), level }
        }));
    }

    pub(super) fn update_features(
        &self,
        updates: &[FeatureUpdate],
        validate_only: bool,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), Refusal> {
        let mut seen = BTreeSet::new();
        for update in updates {
            if !seen.insert(&update.feature) {
                return Err(invalid(update, "the feature is listed twice in the request"));
            }
            self.check_update(update)?;
        }
        if !validate_only {
            if updates.iter().any(|update| &*update.feature == ELR_FEATURE && update.level >= 1) {
                self.settle_min_in_sync(records);
            }
            records.extend(updates.iter().map(|update| MetadataRecord::Feature {
                name: update.feature.clone(),
                level: update.level,
            }));
        }
        Ok(())
    }

    fn check_update(&self, update: &FeatureUpdate) -> Result<(), Refusal> {
        let FeatureUpdate { feature, level, upgrade } = update;
        let supported = SUPPORTED_FEATURES.iter().find(|known| *known.name == **feature);
        let Some(supported) = supported else {
            return Err(invalid(update, "this version does not know the feature"));
        };
        if !(supported.min_level..=supported.max_level).contains(level) {
            let why = format!(
                "this version supports levels {} to {}",
                supported.min_level, supported.max_level
            );
            return Err(invalid(update, &why));
        }
        let current = self.image.feature(feature);
        match upgrade {
            UpgradeType::Upgrade if *level < current => {
                let why = format!("it is at {current}; lowering it has to be asked for");
                Err(invalid(update, &why))
            }
            UpgradeType::SafeDowngrade | UpgradeType::UnsafeDowngrade if *level > current => {
                let why = format!("it is at {current}, which is lower");
                Err(invalid(update, &why))
            }
            _ => Ok(()),
        }
    }
}

fn invalid(update: &FeatureUpdate, why: &str) -> Refusal {
    let FeatureUpdate { feature, level, .. } = update;
    let text = format!("feature '{}' cannot be at level {level}: {why}", feature.escape_debug());
    Refusal::new(ErrorCode::InvalidUpdateVersion, text)
}
