//! The types of the admin client's arguments and results.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::cluster::{BrokerInfo, PartitionInfo, TopicInfo};
use crate::error::{Error, Result};
use crate::types::{
    LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerId, Sequence, TimestampMs, TopicId,
    TopicPartition, Uuid,
};

/// A topic to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// The number of partitions; the broker's `num.partitions` when not given.
    pub partitions: Option<i32>,
    /// The number of replicas; the broker's `default.replication.factor` when not given.
    pub replication_factor: Option<i16>,
    /// The brokers of each partition, instead of the two numbers above.
    pub assignments: BTreeMap<PartitionIndex, Vec<NodeId>>,
    /// Topic settings that differ from the broker's.
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with a number of partitions and otherwise the broker's defaults.
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self { name: name.into(), partitions: Some(partitions), ..Self::default() }
    }

    /// Adds a setting.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(name.into(), value.into());
        self
    }
}

/// A topic that was created, or would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id; zero with old brokers and when only validated.
    pub id: TopicId,
    /// Its number of partitions, if the broker reports it.
    pub partitions: Option<i32>,
    /// Its number of replicas, if the broker reports it.
    pub replication_factor: Option<i16>,
}

/// The kind of a resource that has settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ResourceType {
    /// A topic.
    Topic = 2,
    /// A broker; the empty name stands for the default of all brokers.
    Broker = 4,
    /// The log levels of a broker.
    BrokerLogger = 8,
}

/// A resource that has settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// Its kind.
    pub kind: ResourceType,
    /// The topic's name or the broker's id.
    pub name: String,
}

impl Resource {
    /// The settings of a topic.
    pub fn topic(name: impl Into<String>) -> Self {
        Self { kind: ResourceType::Topic, name: name.into() }
    }

    /// The settings of one broker.
    #[must_use]
    pub fn broker(id: NodeId) -> Self {
        Self { kind: ResourceType::Broker, name: id.to_string() }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            ResourceType::Topic => "topic",
            ResourceType::Broker => "broker",
            ResourceType::BrokerLogger => "broker logger",
        };
        write!(formatter, "{kind} {}", self.name)
    }
}

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigSource {
    /// Not reported.
    Unknown,
    /// Set on the topic.
    Topic,
    /// Set on the broker at run time.
    DynamicBroker,
    /// Set for all brokers at run time.
    DynamicDefaultBroker,
    /// From the broker's `server.properties`.
    StaticBroker,
    /// The default.
    Default,
    /// Another source, by Kafka's number.
    Other(i8),
}

impl ConfigSource {
    pub(crate) const fn from_i8(number: i8) -> Self {
        match number {
            -1 | 0 => Self::Unknown,
            1 => Self::Topic,
            2 => Self::DynamicBroker,
            3 => Self::DynamicDefaultBroker,
            4 => Self::StaticBroker,
            5 => Self::Default,
            other => Self::Other(other),
        }
    }

    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Topic => "DYNAMIC_TOPIC_CONFIG",
            Self::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            Self::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            Self::StaticBroker => "STATIC_BROKER_CONFIG",
            Self::Default => "DEFAULT_CONFIG",
            Self::Other(_) => "OTHER",
        }
    }
}

/// One setting and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name.
    pub name: String,
    /// The value; none for a secret.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// Whether it can only be set at startup.
    pub is_read_only: bool,
    /// Whether the value is a secret.
    pub is_sensitive: bool,
    /// What it does, if requested and reported.
    pub documentation: Option<String>,
}

/// A change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Sets the value.
    Set(String),
    /// Resets it to the default.
    Delete,
    /// Adds to a list.
    Append(String),
    /// Removes from a list.
    Subtract(String),
}

impl ConfigChange {
    pub(crate) const fn operation(&self) -> i8 {
        match self {
            Self::Set(_) => 0,
            Self::Delete => 1,
            Self::Append(_) => 2,
            Self::Subtract(_) => 3,
        }
    }

    pub(crate) fn value(&self) -> Option<&str> {
        match self {
            Self::Set(value) | Self::Append(value) | Self::Subtract(value) => Some(value),
            Self::Delete => None,
        }
    }
}

