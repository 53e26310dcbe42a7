//! Writes tables to topics: from an Arrow stream of any library to acknowledged record batches.
//!
//! The engine's [`TableWriter`] encodes and sends; this module reads the stream, without the GIL,
//! and converts the arguments of `client.write` to its options.

use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatchReader;
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::admin::named;
use super::client::Client;
use super::convert::{self, Format};
use super::interop::{self, arrow_error};
use super::runtime::{self, Limited};
use crate::client::{Acks, Client as Engine, Expired, ProducerConfig, TableWriter, WriteReport};
use crate::columnar::{HeaderSource, KAFKA_STRUCT, PartitionSource, ValueSource, WriteOptions};
use crate::error::{Error, Result};
use crate::record::Compression;

/// The size of a record batch when neither the topic nor the client requires a smaller one.
const BATCH_BYTES: usize = 1_000_000;

/// The columns of a scan that say where a record was stored.
const PLACES: [&str; 4] = ["topic", "partition", "offset", "timestamp_type"];

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
    /// Whether the rows are those of a scan or a batch of it.
    are_records: bool,
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

/// Writes all rows of `data`; returns their number, and a warning about their times.
pub(super) fn write(
    client: &Bound<'_, Client>,
    topic: &str,
    data: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyDict>,
) -> PyResult<(u64, Option<String>)> {
    let py = client.py();
    let arguments: Arguments<'_> = convert::arguments(arguments)?;
    let timeout = runtime::timeout(arguments.timeout)?;
    let mut reader = interop::import_reader(data)?;
    let engine = client.get().engine()?;
    let config = producer_config(&engine, &arguments)?;
    let options = options(&arguments, &reader.schema(), &config)?;
    let producer = client.get().producer_with(config)?;
    let what = format!("the acknowledgement of a table written to {topic}");
    let starting = TableWriter::start(producer, topic, options);
    let limit = Limited::new(&engine, &what, timeout);
    let mut writer = limit.wait(py, async { named(&engine, topic, starting.await).await })?;
    let pumped = pump(py, reader.as_mut(), &mut writer, &limit, &arguments.progress);
    let finished = pumped.and_then(|()| limit.wait(py, writer.finish()));
    match finished {
        Ok(report) => Ok((report.rows, report.expired.map(|expired| warning(&expired, topic)))),
        Err(error) => {
            // Accepted rows are waited for before the error is raised, unless it is Ctrl-C or the
            // time is over.
            let is_patient = error.is_instance_of::<PyException>(py) && !limit.is_over();
            let abandoning = async { Ok(writer.abandon(is_patient).await) };
            let waited = if is_patient {
                limit.wait(py, abandoning)
            } else {
                runtime::wait(py, &what, None, abandoning)
            };
            let report = waited.unwrap_or_else(|_| writer.report().clone());
            Err(say_written(py, error, &report)?)
        }
    }
}

fn warning(expired: &Expired, topic: &str) -> String {
    expired.text(
        topic,
        "expect it to be deleted. To keep old records, pass config={\"retention.ms\": -1} to \
         create_topic, or change it with alter_configs",
    )
}

/// Adds to an exception what was acknowledged before it.
fn say_written(py: Python<'_>, error: PyErr, report: &WriteReport) -> PyResult<PyErr> {
    let offsets = PyDict::new(py);
    for (partition, range) in &report.offsets {
        offsets.set_item(partition, (range.start.0, range.end.0))?;
    }
    let errors = py.import(intern!(py, "ottla.errors"))?;
    errors.call_method1("say_written", (error.value(py), report.rows, offsets))?;
    Ok(error)
}

