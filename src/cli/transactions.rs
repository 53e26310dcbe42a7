//! `ottla transactions`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::cluster::{Target, chosen};
use super::options::{Connection, Format};
use super::output::{note, write_json, write_line, write_rows};
use super::{CommandResult, Failure};
use crate::client::admin::{Admin, HangingTransaction, TransactionDescription, TransactionFilter};
use crate::error::Error;
use crate::types::{NodeId, Offset, ProducerId, TimestampMs, TopicPartition};

const MINUTE_MS: i64 = 60_000;

#[derive(Debug, Subcommand)]
pub(super) enum TransactionsCommand {
    /// List the transactional ids.
    List(ListArguments),
    /// Show the transaction of ids: state, age, partitions.
    Describe(DescribeArguments),
    /// Find open transactions that no coordinator will end, and that hold up readers for ever.
    FindHanging(HangingArguments),
    /// Abort a hanging transaction in one partition.
    Abort(AbortArguments),
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Only ids whose transaction is in this state, for example Ongoing. May be given several times.
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<String>,
    /// Only ids of this producer. May be given several times.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    producer_id: Vec<i64>,
    /// Only transactions that are open for longer than this many milliseconds.
    #[arg(long, value_name = "MS")]
    longer_than_ms: Option<u32>,
    /// Only ids that match this regular expression as a whole.
    #[arg(long, value_name = "REGEX")]
    pattern: Option<String>,
    /// How to write the list.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct DescribeArguments {
    /// The transactional ids.
    #[arg(value_name = "TRANSACTIONAL_ID", required = true)]
    ids: Vec<String>,
    /// How to write the description.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct HangingArguments {
    /// Topics or partitions; all, also Kafka's internal topics, when none is named.
    #[arg(value_name = "TOPIC[:PARTITION]")]
    targets: Vec<Target>,
    /// Only partitions that this broker has.
    #[arg(long, value_name = "BROKER")]
    broker_id: Option<i32>,
    /// transaction.max.timeout.ms of the brokers, in minutes: what is younger may still be ended by its coordinator.
    #[arg(long, default_value_t = 15, value_name = "MINUTES")]
    max_transaction_timeout: u32,
    /// How to write the list.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct AbortArguments {
    /// The partition.
    #[arg(value_name = "TOPIC:PARTITION")]
    target: Target,
    /// The offset at which the transaction begins there, as `find-hanging` shows it.
    #[arg(long, value_name = "OFFSET")]
    start_offset: i64,
    /// Also abort a transaction that its coordinator has, which then commits only the rest of it.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: TransactionsCommand) -> CommandResult {
    match command {
        TransactionsCommand::List(arguments) => list(arguments).await,
        TransactionsCommand::Describe(arguments) => describe(&arguments).await,
        TransactionsCommand::FindHanging(arguments) => find_hanging(&arguments).await,
        TransactionsCommand::Abort(arguments) => abort(&arguments).await,
    }
}

async fn list(arguments: ListArguments) -> CommandResult {
    let admin = arguments.connection.client()?.admin();
    let filter = TransactionFilter {
        states: arguments.state,
        producer_ids: arguments.producer_id.into_iter().map(ProducerId).collect(),
        longer_than_ms: arguments.longer_than_ms.map(i64::from),
        pattern: arguments.pattern,
    };
    let listed = admin.list_transactions(&filter).await?;
    let row = |one: &crate::client::admin::TransactionListing| {
        vec![
            json!(one.transactional_id),
            json!(one.state),
            json!(one.producer_id.0),
            json!(one.coordinator.0),
        ]
    };
    let rows: Vec<Vec<Value>> = listed.iter().map(row).collect();
    let header = ["transactional id", "state", "producer id", "coordinator"];
    write_rows(arguments.output, &header, &rows)
}

async fn describe(arguments: &DescribeArguments) -> CommandResult {
    let admin = arguments.connection.client()?.admin();
    let ids: Vec<&str> = arguments.ids.iter().map(String::as_str).collect();
    let described = admin.describe_transactions(&ids).await?;
    let mut found = Vec::new();
    let mut is_complete = true;
    for one in described {
        match one {
            Ok(one) => found.push(one),
            Err(error) => {
                note(&format!("ottla: {}", error.chain()));
                is_complete = false;
            }
        }
    }
    match arguments.output {
        Format::Json => write_json(&Value::Array(found.iter().map(described_json).collect()))?,
        Format::Table if found.is_empty() => {}
        Format::Table => {
            let rows: Vec<Vec<Value>> = found.iter().map(described_row).collect();
            let header = [
                "transactional id",
                "state",
                "producer id",
                "epoch",
                "timeout ms",
                "started",
                "coordinator",
                "partitions",
            ];
            write_rows(Format::Table, &header, &rows)?;
        }
    }
    if is_complete { Ok(()) } else { Err(Failure::Told) }
}

