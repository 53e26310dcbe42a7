//! Leaders and in-sync replicas: what becomes of the partitions when brokers come and go, when leaders report their
//! ISR, and when elections are asked for. What a change of one partition leads to is in [`change`](super::change).

use std::collections::BTreeSet;
use std::time::Duration;

use super::Controller;
use super::change::{Change, Policies, Policy};
use super::command::Refusal;
use super::index::PartitionKey;
use super::items::{Election, IsrChange, IsrState};
use crate::error::ErrorCode;
use crate::machine::metadata::{MetadataRecord, PartitionImage, TopicImage};
use crate::types::{BrokerEpoch, NodeId, TopicId, TopicPartition};

/// How many leaders are moved back at a time, so that one entry of the metadata log stays small.
const BALANCE_MAX: usize = 1000;

/// The longest time between two checks, in seconds; beyond it a sum of times could overflow.
const BALANCE_INTERVAL_MAX: u64 = 1 << 40;

impl Controller {
    /// Visits partitions.
    fn each_partition(
        &self,
        keys: impl IntoIterator<Item = PartitionKey>,
        records: &mut Vec<MetadataRecord>,
        mut decide: impl FnMut(&TopicImage, &PartitionImage, Policy) -> Option<PartitionImage>,
    ) {
        let policies = self.policies();
        let mut last: Option<(TopicId, Policy)> = None;
        for (id, index) in keys {
            let Some(topic) = self.image.topic_by_id(id) else { continue };
            let Some(state) = topic.partition(index) else { continue };
            let policy = match last {
                Some((known, policy)) if known == id => policy,
                _ => policies.of(&topic.name),
            };
            last = Some((id, policy));
            if let Some(after) = decide(topic, state, policy) {
                records.extend(Self::record_of(topic, index, state, &after));
            }
        }
    }

    /// A broker that is active in a new process: it leads what it led before, in a new term, if it has everything that
    /// it had, and whatever waits for it.
    pub(super) fn lead_anew(&self, id: NodeId, left: &Left<'_>, records: &mut Vec<MetadataRecord>) {
        let keys = self.index.in_sync_on(id).chain(self.index.eligible_on(id));
        let keys: BTreeSet<PartitionKey> = keys.chain(self.index.led_by(NodeId::NONE)).collect();
        self.each_partition(keys, records, |topic, state, policy| {
            let mut after = state.clone();
            if left.has_lost(topic, state) {
                after = self.changed(policy, &after, without(id, &after, true));
            }
            if after.leader == id {
                let again = Change { leader: Some(id), comes: Some(id), ..Change::default() };
                after = self.changed(policy, &after, again);
            } else if after.leader == NodeId::NONE {
                after = self.changed(policy, &after, come(id, policy));
            }
            // It is one change, whatever came in between.
            if after.leader_epoch != state.leader_epoch {
                after.leader_epoch = state.leader_epoch.next();
            }
            if after.partition_epoch != state.partition_epoch {
                after.partition_epoch = state.partition_epoch.next();
            }
            Some(after)
        });
    }

    /// A broker became active: it leads the partitions that wait for it.
    pub(super) fn take_leadership(&self, id: NodeId, records: &mut Vec<MetadataRecord>) {
        self.each_partition(self.index.led_by(NodeId::NONE), records, |_, state, policy| {
            Some(self.changed(policy, state, come(id, policy)))
        });
    }

    /// A broker is fenced, stops or leaves: it gives up its leaderships, and its place in every ISR; where eligible
    /// leaders are not kept, in every ISR that has another member. Where nobody can take over, nobody leads.
    pub(super) fn leave_leadership(
        &self,
        id: NodeId,
        left: &Left<'_>,
        records: &mut Vec<MetadataRecord>,
    ) {
        // A leader is in its ISR.
        let mut keys: BTreeSet<PartitionKey> = self.index.in_sync_on(id).collect();
        if !matches!(left, Left::All) {
            keys.extend(self.index.eligible_on(id));
        }
        self.each_partition(keys, records, |topic, state, policy| {
            let change = without(id, state, left.has_lost(topic, state));
            Some(self.changed(policy, state, Change { unclean: policy.unclean, ..change }))
        });
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
        self.each_partition(keys, records, |_, state, policy| {
            let preferred = state.preferred_leader();
            let can_move = state.leader != preferred
                && state.isr.contains(&preferred)
                && self.is_active(preferred)
                && moved < BALANCE_MAX;
            moved += usize::from(can_move);
            let change = Change { leader: Some(preferred), ..Change::default() };
            can_move.then(|| self.changed(policy, state, change))
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
        let policies = self.policies();
        let mut seen = BTreeSet::new();
        let mut alter = |change: &IsrChange| {
            if !seen.insert((change.topic_id, change.partition)) {
                let text = "a partition is listed twice in the request";
                return Err(Refusal::new(ErrorCode::InvalidRequest, text));
            }
            self.alter_one(broker, change, &policies, records)
        };
        Ok(changes.iter().map(&mut alter).collect())
    }

    fn alter_one(
        &self,
        broker: NodeId,
        change: &IsrChange,
        policies: &Policies<'_>,
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
        let after = self.changed(
            policies.of(&topic.name),
            state,
            Change { isr: Some(isr), ..Change::default() },
        );
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
        let (policies, mut results) = (self.policies(), Vec::new());
        for partition in wanted {
            let result = self.elect_one(election, &partition, &policies, records);
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
        policies: &Policies<'_>,
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
                Change { unclean: true, ..Change::default() }
            }
        };
        let after = self.changed(policies.of(&partition.topic), state, change);
        if after.leader == NodeId::NONE {
            let text = format!("no replica of {partition} is alive");
            return refuse(ErrorCode::EligibleLeadersNotAvailable, text);
        }
        records.extend(Self::record_of(topic, partition.partition, state, &after));
        Ok(())
    }
}

/// What a broker has of what it had before it registered anew.
pub(super) enum Left<'a> {
    /// All of it.
    All,
    /// What it had synced, under these policies.
    Synced(Box<Policies<'a>>),
    /// Nothing is known.
    Unknown,
}

impl Left<'_> {
    /// Whether it may lack records of a partition that it had when they were committed.
    fn has_lost(&self, topic: &TopicImage, state: &PartitionImage) -> bool {
        match self {
            Self::All => false,
            Self::Synced(policies) => !policies.of(&topic.name).is_synced(state),
            Self::Unknown => true,
        }
    }
}

fn without(id: NodeId, state: &PartitionImage, has_lost: bool) -> Change {
    let others = state.isr.iter().copied().filter(|one| *one != id).collect();
    Change { isr: Some(others), goes: Some(id), has_lost, ..Change::default() }
}

fn come(id: NodeId, policy: Policy) -> Change {
    Change { comes: Some(id), unclean: policy.unclean, ..Change::default() }
}
