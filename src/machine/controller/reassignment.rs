//! Moving partitions to other brokers (KIP-455).
//!
//! ```text
//! asked for:   replicas = target + those that leave,   adding, removing
//!                    │ an ISR with the whole target (AlterPartition of the leader)
//!                    v
//! complete:    replicas = target,                      nothing adding or removing
//! ```
//!
//! A reassignment that only reorders or takes away is complete at once. Asking for another target
//! replaces the first: brokers that it was adding and that are not in the new target are dropped. Cancelling returns
//! to the replicas that were there before.

use std::collections::BTreeSet;

use super::change::{Change, Policy};
use super::command::Refusal;
use super::items::Reassignment;
use super::placement::check_replicas;
use super::{Controller, PARTITIONS_PER_COMMAND_MAX};
use crate::error::ErrorCode;
use crate::machine::metadata::{MetadataRecord, PartitionImage};
use crate::types::{NodeId, TopicPartition};

/// The replicas of a partition, and what a reassignment does to them.
pub(super) struct Assignment {
    replicas: Vec<NodeId>,
    removing: Vec<NodeId>,
    adding: Vec<NodeId>,
}

impl Assignment {
    pub(super) fn put(self, state: &mut PartitionImage) {
        state.replicas = self.replicas;
        state.removing = self.removing;
        state.adding = self.adding;
    }
}

/// Those of `nodes` that are not in `others`.
fn without(nodes: &[NodeId], others: &[NodeId]) -> Vec<NodeId> {
    nodes.iter().copied().filter(|node| !others.contains(node)).collect()
}

/// Those of `nodes` that are in `others`.
fn within(nodes: &[NodeId], others: &[NodeId]) -> Vec<NodeId> {
    nodes.iter().copied().filter(|node| others.contains(node)).collect()
}

/// Ends a reassignment whose target is in sync.
pub(super) fn complete(state: &mut PartitionImage) {
    if !state.is_reassigning() {
        return;
    }
    let target = without(&state.replicas, &state.removing);
    if !target.is_empty() && target.iter().all(|node| state.isr.contains(node)) {
        state.isr = without(&state.isr, &state.removing);
        Assignment { replicas: target, removing: Vec::new(), adding: Vec::new() }.put(state);
    }
}

impl Controller {
    pub(super) fn alter_partition_reassignments(
        &self,
        reassignments: &[Reassignment],
        allow_replication_factor_change: bool,
        records: &mut Vec<MetadataRecord>,
    ) -> Vec<Result<(), Refusal>> {
        let policies = self.policies();
        let mut seen = BTreeSet::new();
        let mut alter = |wanted: &Reassignment| {
            let partition = &wanted.partition;
            if seen.len() == PARTITIONS_PER_COMMAND_MAX {
                let text = format!(
                    "one request may move at most {PARTITIONS_PER_COMMAND_MAX} partitions; split \
                     it into several requests"
                );
                return Err(Refusal::new(ErrorCode::PolicyViolation, text));
            }
            if !seen.insert(partition.clone()) {
                let text = format!("{partition} is listed twice in the request");
                return Err(Refusal::new(ErrorCode::InvalidRequest, text));
            }
            let (topic, state) = self.existing(partition)?;
            let policy = policies.of(&topic.name);
            let change = match &wanted.replicas {
                Some(target) => {
                    self.reassign(partition, state, target, allow_replication_factor_change)?
                }
                None => Self::cancel(partition, state, policy)?,
            };
            let after = self.changed(policy, state, change);
            records.extend(Self::record_of(topic, partition.partition, state, &after));
            Ok(())
        };
        reassignments.iter().map(&mut alter).collect()
    }

    fn reassign(
        &self,
        partition: &TopicPartition,
        state: &PartitionImage,
        target: &[NodeId],
        allow_replication_factor_change: bool,
    ) -> Result<Change, Refusal> {
        check_replicas(partition.partition, target, |id| self.known_active(id))?;
        let count = without(&state.replicas, &state.removing).len();
        if !allow_replication_factor_change && target.len() != count {
            let text = format!(
                "the replication factor of {partition} would change from {count} to {}, which the \
                 request does not allow",
                target.len()
            );
            return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, text));
        }
        let origin = without(&state.replicas, &state.adding);
        let removing = without(&origin, target);
        let replicas: Vec<NodeId> = target.iter().chain(&removing).copied().collect();
        let isr = within(&state.isr, &replicas);
        if isr.is_empty() {
            let text = format!(
                "no replica of {partition} that is in sync would stay; wait until another one is \
                 in sync"
            );
            return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, text));
        }
        let assignment = Assignment { adding: without(target, &origin), replicas, removing };
        Ok(Change { isr: Some(isr), assignment: Some(assignment), ..Change::default() })
    }

    fn cancel(
        partition: &TopicPartition,
        state: &PartitionImage,
        policy: Policy,
    ) -> Result<Change, Refusal> {
        if !state.is_reassigning() {
            let text = format!("{partition} is not being reassigned");
            return Err(Refusal::new(ErrorCode::NoReassignmentInProgress, text));
        }
        let replicas = without(&state.replicas, &state.adding);
        let isr = within(&state.isr, &replicas);
        let waits = state.isr.is_empty()
            && state.elr.iter().chain(&state.last_known_elr).any(|node| replicas.contains(node));
        let is_unclean = isr.is_empty() && !waits;
        if is_unclean && !policy.unclean {
            let text = format!(
                "none of the earlier replicas of {partition} is in sync: returning to them takes an \
                 unclean election, which the topic does not allow"
            );
            return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, text));
        }
        let assignment = Assignment { replicas, removing: Vec::new(), adding: Vec::new() };
        let (isr, assignment) = (Some(isr), Some(assignment));
        Ok(Change { isr, assignment, unclean: is_unclean, ..Change::default() })
    }
}
