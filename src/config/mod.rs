//! Every configuration of the engine, declared once.
//!
//! A setting has a name, a type, a default, a check, a scope, a way to change it and a sentence
//! about what it does. All of that is in one table ([`topic_table`] and [`broker_table`]), and
//! everything else derives from it: what `DescribeConfigs` answers, what `server.properties` may
//! contain, what `AlterConfigs` accepts, and the typed [`TopicConfig`] and [`BrokerConfig`] that
//! the rest of the crate reads. Names, types, defaults and limits are Apache Kafka's, so that its
//! tools and its documentation apply; the descriptions are our own.
//!
//! Invariants:
//!
//! - CONFIG-1: no setting is accepted that would make records safer or clients less trusted and does not. What asks
//!   for a feature that does not exist yet is refused with the name of that feature ([`Support::Only`]). What tunes
//!   such a feature, or the inside of Kafka's broker, is accepted, described as having no effect, and named in
//!   the log ([`Support::Idle`], ADR 0015).
//! - CONFIG-2: a name that is not in the table is refused, with the nearest name that is.
//! - CONFIG-3: a stored value has passed [`Definition::validate`]; resolving cannot encounter an
//!   invalid one unless the table became stricter, and then it names it.
//!
//! ```text
//! dynamic topic ─┐                              strongest first; the chain that DescribeConfigs
//! dynamic broker ├─► resolve ─► TopicConfig      shows as synonyms is the one that resolve walks
//! dynamic default│             BrokerConfig
//! static broker  │
//! default ───────┘
//! ```
//!
//! Pure: it reads no file (the caller passes in the text of `server.properties`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod alter;
mod broker_config;
mod broker_table;
mod coordinator_config;
mod coordinator_table;
mod definition;
mod describe;
mod group_table;
mod idle_table;
mod listeners;
mod local_retention;
mod log_table;
mod node;
mod node_table;
mod properties;
mod replication_config;
mod suggest;
mod throttled;
mod tier_config;
mod topic_config;
mod topic_table;
mod transaction_config;
mod transaction_table;
mod verification_config;
mod voters;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use alter::{AlterOp, ConfigChange, apply_changes, check_all};
pub use broker_config::{BrokerConfig, CleanerConfig, ClusterConfig};
pub use coordinator_config::CoordinatorConfig;
pub use definition::{
    ConfigError, ConfigSource, ConfigType, Definition, Scope, Support, Synonym, UpdateMode,
    Validator,
};
pub use describe::{ConfigEntry, ConfigSynonym, describe_broker, describe_group, describe_topic};
pub use listeners::{Advertised, Listener, ListenerAddress, SecurityProtocol};
pub use local_retention::{LocalRetention, check_local_retention};
pub use properties::parse_properties;
pub use replication_config::ReplicationConfig;
pub use suggest::nearest;
pub use throttled::ThrottledReplicas;
pub use tier_config::{
    TIER_VALUE_SCHEMA, TIER_VALUE_SCHEMA_BYTES_MAX, TierConfig, TopicTier, check_tier_change,
};
pub use topic_config::{
    CleanupPolicy, CompressionType, Durability, TierTable, TimestampType, TopicConfig,
};
pub use transaction_config::TransactionsConfig;
pub use verification_config::VerificationConfig;
pub use voters::QuorumVoter;

/// Settings by name, as text. An absent name is not set.
pub type ConfigMap = BTreeMap<String, String>;

/// The parts of the broker's table, merged in the order of the names.
static BROKER: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    let parts = [
        broker_table::BROKER,
        log_table::LOG,
        coordinator_table::COORDINATOR,
        transaction_table::TRANSACTION,
        node_table::NODE,
    ];
    let mut table = [&parts.concat()[..], &idle_table::BROKER.concat()].concat();
    table.sort_by_key(|definition| definition.name);
    table
});

/// The parts of the groups' table, merged in the order of the names.
static GROUP: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    let mut table = [group_table::GROUP, idle_table::GROUP].concat();
    table.sort_by_key(|definition| definition.name);
    table
});

/// The definitions of a scope, in the order of their names.
#[must_use]
pub fn definitions(scope: Scope) -> &'static [Definition] {
    match scope {
        Scope::Topic => topic_table::TOPIC,
        Scope::Broker => &BROKER,
        Scope::Group => &GROUP,
    }
}

/// The definition of `name` in a scope.
///
/// # Errors
///
/// [`ConfigError`] with the nearest known name when there is no such setting.
pub fn definition(scope: Scope, name: &str) -> Result<&'static Definition, ConfigError> {
    let table = definitions(scope);
    if scope == Scope::Broker
        && let Some(rest) = name.strip_prefix("listener.name.")
    {
        return of_one_listener(name, rest);
    }
    if scope == Scope::Broker && PLUGINS.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(&PLUGIN);
    }
    table.iter().find(|definition| definition.name == name).ok_or_else(|| {
        let known = table.iter().map(|definition| definition.name);
        ConfigError::unknown(scope, name, nearest(name, known))
    })
}

/// What begins with one of these is handed to a plugin of tiered storage in Kafka.
const PLUGINS: [&str; 2] = ["rlmm.config.", "rsm.config."];

/// The definition of every setting of a plugin.
static PLUGIN: Definition = Definition::broker(
    "rsm.config.",
    ConfigType::String,
    None,
    Validator::Any,
    UpdateMode::ReadOnly,
    "For a plugin of tiered storage.",
)
.idle();

/// The definition of a setting that is given for one listener, and maybe one SASL mechanism, as Kafka's settings of
/// TLS and SASL may be: `listener.name.external.ssl.keystore.location`.
fn of_one_listener(name: &str, rest: &str) -> Result<&'static Definition, ConfigError> {
    let mut candidates = [rest.split_once('.'), None];
    candidates[1] = candidates[0].and_then(|(_, rest)| rest.split_once('.'));
    let table = definitions(Scope::Broker);
    let known = candidates
        .into_iter()
        .flatten()
        .find_map(|(_, base)| table.iter().find(|definition| definition.name == base));
    match known {
        Some(definition) if matches!(definition.support, Support::Full) => {
            let base = definition.name;
            let text = format!("{name}: {base} is for all listeners; it cannot be set for one");
            Err(ConfigError::new(name, text))
        }
        Some(definition) => Ok(definition),
        None => Err(ConfigError::unknown(Scope::Broker, name, None)),
    }
}

/// Those of the given settings that are accepted without effect.
pub fn without_effect<'a>(
    scope: Scope,
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<&'a str> {
    let is_idle = |name: &str, value: &str| {
        definition(scope, name).is_ok_and(|definition| definition.is_idle(value))
    };
    settings
        .into_iter()
        .filter(|(name, value)| is_idle(name, value))
        .map(|(name, _)| name)
        .collect()
}

/// Checks one setting: known, of its type, within its limits, and served by this version.
///
/// # Errors
///
/// [`ConfigError`] which names the setting, the value and what is accepted.
pub fn validate(scope: Scope, name: &str, value: &str) -> Result<(), ConfigError> {
    definition(scope, name)?.validate(value)
}

#[cfg(test)]
mod tests;
