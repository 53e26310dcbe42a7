//! `ottla topics`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::options::{Connection, Format, TopicName, TopicNames, key_value, to_map};
use super::output::{note, write_line, write_rows};
use super::{CommandResult, Failure, topic_facts};
use crate::client::TopicInfo;
use crate::client::admin::{ConfigChange, NewTopic, Resource};
use crate::error::ErrorCode;

#[derive(Debug, Subcommand)]
pub(super) enum TopicsCommand {
    /// Create a topic.
    Create(CreateArguments),
    /// List the topics.
    List(ListArguments),
    /// Show partitions, leaders, replicas, offsets, how many records there are at most, sizes, and the settings
    /// that differ from the defaults.
    Describe(DescribeArguments),
    /// Add partitions, or change settings.
    Alter(AlterArguments),
    /// Delete topics and all of their records.
    Delete(DeleteArguments),
}

#[derive(Debug, Args)]
pub(super) struct CreateArguments {
    #[command(flatten)]
    topic: TopicName,
    /// The number of partitions; the broker's num.partitions when not given.
    #[arg(long)]
    partitions: Option<i32>,
    /// The number of replicas; the broker's default.replication.factor when not given.
    #[arg(long)]
    replication_factor: Option<i16>,
    /// A topic setting, for example --config retention.ms=-1.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
    /// Succeed when the topic already exists.
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether the topic could be created.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Include Kafka's internal topics.
    #[arg(long)]
    all: bool,
    /// How to write the list.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct DescribeArguments {
    #[command(flatten)]
    topics: TopicNames,
    /// How to write the description.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct AlterArguments {
    #[command(flatten)]
    topic: TopicName,
    /// The new number of partitions.
    #[arg(long)]
    partitions: Option<i32>,
    /// A setting to set.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
    /// A setting to reset to its default.
    #[arg(long, value_name = "KEY")]
    delete_config: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArguments {
    #[command(flatten)]
    topics: TopicNames,
    /// Succeed when a topic does not exist.
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: TopicsCommand) -> CommandResult {
    match command {
        TopicsCommand::Create(arguments) => create(&arguments).await,
        TopicsCommand::List(arguments) => list(&arguments).await,
        TopicsCommand::Describe(arguments) => describe(&arguments).await,
        TopicsCommand::Alter(arguments) => alter(&arguments).await,
        TopicsCommand::Delete(arguments) => delete(&arguments).await,
    }
}

async fn create(arguments: &CreateArguments) -> CommandResult {
    let name = arguments.topic.get()?;
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: arguments.partitions,
        replication_factor: arguments.replication_factor,
        assignments: BTreeMap::new(),
        configs: to_map(&arguments.config),
    };
    let client = arguments.connection.client()?;
    let created = client.admin().create_topics(&[topic], arguments.validate_only).await?;
    match created.into_iter().next() {
        Some(Err(error))
            if arguments.if_not_exists && error.code() == ErrorCode::TopicAlreadyExists =>
        {
            note(&format!("topic {name} already exists"));
            Ok(())
        }
        Some(Err(error)) => Err(error.into()),
        Some(Ok(_)) if arguments.validate_only => {
            write_line(&format!("topic {name} could be created"))
        }
        Some(Ok(_)) | None => write_line(&format!("created topic {name}")),
    }
}

async fn list(arguments: &ListArguments) -> CommandResult {
    let admin = arguments.connection.client()?.admin();
    let topics =
        if arguments.all { admin.all_topics().await? } else { admin.list_topics().await? };
    let row = |topic: &std::sync::Arc<TopicInfo>| {
        let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
        vec![
            json!(&*topic.name),
            json!(topic.partition_count()),
            json!(replicas),
            json!(topic.id.to_string()),
        ]
    };
    let rows: Vec<Vec<Value>> = topics.iter().map(row).collect();
    write_rows(arguments.output, &["topic", "partitions", "replicas", "id"], &rows)
}

async fn describe(arguments: &DescribeArguments) -> CommandResult {
    let client = arguments.connection.client()?;
    let admin = client.admin();
    let named = arguments.topics.get();
    let topics = if named.is_empty() {
        admin.list_topics().await?
    } else {
        let mut described = Vec::with_capacity(named.len());
        for (name, result) in named.iter().zip(admin.describe_topics(&named).await?) {
            described.push(admin.named(name, result).await?);
        }
        described
    };
    topic_facts::write(&client, &topics, arguments.output).await
}

async fn alter(arguments: &AlterArguments) -> CommandResult {
    let name = arguments.topic.get()?;
    let changes = changes(&arguments.config, &arguments.delete_config);
    if arguments.partitions.is_none() && changes.is_empty() {
        return Err(Failure::Usage(
            "nothing to change; add --partitions, --config or --delete-config".to_owned(),
        ));
    }
    let admin = arguments.connection.client()?.admin();
    if !changes.is_empty() {
        let altered = admin.alter_configs(&Resource::topic(name), &changes, false).await;
        admin.named(name, altered).await?;
    }
    if let Some(count) = arguments.partitions {
        let created = admin.create_partitions(name, count, false).await;
        admin.named(name, created).await?;
    }
    write_line(&format!("altered topic {name}"))
}

/// Settings to set and to reset, as changes.
pub(super) fn changes(
    set: &[(String, String)],
    delete: &[String],
) -> BTreeMap<String, ConfigChange> {
    let set = set.iter().map(|(name, value)| (name.clone(), ConfigChange::Set(value.clone())));
    set.chain(delete.iter().map(|name| (name.clone(), ConfigChange::Delete))).collect()
}

async fn delete(arguments: &DeleteArguments) -> CommandResult {
    let names = arguments.topics.get();
    if names.is_empty() {
        return Err(Failure::Usage("name the topics to delete".to_owned()));
    }
    let admin = arguments.connection.client()?.admin();
    let results = admin.delete_topics(&names).await?;
    let mut failure = None;
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(()) => write_line(&format!("deleted topic {name}"))?,
            Err(error)
                if arguments.if_exists && error.code() == ErrorCode::UnknownTopicOrPartition =>
            {
                note(&format!("topic {name} does not exist"));
            }
            Err(error) => failure = Some(admin.with_nearest(name, error).await),
        }
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}
