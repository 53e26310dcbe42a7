//! Writes tables to topics: from an Arrow stream of any library to acknowledged record batches.
//!
//! The engine's [`TableWriter`] encodes and sends; this module reads the stream, without the GIL,
//! and converts the arguments of `client.write` to its options.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchReader};
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::admin::named;
use super::batch::RecordBatch as Batch;
use super::client::Client;
use super::convert::{self, Format};
use super::interop::{self, arrow_error};
use super::runtime::{self, Limited};
use super::scan::{Reading, Scan};
use super::whole::Whole;
use crate::client::{
    Acks, Client as Engine, Expired, Producer, ProducerConfig, TableWriter, WriteReport,
};
use crate::columnar::{
    HeaderSource, KAFKA_STRUCT, PartitionSource, TOMBSTONE_COLUMN, Tombstones, VALUE_RAW_COLUMN,
    ValueSource, WriteOptions,
};
use crate::error::{Error, Result};
use crate::record::Compression;
use crate::types::PartitionIndex;

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
    Fixed(Whole<i32>),
    Column(String),
}

/// Writes all rows of `data`; returns their number, and a warning about their times.
pub(super) fn write(
    client: &Bound<'_, Client>,
    topic: &str,
    data: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyDict>,
) -> PyResult<(u64, Option<String>)> {
    let engine = client.get().engine()?;
    write_with(&engine, topic, data, arguments, |config| client.get().producer_with(config))
}

/// As [`write`], with the producer that `choose` gives for the settings in the arguments.
pub(super) fn write_with(
    engine: &Engine,
    topic: &str,
    data: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyDict>,
    choose: impl FnOnce(ProducerConfig) -> Result<Arc<Producer>>,
) -> PyResult<(u64, Option<String>)> {
    let py = data.py();
    let arguments: Arguments<'_> = convert::arguments(arguments)?;
    let timeout = runtime::timeout(arguments.timeout)?;
    let mut source = Source::of(data)?;
    let config = producer_config(engine, &arguments)?;
    let options = options(&arguments, &source, &config)?;
    let producer = choose(config)?;
    let what = format!("the acknowledgement of a table written to {topic}");
    let starting = TableWriter::start(producer, topic, options);
    let limit = Limited::new(engine, &what, timeout);
    let mut writer = limit.wait(py, async { named(engine, topic, starting.await).await })?;
    let pumped = pump(&mut source, &mut writer, &limit, &arguments.progress);
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
    for (&partition, range) in &report.offsets {
        offsets.set_item(partition, (range.start.0, range.end.0))?;
    }
    let errors = py.import(intern!(py, "ottla.errors"))?;
    errors.call_method1("say_written", (error.value(py), report.rows, offsets))?;
    Ok(error)
}

/// The rows to be written.
struct Source {
    schema: SchemaRef,
    rows: Rows,
    /// Whether nulls in rows of a topic may stand for what did not decode.
    hides_errors: bool,
}

enum Rows {
    /// A table of any library.
    Table(Box<dyn RecordBatchReader + Send>),
    /// A batch that was read from a topic, until it is written.
    Batch(Option<(RecordBatch, Tombstones)>),
    /// What is read from a topic meanwhile.
    Scan(Box<Reading>),
}

impl Source {
    fn of(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(batch) = data.cast::<Batch>() {
            let Batch { rows, tombstones, hides_errors, .. } = batch.get();
            let (schema, hides_errors) = (rows.schema(), *hides_errors);
            let rows = Rows::Batch(Some((rows.clone(), tombstones.clone())));
            return Ok(Self { schema, rows, hides_errors });
        }
        // What an `ottla.Scan` wraps.
        let native = data.getattr_opt(intern!(data.py(), "_native"))?;
        if let Some(scan) = native.as_ref().and_then(|native| native.cast::<Scan>().ok()) {
            let (reading, schema) = scan.get().read(data.py())?;
            let hides_errors = scan.get().hides_errors();
            return Ok(Self { schema, rows: Rows::Scan(Box::new(reading)), hides_errors });
        }
        let reader = interop::import_reader(data)?;
        Ok(Self { schema: reader.schema(), rows: Rows::Table(reader), hides_errors: false })
    }

