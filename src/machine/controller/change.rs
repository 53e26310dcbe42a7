//! How one partition changes: its ISR, its eligible leaders (KIP-966), its leader.
//!
//! Every change of a partition goes through [`Change`], which raises the partition epoch once, and the leader epoch when
//! the leader changes or a replica is taken away. A change that brings the last replica of a reassignment in sync ends
//! the reassignment (see `reassignment`).
//!
//! ```text
//!                 left, fewer than min.insync.replicas are in sync       lost records
//!   in the ISR ───────────────────────────────────────────────► ELR ────────────────────► neither
//!       ▲                            is elected                  │  enough are in sync       │
//!       └──────────────────────────── or caught up ──────────────┴───────────────────────────┘
//! ```
//!
//! Nothing is committed while fewer than `min.insync.replicas` are in sync, so whoever leaves then still has everything
//! that is committed, and is as good a leader. Who can lead is looked for in the ISR; when nobody is left in it, in
//! the ELR; when nobody is left in either, it is the last leader, who misses least; then, where the topic allows it,
//! whoever is there. The rules are those of Apache Kafka's `PartitionChangeBuilder`; without the feature
//! `eligible.leader.replicas.version` the last member of an ISR stays in it.

use super::Controller;
use super::reassignment::{self, Assignment};
use crate::config::{BrokerConfig, ConfigMap, Durability, TopicConfig};
use crate::machine::metadata::{
    ConfigResource, ELR_FEATURE, MetadataImage, MetadataRecord, PartitionImage, PartitionRecord,
    TopicImage,
};
use crate::types::{NodeId, PartitionIndex};

/// What becomes of one partition. What is not named stays, as far as the rest allows.
#[derive(Default)]
pub(super) struct Change {
    pub(super) isr: Option<Vec<NodeId>>,
    /// The leader of the next term; without it the term goes on if its leader can.
    pub(super) leader: Option<NodeId>,
    pub(super) assignment: Option<Assignment>,
    /// A broker that is active once this is done.
    pub(super) comes: Option<NodeId>,
    /// A broker that is not active any more once this is done.
    pub(super) goes: Option<NodeId>,
    /// Whether the one that goes has lost records that it had.
    pub(super) has_lost: bool,
    /// Whether anybody may lead when nobody can who has all that is committed.
    pub(super) unclean: bool,
}

/// What the settings of a topic say about its partitions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// `min.insync.replicas`.
    min_in_sync: i32,
    /// `unclean.leader.election.enable`.
    pub(super) unclean: bool,
    /// `durability`.
    durability: Durability,
}

impl Policy {
    fn of(config: &TopicConfig) -> Self {
        Self {
            min_in_sync: config.min_insync_replicas,
            unclean: config.unclean_leader_election_enable,
            durability: config.durability,
        }
    }

    /// Whether a replica has synced whatever it counts for: a loss of power takes nothing from it that is committed.
    /// Under `auto`, followers do not wait for that; only a single copy does.
    pub(super) fn is_synced(self, state: &PartitionImage) -> bool {
        match self.durability {
            Durability::Fsync => true,
            Durability::Os => false,
            Durability::Auto => state.replicas.len() == 1,
        }
    }
}

/// The policies of all topics.
pub(super) struct Policies<'a> {
    image: &'a MetadataImage,
    inherited: BrokerConfig,
    default: Policy,
}

impl<'a> Policies<'a> {
    pub(super) fn new(image: &'a MetadataImage, inherited: BrokerConfig) -> Self {
        // Settings were checked before they were stored.
        let default = TopicConfig::resolve(&ConfigMap::new(), &inherited).map_or(
            Policy { min_in_sync: i32::MAX, unclean: false, durability: Durability::Os },
            |config| Policy::of(&config),
        );
        Self { image, inherited, default }
    }

    pub(super) fn of(&self, topic: &str) -> Policy {
        self.of_settings(self.image.topic_config(topic))
    }

    pub(super) fn of_settings(&self, stored: &ConfigMap) -> Policy {
        if stored.is_empty() {
            return self.default;
        }
        let resolved = TopicConfig::resolve(stored, &self.inherited);
        resolved.map_or(self.default, |config| Policy::of(&config))
    }
}

