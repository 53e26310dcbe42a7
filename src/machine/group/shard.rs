//! The shard: which group a request is for, and the order of what comes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::consumer::{self, ConsumerGroup};
use super::record::GroupRecord;
use super::reply::{GroupError, GroupReply, JoinReply, SyncReply};
use super::request::{Effect, Event, GroupRequest, RequestId};
use super::timers::{GroupTimer, TimerKey, Timers};
use super::{GroupConfig, TopicsView};
use crate::error::ErrorCode;
use crate::machine::{Machine, Replicated};
use crate::types::{TimestampMs, Uuid};

/// The state of all groups of one `__consumer_offsets` partition.
#[derive(Debug)]
pub struct GroupShard {
    /// What every group may use.
    pub(super) context: Context,
    /// The groups, by id.
    pub(super) groups: BTreeMap<Arc<str>, Group>,
}

/// A group of either protocol.
#[derive(Debug)]
pub(super) enum Group {
    /// KIP-848.
    Consumer(Box<ConsumerGroup>),
}

/// What every group may use of its shard, and where it leaves what shall be done.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: Arc<GroupConfig>,
    pub(super) topics: Arc<TopicsView>,
    pub(super) timers: Timers,
    /// The time of the current step.
    pub(super) now: TimestampMs,
    random: u64,
    effects: Vec<Effect>,
}

impl Context {
    /// Answers when everything appended so far is committed.
    pub(super) fn reply(&mut self, request: RequestId, reply: GroupReply) {
        self.effects.push(Effect::Reply { request, reply });
    }

    /// Appends records which the state already contains; see [`GroupShard::commit`] for those
    /// that are yet to be applied.
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

    /// Sets a deadline of a group, `after_ms` from now.
    pub(super) fn arm(&mut self, group: &Arc<str>, timer: GroupTimer, after_ms: i64) {
        let deadline = self.now.plus(after_ms);
        self.timers.set(TimerKey::Group(Arc::clone(group), timer), deadline);
    }

    /// Takes a deadline of a group away.
    pub(super) fn disarm(&mut self, group: &Arc<str>, timer: GroupTimer) {
        self.timers.cancel(&TimerKey::Group(Arc::clone(group), timer));
    }

    /// An id that nobody has.
    pub(super) fn new_uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        let (high, low) = bytes.split_at_mut(8);
        high.copy_from_slice(&self.next_random().to_be_bytes());
        low.copy_from_slice(&self.next_random().to_be_bytes());
        Uuid::from_random(bytes)
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
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
                random: seed,
                effects: Vec::new(),
            },
            groups: BTreeMap::new(),
        }
    }

    /// After the last [`Replicated::apply`] of a replay: arms the deadlines, and finishes what
    /// must be.
    pub fn restored(&mut self, now: TimestampMs, out: &mut Vec<Effect>) {
        self.context.now = now;
        out.append(&mut self.context.effects);
    }

    /// Applies records and appends them.
    pub(super) fn commit(
        &mut self,
        records: Vec<GroupRecord>,
        reply: Option<(RequestId, GroupReply)>,
    ) {
        for record in &records {
            let applied = self.apply(record);
            debug_assert!(applied.is_ok(), "{record:?} does not fit: {applied:?}");
        }
        self.context.append(records, reply);
    }

    fn request(&mut self, id: RequestId, request: GroupRequest) {
        let error = || GroupError::new(ErrorCode::UnsupportedVersion, "classic groups are to come");
        let reply = match request {
            GroupRequest::ConsumerHeartbeat(request) => {
                return consumer::heartbeat(self, id, request);
            }
            GroupRequest::ConsumerDescribe { groups } => {
                GroupReply::ConsumerDescribe(consumer::describe(self, &groups))
            }
            GroupRequest::Join(request) => {
                GroupReply::Join(JoinReply::failed(request.member_id, error()))
            }
            GroupRequest::Sync(_) => GroupReply::Sync(SyncReply::failed(error())),
            GroupRequest::Heartbeat(_) => GroupReply::Heartbeat(Err(error())),
            GroupRequest::Leave(_) => GroupReply::Leave(Err(error())),
            GroupRequest::CommitOffsets(_) => GroupReply::CommitOffsets(Err(error())),
            GroupRequest::FetchOffsets(_) => GroupReply::FetchOffsets(Err(error())),
            GroupRequest::DeleteOffsets(_) => GroupReply::DeleteOffsets(Err(error())),
            GroupRequest::Describe { .. } => GroupReply::Describe(Vec::new()),
            GroupRequest::List(_) => GroupReply::List(Vec::new()),
            GroupRequest::Delete { groups } => {
                GroupReply::Delete(groups.into_iter().map(|group| (group, Err(error()))).collect())
            }
        };
        self.context.reply(id, reply);
    }

    fn fire(&mut self, key: TimerKey) {
        match key {
            TimerKey::OffsetExpiry => {}
            TimerKey::Group(group, timer) => match timer {
                GroupTimer::ClassicJoin
                | GroupTimer::ClassicSync
                | GroupTimer::ClassicSession(_) => {}
                timer => consumer::timer_fired(self, &group, &timer),
            },
        }
    }
}

impl Machine for GroupShard {
    type Event = Event;
    type Effect = Effect;

    fn step(&mut self, now: TimestampMs, event: Event, out: &mut Vec<Effect>) {
        self.context.now = now;
        while let Some(key) = self.context.timers.pop_due(now) {
            self.fire(key);
        }
        match event {
            Event::Request { id, request } => self.request(id, request),
            Event::Metadata(topics) => {
                self.context.topics = topics;
                consumer::metadata_changed(self);
            }
            Event::TopicsDeleted(_) | Event::Tick => {}
            Event::Config(config) => self.context.config = config,
        }
        out.append(&mut self.context.effects);
    }

    fn next_deadline(&self) -> Option<TimestampMs> {
        self.context.timers.next()
    }
}

impl Replicated for GroupShard {
    type Record = GroupRecord;
    /// The records that give the hard state.
    type Snapshot = Vec<GroupRecord>;
    type Error = GroupError;

    fn apply(&mut self, record: &GroupRecord) -> Result<(), GroupError> {
        match record {
            GroupRecord::OffsetCommit { .. } | GroupRecord::GroupMetadata { .. } => Ok(()),
            record => consumer::apply(self, record),
        }
    }

    fn snapshot(&self) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for (id, group) in &self.groups {
            match group {
                Group::Consumer(group) => group.snapshot(id, &mut records),
            }
        }
        records
    }

    fn restore(&mut self, snapshot: Vec<GroupRecord>) {
        self.groups.clear();
        self.context.timers.clear();
        for record in &snapshot {
            let applied = self.apply(record);
            debug_assert!(applied.is_ok(), "{record:?} does not fit: {applied:?}");
        }
    }
}
