//! `ottla produce`.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;

use super::csv::{CsvTypes, RowLines};
use super::input::{self, InputFormat, Rows};
use super::options::{Connection, TopicName, key_value};
use super::output::{note, progress_bar, thousands};
use super::values::{WriteAs, WritingArguments, json_rows_for};
use super::{CommandResult, Failure};
use crate::client::producer::{Delivery, Producer};
use crate::client::{ProducerRecord, TableWriter, WriteReport};
use crate::columnar::{PartitionSource, ValueSource, WriteOptions, excerpt, not_json};
use crate::error::Error;
use crate::types::PartitionIndex;

#[derive(Debug, Args)]
pub(super) struct ProduceArguments {
    #[command(flatten)]
    topic: TopicName,
    /// The file to read, which may be compressed with gzip or zstd. Default, and for `-`: standard
    /// input.
    #[arg(long, short = 'f', value_name = "FILE")]
    file: Option<PathBuf>,
    /// What the file contains. Default: as its name suggests, or lines.
    #[arg(long, value_enum)]
    format: Option<InputFormat>,
    /// The column, or the member of the JSON object, that is the key.
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// With lines: the text between the key and the value.
    #[arg(long, value_name = "TEXT", conflicts_with = "key")]
    key_separator: Option<String>,
    /// With CSV and Parquet: the column that is the value, instead of something made of all columns.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["value_format", "exclude", "value_schema", "message", "schema_registry", "subject", "no_auto_register"])]
    value: Option<String>,
    #[command(flatten)]
    values: WritingArguments,
    /// With CSV and Parquet: the columns that are not part of the value, separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    exclude: Vec<String>,
    /// With CSV and Parquet: the column that is the timestamp.
    #[arg(long, value_name = "NAME")]
    timestamp: Option<String>,
    /// With CSV: infer from the first rows which columns are numbers, booleans or times; a number
    /// loses what is not part of it, such as leading zeros. A column with whole numbers that a
    /// float64 would round is text. Without it, all columns are text.
    #[arg(long, overrides_with = "no_infer")]
    infer: bool,
    /// With CSV: leave columns as text that --schema does not name, which is the default.
    #[arg(long, overrides_with = "infer")]
    no_infer: bool,
    /// With CSV: the types of columns, for example id=int64,amount=float64 (text, int64, uint64,
    /// float64, bool, date, timestamp).
    #[arg(long, value_name = "NAME=TYPE,…", value_delimiter = ',', value_parser = key_value)]
    schema: Vec<(String, String)>,
    /// Write everything to this partition.
    #[arg(long)]
    partition: Option<PartitionIndex>,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, value_name = "CODEC")]
    compression_type: Option<String>,
    /// 0, 1 or all.
    #[arg(long)]
    acks: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(arguments: ProduceArguments) -> CommandResult {
    let topic = arguments.topic.get()?;
    let file = arguments.file.as_deref().filter(|file| *file != Path::new("-"));
    let format = arguments.format.unwrap_or_else(|| InputFormat::of(file));
    check(&arguments, format)?;
    let source = match &arguments.value {
        Some(column) => ValueSource::Column(column.clone()),
        None => arguments.values.source(arguments.exclude.clone())?,
    };
    let mut config = arguments.connection.config()?;
    if let Some(codec) = &arguments.compression_type {
        config.set("compression.type", codec)?;
    }
    if let Some(acks) = &arguments.acks {
        config.set("acks", acks)?;
    }
    let client = crate::client::Client::connect(config)?;
    let producer = Arc::new(client.producer()?);
    let bar = if file.is_some() { progress_bar(0, "records") } else { ProgressBar::hidden() };
    let input = Input { file, format };
    let written = if arguments.makes_values(format) {
        write_table(&arguments, &producer, topic, input, source, &bar).await
    } else {
        write_lines(&arguments, &producer, topic, input, &bar).await
    };
    bar.finish_and_clear();
    let written = match written {
        Err(Failure::Error(error)) => {
            return Err(client.admin().with_nearest(topic, error).await.into());
        }
        written => written?,
    };
    if std::io::stderr().is_terminal() {
        #[expect(clippy::cast_precision_loss, reason = "a number for people")]
        note(&format!("wrote {} records to {topic}", thousands(written as f64)));
    }
    Ok(())
}

/// What is read.
#[derive(Clone, Copy)]
struct Input<'a> {
    file: Option<&'a Path>,
    format: InputFormat,
}

