//! The settings of the tier, typed, and what topics with one must be like.

use std::time::Duration;

use super::{BrokerConfig, ConfigError, ConfigMap, TierTable, TopicConfig, topic_config};

const REMOTE_STORAGE: &str = "remote.storage.enable";
const SYSTEM: &str = "remote.log.storage.system.enable";
const URL: &str = "ottla.tier.url";
const TABLE: &str = "ottla.tier.table";
/// The setting that gives the files of a topic typed columns.
pub const TIER_VALUE_SCHEMA: &str = "ottla.tier.value.schema";
/// How long its value may be: brokers have it in memory, and in their metadata.
/// How long `ottla.tier.value.schema` may be.
pub const TIER_VALUE_SCHEMA_BYTES_MAX: usize = 64 << 10;
const DELETES: &str = "remote.log.delete.on.disable";

/// Where the tier of this broker is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierConfig {
    /// `ottla.tier.url`, if `remote.log.storage.system.enable` is set.
    pub url: Option<String>,
    /// `remote.log.manager.task.interval.ms`.
    pub interval: Duration,
    /// `ottla.tier.cache.bytes`.
    pub cache_bytes: u64,
}

impl TierConfig {
    /// Reads the settings of `broker`.
    pub(super) fn read(broker: &BrokerConfig) -> Result<Self, ConfigError> {
        let url = broker.checked(URL)?.filter(|url| !url.is_empty());
        match (broker.boolean(SYSTEM)?, &url) {
            (true, None) => {
                let text = format!(
                    "{SYSTEM}=true needs a place for the tier: set {URL}=file:///path/to/a/folder"
                );
                return Err(ConfigError::new(URL, text));
            }
            (false, Some(_)) => {
                let text = format!("{URL} is set, but {SYSTEM} is not true");
                return Err(ConfigError::new(URL, text));
            }
            _ => {}
        }
        let interval = Duration::from_millis(broker.number("remote.log.manager.task.interval.ms")?);
        let cache_bytes = broker.number("ottla.tier.cache.bytes")?;
        Ok(Self { url, interval, cache_bytes })
    }
}

/// What a topic has to do with the tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicTier {
    /// Nothing.
    None,
    /// It has none any more: what is left in the tier is removed.
    Removed,
    /// What is there is read, and nothing is added.
    ReadOnly,
    /// Closed segments are copied.
    Copied,
}

impl TopicTier {
    /// What `remote.storage.enable`, `remote.log.copy.disable` and `remote.log.delete.on.disable` say.
    pub(super) const fn of(is_enabled: bool, is_copy_disabled: bool, deletes: bool) -> Self {
        match (is_enabled, is_copy_disabled) {
            (true, false) => Self::Copied,
            (true, true) => Self::ReadOnly,
            (false, _) if deletes => Self::Removed,
            (false, _) => Self::None,
        }
    }

    /// Whether the topic has a tier.
    #[must_use]
    pub const fn is_enabled(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Copied)
    }

    /// Whether closed segments are copied.
    #[must_use]
    pub const fn copies(self) -> bool {
        matches!(self, Self::Copied)
    }
}

/// Checks the form of `ottla.tier.value.schema`. What it says is checked by those who know formats, before it is stored.
pub(super) fn check_value_schema(text: &str) -> Result<(), String> {
    if text.len() > TIER_VALUE_SCHEMA_BYTES_MAX {
        return Err(format!("must have at most {TIER_VALUE_SCHEMA_BYTES_MAX} bytes"));
    }
    let is_object = text.is_empty()
        || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok();
    if is_object { Ok(()) } else { Err("must be a JSON object, or empty".to_owned()) }
}

/// Checks what a topic with a tier must be like.
pub(super) fn check_topic(topic: &TopicConfig, broker: &TierConfig) -> Result<(), ConfigError> {
    if !topic.tier.is_enabled() {
        if topic.tier_value_schema.is_some() {
            let text = format!(
                "{TIER_VALUE_SCHEMA} needs {REMOTE_STORAGE}=true: the columns are in the files of the tier; without one, leave it empty"
            );
            return Err(ConfigError::new(TIER_VALUE_SCHEMA, text));
        }
        if topic.tier_table == TierTable::None {
            return Ok(());
        }
        let text = format!(
            "{TABLE}={} needs {REMOTE_STORAGE}=true: the table is one of the files in the tier",
            topic.tier_table.name()
        );
        return Err(ConfigError::new(TABLE, text));
    }
    let refuse = |text: &str| Err(ConfigError::new(REMOTE_STORAGE, text.to_owned()));
    if broker.url.is_none() {
        return refuse(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
        );
    }
    if topic.cleanup_policy.compact {
        return refuse(
            "Remote log storage only supports topics with cleanup.policy=delete or cleanup.policy being an empty list.",
        );
    }
    Ok(())
}

/// Whether the settings of a topic give it a tier.
#[must_use]
fn has_tier(topic: &ConfigMap) -> bool {
    topic.get(REMOTE_STORAGE).is_some_and(|value| topic_config::parse_boolean(value) == Some(true))
}

/// Checks a change of the settings of a topic: whoever takes its tier away has to say that what is there goes.
///
/// # Errors
///
/// The tier would go without that.
pub fn check_tier_change(before: &ConfigMap, after: &ConfigMap) -> Result<(), ConfigError> {
    let deletes =
        after.get(DELETES).is_some_and(|value| topic_config::parse_boolean(value) == Some(true));
    if !has_tier(before) || has_tier(after) || deletes {
        return Ok(());
    }
    let text = "It is invalid to disable remote storage without deleting remote data. \
                If you want to keep the remote data and turn to read only, please set `remote.storage.enable=true,remote.log.copy.disable=true`. \
                If you want to disable remote storage and delete all remote data, please set `remote.storage.enable=false,remote.log.delete.on.disable=true`.";
    Err(ConfigError::new(REMOTE_STORAGE, text.to_owned()))
}
