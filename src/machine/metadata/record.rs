//! The records of the metadata log and their encoding.
//!
//! A record on disk is one line of JSON, so that any tool that prints a log shows it readably:
//! `{"version":1,"record":{"topic":{"name":"orders","id":"…22 characters…"}}}`. The rules that
//! keep it stable:
//!
//! - `RECORD_VERSION` is raised when an existing kind of record changes; a record of a higher
//!   version is refused with both numbers, never guessed at. A record bears the version in which its
//!   kind last changed, or an earlier one that says the same: a partition without eligible leaders is as in version 1.
//! - A kind or a field that is not known is refused too: ignoring what a newer version meant
//!   would make two nodes disagree.
//! - A kind is never renamed or reused. Ids are Kafka's 22-character text.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::image::{Endpoint, PartitionImage};
use crate::error::{Error, Result};
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch, PartitionIndex, ProducerId, TopicId, Uuid,
};

/// The highest version of the encoding, which this build writes and reads: 2 added the directory to the registration, 3
/// the eligible leaders to partitions.
const RECORD_VERSION: u16 = 3;

/// The resource a setting is stored for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigResource {
    /// One topic, by name.
    Topic(Arc<str>),
    /// One broker.
    Broker(NodeId),
    /// Every broker without its own setting.
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
    /// A feature is finalized at a level; level 0 removes it.
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
        /// Its log directory; zero in version 1, which did not say.
        #[serde(with = "uuid_text", default = "unknown_directory")]
        directory_id: Uuid,
        /// The number of this registration; higher than every earlier one.
        epoch: BrokerEpoch,
        /// Where clients can reach it.
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
    /// A broker left permanently.
    UnregisterBroker {
        /// The broker.
        id: NodeId,
        /// Its last registration.
        epoch: BrokerEpoch,
    },
    /// The highest broker epoch so far; only in snapshots, for brokers that left.
    BrokerEpochs {
        /// The highest epoch given out.
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
    /// A partition was created; every field is there.
    Partition(PartitionRecord),
    /// A partition changed; absent fields stay the same.
    ChangePartition(PartitionRecord),
    /// A topic was deleted, with its partitions and settings.
    RemoveTopic {
        /// The topic.
        #[serde(with = "uuid_text")]
        id: TopicId,
    },
    /// A setting was stored or, without a value, removed.
    Config {
        /// The resource it belongs to.
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

/// The state of a partition, or what changes in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionRecord {
    /// The topic.
    #[serde(with = "uuid_text")]
    pub topic_id: TopicId,
    /// The index; for a new partition, the number of partitions that the topic has so far.
    pub partition: PartitionIndex,
    /// The brokers that hold it, the preferred leader first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<NodeId>>,
    /// Those that are in sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isr: Option<Vec<NodeId>>,
    /// Replicas that a reassignment takes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removing: Option<Vec<NodeId>>,
    /// Replicas that a reassignment adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adding: Option<Vec<NodeId>>,
    /// Those outside the ISR that have everything committed (since version 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elr: Option<Vec<NodeId>>,
    /// Who led last (since version 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_elr: Option<Vec<NodeId>>,
    /// The leader, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeId>,
    /// The term of the leader.
    pub leader_epoch: LeaderEpoch,
    /// The version of the partition's state.
    pub partition_epoch: PartitionEpoch,
}

impl PartitionRecord {
    /// The record that creates a partition with this state.
    #[must_use]
    pub fn create(
        topic_id: TopicId,
        partition: PartitionIndex,
        state: &PartitionImage,
    ) -> MetadataRecord {
        let some = |nodes: &Vec<NodeId>| (!nodes.is_empty()).then(|| nodes.clone());
        MetadataRecord::Partition(Self {
            topic_id,
            partition,
            replicas: Some(state.replicas.clone()),
            isr: Some(state.isr.clone()),
            removing: Some(state.removing.clone()),
            adding: Some(state.adding.clone()),
            elr: some(&state.elr),
            last_known_elr: some(&state.last_known_elr),
            leader: Some(state.leader),
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
        })
    }

    /// A change of a partition to the given epochs, with no other change yet.
    #[must_use]
    pub fn change(
        topic_id: TopicId,
        partition: PartitionIndex,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
    ) -> Self {
        Self {
            topic_id,
            partition,
            replicas: None,
            isr: None,
            removing: None,
            adding: None,
            elr: None,
            last_known_elr: None,
            leader: None,
            leader_epoch,
            partition_epoch,
        }
    }

    /// The state that it creates; none when a field is missing.
    pub(super) fn state(&self) -> Option<PartitionImage> {
        Some(PartitionImage {
            replicas: self.replicas.clone()?,
            isr: self.isr.clone()?,
            removing: self.removing.clone()?,
            adding: self.adding.clone()?,
            elr: self.elr.clone().unwrap_or_default(),
            last_known_elr: self.last_known_elr.clone().unwrap_or_default(),
            leader: self.leader?,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
        })
    }

    /// Changes a state.
    pub(super) fn change_state(&self, state: &mut PartitionImage) {
        let set = |target: &mut Vec<NodeId>, value: &Option<Vec<NodeId>>| {
            if let Some(value) = value {
                target.clone_from(value);
            }
        };
        set(&mut state.replicas, &self.replicas);
        set(&mut state.isr, &self.isr);
        set(&mut state.removing, &self.removing);
        set(&mut state.adding, &self.adding);
        set(&mut state.elr, &self.elr);
        set(&mut state.last_known_elr, &self.last_known_elr);
        state.leader = self.leader.unwrap_or(state.leader);
        state.leader_epoch = self.leader_epoch;
        state.partition_epoch = self.partition_epoch;
    }
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
        let version = match self {
            Self::RegisterBroker { .. } => 2,
            Self::Partition(one) | Self::ChangePartition(one)
                if one.elr.is_some() || one.last_known_elr.is_some() =>
            {
                3
            }
            _ => 1,
        };
        serde_json::to_vec(&EnvelopeRef { version, record: self })
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
        if version == 0 {
            return Err(Error::malformed("metadata record", "there is no version 0"));
        }
        if version > RECORD_VERSION {
            let what = "metadata record".to_owned();
            return Err(Error::Newer { what, version: version.into(), known: RECORD_VERSION });
        }
        serde_json::from_slice::<Envelope>(bytes).map(|envelope| envelope.record).map_err(malformed)
    }
}

const fn unknown_directory() -> Uuid {
    Uuid::ZERO
}

/// Whether a topic belongs to the cluster itself.
#[must_use]
pub fn is_internal_topic(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

/// Ids as Kafka's text, for what is written as JSON.
pub(crate) mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::types::Uuid;

    pub(crate) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        let text = String::deserialize(from)?;
        Uuid::parse(&text).ok_or_else(|| serde::de::Error::custom("not an id of 22 characters"))
    }
}
