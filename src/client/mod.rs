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
//!   ├── TransactionalProducer the same within transactions, which their coordinator begins and ends
//!   ├── AssignedConsumer      fetcher task ─► Fetching ─► bounded buffer ─► poll
//!   │                         (`driver`: what the two tasks have in common)
//!   └── Scan                  bounds resolved once ─► consumer with ends ─► Arrow
//! ```
//!
//! Bounds: a producer holds `buffer.memory` bytes, a consumer `queued.max.bytes` and one answer per
//! broker above it, a connection 64 requests. Nothing here blocks a thread; all of it needs a tokio
//! runtime to be polled in.

pub mod admin;
mod batch_reader;
pub mod cluster;
pub mod config;
pub mod consumer;
mod coordinator;
pub mod dead_letters;
mod decoding;
mod driver;
mod errors;
pub mod obstacles;
pub mod producer;
mod recount;
pub mod registry;
mod route;
pub mod scan;
mod silence;
mod snapshot;
pub mod transaction;
mod worker_pool;
pub mod write;

use std::sync::Arc;

pub use admin::Admin;
pub use batch_reader::{BatchReader, ScannedBatch};
pub use cluster::{BrokerInfo, PartitionInfo, TopicInfo};
pub use config::{
    Acks, AutoOffsetReset, ClientConfig, ConsumerConfig, IsolationLevel, OnDataLoss, ProducerConfig,
};

pub use crate::machine::client::group::assignor::Assignor;
pub use consumer::group::{
    GroupConsumer, GroupHandle, GroupMetadata, GroupOptions, GroupProtocol, OffsetAndMetadata,
    Polled, Subscription,
};
pub use consumer::{AssignedConsumer, PollOptions, StartAt};
pub use dead_letters::DeadLetters;
pub use obstacles::Watch;
pub use producer::{EncodedBatch, Producer, ProducerRecord, RecordMetadata, Unacknowledged};
pub use transaction::TransactionalProducer;
pub use worker_pool::checked as threads;

pub use registry::{RegistryAuth, RegistryConfig, SchemaRegistry};
pub use scan::{Bound, Offsets, Range, Scan, ScanOptions, ScanProgress, ScanReader};
pub use write::{Expired, TableWriter, WriteReport, write};

use crate::client::cluster::Cluster;
use crate::columnar::DecodeOptions;
use crate::env::Env;
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
        Self::connect_on(Env::real(), config)
    }

    /// As [`Client::connect`], in other surroundings than those of the operating system, for tests.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub fn connect_on(env: Env, config: ClientConfig) -> Result<Self> {
        if config.bootstrap_servers.is_empty() {
            return Err(Error::invalid("bootstrap.servers is empty; give at least one HOST:PORT"));
        }
        config.producer.check()?;
        Ok(Self { cluster: Arc::new(Cluster::over_tcp(env, config)) })
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
        Self::local_on(Env::real(), service, node, config)
    }

    /// As [`Client::local`], in other surroundings than those of the operating system, for tests: those of
    /// the broker, since it is the same process.
    ///
    /// # Errors
    ///
    /// As [`Client::local`].
    pub fn local_on(
        env: Env,
        service: Arc<dyn Service>,
        node: Option<NodeId>,
        config: ClientConfig,
    ) -> Result<Self> {
        config.producer.check()?;
        Ok(Self { cluster: Arc::new(Cluster::local(env, service, node, config)) })
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

    /// A producer with the client's settings. Its task runs in the current tokio runtime.
    ///
    /// # Errors
    ///
    /// Settings contradict each other.
    pub fn producer(&self) -> Result<Producer> {
        Producer::start(Arc::clone(&self.cluster), self.cluster.config.producer.clone())
    }

    /// A producer with settings of its own. Its task runs in the current tokio runtime.
    ///
    /// # Errors
    ///
    /// Settings contradict each other.
    pub fn producer_with(&self, config: ProducerConfig) -> Result<Producer> {
        Producer::start(Arc::clone(&self.cluster), config)
    }

    /// A producer of transactions under an id that only one producer has at a time; see
    /// [`TransactionalProducer`]. It asks for nothing yet. Its task runs in the current tokio runtime.
    ///
    /// # Errors
    ///
    /// Settings contradict each other, or the id is empty.
    pub fn transactional(
        &self,
        id: &str,
        config: &ProducerConfig,
    ) -> Result<TransactionalProducer> {
        TransactionalProducer::start(Arc::clone(&self.cluster), id, config)
    }

    /// A consumer for partitions that the caller assigns. Its task runs in the current tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// A column does not exist.
    pub fn consumer(&self, decode: DecodeOptions) -> Result<AssignedConsumer> {
        self.consumer_with(self.cluster.config.consumer.clone(), decode)
    }

    /// A consumer with settings of its own. Its task runs in the current tokio runtime.
    ///
    /// # Errors
    ///
    /// A column does not exist.
    pub fn consumer_with(
        &self,
        config: ConsumerConfig,
        decode: DecodeOptions,
    ) -> Result<AssignedConsumer> {
        AssignedConsumer::start(Arc::clone(&self.cluster), config, decode)
    }

    /// A member of a consumer group. Its tasks run in the current tokio runtime.
    ///
    /// # Errors
    ///
    /// Settings contradict each other, or a column does not exist.
    pub fn group_consumer(
        &self,
        options: GroupOptions,
        decode: DecodeOptions,
    ) -> Result<GroupConsumer> {
        self.group_consumer_with(self.cluster.config.consumer.clone(), options, decode)
    }

    /// A member of a consumer group, with settings of its own for reading.
    ///
    /// # Errors
    ///
    /// As [`Self::group_consumer`].
    pub fn group_consumer_with(
        &self,
        config: ConsumerConfig,
        options: GroupOptions,
        decode: DecodeOptions,
    ) -> Result<GroupConsumer> {
        GroupConsumer::start(Arc::clone(&self.cluster), config, options, decode)
    }

    /// Resolves the bounds of a range of a topic; reading it any number of times gives these rows.
    ///
    /// # Errors
    ///
    /// The topic does not exist, or an offset that was named lies outside of it
    /// ([`Error::DataLoss`]).
    pub async fn scan(&self, topic: &str, options: ScanOptions) -> Result<Scan> {
        Scan::resolve(Arc::clone(&self.cluster), topic, options).await
    }

    /// A scan of the very offsets of an earlier one; the bounds in `options` do not count.
    ///
    /// # Errors
    ///
    /// [`Error::DataLoss`] when they do not exist any more, or the topic is another one now.
    pub async fn scan_again(&self, offsets: &Offsets, options: ScanOptions) -> Result<Scan> {
        Scan::again(Arc::clone(&self.cluster), offsets, options).await
    }

    /// A topic with its partitions and leaders; from what is known, if that is recent.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION` when it does not exist.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicInfo>> {
        self.cluster.retry("looking up a topic", async || self.cluster.topic(name).await).await
    }

    /// What is in the way to the brokers now: an address that refuses, one that keeps silent, or what
    /// a broker answered to records that it did not take.
    #[must_use]
    pub fn obstacle(&self) -> Option<Arc<Error>> {
        self.cluster.obstacle()
    }

    /// Watches a call that has a limit of its own.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::new(self.clone())
    }

    /// Closes all connections; they are opened again when they are needed.
    pub fn disconnect(&self) {
        self.cluster.disconnect();
    }
}
