//! Tables to topics: from an Arrow stream to acknowledged record batches, column-wise.
//!
//! ```text
//! reader (any library) ──► Encoder ──► Producer::send_batches ──► acknowledgements
//!      one batch of rows     per partition      waits for room       a bounded number is open
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch as Rows, RecordBatchReader};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::client::Client;
use super::convert::Format;
use super::interop::{self, arrow_error};
use super::runtime;
use crate::client::admin::Resource;
use crate::client::producer::BatchDelivery;
use crate::client::{
    Acks, Client as Engine, EncodedBatch, Producer, ProducerConfig, TopicInfo, partition_for_key,
};
use crate::columnar::{Encoder, PartitionSource, ValueSource, WriteOptions};
use crate::error::{Error, Result};
use crate::record::Compression;
use crate::types::{TimestampMs, TopicPartition};

/// The size of a record batch when neither the topic nor the client wants a smaller one.
const BATCH_BYTES: usize = 1_000_000;

/// How many batches may wait for their acknowledgement before the table waits for them.
const OPEN_BATCHES_MAX: usize = 512;

/// The keyword arguments of `client.write`, as `_client.py` passes them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Arguments<'py> {
    key: Option<String>,
    partition: Option<Partition>,
    timestamp: Option<Timestamp>,
    headers: Option<String>,
    value: Option<Format>,
    acks: Option<String>,
    compression_type: Option<String>,
    progress: Bound<'py, PyAny>,
    timeout: Option<f64>,
}

#[derive(FromPyObject)]
enum Partition {
    Fixed(i32),
    Column(String),
}

#[derive(FromPyObject)]
enum Timestamp {
    Fixed(i64),
    Column(String),
}

/// Where rows without a partition of their own go: by the key as Java clients do it; without one
/// to one partition for a batch's worth of rows, then to the next.
struct Partitioner {
    partitions: i32,
    batch_size: usize,
    /// The partition of rows without a key, and how many more go there.
    sticky: i32,
    left: usize,
    /// How many rows fill a batch.
    stint: usize,
}

impl Partitioner {
    fn new(partitions: i32, batch_size: usize) -> Self {
        Self { partitions, batch_size, sticky: 0, left: 0, stint: 1 }
    }

    /// Learns how large the next rows are.
    fn begin(&mut self, rows: usize, bytes: usize) {
        let row_bytes = bytes.checked_div(rows).unwrap_or(0).max(1);
        self.stint = (self.batch_size / row_bytes).max(1);
        self.left = self.left.min(self.stint);
    }

    fn choose(&mut self, key: Option<&[u8]>) -> i32 {
        if let Some(key) = key {
            return partition_for_key(key, self.partitions);
        }
        if self.left == 0 {
            self.left = self.stint;
            self.sticky = (self.sticky + 1) % self.partitions.max(1);
        }
        self.left -= 1;
        self.sticky
    }
}

/// What a table is written with.
struct Writer {
    producer: std::sync::Arc<Producer>,
    topic: std::sync::Arc<TopicInfo>,
    encoder: Encoder,
    partitioner: Partitioner,
    /// The timestamp of all rows, when one is given.
    fixed: Option<TimestampMs>,
    open: VecDeque<BatchDelivery>,
}

impl Writer {
    /// Encodes rows and hands over what is full.
    async fn rows(&mut self, rows: &Rows, now: TimestampMs) -> Result<()> {
        self.partitioner.begin(rows.num_rows(), rows.get_array_memory_size());
        let partitioner = &mut self.partitioner;
        let stamp = self.fixed.unwrap_or(now);
        self.encoder.push(rows, stamp, |key, _row| partitioner.choose(key))?;
        let sealed = self.encoder.take_sealed();
        self.send(sealed).await
    }

    /// Hands over the rest and waits for all acknowledgements.
    async fn finish(&mut self) -> Result<()> {
        let sealed = self.encoder.finish()?;
        self.send(sealed).await?;
        while let Some(delivery) = self.open.pop_front() {
            delivery.wait().await?;
        }
        Ok(())
    }

    async fn send(&mut self, sealed: Vec<crate::columnar::EncodedBatch>) -> Result<()> {
        for batch in sealed {
            let partition =
                TopicPartition::new(std::sync::Arc::clone(&self.topic.name), batch.partition);
            let batch = EncodedBatch::new(batch.bytes)?;
            self.open.extend(self.producer.send_batches(&partition, vec![batch]).await?);
            while self.open.len() > OPEN_BATCHES_MAX
                || self.open.front().is_some_and(BatchDelivery::is_done)
            {
                let Some(delivery) = self.open.pop_front() else { break };
                delivery.wait().await?;
            }
        }
        Ok(())
    }
}

