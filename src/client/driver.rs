//! What the sender of a producer and the fetcher of a consumer have in common: each is a task that keeps requests
//! to many brokers going.
//!
//! Everything that such a task waits for (connections, answers, metadata) is an event in one set, so that a slow
//! broker only holds up its own partitions. In a turn it starts whatever can be started now; then it waits for an
//! event, for a notice that there is work, or for the next deadline.
//!
//! - **DRV-1** Requests to a broker are started by the task alone, so their order is that of its calls. They go
//!   over one connection; another takes its place once it is closed, or once it is no longer kept and
//!   nothing on it is unanswered.
//! - **DRV-2** At most one refresh of the metadata is under way, and at most one starts per `retry.backoff.ms`.
//! - **DRV-3** A turn and the deadline after it are of the same moment. What comes due between two readings of the clock
//!   would be too early for the turn and too late for the deadline, and nobody would come back to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;

use crate::client::cluster::{Cluster, Lane, TopicFailure};
use crate::client::route::Route;
use crate::error::Result;
use crate::types::{NodeId, TimestampMs};

/// The longest wait for a notice.
const WAIT_MAX_MS: u64 = 60_000;

/// What became of a refresh: the topics that have an error.
pub(crate) type Refreshed = Result<Vec<TopicFailure>>;

/// A task that is driven by [`run`].
pub(crate) trait Task {
    /// What it waits for besides connections and metadata.
    type Event: Send + 'static;

    fn driver(&mut self) -> &mut Driver<Self::Event>;

    /// Starts everything that can be started now.
    fn turn(&mut self, now: TimestampMs);

    /// When there will be something to do that no event tells.
    fn next_deadline(&self, now: TimestampMs) -> Option<TimestampMs>;

    fn handle(&mut self, event: Self::Event);

    /// A connection was opened, or could not be: then the driver tries again after a while.
    fn connected(&mut self, node: NodeId, result: Result<()>);

    fn refreshed(&mut self, result: Refreshed);
}

