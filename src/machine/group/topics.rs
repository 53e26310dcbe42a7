//! What the coordinator knows about topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::machine::metadata::MetadataImage;
use crate::types::TopicId;

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
    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.racks.len()).unwrap_or(i32::MAX)
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
        for topic in topics.into_iter().map(Arc::new) {
            view.by_id.insert(topic.id, Arc::clone(&topic));
            view.topics.insert(Arc::clone(&topic.name), topic);
        }
        view
    }

    /// The view of a metadata image.
    #[must_use]
    pub fn of(image: &MetadataImage) -> Self {
        Self::new(image.topics().map(|topic| {
            TopicView {
                id: topic.id,
                name: Arc::clone(&topic.name),
                racks: topic
                    .partitions
                    .iter()
                    .map(|partition| {
                        let mut racks: Vec<Arc<str>> = partition
                            .replicas
                            .iter()
                            .filter_map(|&node| image.broker(node)?.rack.clone())
                            .collect();
                        racks.sort();
                        racks.dedup();
                        racks
                    })
                    .collect(),
            }
        }))
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
