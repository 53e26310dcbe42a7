//! How many partitions a broker has, which it leads and in which ISRs and ELRs it is, so that nobody visits every partition of the cluster
//! when one broker comes or goes.

use std::collections::{BTreeMap, BTreeSet};

use crate::machine::metadata::{MetadataDelta, MetadataImage, PartitionImage};
use crate::types::{NodeId, PartitionIndex, TopicId};

/// A topic, and the index of a partition.
pub(super) type PartitionKey = (TopicId, PartitionIndex);

/// An index over one image. It equals [`PartitionsByBroker::of`] that image after every change (CTRL-5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionsByBroker {
    /// How many replicas each broker has.
    replicas: BTreeMap<NodeId, usize>,
    /// By leader; those without one are under [`NodeId::NONE`].
    leaders: BTreeMap<NodeId, BTreeSet<PartitionKey>>,
    /// By member of the ISR.
    isrs: BTreeMap<NodeId, BTreeSet<PartitionKey>>,
    /// By member of the ELR.
    elrs: BTreeMap<NodeId, BTreeSet<PartitionKey>>,
}

impl PartitionsByBroker {
    /// The index over an image.
    pub(super) fn of(image: &MetadataImage) -> Self {
        let mut index = Self::default();
        for topic in image.topics() {
            for (partition, state) in topic.indexed() {
                index.insert((topic.id, partition), state);
            }
        }
        index
    }

    /// Follows a change; `after` is the image that it leads to.
    pub(super) fn follow(&mut self, delta: &MetadataDelta, after: &MetadataImage) {
        for (id, topic) in delta.deleted_topics() {
            for (partition, state) in topic.indexed() {
                self.remove((*id, partition), state);
            }
        }
        for &(id, partition) in delta.changed_partitions() {
            let state =
                |image: &MetadataImage| image.topic_by_id(id)?.partition(partition).cloned();
            if let Some(state) = state(delta.base()) {
                self.remove((id, partition), &state);
            }
            if let Some(state) = state(after) {
                self.insert((id, partition), &state);
            }
        }
    }

    /// How many replicas a broker has.
    pub(super) fn replicas_on(&self, broker: NodeId) -> usize {
        self.replicas.get(&broker).copied().unwrap_or(0)
    }

    /// The partitions that a broker leads; those that nobody leads for [`NodeId::NONE`].
    pub(super) fn led_by(&self, broker: NodeId) -> impl Iterator<Item = PartitionKey> {
        self.leaders.get(&broker).into_iter().flatten().copied()
    }

    /// The partitions in whose ISR a broker is.
    pub(super) fn in_sync_on(&self, broker: NodeId) -> impl Iterator<Item = PartitionKey> {
        self.isrs.get(&broker).into_iter().flatten().copied()
    }

    /// The partitions in whose ELR a broker is.
    pub(super) fn eligible_on(&self, broker: NodeId) -> impl Iterator<Item = PartitionKey> {
        self.elrs.get(&broker).into_iter().flatten().copied()
    }

    /// The partitions that have an ELR.
    pub(super) fn with_elr(&self) -> BTreeSet<PartitionKey> {
        self.elrs.values().flatten().copied().collect()
    }

    fn insert(&mut self, key: PartitionKey, state: &PartitionImage) {
        for &node in &state.replicas {
            *self.replicas.entry(node).or_default() += 1;
        }
        self.leaders.entry(state.leader).or_default().insert(key);
        for &node in &state.isr {
            self.isrs.entry(node).or_default().insert(key);
        }
        for &node in &state.elr {
            self.elrs.entry(node).or_default().insert(key);
        }
    }

    fn remove(&mut self, key: PartitionKey, state: &PartitionImage) {
        for &node in &state.replicas {
            if let Some(count) = self.replicas.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    self.replicas.remove(&node);
                }
            }
        }
        remove(&mut self.leaders, state.leader, key);
        for &node in &state.isr {
            remove(&mut self.isrs, node, key);
        }
        for &node in &state.elr {
            remove(&mut self.elrs, node, key);
        }
    }
}

fn remove(index: &mut BTreeMap<NodeId, BTreeSet<PartitionKey>>, broker: NodeId, key: PartitionKey) {
    if let Some(keys) = index.get_mut(&broker) {
        keys.remove(&key);
        if keys.is_empty() {
            index.remove(&broker);
        }
    }
}
