//! Transactions, as Python sees them.
//!
//! Each step is a [`Pending`], which goes on whether or not anybody waits for it; `python/ottla/_transactions.py`
//! waits in a thread or in an event loop, and decides what becomes of the consumer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::client::{self, Client};
use super::consumer::{Consumer, Offsets, by_topic};
use super::pending::Pending;
use super::process::OfProcess;
use super::{runtime, write};
use crate::client::{
    Client as Engine, OffsetAndMetadata, ProducerConfig, TransactionalProducer as Native,
};
use crate::error::{Error, Result};
use crate::types::{Offset, PartitionIndex, TopicPartition};

const WHAT: &str = "the transactional producer";

/// A producer of transactions; see `ottla.TransactionalProducer`.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct TransactionalProducer {
    held: OfProcess<Held>,
    closed: AtomicBool,
}

/// What belongs to the process that made it.
#[derive(Debug)]
struct Held {
    engine: Engine,
    producer: Native,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.producer.give_up();
    }
}

impl TransactionalProducer {
    pub(super) fn new(
        engine: Engine,
        id: &str,
        (transaction_timeout, timeout): (Option<f64>, Option<f64>),
        compression: Option<&str>,
    ) -> Result<Self> {
        let mut config: ProducerConfig = engine.config().producer.clone();
        if let Some(timeout) = runtime::timeout(transaction_timeout)? {
            config.transaction_timeout = timeout;
        }
        if let Some(timeout) = runtime::timeout(timeout)? {
            config.block_max = timeout;
        }
        if let Some(name) = compression {
            config.compression = write::compression(name)?;
        }
        let _context = runtime::handle()?.enter();
        let producer = engine.transactional(id, &config)?;
        // What an earlier producer left open holds up its group, so it is aborted before there is anything to write.
        let early = producer.clone();
        tokio::spawn(async move {
            if let Err(error) = early.initialize().await {
                let id = early.id();
                tracing::debug!(id, error = %error.chain(), "the first transaction gets an epoch again");
            }
        });
        let held = OfProcess::new(Held { engine, producer });
        Ok(Self { held, closed: AtomicBool::new(false) })
    }

    fn producer(&self) -> Result<Native> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed { what: WHAT });
        }
        Ok(self.held()?.producer.clone())
    }

    fn held(&self) -> Result<&Held> {
        self.held.get(WHAT, "make a new one there").map(AsRef::as_ref)
    }

    fn pending(
        &self,
        what: &'static str,
        step: impl Future<Output = Result<()>> + Send + 'static,
    ) -> PyResult<Pending> {
        Ok(Pending::new(&self.held()?.engine, what, step, |py, ()| Ok(py.None())))
    }
}

#[pymethods]
impl TransactionalProducer {
    #[getter]
    fn transactional_id(&self) -> String {
        self.held.peek().map_or_else(String::new, |held| held.producer.id().to_owned())
    }

    #[getter]
    fn closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn begin(&self) -> PyResult<Pending> {
        let producer = self.producer()?;
        self.pending("the beginning of a transaction", async move { producer.begin().await })
    }

    fn commit(&self) -> PyResult<Pending> {
        let producer = self.producer()?;
        self.pending("the commit of a transaction", async move { producer.commit().await })
    }

    fn abort(&self) -> PyResult<Pending> {
        let producer = self.producer()?;
        self.pending("the abort of a transaction", async move { producer.abort().await })
    }

    /// Makes offsets of the consumer's group part of the transaction, as the member that it is now.
    fn send_offsets(&self, consumer: &Bound<'_, Consumer>, offsets: Offsets) -> PyResult<Pending> {
        let producer = self.producer()?;
        let mut wanted = BTreeMap::new();
        for (topic, partitions) in &offsets {
            for (partition, offset) in partitions {
                let partition = TopicPartition::new(topic.as_str(), *partition);
                wanted.insert(partition, OffsetAndMetadata::from(Offset(*offset)));
            }
        }
        let member = consumer.get().reader()?.member()?.clone();
        self.pending("the offsets of a transaction", async move {
            let identity = member.metadata_of_owner(&wanted)?;
            producer.send_offsets(wanted, identity).await
        })
    }

    /// Settles what a commit without an answer left open: a new epoch ends the transaction, and then the group says
    /// what it has. Its offsets, by topic and partition.
    fn settle(
        &self,
        consumer: &Bound<'_, Consumer>,
        partitions: Vec<(String, PartitionIndex)>,
    ) -> PyResult<Pending> {
        let producer = self.producer()?;
        let member = consumer.get().reader()?.member()?.clone();
        let settling = async move {
            match producer.abort().await {
                Ok(()) => producer.initialize().await?,
                // Whoever took over has ended the transaction.
                Err(_) if producer.is_over() => {}
                Err(error) => return Err(error),
            }
            let partitions: Vec<TopicPartition> = partitions
                .into_iter()
                .map(|(topic, one)| TopicPartition::new(topic, one))
                .collect();
            let known = member.committed_for_certain(&partitions).await?;
            Ok(by_topic(known.into_iter().map(|(partition, known)| (partition, known.offset.0))))
        };
        let what = "the outcome of a transaction";
        Ok(Pending::new(&self.held()?.engine, what, settling, |py, offsets: &Offsets| {
            Ok(offsets.clone().into_pyobject(py)?.into_any().unbind())
        }))
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
        let record = client::record(topic, value, key, (partition, timestamp), headers);
        let producer = Arc::clone(self.producer()?.producer());
        client::send(py, &self.held()?.engine, producer, record, hurry, timeout)
    }

    fn write(
        &self,
        topic: &str,
        data: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<(u64, Option<String>)> {
        let producer = Arc::clone(self.producer()?.producer());
        write::write_with(&self.held()?.engine, topic, data, options, |_config| Ok(producer))
    }

    /// Aborts an open transaction, and stops.
    fn close(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        if self.closed.swap(true, Ordering::SeqCst) || !self.held.is_here() {
            return Ok(());
        }
        let producer = self.held()?.producer.clone();
        let timeout = runtime::timeout(timeout)?.unwrap_or(Duration::MAX);
        let what = "the end of the transactional producer";
        runtime::wait(py, what, None, async move { producer.close(timeout).await })
    }
}

/// Makes a transactional producer of a client.
pub(super) fn of_client(
    client: &Client,
    id: &str,
    timeouts: (Option<f64>, Option<f64>),
    compression: Option<&str>,
) -> PyResult<TransactionalProducer> {
    Ok(TransactionalProducer::new(client.engine()?, id, timeouts, compression)?)
}
