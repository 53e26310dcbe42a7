//! Records replayed on an image: what changed, and the next image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::image::{BrokerImage, MetadataImage, TopicImage};
use super::record::{ConfigResource, MetadataRecord, PartitionRecord};
use crate::config::ConfigMap;
use crate::error::{Error, Result};
use crate::types::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerId, TopicId};

/// The changes since an image. Only what changes is copied.
#[derive(Clone, Debug)]
pub struct MetadataDelta {
    base: MetadataImage,
    cluster_id: Option<Arc<str>>,
    features: BTreeMap<Arc<str>, i16>,
    brokers: BTreeMap<NodeId, Option<BrokerImage>>,
    last_broker_epoch: BrokerEpoch,
    topics: BTreeMap<TopicId, TopicImage>,
    created: BTreeMap<Arc<str>, TopicId>,
    deleted: BTreeMap<TopicId, Arc<TopicImage>>,
    partitions: BTreeSet<(TopicId, PartitionIndex)>,
    configs: BTreeMap<ConfigResource, ConfigMap>,
    producer_ids: Option<(NodeId, BrokerEpoch, ProducerId)>,
}

/// One step of the metadata.
#[derive(Clone, Debug)]
pub struct MetadataUpdate {
    /// What changed.
    pub delta: Arc<MetadataDelta>,
    /// The metadata after the change.
    pub image: Arc<MetadataImage>,
}

impl MetadataDelta {
    /// No change yet.
    #[must_use]
    pub fn new(base: MetadataImage) -> Self {
        Self {
            cluster_id: base.cluster_id.clone(),
            last_broker_epoch: base.last_broker_epoch,
            base,
            features: BTreeMap::new(),
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            created: BTreeMap::new(),
            deleted: BTreeMap::new(),
            partitions: BTreeSet::new(),
            configs: BTreeMap::new(),
            producer_ids: None,
        }
    }

    /// What turns `base` into `target`: for an image that arrived as a whole.
    #[must_use]
    pub fn between(base: MetadataImage, target: &MetadataImage) -> Self {
        let mut delta = Self::new(base);
        let base = delta.base.clone();
        delta.cluster_id.clone_from(&target.cluster_id);
        delta.last_broker_epoch = target.last_broker_epoch;
        delta.producer_ids = Some(target.producer_ids);
        // No feature is forgotten: one that is turned off is at level 0.
        let features =
            target.features.iter().filter(|(name, level)| base.features.get(*name) != Some(level));
        delta.features.extend(features.map(|(name, level)| (name.clone(), *level)));
        for broker in target.brokers().filter(|broker| base.broker(broker.id) != Some(broker)) {
            delta.brokers.insert(broker.id, Some(BrokerImage::clone(broker)));
        }
        let gone = base.brokers().filter(|broker| target.broker(broker.id).is_none());
        delta.brokers.extend(gone.map(|broker| (broker.id, None)));
        for topic in target.topics() {
            let before = base.topic_by_id(topic.id);
            if before == Some(topic) {
                continue;
            }
            let changed = topic.indexed().filter(|(index, state)| {
                before.and_then(|before| before.partition(*index)) != Some(state)
            });
            delta.partitions.extend(changed.map(|(index, _)| (topic.id, index)));
            delta.topics.insert(topic.id, TopicImage::clone(topic));
        }
        let gone = base.topics().filter(|topic| target.topic_by_id(topic.id).is_none());
        delta.deleted.extend(gone.map(|topic| (topic.id, topic.clone())));
        for (resource, settings) in target.configs() {
            if base.config(resource) != settings {
                delta.configs.insert(resource.clone(), ConfigMap::clone(settings));
            }
        }
        let gone = base.configs().filter(|(resource, _)| target.config(resource).is_empty());
        delta.configs.extend(gone.map(|(resource, _)| (resource.clone(), ConfigMap::new())));
        delta
    }

    /// The image before the change.
    #[must_use]
    pub fn base(&self) -> &MetadataImage {
        &self.base
    }

