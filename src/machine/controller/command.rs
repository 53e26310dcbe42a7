//! What the controller can be asked, and what it answers.

use std::sync::Arc;

use crate::config::{ConfigChange, ConfigMap};
use crate::error::{Error, ErrorCode};
use crate::machine::metadata::{ConfigResource, Endpoint};
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch, ProducerId, TopicId, TopicPartition, Uuid,
};

/// Why something was refused: Kafka's code and a sentence that names the item and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code that the client is told.
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

/// What the controller can be asked. The comment names the variant of [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give a new cluster its id and features; nothing when it has one. [`Reply::Done`].
    Bootstrap {
        /// The id.
        cluster_id: Arc<str>,
    },
    /// A broker starts. [`Reply::Registered`].
    RegisterBroker(BrokerRegistration),
    /// A broker is alive. [`Reply::Heartbeat`].
    Heartbeat(BrokerHeartbeat),
    /// A broker will not come back. [`Reply::Done`].
    UnregisterBroker {
        /// The broker.
        id: NodeId,
    },
    /// Create topics. [`Reply::CreatedTopics`].
    CreateTopics {
        /// The topics.
        topics: Vec<NewTopic>,
        /// Validate only.
        validate_only: bool,
    },
    /// Delete topics. [`Reply::DeletedTopics`].
    DeleteTopics {
        /// The topics.
        topics: Vec<TopicRef>,
    },
    /// Add partitions to topics. [`Reply::PerTopic`].
    CreatePartitions {
        /// The topics.
        topics: Vec<NewPartitions>,
        /// Validate only.
        validate_only: bool,
    },
    /// Replace all settings of resources. [`Reply::PerResource`].
    AlterConfigs {
        /// The resources with the settings they are to have.
        resources: Vec<ConfigAlteration>,
        /// Validate only.
        validate_only: bool,
    },
    /// Change single settings of resources. [`Reply::PerResource`].
    IncrementalAlterConfigs {
        /// The resources with their changes.
        resources: Vec<IncrementalAlteration>,
        /// Validate only.
        validate_only: bool,
    },
    /// A leader changes the ISR of its partitions. [`Reply::AlteredPartitions`].
    AlterPartition {
        /// The leader.
        broker: NodeId,
        /// Its registration.
        epoch: BrokerEpoch,
        /// The changes.
        changes: Vec<IsrChange>,
    },
    /// Elect leaders. [`Reply::Elected`].
    ElectLeaders {
        /// Which leader.
        election: Election,
        /// For which partitions; `None` for all that need one.
        partitions: Option<Vec<TopicPartition>>,
    },
    /// Give a broker a block of producer ids. [`Reply::ProducerIds`].
    AllocateProducerIds {
        /// The broker.
        broker: NodeId,
        /// Its registration.
        epoch: BrokerEpoch,
    },
}

/// A broker that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// The broker.
    pub id: NodeId,
    /// This process.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id; zero when it was only checked.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas each has.
    pub replication_factor: i16,
    /// The settings that are stored for it.
    pub configs: ConfigMap,
}

/// A topic by name or by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// By name.
    Name(Arc<str>),
    /// By id.
    Id(TopicId),
}

/// A topic that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// The name.
    pub name: Arc<str>,
    /// The id.
    pub id: TopicId,
}

/// Partitions to be added to a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewPartitions {
    /// The topic.
    pub name: Arc<str>,
    /// How many partitions it is to have in total.
    pub count: i32,
    /// The replicas of each new partition; `None` leaves the placement to the controller.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// Settings that replace all others of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigAlteration {
    /// The resource.
    pub resource: ConfigResource,
    /// All its settings; `None` as a value is refused.
    pub settings: Vec<(String, Option<String>)>,
}

/// Changes of single settings of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementalAlteration {
    /// The resource.
    pub resource: ConfigResource,
    /// The changes.
    pub changes: Vec<ConfigChange>,
}

/// The ISR that a leader wants for its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChange {
    /// The topic.
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Which leader an election looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The first of the replicas, when it is in sync.
    Preferred,
    /// Any live replica, for partitions without a leader; records may be lost.
    Unclean,
}

/// Producer ids that belong to one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first id.
    pub first: ProducerId,
    /// How many.
    pub count: i32,
}

/// What the controller answers; each command says which variant is its own. Lists are in the order
/// of the command's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done, or refused.
    Done(Result<(), Refusal>),
    /// The epoch of the registration.
    Registered(Result<BrokerEpoch, Refusal>),
    /// How the broker stands.
    Heartbeat(Result<HeartbeatState, Refusal>),
    /// Per topic.
    CreatedTopics(Vec<Result<CreatedTopic, Refusal>>),
    /// Per topic.
    DeletedTopics(Vec<Result<DeletedTopic, Refusal>>),
    /// Per topic.
    PerTopic(Vec<Result<(), Refusal>>),
    /// Per resource.
    PerResource(Vec<Result<(), Refusal>>),
    /// Per partition, when the broker itself was accepted.
    AlteredPartitions(Result<Vec<Result<IsrState, Refusal>>, Refusal>),
    /// Per partition.
    Elected(Vec<(TopicPartition, Result<(), Refusal>)>),
    /// The block.
    ProducerIds(Result<ProducerIdBlock, Refusal>),
}

/// How a broker stands after a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatState {
    /// It may not lead.
    pub fenced: bool,
    /// It no longer leads anything and may stop.
    pub may_stop: bool,
}
