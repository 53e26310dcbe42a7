//! The records of the metadata log and their encoding.
//!
//! A record on disk is one line of JSON, so that any tool that prints a log shows it readably:
//! `{"version":1,"record":{"topic":{"name":"orders","id":"…22 characters…"}}}`. The rules that
//! keep it stable:
//!
//! - [`RECORD_VERSION`] is raised when an existing kind of record changes; a record of a higher
//!   version is refused with both numbers, never guessed at.
//! - A kind or a field that is not known is refused too: leaving out what a newer version meant
//!   would make two nodes disagree.
//! - A kind is never renamed or reused. Ids are Kafka's 22-character text.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::image::Endpoint;
use crate::error::{Error, Result};
use crate::types::{BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch, ProducerId, TopicId, Uuid};

/// The version of the encoding that this build writes, and the highest that it reads.
pub const RECORD_VERSION: u16 = 1;

/// What a setting is stored for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigResource {
    /// One topic, by name.
    Topic(Arc<str>),
    /// One broker.
    Broker(NodeId),
    /// Every broker that has no setting of its own.
    ClusterDefault,
    /// One group, by id; it need not exist.
    Group(Arc<str>),
}

/// One change of the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MetadataRecord {
    /// The identity of the cluster; the first record of a new one.
    Cluster {
        /// The cluster id.
        id: Arc<str>,
    },
    /// A feature is finalized at a level; level 0 takes it away.
    Feature {
        /// The feature, for example `metadata.version`.
        name: Arc<str>,
        /// The level.
        level: i16,
    },
    /// A broker registered, or registered again.
    RegisterBroker {
        /// The broker.
        id: NodeId,
        /// The process: a new one for every start.
        #[serde(with = "uuid_text")]
        incarnation: Uuid,
        /// The number of this registration; higher than every earlier one.
        epoch: BrokerEpoch,
        /// Where clients reach it.
        endpoints: Vec<Endpoint>,
        /// Where it stands.
        rack: Option<Arc<str>>,
        /// Whether it may not lead yet.
        fenced: bool,
    },
    /// The state of a registered broker changed.
    ChangeBroker {
        /// The broker.
        id: NodeId,
        /// The registration that it is about.
        epoch: BrokerEpoch,
        /// Whether it may not lead.
        fenced: bool,
        /// Whether it is handing over before it stops.
        shutting_down: bool,
    },
    /// A broker left for ever.
    UnregisterBroker {
        /// The broker.
        id: NodeId,
        /// Its last registration.
        epoch: BrokerEpoch,
    },
    /// The highest broker epoch so far; only in snapshots, for brokers that left.
    BrokerEpochs {
        /// The highest epoch that was given.
        last: BrokerEpoch,
    },
    /// A topic was created; its partitions follow.
    Topic {
        /// The name.
        name: Arc<str>,
        /// The id.
        #[serde(with = "uuid_text")]
        id: TopicId,
    },
    /// A partition was created.
    Partition {
        /// The topic.
        #[serde(with = "uuid_text")]
        topic_id: TopicId,
        /// The index: the number of partitions that the topic has so far.
        partition: i32,
        /// The brokers that hold it, the preferred leader first.
        replicas: Vec<NodeId>,
        /// Those that are in sync.
        isr: Vec<NodeId>,
        /// Replicas that a reassignment takes away.
        removing: Vec<NodeId>,
        /// Replicas that a reassignment adds.
        adding: Vec<NodeId>,
        /// The leader, or none.
        leader: NodeId,
        /// The term of the leader.
        leader_epoch: LeaderEpoch,
        /// The version of the partition's state.
        partition_epoch: PartitionEpoch,
    },
    /// A partition changed; what is absent stays.
    ChangePartition {
        /// The topic.
        #[serde(with = "uuid_text")]
        topic_id: TopicId,
        /// The index.
        partition: i32,
        /// The new replicas.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replicas: Option<Vec<NodeId>>,
        /// The new ISR.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        isr: Option<Vec<NodeId>>,
        /// The new replicas to be taken away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        removing: Option<Vec<NodeId>>,
        /// The new replicas to be added.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        adding: Option<Vec<NodeId>>,
        /// The new leader, or none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leader: Option<NodeId>,
        /// The term of the leader after the change.
        leader_epoch: LeaderEpoch,
        /// The version of the state after the change.
        partition_epoch: PartitionEpoch,
    },
    /// A topic was deleted, with its partitions and settings.
    RemoveTopic {
        /// The topic.
        #[serde(with = "uuid_text")]
        id: TopicId,
    },
    /// A setting was stored or, without a value, removed.
    Config {
        /// What it is for.
        resource: ConfigResource,
        /// The setting.
        name: String,
        /// The value.
        value: Option<String>,
    },
    /// Producer ids below `next` belong to brokers now.
    ProducerIds {
        /// The broker that got the last block.
        broker: NodeId,
        /// Its registration.
        broker_epoch: BrokerEpoch,
        /// The first id of the next block.
        next: ProducerId,
    },
}

#[derive(Serialize)]
struct EnvelopeRef<'a> {
    version: u16,
    record: &'a MetadataRecord,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    #[serde(rename = "version")]
    _version: u16,
    record: MetadataRecord,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u16,
}

impl MetadataRecord {
    /// The bytes of this record.
    ///
    /// # Errors
    ///
    /// None that this type can cause; the signature is that of the JSON writer.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&EnvelopeRef { version: RECORD_VERSION, record: self })
            .map_err(|error| Error::malformed("metadata record", error.to_string()))
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// Bytes that are not a record, and records of a version, kind or field that this build does
    /// not know.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let malformed =
            |error: serde_json::Error| Error::malformed("metadata record", error.to_string());
        let VersionOnly { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version == 0 || version > RECORD_VERSION {
            let detail = format!(
                "version {version} is not known; this build of ottla reads up to \
                 {RECORD_VERSION}: start a newer one on this directory"
            );
            return Err(Error::malformed("metadata record", detail));
        }
        serde_json::from_slice::<Envelope>(bytes).map(|envelope| envelope.record).map_err(malformed)
    }
}

/// Whether a topic belongs to the cluster itself.
#[must_use]
pub fn is_internal_topic(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

/// Ids as Kafka's text.
mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::types::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        let text = String::deserialize(from)?;
        Uuid::parse(&text).ok_or_else(|| serde::de::Error::custom("not an id of 22 characters"))
    }
}
