//! What keeps a client from its cluster, for the errors of calls that wait.
//!
//! A wait that ends early must say why: which address refused, which broker is silent, what it last
//! answered. That is known where connections are opened, requests are answered and calls are
//! retried; this module keeps it, one entry per address and partition, until it no longer applies:
//!
//! ```text
//! opening a connection ──► Attempt ──► failed: noted for the address │ answered: forgotten
//! a refused batch ───────────────────► noted for the partition       │ acknowledged: forgotten
//! a call that is tried again ────────► noted for the call ([`Watch`])
//! ```
//!
//! - **OBS-1** Nothing outdated is reported: what was recorded for an address or a partition is
//!   dropped when it answers normally.
//! - **OBS-2** A cluster that was never reached, and whose addresses refuse, is abandoned after
//!   [`FIRST_CONTACT`]: most likely the address is wrong. One that was reached before will come
//!   back.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Client;
use crate::connection;
use crate::error::{Error, Result};
use crate::types::TopicPartition;

/// How long to keep trying a cluster that was never reached and whose addresses all refuse.
pub(crate) const FIRST_CONTACT: Duration = Duration::from_secs(1);

/// A silence shorter than this is an ordinary wait for an answer.
pub(crate) const SILENCE: Duration = Duration::from_millis(100);

/// How many addresses are remembered.
const ADDRESSES_MAX: usize = 64;

/// The source of an obstacle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Address(String),
    Partition(TopicPartition),
    /// There is no producer id.
    ProducerId,
}

#[derive(Debug)]
struct Pending {
    address: String,
    since: Instant,
    is_connected: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Increases with every entry, so that the newest is known.
    last: u64,
    noted: BTreeMap<Place, (u64, Arc<Error>)>,
    /// The connections that are being opened.
    attempts: BTreeMap<u64, Pending>,
}

impl State {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn note(&mut self, place: Place, error: Arc<Error>) {
        let number = self.next();
        self.noted.insert(place, (number, error));
        let is_address = |place: &Place| matches!(place, Place::Address(_));
        let addresses = self.noted.iter().filter(|(place, _)| is_address(place));
        if addresses.clone().count() > ADDRESSES_MAX
            && let Some((oldest, _)) = addresses.min_by_key(|(_, (number, _))| *number)
        {
            let oldest = oldest.clone();
            self.noted.remove(&oldest);
        }
    }
}

/// The obstacles of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Obstacles {
    is_reached: AtomicBool,
    state: Mutex<State>,
}

impl Obstacles {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A broker of the cluster answered.
    pub(crate) fn reached(&self) {
        self.is_reached.store(true, Ordering::Relaxed);
    }

    /// Whether retrying is futile (OBS-2), after consecutive failures since `started`, the last of
    /// which is `error`, if the next attempt is at `next`.
    pub(crate) fn is_in_vain(&self, error: &Error, started: Instant, next: Instant) -> bool {
        !self.is_reached.load(Ordering::Relaxed)
            && refuses(error)
            && next.saturating_duration_since(started) >= FIRST_CONTACT
    }

    /// A connection is being opened.
    pub(crate) fn attempt(self: &Arc<Self>, address: &str) -> Attempt {
        let mut state = self.state();
        let number = state.next();
        let pending =
            Pending { address: address.to_owned(), since: Instant::now(), is_connected: false };
        state.attempts.insert(number, pending);
        drop(state);
        Attempt { obstacles: Arc::clone(self), number }
    }

    /// A broker answered with something other than an acknowledgement of records.
    pub(crate) fn refused(&self, partition: &TopicPartition, error: Error) {
        self.state().note(Place::Partition(partition.clone()), Arc::new(error));
    }

    /// A broker did not return a producer id.
    pub(crate) fn producer_id_refused(&self, error: Error) {
        self.state().note(Place::ProducerId, Arc::new(error));
    }

    /// A broker returned a producer id.
    pub(crate) fn producer_id_given(&self) {
        self.state().noted.remove(&Place::ProducerId);
    }

