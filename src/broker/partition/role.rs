//! What this broker is to a partition, and how that changes.
//!
//! [`crate::machine::replica`] decides; here its decisions become visible to others, in one order: first the
//! log is held, so that no append is half done, then the epoch's start is noted in it, then those who wait for
//! what a leader would have given them are told, and then the token is handed out. An append takes its epoch from
//! the token that lies with the log, so it is never of an epoch that has ended.
//!
//! Invariants:
//! - `TURN-1` role and epoch change in `Partition::turn` only; [`Partition::close`] ends both for good.
//! - `TURN-2` whoever is not the leader has nobody who waits for the high watermark.

use std::sync::Arc;

use super::{Assignment, Partition, State, Waiting, rules};
use crate::broker::words;
use crate::config::TopicConfig;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, ErrorCode, Result};
use crate::log::Log;
use crate::machine::replica::{Role, Token, WentBack};
use crate::types::{LeaderEpoch, NodeId, Offset, TopicPartition};

/// The log, and the right to append to it.
pub(super) struct Ledger {
    pub(super) log: Log,
    pub(super) token: Token,
}

/// What anybody may ask of a partition without waiting for anybody; replaced as a whole.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) token: Token,
    pub(super) config: Arc<TopicConfig>,
    /// Where the epoch starts that is led here.
    pub(super) epoch_start: Offset,
    /// Who else has a replica.
    pub(super) followers: Arc<[NodeId]>,
    /// How many replicas are in sync.
    pub(super) in_sync: usize,
    /// How many must be for `acks=all`.
    pub(super) min_in_sync: usize,
    /// Why it was closed.
    pub(super) closed: Option<ErrorCode>,
}

impl Standing {
    /// Before the metadata has said anything.
    pub(super) fn new(config: Arc<TopicConfig>) -> Self {
        Self {
            token: Token::NONE,
            config,
            epoch_start: Offset::ZERO,
            followers: Arc::default(),
            in_sync: 0,
            min_in_sync: 0,
            closed: None,
        }
    }

    /// The epoch in which this broker leads the partition.
    pub(super) fn leads(&self, name: &TopicPartition) -> Result<LeaderEpoch> {
        if let Some(code) = self.closed {
            return Err(words::partition_closed(code, name));
        }
        let refused = || words::not_led(ErrorCode::NotLeaderOrFollower, name);
        self.token.leads().ok_or_else(refused)
    }

    /// Fails unless this broker leads the partition or copies its leader.
    pub(super) fn has_leader(&self, name: &TopicPartition) -> Result<()> {
        if let Some(code) = self.closed {
            return Err(words::partition_closed(code, name));
        }
        match self.token.role() {
            Role::Leader | Role::Follower => Ok(()),
            Role::Offline => Err(words::no_leader(ErrorCode::NotLeaderOrFollower, name)),
        }
    }

    /// Fails when a client assumes another epoch (KIP-320).
    pub(super) fn check_epoch(&self, epoch: LeaderEpoch, name: &TopicPartition) -> Result<()> {
        let current = self.token.epoch();
        let code = match epoch {
            LeaderEpoch::UNKNOWN => return Ok(()),
            epoch if epoch == current => return Ok(()),
            epoch if epoch < current => ErrorCode::FencedLeaderEpoch,
            _ => ErrorCode::UnknownLeaderEpoch,
        };
        Err(words::other_epoch(code, name, current, epoch))
    }

    /// Fails as long as this leader does not know yet whether everything that was committed before it led is: clients may
    /// have seen a later end.
    pub(super) fn check_end(&self, high_watermark: Offset, name: &TopicPartition) -> Result<()> {
        if high_watermark >= self.epoch_start {
            return Ok(());
        }
        let context = format!("the leader of {name} does not know yet how far it is committed");
        Err(Error::kafka(ErrorCode::OffsetNotAvailable, context))
    }

    /// Fails when `acks=all` would not mean what the topic asks for.
    pub(super) fn check_in_sync(&self, name: &TopicPartition) -> Result<()> {
        if self.in_sync >= self.min_in_sync {
            return Ok(());
        }
        let (in_sync, wanted) = (self.in_sync, self.min_in_sync);
        let context = format!("{name} has {in_sync} replicas in sync, not {wanted}");
        Err(Error::kafka(ErrorCode::NotEnoughReplicas, context))
    }
}

impl Partition {
    /// The epoch in which this broker leads. Fails unless it leads the partition and is not closed.
    ///
    /// # Errors
    ///
    /// `NOT_LEADER_OR_FOLLOWER`, or why it was closed.
    pub(in crate::broker) fn led(&self) -> Result<LeaderEpoch> {
        self.health.check()?;
        self.standing.load().leads(&self.name)
    }

    /// Fails as [`Self::led`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Self::led`].
    pub(in crate::broker) fn check_leader(&self) -> Result<()> {
        self.led()?;
        Ok(())
    }

