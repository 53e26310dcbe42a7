//! A consumer of the classic protocol, eager, as simple as possible.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ottla::error::ErrorCode;
use ottla::machine::group::{
    ClassicProtocol, CommitOffsetsRequest, CommitPartition, CommitTopic, GroupReply, GroupRequest,
    HeartbeatRequest, JoinReply, JoinRequest, LeaveRequest, LeavingMember, SyncReply, SyncRequest,
};
use ottla::types::{LeaderEpoch, Offset, Uuid};

pub(super) const TOPIC: &str = "t";
pub(super) const PARTITIONS: u8 = 6;
const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 20_000;

/// The state of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is not running.
    Down,
    /// It wants to be in the next generation.
    Joining,
    /// It wants its assignment, and sends everyone's when it leads.
    Syncing(Vec<(Arc<str>, Bytes)>),
    /// It has one.
    Member,
    /// It is leaving.
    Leaving,
}

/// A consumer.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) group: Arc<str>,
    pub(super) instance: Option<Arc<str>>,
    /// Whether it is older than KIP-394 and KIP-814.
    old: bool,
    pub(super) phase: Phase,
    pub(super) member_id: Arc<str>,
    pub(super) generation: i32,
    pub(super) owned: BTreeSet<u8>,
    /// The request whose answer it is waiting for; answers to others are ignored.
    pub(super) waits_for: Option<u64>,
    /// How many times it was confirmed as a member since it last joined.
    pub(super) beats: u32,
}

impl Client {
    pub(super) fn new(group: &str, instance: Option<String>, old: bool) -> Self {
        Self {
            group: group.into(),
            instance: instance.map(Arc::from),
            old,
            phase: Phase::Down,
            member_id: "".into(),
            generation: -1,
            owned: BTreeSet::new(),
            waits_for: None,
            beats: 0,
        }
    }

    /// Its identity: a static member is the same through all its processes.
    pub(super) fn identity(&self) -> Arc<str> {
        self.instance.clone().unwrap_or_else(|| self.member_id.clone())
    }

    pub(super) fn start(&mut self) {
        self.forget();
        self.phase = Phase::Joining;
    }

    /// Without leaving.
    pub(super) fn crash(&mut self) {
        self.forget();
        self.phase = Phase::Down;
    }

    fn forget(&mut self) {
        self.member_id = "".into();
        self.waits_for = None;
        self.rejoin();
    }

    fn rejoin(&mut self) {
        self.generation = -1;
        self.owned.clear();
        self.beats = 0;
        self.phase = Phase::Joining;
    }

    /// How long it waits for an answer.
    pub(super) fn patience_ms(&self) -> i64 {
        match self.phase {
            Phase::Joining => i64::from(REBALANCE_MS) + 5_000,
            _ => 5_000,
        }
    }

    /// What it asks next. No other commit has this `offset`.
    pub(super) fn next_request(&self, commits: bool, offset: i64) -> Option<GroupRequest> {
        let request = match &self.phase {
            Phase::Down => return None,
            Phase::Joining => GroupRequest::Join(self.join_request()),
            Phase::Syncing(assignments) => GroupRequest::Sync(SyncRequest {
                group_id: self.group.clone(),
                generation_id: self.generation,
                member_id: self.member_id.clone(),
                instance_id: self.instance.clone(),
                protocol_type: Some("consumer".into()),
                protocol_name: Some("range".into()),
                assignments: assignments.clone(),
            }),
            Phase::Member if commits && !self.owned.is_empty() => {
                GroupRequest::CommitOffsets(self.commit_request(offset))
            }
            Phase::Member => GroupRequest::Heartbeat(HeartbeatRequest {
                group_id: self.group.clone(),
                generation_id: self.generation,
                member_id: self.member_id.clone(),
                instance_id: self.instance.clone(),
            }),
            Phase::Leaving => GroupRequest::Leave(LeaveRequest {
                group_id: self.group.clone(),
                members: vec![LeavingMember {
                    member_id: self.member_id.clone(),
                    instance_id: self.instance.clone(),
                }],
            }),
        };
        Some(request)
    }

    fn join_request(&self) -> JoinRequest {
        let mut metadata = vec![0, 0, 0, 0, 0, 1, 0, 1];
        metadata.extend(TOPIC.as_bytes());
        metadata.extend((-1_i32).to_be_bytes());
        JoinRequest {
            group_id: self.group.clone(),
            member_id: self.member_id.clone(),
            instance_id: self.instance.clone(),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            protocols: vec![ClassicProtocol { name: "range".into(), metadata: metadata.into() }],
            requires_known_member_id: !self.old && self.instance.is_none(),
            supports_skipping_assignment: !self.old,
        }
    }

    fn commit_request(&self, offset: i64) -> CommitOffsetsRequest {
        let partition = |&partition: &u8| CommitPartition {
            partition: i32::from(partition),
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(0),
            metadata: None,
        };
        CommitOffsetsRequest {
            group_id: self.group.clone(),
            generation_or_epoch: self.generation,
            member_id: self.member_id.clone(),
            instance_id: self.instance.clone(),
            retention_ms: None,
            knows_member_epochs: true,
            topics: vec![CommitTopic {
                name: TOPIC.into(),
                id: Uuid::ZERO,
                partitions: self.owned.iter().map(partition).collect(),
            }],
        }
    }

    /// Takes the answer it waited for.
    pub(super) fn answered(&mut self, reply: &GroupReply) {
        self.waits_for = None;
        match (&self.phase, reply) {
            (Phase::Joining, GroupReply::Join(reply)) => self.joined(reply),
            (Phase::Syncing(_), GroupReply::Sync(reply)) => self.synced(reply),
            (Phase::Member, GroupReply::Heartbeat(Ok(()))) => self.beats += 1,
            (
                Phase::Member,
                GroupReply::Heartbeat(Err(error)) | GroupReply::CommitOffsets(Err(error)),
            ) => self.failed(error.code),
            (Phase::Leaving, GroupReply::Leave(_)) => self.crash(),
            _ => {}
        }
    }

    fn joined(&mut self, reply: &JoinReply) {
        if let Some(error) = &reply.error {
            if error.code == ErrorCode::MemberIdRequired {
                self.member_id = reply.member_id.clone();
            } else {
                self.failed(error.code);
            }
            return;
        }
        self.member_id = reply.member_id.clone();
        self.generation = reply.generation_id;
        let mut assignments = Vec::new();
        if reply.leader == reply.member_id && !reply.skip_assignment {
            let count = reply.members.len();
            for (place, member) in reply.members.iter().enumerate() {
                let mine = |partition: &u8| usize::from(*partition) % count == place;
                let partitions: Vec<u8> = (0..PARTITIONS).filter(mine).collect();
                assignments.push((member.member_id.clone(), Bytes::from(partitions)));
            }
        }
        self.phase = Phase::Syncing(assignments);
    }

    fn synced(&mut self, reply: &SyncReply) {
        match &reply.error {
            Some(error) => self.failed(error.code),
            None => {
                self.owned = reply.assignment.iter().copied().collect();
                self.phase = Phase::Member;
            }
        }
    }

    fn failed(&mut self, code: ErrorCode) {
        match code {
            ErrorCode::RebalanceInProgress => self.rejoin(),
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => self.forget(),
            // Another process has taken its instance.
            ErrorCode::FencedInstanceId => self.crash(),
            other => panic!("{self:?} did not expect {other:?}"),
        }
    }
}
