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
//! - `BOOT-2` every wait for others has an end, `initial.broker.registration.timeout.ms`, and the log says for whom;
//!   only the recovery of this broker's own logs takes what it takes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio::time::Instant;

use super::BrokerOptions;
use super::blocking::blocking;
use super::cleaner;
use super::coordinator::{GroupCoordinators, MarkerSender, ShardParts, TransactionCoordinators};
use super::crash_watch;
use super::joining;
use super::listener::{BoundListener, Listeners, socket_options};
use super::log_threads::LogThreads;
use super::maintenance;
use super::membership::{self, Heartbeats};
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
use super::tier;
use crate::config::{BrokerConfig, ConfigMap};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::log::LogDirectory;
use crate::machine::controller::{Bootstrap, BrokerRegistration, Predecessor};
use crate::machine::metadata::{ConfigResource, Endpoint, MetadataDelta, MetadataImage};
use crate::store::{GuardedStore, Store};
use crate::types::{BrokerEpoch, NodeId, Offset, Uuid};

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

/// Starts a broker; with a store for its tier instead of the one that the settings name, if one is given.
///
/// # Errors
///
/// As [`Broker::start`].
pub(super) async fn start(
    env: Env,
    options: &BrokerOptions,
    store: Option<Arc<dyn Store>>,
) -> Result<Broker> {
    let until = options.start_timeout.map(|limit| (limit, Instant::now() + limit));
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
    let opened = match store {
        Some(store) => Ok(Some(store)),
        None => tier::open(&env, &config.tier).await,
    };
    let store = match opened {
        Ok(store) => store.map(|store| Arc::new(GuardedStore::over(store, env.clone())) as _),
        Err(error) => {
            reception.close().await;
            return Err(error);
        }
    };
    let foundation = Foundation { env, config, reception, directory, temporary, store };
    let broker = match foundation.start_quorum().await {
        Ok(metadata) => foundation.carry(metadata).await?,
        Err(error) => {
            foundation.reception.close().await;
            return Err(error);
        }
    };
    finish(broker, until).await
}

