//! Where the replicas of new partitions go.
//!
//! Brokers are grouped by rack. For each partition the racks are visited in a ring that begins one
//! further on every time, and each visit takes the next broker of that rack: replicas of a
//! partition lie in different racks while there are enough, leaders rotate through the racks,
//! and every broker of a rack gets its turn. Brokers that are fenced or stopping come last: they
//! get a replica only when there is no other broker, and never the leadership.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::command::Refusal;
use super::random::Draw;
use crate::error::ErrorCode;
use crate::machine::metadata::BrokerImage;
use crate::types::{NodeId, PartitionIndex};

/// Places `partitions` partitions with `replicas` replicas each, starting anywhere.
///
/// # Errors
///
/// `INVALID_REPLICATION_FACTOR` when there are not enough brokers.
pub(super) fn place<'a>(
    brokers: impl Iterator<Item = &'a Arc<BrokerImage>>,
    partitions: usize,
    replicas: usize,
    draw: &mut Draw,
) -> Result<Vec<Vec<NodeId>>, Refusal> {
    let refuse = |why: String| {
        let text = format!("unable to replicate the partition {replicas} time(s): {why}");
        Err(Refusal::new(ErrorCode::InvalidReplicationFactor, text))
    };
    let mut racks: BTreeMap<Option<Arc<str>>, Vec<&BrokerImage>> = BTreeMap::new();
    let mut registered = 0;
    let mut active = false;
    for broker in brokers {
        registered += 1;
        active |= broker.is_active();
        racks.entry(broker.rack.clone()).or_default().push(broker);
    }
    if replicas > registered {
        return refuse(format!(
            "the replication factor of {replicas} cannot be reached because only {registered} \
             broker(s) are registered"
        ));
    }
    if !active {
        return refuse("all brokers are fenced or in controlled shutdown".to_owned());
    }
    let racks: Vec<Vec<&BrokerImage>> = racks.into_values().collect();
    let rack_start = draw.below(racks.len());
    let broker_start = draw.below(registered);
    let rows = (0..partitions).map(|partition| {
        let ring = Ring { racks: &racks, rack: rack_start + partition, turn: broker_start };
        ring.row(partition, replicas)
    });
    Ok(rows.collect())
}

struct Ring<'a> {
    racks: &'a [Vec<&'a BrokerImage>],
    rack: usize,
    turn: usize,
}

impl Ring<'_> {
    /// The replicas of one partition.
    fn row(&self, partition: usize, replicas: usize) -> Vec<NodeId> {
        // Which time round the racks this is: the brokers of a rack take turns by it.
        let lap = self.turn + partition / self.racks.len().max(1);
        let depth = self.racks.iter().map(Vec::len).max().unwrap_or(0);
        let mut first = Vec::new();
        let mut last = Vec::new();
        for level in 0..depth {
            for step in 0..self.racks.len() {
                let rack = self.racks.get((self.rack + step) % self.racks.len());
                let Some(rack) = rack.filter(|rack| level < rack.len()) else { continue };
                let Some(broker) = rack.get((lap + level) % rack.len()) else { continue };
                if broker.is_active() { &mut first } else { &mut last }.push(broker.id);
            }
        }
        first.extend(last);
        first.truncate(replicas);
        first
    }
}

/// Checks the replicas of a new partition that a caller placed by hand.
///
/// # Errors
///
/// `INVALID_REPLICA_ASSIGNMENT`.
pub(super) fn check_assignment(
    partition: PartitionIndex,
    replicas: &[NodeId],
    expected: Option<usize>,
    broker: impl Fn(NodeId) -> Option<bool>,
) -> Result<(), Refusal> {
    check_replicas(partition, replicas, &broker)?;
    if let Some(expected) = expected
        && expected != replicas.len()
    {
        let count = replicas.len();
        let why = format!("has {count} replica(s), but other partitions have {expected}");
        return Err(misplaced(partition, &why));
    }
    if replicas.iter().all(|replica| broker(*replica) != Some(true)) {
        let why = "names only brokers that are fenced or in controlled shutdown";
        return Err(misplaced(partition, why));
    }
    Ok(())
}

/// Checks that replicas placed by hand are registered brokers, each once.
///
/// # Errors
///
/// `INVALID_REPLICA_ASSIGNMENT`.
pub(super) fn check_replicas(
    partition: PartitionIndex,
    replicas: &[NodeId],
    broker: impl Fn(NodeId) -> Option<bool>,
) -> Result<(), Refusal> {
    if replicas.is_empty() {
        return Err(misplaced(partition, "has an empty replica list"));
    }
    for (place, replica) in replicas.iter().enumerate() {
        if replicas.iter().take(place).any(|earlier| earlier == replica) {
            let why = format!("includes broker {replica} more than once");
            return Err(misplaced(partition, &why));
        }
        if broker(*replica).is_none() {
            let why = format!("includes broker {replica}, but no such broker is registered");
            return Err(misplaced(partition, &why));
        }
    }
    Ok(())
}

fn misplaced(partition: PartitionIndex, why: &str) -> Refusal {
    let text = format!("the manual assignment of partition {partition} {why}");
    Refusal::new(ErrorCode::InvalidReplicaAssignment, text)
}
