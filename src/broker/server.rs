//! Starting and stopping a broker.

use std::net::SocketAddr;
use std::path::Path;

use super::BrokerOptions;
use crate::error::{Error, Result};
use crate::types::NodeId;

/// A running broker.
///
/// It runs on the tokio runtime that [`Broker::start`] was called on, and on a few threads of its
/// own for the logs. Dropping it stops it at once, as a crash would; [`Broker::shutdown`] stops it
/// cleanly.
#[derive(Debug)]
pub struct Broker {
    node_id: NodeId,
    cluster_id: String,
    data_dir: std::path::PathBuf,
    addresses: Vec<SocketAddr>,
}

impl Broker {
    /// Starts a broker; when this returns, it serves.
    ///
    /// # Errors
    ///
    /// A setting that is not known or not valid, an address that cannot be bound, or a data
    /// directory that is in use, was made by a newer version or cannot be read.
    #[expect(clippy::unused_async, reason = "the parts that it waits for are not joined yet")]
    pub async fn start(options: BrokerOptions) -> Result<Self> {
        drop(options);
        Err(Error::Closed { what: "the broker" })
    }

    /// `host:port` of every bound address, separated by commas; what a client is given as
    /// `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// The bound addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The id of this broker in its cluster.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The id of the cluster, made at the first start of its first broker.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Where the broker keeps its data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Stops the broker cleanly: no new requests, open ones are answered, logs are flushed and the
    /// clean-shutdown marker is written. Bounded in time; a second call does nothing.
    ///
    /// # Errors
    ///
    /// A log that could not be flushed; the broker is stopped nevertheless.
    #[expect(clippy::unused_async, reason = "the parts that it waits for are not joined yet")]
    pub async fn shutdown(&self) -> Result<()> {
        Ok(())
    }
}
