//! `sticky` and `cooperative-sticky`: balanced, with as few moves as that allows.
//!
//! 1. Members keep what they held, unless two claim the same partition ([`settle`]).
//! 2. Unheld partitions go to the eligible member with the fewest, in a rack of the replicas if
//!    there is one; the partitions with the fewest takers first.
//! 3. Partitions move from members with more to members with less, as long as the difference is
//!    two or more: those given out in step 2 before those that were held.
//!
//! Every move of step 3 lowers the sum of the squares of the counts, so it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::user_data::Held;
use super::{Assignment, MemberSubscription, Members, Topics, in_order};
use crate::types::{PartitionIndex, TopicPartition};

/// Who holds each partition: the claimer of the highest generation, and nobody when two claim it
/// in the same one.
pub(super) fn settle<'a>(
    claims: impl Iterator<Item = (&'a String, Held)>,
) -> BTreeMap<TopicPartition, String> {
    let mut best: BTreeMap<TopicPartition, (i32, Option<&String>)> = BTreeMap::new();
    for (id, (partitions, generation)) in claims {
        let unique: BTreeSet<TopicPartition> = partitions.into_iter().collect();
        for partition in unique {
            let claim = best.entry(partition).or_insert((generation, Some(id)));
            if claim.0 < generation {
                *claim = (generation, Some(id));
            } else if claim.0 == generation && claim.1 != Some(id) {
                claim.1 = None;
            }
        }
    }
    best.into_iter().filter_map(|(partition, (_, id))| Some((partition, id?.clone()))).collect()
}

/// Topics that the same members subscribed to.
struct Class {
    /// Those members, the one with the least first.
    takers: BTreeSet<(usize, usize)>,
}

struct Builder<'a> {
    topics: &'a Topics,
    order: Vec<(&'a String, &'a MemberSubscription)>,
    classes: Vec<Class>,
    class_of: BTreeMap<&'a Arc<str>, usize>,
    /// The classes of each member.
    classes_of: Vec<Vec<usize>>,
    given: Vec<BTreeSet<TopicPartition>>,
}

pub(super) fn assign(
    topics: &Topics,
    members: &Members,
    settled: &BTreeMap<TopicPartition, String>,
) -> Assignment {
    let mut builder = Builder::new(topics, members);
    let held = builder.keep(settled);
    builder.give_free(&held);
    builder.balance(&held);
    builder
        .order
        .iter()
        .zip(builder.given)
        .map(|((id, _), given)| (String::clone(id), given.into_iter().collect()))
        .collect()
}

impl<'a> Builder<'a> {
    fn new(topics: &'a Topics, members: &'a Members) -> Self {
        let order = in_order(members);
        let mut by_takers: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        let mut takers_of: BTreeMap<&Arc<str>, Vec<usize>> = BTreeMap::new();
        for (place, (_, member)) in order.iter().enumerate() {
            let unique: BTreeSet<&Arc<str>> = member.topics.iter().collect();
            for topic in unique {
                takers_of.entry(topic).or_default().push(place);
            }
        }
        let mut builder = Self {
            topics,
            classes: Vec::new(),
            class_of: BTreeMap::new(),
            classes_of: vec![Vec::new(); order.len()],
            given: vec![BTreeSet::new(); order.len()],
            order,
        };
        for topic in topics.keys() {
            let takers = takers_of.remove(topic).unwrap_or_default();
            let next = builder.classes.len();
            let class = *by_takers.entry(takers.clone()).or_insert(next);
            if class == next {
                for &member in &takers {
                    if let Some(classes) = builder.classes_of.get_mut(member) {
                        classes.push(class);
                    }
                }
                let takers = takers.into_iter().map(|member| (0, member)).collect();
                builder.classes.push(Class { takers });
            }
            builder.class_of.insert(topic, class);
        }
        builder
    }

    fn count(&self, member: usize) -> usize {
        self.given.get(member).map_or(0, BTreeSet::len)
    }

    /// Tells the classes of a member that its count changed.
    fn recount(&mut self, member: usize, before: usize) {
        let now = self.count(member);
        for &class in self.classes_of.get(member).into_iter().flatten() {
            if let Some(class) = self.classes.get_mut(class)
                && class.takers.remove(&(before, member))
            {
                class.takers.insert((now, member));
            }
        }
    }

    fn give(&mut self, member: usize, partition: TopicPartition) {
        let before = self.count(member);
        if let Some(given) = self.given.get_mut(member) {
            given.insert(partition);
        }
        self.recount(member, before);
    }

    fn take(&mut self, member: usize, partition: &TopicPartition) {
        let before = self.count(member);
        if let Some(given) = self.given.get_mut(member) {
            given.remove(partition);
        }
        self.recount(member, before);
    }

