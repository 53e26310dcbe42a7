//! A broker as a member of a cluster of several nodes: its registration, its heartbeats, and how it leaves.
//!
//! Why: a leader from which nobody hears keeps its partitions from everybody. So each broker tells the controller,
//! wherever that is, that it is alive, also when the controller is in the same process: it may move.
//!
//! ```text
//!  register ──► heartbeats: not yet ──► heartbeats: active ──► heartbeats: leaving ──► may stop
//!     ▲      (metadata is caught up)                │      (others take over, and all know)
//!     └────── not registered, or not as this ◄──────┘
//! ```
//!
//! A node that is alone has no heartbeats, as its broker lives as long as its controller, until others join it.
//!
//! Invariants:
//! - `MEMBER-1` a process is one incarnation, however often it registers; only its first registration may replace
//!   another process.
//! - `MEMBER-2` a process that was replaced takes its log directory offline and stays away: the directory was copied,
//!   and two brokers would lead the same partitions.
//! - `MEMBER-3` whatever the controller does, leaving ends after [`LEAVE_MAX`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metadata_log::{Committed, MetadataLog};
use super::state::BrokerState;
use super::watched::Watched;
use crate::config::BrokerConfig;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::{
    BrokerHeartbeat, BrokerRegistration, Command, HeartbeatState, Predecessor, Refusal,
};
use crate::types::{BrokerEpoch, NodeId, Offset};

/// How long a broker that stops waits for others to take over what it leads.
pub(super) const LEAVE_MAX: Duration = Duration::from_secs(10);
/// How often a broker that leaves asks whether it may stop.
const LEAVE_INTERVAL: Duration = Duration::from_millis(50);
/// How long to wait after the first failure; twice as long after each further one.
const BACKOFF: Duration = Duration::from_millis(50);
/// How often the log says that the controller does not answer, or for whom a boot waits.
const REMINDER: Duration = Duration::from_secs(5);

/// What a broker wants of its controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    /// Its metadata is caught up: it can lead.
    is_caught_up: bool,
    /// It wants to stop.
    is_leaving: bool,
}

/// What the rest of the broker knows of the membership.
#[derive(Debug)]
pub(super) struct Membership {
    wish: Watched<Wish>,
    /// Nothing keeps the broker any more: others have taken over, or there is nobody whom it could ask.
    may_stop: Watched<bool>,
}

impl Membership {
    pub(super) fn new() -> Arc<Self> {
        let wish = Wish { is_caught_up: false, is_leaving: false };
        Arc::new(Self { wish: Watched::new(wish), may_stop: Watched::new(false) })
    }

    /// The metadata as of the registration is in effect: the controller may let this broker lead.
    pub(super) fn caught_up(&self) {
        self.wish.change(|wish| wish.is_caught_up = true);
    }

    /// Hands over what this broker leads, and waits until everybody knows. Bounded in time.
    pub(super) async fn leave(&self) {
        self.wish.change(|wish| wish.is_leaving = true);
        let began = Instant::now();
        let left = tokio::time::timeout(LEAVE_MAX, self.may_stop.wait_for(|may_stop| *may_stop));
        if left.await.is_ok() {
            tracing::info!(after = ?began.elapsed(), "left the cluster");
        } else {
            tracing::warn!(after = ?LEAVE_MAX, "stopping, although others could not take over in time");
        }
    }
}

/// How long the controller may take for one answer: after that it is asked again.
fn answer_max(config: &BrokerConfig) -> Duration {
    session(config) / 2
}

/// How long a broker may be silent.
pub(super) fn session(config: &BrokerConfig) -> Duration {
    Duration::from_millis(config.cluster.session_timeout_ms.into())
}

/// The wait after a number of failures in a row: several tries fit into a session.
fn backoff(failures: u32, session: Duration) -> Duration {
    BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(session / 3)
}

async fn ask_once<C: Command>(
    log: &Arc<dyn MetadataLog>,
    command: C,
    max: Duration,
) -> Result<Committed<C::Reply>> {
    let answered = tokio::time::timeout(max, log.submit(command)).await;
    answered.map_err(|_elapsed| Error::timeout("the controller to answer", max))?
}

