//! A running broker, and stopping it. How it comes to run is in [`boot`](super::boot).
//!
//! ```text
//! stop:   others lead -> no new requests -> open ones answered -> logs closed -> checkpoints -> quorum -> marker
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::BrokerOptions;
use super::blocking::blocking;
use super::boot;
use super::dispatch::LocalService;
use super::membership::Membership;
use super::metadata_log::MetadataLog;
use super::parallel;
use super::reception::{DRAIN_MAX, Reception};
use super::state::BrokerState;
use super::storage::Storage;
use crate::env::{Env, Links, Net};
use crate::error::{Error, ErrorCode, Result};
use crate::log::Log;
use crate::protocol::Service;
#[cfg(feature = "sim")]
use crate::store::Store;
use crate::types::{NodeId, Offset};

/// A running broker.
///
/// It runs on the tokio runtime that [`Broker::start`] was called on, and on a few threads of its
/// own for the logs. Dropping it stops it at once, as a crash would; [`Broker::shutdown`] stops it
/// cleanly.
#[derive(Debug)]
pub struct Broker {
    state: Arc<BrokerState>,
    metadata: Arc<dyn MetadataLog>,
    storage: Arc<Storage>,
    reception: Reception,
    membership: Arc<Membership>,
    addresses: Vec<SocketAddr>,
    stopped: AtomicBool,
    /// Removed when the broker is dropped.
    temporary: Option<TemporaryDirectory>,
}

/// The parts that a broker is made of.
pub(super) struct BrokerParts {
    pub(super) state: Arc<BrokerState>,
    pub(super) metadata: Arc<dyn MetadataLog>,
    pub(super) storage: Arc<Storage>,
    pub(super) reception: Reception,
    pub(super) temporary: Option<TemporaryDirectory>,
}

impl Broker {
    /// Starts a broker; when this returns, it serves.
    ///
    /// # Errors
    ///
    /// A setting that is not known or not valid, an address that cannot be bound, or a data
    /// directory that is in use, was made by a newer version or cannot be read.
    pub async fn start(options: BrokerOptions) -> Result<Self> {
        Self::start_on(Env::real(), options).await
    }

    /// Starts a node whose links to others can be cut, for clusters of several nodes in one process.
    ///
    /// # Errors
    ///
    /// As [`Broker::start`].
    pub async fn start_linked(links: Links, options: BrokerOptions) -> Result<Self> {
        Self::start_on(Env { net: Net::Linked(links), ..Env::real() }, options).await
    }

    /// Starts a broker in other surroundings than those of the operating system, for tests.
    ///
    /// # Errors
    ///
    /// As [`Broker::start`].
    pub async fn start_on(env: Env, options: BrokerOptions) -> Result<Self> {
        boot::start(env, &options, None).await
    }

    /// The same, with a store for the tier instead of the one that the settings name.
    ///
    /// # Errors
    ///
    /// As [`Broker::start`].
    #[cfg(feature = "sim")]
    pub async fn start_with_store(
        env: Env,
        options: BrokerOptions,
        store: Arc<dyn Store>,
    ) -> Result<Self> {
        boot::start(env, &options, Some(store)).await
    }

    pub(super) fn new(parts: BrokerParts) -> Self {
        let BrokerParts { state, metadata, storage, reception, temporary } = parts;
        let config = state.config();
        let mut bound = reception.bound().to_vec();
        bound.retain(|listener| !config.is_of_controllers(listener.name()));
        let addresses = bound.iter().map(|listener| listener.address).collect();
        let (membership, stopped) = (Membership::new(), AtomicBool::new(false));
        Self { state, metadata, storage, reception, membership, addresses, stopped, temporary }
    }

    pub(super) const fn state(&self) -> &Arc<BrokerState> {
        &self.state
    }

    pub(super) const fn metadata(&self) -> &Arc<dyn MetadataLog> {
        &self.metadata
    }

    pub(super) const fn reception(&self) -> &Reception {
        &self.reception
    }

