//! Changing stored settings of topics, groups and brokers.

use std::sync::Arc;

use super::Controller;
use super::change::{Change, Policies};
use super::command::Refusal;
use super::items::{ConfigAlteration, IncrementalAlteration};
use super::topics::{duplicate, duplicates, settings_of};
use crate::config::{
    BrokerConfig, ConfigEntry, ConfigMap, Definition, Scope, TopicConfig, apply_changes,
    check_local_retention, check_tier_change, describe_group, describe_topic,
};
use crate::error::ErrorCode;
use crate::machine::metadata::{ConfigResource, MetadataRecord};
use crate::types::NodeId;

/// The resource that a request means: Kafka's number of the type, and the name.
///
/// # Errors
///
/// `INVALID_REQUEST` for a resource that has no stored settings here.
pub fn config_resource(resource_type: i8, name: &str) -> Result<ConfigResource, Refusal> {
    let refuse = |text: String| Err(Refusal::new(ErrorCode::InvalidRequest, text));
    match resource_type {
        2 => Ok(ConfigResource::Topic(Arc::from(name))),
        4 if name.is_empty() => Ok(ConfigResource::ClusterDefault),
        4 => match name.parse::<i32>() {
            Ok(id) => Ok(ConfigResource::Broker(NodeId(id))),
            Err(_) => refuse(format!("broker '{}' is not a node id", name.escape_debug())),
        },
        8 => refuse("the levels of broker loggers cannot be changed in this version".to_owned()),
        16 => refuse("client metrics subscriptions do not exist in this version".to_owned()),
        32 if name.is_empty() => refuse("the id of a group must not be empty".to_owned()),
        32 => Ok(ConfigResource::Group(Arc::from(name))),
        other => refuse(format!("resource type {other} has no settings")),
    }
}

const MIN_IN_SYNC: &str = "min.insync.replicas";

impl Controller {
    pub(super) fn alter_configs(
        &self,
        resources: Vec<ConfigAlteration>,
        validate_only: bool,
        records: &mut Vec<MetadataRecord>,
    ) -> Vec<Result<(), Refusal>> {
        let twice = duplicates(resources.iter().map(|one| one.resource.clone()));
        let alter = |one: ConfigAlteration| {
            if twice.contains(&one.resource) {
                return Err(duplicate("resource", &resource_name(&one.resource)));
            }
            self.check_resource(&one.resource)?;
            let settings = settings_of(scope(&one.resource), one.settings)?;
            self.store(&one.resource, &settings, validate_only, records)
        };
        resources.into_iter().map(alter).collect()
    }

    pub(super) fn incremental_alter_configs(
        &self,
        resources: Vec<IncrementalAlteration>,
        validate_only: bool,
        records: &mut Vec<MetadataRecord>,
    ) -> Vec<Result<(), Refusal>> {
        let twice = duplicates(resources.iter().map(|one| one.resource.clone()));
        let inherited = self.inherited();
        let alter = |one: IncrementalAlteration| {
            if twice.contains(&one.resource) {
                return Err(duplicate("resource", &resource_name(&one.resource)));
            }
            self.check_resource(&one.resource)?;
            let current = self.image.config(&one.resource);
            let base = |definition: &Definition| inherited_value(&inherited, definition);
            let settings = apply_changes(scope(&one.resource), current, &one.changes, base)?;
            self.store(&one.resource, &settings, validate_only, records)
        };
        resources.into_iter().map(alter).collect()
    }

