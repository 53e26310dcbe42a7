//! `ottla scan` and `ottla consume`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use clap::{Args, ValueEnum};
use tokio::time::Instant;

use super::options::{Connection, TopicName};
use super::output::{RecordFormat, RecordWriter, note, progress_bar};
use super::signals::Signals;
use super::{CommandResult, Failure};
use crate::client::{
    AutoOffsetReset, Bound, Client, GroupConsumer, GroupOptions, GroupProtocol, OffsetAndMetadata,
    OnDataLoss, PollOptions, Polled, Scan, ScanOptions, StartAt, Subscription,
};
use crate::columnar::{DecodeOptions, Decoded, KeyFormat, OnError, ValueFormat};
use crate::types::{Offset, PartitionIndex, TopicPartition};

const TOPIC: &str = "topic";
const PARTITION: &str = "partition";
const OFFSET: &str = "offset";

/// How values are decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Values {
    /// Bytes; written as text where they are UTF-8, otherwise as hexadecimal digits.
    #[default]
    Raw,
    /// Text; bytes that are not UTF-8 are errors.
    Text,
    /// JSON objects, one column per member.
    Json,
}

/// What to do with a value that cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Errors {
    /// End the command with an error.
    #[default]
    Raise,
    /// Write nulls.
    Null,
    /// Write nulls, with the reason and the bytes in the columns error and value_raw.
    Column,
}

#[derive(Debug, Args)]
struct ReadArguments {
    #[command(flatten)]
    topic: TopicName,
    /// A partition. May be given several times. Default: all.
    #[arg(long = "partition", value_name = "INDEX")]
    partitions: Vec<PartitionIndex>,
    /// The columns, separated by commas: topic, partition, offset, timestamp, timestamp_type, key,
    /// value, headers, or members of JSON values.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    columns: Option<Vec<String>>,
    /// How values are decoded.
    #[arg(long, value_enum, default_value_t)]
    value_format: Values,
    /// What to do with a value that cannot be decoded.
    #[arg(long, value_enum, default_value_t)]
    on_error: Errors,
    /// read_committed, the default, leaves out what transactions aborted, and ends before one that is open;
    /// read_uncommitted reads all.
    #[arg(long, value_name = "LEVEL")]
    isolation_level: Option<String>,
    /// raise, or warn and go on, when requested records are gone.
    #[arg(long, value_name = "WHAT")]
    on_data_loss: Option<String>,
    /// Stop after this many records.
    #[arg(long, value_name = "COUNT")]
    max_messages: Option<u64>,
    /// The most rows in a table.
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    max_rows: usize,
    /// Write to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct ScanArguments {
    /// The start: earliest, latest, an offset, last:N, {"partition": offset} for these partitions
    /// only, a checkpoint {"topic": {"partition": offset}}, which also reads partitions added
    /// since, a time such as 2026-01-31T12:00:00Z, or a duration ago such as -6h.
    #[arg(long, default_value = "earliest", value_name = "BOUND", allow_hyphen_values = true)]
    from: String,
    /// The end, exclusive; same values as --from.
    #[arg(long, default_value = "latest", value_name = "BOUND", allow_hyphen_values = true)]
    to: String,
    /// How to write the records.
    #[arg(long, value_enum, default_value = "table")]
    output: RecordFormat,
    /// Write the resolved offsets as JSON and read nothing. Its `checkpoint` is the --from of the
    /// next scan.
    #[arg(long)]
    offsets: bool,
    #[command(flatten)]
    reading: ReadArguments,
}

#[derive(Debug, Args)]
pub(super) struct ConsumeArguments {
    /// Start at the first record instead of at the records that arrive from now on.
    #[arg(long, conflicts_with = "from")]
    from_beginning: bool,
    /// The start; same values as in scan.
    #[arg(long, value_name = "BOUND", allow_hyphen_values = true)]
    from: Option<String>,
    /// Stop here instead of waiting for more; same values as --to in scan.
    #[arg(long, value_name = "BOUND", allow_hyphen_values = true)]
    to: Option<String>,
    /// Consume as a member of this group: continue from its committed offsets, and commit what was
    /// written, a Parquet file or a table once it is complete. --from-beginning applies to partitions for which it has no offset.
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["from", "to"])]
    group: Option<String>,
    /// classic or consumer.
    #[arg(long, value_name = "PROTOCOL", default_value = "classic", requires = "group")]
    group_protocol: String,
    /// Stop when no record arrived for this many milliseconds.
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// How to write the records.
    #[arg(long, value_enum, default_value = "value")]
    output: RecordFormat,
    #[command(flatten)]
    reading: ReadArguments,
}

