//! `ottla tier`: topics as Parquet files that give back every batch. What a broker has in its tier is in `offload`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::offload::{self, OffloadArguments, StatusArguments};
use super::options::{Connection, Format, TopicName};
use super::output::{note, progress_bar, write_rows};
use super::{CommandResult, Failure};
use crate::archive::{self, ArchiveFile};
use crate::client::{Bound, Client, ScanOptions};
use crate::types::PartitionIndex;

#[derive(Debug, Subcommand)]
pub(super) enum TierCommand {
    /// Show what the tier has of topics, and how far the copy is behind.
    Status(StatusArguments),
    /// Have the tier take all that was written to topics so far: active segments are closed and copied.
    Offload(OffloadArguments),
    /// Write a topic as Parquet files in the layout of the tier: every reader of Parquet sees the records, and the batches
    /// can be had back, to the byte if they were not compressed.
    Export(ExportArguments),
    /// Check files of the tier: all checksums, and every batch.
    Verify(VerifyArguments),
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    topic: TopicName,
    /// The folder, below which there is one for each partition, topic=NAME/partition=N.
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// The start; same values as in scan.
    #[arg(long, default_value = "earliest", value_name = "BOUND", allow_hyphen_values = true)]
    from: String,
    /// The end, exclusive; same values as --from.
    #[arg(long, default_value = "latest", value_name = "BOUND", allow_hyphen_values = true)]
    to: String,
    /// A partition. May be given several times. Default: all.
    #[arg(long = "partition", value_name = "INDEX")]
    partitions: Vec<PartitionIndex>,
    /// How to write the list of files.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Files, or folders whose files are checked.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// How to write the list of files.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(command: TierCommand) -> CommandResult {
    match command {
        TierCommand::Status(arguments) => offload::status(&arguments).await,
        TierCommand::Offload(arguments) => offload::offload(&arguments).await,
        TierCommand::Export(arguments) => export(&arguments).await,
        TierCommand::Verify(arguments) => verify(&arguments),
    }
}

async fn export(arguments: &ExportArguments) -> CommandResult {
    let topic = arguments.topic.get()?;
    let mut config = arguments.connection.config()?;
    // Rows of the tier are committed.
    config.set("isolation.level", "read_committed")?;
    let client = Client::connect(config)?;
    let options = ScanOptions {
        start: Bound::parse(&arguments.from)?,
        end: Bound::parse(&arguments.to)?,
        partitions: Some(arguments.partitions.clone()).filter(|chosen| !chosen.is_empty()),
        ..ScanOptions::default()
    };
    let scan = client.admin().named(topic, client.scan(topic, options).await).await?;
    for (partition, offsets) in scan.held_back() {
        note(&format!(
            "{topic}-{partition}: an open transaction holds back the last {offsets} offsets"
        ));
    }
    let bar = progress_bar(u64::try_from(scan.offsets().count()).unwrap_or(0), "offsets");
    let files = archive::write(&scan, &arguments.folder, |done| {
        bar.set_position(u64::try_from(done).unwrap_or(0));
    })
    .await;
    bar.finish_and_clear();
    write_files(arguments.output, &files?)
}

fn verify(arguments: &VerifyArguments) -> CommandResult {
    let mut paths = Vec::new();
    for path in &arguments.paths {
        let found = archive::files(path)?;
        if found.is_empty() {
            note(&format!("{} has no files of the tier", path.display()));
        }
        paths.extend(found);
    }
    let bar = progress_bar(paths.len() as u64, "files");
    let (mut intact, mut damaged) = (Vec::new(), 0_usize);
    for path in &paths {
        match archive::verify(path) {
            Ok(file) => intact.push(file),
            Err(error) => {
                damaged += 1;
                bar.suspend(|| note(&error.chain()));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    write_files(arguments.output, &intact)?;
    if damaged > 0 {
        note(&format!("{damaged} of {} files are damaged", paths.len()));
        return Err(Failure::Found);
    }
    Ok(())
}

fn write_files(format: Format, files: &[ArchiveFile]) -> CommandResult {
    let row = |file: &ArchiveFile| {
        vec![
            json!(file.topic),
            json!(file.partition),
            json!(file.base_offset),
            json!(file.end_offset),
            json!(file.totals.rows),
            json!(file.totals.batches),
            json!(file.totals.log_bytes),
            json!(file.file_bytes),
            json!(file.path.to_string_lossy()),
        ]
    };
    let header = [
        "topic",
        "partition",
        "start",
        "end",
        "rows",
        "batches",
        "log_bytes",
        "file_bytes",
        "path",
    ];
    let rows: Vec<Vec<Value>> = files.iter().map(row).collect();
    write_rows(format, &header, &rows)
}
