//! Starting a broker: from the settings to the moment when clients are served.
//!
//! ```text
//! settings -> sockets -> log directory -> quorum -> cluster id -> registered -> caught up -> unfenced -> clients
//!               |                           |          |             |             |            |          |
//!           Listening             QuorumRunning  ClusterKnown  Registered     CaughtUp     Unfenced    Serving
//! ```
//!
//! Which requests are answered when is in [`phase`](super::phase). The sockets are bound before anything else, because
//! the registration names their ports, and they take connections at once: what comes after may take long (a metadata
//! log that waits for other voters, logs that are recovered after a crash).
//!
//! Invariants:
//! - `BOOT-1` a boot that fails closes what it opened before it returns the error; one that is dropped closes it soon
//!   after. Neither marks a log directory as cleanly shut down, nor writes checkpoints: not all logs may be open.
//! - `BOOT-2` every wait for others has an end; only the recovery of this broker's own logs takes what it takes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use super::BrokerOptions;
use super::blocking::blocking;
use super::cleaner;
use super::coordinator::{GroupCoordinators, ShardParts};
use super::listener::{BoundListener, Listeners, socket_options};
use super::log_threads::LogThreads;
use super::maintenance;
use super::metadata_log::{Committed, MetadataLog};
use super::parking::Parking;
use super::partition::Surroundings;
use super::partitions::Partitions;
use super::phase::Phase;
use super::publisher;
use super::reception::Reception;
use super::replication::{self, FetcherParts, Replication};
use super::server::{Broker, BrokerParts, TemporaryDirectory};
use super::state::{BrokerState, Identity, Parts};
use super::storage::Storage;
use crate::config::{BrokerConfig, ConfigMap};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::log::LogDirectory;
use crate::machine::controller::{Bootstrap, BrokerRegistration};
use crate::machine::metadata::{Endpoint, MetadataDelta, MetadataImage};
use crate::types::{BrokerEpoch, NodeId, Offset};

/// How long a boot waits for the quorum, each time.
const QUORUM_MAX: Duration = Duration::from_secs(60);

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

/// Starts a broker.
///
/// # Errors
///
/// As [`Broker::start`].
pub(super) async fn start(env: Env, options: &BrokerOptions) -> Result<Broker> {
    let (config, given) = resolve(options)?;
    let listeners = Listeners::bind(&env.net, &config.listeners, socket_options(&config))?;
    let reception = Reception::open(listeners, &config);
    let (directory, temporary) = match open_directory(&env, &config, given).await {
        Ok(opened) => opened,
        Err(error) => {
            reception.close().await;
            return Err(error);
        }
    };
    let foundation = Foundation { env, config, reception, directory, temporary };
    let broker = match foundation.start_quorum().await {
        Ok(metadata) => foundation.carry(metadata).await?,
        Err(error) => {
            foundation.reception.close().await;
            return Err(error);
        }
    };
    finish(broker).await
}

/// Takes the broker through the phases that are left, or closes it.
async fn finish(broker: Broker) -> Result<Broker> {
    match join(&broker).await {
        Ok(()) => Ok(broker),
        Err(error) => {
            broker.abandon().await;
            Err(error)
        }
    }
}

async fn open_directory(
    env: &Env,
    config: &BrokerConfig,
    given: Option<PathBuf>,
) -> Result<(Arc<LogDirectory>, Option<TemporaryDirectory>)> {
    let (path, temporary) = if let Some(path) = given {
        (path, None)
    } else {
        let temporary = TemporaryDirectory::create(env)?;
        (temporary.path().to_path_buf(), Some(temporary))
    };
    let node_id = NodeId(config.node_id);
    let own = env.clone();
    let open = move || LogDirectory::open(&own, &path, node_id, None);
    let directory = blocking(&env.threads, open).await?;
    Ok((Arc::new(directory), temporary))
}

/// What there is before the quorum runs.
struct Foundation {
    env: Env,
    config: BrokerConfig,
    reception: Reception,
    directory: Arc<LogDirectory>,
    temporary: Option<TemporaryDirectory>,
}

impl Foundation {
    async fn start_quorum(&self) -> Result<Arc<dyn MetadataLog>> {
        let volatile = self.temporary.is_some();
        super::quorum::start(&self.env, &self.config, &self.directory, volatile).await
    }

