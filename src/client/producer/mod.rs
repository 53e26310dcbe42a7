//! Producing: records one at a time, or whole batches that are already encoded.
//!
//! ```text
//! send ──► memory (buffer.memory) ──► Accumulator ──► sender task ──► Produce requests
//!   ▲                                                     │
//!   └────────── Delivery ◄── acknowledged, failed ────────┘
//! ```
//!
//! `send` waits for memory instead of failing, so a producer cannot outrun its broker; it returns
//! the pending acknowledgement. Every accepted record ends in exactly one of two ways: acknowledged
//! with its offset, or failed with a reason. Dropping the producer without [`Producer::close`]
//! fails what was not yet acknowledged.

mod closing;
mod delivery;
mod request;
mod sender;
mod transactional;
mod trouble;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

pub use closing::Unacknowledged;
pub use delivery::{BatchAck, BatchDelivery, Delivery, RecordMetadata};

use crate::client::admin::{Admin, NewTopic, all_or_first_error};
use crate::client::cluster::{Cluster, Lane, TopicInfo};
use crate::client::config::{Acks, ProducerConfig};
use crate::client::producer::closing::Lost;
use crate::client::producer::delivery::Promise;
pub(in crate::client) use crate::client::producer::transactional::Transactional;
use crate::client::producer::trouble::Troubles;
use crate::client::transaction::Coordinators;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::accumulator::{Accumulator, Settings, Stamp};
use crate::machine::client::partitioner::{Candidate, Sticky, partition_for_key};
use crate::record::{
    Batch, BatchBuilder, BatchOptions, Header, patch_producer, patch_transaction,
    record_size_upper_bound,
};
use crate::types::{PartitionIndex, TimestampMs, TopicPartition};

/// A record to be produced.
#[derive(Clone, Debug, Default)]
pub struct ProducerRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition; if not given, chosen by the key, or sticky without one.
    pub partition: Option<PartitionIndex>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none for a tombstone.
    pub value: Option<Bytes>,
    /// The timestamp; if not given, now.
    pub timestamp: Option<TimestampMs>,
    /// Headers in order; keys may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl ProducerRecord {
    /// A record with only a value.
    pub fn new(topic: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), value: Some(value.into()), ..Self::default() }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// A whole record batch, created for example by [`crate::columnar`], without a producer id.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    bytes: Bytes,
    records: i32,
    max_timestamp: TimestampMs,
}

impl EncodedBatch {
    /// Takes the bytes of one batch.
    ///
    /// # Errors
    ///
    /// When they are not exactly one whole batch.
    pub fn new(bytes: Bytes) -> Result<Self> {
        let batch = Batch::parse(&bytes)?;
        let header = *batch.header();
        if header.size_bytes != bytes.len() {
            return Err(Error::invalid(format!(
                "{} bytes follow the record batch; pass one batch at a time",
                bytes.len().saturating_sub(header.size_bytes)
            )));
        }
        drop(batch);
        let records = header.last_offset_delta.saturating_add(1);
        Ok(Self { bytes, records, max_timestamp: header.max_timestamp })
    }

