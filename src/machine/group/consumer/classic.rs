//! Members that use the classic protocol in a consumer group.
//!
//! They take part while a group moves from one protocol to the other. A join does what a heartbeat
//! does for the others: it says what the member owns, and brings it closer to its target; a sync
//! fetches what it was given. There is no leader: the coordinator divides for everyone.

use std::sync::Arc;

use super::member::{Member, MemberState, Owned, sorted_names};
use super::work::Work;
use crate::error::ErrorCode;
use crate::machine::group::MigrationPolicy;
use crate::machine::group::classic::{self, CONSUMER_PROTOCOL};
use crate::machine::group::embedded::{self, NamedIndexes, Subscription};
use crate::machine::group::record::{ClassicMemberMetadata, ClassicProtocol, TopicPartitions};
use crate::machine::group::reply::{GroupError, GroupReply, JoinReply, LeftMember, SyncReply};
use crate::machine::group::request::{
    HeartbeatRequest, JoinRequest, LeaveRequest, LeavingMember, RequestId, SyncRequest,
};
use crate::machine::group::shard::GroupShard;
use crate::machine::group::timers::{GroupTimer, TimerKey};

type Result<T> = std::result::Result<T, GroupError>;

/// The outcome of a join.
enum Joined {
    /// It is answered.
    Reply(JoinReply),
    /// The group is classic again; the member asks it under this id.
    Downgraded(Arc<str>),
}

/// Takes a JoinGroup for a consumer group that has members.
pub(in crate::machine::group) fn classic_join(
    shard: &mut GroupShard,
    id: RequestId,
    mut request: JoinRequest,
) {
    let mut work = Work::new(shard, &request.group_id);
    match work.classic_join(&request) {
        Ok(Joined::Reply(reply)) => work.append(Some((id, GroupReply::Join(reply)))),
        Ok(Joined::Downgraded(member)) => {
            work.append(None);
            request.member_id = member;
            classic::join(shard, id, request);
        }
        Err(error) => {
            let reply = JoinReply::failed(request.member_id, error);
            work.append(Some((id, GroupReply::Join(reply))));
        }
    }
}

/// Takes a SyncGroup for a consumer group that has members.
pub(in crate::machine::group) fn classic_sync(
    shard: &mut GroupShard,
    id: RequestId,
    request: SyncRequest,
) {
    let mut work = Work::new(shard, &request.group_id);
    let reply = work.classic_sync(&request).unwrap_or_else(SyncReply::failed);
    work.append(Some((id, GroupReply::Sync(reply))));
}

/// Takes a Heartbeat of the classic protocol for a consumer group.
pub(in crate::machine::group) fn classic_heartbeat(
    shard: &mut GroupShard,
    id: RequestId,
    request: &HeartbeatRequest,
) {
    let mut work = Work::new(shard, &request.group_id);
    let result = work.classic_heartbeat(request);
    work.append(Some((id, GroupReply::Heartbeat(result))));
}

/// Takes a LeaveGroup for a consumer group.
pub(in crate::machine::group) fn classic_leave(
    shard: &mut GroupShard,
    id: RequestId,
    request: LeaveRequest,
) {
    let mut work = Work::new(shard, &request.group_id);
    let mut gone: Vec<Arc<str>> = Vec::new();
    let mut left = Vec::with_capacity(request.members.len());
    for member in request.members {
        let found = work.leaving(&member);
        if let Ok(found) = &found
            && !gone.contains(found)
        {
            gone.push(Arc::clone(found));
        }
        let LeavingMember { member_id, instance_id } = member;
        left.push(LeftMember { member_id, instance_id, error: found.err() });
    }
    work.dismiss(&gone);
    work.append(Some((id, GroupReply::Leave(Ok(left)))));
}

