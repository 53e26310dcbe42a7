//! The offsets of a shard: those that count, and those that open transactions will make count.
//!
//! Why apart from [`super::offsets`], which takes requests: this changes by records alone, so it is the same after a
//! replay.
//!
//! A transaction may commit an offset that was also committed without one meanwhile. The later record decides, not the
//! later marker: compaction keeps the later record of a key, and a replay must not depend on it. So every offset
//! remembers its place among the records that were applied, which is the order of the log, before and after a restart
//! and with or without compaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::record::{GroupRecord, OffsetKey, OffsetValue};
#[cfg(any(test, feature = "sim"))]
use crate::machine::transaction::mistakes::{Mistake, is_planted};
use crate::types::{PartitionIndex, ProducerId, TopicId};

/// By topic and partition.
type Topics<V> = BTreeMap<Arc<str>, BTreeMap<PartitionIndex, V>>;

/// Something for each partition of each topic that a group reads; never an empty map below the first.
#[derive(Debug)]
struct ByPartition<V> {
    groups: BTreeMap<Arc<str>, Topics<V>>,
}

impl<V> Default for ByPartition<V> {
    fn default() -> Self {
        Self { groups: BTreeMap::new() }
    }
}

impl<V> ByPartition<V> {
    fn get(&self, group: &str, topic: &str, partition: PartitionIndex) -> Option<&V> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    fn get_mut(&mut self, key: &OffsetKey) -> Option<&mut V> {
        self.groups.get_mut(&key.group)?.get_mut(&key.topic)?.get_mut(&key.partition)
    }

    fn insert(&mut self, key: &OffsetKey, value: V) {
        let topics = match self.groups.get_mut(&key.group) {
            Some(topics) => topics,
            None => self.groups.entry(key.group.clone()).or_default(),
        };
        let partitions = match topics.get_mut(&key.topic) {
            Some(partitions) => partitions,
            None => topics.entry(key.topic.clone()).or_default(),
        };
        partitions.insert(key.partition, value);
    }

    fn remove(&mut self, key: &OffsetKey) -> Option<V> {
        let topics = self.groups.get_mut(&key.group)?;
        let partitions = topics.get_mut(&key.topic)?;
        let removed = partitions.remove(&key.partition);
        if partitions.is_empty() {
            topics.remove(&key.topic);
        }
        if topics.is_empty() {
            self.groups.remove(&key.group);
        }
        removed
    }

    fn of<'a>(&'a self, group: &'a Arc<str>) -> impl Iterator<Item = (OffsetKey, &'a V)> + 'a {
        let key = |topic: &Arc<str>, partition: PartitionIndex| OffsetKey {
            group: group.clone(),
            topic: topic.clone(),
            partition,
        };
        self.groups.get(group).into_iter().flatten().flat_map(move |(topic, partitions)| {
            partitions.iter().map(move |(&partition, value)| (key(topic, partition), value))
        })
    }

    fn iter(&self) -> impl Iterator<Item = (OffsetKey, &V)> {
        self.groups.keys().flat_map(|group| self.of(group))
    }
}

/// An offset, and its place among the records that were applied.
#[derive(Clone, Debug)]
struct Placed {
    value: OffsetValue,
    place: u64,
}

/// The offsets of every group of a shard.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    committed: ByPartition<Placed>,
    /// What each open transaction committed.
    pending: BTreeMap<ProducerId, ByPartition<Placed>>,
    /// Whose open transactions committed an offset; the same as `pending`, by partition.
    open: ByPartition<BTreeSet<ProducerId>>,
    /// How many records were applied.
    applied: u64,
}

impl Offsets {
    /// Takes an offset that counts at once, or a tombstone, which also takes what open transactions committed.
    pub(super) fn apply(&mut self, key: &OffsetKey, value: Option<&OffsetValue>) {
        match value {
            Some(value) => {
                let placed = self.placed(value);
                self.committed.insert(key, placed);
            }
            None => {
                self.committed.remove(key);
                for producer in self.open.remove(key).into_iter().flatten() {
                    self.forget(producer, key);
                }
            }
        }
    }

    /// Takes an offset that counts when the transaction is committed.
    pub(super) fn pend(&mut self, producer: ProducerId, key: &OffsetKey, value: &OffsetValue) {
        let placed = self.placed(value);
        #[cfg(any(test, feature = "sim"))]
        if is_planted(Mistake::ShowsPendingOffsets) {
            return self.committed.insert(key, placed);
        }
        self.pending.entry(producer).or_default().insert(key, placed);
        match self.open.get_mut(key) {
            Some(producers) => {
                producers.insert(producer);
            }
            None => self.open.insert(key, BTreeSet::from([producer])),
        }
    }

