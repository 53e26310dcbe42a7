//! A shard with a clock, a log and a record of answers, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::error::ErrorCode;
use crate::machine::coordinator::Coordinator as _;
use crate::machine::{Machine, Replicated as _};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs, Uuid};

/// The group of tests that need only one.
pub(super) const GROUP: &str = "g";

/// The bytes in which a consumer states its topics.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 1];
    bytes.extend(u32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        bytes.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1_i32).to_be_bytes());
    bytes.extend(0_i32.to_be_bytes());
    bytes.into()
}

/// A join of [`GROUP`] by a member, or by one without an id.
pub(super) fn join_request(member: &str) -> JoinRequest {
    JoinRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![ClassicProtocol { name: "range".into(), metadata: subscription(&["t"]) }],
        requires_known_member_id: false,
        supports_skipping_assignment: true,
    }
}

pub(super) struct Rig {
    pub(super) shard: GroupShard,
    pub(super) now: TimestampMs,
    pub(super) config: GroupConfig,
    /// Everything that was appended.
    pub(super) log: Vec<GroupRecord>,
    answers: BTreeMap<RequestId, GroupReply>,
    open: BTreeSet<RequestId>,
    pub(super) asked: u64,
}

impl Rig {
    pub(super) fn new(config: GroupConfig) -> Self {
        let shard = GroupShard::new(config.clone(), 7);
        let now = TimestampMs(1_000_000);
        let mut rig = Self {
            shard,
            now,
            config,
            log: vec![],
            answers: BTreeMap::new(),
            open: BTreeSet::new(),
            asked: 0,
        };
        rig.restored();
        rig
    }

    fn restored(&mut self) {
        let mut out = Vec::new();
        self.shard.restored(self.now, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let answer = match effect {
                Effect::Append { records, reply } => {
                    assert!(!records.is_empty(), "nothing is appended");
                    self.log.extend(records);
                    reply
                }
                Effect::AppendInTransaction { records, reply, .. } => {
                    assert!(!records.is_empty(), "nothing is appended");
                    self.log.extend(records);
                    Some(reply)
                }
                Effect::EndTransaction { end, reply } => {
                    self.log.push(GroupRecord::TransactionEnd {
                        producer: end.producer.id,
                        committed: end.committed,
                    });
                    Some(reply)
                }
                Effect::Reply { request, reply } => Some((request, reply)),
                Effect::Undo(misfit) => panic!("{misfit}"),
            };
            if let Some((request, reply)) = answer {
                assert!(self.open.remove(&request), "{request:?} is answered twice");
                self.answers.insert(request, reply);
            }
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        let mut out = Vec::new();
        self.shard.step(self.now, event, &mut out);
        self.carry_out(out);
    }

    /// Asks, and returns the token of the answer.
    pub(super) fn ask(&mut self, request: GroupRequest) -> RequestId {
        self.asked += 1;
        let id = RequestId(self.asked);
        self.open.insert(id);
        self.event(Event::Request { id, request });
        id
    }

    /// Asks something that is answered at once.
    pub(super) fn tell(&mut self, request: GroupRequest) -> GroupReply {
        let id = self.ask(request);
        self.answers.remove(&id).expect("answered at once")
    }

    /// Whether a request is answered.
    pub(super) fn is_answered(&self, id: RequestId) -> bool {
        self.answers.contains_key(&id)
    }

    /// The answer to a request, which stays.
    pub(super) fn peek(&self, id: RequestId) -> Option<&GroupReply> {
        self.answers.get(&id)
    }

    /// Which requests wait for their answer.
    pub(super) fn waiting(&self) -> Vec<RequestId> {
        self.open.iter().copied().collect()
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn pass(&mut self, duration_ms: i64) {
        let end = self.now.plus(duration_ms);
        while let Some(deadline) = self.shard.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(deadline);
            self.event(Event::Tick);
        }
        self.now = end;
    }

    /// Another broker takes over: the same state from the log, nobody waits.
    pub(super) fn restart(&mut self) {
        self.shard = GroupShard::new(self.config.clone(), self.asked + 100);
        self.open.clear();
        for record in &self.log {
            self.shard.apply(record).unwrap();
        }
        self.restored();
    }

    pub(super) fn join(&mut self, request: JoinRequest) -> RequestId {
        self.ask(GroupRequest::Join(request))
    }

    pub(super) fn joined(&mut self, id: RequestId) -> JoinReply {
        match self.answers.remove(&id) {
            Some(GroupReply::Join(reply)) => reply,
            other => panic!("{id:?} is not an answered join: {other:?}"),
        }
    }

    /// Joins, and expects an error at once.
    pub(super) fn join_error(&mut self, request: JoinRequest) -> ErrorCode {
        let id = self.join(request);
        self.joined(id).error.expect("an error").code
    }

    pub(super) fn sync(
        &mut self,
        member: &str,
        generation: i32,
        give: &[(&str, &str)],
    ) -> RequestId {
        let assignments = give
            .iter()
            .map(|(member, bytes)| ((*member).into(), Bytes::copy_from_slice(bytes.as_bytes())))
            .collect();
        self.ask(GroupRequest::Sync(SyncRequest {
            group_id: GROUP.into(),
            generation_id: generation,
            member_id: member.into(),
            instance_id: None,
            protocol_type: None,
            protocol_name: None,
            assignments,
        }))
    }

    pub(super) fn synced(&mut self, id: RequestId) -> Result<Bytes, ErrorCode> {
        match self.answers.remove(&id) {
            Some(GroupReply::Sync(SyncReply { error: None, assignment, .. })) => Ok(assignment),
            Some(GroupReply::Sync(SyncReply { error: Some(error), .. })) => Err(error.code),
            other => panic!("{id:?} is not an answered sync: {other:?}"),
        }
    }

    pub(super) fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        self.static_heartbeat(member, generation, None)
    }

