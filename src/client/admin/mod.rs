//! Creating, changing and describing topics, settings, offsets and the cluster.
//!
//! A call about several items returns a result for each of them, in the order of the request; an
//! error of the whole call (no broker, timeout) is the outer result. Calls are retried after
//! retriable errors within `default.api.timeout.ms`. Where versions of Kafka differ, the request is
//! built for the version that the broker knows; the error for something that an old broker cannot
//! do names it.

mod assignment;
mod describe;
mod groups;
mod offsets;
mod placement;
mod progress;
mod quorum;
mod tier;
mod transactions;
mod types;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use groups::{GroupDescription, GroupFilter, GroupListing, GroupMember};
pub use placement::{Placed, Placement};
pub use progress::{GroupPartition, PlannedOffset, ResetTo, TopicScope, total_lag};
pub use tier::{Offload, TierPartition, TopicTier};
pub(in crate::client) use transactions::describe_transaction;
pub use transactions::{
    HangingTransaction, TransactionDescription, TransactionFilter, TransactionListing,
};
pub use types::{
    ActiveProducer, ClusterDescription, ClusterState, ConfigChange, ConfigEntry, ConfigSource,
    CreatedTopic, Election, Feature, ListedOffset, LogDir, NewTopic, NodeView, OffsetSpec,
    PartitionReassignment, QuorumDescription, QuorumReplica, QuorumView, RaftVoterEndpoint,
    RegisteredBroker, Resource, ResourceType, all_or_first_error,
};

pub(crate) use offsets::list_offsets;

use crate::client::cluster::{Cluster, Lane, Snapshot, TopicFailure, TopicInfo};
use crate::client::config::nearest;
use crate::client::errors;
use crate::client::route::Route;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use crate::protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatableTopicResult,
    CreateTopicsRequest,
};
use crate::protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use crate::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use crate::protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use crate::protocol::{ApiKey, Str};
use crate::types::{NodeId, PartitionIndex, Uuid};

/// The admin client. Cheap to clone; made by [`Client::admin`](crate::client::Client::admin).
#[derive(Clone, Debug)]
pub struct Admin {
    cluster: Arc<Cluster>,
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// `Ok`, or the error of one item with the broker's own message.
fn check(code: i16, message: Option<&Str>, what: impl FnOnce() -> String) -> Result<()> {
    let code = ErrorCode::from_i16(code);
    if code.is_ok() {
        return Ok(());
    }
    let what = what();
    Err(match message.filter(|message| !message.is_empty()) {
        Some(message) => Error::told(code, format!("{what}: {}", message.as_str())),
        None => Error::kafka(code, what),
    })
}

/// Whether the controller is elsewhere, or not available yet, so that the whole request is
/// repeated.
fn is_about_controller(code: i16) -> bool {
    matches!(
        ErrorCode::from_i16(code),
        ErrorCode::NotController | ErrorCode::CoordinatorLoadInProgress
    )
}

/// Finds the result for an item by name; an answer that omits it is an error.
fn answer_to<T>(answers: &mut BTreeMap<String, Result<T>>, name: &str) -> Result<T> {
    answers.remove(name).unwrap_or_else(|| Err(errors::not_mentioned(name)))
}

impl Admin {
    pub(crate) const fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    fn timeout(&self) -> Duration {
        self.cluster.config.request_timeout
    }

    /// Creates topics; with `validate_only`, only checks whether that would succeed.
    ///
    /// # Errors
    ///
    /// Per topic for example `TOPIC_ALREADY_EXISTS`, `INVALID_PARTITIONS`, `INVALID_CONFIG`.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<Result<CreatedTopic>>> {
        let results = self
            .cluster
            .retry("creating topics", async || {
                let route = self.cluster.controller_route().await?;
                self.try_create_topics(&route, topics, validate_only).await
            })
            .await?;
        if !validate_only {
            let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
            let made: Vec<&str> = results
                .iter()
                .zip(&names)
                .filter_map(|(result, name)| result.is_ok().then_some(*name))
                .collect();
            let has_leaders = |topic: &TopicInfo| {
                topic.partitions.iter().all(|partition| partition.leader.is_some())
            };
            self.cluster
                .await_change(&made, |snapshot| {
                    made.iter().all(|name| {
                        snapshot.topics.get(*name).is_some_and(|topic| has_leaders(topic))
                    })
                })
                .await;
        }
        Ok(results)
    }

