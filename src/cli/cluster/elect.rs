//! `ottla cluster elect` and `unregister`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde_json::{Value, json};

use super::super::options::{Connection, Format};
use super::super::output::{note, write_line, write_rows};
use super::super::{CommandResult, Failure};
use super::targets::{Target, chosen};
use crate::client::admin::{Admin, Election};
use crate::error::{ErrorCode, Result};
use crate::types::{NodeId, TopicPartition};

#[derive(Debug, Args)]
pub(in crate::cli) struct ElectArguments {
    /// Topics or partitions; all when none is named.
    #[arg(value_name = "TOPIC[:PARTITION]")]
    targets: Vec<Target>,
    /// Where nobody leads, let any replica that is alive lead, in sync or not: records that only others have
    /// are lost. The partitions are to be named.
    #[arg(long)]
    unclean: bool,
    /// How to write the outcomes.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UnregisterArguments {
    /// The broker.
    #[arg(value_name = "BROKER")]
    broker: i32,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn elect(arguments: &ElectArguments) -> CommandResult {
    if arguments.targets.iter().any(|target| target.replicas.is_some()) {
        let text = "an election does not move replicas; `ottla cluster reassign` does".to_owned();
        return Err(Failure::Usage(text));
    }
    if arguments.unclean && arguments.targets.is_empty() {
        let text = "name the partitions for --unclean: records that are only on the replicas that \
                    are gone are lost";
        return Err(Failure::Usage(text.to_owned()));
    }
    let admin = arguments.connection.client()?.admin();
    let partitions = if arguments.targets.is_empty() {
        None
    } else {
        let topics = admin.all_topics().await?;
        let chosen = chosen(&admin, &topics, &arguments.targets).await?;
        Some(chosen.into_iter().collect::<BTreeSet<_>>())
    };
    let election = if arguments.unclean { Election::Unclean } else { Election::Preferred };
    let outcomes = admin.elect_leaders(election, partitions.as_ref()).await?;
    report(&admin, arguments.output, outcomes).await
}

/// Whether there was nothing to do, which is no failure.
pub(super) fn is_fine(outcome: &Result<()>) -> bool {
    let not_needed = |code| code == ErrorCode::ElectionNotNeeded;
    outcome.as_ref().err().is_none_or(|error| not_needed(error.code()))
}

async fn report(
    admin: &Admin,
    format: Format,
    outcomes: BTreeMap<TopicPartition, Result<()>>,
) -> CommandResult {
    let topics = admin.all_topics().await?;
    let leader = |partition: &TopicPartition| {
        let topic = topics.iter().find(|topic| topic.name == partition.topic)?;
        topic.partition(partition.partition)?.leader
    };
    let row = |(partition, outcome): (&TopicPartition, &Result<()>)| -> Vec<Value> {
        let told = match outcome {
            Ok(()) => "elected".to_owned(),
            Err(_) if is_fine(outcome) => "leads already".to_owned(),
            Err(error) => error.to_string(),
        };
        let leader = leader(partition).map(|id| id.0);
        vec![json!(&*partition.topic), json!(partition.partition), json!(leader), json!(told)]
    };
    let rows: Vec<_> = outcomes.iter().map(row).collect();
    if rows.is_empty() && format == Format::Table {
        return write_line("all preferred replicas lead already");
    }
    write_rows(format, &["topic", "partition", "leader", "outcome"], &rows)?;
    let failures = outcomes.values().filter(|outcome| !is_fine(outcome)).count();
    if failures > 0 {
        note(&format!("ottla: {failures} of {} partitions got no leader so", outcomes.len()));
        return Err(Failure::Told);
    }
    Ok(())
}

pub(super) async fn unregister(arguments: &UnregisterArguments) -> CommandResult {
    let admin = arguments.connection.client()?.admin();
    admin.unregister_broker(NodeId(arguments.broker)).await?;
    write_line(&format!("broker {} is not registered any more", arguments.broker))
}
