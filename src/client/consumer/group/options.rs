//! The options of a group member, and what it reports to its caller.

use std::time::Duration;

use crate::columnar::Decoded;
use crate::error::{Error, Result};
use crate::machine::client::group::assignor::Assignor;
use crate::types::{LeaderEpoch, Offset, TopicPartition};

/// What a group consumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Topics by name. One that does not exist is consumed once it is created.
    Topics(Vec<String>),
    /// All topics whose whole name matches a regular expression, including later ones, but not
    /// Kafka's internal topics. Brokers match it themselves where the consumer protocol allows it.
    Pattern(String),
}

/// How the members of a group agree (`group.protocol`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Members join and one of them assigns; every broker supports it.
    #[default]
    Classic,
    /// The coordinator assigns (KIP-848); Kafka 4 and ottla.
    Consumer,
}

impl GroupProtocol {
    /// Reads `classic` or `consumer`.
    ///
    /// # Errors
    ///
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "classic" => Ok(Self::Classic),
            "consumer" => Ok(Self::Consumer),
            other => {
                Err(Error::invalid(format!("group.protocol={other}: use classic or consumer")))
            }
        }
    }
}

/// The settings of a member. The defaults are Kafka's unless stated otherwise.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// `group.id`.
    pub group_id: String,
    /// What to consume.
    pub subscription: Subscription,
    /// `group.protocol`.
    pub protocol: GroupProtocol,
    /// `partition.assignment.strategy`, the preferred one first; for the classic protocol. The
    /// group uses one that all its members know, and rebalances cooperatively only if every
    /// assignor here can.
    pub assignors: Vec<Assignor>,
    /// `group.remote.assignor`: `uniform` or `range`, for the consumer protocol; with none, the
    /// coordinator chooses.
    pub remote_assignor: Option<String>,
    /// `group.instance.id`: makes the member static (KIP-345): it keeps its partitions across a
    /// restart within the session timeout.
    pub instance_id: Option<String>,
    /// `session.timeout.ms`: after how long without a heartbeat the coordinator gives the
    /// partitions to other members; for the classic protocol (in the consumer protocol it is a
    /// setting of the group).
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`; for the classic protocol.
    pub heartbeat_interval: Duration,
    /// How long a rebalance waits for the caller to release its partitions; after that they are
    /// lost.
    pub rebalance_timeout: Duration,
    /// `max.poll.interval.ms`: how long may pass between two polls before the member leaves the
    /// group. None by default, unlike in Kafka: heartbeats do not depend on the caller, so there is
    /// a limit only if one is set.
    pub max_poll_interval: Option<Duration>,
    /// `enable.auto.commit` and `auto.commit.interval.ms`: commit what was handed out and finished
    /// (the caller has polled again) at this interval, before a revocation and when closing. None
    /// by default, unlike in Kafka.
    pub auto_commit: Option<Duration>,
    /// Stop once every partition has been read up to the end that it had when it was assigned.
    pub until_caught_up: bool,
}

impl GroupOptions {
    /// The defaults.
    pub fn new(group_id: impl Into<String>, subscription: Subscription) -> Self {
        Self {
            group_id: group_id.into(),
            subscription,
            protocol: GroupProtocol::Classic,
            assignors: vec![Assignor::Range, Assignor::CooperativeSticky],
            remote_assignor: None,
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(300),
            max_poll_interval: None,
            auto_commit: None,
            until_caught_up: false,
        }
    }

    /// Checks for settings that contradict each other.
    ///
    /// # Errors
    ///
    /// An error that names the setting and the remedy.
    pub fn check(&self) -> Result<()> {
        if self.group_id.is_empty() {
            return Err(Error::invalid("group.id is empty"));
        }
        match &self.subscription {
            Subscription::Topics(topics) if topics.is_empty() => {
                return Err(Error::invalid("a group consumer needs at least one topic"));
            }
            Subscription::Topics(_) => {}
            Subscription::Pattern(pattern) => drop(whole_name(pattern)?),
        }
        if self.protocol == GroupProtocol::Classic {
            if self.assignors.is_empty() {
                return Err(Error::invalid("partition.assignment.strategy is empty"));
            }
            if self.remote_assignor.is_some() {
                return Err(Error::invalid(
                    "group.remote.assignor is for group.protocol=consumer; use \
                     partition.assignment.strategy with group.protocol=classic",
                ));
            }
        }
        if self.heartbeat_interval >= self.session_timeout {
            return Err(Error::invalid("heartbeat.interval.ms must be below session.timeout.ms"));
        }
        if self.instance_id.as_ref().is_some_and(String::is_empty) {
            return Err(Error::invalid("group.instance.id is empty"));
        }
        Ok(())
    }
}

/// A pattern that must match a whole name, as in Java.
pub(crate) fn whole_name(pattern: &str) -> Result<regex::Regex> {
    regex::Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|error| Error::invalid(format!("topic pattern {pattern:?}: {error}")))
}

/// What [`GroupConsumer::poll`](super::GroupConsumer::poll) hands out.
#[derive(Clone, Debug)]
pub enum Polled {
    /// Rows, with each partition's progress.
    Batch(Decoded),
    /// These partitions were assigned. Their positions are set; the caller may seek.
    Assigned(Vec<TopicPartition>),
    /// These partitions go to another member as soon as the caller polls again or calls
    /// [`GroupConsumer::acknowledge_revocation`](super::GroupConsumer::acknowledge_revocation).
    /// Until then they can be committed; no more of their rows are handed out.
    Revoked(Vec<TopicPartition>),
    /// These partitions are already gone: another member may have them. Committing them is an
    /// error.
    Lost {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// How they were lost, and the remedy.
        reason: String,
    },
    /// The member has been waiting for others for some seconds, for example for one that died and
    /// remains a member until its session ends: what it waits for, in a few words. `None`: the wait
    /// is over.
    Waiting(Option<String>),
    /// Everything has been handed out up to the pinned ends
    /// ([`GroupOptions::until_caught_up`]).
    CaughtUp,
}

/// A committed offset, or one to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The leader epoch of the record before it, or unknown.
    pub leader_epoch: LeaderEpoch,
    /// Metadata of the caller; at most `offset.metadata.max.bytes`.
    pub metadata: String,
}

impl From<Offset> for OffsetAndMetadata {
    fn from(offset: Offset) -> Self {
        Self { offset, leader_epoch: LeaderEpoch::UNKNOWN, metadata: String::new() }
    }
}

/// The identity of a member for the coordinator; a transaction sends it with its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// `group.id`.
    pub group_id: String,
    /// The id that the coordinator gave the member; empty before it has joined.
    pub member_id: String,
    /// The generation, or the member epoch of the consumer protocol; -1 before it has joined.
    pub generation: i32,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
}
