//! The command line: `ottla broker | topics | groups | transactions | configs | cluster | produce | consume | scan
//! | tier | doctor | bench | completion`.
//!
//! Thin: it reads arguments, calls the client and the broker, and writes results. Results go to
//! standard output, everything else to standard error. One line says what failed, and the remedy if
//! there is one; the exit status (`status`) says of which kind it is. A reader that closes the pipe ends the
//! program quietly. The same code is the `ottla` binary and the console script of the Python package.

mod bench;
mod broker;
mod cluster;
mod completion;
mod configs;
mod csv;
mod doctor;
mod groups;
mod input;
mod members;
mod offload;
mod options;
mod output;
mod produce;
mod read;
mod signals;
mod status;
mod taking;
mod tier;
mod topic_facts;
mod topics;
mod transactions;
mod values;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write};

use clap::builder::{
    MapValueParser, RangedI64ValueParser, TypedValueParser as _, ValueParserFactory,
};
use clap::{Parser, Subcommand};

use self::status::Status;
use crate::error::Error;
use crate::types::PartitionIndex;

impl ValueParserFactory for PartitionIndex {
    type Parser = MapValueParser<RangedI64ValueParser<i32>, fn(i32) -> Self>;

    fn value_parser() -> Self::Parser {
        clap::value_parser!(i32).map(Self)
    }
}

/// An event-streaming engine that speaks Apache Kafka and Arrow.
#[derive(Debug, Parser)]
#[command(
    name = "ottla",
    version,
    about,
    arg_required_else_help = true,
    after_help = status::HELP
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker.
    #[command(subcommand)]
    Broker(broker::BrokerCommand),
    /// Create, list, describe, alter and delete topics.
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    /// List, describe, reset and delete consumer groups.
    #[command(subcommand)]
    Groups(groups::GroupsCommand),
    /// List and describe transactions; find those that hang, and abort them.
    #[command(subcommand)]
    Transactions(transactions::TransactionsCommand),
    /// Describe and alter settings of topics and brokers.
    #[command(subcommand)]
    Configs(configs::ConfigsCommand),
    /// Describe the cluster.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Write records from lines, JSON, CSV or Parquet.
    Produce(produce::ProduceArguments),
    /// Read records as they arrive.
    Consume(read::ConsumeArguments),
    /// Read the records between two bounds.
    Scan(read::ScanArguments),
    /// Show what tiers have, and have them take the rest; write topics as files of the tier, and check such files.
    #[command(subcommand)]
    Tier(tier::TierCommand),
    /// Find out why a broker cannot be reached.
    Doctor(doctor::DoctorArguments),
    /// Measure the speed of writing and reading.
    Bench(bench::BenchArguments),
    /// Write the script by which a shell completes commands and options.
    #[command(long_about = COMPLETION)]
    Completion(completion::CompletionArguments),
}

/// The help of `ottla completion`.
const COMPLETION: &str = "\
Write the script by which a shell completes commands and options.

bash:        eval \"$(ottla completion bash)\" in ~/.bashrc
zsh:         eval \"$(ottla completion zsh)\" in ~/.zshrc, after compinit
fish:        ottla completion fish > ~/.config/fish/completions/ottla.fish
powershell:  ottla completion powershell | Out-String | Invoke-Expression in $PROFILE";

/// Why a command ended early.
#[derive(Debug)]
enum Failure {
    /// Something failed.
    Error(Error),
    /// The arguments are wrong or contradict each other.
    Usage(String),
    /// Data do not have the format they are said to have.
    Data(Error),
    /// Standard output or a file could not be written.
    Output(io::Error),
    /// The error has already been reported.
    Told,
    /// The command did its work, and has reported that something is not in order.
    Found,
}

impl Failure {
    /// An error of reading input: what is wrong with what was read is about data, anything else about
    /// the reading.
    fn data(error: Error) -> Self {
        match &error {
            Error::InvalidArgument(_) => Self::Data(error),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                Self::Data(error)
            }
            _ => Self::Error(error),
        }
    }
}