    /// Applies a new state from the metadata image. May wait for an append if role or epoch change, not
    /// otherwise.
    pub(in crate::broker) fn update(&self, assignment: &Assignment<'_>) {
        if let Err(error) = self.take_role(assignment)
            && self.standing.load().closed.is_none()
        {
            let partition = &self.name;
            tracing::error!(%partition, error = %error.chain(), "a change of leadership failed");
            self.close(ErrorCode::KafkaStorageError);
        }
        self.parking.wake(&self.key);
    }

    pub(super) fn take_role(&self, assignment: &Assignment<'_>) -> Result<()> {
        if self.standing.load().token == Token::of(self.node_id, assignment.state) {
            let epoch_start = self.standing.load().epoch_start;
            self.adjust(&mut self.state(), assignment, epoch_start)
        } else {
            self.with_ledger(|ledger| self.turn(ledger, assignment))
        }
    }

    /// Takes another role, or the same in another epoch (`TURN-1`).
    fn turn(&self, ledger: &mut Ledger, assignment: &Assignment<'_>) -> Result<()> {
        let mut state = self.state();
        // Nothing is appended from here on until the new token is handed out, even if this fails.
        ledger.token = Token::NONE;
        self.forget_tier_in(&mut ledger.log);
        let mut epoch_start = Offset::ZERO;
        if let Some(epoch) = Token::of(self.node_id, assignment.state).leads() {
            // The epoch starts here, and not with its first record: a follower that asks where an older one
            // ended must not be told that nobody knows.
            epoch_start = ledger.log.start_epoch(epoch)?;
        } else {
            #[cfg(feature = "sim")]
            if is_planted(Mutation::KeepsEmptyEpochs) {
                return self.adjust(&mut state, assignment, epoch_start).map(|()| {
                    ledger.token = state.replica.token();
                });
            }
            ledger.log.forget_empty_epochs();
        }
        self.adjust(&mut state, assignment, epoch_start)?;
        if state.replica.token().leads().is_none() {
            let context = format!("this broker no longer leads {}", self.name);
            let told = || Error::kafka(ErrorCode::NotLeaderOrFollower, context.clone());
            state.fail_waiting(told);
        }
        ledger.token = state.replica.token();
        Ok(())
    }

    /// Applies what the metadata says to the machine, and publishes what comes of it.
    fn adjust(
        &self,
        state: &mut State,
        assignment: &Assignment<'_>,
        epoch_start: Offset,
    ) -> Result<()> {
        let before = self.standing.load();
        if let Some(code) = before.closed {
            return Err(words::partition_closed(code, &self.name));
        }
        let Assignment { state: image, config, brokers, now, .. } = assignment;
        let rules = rules(assignment, self.volatile);
        let settled = state.replica.set_rules(rules);
        self.publish(state, &settled);
        let assigned = state.replica.assign(image, *brokers, *now);
        let assigned = assigned.map_err(|WentBack { current, asked }| {
            let name = &self.name;
            Error::invalid(format!("{name} is {current:?} and cannot become {asked:?}"))
        })?;
        self.standing.store(Arc::new(Standing {
            token: state.replica.token(),
            in_sync: state.replica.in_sync().unwrap_or(image.isr.len()),
            min_in_sync: rules.min_in_sync,
            epoch_start,
            followers: image.replicas.iter().copied().filter(|id| *id != self.node_id).collect(),
            config: Arc::clone(config),
            closed: None,
        }));
        self.publish(state, &assigned);
        self.settle_tier(config);
        Ok(())
    }

    /// Ends every wait with `code`; nothing is appended or read from now on. Does not wait for an append.
    pub(in crate::broker) fn close(&self, code: ErrorCode) {
        let mut state = self.state();
        let before = self.standing.load();
        if before.closed.is_none() {
            let closed = Standing { closed: Some(code), ..Standing::clone(&before) };
            self.standing.store(Arc::new(closed));
        }
        state.fail_waiting(|| words::partition_closed(code, &self.name));
        drop(state);
        self.parking.wake(&self.key);
        if let Some(tier) = self.tier() {
            tier.wake();
        }
    }
}

impl State {
    /// Tells every producer that waits that it waits in vain (`TURN-2`), and whoever waits for a sync.
    fn fail_waiting(&mut self, why: impl Fn() -> Error) {
        self.waiting_for_sync.clear();
        for (_, sender) in self.waiting_for_deletion.drain(..) {
            // Who waited may have had enough.
            sender.send(Err(why())).ok();
        }
        let waiting = self.waiting.drain(..).chain(self.waiting_for_leader.drain(..));
        for Waiting { reply, .. } in waiting {
            // Nobody listens any more when the connection is gone.
            drop(reply.send(Err(why())));
        }
    }
}

#[cfg(test)]
#[path = "role_tests.rs"]
mod tests;
