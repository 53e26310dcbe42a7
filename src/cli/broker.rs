//! `ottla broker start`: a broker in the foreground.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::options::{key_value, read_text};
use super::signals::Signals;
use super::{CommandResult, Failure};
use crate::broker::{Broker, BrokerOptions};
use crate::config::parse_properties;
use crate::error::{Error, ErrorCode};

/// Where `broker start` listens by default: Kafka's port, this machine only.
const DEFAULT_LISTENERS: &str = "PLAINTEXT://localhost:9092";

/// Where `broker start` keeps its data by default.
const DEFAULT_DATA_DIR: &str = "ottla-data";

#[derive(Debug, Subcommand)]
pub(super) enum BrokerCommand {
    /// Run a broker in the foreground until SIGTERM or Ctrl-C; prints a line `ready
    /// bootstrap=HOST:PORT node=N` once clients are served. Logs go to standard error
    /// (`OTTLA_LOG`).
    Start(StartArguments),
}

#[derive(Debug, Args)]
pub(super) struct StartArguments {
    /// The data directory; created when missing. Default: log.dirs of the settings, or
    /// ./ottla-data.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Keep the data in a temporary directory that is removed when the broker stops.
    #[arg(long, conflicts_with = "data_dir")]
    in_memory: bool,
    /// Kafka's listeners. Default: those of the settings, or PLAINTEXT://localhost:9092.
    #[arg(long, value_name = "LISTENERS")]
    listeners: Option<String>,
    /// A server.properties file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A broker setting by Kafka's name; overrides the file.
    #[arg(short = 'o', long = "override", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
    /// The id of the broker (node.id).
    #[arg(long, value_name = "ID")]
    node_id: Option<i32>,
    /// The nodes of the cluster, this one among them: 1@host:port,2@host:port,3@host:port
    /// (controller.quorum.voters). Each must be reachable by the others there; --listeners says
    /// where this one listens.
    #[arg(long, value_name = "VOTERS")]
    controller_quorum_voters: Option<String>,
    /// Join the cluster of these nodes: host:port,host:port (controller.quorum.bootstrap.servers). The node becomes a voter
    /// of the metadata quorum while that has fewer than three (controller.quorum.auto.join.enable), and
    /// otherwise follows it. It must be reachable by the others where --listeners says.
    #[arg(long, value_name = "ADDRESSES", conflicts_with = "controller_quorum_voters")]
    join: Option<String>,
}

pub(super) async fn run(command: BrokerCommand) -> CommandResult {
    let BrokerCommand::Start(arguments) = command;
    // Installed first, so that an early signal is not lost.
    let mut signals = Signals::listen()?;
    let options = options(&arguments)?;
    allow_many_files();
    let broker = tokio::select! {
        started = Broker::start(options) => started.map_err(of_start)?,
        () = signals.wait() => return Ok(()),
    };
    let ready = format!("ready bootstrap={} node={}", broker.bootstrap_servers(), broker.node_id());
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{ready}")?;
    stdout.flush()?;
    signals.wait().await;
    broker.shutdown().await?;
    Ok(())
}

/// Why a broker did not start: its settings are arguments of the program.
fn of_start(error: Error) -> Failure {
    match error.code() {
        ErrorCode::InvalidConfig => Failure::Error(Error::invalid(error.chain())),
        _ => error.into(),
    }
}

/// Raises the limit of open files as far as the system allows, as the Java virtual machine does for
/// Apache Kafka: each partition has one open, each connection another.
fn allow_many_files() {
    #[cfg(unix)]
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

fn options(arguments: &StartArguments) -> Result<BrokerOptions, Failure> {
    let mut options = BrokerOptions { standalone: true, ..BrokerOptions::default() };
    if let Some(file) = &arguments.config {
        let settings = parse_properties(&read_text(file)?)
            .map_err(|error| Error::invalid(format!("{}: {error}", file.display())))?;
        options.properties.extend(settings);
    }
    options.properties.extend(arguments.overrides.iter().cloned());
    if let Some(id) = arguments.node_id {
        options.properties.remove("broker.id");
        options.properties.insert("node.id".to_owned(), id.to_string());
    }
    if let Some(voters) = &arguments.controller_quorum_voters {
        options.properties.insert("controller.quorum.voters".to_owned(), voters.clone());
    }
    if let Some(addresses) = &arguments.join {
        let servers = "controller.quorum.bootstrap.servers".to_owned();
        options.properties.insert(servers, addresses.clone());
        let joins = "controller.quorum.auto.join.enable".to_owned();
        options.properties.entry(joins).or_insert_with(|| "true".to_owned());
    }
    let is_set = |name: &str| options.properties.contains_key(name);
    options.listeners = match &arguments.listeners {
        Some(listeners) => Some(listeners.clone()),
        None if is_set("listeners") => None,
        None => Some(DEFAULT_LISTENERS.to_owned()),
    };
    options.data_dir = match &arguments.data_dir {
        Some(directory) => Some(directory.clone()),
        None if arguments.in_memory || is_set("log.dirs") || is_set("log.dir") => None,
        None => Some(PathBuf::from(DEFAULT_DATA_DIR)),
    };
    Ok(options)
}
