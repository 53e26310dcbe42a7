//! The metadata log: commands in, committed records out, in one order for the whole cluster.
//!
//! [`machine::controller`](crate::machine::controller) decides and
//! [`machine::metadata`](crate::machine::metadata) builds the image; this module is the shell
//! around both. It keeps the log on disk, replicates it (openraft), applies committed records to
//! the image and notifies subscribers. A single node is a quorum with one voter; nothing else
//! differs.
//!
//! ```text
//! submit ─► Submitter ─step─► Controller ─records─► openraft ─append─► PartitionStore (log/)
//!   ▲          (one task, batches what waits)          │ committed
//!   └───────────── reply ◄── after apply ── StateMachine ─► (delta, image) ─► subscribers
//! ```
//!
//! Invariants:
//!
//! - QUORUM-1: a reply is given after its records are on disk on a majority and in [`Quorum::image`].
//! - QUORUM-2: the image changes only by applying committed records, in the order of the log.
//! - QUORUM-3: every subscriber sees every delta after its first image, in order and exactly once.
//! - QUORUM-4: a vote is on disk before it counts; a log entry is on disk before it counts.
//! - QUORUM-5: a record that does not fit stops the quorum with an error; it is never skipped.
//!
//! On disk, under `__cluster_metadata-0` of the log directory: segments of record batches (an
//! entry is a batch with one record; its offset is the index, its leader epoch the term),
//! `quorum-state` (see [`hard_state`](self)) and `<offset>-<epoch>.checkpoint` (see `snapshot`).
//!
//! Traffic between voters is not served yet: the network answers *unreachable* for every other
//! node, so a quorum of several voters never elects a leader, and reports it.

mod bridge;
mod entry;
mod hard_state;
mod network;
#[expect(dead_code, reason = "the driver that uses it follows")]
mod peers;
mod snapshot;
mod state_machine;
mod store;
mod submitter;
mod types;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::{BasicNode, Raft, SnapshotPolicy};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker::metadata_log::{self, Committed, Question};
use crate::config::BrokerConfig;
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Health;
use crate::machine::controller::{Bootstrap, Command, Controller};
use crate::machine::metadata::{MetadataImage, MetadataUpdate};
use crate::types::{LeaderEpoch, NodeId, Offset};

pub(super) use bridge::start;

use network::NoNetwork;
use state_machine::{Shared, StateMachine};
use store::{PartitionStore, Store};
use submitter::Submitter;
use types::TypeConfig;

/// The most queued commands; any further one waits for room.
const COMMANDS_MAX: usize = 1024;
/// How many changes a subscriber may lag behind before it holds up the metadata.
const UPDATES_MAX: usize = 1024;
/// The number of entries, however small, after which a snapshot is taken.
const ENTRIES_BETWEEN_SNAPSHOTS: u64 = 20_000;
/// How long a quorum of one may take to elect its leader, which only involves the local disk.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The directory of the metadata log within the log directory.
pub const METADATA_DIRECTORY: &str = "__cluster_metadata-0";
/// The name of the metadata log in Kafka's tools.
pub use crate::machine::controller::METADATA_TOPIC;

/// How to open the metadata log.
#[derive(Clone, Debug)]
pub struct QuorumOptions {
    /// Clock, disk and randomness.
    pub env: Env,
    /// The log directory; it must be locked by the caller.
    pub log_dir: PathBuf,
    /// The state of the log directory.
    pub health: Health,
    /// This node.
    pub node_id: NodeId,
    /// The cluster that the log directory belongs to.
    pub cluster_id: Arc<str>,
    /// The voters with their addresses, used when the log is new; when empty, only this node.
    pub voters: BTreeMap<NodeId, String>,
    /// The settings of this node.
    pub config: BrokerConfig,
    /// Whether votes and entries are synced to disk; may only be off for temporary data.
    pub fsync: bool,
}

