//! The phases of a boot, and which requests are answered in each: this is the only place that says so.
//!
//! Why: a broker takes connections from the moment that its sockets are bound. Brokers that start together need each
//! other's quorum before any of them can register, and a health check that finds the port closed kills a broker that
//! is recovering its logs. But what a client is told too early is wrong for it: an empty list of topics makes one look
//! deleted, an unknown partition resets a consumer. So a request is answered in its phase or waits for it.
//!
//! Apache Kafka has the controllers' listeners for what must be answered early, and opens those of clients last, when
//! the broker is unfenced (`enableRequestProcessing`): until then its clients are refused a connection, and try
//! again. Here one port can do for both. A client of a broker that boots sees a slow answer; after
//! [`WAIT_MAX`] it loses its connection, which every client takes for a broker that is not there yet. No error code
//! would do: few APIs have a place for one that does not name a topic or a group, and clients differ in which they
//! retry.
//!
//! Invariants:
//! - `PHASE-1` phases only go forward, and none is left out.
//! - `PHASE-2` a handler sees the broker's state only in a phase that answers its API.
//! - `PHASE-3` a wait for a phase ends: with the phase, after [`WAIT_MAX`], or with the connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::quorum::frames;
use super::state::BrokerState;
use super::watched::Watched;
use crate::error::{Error, Result};
use crate::protocol::{ApiKey, Request};
use crate::types::NodeId;

/// How long a request waits for its phase. Less than clients wait for an answer (30 s in most).
const WAIT_MAX: Duration = Duration::from_secs(20);

/// How far a broker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The sockets are bound, and take connections.
    Listening,
    /// The metadata quorum runs here, whether it has a leader or not.
    QuorumRunning,
    /// The cluster has the id that is in the log directory.
    ClusterKnown,
    /// The controller has registered this broker.
    Registered,
    /// The metadata as of the registration is in effect here: partitions are open, coordinators are loading.
    CaughtUp,
    /// The controller lets this broker lead.
    Unfenced,
    /// Everything is answered.
    Serving,
}

impl Phase {
    /// The first phase in which a request is answered.
    pub(super) fn answering(request: &Request) -> Self {
        match request {
            // Before the id of the cluster is known, nobody can be told that they mean another one.
            Request::ApiVersions(body) if body.cluster_id.is_some() => Self::ClusterKnown,
            Request::Fetch(body) if frames::is_for_metadata(body) => Self::QuorumRunning,
            _ => match request.api() {
                ApiKey::ApiVersions => Self::Listening,
                ApiKey::DescribeQuorum
                | ApiKey::AddRaftVoter
                | ApiKey::RemoveRaftVoter
                | ApiKey::Vote
                | ApiKey::BeginQuorumEpoch
                | ApiKey::EndQuorumEpoch
                | ApiKey::FetchSnapshot
                | ApiKey::UpdateRaftVoter
                | ApiKey::Envelope
                | ApiKey::AlterPartition
                | ApiKey::BrokerRegistration
                | ApiKey::BrokerHeartbeat
                | ApiKey::AllocateProducerIds => Self::QuorumRunning,
                _ => Self::Serving,
            },
        }
    }
}

/// How far the boot of one broker has come.
#[derive(Debug)]
pub(super) struct Progress {
    node_id: NodeId,
    phase: Watched<Phase>,
    /// From `QuorumRunning` on.
    state: OnceLock<Arc<BrokerState>>,
    /// Spares requests the lock of `phase`.
    is_serving: AtomicBool,
}

impl Progress {
    /// In the first phase.
    pub(super) fn new(node_id: NodeId) -> Arc<Self> {
        Arc::new(Self {
            node_id,
            phase: Watched::new(Phase::Listening),
            state: OnceLock::new(),
            is_serving: AtomicBool::new(false),
        })
    }

    /// The broker that boots.
    pub(super) const fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The quorum runs: from here on there is a state.
    pub(super) fn quorum_runs(&self, state: &Arc<BrokerState>) {
        // A second one cannot come: a boot makes one state.
        drop(self.state.set(Arc::clone(state)));
        self.reach(Phase::QuorumRunning);
    }

    /// Enters the next phase.
    pub(super) fn reach(&self, phase: Phase) {
        tracing::debug!(node = %self.node_id, ?phase, "boot");
        self.phase.change(|now| {
            debug_assert_eq!(*now as u8 + 1, phase as u8, "{now:?} comes before {phase:?}");
            *now = phase.max(*now);
        });
        self.is_serving.store(phase == Phase::Serving, Ordering::Release);
    }

    /// The state, once the broker is in this phase; none in phases without one.
    ///
    /// # Errors
    ///
    /// It did not get there in time; the connection is to be closed.
    pub(super) async fn reached(&self, phase: Phase) -> Result<Option<&Arc<BrokerState>>> {
        if !self.is_serving.load(Ordering::Acquire) {
            let there = self.phase.wait_for(|now| *now >= phase);
            tokio::time::timeout(WAIT_MAX, there)
                .await
                .map_err(|_elapsed| Error::timeout("the broker to start", WAIT_MAX))?;
        }
        Ok(self.state.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::api_versions::ApiVersionsRequest;
    use crate::protocol::messages::describe_quorum::DescribeQuorumRequest;
    use crate::protocol::messages::metadata::MetadataRequest;

    #[test]
    fn clients_are_served_last_and_told_versions_first() {
        let versions = ApiVersionsRequest::default();
        let meant = ApiVersionsRequest { cluster_id: Some("c".into()), ..versions.clone() };
        let phases = [
            (Request::from(versions), Phase::Listening),
            (DescribeQuorumRequest::default().into(), Phase::QuorumRunning),
            (meant.into(), Phase::ClusterKnown),
            (MetadataRequest::default().into(), Phase::Serving),
        ];
        for (request, phase) in phases {
            assert_eq!(Phase::answering(&request), phase, "{request:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_phase_ends() {
        let progress = Progress::new(NodeId(1));
        assert!(progress.reached(Phase::Listening).await.unwrap().is_none());
        let before = tokio::time::Instant::now();
        assert!(progress.reached(Phase::Registered).await.is_err());
        assert_eq!(before.elapsed(), WAIT_MAX);
        let waiting = progress.reached(Phase::Registered);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        progress.reach(Phase::QuorumRunning);
        progress.reach(Phase::ClusterKnown);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        progress.reach(Phase::Registered);
        assert!(waiting.await.is_ok());
    }
}
