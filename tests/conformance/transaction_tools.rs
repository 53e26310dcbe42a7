//! The tools of Apache Kafka that have to do with transactions, with three of our nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ottla::client::{Client, IsolationLevel, ProducerRecord, ScanOptions, TransactionalProducer};
use ottla::error::ErrorCode;
use ottla::protocol::Records;
use ottla::protocol::messages::init_producer_id::InitProducerIdRequest;
use ottla::protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ottla::record::{BatchBuilder, BatchOptions};
use ottla::types::{ProducerEpoch, ProducerId, Sequence, TimestampMs};
use serde_json::Value;

use crate::nodes::{Running, Three, told};
use crate::three::NODES;
use crate::transactions::is_busy;
use crate::wire_client::WireClient;

const TRANSACTIONS: &str = "TransactionsCommand";

/// The rows of a table that the tool prints, by the names of their columns.
fn rows(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = text.lines().skip_while(|line| !line.contains("ProducerId"));
    let cells = |line: &str| -> Vec<String> {
        line.split('\t').map(|cell| cell.trim().to_owned()).collect()
    };
    let Some(head) = lines.next().map(cells) else { return Vec::new() };
    let filled = lines.filter(|line| !line.trim().is_empty());
    filled.map(|line| head.iter().cloned().zip(cells(line)).collect()).collect()
}

fn transactional(client: &Client, id: &str) -> TransactionalProducer {
    client.transactional(id, &client.config().producer).unwrap()
}

/// Begins a transaction with a record in each partition, which the logs have.
fn begun(cluster: &Three, client: &Client, id: &str, topic: &str) -> TransactionalProducer {
    cluster.block_on(async {
        let producer = transactional(client, id);
        producer.begin().await.unwrap();
        for partition in 0..2 {
            let mut record = ProducerRecord::new(topic, id.to_owned());
            record.partition = Some(partition.into());
            producer.producer().send_and_wait(record).await.unwrap();
        }
        producer
    })
}

/// How many records of a topic are committed, and stable.
fn committed(cluster: &Three, client: &Client, topic: &str) -> usize {
    cluster.block_on(async {
        let level = Some(IsolationLevel::ReadCommitted);
        let options = ScanOptions { isolation_level: level, ..ScanOptions::default() };
        let mut reader = client.scan(topic, options).await.unwrap().read().unwrap();
        let mut count = 0;
        while let Some(decoded) = reader.next().await.unwrap() {
            count += decoded.rows.num_rows();
        }
        count
    })
}

