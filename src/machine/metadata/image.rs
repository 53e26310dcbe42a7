//! One moment of the cluster's metadata, immutable.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::{ConfigResource, MetadataRecord, PartitionRecord};
use crate::config::ConfigMap;
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionEpoch, PartitionIndex, ProducerId, TopicId,
    Uuid,
};

/// A feature and the levels that this build can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportedFeature {
    /// The name.
    pub name: &'static str,
    /// The lowest level.
    pub min_level: i16,
    /// The highest level, which a new cluster finalizes.
    pub max_level: i16,
}

/// The feature whose level says whether the controller keeps eligible leader replicas (KIP-966).
pub const ELR_FEATURE: &str = "eligible.leader.replicas.version";

/// The feature whose level is the version of transactions: 1 for records with tagged fields, 2 for an epoch that is raised
/// at the end of each transaction (KIP-890).
pub const TRANSACTION_FEATURE: &str = "transaction.version";

/// The features of this build, by name. The level of `metadata.version` is Apache Kafka's 4.3-IV0: it
/// tells clients which requests they may expect, and those of 4.4 stand for ACLs by address range and
/// for unregistering controllers, which are not here. That of `group.version` says that the consumer
/// protocol (KIP-848) is available.
pub const SUPPORTED_FEATURES: &[SupportedFeature] = &[
    SupportedFeature { name: ELR_FEATURE, min_level: 0, max_level: 1 },
    SupportedFeature { name: "group.version", min_level: 0, max_level: 1 },
    SupportedFeature { name: "metadata.version", min_level: 30, max_level: 30 },
    SupportedFeature { name: TRANSACTION_FEATURE, min_level: 0, max_level: 2 },
];

/// Where a broker can be reached through one listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The listener.
    pub listener: Arc<str>,
    /// The host that clients are told.
    pub host: Arc<str>,
    /// The port that clients are told.
    pub port: u16,
    /// Kafka's number of the security protocol; 0 is plaintext.
    pub security_protocol: i16,
}

impl Endpoint {
    /// `host:port`, as it is connected to.
    #[must_use]
    pub fn address(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerImage {
    /// The broker.
    pub id: NodeId,
    /// The process that registered.
    pub incarnation: Uuid,
    /// Its log directory; zero when an earlier version registered it, which did not say.
    pub directory_id: Uuid,
    /// The number of the registration.
    pub epoch: BrokerEpoch,
    /// Where it can be reached.
    pub endpoints: Vec<Endpoint>,
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Whether it may not lead.
    pub fenced: bool,
    /// Whether it is handing over before it stops.
    pub shutting_down: bool,
}

impl BrokerImage {
    /// The address for one listener.
    #[must_use]
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| &*endpoint.listener == listener)
    }

    /// Whether it may hold new replicas and lead.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.shutting_down
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Those in sync.
    pub isr: Vec<NodeId>,
    /// Replicas that a reassignment takes away.
    pub removing: Vec<NodeId>,
    /// Replicas that a reassignment adds.
    pub adding: Vec<NodeId>,
    /// The eligible leader replicas (KIP-966): they are not in sync any more, but have everything that is committed,
    /// because nothing was since they left.
    pub elr: Vec<NodeId>,
    /// Who led last, while nobody leads, by Kafka's name for it; one at most.
    pub last_known_elr: Vec<NodeId>,
    /// The leader, or [`NodeId::NONE`].
    pub leader: NodeId,
    /// The term of the leader.
    pub leader_epoch: LeaderEpoch,
    /// The version of this state.
    pub partition_epoch: PartitionEpoch,
}

impl PartitionImage {
    /// The replica that should lead when it can.
    #[must_use]
    pub fn preferred_leader(&self) -> NodeId {
        self.replicas.first().copied().unwrap_or(NodeId::NONE)
    }

    /// Whether a reassignment is under way.
    #[must_use]
    pub fn is_reassigning(&self) -> bool {
        !self.removing.is_empty() || !self.adding.is_empty()
    }

