//! What the controller can be asked, and what it answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Controller;
use super::items::{
    ConfigAlteration, CreatedTopic, DeletedTopic, Election, FeatureUpdate, HeartbeatState,
    IncrementalAlteration, IsrChange, IsrState, NewPartitions, NewTopic, Predecessor,
    ProducerIdBlock, Reassignment, TopicRef,
};
use super::wire::Travels;
use crate::error::{Error, ErrorCode};
use crate::machine::metadata::{Endpoint, MetadataRecord, uuid_text};
use crate::types::{BrokerEpoch, NodeId, Offset, TopicPartition, Uuid};

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

/// Gives a new cluster its id and features; nothing when it has them. The answer is the id that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// The id.
    pub cluster_id: Arc<str>,
    /// Whether the id is a proposal of a node that belongs to no cluster yet and takes any. Otherwise it is the id that
    /// the node's data belong to, and must be that of the cluster.
    pub is_proposal: bool,
}

impl Command for Bootstrap {
    type Reply = Result<Arc<str>, Refusal>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.bootstrap(self, records)
    }
}

impl Command for BrokerRegistration {
    type Reply = Result<BrokerEpoch, Refusal>;

    fn decide(
        self,
        controller: &mut Controller,
        now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.register(now, self, records)
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

/// The process of a broker has ended; it need not be waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuryBroker {
    /// The broker.
    pub id: NodeId,
    /// Its registration, as the one who reports knew it while the process ran.
    pub epoch: BrokerEpoch,
}

impl Command for BuryBroker {
    type Reply = Result<(), Refusal>;

    fn decide(
        self,
        controller: &mut Controller,
        _now: Duration,
        records: &mut Vec<MetadataRecord>,
    ) -> Self::Reply {
        controller.bury(self.id, self.epoch, records)
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
    /// The log directory, whose lock this process holds.
    #[serde(with = "uuid_text")]
    pub directory_id: Uuid,
    /// Whether this process registers for the first time. The lock, which it has just taken, then proves that an earlier
    /// process with the same directory is gone.
    pub is_first: bool,
    /// What is known of the process that had the directory before; nothing for a new directory, and in version 1.
    #[serde(default)]
    pub predecessor: Option<Predecessor>,
    /// The cluster that its directory belongs to; `None` for a directory that belongs to none.
    pub cluster_id: Option<Arc<str>>,
    /// Where clients reach it.
    pub endpoints: Vec<Endpoint>,
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Whether it can serve at once and need not be fenced first: the broker of a node that is alone, in whose process
    /// the controller is.
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
    /// The offset up to which the metadata is in effect there.
    pub metadata_offset: Offset,
    /// Whether it does not want to lead, or cannot yet.
    pub want_fence: bool,
    /// Whether it wants to stop.
    pub want_shutdown: bool,
    /// Where the controller's first answer to this wish is in the metadata log: what it led has other leaders there.
    pub handed_over: Option<Offset>,
}
