//! One node of Apache Kafka for all tests of this process: broker and controller, on ports of the
//! system's choice, in a folder of its own.
//!
//! It lives as long as the test process, however that ends: a shell beside it waits for the end of
//! its input, which this process holds open, then kills the node and removes the folder.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
#[cfg(unix)]
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::{journal, kafka};

/// A node is up after about five seconds; machines that build at the same time are slower.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the node must say before it is asked.
const STARTED: &str = "Kafka Server started";
/// What it says of the port that it was given, which follows.
const PORT: &str = "PLAINTEXT: resolved ephemeral port to ";

const SETTINGS: &str = "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:0
listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0
advertised.listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=200
group.initial.rebalance.delay.ms=0
";

const LOGGING: &str = "\
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %p %m (%c)%n
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
";

/// `$0` is the folder of the node, the arguments are the command that runs it.
const SHELL: &str = r#"
"$@" </dev/null 2>&1 &
node=$!
exec >/dev/null 2>&1
cat
kill -9 $node
wait $node
rm -rf "$0"
"#;

struct Node {
    address: String,
    /// Its end is the end of the node.
    _lifeline: ChildStdin,
}

/// The address of the node, which is started first if nobody did.
pub(crate) fn address() -> &'static str {
    static NODE: OnceLock<Result<Node, String>> = OnceLock::new();
    address_of(NODE.get_or_init(|| start(&[])))
}

/// The address of another node, which does transactions as Kafka did before 4.0 (`transaction.version` 1).
pub(crate) fn address_with_old_transactions() -> &'static str {
    static NODE: OnceLock<Result<Node, String>> = OnceLock::new();
    address_of(NODE.get_or_init(|| start(&["--feature", "transaction.version=1"])))
}

fn address_of(node: &'static Result<Node, String>) -> &'static str {
    match node {
        Ok(node) => &node.address,
        Err(why) => panic!("Apache Kafka did not start: {why}"),
    }
}

/// Starts a node, formatted with these arguments besides.
fn start(format_with: &[&str]) -> Result<Node, String> {
    let jars = kafka::jars();
    let folder = tempfile::tempdir().unwrap().keep();
    let settings = folder.join("server.properties");
    let data = folder.join("data");
    std::fs::write(&settings, format!("{SETTINGS}log.dirs={}\n", data.display())).unwrap();
    std::fs::write(folder.join("log4j2.properties"), LOGGING).unwrap();
    let format = java(&jars, &folder, "kafka.tools.StorageTool")
        .args(["format", "--standalone", "--cluster-id", "ottlaConformanceTests1", "--config"])
        .arg(&settings)
        .args(format_with)
        .output();
    let format = format.map_err(|error| format!("java: {error}"))?;
    if !format.status.success() {
        return Err(String::from_utf8_lossy(&[format.stdout, format.stderr].concat()).into_owned());
    }
    let node = java(&jars, &folder, "kafka.Kafka");
    let mut shell = Command::new("sh");
    shell.args(["-c", SHELL]).arg(&folder).arg(node.get_program()).args(node.get_args());
    shell.arg(&settings).stdin(Stdio::piped()).stdout(Stdio::piped());
    // A signal to the test, such as that of Ctrl-C, must not end the shell before it has cleaned up.
    #[cfg(unix)]
    shell.process_group(0);
    let Child { stdin, stdout, .. } = shell.spawn().map_err(|error| format!("sh: {error}"))?;
    let address = wait_until_started(stdout.unwrap())?;
    Ok(Node { address, _lifeline: stdin.unwrap() })
}

fn java(jars: &Path, folder: &Path, class: &str) -> Command {
    let mut logging = std::ffi::OsString::from("-Dlog4j2.configurationFile=");
    logging.push(folder.join("log4j2.properties"));
    let mut java = Command::new("java");
    java.arg("-Xmx512m").arg(logging).arg("-cp").arg(jars.join("*")).arg(class);
    java
}

/// Reads what the node says until it serves, and on from there, so that it never waits for us.
fn wait_until_started(output: ChildStdout) -> Result<String, String> {
    let (said, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|length| length > 0) {
            journal::note(&format!("node: {line}"));
            // Nobody listens any more once it serves.
            drop(said.send(std::mem::take(&mut line)));
        }
    });
    let begin = Instant::now();
    let mut last = VecDeque::new();
    let mut port = None;
    while let Ok(line) = lines.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
        if let Some((_, found)) = line.split_once(PORT) {
            port = found.split_whitespace().next().map(str::to_owned);
        }
        if line.contains(STARTED) {
            let port = port.ok_or("it does not say its port")?;
            return Ok(format!("127.0.0.1:{port}"));
        }
        last.push_back(line);
        if last.len() > 40 {
            last.pop_front();
        }
    }
    Err(format!("the last lines after {:?}:\n{}", begin.elapsed(), Vec::from(last).concat()))
}
