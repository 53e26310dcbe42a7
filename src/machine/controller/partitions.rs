//! Leaders and in-sync replicas.
//!
//! Every change of a partition goes through [`Change`], which raises the partition epoch once, and
//! the leader epoch when the leader changes or a replica is taken away. A change that brings the last
//! replica of a reassignment in sync ends the reassignment (see `reassignment`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::Controller;
use super::command::Refusal;
use super::index::PartitionKey;
use super::items::{Election, IsrChange, IsrState};
use super::reassignment::{self, Assignment};
use crate::config::BrokerConfig;
use crate::error::ErrorCode;
use crate::machine::metadata::{MetadataRecord, PartitionImage, PartitionRecord, TopicImage};
use crate::types::{BrokerEpoch, NodeId, TopicPartition};

/// How many leaders are moved back at a time, so that one entry of the metadata log stays small.
const BALANCE_MAX: usize = 1000;

/// The longest time between two checks, in seconds; beyond it a sum of times could overflow.
const BALANCE_INTERVAL_MAX: u64 = 1 << 40;

/// What becomes of one partition. What is not named stays, as far as the rest allows.
#[derive(Default)]
pub(super) struct Change {
    pub(super) isr: Option<Vec<NodeId>>,
    /// The leader of the next term; without it the term goes on, if its leader can.
    pub(super) leader: Option<NodeId>,
    pub(super) assignment: Option<Assignment>,
}

impl Controller {
    /// The state that a change leads to.
    pub(super) fn changed(&self, state: &PartitionImage, change: Change) -> PartitionImage {
        let mut after = state.clone();
        if let Some(isr) = change.isr {
            after.isr = isr;
        }
        if let Some(assignment) = change.assignment {
            assignment.put(&mut after);
        }
        reassignment::complete(&mut after);
        let mut is_new_term = change.leader.is_some();
        after.leader = change.leader.unwrap_or(state.leader);
        let may_stay = after.isr.contains(&after.leader);
        if !may_stay && (!is_new_term || after.leader != NodeId::NONE) {
            let mut candidates = after.replicas.iter().copied();
            let leader = candidates.find(|node| after.isr.contains(node) && self.is_active(*node));
            after.leader = leader.unwrap_or(NodeId::NONE);
        }
        is_new_term |= after.leader != state.leader;
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

    /// The record that turns one state of a partition into the next; none when they are the same.
    pub(super) fn record_of(
        topic: &TopicImage,
        index: i32,
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
            leader: is_new_term.then_some(after.leader),
            ..unchanged
        }))
    }
}

impl Controller {
    /// Visits partitions.
    fn each_partition(
        &self,
        keys: impl Iterator<Item = PartitionKey>,
        records: &mut Vec<MetadataRecord>,
        mut decide: impl FnMut(&TopicImage, &PartitionImage) -> Option<Change>,
    ) {
        for (id, index) in keys {
            let Some(topic) = self.image.topic_by_id(id) else { continue };
            let Some(state) = topic.partition(index) else { continue };
            if let Some(change) = decide(topic, state) {
                records.extend(Self::record_of(topic, index, state, &self.changed(state, change)));
            }
        }
    }

    /// A broker that is active in a new process: it leads what it led before, in a new term,
    /// and whatever waits for it.
    pub(super) fn lead_anew(&self, id: NodeId, records: &mut Vec<MetadataRecord>) {
        let led_or_waiting = self.index.led_by(id).chain(self.index.led_by(NodeId::NONE));
        self.each_partition(led_or_waiting, records, |_, state| {
            state.isr.contains(&id).then_some(Change { leader: Some(id), ..Change::default() })
        });
    }

    /// A broker became active: it leads the partitions that wait for it.
    pub(super) fn take_leadership(&self, id: NodeId, records: &mut Vec<MetadataRecord>) {
        let inherited = self.inherited();
        self.each_partition(self.index.led_by(NodeId::NONE), records, |topic, state| {
            if state.isr.contains(&id) {
                return Some(Change { leader: Some(id), ..Change::default() });
            }
            let may_lead =
                state.replicas.contains(&id) && self.allows_unclean(&topic.name, &inherited);
            may_lead.then(|| unclean(id))
        });
    }

    /// A broker is fenced, stops or leaves: it gives up its leaderships, and its place in every
    /// ISR that has another member. Where nobody can take over, nobody leads.
    pub(super) fn leave_leadership(&self, id: NodeId, records: &mut Vec<MetadataRecord>) {
        let inherited = self.inherited();
        // A leader is in its ISR.
        self.each_partition(self.index.in_sync_on(id), records, |topic, state| {
            self.without(id, topic, state, &inherited)
        });
    }

