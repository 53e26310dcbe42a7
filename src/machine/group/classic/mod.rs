//! Classic groups: the members join, the coordinator picks a leader among them, the leader assigns.
//!
//! ```text
//!              first member joins                 all joined, or the rebalance timeout
//!   ┌───────┐ ───────────────────► ┌───────────┐ ──────────────────────► ┌────────────┐
//!   │ Empty │                      │ Preparing │                         │ Completing │
//!   └───────┘ ◄─────────────────── └───────────┘ ◄────────────────────── └────────────┘
//!                nobody is left       ▲            a member joins anew or      │ the leader
//!                                     │            leaves, or does not sync    ▼ syncs
//!                                     │                                   ┌────────┐
//!                                     └────────────────────────────────── │ Stable │
//!                                      a member joins, leaves or is lost  └────────┘
//! ```
//!
//! - `Preparing`: joins are parked until every member has joined (or the longest rebalance timeout
//!   of the members has passed; a member that has not joined by then is removed, unless it is
//!   static). The first rebalance of a group waits for a fixed delay instead, and longer while
//!   members keep coming.
//! - `Completing`: everyone has the new generation; syncs are parked until the leader's.
//!
//! Invariants:
//!
//! - CLASSIC-1: a member has at most one parked join and one parked sync; joins are parked only in
//!   `Preparing`, syncs only in `Completing`. Every removed member is answered.
//! - CLASSIC-2: the generation is written to the log before anyone learns its assignment, and an
//!   empty generation when the last member is gone.
//! - CLASSIC-3: every member and every pending member has a session deadline, `Preparing` has a
//!   join deadline and a generation with missing syncs has a sync deadline: nothing waits forever.
//!
//! Kafka's counterpart is `ClassicGroup`; the KIPs are 345 (static members), 394 (member ids), 559,
//! 571 (removal by an administrator) and 814 (a static leader that comes back does not assign).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::record::{ClassicGroupValue, ClassicMemberValue, ClassicProtocol, GroupRecord};
use super::reply::{GroupError, GroupReply, JoinReply, JoinedMember, SyncReply};
use super::request::RequestId;
use super::shard::Context;
use super::timers::GroupTimer;
use super::{CommitOffsetsRequest, embedded};
use crate::error::ErrorCode;
use crate::types::TimestampMs;

mod join;
mod leave;
mod rebalance;
mod sync;

pub(super) use join::join;
pub(super) use leave::leave;
pub(super) use rebalance::timer_fired;
pub(super) use sync::{heartbeat, sync};

#[cfg(test)]
mod tests;

/// The protocol type of consumer groups.
pub(super) const CONSUMER_PROTOCOL: &str = "consumer";

/// The state of a classic group; see the diagram in the module documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClassicState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl ClassicState {
    /// Kafka's name for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A member.
#[derive(Debug)]
pub(super) struct ClassicMember {
    pub(super) instance_id: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// What it supports, best first, each name once.
    pub(super) protocols: Vec<ClassicProtocol>,
    /// Its assignment in the current generation.
    pub(super) assignment: Bytes,
    awaiting_join: Option<RequestId>,
    awaiting_sync: Option<RequestId>,
    /// Whether it waits for its first generation.
    is_new: bool,
}

impl ClassicMember {
    /// What it said under a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|supported| &*supported.name == protocol);
        found.map(|supported| supported.metadata.clone()).unwrap_or_default()
    }
}

/// How the first rebalance of a group waits.
#[derive(Clone, Copy, Debug)]
struct InitialDelay {
    /// How long it waits now.
    delay_ms: i64,
    /// How much longer it may wait after that.
    remaining_ms: i64,
    /// Whether anyone joined while it waited.
    member_added: bool,
}

/// From when the retention of an offset counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpiryBase {
    /// From that time.
    Since(TimestampMs),
    /// From its commit.
    Commit,
    /// It does not expire.
    Never,
}