/// Asks until the controller answers; the command must be one that may be carried out twice. The first failure is
/// final for a node that is alone: it would only fail again.
pub(super) async fn ask<C: Command>(
    state: &BrokerState,
    command: C,
) -> Result<Committed<C::Reply>> {
    let (log, config) = (state.metadata(), state.config());
    if !state.has_peers() {
        return log.submit(command).await;
    }
    let mut failures = 0;
    loop {
        match ask_once(log, command.clone(), answer_max(&config)).await {
            Err(error) if error.retriable() => {
                failures += 1;
                tracing::debug!(error = %error.chain(), "the controller did not answer");
                tokio::time::sleep(backoff(failures, session(&config))).await;
            }
            done => return done,
        }
    }
}

/// Registers a broker that starts. Where another process has its place, that is waited out: with a new directory it
/// may be the same node.
///
/// # Errors
///
/// There was no answer; a refusal is an answer.
pub(super) async fn register(
    state: &BrokerState,
    registration: &BrokerRegistration,
) -> Result<Committed<Result<BrokerEpoch, Refusal>>> {
    let config = state.config();
    // A session that nobody continues has ended by then.
    let patience = Instant::now() + session(&config) * 2;
    loop {
        let answer = ask(state, registration.clone()).await?;
        match &answer.reply {
            Err(refusal)
                if refusal.code == ErrorCode::DuplicateBrokerRegistration
                    && state.has_peers()
                    && Instant::now() < patience =>
            {
                tracing::warn!(reason = refusal.message, "waiting for its session to end");
                tokio::time::sleep(session(&config) / 3).await;
            }
            _ => return Ok(answer),
        }
    }
}

/// Says in the log, every few seconds, for whom a boot waits. Never ends.
pub(super) async fn remind(state: &BrokerState, what: &str) {
    loop {
        tokio::time::sleep(REMINDER).await;
        tracing::info!(node = %state.node_id(), "waiting for {}: {what}", awaited(state));
    }
}

/// Those for whom a node waits that needs the quorum: the node that leads it, or else all other voters, and those whom
/// the settings say to ask.
pub(super) fn awaited(state: &BrokerState) -> String {
    let (config, leader) = (state.config(), state.quorum().leader);
    let voters = state.metadata().voters();
    let is_awaited =
        |id: NodeId| leader == id || (leader == NodeId::NONE && voters.get(id).is_some());
    let awaited = state.other_nodes().into_iter().filter(|(id, _)| is_awaited(*id));
    let mut awaited: Vec<String> = awaited.map(|(id, at)| format!("{id}@{at}")).collect();
    if leader == NodeId::NONE {
        awaited.extend(config.bootstrap_servers.iter().cloned());
    }
    if awaited.is_empty() { "the controller".to_owned() } else { awaited.join(", ") }
}

/// The heartbeats of one broker.
pub(super) struct Heartbeats {
    pub(super) state: Arc<BrokerState>,
    pub(super) metadata: Arc<dyn MetadataLog>,
    pub(super) membership: Arc<Membership>,
    /// How it registered.
    pub(super) registration: BrokerRegistration,
    /// The number of the registration.
    pub(super) epoch: BrokerEpoch,
}

/// The one that has another process instead of this one is not to be asked again.
struct Replaced;

