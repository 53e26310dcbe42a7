//! What every request sees of the broker.
//!
//! Why: handlers, connections and timers share one value instead of passing a dozen. Everything in it
//! can be read without waiting: settings and the metadata image are snapshots behind one pointer.
//!
//! Invariants:
//! - `STATE-1` the image is published after its partitions exist, so every topic in Metadata can be
//!   written to.
//! - `STATE-2` a command's answer is given after its image is published: a topic is in Metadata before
//!   CreateTopics is answered, and gone from it before DeleteTopics is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::change::Change;
use super::coordinator::{GroupCoordinators, TransactionCoordinators};
use super::crash_watch::Sighted;
use super::listener::{BoundListener, Reached};
use super::log_threads::LogThreads;
use super::metadata_log::{Committed, MetadataLog, QuorumStatus};
use super::parking::Parking;
use super::partitions::Partitions;
use super::replication::{FollowerSessions, Replication, Throttles};
use super::tier::TierReader;
use super::transactions::Peers;
use super::watched::Watched;
use crate::config::BrokerConfig;
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::{AllocateProducerIds, Command, ProducerIdBlock};
use crate::machine::fetch_session::FetchSessions;
use crate::machine::metadata::{ConfigResource, MetadataDelta, MetadataImage, MetadataUpdate};
use crate::protocol::Str;
use crate::types::{BrokerEpoch, NodeId, Offset, ProducerId};
use arc_swap::ArcSwap;

/// A fetch session that was not used for this long makes way for another; fixed in Kafka, too.
const FETCH_SESSION_EVICTION_MS: i64 = 120_000;

/// How many settings without an effect the log names; there are fewer, but for those of single listeners.
const NOTED_MAX: usize = 1000;

/// How long a request waits for more producer ids; the time that Kafka's clients wait for an answer.
const PRODUCER_IDS_TIMEOUT_MS: i32 = 30_000;

/// The longest that any request waits for the controller.
const COMMAND_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// The identity of the broker.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) node_id: NodeId,
    pub(super) bound: Vec<Arc<BoundListener>>,
}

/// How far the metadata is in effect here.
#[derive(Clone, Copy, Debug)]
struct Published {
    /// The offset of the image.
    offset: Offset,
    /// The last change that could not be made true so far, although it was tried several times.
    given_up: Offset,
}

/// See the module.
#[derive(Debug)]
pub(super) struct BrokerState {
    env: Env,
    identity: Identity,
    /// From the phase `ClusterKnown` on.
    cluster_id: OnceLock<String>,
    /// The number of this broker's registration.
    broker_epoch: AtomicI64,
    config: ArcSwap<BrokerConfig>,
    image: ArcSwap<MetadataImage>,
    published: Watched<Published>,
    metadata: Arc<dyn MetadataLog>,
    partitions: Partitions,
    replication: Replication,
    coordinators: GroupCoordinators,
    transactions: TransactionCoordinators,
    transaction_peers: Peers,
    tier_reader: TierReader,
    log_threads: Arc<LogThreads>,
    parking: Arc<Parking>,
    fetch_sessions: Mutex<FetchSessions>,
    follower_sessions: FollowerSessions,
    producer_ids: Mutex<Vec<ProducerIdBlock>>,
    /// The settings without an effect that the log has named.
    without_effect: Mutex<BTreeSet<String>>,
    sighted: Sighted,
}

/// The parts that a state is made of.
pub(super) struct Parts {
    pub(super) env: Env,
    pub(super) identity: Identity,
    pub(super) config: BrokerConfig,
    pub(super) metadata: Arc<dyn MetadataLog>,
    pub(super) partitions: Partitions,
    pub(super) replication: Replication,
    pub(super) coordinators: GroupCoordinators,
    pub(super) transactions: TransactionCoordinators,
    pub(super) log_threads: Arc<LogThreads>,
    pub(super) parking: Arc<Parking>,
}

