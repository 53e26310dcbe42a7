//! Tables to topics: from an Arrow stream of any library to acknowledged record batches.
//!
//! The engine's [`TableWriter`] encodes and sends; here the stream is read, without the GIL, and
//! the words of `client.write` become its options.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatchReader;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::client::Client;
use super::convert::Format;
use super::interop::{self, arrow_error};
use super::runtime;
use crate::client::{Acks, Client as Engine, ProducerConfig, TableWriter};
use crate::columnar::{HeaderSource, PartitionSource, ValueSource, WriteOptions};
use crate::error::{Error, Result};
use crate::record::Compression;

/// The size of a record batch when neither the topic nor the client wants a smaller one.
const BATCH_BYTES: usize = 1_000_000;

/// The keyword arguments of `client.write`, as `_writing.py` passes them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Arguments<'py> {
    key: Option<String>,
    partition: Option<Partition>,
    timestamp: Option<String>,
    headers: Option<Headers>,
    value: Option<Format>,
    acks: Option<String>,
    compression_type: Option<String>,
    progress: Bound<'py, PyAny>,
    timeout: Option<f64>,
}

#[derive(FromPyObject)]
enum Headers {
    Column(String),
    Single(Vec<(String, String)>),
}

#[derive(FromPyObject)]
enum Partition {
    Fixed(i32),
    Column(String),
}

/// Writes all rows of `data`; returns their number.
pub(super) fn write(
    client: &Bound<'_, Client>,
    topic: &str,
    data: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyDict>,
) -> PyResult<u64> {
    let py = client.py();
    let arguments: Arguments<'_> = arguments.extract()?;
    let timeout = runtime::timeout(arguments.timeout)?;
    let mut reader = interop::import_reader(data)?;
    let engine = client.get().engine()?;
    let config = producer_config(&engine, &arguments)?;
    let options = options(&arguments, &reader.schema(), &config)?;
    let producer = client.get().producer_with(config)?;
    let what = format!("the acknowledgement of a table written to {topic}");
    let starting = TableWriter::start(producer, topic, options);
    let mut writer = runtime::wait(py, &format!("topic {topic}"), timeout, starting)?;
    let pumped = pump(py, reader.as_mut(), &mut writer, (&what, timeout), &arguments.progress);
    // Also after a failure: what was accepted is waited for before anybody is told.
    let finished = runtime::wait(py, &what, timeout, writer.finish());
    pumped?;
    Ok(finished?.rows)
}

/// Reads and hands over all rows.
fn pump(
    py: Python<'_>,
    reader: &mut (dyn RecordBatchReader + Send),
    writer: &mut TableWriter,
    (what, timeout): (&str, Option<Duration>),
    progress: &Bound<'_, PyAny>,
) -> PyResult<()> {
    while let Some(rows) = py.detach(|| reader.next()) {
        let rows = rows.map_err(arrow_error)?;
        runtime::wait(py, what, timeout, writer.write(&rows))?;
        progress.call1((rows.num_rows(),))?;
    }
    Ok(())
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
    config: &ProducerConfig,
) -> Result<WriteOptions> {
    let headers = match &arguments.headers {
        None => HeaderSource::None,
        Some(Headers::Column(name)) => HeaderSource::Column(name.clone()),
        Some(Headers::Single(headers)) => HeaderSource::Single(headers.clone()),
    };
    let value = match &arguments.value {
        Some(format) => format.writing()?,
        None if schema.column_with_name("value").is_some() => {
            ValueSource::Column("value".to_owned())
        }
        None => ValueSource::Json { exclude: headers.columns().cloned().collect() },
    };
    let partition = match &arguments.partition {
        None => PartitionSource::Partitioner,
        Some(Partition::Fixed(partition)) => PartitionSource::Fixed(*partition),
        Some(Partition::Column(name)) => PartitionSource::Column(name.clone()),
    };
    let mut columns = value.named_columns();
    if let PartitionSource::Column(name) = &partition {
        columns.push(name);
    }
    columns.extend(headers.columns());
    let asked = [&arguments.key, &arguments.timestamp];
    for name in asked.into_iter().flatten().chain(columns) {
        check_column(schema, name)?;
    }
    Ok(WriteOptions {
        key: arguments.key.clone(),
        value,
        partition,
        timestamp: arguments.timestamp.clone(),
        headers: headers.clone(),
        batch_size: BATCH_BYTES.max(config.batch_bytes).min(config.request_bytes_max),
        ..WriteOptions::default()
    })
}

fn check_column(schema: &SchemaRef, name: &str) -> Result<()> {
    if schema.column_with_name(name).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Err(Error::invalid(format!("the table has no column {name:?}; there are {}", names.join(", "))))
}
