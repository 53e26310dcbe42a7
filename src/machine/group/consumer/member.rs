//! A member of a consumer group: what it said, and what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::assignor::Partitions;
use crate::machine::group::record::{
    AssignedPartitions, ConsumerMemberValue, CurrentAssignmentValue, TopicPartitions,
};
use crate::types::{PartitionIndex, TopicId};

/// Partitions, each with the epoch in which the member got it.
pub(super) type Owned = BTreeMap<TopicId, BTreeMap<PartitionIndex, i32>>;

/// The epoch of a member that joins.
pub(super) const JOIN_EPOCH: i32 = 0;
/// The epoch of a member that leaves.
pub(super) const LEAVE_EPOCH: i32 = -1;
/// The epoch of a static member that leaves and intends to come back.
pub(super) const LEAVE_FOR_A_WHILE_EPOCH: i32 = -2;

/// How far a member has come on its way to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberState {
    /// It has everything it was to have in its epoch.
    Stable,
    /// It must give up partitions before it may continue.
    UnrevokedPartitions,
    /// It is in the target's epoch, and waits for partitions that others still have.
    UnreleasedPartitions,
    /// A state that a newer version wrote.
    Unknown,
}

impl MemberState {
    /// The number in the log.
    const fn number(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::UnrevokedPartitions => 1,
            Self::UnreleasedPartitions => 2,
            Self::Unknown => 127,
        }
    }

    const fn of(number: i8) -> Self {
        match number {
            0 => Self::Stable,
            1 => Self::UnrevokedPartitions,
            2 => Self::UnreleasedPartitions,
            _ => Self::Unknown,
        }
    }
}

/// What a member has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Current {
    /// The epoch that it is expected to report.
    pub(super) epoch: i32,
    /// The epoch that it may report when the answer that raised it was lost.
    pub(super) previous_epoch: i32,
    pub(super) state: MemberState,
    /// What it may process.
    pub(super) assigned: Owned,
    /// What it must give up; nobody else gets it until it has.
    pub(super) pending_revocation: Owned,
}

impl Default for Current {
    fn default() -> Self {
        Self {
            epoch: JOIN_EPOCH,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: Owned::new(),
            pending_revocation: Owned::new(),
        }
    }
}

impl Current {
    /// Whether nothing is left to do for the target of that epoch.
    pub(super) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    /// Everything that no other member may have.
    pub(super) fn held(&self) -> impl Iterator<Item = (TopicId, PartitionIndex)> + '_ {
        [&self.assigned, &self.pending_revocation].into_iter().flat_map(|owned| {
            owned.iter().flat_map(|(&topic, list)| list.keys().map(move |&index| (topic, index)))
        })
    }

    pub(super) fn from_value(value: &CurrentAssignmentValue) -> Self {
        Self {
            epoch: value.member_epoch,
            previous_epoch: value.previous_member_epoch,
            state: MemberState::of(value.state),
            assigned: owned_from(&value.assigned, value.member_epoch),
            pending_revocation: owned_from(&value.pending_revocation, value.member_epoch),
        }
    }

    pub(super) fn to_value(&self) -> CurrentAssignmentValue {
        CurrentAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state.number(),
            assigned: owned_into(&self.assigned),
            pending_revocation: owned_into(&self.pending_revocation),
        }
    }
}

/// Without assignment epochs, the member's own is the best guess.
fn owned_from(list: &[AssignedPartitions], epoch: i32) -> Owned {
    let mut owned = Owned::new();
    for entry in list.iter().filter(|entry| !entry.partitions.is_empty()) {
        let epochs = entry.assignment_epochs.as_deref().unwrap_or(&[]);
        let partitions = owned.entry(entry.topic_id).or_default();
        for (place, &partition) in entry.partitions.iter().enumerate() {
            partitions.insert(partition, epochs.get(place).copied().unwrap_or(epoch));
        }
    }
    owned
}

fn owned_into(owned: &Owned) -> Vec<AssignedPartitions> {
    owned
        .iter()
        .map(|(&topic_id, list)| AssignedPartitions {
            topic_id,
            partitions: list.keys().copied().collect(),
            assignment_epochs: Some(list.values().copied().collect()),
        })
        .collect()
}

/// Owned partitions as the wire lists them.
pub(super) fn topic_partitions(owned: &Owned) -> Vec<TopicPartitions> {
    owned
        .iter()
        .map(|(&topic_id, list)| TopicPartitions {
            topic_id,
            partitions: list.keys().copied().collect(),
        })
        .collect()
}

/// A target as the log lists it.
pub(super) fn target_into(target: &Partitions) -> Vec<TopicPartitions> {
    target
        .iter()
        .map(|(&topic_id, list)| TopicPartitions {
            topic_id,
            partitions: list.iter().copied().collect(),
        })
        .collect()
}

/// A target read from the log.
pub(super) fn target_from(list: &[TopicPartitions]) -> Partitions {
    let mut target = Partitions::new();
    for entry in list.iter().filter(|entry| !entry.partitions.is_empty()) {
        target.entry(entry.topic_id).or_default().extend(entry.partitions.iter().copied());
    }
    target
}

/// A member of a consumer group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// What it said about itself.
    pub(super) said: ConsumerMemberValue,
    /// What it has.
    pub(super) current: Current,
}

impl Member {
    /// A member that has said nothing yet.
    pub(super) fn new() -> Self {
        Self {
            said: ConsumerMemberValue {
                instance_id: None,
                rack_id: None,
                client_id: "".into(),
                client_host: "".into(),
                subscribed_topic_names: Vec::new(),
                subscribed_topic_regex: None,
                rebalance_timeout_ms: -1,
                server_assignor: None,
                classic: None,
            },
            current: Current::default(),
        }
    }

    pub(super) const fn uses_classic_protocol(&self) -> bool {
        self.said.classic.is_some()
    }

    /// The expression it subscribed with, if there is one.
    pub(super) fn regex(&self) -> Option<&Arc<str>> {
        self.said.subscribed_topic_regex.as_ref().filter(|regex| !regex.is_empty())
    }
}

/// Names sorted and without duplicates, as they are kept and shown.
pub(super) fn sorted_names(names: Vec<Arc<str>>) -> Vec<Arc<str>> {
    let names: BTreeSet<Arc<str>> = names.into_iter().collect();
    names.into_iter().collect()
}

/// Whether the member reports nothing but what it was assigned.
pub(super) fn is_subset(reported: &[TopicPartitions], assigned: &Owned) -> bool {
    reported.iter().all(|topic| {
        assigned.get(&topic.topic_id).is_some_and(|list| {
            topic.partitions.iter().all(|partition| list.contains_key(partition))
        })
    })
}
