//! The metadata log: commands in, committed records out, in one order for the whole cluster.
//!
//! [`machine::controller`](crate::machine::controller) decides,
//! [`machine::metadata`](crate::machine::metadata) builds the image, and
//! [`machine::quorum`](crate::machine::quorum) knows what is committed; this module is the shell
//! around the three. It keeps the log on disk, replicates it, applies committed records to
//! the image and notifies subscribers. A single node is a quorum with one voter; nothing else
//! differs.
//!
//! ```text
//! submit ─► Submitter ─step─► Controller ─records─► Driver ─step─► machine::quorum ─► Peers (other nodes)
//!   ▲   (one task, batches what waits)                │  (one task)
//!   │                                                 ├─ VoteQueue ─► quorum-state
//!   │                                                 ├─ LogQueue ──► log, snapshots
//!   └───────────── reply ◄── after apply ── Applier ◄─┘ committed
//!                                             └─► (delta, image) ─► subscribers
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
//! entry is a batch with one record), `quorum-state` (see [`hard_state`](self)) and
//! `<offset>-<epoch>.checkpoint` (see `snapshot`).
//!
//! On a node that does not lead, a command is forwarded to the leader (`forward`).

mod applier;
mod batches;
mod bridge;
mod driver;
mod entry;
mod feed;
mod forward;
pub(super) mod frames;
mod hard_state;
pub(super) mod links;
mod outbox;
mod peers;
mod queues;
mod shared;
mod snapshot;
mod status;
mod store;
mod submitter;
mod voters;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker::metadata_log::{self, Committed, Question};
use crate::config::BrokerConfig;
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Health;
use crate::machine::controller::{AnyCommand, Bootstrap, Command, CommandAnswer, Controller};
use crate::machine::metadata::{Endpoint, MetadataImage, MetadataUpdate};
use crate::machine::quorum::{
    self as machine, Refusal, ReplicaKey, Request, Response, Timing, Voter, VoterChange, VoterSet,
};
#[cfg(test)]
use crate::types::LeaderEpoch;
use crate::types::{NodeId, Offset, Uuid};

pub(super) use bridge::start;

use applier::{Applier, SnapshotOptions, beginning};
use driver::{Ask, Driver, Machine, Tables};
use feed::Feed;
use forward::Forwarder;
use outbox::Outbox;
use peers::{Nobody, Peers};
use queues::{LogQueue, VoteQueue};
use shared::Shared;
use store::{Opened, Store, directory_of};
use submitter::Submitter;

/// The most queued commands; any further one waits for room.
const COMMANDS_MAX: usize = 1024;
/// How many changes a subscriber may lag behind before it holds up the metadata.
const UPDATES_MAX: usize = 1024;
/// The most things that the driver is asked for and has not taken yet.
const ASKS_MAX: usize = 256;
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
    /// The cluster that the log directory belongs to; `None` when it is yet to adopt the one that it finds.
    pub cluster_id: Option<Arc<str>>,
    /// The id of the log directory.
    pub directory_id: Uuid,
    /// Where this node listens for the others.
    pub endpoints: Vec<Endpoint>,
    /// The voters as long as the log does not say who they are; when empty, only this node, unless it joins others.
    pub voters: VoterSet,
    /// How many addresses the configuration lists of nodes whose cluster this one joins.
    pub bootstrap: usize,
    /// The timeouts of elections.
    pub timing: Timing,
    /// The settings of this node.
    pub config: BrokerConfig,
    /// Whether votes and entries are synced to disk; may only be off for temporary data.
    pub fsync: bool,
}

impl QuorumOptions {
    /// This node as a voter, and the voters as long as the log does not say who they are.
    fn voters(&self) -> (Voter, VoterSet) {
        let key = ReplicaKey { id: self.node_id, directory_id: self.directory_id };
        let me = Voter { key, endpoints: self.endpoints.clone() };
        let is_alone = self.voters.is_empty() && self.bootstrap == 0;
        let voters = if is_alone { VoterSet::new([me.clone()]) } else { self.voters.clone() };
        (me, voters)
    }
}