/// Writes all rows of `data`; returns their number.
pub(super) fn write(
    client: &Bound<'_, Client>,
    topic: &str,
    data: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyDict>,
) -> PyResult<usize> {
    let py = client.py();
    let arguments: Arguments<'_> = arguments.extract()?;
    let timeout = runtime::timeout(arguments.timeout)?;
    let mut reader = interop::import_reader(data)?;
    let engine = client.get().engine()?;
    let config = producer_config(&engine, &arguments)?;
    let producer = client.get().producer_with(config.clone())?;
    let (info, batch_size) =
        runtime::wait(py, &format!("topic {topic}"), timeout, target(&engine, topic, &config))?;
    let options = options(&arguments, &reader.schema(), &info, &config, batch_size)?;
    let mut writer = Writer {
        producer,
        partitioner: Partitioner::new(info.partition_count(), batch_size),
        topic: info,
        encoder: Encoder::new(options)?,
        fixed: match arguments.timestamp {
            Some(Timestamp::Fixed(time)) => Some(TimestampMs(time)),
            _ => None,
        },
        open: VecDeque::new(),
    };
    let what = format!("the acknowledgement of a table written to {topic}");
    let total = pump(py, reader.as_mut(), &mut writer, (&what, timeout), &arguments.progress);
    let finished = runtime::wait(py, &what, timeout, writer.finish());
    let total = total?;
    finished?;
    Ok(total)
}

/// The time, for rows that have none of their own.
fn now() -> TimestampMs {
    TimestampMs(chrono::Utc::now().timestamp_millis())
}

/// Reads, encodes and hands over all rows.
fn pump(
    py: Python<'_>,
    reader: &mut (dyn RecordBatchReader + Send),
    writer: &mut Writer,
    (what, timeout): (&str, Option<Duration>),
    progress: &Bound<'_, PyAny>,
) -> PyResult<usize> {
    let mut total = 0;
    while let Some(rows) = py.detach(|| reader.next()) {
        let rows = rows.map_err(arrow_error)?;
        runtime::wait(py, what, timeout, writer.rows(&rows, now()))?;
        total += rows.num_rows();
        progress.call1((rows.num_rows(),))?;
    }
    Ok(total)
}

/// The topic, and the size of a batch that it takes.
async fn target(
    engine: &Engine,
    topic: &str,
    config: &ProducerConfig,
) -> Result<(std::sync::Arc<TopicInfo>, usize)> {
    let info = engine.topic(topic).await?;
    let resource = [Resource::topic(topic)];
    // Not every cluster lets everybody read the settings; then the broker has the last word.
    let known = engine.admin().describe_configs(&resource, false).await;
    let entries = known.ok().and_then(|mut results| results.pop()?.ok()).unwrap_or_default();
    let most = entries
        .iter()
        .find(|entry| entry.name == "max.message.bytes")
        .and_then(|entry| entry.value.as_ref()?.parse::<usize>().ok())
        .unwrap_or(BATCH_BYTES);
    let wanted = BATCH_BYTES.max(config.batch_bytes);
    Ok((info, wanted.min(most).min(config.request_bytes_max)))
}

fn producer_config(engine: &Engine, arguments: &Arguments<'_>) -> Result<ProducerConfig> {
    let mut config = engine.config().producer.clone();
    if let Some(acks) = &arguments.acks {
        config.acks = match acks.as_str() {
            "all" | "-1" => Acks::All,
            "1" => Acks::Leader,
            "0" => Acks::None,
            other => return Err(Error::invalid(format!("acks={other}: use \"all\", 1 or 0"))),
        };
    }
    if let Some(name) = &arguments.compression_type {
        config.compression = Compression::from_name(name).ok_or_else(|| {
            Error::invalid(format!(
                "compression_type={name:?}: use none, gzip, snappy, lz4 or zstd"
            ))
        })?;
    }
    Ok(config)
}

fn options(
    arguments: &Arguments<'_>,
    schema: &SchemaRef,
    topic: &TopicInfo,
    config: &ProducerConfig,
    batch_size: usize,
) -> Result<WriteOptions> {
    let has = |name: &str| schema.column_with_name(name).is_some();
    let named = |name: &String| {
        if has(name) {
            return Ok(());
        }
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Err(Error::invalid(format!(
            "the table has no column {name:?}; there are {}",
            names.join(", ")
        )))
    };
    let value = match &arguments.value {
        Some(format) => format.writing()?,
        None if has("value") => ValueSource::Column("value".to_owned()),
        None => ValueSource::Json { exclude: arguments.headers.iter().cloned().collect() },
    };
    match &value {
        ValueSource::Json { exclude } => exclude.iter().try_for_each(named)?,
        ValueSource::Column(name) => named(name)?,
        ValueSource::Null => {}
    }
    arguments.key.iter().chain(&arguments.headers).try_for_each(named)?;
    let partition = match &arguments.partition {
        None => PartitionSource::Partitioner,
        Some(Partition::Fixed(partition)) => PartitionSource::Fixed(*partition),
        Some(Partition::Column(name)) => {
            named(name)?;
            PartitionSource::Column(name.clone())
        }
    };
    let timestamp = match &arguments.timestamp {
        Some(Timestamp::Column(name)) => {
            named(name)?;
            Some(name.clone())
        }
        _ => None,
    };
    Ok(WriteOptions {
        key: arguments.key.clone(),
        value,
        partition,
        timestamp,
        headers: arguments.headers.clone(),
        partition_count: topic.partition_count(),
        batch_size,
        compression: config.compression,
        compression_level: config.compression_level,
    })
}
