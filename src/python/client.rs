//! The client: its life, and sending single records.
//!
//! A client is tied to a process through its [`Session`]. After a fork, the child's first call
//! creates its own session, over TCP, and leaves the inherited one alone, so a client of an
//! embedded broker keeps working in the child, as a client of the parent's broker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::join_all;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::admin::{Admin, named};
use super::broker::Broker;
use super::consumer::{Consumer, Offsets};
use super::convert::{Format, Place};
use super::encoding::ValueEncoder;
use super::groups::Groups;
use super::pending::Pending;
use super::scan::Scan;
use super::transactional::TransactionalProducer;
use super::{process, runtime, transactional};
use crate::client::{
    Acks, Client as Engine, ClientConfig, DeadLetters, IsolationLevel, Producer, ProducerConfig,
    ProducerRecord, RecordMetadata as Metadata, Unacknowledged,
};
use crate::error::{Error, Result};
use crate::types::{PartitionIndex, TimestampMs};

/// Producers that were dropped with unacknowledged records, and are being flushed.
static LINGERING: AtomicUsize = AtomicUsize::new(0);

/// How many dropped producers are still being flushed; the exit waits for them.
pub(super) fn lingering() -> usize {
    LINGERING.load(Ordering::SeqCst)
}

/// Producers by the settings that `write` can choose: acks and compression.
type Producers = BTreeMap<(i16, &'static str), Arc<Producer>>;

/// What a client holds in one process.
#[derive(Debug)]
struct Session {
    process: u32,
    /// Present until the drop, which leaks it in a fork.
    engine: Option<Engine>,
    producers: Mutex<Producers>,
}

impl Session {
    fn new(engine: Engine) -> Self {
        Self {
            process: process::current(),
            engine: Some(engine),
            producers: Mutex::new(Producers::new()),
        }
    }

    fn engine(&self) -> Result<&Engine> {
        self.engine.as_ref().ok_or(Error::Closed { what: "the client" })
    }

    fn producers(&self) -> Vec<Arc<Producer>> {
        let producers = self.producers.lock().unwrap_or_else(PoisonError::into_inner);
        producers.values().cloned().collect()
    }
}

impl Drop for Session {
    /// Leaves a parent's session alone; flushes what a dropped client still has, without waiting
    /// for it here.
    fn drop(&mut self) {
        let producers = std::mem::take(
            self.producers.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()),
        );
        if self.process != process::current() {
            std::mem::forget((producers, self.engine.take()));
            return;
        }
        let Ok(handle) = runtime::handle() else { return };
        {
            let _context = handle.enter();
            drop(self.engine.take());
        }
        for producer in producers.into_values() {
            if producer.buffered_bytes() > 0 {
                LINGERING.fetch_add(1, Ordering::SeqCst);
                let _task = handle.spawn(async move {
                    // It says in the log what was lost, as nobody else is there to hear it.
                    if let Err(error) = producer.drain(Duration::MAX, None).await.into_result() {
                        tracing::warn!(error = %error.chain(), "of a client that was not closed");
                    }
                    LINGERING.fetch_sub(1, Ordering::SeqCst);
                });
            } else {
                let _context = handle.enter();
                drop(producer);
            }
        }
    }
}

/// A client of a cluster; see `ottla.Client`.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct Client {
    config: ClientConfig,
    bootstrap_servers: String,
    session: ArcSwap<Session>,
    closed: AtomicBool,
}

