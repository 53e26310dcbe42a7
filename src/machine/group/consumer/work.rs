//! What one event does to one consumer group: records that are applied as they are written.
//!
//! Everything that can be refused is refused before the first record. From then on each step sees
//! the state produced by the records before it, which is what a replay will see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::assignor::{Assignor, MemberSpec, Partitions};
use super::member::{Member, MemberState};
use super::patterns;
use super::reconcile::{Reconciliation, UnknownState};
use super::state::{
    ConsumerGroup, current_record, epoch_record, member_record, pattern_record, target_record,
};
use crate::error::ErrorCode;
use crate::machine::Replicated;
use crate::machine::group::GroupConfig;
use crate::machine::group::record::{
    ConsumerMemberValue, GroupRecord, TargetAssignmentValue, TopicPartitions,
};
use crate::machine::group::reply::{GroupError, GroupReply};
use crate::machine::group::request::RequestId;
use crate::machine::group::shard::{Group, GroupShard};
use crate::machine::group::timers::GroupTimer;
use crate::types::{PartitionIndex, TimestampMs, TopicId};

/// The work on one group.
pub(super) struct Work<'a> {
    pub(super) shard: &'a mut GroupShard,
    pub(super) id: Arc<str>,
    records: Vec<GroupRecord>,
    /// Stands for a group that does not exist yet.
    absent: ConsumerGroup,
}

impl<'a> Work<'a> {
    pub(super) fn new(shard: &'a mut GroupShard, id: &Arc<str>) -> Self {
        let id = shard.groups.get_key_value(id).map_or(id, |(known, _)| known).clone();
        Self { shard, id, records: Vec::new(), absent: ConsumerGroup::default() }
    }

    /// The group; an empty one when it does not exist, or is a classic group.
    pub(super) fn group(&self) -> &ConsumerGroup {
        match self.shard.groups.get(&self.id) {
            Some(Group::Consumer(group)) => group,
            _ => &self.absent,
        }
    }

    fn group_mut(&mut self) -> &mut ConsumerGroup {
        match self.shard.groups.get_mut(&self.id) {
            Some(Group::Consumer(group)) => group,
            _ => &mut self.absent,
        }
    }

    /// A member that must exist.
    pub(super) fn member(&self, id: &str) -> Result<&Member, GroupError> {
        self.group().member(id).ok_or_else(|| {
            let message = format!("group {}: {id:?} is not a member", self.id);
            GroupError::new(ErrorCode::UnknownMemberId, message)
        })
    }

    /// Applies a record and collects it.
    pub(super) fn write(&mut self, record: GroupRecord) {
        match self.shard.apply(&record) {
            Ok(()) => self.records.push(record),
            Err(misfit) => self.shard.context.undo(misfit),
        }
    }

    /// Appends what was written, and answers when it is committed.
    pub(super) fn append(self, reply: Option<(RequestId, GroupReply)>) {
        self.shard.context.append(self.records, reply);
    }

    /// Records what a member now says; returns whether its subscription changed.
    pub(super) fn write_said(&mut self, id: &Arc<str>, said: ConsumerMemberValue) -> bool {
        let before = self.group().member(id).map(|member| &member.said);
        if before == Some(&said) {
            return false;
        }
        let changed = before.map_or(
            !said.subscribed_topic_names.is_empty() || said.subscribed_topic_regex.is_some(),
            |before| {
                before.subscribed_topic_names != said.subscribed_topic_names
                    || before.subscribed_topic_regex != said.subscribed_topic_regex
            },
        );
        self.write(member_record(&Arc::clone(&self.id), id, Some(said)));
        changed
    }

    /// Matches every expression that a member uses, and forgets those that no member uses.
    pub(super) fn refresh_patterns(&mut self) {
        let group = self.group();
        let used: BTreeSet<Arc<str>> =
            group.members().filter_map(|(_, member)| member.regex().cloned()).collect();
        let unused: Vec<Arc<str>> =
            group.patterns().filter(|regex| !used.contains(*regex)).cloned().collect();
        let context = &self.shard.context;
        let now = context.now;
        let mut records: Vec<GroupRecord> =
            unused.iter().map(|regex| pattern_record(&self.id, regex, None)).collect();
        for regex in &used {
            // An expression that an earlier version accepted and this one does not matches nothing.
            let Ok(compiled) = patterns::compile(&self.id, regex) else { continue };
            let value = patterns::resolve(&compiled, &context.topics, now);
            if self.group().pattern(regex).is_none_or(|known| known.topics != value.topics) {
                records.push(pattern_record(&self.id, regex, Some(value)));
            }
        }
        for record in records {
            self.write(record);
        }
        self.group_mut().patterns_checked = now;
    }

