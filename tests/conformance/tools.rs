//! The tools of Apache Kafka that operate a cluster, with three of our nodes.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::nodes::{Running, Three, told};
use crate::three::NODES;

const TOPICS: &str = "TopicCommand";
const REASSIGN: &str = "reassign.ReassignPartitionsCommand";
const ELECT: &str = "LeaderElectionCommand";
const CONFIGS: &str = "ConfigCommand";
const QUORUM: &str = "MetadataQuorumCommand";

/// What the tool prints after a line that ends like this.
fn after<'a>(text: &'a str, line: &str) -> &'a str {
    let (_, rest) = text.split_once(line).unwrap_or_else(|| panic!("no {line:?}: {text}"));
    rest.trim_start().lines().next().unwrap_or_default()
}

fn move_of(topic: &str, replicas: &[&[i32]]) -> String {
    let one = |(partition, replicas): (usize, &&[i32])| serde_json::json!({"topic": topic, "partition": partition, "replicas": replicas});
    let partitions: Vec<Value> = replicas.iter().enumerate().map(one).collect();
    serde_json::json!({"version": 1, "partitions": partitions}).to_string()
}

/// Asks until nothing is being moved any more.
fn verify(cluster: &Three, file: &str) -> String {
    for _ in 0..30 {
        let text = cluster.run(REASSIGN, &["--reassignment-json-file", file, "--verify"]);
        if !text.contains("still in progress") {
            return text;
        }
    }
    panic!("the reassignment does not end");
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn topics_are_described_and_moved() {
    let mut cluster = Three::start();
    let created = cluster.run(
        TOPICS,
        &["--create", "--topic", "t", "--partitions", "6", "--replication-factor", "3"],
    );
    assert!(created.contains("Created topic t."), "{created}");
    cluster.until("t", |partition| partition.isr.len() == 3);
    let described = cluster.run(TOPICS, &["--describe", "--topic", "t"]);
    assert_eq!(described.matches("Partition: ").count(), 6, "{described}");
    assert!(described.contains("ReplicationFactor: 3"), "{described}");
    for filter in [
        "--under-replicated-partitions",
        "--under-min-isr-partitions",
        "--at-min-isr-partitions",
        "--unavailable-partitions",
    ] {
        let none = cluster.run(TOPICS, &["--describe", filter]);
        assert!(!none.contains("Partition: "), "{filter}: {none}");
    }

    // Generate, execute, verify.
    cluster.create("moved", &[&[1, 2], &[2, 3], &[3, 1]]);
    let topics = cluster.file("topics.json", r#"{"version": 1, "topics": [{"topic": "moved"}]}"#);
    let proposed = cluster.run(
        REASSIGN,
        &["--topics-to-move-json-file", &topics, "--broker-list", "1,2", "--generate"],
    );
    let plan = after(&proposed, "Proposed partition reassignment configuration\n");
    let plan = cluster.file("plan.json", plan);
    let started = cluster.run(REASSIGN, &["--reassignment-json-file", &plan, "--execute"]);
    assert!(started.contains("Successfully started partition reassignments"), "{started}");
    let done = verify(&cluster, &plan);
    assert_eq!(done.matches("is completed").count(), 3, "{done}");
    cluster.until("moved", |partition| partition.replicas.iter().all(|node| node.0 <= 2));

    // Throttled, and the throttles are cleared once it is done.
    let plan = cluster.file("back.json", &move_of("moved", &[&[3, 1]]));
    let throttled = ["--reassignment-json-file", &plan, "--execute", "--throttle", "50000000"];
    let started = cluster.run(REASSIGN, &throttled);
    assert!(started.contains("throttle limit was set to 50000000 B/s"), "{started}");
    let settings = |cluster: &Three| {
        let of = |kind: &str, name: &str| {
            cluster.run(CONFIGS, &["--describe", "--entity-type", kind, "--entity-name", name])
        };
        [of("topics", "moved"), of("brokers", "1"), of("brokers", "3")]
    };
    for text in settings(&cluster) {
        assert!(text.contains("leader.replication.throttled."), "{text}");
        assert!(text.contains("follower.replication.throttled."), "{text}");
    }
    let done = verify(&cluster, &plan);
    assert!(done.contains("Clearing topic-level throttles on topic moved"), "{done}");
    for text in settings(&cluster) {
        assert!(!text.contains("throttled"), "{text}");
    }
    let plan = cluster.file("again.json", &move_of("moved", &[&[1, 2]]));
    cluster.run(REASSIGN, &["--reassignment-json-file", &plan, "--execute"]);
    verify(&cluster, &plan);

    // A copy that cannot be made keeps the move open, so that it can be listed and cancelled.
    cluster.kill(3);
    cluster.until("t", |partition| partition.isr.len() == 2);
    for filter in ["--under-replicated-partitions", "--at-min-isr-partitions"] {
        let found = cluster.run(TOPICS, &["--describe", "--topic", "t", filter]);
        assert_eq!(found.matches("Partition: ").count(), 6, "{filter}: {found}");
    }
    // The tool itself moves nothing to a broker that has stopped.
    let plan = cluster.file("away.json", &move_of("moved", &[&[1, 3]]));
    let execute = ["--reassignment-json-file", &plan, "--execute"];
    let (succeeded, text) = cluster.try_run(REASSIGN, &execute);
    assert!(!succeeded && text.contains("Unknown broker id 3"), "{text}");
    cluster.reassign("moved", 0, &[1, 3]);
    let listed = cluster.run(REASSIGN, &["--list"]);
    assert!(listed.contains("moved-0: replicas: 1,3,2. adding: 3. removing: 2."), "{listed}");
    let other = cluster.file("other.json", &move_of("moved", &[&[2, 1]]));
    let execute = ["--reassignment-json-file", &other, "--execute"];
    let (succeeded, text) = cluster.try_run(REASSIGN, &execute);
    assert!(!succeeded && text.contains("there is an existing partition assignment"), "{text}");
    let open = cluster.run(REASSIGN, &["--reassignment-json-file", &plan, "--verify"]);
    assert!(open.contains("moved-0 is still in progress"), "{open}");
    // Without throttles, whose removal waits for all brokers, also for those that have stopped.
    let cancel = ["--reassignment-json-file", &plan, "--cancel", "--preserve-throttles"];
    let cancelled = cluster.run(REASSIGN, &cancel);
    assert!(cancelled.contains("Successfully cancelled partition reassignment"), "{cancelled}");
    let listed = cluster.run(REASSIGN, &["--list"]);
    assert!(listed.contains("No partition reassignments found."), "{listed}");
    cluster.until("moved", |partition| partition.replicas.iter().all(|node| node.0 <= 2));
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn leaders_are_elected() {
    let mut cluster = Three::start();
    cluster.create("t", &[&[1, 2, 3], &[1, 3, 2]]);
    cluster.create("alone", &[&[1]]);
    cluster.until("t", |partition| partition.isr.len() == 3);
    cluster.kill(1);
    cluster.until("t", |partition| partition.leader.is_some_and(|node| node.0 != 1));
    let all = ["--election-type", "preferred", "--all-topic-partitions"];
    // The tool asks for all partitions of the cluster, also those that nobody can lead.
    let (succeeded, text) = cluster.try_run(ELECT, &all);
    assert!(!succeeded && text.contains("PreferredLeaderNotAvailable"), "{text}");
    let unclean = ["--election-type", "unclean", "--topic", "alone", "--partition", "0"];
    let (succeeded, text) = cluster.try_run(ELECT, &unclean);
    assert!(!succeeded && text.contains("EligibleLeadersNotAvailable"), "{text}");
    cluster.start_nodes(&[1]);
    cluster.until("t", |partition| partition.isr.len() == 3);
    let text = cluster.run(ELECT, &all);
    cluster.until("t", |partition| partition.leader.is_some_and(|node| node.0 == 1));
    assert!(text.contains("Successfully completed leader election (PREFERRED)"), "{text}");
    let text =
        cluster.run(ELECT, &["--election-type", "preferred", "--topic", "t", "--partition", "0"]);
    assert!(text.contains("Valid replica already elected"), "{text}");

    // Only an unclean election gives the partition a leader while those are gone that may have what was committed: with
    // a minimum of one, that is the last one in sync.
    cluster.create_with("pair", &[&[3, 2]], &[("min.insync.replicas", "1")]);
    cluster.until("pair", |partition| partition.isr.len() == 2);
    cluster.kill(2);
    cluster.until("pair", |partition| partition.isr.len() == 1);
    cluster.kill(3);
    cluster.start_nodes(&[2]);
    cluster.until("pair", |partition| partition.leader.is_none());
    let text = cluster.run(TOPICS, &["--describe", "--unavailable-partitions"]);
    assert!(text.contains("Topic: pair"), "{text}");
    let preferred = ["--election-type", "preferred", "--topic", "pair", "--partition", "0"];
    let (succeeded, text) = cluster.try_run(ELECT, &preferred);
    assert!(!succeeded && text.contains("PreferredLeaderNotAvailable"), "{text}");
    let unclean = ["--election-type", "unclean", "--topic", "pair", "--partition", "0"];
    let text = cluster.run(ELECT, &unclean);
    assert!(text.contains("Successfully completed leader election (UNCLEAN)"), "{text}");
    cluster.until("pair", |partition| partition.leader.is_some_and(|node| node.0 == 2));
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn the_cluster_is_described() {
    let mut cluster = Three::start();
    let status = cluster.run(QUORUM, &["describe", "--status"]);
    for expected in ["ClusterId:", "LeaderId:", "LeaderEpoch:", "HighWatermark:", "MaxFollowerLag:"]
    {
        assert!(status.contains(expected), "{status}");
    }
    let voters = status.lines().find(|line| line.starts_with("CurrentVoters:")).unwrap();
    for node in NODES {
        assert!(voters.contains(&format!("\"id\": {node}")), "{status}");
    }
    let replication = cluster.run(QUORUM, &["describe", "--replication"]);
    assert_eq!(replication.matches("Leader").count(), 1, "{replication}");
    assert_eq!(replication.matches("Follower").count(), 2, "{replication}");
    let features = cluster.run("FeatureCommand", &["describe"]);
    assert!(features.contains("Feature: metadata.version"), "{features}");
    let (succeeded, text) =
        cluster.try_run("FeatureCommand", &["upgrade", "--feature", "metadata.version=1"]);
    assert!(!succeeded && text.contains("metadata.version"), "{text}");

    let servers = cluster.servers();
    let tool = |cluster: &Three, arguments: &[&str]| {
        let all = [&arguments[..1], &["--bootstrap-server", &servers], &arguments[1..]].concat();
        told(cluster.command("ClusterTool", &all).output().unwrap())
    };
    let id = tool(&cluster, &["cluster-id"]).1;
    assert!(id.starts_with("Cluster ID: "), "{id}");
    let endpoints = tool(&cluster, &["list-endpoints"]).1;
    assert_eq!(endpoints.matches("127.0.0.1").count(), 3, "{endpoints}");
    let (succeeded, text) = tool(&cluster, &["unregister", "--id", "3"]);
    assert!(!text.contains("is no longer registered"), "{succeeded} {text}");
    cluster.create("t", &[&[1, 2, 3]]);
    cluster.until("t", |partition| partition.isr.len() == 3);
    let sizes = cluster.run("LogDirsCommand", &["--describe", "--topic-list", "t"]);
    let found: Value = serde_json::from_str(sizes.lines().last().unwrap()).unwrap();
    assert_eq!(found["brokers"].as_array().unwrap().len(), 3, "{sizes}");
    assert_eq!(sizes.matches("\"partition\":\"t-0\"").count(), 3, "{sizes}");
    cluster.kill(3);
    cluster.until("t", |partition| partition.isr.len() == 2);
    let endpoints = tool(&cluster, &["list-endpoints", "--include-fenced-brokers"]).1;
    assert_eq!(endpoints.matches("127.0.0.1").count(), 3, "{endpoints}");
    assert!(endpoints.contains("fenced"), "{endpoints}");
    let (_, text) = tool(&cluster, &["unregister", "--id", "3"]);
    assert!(text.contains("Broker 3 is no longer registered."), "{text}");
    let endpoints = tool(&cluster, &["list-endpoints", "--include-fenced-brokers"]).1;
    assert_eq!(endpoints.matches("127.0.0.1").count(), 2, "{endpoints}");
}

/// A tool that reports events, as JSON.
fn events(command: Command) -> (Running, impl Iterator<Item = Value>) {
    let (running, lines) = Running::start(command);
    (running, lines.map(|line| serde_json::from_str(&line).unwrap()))
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn producer_and_consumer_go_on_while_nodes_are_killed() {
    const RECORDS: usize = 6000;
    let mut cluster = Three::start();
    cluster.create("t", &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]]);
    cluster.until("t", |partition| partition.isr.len() == 3);
    let (servers, count) = (cluster.servers(), RECORDS.to_string());
    // Without retries, which it turns off, it would report each killed node.
    let retrying = "retries=2147483647\nenable.idempotence=true\n";
    let config = cluster.file("producer.properties", retrying);
    let consumer = cluster.command(
        "VerifiableConsumer",
        &["--bootstrap-server", &servers, "--topic", "t", "--group-id", "g", "--verbose"],
    );
    let (consumer, consumed) = events(consumer);
    let producer = cluster.command(
        "VerifiableProducer",
        &[
            "--bootstrap-server",
            &servers,
            "--topic",
            "t",
            "--max-messages",
            &count,
            "--throughput",
            "500",
            "--acks",
            "-1",
            "--command-config",
            &config,
        ],
    );
    let (producer, produced) = events(producer);
    let reading = std::thread::spawn(move || {
        let mut values = BTreeSet::new();
        let records = consumed.filter(|event| event["name"] == "record_data");
        for record in records {
            values.insert(record["value"].as_str().unwrap().to_owned());
            if values.len() == RECORDS {
                return values;
            }
        }
        panic!("the consumer ended after {} values", values.len());
    });
    let mut acknowledged = BTreeSet::new();
    for event in produced {
        match event["name"].as_str().unwrap() {
            "producer_send_success" => {
                acknowledged.insert(event["value"].as_str().unwrap().to_owned());
                // Each node dies once, and comes back.
                match acknowledged.len() {
                    1000 => cluster.kill(1),
                    2000 => cluster.start_nodes(&[1]),
                    2500 => cluster.kill(2),
                    3500 => cluster.start_nodes(&[2]),
                    4000 => cluster.kill(3),
                    5000 => cluster.start_nodes(&[3]),
                    _ => {}
                }
            }
            "producer_send_error" => panic!("{event}"),
            "tool_data" => assert_eq!(event["acked"], RECORDS, "{event}"),
            _ => {}
        }
    }
    drop(producer);
    assert_eq!(acknowledged.len(), RECORDS);
    assert_eq!(reading.join().unwrap(), acknowledged);
    drop(consumer);

    // The copies are the same, as two tools see them.
    cluster.until("t", |partition| partition.isr.len() == 3);
    for partition in ["t-0", "t-1", "t-2"] {
        let dumps = NODES.map(|node| {
            let files = cluster.files(node, partition, "log");
            let names: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
            let options = ["--files", &names.join(","), "--deep-iteration", "--print-data-log"];
            let (succeeded, text) =
                told(cluster.command("DumpLogSegments", &options).output().unwrap());
            assert!(succeeded && !text.contains("isvalid: false"), "{text}");
            // All but the first lines, which name the file.
            text.lines().filter(|line| line.contains("offset: ")).collect::<Vec<_>>().join("\n")
        });
        assert!(dumps[0].contains("payload: "), "{}", dumps[0]);
        assert_eq!(dumps[0], dumps[1], "{partition}");
        assert_eq!(dumps[1], dumps[2], "{partition}");
    }
    let verification = cluster.command(
        "ReplicaVerificationTool",
        &["--broker-list", &servers, "--topics-include", "t", "--report-interval-ms", "200"],
    );
    let (_running, mut lines) = Running::start(verification);
    let report = lines.find(|line| line.contains("max lag is"));
    let report = report.expect("a report");
    assert!(report.contains("max lag is 0 "), "{report}");
}
