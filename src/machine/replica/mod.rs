//! The role of this broker's replica of a partition, and the high watermark that follows from it.
//!
//! Why: a consumer may only see records that no single failure can take back, and an `acks=all`
//! reply may only be sent for such records. Both are the same line, the high watermark. Who moves it, and
//! who may append at all, is decided by the controller's elections: the machine turns what the metadata
//! says into a [`Token`], which whoever appends must hold.
//!
//! Invariants:
//! - `HW-1` the high watermark never moves back, but when an unclean election cuts the log below it.
//! - `HW-2` a leader moves it only to where every member of the ISR has come, as far as is known, where the leader's
//!   own end is its log end, or its synced end when the partition's durability is fsync; the rules are in
//!   [`leader`]. A follower moves it to where its leader says that it is, as far as its own log reaches. It is never
//!   beyond the log end.
//! - `HW-3` it is never before the log start offset.
//! - `ROLE-1` the leader epoch never goes back, and within an epoch the role stays.
//! - `ROLE-2` only who does not lead cuts its log, and in an epoch only before it has copied anything from that
//!   epoch's leader, whose log does not change what it has.
//!
//! ```text
//! log start <= high watermark <= synced end (fsync) <= log end
//!                             <= end of each follower in the ISR
//!
//!            ┌───────────── each arrow is a later epoch ─────────────┐
//!            v                                                       v
//! leader of epoch n  <──>  follower of epoch n  <──>  offline (no leader, or not told yet)
//! ```
//!
//! Pure: the shell reports metadata, appends, syncs and fetches of followers with the time, and publishes what comes
//! back.

mod isr;
mod leader;
#[cfg(any(test, feature = "sim"))]
pub mod mistakes;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::leader::Leader;
#[cfg(any(test, feature = "sim"))]
use self::mistakes::{Mistake, is_planted};
use crate::machine::metadata::{MetadataImage, PartitionImage};
use crate::types::{BrokerEpoch, LeaderEpoch, NodeId, Offset};

pub use isr::{IsrAnswer, IsrMember, IsrRequest};
pub use leader::{FetchRefusal, FollowerFetch};

/// What the leader's own copy counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalDurability {
    /// What was written counts; the operating system has it (`durability=os`, or replicated).
    Written,
    /// What was synced counts (`durability=fsync`, or one copy only).
    Synced,
}

/// What a replica is to its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It appends what producers bring, and decides what is committed.
    Leader,
    /// It copies the leader.
    Follower,
    /// The partition has no leader, or the metadata has not said anything yet.
    Offline,
}

/// A role in an epoch. Only the machine makes one ([`Replica::assign`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    role: Role,
    epoch: LeaderEpoch,
}

impl Token {
    /// Before the metadata has said anything.
    pub const NONE: Self = Self { role: Role::Offline, epoch: LeaderEpoch::UNKNOWN };

    /// What the metadata makes of `node`.
    #[must_use]
    pub fn of(node: NodeId, image: &PartitionImage) -> Self {
        let role = match image.leader {
            NodeId::NONE => Role::Offline,
            leader if leader == node => Role::Leader,
            _ => Role::Follower,
        };
        Self { role, epoch: image.leader_epoch }
    }

    /// The role.
    #[must_use]
    pub const fn role(self) -> Role {
        self.role
    }

    /// The epoch of the partition's leader, whoever that is.
    #[must_use]
    pub const fn epoch(self) -> LeaderEpoch {
        self.epoch
    }

    /// The epoch that appends belong to, if this is a leader's token.
    #[must_use]
    pub const fn leads(self) -> Option<LeaderEpoch> {
        match self.role {
            Role::Leader => Some(self.epoch),
            Role::Follower | Role::Offline => None,
        }
    }
}