type CommandResult = Result<(), Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs the program with its arguments, of which the first is its name; returns the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> i32 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are not errors and go to standard output.
            error.print().ok();
            return error.exit_code();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::Output(error)),
    };
    let outcome = runtime.block_on(Box::pin(dispatch(arguments.command)));
    // A blocking thread may still be waiting for standard input.
    runtime.shutdown_background();
    match outcome.and_then(|()| io::stdout().flush().map_err(Failure::from)) {
        Ok(()) => 0,
        Err(failure) => report(&failure),
    }
}

async fn dispatch(command: Command) -> CommandResult {
    let default_level = if matches!(command, Command::Broker(_)) { BROKER_LOGS } else { "warn" };
    start_logging(default_level);
    match command {
        Command::Broker(command) => broker::run(command).await,
        Command::Topics(command) => topics::run(command).await,
        Command::Groups(command) => groups::run(command).await,
        Command::Transactions(command) => transactions::run(command).await,
        Command::Configs(command) => configs::run(command).await,
        Command::Cluster(command) => cluster::run(command).await,
        Command::Produce(arguments) => produce::run(arguments).await,
        Command::Consume(arguments) => read::consume(arguments).await,
        Command::Scan(arguments) => read::scan(arguments).await,
        Command::Tier(command) => tier::run(command).await,
        Command::Doctor(arguments) => doctor::run(arguments).await,
        Command::Bench(arguments) => bench::run(arguments).await,
        Command::Completion(arguments) => completion::run::<Arguments>(&arguments),
    }
}

/// What a broker logs: its own activity.
const BROKER_LOGS: &str = "info";

/// Logs to standard error, at the level of the environment variable `OTTLA_LOG`.
fn start_logging(default_level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OTTLA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default_level));
    // Inside Python, another subscriber may already be installed.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init()
        .ok();
}

fn report(failure: &Failure) -> i32 {
    let status = Status::of(failure);
    let line = match failure {
        Failure::Error(error) | Failure::Data(error) => Some(in_options(error.chain())),
        Failure::Usage(detail) => Some(detail.clone()),
        Failure::Output(error) if status != Status::Done => Some(error.to_string()),
        Failure::Output(_) | Failure::Told | Failure::Found => None,
    };
    if let Some(line) = line {
        writeln!(io::stderr(), "ottla: {}", line.replace('\n', " ")).ok();
    }
    status as i32
}

/// Words a remedy as the program has it: what are arguments in the API are options here.
fn in_options(text: String) -> String {
    const REMEDIES: [(&str, &str); 9] = [
        ("; on_error= ", "; --on-error "),
        ("on_data_loss=\"warn\"", "--on-data-loss warn"),
        ("json(framed=True) skips the header", READ_RAW),
        (
            "avro(registry=…) and protobuf(registry=…) read such values",
            "--value-format avro or protobuf with --schema-registry reads such values",
        ),
        ("name another subject with subject=", "name another subject with --subject"),
        ("columns_from=\"first\"", "--columns-from first"),
        ("or pass auto_register=True", "or omit --no-auto-register"),
        ("exclude=, or pass", "--exclude, or give"),
        // What follows names arguments of Python.
        ("; json(nan=\"null\") writes null for it, json(nan=\"text\") the string", NO_NAN),
    ];
    const READ_RAW: &str = "--value-format raw reads the bytes";
    const NO_NAN: &str = "; replace it in the file, for example with null or with the text";
    REMEDIES.iter().fold(text, |text, (argument, option)| text.replace(argument, option))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn remedies_name_options() {
        for (told, wanted) in [
            ("gone; tolerate it with on_data_loss=\"warn\"", "--on-data-loss warn"),
            (
                "JSON has no NaN; json(nan=\"null\") writes null for it, json(nan=\"text\") the \
                 string \"NaN\"",
                "NaN; replace it in the file, for example with null or with the text \"NaN\"",
            ),
            ("no JSON; json(framed=True) skips the header: x", "--value-format raw reads the"),
        ] {
            let shown = in_options(told.to_owned());
            assert!(shown.contains(wanted) && !shown.contains("=\""), "{shown}");
        }
    }

    #[test]
    fn wrong_arguments_end_with_status_2() {
        let run = |line: &str| run(line.split(' ').map(OsString::from));
        assert_eq!(run("ottla topics create"), 2);
        assert_eq!(run("ottla frobnicate"), 2);
        assert_eq!(run("ottla topics alter t"), 2);
        assert_eq!(run("ottla --version"), 0);
    }
}
