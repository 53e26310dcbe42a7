//! Membership of a consumer group: who a member is to its coordinator, which partitions are its
//! own, and what it must do next.
//!
//! ```text
//!            Event (answers, topics, the caller, ticks)    Effect (requests, hand-overs, questions)
//!   shell ───────────────────────────────────► machine ───────────────────────────────────► shell
//! ```
//!
//! - [`classic`]: join, sync, heartbeat, leave; eager and cooperative.
//! - [`consumer`]: the heartbeats of KIP-848.
//! - [`assignor`]: who gets which partition, for the leader of a classic group.
//! - [`handover`]: what the caller was told of its partitions, and what it still has to hear.
//! - [`waiting`]: when to find out, and to say, that the member waits for others.
//!
//! Invariants of both machines:
//! - MEM-1: the answer of at most one request is waited for; that of a leave never is.
//! - MEM-2: a partition is given up towards the coordinator only after [`Event::Released`], or
//!   after it was declared lost: until then the caller may still finish and commit what it has read
//!   from it.
//! - MEM-3: an answer to a request that nobody is waiting for any more changes nothing.
//! - MEM-4: nothing depends on the caller's polls, unless the caller set a limit to the time
//!   between them.
//!
//! The shell is `crate::client::consumer::group`: it finds the coordinator, encodes the requests
//! and reports every answer, a broken connection included, as a plain value.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod assignor;
pub mod classic;
pub mod consumer;
pub mod handover;
pub mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::assignor::{Assignment, Assignor, MemberSubscription, Members, Topics};
use super::backoff::Backoff;
use crate::error::ErrorCode;
use crate::types::{PartitionIndex, TimestampMs, TopicId, TopicPartition};

/// A set of partitions by name.
pub type Partitions = BTreeSet<TopicPartition>;

/// A set of partitions by the id of their topic.
pub type PartitionIds = BTreeSet<(TopicId, PartitionIndex)>;

/// The settings of a member, for both protocols.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `group.instance.id`.
    pub instance_id: Option<String>,
    /// `client.rack`.
    pub rack: Option<String>,
    /// The assignors of the classic protocol, the preferred one first.
    pub assignors: Vec<Assignor>,
    /// `group.remote.assignor`.
    pub remote_assignor: Option<String>,
    /// `heartbeat.interval.ms` of the classic protocol; for the other one the coordinator decides
    /// it.
    pub heartbeat_ms: i64,
    /// How long the coordinator waits for members in a rebalance.
    pub rebalance_ms: i64,
    /// How long the caller may stay away.
    pub poll_ms_max: Option<i64>,
    /// How long to wait after a failure.
    pub backoff: Backoff,
}

/// Distinguishes the current request from older ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempt(u64);

impl Attempt {
    /// Makes earlier answers stale.
    fn next(&mut self) -> Self {
        self.0 += 1;
        *self
    }
}

/// What a member wants to consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// These topics, whether they exist or not.
    Topics(BTreeSet<Arc<str>>),
    /// Whatever the coordinator finds for a regular expression; only in the consumer protocol.
    Pattern(String),
}

/// What happens to a member.
#[derive(Clone, Debug)]
pub enum Event {
    /// What to consume, initially or from now on.
    Wanted(Wanted),
    /// A request was answered, or failed.
    Answered {
        /// The request.
        attempt: Attempt,
        /// The outcome.
        answer: Result<Answer, Refusal>,
    },
    /// The topics that were asked for by [`Effect::LookUp`], or again because they changed.
    Topics(Topics),
    /// The names that were asked for by [`Effect::Resolve`], as far as they are known.
    Names(BTreeMap<TopicId, Arc<str>>),
    /// The caller gave up what was to be revoked.
    Released,
    /// The caller polled.
    Seen,
    /// The caller is leaving.
    Close,
    /// Time passed.
    Tick,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The coordinator's code, or that of a broken connection.
    pub code: ErrorCode,
    /// The description.
    pub detail: String,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The member is in the group.
    Joined(Joined),
    /// It must join again under this member id (KIP-394).
    MemberIdRequired(String),
    /// The member's part of the assignment.
    Synced(Partitions),
    /// A heartbeat of the classic protocol was accepted.
    Heard,
    /// A heartbeat of the consumer protocol was accepted.
    Beaten(Beaten),
}