    /// How many must be in sync for anything to be committed: `min.insync.replicas`, at most as many as there are.
    #[must_use]
    pub fn min_in_sync(&self, configured: i32) -> usize {
        usize::try_from(configured).unwrap_or(1).min(self.replicas.len())
    }

    /// META-2 of one state.
    pub(super) fn is_consistent(&self) -> bool {
        let is_replica = |node| self.replicas.contains(node);
        !self.replicas.is_empty()
            && self.removing.iter().all(|node| is_replica(node) && !self.adding.contains(node))
            && self.adding.iter().all(is_replica)
            && (self.leader == NodeId::NONE || self.isr.contains(&self.leader))
            && self.isr.iter().all(is_replica)
            && self.elr.iter().all(|node| is_replica(node) && !self.isr.contains(node))
            && self.last_known_elr.iter().all(is_replica)
    }
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    /// The name.
    pub name: Arc<str>,
    /// The id.
    pub id: TopicId,
    /// The partitions; the position is the index.
    pub partitions: Vec<PartitionImage>,
}

impl TopicImage {
    /// One partition.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&PartitionImage> {
        self.partitions.get(index.place()?)
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        PartitionIndex::count(&self.partitions)
    }

    /// The partitions with their indexes.
    pub fn indexed(&self) -> impl Iterator<Item = (PartitionIndex, &PartitionImage)> {
        PartitionIndex::enumerate(&self.partitions)
    }
}

/// One moment of the cluster's metadata. Cloning is cheap: the parts are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataImage {
    /// The position in the metadata log of the last record in this image; -1 when it is empty.
    pub offset: Offset,
    /// The term in which that record was written.
    pub epoch: LeaderEpoch,
    pub(super) cluster_id: Option<Arc<str>>,
    pub(super) features: Arc<BTreeMap<Arc<str>, i16>>,
    pub(super) brokers: Arc<BTreeMap<NodeId, Arc<BrokerImage>>>,
    pub(super) last_broker_epoch: BrokerEpoch,
    pub(super) topics: Arc<BTreeMap<Arc<str>, Arc<TopicImage>>>,
    pub(super) topic_names: Arc<BTreeMap<TopicId, Arc<str>>>,
    pub(super) configs: Arc<BTreeMap<ConfigResource, Arc<ConfigMap>>>,
    pub(super) producer_ids: (NodeId, BrokerEpoch, ProducerId),
    pub(super) no_configs: Arc<ConfigMap>,
}

impl Default for MetadataImage {
    fn default() -> Self {
        Self {
            offset: Offset::UNKNOWN,
            epoch: LeaderEpoch::UNKNOWN,
            cluster_id: None,
            features: Arc::default(),
            brokers: Arc::default(),
            last_broker_epoch: BrokerEpoch::UNKNOWN,
            topics: Arc::default(),
            topic_names: Arc::default(),
            configs: Arc::default(),
            producer_ids: (NodeId::NONE, BrokerEpoch::UNKNOWN, ProducerId(0)),
            no_configs: Arc::default(),
        }
    }
}

