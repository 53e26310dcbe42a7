//! What a member of a group is told when it starts, and what it tells its caller.

use std::time::Duration;

use crate::columnar::Decoded;
use crate::error::{Error, Result};
use crate::machine::client::group::assignor::Assignor;
use crate::types::{LeaderEpoch, Offset, TopicPartition};

/// What a group consumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Topics by name. One that does not exist is consumed once it does.
    Topics(Vec<String>),
    /// All topics whose whole name matches a regular expression, also those that come later;
    /// without Kafka's own. Brokers match it themselves where the consumer protocol allows it.
    Pattern(String),
}

/// How the members of a group agree (`group.protocol`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Members join and one of them assigns; every broker speaks it.
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
    /// The text is neither.
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

/// The settings of a member. The defaults are Kafka's unless said otherwise.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// `group.id`.
    pub group_id: String,
    /// What to consume.
    pub subscription: Subscription,
    /// `group.protocol`.
    pub protocol: GroupProtocol,
    /// `partition.assignment.strategy`, the preferred one first; for the classic protocol. The
    /// group uses one that all its members know, and rebalances in cooperation only if every
    /// assignor here can.
    pub assignors: Vec<Assignor>,
    /// `group.remote.assignor`: `uniform` or `range`, for the consumer protocol; none lets the
    /// coordinator choose.
    pub remote_assignor: Option<String>,
    /// `group.instance.id`: makes the member static (KIP-345): it keeps its partitions over a
    /// restart within the session timeout.
    pub instance_id: Option<String>,
    /// `session.timeout.ms`: after how long without a heartbeat the coordinator gives the
    /// partitions to others; for the classic protocol (the consumer protocol has it at the group).
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`; for the classic protocol.
    pub heartbeat_interval: Duration,
    /// How long a rebalance waits for the caller to give up its partitions; then they are lost.
    pub rebalance_timeout: Duration,
    /// `max.poll.interval.ms`: how long the caller may stay away between two polls before the
    /// member leaves the group. None by default, unlike in Kafka: heartbeats do not depend on the
    /// caller, and only who asks for a limit has one.
    pub max_poll_interval: Option<Duration>,
    /// `enable.auto.commit` and `auto.commit.interval.ms`: commit what was handed out and finished
    /// (the caller came back for more) in this interval, before a revocation and when closing.
    /// None by default, unlike in Kafka.
    pub auto_commit: Option<Duration>,
    /// Ends once every partition is read up to the end that it had when it was assigned.
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

    /// Checks what contradicts each other.
    ///
    /// # Errors
    ///
    /// Names the setting and the remedy.
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
    /// Rows, with how far each partition was read by them.
    Batch(Decoded),
    /// These partitions came to the caller. Their positions are set; the caller may seek.
    Assigned(Vec<TopicPartition>),
    /// These partitions go to another member as soon as the caller polls again or calls
    /// [`GroupConsumer::acknowledge_revocation`](super::GroupConsumer::acknowledge_revocation).
    /// Until then they can be committed; no more rows of them come.
    Revoked(Vec<TopicPartition>),
    /// These partitions are gone already: another member may have them. Committing them is an
    /// error.
    Lost {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// How that came about, and the remedy.
        reason: String,
    },
    /// The member has been waiting for others for some seconds, such as one that died and is a
    /// member until its session ends: what it waits for, in a few words. Nothing: that is over.
    Waiting(Option<String>),
    /// Everything was handed out up to the ends that were pinned
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
    /// What the committer wants to remember; at most `offset.metadata.max.bytes`.
    pub metadata: String,
}

impl From<Offset> for OffsetAndMetadata {
    fn from(offset: Offset) -> Self {
        Self { offset, leader_epoch: LeaderEpoch::UNKNOWN, metadata: String::new() }
    }
}

/// Who a member is to the coordinator; a transaction names it with its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// `group.id`.
    pub group_id: String,
    /// What the coordinator calls the member; empty before it joined.
    pub member_id: String,
    /// The generation, or the member epoch of the consumer protocol; -1 before it joined.
    pub generation: i32,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
}
