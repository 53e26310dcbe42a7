//! `ottla tier status` and `offload`: what the tiers of a cluster have, and having them take the rest.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::options::{Connection, Format, TopicNames};
use super::output::{note, progress_bar, write_line, write_rows};
use super::{CommandResult, Failure};
use crate::client::admin::{Admin, Offload, TierPartition};
use crate::error::{Error, Result};
use crate::types::Offset;

const HEADER: [&str; 12] = [
    "topic",
    "partition",
    "start",
    "local start",
    "tiered end",
    "end",
    "files",
    "bytes",
    "log bytes",
    "lag records",
    "lag bytes",
    "failure",
];

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// The topics; all that have a tier when not given.
    #[command(flatten)]
    topics: TopicNames,
    /// How to write the list of partitions.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct OffloadArguments {
    #[command(flatten)]
    topics: TopicNames,
    /// Do not wait until everything is in the tier.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait, in seconds; the copy goes on afterwards.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, conflicts_with = "no_wait")]
    timeout: u32,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn status(arguments: &StatusArguments) -> CommandResult {
    let admin = arguments.connection.client()?.admin();
    let mut names: Vec<String> = arguments.topics.get().into_iter().map(str::to_owned).collect();
    if names.is_empty() {
        names = admin.tiered_topics().await?;
    }
    let mut rows = Vec::new();
    for name in &names {
        let tier = admin.named(name, admin.tier(name).await).await?;
        if !tier.is_enabled {
            note(&format!("topic {name} has no tier: remote.storage.enable is false"));
        } else if !tier.copies {
            note(&format!("topic {name} is not copied: remote.log.copy.disable is true"));
        }
        rows.extend(tier.partitions.iter().map(|one| row(name, one)));
    }
    if rows.is_empty() && arguments.output == Format::Table {
        note("no topic has a tier");
        return Ok(());
    }
    write_rows(arguments.output, &HEADER, &rows)
}

fn row(topic: &str, one: &TierPartition) -> Vec<Value> {
    let number = |offset: Option<Offset>| json!(offset.map(|offset| offset.0));
    let lag = one.end.zip(one.pending).map(|(end, pending)| (end.0 - pending.0).max(0));
    vec![
        json!(topic),
        json!(one.partition),
        number(one.start),
        number(one.local_start),
        number(one.tiered_end),
        number(one.end),
        json!(one.files),
        json!(one.file_bytes),
        json!(one.log_bytes),
        json!(lag),
        json!(one.pending_bytes),
        json!(one.failure),
    ]
}

pub(super) async fn offload(arguments: &OffloadArguments) -> CommandResult {
    let names = arguments.topics.get();
    if names.is_empty() {
        return Err(Failure::Usage("name the topics to offload".to_owned()));
    }
    let admin = arguments.connection.client()?.admin();
    let mut begun = Vec::new();
    for name in names {
        let offload = admin.named(name, admin.offload(name).await).await?;
        begun.push((name, offload));
    }
    if arguments.no_wait {
        for (name, _) in begun {
            write_line(&format!("topic {name} is being copied to the tier"))?;
        }
        return Ok(());
    }
    let limit = Duration::from_secs(arguments.timeout.into());
    let deadline = tokio::time::Instant::now() + limit;
    for (name, offload) in &begun {
        let waited = tokio::time::timeout_at(deadline, wait(&admin, name, offload)).await;
        match waited {
            Ok(done) => done?,
            Err(_elapsed) => return Err(late(&admin, name, offload, limit).await.into()),
        }
        write_line(&format!("offloaded topic {name}"))?;
    }
    Ok(())
}

async fn wait(admin: &Admin, topic: &str, offload: &Offload) -> Result<()> {
    let total: i64 = offload.values().map(|range| range.end.0 - range.start.0).sum();
    let bar = progress_bar(total.unsigned_abs(), "offsets");
    let waited = admin.await_offload(topic, offload, |done| {
        bar.set_position(done.unsigned_abs());
        Ok(())
    });
    let waited = waited.await;
    bar.finish_and_clear();
    waited
}

/// The error of a wait that has run out of time, with what was in its way.
async fn late(admin: &Admin, topic: &str, offload: &Offload, limit: Duration) -> Error {
    let what = format!("the copy of topic {topic} to the tier");
    match admin.offload_obstacles(topic, offload).await {
        Ok(obstacles) if !obstacles.is_empty() => {
            let missing = obstacles.join("; ");
            Error::timeout(format!("{what} (not there yet: {missing})"), limit)
        }
        Ok(_) => Error::timeout(what, limit),
        Err(error) => Error::timeout(what, limit).because(Some(std::sync::Arc::new(error))),
    }
}
