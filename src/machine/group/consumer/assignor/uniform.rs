//! `uniform` when all members subscribe to the same topics: quotas, kept by moving the least.

use std::collections::BTreeMap;

use super::{Claims, MemberSpec, Partitions};
use crate::types::{PartitionIndex, TopicId};

/// Everyone gets the same number, apart from a remainder of one each. The remainder goes first
/// to those who already have it, so that nothing moves unnecessarily.
pub(super) fn assign(members: &[MemberSpec], topics: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let Some(first) = members.first() else { return Vec::new() };
    let counts: Vec<(TopicId, i32)> = first
        .topics
        .iter()
        .filter_map(|topic| topics.get(topic).map(|&count| (*topic, count.max(0))))
        .collect();
    let total: usize = counts.iter().map(|&(_, count)| usize::try_from(count).unwrap_or(0)).sum();

    let mut claims = Claims::of(members, topics);
    let quotas = quotas(&claims.counts, total);
    let mut open = unclaimed(&claims, &counts);
    for ((kept, count), &quota) in claims.kept.iter_mut().zip(&mut claims.counts).zip(&quotas) {
        while *count > quota {
            let Some(released) = release(kept) else { break };
            open.push(released);
            *count -= 1;
        }
    }
    open.sort_unstable_by_key(|&(topic, partition)| (partition, topic));
    deal(&mut claims, &quotas, open);
    claims.kept
}

/// How many each member is to have, given how many it has.
fn quotas(counts: &[usize], total: usize) -> Vec<usize> {
    let least = total.checked_div(counts.len()).unwrap_or(0);
    let extra = total.checked_rem(counts.len()).unwrap_or(0);
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(counts.get(index).copied().unwrap_or(0)));
    let mut quotas = vec![least; counts.len()];
    for index in order.into_iter().take(extra) {
        if let Some(quota) = quotas.get_mut(index) {
            *quota += 1;
        }
    }
    quotas
}

fn unclaimed(claims: &Claims, counts: &[(TopicId, i32)]) -> Vec<(TopicId, PartitionIndex)> {
    let mut open = Vec::new();
    for &(topic, count) in counts {
        open.extend(
            PartitionIndex::all(count)
                .filter(|&index| !claims.is_taken(topic, index))
                .map(|index| (topic, index)),
        );
    }
    open
}

/// Takes the last partition of the topic of which the member has the most.
fn release(kept: &mut Partitions) -> Option<(TopicId, PartitionIndex)> {
    let topic =
        kept.iter().max_by_key(|(_, partitions)| partitions.len()).map(|(topic, _)| *topic)?;
    let partitions = kept.get_mut(&topic)?;
    let partition = partitions.pop_last()?;
    if partitions.is_empty() {
        kept.remove(&topic);
    }
    Some((topic, partition))
}

/// Deals the open partitions out one at a time, so that each topic is spread over the members.
fn deal(claims: &mut Claims, quotas: &[usize], open: Vec<(TopicId, PartitionIndex)>) {
    let mut hungry: Vec<usize> = (0..quotas.len()).collect();
    let mut turn = 0;
    for (topic, partition) in open {
        while let Some(&index) = hungry.get(turn) {
            let quota = quotas.get(index).copied().unwrap_or(0);
            if claims.counts.get(index).is_some_and(|&count| count < quota) {
                break;
            }
            hungry.remove(turn);
            if turn >= hungry.len() {
                turn = 0;
            }
        }
        let Some(&index) = hungry.get(turn) else { return };
        if let (Some(kept), Some(count)) =
            (claims.kept.get_mut(index), claims.counts.get_mut(index))
        {
            kept.entry(topic).or_default().insert(partition);
            *count += 1;
        }
        turn = if turn + 1 < hungry.len() { turn + 1 } else { 0 };
    }
}
