//! DescribeConfigs: v1-v4.
//!
//! Behaviour: every setting of a topic, a group or of this broker with its value, its source, whether it can be
//! changed, and on request its synonyms and documentation; or those that are named. A broker without a
//! name stands for what was set at run time for all brokers.
//! Versions: v1 sources and synonyms; v3 types and documentation; v4 flexible.
//! Errors: UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC_EXCEPTION; INVALID_REQUEST for another broker, for
//! a client metrics subscription or group without a name, and for a type that does not exist.

use super::topics::Topics;
use crate::broker::dispatch::Call;
use crate::config::{
    ConfigEntry, ConfigMap, ConfigSource, describe_broker, describe_group, describe_topic,
};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::metadata::ConfigResource;
use crate::protocol::Str;
use crate::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let describe = |resource: &DescribeConfigsResource| {
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..DescribeConfigsResult::default()
        };
        match entries(call, resource) {
            Ok(entries) => {
                let named = resource.configuration_keys.as_deref().unwrap_or_default();
                let is_wanted = |entry: &ConfigEntry| {
                    named.is_empty() || named.iter().any(|name| name.as_str() == entry.name)
                };
                let entries = entries.into_iter().filter(is_wanted);
                result.configs = entries.map(|entry| show(request, entry)).collect();
            }
            Err(error) => {
                result.error_code = error.code().to_i16();
                result.error_message = Some(error.chain().into());
            }
        }
        result
    };
    let results = request.resources.iter().map(describe).collect();
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

fn entries(call: &Call<'_>, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>> {
    let name = resource.resource_name.as_str();
    let image = call.state.image();
    let config = call.state.config();
    let refuse = |what: String| Err(Error::kafka(ErrorCode::InvalidRequest, what));
    match resource.resource_type {
        TOPIC => {
            Topics::of(call).find_valid(name)?;
            Ok(describe_topic(image.topic_config(name), &config))
        }
        BROKER if name.is_empty() => Ok(cluster_defaults(
            describe_broker(&config),
            image.config(&ConfigResource::ClusterDefault),
        )),
        BROKER if name == call.state.node_id().to_string() => Ok(describe_broker(&config)),
        BROKER => {
            let own = call.state.node_id();
            refuse(format!("unexpected broker id, expected {own} or empty string, not {name:?}"))
        }
        // The levels of ottla's logs are not Kafka's loggers: there are none to show.
        BROKER_LOGGER if name == call.state.node_id().to_string() => Ok(Vec::new()),
        BROKER_LOGGER => refuse(format!("unexpected broker id {name:?} for a broker logger")),
        CLIENT_METRICS | GROUP if name.is_empty() => {
            refuse("the name must not be empty".to_owned())
        }
        // ottla has none, and what does not exist has no settings.
        CLIENT_METRICS => Ok(Vec::new()),
        // A group has settings before it has members.
        GROUP => Ok(describe_group(image.config(&ConfigResource::Group(name.into())), &config)),
        other => refuse(format!("resource type {other} has no settings")),
    }
}

/// Only what was set for all brokers, and only from there.
fn cluster_defaults(entries: Vec<ConfigEntry>, set: &ConfigMap) -> Vec<ConfigEntry> {
    let mut kept = Vec::new();
    for mut entry in entries {
        let Some(value) = set.get(entry.name) else { continue };
        entry.value = (!entry.sensitive).then(|| value.clone());
        entry.source = ConfigSource::DynamicDefaultBroker;
        entry.synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
        kept.push(entry);
    }
    kept
}

fn show(request: &DescribeConfigsRequest, entry: ConfigEntry) -> DescribeConfigsResourceResult {
    let synonym = |synonym: crate::config::ConfigSynonym| DescribeConfigsSynonym {
        name: Str::from_static(synonym.name),
        value: synonym.value.map(Str::from),
        source: synonym.source.to_i8(),
    };
    DescribeConfigsResourceResult {
        name: Str::from_static(entry.name),
        value: entry.value.map(Str::from),
        read_only: entry.read_only,
        config_source: entry.source.to_i8(),
        is_sensitive: entry.sensitive,
        synonyms: if request.include_synonyms {
            entry.synonyms.into_iter().map(synonym).collect()
        } else {
            Vec::new()
        },
        config_type: entry.kind.to_i8(),
        documentation: request.include_documentation.then(|| Str::from(&*entry.documentation)),
    }
}