    /// The partition has no obstacle any longer.
    pub(crate) fn settled(&self, partition: &TopicPartition) {
        self.state().noted.remove(&Place::Partition(partition.clone()));
    }

    /// What a broker last answered to records of a partition, unless it accepted them; or why there
    /// is no producer id to send them with.
    pub(crate) fn of_partition(&self, partition: &TopicPartition) -> Option<Arc<Error>> {
        let place = Place::Partition(partition.clone());
        let state = self.state();
        let noted = state.noted.get(&place).or_else(|| state.noted.get(&Place::ProducerId));
        noted.map(|(_, error)| Arc::clone(error))
    }

    /// The current obstacle: an address that is silent, or else the last entry.
    pub(crate) fn now(&self) -> Option<Arc<Error>> {
        let state = self.state();
        let silent = state.attempts.values().min_by_key(|pending| pending.since);
        let silent = silent.and_then(Pending::silence).map(Arc::new);
        silent.or_else(|| {
            let newest = state.noted.values().max_by_key(|(number, _)| *number);
            newest.map(|(_, error)| Arc::clone(error))
        })
    }
}

impl Pending {
    fn silence(&self) -> Option<Error> {
        let waited = self.since.elapsed();
        if waited < SILENCE {
            return None;
        }
        Some(if self.is_connected {
            silent(&self.address, waited)
        } else {
            connection::unreachable(&self.address, waited)
        })
    }
}

/// A connection that is being opened. If it is dropped before its outcome is reported, the address
/// did not answer within the caller's time.
#[derive(Debug)]
pub(crate) struct Attempt {
    obstacles: Arc<Obstacles>,
    number: u64,
}

impl Attempt {
    /// The connection is open; only an answer is missing.
    pub(crate) fn connected(&self) {
        if let Some(pending) = self.obstacles.state().attempts.get_mut(&self.number) {
            pending.is_connected = true;
        }
    }

    /// Reports its outcome.
    pub(crate) fn end<T>(self, result: &Result<T>) {
        let mut state = self.obstacles.state();
        let Some(pending) = state.attempts.remove(&self.number) else { return };
        let place = Place::Address(pending.address);
        match result {
            Ok(_) => drop(state.noted.remove(&place)),
            Err(error) => state.note(place, Arc::new(error.clone())),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut state = self.obstacles.state();
        let Some(pending) = state.attempts.remove(&self.number) else { return };
        if let Some(error) = pending.silence() {
            state.note(Place::Address(pending.address), Arc::new(error));
        }
    }
}

/// An address that accepts a connection and sends nothing.
pub(crate) fn silent(address: &str, waited: Duration) -> Error {
    let seconds = waited.as_secs_f64();
    let detail = format!(
        "it accepted the connection and has not answered for {seconds:.1} s; is it a Kafka listener?"
    );
    let source = io::Error::new(io::ErrorKind::TimedOut, detail);
    Error::network("get an answer from", address, source)
}

/// Whether an address refuses, so that waiting alone does not help: nothing listens there, the name
/// is unknown, or the listener does not speak the protocol.
fn refuses(error: &Error) -> bool {
    matches!(error, Error::Network { source, .. } if source.kind() != io::ErrorKind::TimedOut)
}

tokio::task_local! {
    /// What last failed in the call that is being polled.
    static FAILED: Arc<Mutex<Option<Arc<Error>>>>;
}

/// Tells the call that is being polled, if it is watched, what failed and is being retried.
pub(crate) fn note_failure(error: &Arc<Error>) {
    FAILED
        .try_with(|failed| {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(error));
        })
        .ok();
}

/// A call with its own time limit, whose error says what the obstacle was when the time ran out.
#[derive(Clone, Debug)]
pub struct Watch {
    client: Client,
    failed: Arc<Mutex<Option<Arc<Error>>>>,
}

