//! Starting and stopping a broker.
//!
//! ```text
//! start:  settings -> bind -> log directory -> quorum -> register -> image applied -> accept
//! stop:   no new requests -> open ones answered -> logs closed -> checkpoints -> quorum -> marker
//! ```
//!
//! The sockets are bound before anything else, because the registration names their ports, and
//! accept last, when everything can be answered.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::BrokerOptions;
use super::cleaner;
use super::connection::ConnectionLimits;
use super::coordinator::{self, GroupCoordinators};
use super::dispatch::{Dispatcher, LocalService};
use super::frame_reader::FrameLimits;
use super::listener::{Acceptor, BoundListener, Listeners, socket_options};
use super::log_threads::LogThreads;
use super::maintenance;
use super::memory::MemoryBudget;
use super::metadata_log::MetadataLog;
use super::parallel;
use super::parking::Parking;
use super::partition::Surroundings;
use super::partitions::Partitions;
use super::receive_buffers::ReceiveBuffers;
use super::state::{BrokerState, Identity, Parts};
use super::storage::Storage;
use crate::config::{BrokerConfig, ConfigMap};
use crate::env::{Env, Threads};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Log, LogDirectory};
use crate::machine::controller::{Bootstrap, BrokerRegistration};
use crate::machine::metadata::{Endpoint, MetadataDelta, MetadataImage, MetadataUpdate};
use crate::protocol::Service;
use crate::types::{BrokerEpoch, NodeId, Offset};

/// How long open requests may take at a shutdown.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long a start waits for the quorum.
const QUORUM_MAX: Duration = Duration::from_secs(60);

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
    addresses: Vec<SocketAddr>,
    tasks: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
    stopped: AtomicBool,
    /// Removed when the broker is dropped.
    temporary: Option<TemporaryDirectory>,
}

/// What a start has so far.
struct Ground {
    env: Env,
    config: BrokerConfig,
    listeners: Listeners,
    directory: Arc<LogDirectory>,
    volatile: bool,
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

    /// Starts a broker in other surroundings than those of the operating system, for tests.
    ///
    /// # Errors
    ///
    /// As [`Broker::start`].
    pub async fn start_on(env: Env, options: BrokerOptions) -> Result<Self> {
        let (config, given) = resolve(&options)?;
        let listeners = Listeners::bind(&env.net, &config.listeners, socket_options(&config))?;
        let (path, temporary) = if let Some(path) = given {
            (path, None)
        } else {
            let temporary = TemporaryDirectory::create(&env)?;
            (temporary.path.clone(), Some(temporary))
        };
        let volatile = temporary.is_some();
        let node_id = NodeId(config.node_id);
        let opened = {
            let env = env.clone();
            let threads = env.threads.clone();
            blocking(&threads, move || LogDirectory::open(&env, &path, node_id, None)).await?
        };
        let directory = Arc::new(opened);
        let ground = Ground { env, config, listeners, directory, volatile };
        ground.start(temporary).await
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

    /// The bound addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A way into the broker for one client within the process, whose Produce requests keep the order of its calls.
    pub fn service(&self) -> Arc<dyn Service> {
        LocalService::new(Arc::clone(&self.state), self.stop.clone())
    }

    /// The id of this broker in its cluster.
    pub fn node_id(&self) -> NodeId {
        self.state.node_id()
    }

    /// The id of the cluster, made at the first start of its first broker.
    pub fn cluster_id(&self) -> &str {
        self.state.cluster_id()
    }

    /// Where the broker keeps its data.
    pub fn data_dir(&self) -> &Path {
        self.storage.path()
    }

    /// Stops the broker cleanly: no new requests, open ones are answered, logs are flushed and the
    /// clean-shutdown marker is written. Bounded in time; a second call does nothing.
    ///
    /// # Errors
    ///
    /// A log that could not be flushed; the broker is stopped nevertheless.
    pub async fn shutdown(&self) -> Result<()> {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        tracing::info!(node = %self.node_id(), "stopping");
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!("some requests did not end in time");
            self.kill.cancel();
            if tokio::time::timeout(DRAIN_MAX, self.tasks.wait()).await.is_err() {
                tracing::warn!("some tasks did not end in time");
            }
        }
        // After this nothing is appended, and what was is synced.
        self.state.log_threads().stop().await;
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
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill.cancel();
        if self.stopped.load(Ordering::Acquire) {
            return;
        }
        tracing::debug!("dropped without a shutdown");
        // Somebody may still hold the service, and with it the state: let go of the logs here, so that
        // nothing is written any more when the lock of the directory is given back.
        for partition in self.state.partitions().all() {
            partition.close(ErrorCode::NotLeaderOrFollower);
            drop(partition.take_log());
        }
        self.state.log_threads().release();
        drop(self.storage.close(false));
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

/// Checks the settings, and finds the data directory.
fn resolve(options: &BrokerOptions) -> Result<(BrokerConfig, Option<PathBuf>)> {
    let mut fixed: ConfigMap = options.properties.clone();
    let any = || "PLAINTEXT://localhost:0".to_owned();
    let listeners = options.listeners.clone();
    let listeners = listeners.or_else(|| fixed.get("listeners").cloned()).unwrap_or_else(any);
    fixed.insert("listeners".to_owned(), listeners);
    if !options.standalone {
        for name in ["group.initial.rebalance.delay.ms", "group.consumer.assignment.interval.ms"] {
            fixed.entry(name.to_owned()).or_insert_with(|| "0".to_owned());
        }
    }
    let config = BrokerConfig::resolve(&fixed)?;
    Ok(match &options.data_dir {
        Some(path) => (config.in_directory(&path.to_string_lossy()), Some(path.clone())),
        None => {
            let given = config.log_dir.as_ref().map(PathBuf::from);
            (config, given)
        }
    })
}

/// Runs something that blocks.
async fn blocking<T: Send + 'static>(
    threads: &Threads,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match threads.spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            let context = format!("a task of the broker failed: {error}");
            Err(Error::kafka(ErrorCode::UnknownServerError, context))
        }
    }
}