impl ProduceArguments {
    /// Whether values are made of columns; otherwise each line is a value.
    fn makes_values(&self, format: InputFormat) -> bool {
        match format {
            InputFormat::Lines => false,
            // Objects are JSON already.
            InputFormat::Json => self.values.kind().is_some_and(|kind| kind != WriteAs::Json),
            InputFormat::Csv | InputFormat::Parquet => true,
        }
    }
}

fn check(arguments: &ProduceArguments, format: InputFormat) -> CommandResult {
    let is_table = matches!(format, InputFormat::Csv | InputFormat::Parquet);
    let typed = arguments.infer || arguments.no_infer || !arguments.schema.is_empty();
    let misplaced = if format != InputFormat::Lines && arguments.key_separator.is_some() {
        Some("--key-separator applies to lines only; use --key COLUMN")
    } else if !is_table && arguments.value.is_some() {
        Some("--value applies to CSV and Parquet only")
    } else if !is_table && arguments.timestamp.is_some() {
        Some("--timestamp applies to CSV and Parquet only")
    } else if !is_table && !arguments.exclude.is_empty() {
        Some("--exclude applies to CSV and Parquet only")
    } else if format != InputFormat::Csv && typed {
        Some("--infer, --no-infer and --schema apply to CSV only")
    } else if format == InputFormat::Lines && arguments.key.is_some() {
        Some("--key names a column; lines have none: use --key-separator TEXT")
    } else if format == InputFormat::Lines && arguments.values.kind().is_some() {
        Some("lines are values as they are; --value-format applies to JSON, CSV and Parquet")
    } else if format == InputFormat::Json && arguments.values.kind() == Some(WriteAs::ArrowIpc) {
        Some("JSON has no types for --value-format arrow-ipc; use CSV with --schema, or Parquet")
    } else {
        None
    };
    misplaced.map_or(Ok(()), |detail| Err(Failure::Usage(detail.to_owned())))
}

/// Rows of a file, and what they become.
async fn rows(
    arguments: &ProduceArguments,
    topic: &str,
    Input { file, format }: Input<'_>,
    source: ValueSource,
    lines: &RowLines,
) -> Result<(Rows, ValueSource), Failure> {
    if format != InputFormat::Json {
        let types = CsvTypes {
            is_inferred: arguments.infer,
            named: arguments.schema.clone(),
            timestamp: arguments.timestamp.clone(),
        };
        return Ok((input::tables(file, format, types, lines)?, source));
    }
    // The schema says what the members are.
    let topic = topic.to_owned();
    let settled = tokio::task::spawn_blocking(move || {
        let alone = source.without_table()?;
        if alone.is_settled() { Ok(alone) } else { alone.settle(&topic, &Schema::empty(), &[]) }
    });
    let source = settled.await.map_err(std::io::Error::other)??;
    let Some(objects) = json_rows_for(&source)? else {
        let detail = "JSON needs a schema for this --value-format: add --value-schema FILE, or \
                      register one";
        return Err(Failure::Usage(detail.to_owned()));
    };
    Ok((input::objects(file, objects)?, source))
}

async fn write_table(
    arguments: &ProduceArguments,
    producer: &Arc<Producer>,
    topic: &str,
    input: Input<'_>,
    source: ValueSource,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let lines = RowLines::default();
    let file = input.file;
    let (mut tables, source) = rows(arguments, topic, input, source, &lines).await?;
    let options = WriteOptions {
        key: arguments.key.clone(),
        timestamp: arguments.timestamp.clone(),
        partition: arguments.partition.map_or(PartitionSource::Partitioner, PartitionSource::Fixed),
        value: source,
        ..WriteOptions::default()
    };
    let mut writer = TableWriter::start(Arc::clone(producer), topic, options).await?;
    let written = async {
        while let Some(rows) = tables.recv().await {
            let rows = rows.map_err(Failure::data)?;
            writer.write(&rows).await?;
            bar.inc(rows.num_rows() as u64);
        }
        Ok::<_, Failure>(writer.finish().await?)
    };
    let report = match written.await {
        Ok(report) => report,
        Err(failure) => {
            bar.finish_and_clear();
            tell_acknowledged(&writer.abandon(true).await);
            return Err(in_file(failure, input::name(file), &lines));
        }
    };
    if let Some(expired) = &report.expired {
        bar.finish_and_clear();
        let remedy = "expect it to be deleted. To keep old records, set --config retention.ms=-1 \
                      with ottla topics create or alter";
        note(&format!("ottla: warning: {}", expired.text(topic, remedy)));
    }
    Ok(report.rows)
}

