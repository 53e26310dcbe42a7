//! Groups of the consumer protocol, driven request by request.

#![allow(clippy::indexing_slicing, clippy::unnecessary_wraps, reason = "test code")]

mod heartbeat;
mod migration;
mod restart;
mod sharing;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::ErrorCode;
use crate::machine::coordinator::Coordinator as _;
use crate::machine::group::record::TopicPartitions;
use crate::machine::group::reply::{ConsumerHeartbeatReply, GroupError};
use crate::machine::group::shard::Group;
use crate::machine::group::{
    ConsumerHeartbeatRequest, Effect, Event, GroupConfig, GroupNews, GroupRecord, GroupReply,
    GroupRequest, GroupShard, RequestId, TopicView, TopicsView,
};
use crate::machine::{Machine, Replicated as _};
use crate::types::{PartitionIndex, TimestampMs, TopicId, Uuid};

pub(super) fn topic_id(name: &str) -> TopicId {
    let mut bytes = [0; 16];
    for (place, byte) in name.bytes().take(16).enumerate() {
        bytes[place] = byte;
    }
    Uuid(bytes)
}

pub(super) fn view(topics: &[(&str, usize)]) -> Arc<TopicsView> {
    Arc::new(TopicsView::new(topics.iter().map(|&(name, count)| TopicView {
        id: topic_id(name),
        name: name.into(),
        racks: vec![Vec::new(); count],
    })))
}

pub(super) fn owned(list: &[(&str, &[i32])]) -> Vec<TopicPartitions> {
    list.iter()
        .map(|(name, partitions)| TopicPartitions {
            topic_id: topic_id(name),
            partitions: PartitionIndex::list(partitions),
        })
        .collect()
}

/// The hard state of the consumer groups.
pub(super) fn snapshot(shard: &GroupShard) -> Vec<GroupRecord> {
    let mut records = Vec::new();
    for (id, group) in &shard.groups {
        if let Group::Consumer(group) = group {
            group.snapshot(id, &mut records);
        }
    }
    records
}

/// A shard with its log and its clock.
pub(super) struct Bench {
    pub(super) shard: GroupShard,
    pub(super) log: Vec<GroupRecord>,
    pub(super) now: TimestampMs,
    pub(super) topics: Arc<TopicsView>,
    pub(super) config: GroupConfig,
    next_id: u64,
}

impl Bench {
    pub(super) fn new(topics: &[(&str, usize)]) -> Self {
        // Each change is assigned at once; the interval has its own test.
        let config = GroupConfig { consumer_assignment_interval_ms: 0, ..GroupConfig::default() };
        Self::with(topics, config)
    }

    pub(super) fn with(topics: &[(&str, usize)], config: GroupConfig) -> Self {
        let topics = view(topics);
        let mut bench = Self {
            shard: GroupShard::new(config.clone(), 7),
            log: Vec::new(),
            now: TimestampMs(1_000),
            topics,
            config,
            next_id: 0,
        };
        bench.step(Event::News(GroupNews::Topics(Arc::clone(&bench.topics))));
        bench
    }

    pub(super) fn step(&mut self, event: Event) -> Vec<(RequestId, GroupReply)> {
        let mut effects = Vec::new();
        self.shard.step(self.now, event, &mut effects);
        let mut replies = Vec::new();
        for effect in effects {
            match effect {
                Effect::Append { records, reply } => {
                    self.log.extend(records);
                    replies.extend(reply);
                }
                Effect::AppendInTransaction { records, reply, .. } => {
                    self.log.extend(records);
                    replies.push(reply);
                }
                Effect::EndTransaction { end, reply } => {
                    self.log.push(GroupRecord::TransactionEnd {
                        producer: end.producer.id,
                        committed: end.committed,
                    });
                    replies.push(reply);
                }
                Effect::Reply { request, reply } => replies.push((request, reply)),
                Effect::Undo(misfit) => panic!("{misfit}"),
            }
        }
        self.assert_replayable();
        replies
    }

