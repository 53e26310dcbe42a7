//! What the client knows about the cluster, and its routes into it.
//!
//! Metadata is kept for the topics that were requested. It is refreshed when a topic is unknown,
//! when an answer says that a leader moved, and when it is older than `metadata.max.age.ms`. It
//! never goes back in time: a partition's leader is replaced only by one with the same or a higher
//! epoch, unless the topic was re-created (KIP-320, KIP-516).
//!
//! Routes are per broker and [`Lane`]: a fetch that waits at the broker for new records does not
//! hold up the requests behind it, because nothing else uses its lane.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::client::config::ClientConfig;
use crate::client::errors;
use crate::client::obstacles::{Obstacles, SILENCE, note_failure};
use crate::client::route::Route;
use crate::client::snapshot::merge_topic;
pub use crate::client::snapshot::{BrokerInfo, PartitionInfo, TopicInfo};
pub(crate) use crate::client::snapshot::{Leader, Snapshot, TopicFailure};
use crate::client::transaction::Unmarked;
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse,
};
use crate::protocol::{ApiKey, Service, Str};
use crate::types::{NodeId, TimestampMs, Uuid};

/// How many times to ask again for something unknown: for most of a second with the default
/// backoff.
const UNKNOWN_RETRIES: u32 = 3;

/// What a route is used for; each has its own connection per broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Requests that are answered at once.
    Control,
    /// The produce requests of one producer.
    Produce(u64),
    /// The fetches of one consumer.
    Fetch(u64),
    /// The joins, syncs and heartbeats of one member of a group.
    Group(u64),
}

/// Where to start.
enum Origin {
    Servers(Vec<String>),
    Local { service: Arc<dyn Service>, node: Option<NodeId> },
}

impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Servers(servers) => servers.fmt(formatter),
            Self::Local { node, .. } => write!(formatter, "Local({node:?})"),
        }
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Route>>>>;

/// The cluster, as a client sees it.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: ClientConfig,
    pub(crate) env: Env,
    origin: Origin,
    snapshot: ArcSwap<Snapshot>,
    refreshing: tokio::sync::Mutex<()>,
    routes: Mutex<BTreeMap<(NodeId, Lane), Slot>>,
    /// The finalized features of the highest epoch that a broker has told, with that epoch.
    features: Mutex<(i64, BTreeMap<String, i16>)>,
    pub(crate) obstacles: Arc<Obstacles>,
    /// The transactions of this client whose markers may still be on their way.
    pub(in crate::client) unmarked: Unmarked,
}

impl Cluster {
    pub(crate) fn over_tcp(env: Env, config: ClientConfig) -> Self {
        let origin = Origin::Servers(config.bootstrap_servers.clone());
        Self::new(env, config, origin)
    }

    pub(crate) fn local(
        env: Env,
        service: Arc<dyn Service>,
        node: Option<NodeId>,
        config: ClientConfig,
    ) -> Self {
        let cluster = Self::new(env, config, Origin::Local { service, node });
        cluster.obstacles.reached();
        cluster
    }

    fn new(env: Env, config: ClientConfig, origin: Origin) -> Self {
        Self {
            config,
            env,
            origin,
            snapshot: ArcSwap::default(),
            refreshing: tokio::sync::Mutex::new(()),
            routes: Mutex::new(BTreeMap::new()),
            features: Mutex::new((-1, BTreeMap::new())),
            obstacles: Arc::default(),
            unmarked: Unmarked::default(),
        }
    }