/// Asks until the state of an id is as it should be; returns its row.
fn described(cluster: &Three, id: &str, state: &str) -> BTreeMap<String, String> {
    let mut last = String::new();
    for _ in 0..20 {
        last = cluster.run(TRANSACTIONS, &["describe", "--transactional-id", id]);
        if let Some(row) = rows(&last).pop().filter(|row| row["TransactionState"] == state) {
            return row;
        }
    }
    panic!("{id} is not {state}: {last}");
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn transactions_are_listed_described_and_terminated() {
    let mut cluster = Three::start();
    cluster.create("t", &[&[1, 2, 3], &[2, 3, 1]]);
    cluster.until("t", |partition| partition.isr.len() == 3);
    let client = cluster.client();
    let open = begun(&cluster, &client, "open", "t");
    let done = begun(&cluster, &client, "done", "t");
    cluster.block_on(done.commit()).unwrap();

    let all = rows(&cluster.run(TRANSACTIONS, &["list"]));
    let by_id = |rows: &[BTreeMap<String, String>]| -> BTreeMap<String, String> {
        let pair = |row: &BTreeMap<String, String>| {
            (row["TransactionalId"].clone(), row["TransactionState"].clone())
        };
        rows.iter().map(pair).collect()
    };
    let states = by_id(&all);
    assert_eq!(states["open"], "Ongoing", "{states:?}");
    assert!(states["done"].ends_with("Commit"), "{states:?}");
    let one = rows(&cluster.run(TRANSACTIONS, &["list", "--transactional-id-pattern", "op.n"]));
    assert_eq!(by_id(&one).into_keys().collect::<Vec<_>>(), ["open"]);
    let long = rows(&cluster.run(TRANSACTIONS, &["list", "--duration-filter", "3600000"]));
    assert!(long.is_empty(), "{long:?}");

    let row = described(&cluster, "open", "Ongoing");
    let partitions: BTreeSet<&str> = row["TopicPartitions"].split(',').collect();
    assert_eq!(partitions, BTreeSet::from(["t-0", "t-1"]), "{row:?}");
    assert_eq!(row["TransactionTimeoutMs"], "60000", "{row:?}");
    assert!(row["TransactionDurationMs"].parse::<u64>().is_ok(), "{row:?}");
    assert!(NODES.map(|node| node.to_string()).contains(&row["CoordinatorId"]), "{row:?}");
    let (succeeded, text) =
        cluster.try_run(TRANSACTIONS, &["describe", "--transactional-id", "nobody"]);
    assert!(!succeeded && text.contains("could not be found"), "{text}");

    // The leader and each follower know the same producers.
    let producers = ["describe-producers", "--topic", "t", "--partition", "0"];
    let of = |text: &str| -> BTreeMap<String, (String, String)> {
        let row = |mut row: BTreeMap<String, String>| {
            let mut of = |name: &str| row.remove(name).unwrap();
            (of("ProducerId"), (of("ProducerEpoch"), of("CurrentTransactionStartOffset")))
        };
        rows(text).into_iter().map(row).collect()
    };
    let at_leader = of(&cluster.run(TRANSACTIONS, &producers));
    assert_eq!(at_leader.len(), 2, "{at_leader:?}");
    assert_eq!(at_leader[&row["ProducerId"]].1, "0", "{at_leader:?}");
    for node in NODES {
        let broker = node.to_string();
        let asked = [&producers[..], &["--broker-id", &broker]].concat();
        let mut text = String::new();
        for _ in 0..20 {
            text = cluster.run(TRANSACTIONS, &asked);
            if of(&text) == at_leader {
                break;
            }
        }
        assert_eq!(of(&text), at_leader, "node {node}: {text}");
    }

    // What its coordinator knows does not hang; it is aborted, in the name of its id.
    let hanging = ["find-hanging", "--topic", "t", "--max-transaction-timeout", "0"];
    let text = cluster.run(TRANSACTIONS, &hanging);
    assert!(rows(&text).is_empty(), "{text}");
    cluster.run(TRANSACTIONS, &["forceTerminateTransaction", "--transactionalId", "open"]);
    // Aborted, and initialised in the name of the administrator.
    described(&cluster, "open", "Empty");
    let error = cluster.block_on(open.commit()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::ProducerFenced, "{}", error.chain());
    assert_eq!(committed(&cluster, &client, "t"), 2);

    // The coordinator of an id that is open dies; another one knows it.
    let open = begun(&cluster, &client, "open", "t");
    let row = described(&cluster, "open", "Ongoing");
    let coordinator: i32 = row["CoordinatorId"].parse().unwrap();
    cluster.kill(coordinator);
    let after = described(&cluster, "open", "Ongoing");
    assert_ne!(after["CoordinatorId"], row["CoordinatorId"]);
    let same = ["ProducerId", "ProducerEpoch", "CurrentTransactionStartTimeMs"];
    assert!(same.iter().all(|&name| after[name] == row[name]), "{row:?}, {after:?}");
    cluster.block_on(open.commit()).unwrap();
    described(&cluster, "open", "CompleteCommit");
    cluster.start_nodes(&[coordinator]);
    assert_eq!(committed(&cluster, &client, "t"), 4);
}

/// A producer id for an id whose transactions its coordinator hears nothing of.
fn unheard(cluster: &Three, id: &str) -> (i64, i16) {
    let request = InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    // One of the nodes is the coordinator.
    for node in NODES.into_iter().cycle().take(3000) {
        let answer = WireClient::connect(cluster.address(node)).call(5, request.clone());
        if answer.error_code == 0 {
            return (answer.producer_id, answer.producer_epoch);
        }
        assert!(is_busy(answer.error_code), "{answer:?}");
    }
    panic!("no coordinator for {id}");
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn transactions_that_hang_are_found_and_aborted() {
    // Without verification a leader takes what belongs to no transaction, as before KIP-890.
    let cluster = Three::start_with(&[("transaction.partition.verification.enable", "false")]);
    cluster.create("t", &[&[1, 2, 3], &[2, 3, 1]]);
    cluster.until("t", |partition| partition.isr.len() == 3);
    let client = cluster.client();
    let fine = begun(&cluster, &client, "fine", "t");
    cluster.block_on(fine.commit()).unwrap();
    let (producer_id, producer_epoch) = unheard(&cluster, "hanging");
    let mut batch = BatchBuilder::new(BatchOptions {
        producer_id: ProducerId(producer_id),
        producer_epoch: ProducerEpoch(producer_epoch),
        base_sequence: Sequence(0),
        transactional: true,
        ..BatchOptions::default()
    });
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let time = TimestampMs(i64::try_from(since.as_millis()).unwrap());
    batch.append(time, None, Some(b"lost"), &[]).unwrap();
    let records = Some(Records::from(batch.finish().unwrap()));
    let data = PartitionProduceData { index: 0, records };
    let topic = TopicProduceData {
        name: "t".into(),
        partition_data: vec![data],
        ..TopicProduceData::default()
    };
    let request = ProduceRequest {
        transactional_id: Some("hanging".into()),
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![topic],
    };
    let mut answer = WireClient::connect(cluster.address(1)).call(9, request);
    let answer = answer.responses.remove(0).partition_responses.remove(0);
    assert_eq!(answer.error_code, 0, "{answer:?}");
    let begin = answer.base_offset.to_string();

    let plain = cluster.block_on(async { client.producer() }).unwrap();
    let mut record = ProducerRecord::new("t", "behind it");
    record.partition = Some(0.into());
    cluster.block_on(plain.send_and_wait(record)).unwrap();
    assert_eq!(committed(&cluster, &client, "t"), 2);

    let find = ["find-hanging", "--broker-id", "1", "--max-transaction-timeout", "0"];
    let found = rows(&cluster.run(TRANSACTIONS, &find));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&*found[0]["Topic"], &*found[0]["Partition"]), ("t", "0"));
    assert_eq!(found[0]["ProducerId"], producer_id.to_string());
    assert_eq!(found[0]["StartOffset"], begin);
    cluster.run(
        TRANSACTIONS,
        &["abort", "--topic", "t", "--partition", "0", "--start-offset", &begin],
    );
    for _ in 0..1000 {
        if committed(&cluster, &client, "t") == 3 {
            break;
        }
    }
    assert_eq!(committed(&cluster, &client, "t"), 3);
    let found = rows(&cluster.run(TRANSACTIONS, &find));
    assert!(found.is_empty(), "{found:?}");
}

