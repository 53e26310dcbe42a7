//! `range`: each subscriber gets a contiguous stretch of each topic, in a fixed order.

use std::collections::BTreeMap;

use super::{MemberSpec, Partitions};
use crate::types::{PartitionIndex, TopicId};

/// What is left of a topic while it is handed out.
struct Rest {
    next: i32,
    end: i32,
    members: i32,
}

pub(super) fn assign(members: &[MemberSpec], topics: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let mut rests: BTreeMap<TopicId, Rest> = BTreeMap::new();
    for member in members {
        for topic in member.topics.iter() {
            if let Some(&end) = topics.get(topic) {
                rests.entry(*topic).or_insert(Rest { next: 0, end, members: 0 }).members += 1;
            }
        }
    }
    let mut order: Vec<(usize, &MemberSpec)> = members.iter().enumerate().collect();
    order.sort_by_key(|(_, member)| {
        (member.instance_id.is_none(), member.instance_id.as_ref(), &member.id)
    });
    let mut assignment = vec![Partitions::new(); members.len()];
    for (index, member) in order {
        let Some(mine) = assignment.get_mut(index) else { continue };
        for topic in member.topics.iter() {
            let Some(rest) = rests.get_mut(topic) else { continue };
            let end = rest.next + share(rest);
            if rest.next < end {
                mine.insert(*topic, (rest.next..end).map(PartitionIndex).collect());
            }
            rest.next = end;
            rest.members -= 1;
        }
    }
    assignment
}

/// The share of the next remaining subscriber, rounded up: the first ones get the extras.
fn share(rest: &Rest) -> i32 {
    let left = rest.end - rest.next;
    let whole = left.checked_div(rest.members).unwrap_or(0);
    let odd = left.checked_rem(rest.members).unwrap_or(0);
    whole + i32::from(odd > 0)
}
