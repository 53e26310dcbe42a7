//! Looking up offsets and deleting records: requests that go to each partition's leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Admin, millis};
use crate::client::admin::types::{ListedOffset, OffsetSpec};
use crate::client::cluster::{Cluster, Lane, Leader};
use crate::client::config::IsolationLevel;
use crate::client::errors;
use crate::client::route::Route;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use crate::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use crate::protocol::{ApiKey, Str};
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, TopicPartition};

impl Admin {
    pub(super) async fn leader_route(&self, partition: &TopicPartition) -> Result<Arc<Route>> {
        let leader = leader_of(&self.cluster, partition).await?.node;
        self.cluster.route(leader, Lane::Control).await
    }

    /// Looks up one offset in each of the partitions.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION`, or `UNSUPPORTED_VERSION` when a broker is too old for it.
    pub async fn list_offsets(
        &self,
        wanted: &BTreeMap<TopicPartition, OffsetSpec>,
        isolation_level: IsolationLevel,
    ) -> Result<BTreeMap<TopicPartition, ListedOffset>> {
        list_offsets(&self.cluster, wanted, isolation_level).await
    }

    /// Deletes the records before the given offsets ([`Offset`] of -1: before the high watermark);
    /// returns the new log start offsets.
    ///
    /// # Errors
    ///
    /// `OFFSET_OUT_OF_RANGE` when an offset is beyond the end, `POLICY_VIOLATION` for a topic
    /// that is only compacted.
    pub async fn delete_records(
        &self,
        before: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<BTreeMap<TopicPartition, Offset>> {
        let mut starts = BTreeMap::new();
        for (partition, &offset) in before {
            let start = self
                .cluster
                .retry("deleting records", async || {
                    self.try_delete_records(partition, offset).await
                })
                .await?;
            starts.insert(partition.clone(), start);
        }
        Ok(starts)
    }

    async fn try_delete_records(
        &self,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<Offset> {
        let route = self.leader_route(partition).await?;
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: Str::from(&*partition.topic),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: partition.partition.0,
                    offset: offset.0,
                }],
            }],
            timeout_ms: millis(self.timeout()),
        };
        let response = route.call(request, self.timeout()).await?;
        let answer = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let answer = answer.ok_or_else(|| errors::not_mentioned(partition))?;
        ErrorCode::from_i16(answer.error_code)
            .into_result(format!("deleting the records of {partition} before {offset}"))?;
        Ok(Offset(answer.low_watermark))
    }
}

/// The leader of a partition, looked up if it is unknown.
pub(crate) async fn leader_of(cluster: &Cluster, partition: &TopicPartition) -> Result<Leader> {
    let topic = cluster.topic(&partition.topic).await?;
    let info = match topic.partition(partition.partition) {
        Some(info) => info.clone(),
        None => {
            let topic = cluster.fresh_topic(&partition.topic, false).await?;
            topic.partition(partition.partition).cloned().ok_or_else(|| {
                Error::no_partition(&topic.name, partition.partition, topic.partitions.len())
            })?
        }
    };
    let node = info.leader.ok_or_else(|| errors::no_leader(partition))?;
    Ok(Leader { node, epoch: info.leader_epoch })
}

/// Looks up offsets, each at its leader; retries what may succeed later.
pub(crate) async fn list_offsets(
    cluster: &Cluster,
    wanted: &BTreeMap<TopicPartition, OffsetSpec>,
    isolation_level: IsolationLevel,
) -> Result<BTreeMap<TopicPartition, ListedOffset>> {
    let done = std::sync::Mutex::new(BTreeMap::new());
    let found = || done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    cluster
        .retry("looking up offsets", async || {
            let mut by_leader: BTreeMap<NodeId, Vec<(TopicPartition, LeaderEpoch, OffsetSpec)>> =
                BTreeMap::new();
            for (partition, &spec) in wanted {
                if found().contains_key(partition) {
                    continue;
                }
                let Leader { node: leader, epoch } = leader_of(cluster, partition).await?;
                by_leader.entry(leader).or_default().push((partition.clone(), epoch, spec));
            }
            let requests = by_leader.into_iter().map(async |(leader, partitions)| {
                list_offsets_of(cluster, leader, partitions, isolation_level).await
            });
            let mut failure = None;
            for answers in futures::future::join_all(requests).await {
                for (partition, answer) in answers? {
                    match answer {
                        Ok(offset) => {
                            found().insert(partition, offset);
                        }
                        Err(error) => failure = Some(error),
                    }
                }
            }
            failure.map_or(Ok(()), Err)
        })
        .await?;
    Ok(done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

type Answers = Vec<(TopicPartition, Result<ListedOffset>)>;

async fn list_offsets_of(
    cluster: &Cluster,
    leader: NodeId,
    partitions: Vec<(TopicPartition, LeaderEpoch, OffsetSpec)>,
    isolation_level: IsolationLevel,
) -> Result<Answers> {
    let timeout = cluster.config.request_timeout;
    let route = cluster.route(leader, Lane::Control).await?;
    let version = route.version(ApiKey::ListOffsets)?;
    if let Some((partition, _, spec)) =
        partitions.iter().find(|(_, _, spec)| spec.version_min() > version)
    {
        let context = format!("looking up {spec:?} of {partition}: the broker is too old for it");
        return Err(errors::unsupported(context));
    }
    let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (partition, epoch, spec) in &partitions {
        topics.entry(&partition.topic).or_default().push(ListOffsetsPartition {
            partition_index: partition.partition.0,
            current_leader_epoch: epoch.0,
            timestamp: spec.to_i64(),
        });
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| ListOffsetsTopic { name: Str::from(name), partitions })
        .collect();
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level: if version >= 2 { isolation_level.to_i8() } else { 0 },
        topics,
        timeout_ms: millis(timeout),
    };
    let answer = route.call_at(request, version, timeout);
    let response = cluster.unless_gone((leader, &route), Duration::ZERO, answer).await?;
    let mut answers = BTreeMap::new();
    for topic in response.topics {
        for partition in topic.partitions {
            let name = TopicPartition::new(&*topic.name, partition.partition_index);
            answers.insert(name, partition);
        }
    }
    let answer_of = |(name, _, _): (TopicPartition, LeaderEpoch, OffsetSpec)| {
        let answer = answers.remove(&name).ok_or_else(|| errors::not_mentioned(&name));
        let listed = answer.and_then(|answer| {
            ErrorCode::from_i16(answer.error_code)
                .into_result(format!("looking up an offset of {name}"))?;
            Ok(ListedOffset {
                offset: Some(Offset(answer.offset)).filter(|offset| *offset >= Offset::ZERO),
                timestamp: TimestampMs(answer.timestamp),
                leader_epoch: LeaderEpoch(answer.leader_epoch),
            })
        });
        (name, listed)
    };
    Ok(partitions.into_iter().map(answer_of).collect())
}