/// A group of the classic protocol, or one that only has offsets.
#[derive(Debug)]
pub(super) struct ClassicGroup {
    id: Arc<str>,
    state: ClassicState,
    state_since: TimestampMs,
    protocol_type: Option<Arc<str>>,
    protocol: Option<Arc<str>>,
    generation: i32,
    leader: Option<Arc<str>>,
    members: BTreeMap<Arc<str>, ClassicMember>,
    /// Static members: instance to member.
    statics: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids that were given out (KIP-394) and have not been used yet.
    pending_joins: BTreeSet<Arc<str>>,
    /// Members of the generation that have not synced.
    pending_syncs: BTreeSet<Arc<str>>,
    /// How many joins are parked.
    joins_parked: usize,
    /// How many members support a protocol.
    supported: BTreeMap<Arc<str>, usize>,
    /// The topics that the members consume; `None` when they do not say so in the usual form.
    subscribed: Option<BTreeSet<Arc<str>>>,
    /// In `Preparing`: whether it is the first rebalance, and how that waits.
    initial: Option<InitialDelay>,
}

impl ClassicGroup {
    /// A group without members.
    pub(super) fn new(id: Arc<str>, since: TimestampMs) -> Self {
        Self {
            id,
            state: ClassicState::Empty,
            state_since: since,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            joins_parked: 0,
            supported: BTreeMap::new(),
            subscribed: None,
            initial: None,
        }
    }

    /// A group as the log has it. Its deadlines are armed by [`Self::restored`].
    pub(super) fn from_value(id: Arc<str>, value: &ClassicGroupValue) -> Self {
        let mut group = Self::new(id, value.current_state_timestamp);
        group.generation = value.generation;
        let protocol_type = value.protocol_type.clone();
        group.protocol_type = (!protocol_type.is_empty()).then_some(protocol_type);
        group.protocol.clone_from(&value.protocol);
        group.leader.clone_from(&value.leader);
        let protocol = value.protocol.clone().unwrap_or_else(|| "".into());
        for member in &value.members {
            let rebalance_timeout_ms = match member.rebalance_timeout_ms {
                -1 => member.session_timeout_ms,
                timeout_ms => timeout_ms,
            };
            let loaded = ClassicMember {
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                protocols: vec![ClassicProtocol {
                    name: protocol.clone(),
                    metadata: member.subscription.clone(),
                }],
                assignment: member.assignment.clone(),
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            };
            group.insert(member.member_id.clone(), loaded);
        }
        if !group.members.is_empty() {
            group.state = ClassicState::Stable;
        }
        group.subscribed = group.subscriptions();
        group
    }