/// Which offset of a partition to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The log start offset.
    Earliest,
    /// The high watermark, or the last stable offset for `read_committed`.
    Latest,
    /// That of the record with the highest timestamp.
    MaxTimestamp,
    /// The first one in the broker's own log rather than in the tier.
    EarliestLocal,
    /// The last one in the tier.
    LatestTiered,
    /// The first one that is not in the tier yet.
    EarliestPendingUpload,
    /// The first record with this timestamp or a later one.
    Timestamp(TimestampMs),
}

impl OffsetSpec {
    pub(crate) const fn to_i64(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::EarliestLocal => -4,
            Self::LatestTiered => -5,
            Self::EarliestPendingUpload => -6,
            // Negative timestamps are special values such as those above; every record is later
            // than 1970.
            Self::Timestamp(timestamp) if timestamp.0 < 0 => Self::Earliest.to_i64(),
            Self::Timestamp(timestamp) => timestamp.0,
        }
    }

    /// The first version of ListOffsets that knows it.
    pub(crate) const fn version_min(self) -> i16 {
        match self {
            Self::Latest | Self::Earliest | Self::Timestamp(_) => 1,
            Self::MaxTimestamp => 7,
            Self::EarliestLocal => 8,
            Self::LatestTiered => 9,
            Self::EarliestPendingUpload => 11,
        }
    }
}

/// An offset that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; none when no record is that late.
    pub offset: Option<Offset>,
    /// The timestamp of the record, where a timestamp was looked up.
    pub timestamp: TimestampMs,
    /// The leader epoch of the record, or unknown.
    pub leader_epoch: LeaderEpoch,
}

/// A log directory of a broker.
#[derive(Clone, Debug)]
pub struct LogDir {
    /// The broker.
    pub broker: NodeId,
    /// The path on the broker.
    pub path: String,
    /// The error that took it offline.
    pub error: Option<crate::error::ErrorCode>,
    /// The size of the volume, if reported.
    pub total_bytes: Option<i64>,
    /// The free space on it, if reported.
    pub usable_bytes: Option<i64>,
    /// The partitions in it, with their sizes in bytes.
    pub partitions: BTreeMap<TopicPartition, i64>,
}

/// The brokers of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterDescription {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// The controller, as reported to clients.
    pub controller: Option<NodeId>,
    /// The brokers, by id.
    pub brokers: Vec<BrokerInfo>,
}

/// A broker that is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredBroker {
    /// Its id, address and rack.
    pub info: BrokerInfo,
    /// Whether it is kept from leading anything, most likely since it has stopped; none where the
    /// cluster does not tell.
    pub fenced: Option<bool>,
}

impl RegisteredBroker {
    /// Whether it takes part, as far as is known.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.fenced != Some(true)
    }
}

/// A cluster at a moment: who is in it, who leads what, and which copies are in sync.
#[derive(Clone, Debug)]
pub struct ClusterState {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// The node that decides: the leader of the metadata quorum, or where there is none, the
    /// controller that clients are told of. None while nobody leads the quorum.
    pub controller: Option<NodeId>,
    /// The registered brokers, by id.
    pub brokers: Vec<RegisteredBroker>,
    /// All topics, also Kafka's internal ones.
    pub topics: Vec<Arc<TopicInfo>>,
    /// `min.insync.replicas` of each topic whose settings may be seen.
    pub min_insync_replicas: BTreeMap<String, usize>,
}

impl ClusterState {
    /// How many replicas of a partition have to be in sync for `acks=all`: no more than it has.
    #[must_use]
    pub fn min_isr(&self, topic: &TopicInfo, info: &PartitionInfo) -> usize {
        let set = self.min_insync_replicas.get(&*topic.name).copied().unwrap_or(1);
        set.min(info.replicas.len())
    }

    /// The partitions of all topics for which something holds.
    pub fn partitions_where(
        &self,
        holds: impl Fn(&TopicInfo, &PartitionInfo) -> bool,
    ) -> Vec<TopicPartition> {
        let mut found = Vec::new();
        for topic in &self.topics {
            let held = topic.partitions.iter().filter(|info| holds(topic, info));
            found.extend(
                held.map(|info| TopicPartition::new(Arc::clone(&topic.name), info.partition)),
            );
        }
        found
    }