    /// Whether the rows are records of a topic.
    const fn are_records(&self) -> bool {
        !matches!(self.rows, Rows::Table(_))
    }

    /// The next rows.
    fn next(
        &mut self,
        py: Python<'_>,
        limit: &Limited<'_>,
    ) -> PyResult<Option<(RecordBatch, Tombstones)>> {
        match &mut self.rows {
            Rows::Table(reader) => {
                let rows = py.detach(|| reader.next()).transpose().map_err(arrow_error)?;
                Ok(rows.map(|rows| (rows, Tombstones::NONE)))
            }
            Rows::Batch(batch) => Ok(batch.take()),
            Rows::Scan(reading) => {
                let decoded = limit.wait(py, reading.next())?;
                Ok(decoded.map(|decoded| (decoded.rows, decoded.tombstones)))
            }
        }
    }
}

/// Reads all rows and passes them on.
fn pump(
    source: &mut Source,
    writer: &mut TableWriter,
    limit: &Limited<'_>,
    progress: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = progress.py();
    while let Some((rows, tombstones)) = source.next(py, limit)? {
        limit.wait(py, writer.write_records(&rows, &tombstones))?;
        progress.call1((rows.num_rows(),))?;
    }
    Ok(())
}

/// The codec of `compression_type=`.
pub(super) fn compression(name: &str) -> Result<Compression> {
    Compression::from_name(name).ok_or_else(|| {
        Error::invalid(format!("compression_type={name:?}: use none, gzip, snappy, lz4 or zstd"))
    })
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
        config.compression = compression(name)?;
    }
    Ok(config)
}

fn options(
    arguments: &Arguments<'_>,
    source: &Source,
    config: &ProducerConfig,
) -> Result<WriteOptions> {
    let schema = &source.schema;
    let mut options = WriteOptions {
        key: arguments.key.clone(),
        value: ValueSource::Null,
        partition: match &arguments.partition {
            None => PartitionSource::Partitioner,
            Some(Partition::Fixed(partition)) => {
                PartitionSource::Fixed(PartitionIndex(partition.0))
            }
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
        None if source.hides_errors => return Err(hidden_errors()),
        None if source.are_records() => value_of_records(schema, &mut options)?,
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
            || (name == TOMBSTONE_COLUMN && is_mark(schema))
    };
    let (exclude, rest): (Vec<String>, Vec<String>) =
        schema.fields().iter().map(|field| field.name().clone()).partition(is_part);
    let value = schema.column_with_name("value").map(|(_, field)| field.data_type());
    match (value, rest.as_slice()) {
        (_, []) => Err(Error::invalid("no column is left for the values: pass value=")),
        (_, [raw]) if raw == VALUE_RAW_COLUMN => Ok(ValueSource::Column(raw.clone())),
        (_, rest) if rest.iter().any(|name| name == VALUE_RAW_COLUMN) => Err(twice()),
        (Some(value), [_]) if is_bytes(value) => Ok(ValueSource::Column("value".to_owned())),
        (Some(DataType::Binary | DataType::BinaryView), _) => {
            let lost = rest.iter().map(String::as_str).filter(|name| *name != "value");
            Err(ambiguous(&lost.collect::<Vec<_>>()))
        }
        _ => Ok(ValueSource::json(exclude)),
    }
}

/// Whether the column [`TOMBSTONE_COLUMN`] says what a record is; a field of that name may be null.
fn is_mark(schema: &Schema) -> bool {
    schema.field_with_name(TOMBSTONE_COLUMN).is_ok_and(|field| !field.is_nullable())
}

#[cold]
fn hidden_errors() -> Error {
    Error::invalid(
        "these rows were read with on_error=\"null\" or \"column\", so a value that did not decode \
         would be written as nulls, or as null: to copy the records, read them with \
         value=ottla.raw(), which decodes nothing, or with on_error=\"raise\"; to write the rows as a \
         table, pass value= and the columns of key and timestamp",
    )
}

#[cold]
fn twice() -> Error {
    Error::invalid(
        "the column value_raw has the values that the other columns have decoded, and would become a \
         part of them: leave it out of columns=, or pass value=ottla.raw(\"value_raw\") and the columns \
         of key and timestamp",
    )
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