    /// The number of offsets that it occupies.
    #[must_use]
    pub const fn records(&self) -> i32 {
        self.records
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// What the accumulator holds for a batch.
#[derive(Debug)]
struct Payload {
    content: Content,
    promise: Promise,
    /// The bytes of `buffer.memory` that it holds.
    charged: usize,
    /// Whether it belongs to a transaction.
    transactional: bool,
}

#[derive(Debug)]
enum Content {
    Open(Box<BatchBuilder>),
    Sealed { bytes: Bytes, stamp: Option<Stamp> },
}

impl Payload {
    /// The bytes to send with a stamp. Sealed at the first attempt, patched when the stamp changes.
    fn seal(&mut self, wanted: Stamp) -> Result<Bytes> {
        let content = std::mem::replace(
            &mut self.content,
            Content::Sealed { bytes: Bytes::new(), stamp: None },
        );
        let bytes = match content {
            Content::Open(mut builder) => {
                builder.set_producer(wanted.producer_id, wanted.epoch, wanted.sequence);
                builder.finish()?
            }
            Content::Sealed { bytes, stamp } if stamp == Some(wanted) => bytes,
            Content::Sealed { bytes, stamp: None } if wanted == Stamp::NONE => bytes,
            Content::Sealed { bytes, .. } => {
                // Done in place unless something else still holds the bytes.
                let mut bytes = bytes
                    .try_into_mut()
                    .unwrap_or_else(|shared| bytes::BytesMut::from(shared.as_ref()));
                let Stamp { producer_id, epoch, sequence } = wanted;
                let patch = if self.transactional { patch_transaction } else { patch_producer };
                patch(&mut bytes, producer_id, epoch, sequence)?;
                bytes.freeze()
            }
        };
        self.content = Content::Sealed { bytes: bytes.clone(), stamp: Some(wanted) };
        Ok(bytes)
    }
}

#[derive(Debug)]
struct State {
    accumulator: Accumulator<Payload>,
    sticky: BTreeMap<Arc<str>, Sticky>,
    closed: bool,
    lost: Lost,
    troubles: Troubles,
    /// Of a transactional producer.
    transaction: Option<Transactional>,
}

/// The state that the handle and the sender task share.
#[derive(Debug)]
struct Inner {
    cluster: Arc<Cluster>,
    config: ProducerConfig,
    lane: Lane,
    /// Of a transactional producer.
    coordinators: Option<Arc<Coordinators>>,
    state: Mutex<State>,
    memory: Semaphore,
    /// Something was appended, sealed or closed.
    work: Notify,
    /// Something was settled.
    progress: Notify,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A producer. Share it in an [`Arc`]; all methods take `&self`.
#[derive(Debug)]
pub struct Producer {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Producer {
    /// Starts the sender task in the current tokio runtime.
    pub(crate) fn start(cluster: Arc<Cluster>, config: ProducerConfig) -> Result<Self> {
        Self::start_with(cluster, config, None)
    }

    /// As [`Self::start`]; with `coordinators`, a producer whose records all belong to transactions.
    pub(in crate::client) fn start_with(
        cluster: Arc<Cluster>,
        config: ProducerConfig,
        coordinators: Option<Arc<Coordinators>>,
    ) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        config.check()?;
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let settings = Settings {
            linger_ms: millis(config.linger),
            batch_bytes: config.batch_bytes,
            request_bytes_max: config.request_bytes_max,
            in_flight_max: config.in_flight_max,
            delivery_timeout_ms: millis(config.delivery_timeout),
            retries: if config.acks == Acks::None { 0 } else { config.retries },
            backoff: cluster.config.backoff,
            idempotent: config.is_idempotent(),
            transactional: coordinators.is_some(),
        };
        let state = State {
            accumulator: Accumulator::new(settings),
            sticky: BTreeMap::new(),
            closed: false,
            lost: Lost::default(),
            troubles: Troubles::default(),
            transaction: coordinators.as_ref().map(|_| Transactional::new(cluster.config.backoff)),
        };
        let inner = Arc::new(Inner {
            cluster,
            memory: Semaphore::new(config.buffer_bytes.min(Semaphore::MAX_PERMITS)),
            config,
            lane: Lane::Produce(NEXT.fetch_add(1, Ordering::Relaxed)),
            coordinators,
            state: Mutex::new(state),
            work: Notify::new(),
            progress: Notify::new(),
        });
        let task = tokio::spawn(sender::run(Arc::clone(&inner)));
        Ok(Self { inner, task })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ProducerConfig {
        &self.inner.config
    }

    /// Accepts a record, waiting up to `max.block.ms` for metadata and memory. Returns its pending
    /// acknowledgement, which may be dropped.
    ///
    /// # Errors
    ///
    /// When the topic or partition does not exist, the record is too large, memory is not available
    /// in time, or the producer is closed.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery> {
        let topic = self.topic(&record.topic).await?;
        let headers: Vec<Header<'_>> = record
            .headers
            .iter()
            .map(|(key, value)| Header { key: key.as_bytes(), value: value.as_deref() })
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let header_bytes = |header: &Header<'_>| {
            header.key.len().saturating_add(header.value.map_or(0, <[u8]>::len))
        };
        let bytes = record_size_upper_bound(
            key.map_or(0, <[u8]>::len),
            value.map_or(0, <[u8]>::len),
            headers.iter().map(header_bytes).sum(),
            headers.len(),
        );
        self.check_size(&record.topic, bytes)?;
        if let Some(refusal) = record.timestamp.and_then(TimestampMs::refusal) {
            return Err(Error::invalid(refusal));
        }
        let charged = self.reserve(bytes).await?;
        let timestamp = record.timestamp.unwrap_or_else(|| self.inner.cluster.env.clock.now());
        let now = self.inner.cluster.now();

        let mut state = self.inner.state();
        let state = &mut *state;
        if state.closed {
            self.inner.memory.add_permits(charged);
            return Err(Error::Closed { what: "the producer" });
        }
        let chosen = self.choose(state, &topic, &record);
        let partition = match chosen {
            Ok(partition) => TopicPartition::new(Arc::clone(&topic.name), partition),
            Err(error) => {
                self.inner.memory.add_permits(charged);
                return Err(error);
            }
        };
        if let Err(error) = self.inner.join(state, &partition) {
            self.inner.memory.add_permits(charged);
            return Err(error);
        }
        let fresh = std::cell::Cell::new(false);
        let (payload, closed) = state.accumulator.append(now, &partition, bytes, || {
            fresh.set(true);
            self.open_payload(&partition)
        });
        payload.charged += charged;
        let Content::Open(builder) = &mut payload.content else {
            return Err(Error::invalid("the open batch of the partition is sealed"));
        };
        let index = builder.record_count();
        builder.append(timestamp, key, value, &headers)?;
        payload.promise.add_record();
        let delivery = Delivery::new(payload.promise.delivery(), index, timestamp);
        if record.partition.is_none() && record.key.is_none() {
            let sticky = state.sticky.entry(Arc::clone(&topic.name)).or_default();
            sticky.written(bytes, self.inner.config.batch_bytes, closed);
        }
        if closed || fresh.get() || self.inner.config.batch_bytes <= bytes {
            self.inner.work.notify_one();
        }
        Ok(delivery)
    }

    /// Sends a record and waits for its acknowledgement.
    ///
    /// # Errors
    ///
    /// As [`Self::send`], and why it was not acknowledged.
    pub async fn send_and_wait(&self, record: ProducerRecord) -> Result<RecordMetadata> {
        self.send(record).await?.wait().await
    }

    /// Accepts whole batches for one partition, waiting for memory. They are sent in this order,
    /// after what was sent to the partition before, without lingering.
    ///
    /// # Errors
    ///
    /// As [`Self::send`]; batches before the one at fault have been sent.
    pub async fn send_batches(
        &self,
        partition: &TopicPartition,
        batches: Vec<EncodedBatch>,
    ) -> Result<Vec<BatchDelivery>> {
        let topic = self.topic(&partition.topic).await?;
        check_partition(&topic, partition.partition)?;
        let mut deliveries = Vec::with_capacity(batches.len());
        for batch in batches {
            let bytes = batch.bytes.len();
            let charged = self.reserve(bytes).await?;
            let promise = Promise::new(partition.clone(), batch.records, batch.max_timestamp);
            deliveries.push(promise.delivery());
            let payload = Payload {
                content: Content::Sealed { bytes: batch.bytes, stamp: None },
                promise,
                charged,
                transactional: self.inner.coordinators.is_some(),
            };
            let now = self.inner.cluster.now();
            let mut state = self.inner.state();
            if state.closed {
                self.inner.memory.add_permits(charged);
                return Err(Error::Closed { what: "the producer" });
            }
            if let Err(error) = self.inner.join(&mut state, partition) {
                self.inner.memory.add_permits(charged);
                return Err(error);
            }
            state.accumulator.append_batch(now, partition, bytes, batch.records, payload);
            drop(state);
            self.inner.work.notify_one();
        }
        Ok(deliveries)
    }

    /// Sends lingering batches and waits until everything accepted before has been acknowledged or
    /// has failed. Failures are reported by the deliveries, not here.
    pub async fn flush(&self) {
        let until = {
            let mut state = self.inner.state();
            state.accumulator.seal_all();
            state.accumulator.next_id()
        };
        self.inner.work.notify_one();
        loop {
            let progress = self.inner.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            let oldest = self.inner.state().accumulator.oldest();
            if oldest.is_none_or(|oldest| oldest >= until) || self.task.is_finished() {
                return;
            }
            progress.await;
        }
    }

    /// As [`Self::drain`], then stops: what is not acknowledged by then is abandoned, and its
    /// deliveries fail.
    ///
    /// # Errors
    ///
    /// When records were not acknowledged, now or earlier without anybody being told.
    pub async fn close(self, timeout: Duration) -> Result<()> {
        let unacknowledged = self.drain(timeout, None).await;
        self.task.abort();
        self.inner.cluster.disconnect_lane(self.inner.lane);
        unacknowledged.into_result()
    }

    /// The bytes that are waiting or in flight.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.inner.state().accumulator.buffered_bytes()
    }

    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.inner.cluster)
    }

    pub(crate) fn random(&self) -> u64 {
        self.inner.cluster.env.random.u64()
    }

    pub(crate) fn wall_clock(&self) -> TimestampMs {
        self.inner.cluster.env.clock.now()
    }

    /// A topic to write to; may create it, if brokers create topics on demand.
    pub(crate) async fn topic(&self, name: &str) -> Result<Arc<TopicInfo>> {
        if let Some(topic) = self.inner.cluster.snapshot().topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        let cluster = &self.inner.cluster;
        // Where asking for a topic creates it, the topic may not be ready yet.
        let retries = if cluster.config.allow_auto_create_topics { 8 } else { 3 };
        let lookup = cluster.retry_unknown("looking up a topic", retries, async || {
            match cluster.topic_or_create(name, true).await {
                Err(error) if error.code() == ErrorCode::KafkaStorageError => {
                    Ok(self.created_or_why_not(name).await)
                }
                found => found.map(Ok),
            }
        });
        let lookup = async { lookup.await? };
        let block_max = self.inner.config.block_max;
        tokio::time::timeout(block_max, lookup).await.unwrap_or_else(|_| {
            let what = format!("waiting for the metadata of topic {name} (max.block.ms)");
            Err(Error::timeout(what, block_max).because(cluster.obstacle()))
        })
    }

    /// A topic that the broker could not create on demand. Asked to create it, it says why.
    async fn created_or_why_not(&self, name: &str) -> Result<Arc<TopicInfo>> {
        let cluster = &self.inner.cluster;
        let topic = NewTopic { name: name.to_owned(), ..NewTopic::default() };
        let created = Admin::new(Arc::clone(cluster)).create_topics(&[topic], false).await?;
        match all_or_first_error(created) {
            Err(error) if error.code() != ErrorCode::TopicAlreadyExists => Err(error),
            _ => cluster.fresh_topic(name, false).await,
        }
    }

    fn check_size(&self, topic: &str, bytes: usize) -> Result<()> {
        let config = &self.inner.config;
        if bytes > config.request_bytes_max {
            let context = format!(
                "a record of {bytes} bytes for topic {topic} is larger than max.request.size ({})",
                config.request_bytes_max
            );
            return Err(Error::told(ErrorCode::MessageTooLarge, context));
        }
        Ok(())
    }

    /// Takes memory, waiting for it up to `max.block.ms`. A request for more than there is takes
    /// all of it.
    async fn reserve(&self, bytes: usize) -> Result<usize> {
        let charged = bytes.min(self.inner.config.buffer_bytes);
        let permits = u32::try_from(charged).unwrap_or(u32::MAX);
        let charged = permits as usize;
        if let Ok(permit) = self.inner.memory.try_acquire_many(permits) {
            permit.forget();
            return Ok(charged);
        }
        // Lingering batches hold the memory that this call waits for.
        self.inner.state().accumulator.seal_all();
        self.inner.work.notify_one();
        let block_max = self.inner.config.block_max;
        match tokio::time::timeout(block_max, self.inner.memory.acquire_many(permits)).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(charged)
            }
            Ok(Err(_)) => Err(Error::Closed { what: "the producer" }),
            Err(_) => {
                let obstacle = self.inner.cluster.obstacle();
                let slow = if obstacle.is_none() {
                    "; the broker is slower than the producer"
                } else {
                    ""
                };
                let of = self.inner.config.buffer_bytes;
                let what = format!(
                    "waiting for {bytes} of {of} bytes of buffer.memory (max.block.ms){slow}"
                );
                Err(Error::timeout(what, block_max).because(obstacle))
            }
        }
    }

    fn choose(
        &self,
        state: &mut State,
        topic: &TopicInfo,
        record: &ProducerRecord,
    ) -> Result<PartitionIndex> {
        if let Some(partition) = record.partition {
            return check_partition(topic, partition).map(|()| partition);
        }
        if let Some(key) = &record.key {
            return Ok(partition_for_key(key, topic.partition_count()));
        }
        let sticky = state.sticky.entry(Arc::clone(&topic.name)).or_default();
        if let Some(current) = sticky.current()
            && topic.partition(current).is_some_and(|info| info.leader.is_some())
        {
            return Ok(current);
        }
        let with_leader = topic.partitions.iter().filter(|info| info.leader.is_some());
        let mut candidates: Vec<Candidate> = with_leader
            .map(|info| {
                let partition = TopicPartition::new(Arc::clone(&topic.name), info.partition);
                let queued = state.accumulator.queued(&partition);
                Candidate { partition: info.partition, queued }
            })
            .collect();
        if candidates.is_empty() {
            let all = topic.partitions.iter();
            candidates =
                all.map(|info| Candidate { partition: info.partition, queued: 0 }).collect();
        }
        sticky.partition(&candidates, self.inner.cluster.env.random.u64()).ok_or_else(|| {
            let context = format!("topic {} has no partitions", topic.name);
            Error::kafka(ErrorCode::UnknownTopicOrPartition, context)
        })
    }

    fn open_payload(&self, partition: &TopicPartition) -> Payload {
        let config = &self.inner.config;
        let transactional = self.inner.coordinators.is_some();
        let options = BatchOptions {
            compression: config.compression,
            level: config.compression_level,
            transactional,
            ..BatchOptions::default()
        };
        Payload {
            content: Content::Open(Box::new(BatchBuilder::new(options))),
            promise: Promise::new(partition.clone(), 0, TimestampMs::NONE),
            charged: 0,
            transactional,
        }
    }
}

fn check_partition(topic: &TopicInfo, partition: PartitionIndex) -> Result<()> {
    if topic.partition(partition).is_some() {
        return Ok(());
    }
    Err(Error::no_partition(&topic.name, partition, topic.partitions.len()))
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.task.abort();
        self.inner.cluster.disconnect_lane(self.inner.lane);
    }
}
