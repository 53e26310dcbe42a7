//! Where replicas go when they are moved: a plan, made of what is known and without asking anybody.
//!
//! Why: Apache Kafka leaves it to its tools, and so to whoever operates a cluster. Two plans cover what
//! people do: taking everything from a broker, which changes no more than it must, and spreading topics evenly over
//! brokers, for example after one was added.
//!
//! - Replicas of a partition lie in different racks as far as there are enough.
//! - Where several brokers are equally good, the one with fewer replicas is taken, then the lower id: the same question
//!   has the same answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::admin::RegisteredBroker;
use crate::types::{NodeId, TopicPartition};

/// A partition and its replicas, of which the first is the preferred leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The partition.
    pub partition: TopicPartition,
    /// Its replicas.
    pub replicas: Vec<NodeId>,
}

/// What a broker has to do.
#[derive(Clone, Debug, Default)]
struct Load {
    rack: Option<String>,
    /// Whether it may get more.
    is_target: bool,
    /// Replicas of the partitions that are being placed.
    placed: usize,
    /// Preferred leaders among them.
    leads: usize,
    /// Replicas of all partitions of the cluster.
    all: usize,
}

/// The brokers that replicas can be placed on.
#[derive(Clone, Debug)]
pub struct Placement {
    brokers: BTreeMap<NodeId, Load>,
}

impl Placement {
    /// `targets` may get replicas; `all` is what the cluster has now.
    #[must_use]
    pub fn new(brokers: &[RegisteredBroker], targets: &BTreeSet<NodeId>, all: &[Placed]) -> Self {
        let load = |broker: &RegisteredBroker| Load {
            rack: broker.info.rack.clone(),
            is_target: targets.contains(&broker.info.id),
            ..Load::default()
        };
        let brokers = brokers.iter().map(|broker| (broker.info.id, load(broker)));
        let mut brokers: BTreeMap<NodeId, Load> = brokers.collect();
        for id in all.iter().flat_map(|one| &one.replicas) {
            brokers.entry(*id).or_default().all += 1;
        }
        Self { brokers }
    }

    /// Takes partitions from a broker: each of its replicas is replaced by another broker in the same place,
    /// also as the preferred leader. Nothing else changes. A partition with replicas on all brokers that could take
    /// one gets none: it is shorter by one in the plan.
    #[must_use]
    pub fn without(mut self, broker: NodeId, partitions: &[Placed]) -> Vec<Placed> {
        for id in partitions.iter().filter_map(|one| one.replicas.first()) {
            self.load(*id).leads += 1;
        }
        let mut plan = Vec::new();
        for one in partitions {
            let Some(place) = one.replicas.iter().position(|id| *id == broker) else { continue };
            let mut replicas = one.replicas.clone();
            replicas.remove(place);
            if let Some(taker) = self.best(&replicas, place == 0) {
                replicas.insert(place, taker);
                let load = self.load(taker);
                load.placed += 1;
                load.all += 1;
                load.leads += usize::from(place == 0);
            }
            plan.push(Placed { partition: one.partition.clone(), replicas });
        }
        plan
    }

    /// Spreads partitions evenly over the targets, with `factor` replicas each, or as many as they have. Replicas that
    /// are on a target already stay, as far as the spread remains even.
    ///
    /// There must be as many targets as replicas of a partition.
    #[must_use]
    pub fn spread(mut self, partitions: &[Placed], factor: Option<usize>) -> Vec<Placed> {
        let mut plan: Vec<Placed> = partitions.to_vec();
        for one in &mut plan {
            let count = factor.unwrap_or(one.replicas.len());
            one.replicas.retain(|id| self.brokers.get(id).is_some_and(|load| load.is_target));
            one.replicas.truncate(count);
            for id in &one.replicas {
                self.load(*id).placed += 1;
            }
        }
        for (one, before) in plan.iter_mut().zip(partitions) {
            let count = factor.unwrap_or(before.replicas.len());
            while one.replicas.len() < count {
                let Some(id) = self.best(&one.replicas, false) else { break };
                one.replicas.push(id);
                let load = self.load(id);
                load.placed += 1;
                load.all += 1;
            }
        }
        while self.even_replicas(&mut plan) {}
        for id in plan.iter().filter_map(|one| one.replicas.first()) {
            self.load(*id).leads += 1;
        }
        while self.even_leaders(&mut plan) {}
        plan
    }

    fn load(&mut self, id: NodeId) -> &mut Load {
        self.brokers.entry(id).or_default()
    }