/// A node of the metadata quorum.
pub struct Quorum {
    machine: Arc<Mutex<Machine>>,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Box<dyn Question>>,
    asks: mpsc::Sender<Ask>,
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
        Self::open_among(options, Arc::new(Nobody)).await
    }

    /// As [`Quorum::open`], with a way to the other nodes. Unless this node is the only voter, what the log holds is
    /// applied and the cluster has its id only after a leader was found.
    ///
    /// # Errors
    ///
    /// As [`Quorum::open`].
    pub(in crate::broker) async fn open_among(
        options: QuorumOptions,
        peers: Arc<dyn Peers>,
    ) -> Result<Self> {
        let opened = {
            let options = options.clone();
            options.env.threads.clone().spawn_blocking(move || Store::open(&options)).await
        };
        let quorum = Self::start(&options, opened.map_err(stopped)??, peers);
        if let Err(error) = quorum.lead_alone(&options).await {
            // The first error is the one to report; errors while closing are ignored.
            drop(quorum.shutdown().await);
            return Err(error);
        }
        Ok(quorum)
    }

    /// Starts the tasks.
    fn start(options: &QuorumOptions, opened: Opened, peers: Arc<dyn Peers>) -> Self {
        let Opened { store, votes, reader, facts, checkpoint, stored } = opened;
        let env = &options.env;
        let (me, voters) = options.voters();
        let (applied, applied_voters) = beginning(checkpoint.as_ref(), &voters);
        let image = checkpoint.map_or_else(MetadataImage::empty, |checkpoint| checkpoint.image);
        let feed = Arc::new(Feed::new(stored.end));
        let shared = Arc::new(Shared::new(image.clone()));
        let directory = directory_of(&options.log_dir);
        let (commands, waiting) = mpsc::channel(COMMANDS_MAX);
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let stopping = CancellationToken::new();
        let applier = Applier {
            env: env.clone(),
            feed: Arc::clone(&feed),
            shared: Arc::clone(&shared),
            reader: reader.clone(),
            facts: Arc::clone(&facts),
            asks: asks.clone(),
            snapshots: SnapshotOptions::of(options),
            applied,
            voters: applied_voters,
            snapshot_end: applied.offset,
            saving: None,
        };
        let applier = tokio::spawn(applier.run());
        let mut effects = Vec::new();
        let machine_options = machine::Options {
            me,
            voters,
            bootstrap: options.bootstrap,
            timing: options.timing,
            seed: env.random.u64(),
        };
        let now = env.clock.monotonic();
        let machine = Machine::start(machine_options, stored, now, &mut effects);
        let machine = Arc::new(Mutex::new(machine));
        let driver = Driver {
            env: env.clone(),
            machine: Arc::clone(&machine),
            votes: VoteQueue::new(env.threads.clone(), votes),
            log: LogQueue::new(env.threads.clone(), store),
            outbox: Outbox::new(Arc::clone(&peers)),
            feed,
            shared: Arc::clone(&shared),
            facts,
            reader,
            directory: directory.clone(),
            asks: asked,
            tables: Tables::default(),
        };
        let driver = tokio::spawn(driver.run(effects, applier));
        let forwarder =
            Forwarder::new(options.node_id, peers, &shared, commands.clone(), &stopping);
        let submitter = Submitter {
            node_id: options.node_id,
            env: env.clone(),
            shared: Arc::clone(&shared),
            controller: controller(options, image),
            stopping: stopping.clone(),
            waiting,
            asks: asks.clone(),
            driver,
            forwarder,
            directory,
            ready_for: None,
            began: None,
        };
        let submitter = Mutex::new(Some(tokio::spawn(submitter.run())));
        Self { machine, shared, commands, asks, stopping, submitter }
    }

    /// A single voter has nobody to wait for.
    async fn lead_alone(&self, options: &QuorumOptions) -> Result<()> {
        if self.voters() != [options.node_id] {
            return Ok(());
        }
        let leads = self.shared.leading().wait_for(Option::is_some);
        tokio::select! {
            biased;
            _ = leads => {}
            () = self.shared.failed() => {
                return Err(self.shared.failure().unwrap_or_else(closed));
            }
            () = tokio::time::sleep(LEADER_TIMEOUT) => {
                let text = "metadata quorum: the only voter does not lead";
                return Err(Error::kafka(ErrorCode::CoordinatorNotAvailable, text));
            }
        }
        if let Some(cluster_id) = options.cluster_id.clone() {
            self.submit(Bootstrap { cluster_id, is_proposal: false }).await?.reply?;
        }
        Ok(())
    }

    /// Stops: commands already sent are answered, the log is closed cleanly. Later calls do
    /// nothing, later commands are refused as closed.
    ///
    /// # Errors
    ///
    /// When the disk failed; the log is recovered when it is next opened.
    pub fn shutdown(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.stopping.cancel();
        let task = self.submitter.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            match task {
                Some(task) => task.await.map_err(stopped)?,
                None => Ok(()),
            }
        }
    }
}