    /// Whether nothing that was replayed changes anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cluster_id == self.base.cluster_id
            && self.last_broker_epoch == self.base.last_broker_epoch
            && self.features.is_empty()
            && self.brokers.is_empty()
            && self.topics.is_empty()
            && self.deleted.is_empty()
            && self.configs.is_empty()
            && self.producer_ids.is_none()
    }

    /// The topics that are new or have new or changed partitions, as they are after the change.
    pub fn changed_topics(&self) -> impl Iterator<Item = &TopicImage> {
        self.topics.values()
    }

    /// The partitions that are new or changed.
    #[must_use]
    pub fn changed_partitions(&self) -> &BTreeSet<(TopicId, PartitionIndex)> {
        &self.partitions
    }

    /// The topics that were deleted, as they were before the change.
    #[must_use]
    pub fn deleted_topics(&self) -> &BTreeMap<TopicId, Arc<TopicImage>> {
        &self.deleted
    }

    /// The resources whose settings changed.
    pub fn changed_configs(&self) -> impl Iterator<Item = &ConfigResource> {
        self.configs.keys()
    }

    /// The brokers that registered, changed or left.
    pub fn changed_brokers(&self) -> impl Iterator<Item = NodeId> {
        self.brokers.keys().copied()
    }

    /// Takes one more record.
    ///
    /// # Errors
    ///
    /// A record that does not fit the existing state (META-4); the delta must then be dropped.
    pub fn replay(&mut self, record: &MetadataRecord) -> Result<()> {
        match record {
            MetadataRecord::Cluster { id } => self.replay_cluster(id),
            MetadataRecord::Feature { name, level } => {
                self.features.insert(name.clone(), *level);
                Ok(())
            }
            MetadataRecord::RegisterBroker {
                id,
                incarnation,
                directory_id,
                epoch,
                endpoints,
                rack,
                fenced,
            } => self.replay_registration(BrokerImage {
                id: *id,
                incarnation: *incarnation,
                directory_id: *directory_id,
                epoch: *epoch,
                endpoints: endpoints.clone(),
                rack: rack.clone(),
                fenced: *fenced,
                shutting_down: false,
            }),
            MetadataRecord::ChangeBroker { id, epoch, fenced, shutting_down } => {
                let mut broker = self.registered(*id, *epoch)?;
                broker.fenced = *fenced;
                broker.shutting_down = *shutting_down;
                self.brokers.insert(*id, Some(broker));
                Ok(())
            }
            MetadataRecord::UnregisterBroker { id, epoch } => {
                self.registered(*id, *epoch)?;
                self.brokers.insert(*id, None);
                self.configs.insert(ConfigResource::Broker(*id), ConfigMap::new());
                Ok(())
            }
            MetadataRecord::BrokerEpochs { last } => {
                self.last_broker_epoch = self.last_broker_epoch.max(*last);
                Ok(())
            }
            MetadataRecord::Topic { name, id } => self.replay_topic(name, *id),
            MetadataRecord::Partition(record) => self.replay_partition(record),
            MetadataRecord::ChangePartition(record) => self.replay_partition_change(record),
            MetadataRecord::RemoveTopic { id } => self.replay_removal(*id),
            MetadataRecord::Config { resource, name, value } => {
                self.replay_config(resource, name, value.as_deref());
                Ok(())
            }
            MetadataRecord::ProducerIds { broker, broker_epoch, next } => {
                if *next < self.next_producer_id() {
                    return Err(misfit(format!("producer ids fall to {next}")));
                }
                self.producer_ids = Some((*broker, *broker_epoch, *next));
                Ok(())
            }
        }
    }

    /// The image after the change; `offset` and `epoch` are those of the last record.
    #[must_use]
    pub fn apply(&self, offset: Offset, epoch: LeaderEpoch) -> MetadataImage {
        let mut image = self.base.clone();
        image.offset = offset;
        image.epoch = epoch;
        image.cluster_id.clone_from(&self.cluster_id);
        image.last_broker_epoch = self.last_broker_epoch;
        if let Some(producer_ids) = self.producer_ids {
            image.producer_ids = producer_ids;
        }
        self.apply_topics(&mut image);
        if !self.features.is_empty() {
            let changed = self.features.iter().map(|(name, &level)| (name.clone(), level));
            Arc::make_mut(&mut image.features).extend(changed);
        }
        if !self.brokers.is_empty() {
            let brokers = Arc::make_mut(&mut image.brokers);
            for (&id, broker) in &self.brokers {
                match broker {
                    Some(broker) => drop(brokers.insert(id, Arc::new(broker.clone()))),
                    None => drop(brokers.remove(&id)),
                }
            }
        }
        if !self.configs.is_empty() {
            let configs = Arc::make_mut(&mut image.configs);
            for (resource, settings) in &self.configs {
                if settings.is_empty() {
                    configs.remove(resource);
                } else {
                    configs.insert(resource.clone(), Arc::new(settings.clone()));
                }
            }
        }
        image
    }

    fn apply_topics(&self, image: &mut MetadataImage) {
        if self.topics.is_empty() && self.deleted.is_empty() {
            return;
        }
        let topics = Arc::make_mut(&mut image.topics);
        let names = Arc::make_mut(&mut image.topic_names);
        for (id, topic) in &self.deleted {
            topics.remove(&topic.name);
            names.remove(id);
        }
        for (id, topic) in &self.topics {
            topics.insert(topic.name.clone(), Arc::new(topic.clone()));
            names.insert(*id, topic.name.clone());
        }
    }

    fn next_producer_id(&self) -> ProducerId {
        self.producer_ids.map_or(self.base.producer_ids.2, |(_, _, next)| next)
    }

    fn replay_cluster(&mut self, id: &Arc<str>) -> Result<()> {
        match &self.cluster_id {
            Some(known) if known != id => {
                Err(misfit(format!("the cluster id changes from {known} to {id}")))
            }
            _ => {
                self.cluster_id = Some(id.clone());
                Ok(())
            }
        }
    }

    fn registered(&self, id: NodeId, epoch: BrokerEpoch) -> Result<BrokerImage> {
        let broker = match self.brokers.get(&id) {
            Some(broker) => broker.clone(),
            None => self.base.broker(id).map(|broker| BrokerImage::clone(broker)),
        };
        match broker {
            Some(broker) if broker.epoch == epoch => Ok(broker),
            Some(broker) => Err(misfit(format!(
                "broker {id} is registered with epoch {}, not {epoch}",
                broker.epoch
            ))),
            None => Err(misfit(format!("broker {id} is not registered"))),
        }
    }

    fn replay_registration(&mut self, broker: BrokerImage) -> Result<()> {
        let known = match self.brokers.get(&broker.id) {
            Some(changed) => changed.as_ref().map(|known| known.epoch),
            None => self.base.broker(broker.id).map(|known| known.epoch),
        };
        if known.is_some_and(|known| broker.epoch < known) {
            let text = format!("the epoch of broker {} falls to {}", broker.id, broker.epoch);
            return Err(misfit(text));
        }
        self.last_broker_epoch = self.last_broker_epoch.max(broker.epoch);
        self.brokers.insert(broker.id, Some(broker));
        Ok(())
    }

    fn replay_topic(&mut self, name: &Arc<str>, id: TopicId) -> Result<()> {
        let taken = match self.base.topic(name) {
            Some(topic) => !self.deleted.contains_key(&topic.id),
            None => false,
        } || self.created.contains_key(name);
        if taken {
            return Err(misfit(format!("topic {name} already exists")));
        }
        if self.base.topic_names.contains_key(&id) || self.topics.contains_key(&id) {
            return Err(misfit(format!("topic id {id} is in use already")));
        }
        let topic = TopicImage { name: name.clone(), id, partitions: Vec::new() };
        self.topics.insert(id, topic);
        self.created.insert(name.clone(), id);
        Ok(())
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut TopicImage> {
        if !self.topics.contains_key(&id)
            && !self.deleted.contains_key(&id)
            && let Some(topic) = self.base.topic_by_id(id)
        {
            self.topics.insert(id, TopicImage::clone(topic));
        }
        self.topics.get_mut(&id).ok_or_else(|| misfit(format!("topic id {id} is not known")))
    }

    fn replay_partition(&mut self, record: &PartitionRecord) -> Result<()> {
        let partition = record.partition;
        let topic = self.topic_mut(record.topic_id)?;
        let name = topic.name.clone();
        if PartitionIndex::at(topic.partitions.len()) != partition {
            let text = format!("partition {name}-{partition} does not follow the last one");
            return Err(misfit(text));
        }
        let state = record
            .state()
            .ok_or_else(|| misfit(format!("partition {name}-{partition} lacks a field")))?;
        if !state.is_consistent() {
            return Err(misfit(format!("partition {name}-{partition} contradicts itself")));
        }
        topic.partitions.push(state);
        self.partitions.insert((record.topic_id, partition));
        Ok(())
    }

    fn replay_partition_change(&mut self, record: &PartitionRecord) -> Result<()> {
        let partition = record.partition;
        let topic = self.topic_mut(record.topic_id)?;
        let name = topic.name.clone();
        let known = partition.place().and_then(|place| topic.partitions.get_mut(place));
        let Some(state) = known else {
            return Err(misfit(format!("partition {name}-{partition} is not known")));
        };
        if record.leader_epoch < state.leader_epoch
            || record.partition_epoch <= state.partition_epoch
        {
            return Err(misfit(format!("an epoch of partition {name}-{partition} falls")));
        }
        record.change_state(state);
        if !state.is_consistent() {
            return Err(misfit(format!("partition {name}-{partition} contradicts itself")));
        }
        self.partitions.insert((record.topic_id, partition));
        Ok(())
    }

    fn replay_removal(&mut self, id: TopicId) -> Result<()> {
        let name = self.topic_mut(id)?.name.clone();
        self.topics.remove(&id);
        if self.created.get(&name) == Some(&id) {
            self.created.remove(&name);
        }
        if let Some(topic) = self.base.topic_by_id(id) {
            self.deleted.insert(id, topic.clone());
        }
        self.partitions.retain(|(topic, _)| *topic != id);
        self.configs.insert(ConfigResource::Topic(name), ConfigMap::new());
        Ok(())
    }

    fn replay_config(&mut self, resource: &ConfigResource, name: &str, value: Option<&str>) {
        let settings = self
            .configs
            .entry(resource.clone())
            .or_insert_with(|| ConfigMap::clone(self.base.config(resource)));
        match value {
            Some(value) => drop(settings.insert(name.to_owned(), value.to_owned())),
            None => drop(settings.remove(name)),
        }
    }
}

fn misfit(detail: String) -> Error {
    Error::malformed("metadata record", format!("{detail}; the metadata log is damaged"))
}