impl Heartbeats {
    /// As [`Heartbeats::run`], for a node that is alone, as soon as others have joined it: from then on the controller may
    /// be one of them.
    pub(super) async fn run_when_joined(self, stop: CancellationToken) {
        let joined = self.state.published_when(|_| self.state.was_joined());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = joined => {}
        }
        self.run(stop).await;
    }

    /// Sends heartbeats until the broker stops.
    pub(super) async fn run(self, stop: CancellationToken) {
        let (membership, state) = (Arc::clone(&self.membership), Arc::clone(&self.state));
        // The last node of a cluster that stops finds nobody who could take over.
        let is_last = async {
            membership.wish.wait_for(|wish| wish.is_leaving).await;
            no_quorum(&state).await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Replaced = self.beat_on() => {}
            () = is_last => {}
        }
        membership.may_stop.change(|may_stop| *may_stop = true);
    }

    async fn beat_on(mut self) -> Replaced {
        let mut failures: u32 = 0;
        let mut silence = Silence::new();
        // Where the leaderships were handed over.
        let mut handed_over = None;
        loop {
            let wish = self.membership.wish.get();
            let config = self.state.config();
            let pause = match self.beat(&config, wish, &mut handed_over).await {
                Ok(Some(replaced)) => return replaced,
                Ok(None) => {
                    (failures, silence) = (0, Silence::new());
                    let interval = config.cluster.heartbeat_interval_ms;
                    let interval = Duration::from_millis(interval.into());
                    if wish.is_leaving { interval.min(LEAVE_INTERVAL) } else { interval }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    silence.note(&error, session(&config));
                    let gave_up = silence.since.elapsed() > session(&config);
                    if wish.is_leaving && gave_up {
                        self.membership.may_stop.change(|may_stop| *may_stop = true);
                    }
                    backoff(failures, session(&config))
                }
            };
            tokio::select! {
                biased;
                _ = self.membership.wish.wait_for(|now| *now != wish) => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn beat(
        &mut self,
        config: &BrokerConfig,
        wish: Wish,
        handed_over: &mut Option<Offset>,
    ) -> Result<Option<Replaced>> {
        let heartbeat = BrokerHeartbeat {
            id: self.registration.id,
            epoch: self.epoch,
            metadata_offset: self.state.metadata_offset(),
            want_fence: !wish.is_caught_up,
            want_shutdown: wish.is_leaving,
            handed_over: *handed_over,
        };
        let answer = ask_once(&self.metadata, heartbeat, answer_max(config)).await?;
        match answer.reply {
            Ok(HeartbeatState { may_stop, .. }) => {
                if wish.is_leaving {
                    handed_over.get_or_insert(answer.offset);
                }
                if may_stop {
                    self.membership.may_stop.change(|known| *known = true);
                }
                Ok(None)
            }
            Err(refusal) if is_about_registration(refusal.code) => {
                *handed_over = None;
                self.register_anew(config, &refusal).await
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn register_anew(
        &mut self,
        config: &BrokerConfig,
        refusal: &Refusal,
    ) -> Result<Option<Replaced>> {
        let node = self.registration.id;
        tracing::warn!(%node, reason = refusal.message, "registering anew");
        // The process before this registration is this one, which has everything that it wrote.
        let predecessor = Some(Predecessor { epoch: self.epoch, left_all: true, durability: None });
        let registration =
            BrokerRegistration { is_first: false, predecessor, ..self.registration.clone() };
        match ask_once(&self.metadata, registration, answer_max(config)).await?.reply {
            Ok(epoch) => {
                self.epoch = epoch;
                self.state.set_broker_epoch(epoch);
                super::boot::note_registration(&self.state, epoch).await;
                Ok(None)
            }
            Err(refusal) if refusal.code == ErrorCode::DuplicateBrokerRegistration => {
                let health = self.state.partitions().storage().health();
                health.take_offline(format!(
                    "another process has taken the place of this one, which is possible only with a copy of its \
                     directory: {}",
                    refusal.message
                ));
                Ok(Some(Replaced))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// Returns once so many nodes have ended that the others are no majority.
async fn no_quorum(state: &BrokerState) {
    let is_lost = |has_ended: &dyn Fn(NodeId) -> bool| {
        let voters = state.metadata().voters();
        let ended = voters.iter().filter(|voter| has_ended(voter.key.id)).count();
        ended > 0 && 2 * (voters.len() - ended) <= voters.len()
    };
    state.sighted().ended_when(is_lost).await;
}

/// Whether a broker with this refusal has to register again.
fn is_about_registration(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::BrokerIdNotRegistered | ErrorCode::StaleBrokerEpoch)
}

/// How long the controller has not answered. An election is no news; a session without an answer is.
struct Silence {
    since: Instant,
    said: Option<Instant>,
}

impl Silence {
    fn new() -> Self {
        Self { since: Instant::now(), said: None }
    }

    fn note(&mut self, error: &Error, session: Duration) {
        let last = self.said.map_or(self.since + session, |said| said + REMINDER);
        let (now, error) = (Instant::now(), error.chain());
        if now < last {
            tracing::debug!(error, "no answer to a heartbeat");
            return;
        }
        self.said = Some(now);
        let silent = now - self.since;
        tracing::warn!(
            ?silent,
            error,
            "the controller does not answer heartbeats: it may fence this broker"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leaving_ends_although_nobody_answers() {
        let membership = Membership::new();
        let before = Instant::now();
        membership.leave().await;
        assert_eq!(before.elapsed(), LEAVE_MAX);
        membership.may_stop.change(|may_stop| *may_stop = true);
        let before = Instant::now();
        membership.leave().await;
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[test]
    fn waits_grow_and_leave_time_for_several_tries_in_a_session() {
        let session = Duration::from_secs(3);
        let waits: Vec<_> = (1..8).map(|failures| backoff(failures, session).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff(u32::MAX, session), Duration::from_secs(1));
    }
}
