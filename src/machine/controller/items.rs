//! What commands to the controller, and the replies to them, are made of.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigChange, ConfigMap};
use crate::machine::metadata::{ConfigResource, uuid_text};
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch, PartitionIndex, ProducerId, TopicId,
    TopicPartition,
};

/// A topic to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTopic {
    /// The name.
    pub name: Arc<str>,
    /// How many partitions; -1 for the broker's `num.partitions`.
    pub partitions: i32,
    /// How many replicas of each; -1 for the broker's `default.replication.factor`.
    pub replication_factor: i16,
    /// The replicas of each partition, when the caller wants to place them: (partition, replicas).
    pub assignments: Vec<(PartitionIndex, Vec<NodeId>)>,
    /// Its settings; `None` as a value is refused.
    pub configs: Vec<(String, Option<String>)>,
}

impl NewTopic {
    /// A topic with default settings; -1 stands for the broker's default.
    pub fn new(name: impl Into<Arc<str>>, partitions: i32, replication_factor: i16) -> Self {
        Self { name: name.into(), partitions, replication_factor, ..Self::default() }
    }
}

/// A topic that was, or could be, created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatedTopic {
    /// Its id; zero when it was only checked.
    #[serde(with = "uuid_text")]
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas each has.
    pub replication_factor: i16,
    /// The settings that are stored for it.
    pub configs: ConfigMap,
}

/// A topic by name or by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopicRef {
    /// By name.
    Name(Arc<str>),
    /// By id.
    Id(#[serde(with = "uuid_text")] TopicId),
}

/// A topic that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeletedTopic {
    /// The name.
    pub name: Arc<str>,
    /// The id.
    #[serde(with = "uuid_text")]
    pub id: TopicId,
}

/// Partitions to be added to a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPartitions {
    /// The topic.
    pub name: Arc<str>,
    /// How many partitions it is to have in total.
    pub count: i32,
    /// The replicas of each new partition; `None` leaves the placement to the controller.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// Settings that replace all others of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigAlteration {
    /// The resource.
    pub resource: ConfigResource,
    /// All its settings; `None` as a value is refused.
    pub settings: Vec<(String, Option<String>)>,
}

/// Changes of single settings of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncrementalAlteration {
    /// The resource.
    pub resource: ConfigResource,
    /// The changes.
    pub changes: Vec<ConfigChange>,
}

/// The ISR that a leader wants for its partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IsrChange {
    /// The topic.
    #[serde(with = "uuid_text")]
    pub topic_id: TopicId,
    /// The index.
    pub partition: PartitionIndex,
    /// The term in which the leader leads.
    pub leader_epoch: LeaderEpoch,
    /// The state that it knows.
    pub partition_epoch: PartitionEpoch,
    /// The new ISR: each member with its registration, [`BrokerEpoch::UNKNOWN`] when not known.
    pub isr: Vec<(NodeId, BrokerEpoch)>,
}

/// A partition after its ISR changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IsrState {
    /// The leader.
    pub leader: NodeId,
    /// Its term.
    pub leader_epoch: LeaderEpoch,
    /// The ISR.
    pub isr: Vec<NodeId>,
    /// The version of this state.
    pub partition_epoch: PartitionEpoch,
}

/// The replicas that a partition is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reassignment {
    /// The partition.
    pub partition: TopicPartition,
    /// The replicas, the preferred leader first; `None` returns to those before an unfinished reassignment.
    pub replicas: Option<Vec<NodeId>>,
}

/// The level that a feature is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureUpdate {
    /// The feature.
    pub feature: Arc<str>,
    /// The level; 0 turns it off.
    pub level: i16,
    /// Which way the level may go.
    pub upgrade: UpgradeType,
}

/// Which way the level of a feature may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeType {
    /// Up.
    Upgrade,
    /// Down, unless metadata would be lost.
    SafeDowngrade,
    /// Down.
    UnsafeDowngrade,
}

/// Which leader an election looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Election {
    /// The first of the replicas, when it is in sync.
    Preferred,
    /// Any live replica, for partitions without a leader; records may be lost.
    Unclean,
}

/// Producer ids that belong to one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerIdBlock {
    /// The first id.
    pub first: ProducerId,
    /// How many.
    pub count: i32,
}

/// The last process with the directory of a broker that registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predecessor {
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// Whether everything that it wrote is in the directory; what it synced always is.
    pub left_all: bool,
    /// Its `durability`, of topics without one of their own; `None` when that is not known.
    pub durability: Option<String>,
}

/// How a broker stands after a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatState {
    /// It may not lead.
    pub fenced: bool,
    /// It no longer leads anything, every other active broker knows, and it may stop.
    pub may_stop: bool,
}