    /// CONSUMER-4: the log yields the state.
    pub(super) fn assert_replayable(&self) {
        let mut copy = GroupShard::new(self.config.clone(), 1);
        for record in &self.log {
            copy.apply(record).unwrap();
        }
        assert_eq!(snapshot(&copy), snapshot(&self.shard), "CONSUMER-4");
    }

    pub(super) fn set_topics(&mut self, topics: &[(&str, usize)]) {
        self.topics = view(topics);
        self.step(Event::News(GroupNews::Topics(Arc::clone(&self.topics))));
    }

    pub(super) fn wait(&mut self, duration_ms: i64) {
        self.now = self.now.plus(duration_ms);
        self.step(Event::Tick);
    }

    pub(super) fn restart(&mut self) {
        self.shard = GroupShard::new(self.config.clone(), 8);
        for record in &self.log {
            self.shard.apply(record).unwrap();
        }
        self.shard.restored(self.now, &mut Vec::new());
        self.step(Event::News(GroupNews::Topics(Arc::clone(&self.topics))));
    }

    pub(super) fn ask(&mut self, request: GroupRequest) -> GroupReply {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let mut replies = self.step(Event::Request { id, request });
        assert_eq!(replies.len(), 1, "GROUP-1");
        let (answered, reply) = replies.remove(0);
        assert_eq!(answered, id);
        reply
    }

    pub(super) fn heartbeat(
        &mut self,
        request: ConsumerHeartbeatRequest,
    ) -> Result<ConsumerHeartbeatReply, GroupError> {
        match self.ask(GroupRequest::ConsumerHeartbeat(request)) {
            GroupReply::ConsumerHeartbeat(result) => result,
            other => panic!("another reply: {other:?}"),
        }
    }

    pub(super) fn refusal(&mut self, request: ConsumerHeartbeatRequest) -> ErrorCode {
        let before = self.log.len();
        let error = self.heartbeat(request).unwrap_err();
        assert_eq!(self.log.len(), before, "a refusal writes nothing");
        error.code
    }

    pub(super) fn state(&mut self) -> (&'static str, i32, i32) {
        let groups = vec!["g".into()];
        match self.ask(GroupRequest::ConsumerDescribe { groups }) {
            GroupReply::ConsumerDescribe(list) => {
                (list[0].state, list[0].group_epoch, list[0].assignment_epoch)
            }
            other => panic!("another reply: {other:?}"),
        }
    }
}

/// A heartbeat that only says that the member is alive.
pub(super) fn alive(member: &str, epoch: i32) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: epoch,
        instance_id: None,
        rack_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: -1,
        subscribed_topic_names: None,
        subscribed_topic_regex: None,
        server_assignor: None,
        topic_partitions: None,
        requires_member_id: true,
    }
}

pub(super) fn join(member: &str, topics: &[&str]) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(topics.iter().map(|&name| name.into()).collect()),
        topic_partitions: Some(Vec::new()),
        ..alive(member, 0)
    }
}

pub(super) fn report(
    member: &str,
    epoch: i32,
    partitions: &[(&str, &[i32])],
) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest { topic_partitions: Some(owned(partitions)), ..alive(member, epoch) }
}

/// The assignment in an answer, by the names used in these tests.
pub(super) fn assigned(reply: &ConsumerHeartbeatReply) -> Option<BTreeMap<String, Vec<i32>>> {
    let list = reply.assignment.as_ref()?;
    Some(
        list.iter()
            .map(|entry| {
                let name = entry.topic_id.0.iter().take_while(|&&byte| byte != 0);
                (
                    name.map(|&byte| char::from(byte)).collect(),
                    PartitionIndex::numbers(&entry.partitions),
                )
            })
            .collect(),
    )
}

pub(super) fn partitions(list: &[(&str, &[i32])]) -> Option<BTreeMap<String, Vec<i32>>> {
    Some(list.iter().map(|(name, indexes)| ((*name).to_owned(), indexes.to_vec())).collect())
}
