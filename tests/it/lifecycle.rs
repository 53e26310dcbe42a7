//! Starting, stopping, crashing, and what survives it.

use std::time::{Duration, Instant};

use ottla::broker::BrokerOptions;
use ottla::protocol::messages::metadata::{MetadataRequest, MetadataResponse};
use ottla::protocol::{Request, Response, Str};

use crate::support::{Client, TestBroker, batch, produce_request};

fn metadata(client: &mut Client) -> MetadataResponse {
    client.call(12, MetadataRequest { topics: None, ..Default::default() })
}

#[test]
fn records_topics_and_ids_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::in_directory(directory.path().join("made/on/demand"));
    let node = TestBroker::start(options.clone());
    let mut client = node.client();
    client.create_topic("t", 2, &[("retention.ms", "123456789")]);
    client.produce("t", 0, -1, batch(&[b"a", b"b"]));
    client.produce("t", 1, 1, batch(&[b"c"]));
    let before = metadata(&mut client);
    node.stop();
    for _ in 0..2 {
        let node = TestBroker::start(options.clone());
        let mut client = node.client();
        let after = metadata(&mut client);
        let identity =
            |seen: &MetadataResponse| (seen.topics[0].topic_id, seen.topics[0].partitions.len());
        assert_eq!(identity(&after), identity(&before));
        assert_eq!(after.cluster_id, before.cluster_id);
        assert_eq!(client.values("t", 0, 0), [(0, b"a".to_vec()), (1, b"b".to_vec())]);
        assert_eq!(client.values("t", 1, 0), [(0, b"c".to_vec())]);
        node.stop();
    }
}

#[test]
fn what_was_acknowledged_survives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::in_directory(directory.path());
    let mut expected = Vec::new();
    for round in 0..5_i64 {
        let node = TestBroker::start(options.clone());
        let mut client = node.client();
        if round == 0 {
            client.create_topic("t", 1, &[]);
        }
        assert_eq!(client.values("t", 0, 0), expected, "round {round}");
        for step in 0..20 {
            let value = format!("{round}.{step}").into_bytes();
            let offset = client.produce("t", 0, -1, batch(&[&value])).base_offset;
            expected.push((offset, value));
        }
        drop(client);
        node.crash();
    }
}

#[test]
fn a_broker_in_memory_leaves_nothing_behind() {
    let node = TestBroker::in_memory();
    let path = node.broker().data_dir().to_path_buf();
    node.client().create_topic("t", 1, &[]);
    assert!(path.join("t-0").exists());
    node.stop();
    assert!(!path.exists());
    let node = TestBroker::in_memory();
    let path = node.broker().data_dir().to_path_buf();
    node.crash();
    assert!(!path.exists(), "also when it is only dropped");
}

#[test]
fn a_directory_has_one_broker() {
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::in_directory(directory.path());
    let node = TestBroker::start(options.clone());
    let error = TestBroker::try_start(options.clone()).err().unwrap().to_string();
    assert!(error.contains("in use"), "{error}");
    node.stop();
    TestBroker::start(options).stop();
}

#[test]
fn a_dropped_broker_lets_go_of_its_directory_though_a_client_holds_its_service() {
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::in_directory(directory.path());
    let node = TestBroker::start(options.clone());
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    client.produce("t", 0, -1, batch(&[b"x"]));
    let service = node.broker().service();
    node.crash();
    let node = TestBroker::start(options);
    assert_eq!(node.client().values("t", 0, 0).len(), 1);
    let request = Request::from(produce_request("t", 0, -1, batch(&[b"y"])));
    assert!(node.block_on(service.call(&Str::EMPTY, 9, request)).is_err());
    node.stop();
}

#[test]
fn wrong_settings_are_refused_by_name() {
    for (name, value, word) in [
        ("listeners", "SASL_SSL://:9092", "security"),
        ("no.such.setting", "1", "no.such.setting"),
        ("auto.create.topics.enabel", "true", "auto.create.topics.enable"),
        ("num.partitions", "many", "num.partitions"),
    ] {
        let options = BrokerOptions::in_memory().with(name, value);
        let error = TestBroker::try_start(options).err().unwrap().to_string();
        assert!(error.contains(word), "{name}: {error}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listeners = Some(format!("PLAINTEXT://127.0.0.1:{port}"));
    let options = BrokerOptions { listeners, ..BrokerOptions::in_memory() };
    let error = TestBroker::try_start(options).err().unwrap().to_string();
    assert!(error.contains(&port.to_string()), "{error}");
}

#[test]
fn a_stop_answers_what_was_sent_and_is_over_soon() {
    let directory = tempfile::tempdir().unwrap();
    let node = TestBroker::start(BrokerOptions::in_directory(directory.path()));
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let held: Vec<_> = (0..20).map(|_| node.client()).collect();
    let started = Instant::now();
    node.stop();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(client.is_closed());
    drop(held);
    assert!(directory.path().join(".kafka_cleanshutdown").exists());
}

#[test]
fn the_in_process_way_is_the_same_broker() {
    let node = TestBroker::in_memory();
    node.client().create_topic("t", 1, &[]);
    let service = node.broker().service();
    let request = Request::from(produce_request("t", 0, -1, batch(&[b"x"])));
    let response = node.block_on(service.call(&Str::EMPTY, 9, request)).unwrap().unwrap();
    let Response::Produce(response) = response else { panic!("{response:?}") };
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    let silent = Request::from(produce_request("t", 0, 0, batch(&[b"y"])));
    assert_eq!(node.block_on(service.call(&Str::EMPTY, 9, silent)).unwrap(), None);
    assert_eq!(node.client().values("t", 0, 0).len(), 2);
    let request = Request::from(produce_request("t", 0, -1, batch(&[b"x"])));
    assert!(node.block_on(service.call(&Str::EMPTY, 99, request)).is_err());
}

#[test]
fn a_thousand_partitions_are_created_and_come_back() {
    const PARTITIONS: i32 = 1000;
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::in_directory(directory.path());
    let node = TestBroker::start(options.clone());
    let mut client = node.client();
    client.create_topic("many", PARTITIONS, &[]);
    for partition in (0..PARTITIONS).step_by(100) {
        let produced = client.produce("many", partition, -1, batch(&[b"before"]));
        assert_eq!(produced.error_code, 0, "{produced:?}");
    }
    node.stop();
    // Once after a clean stop, once after a crash, and once after a stop with nothing changed.
    for crash in [true, false, false] {
        let node = TestBroker::start(options.clone());
        let mut client = node.client();
        for partition in [0, 1, 100, 900, PARTITIONS - 1] {
            let there = usize::from(partition % 100 == 0);
            assert_eq!(client.values("many", partition, 0).len(), there, "{partition}");
        }
        if crash { node.crash() } else { node.stop() }
    }
}