/// A failure that names the line of a row, as those do that are found while the file is read.
fn in_file(failure: Failure, file: &Path, lines: &RowLines) -> Failure {
    match failure {
        Failure::Error(Error::Row { row, detail }) => Failure::Data(match lines.line_of(row) {
            Some(line) => Error::invalid(format!("{}, line {line}: {detail}", file.display())),
            None => Error::Row { row, detail },
        }),
        other => other,
    }
}

/// Reports which part of a file is in the topic after an error.
fn tell_acknowledged(report: &WriteReport) {
    let spans: Vec<String> = report
        .offsets
        .iter()
        .map(|(partition, range)| {
            format!("partition {partition}: [{}, {})", range.start, range.end)
        })
        .collect();
    let offsets = if spans.is_empty() { String::new() } else { format!(" ({})", spans.join(", ")) };
    note(&format!("{} records were acknowledged before the error{offsets}", report.rows));
}

async fn write_lines(
    arguments: &ProduceArguments,
    producer: &Producer,
    topic: &str,
    Input { file, format }: Input<'_>,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let mut lines = input::lines(file)?;
    let topic: Arc<str> = Arc::from(topic);
    let mut pending: VecDeque<Delivery> = VecDeque::new();
    let (mut number, mut acknowledged) = (0, 0);
    let sent = async {
        while let Some(some) = lines.recv().await {
            for line in some.map_err(Failure::data)? {
                number += 1;
                let (key, value) = split(arguments, format, line, number)?;
                let record = ProducerRecord {
                    topic: Arc::clone(&topic),
                    partition: arguments.partition,
                    key,
                    value: Some(value),
                    ..ProducerRecord::default()
                };
                pending.push_back(producer.send(record).await?);
                bar.inc(1);
            }
            while pending.front().is_some_and(Delivery::is_done) {
                if let Some(delivery) = pending.pop_front() {
                    delivery.wait().await?;
                    acknowledged += 1;
                }
            }
        }
        Ok(())
    };
    let mut failure: Option<Failure> = sent.await.err();
    // Wait for what was accepted, so that it can be counted.
    tokio::time::timeout(Duration::from_secs(120), producer.flush()).await.ok();
    for delivery in pending {
        match delivery.wait().await {
            Ok(_) => acknowledged += 1,
            Err(error) => drop(failure.get_or_insert(error.into())),
        }
    }
    match failure {
        None => Ok(acknowledged),
        Some(failure) => {
            bar.finish_and_clear();
            note(&format!("{acknowledged} records were acknowledged"));
            Err(failure)
        }
    }
}

/// Why a line is refused.
pub(super) fn not_json_object(line: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(line) {
        Ok(_) => format!("it is JSON, but not an object: {}", excerpt(line, 0)),
        Err(_) if line.trim_ascii().is_empty() => "it is empty, and not a JSON object".to_owned(),
        Err(_) => not_json(line),
    }
}

/// What is wrong with a line.
const fn data(detail: String) -> Failure {
    Failure::Data(Error::InvalidArgument(detail))
}

/// The key and the value of a line.
fn split(
    arguments: &ProduceArguments,
    format: InputFormat,
    line: Vec<u8>,
    number: u64,
) -> Result<(Option<Bytes>, Bytes), Failure> {
    if format == InputFormat::Json {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&line)
            .map_err(|_internals| data(format!("line {number}: {}", not_json_object(&line))))?;
        let key = match &arguments.key {
            None => None,
            Some(name) => match object.get(name) {
                None => {
                    let detail = format!("line {number} has no member {name:?} for the key");
                    return Err(data(detail));
                }
                Some(serde_json::Value::Null) => None,
                Some(serde_json::Value::String(text)) => Some(Bytes::from(text.clone())),
                Some(serde_json::Value::Bool(value)) => Some(Bytes::from(value.to_string())),
                Some(serde_json::Value::Number(value)) if !value.is_f64() => {
                    Some(Bytes::from(value.to_string()))
                }
                Some(other) => {
                    let detail = format!(
                        "line {number}: the key {other} is not a string, 64-bit integer, boolean or \
                         null, so it cannot be written in the same way in every line"
                    );
                    return Err(data(detail));
                }
            },
        };
        return Ok((key, Bytes::from(line)));
    }
    let Some(separator) = arguments.key_separator.as_deref().filter(|text| !text.is_empty()) else {
        return Ok((None, Bytes::from(line)));
    };
    let line = Bytes::from(line);
    let place = line.windows(separator.len()).position(|window| window == separator.as_bytes());
    match place {
        Some(place) => Ok((Some(line.slice(..place)), line.slice(place + separator.len()..))),
        None => {
            let detail = format!("line {number} has no {separator:?} between key and value");
            Err(data(detail))
        }
    }
}
