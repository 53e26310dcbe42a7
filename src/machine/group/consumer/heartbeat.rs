//! ConsumerGroupHeartbeat: join, report, leave.
//!
//! An answer can be lost, and a request can arrive twice. Therefore:
//! - `REPORT-1` a member that reports the epoch before its own, and owns nothing but what it was
//!   assigned, has missed an answer; it is answered again. Any other epoch is fenced.
//! - `REPORT-2` the assignment is in the answer when it has changed, when the member joins, and when
//!   the request is a full one, which a client sends after each error.
//! - `REPORT-3` a join with the id of a member that has progressed further is fenced: its
//!   partitions may be in use, and only the end of its session frees them.

use std::sync::Arc;

use super::assignor::Assignor;
use super::member::{
    Current, JOIN_EPOCH, LEAVE_EPOCH, LEAVE_FOR_A_WHILE_EPOCH, Member, Owned, is_subset,
    sorted_names, topic_partitions,
};
use super::patterns;
use super::state::{current_record, member_record, target_record};
use super::work::Work;
use crate::error::ErrorCode;
use crate::machine::group::GroupConfig;
use crate::machine::group::record::{ConsumerMemberValue, TopicPartitions};
use crate::machine::group::reply::{ConsumerHeartbeatReply, GroupError};
use crate::machine::group::request::ConsumerHeartbeatRequest;
use crate::machine::group::timers::GroupTimer;

type Result<T> = std::result::Result<T, GroupError>;

/// Refuses what no group could accept.
fn validate(request: &ConsumerHeartbeatRequest, config: &GroupConfig) -> Result<()> {
    let invalid = |what: &str| {
        let message =
            format!("group {:?}, member {:?}: {what}", request.group_id, request.member_id);
        Err(GroupError::new(ErrorCode::InvalidRequest, message))
    };
    let is_empty = |text: &Option<Arc<str>>| text.as_deref().is_some_and(str::is_empty);
    if request.group_id.is_empty() {
        return invalid("the group id is empty");
    }
    if is_empty(&request.instance_id) {
        return invalid("the instance id is empty; leave it out for a dynamic member");
    }
    if is_empty(&request.rack_id) {
        return invalid("the rack id is empty; leave it out when there is none");
    }
    let joins = request.member_epoch == JOIN_EPOCH;
    if request.member_id.is_empty() && (request.requires_member_id || !joins) {
        return invalid("the member id is empty");
    }
    match request.member_epoch {
        LEAVE_FOR_A_WHILE_EPOCH if request.instance_id.is_none() => {
            return invalid("only a static member, with an instance id, can leave with epoch -2");
        }
        LEAVE_EPOCH | LEAVE_FOR_A_WHILE_EPOCH => return Ok(()),
        JOIN_EPOCH => {
            if request.rebalance_timeout_ms == -1 {
                return invalid("a joining member must give its rebalance timeout");
            }
            if request.topic_partitions.as_ref().is_none_or(|list| !list.is_empty()) {
                return invalid("a joining member must report that it owns no partitions");
            }
            if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none()
            {
                return invalid("a joining member must give topic names or a regular expression");
            }
        }
        epoch if epoch < 0 => {
            return invalid(
                "the member epoch must be 0, -1, -2 or a positive \
                 number",
            );
        }
        _ => {}
    }
    if let Some(name) = &request.server_assignor {
        let known = Assignor::from_name(name).is_some()
            && config.consumer_assignors.iter().any(|allowed| allowed == name);
        if !known {
            let message = format!(
                "group {}: the assignor {name:?} is not supported; supported assignors: {}",
                request.group_id,
                config.consumer_assignors.join(", ")
            );
            return Err(GroupError::new(ErrorCode::UnsupportedAssignor, message));
        }
    }
    Ok(())
}

/// Refuses a member that is not where it believes it is.
fn check_epoch(
    group: &str,
    id: &str,
    current: &Current,
    epoch: i32,
    reported: Option<&[TopicPartitions]>,
) -> Result<()> {
    let missed_an_answer = epoch < current.epoch
        && epoch == current.previous_epoch
        && reported.is_some_and(|list| is_subset(list, &current.assigned));
    if epoch == current.epoch || missed_an_answer {
        return Ok(());
    }
    let message = format!(
        "group {group}: member {id} reports epoch {epoch}, but is in epoch {}; it must give up all \
         its partitions and rejoin",
        current.epoch
    );
    Err(GroupError::new(ErrorCode::FencedMemberEpoch, message))
}

