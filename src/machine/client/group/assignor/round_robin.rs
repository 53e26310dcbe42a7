//! `roundrobin`: all partitions in order, one to each member in turn.

use std::sync::Arc;

use super::{Assignment, Members, Topics, in_order};
use crate::types::{PartitionIndex, TopicPartition};

pub(super) fn assign(topics: &Topics, members: &Members) -> Assignment {
    let mut assignment: Assignment = members.keys().map(|id| (id.clone(), Vec::new())).collect();
    let order = in_order(members);
    let mut turn = 0;
    for (topic, partitions) in topics {
        for partition in 0..partitions.len() {
            let waits = order.iter().cycle().skip(turn).take(order.len());
            let taker = waits.enumerate().find(|(_, (_, member))| member.topics.contains(topic));
            let Some((passed, (id, _))) = taker else { break };
            turn = (turn + passed + 1) % order.len();
            if let Some(given) = assignment.get_mut(*id) {
                given.push(TopicPartition::new(Arc::clone(topic), PartitionIndex::at(partition)));
            }
        }
    }
    assignment
}