    /// The broker that stands on this, of whose quorum the log is; it knows nobody yet.
    async fn carry(self, metadata: Arc<dyn MetadataLog>) -> Result<Broker> {
        let Self { env, config, reception, directory, temporary } = self;
        let log_threads = match LogThreads::start(&env) {
            Ok(threads) => Arc::new(threads),
            Err(error) => {
                reception.close().await;
                metadata.shutdown().await;
                return Err(error);
            }
        };
        let identity = Identity {
            node_id: NodeId(config.node_id),
            cluster_id: directory.meta().cluster_id.clone(),
            bound: reception.bound().to_vec(),
        };
        let storage = Arc::new(Storage::new(&env, directory));
        let parking = Arc::new(Parking::new());
        let around = Surroundings {
            node_id: identity.node_id,
            health: storage.health().clone(),
            parking: Arc::clone(&parking),
            isr_requests: Arc::default(),
            volatile: temporary.is_some(),
        };
        let parts = FetcherParts {
            env: env.clone(),
            node_id: identity.node_id,
            config: config.replication.clone(),
            storage: Arc::clone(&storage),
            log_threads: Arc::clone(&log_threads),
            broker_epoch: Arc::new(AtomicI64::new(BrokerEpoch::UNKNOWN.0)),
        };
        let (tasks, stop) = (reception.tasks().clone(), reception.stop().clone());
        let replication = Replication::new(parts, tasks, stop);
        let coordinators = GroupCoordinators::new(ShardParts {
            env: env.clone(),
            log_threads: Arc::clone(&log_threads),
            tasks: reception.tasks().clone(),
            stop: reception.stop().clone(),
        });
        let state = Arc::new(BrokerState::new(Parts {
            env,
            identity,
            config,
            metadata: Arc::clone(&metadata),
            partitions: Partitions::new(around, Arc::clone(&storage)),
            replication,
            coordinators,
            log_threads,
            parking,
        }));
        reception.progress().quorum_runs(&state);
        Ok(Broker::new(BrokerParts { state, metadata, storage, reception, temporary }))
    }
}

/// Joins the cluster, phase by phase.
async fn join(broker: &Broker) -> Result<()> {
    let (state, progress) = (broker.state(), broker.reception().progress());
    let cluster_id = state.cluster_id().into();
    let bootstrap = broker.metadata().submit(Bootstrap { cluster_id });
    within(bootstrap, "the metadata quorum").await??.reply?;
    progress.reach(Phase::ClusterKnown);
    let Committed { reply, offset } =
        within(broker.metadata().submit(registration(broker)), "the metadata quorum").await??;
    let epoch = reply?;
    state.set_broker_epoch(epoch);
    progress.reach(Phase::Registered);
    catch_up(broker, offset).await?;
    progress.reach(Phase::CaughtUp);
    within(unfenced(state, epoch), "the controller to let this broker lead").await?;
    progress.reach(Phase::Unfenced);
    serve(broker);
    progress.reach(Phase::Serving);
    tracing::info!(node = %state.node_id(), bootstrap = broker.bootstrap_servers(), "serving");
    Ok(())
}

async fn within<T>(work: impl Future<Output = T>, what: &str) -> Result<T> {
    let done = tokio::time::timeout(QUORUM_MAX, work).await;
    done.map_err(|_elapsed| Error::timeout(what, QUORUM_MAX))
}

fn registration(broker: &Broker) -> BrokerRegistration {
    let (state, config) = (broker.state(), broker.state().config());
    BrokerRegistration {
        id: state.node_id(),
        incarnation: state.env().random.uuid(),
        cluster_id: Some(state.cluster_id().into()),
        endpoints: endpoints(broker.reception().bound()),
        rack: config.broker_rack.as_deref().map(Into::into),
        ready: true,
    }
}

/// Makes the metadata true here up to an offset, and from there on whatever follows.
async fn catch_up(broker: &Broker, registered: Offset) -> Result<()> {
    let state = broker.state();
    let (first, updates) = broker.metadata().subscribe();
    let applying = Arc::clone(state);
    // Everything is one change from the empty image.
    blocking(&state.env().threads, move || {
        applying.apply(&MetadataDelta::between(MetadataImage::empty(), &first), &first);
        applying.partitions().storage().report_strays(|partition, id| {
            first.topic_by_id(id).is_some_and(|topic| topic.name == partition.topic)
        });
        Ok(())
    })
    .await?;
    let reception = broker.reception();
    let published = publisher::publish(Arc::clone(state), updates, reception.stop().clone());
    reception.tasks().spawn(published);
    within(state.published(registered), "the metadata of the cluster").await?
}

/// Waits until the controller lets the broker lead under this registration.
async fn unfenced(state: &BrokerState, epoch: BrokerEpoch) {
    let leads = |image: &MetadataImage| {
        let own = image.broker(state.node_id());
        own.is_some_and(|own| own.epoch == epoch && !own.fenced)
    };
    state.published_when(leads).await;
}

/// Starts what works beside the requests.
fn serve(broker: &Broker) {
    let (state, reception) = (broker.state(), broker.reception());
    maintenance::start(state, reception.buffers(), reception.tasks(), reception.stop());
    cleaner::start(state, reception.tasks(), reception.stop());
    let stop = reception.stop().clone();
    reception.tasks().spawn(replication::send_isr_requests(Arc::clone(state), stop));
    for listener in &state.config().controller_listeners {
        tracing::info!(%listener, "not opened: the controller is in this process");
    }
}

/// Where other brokers, and clients that ask other brokers, reach this one: by each of its listeners.
fn endpoints(bound: &[Arc<BoundListener>]) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for bound in bound {
        if endpoints.iter().any(|known| *known.listener == *bound.name()) {
            continue;
        }
        let (host, port) = bound.told(None);
        endpoints.push(Endpoint {
            listener: bound.name().into(),
            host: host.into(),
            port,
            security_protocol: bound.listener.protocol as i16,
        });
    }
    endpoints
}

#[cfg(test)]
#[path = "boot_tests.rs"]
pub(super) mod tests;
