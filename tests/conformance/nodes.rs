//! Three of our nodes as one cluster, in this process, for the programs of Apache Kafka.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ottla::broker::{Broker, BrokerOptions};
use ottla::client::admin::NewTopic;
use ottla::client::{Client, ClientConfig, PartitionInfo};
use ottla::types::{NodeId, PartitionIndex, TopicPartition};
use tempfile::TempDir;

use crate::kafka;
use crate::three::{self, NODES};

/// Only failures, so that what a tool prints is what it has to say.
const LOGGING: &str = "\
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = %p %m (%c)%n
rootLogger.level = ERROR
rootLogger.appenderRef.err.ref = err
";

/// A cluster whose nodes can be killed.
pub(crate) struct Three {
    runtime: tokio::runtime::Runtime,
    options: BTreeMap<i32, BrokerOptions>,
    running: BTreeMap<i32, Broker>,
    directory: TempDir,
    jars: PathBuf,
}

impl Three {
    /// How long the cluster, or a program with it, may take for anything that is waited for.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

    /// Starts the nodes, and finds Apache Kafka's jars.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with settings of the nodes.
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Self {
        let jars = kafka::jars();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("log4j2.properties"), LOGGING).unwrap();
        let options = three::options(directory.path())
            .into_iter()
            .map(|(id, options)| {
                let options = options.with("group.initial.rebalance.delay.ms", "0");
                let with = |options: BrokerOptions, (name, value): &(&str, &str)| {
                    options.with(*name, *value)
                };
                (id, settings.iter().fold(options, with))
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        let mut three = Self { runtime, options, running: BTreeMap::new(), directory, jars };
        three.start_nodes(&NODES);
        three
    }

    /// Starts nodes at the same time: none of them is there without a majority.
    pub(crate) fn start_nodes(&mut self, nodes: &[i32]) {
        let starting: Vec<_> = nodes
            .iter()
            .map(|id| self.runtime.spawn(Broker::start(self.options[id].clone())))
            .collect();
        for (id, started) in nodes.iter().zip(starting) {
            self.running.insert(*id, self.runtime.block_on(started).unwrap().unwrap());
        }
    }

    pub(crate) fn kill(&mut self, node: i32) {
        let broker = self.running.remove(&node).unwrap();
        self.runtime.block_on(broker.kill());
    }

    /// The addresses of all nodes, running or not.
    pub(crate) fn servers(&self) -> String {
        NODES.map(|node| self.address(node)).join(",")
    }

    pub(crate) fn address(&self, node: i32) -> &str {
        let listeners = self.options[&node].listeners.as_deref().unwrap();
        listeners.trim_start_matches("PLAINTEXT://")
    }

    /// The folders of partitions that a node has of a topic.
    pub(crate) fn partitions(&self, node: i32, topic: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join(node.to_string())).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.rsplit_once('-').is_some_and(|(of, _)| of == topic)).collect()
    }

    /// The files of a replica with this extension, in order.
    pub(crate) fn files(&self, node: i32, partition: &str, extension: &str) -> Vec<PathBuf> {
        let folder = self.directory.path().join(node.to_string()).join(partition);
        let entries = std::fs::read_dir(folder).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect();
        files.sort();
        files
    }

    /// Writes a file for a tool, and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Makes a folder for a program, if it has none yet, and returns its path.
    pub(crate) fn folder(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Waits for what a client does.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub(crate) fn client(&self) -> Client {
        let _inside = self.runtime.enter();
        Client::connect(ClientConfig::for_servers(&self.servers()).unwrap()).unwrap()
    }

    /// Creates a topic whose partitions have these replicas, the first of which is to lead.
    pub(crate) fn create(&self, name: &str, replicas: &[&[i32]]) {
        self.create_with(name, replicas, &[]);
    }

    /// The same, with settings.
    pub(crate) fn create_with(&self, name: &str, replicas: &[&[i32]], configs: &[(&str, &str)]) {
        let configs = configs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let assignments = (0..).zip(replicas).map(|(partition, nodes)| {
            (PartitionIndex(partition), nodes.iter().copied().map(NodeId).collect())
        });
        let topic = NewTopic {
            name: name.to_owned(),
            assignments: assignments.collect(),
            configs: configs.collect(),
            ..NewTopic::default()
        };
        let admin = self.client().admin();
        let created = self.runtime.block_on(admin.create_topics(&[topic], false)).unwrap();
        created.into_iter().next().unwrap().unwrap();
    }

    /// Begins to move a partition.
    pub(crate) fn reassign(&self, topic: &str, partition: i32, replicas: &[i32]) {
        let partition = TopicPartition::new(topic, partition);
        let replicas = replicas.iter().copied().map(NodeId).collect();
        let targets = BTreeMap::from([(partition, Some(replicas))]);
        let admin = self.client().admin();
        let told = self.runtime.block_on(admin.alter_partition_reassignments(&targets)).unwrap();
        told.into_values().for_each(Result::unwrap);
    }

    /// Asks until all partitions of a topic are as they should be.
    pub(crate) fn until(&self, topic: &str, is_so: impl Fn(&PartitionInfo) -> bool) {
        let admin = self.client().admin();
        let began = Instant::now();
        loop {
            let described = self.runtime.block_on(admin.describe_topics(&[topic])).unwrap();
            // The node that is asked may not have heard of a new topic yet.
            let found = described.into_iter().next().unwrap();
            if found.as_ref().is_ok_and(|found| found.partitions.iter().all(&is_so)) {
                return;
            }
            assert!(began.elapsed() < Self::PATIENCE, "{found:?}");
            std::thread::yield_now();
        }
    }

    /// A tool of Apache Kafka, which is told where the cluster is.
    pub(crate) fn command(&self, class: &str, arguments: &[&str]) -> Command {
        self.java(&format!("org.apache.kafka.tools.{class}"), arguments)
    }

    /// A program of Apache Kafka, by its main class.
    pub(crate) fn java(&self, class: &str, arguments: &[&str]) -> Command {
        let mut logging = std::ffi::OsString::from("-Dlog4j2.configurationFile=");
        logging.push(self.directory.path().join("log4j2.properties"));
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]).arg(logging);
        let paths = [self.jars.join("*"), self.jars.join("connect-file/*")];
        java.arg("-cp").arg(std::env::join_paths(paths).unwrap()).arg(class);
        java.args(arguments);
        java
    }

    /// Runs a tool with `--bootstrap-server`; returns whether it succeeded, and what it said.
    pub(crate) fn try_run(&self, class: &str, arguments: &[&str]) -> (bool, String) {
        let servers = self.servers();
        let all = [&["--bootstrap-server", &servers], arguments].concat();
        told(self.command(class, &all).output().unwrap())
    }

    /// Runs a tool, which must succeed; returns what it said.
    pub(crate) fn run(&self, class: &str, arguments: &[&str]) -> String {
        let (succeeded, text) = self.try_run(class, arguments);
        assert!(succeeded, "{class} {arguments:?}: {text}");
        text
    }
}

/// A program that goes on until it is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it; returns it with the lines that it prints.
    pub(crate) fn start(mut command: Command) -> (Self, impl Iterator<Item = String> + use<>) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (Self(child), lines.map(Result::unwrap))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Whether a tool succeeded, and all that it said.
pub(crate) fn told(output: Output) -> (bool, String) {
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

impl Drop for Three {
    fn drop(&mut self) {
        for broker in self.running.values() {
            self.runtime.block_on(broker.kill());
        }
    }
}