impl BrokerState {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { env, identity, config, metadata, partitions, .. } = parts;
        let Parts { replication, coordinators, transactions, log_threads, parking, .. } = parts;
        let slots = usize::try_from(config.max_incremental_fetch_session_cache_slots).unwrap_or(0);
        let sessions = FetchSessions::new(slots, FETCH_SESSION_EVICTION_MS, env.random.u64());
        let follower_sessions = FollowerSessions::new(Arc::clone(&parking), env.random.u64());
        let tier_reader = TierReader::new(env.threads.clone(), config.tier.cache_bytes);
        Self {
            env,
            identity,
            cluster_id: OnceLock::new(),
            broker_epoch: AtomicI64::new(BrokerEpoch::UNKNOWN.0),
            config: ArcSwap::from_pointee(config),
            image: ArcSwap::from_pointee(MetadataImage::empty()),
            published: Watched::new(Published {
                offset: Offset::UNKNOWN,
                given_up: Offset::UNKNOWN,
            }),
            metadata,
            partitions,
            replication,
            coordinators,
            transactions,
            transaction_peers: Peers::new("txn-partitions"),
            tier_reader,
            log_threads,
            parking,
            fetch_sessions: Mutex::new(sessions),
            follower_sessions,
            producer_ids: Mutex::default(),
            without_effect: Mutex::default(),
            sighted: Sighted::default(),
        }
    }

    /// What is known of the processes of the other nodes.
    pub(super) const fn sighted(&self) -> &Sighted {
        &self.sighted
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.identity.node_id
    }

    /// The id of the cluster; none before the phase `ClusterKnown`.
    pub(super) fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.get().map(String::as_str)
    }

    /// The cluster has this id, and so has the log directory.
    pub(super) fn set_cluster_id(&self, id: &str) {
        // A second one cannot come: the directory would not have adopted it.
        drop(self.cluster_id.set(id.to_owned()));
    }

    /// The controller has registered this broker.
    pub(super) fn set_broker_epoch(&self, epoch: BrokerEpoch) {
        self.broker_epoch.store(epoch.0, Ordering::Release);
        self.replication.set_broker_epoch(epoch);
    }

    pub(super) fn broker_epoch(&self) -> BrokerEpoch {
        BrokerEpoch(self.broker_epoch.load(Ordering::Acquire))
    }

    pub(super) fn config(&self) -> Arc<BrokerConfig> {
        self.config.load_full()
    }

    pub(super) fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    pub(super) fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    pub(super) fn coordinators(&self) -> &GroupCoordinators {
        &self.coordinators
    }

    pub(super) const fn transactions(&self) -> &TransactionCoordinators {
        &self.transactions
    }

    /// The connections to other coordinators of transactions.
    pub(super) const fn transaction_peers(&self) -> &Peers {
        &self.transaction_peers
    }

    pub(super) fn log_threads(&self) -> &Arc<LogThreads> {
        &self.log_threads
    }

    /// What reads what only the tier has.
    pub(super) fn tier_reader(&self) -> &TierReader {
        &self.tier_reader
    }

    pub(super) fn parking(&self) -> &Arc<Parking> {
        &self.parking
    }

    /// The sessions of consumers.
    pub(super) fn fetch_sessions(&self) -> &Mutex<FetchSessions> {
        &self.fetch_sessions
    }

    /// The sessions of followers.
    /// The limits of replication.
    pub(super) fn throttles(&self) -> &Throttles {
        self.replication.throttles()
    }

    pub(super) const fn follower_sessions(&self) -> &FollowerSessions {
        &self.follower_sessions
    }

    pub(super) fn metadata(&self) -> &Arc<dyn MetadataLog> {
        &self.metadata
    }

    pub(super) fn quorum(&self) -> QuorumStatus {
        self.metadata.status()
    }

    /// The address of this broker for a client that reached it this way; by its first listener for one in the
    /// process.
    pub(super) fn own_address(&self, reached: Option<&Reached>) -> (Str, i32) {
        let (listener, address) = match (reached, self.identity.bound.first()) {
            (Some(reached), _) => (&reached.listener, reached.address),
            (None, Some(first)) => (first, first.address),
            (None, None) => return (Str::EMPTY, -1),
        };
        let (host, port) = listener.told(Some(address));
        (host.into(), i32::from(port))
    }

    /// Logs settings that are accepted without effect, each once.
    pub(super) fn note_without_effect<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut noted = self.without_effect.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |name: &&str| noted.len() < NOTED_MAX && noted.insert((*name).to_owned());
        let fresh: Vec<&str> = names.into_iter().filter(fresh).collect();
        if !fresh.is_empty() {
            let settings = fresh.join(", ");
            tracing::warn!(settings, "settings accepted without effect in this version");
        }
    }

    /// Sends a command to the controller, and waits until its outcome is in effect on this broker.
    ///
    /// # Errors
    ///
    /// `REQUEST_TIMED_OUT`, although the command may still be carried out; those of the quorum.
    pub(super) async fn submit<C: Command>(&self, command: C, timeout_ms: i32) -> Result<C::Reply> {
        let timeout = Duration::from_millis(timeout_ms.max(0).unsigned_abs().into());
        let work = async {
            let Committed { reply, offset: committed } = self.metadata.submit(command).await?;
            self.published(committed).await?;
            Ok(reply)
        };
        match tokio::time::timeout(timeout.min(COMMAND_TIMEOUT_MAX), work).await {
            Ok(result) => result,
            Err(_elapsed) => {
                let context = format!("the controller did not answer within {timeout_ms} ms");
                Err(Error::kafka(ErrorCode::RequestTimedOut, context))
            }
        }
    }

    /// The offset up to which the metadata is in effect here.
    pub(super) fn metadata_offset(&self) -> Offset {
        self.published.get().offset
    }

    /// Waits until a committed change is in effect here.
    ///
    /// # Errors
    ///
    /// This broker cannot make it true.
    pub(super) async fn published(&self, committed: Offset) -> Result<()> {
        let done = self.published.wait_for(|now| now.offset.max(now.given_up) >= committed);
        let now = done.await;
        if now.offset >= committed {
            return Ok(());
        }
        let context =
            "the change is committed, but this broker could not apply it; its log says why";
        Err(Error::kafka(ErrorCode::UnknownServerError, context))
    }

    /// Waits until the image that is in effect here looks like this.
    pub(super) async fn published_when(&self, is_so: impl Fn(&MetadataImage) -> bool) {
        self.published.wait_for(|_| is_so(&self.image.load())).await;
    }

    /// Those who wait for this change have waited long enough: it is being tried again, but cannot be applied.
    pub(super) fn give_up(&self, committed: Offset) {
        self.published.change(|now| now.given_up = now.given_up.max(committed));
    }

    /// A unique producer id.
    ///
    /// # Errors
    ///
    /// When the controller has no more ids, or does not answer.
    pub(super) async fn next_producer_id(&self) -> Result<ProducerId> {
        loop {
            if let Some(id) = self.take_producer_id() {
                return Ok(id);
            }
            let command =
                AllocateProducerIds { broker: self.identity.node_id, epoch: self.broker_epoch() };
            let block = self.submit(command, PRODUCER_IDS_TIMEOUT_MS).await??;
            let mut blocks = self.producer_ids.lock().unwrap_or_else(PoisonError::into_inner);
            blocks.push(block);
        }
    }

    fn take_producer_id(&self) -> Option<ProducerId> {
        let mut blocks = self.producer_ids.lock().unwrap_or_else(PoisonError::into_inner);
        let block = blocks.last_mut()?;
        let id = block.first;
        block.first = ProducerId(id.0 + 1);
        block.count -= 1;
        if block.count <= 0 {
            blocks.pop();
        }
        Some(id)
    }

    /// Applies the next step of the metadata. What an earlier one that failed left undone is made up for. Blocks.
    pub(super) fn follow(&self, update: &MetadataUpdate) {
        let before = self.image();
        if update.delta.base().offset == before.offset {
            self.apply(&update.delta, &update.image);
        } else {
            let delta = MetadataDelta::between(MetadataImage::clone(&before), &update.image);
            self.apply(&delta, &update.image);
        }
    }

    /// Applies a change: settings, partitions, who is followed, coordinators, and then the image itself. Blocks.
    pub(super) fn apply(&self, delta: &MetadataDelta, image: &Arc<MetadataImage>) {
        let has_new_config = self.apply_settings(delta, image);
        let config = self.config.load();
        let change = Change { delta, image, config: &config, has_new_config };
        self.partitions.apply(&change);
        self.replication.apply(&change, &self.partitions);
        self.coordinators.apply(&change, &self.partitions);
        self.transactions.apply(&change, &self.partitions);
        self.image.store(Arc::clone(image));
        self.published.change(|now| now.offset = image.offset);
    }

    /// Applies what changed in the settings of this broker; returns whether anything may have.
    fn apply_settings(&self, delta: &MetadataDelta, image: &MetadataImage) -> bool {
        let own = ConfigResource::Broker(self.identity.node_id);
        let is_first = delta.base().offset == Offset::UNKNOWN;
        let is_changed = delta
            .changed_configs()
            .any(|resource| *resource == own || *resource == ConfigResource::ClusterDefault);
        if !is_first && !is_changed {
            return false;
        }
        let config = self.config.load();
        match config.with_dynamic(image.config(&ConfigResource::ClusterDefault), image.config(&own))
        {
            Ok(changed) => self.config.store(Arc::new(changed)),
            Err(error) => tracing::error!(%error, "a stored broker setting is not acceptable"),
        }
        self.note_without_effect(self.config.load().without_effect());
        true
    }
}
