//! The shard: which group a request is for, and the order of what comes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::classic::{self, ClassicGroup};
use super::consumer::{self, ConsumerGroup};
use super::offset_table::Offsets;
use super::record::GroupRecord;
use super::reply::GroupReply;
use super::request::{Effect, Event, GroupNews, GroupRequest, RequestId};
use super::timers::{GroupTimer, TimerKey, Timers};
use super::{GroupConfig, TopicsView, admin, offsets};
use crate::machine::coordinator::{Coordinator, Misfit, Producer, TransactionEnd};
use crate::machine::{Machine, Replicated};
use crate::types::{SplitMix64, TimestampMs, Uuid};

/// The state of all groups of one `__consumer_offsets` partition.
#[derive(Debug)]
pub struct GroupShard {
    /// What every group may use.
    pub(super) context: Context,
    /// The groups, by id.
    pub(super) groups: BTreeMap<Arc<str>, Group>,
    /// What the groups committed.
    pub(super) offsets: Offsets,
}

/// A group of either protocol.
#[derive(Debug)]
pub(super) enum Group {
    /// Members join and one of them assigns; or there are no members, only offsets.
    Classic(Box<ClassicGroup>),
    /// KIP-848.
    Consumer(Box<ConsumerGroup>),
}

impl Group {
    /// Whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Classic(group) => group.is_empty(),
            Self::Consumer(group) => group.is_empty(),
        }
    }

    /// Whether a member consumes a topic, or may do.
    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        match self {
            Self::Classic(group) => group.is_subscribed_to(topic),
            Self::Consumer(group) => group.is_subscribed_to(topic),
        }
    }

    /// The records that delete it.
    pub(super) fn tombstones(&self, id: &Arc<str>, records: &mut Vec<GroupRecord>) {
        match self {
            Self::Classic(group) => group.tombstones(records),
            Self::Consumer(group) => group.tombstones(id, records),
        }
    }
}

/// What every group may use of its shard, and where it leaves what is to be done.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: Arc<GroupConfig>,
    pub(super) topics: Arc<TopicsView>,
    pub(super) timers: Timers,
    /// The time of the current step.
    pub(super) now: TimestampMs,
    random: SplitMix64,
    effects: Vec<Effect>,
    /// One shared empty string.
    empty: Arc<str>,
}

impl Context {
    /// Answers when everything appended so far is committed.
    pub(super) fn reply(&mut self, request: RequestId, reply: GroupReply) {
        self.effects.push(Effect::Reply { request, reply });
    }

    /// Appends records that the state already contains; see [`GroupShard::commit`] for those
    /// that are still to be applied.
    pub(super) fn append(
        &mut self,
        records: Vec<GroupRecord>,
        reply: Option<(RequestId, GroupReply)>,
    ) {
        match reply {
            Some((request, reply)) if records.is_empty() => self.reply(request, reply),
            None if records.is_empty() => {}
            reply => self.effects.push(Effect::Append { records, reply }),
        }
    }

    /// Appends records, which the state already contains, as part of a transaction.
    fn append_in_transaction(
        &mut self,
        producer: Producer,
        records: Vec<GroupRecord>,
        reply: (RequestId, GroupReply),
    ) {
        if records.is_empty() {
            self.reply(reply.0, reply.1);
        } else {
            self.effects.push(Effect::AppendInTransaction { producer, records, reply });
        }
    }

    /// Appends the end of a transaction, which the state already contains.
    pub(super) fn end_transaction(&mut self, end: TransactionEnd, reply: (RequestId, GroupReply)) {
        self.effects.push(Effect::EndTransaction { end, reply });
    }

    /// Undoes the current step: it wrote a record that does not fit.
    pub(super) fn undo(&mut self, misfit: Misfit) {
        self.effects.push(Effect::Undo(misfit));
    }

    /// Sets a deadline of a group, `after_ms` from now.
    pub(super) fn arm(&mut self, group: &Arc<str>, timer: GroupTimer, after_ms: i64) {
        let deadline = self.now.plus(after_ms);
        self.timers.set(TimerKey::Group(Arc::clone(group), timer), deadline);
    }

