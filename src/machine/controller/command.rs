//! What the controller can be asked, and what it answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Controller;
use super::wire::Travels;
use crate::config::{ConfigChange, ConfigMap};
use crate::error::{Error, ErrorCode};
use crate::machine::metadata::{ConfigResource, Endpoint, MetadataRecord, uuid_text};
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch, ProducerId, TopicId, TopicPartition, Uuid,
};

/// Why something was refused: Kafka's code and a sentence that names the item and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The code that the client is told.
    #[serde(with = "code_number")]
    pub code: ErrorCode,
    /// The sentence that goes with it.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Error codes by Kafka's numbers. As for every client, one that is not known is UNKNOWN_SERVER_ERROR.
mod code_number {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::error::ErrorCode;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it like this")]
    pub(super) fn serialize<S: Serializer>(code: &ErrorCode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i16(code.to_i16())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ErrorCode, D::Error> {
        Ok(ErrorCode::from_i16(i16::deserialize(from)?))
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::kafka(refusal.code, refusal.message)
    }
}

impl From<crate::config::ConfigError> for Refusal {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::new(ErrorCode::InvalidConfig, error.message)
    }
}

/// What the controller can be asked, and what it answers: each question names the type of its answer. Lists in
/// an answer are in the order of the question's list. Both are plain data and travel to the node that leads: a new
/// command is listed in [`wire`](super::wire), or it does not compile.
pub trait Command: Travels {
    /// The answer.
    type Reply: fmt::Debug + Send + 'static;

    /// The answer to give once the records, which this adds, are committed. See [`Controller::decide`].
    fn decide(
        self,
        controller: &mut Controller,
        now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply;
}

/// Gives a new cluster its id and features; nothing when it has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// The id.
    pub cluster_id: Arc<str>,
}

impl Command for Bootstrap {
    type Reply = Result<(), Refusal>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.bootstrap(&self.cluster_id, records)
    }
}

impl Command for BrokerRegistration {
    type Reply = Result<BrokerEpoch, Refusal>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.register(self, records)
    }
}

impl Command for BrokerHeartbeat {
    type Reply = Result<HeartbeatState, Refusal>;

    fn decide(
        self,
        controller: &mut Controller,
        now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.heartbeat(now, &self, records)
    }
}

/// A broker will not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnregisterBroker {
    /// The broker.
    pub id: NodeId,
}

impl Command for UnregisterBroker {
    type Reply = Result<(), Refusal>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.unregister(self.id, records)
    }
}

/// Creates topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTopics {
    /// The topics.
    pub topics: Vec<NewTopic>,
    /// Validate only.
    pub validate_only: bool,
}

impl Command for CreateTopics {
    type Reply = Vec<Result<CreatedTopic, Refusal>>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.create_topics(self.topics, self.validate_only, records)
    }
}

/// Deletes topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteTopics {
    /// The topics.
    pub topics: Vec<TopicRef>,
}

impl Command for DeleteTopics {
    type Reply = Vec<Result<DeletedTopic, Refusal>>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.delete_topics(&self.topics, records)
    }
}

/// Adds partitions to topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePartitions {
    /// The topics.
    pub topics: Vec<NewPartitions>,
    /// Validate only.
    pub validate_only: bool,
}

impl Command for CreatePartitions {
    type Reply = Vec<Result<(), Refusal>>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.create_partitions(self.topics, self.validate_only, records)
    }
}

/// Replaces all settings of resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlterConfigs {
    /// The resources with the settings they are to have.
    pub resources: Vec<ConfigAlteration>,
    /// Validate only.
    pub validate_only: bool,
}

impl Command for AlterConfigs {
    type Reply = Vec<Result<(), Refusal>>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.alter_configs(self.resources, self.validate_only, records)
    }
}

/// Changes single settings of resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncrementalAlterConfigs {
    /// The resources with their changes.
    pub resources: Vec<IncrementalAlteration>,
    /// Validate only.
    pub validate_only: bool,
}

impl Command for IncrementalAlterConfigs {
    type Reply = Vec<Result<(), Refusal>>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.incremental_alter_configs(self.resources, self.validate_only, records)
    }
}

/// A leader changes the ISR of its partitions. Answered for each, if the broker itself is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlterPartition {
    /// The leader.
    pub broker: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// The changes.
    pub changes: Vec<IsrChange>,
}

impl Command for AlterPartition {
    type Reply = Result<Vec<Result<IsrState, Refusal>>, Refusal>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.alter_partition(self.broker, self.epoch, &self.changes, records)
    }
}

/// Elects leaders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElectLeaders {
    /// Which leader.
    pub election: Election,
    /// For which partitions; `None` for all that need one.
    pub partitions: Option<Vec<TopicPartition>>,
}

impl Command for ElectLeaders {
    type Reply = Vec<(TopicPartition, Result<(), Refusal>)>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.elect_leaders(self.election, self.partitions, records)
    }
}

/// Moves partitions to other brokers, or stops moving them (KIP-455).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlterPartitionReassignments {
    /// The partitions.
    pub reassignments: Vec<Reassignment>,
    /// Whether a partition may get another number of replicas (KIP-860).
    pub allow_replication_factor_change: bool,
}

impl Command for AlterPartitionReassignments {
    type Reply = Vec<Result<(), Refusal>>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        let Self { reassignments, allow_replication_factor_change } = self;
        controller.alter_partition_reassignments(
            &reassignments,
            allow_replication_factor_change,
            records,
        )
    }
}

/// Raises or lowers finalized features (KIP-584): all of them, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateFeatures {
    /// The features.
    pub updates: Vec<FeatureUpdate>,
    /// Validate only.
    pub validate_only: bool,
}

impl Command for UpdateFeatures {
    type Reply = Result<(), Refusal>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.update_features(&self.updates, self.validate_only, records)
    }
}

/// Gives a broker a block of producer ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocateProducerIds {
    /// The broker.
    pub broker: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
}

impl Command for AllocateProducerIds {
    type Reply = Result<ProducerIdBlock, Refusal>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.allocate_producer_ids(self.broker, self.epoch, records)
    }
}

/// A broker that starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerRegistration {
    /// The broker.
    pub id: NodeId,
    /// This process.
    #[serde(with = "uuid_text")]
    pub incarnation: Uuid,
    /// The cluster that its directory belongs to; `None` for a directory that belongs to none.
    pub cluster_id: Option<Arc<str>>,
    /// Where clients reach it.
    pub endpoints: Vec<Endpoint>,
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Whether it can serve at once and need not be fenced first: the broker in the controller's
    /// process.
    pub ready: bool,
}

/// A broker that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerHeartbeat {
    /// The broker.
    pub id: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// Whether it does not want to lead, or cannot yet.
    pub want_fence: bool,
    /// Whether it wants to stop.
    pub want_shutdown: bool,
}

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
    pub assignments: Vec<(i32, Vec<NodeId>)>,
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
    pub partition: i32,
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

/// How a broker stands after a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatState {
    /// It may not lead.
    pub fenced: bool,
    /// It no longer leads anything and may stop.
    pub may_stop: bool,
}