    /// How many of these replicas are in the rack of a broker; brokers without one share none.
    fn neighbours(&self, id: NodeId, replicas: &[NodeId]) -> usize {
        let rack_of = |id: &NodeId| self.brokers.get(id).and_then(|load| load.rack.as_deref());
        let Some(rack) = rack_of(&id) else { return 0 };
        replicas.iter().filter(|other| **other != id && rack_of(other) == Some(rack)).count()
    }

    /// The best target that has none of these replicas.
    fn best(&self, replicas: &[NodeId], is_to_lead: bool) -> Option<NodeId> {
        let targets = self.brokers.iter().filter(|(_, load)| load.is_target);
        let free = targets.filter(|(id, _)| !replicas.contains(id));
        let price = |(id, load): &(&NodeId, &Load)| {
            let leads = if is_to_lead { load.leads } else { 0 };
            (self.neighbours(**id, replicas), leads, load.placed, load.all, **id)
        };
        free.min_by_key(price).map(|(id, _)| *id)
    }

    /// Pairs of targets of which the first has at least two more than the second, the greatest difference first.
    fn uneven(&self, of: impl Fn(&Load) -> usize) -> Vec<(NodeId, NodeId)> {
        let targets = self.brokers.iter().filter(|(_, load)| load.is_target);
        let mut loads: Vec<(usize, NodeId)> = targets.map(|(id, load)| (of(load), *id)).collect();
        loads.sort_unstable();
        let mut pairs = Vec::new();
        for &(much, from) in loads.iter().rev() {
            for &(little, to) in loads.iter().filter(|(little, _)| little + 2 <= much) {
                pairs.push((much - little, from, to));
            }
        }
        pairs.sort_by_key(|(difference, ..)| std::cmp::Reverse(*difference));
        pairs.into_iter().map(|(_, from, to)| (from, to)).collect()
    }

    /// Moves one replica from a broker with many to one with few; whether there was one to move.
    fn even_replicas(&mut self, plan: &mut [Placed]) -> bool {
        for (from, to) in self.uneven(|load| load.placed) {
            let can_move = |one: &&mut Placed| {
                let rest: Vec<_> = one.replicas.iter().copied().filter(|id| *id != from).collect();
                rest.len() < one.replicas.len()
                    && !rest.contains(&to)
                    && self.neighbours(to, &rest) <= self.neighbours(from, &rest)
            };
            let Some(one) = plan.iter_mut().find(can_move) else { continue };
            for id in one.replicas.iter_mut().filter(|id| **id == from) {
                *id = to;
            }
            self.load(from).placed -= 1;
            self.load(to).placed += 1;
            return true;
        }
        false
    }