    /// Removes a deadline of a group.
    pub(super) fn disarm(&mut self, group: &Arc<str>, timer: GroupTimer) {
        self.timers.cancel(&TimerKey::Group(Arc::clone(group), timer));
    }

    /// The empty string, shared.
    pub(super) fn empty(&self) -> Arc<str> {
        Arc::clone(&self.empty)
    }

    /// An id for a new member, in Kafka's form: a name, and a UUID as Java prints it.
    pub(super) fn new_member_id(&mut self, prefix: &str) -> Arc<str> {
        format!("{prefix}-{}", self.new_uuid_text()).into()
    }

    /// A UUID as Java prints it.
    pub(super) fn new_uuid_text(&mut self) -> Arc<str> {
        let Uuid(bytes) = self.new_uuid();
        let mut id = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                id.push('-');
            }
            for digit in [byte >> 4, byte & 15] {
                id.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        id.into()
    }

    /// An id that nobody has.
    pub(super) fn new_uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        let (high, low) = bytes.split_at_mut(8);
        high.copy_from_slice(&self.random.draw().to_be_bytes());
        low.copy_from_slice(&self.random.draw().to_be_bytes());
        Uuid::from_random(bytes)
    }
}

impl GroupShard {
    /// A shard without groups. Member ids are drawn from `seed`, which must differ from one
    /// leadership to the next.
    #[must_use]
    pub fn new(config: GroupConfig, seed: u64) -> Self {
        Self {
            context: Context {
                config: Arc::new(config),
                topics: Arc::default(),
                timers: Timers::default(),
                now: TimestampMs::NONE,
                random: SplitMix64::new(seed),
                effects: Vec::new(),
                empty: "".into(),
            },
            groups: BTreeMap::new(),
            offsets: Offsets::default(),
        }
    }

    /// Applies records and appends them.
    pub(super) fn commit(
        &mut self,
        records: Vec<GroupRecord>,
        reply: Option<(RequestId, GroupReply)>,
    ) {
        match self.apply_all(&records) {
            Ok(()) => self.context.append(records, reply),
            Err(misfit) => self.context.undo(misfit),
        }
    }

    /// Applies records and appends them as part of a transaction.
    pub(super) fn commit_in_transaction(
        &mut self,
        producer: Producer,
        records: Vec<GroupRecord>,
        reply: (RequestId, GroupReply),
    ) {
        match self.apply_all(&records) {
            Ok(()) => self.context.append_in_transaction(producer, records, reply),
            Err(misfit) => self.context.undo(misfit),
        }
    }

    /// Applies records that are appended by the caller.
    pub(super) fn apply_all(&mut self, records: &[GroupRecord]) -> Result<(), Misfit> {
        records.iter().try_for_each(|record| self.apply(record))
    }

    fn request(&mut self, id: RequestId, request: GroupRequest) {
        let reply = match request {
            GroupRequest::Join(request) => return classic::join(self, id, request),
            GroupRequest::Sync(request) => return classic::sync(self, id, request),
            GroupRequest::Heartbeat(request) => return classic::heartbeat(self, id, request),
            GroupRequest::Leave(request) => return classic::leave(self, id, request),
            GroupRequest::CommitOffsets(request) => return offsets::commit(self, id, request),
            GroupRequest::DeleteOffsets(request) => return offsets::delete(self, id, request),
            GroupRequest::EndTransaction(end) => return offsets::end_transaction(self, id, end),
            GroupRequest::Delete { groups } => return admin::delete(self, id, groups),
            GroupRequest::ConsumerHeartbeat(request) => {
                return consumer::heartbeat(self, id, request);
            }
            GroupRequest::FetchOffsets(request) => offsets::fetch(self, &request),
            GroupRequest::Describe { groups } => admin::describe(self, groups),
            GroupRequest::List(request) => admin::list(self, &request),
            GroupRequest::ConsumerDescribe { groups } => {
                GroupReply::ConsumerDescribe(consumer::describe(self, &groups))
            }
        };
        self.context.reply(id, reply);
    }