/// Runs a task until it is aborted.
pub(crate) async fn run(mut task: impl Task, work: &Notify) {
    let cluster = Arc::clone(&task.driver().cluster);
    loop {
        let now = cluster.now();
        task.turn(now);
        let own = task.next_deadline(now);
        let deadline = task.driver().next_deadline(now).into_iter().chain(own).min();
        let left = |at: TimestampMs| u64::try_from(at.0 - cluster.now().0).unwrap_or(0);
        let wait_ms = deadline.map_or(u64::MAX, left);
        let wait = Duration::from_millis(wait_ms.clamp(1, WAIT_MAX_MS));
        tokio::select! {
            biased;
            Some(event) = task.driver().events.next() => settle(&mut task, event),
            () = work.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn settle<T: Task>(task: &mut T, event: Event<T::Event>) {
    match event {
        Event::Connected { node, result } => {
            let result = task.driver().connected(node, result);
            task.connected(node, result);
        }
        Event::Refreshed(result) => {
            task.driver().is_refreshing = false;
            task.refreshed(result);
        }
        Event::Answered { node, event } => {
            if let Some(broker) = task.driver().brokers.get_mut(&node) {
                broker.unanswered = broker.unanswered.saturating_sub(1);
            }
            task.handle(event);
        }
        Event::Own(event) => task.handle(event),
    }
}

enum Event<E> {
    Connected { node: NodeId, result: Result<Arc<Route>> },
    Refreshed(Refreshed),
    Answered { node: NodeId, event: E },
    Own(E),
}

/// What is known of one broker.
struct Broker {
    route: Option<Arc<Route>>,
    is_connecting: bool,
    /// How often connecting has failed in a row.
    failures: u32,
    retry_at: TimestampMs,
    unanswered: usize,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            route: None,
            is_connecting: false,
            failures: 0,
            retry_at: TimestampMs::NONE,
            unanswered: 0,
        }
    }
}

/// The connections, the requests and the metadata refresh of one task. See the module's documentation.
pub(crate) struct Driver<E> {
    cluster: Arc<Cluster>,
    lane: Lane,
    events: FuturesUnordered<BoxFuture<'static, Event<E>>>,
    brokers: BTreeMap<NodeId, Broker>,
    wants_refresh: bool,
    is_refreshing: bool,
    refresh_at: TimestampMs,
}

impl<E: Send + 'static> Driver<E> {
    pub(crate) fn new(cluster: Arc<Cluster>, lane: Lane) -> Self {
        Self {
            cluster,
            lane,
            events: FuturesUnordered::new(),
            brokers: BTreeMap::new(),
            wants_refresh: false,
            is_refreshing: false,
            refresh_at: TimestampMs::NONE,
        }
    }

    /// Begins something that is no request to a certain broker.
    pub(crate) fn start(&self, call: impl Future<Output = E> + Send + 'static) {
        self.events.push(Box::pin(async move { Event::Own(call.await) }));
    }

    /// Begins to wait for the answer of a broker.
    pub(crate) fn start_request(
        &mut self,
        node: NodeId,
        call: impl Future<Output = E> + Send + 'static,
    ) {
        self.brokers.entry(node).or_default().unanswered += 1;
        self.events.push(Box::pin(async move { Event::Answered { node, event: call.await } }));
    }

    /// How many requests to a broker are unanswered.
    pub(crate) fn unanswered(&self, node: NodeId) -> usize {
        self.brokers.get(&node).map_or(0, |broker| broker.unanswered)
    }

    /// The connection to a broker. If there is none, it is opened, unless that failed a moment ago.
    pub(crate) fn route(&mut self, node: NodeId, now: TimestampMs) -> Option<Arc<Route>> {
        let broker = self.brokers.entry(node).or_default();
        if let Some(route) = broker.route.take_if(|route| {
            route.is_closed() || (broker.unanswered == 0 && !self.cluster.keeps(node, self.lane))
        }) {
            drop(route);
        }
        if broker.route.is_some() || broker.is_connecting || broker.retry_at > now {
            return broker.route.clone();
        }
        broker.is_connecting = true;
        let (cluster, lane) = (Arc::clone(&self.cluster), self.lane);
        self.events.push(Box::pin(async move {
            Event::Connected { node, result: cluster.route(node, lane).await }
        }));
        None
    }

    fn connected(&mut self, node: NodeId, result: Result<Arc<Route>>) -> Result<()> {
        let broker = self.brokers.entry(node).or_default();
        broker.is_connecting = false;
        match result {
            Ok(route) => {
                *broker = Broker {
                    route: Some(route),
                    unanswered: broker.unanswered,
                    ..Broker::default()
                };
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%node, error = %error.chain(), "cannot connect");
                broker.failures = broker.failures.saturating_add(1);
                broker.retry_at = self.cluster.after_failures(broker.failures);
                self.wants_refresh = true;
                Err(error)
            }
        }
    }

    /// Asks for new metadata in the next [`Driver::refresh`].
    pub(crate) const fn want_metadata(&mut self) {
        self.wants_refresh = true;
    }

    /// Refreshes the metadata of topics, if that is wanted and not too early.
    pub(crate) fn refresh(&mut self, now: TimestampMs, topics: impl FnOnce() -> Vec<Arc<str>>) {
        if !self.wants_refresh || self.is_refreshing || self.refresh_at > now {
            return;
        }
        self.wants_refresh = false;
        self.is_refreshing = true;
        let (cluster, topics) = (Arc::clone(&self.cluster), topics());
        let pause_ms = i64::try_from(cluster.config.backoff.initial_ms).unwrap_or(i64::MAX);
        self.refresh_at = now.plus(pause_ms);
        self.events.push(Box::pin(async move {
            let names: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
            Event::Refreshed(cluster.refresh(Some(&names)).await)
        }));
    }

    fn next_deadline(&self, now: TimestampMs) -> Option<TimestampMs> {
        let retries = self.brokers.values().map(|broker| broker.retry_at);
        let refresh = self.wants_refresh.then_some(self.refresh_at);
        retries.chain(refresh).filter(|&at| at > now).min()
    }

    /// How many things the task waits for.
    #[cfg(test)]
    pub(crate) fn waits_for(&self) -> usize {
        self.events.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::client::ClientConfig;
    use crate::env::{Clock, Env};

    /// A clock that jumps by its step at each reading.
    #[derive(Debug, Default)]
    struct Hasty(AtomicI64);

    const STEP_MS: i64 = 10;

    impl Clock for Hasty {
        fn now(&self) -> TimestampMs {
            TimestampMs(self.0.fetch_add(STEP_MS, Ordering::Relaxed))
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(u64::try_from(self.now().0).unwrap())
        }
    }

    /// Has something to do at a certain moment.
    struct Alarm {
        driver: Driver<()>,
        at: TimestampMs,
        rang: Arc<Notify>,
    }

    impl Task for Alarm {
        type Event = ();

        fn driver(&mut self) -> &mut Driver<()> {
            &mut self.driver
        }

        fn turn(&mut self, now: TimestampMs) {
            if now >= self.at {
                self.rang.notify_one();
            }
        }

        fn next_deadline(&self, now: TimestampMs) -> Option<TimestampMs> {
            Some(self.at).filter(|&at| at > now)
        }

        fn handle(&mut self, (): ()) {}

        fn connected(&mut self, _: NodeId, _: Result<()>) {}

        fn refreshed(&mut self, _: Refreshed) {}
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_due_while_a_turn_is_taken_is_not_forgotten() {
        let config = ClientConfig::for_servers("nobody.invalid:9092").unwrap();
        let env = Env { clock: Arc::new(Hasty::default()), ..Env::real() };
        let cluster = Arc::new(Cluster::over_tcp(env, config));
        let rang = Arc::new(Notify::new());
        let driver = Driver::new(cluster, Lane::Control);
        let alarm = Alarm { driver, at: TimestampMs(STEP_MS / 2), rang: Arc::clone(&rang) };
        let begin = tokio::time::Instant::now();
        let work = Notify::new();
        tokio::select! {
            () = run(alarm, &work) => {}
            () = rang.notified() => {}
        }
        let waited = begin.elapsed();
        assert!(waited < Duration::from_millis(WAIT_MAX_MS), "it was forgotten for {waited:?}");
    }
}
