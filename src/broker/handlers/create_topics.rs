//! CreateTopics: v2-v7.
//!
//! Behaviour: each topic independently; when the answer arrives the new topics are in Metadata and
//! can be written to. -1 partitions or replicas mean the broker's default. With validate_only the
//! request is only checked. Versions: v4 defaults by -1; v5 the outcome: partitions, replicas and
//! every setting; v6 quota violations (there are no quotas); v7 topic ids. Errors:
//! TOPIC_ALREADY_EXISTS, INVALID_TOPIC_EXCEPTION, INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR,
//! INVALID_REPLICA_ASSIGNMENT, INVALID_CONFIG; INVALID_REQUEST for a topic that is listed twice,
//! and for the metadata topic; REQUEST_TIMED_OUT.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::value_schema::check_value_schema;
use crate::broker::dispatch::Call;
use crate::config::{ConfigEntry, Scope, describe_topic, without_effect};
use crate::error::{ErrorCode, Result};
use crate::machine::controller::{CreateTopics, CreatedTopic, NewTopic, Refusal};
use crate::protocol::Str;
use crate::protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};
use crate::types::{NodeId, PartitionIndex};

/// How long an automatic creation may take before the client is told to retry.
const AUTOMATIC_TIMEOUT_MS: i32 = 5000;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &CreateTopicsRequest,
) -> Result<CreateTopicsResponse> {
    let asked: Vec<NewTopic> = request.topics.iter().map(new_topic).collect();
    let refused = refusals(&asked);
    let known: Vec<_> = asked.iter().map(|topic| refused.get(&topic.name).cloned()).collect();
    let topics = asked.into_iter().filter(|topic| !refused.contains_key(&topic.name)).collect();
    let command = CreateTopics { topics, validate_only: request.validate_only };
    let mut decided = call.state.submit(command, request.timeout_ms).await?.into_iter();
    let missing = || Err(Refusal::new(ErrorCode::UnknownServerError, "there is no answer"));
    let results = known.into_iter().map(|refusal| match refusal {
        Some(refusal) => Err(refusal),
        None => decided.next().unwrap_or_else(missing),
    });
    let mut named = BTreeSet::new();
    let topics = request
        .topics
        .iter()
        .zip(results)
        .filter(|(topic, _)| named.insert(topic.name.as_str()))
        .map(|(topic, result)| outcome(call, &topic.name, result))
        .collect();
    Ok(CreateTopicsResponse { topics, ..CreateTopicsResponse::default() })
}

/// Why topics are refused before the controller is asked, by their names.
fn refusals(topics: &[NewTopic]) -> BTreeMap<Arc<str>, Refusal> {
    let refused = topics.iter().filter_map(|topic| {
        let given = topic.configs.iter().map(|(name, value)| (&**name, value.as_deref()));
        check_value_schema(given).err().map(|refusal| (topic.name.clone(), refusal))
    });
    refused.collect()
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    let nodes = |ids: &[i32]| ids.iter().copied().map(NodeId).collect();
    NewTopic {
        name: (&topic.name).into(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .iter()
            .map(|assignment| {
                (PartitionIndex(assignment.partition_index), nodes(&assignment.broker_ids))
            })
            .collect(),
        configs: topic
            .configs
            .iter()
            .map(|config| (String::from(&config.name), config.value.as_ref().map(String::from)))
            .collect(),
    }
}

fn outcome(
    call: &Call<'_>,
    name: &Str,
    result: Result<CreatedTopic, Refusal>,
) -> CreatableTopicResult {
    let name = name.clone();
    let created = match result {
        Ok(created) => created,
        Err(refusal) => {
            return CreatableTopicResult {
                name,
                error_code: refusal.code.to_i16(),
                error_message: Some(refusal.message.into()),
                ..CreatableTopicResult::default()
            };
        }
    };
    let setting = |entry: ConfigEntry| CreatableTopicConfigs {
        name: Str::from_static(entry.name),
        value: entry.value.map(Str::from),
        read_only: entry.read_only,
        config_source: entry.source.to_i8(),
        is_sensitive: entry.sensitive,
    };
    let config = call.state.config();
    let given = created.configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    call.state.note_without_effect(without_effect(Scope::Topic, given));
    let configs = describe_topic(&created.configs, &config).into_iter().map(setting).collect();
    CreatableTopicResult {
        name,
        topic_id: created.id,
        error_message: None,
        num_partitions: created.partitions,
        replication_factor: created.replication_factor,
        configs: Some(configs),
        ..CreatableTopicResult::default()
    }
}

/// Creates topics with default settings because they were requested by name. A topic that cannot be
/// created does not exist afterwards, and the client is told so. Returns the reason if it lies with
/// the broker and not the topics.
pub(super) async fn create_automatically(call: &Call<'_>, names: &[String]) -> Option<ErrorCode> {
    let topics = names.iter().map(|name| NewTopic::new(name.as_str(), -1, -1)).collect();
    let command = CreateTopics { topics, validate_only: false };
    match call.state.submit(command, AUTOMATIC_TIMEOUT_MS).await {
        Ok(results) => {
            for (name, result) in names.iter().zip(results) {
                match result {
                    Ok(_) => tracing::info!(topic = name, "created on first use"),
                    Err(refusal) => {
                        tracing::debug!(topic = name, reason = refusal.message, "not created");
                    }
                }
            }
        }
        Err(error) => {
            tracing::warn!(error = %error.chain(), "could not create topics on first use");
            // With other codes, clients would not relate this to the topics.
            return Some(error.code()).filter(|code| *code == ErrorCode::KafkaStorageError);
        }
    }
    None
}
