//! `ottla bench`: measures how fast writing and scanning are on this machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use clap::Args;
use serde_json::{Value, json};

use super::options::{Connection, Format};
use super::output::{progress_bar, thousands, write_json, write_rows};
use super::{CommandResult, Failure};
use crate::broker::{Broker, BrokerOptions};
use crate::client::admin::NewTopic;
use crate::client::{Client, ClientConfig, ScanOptions, TableWriter};
use crate::columnar::{DecodeOptions, ValueSource, WriteOptions};
use crate::error::Error;

#[derive(Debug, Args)]
pub(super) struct BenchArguments {
    /// Measure the cluster at --bootstrap-server instead of a broker in this process.
    #[arg(long)]
    remote: bool,
    /// Reach the broker in this process over TCP.
    #[arg(long, conflicts_with = "remote")]
    tcp: bool,
    /// The number of records.
    #[arg(long, default_value_t = 2_000_000)]
    records: usize,
    /// The size of a value in bytes.
    #[arg(long, default_value_t = 150)]
    record_size: usize,
    /// The number of partitions.
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// How many times to scan; the fastest counts.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, value_name = "CODEC", default_value = "none")]
    compression_type: String,
    /// How to write the result.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

/// One measured run.
struct Measured {
    what: &'static str,
    records: u64,
    bytes: u64,
    took: Duration,
}

pub(super) async fn run(arguments: BenchArguments) -> CommandResult {
    let mut config =
        if arguments.remote { arguments.connection.config()? } else { ClientConfig::default() };
    config.set("compression.type", &arguments.compression_type)?;
    let broker = if arguments.remote {
        None
    } else {
        Some(Broker::start(BrokerOptions::in_memory()).await?)
    };
    let client = match &broker {
        Some(broker) if arguments.tcp => {
            let servers = ClientConfig::for_servers(&broker.bootstrap_servers())?;
            config.bootstrap_servers = servers.bootstrap_servers;
            Client::connect(config)?
        }
        Some(broker) => Client::local(broker.service(), Some(broker.node_id()), config)?,
        None => Client::connect(config)?,
    };
    let id = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let topic = format!("ottla-bench-{id}");
    let created =
        client.admin().create_topics(&[NewTopic::new(&topic, arguments.partitions)], false).await?;
    created.into_iter().collect::<Result<Vec<_>, _>>()?;
    let measured = measure(&arguments, &client, &topic).await;
    // Even after a failure: nobody else knows the topic.
    client.admin().delete_topics(&[&topic]).await.ok();
    if let Some(broker) = broker {
        broker.shutdown().await?;
    }
    tell(&arguments, &measured?)
}

async fn measure(
    arguments: &BenchArguments,
    client: &Client,
    topic: &str,
) -> Result<Vec<Measured>, Failure> {
    let rows = 64 * 1024;
    let table = table(rows, arguments.record_size)?;
    let producer = Arc::new(client.producer()?);
    let bar = progress_bar(arguments.records as u64, "records written");
    let start = Instant::now();
    let options =
        WriteOptions { value: ValueSource::Column("value".to_owned()), ..WriteOptions::default() };
    let mut writer = TableWriter::start(producer, topic, options).await?;
    let mut left = arguments.records;
    while left > 0 {
        let length = left.min(rows);
        writer.write(&table.slice(0, length)).await?;
        left -= length;
        bar.inc(length as u64);
    }
    let report = writer.finish().await?;
    bar.finish_and_clear();
    let written = Measured {
        what: "write",
        records: report.rows,
        bytes: report.bytes,
        took: start.elapsed(),
    };

    let decode = DecodeOptions {
        columns: Some(["offset", "timestamp", "value"].map(str::to_owned).to_vec()),
        ..DecodeOptions::default()
    };
    let scan = client.scan(topic, ScanOptions { decode, ..ScanOptions::default() }).await?;
    let mut fastest: Option<Measured> = None;
    for _ in 0..arguments.repeat.max(1) {
        let start = Instant::now();
        let mut reader = scan.read()?;
        while reader.next().await?.is_some() {}
        let took = start.elapsed();
        let progress = reader.progress();
        if progress.rows != report.rows {
            let detail = format!("{} records were written, {} read", report.rows, progress.rows);
            return Err(Error::invalid(detail).into());
        }
        if fastest.as_ref().is_none_or(|fastest| took < fastest.took) {
            let (records, bytes) = (progress.rows, progress.bytes);
            fastest = Some(Measured { what: "scan", records, bytes, took });
        }
    }
    Ok([Some(written), fastest].into_iter().flatten().collect())
}

/// Rows with values that compress about as well as real events.
fn table(rows: usize, size: usize) -> Result<RecordBatch, Failure> {
    let words: Vec<u8> = (0..8_192_u32)
        .flat_map(|word| format!("{:05}", (word * 7_919) % 10_007).into_bytes())
        .collect();
    let value = |row: usize| -> Vec<u8> {
        let start = (row * 31) % words.len();
        words.iter().cycle().skip(start).take(size).copied().collect()
    };
    let values: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..rows).map(value)));
    RecordBatch::try_from_iter([("value", values)])
        .map_err(|error| Error::invalid(error.to_string()).into())
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn tell(arguments: &BenchArguments, measured: &[Measured]) -> CommandResult {
    let rate = |amount: u64, took: Duration| amount as f64 / took.as_secs_f64();
    if arguments.output == Format::Json {
        let one = |run: &Measured| {
            json!({
                "what": run.what,
                "records": run.records,
                "bytes": run.bytes,
                "seconds": run.took.as_secs_f64(),
                "records_per_second": rate(run.records, run.took),
                "bytes_per_second": rate(run.bytes, run.took),
            })
        };
        let route = if arguments.remote {
            "remote"
        } else if arguments.tcp {
            "tcp"
        } else {
            "in-process"
        };
        return write_json(&json!({
            "route": route,
            "record_size": arguments.record_size,
            "partitions": arguments.partitions,
            "compression": arguments.compression_type,
            "runs": measured.iter().map(one).collect::<Vec<_>>(),
        }));
    }
    let row = |run: &Measured| -> Vec<Value> {
        vec![
            json!(run.what),
            json!(thousands(run.records as f64)),
            json!(format!("{:.3}", run.took.as_secs_f64())),
            json!(thousands(rate(run.records, run.took))),
            json!(thousands(rate(run.bytes, run.took) / 1e6)),
        ]
    };
    let rows: Vec<Vec<Value>> = measured.iter().map(row).collect();
    write_rows(Format::Table, &["", "records", "seconds", "records/s", "MB/s"], &rows)
}