impl MetadataImage {
    /// The image before the first record.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The id of the cluster; `None` before the first record.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&Arc<str>> {
        self.cluster_id.as_ref()
    }

    /// A topic by name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    /// A topic by id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_names.get(&id)?)
    }

    /// Every topic, in the order of the names.
    pub fn topics(&self) -> impl DoubleEndedIterator<Item = &Arc<TopicImage>> + ExactSizeIterator {
        self.topics.values()
    }

    /// The topics from `name` on, in the order of the names.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Arc<TopicImage>> {
        let from = std::ops::Bound::Included(name);
        self.topics.range::<str, _>((from, std::ops::Bound::Unbounded)).map(|(_, topic)| topic)
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, topic: &str, index: PartitionIndex) -> Option<&PartitionImage> {
        self.topic(topic)?.partition(index)
    }

    /// A registered broker, fenced or not.
    #[must_use]
    pub fn broker(&self, id: NodeId) -> Option<&Arc<BrokerImage>> {
        self.brokers.get(&id)
    }

    /// Every registered broker, in the order of the ids.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &Arc<BrokerImage>> {
        self.brokers.values()
    }

    /// The highest broker epoch ever given out.
    #[must_use]
    pub fn last_broker_epoch(&self) -> BrokerEpoch {
        self.last_broker_epoch
    }

    /// The level at which a feature is finalized; 0 when it is not.
    #[must_use]
    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// The finalized features, in the order of the names.
    pub fn features(&self) -> impl Iterator<Item = (&Arc<str>, i16)> {
        self.features.iter().map(|(name, &level)| (name, level)).filter(|(_, level)| *level != 0)
    }

    /// Whether a feature was ever given a level; 0 counts, that is how one is turned off.
    #[must_use]
    pub fn has_decided(&self, feature: &str) -> bool {
        self.features.contains_key(feature)
    }

    /// The settings stored for a resource; empty when there are none.
    #[must_use]
    pub fn config(&self, resource: &ConfigResource) -> &Arc<ConfigMap> {
        self.configs.get(resource).unwrap_or(&self.no_configs)
    }

    /// The settings stored for a topic.
    #[must_use]
    pub fn topic_config(&self, topic: &str) -> &Arc<ConfigMap> {
        self.config(&ConfigResource::Topic(topic.into()))
    }

    /// Every resource with stored settings.
    pub fn configs(&self) -> impl ExactSizeIterator<Item = (&ConfigResource, &Arc<ConfigMap>)> {
        self.configs.iter()
    }

    /// The first producer id that does not belong to any broker yet.
    #[must_use]
    pub fn next_producer_id(&self) -> ProducerId {
        self.producer_ids.2
    }

    /// The records that build this image from an empty one (META-1).
    #[must_use]
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        if let Some(id) = &self.cluster_id {
            records.push(MetadataRecord::Cluster { id: id.clone() });
        }
        let feature = |(name, &level): (&Arc<str>, &i16)| MetadataRecord::Feature {
            name: name.clone(),
            level,
        };
        records.extend(self.features.iter().map(feature));
        for broker in self.brokers() {
            broker.write_records(&mut records);
        }
        if self.last_broker_epoch != BrokerEpoch::UNKNOWN {
            records.push(MetadataRecord::BrokerEpochs { last: self.last_broker_epoch });
        }
        for topic in self.topics() {
            topic.write_records(&mut records);
        }
        for (resource, settings) in self.configs() {
            records.extend(settings.iter().map(|(name, value)| MetadataRecord::Config {
                resource: resource.clone(),
                name: name.clone(),
                value: Some(value.clone()),
            }));
        }
        let (broker, broker_epoch, next) = self.producer_ids;
        if next != ProducerId(0) {
            records.push(MetadataRecord::ProducerIds { broker, broker_epoch, next });
        }
        records
    }
}

impl BrokerImage {
    fn write_records(&self, records: &mut Vec<MetadataRecord>) {
        records.push(MetadataRecord::RegisterBroker {
            id: self.id,
            incarnation: self.incarnation,
            directory_id: self.directory_id,
            epoch: self.epoch,
            endpoints: self.endpoints.clone(),
            rack: self.rack.clone(),
            fenced: self.fenced,
        });
        if self.shutting_down {
            records.push(MetadataRecord::ChangeBroker {
                id: self.id,
                epoch: self.epoch,
                fenced: self.fenced,
                shutting_down: true,
            });
        }
    }
}

impl TopicImage {
    fn write_records(&self, records: &mut Vec<MetadataRecord>) {
        records.push(MetadataRecord::Topic { name: self.name.clone(), id: self.id });
        let create = |(index, state)| PartitionRecord::create(self.id, index, state);
        records.extend(self.indexed().map(create));
    }
}