impl Drop for Quorum {
    /// The task closes the log even if nobody waits for it.
    fn drop(&mut self) {
        self.stopping.cancel();
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

    /// Answers a request of another node of the quorum; none when there is nothing to say, for example because the quorum
    /// stops. A fetch may wait for something to tell.
    pub(in crate::broker) fn handle(
        &self,
        request: Request,
    ) -> impl Future<Output = Option<Response<Bytes>>> + Send + use<> {
        let asks = self.asks.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            asks.send(Ask::Request(Box::new(request), answer)).await.ok()?;
            answered.await.ok()
        }
    }

    /// Carries out a command that another node forwarded, and says what to send back.
    pub(in crate::broker) fn arrived(
        &self,
        command: AnyCommand,
    ) -> impl Future<Output = CommandAnswer> + Send + use<> {
        let (respond, response) = oneshot::channel();
        let question = metadata_log::arrived(command, move |answer| drop(respond.send(answer)));
        let commands = self.commands.clone();
        async move {
            // Unless it is taken, it is dropped, and there is no response.
            drop(send(commands, question).await);
            response.await.unwrap_or_else(|_dropped| metadata_log::failed(&closed()))
        }
    }

    /// Changes who votes, if this node leads.
    pub(in crate::broker) fn change_voters(
        &self,
        change: VoterChange,
        when_appended: bool,
    ) -> impl Future<Output = Result<Result<(), Refusal>>> + Send + use<> {
        let asks = self.asks.clone();
        async move {
            let (answer, outcome) = oneshot::channel();
            let ask = Ask::ChangeVoters { change, when_appended, answer };
            asks.send(ask).await.map_err(|_stopped| closed())?;
            let outcome = outcome.await.map_err(|_dropped| closed())?;
            Ok(outcome.map(|_offset| ()))
        }
    }

    /// Takes note that the process of a node is proven to have ended.
    fn crashed(&self, node: NodeId) {
        // Who has no room for the proof waits for silence.
        drop(self.asks.try_send(Ask::Crashed(node)));
    }

    /// Ends without a word to the other nodes, as a killed process does. Waits until the files are closed.
    fn abandon(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.shared.fail(closed());
        self.shutdown()
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

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leader, or [`NodeId::NONE`].
    #[must_use]
    pub fn leader(&self) -> NodeId {
        self.machine().current().leader.map_or(NodeId::NONE, |leader| leader.id)
    }

    /// The end of what is committed and applied on this node.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.image().offset.next()
    }

    /// Who votes, as the log has it, committed or not.
    pub(in crate::broker) fn voter_set(&self) -> VoterSet {
        self.machine().voters().clone()
    }

    /// The voters.
    #[must_use]
    pub fn voters(&self) -> Vec<NodeId> {
        self.machine().voters().iter().map(|voter| voter.key.id).collect()
    }
}

#[cfg(test)]
impl Quorum {
    fn leader_epoch(&self) -> LeaderEpoch {
        self.machine().current().epoch
    }

    fn log_end_offset(&self) -> Offset {
        self.machine().log_end()
    }
}

fn controller(options: &QuorumOptions, image: MetadataImage) -> Controller {
    let seed = [options.env.random.u64(), options.env.random.u64()];
    let controller = Controller::new(options.node_id, options.config.clone(), image, seed);
    controller.with_files_max(options.env.disk.open_files_max())
}

async fn send(
    commands: mpsc::Sender<Box<dyn Question>>,
    question: Box<dyn Question>,
) -> Result<()> {
    let sent = commands.send(question).await;
    sent.map_err(|_closed| closed())
}

fn closed() -> Error {
    Error::Closed { what: "the metadata quorum" }
}

fn fatal(error: &Error) -> Error {
    let text = format!("the metadata quorum stopped: {}", error.chain());
    Error::kafka(ErrorCode::KafkaStorageError, text)
}

fn stopped(error: tokio::task::JoinError) -> Error {
    Error::invalid(format!("a task of the metadata quorum ended: {error}"))
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod cluster_tests;
#[cfg(test)]
#[cfg(feature = "sim")]
mod crash_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upgrade_tests;
