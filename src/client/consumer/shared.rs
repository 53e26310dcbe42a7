//! What a consumer and its fetcher task share: the positions, what is buffered, what went wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::client::cluster::{Cluster, Lane};
use crate::client::config::ConsumerConfig;
use crate::columnar::FetchedBytes;
use crate::error::Error;
use crate::machine::client::fetching::{Fetching, Generation, Position};
use crate::types::{NodeId, TimestampMs, TopicId, TopicPartition};

/// Something fetched, waiting to be handed out.
#[derive(Debug)]
pub(super) struct Buffered {
    pub(super) chunk: FetchedBytes,
    pub(super) generation: Generation,
    pub(super) next: Position,
}

/// What ended the fetching, and of which partitions.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) partitions: BTreeSet<TopicPartition>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) machine: Fetching,
    pub(super) buffer: VecDeque<Buffered>,
    /// Handed out once the buffer is empty. A later one takes its place: what failed before is
    /// fetched again when the caller continues, and fails again.
    pub(super) failure: Option<Failure>,
    /// The id of each assigned topic, so that a re-created one is not mistaken for the old one.
    pub(super) topic_ids: BTreeMap<Arc<str>, TopicId>,
    /// Nearby replicas to which a leader redirected the client (KIP-392), each until when: then the leader is asked
    /// again, so that nobody stays with a replica that has lost its leader.
    pub(super) replicas: BTreeMap<TopicPartition, (NodeId, TimestampMs)>,
    pub(super) missing: BTreeMap<Arc<str>, u32>,
    /// Since when the log of a partition has ended before the requested end.
    pub(super) short_since: BTreeMap<TopicPartition, TimestampMs>,
}

/// What the consumer and its fetcher task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) cluster: Arc<Cluster>,
    pub(super) config: ConsumerConfig,
    pub(super) lane: Lane,
    state: Mutex<State>,
    /// There may be something to fetch.
    pub(super) work: Notify,
    /// There is something in the buffer, an end or a failure.
    pub(super) ready: Notify,
}

impl Shared {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        config: ConsumerConfig,
        lane: Lane,
        machine: Fetching,
    ) -> Self {
        let state = State {
            machine,
            buffer: VecDeque::new(),
            failure: None,
            topic_ids: BTreeMap::new(),
            replicas: BTreeMap::new(),
            missing: BTreeMap::new(),
            short_since: BTreeMap::new(),
        };
        Self {
            cluster,
            config,
            lane,
            state: Mutex::new(state),
            work: Notify::new(),
            ready: Notify::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn random(&self) -> u64 {
        self.cluster.env.random.u64()
    }
}