    async fn try_create_topics(
        &self,
        route: &Route,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<Result<CreatedTopic>>> {
        let version = route.version(ApiKey::CreateTopics)?;
        let request = CreateTopicsRequest {
            topics: topics.iter().map(|topic| creatable(topic, version)).collect::<Result<_>>()?,
            timeout_ms: millis(self.timeout()),
            validate_only,
        };
        let response = route.call_at(request, version, self.timeout()).await?;
        if response.topics.iter().any(|topic| is_about_controller(topic.error_code)) {
            return Err(errors::not_controller("creating topics"));
        }
        let mut answers: BTreeMap<String, Result<CreatedTopic>> = response
            .topics
            .into_iter()
            .map(|topic| (topic.name.to_string(), created(topic)))
            .collect();
        Ok(topics.iter().map(|topic| answer_to(&mut answers, &topic.name)).collect())
    }

    /// Deletes topics by name.
    ///
    /// # Errors
    ///
    /// Per topic for example `UNKNOWN_TOPIC_OR_PARTITION`.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Vec<Result<()>>> {
        let results = self
            .cluster
            .retry("deleting topics", async || {
                let route = self.cluster.controller_route().await?;
                self.try_delete_topics(&route, names).await
            })
            .await?;
        let is_gone = |snapshot: &Snapshot| {
            let results = results.iter().zip(names);
            results
                .into_iter()
                .all(|(result, name)| result.is_err() || !snapshot.topics.contains_key(*name))
        };
        self.cluster.await_change(names, is_gone).await;
        Ok(results)
    }

    async fn try_delete_topics(&self, route: &Route, names: &[&str]) -> Result<Vec<Result<()>>> {
        let version = route.version(ApiKey::DeleteTopics)?;
        let mut request =
            DeleteTopicsRequest { timeout_ms: millis(self.timeout()), ..Default::default() };
        if version >= 6 {
            let state = |name: &&str| DeleteTopicState {
                name: Some(Str::from(*name)),
                topic_id: Uuid::ZERO,
            };
            request.topics = names.iter().map(state).collect();
        } else {
            request.topic_names = names.iter().map(|name| Str::from(*name)).collect();
        }
        let response = route.call_at(request, version, self.timeout()).await?;
        if response.responses.iter().any(|topic| is_about_controller(topic.error_code)) {
            return Err(errors::not_controller("deleting topics"));
        }
        let mut answers: BTreeMap<String, Result<()>> = BTreeMap::new();
        for topic in response.responses {
            let name = topic.name.as_deref().unwrap_or_default().to_owned();
            let result = check(topic.error_code, topic.error_message.as_ref(), || {
                format!("deleting topic {name}")
            });
            answers.insert(name, result);
        }
        Ok(names.iter().map(|name| answer_to(&mut answers, name)).collect())
    }

    /// Raises the number of partitions of a topic to `count`.
    ///
    /// # Errors
    ///
    /// `INVALID_PARTITIONS` when it already has that many.
    pub async fn create_partitions(
        &self,
        topic: &str,
        count: i32,
        validate_only: bool,
    ) -> Result<()> {
        self.cluster
            .retry("creating partitions", async || {
                let route = self.cluster.controller_route().await?;
                let request = CreatePartitionsRequest {
                    topics: vec![CreatePartitionsTopic {
                        name: Str::from(topic),
                        count,
                        assignments: None,
                    }],
                    timeout_ms: millis(self.timeout()),
                    validate_only,
                };
                let response = route.call(request, self.timeout()).await?;
                let result = response.results.into_iter().find(|result| &*result.name == topic);
                let result = result.ok_or_else(|| errors::not_mentioned(topic))?;
                check(result.error_code, result.error_message.as_ref(), || {
                    format!("raising the partitions of {topic} to {count}")
                })
            })
            .await?;
        if !validate_only {
            let is_grown = |snapshot: &Snapshot| {
                let topic = snapshot.topics.get(topic);
                topic.is_some_and(|topic| topic.partition_count() >= count)
            };
            self.cluster.await_change(&[topic], is_grown).await;
        }
        Ok(())
    }