impl ReadArguments {
    fn client(&self) -> Result<Client, Failure> {
        let mut config = self.connection.config()?;
        if let Some(level) = &self.isolation_level {
            config.set("isolation.level", level)?;
        }
        if let Some(what) = &self.on_data_loss {
            config.consumer.on_data_loss = OnDataLoss::parse(what)?;
        }
        Ok(Client::connect(config)?)
    }

    fn decode(&self, output: RecordFormat) -> DecodeOptions {
        let only = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        let columns = match (&self.columns, output, self.value_format) {
            (Some(columns), ..) => Some(columns.clone()),
            (None, RecordFormat::Value, Values::Raw | Values::Text) => only(&["value"]),
            (None, RecordFormat::Table | RecordFormat::Csv, Values::Raw | Values::Text) => {
                only(&["partition", "offset", "timestamp", "key", "value"])
            }
            (None, ..) => None,
        };
        DecodeOptions {
            columns,
            key: KeyFormat::Raw,
            value: match self.value_format {
                Values::Raw => ValueFormat::Raw,
                Values::Text => ValueFormat::Text,
                Values::Json => ValueFormat::json_inferred(),
            },
            on_error: match self.on_error {
                Errors::Raise => OnError::Raise,
                Errors::Null => OnError::Null,
                Errors::Column => OnError::Column,
            },
            views: output != RecordFormat::Parquet,
            ..DecodeOptions::default()
        }
    }

    fn check(&self, output: RecordFormat) -> CommandResult {
        if output == RecordFormat::Value && self.value_format == Values::Json {
            let detail = "--output value writes the bytes unchanged; use --output json with \
                          --value-format json";
            return Err(Failure::Usage(detail.to_owned()));
        }
        Ok(())
    }

    fn scan_options(&self, start: Bound, end: Bound, output: RecordFormat) -> ScanOptions {
        ScanOptions {
            start,
            end,
            partitions: Some(self.partitions.clone()).filter(|chosen| !chosen.is_empty()),
            decode: self.decode(output),
            ..ScanOptions::default()
        }
    }
}

pub(super) async fn scan(arguments: ScanArguments) -> CommandResult {
    if arguments.offsets && arguments.reading.max_messages.is_some() {
        let detail = "--offsets reads nothing, so it cannot tell where --max-messages would stop; \
                      omit one of them";
        return Err(Failure::Usage(detail.to_owned()));
    }
    let (start, end) = (Bound::parse(&arguments.from)?, Bound::parse(&arguments.to)?);
    read_range(&arguments.reading, start, end, arguments.output, arguments.offsets).await
}

/// Says on standard error what an open transaction hides.
fn say_held_back(scan: &Scan) {
    for (partition, offsets) in scan.held_back() {
        let topic = &scan.offsets().topic;
        note(&format!(
            "{topic}-{partition}: an open transaction holds back the last {offsets} offsets; \
             --isolation-level read_uncommitted reads them, too"
        ));
    }
}

async fn read_range(
    reading: &ReadArguments,
    start: Bound,
    end: Bound,
    output: RecordFormat,
    only_offsets: bool,
) -> CommandResult {
    reading.check(output)?;
    let topic = reading.topic.get()?;
    let client = reading.client()?;
    let scan = client.scan(topic, reading.scan_options(start, end, output)).await;
    let scan = client.admin().named(topic, scan).await?;
    say_held_back(&scan);
    if only_offsets {
        let mut offsets = serde_json::to_value(scan.offsets()).map_err(std::io::Error::other)?;
        if let (Some(all), Bound::Checkpoint(ends)) =
            (offsets.as_object_mut(), scan.offsets().checkpoint())
        {
            let ends = serde_json::to_value(ends).map_err(std::io::Error::other)?;
            all.insert("checkpoint".to_owned(), ends);
        }
        return super::output::write_json(&offsets);
    }
    let mut writer = RecordWriter::open(output, reading.output_file.as_deref(), reading.max_rows)?;
    let mut reader = scan.read()?;
    let total = u64::try_from(scan.offsets().count()).unwrap_or(0);
    let bar = if reading.output_file.is_some() {
        progress_bar(total, "records")
    } else {
        indicatif::ProgressBar::hidden()
    };
    let mut left = reading.max_messages.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(decoded) = reader.next().await? else { break };
        let rows = decoded.rows.num_rows().min(usize::try_from(left).unwrap_or(usize::MAX));
        writer.write(&decoded.rows.slice(0, rows))?;
        left -= rows as u64;
        bar.set_position(u64::try_from(reader.progress().offsets_done).unwrap_or(0));
    }
    bar.finish_and_clear();
    // Without any value there is nothing to infer columns from, and nothing to write.
    let schema = reader.schema().await.ok();
    writer.finish(schema.as_deref())
}