/// What the member now says; `None` when it says nothing new.
fn said_now(
    before: &ConsumerMemberValue,
    request: &ConsumerHeartbeatRequest,
) -> Option<ConsumerMemberValue> {
    let repeats = request.subscribed_topic_names.is_none()
        && request.subscribed_topic_regex.is_none()
        && request.server_assignor.is_none()
        && request.rack_id.is_none()
        && request.rebalance_timeout_ms == -1
        && request.instance_id == before.instance_id
        && request.client_id == before.client_id
        && request.client_host == before.client_host
        && before.classic.is_none();
    if repeats {
        return None;
    }
    let mut said = before.clone();
    if request.instance_id.is_some() {
        said.instance_id.clone_from(&request.instance_id);
    }
    if request.rack_id.is_some() {
        said.rack_id.clone_from(&request.rack_id);
    }
    if request.rebalance_timeout_ms != -1 {
        said.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if request.server_assignor.is_some() {
        said.server_assignor.clone_from(&request.server_assignor);
    }
    if let Some(names) = &request.subscribed_topic_names {
        said.subscribed_topic_names = sorted_names(names.clone());
    }
    if let Some(regex) = &request.subscribed_topic_regex {
        said.subscribed_topic_regex = Some(Arc::clone(regex)).filter(|regex| !regex.is_empty());
    }
    said.client_id = Arc::clone(&request.client_id);
    said.client_host = Arc::clone(&request.client_host);
    said.classic = None;
    Some(said)
}

impl Work<'_> {
    /// Takes one heartbeat.
    pub(super) fn heartbeat(
        &mut self,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<ConsumerHeartbeatReply> {
        validate(request, &self.shard.context.config)?;
        if request.member_epoch < 0 {
            return self.leave(request);
        }
        if let Some(regex) = request.subscribed_topic_regex.as_ref().filter(|text| !text.is_empty())
            && self.group().pattern(regex).is_none()
        {
            patterns::compile(&self.id, regex)?;
        }
        self.enter(request.member_epoch == JOIN_EPOCH)?;
        let member_id = if request.member_id.is_empty() {
            self.shard.context.new_uuid_text()
        } else {
            self.group().known_id(&request.member_id).unwrap_or(&request.member_id).clone()
        };
        self.check_size(&member_id, request.instance_id.as_ref())?;
        self.admit(&member_id, request)?;
        self.report(&member_id, request)
    }

    /// Refuses a member that would exceed the limit; one that takes the place of a static member
    /// does not.
    pub(super) fn check_size(&self, member_id: &str, instance: Option<&Arc<str>>) -> Result<()> {
        let group = self.group();
        let size_max = self.shard.context.config.consumer_size_max;
        if group.members().len() < size_max
            || group.member(member_id).is_some()
            || instance.is_some_and(|instance| group.instance(instance).is_some())
        {
            return Ok(());
        }
        let message =
            format!("group {} is full: it has its maximum of {size_max} members", self.id);
        Err(GroupError::new(ErrorCode::GroupMaxSizeReached, message))
    }

    /// Finds out which state the member reports under, and lets a static one take its place back.
    fn admit(&mut self, id: &Arc<str>, request: &ConsumerHeartbeatRequest) -> Result<()> {
        let joins = request.member_epoch == JOIN_EPOCH;
        let reported = request.topic_partitions.as_deref();
        let Some(instance) = &request.instance_id else {
            return match self.group().member(id) {
                Some(member) => {
                    check_epoch(&self.id, id, &member.current, request.member_epoch, reported)
                }
                None if joins => Ok(()),
                None => self.member(id).map(|_| ()),
            };
        };
        let Some(known) = self.group().instance(instance).cloned() else {
            if joins {
                return Ok(());
            }
            return Err(self.unknown_instance(instance));
        };
        let member = self.member(&known)?;
        if joins {
            let away = member.current.epoch == LEAVE_FOR_A_WHILE_EPOCH;
            if known == *id && !away && !member.uses_classic_protocol() {
                // The same process: the answer to its join was lost.
                return check_epoch(&self.id, id, &member.current, JOIN_EPOCH, reported);
            }
            if !away && !member.uses_classic_protocol() {
                let message = format!(
                    "group {}: the instance id {instance} of member {id} is in use by member \
                     {known}, which has not left",
                    self.id
                );
                return Err(GroupError::new(ErrorCode::UnreleasedInstanceId, message));
            }
            self.replace(&known, id);
            return Ok(());
        }
        self.check_instance(&known, id, instance)?;
        check_epoch(&self.id, id, &self.member(&known)?.current, request.member_epoch, reported)
    }

    /// Refuses a static member whose place another has taken.
    pub(super) fn check_instance(&self, known: &str, id: &str, instance: &str) -> Result<()> {
        if known == id {
            return Ok(());
        }
        let message = format!(
            "group {}: the instance id {instance} of member {id} was taken over by member {known}",
            self.id
        );
        Err(GroupError::new(ErrorCode::FencedInstanceId, message))
    }

    pub(super) fn unknown_instance(&self, instance: &str) -> GroupError {
        let message = format!("group {}: no member has the instance id {instance}", self.id);
        GroupError::new(ErrorCode::UnknownMemberId, message)
    }

    /// Puts a static member that comes back under a new id into the place of the old one: it keeps
    /// target and partitions, and starts at epoch 0.
    pub(super) fn replace(&mut self, old: &Arc<str>, new: &Arc<str>) {
        let Some(member) = self.group().member(old) else { return };
        let said = member.said.clone();
        let current = Current { epoch: JOIN_EPOCH, previous_epoch: 0, ..member.current.clone() };
        let target = self.group().target(old).cloned();
        let id = Arc::clone(&self.id);
        if old == new {
            self.disarm_all(old);
        } else {
            self.erase(old);
            self.write(member_record(&id, new, Some(said)));
            self.write(target_record(&id, new, Some(&target.unwrap_or_default())));
        }
        self.write(current_record(&id, new, Some(&current)));
    }

    fn report(
        &mut self,
        id: &Arc<str>,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<ConsumerHeartbeatReply> {
        let newcomer;
        let before = match self.group().member(id) {
            Some(member) => &member.said,
            None => {
                newcomer = Member::new();
                &newcomer.said
            }
        };
        let regex_before = before.subscribed_topic_regex.clone();
        let mut subscription_changed = false;
        let mut regex_changed = false;
        let mut assignor_changed = false;
        if let Some(said) = said_now(before, request) {
            let assignor = self.assignor();
            regex_changed = said.subscribed_topic_regex != regex_before;
            subscription_changed = self.write_said(id, said);
            assignor_changed = self.assignor() != assignor;
        }
        self.bring_up_to_date(subscription_changed || assignor_changed, regex_changed);
        let reported = request.topic_partitions.as_deref();
        let assignment_changed = self.reconcile(id, reported, subscription_changed)?;
        self.touch(id);

        let full = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some()
                || request.subscribed_topic_regex.is_some())
            && request.topic_partitions.is_some();
        let tells = assignment_changed || full || request.member_epoch == JOIN_EPOCH;
        let current = &self.member(id)?.current;
        Ok(ConsumerHeartbeatReply {
            member_id: Arc::clone(id),
            member_epoch: current.epoch,
            heartbeat_interval_ms: self
                .shard
                .context
                .config
                .consumer_heartbeat_interval_ms(&self.id),
            assignment: tells.then(|| topic_partitions(&current.assigned)),
        })
    }

    /// After members have changed: update expressions, group epoch and target.
    pub(super) fn bring_up_to_date(&mut self, bump: bool, regex_changed: bool) {
        if regex_changed || self.patterns_are_due() {
            self.refresh_patterns();
        }
        let group = self.group();
        let bump = bump || group.epoch == 0;
        if bump || group.is_stale || regex_changed {
            self.refresh_epoch(bump);
        }
        self.refresh_target();
    }

    fn leave(&mut self, request: &ConsumerHeartbeatRequest) -> Result<ConsumerHeartbeatReply> {
        self.enter(false)?;
        let id = match &request.instance_id {
            None => {
                self.member(&request.member_id)?;
                Arc::clone(&request.member_id)
            }
            Some(instance) => {
                let known = self.group().instance(instance).cloned();
                let known = known.ok_or_else(|| self.unknown_instance(instance))?;
                self.check_instance(&known, &request.member_id, instance)?;
                known
            }
        };
        if request.member_epoch == LEAVE_FOR_A_WHILE_EPOCH {
            let current = Current {
                epoch: LEAVE_FOR_A_WHILE_EPOCH,
                pending_revocation: Owned::new(),
                ..self.member(&id)?.current.clone()
            };
            if self.member(&id)?.current != current {
                let record = current_record(&self.id, &id, Some(&current));
                self.write(record);
            }
            self.shard.context.disarm(&self.id, GroupTimer::ConsumerRebalance(Arc::clone(&id)));
        } else {
            self.dismiss(&[id]);
        }
        Ok(ConsumerHeartbeatReply {
            member_id: Arc::clone(&request.member_id),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    }
}