    /// Lets another replica lead one partition; whether there was one where that helps.
    fn even_leaders(&mut self, plan: &mut [Placed]) -> bool {
        for (from, to) in self.uneven(|load| load.leads) {
            let can_swap = |one: &&mut Placed| {
                one.replicas.first() == Some(&from) && one.replicas.contains(&to)
            };
            let Some(one) = plan.iter_mut().find(can_swap) else { continue };
            if let Some(place) = one.replicas.iter().position(|id| *id == to) {
                one.replicas.swap(0, place);
            }
            self.load(from).leads -= 1;
            self.load(to).leads += 1;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::BrokerInfo;

    fn broker(id: i32, rack: Option<&str>) -> RegisteredBroker {
        let rack = rack.map(str::to_owned);
        let info = BrokerInfo { id: NodeId(id), host: "h".to_owned(), port: 1, rack };
        RegisteredBroker { info, fenced: Some(false) }
    }

    fn ids(ids: &[i32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn placed(replicas: &[&[i32]]) -> Vec<Placed> {
        let one = |(index, replicas): (i32, &&[i32])| Placed {
            partition: TopicPartition::new("t", index),
            replicas: ids(replicas),
        };
        (0..).zip(replicas).map(one).collect()
    }

    fn counts(plan: &[Placed], of: impl Fn(&Placed) -> Vec<NodeId>) -> BTreeMap<i32, usize> {
        let mut counts = BTreeMap::new();
        for id in plan.iter().flat_map(of) {
            *counts.entry(id.0).or_default() += 1;
        }
        counts
    }

    #[test]
    fn a_broker_is_replaced_where_it_was_and_nothing_else_moves() {
        let brokers: Vec<_> = (1..=5).map(|id| broker(id, None)).collect();
        let all = placed(&[&[1, 2, 3], &[2, 1, 3], &[2, 3, 4], &[1, 4, 5], &[3, 2, 1]]);
        let targets = ids(&[2, 3, 4, 5]).into_iter().collect();
        let plan = Placement::new(&brokers, &targets, &all).without(NodeId(1), &all);
        let moved: Vec<i32> = plan.iter().map(|one| one.partition.partition.0).collect();
        assert_eq!(moved, [0, 1, 3, 4]);
        for one in &plan {
            let before = &all[one.partition.partition.place().unwrap()].replicas;
            assert_eq!(one.replicas.len(), before.len());
            for (now, then) in one.replicas.iter().zip(before) {
                assert_eq!(now == then, then.0 != 1, "{one:?}");
            }
        }
        // Of the four replicas, the two brokers with the fewest take most.
        let after = counts(&plan, |one| one.replicas.clone());
        assert!(after[&5] >= 2 && after[&4] >= 2, "{after:?}");
    }

    #[test]
    fn a_replica_stays_in_its_rack_if_it_can() {
        let racks = [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "b")];
        let brokers: Vec<_> = racks.iter().map(|&(id, rack)| broker(id, Some(rack))).collect();
        let all = placed(&[&[1, 2, 3], &[3, 2, 1]]);
        let targets = ids(&[2, 3, 4, 5]).into_iter().collect();
        let plan = Placement::new(&brokers, &targets, &all).without(NodeId(1), &all);
        assert_eq!(plan, placed(&[&[4, 2, 3], &[3, 2, 4]]));
    }

    #[test]
    fn without_another_broker_a_partition_gets_shorter() {
        let brokers: Vec<_> = (1..=3).map(|id| broker(id, None)).collect();
        let all = placed(&[&[1, 2, 3], &[1, 2]]);
        let targets = ids(&[2, 3]).into_iter().collect();
        let plan = Placement::new(&brokers, &targets, &all).without(NodeId(1), &all);
        assert_eq!(plan, placed(&[&[2, 3], &[3, 2]]));
    }

    #[test]
    fn a_new_broker_gets_its_share_and_no_more_moves_than_that() {
        let brokers: Vec<_> = (1..=4).map(|id| broker(id, None)).collect();
        let all = placed(&[&[1, 2, 3] as &[i32]; 8]);
        let targets = ids(&[1, 2, 3, 4]).into_iter().collect();
        let plan = Placement::new(&brokers, &targets, &all).spread(&all, None);
        let even = BTreeMap::from([(1, 6), (2, 6), (3, 6), (4, 6)]);
        assert_eq!(counts(&plan, |one| one.replicas.clone()), even);
        let leads = counts(&plan, |one| one.replicas[..1].to_vec());
        assert_eq!(leads, BTreeMap::from([(1, 2), (2, 2), (3, 2), (4, 2)]));
        for one in &plan {
            assert_eq!(one.replicas.iter().collect::<BTreeSet<_>>().len(), 3, "{one:?}");
        }
    }

    #[test]
    fn replicas_come_and_go_with_the_factor() {
        let brokers: Vec<_> = (1..=3).map(|id| broker(id, None)).collect();
        let targets: BTreeSet<NodeId> = ids(&[1, 2, 3]).into_iter().collect();
        let all = placed(&[&[1], &[1], &[1]]);
        let more = Placement::new(&brokers, &targets, &all).spread(&all, Some(3));
        assert!(more.iter().all(|one| one.replicas.len() == 3), "{more:?}");
        let leads = counts(&more, |one| one.replicas[..1].to_vec());
        assert_eq!(leads, BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
        let fewer = Placement::new(&brokers, &targets, &more).spread(&more, Some(1));
        let left = counts(&fewer, |one| one.replicas.clone());
        assert_eq!(left, BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
    }

    #[test]
    fn an_even_spread_does_not_break_racks() {
        let racks = [(1, "a"), (2, "a"), (3, "b"), (4, "b")];
        let brokers: Vec<_> = racks.iter().map(|&(id, rack)| broker(id, Some(rack))).collect();
        let targets = ids(&[1, 2, 3, 4]).into_iter().collect();
        let all = placed(&[&[1, 3] as &[i32]; 6]);
        let plan = Placement::new(&brokers, &targets, &all).spread(&all, None);
        let even = BTreeMap::from([(1, 3), (2, 3), (3, 3), (4, 3)]);
        assert_eq!(counts(&plan, |one| one.replicas.clone()), even);
        for one in &plan {
            let has = |some: [i32; 2]| one.replicas.iter().any(|id| some.contains(&id.0));
            assert!(has([1, 2]) && has([3, 4]), "{one:?}");
        }
    }
}