impl Work<'_> {
    fn classic_join(&mut self, request: &JoinRequest) -> Result<Joined> {
        if self.shard.context.config.consumer_migration_policy == MigrationPolicy::Disabled {
            let message = format!(
                "group {} uses the consumer protocol, and group.consumer.migration.policy does not \
                 allow members of the classic one beside it",
                self.id
            );
            return Err(GroupError::new(ErrorCode::InconsistentGroupProtocol, message));
        }
        let is_unknown = request.member_id.is_empty();
        let subscription = self.check_protocols(request)?;
        let member_id = if is_unknown {
            let prefix = request.instance_id.as_ref().unwrap_or(&request.client_id);
            self.shard.context.new_member_id(prefix)
        } else {
            let known = self.group().known_id(&request.member_id);
            Arc::clone(known.unwrap_or(&request.member_id))
        };
        self.check_size(&member_id, request.instance_id.as_ref())?;
        if is_unknown && request.instance_id.is_none() && request.requires_known_member_id {
            let message = format!("group {}: join again as member {member_id}", self.id);
            let error = GroupError::new(ErrorCode::MemberIdRequired, message);
            return Ok(Joined::Reply(JoinReply::failed(member_id, error)));
        }
        self.admit_classic(&member_id, is_unknown, request)?;
        let subscription_changed = self.say_classic(&member_id, request, &subscription);
        if self.is_ready_to_downgrade(&[]) {
            self.downgrade(&[]);
            return Ok(Joined::Downgraded(member_id));
        }
        self.bring_up_to_date(subscription_changed, true);
        let owned = self.by_id(&subscription.owned);
        self.reconcile(&member_id, Some(&owned), subscription_changed)?;

        self.shard.context.disarm(&self.id, GroupTimer::ConsumerJoin(Arc::clone(&member_id)));
        self.touch(&member_id);
        let timer = GroupTimer::ConsumerSync(Arc::clone(&member_id));
        self.shard.context.arm(&self.id, timer, i64::from(request.rebalance_timeout_ms));
        Ok(Joined::Reply(JoinReply {
            error: None,
            generation_id: self.member(&member_id)?.current.epoch,
            protocol_type: Some(CONSUMER_PROTOCOL.into()),
            protocol_name: request.protocols.first().map(|protocol| protocol.name.clone()),
            leader: self.shard.context.empty(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }))
    }

    /// Refuses a member that has no protocol in common with the other classic ones, and reads what
    /// it subscribes to.
    fn check_protocols(&self, request: &JoinRequest) -> Result<Subscription> {
        let refused = |why: &str| {
            let message = format!("group {}: member {:?} {why}", self.id, request.member_id);
            GroupError::new(ErrorCode::InconsistentGroupProtocol, message)
        };
        if *request.protocol_type != *CONSUMER_PROTOCOL {
            return Err(refused("is not a consumer, but the others are"));
        }
        let others: Vec<&ClassicMemberMetadata> =
            self.group().members().filter_map(|(_, member)| member.said.classic.as_ref()).collect();
        let is_common = |protocol: &ClassicProtocol| {
            others.iter().all(|other| other.protocols.iter().any(|p| p.name == protocol.name))
        };
        if !request.protocols.iter().any(is_common) {
            return Err(refused("has no assignor in common with the others"));
        }
        request
            .protocols
            .first()
            .and_then(|protocol| embedded::subscription(&protocol.metadata))
            .ok_or_else(|| refused("sent a subscription that cannot be read"))
    }

    /// Lets a static member take its place back, or refuses one whose place another has taken.
    fn admit_classic(
        &mut self,
        id: &Arc<str>,
        is_unknown: bool,
        request: &JoinRequest,
    ) -> Result<()> {
        let Some(instance) = &request.instance_id else { return Ok(()) };
        match self.group().instance(instance).cloned() {
            None if is_unknown => Ok(()),
            None => Err(self.unknown_instance(instance)),
            Some(known) if is_unknown => {
                self.replace(&known, id);
                Ok(())
            }
            Some(known) => self.check_instance(&known, id, instance),
        }
    }

    /// Records what the member says; returns whether its subscription changed.
    fn say_classic(
        &mut self,
        id: &Arc<str>,
        request: &JoinRequest,
        subscription: &Subscription,
    ) -> bool {
        let mut said = self.group().member(id).cloned().unwrap_or_else(Member::new).said;
        if request.instance_id.is_some() {
            said.instance_id.clone_from(&request.instance_id);
        }
        if subscription.rack.is_some() {
            said.rack_id.clone_from(&subscription.rack);
        }
        said.rebalance_timeout_ms = request.rebalance_timeout_ms;
        said.subscribed_topic_names = sorted_names(subscription.topics.clone());
        said.subscribed_topic_regex = None;
        said.client_id = Arc::clone(&request.client_id);
        said.client_host = Arc::clone(&request.client_host);
        said.classic = Some(ClassicMemberMetadata {
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols.clone(),
        });
        self.write_said(id, said)
    }

    fn by_id(&self, named: &[NamedIndexes]) -> Vec<TopicPartitions> {
        named
            .iter()
            .filter_map(|(name, partitions)| {
                let topic_id = self.shard.context.topics.topic(name)?.id;
                Some(TopicPartitions { topic_id, partitions: partitions.clone() })
            })
            .collect()
    }

    /// Finds the member that a classic request comes from.
    fn classic_member(&self, id: &str, instance: Option<&Arc<str>>) -> Result<(Arc<str>, &Member)> {
        if let Some(instance) = instance {
            let known = self.group().instance(instance);
            let known = known.ok_or_else(|| self.unknown_instance(instance))?;
            self.check_instance(known, id, instance)?;
        }
        let member = self.member(id)?;
        if !member.uses_classic_protocol() {
            let message = format!("group {}: {id} does not use the classic protocol", self.id);
            return Err(GroupError::new(ErrorCode::UnknownMemberId, message));
        }
        let id = self.group().known_id(id).cloned().unwrap_or_else(|| id.into());
        Ok((id, member))
    }

    fn check_generation(&self, id: &str, member: &Member, generation: i32) -> Result<()> {
        if member.current.epoch == generation {
            return Ok(());
        }
        let message = format!(
            "group {}: member {id} is in generation {}, not {generation}",
            self.id, member.current.epoch
        );
        Err(GroupError::new(ErrorCode::IllegalGeneration, message))
    }

    /// Tells a classic member to join again, and gives it the time to.
    fn rejoin(&mut self, id: &Arc<str>, timeout_ms: i32) -> GroupError {
        let timer = GroupTimer::ConsumerJoin(Arc::clone(id));
        let key = TimerKey::Group(Arc::clone(&self.id), timer.clone());
        if self.shard.context.timers.get(&key).is_none() {
            self.shard.context.arm(&self.id, timer, i64::from(timeout_ms));
        }
        let message = format!("group {} has a new assignment: join again", self.id);
        GroupError::new(ErrorCode::RebalanceInProgress, message)
    }

    fn classic_sync(&mut self, request: &SyncRequest) -> Result<SyncReply> {
        let (id, member) = self.classic_member(&request.member_id, request.instance_id.as_ref())?;
        self.check_generation(&id, member, request.generation_id)?;
        let protocols = member.said.classic.as_ref().map(|classic| &classic.protocols);
        let protocol = protocols.and_then(|list| list.first());
        let name = protocol.map(|protocol| &protocol.name);
        let is_other = request.protocol_type.as_deref().is_some_and(|t| t != CONSUMER_PROTOCOL)
            || request.protocol_name.as_ref().is_some_and(|said| Some(said) != name);
        if is_other {
            let message = format!("group {}: {id} syncs under another protocol", self.id);
            return Err(GroupError::new(ErrorCode::InconsistentGroupProtocol, message));
        }
        let timeout_ms = member.said.rebalance_timeout_ms;
        let state = member.current.state;
        if self.group().target_epoch > member.current.epoch
            && state != MemberState::UnrevokedPartitions
        {
            return Err(self.rejoin(&id, timeout_ms));
        }
        let metadata = protocol.map(|protocol| protocol.metadata.clone()).unwrap_or_default();
        let assignment =
            embedded::write_assignment(&self.named(&member.current.assigned), &metadata);
        self.shard.context.disarm(&self.id, GroupTimer::ConsumerSync(Arc::clone(&id)));
        self.touch(&id);
        Ok(SyncReply {
            error: None,
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment,
        })
    }

    /// Owned partitions by name; those of deleted topics are left out.
    fn named(&self, owned: &Owned) -> Vec<NamedIndexes> {
        owned
            .iter()
            .filter_map(|(&topic, list)| {
                let topic = self.shard.context.topics.topic_by_id(topic)?;
                Some((Arc::clone(&topic.name), list.keys().copied().collect()))
            })
            .collect()
    }

    fn classic_heartbeat(&mut self, request: &HeartbeatRequest) -> Result<()> {
        let (id, member) = self.classic_member(&request.member_id, request.instance_id.as_ref())?;
        self.check_generation(&id, member, request.generation_id)?;
        let timeout_ms = member.said.rebalance_timeout_ms;
        self.touch(&id);
        // There may be no member of the other protocol to do it.
        self.bring_up_to_date(false, false);
        let target_epoch = self.group().target_epoch;
        let current = &self.member(&id)?.current;
        let must_join = current.epoch < target_epoch
            || match current.state {
                MemberState::UnrevokedPartitions => true,
                MemberState::UnreleasedPartitions => self.has_something_to_get(&id),
                MemberState::Stable | MemberState::Unknown => false,
            };
        if must_join { Err(self.rejoin(&id, timeout_ms)) } else { Ok(()) }
    }

    /// Whether what the member waits for has become free. A member that waits for several
    /// partitions comes when all of them are free.
    fn has_something_to_get(&self, id: &Arc<str>) -> bool {
        let group = self.group();
        let Some(target) = group.target(id) else { return true };
        target.iter().all(|(&topic, list)| {
            list.iter()
                .all(|&partition| group.holder(topic, partition).is_none_or(|holder| holder == id))
        })
    }

    /// Who leaves: a member of either protocol, since an administrator removes members of both this
    /// way (KIP-571).
    fn leaving(&self, leaving: &LeavingMember) -> Result<Arc<str>> {
        let Some(instance) = &leaving.instance_id else {
            self.member(&leaving.member_id)?;
            return Ok(Arc::clone(&leaving.member_id));
        };
        let known = self.group().instance(instance);
        let known = known.ok_or_else(|| self.unknown_instance(instance))?;
        // An administrator knows the instance only.
        if !leaving.member_id.is_empty() {
            self.check_instance(known, &leaving.member_id, instance)?;
        }
        Ok(Arc::clone(known))
    }
}