/// What the settings ask of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What the leader's own copy counts for.
    pub durability: LocalDurability,
    /// How many replicas must be in sync for anything to be committed: `min.insync.replicas`, at most as many as there
    /// are.
    pub min_in_sync: usize,
    /// How long a follower may lag: `replica.lag.time.max.ms`.
    pub lag_time_max: Duration,
}

/// What is known of the brokers.
pub trait Brokers {
    /// The registration of a broker; none if there is none, or if it is fenced or stopping.
    fn active_epoch(&self, node: NodeId) -> Option<BrokerEpoch>;
}

impl Brokers for MetadataImage {
    fn active_epoch(&self, node: NodeId) -> Option<BrokerEpoch> {
        self.broker(node).filter(|broker| broker.is_active()).map(|broker| broker.epoch)
    }
}

/// What of a log was found on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the log starts.
    pub log_start: Offset,
    /// Where it ends.
    pub log_end: Offset,
    /// How far it is synced.
    pub synced_end: Offset,
    /// The high watermark when it was last saved, which may be beyond what a crash left.
    pub high_watermark: Offset,
}

/// A contradiction between the metadata and what the replica was told before (`ROLE-1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WentBack {
    /// What the replica is.
    pub current: Token,
    /// What it was told to become.
    pub asked: Token,
}

/// What came of something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Effects {
    /// The high watermark, when it moved.
    pub high_watermark: Option<Offset>,
    /// What to ask the controller for.
    pub request: Option<IsrRequest>,
}

/// What a leader tells its follower with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FromLeader {
    /// Its high watermark.
    pub high_watermark: Offset,
    /// Where its log starts.
    pub log_start: Offset,
    /// Where its log starts on its disk, if it has a tier and says so.
    pub local_start: Option<Offset>,
}

/// Where the log of a follower starts, by what its leader tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Starts {
    /// Altogether.
    pub log: Offset,
    /// On this disk, where the tier has what lies before.
    pub local: Offset,
}

impl Starts {
    const UNKNOWN: Self = Self { log: Offset::ZERO, local: Offset::ZERO };
}

/// Who asks for a log to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// A leader from the ISR: it has everything that is committed.
    Clean,
    /// A leader that was elected although it was not in the ISR: it may lack what was committed.
    Unclean,
}

/// Why a log is not cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TruncationRefusal {
    /// `ROLE-2`: it leads, or has copied from the leader of this epoch.
    Settled(Token),
    /// `HW-1`: what would go is committed.
    Committed(Offset),
}

/// What a replica is, with what it knows in that role.
#[derive(Debug)]
enum Part {
    Leader(Leader),
    /// Also a replica without a leader.
    Follower {
        /// Whether anything was appended in this epoch.
        has_copied: bool,
    },
}

/// One replica's view of its partition.
#[derive(Debug)]
pub struct Replica {
    node: NodeId,
    token: Token,
    rules: Rules,
    log_end: Offset,
    synced_end: Offset,
    high_watermark: Offset,
    part: Part,
}

impl Replica {
    /// A replica that the metadata has said nothing about yet.
    ///
    /// The saved high watermark is trusted as far as the log reaches (`HW-2`, `HW-3`).
    pub fn new(node: NodeId, rules: Rules, found: Found) -> Self {
        Self {
            node,
            token: Token::NONE,
            rules,
            log_end: found.log_end,
            synced_end: found.synced_end.min(found.log_end),
            high_watermark: found.high_watermark.max(found.log_start).min(found.log_end),
            part: Part::Follower { has_copied: false },
        }
    }

    /// The role and the epoch.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The line up to which consumers may read.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// What this replica has for sure, as its durability defines it.
    pub fn stored_end(&self) -> Offset {
        match self.rules.durability {
            LocalDurability::Written => self.log_end,
            LocalDurability::Synced => self.synced_end,
        }
    }

    /// Whether an append must be followed by a sync for it to count.
    pub fn needs_sync(&self) -> bool {
        self.stored_end() < self.log_end
    }