/// Reads all rows and passes them on.
fn pump(
    py: Python<'_>,
    reader: &mut (dyn RecordBatchReader + Send),
    writer: &mut TableWriter,
    limit: &Limited<'_>,
    progress: &Bound<'_, PyAny>,
) -> PyResult<()> {
    while let Some(rows) = py.detach(|| reader.next()) {
        let rows = rows.map_err(arrow_error)?;
        limit.wait(py, writer.write(&rows))?;
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
    schema: &Schema,
    config: &ProducerConfig,
) -> Result<WriteOptions> {
    let mut options = WriteOptions {
        key: arguments.key.clone(),
        value: ValueSource::Null,
        partition: match &arguments.partition {
            None => PartitionSource::Partitioner,
            Some(Partition::Fixed(partition)) => PartitionSource::Fixed(*partition),
            Some(Partition::Column(name)) => PartitionSource::Column(name.clone()),
        },
        timestamp: arguments.timestamp.clone(),
        headers: match &arguments.headers {
            None => HeaderSource::None,
            Some(Headers::Column(name)) => HeaderSource::Column(name.clone()),
            Some(Headers::Single(headers)) => HeaderSource::Single(headers.clone()),
        },
        batch_size: BATCH_BYTES.max(config.batch_bytes).min(config.request_bytes_max),
        ..WriteOptions::default()
    };
    options.value = match &arguments.value {
        Some(format) => format.writing()?,
        None if arguments.are_records => value_of_records(schema, &mut options)?,
        None => value_of_table(schema, &options)?,
    };
    for name in options.other_columns().chain(options.value.named_columns()) {
        check_column(schema, name)?;
    }
    Ok(options)
}

/// The value of rows when none is given: JSON, or the column `value` unchanged if nothing else
/// would be lost.
fn value_of_table(schema: &Schema, options: &WriteOptions) -> Result<ValueSource> {
    let used: Vec<&String> = options.other_columns().collect();
    let names = || schema.fields().iter().map(|field| field.name());
    let is_plain = |field: &Field| field.name() == "value" && is_bytes(field.data_type());
    let is_whole = schema.fields().iter().any(|field| is_plain(field))
        && !used.iter().any(|name| *name == "value");
    if !is_whole {
        return Ok(ValueSource::json(options.headers.columns().cloned().collect()));
    }
    let lost: Vec<&str> = names()
        .filter(|name| *name != "value" && !used.contains(name))
        .map(String::as_str)
        .collect();
    if lost.is_empty() {
        return Ok(ValueSource::Column("value".to_owned()));
    }
    Err(ambiguous(&lost))
}

#[cold]
fn ambiguous(lost: &[&str]) -> Error {
    let parts = ["key", "timestamp", "headers", "partition"];
    let named = parts.iter().find(|name| lost.contains(name));
    let named = named.map_or_else(String::new, |name| format!(", {name}={name:?} for the {name}"));
    Error::invalid(format!(
        "the table has a column \"value\" of text or bytes, which alone would become the value, so \
         that {} would be lost: pass value=ottla.json() to write all columns as JSON, or \
         value=ottla.raw(\"value\") to write that column alone{named}",
        lost.join(", ")
    ))
}

/// The value of rows that were read from a topic: the remaining columns. The columns of the record
/// become key, timestamp and headers again unless others are named for them.
fn value_of_records(schema: &Schema, options: &mut WriteOptions) -> Result<ValueSource> {
    let has = |name: &str| schema.column_with_name(name).is_some();
    if has(KAFKA_STRUCT) {
        return Err(Error::invalid(
            "the values have fields with the names of columns of the record, so it is not clear \
             which is which: pass value=, for example value=ottla.json(exclude=[\"_kafka\"])",
        ));
    }
    if has("key") && options.key.is_none() {
        options.key = Some("key".to_owned());
    }
    if has("timestamp") && options.timestamp.is_none() {
        options.timestamp = Some("timestamp".to_owned());
    }
    if has("headers") && options.headers == HeaderSource::None {
        options.headers = HeaderSource::Column("headers".to_owned());
    }
    let parts: Vec<String> = options.other_columns().cloned().collect();
    let is_part = |name: &String| {
        parts.contains(name)
            || PLACES.contains(&name.as_str())
            || ["key", "timestamp", "headers"].contains(&name.as_str())
    };
    let (exclude, rest): (Vec<String>, Vec<String>) =
        schema.fields().iter().map(|field| field.name().clone()).partition(is_part);
    let value = schema.column_with_name("value").map(|(_, field)| field.data_type());
    match (value, rest.as_slice()) {
        (_, []) => Err(Error::invalid("no column is left for the values: pass value=")),
        (Some(value), [_]) if is_bytes(value) => Ok(ValueSource::Column("value".to_owned())),
        (Some(DataType::Binary | DataType::BinaryView), _) => {
            let lost = rest.iter().map(String::as_str).filter(|name| *name != "value");
            Err(ambiguous(&lost.collect::<Vec<_>>()))
        }
        _ => Ok(ValueSource::json(exclude)),
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_bytes(values),
        // A column of nulls alone has no type of its own in some libraries.
        DataType::Null
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => true,
        _ => false,
    }
}

fn check_column(schema: &Schema, name: &str) -> Result<()> {
    if schema.column_with_name(name).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Err(Error::invalid(format!("the table has no column {name:?}; there are {}", names.join(", "))))
}