impl Ground {
    async fn start(self, temporary: Option<TemporaryDirectory>) -> Result<Broker> {
        let Self { env, config, listeners, directory, volatile } = self;
        let node_id = NodeId(config.node_id);
        let metadata = super::quorum::start(&env, &config, &directory, volatile).await?;
        let bound = listeners.bound();
        let addresses = bound.iter().map(|listener| listener.address).collect();
        let cluster_id = directory.meta().cluster_id.clone();
        let broker_epoch = register(&metadata, &env, &config, (&cluster_id, &bound)).await?;
        let storage = Arc::new(Storage::new(&env, directory));
        let parking = Arc::new(Parking::new());
        let log_threads = Arc::new(LogThreads::start(&env)?);
        let around = Surroundings {
            node_id,
            health: storage.health().clone(),
            parking: Arc::clone(&parking),
            volatile,
        };
        let identity = Identity {
            node_id,
            cluster_id,
            broker_epoch,
            bound,
            advertised: config.advertised_listeners.clone(),
        };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let coordinators = GroupCoordinators::new(coordinator::Ground {
            env: env.clone(),
            log_threads: Arc::clone(&log_threads),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let state = Arc::new(BrokerState::new(Parts {
            env,
            identity,
            config,
            metadata: Arc::clone(&metadata),
            partitions: Partitions::new(around, Arc::clone(&storage)),
            coordinators,
            log_threads,
            parking,
        }));
        let broker = Broker {
            state,
            metadata,
            storage,
            addresses,
            tasks,
            stop,
            kill: CancellationToken::new(),
            stopped: AtomicBool::new(false),
            temporary,
        };
        broker.serve(listeners).await?;
        Ok(broker)
    }
}

impl Broker {
    /// Applies the first image, as one change from the empty one; then lets clients in.
    async fn serve(&self, listeners: Listeners) -> Result<()> {
        let (first, updates) = self.metadata.subscribe();
        let state = Arc::clone(&self.state);
        blocking(&self.state.env().threads, move || {
            state.apply(&MetadataDelta::between(MetadataImage::empty(), &first), &first);
            state.partitions().storage().report_strays(|partition, id| {
                first.topic_by_id(id).is_some_and(|topic| topic.name == partition.topic)
            });
            Ok(())
        })
        .await?;
        let (state, stop) = (Arc::clone(&self.state), self.stop.clone());
        self.tasks.spawn(publish(state, updates, stop));
        let buffers = ReceiveBuffers::default();
        maintenance::start(&self.state, &buffers, &self.tasks, &self.stop);
        cleaner::start(&self.state, &self.tasks, &self.stop);
        let config = self.state.config();
        let count = |setting: i32| usize::try_from(setting).unwrap_or(usize::MAX);
        let limits = ConnectionLimits {
            frames: FrameLimits {
                bytes_max: count(config.socket_request_max_bytes),
                memory: MemoryBudget::new(config.queued_max_request_bytes),
                buffers,
            },
            idle: u64::try_from(config.connections_max_idle_ms).ok().map(Duration::from_millis),
        };
        let acceptor = Acceptor::new(
            Dispatcher::new(Arc::clone(&self.state)),
            limits,
            (count(config.max_connections), count(config.max_connections_per_ip)),
            (self.stop.clone(), self.kill.clone()),
        );
        listeners.accept(&acceptor, &self.tasks);
        for listener in &config.controller_listeners {
            tracing::info!(%listener, "not opened: the controller is in this process");
        }
        tracing::info!(node = %self.node_id(), bootstrap = self.bootstrap_servers(), "serving");
        Ok(())
    }
}

/// Makes true every change that is committed.
async fn publish(
    state: Arc<BrokerState>,
    mut updates: mpsc::Receiver<MetadataUpdate>,
    stop: CancellationToken,
) {
    loop {
        let update = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            update = updates.recv() => update,
        };
        let Some(update) = update else { return };
        let applying = Arc::clone(&state);
        let applied = blocking(&state.env().threads, move || {
            applying.follow(&update);
            Ok(())
        });
        if let Err(error) = applied.await {
            tracing::error!(error = %error.chain(), "a metadata change could not be applied");
        }
    }
}

/// Founds the cluster when it is new, and joins it.
async fn register(
    metadata: &Arc<dyn MetadataLog>,
    env: &Env,
    config: &BrokerConfig,
    (cluster_id, bound): (&str, &[Arc<BoundListener>]),
) -> Result<BrokerEpoch> {
    let joined = async {
        metadata.submit(Bootstrap { cluster_id: cluster_id.into() }).await?.reply?;
        let registration = BrokerRegistration {
            id: NodeId(config.node_id),
            incarnation: env.random.uuid(),
            cluster_id: Some(cluster_id.into()),
            endpoints: endpoints(config, bound),
            rack: config.broker_rack.as_deref().map(Into::into),
            ready: true,
        };
        Ok::<_, Error>(metadata.submit(registration).await?.reply?)
    };
    match tokio::time::timeout(QUORUM_MAX, joined).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Error::timeout("the metadata quorum", QUORUM_MAX)),
    }
}

