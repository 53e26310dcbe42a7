//! `uniform` when members subscribe to different topics: keep, fill, then level topic by topic.
//!
//! A partition can only go to a subscriber of its topic, so equal counts are often impossible. The
//! result is an assignment that no single move makes more even. Each levelling move lowers the sum
//! of the squared counts by at least two, so it ends.

use std::collections::{BTreeMap, BTreeSet};

use super::{Claims, MemberSpec, Partitions};
use crate::types::{PartitionIndex, TopicId};

pub(super) fn assign(members: &[MemberSpec], topics: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        for topic in member.topics.iter().filter(|topic| topics.contains_key(topic)) {
            subscribers.entry(*topic).or_default().push(index);
        }
    }
    let mut order: Vec<TopicId> = subscribers.keys().copied().collect();
    // Partitions that few members can take come first: the others can make up for them.
    order.sort_by_key(|topic| (subscribers.get(topic).map_or(0, Vec::len), *topic));

    let mut claims = Claims::of(members, topics);
    for topic in &order {
        if let (Some(&count), Some(able)) = (topics.get(topic), subscribers.get(topic)) {
            fill(&mut claims, able, *topic, count);
        }
    }
    loop {
        let mut moved = false;
        for topic in &order {
            if let Some(able) = subscribers.get(topic) {
                moved |= level(&mut claims, members, able, *topic);
            }
        }
        if !moved {
            return claims.kept;
        }
    }
}

/// Members by how many partitions they have.
fn by_count<'a>(
    counts: &[usize],
    members: impl IntoIterator<Item = &'a usize>,
) -> BTreeSet<(usize, usize)> {
    members
        .into_iter()
        .map(|&index| (counts.get(index).copied().unwrap_or(usize::MAX), index))
        .collect()
}

/// Gives each unassigned partition to the subscriber with the fewest.
fn fill(claims: &mut Claims, able: &[usize], topic: TopicId, count: i32) {
    let mut ranked = by_count(&claims.counts, able);
    for partition in PartitionIndex::all(count) {
        if claims.is_taken(topic, partition) {
            continue;
        }
        let Some((had, index)) = ranked.pop_first() else { return };
        ranked.insert((had + 1, index));
        give(claims, index, topic, partition);
    }
}

/// Moves partitions of one topic from those with most to those with fewest, while the two are more
/// than one apart.
fn level(claims: &mut Claims, members: &[MemberSpec], able: &[usize], topic: TopicId) -> bool {
    let mut ranked = by_count(&claims.counts, able);
    let has = |claims: &Claims, index: usize| {
        claims.kept.get(index).is_some_and(|kept| kept.contains_key(&topic))
    };
    let mut givers: BTreeSet<(usize, usize)> =
        ranked.iter().copied().filter(|&(_, index)| has(claims, index)).collect();
    let mut moved = false;
    while let (Some(&(most, from)), Some(&(fewest, to))) = (givers.last(), ranked.first()) {
        if most < fewest + 2 {
            break;
        }
        let Some(partition) = choose(claims, members, (from, to), topic) else { break };
        ranked.remove(&(most, from));
        ranked.remove(&(fewest, to));
        givers.remove(&(most, from));
        givers.remove(&(fewest, to));
        take(claims, from, topic, partition);
        give(claims, to, topic, partition);
        ranked.insert((most - 1, from));
        ranked.insert((fewest + 1, to));
        givers.insert((fewest + 1, to));
        if has(claims, from) {
            givers.insert((most - 1, from));
        }
        moved = true;
    }
    moved
}

/// Which partition to move: one that the receiver had before, failing that one that the giver did
/// not have, failing that its last.
fn choose(
    claims: &Claims,
    members: &[MemberSpec],
    (from, to): (usize, usize),
    topic: TopicId,
) -> Option<PartitionIndex> {
    let kept = claims.kept.get(from)?.get(&topic)?;
    let owned = |index: usize, partition: PartitionIndex| {
        members
            .get(index)
            .and_then(|member| member.owned.get(&topic))
            .is_some_and(|partitions| partitions.contains(&partition))
    };
    kept.iter()
        .rev()
        .copied()
        .find(|&partition| owned(to, partition))
        .or_else(|| kept.iter().rev().copied().find(|&partition| !owned(from, partition)))
        .or_else(|| kept.last().copied())
}

fn give(claims: &mut Claims, index: usize, topic: TopicId, partition: PartitionIndex) {
    if let (Some(kept), Some(count)) = (claims.kept.get_mut(index), claims.counts.get_mut(index)) {
        kept.entry(topic).or_default().insert(partition);
        *count += 1;
    }
}

fn take(claims: &mut Claims, index: usize, topic: TopicId, partition: PartitionIndex) {
    let (Some(kept), Some(count)) = (claims.kept.get_mut(index), claims.counts.get_mut(index))
    else {
        return;
    };
    if let Some(partitions) = kept.get_mut(&topic) {
        if partitions.remove(&partition) {
            *count -= 1;
        }
        if partitions.is_empty() {
            kept.remove(&topic);
        }
    }
}