/// A node of the metadata quorum.
pub struct Quorum {
    raft: Raft<TypeConfig>,
    shared: Arc<Shared>,
    store: PartitionStore,
    commands: mpsc::Sender<Box<dyn Question>>,
    stopping: CancellationToken,
    /// The task that calls the controller, and closes everything at the end.
    submitter: Mutex<Option<JoinHandle<Result<()>>>>,
}

impl fmt::Debug for Quorum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Quorum").field("leader", &self.leader()).finish_non_exhaustive()
    }
}

impl Quorum {
    /// Opens the metadata log, recovers it and, as the only voter, leads it: when this returns, the
    /// image is complete and the cluster has its id.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] and [`Error::Io`] of the files; `INCONSISTENT_CLUSTER_ID` when the log
    /// belongs to another cluster.
    pub async fn open(options: QuorumOptions) -> Result<Self> {
        let opened = {
            let options = options.clone();
            options.env.threads.clone().spawn_blocking(move || Store::open(&options)).await
        };
        let (store, snapshot) = opened.map_err(stopped)??;
        let limit_bytes = options.config.metadata_log_max_record_bytes_between_snapshots;
        let store = PartitionStore::new(store, &options.env.threads);
        let shared = Arc::new(Shared::new(snapshot.as_ref()));
        let machine = StateMachine::new(shared.clone(), snapshot, store.clone());
        let raft =
            Raft::new(options.node_id, Arc::new(raft_config()?), NoNetwork, store.clone(), machine)
                .await
                .map_err(|error| fatal(&error))?;
        let seed = [options.env.random.u64(), options.env.random.u64()];
        let image = MetadataImage::clone(&shared.image());
        let controller = Controller::new(options.node_id, options.config.clone(), image, seed);
        let (commands, waiting) = mpsc::channel(COMMANDS_MAX);
        let stopping = CancellationToken::new();
        let submitter = Submitter {
            stopping: stopping.clone(),
            node_id: options.node_id,
            env: options.env.clone(),
            raft: raft.clone(),
            shared: shared.clone(),
            store: store.clone(),
            controller,
            waiting,
            limit_bytes: u64::try_from(limit_bytes).unwrap_or(u64::MAX),
        };
        let submitter = Mutex::new(Some(tokio::spawn(submitter.run())));
        let quorum = Self { raft, shared, store, commands, stopping, submitter };
        if let Err(error) = quorum.start(&options).await {
            // The first error is the one to report; errors while closing are ignored.
            drop(quorum.shutdown().await);
            return Err(error);
        }
        Ok(quorum)
    }

    async fn start(&self, options: &QuorumOptions) -> Result<()> {
        let me = options.node_id;
        if !self.raft.is_initialized().await.map_err(|error| fatal(&error))? {
            let nodes: BTreeMap<NodeId, BasicNode> = if options.voters.is_empty() {
                BTreeMap::from([(me, BasicNode::default())])
            } else {
                let nodes = options.voters.iter();
                nodes.map(|(id, address)| (*id, BasicNode::new(address))).collect()
            };
            self.raft
                .initialize(nodes)
                .await
                .map_err(|error| Error::invalid(format!("could not begin the quorum: {error}")))?;
        }
        // The metrics may lag behind, so the state itself is queried.
        let (alone, leads) = self
            .raft
            .with_raft_state(move |state| {
                let membership = state.membership_state.effective();
                (membership.voter_ids().eq([me]), state.server_state.is_leader())
            })
            .await
            .map_err(|error| fatal(&error))?;
        if !alone {
            return Ok(());
        }
        // A single voter has nobody to wait for.
        if !leads {
            self.raft.trigger().elect().await.map_err(|error| fatal(&error))?;
        }
        self.raft
            .wait(Some(LEADER_TIMEOUT))
            .metrics(
                |metrics| {
                    metrics.current_leader == Some(me)
                        && metrics.last_applied.map(|last| last.index) == metrics.last_log_index
                },
                "the only voter leads",
            )
            .await
            .map_err(|error| {
                Error::kafka(
                    ErrorCode::CoordinatorNotAvailable,
                    format!("metadata quorum: {error}"),
                )
            })?;
        let bootstrap = Bootstrap { cluster_id: options.cluster_id.clone() };
        Ok(self.submit(bootstrap).await?.reply?)
    }