/// The settings with which Java's producers go on for as long as it takes.
const RETRYING: &str = "retries=2147483647\nenable.idempotence=true\n";

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn messages_are_copied_once_while_nodes_are_killed() {
    const MESSAGES: usize = 4000;
    let mut cluster = Three::start();
    for (topic, replicas) in
        [("source", [[1, 2, 3], [2, 3, 1]]), ("target", [[3, 1, 2], [1, 2, 3]])]
    {
        cluster.create(topic, &[&replicas[0], &replicas[1]]);
        cluster.until(topic, |partition| partition.isr.len() == 3);
    }
    let (servers, count) = (cluster.servers(), MESSAGES.to_string());
    let config = cluster.file("producer.properties", RETRYING);
    let producer = ["--bootstrap-server", &servers, "--topic", "source", "--max-messages", &count];
    let producer = [&producer[..], &["--acks", "-1", "--command-config", &config]].concat();
    let made = cluster.command("VerifiableProducer", &producer).output().unwrap();
    let (succeeded, text) = told(made);
    assert!(succeeded, "{text}");
    let arguments = [
        ["--broker-list", &servers],
        ["--input-topic", "source"],
        ["--input-partition", "0"],
        ["--output-topic", "target"],
        ["--consumer-group", "copiers"],
        ["--transactional-id", "copier"],
        ["--transaction-size", "50"],
    ];
    let switches = ["--enable-random-aborts", "--use-group-metadata", "--group-mode"];
    let arguments = [arguments.as_flattened(), &switches].concat();
    let (copier, lines) = Running::start(cluster.command("TransactionalMessageCopier", &arguments));
    let mut last = String::new();
    let mut consumed = 0;
    let mut killed = Vec::new();
    for line in lines.filter(|line| line.starts_with('{')) {
        let event: Value = serde_json::from_str(&line).unwrap();
        consumed = event["totalProcessed"].as_u64().unwrap_or(consumed);
        // Each node dies once, and comes back.
        for (at, node) in [(500, 1), (1500, 2), (2500, 3)] {
            if consumed > at && !killed.contains(&node) {
                cluster.kill(node);
                killed.push(node);
            } else if consumed > at + 500 && killed.last() == Some(&node) {
                cluster.start_nodes(&[node]);
                killed.push(0);
            }
        }
        last = line;
        if event["remaining"] == 0 && event["stage"] == "ShutdownComplete" {
            break;
        }
    }
    assert!(killed.contains(&3), "{killed:?}, {last}");
    drop(copier);
    let gone: Vec<i32> = killed.last().copied().filter(|&node| node != 0).into_iter().collect();
    cluster.start_nodes(&gone);
    let text = cluster.run(
        "consumer.ConsoleConsumer",
        &[
            ["--topic", "target"],
            ["--isolation-level", "read_committed"],
            ["--timeout-ms", "10000"],
        ]
        .as_flattened()
        .iter()
        .copied()
        .chain(["--from-beginning"])
        .collect::<Vec<_>>(),
    );
    let mut found: Vec<usize> = text.lines().filter_map(|line| line.parse().ok()).collect();
    found.sort_unstable();
    assert_eq!(found, (0..MESSAGES).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn the_files_of_transactions_are_dumped() {
    let cluster = Three::start();
    // A segment holds one of the records.
    cluster.create_with("t", &[&[1, 2, 3], &[2, 3, 1]], &[("segment.bytes", "1048576")]);
    cluster.until("t", |partition| partition.isr.len() == 3);
    let client = cluster.client();
    let dump = |files: Vec<PathBuf>, more: &[&str]| {
        let names: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
        let names = names.join(",");
        let options = [&["--files", &names], more].concat();
        let (succeeded, text) =
            told(cluster.command("DumpLogSegments", &options).output().unwrap());
        assert!(succeeded && !text.contains("isvalid: false"), "{text}");
        text
    };
    cluster.block_on(async {
        let producer = transactional(&client, "writer");
        for round in 0..4 {
            producer.begin().await.unwrap();
            for partition in 0..2 {
                let mut record = ProducerRecord::new("t", vec![b'x'; 700_000]);
                record.partition = Some(partition.into());
                producer.producer().send_and_wait(record).await.unwrap();
            }
            if round % 2 == 0 {
                producer.abort().await.unwrap();
            } else {
                producer.commit().await.unwrap();
            }
        }
    });
    described(&cluster, "writer", "CompleteCommit");
    // All copies tell the same of what was aborted, and of the producer.
    let producers =
        cluster.run(TRANSACTIONS, &["describe-producers", "--topic", "t", "--partition", "0"]);
    let producer_id = rows(&producers).pop().unwrap()["ProducerId"].clone();
    for node in NODES {
        let text = dump(cluster.files(node, "t-0", "txnindex"), &[]);
        let aborted = text.lines().filter(|line| line.contains("firstOffset: "));
        let aborted: Vec<&str> = aborted.collect();
        assert_eq!(aborted.len(), 2, "node {node}: {text}");
        assert!(
            aborted.iter().all(|line| line.contains(&format!("producerId: {producer_id} "))),
            "{text}"
        );
        let text = dump(cluster.files(node, "t-0", "snapshot"), &[]);
        assert!(text.contains(&format!("producerId: {producer_id} ")), "node {node}: {text}");
        let text = dump(cluster.files(node, "t-0", "log"), &["--deep-iteration"]);
        for marker in ["endTxnMarker: COMMIT", "endTxnMarker: ABORT"] {
            assert_eq!(text.matches(marker).count(), 2, "node {node}: {text}");
        }
    }
    // The states, as their coordinator wrote them.
    let topic = "__transaction_state";
    for node in NODES {
        let partitions = cluster.partitions(node, topic);
        let files = partitions.iter().flat_map(|partition| cluster.files(node, partition, "log"));
        let text = dump(files.collect(), &["--transaction-log-decoder"]);
        let mut states: Vec<&str> = text
            .lines()
            .filter(|line| line.contains(r#""transactionalId":"writer""#))
            .filter_map(|line| line.split_once(r#""transactionStatus":""#))
            .filter_map(|(_, rest)| rest.split('"').next())
            .collect();
        // Its partitions are added one by one.
        states.dedup();
        let round = [
            "Ongoing",
            "PrepareAbort",
            "CompleteAbort",
            "Ongoing",
            "PrepareCommit",
            "CompleteCommit",
        ];
        assert_eq!(states, [&["Empty"][..], &round, &round].concat(), "node {node}: {text}");
    }
    let formatter = "org.apache.kafka.tools.consumer.TransactionLogMessageFormatter";
    let text = cluster.run(
        "consumer.ConsoleConsumer",
        &["--topic", topic, "--formatter", formatter, "--from-beginning", "--timeout-ms", "10000"],
    );
    let begin = text.find('{').unwrap_or_else(|| panic!("no record: {text}"));
    let rows = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<Value>();
    let rows: Vec<Value> = rows.map_while(Result::ok).collect();
    let last = rows.iter().rfind(|row| row["key"]["data"]["transactionalId"] == "writer");
    let last = &last.expect("a record of the id")["value"]["data"];
    assert_eq!(last["producerId"].to_string(), producer_id, "{last}");
    assert!([4.into(), "CompleteCommit".into()].contains(&last["transactionStatus"]), "{last}");
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn the_java_producer_commits_while_nodes_are_killed() {
    const RECORDS: usize = 30_000;
    let mut cluster = Three::start();
    cluster.create("t", &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]]);
    cluster.until("t", |partition| partition.isr.len() == 3);
    let count = RECORDS.to_string();
    let servers = cluster.servers();
    let arguments = [
        ["--topic", "t"],
        ["--num-records", &count],
        ["--record-size", "100"],
        ["--throughput", "3000"],
        ["--bootstrap-server", &servers],
        ["--transactional-id", "measured"],
        ["--transaction-duration-ms", "50"],
        ["--reporting-interval", "500"],
    ];
    let (_producer, lines) =
        Running::start(cluster.command("ProducerPerformance", arguments.as_flattened()));
    let mut sent = 0;
    let mut killed = Vec::new();
    for line in lines {
        let reported =
            line.split_once(" records sent").and_then(|(count, _)| count.parse::<usize>().ok());
        sent += reported.unwrap_or_default();
        for (at, node) in [(3_000, 1), (12_000, 2), (21_000, 3)] {
            if sent > at && !killed.contains(&node) {
                cluster.kill(node);
                cluster.start_nodes(&[node]);
                killed.push(node);
            }
        }
    }
    assert_eq!(killed, NODES);
    assert!(sent >= RECORDS, "{sent}");
    described(&cluster, "measured", "CompleteCommit");
    assert_eq!(committed(&cluster, &cluster.client(), "t"), RECORDS);
}
