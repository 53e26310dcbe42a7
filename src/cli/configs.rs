//! `ottla configs`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::options::{Connection, Format, key_value};
use super::output::{write_line, write_rows};
use super::topics::changes;
use super::{CommandResult, Failure};
use crate::client::admin::{ConfigSource, Resource};
use crate::types::NodeId;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigsCommand {
    /// Show the settings that were changed, or all of them.
    Describe(DescribeArguments),
    /// Change settings.
    Alter(AlterArguments),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Entity {
    /// A topic.
    #[arg(long)]
    topic: Option<String>,
    /// A broker, by its id.
    #[arg(long)]
    broker: Option<i32>,
}

impl Entity {
    fn resource(&self) -> Result<Resource, Failure> {
        match (&self.topic, self.broker) {
            (Some(topic), _) => Ok(Resource::topic(topic)),
            (None, Some(id)) => Ok(Resource::broker(NodeId(id))),
            (None, None) => Err(Failure::Usage("name a --topic or a --broker".to_owned())),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct DescribeArguments {
    #[command(flatten)]
    entity: Entity,
    /// Include settings that have their default.
    #[arg(long)]
    all: bool,
    /// Include what each setting does.
    #[arg(long)]
    documentation: bool,
    /// How to write the settings.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct AlterArguments {
    #[command(flatten)]
    entity: Entity,
    /// A setting to set.
    #[arg(long = "add-config", visible_alias = "config", value_name = "KEY=VALUE",
          value_parser = key_value)]
    config: Vec<(String, String)>,
    /// A setting to reset to its default.
    #[arg(long, value_name = "KEY")]
    delete_config: Vec<String>,
    /// Only check whether the change would be accepted.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: ConfigsCommand) -> CommandResult {
    match command {
        ConfigsCommand::Describe(arguments) => describe(&arguments).await,
        ConfigsCommand::Alter(arguments) => alter(&arguments).await,
    }
}

async fn describe(arguments: &DescribeArguments) -> CommandResult {
    let resource = arguments.entity.resource()?;
    let admin = arguments.connection.client()?.admin();
    let described = admin.describe_configs(&[resource], arguments.documentation).await?;
    let entries = described.into_iter().next().transpose()?.unwrap_or_default();
    let mut header = vec!["name", "value", "source", "read only"];
    if arguments.documentation {
        header.push("documentation");
    }
    let rows: Vec<Vec<Value>> = entries
        .into_iter()
        .filter(|entry| arguments.all || entry.source != ConfigSource::Default)
        .map(|entry| {
            let value = if entry.is_sensitive { Some("(secret)".to_owned()) } else { entry.value };
            let mut row = vec![
                json!(entry.name),
                json!(value),
                json!(entry.source.name()),
                json!(entry.is_read_only),
            ];
            if arguments.documentation {
                row.push(json!(entry.documentation));
            }
            row
        })
        .collect();
    write_rows(arguments.output, &header, &rows)
}

async fn alter(arguments: &AlterArguments) -> CommandResult {
    let resource = arguments.entity.resource()?;
    let changes = changes(&arguments.config, &arguments.delete_config);
    if changes.is_empty() {
        return Err(Failure::Usage(
            "nothing to change; use --add-config or --delete-config".to_owned(),
        ));
    }
    let admin = arguments.connection.client()?.admin();
    admin.alter_configs(&resource, &changes, arguments.validate_only).await?;
    let verb = if arguments.validate_only { "could alter" } else { "altered" };
    write_line(&format!("{verb} {resource}"))
}