    fn without(
        &self,
        id: NodeId,
        topic: &TopicImage,
        state: &PartitionImage,
        inherited: &BrokerConfig,
    ) -> Option<Change> {
        let others: Vec<NodeId> = state.isr.iter().copied().filter(|one| *one != id).collect();
        let isr = (!others.is_empty()).then(|| others.clone());
        if state.leader != id {
            return isr.map(|isr| Change { isr: Some(isr), ..Change::default() });
        }
        let can_lead = |node: &NodeId| *node != id && self.is_active(*node);
        let candidates = state.replicas.iter().copied().filter(can_lead);
        if let Some(leader) = candidates.clone().find(|node| others.contains(node)) {
            return Some(Change { isr, leader: Some(leader), ..Change::default() });
        }
        if self.allows_unclean(&topic.name, inherited)
            && let Some(leader) = candidates.clone().next()
        {
            return Some(unclean(leader));
        }
        Some(Change { isr, leader: Some(NodeId::NONE), ..Change::default() })
    }

    pub(super) fn balance_interval(&self) -> Duration {
        Duration::from_secs(self.config.cluster.imbalance_check_seconds.min(BALANCE_INTERVAL_MAX))
    }

    /// From time to time, gives partitions back to their preferred leaders: those who took over when one was gone keep
    /// them otherwise, and brokers that restarted in turn would leave everything to one of them.
    pub(super) fn balance(&mut self, now: Duration, records: &mut Vec<MetadataRecord>) {
        if now < self.next_balance || !self.config.cluster.leader_rebalance_enable {
            return;
        }
        let mut moved = 0;
        let keys =
            self.image.topics().flat_map(|topic| topic.indexed().map(|(i, _)| (topic.id, i)));
        self.each_partition(keys, records, |_, state| {
            let preferred = state.preferred_leader();
            let can_move = state.leader != preferred
                && state.isr.contains(&preferred)
                && self.is_active(preferred)
                && moved < BALANCE_MAX;
            moved += usize::from(can_move);
            can_move.then(|| Change { leader: Some(preferred), ..Change::default() })
        });
        // The rest follows with the next call.
        if moved < BALANCE_MAX {
            self.next_balance = now + self.balance_interval();
        }
    }

    pub(super) fn alter_partition(
        &self,
        broker: NodeId,
        epoch: BrokerEpoch,
        changes: &[IsrChange],
        records: &mut Vec<MetadataRecord>,
    ) -> Result<Vec<Result<IsrState, Refusal>>, Refusal> {
        self.checked_broker(broker, epoch)?;
        let mut seen = BTreeSet::new();
        let mut alter = |change: &IsrChange| {
            if !seen.insert((change.topic_id, change.partition)) {
                let text = "a partition is listed twice in the request";
                return Err(Refusal::new(ErrorCode::InvalidRequest, text));
            }
            self.alter_one(broker, change, records)
        };
        Ok(changes.iter().map(&mut alter).collect())
    }