impl Controller {
    pub(super) fn policies(&self) -> Policies<'_> {
        Policies::new(&self.image, self.inherited())
    }

    /// The policies as they are for a broker that is started with a `durability`.
    pub(super) fn policies_of(&self, broker: NodeId, durability: &str) -> Option<Policies<'_>> {
        let mut fixed = self.config.fixed().clone();
        fixed.insert("durability".to_owned(), durability.to_owned());
        let cluster = self.image.config(&ConfigResource::ClusterDefault);
        let own = self.image.config(&ConfigResource::Broker(broker));
        let config = BrokerConfig::resolve(&fixed).and_then(|all| all.with_dynamic(cluster, own));
        config.ok().map(|config| Policies::new(&self.image, config))
    }

    /// Whether eligible leaders are kept.
    pub(super) fn has_elr(&self) -> bool {
        self.image.feature(ELR_FEATURE) >= 1
    }

    /// The state that a change leads to.
    pub(super) fn changed(
        &self,
        policy: Policy,
        state: &PartitionImage,
        change: Change,
    ) -> PartitionImage {
        let mut after = state.clone();
        let Change { isr, leader, assignment, comes, goes, has_lost, unclean } = change;
        if let Some(isr) = isr {
            after.isr = isr;
        }
        if let Some(assignment) = assignment {
            assignment.put(&mut after);
        }
        reassignment::complete(&mut after);
        self.keep_eligible(policy, state, &mut after, goes.filter(|_| has_lost));
        let can_lead =
            |node: NodeId| Some(node) != goes && (Some(node) == comes || self.is_active(node));
        match leader {
            Some(leader) => after.leader = leader,
            None => elect(state, &mut after, self.has_elr(), unclean, can_lead),
        }
        if self.has_elr() {
            if after.isr.len() >= after.min_in_sync(policy.min_in_sync) {
                // The one that was elected is enough by itself.
                after.elr.clear();
            }
            if after.leader != NodeId::NONE {
                after.last_known_elr.clear();
            } else if after.last_known_elr.is_empty() {
                // Where nobody led before, because the feature is newer than that, whoever was eligible last.
                let eligible = goes.filter(|_| after.isr.is_empty() && after.elr.is_empty());
                let led = Some(state.leader).filter(|node| *node != NodeId::NONE);
                after.last_known_elr.extend(led.or(eligible));
            }
            let replicas = &after.replicas;
            after.last_known_elr.retain(|node| replicas.contains(node));
        } else {
            after.elr.clear();
            after.last_known_elr.clear();
        }
        let mut is_new_term = leader.is_some() || after.leader != state.leader;
        // Whoever was taken away must not be taken for a follower any more.
        is_new_term |= state.replicas.iter().any(|node| !after.replicas.contains(node));
        if is_new_term {
            after.leader_epoch = state.leader_epoch.next();
        }
        if after != *state {
            after.partition_epoch = state.partition_epoch.next();
        }
        after
    }

    /// Decides who outside the new ISR has all that is committed.
    fn keep_eligible(
        &self,
        policy: Policy,
        before: &PartitionImage,
        after: &mut PartitionImage,
        lost: Option<NodeId>,
    ) {
        if !self.has_elr() {
            if after.isr.is_empty() {
                let is_replica = |node: &NodeId| after.replicas.contains(node);
                after.isr = before.isr.iter().copied().filter(is_replica).collect();
            }
            if after.isr.is_empty() {
                after.isr.extend(after.replicas.first());
            }
            return;
        }
        if after.isr.len() >= after.min_in_sync(policy.min_in_sync) {
            after.elr.clear();
            return;
        }
        let mut elr: Vec<NodeId> = Vec::new();
        for &node in before.elr.iter().chain(&before.isr) {
            let is_outside = !after.isr.contains(&node) && !elr.contains(&node);
            if is_outside && Some(node) != lost && after.replicas.contains(&node) {
                elr.push(node);
            }
        }
        after.elr = elr;
    }

    /// The record that turns one state of a partition into the next; none when they are the same.
    pub(super) fn record_of(
        topic: &TopicImage,
        index: PartitionIndex,
        before: &PartitionImage,
        after: &PartitionImage,
    ) -> Option<MetadataRecord> {
        if before == after {
            return None;
        }
        let nodes =
            |before: &Vec<NodeId>, after: &Vec<NodeId>| (before != after).then(|| after.clone());
        let is_new_term = before.leader_epoch != after.leader_epoch;
        let unchanged =
            PartitionRecord::change(topic.id, index, after.leader_epoch, after.partition_epoch);
        Some(MetadataRecord::ChangePartition(PartitionRecord {
            replicas: nodes(&before.replicas, &after.replicas),
            isr: nodes(&before.isr, &after.isr),
            removing: nodes(&before.removing, &after.removing),
            adding: nodes(&before.adding, &after.adding),
            elr: nodes(&before.elr, &after.elr),
            last_known_elr: nodes(&before.last_known_elr, &after.last_known_elr),
            leader: is_new_term.then_some(after.leader),
            ..unchanged
        }))
    }
}

/// Leaves the leader, if it can lead on, or finds another.
fn elect(
    before: &PartitionImage,
    after: &mut PartitionImage,
    has_elr: bool,
    unclean: bool,
    can_lead: impl Fn(NodeId) -> bool,
) {
    let has_all = |node: NodeId| {
        after.isr.contains(&node) || after.isr.is_empty() && after.elr.contains(&node)
    };
    let current = Some(before.leader).filter(|node| *node != NodeId::NONE);
    let mut candidates = current.into_iter().chain(after.replicas.iter().copied());
    if let Some(leader) = candidates.find(|node| has_all(*node) && can_lead(*node)) {
        after.leader = leader;
        if !after.isr.contains(&leader) {
            after.isr = vec![leader];
            after.elr.retain(|node| *node != leader);
        }
        return;
    }
    let last = match before.last_known_elr[..] {
        [last] if has_elr && after.isr.is_empty() && after.elr.is_empty() => Some(last),
        _ => None,
    };
    let last = last.filter(|node| after.replicas.contains(node) && can_lead(*node));
    let anybody = || after.replicas.iter().copied().find(|node| unclean && can_lead(*node));
    match last.or_else(anybody) {
        Some(leader) => {
            // What only others have is lost.
            after.leader = leader;
            after.isr = vec![leader];
            after.elr.clear();
        }
        None => after.leader = NodeId::NONE,
    }
}