    /// The transaction of a producer ends.
    pub(super) fn end(&mut self, producer: ProducerId, committed: bool) {
        let Some(offsets) = self.pending.remove(&producer) else { return };
        for (key, placed) in offsets.iter() {
            if let Some(producers) = self.open.get_mut(&key) {
                producers.remove(&producer);
                if producers.is_empty() {
                    self.open.remove(&key);
                }
            }
            let known = self.committed.get(&key.group, &key.topic, key.partition);
            if committed && known.is_none_or(|known| known.place < placed.place) {
                self.committed.insert(&key, placed.clone());
            }
        }
    }

    fn forget(&mut self, producer: ProducerId, key: &OffsetKey) {
        let Some(offsets) = self.pending.get_mut(&producer) else { return };
        offsets.remove(key);
        if offsets.groups.is_empty() {
            self.pending.remove(&producer);
        }
    }

    fn placed(&mut self, value: &OffsetValue) -> Placed {
        self.applied += 1;
        Placed { value: value.clone(), place: self.applied }
    }

    /// The offset of a partition that counts.
    pub(super) fn get(
        &self,
        group: &str,
        topic: &str,
        partition: PartitionIndex,
    ) -> Option<&OffsetValue> {
        self.committed.get(group, topic, partition).map(|placed| &placed.value)
    }

    /// Whether an open transaction may still change the offset of a partition.
    pub(super) fn is_pending(&self, group: &str, topic: &str, partition: PartitionIndex) -> bool {
        self.open.get(group, topic, partition).is_some()
    }

    /// Whether an open transaction committed an offset of the group.
    pub(super) fn has_pending(&self, group: &str) -> bool {
        self.open.groups.contains_key(group)
    }

    /// The offsets of a group that count.
    pub(super) fn of<'a>(
        &'a self,
        group: &'a Arc<str>,
    ) -> impl Iterator<Item = (OffsetKey, &'a OffsetValue)> + 'a {
        self.committed.of(group).map(|(key, placed)| (key, &placed.value))
    }

    /// What open transactions committed for a group; a partition comes once for each of them.
    pub(super) fn pending_of<'a>(
        &'a self,
        group: &'a Arc<str>,
    ) -> impl Iterator<Item = (OffsetKey, &'a OffsetValue)> + 'a {
        self.open.of(group).flat_map(move |(key, producers)| {
            producers.iter().filter_map(move |producer| {
                let offsets = self.pending.get(producer)?;
                let placed = offsets.get(&key.group, &key.topic, key.partition)?;
                Some((key.clone(), &placed.value))
            })
        })
    }

    /// The topics of a group that have an offset which counts, with the partitions, and the id under which
    /// the last of them was committed.
    pub(super) fn topics(
        &self,
        group: &str,
    ) -> impl Iterator<Item = (&Arc<str>, TopicId, impl Iterator<Item = (PartitionIndex, &OffsetValue)>)>
    {
        self.committed.groups.get(group).into_iter().flatten().map(|(name, partitions)| {
            let id = partitions.values().next_back().map_or(TopicId::ZERO, |at| at.value.topic_id);
            (name, id, partitions.iter().map(|(&partition, placed)| (partition, &placed.value)))
        })
    }

    /// Every group with an offset, also with one that is only pending.
    pub(super) fn groups(&self) -> BTreeSet<Arc<str>> {
        self.committed.groups.keys().chain(self.open.groups.keys()).cloned().collect()
    }

    /// The records that delete every offset of a group: one for each partition.
    pub(super) fn tombstones(&self, group: &Arc<str>, records: &mut Vec<GroupRecord>) {
        let pending = self.open.of(group).map(|(key, _)| key);
        let only_pending =
            pending.filter(|key| self.get(&key.group, &key.topic, key.partition).is_none());
        let keys = self.of(group).map(|(key, _)| key).chain(only_pending);
        records.extend(keys.map(tombstone));
    }

    /// Every offset as a record, pending ones last.
    #[cfg(test)]
    pub(super) fn records(&self) -> Vec<GroupRecord> {
        let committed = self.committed.iter().map(|(key, placed)| GroupRecord::OffsetCommit {
            key,
            value: Some(placed.value.clone()),
        });
        let pending = self.pending.iter().flat_map(|(&producer, offsets)| {
            offsets.iter().map(move |(key, placed)| GroupRecord::PendingOffset {
                producer,
                key,
                value: placed.value.clone(),
            })
        });
        committed.chain(pending).collect()
    }
}

pub(super) fn tombstone(key: OffsetKey) -> GroupRecord {
    GroupRecord::OffsetCommit { key, value: None }
}
