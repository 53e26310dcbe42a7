//! Kafka Streams and Kafka Connect, with three of our nodes, which are killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

use arrow::array::AsArray;
use ottla::client::{
    AssignedConsumer, Client, ConsumerConfig, IsolationLevel, PollOptions, ProducerRecord, StartAt,
};
use ottla::columnar::DecodeOptions;
use ottla::types::TopicPartition;
use serde_json::{Value, json};

use crate::nodes::{Running, Three};

/// The topics of the word count that comes with Kafka Streams.
const INPUT: &str = "streams-plaintext-input";
const OUTPUT: &str = "streams-wordcount-output";

const REPLICAS: &[&[i32]] = &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]];

/// Each record once; the group and the coordinator soon give up an instance that was killed.
const EXACTLY_ONCE: &str = "\
processing.guarantee=exactly_once_v2
consumer.session.timeout.ms=6000
consumer.heartbeat.interval.ms=500
";

/// One instance of the word count, with these settings besides; it may have been there before.
fn word_count(cluster: &Three, instance: usize, settings: &str) -> Running {
    let state = cluster.folder(&format!("streams-{instance}"));
    let config = format!(
        "bootstrap.servers={}\nreplication.factor=3\ncommit.interval.ms=100\nstate.dir={state}\n{settings}",
        cluster.servers()
    );
    let config = cluster.file(&format!("streams-{instance}.properties"), &config);
    let class = "org.apache.kafka.streams.examples.wordcount.WordCountDemo";
    let (running, lines) = Running::start(cluster.java(class, &[&config]));
    std::thread::spawn(|| lines.for_each(drop));
    running
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn kafka_streams_counts_words_while_nodes_are_killed() {
    const WORDS: usize = 3000;
    let mut cluster = Three::start();
    cluster.create(INPUT, REPLICAS);
    cluster.create(OUTPUT, REPLICAS);
    for topic in [INPUT, OUTPUT] {
        cluster.until(topic, |partition| partition.isr.len() == 3);
    }
    let instances = [0, 1].map(|instance| word_count(&cluster, instance, ""));
    let servers = cluster.servers();
    let consumer = cluster.command(
        "consumer.ConsoleConsumer",
        &[
            "--bootstrap-server",
            &servers,
            "--topic",
            OUTPUT,
            "--from-beginning",
            "--formatter-property",
            "print.key=true",
            "--formatter-property",
            "key.separator= ",
            "--formatter-property",
            "value.deserializer=org.apache.kafka.common.serialization.LongDeserializer",
        ],
    );
    let (consumer, counted) = Running::start(consumer);
    let counting = std::thread::spawn(move || {
        let mut counts = BTreeMap::new();
        for line in counted {
            let (word, count) = line.split_once(' ').unwrap();
            counts.insert(word.to_owned(), count.parse::<u64>().unwrap());
            if counts.len() == WORDS {
                return counts;
            }
        }
        panic!("the consumer ended after {} words", counts.len());
    });
    // Each number is a word, and there once.
    let (count, retrying) = (WORDS.to_string(), "retries=2147483647\nenable.idempotence=true\n");
    let config = cluster.file("producer.properties", retrying);
    let (producer, produced) = Running::start(cluster.command(
        "VerifiableProducer",
        &[
            "--bootstrap-server",
            &servers,
            "--topic",
            INPUT,
            "--max-messages",
            &count,
            "--throughput",
            "300",
            "--command-config",
            &config,
        ],
    ));
    let sent = produced.filter(|line| line.contains("producer_send_success"));
    for (number, _) in sent.enumerate() {
        match number {
            500 => cluster.kill(1),
            1000 => cluster.start_nodes(&[1]),
            1500 => cluster.kill(2),
            2000 => cluster.start_nodes(&[2]),
            _ => {}
        }
    }
    let counts = counting.join().unwrap();
    let expected: BTreeSet<String> = (0..WORDS).map(|word| word.to_string()).collect();
    assert_eq!(counts.keys().cloned().collect::<BTreeSet<_>>(), expected);
    drop((producer, consumer, instances));
}

/// Reads the counts of the words that are committed, as they come.
struct Counts {
    consumer: AssignedConsumer,
    /// Those of each word, in order.
    by_word: BTreeMap<String, Vec<i64>>,
    rows: usize,
}

impl Counts {
    async fn new(client: &Client) -> Self {
        let columns = ["key", "value"].map(str::to_owned).to_vec();
        let decode =
            DecodeOptions { columns: Some(columns), views: false, ..DecodeOptions::default() };
        let config = ConsumerConfig {
            isolation_level: IsolationLevel::ReadCommitted,
            ..client.config().consumer.clone()
        };
        let mut consumer = client.consumer_with(config, decode).unwrap();
        let places =
            (0..).zip(REPLICAS).map(|(partition, _)| TopicPartition::new(OUTPUT, partition));
        let starts: Vec<_> = places.map(|place| (place, StartAt::Earliest)).collect();
        consumer.assign(&starts).await.unwrap();
        Self { consumer, by_word: BTreeMap::new(), rows: 0 }
    }

    /// Reads until there are as many.
    async fn until(&mut self, rows: usize) {
        let wait = PollOptions { max_wait: Three::PATIENCE, fill: false };
        while self.rows < rows {
            let polled = self.consumer.poll(wait).await.unwrap();
            let polled = polled.unwrap_or_else(|| panic!("{} of {rows} counts", self.rows)).rows;
            let (words, counts) =
                (polled["key"].as_binary::<i32>(), polled["value"].as_binary::<i32>());
            for row in 0..polled.num_rows() {
                let word = String::from_utf8(words.value(row).to_vec()).unwrap();
                let count = i64::from_be_bytes(counts.value(row).try_into().unwrap());
                let of_word = self.by_word.entry(word).or_default();
                of_word.push(count);
                let expected = i64::try_from(of_word.len()).unwrap();
                // One that is lost or there twice would be seen here.
                assert_eq!(count, expected, "{of_word:?}");
            }
            self.rows += polled.num_rows();
        }
    }
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn kafka_streams_counts_each_word_once_while_nodes_and_instances_are_killed() {
    const WORDS: usize = 40;
    const ROUNDS: usize = 60;
    /// How many words are written that nobody has counted yet, at most.
    const AHEAD: usize = 200;
    let mut cluster = Three::start();
    for topic in [INPUT, OUTPUT] {
        cluster.create(topic, REPLICAS);
        cluster.until(topic, |partition| partition.isr.len() == 3);
    }
    let mut instances = [0, 1].map(|instance| Some(word_count(&cluster, instance, EXACTLY_ONCE)));
    let client = cluster.client();
    let mut counts = cluster.block_on(Counts::new(&client));
    let producer = cluster.block_on(async { client.producer() }).unwrap();
    for round in 0..ROUNDS {
        for word in 0..WORDS {
            let record = ProducerRecord::new(INPUT, format!("word{word}"));
            drop(cluster.block_on(producer.send(record)).unwrap());
        }
        cluster.block_on(producer.flush());
        cluster.block_on(counts.until(((round + 1) * WORDS).saturating_sub(AHEAD)));
        match round {
            10 => cluster.kill(1),
            15 => instances[0] = None,
            20 => cluster.start_nodes(&[1]),
            25 => instances[0] = Some(word_count(&cluster, 0, EXACTLY_ONCE)),
            30 => cluster.kill(2),
            35 => {
                // The other one, and the node, come back together.
                instances[1] = None;
                cluster.start_nodes(&[2]);
                instances[1] = Some(word_count(&cluster, 1, EXACTLY_ONCE));
            }
            45 => cluster.kill(3),
            50 => cluster.start_nodes(&[3]),
            _ => {}
        }
    }
    cluster.block_on(counts.until(WORDS * ROUNDS));
    assert_eq!(counts.by_word.len(), WORDS);
    drop(instances);
    // There is no more than that, and Apache Kafka's consumer sees the same.
    cluster.block_on(async {
        let end = ProducerRecord::new(OUTPUT, 0_i64.to_be_bytes().to_vec());
        for (partition, _) in (0..).zip(REPLICAS) {
            let end = ProducerRecord { partition: Some(partition.into()), ..end.clone() };
            producer.send_and_wait(end).await.unwrap();
        }
    });
    let count = (WORDS * ROUNDS + REPLICAS.len()).to_string();
    let text = cluster.run(
        "consumer.ConsoleConsumer",
        &[
            "--topic",
            OUTPUT,
            "--from-beginning",
            "--isolation-level",
            "read_committed",
            "--max-messages",
            &count,
            "--timeout-ms",
            "60000",
            "--formatter-property",
            "print.key=true",
            "--formatter-property",
            "key.separator= ",
            "--formatter-property",
            "value.deserializer=org.apache.kafka.common.serialization.LongDeserializer",
        ],
    );
    let ends = text.lines().filter(|line| *line == "null 0").count();
    assert_eq!(ends, REPLICAS.len(), "{text}");
    let mut found: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (word, count) in text.lines().filter_map(|line| line.split_once(' ')) {
        if word.starts_with("word") {
            found.entry(word).or_default().push(count.parse().unwrap());
        }
    }
    let found: BTreeMap<String, Vec<i64>> =
        found.into_iter().map(|(word, of)| (word.to_owned(), of)).collect();
    assert_eq!(found, counts.by_word);
}

/// A worker of Kafka Connect in distributed mode, and where it is asked.
fn connect_worker(cluster: &Three) -> (Running, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = format!(
        "bootstrap.servers={}\ngroup.id=connect\nlisteners={address}\n\
         key.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.storage.StringConverter\n\
         config.storage.topic=connect-configs\nconfig.storage.replication.factor=3\n\
         offset.storage.topic=connect-offsets\noffset.storage.replication.factor=3\noffset.storage.partitions=3\n\
         status.storage.topic=connect-status\nstatus.storage.replication.factor=3\nstatus.storage.partitions=3\n\
         offset.flush.interval.ms=500\n",
        cluster.servers()
    );
    let config = cluster.file("connect.properties", &config);
    let class = "org.apache.kafka.connect.cli.ConnectDistributed";
    let (running, lines) = Running::start(cluster.java(class, &[&config]));
    std::thread::spawn(|| lines.for_each(drop));
    (running, address)
}

/// Asks until an answer is as it should be.
fn ask(url: &str, is_so: impl Fn(&Value) -> bool) {
    let began = std::time::Instant::now();
    let mut last = String::new();
    while began.elapsed() < Three::PATIENCE {
        match ureq::get(url).call().and_then(|mut answer| answer.body_mut().read_json::<Value>()) {
            Ok(answer) if is_so(&answer) => return,
            Ok(answer) => last = answer.to_string(),
            Err(error) => last = error.to_string(),
        }
        std::thread::yield_now();
    }
    panic!("{url}: {last}");
}

/// Waits until a file has as many lines, and returns them.
fn lines(path: &Path, count: usize) -> Vec<String> {
    let began = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: BTreeSet<_> = text.split_terminator('\n').map(str::to_owned).collect();
        if lines.len() >= count {
            return text.split_terminator('\n').map(str::to_owned).collect();
        }
        assert!(began.elapsed() < Three::PATIENCE, "{} of {count} lines", lines.len());
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn kafka_connect_copies_a_file_while_nodes_are_killed() {
    const LINES: usize = 400;
    let mut cluster = Three::start();
    cluster.create("lines", &[&[1, 2, 3]]);
    cluster.until("lines", |partition| partition.isr.len() == 3);
    let source = cluster.file("source.txt", "");
    let sink = cluster.file("sink.txt", "");
    let (worker, address) = connect_worker(&cluster);
    ask(&address, |answer| answer["version"].is_string());
    for (name, class, topic, file) in [
        ("source", "FileStreamSourceConnector", "topic", &source),
        ("sink", "FileStreamSinkConnector", "topics", &sink),
    ] {
        let class = format!("org.apache.kafka.connect.file.{class}");
        let config =
            json!({"connector.class": class, "tasks.max": "1", "file": file, topic: "lines"});
        let body = json!({"name": name, "config": config});
        ureq::post(format!("{address}/connectors")).send_json(body).unwrap();
        let status = format!("{address}/connectors/{name}/status");
        ask(&status, |status| status["tasks"][0]["state"] == "RUNNING");
    }
    let mut file = OpenOptions::new().append(true).open(&source).unwrap();
    let mut write = |from: usize, to: usize| {
        (from..to).for_each(|line| writeln!(file, "line {line}").unwrap());
    };
    write(0, LINES / 4);
    lines(sink.as_ref(), LINES / 4);
    // The leader of the partition dies, and then another node; both come back.
    cluster.kill(1);
    write(LINES / 4, LINES / 2);
    lines(sink.as_ref(), LINES / 2);
    cluster.start_nodes(&[1]);
    cluster.until("lines", |partition| partition.isr.len() == 3);
    cluster.kill(2);
    write(LINES / 2, LINES);
    let copied = lines(sink.as_ref(), LINES);
    cluster.start_nodes(&[2]);
    let expected: BTreeSet<String> = (0..LINES).map(|line| format!("line {line}")).collect();
    assert_eq!(copied.into_iter().collect::<BTreeSet<_>>(), expected);
    for name in ["source", "sink"] {
        let status = format!("{address}/connectors/{name}/status");
        ask(&status, |status| {
            status["connector"]["state"] == "RUNNING" && status["tasks"][0]["state"] == "RUNNING"
        });
    }
    drop(worker);
}
