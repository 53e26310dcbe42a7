//! `ottla scan` and `ottla consume`.

use std::path::PathBuf;

use arrow::datatypes::SchemaRef;
use clap::{Args, ValueEnum};

use super::members;
use super::options::{Connection, TopicName};
use super::output::{RecordFormat, RecordWriter, note, progress_bar};
use super::signals::Signals;
use super::taking::{Letters, Patience, Taken};
use super::values::{ReadAs, ReadingArguments};
use super::{CommandResult, Failure};
use crate::client::{Bound, Client, OnDataLoss, PollOptions, Scan, ScanOptions, StartAt};
use crate::columnar::{DecodeOptions, Decoder, KeyFormat, OnError};
use crate::types::{PartitionIndex, TopicPartition};

/// The most bytes of records that become one batch of many rows: the number of rows says little about its size.
const MANY_ROWS_BYTES: usize = 16 << 20;

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
pub(super) struct ReadArguments {
    #[command(flatten)]
    pub(super) topic: TopicName,
    /// A partition. May be given several times. Default: all.
    #[arg(long = "partition", value_name = "INDEX")]
    pub(super) partitions: Vec<PartitionIndex>,
    /// The columns, separated by commas: topic, partition, offset, timestamp, timestamp_type, key,
    /// value, headers, or those of decoded values.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    columns: Option<Vec<String>>,
    #[command(flatten)]
    values: ReadingArguments,
    /// What to do with a value that cannot be decoded.
    #[arg(long, value_enum, default_value_t)]
    on_error: Errors,
    /// Write records whose values cannot be decoded to this topic, unchanged, with headers that say where they
    /// were and why, and leave them out.
    #[arg(long, value_name = "TOPIC", conflicts_with = "on_error")]
    dead_letters: Option<String>,
    /// read_committed, the default, leaves out what transactions aborted, and ends before one that is open;
    /// read_uncommitted reads all.
    #[arg(long, value_name = "LEVEL")]
    isolation_level: Option<String>,
    /// raise, or warn and go on, when requested records are gone.
    #[arg(long, value_name = "WHAT")]
    on_data_loss: Option<String>,
    /// Stop after this many records that were written; with arrow-ipc, after this many rows.
    #[arg(long, value_name = "COUNT")]
    pub(super) max_messages: Option<u64>,
    /// The most rows in a table.
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    pub(super) max_rows: usize,
    /// Write to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(super) output_file: Option<PathBuf>,
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
    pub(super) reading: ReadArguments,
}

#[derive(Debug, Args)]
pub(super) struct ConsumeArguments {
    /// Start at the first record instead of at the records that arrive from now on.
    #[arg(long, conflicts_with = "from")]
    pub(super) from_beginning: bool,
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
    pub(super) group_protocol: String,
    /// Stop when no record arrived for this many milliseconds; the time in which a member of a group has no
    /// partitions because it joins, or others do, does not count.
    #[arg(long, value_name = "MS", conflicts_with = "to")]
    pub(super) timeout_ms: Option<u64>,
    /// How to write the records.
    #[arg(long, value_enum, default_value = "value")]
    pub(super) output: RecordFormat,
    #[command(flatten)]
    pub(super) reading: ReadArguments,
}