/// The answer to a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The member id.
    pub member_id: String,
    /// The generation.
    pub generation: i32,
    /// The assignor that the coordinator chose.
    pub assignor: String,
    /// All members, for the leader.
    pub members: Option<Members>,
    /// The leader keeps the existing assignment (KIP-814).
    pub skip_assignment: bool,
}

/// The answer to a heartbeat of the consumer protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    /// The member epoch from now on.
    pub epoch: i32,
    /// When the next heartbeat is due.
    pub interval_ms: i64,
    /// The assignment, if it is new.
    pub assignment: Option<PartitionIds>,
}

/// What a member asks its shell to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a request to the coordinator.
    Send {
        /// To be given back with the answer.
        attempt: Attempt,
        /// What to send.
        request: Request,
    },
    /// Find out partitions and racks of topics; the answer is [`Event::Topics`].
    LookUp(BTreeSet<Arc<str>>),
    /// Find out the names of topics; the answer is [`Event::Names`].
    Resolve(BTreeSet<TopicId>),
    /// These partitions are the caller's from now on.
    Assign(Partitions),
    /// The caller must give these up; [`Event::Released`] says that it has.
    Revoke(Partitions),
    /// These are lost, whatever the caller does with them.
    Lose {
        /// The partitions.
        partitions: Partitions,
        /// The reason.
        reason: String,
    },
    /// The membership ends with an error.
    Fail(Refusal),
}

/// A request to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// JoinGroup.
    Join {
        /// Empty for a new member.
        member_id: String,
        /// Per assignor what the member says.
        protocols: Vec<(Assignor, MemberSubscription)>,
        /// Why (KIP-800).
        reason: &'static str,
    },
    /// SyncGroup.
    Sync {
        /// The member id.
        member_id: String,
        /// The generation.
        generation: i32,
        /// The assignor in use.
        assignor: Assignor,
        /// The leader's assignment; empty from others.
        assignment: Assignment,
    },
    /// Heartbeat.
    Heartbeat {
        /// The member id.
        member_id: String,
        /// The generation.
        generation: i32,
    },
    /// LeaveGroup.
    Leave {
        /// The member id.
        member_id: String,
        /// Why (KIP-800).
        reason: &'static str,
    },
    /// ConsumerGroupHeartbeat.
    Beat(Beat),
}

/// A heartbeat of the consumer protocol; what is `None` did not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The member id.
    pub member_id: String,
    /// 0 to join, -1 to leave, -2 to leave for a while (static members), else the member epoch.
    pub epoch: i32,
    /// The rack and the rebalance timeout, when joining.
    pub joining: bool,
    /// What the member wants.
    pub wanted: Option<Wanted>,
    /// What the member holds.
    pub owned: Option<PartitionIds>,
}

/// Who the member is to its coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Empty before the coordinator gave one.
    pub member_id: String,
    /// The generation or the member epoch; -1 before there is one.
    pub generation: i32,
}

/// When the caller last polled, for the limit that it set.
#[derive(Clone, Copy, Debug)]
struct Liveness {
    seen_at: TimestampMs,
    limit_ms: Option<i64>,
}

impl Liveness {
    /// When the caller will have been away for too long.
    fn deadline(&self) -> Option<TimestampMs> {
        self.limit_ms.map(|limit| self.seen_at.plus(limit))
    }

    fn is_over(&self, now: TimestampMs) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    fn reason(&self) -> String {
        format!(
            "the caller did not poll for {} ms (max.poll.interval.ms); poll more often, or leave \
             the limit away",
            self.limit_ms.unwrap_or(0)
        )
    }
}

/// How long the caller may take to give partitions up so that the coordinator still hears of it
/// in time.
fn patience_ms(settings: &Settings, heartbeat_ms: i64) -> i64 {
    (settings.rebalance_ms - heartbeat_ms).max(settings.rebalance_ms / 2)
}
