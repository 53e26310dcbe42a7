//! What a broker has open towards its clients: sockets, connections, and the tasks behind them.
//!
//! Why: it is there from the first moment of a boot to the last of a shutdown, whatever else the broker has by then,
//! and it must be closed in every case: after a shutdown, after a boot that failed, and when a boot or a broker is
//! dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::ConnectionLimits;
use super::dispatch::Dispatcher;
use super::frame_reader::FrameLimits;
use super::listener::{Acceptor, BoundListener, Listeners};
use super::memory::MemoryBudget;
use super::phase::Progress;
use super::receive_buffers::ReceiveBuffers;
use crate::config::BrokerConfig;
use crate::types::NodeId;

/// How long open requests may take at a shutdown.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(5);

/// See the module. Dropping it ends everything at once.
#[derive(Debug)]
pub(super) struct Reception {
    bound: Vec<Arc<BoundListener>>,
    progress: Arc<Progress>,
    buffers: ReceiveBuffers,
    tasks: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Reception {
    /// Takes connections; their requests wait for the broker's [`Phase`](super::phase::Phase).
    pub(super) fn open(listeners: Listeners, config: &BrokerConfig) -> Self {
        let reception = Self {
            bound: listeners.bound(),
            progress: Progress::new(NodeId(config.node_id)),
            buffers: ReceiveBuffers::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
        };
        let count = |setting: i32| usize::try_from(setting).unwrap_or(usize::MAX);
        let limits = ConnectionLimits {
            frames: FrameLimits {
                bytes_max: count(config.socket_request_max_bytes),
                memory: MemoryBudget::new(config.queued_max_request_bytes),
                buffers: reception.buffers.clone(),
            },
            idle: u64::try_from(config.connections_max_idle_ms).ok().map(Duration::from_millis),
        };
        let acceptor = Acceptor::new(
            Dispatcher::new(Arc::clone(&reception.progress)),
            limits,
            (count(config.max_connections), count(config.max_connections_per_ip)),
            (reception.stop.clone(), reception.kill.clone()),
        );
        listeners.accept(&acceptor, &reception.tasks);
        reception
    }

    /// The sockets, in the order of the settings.
    pub(super) fn bound(&self) -> &[Arc<BoundListener>] {
        &self.bound
    }

    /// How far the boot has come.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(super) const fn buffers(&self) -> &ReceiveBuffers {
        &self.buffers
    }

    /// The tasks that end at a shutdown.
    pub(super) const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Cancelled when no new requests are taken.
    pub(super) const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Takes no new requests, answers open ones, and ends all tasks. Bounded in time.
    pub(super) async fn drain(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!("some requests did not end in time");
            self.close().await;
        }
    }

    /// Ends everything at once, and waits until it has ended. Bounded in time.
    pub(super) async fn close(&self) {
        self.end();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
    }

    /// Ends everything at once; nobody waits for it.
    pub(super) fn end(&self) {
        self.stop.cancel();
        self.kill.cancel();
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        self.end();
    }
}