impl ReadArguments {
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let mut config = self.connection.config()?;
        if let Some(level) = &self.isolation_level {
            config.set("isolation.level", level)?;
        }
        if let Some(what) = &self.on_data_loss {
            config.consumer.on_data_loss = OnDataLoss::parse(what)?;
        }
        Ok(Client::connect(config)?)
    }

    pub(super) fn decode(&self, output: RecordFormat) -> Result<DecodeOptions, Failure> {
        let kind = self.values.kind();
        let only = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        let columns = match (&self.columns, output) {
            (Some(columns), _) => Some(columns.clone()),
            (None, _) if kind.has_columns() => None,
            (None, RecordFormat::Value) => only(&["value"]),
            (None, RecordFormat::Table | RecordFormat::Csv) => {
                only(&["partition", "offset", "timestamp", "key", "value"])
            }
            (None, _) => None,
        };
        let has_many_rows = kind == ReadAs::ArrowIpc;
        let decode = DecodeOptions {
            columns,
            key: KeyFormat::Raw,
            value: self.values.format()?,
            on_error: match (&self.dead_letters, self.on_error) {
                (Some(_), _) => OnError::SetAside,
                (None, Errors::Raise) => OnError::Raise,
                (None, Errors::Null) => OnError::Null,
                (None, Errors::Column) => OnError::Column,
            },
            max_bytes: if has_many_rows { MANY_ROWS_BYTES } else { usize::MAX },
            // Files that are kept are for every reader.
            views: !matches!(output, RecordFormat::Parquet | RecordFormat::ArrowIpc),
            offsets: self.max_messages.is_some(),
            ..DecodeOptions::default()
        };
        if self.dead_letters.is_some() && !decode.may_fail() {
            let detail = "--dead-letters takes what cannot be decoded, and raw values need no decoding; add \
                          --value-format";
            return Err(Failure::Usage(detail.to_owned()));
        }
        Ok(decode)
    }

    /// The columns of the rows; none where values tell them.
    pub(super) fn columns(&self, output: RecordFormat) -> Option<SchemaRef> {
        Decoder::new(self.decode(output).ok()?).ok()?.schema()
    }

    pub(super) fn check(&self, output: RecordFormat) -> CommandResult {
        if output == RecordFormat::Value && self.values.kind().has_columns() {
            let detail = "--output value writes the bytes of values as they are; use --output json, or another \
                          output with columns, with this --value-format";
            return Err(Failure::Usage(detail.to_owned()));
        }
        if self.dead_letters.as_deref() == Some(self.topic.get()?) {
            let detail = "--dead-letters names the topic that is read";
            return Err(Failure::Usage(detail.to_owned()));
        }
        Ok(())
    }

    pub(super) async fn letters(&self, client: &Client) -> Result<Letters, Failure> {
        Letters::to(self.dead_letters.as_deref(), client).await
    }

    pub(super) fn writer(&self, output: RecordFormat) -> Result<RecordWriter, Failure> {
        RecordWriter::open(output, self.output_file.as_deref(), self.max_rows)
    }

    fn scan_options(&self, (start, end): (Bound, Bound), decode: DecodeOptions) -> ScanOptions {
        ScanOptions {
            start,
            end,
            partitions: Some(self.partitions.clone()).filter(|chosen| !chosen.is_empty()),
            decode,
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
    let decode = reading.decode(output)?;
    let client = reading.client()?;
    let scan = client.scan(topic, reading.scan_options((start, end), decode)).await;
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
    let mut letters = reading.letters(&client).await?;
    let mut writer = reading.writer(output)?;
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
        let taken = Taken::of(decoded, left);
        letters.send(&taken).await?;
        writer.write(&taken.rows)?;
        left = left.saturating_sub(taken.rows.num_rows() as u64);
        bar.set_position(u64::try_from(reader.progress().offsets_done).unwrap_or(0));
    }
    bar.finish_and_clear();
    // Without any value there is nothing to infer columns from, and nothing to write.
    let schema = reader.schema().await.ok();
    writer.finish(schema.as_deref())?;
    letters.tell();
    Ok(())
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
    if reading.dead_letters.is_some() && reading.values.infers() {
        let detail = "--dead-letters needs --schema with this --value-format: the columns would be those of the first \
                      records, and later ones that have more would go to the dead letters";
        return Err(Failure::Usage(detail.to_owned()));
    }
    if matches!(arguments.output, RecordFormat::Table | RecordFormat::Parquet)
        && reading.max_messages.is_none()
        && arguments.timeout_ms.is_none()
    {
        let detail = "this output format needs an end; add --to, --max-messages or --timeout-ms";
        return Err(Failure::Usage(detail.to_owned()));
    }
    if let Some(group) = &arguments.group {
        return members::consume(&arguments, group).await;
    }
    let topic = reading.topic.get()?;
    let decode = reading.decode(arguments.output)?;
    let client = reading.client()?;
    // Bounds are resolved as for a scan that ends now, and reading starts where it would.
    let options = reading.scan_options((start, Bound::Latest), decode.clone());
    let scan = client.admin().named(topic, client.scan(topic, options).await).await?;
    let mut letters = reading.letters(&client).await?;
    let mut consumer = client.consumer(decode)?;
    let starts: Vec<(TopicPartition, StartAt)> = scan
        .offsets()
        .partitions
        .iter()
        .map(|(&index, range)| (TopicPartition::new(topic, index), StartAt::Offset(range.start)))
        .collect();
    consumer.assign(&starts).await?;
    let mut writer = reading.writer(arguments.output)?;
    let mut left = reading.max_messages.unwrap_or(u64::MAX);
    let mut patience = Patience::new(arguments.timeout_ms);
    let mut signals = Signals::listen()?;
    let mut ended = Ok(());
    while left > 0 {
        let max_wait = patience.max_wait();
        let polled = tokio::select! {
            biased;
            () = signals.wait() => break,
            polled = consumer.poll(PollOptions { max_wait, fill: false }) => polled?,
        };
        if let Some(decoded) = polled {
            let taken = Taken::of(decoded, left);
            letters.send(&taken).await?;
            writer.write(&taken.rows)?;
            writer.flush()?;
            left = left.saturating_sub(taken.rows.num_rows() as u64);
            patience.restart();
        } else if patience.is_over() {
            ended = patience.check(&client, &consumer.assignment()).await;
            break;
        }
    }
    // Also what came before an end that is none is written.
    writer.finish(reading.columns(arguments.output).as_deref())?;
    letters.tell();
    ended
}
