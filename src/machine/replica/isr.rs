//! The in-sync replicas (ISR) of a partition, as its leader knows them: what the controller has committed, and
//! what it was asked for and has not answered yet (KIP-497).
//!
//! The leader asks for one change at a time. Until it knows the outcome, either of the two sets may be the one that
//! the next leader is elected from, so a record counts as committed when the *maximal* one has it: both together.
//!
//! A smaller ISR is taken from the metadata only, where a change of `min.insync.replicas` that was committed before it
//! is in effect, too: otherwise this leader might commit by itself what those that left, and are eligible (KIP-966), do
//! not have. A larger one is taken from the answer as well.
//!
//! ```text
//!              ask                       the controller's answer, or newer metadata
//! committed ─────────> pending ──────────────────────────────────────────────────> committed
//!                       │   ^
//!                       └───┘ refused for a reason that says nothing about the outcome: ask again, or wait for metadata
//! ```

use std::collections::BTreeSet;

use crate::error::ErrorCode;
use crate::machine::metadata::PartitionImage;
use crate::types::{BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch};

/// A member of an ISR that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsrMember {
    /// The broker.
    pub node: NodeId,
    /// The registration in which it fetched; the controller refuses one that restarted meanwhile (KIP-841).
    pub broker_epoch: BrokerEpoch,
}

/// What the leader asks the controller for (`AlterPartition`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrRequest {
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The state that it changes.
    pub partition_epoch: PartitionEpoch,
    /// The ISR that it wants.
    pub isr: Vec<IsrMember>,
}

/// What the controller answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsrAnswer {
    /// The partition's state after the change.
    Committed {
        /// The leader's epoch.
        leader_epoch: LeaderEpoch,
        /// The number of that state.
        partition_epoch: PartitionEpoch,
        /// The ISR.
        isr: Vec<NodeId>,
    },
    /// Why it did not, as far as it is known.
    Refused(ErrorCode),
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Isr {
    committed: BTreeSet<NodeId>,
    partition_epoch: PartitionEpoch,
    pending: Option<IsrRequest>,
}

impl Isr {
    pub(super) fn of(image: &PartitionImage) -> Self {
        Self {
            committed: image.isr.iter().copied().collect(),
            partition_epoch: image.partition_epoch,
            pending: None,
        }
    }

    pub(super) const fn committed(&self) -> &BTreeSet<NodeId> {
        &self.committed
    }

    /// Whether a replica is in the maximal ISR.
    pub(super) fn may_contain(&self, node: NodeId) -> bool {
        let asked = |request: &IsrRequest| request.isr.iter().any(|member| member.node == node);
        self.committed.contains(&node) || self.pending.as_ref().is_some_and(asked)
    }

    /// Takes what the metadata says. An image that is older than an answer of the controller, or as old, says
    /// nothing new.
    pub(super) fn update(&mut self, image: &PartitionImage) {
        if image.partition_epoch > self.partition_epoch {
            *self = Self::of(image);
        }
    }

    /// Asks for another ISR; nothing while an answer is awaited.
    pub(super) fn ask(
        &mut self,
        leader_epoch: LeaderEpoch,
        isr: Vec<IsrMember>,
    ) -> Option<IsrRequest> {
        if self.pending.is_some() {
            return None;
        }
        let request = IsrRequest { leader_epoch, partition_epoch: self.partition_epoch, isr };
        self.pending = Some(request.clone());
        Some(request)
    }

    /// The controller answered a request. Returns the request when it is to be sent once more.
    pub(super) fn answered(
        &mut self,
        request: &IsrRequest,
        answer: IsrAnswer,
    ) -> Option<IsrRequest> {
        if self.pending.as_ref() != Some(request) {
            // Metadata was faster.
            return None;
        }
        match answer {
            IsrAnswer::Committed { leader_epoch, partition_epoch, isr } => {
                let isr: BTreeSet<NodeId> = isr.into_iter().collect();
                if !isr.is_superset(&self.committed) {
                    return None;
                }
                if leader_epoch == request.leader_epoch && partition_epoch >= self.partition_epoch {
                    self.committed = isr;
                    self.partition_epoch = partition_epoch;
                    self.pending = None;
                }
                None
            }
            // The controller says that the partition epoch is right and that nothing was done.
            IsrAnswer::Refused(ErrorCode::OperationNotAttempted | ErrorCode::IneligibleReplica) => {
                self.pending = None;
                None
            }
            // It, or an earlier controller, may have done it. The metadata will tell.
            IsrAnswer::Refused(
                ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId
                | ErrorCode::FencedLeaderEpoch
                | ErrorCode::InvalidUpdateVersion
                | ErrorCode::InvalidRequest
                | ErrorCode::NewLeaderElected,
            ) => None,
            IsrAnswer::Refused(_) => self.pending.clone(),
        }
    }
}