/// Takes the broker through the phases that are left, or closes it: also when that took too long.
async fn finish(broker: Broker, until: Option<(Duration, Instant)>) -> Result<Broker> {
    let joined = match until {
        Some((limit, end)) => tokio::time::timeout_at(end, join(&broker))
            .await
            .unwrap_or_else(|_elapsed| Err(Error::timeout("the start of the broker", limit))),
        None => join(&broker).await,
    };
    match joined {
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
    let (node_id, joins) = (NodeId(config.node_id), config.has_peers());
    let own = env.clone();
    let open = move || {
        if joins {
            LogDirectory::open_to_join(&own, &path, node_id)
        } else {
            LogDirectory::open(&own, &path, node_id, None)
        }
    };
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
    store: Option<Arc<dyn Store>>,
}

impl Foundation {
    async fn start_quorum(&self) -> Result<Arc<dyn MetadataLog>> {
        let volatile = self.temporary.is_some();
        let endpoints = joining::voter_endpoints(&self.config, self.reception.bound());
        super::quorum::start(&self.env, &self.config, &self.directory, endpoints, volatile).await
    }

    /// The broker that stands on this, of whose quorum the log is; it knows nobody yet.
    async fn carry(self, metadata: Arc<dyn MetadataLog>) -> Result<Broker> {
        let Self { env, config, reception, directory, temporary, store } = self;
        let log_threads = match LogThreads::start(&env) {
            Ok(threads) => Arc::new(threads),
            Err(error) => {
                reception.close().await;
                metadata.shutdown().await;
                return Err(error);
            }
        };
        let identity =
            Identity { node_id: NodeId(config.node_id), bound: reception.bound().to_vec() };
        let storage = Arc::new(Storage::new(&env, directory));
        let parking = Arc::new(Parking::new());
        let around = Surroundings {
            node_id: identity.node_id,
            health: storage.health().clone(),
            parking: Arc::clone(&parking),
            isr_requests: Arc::default(),
            store,
            volatile: temporary.is_some(),
        };
        let parts = FetcherParts {
            env: env.clone(),
            node_id: identity.node_id,
            config: config.replication.clone(),
            storage: Arc::clone(&storage),
            log_threads: Arc::clone(&log_threads),
            broker_epoch: Arc::new(AtomicI64::new(BrokerEpoch::UNKNOWN.0)),
            throttles: Arc::default(),
        };
        let (tasks, stop) = (reception.tasks().clone(), reception.stop().clone());
        let replication = Replication::new(parts, tasks, stop);
        let parts = ShardParts {
            env: env.clone(),
            log_threads: Arc::clone(&log_threads),
            tasks: reception.tasks().clone(),
            stop: reception.stop().clone(),
        };
        let coordinators = GroupCoordinators::new(parts.clone(), ());
        let markers = MarkerSender::new(parts.tasks.clone(), parts.stop.clone());
        let transactions = TransactionCoordinators::new(parts, Arc::clone(&markers));
        let state = Arc::new(BrokerState::new(Parts {
            env,
            identity,
            config,
            metadata: Arc::clone(&metadata),
            partitions: Partitions::new(around, Arc::clone(&storage)),
            replication,
            coordinators,
            transactions,
            log_threads,
            parking,
        }));
        markers.set_state(&state);
        reception.progress().quorum_runs(&state);
        Ok(Broker::new(BrokerParts { state, metadata, storage, reception, temporary }))
    }
}

/// Joins the cluster, phase by phase.
async fn join(broker: &Broker) -> Result<()> {
    let (state, progress) = (broker.state(), broker.reception().progress());
    joining::check_alone(state).await?;
    // Who could never join need not wait for it.
    let cluster_id = tokio::select! {
        biased;
        found = find_cluster(broker) => found?,
        refusal = joining::refusal(state) => return Err(refusal),
    };
    progress.reach(Phase::ClusterKnown);
    tier::check(state).await?;
    let registration = registration(broker, cluster_id)?;
    let has_peers = !registration.ready;
    let registered = membership::register(state, &registration);
    let Committed { reply, offset } = within(state, registered, "the metadata quorum").await??;
    let epoch = reply?;
    state.set_broker_epoch(epoch);
    progress.reach(Phase::Registered);
    let incarnation = registration.incarnation;
    let (tasks, stop) = (broker.reception().tasks(), broker.reception().stop());
    let heartbeats = heartbeats(broker, registration, epoch);
    if has_peers {
        tasks.spawn(heartbeats.run(stop.clone()));
    } else {
        tasks.spawn(heartbeats.run_when_joined(stop.clone()));
    }
    tasks.spawn(crash_watch::watch_all(Arc::clone(state), tasks.clone(), stop.clone()));
    let (caught_up, ()) = tokio::join!(catch_up(broker, offset), note_registration(state, epoch));
    caught_up?;
    progress.reach(Phase::CaughtUp);
    broker.membership().caught_up();
    let unfenced = unfenced(state, incarnation);
    within(state, unfenced, "the controller to let this broker lead").await?;
    progress.reach(Phase::Unfenced);
    serve(broker);
    progress.reach(Phase::Serving);
    let endpoints = joining::voter_endpoints(&state.config(), broker.reception().bound());
    tasks.spawn(joining::become_voter(Arc::clone(state), endpoints, stop.clone()));
    tracing::info!(node = %state.node_id(), bootstrap = broker.bootstrap_servers(), "serving");
    Ok(())
}

/// Waits for others, and says for whom.
async fn within<T>(state: &BrokerState, work: impl Future<Output = T>, what: &str) -> Result<T> {
    let has_peers = state.has_peers();
    let max = Duration::from_millis(state.config().cluster.registration_timeout_ms.into());
    let reminders = async {
        if has_peers {
            membership::remind(state, what).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        done = tokio::time::timeout(max, work) => done.map_err(|_elapsed| {
            if has_peers {
                Error::timeout(format!("{what}, waiting for {}", membership::awaited(state)), max)
            } else {
                Error::timeout(what, max)
            }
        }),
        () = reminders => Err(Error::timeout(what, max)),
    }
}

/// Asks the quorum which cluster this is. A directory that belongs to none adopts it; where the cluster has no id yet,
/// what this node proposes becomes its id.
async fn find_cluster(broker: &Broker) -> Result<Arc<str>> {
    let state = broker.state();
    let storage = state.partitions().storage();
    let known = storage.meta()?.cluster_id;
    let is_proposal = known.is_none();
    let cluster_id = known.unwrap_or_else(|| state.env().random.uuid().to_string());
    let bootstrap = Bootstrap { cluster_id: cluster_id.into(), is_proposal };
    let asked = membership::ask(state, bootstrap);
    let cluster_id = within(state, asked, "the metadata quorum").await??.reply?;
    if is_proposal {
        let (storage, adopted) = (Arc::clone(storage), Arc::clone(&cluster_id));
        blocking(&state.env().threads, move || storage.adopt(&adopted)).await?;
    }
    state.set_cluster_id(&cluster_id);
    Ok(cluster_id)
}

fn registration(broker: &Broker, cluster_id: Arc<str>) -> Result<BrokerRegistration> {
    let (state, config) = (broker.state(), broker.state().config());
    let predecessor = state.partitions().storage().predecessor()?.map(|one| Predecessor {
        epoch: one.broker_epoch,
        left_all: one.left_all,
        durability: one.durability,
    });
    Ok(BrokerRegistration {
        id: state.node_id(),
        incarnation: state.env().random.uuid(),
        directory_id: state.partitions().storage().meta()?.directory_id,
        is_first: true,
        predecessor,
        cluster_id: Some(cluster_id),
        endpoints: endpoints(&config, broker.reception().bound()),
        rack: config.broker_rack.as_deref().map(Into::into),
        ready: !state.has_peers(),
    })
}

/// Notes the registration for the process that comes next.
pub(super) async fn note_registration(state: &Arc<BrokerState>, epoch: BrokerEpoch) {
    if state.partitions().is_volatile() {
        return;
    }
    let own = Arc::clone(state);
    let note = move || {
        // What is set at run time, the controller knows.
        let fixed = BrokerConfig::resolve(own.config().fixed())?;
        let durability = fixed.value("durability")?.unwrap_or_default();
        own.partitions().storage().note_registration(epoch, &durability)
    };
    if let Err(error) = blocking(&state.env().threads, note).await {
        let error = error.chain();
        tracing::warn!(error, "after a crash, this broker will have to catch up with the others");
    }
}

fn heartbeats(broker: &Broker, registration: BrokerRegistration, epoch: BrokerEpoch) -> Heartbeats {
    Heartbeats {
        state: Arc::clone(broker.state()),
        metadata: Arc::clone(broker.metadata()),
        membership: Arc::clone(broker.membership()),
        registration,
        epoch,
    }
}

/// Makes the metadata true here up to an offset, and from there on whatever follows.
async fn catch_up(broker: &Broker, registered: Offset) -> Result<()> {
    let state = broker.state();
    let (mut first, mut updates) = broker.metadata().subscribe();
    // What this node has of the metadata may be old. Logs are opened with their settings of today, or a topic that has a
    // tier by now would be opened as one without, and start where its disk does.
    let newest = async {
        while first.offset < registered
            && let Some(update) = updates.recv().await
        {
            first = update.image;
        }
    };
    within(state, newest, "the metadata of the cluster").await?;
    let applying = Arc::clone(state);
    // Everything is one change from the empty image.
    blocking(&state.env().threads, move || {
        applying.apply(&MetadataDelta::between(MetadataImage::empty(), &first), &first);
        Ok(())
    })
    .await?;
    let reception = broker.reception();
    let published = publisher::publish(Arc::clone(state), updates, reception.stop().clone());
    reception.tasks().spawn(published);
    within(state, state.published(registered), "the metadata of the cluster").await??;
    // Only now: a node that comes back to its cluster may have known of fewer topics.
    let (image, storage) = (state.image(), Arc::clone(state.partitions().storage()));
    let report = move || {
        storage.report_strays(|partition, id| {
            image.topic_by_id(id).is_some_and(|topic| topic.name == partition.topic)
        });
        Ok(())
    };
    blocking(&state.env().threads, report).await
}

/// Waits until the controller lets this process lead.
async fn unfenced(state: &BrokerState, incarnation: Uuid) {
    let leads = |image: &MetadataImage| {
        let own = image.broker(state.node_id());
        own.is_some_and(|own| own.incarnation == incarnation && !own.fenced)
    };
    state.published_when(leads).await;
}

/// Says so when `min.insync.replicas` is started with, but is another one in the cluster, where alone it counts.
fn report_minimum(state: &BrokerState) {
    const NAME: &str = "min.insync.replicas";
    let (config, image) = (state.config(), state.image());
    let (given, stored) =
        (config.fixed().get(NAME), image.config(&ConfigResource::ClusterDefault).get(NAME));
    if let (Some(given), Some(stored)) = (given, stored)
        && given != stored
    {
        tracing::warn!(
            given,
            stored,
            "the cluster's {NAME} counts, not the one that this node is started with; change it with `ottla configs`"
        );
    }
}

/// Starts what works beside the requests.
fn serve(broker: &Broker) {
    let (state, reception) = (broker.state(), broker.reception());
    report_minimum(state);
    maintenance::start(state, reception.buffers(), reception.tasks(), reception.stop());
    cleaner::start(state, reception.tasks(), reception.stop());
    tier::start(state, reception.tasks(), reception.stop());
    let stop = reception.stop().clone();
    reception.tasks().spawn(replication::send_isr_requests(Arc::clone(state), stop));
    let config = state.config();
    for listener in config.controller_listeners.iter().filter(|_| !config.has_peers()) {
        tracing::info!(%listener, "not opened: the controller is in this process");
    }
}

/// Where other brokers, and clients that ask other brokers, reach this one: by each of its listeners, but those of
/// controllers.
pub(super) fn endpoints(config: &BrokerConfig, bound: &[Arc<BoundListener>]) -> Vec<Endpoint> {
    endpoints_of(bound.iter().filter(|bound| !config.is_of_controllers(bound.name())))
}

/// The listeners, each once, with what everybody is told of them.
pub(super) fn endpoints_of<'a>(
    bound: impl Iterator<Item = &'a Arc<BoundListener>>,
) -> Vec<Endpoint> {
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