fn configured(settings: &BTreeMap<String, String>) -> Result<ClientConfig> {
    let mut config = ClientConfig::default();
    // Unlike in Kafka: who reads into a dataframe does not expect rows that will be taken back.
    config.consumer.isolation_level = IsolationLevel::ReadCommitted;
    config.set_all(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    Ok(config)
}

impl Client {
    fn new(engine: Engine, config: ClientConfig, bootstrap_servers: String) -> Self {
        Self {
            config,
            bootstrap_servers,
            session: ArcSwap::from_pointee(Session::new(engine)),
            closed: AtomicBool::new(false),
        }
    }

    /// The session of this process.
    fn session(&self) -> Result<Arc<Session>> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed { what: "the client" });
        }
        loop {
            let current = self.session.load_full();
            if current.process == process::current() {
                return Ok(current);
            }
            let _context = runtime::handle()?.enter();
            let mut config = self.config.clone();
            let servers = self.bootstrap_servers.split(',').map(str::to_owned);
            config.bootstrap_servers = servers.collect();
            let fresh = Arc::new(Session::new(Engine::connect(config)?));
            let previous = self.session.compare_and_swap(&current, fresh);
            if Arc::ptr_eq(&previous, &current) {
                // The parent's session: leaked.
                std::mem::forget(current);
            }
        }
    }

    /// The engine's client in this process.
    pub(super) fn engine(&self) -> Result<Engine> {
        Ok(self.session()?.engine()?.clone())
    }

    /// The producer with the client's own settings.
    fn producer(&self) -> Result<Arc<Producer>> {
        self.producer_with(self.config.producer.clone())
    }

    /// The producer with these settings; it lives as long as the client.
    pub(super) fn producer_with(&self, config: ProducerConfig) -> Result<Arc<Producer>> {
        let session = self.session()?;
        let key = (config.acks.to_i16(), config.compression.name());
        let mut producers = session.producers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = producers.get(&key) {
            return Ok(Arc::clone(known));
        }
        let _context = runtime::handle()?.enter();
        let producer = Arc::new(session.engine()?.producer_with(config)?);
        producers.insert(key, Arc::clone(&producer));
        Ok(producer)
    }

    /// The writer of the dead-letter topic that `on_error` names, if any.
    pub(super) fn dead_letters(&self, on_error: &str) -> Result<Option<DeadLetters>> {
        let Some(topic) = super::convert::dead_letter_topic(on_error) else { return Ok(None) };
        // Rows are handed out because of this acknowledgement, whatever the client's setting.
        let config = ProducerConfig { acks: Acks::All, ..self.config.producer.clone() };
        Ok(Some(DeadLetters::new(topic, self.producer_with(config)?)?))
    }

    fn flush_all(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let session = self.session.load_full();
        if session.process != process::current() {
            return Ok(());
        }
        let producers = session.producers();
        let timeout = runtime::timeout(timeout)?;
        let flushing = async move {
            join_all(producers.iter().map(|producer| producer.flush())).await;
            Ok(())
        };
        let what = "the acknowledgement of all records";
        runtime::wait_for(py, session.engine()?, what, timeout, flushing)
    }
}

#[pymethods]
impl Client {
    #[staticmethod]
    fn connect(settings: BTreeMap<String, String>) -> PyResult<Self> {
        let config = configured(&settings)?;
        let bootstrap_servers = config.bootstrap_servers.join(",");
        let _context = runtime::handle()?.enter();
        let engine = Engine::connect(config.clone())?;
        Ok(Self::new(engine, config, bootstrap_servers))
    }

    #[staticmethod]
    fn in_process(
        broker: &Bound<'_, Broker>,
        settings: BTreeMap<String, String>,
    ) -> PyResult<Self> {
        let broker = broker.get().engine()?;
        let config = configured(&settings)?;
        let _context = runtime::handle()?.enter();
        let engine = Engine::local(broker.service(), Some(broker.node_id()), config.clone())?;
        Ok(Self::new(engine, config, broker.bootstrap_servers()))
    }

    #[getter]
    fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    #[getter]
    fn closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn admin(slf: &Bound<'_, Self>) -> Admin {
        Admin::new(slf.clone().unbind())
    }

    fn groups(slf: &Bound<'_, Self>) -> Groups {
        Groups::new(slf.clone().unbind())
    }

    fn flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let _open = self.session()?;
        self.flush_all(py, timeout)
    }

    /// Closes the client. `gone` says why its broker will never answer, if that is known.
    fn close(&self, py: Python<'_>, timeout: Option<f64>, gone: Option<String>) -> PyResult<()> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let session = self.session.load_full();
        let mut drained = Ok(());
        if session.process == process::current() {
            let producers = session.producers();
            let timeout = runtime::timeout(timeout)?.unwrap_or(Duration::MAX);
            drained = runtime::wait(py, "the acknowledgement of all records", None, async move {
                let gone = gone.as_deref();
                let drains = producers.iter().map(|producer| producer.drain(timeout, gone));
                let all = join_all(drains).await;
                all.into_iter().fold(Unacknowledged::default(), Unacknowledged::and).into_result()
            });
            let producers = std::mem::take(
                &mut *session.producers.lock().unwrap_or_else(PoisonError::into_inner),
            );
            let _context = runtime::handle()?.enter();
            drop(producers);
            session.engine()?.disconnect();
        }
        drained
    }

    #[expect(clippy::too_many_arguments, reason = "the arguments of the Python method")]
    #[pyo3(signature = (topic, value, key, partition, timestamp, headers, hurry, timeout))]
    fn send(
        &self,
        py: Python<'_>,
        topic: &str,
        value: Option<&[u8]>,
        key: Option<&[u8]>,
        partition: Option<PartitionIndex>,
        timestamp: Option<i64>,
        headers: Vec<(String, Option<Vec<u8>>)>,
        hurry: bool,
        timeout: Option<f64>,
    ) -> PyResult<Pending> {
        let record = record(topic, value, key, (partition, timestamp), headers);
        send(py, &self.engine()?, self.producer()?, record, hurry, timeout)
    }

    fn value_encoder(
        &self,
        py: Python<'_>,
        topic: &str,
        format: Format,
        timeout: Option<f64>,
    ) -> PyResult<ValueEncoder> {
        let _open = self.session()?;
        ValueEncoder::settle(py, topic, &format, timeout)
    }

    #[pyo3(signature = (topic, data, options))]
    fn write(
        slf: &Bound<'_, Self>,
        topic: &str,
        data: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<(u64, Option<String>)> {
        super::write::write(slf, topic, data, options)
    }

    /// A producer of transactions; the timeouts are those of a transaction, and of each of its steps.
    #[pyo3(signature = (transactional_id, transaction_timeout, timeout, compression_type))]
    fn transactional(
        &self,
        transactional_id: &str,
        transaction_timeout: Option<f64>,
        timeout: Option<f64>,
        compression_type: Option<&str>,
    ) -> PyResult<TransactionalProducer> {
        let timeouts = (transaction_timeout, timeout);
        transactional::of_client(self, transactional_id, timeouts, compression_type)
    }

    fn scan(
        slf: &Bound<'_, Self>,
        topic: &str,
        start: Place,
        end: Place,
        options: &Bound<'_, PyDict>,
        timeout: Option<f64>,
    ) -> PyResult<Scan> {
        Scan::resolve(slf, topic, (start.0, end.0), options, timeout)
    }

    fn consumer(
        slf: &Bound<'_, Self>,
        topics: BTreeMap<String, Option<Vec<PartitionIndex>>>,
        start: (Place, Offsets),
        options: &Bound<'_, PyDict>,
        timeout: Option<f64>,
    ) -> PyResult<Consumer> {
        let (start, resume) = start;
        Consumer::start(slf, topics, (start.0, resume), options, timeout)
    }

    fn group_consumer(slf: &Bound<'_, Self>, options: &Bound<'_, PyDict>) -> PyResult<Consumer> {
        Consumer::join(slf, options)
    }
}