    fn check_resource(&self, resource: &ConfigResource) -> Result<(), Refusal> {
        match resource {
            ConfigResource::Topic(name) if self.image.topic(name).is_none() => {
                let text = format!("there is no topic '{}'", name.escape_debug());
                Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, text))
            }
            ConfigResource::Broker(id) if self.image.broker(*id).is_none() => {
                let text = format!("broker {id} is not registered");
                Err(Refusal::new(ErrorCode::BrokerIdNotRegistered, text))
            }
            _ => Ok(()),
        }
    }

    /// Makes the stored settings of a resource exactly these.
    fn store(
        &self,
        resource: &ConfigResource,
        settings: &ConfigMap,
        validate_only: bool,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), Refusal> {
        self.check_whole(resource, settings)?;
        let current = self.image.config(resource);
        if let ConfigResource::Topic(_) = resource {
            check_tier_change(current, settings)?;
        }
        let changes_min_in_sync = settings.get(MIN_IN_SYNC) != current.get(MIN_IN_SYNC);
        if changes_min_in_sync && self.has_elr() {
            check_min_in_sync(resource, settings)?;
        }
        if validate_only {
            return Ok(());
        }
        if changes_min_in_sync {
            self.review_eligible(resource, settings, records);
        }
        let mut push = |name: &String, value: Option<&String>| {
            records.push(MetadataRecord::Config {
                resource: resource.clone(),
                name: name.clone(),
                value: value.cloned(),
            });
        };
        for name in current.keys().filter(|name| !settings.contains_key(*name)) {
            push(name, None);
        }
        for (name, value) in
            settings.iter().filter(|(name, value)| current.get(*name) != Some(value))
        {
            push(name, Some(value));
        }
        Ok(())
    }

    /// Gives the cluster one `min.insync.replicas` for topics without their own, and takes it from single brokers: a
    /// leader that commits with fewer replicas than the controller assumes would leave eligible leaders behind.
    pub(super) fn settle_min_in_sync(&self, records: &mut Vec<MetadataRecord>) {
        let mut push = |resource: &ConfigResource, value: Option<String>| {
            let (resource, name) = (resource.clone(), MIN_IN_SYNC.to_owned());
            records.push(MetadataRecord::Config { resource, name, value });
        };
        let cluster = &ConfigResource::ClusterDefault;
        if !self.image.config(cluster).contains_key(MIN_IN_SYNC) {
            push(cluster, self.config.value(MIN_IN_SYNC).ok().flatten());
        }
        for (resource, settings) in self.image.configs() {
            if matches!(resource, ConfigResource::Broker(_)) && settings.contains_key(MIN_IN_SYNC) {
                push(resource, None);
            }
        }
    }

    /// With another `min.insync.replicas`, the leaders that are eligible now need not be so any more.
    fn review_eligible(
        &self,
        resource: &ConfigResource,
        settings: &ConfigMap,
        records: &mut Vec<MetadataRecord>,
    ) {
        let none = ConfigMap::new();
        let inherited = match resource {
            ConfigResource::ClusterDefault => self.config.with_dynamic(settings, &none).ok(),
            _ => Some(self.inherited()),
        };
        let Some(inherited) = inherited else { return };
        let policies = Policies::new(&self.image, inherited);
        for (id, index) in self.index.with_elr() {
            let Some(topic) = self.image.topic_by_id(id) else { continue };
            let Some(state) = topic.partition(index) else { continue };
            let policy = match resource {
                ConfigResource::Topic(name) if *name == topic.name => {
                    policies.of_settings(settings)
                }
                ConfigResource::ClusterDefault => policies.of(&topic.name),
                _ => continue,
            };
            let after = self.changed(policy, state, Change::default());
            records.extend(Self::record_of(topic, index, state, &after));
        }
    }

    /// Checks that the settings resolve together.
    fn check_whole(&self, resource: &ConfigResource, settings: &ConfigMap) -> Result<(), Refusal> {
        let none = ConfigMap::new();
        match resource {
            ConfigResource::Topic(_) => {
                check_local_retention(&TopicConfig::resolve(settings, &self.inherited())?)?;
            }
            ConfigResource::ClusterDefault => {
                self.config.with_dynamic(settings, &none)?;
            }
            ConfigResource::Group(_) => self.inherited().coordinator.check_group(settings)?,
            ConfigResource::Broker(_) => {
                let cluster = self.image.config(&ConfigResource::ClusterDefault);
                self.config.with_dynamic(cluster, settings)?;
            }
        }
        Ok(())
    }
}

fn check_min_in_sync(resource: &ConfigResource, settings: &ConfigMap) -> Result<(), Refusal> {
    let refuse = |text: &str| Err(Refusal::new(ErrorCode::InvalidConfig, text));
    match resource {
        ConfigResource::Broker(_) => refuse(
            "min.insync.replicas cannot be set for one broker while eligible leader replicas are kept; set it \
             for the cluster, or for a topic",
        ),
        ConfigResource::ClusterDefault if !settings.contains_key(MIN_IN_SYNC) => refuse(
            "the cluster's min.insync.replicas cannot be removed while eligible leader replicas are kept; set it \
             to another value",
        ),
        _ => Ok(()),
    }
}

fn scope(resource: &ConfigResource) -> Scope {
    match resource {
        ConfigResource::Topic(_) => Scope::Topic,
        ConfigResource::Group(_) => Scope::Group,
        ConfigResource::Broker(_) | ConfigResource::ClusterDefault => Scope::Broker,
    }
}

fn inherited_value(broker: &BrokerConfig, definition: &Definition) -> Option<String> {
    match definition.scope {
        Scope::Broker => broker.value(definition.name).ok().flatten(),
        Scope::Topic => value_of(definition, describe_topic(&ConfigMap::new(), broker)),
        Scope::Group => value_of(definition, describe_group(&ConfigMap::new(), broker)),
    }
}

fn value_of(definition: &Definition, entries: Vec<ConfigEntry>) -> Option<String> {
    entries.into_iter().find(|entry| entry.name == definition.name).and_then(|entry| entry.value)
}

fn resource_name(resource: &ConfigResource) -> String {
    match resource {
        ConfigResource::Topic(name) | ConfigResource::Group(name) => name.to_string(),
        ConfigResource::Broker(id) => id.to_string(),
        ConfigResource::ClusterDefault => String::new(),
    }
}
