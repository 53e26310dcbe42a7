//! `range`: each member gets a run of neighbouring partitions of each topic, so that partitions
//! with the same number, in topics with equal counts, end up with one member.
//!
//! With racks (KIP-881), partitions go first to members in a rack of one of their replicas, as far
//! as the balance of the topic allows; topics with the same members and counts are treated
//! together, so that they still line up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Assignment, Members, Topics, in_order};
use crate::types::{PartitionIndex, TopicPartition};

/// How far one topic is assigned.
struct State<'a> {
    topic: &'a Arc<str>,
    racks: &'a [BTreeSet<String>],
    /// The members that subscribed to it, in order, with their racks.
    members: Vec<(&'a String, Option<&'a str>)>,
    /// What has not been given out yet.
    free: BTreeSet<usize>,
    /// How many each member has been given.
    given: Vec<usize>,
    /// The minimum for each member.
    share: usize,
    /// How many members may still get one more.
    extra: usize,
    wants_racks: bool,
}

impl<'a> State<'a> {
    fn new(
        topic: &'a Arc<str>,
        racks: &'a [BTreeSet<String>],
        order: &[(&'a String, &'a super::MemberSubscription)],
    ) -> Self {
        let members: Vec<(&String, Option<&str>)> = order
            .iter()
            .filter(|(_, member)| member.topics.contains(topic))
            .map(|(id, member)| (*id, member.rack.as_deref().filter(|rack| !rack.is_empty())))
            .collect();
        let all: BTreeSet<&str> = racks.iter().flatten().map(String::as_str).collect();
        let is_shared = members.iter().filter_map(|(_, rack)| *rack).any(|rack| all.contains(rack));
        let is_uneven = racks.iter().any(|racks| racks.len() != all.len());
        let count = members.len().max(1);
        Self {
            topic,
            racks,
            free: (0..racks.len()).collect(),
            given: vec![0; members.len()],
            share: racks.len() / count,
            extra: racks.len() % count,
            wants_racks: is_shared && is_uneven,
            members,
        }
    }

    /// How many more a member may be given.
    fn room(&self, member: usize) -> usize {
        let given = self.given.get(member).copied().unwrap_or(0);
        (self.share + usize::from(self.extra > 0)).saturating_sub(given)
    }

    fn is_near(&self, member: usize, partition: usize) -> bool {
        let rack = self.members.get(member).and_then(|(_, rack)| *rack);
        let racks = self.racks.get(partition);
        rack.is_none_or(|rack| racks.is_some_and(|racks| racks.contains(rack)))
    }

    fn give(&mut self, member: usize, partitions: &[usize], assignment: &mut Assignment) {
        let (Some((id, _)), Some(given)) = (self.members.get(member), self.given.get_mut(member))
        else {
            return;
        };
        *given += partitions.len();
        if *given > self.share {
            self.extra = self.extra.saturating_sub(1);
        }
        for partition in partitions {
            self.free.remove(partition);
            if let Some(all) = assignment.get_mut(*id) {
                all.push(TopicPartition::new(
                    Arc::clone(self.topic),
                    PartitionIndex::at(*partition),
                ));
            }
        }
    }

    /// Gives each member its run of what is free; with `near_only`, only what is in its rack.
    fn give_ranges(&mut self, near_only: bool, assignment: &mut Assignment) {
        for member in 0..self.members.len() {
            let run: Vec<usize> = self
                .free
                .iter()
                .copied()
                .filter(|&partition| !near_only || self.is_near(member, partition))
                .take(self.room(member))
                .collect();
            if !run.is_empty() {
                self.give(member, &run, assignment);
            }
        }
    }
}

pub(super) fn assign(topics: &Topics, members: &Members) -> Assignment {
    let mut assignment: Assignment = members.keys().map(|id| (id.clone(), Vec::new())).collect();
    let order = in_order(members);
    let mut states: Vec<State<'_>> =
        topics.iter().map(|(topic, racks)| State::new(topic, racks, &order)).collect();
    if states.iter().any(|state| state.wants_racks) {
        give_near(&mut states, &mut assignment);
    }
    for state in &mut states {
        state.give_ranges(false, &mut assignment);
    }
    for partitions in assignment.values_mut() {
        partitions.sort();
    }
    assignment
}

/// Gives what can be given within racks: topics that meet (same members, same count) in step.
fn give_near(states: &mut [State<'_>], assignment: &mut Assignment) {
    let mut meeting: BTreeMap<(Vec<&String>, usize), Vec<usize>> = BTreeMap::new();
    for (place, state) in states.iter().enumerate() {
        let ids = state.members.iter().map(|(id, _)| *id).collect();
        meeting.entry((ids, state.racks.len())).or_default().push(place);
    }
    let groups: Vec<(usize, Vec<usize>)> =
        meeting.into_iter().map(|((_, count), places)| (count, places)).collect();
    for (count, places) in groups {
        if let [only] = places[..] {
            if let Some(state) = states.get_mut(only).filter(|state| state.wants_racks) {
                state.give_ranges(true, assignment);
            }
            continue;
        }
        for partition in 0..count {
            let group = || places.iter().filter_map(|&place| states.get(place));
            let member_count = group().next().map_or(0, |state| state.members.len());
            let near = (0..member_count).find(|&member| {
                group().all(|state| state.is_near(member, partition) && state.room(member) > 0)
            });
            let Some(member) = near else { continue };
            for &place in &places {
                if let Some(state) = states.get_mut(place) {
                    state.give(member, &[partition], assignment);
                }
            }
        }
    }
}