    /// The names of all topics, sorted, except Kafka's internal ones.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn list_topics(&self) -> Result<Vec<Arc<TopicInfo>>> {
        let topics = self.all_topics().await?;
        Ok(topics.into_iter().filter(|topic| !topic.is_internal).collect())
    }

    /// All topics, including Kafka's internal ones.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn all_topics(&self) -> Result<Vec<Arc<TopicInfo>>> {
        self.cluster.retry("listing topics", async || self.cluster.refresh(None).await).await?;
        Ok(self.cluster.snapshot().topics.values().cloned().collect())
    }

    /// Ids, partitions, leaders and replicas of topics, as of now.
    ///
    /// # Errors
    ///
    /// Per topic `UNKNOWN_TOPIC_OR_PARTITION`.
    pub async fn describe_topics(&self, names: &[&str]) -> Result<Vec<Result<Arc<TopicInfo>>>> {
        let failures = self
            .cluster
            .retry("describing topics", async || {
                let failures = self.cluster.refresh(Some(names)).await?;
                let transient = failures.iter().find(|TopicFailure { code, .. }| {
                    code.retriable() && *code != ErrorCode::UnknownTopicOrPartition
                });
                match transient {
                    Some(TopicFailure { name, code }) => Err(errors::of_topic(*code, name)),
                    None => Ok(failures),
                }
            })
            .await?;
        let snapshot = self.cluster.snapshot();
        let describe = |name: &&str| {
            if let Some(failure) = failures.iter().find(|failure| failure.name == **name) {
                return Err(errors::of_topic(failure.code, name));
            }
            snapshot.topics.get(*name).cloned().ok_or_else(|| errors::unknown_topic(name))
        };
        Ok(names.iter().map(describe).collect())
    }

    /// The settings of topics or brokers, with their sources.
    ///
    /// # Errors
    ///
    /// Per resource for example `UNKNOWN_TOPIC_OR_PARTITION`.
    pub async fn describe_configs(
        &self,
        resources: &[Resource],
        with_documentation: bool,
    ) -> Result<Vec<Result<Vec<ConfigEntry>>>> {
        let mut results = Vec::with_capacity(resources.len());
        for resource in resources {
            let result = self
                .cluster
                .retry("describing configs", async || {
                    self.try_describe_configs(resource, with_documentation).await
                })
                .await;
            results.push(outer(result)?);
        }
        Ok(results)
    }

    async fn try_describe_configs(
        &self,
        resource: &Resource,
        with_documentation: bool,
    ) -> Result<Vec<ConfigEntry>> {
        let route = self.route_of(resource).await?;
        let version = route.version(ApiKey::DescribeConfigs)?;
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: resource.kind as i8,
                resource_name: Str::from(resource.name.as_str()),
                configuration_keys: None,
            }],
            include_synonyms: false,
            include_documentation: with_documentation && version >= 3,
        };
        let response = route.call_at(request, version, self.timeout()).await?;
        let result =
            response.results.into_iter().next().ok_or_else(|| errors::not_mentioned(resource))?;
        check(result.error_code, result.error_message.as_ref(), || resource.to_string())?;
        let mut entries: Vec<ConfigEntry> = result.configs.into_iter().map(config_entry).collect();
        entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    /// Changes settings; those not named stay unchanged.
    ///
    /// # Errors
    ///
    /// `INVALID_CONFIG` for a name or value that the broker does not accept.
    pub async fn alter_configs(
        &self,
        resource: &Resource,
        changes: &BTreeMap<String, ConfigChange>,
        validate_only: bool,
    ) -> Result<()> {
        self.cluster
            .retry("altering configs", async || {
                let route = self.route_of(resource).await?;
                let change = |(name, change): (&String, &ConfigChange)| AlterableConfig {
                    name: Str::from(name.as_str()),
                    config_operation: change.operation(),
                    value: change.value().map(Str::from),
                };
                let request = IncrementalAlterConfigsRequest {
                    resources: vec![AlterConfigsResource {
                        resource_type: resource.kind as i8,
                        resource_name: Str::from(resource.name.as_str()),
                        configs: changes.iter().map(change).collect(),
                    }],
                    validate_only,
                };
                let response = route.call(request, self.timeout()).await?;
                let result = response
                    .responses
                    .into_iter()
                    .next()
                    .ok_or_else(|| errors::not_mentioned(resource))?;
                check(result.error_code, result.error_message.as_ref(), || resource.to_string())
            })
            .await
    }

    /// Which broker answers for a resource: the broker itself for its settings, otherwise any.
    async fn route_of(&self, resource: &Resource) -> Result<Arc<Route>> {
        let is_broker = resource.kind != ResourceType::Topic && !resource.name.is_empty();
        if !is_broker {
            return self.cluster.controller_route().await;
        }
        let id = resource.name.parse().map(NodeId).map_err(|error| {
            let name = &resource.name;
            Error::invalid(format!("{name:?} is not the number of a broker: {error}"))
        })?;
        if !self.cluster.snapshot().brokers.contains_key(&id) {
            self.cluster.refresh(Some(&[])).await?;
        }
        let brokers = &self.cluster.snapshot().brokers;
        if !brokers.contains_key(&id) {
            return Err(Error::no_broker(id, brokers.keys().copied()));
        }
        self.cluster.route(id, Lane::Control).await
    }

    /// The ids of all brokers.
    async fn broker_ids(&self) -> Result<BTreeSet<NodeId>> {
        self.cluster.refresh(Some(&[])).await?;
        Ok(self.cluster.snapshot().brokers.keys().copied().collect())
    }

    /// Asks each broker, and collects what they say. When one fails, all are asked again: what it coordinated may be
    /// with another by then, and one that has left the cluster is not waited for.
    async fn of_all_brokers<T: Ord, F>(
        &self,
        what: &str,
        ask: impl Fn(NodeId) -> F,
    ) -> Result<BTreeSet<T>>
    where
        F: Future<Output = Result<Vec<T>>>,
    {
        self.cluster
            .retry(what, async || {
                let mut found = BTreeSet::new();
                for node in self.broker_ids().await? {
                    found.extend(ask(node).await?);
                }
                Ok(found)
            })
            .await
    }

    /// Suggests the topic with the most similar name when a topic does not exist; other results are
    /// returned unchanged.
    ///
    /// # Errors
    ///
    /// The error of the result.
    pub async fn named<T>(&self, topic: &str, result: Result<T>) -> Result<T> {
        match result {
            Err(error) => Err(self.with_nearest(topic, error).await),
            Ok(value) => Ok(value),
        }
    }

    /// Suggests the topic with the most similar name when a topic does not exist; other errors are
    /// returned unchanged.
    pub async fn with_nearest(&self, topic: &str, error: Error) -> Error {
        if error.code() != ErrorCode::UnknownTopicOrPartition {
            return error;
        }
        let topics = self.list_topics().await.unwrap_or_default();
        if topics.iter().any(|known| &*known.name == topic) {
            // It exists; what is missing is one of its partitions.
            return error;
        }
        let near = nearest(topic, topics.iter().map(|known| &*known.name));
        let remedy = near.map_or_else(
            || "create it first".to_owned(),
            |near| format!("did you mean {near}? Otherwise create it first"),
        );
        Error::told(error.code(), format!("there is no topic {topic}; {remedy}"))
    }
}