    /// Lets members keep what they held; returns who held what is kept.
    fn keep(
        &mut self,
        settled: &BTreeMap<TopicPartition, String>,
    ) -> BTreeMap<TopicPartition, usize> {
        let places: BTreeMap<&String, usize> =
            self.order.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();
        let mut held = BTreeMap::new();
        for (partition, id) in settled {
            let exists = self.topics.get(&partition.topic).is_some_and(|partitions| {
                partition.partition.is_below(PartitionIndex::count(partitions))
            });
            let Some(&member) = places.get(id).filter(|_| exists) else { continue };
            let wants =
                self.order.get(member).is_some_and(|(_, it)| it.topics.contains(&partition.topic));
            if wants {
                held.insert(partition.clone(), member);
                self.give(member, partition.clone());
            }
        }
        held
    }

    fn takers(&self, topic: &Arc<str>) -> Option<&BTreeSet<(usize, usize)>> {
        Some(&self.classes.get(*self.class_of.get(topic)?)?.takers)
    }

    /// Gives away what nobody holds.
    fn give_free(&mut self, held: &BTreeMap<TopicPartition, usize>) {
        let mut order: Vec<&Arc<str>> = self.topics.keys().collect();
        order.sort_by_key(|topic| self.takers(topic).map_or(0, BTreeSet::len));
        let mut free: Vec<TopicPartition> = order
            .into_iter()
            .flat_map(|topic| {
                let count = self.topics.get(topic).map_or(0, |it| PartitionIndex::count(it));
                PartitionIndex::all(count).map(|one| TopicPartition::new(Arc::clone(topic), one))
            })
            .filter(|partition| !held.contains_key(partition))
            .collect();
        if self.order.iter().any(|(_, member)| member.rack.is_some()) {
            free.retain(|partition| {
                let near = self.near_taker(partition);
                if let Some(member) = near {
                    self.give(member, partition.clone());
                }
                near.is_none()
            });
        }
        for partition in free {
            let taker = self.takers(&partition.topic).and_then(BTreeSet::first).copied();
            if let Some((_, member)) = taker {
                self.give(member, partition);
            }
        }
    }

    /// The member with the least in a rack of the partition, unless it has its fair share.
    fn near_taker(&self, partition: &TopicPartition) -> Option<usize> {
        let takers = self.takers(&partition.topic)?;
        let class = self.class_of.get(&partition.topic)?;
        let total: usize = self
            .topics
            .iter()
            .filter(|(topic, _)| self.class_of.get(topic) == Some(class))
            .map(|(_, partitions)| partitions.len())
            .sum();
        let share = total.div_ceil(takers.len().max(1));
        takers
            .iter()
            .take_while(|(count, _)| *count < share)
            .map(|(_, member)| *member)
            .find(|&member| self.is_near(member, partition))
    }

    fn is_near(&self, member: usize, partition: &TopicPartition) -> bool {
        let rack = self.order.get(member).and_then(|(_, member)| member.rack.as_ref());
        let racks = partition
            .partition
            .place()
            .and_then(|index| self.topics.get(&partition.topic)?.get(index));
        rack.zip(racks).is_some_and(|(rack, racks)| racks.contains(rack))
    }

    /// Moves partitions until no member has two more than one that could take one of them.
    fn balance(&mut self, held: &BTreeMap<TopicPartition, usize>) {
        let mut rich: BTreeSet<(usize, usize)> =
            (0..self.order.len()).map(|member| (self.count(member), member)).collect();
        // The richest first; a member that cannot give anything is done until it gets something.
        while let Some((count, member)) = rich.pop_last() {
            if count != self.count(member) {
                continue;
            }
            let Some((partition, taker)) = self.best_move(member, held) else { continue };
            self.take(member, &partition);
            self.give(taker, partition);
            // Members that could give to neither of the two before may do so now.
            rich.extend((0..self.order.len()).map(|member| (self.count(member), member)));
        }
    }

    /// What a member with too much gives, and to whom.
    fn best_move(
        &self,
        member: usize,
        held: &BTreeMap<TopicPartition, usize>,
    ) -> Option<(TopicPartition, usize)> {
        let count = self.count(member);
        let mut best: Option<((bool, bool, usize), &TopicPartition, usize)> = None;
        let mut least: BTreeMap<&Arc<str>, Option<(usize, usize)>> = BTreeMap::new();
        for partition in self.given.get(member)? {
            let taker = *least.entry(&partition.topic).or_insert_with(|| {
                let first = self.takers(&partition.topic)?.first().copied();
                first.filter(|(least, _)| count > *least + 1)
            });
            let Some((least, taker)) = taker else { continue };
            let was_held = held.get(partition) == Some(&member);
            let leaves_rack = self.is_near(member, partition) && !self.is_near(taker, partition);
            let cost = (was_held, leaves_rack, least);
            if best.is_none_or(|(known, ..)| cost < known) {
                best = Some((cost, partition, taker));
            }
        }
        best.map(|(_, partition, taker)| (partition.clone(), taker))
    }
}