    /// A group that nobody joined exists for its offsets.
    fn ensure_group(&mut self, id: &Arc<str>) {
        if !self.groups.contains_key(id) {
            let group = ClassicGroup::new(id.clone(), TimestampMs::NONE);
            self.groups.insert(id.clone(), Group::Classic(Box::new(group)));
        }
    }

    fn fire(&mut self, key: TimerKey) {
        match key {
            TimerKey::OffsetExpiry => offsets::expire(self),
            TimerKey::Group(group, timer) => match timer {
                GroupTimer::ClassicJoin
                | GroupTimer::ClassicSync
                | GroupTimer::ClassicSession(_) => classic::timer_fired(self, &group, &timer),
                timer => consumer::timer_fired(self, &group, &timer),
            },
        }
    }
}

impl Replicated for GroupShard {
    type Record = GroupRecord;
    type Error = Misfit;

    fn apply(&mut self, record: &GroupRecord) -> Result<(), Misfit> {
        match record {
            GroupRecord::OffsetCommit { key, value } => {
                self.offsets.apply(key, value.as_ref());
                if value.is_some() {
                    self.ensure_group(&key.group);
                }
            }
            GroupRecord::PendingOffset { producer, key, value } => {
                self.offsets.pend(*producer, key, value);
                self.ensure_group(&key.group);
            }
            GroupRecord::TransactionEnd { producer, committed } => {
                self.offsets.end(*producer, *committed);
            }
            GroupRecord::GroupMetadata { group, value } => {
                if let Some(Group::Classic(before)) = self.groups.get_mut(group) {
                    before.fail_waiting(&mut self.context);
                    self.context.timers.cancel_group(group);
                    self.groups.remove(group);
                }
                if let Some(value) = value {
                    let loaded = ClassicGroup::from_value(group.clone(), value);
                    self.groups.insert(group.clone(), Group::Classic(Box::new(loaded)));
                }
            }
            record => return consumer::apply(self, record),
        }
        Ok(())
    }
}

impl Machine for GroupShard {
    type Event = Event;
    type Effect = Effect;

    /// Deadlines pass in [`Event::Tick`] alone. So a process that was suspended handles the
    /// heartbeats waiting for it before it decides who was silent: its shell ticks once the
    /// deadline has passed and it has handled everything that had arrived by then.
    fn step(&mut self, now: TimestampMs, event: Event, out: &mut Vec<Effect>) {
        self.context.now = now;
        match event {
            Event::Request { id, request } => self.request(id, request),
            Event::News(GroupNews::Topics(topics)) => {
                self.context.topics = topics;
                consumer::metadata_changed(self);
            }
            Event::News(GroupNews::TopicsDeleted(topics)) => {
                offsets::topics_deleted(self, &topics);
            }
            Event::News(GroupNews::Config(config)) => self.context.config = config,
            Event::ClockSet { by_ms } => self.context.timers.shift(by_ms),
            Event::Tick => {
                while let Some(key) = self.context.timers.pop_due(now) {
                    self.fire(key);
                }
            }
        }
        out.append(&mut self.context.effects);
    }

    fn next_deadline(&self) -> Option<TimestampMs> {
        self.context.timers.next()
    }
}

impl Coordinator for GroupShard {
    type Request = GroupRequest;
    type Reply = GroupReply;
    type News = GroupNews;

    fn restored(&mut self, now: TimestampMs, out: &mut Vec<Effect>) {
        self.context.now = now;
        for group in self.groups.values_mut() {
            if let Group::Classic(group) = group {
                group.restored(&mut self.context);
            }
        }
        consumer::restored(self);
        // Whoever leads knows every topic that a leader before knew: it leads by a later change of the metadata.
        offsets::topics_missed(self);
        offsets::arm_expiry(self);
        out.append(&mut self.context.effects);
    }
}
