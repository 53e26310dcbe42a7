//! What the coordinator knows about topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::machine::metadata::{MetadataDelta, MetadataImage, PartitionImage, TopicImage};
use crate::types::{PartitionIndex, TopicId};

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// The id.
    pub id: TopicId,
    /// The name.
    pub name: Arc<str>,
    /// For each partition the racks of its replicas, sorted, without repeats; the position is
    /// the index of the partition.
    pub racks: Vec<Vec<Arc<str>>>,
}

impl TopicView {
    fn of(topic: &TopicImage, image: &MetadataImage) -> Self {
        let racks = |partition: &PartitionImage| {
            let replicas = partition.replicas.iter();
            let mut racks: Vec<Arc<str>> =
                replicas.filter_map(|&node| image.broker(node)?.rack.clone()).collect();
            racks.sort();
            racks.dedup();
            racks
        };
        Self {
            id: topic.id,
            name: Arc::clone(&topic.name),
            racks: topic.partitions.iter().map(racks).collect(),
        }
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        PartitionIndex::count(&self.racks)
    }
}

/// The topics of the cluster at one moment, immutable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicsView {
    topics: BTreeMap<Arc<str>, Arc<TopicView>>,
    by_id: BTreeMap<TopicId, Arc<TopicView>>,
}

impl TopicsView {
    /// A view of these topics.
    #[must_use]
    pub fn new(topics: impl IntoIterator<Item = TopicView>) -> Self {
        let mut view = Self::default();
        view.insert(topics);
        view
    }

    /// The view of a metadata image.
    #[must_use]
    pub fn of(image: &MetadataImage) -> Self {
        Self::new(image.topics().map(|topic| TopicView::of(topic, image)))
    }

    /// The view after a change that leads to `image`; `None` when it stays as it is.
    #[must_use]
    pub fn after(&self, delta: &MetadataDelta, image: &MetadataImage) -> Option<Self> {
        if delta.changed_brokers().next().is_some() {
            // The racks of any topic may have changed.
            return Some(Self::of(image)).filter(|after| after != self);
        }
        let changed: Vec<TopicView> = delta
            .changed_topics()
            .map(|topic| TopicView::of(topic, image))
            .filter(|topic| self.topic_by_id(topic.id).is_none_or(|before| **before != *topic))
            .collect();
        if changed.is_empty() && delta.deleted_topics().is_empty() {
            return None;
        }
        let mut after = self.clone();
        for (id, topic) in delta.deleted_topics() {
            after.topics.remove(&topic.name);
            after.by_id.remove(id);
        }
        after.insert(changed);
        Some(after)
    }

    fn insert(&mut self, topics: impl IntoIterator<Item = TopicView>) {
        for topic in topics.into_iter().map(Arc::new) {
            self.by_id.insert(topic.id, Arc::clone(&topic));
            self.topics.insert(Arc::clone(&topic.name), topic);
        }
    }

    /// A topic by name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicView>> {
        self.topics.get(name)
    }

    /// A topic by id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicView>> {
        self.by_id.get(&id)
    }

    /// Every topic, in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<TopicView>> {
        self.topics.values()
    }
}