/// A record, of what Python passes.
pub(super) fn record(
    topic: &str,
    value: Option<&[u8]>,
    key: Option<&[u8]>,
    (partition, timestamp): (Option<PartitionIndex>, Option<i64>),
    headers: Vec<(String, Option<Vec<u8>>)>,
) -> ProducerRecord {
    ProducerRecord {
        topic: Arc::from(topic),
        partition,
        key: key.map(Bytes::copy_from_slice),
        value: value.map(Bytes::copy_from_slice),
        timestamp: timestamp.map(TimestampMs),
        headers: headers.into_iter().map(|(name, value)| (name, value.map(Bytes::from))).collect(),
    }
}

/// Hands a record to a producer; the result is its acknowledgement.
pub(super) fn send(
    py: Python<'_>,
    engine: &Engine,
    producer: Arc<Producer>,
    record: ProducerRecord,
    hurry: bool,
    timeout: Option<f64>,
) -> PyResult<Pending> {
    let timeout = runtime::timeout(timeout)?;
    let accepting = Arc::clone(&producer);
    let what = "the acknowledgement of a record";
    let topic = Arc::clone(&record.topic);
    let delivery = runtime::wait_for(py, engine, what, timeout, async {
        named(engine, &topic, accepting.send(record).await).await
    })?;
    if hurry {
        // A caller that waits for this one record gains nothing from `linger.ms`.
        let _task = runtime::handle()?.spawn(async move { producer.flush().await });
    }
    Ok(Pending::new(engine, what, delivery.wait(), |py, sent| {
        Ok(Py::new(py, RecordMetadata::from(sent))?.into_any())
    }))
}

/// Where a record was written.
///
/// Examples
/// --------
/// >>> import ottla
/// >>> with ottla.Broker() as broker:
/// ...     sent = broker.client().send("words", "one")
/// >>> sent.topic, sent.partition, sent.offset, sent.timestamp.tzname()
/// ('words', 0, 0, 'UTC')
#[pyclass(frozen, module = "ottla")]
#[derive(Debug)]
pub(super) struct RecordMetadata {
    /// The name of the topic.
    #[pyo3(get)]
    topic: String,
    /// The partition.
    #[pyo3(get)]
    partition: PartitionIndex,
    /// The offset; None with `acks=0`.
    #[pyo3(get)]
    offset: Option<i64>,
    timestamp: TimestampMs,
}

impl From<&Metadata> for RecordMetadata {
    fn from(sent: &Metadata) -> Self {
        Self {
            topic: sent.partition.topic.to_string(),
            partition: sent.partition.partition,
            offset: (sent.offset.0 >= 0).then_some(sent.offset.0),
            timestamp: sent.timestamp,
        }
    }
}

#[pymethods]
impl RecordMetadata {
    /// The timestamp of the record, as an aware `datetime` in UTC.
    #[getter]
    fn timestamp<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.timestamp == TimestampMs::NONE {
            return Ok(None);
        }
        let bounds = py.import("ottla._bounds")?;
        Ok(Some(bounds.call_method1("timestamp", (self.timestamp.0, "ms"))?))
    }

    fn __repr__(&self) -> String {
        let offset = self.offset.map_or_else(|| "None".to_owned(), |offset| offset.to_string());
        format!(
            "RecordMetadata(topic={:?}, partition={}, offset={offset})",
            self.topic, self.partition
        )
    }
}