    /// A clock for machines: it never goes backwards.
    pub(crate) fn now(&self) -> TimestampMs {
        let monotonic = self.env.clock.monotonic().as_millis();
        TimestampMs(i64::try_from(monotonic).unwrap_or(i64::MAX))
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Whether requests to all brokers stay in this process.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.origin, Origin::Local { .. }) && self.snapshot.load().brokers.len() <= 1
    }

    /// Closes all routes; they are reopened when used.
    pub(crate) fn disconnect(&self) {
        self.slots().clear();
    }

    /// Closes the routes of a lane.
    pub(crate) fn disconnect_lane(&self, lane: Lane) {
        self.slots().retain(|&(_, other), _| other != lane);
    }

    /// Whether the route to a broker is still kept: not disconnected, and the broker has the same address.
    pub(crate) fn keeps(&self, node: NodeId, lane: Lane) -> bool {
        self.slots().contains_key(&(node, lane))
    }

    /// When to try again after consecutive failures.
    pub(crate) fn after_failures(&self, failures: u32) -> TimestampMs {
        let wait_ms = self.config.backoff.delay_ms(failures, self.env.random.u64());
        self.now().plus(i64::try_from(wait_ms).unwrap_or(i64::MAX))
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<(NodeId, Lane), Slot>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The route to a broker, connected if need be.
    pub(crate) async fn route(&self, node: NodeId, lane: Lane) -> Result<Arc<Route>> {
        let slot = Arc::clone(self.slots().entry((node, lane)).or_default());
        let mut route = slot.lock().await;
        if let Some(open) = route.as_ref().filter(|open| !open.is_closed()) {
            return Ok(Arc::clone(open));
        }
        *route = None;
        let opened = Arc::new(self.open(node).await?);
        self.note_features(&opened);
        *route = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Keeps what a broker tells of the finalized features, unless it lags behind another one (KIP-584).
    fn note_features(&self, route: &Route) {
        let told = route.api_versions();
        let mut known = self.features.lock().unwrap_or_else(PoisonError::into_inner);
        if told.finalized_features_epoch > known.0 {
            let levels = told.finalized_features.iter();
            let levels = levels.map(|one| (one.name.to_string(), one.max_version_level)).collect();
            *known = (told.finalized_features_epoch, levels);
        }
    }

    /// The finalized level of a feature, as the brokers told it when they were connected to; 0 without one.
    pub(crate) fn finalized(&self, feature: &str) -> i16 {
        let known = self.features.lock().unwrap_or_else(PoisonError::into_inner);
        known.1.get(feature).copied().unwrap_or(0)
    }

    async fn open(&self, node: NodeId) -> Result<Route> {
        let snapshot = self.snapshot();
        if let Origin::Local { service, node: own } = &self.origin {
            let is_own = match own {
                Some(own) => *own == node || node == NodeId::NONE,
                None => snapshot.brokers.len() <= 1 || node == NodeId::NONE,
            };
            if is_own {
                return Route::local(Arc::clone(service), &self.config).await;
            }
        }
        if let Some(broker) = snapshot.brokers.get(&node) {
            let opened =
                Route::tcp(&self.env.net, &broker.address(), &self.config, &self.obstacles).await;
            return opened.map_err(|error| self.of_advertised(error, broker));
        }
        if node != NodeId::NONE {
            let text = format!("broker {node} is not in the cluster at the moment");
            return Err(Error::told(ErrorCode::LeaderNotAvailable, text));
        }
        self.bootstrap().await
    }

    /// Connects to the first bootstrap server that answers.
    async fn bootstrap(&self) -> Result<Route> {
        let Origin::Servers(servers) = &self.origin else {
            return Err(Error::Closed { what: "the broker in this process" });
        };
        let first = usize::try_from(self.env.random.u64() % 1024).unwrap_or(0);
        let mut failure = Error::invalid("bootstrap.servers is empty; pass at least one HOST:PORT");
        for index in 0..servers.len() {
            let Some(server) = servers.get((first + index) % servers.len()) else { continue };
            match Route::tcp(&self.env.net, server, &self.config, &self.obstacles).await {
                Ok(route) => return Ok(route),
                Err(error) => {
                    tracing::debug!(server, error = %error.chain(), "bootstrap server failed");
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    /// The caller only knows the addresses that it passed.
    fn of_advertised(&self, error: Error, broker: &BrokerInfo) -> Error {
        let is_given = match &self.origin {
            Origin::Servers(servers) => servers.contains(&broker.address()),
            Origin::Local { .. } => false,
        };
        match error {
            Error::Network { action, address, source } if !is_given => {
                let address = format!("{address}, as broker {} advertises itself", broker.id);
                Error::Network { action, address, source }
            }
            error => error,
        }
    }

    /// What currently prevents progress, for the error of a call that has waited long enough.
    pub(crate) fn obstacle(&self) -> Option<Arc<Error>> {
        let slots: Vec<Slot> = self
            .slots()
            .iter()
            // The other lanes wait for long answers by design.
            .filter(|((_, lane), _)| matches!(lane, Lane::Control | Lane::Produce(_)))
            .map(|(_, slot)| Arc::clone(slot))
            .collect();
        let silences = slots.iter().filter_map(|slot| slot.try_lock().ok()?.as_ref()?.silence());
        let longest = silences.max_by_key(|(waited, _)| *waited);
        let longest = longest.filter(|(waited, _)| *waited >= SILENCE);
        longest.map(|(_, error)| Arc::new(error)).or_else(|| self.obstacles.now())
    }

    /// The brokers that are known, beginning with any.
    pub(crate) fn known_nodes(&self) -> Vec<NodeId> {
        let mut brokers: Vec<NodeId> = self.snapshot().brokers.keys().copied().collect();
        let first = usize::try_from(self.env.random.u64() % 1024).unwrap_or(0);
        let count = brokers.len();
        brokers.rotate_left(first.checked_rem(count).unwrap_or(0));
        brokers
    }

    /// A route to any broker: a known one, or else a bootstrap server (KIP-899).
    pub(crate) async fn any_route(&self) -> Result<Arc<Route>> {
        for node in self.known_nodes() {
            match self.route(node, Lane::Control).await {
                Ok(route) => return Ok(route),
                Err(error) => {
                    tracing::debug!(%node, error = %error.chain(), "could not reach a broker");
                }
            }
        }
        self.route(NodeId::NONE, Lane::Control).await
    }

    /// A route to the controller, as far as clients know it (any broker forwards since Kafka 3.0).
    pub(crate) async fn controller_route(&self) -> Result<Arc<Route>> {
        let snapshot = self.snapshot();
        match snapshot.controller.filter(|controller| snapshot.brokers.contains_key(controller)) {
            Some(controller) => self.route(controller, Lane::Control).await,
            None => self.any_route().await,
        }
    }

    /// A topic, from the known metadata if that is recent.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION` when it does not exist; any error that prevents asking.
    pub(crate) async fn topic(&self, name: &str) -> Result<Arc<TopicInfo>> {
        self.topic_or_create(name, false).await
    }

    /// As [`Self::topic`]; with `may_create`, a broker that creates topics on demand does so.
    pub(crate) async fn topic_or_create(
        &self,
        name: &str,
        may_create: bool,
    ) -> Result<Arc<TopicInfo>> {
        let max_age = i64::try_from(self.config.metadata_max_age.as_millis()).unwrap_or(i64::MAX);
        if let Some(topic) = self.snapshot.load().topics.get(name)
            && topic.fetched_at.plus(max_age) > self.now()
        {
            return Ok(Arc::clone(topic));
        }
        self.fresh_topic(name, may_create).await
    }

    /// A topic, fetched now.
    pub(crate) async fn fresh_topic(&self, name: &str, may_create: bool) -> Result<Arc<TopicInfo>> {
        let may_create = may_create && self.config.allow_auto_create_topics;
        let failures = self.refresh_topics(Some(&[name]), may_create).await?;
        let failure = failures.into_iter().find(|failure| failure.name == name);
        if let Some(TopicFailure { code, .. }) = failure {
            let remedy = if code == ErrorCode::UnknownTopicOrPartition {
                "; create it first, for example with `ottla topics create`"
            } else {
                ""
            };
            return Err(Error::kafka(code, format!("topic {name}{remedy}")));
        }
        let known = self.snapshot.load().topics.get(name).cloned();
        known.ok_or_else(|| errors::unknown_topic(name))
    }

    /// Fetches all known topics again.
    pub(crate) async fn refresh_known(&self) -> Result<()> {
        let snapshot = self.snapshot();
        let names: Vec<&str> = snapshot.topics.keys().map(AsRef::as_ref).collect();
        self.refresh(Some(&names)).await.map(|_| ())
    }

    /// Fetches topics (`None`: all) and the brokers; returns the topics with an error.
    pub(crate) async fn refresh(&self, names: Option<&[&str]>) -> Result<Vec<TopicFailure>> {
        self.refresh_topics(names, false).await
    }

    async fn refresh_topics(
        &self,
        names: Option<&[&str]>,
        may_create: bool,
    ) -> Result<Vec<TopicFailure>> {
        let before = self.snapshot();
        let _one_at_a_time = self.refreshing.lock().await;
        let after = self.snapshot();
        // Another call has just fetched the same while this one waited for its turn.
        let is_fresh = |name: &&str| {
            let fetched = |snapshot: &Snapshot| snapshot.topics.get(*name).map(|t| t.fetched_at);
            fetched(&after).is_some() && fetched(&after) > fetched(&before)
        };
        if names.is_some_and(|names| !names.is_empty() && names.iter().all(is_fresh)) {
            return Ok(Vec::new());
        }
        let response = self
            .ask_any(async |route| self.request_metadata(&route, names, may_create).await)
            .await?;
        Ok(self.accept(response, names))
    }

    /// Fetches all topics and the brokers from one broker.
    pub(crate) async fn refresh_by(&self, route: &Route) -> Result<()> {
        let _one_at_a_time = self.refreshing.lock().await;
        let response = self.request_metadata(route, None, false).await?;
        self.accept(response, None);
        Ok(())
    }

    pub(crate) async fn request_metadata(
        &self,
        route: &Route,
        names: Option<&[&str]>,
        may_create: bool,
    ) -> Result<MetadataResponse> {
        let version = route.version(ApiKey::Metadata)?;
        let topics = names.map(|names| {
            let unique: BTreeSet<&str> = names.iter().copied().collect();
            let topic =
                |name| MetadataRequestTopic { topic_id: Uuid::ZERO, name: Some(Str::from(name)) };
            unique.into_iter().map(topic).collect::<Vec<_>>()
        });
        // Version 0 has no null, and an empty list means all topics.
        let topics = if version == 0 { Some(topics.unwrap_or_default()) } else { topics };
        let request = MetadataRequest {
            topics,
            // Older versions leave this to the broker.
            allow_auto_topic_creation: version < 4 || may_create,
            ..MetadataRequest::default()
        };
        let response = route.call_at(request, version, self.config.request_timeout).await?;
        ErrorCode::from_i16(response.error_code).into_result("Metadata")?;
        self.obstacles.reached();
        Ok(response)
    }

    /// Merges an answer into the snapshot.
    fn accept(&self, response: MetadataResponse, names: Option<&[&str]>) -> Vec<TopicFailure> {
        let now = self.now();
        let old = self.snapshot();
        let mut topics = match names {
            Some(_) => old.topics.clone(),
            None => BTreeMap::new(),
        };
        let mut failures = Vec::new();
        for topic in response.topics {
            let name: Arc<str> = Arc::from(topic.name.as_deref().unwrap_or_default());
            let code = ErrorCode::from_i16(topic.error_code);
            if code.is_ok() {
                let known = old.topics.get(&name);
                let info = merge_topic(Arc::clone(&name), topic, known.map(AsRef::as_ref), now);
                topics.insert(name, Arc::new(info));
            } else {
                if !code.retriable() || code == ErrorCode::UnknownTopicOrPartition {
                    topics.remove(&name);
                }
                failures.push(TopicFailure { name: name.to_string(), code });
            }
        }
        let brokers = response.brokers.into_iter().map(|broker| {
            let info = BrokerInfo {
                id: NodeId(broker.node_id),
                host: broker.host.to_string(),
                port: broker.port,
                rack: broker.rack.map(|rack| rack.to_string()),
            };
            (info.id, info)
        });
        let snapshot = Snapshot {
            cluster_id: response.cluster_id.map(|id| id.to_string()),
            controller: Some(NodeId(response.controller_id)).filter(|&id| id != NodeId::NONE),
            brokers: brokers.collect(),
            topics,
        };
        self.forget_moved(&old, &snapshot);
        self.snapshot.store(Arc::new(snapshot));
        failures
    }

    /// Drops the routes of brokers that are gone or have a new address.
    fn forget_moved(&self, old: &Snapshot, new: &Snapshot) {
        self.slots().retain(|(node, _), _| match (old.brokers.get(node), new.brokers.get(node)) {
            (Some(before), Some(after)) => before.address() == after.address(),
            (Some(_), None) => false,
            (None, _) => true,
        });
    }

    /// Calls again after retriable errors, with backoff and fresh metadata, within
    /// `default.api.timeout.ms`. For something unknown it only retries a few times: it may be being
    /// created, but more likely its name is wrong. A cluster that was never reached is abandoned
    /// after a second if its addresses refuse (OBS-2).
    pub(crate) async fn retry<T, F>(&self, what: &str, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.retry_unknown(what, UNKNOWN_RETRIES, call).await
    }

    /// As [`Self::retry`], retrying `unknown_retries` times for something unknown.
    pub(crate) async fn retry_unknown<T, F>(
        &self,
        what: &str,
        unknown_retries: u32,
        call: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let started = tokio::time::Instant::now();
        let deadline = started + self.config.api_timeout;
        let mut failures = 0;
        let mut last = None;
        loop {
            let error = match tokio::time::timeout_at(deadline, call()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if error.retriable() => error,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let error = Error::timeout(what, self.config.api_timeout);
                    return Err(error.because(last.or_else(|| self.obstacle())));
                }
            };
            let is_unknown = error.code() == ErrorCode::UnknownTopicOrPartition;
            if is_unknown && failures >= unknown_retries {
                return Err(error);
            }
            failures += 1;
            let wait_ms = self.config.backoff.delay_ms(failures, self.env.random.u64());
            let wait = Duration::from_millis(wait_ms);
            let next = tokio::time::Instant::now() + wait;
            if next >= deadline || self.obstacles.is_in_vain(&error, started, next) {
                return Err(error);
            }
            tracing::debug!(what, failures, error = %error.chain(), "trying again");
            let error = Arc::new(error);
            note_failure(&error);
            last = Some(error);
            tokio::time::sleep(wait).await;
            tokio::time::timeout_at(deadline, self.refresh_known()).await.ok();
        }
    }

    /// Fetches topics until the brokers know about a change, for at most a second.
    pub(crate) async fn await_change(&self, names: &[&str], is_seen: impl Fn(&Snapshot) -> bool) {
        for attempt in 0..10 {
            let asked = self.refresh(Some(names)).await;
            if asked.is_ok() && is_seen(&self.snapshot.load()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20 * attempt)).await;
        }
    }
}