    /// Whether the expressions may match other topics than when they were last evaluated.
    pub(super) fn patterns_are_due(&self) -> bool {
        let group = self.group();
        let interval = self.shard.context.config.consumer_regex_refresh_interval_ms;
        group.patterns().next().is_some()
            && (group.is_stale || self.shard.context.now >= group.patterns_checked.plus(interval))
    }

    /// Raises the group epoch if it must be, or if the topics are not what they were.
    pub(super) fn refresh_epoch(&mut self, bump: bool) {
        let hash = self.metadata_hash();
        let group = self.group();
        if bump || hash != group.metadata_hash {
            let record = epoch_record(&self.id, group.epoch.saturating_add(1), hash);
            self.write(record);
        }
        self.group_mut().is_stale = false;
    }

    /// A hash over every topic that a member subscribes to: id, partitions and racks. 0 for none.
    pub(super) fn metadata_hash(&self) -> i64 {
        let group = self.group();
        let names: BTreeSet<&Arc<str>> =
            group.members().flat_map(|(_, member)| group.subscribed_names(member)).collect();
        let mut hash = Fnv::default();
        let mut some = false;
        for topic in names.into_iter().filter_map(|name| self.shard.context.topics.topic(name)) {
            some = true;
            hash.add(&topic.id.0);
            hash.add(topic.name.as_bytes());
            hash.add(&topic.partition_count().to_be_bytes());
            for racks in &topic.racks {
                for rack in racks {
                    hash.add(rack.as_bytes());
                }
                hash.add(&[]);
            }
        }
        if some { hash.finish() } else { 0 }
    }

    /// Computes a new target when the group epoch is ahead of it, unless the last one is too young
    /// (KIP-1263): then the next report after the interval does.
    pub(super) fn refresh_target(&mut self) {
        let group = self.group();
        if group.epoch <= group.target_epoch {
            return;
        }
        let context = &self.shard.context;
        let interval = i64::from(context.config.consumer_assignment_interval_ms(&self.id));
        let last = group.target_timestamp;
        // A time in the future was written before the clock was set back.
        let is_young = last <= context.now && context.now < last.plus(interval);
        if last.0 > 0 && is_young {
            return;
        }
        let timestamp = context.now;
        for (member, target) in self.compute_target() {
            if self.group().target(&member) != Some(&target) {
                let record = target_record(&self.id, &member, Some(&target));
                self.write(record);
            }
        }
        self.write_target_epoch(timestamp);
    }

    /// Records that the targets are those of the group's epoch.
    fn write_target_epoch(&mut self, timestamp: TimestampMs) {
        let epoch = self.group().epoch;
        self.write(GroupRecord::ConsumerGroupTargetAssignmentMetadata {
            group: Arc::clone(&self.id),
            value: Some(TargetAssignmentValue { epoch, timestamp }),
        });
    }

    fn compute_target(&self) -> Vec<(Arc<str>, Partitions)> {
        type Subscription<'a> = (&'a [Arc<str>], Option<&'a Arc<str>>);
        let group = self.group();
        let view = &self.shard.context.topics;
        let mut counts: BTreeMap<TopicId, i32> = BTreeMap::new();
        let mut sets: BTreeMap<Subscription<'_>, Arc<BTreeSet<TopicId>>> = BTreeMap::new();
        let mut specs = Vec::with_capacity(group.members().len());
        for (id, member) in group.members() {
            let key = (member.said.subscribed_topic_names.as_slice(), member.regex());
            let topics =
                sets.entry(key).or_insert_with(|| Arc::new(group.subscribed_topics(member, view)));
            specs.push(MemberSpec {
                id: Arc::clone(id),
                instance_id: member.said.instance_id.clone(),
                topics: Arc::clone(topics),
                owned: group.target(id).cloned().unwrap_or_default(),
            });
        }
        for topic in sets.values().flat_map(|topics| topics.iter()) {
            if let Some(known) = view.topic_by_id(*topic) {
                counts.insert(*topic, known.partition_count());
            }
        }
        let targets = self.assignor().assign(&specs, &counts);
        specs.into_iter().map(|spec| spec.id).zip(targets).collect()
    }

    pub(super) fn assignor(&self) -> Assignor {
        Self::assignor_of(self.group(), &self.shard.context.config)
    }

