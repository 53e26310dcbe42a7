//! One fetch of a follower: what it asks for, and what the answer is about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::fetcher::FetcherParts;
use crate::broker::parking::PartitionKey;
use crate::broker::partition::{CopyPoint, Partition};
use crate::machine::fetch_session::FINAL_EPOCH;
use crate::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData, ReplicaState,
};
use crate::types::TopicPartition;

/// A partition, and where its copy stood when the leader was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) key: PartitionKey,
    pub(super) partition: Arc<Partition>,
    pub(super) point: CopyPoint,
}

impl Asked {
    /// None when the partition follows nobody.
    pub(super) fn of(key: PartitionKey, partition: &Arc<Partition>) -> Option<Self> {
        let point = partition.copy_point()?;
        Some(Self { key, partition: Arc::clone(partition), point })
    }

    pub(super) fn name(&self) -> &TopicPartition {
        self.partition.name()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Round {
    asked: Vec<Asked>,
}

impl Round {
    pub(super) fn new(asked: Vec<Asked>) -> Self {
        Self { asked }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Whether a partition is in it, in the epoch that it has by now.
    pub(super) fn asks(&self, key: &PartitionKey, partition: &Arc<Partition>) -> bool {
        self.asked.iter().any(|asked| {
            asked.key == *key
                && Arc::ptr_eq(&asked.partition, partition)
                && asked.point.epoch == partition.leader_epoch()
        })
    }

    /// The request, without a session: it names every partition.
    pub(super) fn request(&self, parts: &FetcherParts, wait: Duration) -> FetchRequest {
        let config = &parts.config;
        let mut topics: Vec<FetchTopic> = Vec::new();
        for Asked { key: (topic_id, partition), point, .. } in &self.asked {
            let wanted = FetchPartition {
                partition: *partition,
                current_leader_epoch: point.epoch.0,
                fetch_offset: point.end.0,
                last_fetched_epoch: point.last_epoch.0,
                log_start_offset: point.known.log_start.0,
                partition_max_bytes: config.fetch_max_bytes,
                high_watermark: point.known.high_watermark.0,
                ..FetchPartition::default()
            };
            match topics.last_mut() {
                Some(topic) if topic.topic_id == *topic_id => topic.partitions.push(wanted),
                _ => topics.push(FetchTopic {
                    topic_id: *topic_id,
                    partitions: vec![wanted],
                    ..FetchTopic::default()
                }),
            }
        }
        FetchRequest {
            replica_state: ReplicaState {
                replica_id: parts.node_id.0,
                replica_epoch: parts.registration(),
            },
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: config.fetch_min_bytes,
            max_bytes: config.fetch_response_max_bytes,
            session_epoch: FINAL_EPOCH,
            topics,
            ..FetchRequest::default()
        }
    }

    /// What the response says about the partitions that were asked for.
    pub(super) fn answers(self, response: FetchResponse) -> Vec<(Asked, PartitionData)> {
        let mut asked: BTreeMap<PartitionKey, Asked> =
            self.asked.into_iter().map(|asked| (asked.key, asked)).collect();
        let topics = response.responses.into_iter();
        let data = topics.flat_map(|topic| {
            let id = topic.topic_id;
            topic.partitions.into_iter().map(move |data| ((id, data.partition_index), data))
        });
        data.filter_map(|(key, data)| Some((asked.remove(&key)?, data))).collect()
    }
}