    pub(super) fn static_heartbeat(
        &mut self,
        member: &str,
        generation_id: i32,
        instance: Option<&str>,
    ) -> ErrorCode {
        let reply = self.tell(GroupRequest::Heartbeat(HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id,
            member_id: member.into(),
            instance_id: instance.map(Arc::from),
        }));
        match reply {
            GroupReply::Heartbeat(result) => code(result),
            other => panic!("{other:?}"),
        }
    }

    /// Removes members: ids and instances.
    pub(super) fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let members = members.iter().map(|(id, instance)| LeavingMember {
            member_id: (*id).into(),
            instance_id: instance.map(Arc::from),
        });
        let request = LeaveRequest { group_id: GROUP.into(), members: members.collect() };
        match self.tell(GroupRequest::Leave(request)) {
            GroupReply::Leave(Ok(left)) => {
                left.into_iter().map(|left| code(left.error.map_or(Ok(()), Err))).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn describe(&mut self) -> DescribedGroup {
        match self.tell(GroupRequest::Describe { groups: vec![GROUP.into()] }) {
            GroupReply::Describe(mut groups) => groups.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// A stable group of this many dynamic members, the first of which leads. Returns their ids,
    /// in sorted order, and the generation.
    pub(super) fn stable(&mut self, count: usize) -> (Vec<Arc<str>>, i32) {
        let joins: Vec<_> = (0..count).map(|_| self.join(join_request(""))).collect();
        self.pass(self.config.classic_initial_rebalance_delay_ms * 2);
        let replies: Vec<_> = joins.into_iter().map(|id| self.joined(id)).collect();
        let leader = replies[0].leader.clone();
        let generation = replies[0].generation_id;
        let mut ids: Vec<_> = replies.iter().map(|reply| reply.member_id.clone()).collect();
        let give: Vec<_> = ids.iter().map(|id| (&**id, &**id)).collect();
        let sync = self.sync(&leader, generation, &give);
        assert_eq!(self.synced(sync).unwrap(), leader.as_bytes());
        ids.sort_by_key(|id| (*id != leader, id.clone()));
        for id in &ids[1..] {
            let sync = self.sync(id, generation, &[]);
            assert_eq!(self.synced(sync).unwrap(), id.as_bytes());
        }
        (ids, generation)
    }

    /// Commits one offset of [`GROUP`]; the error is that of the whole request, or of the
    /// partition.
    pub(super) fn commit(&mut self, by: (&str, i32), topic: &str, offset: i64) -> ErrorCode {
        let (member, generation) = by;
        let request = commit_request(member, generation, topic, offset);
        self.commit_request(request)
    }

    pub(super) fn commit_request(&mut self, request: CommitOffsetsRequest) -> ErrorCode {
        match self.tell(GroupRequest::CommitOffsets(request)) {
            GroupReply::CommitOffsets(Ok(topics)) => topics[0].partitions[0].1,
            GroupReply::CommitOffsets(Err(error)) => error.code,
            other => panic!("{other:?}"),
        }
    }

    /// All committed offsets of [`GROUP`].
    pub(super) fn offsets(&mut self) -> Vec<(String, i32, i64)> {
        let request = FetchOffsetsRequest {
            group_id: GROUP.into(),
            member_id: None,
            member_epoch: -1,
            topics: None,
            require_stable: true,
        };
        match self.tell(GroupRequest::FetchOffsets(request)) {
            GroupReply::FetchOffsets(Ok(topics)) => topics
                .iter()
                .flat_map(|topic| {
                    topic.partitions.iter().map(|partition| {
                        (topic.name.to_string(), partition.partition.0, partition.offset.0)
                    })
                })
                .collect(),
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn commit_request(
    member: &str,
    generation: i32,
    topic: &str,
    offset: i64,
) -> CommitOffsetsRequest {
    CommitOffsetsRequest {
        group_id: GROUP.into(),
        generation_or_epoch: generation,
        member_id: member.into(),
        instance_id: None,
        retention_ms: None,
        knows_member_epochs: true,
        transaction: None,
        topics: vec![CommitTopic {
            name: topic.into(),
            id: Uuid::ZERO,
            partitions: vec![CommitPartition {
                partition: PartitionIndex(0),
                offset: Offset(offset),
                leader_epoch: LeaderEpoch(3),
                metadata: Some("note".into()),
            }],
        }],
    }
}

pub(super) fn code(result: Result<(), GroupError>) -> ErrorCode {
    result.map_or_else(|error| error.code, |()| ErrorCode::None)
}