pub(super) async fn consume(arguments: ConsumeArguments) -> CommandResult {
    let start = match &arguments.from {
        Some(from) => Bound::parse(from)?,
        None if arguments.from_beginning => Bound::Earliest,
        None => Bound::Latest,
    };
    let reading = &arguments.reading;
    if let Some(to) = &arguments.to {
        return read_range(reading, start, Bound::parse(to)?, arguments.output, false).await;
    }
    reading.check(arguments.output)?;
    if matches!(arguments.output, RecordFormat::Table | RecordFormat::Parquet)
        && reading.max_messages.is_none()
        && arguments.timeout_ms.is_none()
    {
        let detail = "this output format needs an end; add --to, --max-messages or --timeout-ms";
        return Err(Failure::Usage(detail.to_owned()));
    }
    if let Some(group) = &arguments.group {
        return consume_in_group(&arguments, group).await;
    }
    let topic = reading.topic.get()?;
    let client = reading.client()?;
    // Bounds are resolved as for a scan that ends now, and reading starts where it would.
    let options = reading.scan_options(start, Bound::Latest, arguments.output);
    let scan = client.admin().named(topic, client.scan(topic, options).await).await?;
    let mut consumer = client.consumer(reading.decode(arguments.output))?;
    let starts: Vec<(TopicPartition, StartAt)> = scan
        .offsets()
        .partitions
        .iter()
        .map(|(&index, range)| (TopicPartition::new(topic, index), StartAt::Offset(range.start)))
        .collect();
    consumer.assign(&starts).await?;
    let mut writer =
        RecordWriter::open(arguments.output, reading.output_file.as_deref(), reading.max_rows)?;
    let mut left = reading.max_messages.unwrap_or(u64::MAX);
    let patience = arguments.timeout_ms.map(Duration::from_millis);
    let mut last = Instant::now();
    let mut signals = Signals::listen()?;
    while left > 0 {
        let max_wait = patience.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1));
        let polled = tokio::select! {
            biased;
            () = signals.wait() => break,
            polled = consumer.poll(PollOptions { max_wait, fill: false }) => polled?,
        };
        if let Some(decoded) = polled {
            let rows = decoded.rows.num_rows().min(usize::try_from(left).unwrap_or(usize::MAX));
            writer.write(&decoded.rows.slice(0, rows))?;
            writer.flush()?;
            left -= rows as u64;
            last = Instant::now();
        } else if patience.is_some_and(|patience| last.elapsed() >= patience) {
            note(&format!("no record arrived for {} ms", arguments.timeout_ms.unwrap_or(0)));
            break;
        }
    }
    writer.finish(None)
}

async fn consume_in_group(arguments: &ConsumeArguments, group: &str) -> CommandResult {
    let reading = &arguments.reading;
    if !reading.partitions.is_empty() {
        let detail = "a group assigns the partitions itself; omit either --partition or --group";
        return Err(Failure::Usage(detail.to_owned()));
    }
    let client = reading.client()?;
    let mut config = client.config().consumer.clone();
    if arguments.from_beginning {
        config.auto_offset_reset = Some(AutoOffsetReset::Earliest);
    }
    let topics = Subscription::Topics(vec![reading.topic.get()?.to_owned()]);
    let mut options = GroupOptions::new(group, topics);
    options.protocol = GroupProtocol::parse(&arguments.group_protocol)?;
    let mut decode = reading.decode(arguments.output);
    let shown = decode.columns.clone();
    if let (Some(columns), true) = (&mut decode.columns, reading.max_messages.is_some()) {
        // For the offsets of a batch that is only written in part.
        for needed in [TOPIC, PARTITION, OFFSET] {
            if !columns.iter().any(|column| column == needed) {
                columns.push(needed.to_owned());
            }
        }
    }
    let mut consumer = client.group_consumer_with(config, options, decode)?;
    let written = write_members_rows(arguments, &mut consumer, shown.map(|all| all.len())).await;
    let closed = consumer.close().await;
    written.and(closed.map_err(Failure::from))
}

