//! What `DescribeConfigs` answers, and the walk through the sources that gives every value.
//!
//! The chain of a topic setting: the topic, then each broker synonym (strongest name first) from
//! each source (dynamic broker, dynamic default, static), then the first default. Apache Kafka
//! leaves synonyms with other units (`log.retention.hours` for `retention.ms`) out of the chain;
//! here they are included, because they determine the value.

use std::borrow::Cow;

use super::{
    BrokerConfig, ConfigMap, ConfigSource, ConfigType, Definition, Scope, Support, UpdateMode,
    definitions,
};

/// What the description of a setting without an effect ends with.
const NO_EFFECT: &str = "Accepted, without effect in this version of ottla.";

/// The settings of a scope that are shown; Kafka does not show those for its own tests either.
fn shown(scope: Scope) -> impl Iterator<Item = &'static Definition> {
    definitions(scope).iter().filter(|definition| !definition.name.starts_with("internal."))
}

/// One setting, with its value and where the value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The setting.
    pub name: &'static str,
    /// The effective value; `None` is null, or hidden because it is sensitive.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it cannot be changed at run time.
    pub read_only: bool,
    /// Whether its value is hidden.
    pub sensitive: bool,
    /// The type of the value.
    pub kind: ConfigType,
    /// What it does.
    pub documentation: Cow<'static, str>,
    /// Every place that has a value for it, strongest first.
    pub synonyms: Vec<ConfigSynonym>,
}

/// One place that has a value for a setting, in that place's own unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The name there.
    pub name: &'static str,
    /// The value there; `None` is hidden.
    pub value: Option<String>,
    /// The place.
    pub source: ConfigSource,
}

/// Describes the settings of a topic, in the order of their names.
#[must_use]
pub fn describe_topic(topic: &ConfigMap, broker: &BrokerConfig) -> Vec<ConfigEntry> {
    shown(Scope::Topic)
        .map(|definition| {
            let chain = topic_chain(definition, topic, broker);
            entry(definition, &chain, false)
        })
        .collect()
}

/// Describes the settings of a group, in the order of their names.
#[must_use]
pub fn describe_group(group: &ConfigMap, broker: &BrokerConfig) -> Vec<ConfigEntry> {
    shown(Scope::Group)
        .map(|definition| {
            let chain = inheriting_chain(definition, (group, ConfigSource::Group), broker);
            entry(definition, &chain, false)
        })
        .collect()
}

/// Describes the settings of the broker whose configuration is `broker`.
#[must_use]
pub fn describe_broker(broker: &BrokerConfig) -> Vec<ConfigEntry> {
    shown(Scope::Broker)
        .map(|definition| {
            let chain = broker_chain(definition, broker);
            entry(definition, &chain, definition.update == UpdateMode::ReadOnly)
        })
        .collect()
}

/// A value in the chain: the name and source that have it, and the factor to the described unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    name: &'static str,
    value: &'a str,
    source: ConfigSource,
    factor: i64,
}

/// Every place that has a value for a topic setting, strongest first.
pub(super) fn topic_chain<'a>(
    definition: &'static Definition,
    topic: &'a ConfigMap,
    broker: &'a BrokerConfig,
) -> Vec<Link<'a>> {
    inheriting_chain(definition, (topic, ConfigSource::Topic), broker)
}

/// Every place that has a value for a setting with broker synonyms, strongest first.
fn inheriting_chain<'a>(
    definition: &'static Definition,
    (own, source): (&'a ConfigMap, ConfigSource),
    broker: &'a BrokerConfig,
) -> Vec<Link<'a>> {
    let mut chain = Vec::new();
    if let Some(value) = own.get(definition.name) {
        chain.push(Link { name: definition.name, value, source, factor: 1 });
    }
    let mut defaults = Vec::new();
    for synonym in definition.synonyms {
        let Some(of_broker) = definitions(Scope::Broker).iter().find(|d| d.name == synonym.name)
        else {
            continue;
        };
        for mut link in broker_chain(of_broker, broker) {
            link.factor = synonym.factor;
            if link.source == ConfigSource::Default { &mut defaults } else { &mut chain }
                .push(link);
        }
    }
    if defaults.is_empty()
        && let Some(value) = definition.default
    {
        let source = ConfigSource::Default;
        defaults.push(Link { name: definition.name, value, source, factor: 1 });
    }
    chain.extend(defaults);
    chain
}

/// Every place that has a value for a broker setting, strongest first.
pub(super) fn broker_chain<'a>(
    definition: &'static Definition,
    broker: &'a BrokerConfig,
) -> Vec<Link<'a>> {
    let name = definition.name;
    let places = [
        (ConfigSource::DynamicBroker, broker.dynamic_broker.get(name).map(String::as_str)),
        (ConfigSource::DynamicDefaultBroker, broker.dynamic_default.get(name).map(String::as_str)),
        (ConfigSource::StaticBroker, broker.fixed.get(name).map(String::as_str)),
        (ConfigSource::Default, definition.default),
    ];
    places
        .into_iter()
        .filter_map(|(source, value)| Some(Link { name, value: value?.trim(), source, factor: 1 }))
        .collect()
}

/// The effective value, in the unit of the described setting.
pub(super) fn effective(chain: &[Link<'_>]) -> Option<String> {
    let link = chain.first()?;
    match link.value.parse::<i64>() {
        // A negative time means "no limit" in every unit.
        Ok(number) if link.factor != 1 && number >= 0 => {
            Some(number.saturating_mul(link.factor).to_string())
        }
        _ => Some(link.value.to_owned()),
    }
}

fn entry(definition: &'static Definition, chain: &[Link<'_>], read_only: bool) -> ConfigEntry {
    let hide = |value: Option<String>| if definition.sensitive { None } else { value };
    ConfigEntry {
        name: definition.name,
        value: hide(effective(chain)),
        source: chain.first().map_or(ConfigSource::Default, |link| link.source),
        read_only,
        sensitive: definition.sensitive,
        kind: definition.kind,
        documentation: match definition.support {
            Support::Idle => format!("{} {NO_EFFECT}", definition.documentation).into(),
            _ => definition.documentation.into(),
        },
        synonyms: chain
            .iter()
            .map(|link| ConfigSynonym {
                name: link.name,
                value: hide(Some(link.value.to_owned())),
                source: link.source,
            })
            .collect(),
    }
}