    pub(super) const fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// `host:port` of every bound address, separated by commas; what a client is given as
    /// `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        let reachable = |address: &SocketAddr| {
            let mut address = *address;
            if address.ip().is_unspecified() {
                address.set_ip(match address {
                    SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                    SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                });
            }
            address.to_string()
        };
        self.addresses.iter().map(reachable).collect::<Vec<_>>().join(",")
    }

    /// The bound addresses at which clients are served.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A way into the broker for one client within the process, whose Produce requests keep the order of its calls.
    pub fn service(&self) -> Arc<dyn Service> {
        LocalService::new(Arc::clone(&self.state), self.reception.stop().clone())
    }

    /// The id of this broker in its cluster.
    pub fn node_id(&self) -> NodeId {
        self.state.node_id()
    }

    /// The id of the cluster, made at the first start of its first broker.
    pub fn cluster_id(&self) -> &str {
        // A broker that has started knows it.
        self.state.cluster_id().unwrap_or_default()
    }

    /// Where the broker keeps its data.
    pub fn data_dir(&self) -> &Path {
        self.storage.path()
    }

    /// Stops the broker cleanly: other brokers take over what it leads, no new requests, open ones are
    /// answered, logs are flushed and the clean-shutdown marker is written. Bounded in time; a second call does nothing.
    ///
    /// # Errors
    ///
    /// A log that could not be flushed; the broker is stopped nevertheless.
    pub async fn shutdown(&self) -> Result<()> {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        tracing::info!(node = %self.node_id(), "stopping");
        let config = self.state.config();
        if self.state.has_peers() && config.cluster.controlled_shutdown_enable {
            self.membership.leave().await;
        }
        self.reception.drain().await;
        // After this nothing is appended.
        self.stop_log_threads().await;
        let (state, threads) = (Arc::clone(&self.state), &self.state.env().threads);
        let closed = blocking(threads, move || close_logs(&state)).await;
        self.metadata.shutdown().await;
        let storage = Arc::clone(&self.storage);
        let in_order = closed.is_ok();
        let marked = blocking(threads, move || storage.close(in_order)).await;
        if let Some(temporary) = &self.temporary {
            temporary.remove();
        }
        closed.and(marked)
    }

    /// Ends as a killed process does: connections break, nothing is flushed, marked, checkpointed or handed over. What
    /// was written stays, and another start finds the directory free. Bounded in time; a second call does nothing.
    pub async fn kill(&self) {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::info!(node = %self.node_id(), "killed");
        self.reception.end();
        self.let_go();
        self.metadata.abandon().await;
        self.reception.close().await;
        self.stop_log_threads().await;
    }

    /// Lets go of the logs, so that nothing is written any more when the lock of the directory is given back.
    fn let_go(&self) {
        for partition in self.state.partitions().all() {
            partition.close(ErrorCode::NotLeaderOrFollower);
            drop(partition.take_log());
        }
        self.state.log_threads().release();
        drop(self.storage.close(false));
    }

    /// Gives up: nothing is marked or checkpointed, because the logs may not all have been opened; what was written
    /// stays. Waits until everything is closed, so that another start finds it free. Bounded in time.
    pub(super) async fn abandon(self) {
        self.reception.close().await;
        self.stop_log_threads().await;
        self.metadata.shutdown().await;
    }

    async fn stop_log_threads(&self) {
        let threads = self.state.log_threads();
        if tokio::time::timeout(DRAIN_MAX, threads.stop()).await.is_err() {
            // A request in the process stands in a queue of theirs, and nobody polls it.
            tracing::warn!("the log threads did not end in time");
            threads.release();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.reception.end();
        if self.stopped.load(Ordering::Acquire) {
            return;
        }
        tracing::debug!("dropped without a shutdown");
        // Somebody may still hold the service, and with it the state.
        self.let_go();
    }
}

/// Closes every log and writes the checkpoints. Blocks.
fn close_logs(state: &Arc<BrokerState>) -> Result<()> {
    let partitions = state.partitions().all();
    let closed = parallel::each(&state.env().threads, &partitions, |partition| {
        partition.close(ErrorCode::NotLeaderOrFollower);
        let closed = partition.take_log().map_or(Ok(Offset::ZERO), Log::close);
        closed.inspect_err(|error| {
            tracing::error!(partition = %partition.name(), error = %error.chain(), "not closed");
        })
    });
    let first_error = closed.into_iter().find_map(Result::err);
    let written = state.partitions().storage().checkpoint(&partitions);
    first_error.map_or(written, Err)
}

/// How often a temporary directory is emptied before it is left behind with a warning.
const REMOVE_TRIES_MAX: usize = 100;

/// The data directory of a broker in memory.
#[derive(Debug)]
pub(super) struct TemporaryDirectory {
    env: Env,
    path: PathBuf,
}

impl TemporaryDirectory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn create(env: &Env) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("ottla-{}", env.random.uuid()));
        env.disk.create_dir_all(&path).map_err(|error| Error::io("create", &path, error))?;
        Ok(Self { env: env.clone(), path })
    }

    /// Removes the directory. After a drop without a shutdown the quorum may still be writing its
    /// last file, which the directory then gets while it is emptied; so it is emptied again.
    fn remove(&self) {
        let mut last_error = None;
        for _ in 0..REMOVE_TRIES_MAX {
            match self.env.disk.remove_dir_all(&self.path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
                Err(error) => last_error = Some(error),
                Ok(()) => return,
            }
        }
        if let Some(error) = last_error {
            tracing::warn!(path = %self.path.display(), %error, "could not remove");
        }
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        self.remove();
    }
}