/// Where other brokers, and clients that ask other brokers, reach this one: by each of its listeners.
fn endpoints(config: &BrokerConfig, bound: &[Arc<BoundListener>]) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for listener in bound {
        if endpoints.iter().any(|known| *known.listener == *listener.name) {
            continue;
        }
        let (host, port) = match listener.advertised(&config.advertised_listeners) {
            Some((host, port)) => (host.to_owned(), port),
            None => {
                let mut settings = config.listeners.iter();
                let named = settings.find(|one| one.name == listener.name);
                let host = named.and_then(|listener| listener.host.clone());
                let bound = || listener.address.ip().to_string();
                (host.unwrap_or_else(bound), listener.address.port())
            }
        };
        endpoints.push(Endpoint {
            listener: listener.name.as_str().into(),
            host: host.into(),
            port,
            security_protocol: listener.protocol as i16,
        });
    }
    endpoints
}

/// How often a temporary directory is emptied before it is left behind with a warning.
const REMOVE_TRIES_MAX: usize = 100;

/// The data directory of a broker in memory.
#[derive(Debug)]
struct TemporaryDirectory {
    env: Env,
    path: PathBuf,
}

impl TemporaryDirectory {
    fn create(env: &Env) -> Result<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SecurityProtocol, parse_listeners};

    #[test]
    fn a_broker_is_registered_with_each_of_its_listeners() {
        let mut config = BrokerConfig::default();
        let parse = |setting, value| parse_listeners(setting, value).unwrap();
        config.listeners = parse("listeners", "PLAINTEXT://localhost:0,OUTSIDE://127.0.0.1:0");
        config.advertised_listeners = parse("advertised.listeners", "OUTSIDE://broker.example:0");
        let bound = |name: &str, address: &str| {
            let (protocol, address) = (SecurityProtocol::Plaintext, address.parse().unwrap());
            Arc::new(BoundListener { name: name.to_owned(), protocol, address })
        };
        let bound = [
            bound("PLAINTEXT", "127.0.0.1:1111"),
            bound("PLAINTEXT", "[::1]:1111"),
            bound("OUTSIDE", "127.0.0.1:2222"),
        ];
        let endpoints = endpoints(&config, &bound);
        let told: Vec<_> =
            endpoints.iter().map(|one| (&*one.listener, &*one.host, one.port)).collect();
        let expected = [("PLAINTEXT", "localhost", 1111), ("OUTSIDE", "broker.example", 2222)];
        assert_eq!(told, expected);
    }
}