/// Separates the errors of the item from those of the call.
fn outer<T>(result: Result<T>) -> Result<Result<T>> {
    match result {
        Err(error @ (Error::Kafka { .. } | Error::InvalidArgument(_))) => Ok(Err(error)),
        Err(error) => Err(error),
        Ok(value) => Ok(Ok(value)),
    }
}

fn creatable(topic: &NewTopic, version: i16) -> Result<CreatableTopic> {
    let is_assigned = !topic.assignments.is_empty();
    let is_defaulted = topic.partitions.is_none() || topic.replication_factor.is_none();
    // A broker before Kafka 2.4 applies no defaults: one replica works everywhere.
    let (partitions, replication_factor) = if is_assigned {
        (-1, -1)
    } else if is_defaulted && version < 4 {
        (topic.partitions.unwrap_or(1), topic.replication_factor.unwrap_or(1))
    } else {
        (topic.partitions.unwrap_or(-1), topic.replication_factor.unwrap_or(-1))
    };
    if topic.name.is_empty() {
        return Err(Error::invalid("a topic needs a name"));
    }
    let assignment =
        |(partition, brokers): (&PartitionIndex, &Vec<NodeId>)| CreatableReplicaAssignment {
            partition_index: partition.0,
            broker_ids: brokers.iter().map(|broker| broker.0).collect(),
        };
    let config = |(name, value): (&String, &String)| CreatableTopicConfig {
        name: Str::from(name.as_str()),
        value: Some(Str::from(value.as_str())),
    };
    Ok(CreatableTopic {
        name: Str::from(topic.name.as_str()),
        num_partitions: partitions,
        replication_factor,
        assignments: topic.assignments.iter().map(assignment).collect(),
        configs: topic.configs.iter().map(config).collect(),
    })
}

fn created(topic: CreatableTopicResult) -> Result<CreatedTopic> {
    let code = ErrorCode::from_i16(topic.error_code);
    if let (ErrorCode::TopicAlreadyExists, Some(message)) = (code, topic.error_message.as_ref()) {
        // The error names the topic.
        return Err(Error::told(code, message.as_str()));
    }
    check(topic.error_code, topic.error_message.as_ref(), || {
        format!("creating topic {}", topic.name.as_str())
    })?;
    Ok(CreatedTopic {
        name: topic.name.to_string(),
        id: topic.topic_id,
        partitions: Some(topic.num_partitions).filter(|&count| count > 0),
        replication_factor: Some(topic.replication_factor).filter(|&factor| factor > 0),
    })
}

fn config_entry(config: DescribeConfigsResourceResult) -> ConfigEntry {
    ConfigEntry {
        name: config.name.to_string(),
        value: config.value.map(|value| value.to_string()),
        source: ConfigSource::from_i8(config.config_source),
        is_read_only: config.read_only,
        is_sensitive: config.is_sensitive,
        documentation: config.documentation.map(|text| text.to_string()),
    }
}