/// Writes what arrives, and commits it once it is in the file: a batch at a time, or, in a format
/// that is nothing before its end, at the end. SIGINT and SIGTERM are such an end. `columns` is how many were asked for;
/// none means all.
async fn write_members_rows(
    arguments: &ConsumeArguments,
    consumer: &mut GroupConsumer,
    columns: Option<usize>,
) -> CommandResult {
    let reading = &arguments.reading;
    let mut writer =
        RecordWriter::open(arguments.output, reading.output_file.as_deref(), reading.max_rows)?;
    let mut left = reading.max_messages.unwrap_or(u64::MAX);
    let patience = arguments.timeout_ms.map(Duration::from_millis);
    let mut done = BTreeMap::new();
    let mut last = Instant::now();
    let mut signals = Signals::listen()?;
    while left > 0 {
        let max_wait = patience.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1));
        let polled = tokio::select! {
            biased;
            () = signals.wait() => break,
            polled = consumer.poll(PollOptions { max_wait, fill: false }) => polled?,
        };
        match polled {
            Some(Polled::Batch(decoded)) => {
                let count = decoded.rows.num_rows();
                let taken = count.min(usize::try_from(left).unwrap_or(usize::MAX));
                let rows = decoded.rows.slice(0, taken);
                let shown: Vec<usize> = (0..columns.unwrap_or(rows.num_columns())).collect();
                let shown = rows.project(&shown).map_err(std::io::Error::other)?;
                writer.write(&shown)?;
                done.extend(if taken < count { ends_of(&rows) } else { ends(&decoded) });
                if writer.persist()? {
                    consumer.handle().commit(&std::mem::take(&mut done)).await?;
                }
                tracing::debug!(rows = taken, "rows taken over");
                left -= taken as u64;
                last = Instant::now();
            }
            Some(Polled::Assigned(partitions)) => note(&format!("assigned {}", list(&partitions))),
            Some(Polled::Revoked(partitions)) => note(&format!("revoked {}", list(&partitions))),
            Some(Polled::Lost { partitions, reason }) => {
                note(&format!("lost {}: {reason}", list(&partitions)));
            }
            Some(Polled::CaughtUp) => break,
            None if patience.is_some_and(|patience| last.elapsed() >= patience) => {
                note(&format!("no record arrived for {} ms", arguments.timeout_ms.unwrap_or(0)));
                break;
            }
            // The log, which is on standard error as well, says whom the member waits for.
            Some(Polled::Waiting(_)) | None => {}
        }
    }
    writer.finish(None)?;
    Ok(consumer.handle().commit(&done).await?)
}

fn list(partitions: &[TopicPartition]) -> String {
    let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    if names.is_empty() { "no partitions".to_owned() } else { names.join(", ") }
}

/// Where reading continues after a batch.
fn ends(decoded: &Decoded) -> BTreeMap<TopicPartition, OffsetAndMetadata> {
    let ends = decoded.progress.iter().map(|one| (one.partition.clone(), one.next.into()));
    ends.collect()
}

/// Where reading continues after rows that have the topic, partition and offset columns.
fn ends_of(rows: &RecordBatch) -> BTreeMap<TopicPartition, OffsetAndMetadata> {
    let mut ends = BTreeMap::new();
    let (Some(topics), Some(partitions), Some(offsets)) =
        (rows.column_by_name(TOPIC), rows.column_by_name(PARTITION), rows.column_by_name(OFFSET))
    else {
        return ends;
    };
    let Ok(topics) = arrow::compute::cast(topics, &DataType::Utf8) else { return ends };
    let topics = topics.as_string::<i32>();
    let partitions = partitions.as_primitive::<Int32Type>();
    let offsets = offsets.as_primitive::<Int64Type>();
    for row in 0..rows.num_rows() {
        let partition = TopicPartition::new(topics.value(row), partitions.value(row));
        ends.insert(partition, Offset(offsets.value(row)).next().into());
    }
    ends
}
