//! What is known of a cluster at a moment: its brokers, topics and leaders.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::ErrorCode;
use crate::protocol::messages::metadata::MetadataResponseTopic;
use crate::types::{LeaderEpoch, NodeId, PartitionIndex, TimestampMs, TopicId, TopicPartition};

/// A broker, with its advertised address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// `node.id`.
    pub id: NodeId,
    /// The advertised host.
    pub host: String,
    /// The advertised port.
    pub port: i32,
    /// `broker.rack`.
    pub rack: Option<String>,
}

impl BrokerInfo {
    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its index.
    pub partition: PartitionIndex,
    /// Its leader, if it has one.
    pub leader: Option<NodeId>,
    /// The epoch of the leader, or unknown with brokers before Kafka 2.1.
    pub leader_epoch: LeaderEpoch,
    /// The brokers that hold a replica, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Those that are in sync.
    pub isr: Vec<NodeId>,
    /// Those that are offline.
    pub offline: Vec<NodeId>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; zero with brokers before Kafka 2.8.
    pub id: TopicId,
    /// Whether it is internal to Kafka.
    pub is_internal: bool,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionInfo>,
    pub(super) fetched_at: TimestampMs,
}

impl TopicInfo {
    /// A partition by its index.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&PartitionInfo> {
        let place = self.partitions.binary_search_by_key(&index, |info| info.partition).ok()?;
        self.partitions.get(place)
    }

    /// The number of partitions.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        PartitionIndex::count(&self.partitions)
    }
}

/// The leader of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: NodeId,
    /// Unknown with brokers before Kafka 2.1.
    pub(crate) epoch: LeaderEpoch,
}

/// A topic that a broker has no metadata of, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicFailure {
    pub(crate) name: String,
    pub(crate) code: ErrorCode,
}

/// A snapshot of what is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) cluster_id: Option<String>,
    pub(crate) controller: Option<NodeId>,
    pub(crate) brokers: BTreeMap<NodeId, BrokerInfo>,
    pub(crate) topics: BTreeMap<Arc<str>, Arc<TopicInfo>>,
}

impl Snapshot {
    /// The leader of a partition.
    pub(crate) fn leader(&self, partition: &TopicPartition) -> Option<Leader> {
        let info = self.topics.get(&partition.topic)?.partition(partition.partition)?;
        Some(Leader { node: info.leader?, epoch: info.leader_epoch })
    }
}

/// A topic from an answer, with newer leaders that are already known.
pub(super) fn merge_topic(
    name: Arc<str>,
    topic: MetadataResponseTopic,
    known: Option<&TopicInfo>,
    now: TimestampMs,
) -> TopicInfo {
    let same = known.filter(|known| known.id == topic.topic_id);
    let mut partitions: Vec<PartitionInfo> = topic
        .partitions
        .into_iter()
        .map(|partition| {
            let ids = |ids: Vec<i32>| ids.into_iter().map(NodeId).collect();
            let info = PartitionInfo {
                partition: PartitionIndex(partition.partition_index),
                leader: Some(NodeId(partition.leader_id)).filter(|&id| id != NodeId::NONE),
                leader_epoch: LeaderEpoch(partition.leader_epoch),
                replicas: ids(partition.replica_nodes),
                isr: ids(partition.isr_nodes),
                offline: ids(partition.offline_replicas),
            };
            let better = same
                .and_then(|known| known.partition(info.partition))
                .filter(|known| known.leader_epoch > info.leader_epoch);
            better.cloned().unwrap_or(info)
        })
        .collect();
    partitions.sort_unstable_by_key(|info| info.partition);
    TopicInfo {
        name,
        id: topic.topic_id,
        is_internal: topic.is_internal,
        partitions,
        fetched_at: now,
    }
}