    /// How many replicas are in sync, as far as the controller has said; none if this replica does not lead.
    pub fn in_sync(&self) -> Option<usize> {
        match &self.part {
            Part::Leader(leader) => Some(leader.isr().committed().len()),
            Part::Follower { .. } => None,
        }
    }

    /// Whether a replica is in the ISR, as far as the controller has said; false if this replica does not lead.
    pub fn has_in_sync(&self, node: NodeId) -> bool {
        match &self.part {
            Part::Leader(leader) => leader.isr().committed().contains(&node),
            Part::Follower { .. } => false,
        }
    }

    /// Whether every follower whose broker is active has deleted what lies before `offset`; false if this replica does not
    /// lead. Like Kafka's low watermark, this is not only about the ISR: whoever comes back later starts at the leader's
    /// start anyway.
    pub fn have_deleted(&self, offset: Offset) -> bool {
        match &self.part {
            Part::Leader(leader) => leader.have_deleted(offset),
            Part::Follower { .. } => false,
        }
    }

    /// Which of some brokers a consumer should read from at `offset`, when this replica leads; see KIP-392. Only those in
    /// the ISR: one that lags would let the consumer fall behind, again and again.
    pub fn nearest(&self, nodes: &[NodeId], offset: Offset) -> Option<NodeId> {
        match &self.part {
            Part::Leader(leader) => leader.nearest(nodes, offset),
            Part::Follower { .. } => None,
        }
    }

    /// The metadata changed: role, epoch, replicas, the members of the ISR, or who is registered. What is known of the
    /// followers is forgotten in a new epoch only.
    ///
    /// # Errors
    ///
    /// The metadata contradicts what it said before (`ROLE-1`); nothing is changed then.
    pub fn assign(
        &mut self,
        image: &PartitionImage,
        brokers: &impl Brokers,
        now: Duration,
    ) -> Result<Effects, WentBack> {
        let (current, asked) = (self.token, Token::of(self.node, image));
        if asked.epoch < current.epoch || asked.epoch == current.epoch && asked.role != current.role
        {
            return Err(WentBack { current, asked });
        }
        match &mut self.part {
            Part::Leader(leader) if asked == current => leader.update(image, brokers, now),
            Part::Follower { .. } if asked == current => {}
            _ if asked.leads().is_some() => {
                let of = (self.node, image);
                self.part = Part::Leader(Leader::new(of, self.log_end, brokers, now));
            }
            _ => self.part = Part::Follower { has_copied: false },
        }
        self.token = asked;
        Ok(self.advance())
    }

    /// The settings changed. The high watermark stays where it is when the new rules would put it further back.
    pub fn set_rules(&mut self, rules: Rules) -> Effects {
        self.rules = rules;
        self.advance()
    }

    /// This broker appended up to `log_end`.
    ///
    /// # Panics
    ///
    /// When the log has become shorter, which only [`Replica::truncated`] makes it.
    pub fn appended(&mut self, log_end: Offset) -> Effects {
        assert!(log_end >= self.log_end, "the log went back from {} to {log_end}", self.log_end);
        match &mut self.part {
            Part::Follower { has_copied } => *has_copied |= log_end > self.log_end,
            Part::Leader(leader) if log_end > self.log_end => leader.appended(self.log_end),
            Part::Leader(_) => {}
        }
        self.log_end = log_end;
        self.advance()
    }

    /// Everything before `end` is on stable storage.
    pub fn synced(&mut self, end: Offset) -> Effects {
        self.synced_end = self.synced_end.max(end.min(self.log_end));
        self.advance()
    }

    /// A follower fetches: it has everything before the offset that it asks for.
    ///
    /// # Errors
    ///
    /// The fetch says nothing of a follower's log; nothing is changed then.
    pub fn fetched(
        &mut self,
        fetch: &FollowerFetch,
        now: Duration,
    ) -> Result<Effects, FetchRefusal> {
        let Part::Leader(leader) = &mut self.part else { return Err(FetchRefusal::NotLeader) };
        let request = leader.fetched(fetch, self.high_watermark, now)?;
        Ok(Effects { request, ..self.advance() })
    }

