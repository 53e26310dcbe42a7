//! The async client: connections, producer, consumer, scan and admin.
//!
//! One [`Client`] holds what is known of a cluster and the routes into it; it is cheap to clone.
//! The same code speaks TCP to any Kafka cluster and passes values to a broker in the same process:
//! the difference ends in `route`. Decisions (partitioning, batching, sequence numbers, positions,
//! bounds) are made in [`crate::machine::client`]; this module feeds them and carries them out.
//!
//! ```text
//! Client ── Cluster (metadata, routes) ── Route ── Connection (TCP) | Service (in-process)
//!   ├── Admin                 requests to the controller, to leaders, to all brokers
//!   ├── Producer              send ─► Accumulator ─► sender task ─► Produce
//!   ├── AssignedConsumer      fetcher task ─► Fetching ─► bounded buffer ─► poll
//!   └── Scan                  bounds resolved once ─► consumer with ends ─► Arrow
//! ```
//!
//! Bounds: a producer holds `buffer.memory` bytes, a consumer `queued.max.bytes` and one answer per
//! broker above it, a connection 64 requests. Nothing here blocks a thread; all of it needs a tokio
//! runtime to be polled in.

pub mod admin;
pub mod cluster;
pub mod config;
mod connection;
mod route;

use std::sync::Arc;

pub use admin::Admin;
pub use cluster::{BrokerInfo, PartitionInfo, TopicInfo};
pub use config::{
    Acks, AutoOffsetReset, ClientConfig, ConsumerConfig, IsolationLevel, OnDataLoss, ProducerConfig,
};

use crate::client::cluster::Cluster;
use crate::error::{Error, Result};
use crate::protocol::Service;
use crate::types::NodeId;

/// A client of one cluster. Cheap to clone; connects when it is first used.
#[derive(Clone, Debug)]
pub struct Client {
    cluster: Arc<Cluster>,
}

impl Client {
    /// A client of the cluster that `config.bootstrap_servers` belong to. Connects lazily.
    ///
    /// # Errors
    ///
    /// There is no bootstrap server, or settings contradict each other.
    pub fn connect(config: ClientConfig) -> Result<Self> {
        if config.bootstrap_servers.is_empty() {
            return Err(Error::invalid("bootstrap.servers is empty; give at least one HOST:PORT"));
        }
        config.producer.check()?;
        Ok(Self { cluster: Arc::new(Cluster::over_tcp(config)) })
    }

    /// A client of a broker in the same process: requests go to it as values. `node` is its id,
    /// by which it is told from the other brokers of its cluster; those are reached by TCP.
    ///
    /// # Errors
    ///
    /// Settings contradict each other.
    pub fn local(
        service: Arc<dyn Service>,
        node: Option<NodeId>,
        config: ClientConfig,
    ) -> Result<Self> {
        config.producer.check()?;
        Ok(Self { cluster: Arc::new(Cluster::local(service, node, config)) })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.cluster.config
    }

    /// Creating, changing and describing.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.cluster))
    }

    /// A topic with its partitions and leaders; from what is known, if that is recent.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION` when it does not exist.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicInfo>> {
        self.cluster.retry("looking up a topic", async || self.cluster.topic(name).await).await
    }

    /// Closes all connections; they are opened again when they are needed.
    pub fn disconnect(&self) {
        self.cluster.disconnect();
    }
}
