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
//! - CONFIG-1: no setting is accepted and ignored. A setting that belongs to a feature which does
//!   not exist yet is declared and reported with its default, and any other value is refused with
//!   the name of that feature ([`Support::Only`]).
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
mod listeners;
mod log_table;
mod properties;
mod suggest;
mod topic_config;
mod topic_table;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use alter::{AlterOp, ConfigChange, apply_changes, check_all};
pub use broker_config::{BrokerConfig, CleanerConfig};
pub use coordinator_config::CoordinatorConfig;
pub use definition::{
    ConfigError, ConfigSource, ConfigType, Definition, Scope, Support, Synonym, UpdateMode,
    Validator,
};
pub use describe::{ConfigEntry, ConfigSynonym, describe_broker, describe_group, describe_topic};
pub use listeners::{Listener, SecurityProtocol, parse_listeners};
pub use properties::parse_properties;
pub use suggest::nearest;
pub use topic_config::{CleanupPolicy, CompressionType, Durability, TimestampType, TopicConfig};

/// Settings by name, as text. An absent name is not set.
pub type ConfigMap = BTreeMap<String, String>;

/// The parts of the broker's table, merged in the order of the names.
static BROKER: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    let parts = [broker_table::BROKER, log_table::LOG, coordinator_table::COORDINATOR];
    let mut table = parts.concat();
    table.sort_by_key(|definition| definition.name);
    table
});

/// The definitions of a scope, in the order of their names.
#[must_use]
pub fn definitions(scope: Scope) -> &'static [Definition] {
    match scope {
        Scope::Topic => topic_table::TOPIC,
        Scope::Broker => &BROKER,
        Scope::Group => group_table::GROUP,
    }
}

/// The definition of `name` in a scope.
///
/// # Errors
///
/// [`ConfigError`] with the nearest known name when there is no such setting.
pub fn definition(scope: Scope, name: &str) -> Result<&'static Definition, ConfigError> {
    let table = definitions(scope);
    table.iter().find(|definition| definition.name == name).ok_or_else(|| {
        let known = table.iter().map(|definition| definition.name);
        ConfigError::unknown(scope, name, nearest(name, known))
    })
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