fn described_json(one: &TransactionDescription) -> Value {
    let partition =
        |one: &TopicPartition| json!({"topic": &*one.topic, "partition": one.partition});
    json!({
        "transactional_id": one.transactional_id,
        "state": one.state,
        "producer_id": one.producer_id.0,
        "producer_epoch": one.producer_epoch.0,
        "timeout_ms": one.timeout_ms,
        "started_at": one.started_at.map(time),
        "coordinator": one.coordinator.0,
        "partitions": one.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn described_row(one: &TransactionDescription) -> Vec<Value> {
    let partitions: Vec<String> = one.partitions.iter().map(ToString::to_string).collect();
    vec![
        json!(one.transactional_id),
        json!(one.state),
        json!(one.producer_id.0),
        json!(one.producer_epoch.0),
        json!(one.timeout_ms),
        json!(one.started_at.map(time)),
        json!(one.coordinator.0),
        json!(partitions.join(" ")),
    ]
}

fn time(at: TimestampMs) -> String {
    chrono::DateTime::from_timestamp_millis(at.0).map_or_else(
        || format!("{} ms", at.0),
        |time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
    )
}

async fn find_hanging(arguments: &HangingArguments) -> CommandResult {
    if arguments.targets.iter().any(|target| target.replicas.is_some()) {
        return Err(Failure::Usage("use TOPIC or TOPIC:PARTITION".to_owned()));
    }
    let admin = arguments.connection.client()?.admin();
    let partitions = searched(&admin, arguments).await?;
    let age = i64::from(arguments.max_transaction_timeout).saturating_mul(MINUTE_MS);
    let hanging = admin.hanging_transactions(&partitions, age).await?;
    let row = |HangingTransaction { partition, producer }: &HangingTransaction| {
        vec![
            json!(&*partition.topic),
            json!(partition.partition),
            json!(producer.transaction_start.map(|offset| offset.0)),
            json!(producer.id.0),
            json!(producer.epoch),
            json!(producer.coordinator_epoch),
            json!(time(producer.last_timestamp)),
        ]
    };
    let rows: Vec<Vec<Value>> = hanging.iter().map(row).collect();
    if rows.is_empty() && arguments.output == Format::Table {
        return write_line(&format!("none of {} partitions has one", partitions.len()));
    }
    let header = [
        "topic",
        "partition",
        "start offset",
        "producer id",
        "producer epoch",
        "coordinator epoch",
        "last write",
    ];
    write_rows(arguments.output, &header, &rows)
}

/// The partitions to look at.
async fn searched(
    admin: &Admin,
    arguments: &HangingArguments,
) -> Result<Vec<TopicPartition>, Failure> {
    let topics = admin.all_topics().await?;
    let mut partitions = if arguments.targets.is_empty() {
        let all = topics.iter().flat_map(|topic| {
            let named = |info: &crate::client::PartitionInfo| {
                TopicPartition::new(std::sync::Arc::clone(&topic.name), info.partition)
            };
            topic.partitions.iter().map(named).collect::<Vec<_>>()
        });
        all.collect()
    } else {
        chosen(admin, &topics, &arguments.targets).await?
    };
    if let Some(broker) = arguments.broker_id.map(NodeId) {
        partitions.retain(|one| {
            let topic = topics.iter().find(|topic| topic.name == one.topic);
            let info = topic.and_then(|topic| topic.partition(one.partition));
            info.is_some_and(|info| info.replicas.contains(&broker))
        });
    }
    Ok(partitions)
}

async fn abort(arguments: &AbortArguments) -> CommandResult {
    let Target { topic, partition: Some(index), replicas: None } = &arguments.target else {
        return Err(Failure::Usage("name one partition, as TOPIC:PARTITION".to_owned()));
    };
    let partition = TopicPartition::new(topic.as_str(), *index);
    let admin = arguments.connection.client()?.admin();
    let start = Offset(arguments.start_offset);
    let producers = admin.describe_producers(&partition).await?;
    let found = producers.into_iter().find(|one| one.transaction_start == Some(start));
    let Some(producer) = found else {
        return Err(Failure::Error(Error::invalid(format!(
            "no open transaction of {partition} begins at offset {start}; `ottla transactions \
             find-hanging {topic}:{index}` lists those that hang"
        ))));
    };
    if !arguments.force {
        let hanging = admin.hanging_transactions(std::slice::from_ref(&partition), -1).await?;
        if !hanging.iter().any(|one| one.producer.id == producer.id) {
            return Err(Failure::Error(Error::invalid(format!(
                "the transaction of producer {} that begins at offset {start} of {partition} does not \
                 hang: its coordinator will end it; --force aborts it here nevertheless, and so tears it",
                producer.id
            ))));
        }
    }
    admin.abort_transaction(&partition, &producer).await?;
    write_line(&format!(
        "aborted the transaction of producer {} that began at offset {start} of {partition}",
        producer.id
    ))
}