    /// The allowed assignor that most members ask for; the first allowed one when nobody
    /// asks.
    pub(super) fn assignor_of(group: &ConsumerGroup, config: &GroupConfig) -> Assignor {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, member) in group.members() {
            if let Some(name) = &member.said.server_assignor {
                *votes.entry(name).or_default() += 1;
            }
        }
        let mut chosen: Option<(usize, Assignor)> = None;
        for name in &config.consumer_assignors {
            let Some(assignor) = Assignor::from_name(name) else { continue };
            let count = votes.get(assignor.name()).copied().unwrap_or(0);
            if chosen.is_none_or(|(most, _)| count > most) {
                chosen = Some((count, assignor));
            }
        }
        chosen.map_or(Assignor::Uniform, |(_, assignor)| assignor)
    }

    /// Brings a member closer to its target; returns whether what it may process has changed.
    pub(super) fn reconcile(
        &mut self,
        id: &Arc<str>,
        reported: Option<&[TopicPartitions]>,
        subscription_changed: bool,
    ) -> Result<bool, GroupError> {
        let none = Partitions::new();
        let group = self.group();
        let Some(member) = group.member(id) else { return Ok(false) };
        if member.current.is_reconciled_to(group.target_epoch) && !subscription_changed {
            return Ok(false);
        }
        let taken = |topic: TopicId, partition: PartitionIndex| {
            group.holder(topic, partition).is_some_and(|holder| holder != id)
        };
        let next = Reconciliation {
            current: &member.current,
            target_epoch: group.target_epoch,
            target: group.target(id).unwrap_or(&none),
            subscribed: &group.subscribed_topics(member, &self.shard.context.topics),
            subscription_changed,
            reported,
            taken: &taken,
        }
        .next();
        let next = match next {
            Ok(None) => return Ok(false),
            Ok(Some(next)) => next,
            Err(UnknownState) => {
                let message = format!(
                    "group {}: the state of member {id} is not known to this version; it must \
                     give up its partitions and rejoin",
                    self.id
                );
                return Err(GroupError::new(ErrorCode::FencedMemberEpoch, message));
            }
        };
        let changed = next.assigned != member.current.assigned;
        let classic = member.uses_classic_protocol();
        let timeout = i64::from(member.said.rebalance_timeout_ms);
        let state = next.state;
        let record = current_record(&self.id, id, Some(&next));
        self.write(record);
        if !classic {
            let timer = GroupTimer::ConsumerRebalance(Arc::clone(id));
            if state == MemberState::UnrevokedPartitions {
                self.shard.context.arm(&self.id, timer, timeout);
            } else {
                self.shard.context.disarm(&self.id, timer);
            }
        }
        Ok(changed)
    }

    /// Removes members, and makes sure that the others get what they had.
    pub(super) fn remove(&mut self, members: &[Arc<str>]) {
        if members.is_empty() {
            return;
        }
        for member in members {
            self.erase(member);
        }
        self.refresh_patterns();
        self.refresh_epoch(true);
        // Nobody is left to compute the target for; the next member need not wait for its own.
        if self.group().members().len() == 0 {
            self.write_target_epoch(TimestampMs(0));
        }
    }

    /// Removes a member, without a new epoch.
    pub(super) fn erase(&mut self, member: &Arc<str>) {
        let id = Arc::clone(&self.id);
        self.write(current_record(&id, member, None));
        self.write(target_record(&id, member, None));
        self.write(member_record(&id, member, None));
        self.disarm_all(member);
    }

    /// Removes a member's deadlines.
    pub(super) fn disarm_all(&mut self, member: &Arc<str>) {
        for timer in [
            GroupTimer::ConsumerSession(Arc::clone(member)),
            GroupTimer::ConsumerRebalance(Arc::clone(member)),
            GroupTimer::ConsumerJoin(Arc::clone(member)),
            GroupTimer::ConsumerSync(Arc::clone(member)),
        ] {
            self.shard.context.disarm(&self.id, timer);
        }
    }

    /// The member has shown that it is alive.
    pub(super) fn touch(&mut self, member: &Arc<str>) {
        let timeout =
            self.group().member(member).and_then(|known| known.said.classic.as_ref()).map_or_else(
                || self.shard.context.config.consumer_session_timeout_ms(&self.id),
                |classic| classic.session_timeout_ms,
            );
        let timer = GroupTimer::ConsumerSession(Arc::clone(member));
        self.shard.context.arm(&self.id, timer, i64::from(timeout));
    }
}

/// FNV-1a with the length of each part, so that parts cannot run into one another.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, part: &[u8]) {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes();
        for &byte in length.iter().chain(part) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(self) -> i64 {
        self.0.cast_signed()
    }
}