    /// Stops: commands already sent are answered, the log is closed cleanly. Later calls do
    /// nothing, later commands are refused as closed.
    ///
    /// # Errors
    ///
    /// When the disk failed; the log is recovered when it is next opened.
    pub fn shutdown(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.stop();
        let task = self.submitter.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            match task {
                Some(task) => task.await.map_err(stopped)?,
                None => Ok(()),
            }
        }
    }

    fn stop(&self) {
        self.store.stop_waiting();
        self.stopping.cancel();
    }
}

impl Drop for Quorum {
    /// The task closes the log even if nobody waits for it.
    fn drop(&mut self) {
        self.stop();
    }
}

impl Quorum {
    /// Sends a command to the controller, and waits until its decision is committed and in the
    /// image.
    ///
    /// The reply may refuse single items; an error means that nothing is known to have been done.
    /// Dropping the future does not cancel the command.
    ///
    /// # Errors
    ///
    /// `NOT_CONTROLLER` on a node that does not lead, `KAFKA_STORAGE_ERROR` on a full or failed disk,
    /// [`Error::Closed`] after [`Quorum::shutdown`].
    pub fn submit<C: Command>(
        &self,
        command: C,
    ) -> impl Future<Output = Result<Committed<C::Reply>>> + Send + use<C> {
        let commands = self.commands.clone();
        metadata_log::submit(command, |question| send(commands, question))
    }

    /// Hands a question to the controller.
    fn send(&self, question: Box<dyn Question>) -> impl Future<Output = Result<()>> + Send + use<> {
        send(self.commands.clone(), question)
    }

    /// The metadata as of now.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        self.shared.image()
    }

    /// The metadata as of now, and every change from there on.
    ///
    /// A subscriber must keep reading: the metadata waits for one that lags by more than 1024
    /// changes. It must not wait for [`Quorum::submit`] meanwhile.
    #[must_use]
    pub fn subscribe(&self) -> (Arc<MetadataImage>, mpsc::Receiver<MetadataUpdate>) {
        self.shared.subscribe(UPDATES_MAX)
    }

    /// The leader, or [`NodeId::NONE`].
    #[must_use]
    pub fn leader(&self) -> NodeId {
        self.raft.metrics().borrow().current_leader.unwrap_or(NodeId::NONE)
    }

    /// The term.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        types::epoch(self.raft.metrics().borrow().current_term)
    }

    /// The end of what is committed and applied on this node.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.image().offset.next()
    }

    /// The end of this node's log.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        let last = self.raft.metrics().borrow().last_log_index;
        types::offset(last.map_or(0, |last| last + 1))
    }

    /// The voters.
    #[must_use]
    pub fn voters(&self) -> Vec<NodeId> {
        self.raft.metrics().borrow().membership_config.membership().voter_ids().collect()
    }
}

async fn send(
    commands: mpsc::Sender<Box<dyn Question>>,
    question: Box<dyn Question>,
) -> Result<()> {
    let sent = commands.send(question).await;
    sent.map_err(|_closed| Error::Closed { what: "the metadata quorum" })
}

fn raft_config() -> Result<openraft::Config> {
    openraft::Config {
        cluster_name: "ottla".to_owned(),
        heartbeat_interval: 200,
        election_timeout_min: 1000,
        // One number only: openraft draws from it, and a quorum of one competes with nobody.
        election_timeout_max: 1001,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_BETWEEN_SNAPSHOTS),
        max_in_snapshot_log_to_keep: 0,
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|error| Error::invalid(format!("quorum settings: {error}")))
}

fn fatal(error: &dyn fmt::Display) -> Error {
    Error::kafka(ErrorCode::KafkaStorageError, format!("the metadata quorum stopped: {error}"))
}

fn stopped(error: tokio::task::JoinError) -> Error {
    Error::invalid(format!("a task of the metadata quorum ended: {error}"))
}

#[cfg(all(test, feature = "sim"))]
mod crash_tests;
#[cfg(test)]
mod tests;