    fn alter_one(
        &self,
        broker: NodeId,
        change: &IsrChange,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<IsrState, Refusal> {
        let refuse = |code, text: String| Err(Refusal::new(code, text));
        let Some(topic) = self.image.topic_by_id(change.topic_id) else {
            let text = format!("there is no topic with id {}", change.topic_id);
            return refuse(ErrorCode::UnknownTopicId, text);
        };
        let name = format!("{}-{}", topic.name, change.partition);
        let Some(state) = topic.partition(change.partition) else {
            return refuse(ErrorCode::UnknownTopicOrPartition, format!("there is no {name}"));
        };
        if change.leader_epoch > state.leader_epoch
            || change.partition_epoch > state.partition_epoch
        {
            let text = format!("this controller does not know the epochs of {name} yet");
            return refuse(ErrorCode::NotController, text);
        }
        if change.leader_epoch < state.leader_epoch {
            let text = format!("{name} has a newer leader");
            return refuse(ErrorCode::FencedLeaderEpoch, text);
        }
        if state.leader != broker {
            let text = format!("broker {broker} does not lead {name}");
            return refuse(ErrorCode::InvalidRequest, text);
        }
        if change.partition_epoch < state.partition_epoch {
            let text = format!("{name} has changed in the meantime");
            return refuse(ErrorCode::InvalidUpdateVersion, text);
        }
        let isr: Vec<NodeId> = change.isr.iter().map(|(node, _)| *node).collect();
        let twice =
            isr.iter().enumerate().any(|(place, node)| isr.iter().take(place).any(|n| n == node));
        if !isr.contains(&broker) || twice || isr.iter().any(|node| !state.replicas.contains(node))
        {
            let text = format!(
                "the ISR of {name} must be a subset of its replicas that includes its \
                 leader"
            );
            return refuse(ErrorCode::InvalidRequest, text);
        }
        for (node, epoch) in &change.isr {
            let known = self.image.broker(*node);
            let fits = known.is_some_and(|known| {
                known.is_active() && (*epoch == BrokerEpoch::UNKNOWN || *epoch == known.epoch)
            });
            if !fits && *node != broker {
                let text = format!("broker {node} may not join the ISR of {name}");
                return refuse(ErrorCode::IneligibleReplica, text);
            }
        }
        let after = self.changed(state, Change { isr: Some(isr), ..Change::default() });
        records.extend(Self::record_of(topic, change.partition, state, &after));
        if after.leader != state.leader {
            // The change is made all the same: it ended a reassignment that takes this leader away.
            let text = format!("the reassignment of {name} is complete, and it has a new leader");
            return refuse(ErrorCode::NewLeaderElected, text);
        }
        Ok(IsrState {
            leader: after.leader,
            leader_epoch: after.leader_epoch,
            isr: after.isr,
            partition_epoch: after.partition_epoch,
        })
    }

    pub(super) fn elect_leaders(
        &self,
        election: Election,
        partitions: Option<Vec<TopicPartition>>,
        records: &mut Vec<MetadataRecord>,
    ) -> Vec<(TopicPartition, Result<(), Refusal>)> {
        let all = partitions.is_none();
        let mut wanted = partitions.unwrap_or_else(|| self.candidates(election));
        wanted.sort();
        wanted.dedup();
        let mut results = Vec::new();
        for partition in wanted {
            let result = self.elect_one(election, &partition, records);
            let needless = matches!(&result, Err(why) if why.code == ErrorCode::ElectionNotNeeded);
            if !(all && needless) {
                results.push((partition, result));
            }
        }
        results
    }

    /// Every partition for which such an election may find another leader.
    fn candidates(&self, election: Election) -> Vec<TopicPartition> {
        let name =
            |id, index| Some(TopicPartition::new(self.image.topic_by_id(id)?.name.clone(), index));
        match election {
            Election::Unclean => {
                self.index.led_by(NodeId::NONE).filter_map(|(id, index)| name(id, index)).collect()
            }
            Election::Preferred => self
                .image
                .topics()
                .flat_map(|topic| {
                    topic.indexed().map(|(index, _)| TopicPartition::new(topic.name.clone(), index))
                })
                .collect(),
        }
    }

    /// A partition that must exist.
    pub(super) fn existing(
        &self,
        partition: &TopicPartition,
    ) -> Result<(&TopicImage, &PartitionImage), Refusal> {
        let topic = self.image.topic(&partition.topic);
        let found = topic.and_then(|topic| Some((&**topic, topic.partition(partition.partition)?)));
        found.ok_or_else(|| {
            let text = format!("there is no partition {partition}");
            Refusal::new(ErrorCode::UnknownTopicOrPartition, text)
        })
    }

    fn elect_one(
        &self,
        election: Election,
        partition: &TopicPartition,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), Refusal> {
        let refuse = |code, text: String| Err(Refusal::new(code, text));
        let (topic, state) = self.existing(partition)?;
        let change = match election {
            Election::Preferred => {
                let preferred = state.preferred_leader();
                if state.leader == preferred {
                    let text = format!("{partition} is already led by its preferred leader");
                    return refuse(ErrorCode::ElectionNotNeeded, text);
                }
                if !state.isr.contains(&preferred) || !self.is_active(preferred) {
                    let text = format!("broker {preferred} cannot lead {partition} now");
                    return refuse(ErrorCode::PreferredLeaderNotAvailable, text);
                }
                Change { leader: Some(preferred), ..Change::default() }
            }
            Election::Unclean => {
                if state.leader != NodeId::NONE {
                    let text = format!("{partition} has a leader");
                    return refuse(ErrorCode::ElectionNotNeeded, text);
                }
                let active = state.replicas.iter().copied().filter(|node| self.is_active(*node));
                let clean = active.clone().find(|node| state.isr.contains(node));
                match (clean, active.clone().next()) {
                    (Some(leader), _) => Change { leader: Some(leader), ..Change::default() },
                    (None, Some(leader)) => unclean(leader),
                    (None, None) => {
                        let text = format!("no replica of {partition} is alive");
                        return refuse(ErrorCode::EligibleLeadersNotAvailable, text);
                    }
                }
            }
        };
        let after = self.changed(state, change);
        records.extend(Self::record_of(topic, partition.partition, state, &after));
        Ok(())
    }
}

/// An election outside of the ISR: what only others have is lost.
fn unclean(leader: NodeId) -> Change {
    Change { isr: Some(vec![leader]), leader: Some(leader), ..Change::default() }
}