impl Watch {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, failed: Arc::default() }
    }

    /// The call, watched.
    pub fn over<F: Future>(&self, call: F) -> impl Future<Output = F::Output> + use<F> {
        FAILED.scope(Arc::clone(&self.failed), call)
    }

    /// The error of a call that took too long.
    #[must_use]
    pub fn timed_out(&self, what: &str, after: Duration) -> Error {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Error::timeout(what, after).because(failed.or_else(|| self.client.obstacle()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str) -> Error {
        Error::network("connect to", address, io::ErrorKind::ConnectionRefused)
    }

    fn now(obstacles: &Obstacles) -> String {
        obstacles.now().map(|error| error.chain()).unwrap_or_default()
    }

    #[tokio::test]
    async fn what_is_over_is_not_told() {
        let obstacles = Arc::new(Obstacles::default());
        obstacles.attempt("a:1").end::<()>(&Err(refused("a:1")));
        obstacles.attempt("b:1").end::<()>(&Err(refused("b:1")));
        assert_eq!(now(&obstacles), "could not connect to b:1: connection refused");
        obstacles.attempt("b:1").end(&Ok(()));
        assert_eq!(now(&obstacles), "could not connect to a:1: connection refused");
        let partition = TopicPartition::new("orders", 0);
        obstacles.refused(&partition, Error::invalid("no room"));
        assert_eq!(now(&obstacles), "no room");
        assert!(obstacles.of_partition(&TopicPartition::new("orders", 1)).is_none());
        obstacles.settled(&partition);
        obstacles.attempt("a:1").end(&Ok(()));
        assert_eq!(now(&obstacles), "");
    }

    #[tokio::test]
    async fn whoever_keeps_silent_is_named_before_others() {
        let obstacles = Arc::new(Obstacles::default());
        let attempt = obstacles.attempt("a:1");
        assert_eq!(now(&obstacles), "");
        for pending in obstacles.state().attempts.values_mut() {
            pending.since -= Duration::from_secs(2);
        }
        obstacles.attempt("b:1").end::<()>(&Err(refused("b:1")));
        assert!(now(&obstacles).starts_with("could not connect to a:1: no answer for 2.0 s"));
        attempt.connected();
        assert!(now(&obstacles).starts_with("could not get an answer from a:1: it accepted"));
        drop(attempt);
        assert!(now(&obstacles).starts_with("could not get an answer from a:1: it accepted"));
    }

    #[tokio::test]
    async fn only_a_cluster_that_was_never_reached_is_given_up() {
        let obstacles = Obstacles::default();
        let started = Instant::now();
        let late = started + FIRST_CONTACT;
        assert!(!obstacles.is_in_vain(&refused("a:1"), started, started));
        assert!(obstacles.is_in_vain(&refused("a:1"), started, late));
        let silent = silent("a:1", FIRST_CONTACT);
        assert!(!obstacles.is_in_vain(&silent, started, late));
        obstacles.reached();
        assert!(!obstacles.is_in_vain(&refused("a:1"), started, late));
    }

    #[tokio::test]
    async fn addresses_are_remembered_up_to_a_limit() {
        let obstacles = Arc::new(Obstacles::default());
        for port in 0..=ADDRESSES_MAX {
            let address = format!("a:{port}");
            obstacles.attempt(&address).end::<()>(&Err(refused(&address)));
        }
        let state = obstacles.state();
        assert_eq!(state.noted.len(), ADDRESSES_MAX);
        assert!(!state.noted.contains_key(&Place::Address("a:0".to_owned())));
    }

    #[tokio::test]
    async fn a_call_tells_what_failed_in_it() {
        let config = crate::client::ClientConfig::for_servers("localhost:1").unwrap();
        let client = Client::connect(config).unwrap();
        let watch = client.watch();
        watch.over(async { note_failure(&Arc::new(Error::invalid("the disk is full"))) }).await;
        let told = watch.timed_out("a topic", Duration::from_secs(1)).chain();
        assert_eq!(told, "timed out after 1 s: a topic: the disk is full");
        // Nobody watches.
        note_failure(&Arc::new(Error::invalid("lost")));
    }
}