    /// The group as the log is to have it.
    pub(super) fn to_value(&self) -> ClassicGroupValue {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| ClassicMemberValue {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        });
        ClassicGroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_else(|| "".into()),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_since,
            members: members.collect(),
        }
    }

    fn record(&self) -> GroupRecord {
        GroupRecord::GroupMetadata { group: self.id.clone(), value: Some(self.to_value()) }
    }

    /// The records that delete it.
    pub(super) fn tombstones(&self, records: &mut Vec<GroupRecord>) {
        records.push(GroupRecord::GroupMetadata { group: self.id.clone(), value: None });
    }

    /// Its state.
    pub(super) const fn state(&self) -> ClassicState {
        self.state
    }

    /// Whether it has no member and is not about to have one.
    pub(super) fn is_empty(&self) -> bool {
        self.state == ClassicState::Empty
    }

    /// Whether it waits for its members to join.
    pub(super) fn is_rebalancing(&self) -> bool {
        self.state == ClassicState::PreparingRebalance
    }

    /// Its generation.
    pub(super) const fn generation(&self) -> i32 {
        self.generation
    }

    /// The type of protocol; `None` when it only has offsets.
    pub(super) const fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    /// The protocol that was voted for.
    pub(super) const fn protocol(&self) -> Option<&Arc<str>> {
        self.protocol.as_ref()
    }

    /// Its members, by id.
    pub(super) const fn members(&self) -> &BTreeMap<Arc<str>, ClassicMember> {
        &self.members
    }

    /// Whether its members are consumers and say so in the usual form.
    pub(super) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL)
    }

    /// Whether a member consumes a topic, or may do.
    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_of_consumers(),
        }
    }

    /// From when the retention of its offsets counts.
    pub(super) fn expiry_base(&self) -> ExpiryBase {
        match self.state {
            _ if self.protocol_type.is_none() => ExpiryBase::Commit,
            ClassicState::Empty if self.state_since == TimestampMs::NONE => ExpiryBase::Commit,
            ClassicState::Empty => ExpiryBase::Since(self.state_since),
            ClassicState::Stable if self.is_of_consumers() && self.subscribed.is_some() => {
                ExpiryBase::Commit
            }
            _ => ExpiryBase::Never,
        }
    }

    /// Whether offsets may be committed in its name.
    pub(super) fn validate_commit(&self, request: &CommitOffsetsRequest) -> Result<(), GroupError> {
        let generation = request.generation_or_epoch;
        if generation < 0 && self.is_empty() {
            return Ok(());
        }
        if request.is_transaction_without_member() {
            return Ok(());
        }
        if generation < 0 && request.member_id.is_empty() && request.instance_id.is_none() {
            let message = format!(
                "group {}: while a group has members, only they may commit its offsets",
                self.id
            );
            return Err(GroupError::new(ErrorCode::UnknownMemberId, message));
        }
        self.validate_member(&request.member_id, request.instance_id.as_deref())?;
        self.validate_generation(generation)?;
        if self.state == ClassicState::CompletingRebalance && request.transaction.is_none() {
            let message = format!("group {}: generation {generation} is being assigned", self.id);
            return Err(GroupError::new(ErrorCode::RebalanceInProgress, message));
        }
        Ok(())
    }

    /// Whether this is a member whose place no other has taken.
    fn validate_member(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(self.unknown_instance(instance)),
                Some(current) if &**current != member => {
                    let message = format!(
                        "group {}: instance {instance} is now member {current}, not {member}",
                        self.id
                    );
                    return Err(GroupError::new(ErrorCode::FencedInstanceId, message));
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(self.unknown(member)) }
    }

    fn validate_generation(&self, generation: i32) -> Result<(), GroupError> {
        if generation == self.generation {
            return Ok(());
        }
        let message =
            format!("group {} is in generation {}, not {generation}", self.id, self.generation);
        Err(GroupError::new(ErrorCode::IllegalGeneration, message))
    }

    fn unknown(&self, member: &str) -> GroupError {
        let message = format!("group {} has no member '{member}'", self.id);
        GroupError::new(ErrorCode::UnknownMemberId, message)
    }

    fn unknown_instance(&self, instance: &str) -> GroupError {
        let message = format!("group {} has no static member {instance}", self.id);
        GroupError::new(ErrorCode::UnknownMemberId, message)
    }

    fn rebalancing(&self) -> GroupError {
        let message = format!("group {} is rebalancing: join again", self.id);
        GroupError::new(ErrorCode::RebalanceInProgress, message)
    }

    /// Whether a member that supports these protocols can be in the group with the others.
    fn supports(&self, protocol_type: &str, protocols: &[ClassicProtocol]) -> bool {
        if self.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let everybody = |protocol: &ClassicProtocol| {
            self.supported.get(&protocol.name).copied().unwrap_or(0) == self.members.len()
        };
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(everybody)
    }

    fn inconsistent(&self, protocol_type: &str) -> GroupError {
        let message = format!(
            "group {} of type '{}' has no protocol in common with a member of type \
             '{protocol_type}': give all its members a common assignor",
            self.id,
            self.protocol_type.as_deref().unwrap_or_default(),
        );
        GroupError::new(ErrorCode::InconsistentGroupProtocol, message)
    }

    fn count_protocols(&mut self, protocols: &[ClassicProtocol]) {
        for protocol in protocols {
            *self.supported.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn discount_protocols(&mut self, protocols: &[ClassicProtocol]) {
        for protocol in protocols {
            if let Some(count) = self.supported.get_mut(&protocol.name) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.supported.remove(&protocol.name);
                }
            }
        }
    }

    /// Adds a member whose id is not in the group yet.
    fn insert(&mut self, id: Arc<str>, member: ClassicMember) {
        self.pending_joins.remove(&id);
        self.count_protocols(&member.protocols);
        if let Some(instance) = &member.instance_id {
            self.statics.insert(instance.clone(), id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        self.joins_parked += usize::from(member.awaiting_join.is_some());
        self.members.insert(id, member);
    }

    /// Removes a member or a pending one, answers the requests it is waiting on, and elects another
    /// leader.
    fn remove(&mut self, context: &mut Context, id: &Arc<str>) {
        context.disarm(&self.id, GroupTimer::ClassicSession(id.clone()));
        self.pending_joins.remove(id);
        self.pending_syncs.remove(id);
        self.answer_join(context, id, Err((self.unknown(id), "".into())));
        self.answer_sync(context, id, Err(self.unknown(id)));
        let Some(member) = self.members.remove(id) else { return };
        self.discount_protocols(&member.protocols);
        if let Some(instance) = &member.instance_id {
            self.statics.remove(instance);
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Answers the parked join of a member: with the current generation, or with an error and the
    /// member id that goes with it.
    fn answer_join(
        &mut self,
        context: &mut Context,
        id: &Arc<str>,
        answer: Result<JoinReply, (GroupError, Arc<str>)>,
    ) {
        let Some(member) = self.members.get_mut(id) else { return };
        let Some(request) = member.awaiting_join.take() else { return };
        self.joins_parked -= 1;
        let reply = answer.unwrap_or_else(|(error, member)| JoinReply::failed(member, error));
        context.reply(request, GroupReply::Join(reply));
    }

    /// Answers the parked sync of a member. Returns whether there was one.
    fn answer_sync(
        &mut self,
        context: &mut Context,
        id: &Arc<str>,
        answer: Result<SyncReply, GroupError>,
    ) -> bool {
        let Some(member) = self.members.get_mut(id) else { return false };
        let Some(request) = member.awaiting_sync.take() else { return false };
        let reply = answer.unwrap_or_else(SyncReply::failed);
        context.reply(request, GroupReply::Sync(reply));
        true
    }

    /// Parks a join; one that was parked before is sent back.
    fn park_join(&mut self, context: &mut Context, id: &Arc<str>, request: RequestId) {
        let newer = self.rebalancing();
        self.answer_join(context, id, Err((newer, id.clone())));
        if let Some(member) = self.members.get_mut(id) {
            member.awaiting_join = Some(request);
            self.joins_parked += 1;
        }
    }

    /// Answers everyone who is waiting with an error: the group is about to be replaced.
    pub(super) fn fail_waiting(&mut self, context: &mut Context) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            self.answer_join(context, &id, Err((self.rebalancing(), id.clone())));
            self.answer_sync(context, &id, Err(self.rebalancing()));
        }
    }

    /// The current generation, as told to one member.
    fn generation_for(&self, id: &Arc<str>, members: Vec<JoinedMember>) -> JoinReply {
        JoinReply {
            error: None,
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_else(|| "".into()),
            skip_assignment: false,
            member_id: id.clone(),
            members,
        }
    }

    /// All members, as told to the leader.
    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let joined = |(id, member): (&Arc<str>, &ClassicMember)| JoinedMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        };
        self.members.iter().map(joined).collect()
    }

    fn is_leader(&self, id: &Arc<str>) -> bool {
        self.leader.as_ref() == Some(id)
    }

    fn all_joined(&self) -> bool {
        self.joins_parked == self.members.len() && self.pending_joins.is_empty()
    }

    /// The longest rebalance timeout of the members.
    fn rebalance_timeout_ms(&self) -> i64 {
        self.members
            .values()
            .map(|member| i64::from(member.rebalance_timeout_ms))
            .max()
            .unwrap_or(0)
    }

    /// The protocol that most members prefer among those that all support.
    fn vote(&self) -> Option<Arc<str>> {
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            let supported_by_all = |protocol: &&ClassicProtocol| {
                self.supported.get(&protocol.name) == Some(&self.members.len())
            };
            if let Some(choice) = member.protocols.iter().find(supported_by_all) {
                *votes.entry(&choice.name).or_default() += 1;
            }
        }
        votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(name, _)| name.clone())
    }

    /// What the members consume, as they say it under the current protocol.
    fn subscriptions(&self) -> Option<BTreeSet<Arc<str>>> {
        if !self.is_of_consumers() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            for topic in embedded::subscribed_topics(&member.metadata(protocol))? {
                if !topics.contains(topic) {
                    topics.insert(topic.into());
                }
            }
        }
        Some(topics)
    }

    fn transition(&mut self, context: &Context, state: ClassicState) {
        self.state = state;
        self.state_since = context.now;
        if state != ClassicState::PreparingRebalance {
            self.initial = None;
        }
    }

    /// Restarts a member's session.
    pub(super) fn touch(&self, context: &mut Context, id: &Arc<str>) {
        if let Some((id, member)) = self.members.get_key_value(id) {
            let timer = GroupTimer::ClassicSession(id.clone());
            context.arm(&self.id, timer, i64::from(member.session_timeout_ms));
        }
    }

    /// After a replay or a conversion: gives every member a session, and rebalances a group that
    /// is over its size so that members are turned away with an answer.
    pub(super) fn restored(&mut self, context: &mut Context) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            self.touch(context, id);
        }
        if ids.len() > context.config.classic_size_max {
            self.prepare_rebalance(context);
        }
    }
}
