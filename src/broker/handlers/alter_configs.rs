//! AlterConfigs: v0-v2.
//! IncrementalAlterConfigs: v0-v1.
//!
//! Behaviour: settings of topics, of groups, of this broker, and of all brokers (a broker without a name).
//! The first API replaces all settings of a resource, the second changes single ones: SET, DELETE, and for
//! lists APPEND and SUBTRACT. They are in effect when the answer arrives. With validate_only they are only
//! checked. Errors: INVALID_CONFIG for a name or value that is not acceptable, or cannot change while the
//! broker runs; UNKNOWN_TOPIC_OR_PARTITION; INVALID_REQUEST for a resource or setting that is listed
//! twice, an operation or a type of resource that does not exist here (loggers, client metrics).

use super::common;
use super::value_schema::check_value_schema;
use crate::broker::dispatch::Call;
use crate::config::{AlterOp, ConfigChange, Scope, without_effect};
use crate::error::{ErrorCode, Result};
use crate::machine::controller::{
    AlterConfigs, ConfigAlteration, IncrementalAlterConfigs, IncrementalAlteration, Refusal,
    config_resource,
};
use crate::machine::metadata::ConfigResource;
use crate::protocol::Str;
use crate::protocol::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse,
};
use crate::protocol::messages::incremental_alter_configs::{
    self as incremental_messages, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};

/// Kafka's requests carry no timeout; this is its clients' default.
const TIMEOUT_MS: i32 = 30_000;

/// Merges the refusals found before the controller was asked with its own, in order.
fn merge<T>(
    prepared: &[Result<T, Refusal>],
    results: Vec<Result<(), Refusal>>,
) -> Vec<Result<(), Refusal>> {
    let mut results = results.into_iter();
    let missing = || Err(Refusal::new(ErrorCode::UnknownServerError, "there is no answer"));
    prepared
        .iter()
        .map(|one| match one {
            Ok(_) => results.next().unwrap_or_else(missing),
            Err(refusal) => Err(refusal.clone()),
        })
        .collect()
}

/// Names what was accepted without an effect in the log.
fn note<'a>(
    call: &Call<'_>,
    resource: &ConfigResource,
    settings: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) {
    let scope = match resource {
        ConfigResource::Topic(_) => Scope::Topic,
        ConfigResource::Group(_) => Scope::Group,
        ConfigResource::Broker(_) | ConfigResource::ClusterDefault => Scope::Broker,
    };
    let given = settings.filter_map(|(name, value)| Some((name, value?)));
    call.state.note_without_effect(without_effect(scope, given));
}

pub(in crate::broker) async fn legacy(
    call: &Call<'_>,
    request: &AlterConfigsRequest,
) -> Result<AlterConfigsResponse> {
    let prepared: Vec<Result<ConfigAlteration, Refusal>> = request
        .resources
        .iter()
        .map(|resource| {
            let settings = resource.configs.iter().map(|config| {
                (String::from(&config.name), config.value.as_ref().map(String::from))
            });
            let settings: Vec<_> = settings.collect();
            check_value_schema(settings.iter().map(|(name, value)| (&**name, value.as_deref())))?;
            let resource = config_resource(resource.resource_type, &resource.resource_name)?;
            Ok(ConfigAlteration { resource, settings })
        })
        .collect();
    let resources = prepared.iter().filter_map(|one| one.as_ref().ok()).cloned().collect();
    let command = AlterConfigs { resources, validate_only: request.validate_only };
    let results = merge(&prepared, call.state.submit(command, TIMEOUT_MS).await?);
    for (one, result) in prepared.iter().zip(&results) {
        if let (Ok(one), Ok(())) = (one, result) {
            let settings = one.settings.iter();
            let settings = settings.map(|(name, value)| (name.as_str(), value.as_deref()));
            note(call, &one.resource, settings);
        }
    }
    let responses = request
        .resources
        .iter()
        .zip(results)
        .map(|(resource, result)| {
            let (error_code, error_message) = common::refusal(result);
            AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
            }
        })
        .collect();
    Ok(AlterConfigsResponse { responses, ..AlterConfigsResponse::default() })
}

fn change(config: &incremental_messages::AlterableConfig) -> Result<ConfigChange, Refusal> {
    let op = AlterOp::from_i8(config.config_operation).ok_or_else(|| {
        let text = format!("unknown operation {} of {}", config.config_operation, config.name);
        Refusal::new(ErrorCode::InvalidRequest, text)
    })?;
    let value = config.value.as_ref().map(String::from);
    if op != AlterOp::Delete && value.is_none() {
        let text = format!("{} has no value", config.name);
        return Err(Refusal::new(ErrorCode::InvalidConfig, text));
    }
    Ok(ConfigChange { name: String::from(&config.name), op, value })
}

pub(in crate::broker) async fn incremental(
    call: &Call<'_>,
    request: &IncrementalAlterConfigsRequest,
) -> Result<IncrementalAlterConfigsResponse> {
    let prepared: Vec<Result<IncrementalAlteration, Refusal>> = request
        .resources
        .iter()
        .map(|resource| {
            let changes: Vec<ConfigChange> =
                resource.configs.iter().map(change).collect::<Result<_, _>>()?;
            let set = changes.iter().filter(|change| change.op != AlterOp::Delete);
            check_value_schema(set.map(|change| (&*change.name, change.value.as_deref())))?;
            let resource = config_resource(resource.resource_type, &resource.resource_name)?;
            Ok(IncrementalAlteration { resource, changes })
        })
        .collect();
    let resources = prepared.iter().filter_map(|one| one.as_ref().ok()).cloned().collect();
    let command = IncrementalAlterConfigs { resources, validate_only: request.validate_only };
    let results = merge(&prepared, call.state.submit(command, TIMEOUT_MS).await?);
    for (one, result) in prepared.iter().zip(&results) {
        if let (Ok(one), Ok(())) = (one, result) {
            let set = one.changes.iter().filter(|change| change.op != AlterOp::Delete);
            note(
                call,
                &one.resource,
                set.map(|change| (change.name.as_str(), change.value.as_deref())),
            );
        }
    }
    let response = |(resource, result): (&incremental_messages::AlterConfigsResource, _)| {
        let (error_code, error_message): (i16, Option<Str>) = common::refusal(result);
        incremental_messages::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        }
    };
    let responses = request.resources.iter().zip(results).map(response).collect();
    Ok(IncrementalAlterConfigsResponse { responses, ..Default::default() })
}
