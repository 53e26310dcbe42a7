//! Keeping the replicas of partitions alike, between brokers.
//!
//! Why: a partition ([`super::partition`]) knows its log and its role, and no other broker. Here is what goes on between
//! them. A broker has one fetcher, with one connection, for each other broker that leads something that is followed
//! here. It fetches as clients do, but to the end of the log; the leader learns from it how far the copy has come. What
//! follows from that for the ISR, the leader asks the controller for.
//!
//! ```text
//! follower                                      leader                                        controller
//!
//! fetcher ──── Fetch: the end of the copy ────► Partition ──IsrRequest──► IsrRequests ──AlterPartition──►
//!    │                                              ^                                               │
//!    └► Partition ◄── records, high watermark ──────┘◄────────────────── IsrAnswer ◄────────────────┘
//! ```
//!
//! Fetchers start and stop with the metadata ([`Replication::apply`]), after the partitions have taken their roles.

mod fetcher;
mod isr_requests;
mod round;
mod sessions;
#[cfg(test)]
mod tests;
mod throttles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::fetcher::Fetcher;
use super::change::Change;
use super::parking::PartitionKey;
use super::partitions::Partitions;
use crate::machine::metadata::MetadataImage;
use crate::types::{BrokerEpoch, NodeId};

pub(super) use self::fetcher::FetcherParts;
pub(super) use self::isr_requests::{IsrRequests, send_isr_requests};
pub(super) use self::sessions::{FollowerSessions, SessionFetch, Wanted};
pub(super) use self::throttles::Throttles;

/// The fetchers of a broker.
#[derive(Debug)]
pub(super) struct Replication {
    parts: FetcherParts,
    tasks: TaskTracker,
    stop: CancellationToken,
    fetchers: Mutex<BTreeMap<NodeId, Arc<Fetcher>>>,
}

impl Replication {
    /// No fetcher yet; their tasks will be among these, and end when they are to stop.
    pub(super) fn new(parts: FetcherParts, tasks: TaskTracker, stop: CancellationToken) -> Self {
        parts.throttles.set(&parts.config);
        Self { parts, tasks, stop, fetchers: Mutex::default() }
    }

    /// The controller has registered this broker: so it fetches from now on.
    pub(super) fn set_broker_epoch(&self, epoch: BrokerEpoch) {
        self.parts.broker_epoch.store(epoch.0, Ordering::Release);
    }

    /// The limits of replication.
    pub(super) fn throttles(&self) -> &Throttles {
        &self.parts.throttles
    }

    /// Follows who leads from now on what is followed here. The partitions must have taken their roles. Must run within
    /// the runtime of tokio.
    pub(super) fn apply(&self, change: &Change<'_>, partitions: &Partitions) {
        let Change { delta, image, config, has_new_config } = *change;
        if has_new_config {
            self.parts.throttles.set(&config.replication);
        }
        let mut fetchers = self.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        let deleted = delta.deleted_topics().iter();
        let deleted =
            deleted.flat_map(|(id, topic)| topic.indexed().map(move |(index, _)| (*id, index)));
        let changed: BTreeSet<PartitionKey> =
            deleted.chain(delta.changed_partitions().iter().copied()).collect();
        for key in changed {
            let leader = self.leader_of(image, &key);
            let followed = leader.and_then(|leader| Some((leader, partitions.get(&key)?)));
            for (leader, fetcher) in &*fetchers {
                if followed.as_ref().is_none_or(|(wanted, _)| wanted != leader) {
                    fetcher.remove(&key);
                }
            }
            if let Some((leader, partition)) = followed {
                fetchers.entry(leader).or_insert_with(|| self.start(leader)).assign(key, partition);
            }
        }
        fetchers.retain(|leader, fetcher| {
            if fetcher.is_idle() {
                fetcher.stop();
                return false;
            }
            fetcher.set_address(self.address_of(image, *leader));
            true
        });
    }

    /// Whom this broker follows in a partition.
    fn leader_of(&self, image: &MetadataImage, (id, index): &PartitionKey) -> Option<NodeId> {
        let me = self.parts.node_id;
        let state = image.topic_by_id(*id)?.partition(*index)?;
        let follows =
            state.replicas.contains(&me) && state.leader != me && state.leader != NodeId::NONE;
        follows.then_some(state.leader)
    }

    fn address_of(&self, image: &MetadataImage, leader: NodeId) -> Option<String> {
        let endpoint = image.broker(leader)?.endpoint(&self.parts.config.inter_broker_listener)?;
        Some(endpoint.address())
    }

    fn start(&self, leader: NodeId) -> Arc<Fetcher> {
        let fetcher = Fetcher::new(leader, self.parts.clone(), self.stop.child_token());
        self.tasks.spawn(Arc::clone(&fetcher).run());
        fetcher
    }
}