    /// The partitions that nobody leads.
    #[must_use]
    pub fn offline(&self) -> Vec<TopicPartition> {
        self.partitions_where(|_, info| info.leader.is_none())
    }

    /// The partitions with replicas that are not in sync.
    #[must_use]
    pub fn under_replicated(&self) -> Vec<TopicPartition> {
        self.partitions_where(|_, info| info.isr.len() < info.replicas.len())
    }

    /// The partitions that take no record with `acks=all`: nobody leads them, or too few replicas
    /// are in sync.
    #[must_use]
    pub fn under_min_isr(&self) -> Vec<TopicPartition> {
        let is_writable =
            |topic: &TopicInfo, info: &PartitionInfo| info.isr.len() >= self.min_isr(topic, info);
        self.partitions_where(|topic, info| info.leader.is_none() || !is_writable(topic, info))
    }
}

/// The cluster as one node sees it; each part may be missing for a reason of its own.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The metadata quorum.
    pub quorum: Result<QuorumView>,
    /// The registered brokers, by id.
    pub brokers: Result<Vec<RegisteredBroker>>,
    /// All topics, also Kafka's internal ones.
    pub topics: Result<Vec<Arc<TopicInfo>>>,
}

/// The metadata quorum as one node sees it.
#[derive(Clone, Debug)]
pub struct QuorumView {
    /// Its leader.
    pub leader: NodeId,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The voters, and how many milliseconds ago each last asked the leader for records, if that
    /// is known.
    pub silences_ms: BTreeMap<NodeId, Option<u64>>,
}

/// A partition that is being moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionReassignment {
    /// All replicas that it has now: those that stay, come and leave.
    pub replicas: Vec<NodeId>,
    /// Those that are being added.
    pub adding: Vec<NodeId>,
    /// Those that leave once the others are in sync.
    pub removing: Vec<NodeId>,
}

impl PartitionReassignment {
    /// The replicas in the end.
    #[must_use]
    pub fn target(&self) -> Vec<NodeId> {
        let stays = |id: &&NodeId| !self.removing.contains(id);
        self.replicas.iter().filter(stays).copied().collect()
    }
}

/// Who may become the leader of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Election {
    /// The first of the replicas, if it is in sync.
    Preferred = 0,
    /// Where nobody leads, any replica that is alive, in sync or not: records that only others have are lost.
    Unclean = 1,
}

/// A producer with state in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: i32,
    /// The sequence number of its last record.
    pub last_sequence: Sequence,
    /// The timestamp of its last batch.
    pub last_timestamp: TimestampMs,
    /// The epoch of the coordinator that last wrote a marker of it; -1 without one.
    pub coordinator_epoch: i32,
    /// The first offset of its open transaction.
    pub transaction_start: Option<Offset>,
}

/// A voter or observer of the metadata quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    /// The node.
    pub id: NodeId,
    /// Its log directory, where that is known.
    pub directory_id: Option<Uuid>,
    /// The end of its log.
    pub log_end_offset: Offset,
    /// When it last fetched.
    pub last_fetch: TimestampMs,
    /// When it was last caught up.
    pub last_caught_up: TimestampMs,
}

/// The metadata quorum.
#[derive(Clone, Debug)]
pub struct QuorumDescription {
    /// Its leader.
    pub leader: NodeId,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The end of what is committed.
    pub high_watermark: Offset,
    /// The voters.
    pub voters: Vec<QuorumReplica>,
    /// The nodes that only follow.
    pub observers: Vec<QuorumReplica>,
    /// Where the nodes listen for each other, as far as the cluster says it.
    pub endpoints: BTreeMap<NodeId, Vec<RaftVoterEndpoint>>,
}

/// Where a voter of the metadata quorum listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftVoterEndpoint {
    /// The name of the listener.
    pub listener: String,
    /// The host or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A feature of the cluster: the levels that brokers support, and the one in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name, for example `metadata.version`.
    pub name: String,
    /// The lowest and the highest supported level.
    pub supported: Option<(i16, i16)>,
    /// The level in effect.
    pub finalized: Option<i16>,
}

/// Turns a list of per-item results into one: all, or the first error.
///
/// # Errors
///
/// The first error of the list.
pub fn all_or_first_error<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    results.into_iter().collect::<Result<Vec<T>, Error>>()
}
