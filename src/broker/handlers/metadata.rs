//! Metadata: v0-v13.
//!
//! Behaviour: brokers that are alive, and the requested topics: all of them (null, and in v0 an empty
//! list), none (an empty list), by name, or by id. Names that do not exist are created first when
//! both `auto.create.topics.enable` and the request allow it; the answer then includes the new
//! topic. A client is given the address that it connected to for this broker, unless
//! `advertised.listeners` is set. Versions: v1 controller, racks, null for all; v2 cluster id; v4
//! choice about auto-creation; v5 offline replicas; v7 leader epochs (KIP-320); v8 authorized
//! operations (all of them: there is no authorizer); v10 topic ids in responses; v12 topic ids in
//! requests; v13 an error for the whole request. Errors: UNKNOWN_TOPIC_OR_PARTITION,
//! INVALID_TOPIC_EXCEPTION, UNKNOWN_TOPIC_ID, LEADER_NOT_AVAILABLE, INVALID_REQUEST for an id before
//! v12 or a missing name, KAFKA_STORAGE_ERROR for a topic that was not created because the disk is
//! full.

use std::collections::BTreeSet;

use super::common::{self, CLUSTER_OPERATIONS, Leaders, TOPIC_OPERATIONS};
use super::topics::{TopicKey, Topics};
use crate::broker::dispatch::Call;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::metadata::{PartitionImage, TopicImage, is_internal_topic};
use crate::protocol::Str;
use crate::protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use crate::types::{NodeId, PartitionIndex, Uuid};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &MetadataRequest,
) -> Result<MetadataResponse> {
    let version = call.context.api_version;
    let wanted = match &request.topics {
        Some(topics) if version > 0 || !topics.is_empty() => Some(topics.as_slice()),
        _ => None,
    };
    check_names(wanted.unwrap_or_default(), version)?;
    call.state.sighted().look().await;
    let topics = match wanted {
        None => all_topics(call, version),
        Some(wanted) if wanted.iter().any(|topic| topic.topic_id != Uuid::ZERO) => {
            by_id(call, wanted, version)
        }
        Some(wanted) => by_name(call, wanted, request.allow_auto_topic_creation).await,
    };
    Ok(respond(call, request, topics))
}

/// Ids were added in v12; without one there must be a name.
fn check_names(wanted: &[MetadataRequestTopic], version: i16) -> Result<()> {
    if version >= 12 {
        return Ok(());
    }
    for topic in wanted {
        if topic.name.is_none() {
            let context = format!("topic name can not be null for version {version}");
            return Err(Error::kafka(ErrorCode::InvalidRequest, context));
        }
        if topic.topic_id != Uuid::ZERO {
            let context = format!("topic ids are not supported for version {version}");
            return Err(Error::kafka(ErrorCode::InvalidRequest, context));
        }
    }
    Ok(())
}

fn all_topics(call: &Call<'_>, version: i16) -> Vec<MetadataResponseTopic> {
    let topics = Topics::of(call);
    let leaders = Leaders::of(call.state, topics.image());
    topics.all().map(|topic| describe(&leaders, topic, version)).collect()
}

fn by_id(
    call: &Call<'_>,
    wanted: &[MetadataRequestTopic],
    version: i16,
) -> Vec<MetadataResponseTopic> {
    let topics = Topics::of(call);
    let leaders = Leaders::of(call.state, topics.image());
    let ids: BTreeSet<Uuid> = wanted.iter().map(|topic| topic.topic_id).collect();
    let known = |id: &Uuid| match topics.find(TopicKey::Id(*id)) {
        Ok(topic) => describe(&leaders, topic, version),
        Err(error) => MetadataResponseTopic {
            error_code: error.code().to_i16(),
            name: None,
            topic_id: *id,
            ..MetadataResponseTopic::default()
        },
    };
    ids.iter().filter(|&&id| id != Uuid::ZERO).map(known).collect()
}

async fn by_name(
    call: &Call<'_>,
    wanted: &[MetadataRequestTopic],
    request_allows: bool,
) -> Vec<MetadataResponseTopic> {
    let version = call.context.api_version;
    let names: BTreeSet<&str> = wanted.iter().filter_map(|topic| topic.name.as_deref()).collect();
    let create = request_allows && call.state.config().auto_create_topics_enable;
    let mut not_created = None;
    if create {
        let topics = Topics::of(call);
        let is_missing = |name: &str| {
            let found = topics.find_valid(name);
            found.is_err_and(|error| error.code() == ErrorCode::UnknownTopicOrPartition)
        };
        let missing = names.iter().filter(|name| is_missing(name));
        let missing: Vec<String> = missing.map(|&name| name.to_owned()).collect();
        if !missing.is_empty() {
            not_created = super::create_topics::create_automatically(call, &missing).await;
        }
    }
    let topics = Topics::of(call);
    let leaders = Leaders::of(call.state, topics.image());
    let entry = |name: &str| match topics.find_valid(name) {
        Ok(topic) => describe(&leaders, topic, version),
        Err(error) => MetadataResponseTopic {
            error_code: not_created.unwrap_or_else(|| error.code()).to_i16(),
            name: Some(name.into()),
            is_internal: is_internal_topic(name),
            ..MetadataResponseTopic::default()
        },
    };
    names.into_iter().map(entry).collect()
}

fn describe(leaders: &Leaders<'_>, topic: &TopicImage, version: i16) -> MetadataResponseTopic {
    let partition = |(index, state): (PartitionIndex, &PartitionImage)| {
        let alive = leaders.has(state.leader);
        let offline = common::offline(leaders.image, &state.replicas);
        let code = match (alive, version) {
            (false, _) => ErrorCode::LeaderNotAvailable,
            (true, 0) if !offline.is_empty() => ErrorCode::ReplicaNotAvailable,
            (true, _) => ErrorCode::None,
        };
        let shown = |nodes: &[NodeId]| -> Vec<i32> {
            // Version 0 leaves out nodes that cannot be reached.
            let shown = |node: &&NodeId| version > 0 || !offline.contains(&node.0);
            nodes.iter().filter(shown).map(|node| node.0).collect()
        };
        MetadataResponsePartition {
            error_code: code.to_i16(),
            partition_index: index.0,
            leader_id: if alive { state.leader.0 } else { -1 },
            leader_epoch: state.leader_epoch.0,
            replica_nodes: shown(&state.replicas),
            isr_nodes: shown(&state.isr),
            offline_replicas: offline.clone(),
        }
    };
    MetadataResponseTopic {
        name: Some(Str::from(&topic.name)),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions: topic.indexed().map(partition).collect(),
        ..MetadataResponseTopic::default()
    }
}

fn respond(
    call: &Call<'_>,
    request: &MetadataRequest,
    mut topics: Vec<MetadataResponseTopic>,
) -> MetadataResponse {
    let version = call.context.api_version;
    if version >= 8 && request.include_topic_authorized_operations {
        for topic in &mut topics {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let mut response = MetadataResponse {
        brokers: common::brokers(call.state, call.context.reached())
            .into_iter()
            .map(|node| MetadataResponseBroker {
                node_id: node.id.0,
                host: node.host,
                port: node.port,
                rack: node.rack,
            })
            .collect(),
        cluster_id: call.state.cluster_id().map(Into::into),
        controller_id: call.state.node_id().0,
        topics,
        ..MetadataResponse::default()
    };
    if (8..=10).contains(&version) && request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}
