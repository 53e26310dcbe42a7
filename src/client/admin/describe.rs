//! Describing the cluster, its log directories, producers and features.

use std::collections::{BTreeMap, BTreeSet};

use super::{Admin, check};
use crate::client::admin::types::{ActiveProducer, ClusterDescription, Feature, LogDir};
use crate::client::cluster::Lane;
use crate::client::errors;
use crate::error::{ErrorCode, Result};
use crate::protocol::Str;
use crate::protocol::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsRequest, DescribeLogDirsResult,
};
use crate::protocol::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use crate::types::{NodeId, Offset, ProducerId, Sequence, TimestampMs, TopicPartition};

impl Admin {
    /// The brokers, the controller and the id of the cluster.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription> {
        self.cluster
            .retry("describing the cluster", async || self.cluster.refresh(Some(&[])).await)
            .await?;
        let snapshot = self.cluster.snapshot();
        Ok(ClusterDescription {
            cluster_id: snapshot.cluster_id.clone(),
            controller: snapshot.controller,
            brokers: snapshot.brokers.values().cloned().collect(),
        })
    }

    /// The features that the cluster supports and those in effect.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn describe_features(&self) -> Result<Vec<Feature>> {
        let route = self.cluster.any_route().await?;
        let answer = route.api_versions();
        let mut features: BTreeMap<String, Feature> = BTreeMap::new();
        let named =
            |name: &str| Feature { name: name.to_owned(), supported: None, finalized: None };
        for line in &answer.supported_features {
            let feature =
                features.entry(line.name.to_string()).or_insert_with(|| named(&line.name));
            feature.supported = Some((line.min_version, line.max_version));
        }
        for line in &answer.finalized_features {
            let feature =
                features.entry(line.name.to_string()).or_insert_with(|| named(&line.name));
            feature.finalized = Some(line.max_version_level);
        }
        Ok(features.into_values().collect())
    }

    /// The log directories of all brokers, with the partitions in them.
    ///
    /// # Errors
    ///
    /// When a broker does not answer.
    pub async fn describe_log_dirs(&self) -> Result<Vec<LogDir>> {
        let mut directories = Vec::new();
        for broker in self.broker_ids().await? {
            directories.extend(self.log_dirs(broker, None).await?);
        }
        Ok(directories)
    }

    /// The log directories of a broker, with those of these partitions that are in them.
    ///
    /// # Errors
    ///
    /// When the broker does not answer.
    pub async fn describe_log_dirs_of(
        &self,
        broker: NodeId,
        partitions: &BTreeSet<TopicPartition>,
    ) -> Result<Vec<LogDir>> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for one in partitions {
            topics.entry(&one.topic).or_default().push(one.partition.0);
        }
        let topic =
            |(name, partitions)| DescribableLogDirTopic { topic: Str::from(name), partitions };
        self.log_dirs(broker, Some(topics.into_iter().map(topic).collect())).await
    }

    async fn log_dirs(
        &self,
        broker: NodeId,
        topics: Option<Vec<DescribableLogDirTopic>>,
    ) -> Result<Vec<LogDir>> {
        let route = self.cluster.route(broker, Lane::Control).await?;
        let response = route.call(DescribeLogDirsRequest { topics }, self.timeout()).await?;
        check(response.error_code, None, || format!("log directories of broker {broker}"))?;
        Ok(response.results.into_iter().map(|result| log_dir(broker, result)).collect())
    }

    /// The producers that have state in a partition.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION`; `UNSUPPORTED_VERSION` before Kafka 2.8.
    pub async fn describe_producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ActiveProducer>> {
        self.cluster
            .retry("describing producers", async || {
                let route = self.leader_route(partition).await?;
                let request = DescribeProducersRequest {
                    topics: vec![TopicRequest {
                        name: Str::from(&*partition.topic),
                        partition_indexes: vec![partition.partition.0],
                    }],
                };
                let response = route.call(request, self.timeout()).await?;
                let answer = response
                    .topics
                    .into_iter()
                    .flat_map(|topic| topic.partitions)
                    .find(|answer| answer.partition_index == partition.partition.0)
                    .ok_or_else(|| errors::not_mentioned(partition))?;
                check(answer.error_code, answer.error_message.as_ref(), || {
                    format!("producers of {partition}")
                })?;
                let producer =
                    |state: crate::protocol::messages::describe_producers::ProducerState| {
                        ActiveProducer {
                            id: ProducerId(state.producer_id),
                            epoch: state.producer_epoch,
                            last_sequence: Sequence(state.last_sequence),
                            last_timestamp: TimestampMs(state.last_timestamp),
                            coordinator_epoch: state.coordinator_epoch,
                            transaction_start: Some(Offset(state.current_txn_start_offset))
                                .filter(|offset| *offset >= Offset::ZERO),
                        }
                    };
                Ok(answer.active_producers.into_iter().map(producer).collect())
            })
            .await
    }
}

fn log_dir(broker: NodeId, result: DescribeLogDirsResult) -> LogDir {
    let mut partitions = BTreeMap::new();
    for topic in result.topics {
        for partition in topic.partitions {
            let name = TopicPartition::new(&*topic.name, partition.partition_index);
            partitions.insert(name, partition.partition_size);
        }
    }
    LogDir {
        broker,
        path: result.log_dir.to_string(),
        error: Some(ErrorCode::from_i16(result.error_code)).filter(|code| !code.is_ok()),
        total_bytes: Some(result.total_bytes).filter(|&bytes| bytes >= 0),
        usable_bytes: Some(result.usable_bytes).filter(|&bytes| bytes >= 0),
        partitions,
    }
}