    /// Time has passed: members of the ISR may lag, and others no longer hold the high watermark. To be called
    /// several times in a `replica.lag.time.max.ms`.
    pub fn tick(&mut self, now: Duration) -> Effects {
        let Part::Leader(leader) = &mut self.part else { return Effects::default() };
        let request = leader.without_lagging(self.log_end, now, &self.rules);
        Effects { request, ..self.advance() }
    }

    /// The controller answered a request for another ISR. The request comes back when it is to be sent once more.
    pub fn isr_answered(&mut self, request: &IsrRequest, answer: IsrAnswer) -> Effects {
        let Part::Leader(leader) = &mut self.part else { return Effects::default() };
        let request = leader.answered(request, answer);
        Effects { request, ..self.advance() }
    }

    /// The leader answered a fetch of this follower, whose records were appended. Returns where the log starts from
    /// now on, too.
    pub fn heard(&mut self, from: FromLeader) -> (Effects, Starts) {
        let Part::Follower { .. } = self.part else {
            return (Effects::default(), Starts::UNKNOWN);
        };
        let reached = from.high_watermark.min(self.log_end);
        #[cfg(any(test, feature = "sim"))]
        let reached =
            if is_planted(Mistake::BelievesLeader) { from.high_watermark } else { reached };
        let high_watermark = (reached > self.high_watermark).then_some(reached);
        self.high_watermark = self.high_watermark.max(reached);
        // A leader deletes nothing that is not committed.
        let log = from.log_start.min(self.high_watermark);
        let local = from.local_start.map_or(log, |start| start.min(self.high_watermark));
        (Effects { high_watermark, request: None }, Starts { log, local })
    }

    /// Whether the log may be cut at `end`.
    ///
    /// # Errors
    ///
    /// It may not (`ROLE-2`, `HW-1`).
    pub fn check_truncation(
        &self,
        end: Offset,
        truncation: Truncation,
    ) -> Result<(), TruncationRefusal> {
        // To start over beyond its end is no cut: the leader has deleted what it would have copied next.
        let settled = match self.part {
            Part::Leader(_) => true,
            Part::Follower { has_copied } => has_copied && end <= self.log_end,
        };
        if settled {
            return Err(TruncationRefusal::Settled(self.token));
        }
        let committed = end < self.high_watermark && truncation == Truncation::Clean;
        #[cfg(any(test, feature = "sim"))]
        let committed = committed && !is_planted(Mistake::CutsCommitted);
        if committed { Err(TruncationRefusal::Committed(self.high_watermark)) } else { Ok(()) }
    }

    /// The log was cut at `end`, or starts over, empty, at `end`: beyond its end, too.
    ///
    /// # Errors
    ///
    /// As [`Replica::check_truncation`], which is to be asked before.
    pub fn truncated(
        &mut self,
        end: Offset,
        truncation: Truncation,
    ) -> Result<(), TruncationRefusal> {
        self.check_truncation(end, truncation)?;
        if end > self.log_end {
            self.high_watermark = end;
        }
        self.log_end = end;
        self.synced_end = self.synced_end.min(end);
        self.high_watermark = self.high_watermark.min(end);
        Ok(())
    }

    fn advance(&mut self) -> Effects {
        let Part::Leader(leader) = &self.part else { return Effects::default() };
        let line = leader.line(self.stored_end(), self.log_end, &self.rules);
        let Some(line) = line.filter(|line| *line > self.high_watermark) else {
            return Effects::default();
        };
        assert!(line <= self.log_end, "HW-2: {line} is beyond the log end {}", self.log_end);
        self.high_watermark = line;
        Effects { high_watermark: Some(line), request: None }
    }
}
