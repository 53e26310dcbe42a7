//! Transactions with three nodes: followers show what is committed, topics are deleted in mid-transaction, and coordinators
//! are killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ottla::protocol::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use ottla::protocol::messages::fetch::FetchRequest;

use crate::cluster::{create_with, metadata};
use crate::hostile_transactions::{committed, fetch_committed, produce};
use crate::support::{Client, PATIENCE, TestBroker, batch, fetch_request};
use crate::three::{self, NODES};
use crate::transactions::{coordinator, delete, end, init, wait_for};

/// Three nodes.
struct Nodes {
    nodes: BTreeMap<i32, TestBroker>,
    _directory: tempfile::TempDir,
}

impl Nodes {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = three::options(directory.path());
        let all = NODES.iter().map(|id| options[id].clone()).collect();
        let nodes = NODES.into_iter().zip(TestBroker::start_together(all)).collect();
        Self { nodes, _directory: directory }
    }

    /// Creates a topic with one partition, of which all have a copy; returns its leader.
    fn create(&self, topic: &str) -> i32 {
        let mut client = self.nodes[&1].client();
        create_with(&mut client, topic, 1, 3);
        self.leader(topic)
    }

    fn leader(&self, topic: &str) -> i32 {
        let mut client = self.nodes.values().next().unwrap().client();
        let began = Instant::now();
        loop {
            let mut described = metadata(&mut client, topic);
            let mut topic = described.topics.remove(0);
            if let Some(one) = topic.partitions.pop()
                && one.isr_nodes.len() == 3
                && one.leader_id > 0
            {
                return one.leader_id;
            }
            assert!(began.elapsed() < PATIENCE, "{topic:?}");
        }
    }

    fn client(&self, node: i32) -> Client {
        self.nodes[&node].client()
    }

    fn coordinator(&self, id: &str) -> Client {
        let node = coordinator(&mut self.client(1), id);
        self.client(node)
    }

    fn all(&self) -> Vec<&TestBroker> {
        self.nodes.values().collect()
    }

    fn kill(self) {
        self.nodes.into_values().for_each(TestBroker::kill);
    }
}

#[test]
fn a_follower_shows_what_is_committed_as_soon_as_it_knows() {
    let nodes = Nodes::start();
    let leader = nodes.create("a");
    let (mut at_leader, mut at_coordinator) = (nodes.client(leader), nodes.coordinator("t"));
    let mut producer = init(&mut at_coordinator, "t");
    let mut aborted = Vec::new();
    for (committed, state) in [(true, "CompleteCommit"), (false, "CompleteAbort")] {
        let first = produce(&mut at_leader, ("t", producer), ("a", 0), b"ended");
        if !committed {
            aborted.push((producer.0, first));
        }
        let ended = end(&mut at_coordinator, 5, "t", producer, committed);
        assert_eq!(ended.error_code, 0);
        wait_for(&mut at_coordinator, "t", state);
        producer = (ended.producer_id, ended.producer_epoch);
    }
    // Two records, and two markers.
    let open = produce(&mut at_leader, ("t", producer), ("a", 0), b"open");
    assert_eq!(open, 4);
    at_leader.produce("a", 0, -1, batch(&[b"behind it"]));
    let mut waiting = Vec::new();
    for node in NODES {
        let mut client = nodes.client(node);
        let began = Instant::now();
        let data = loop {
            let data = fetch_committed(&mut client, ("a", 0), 0);
            if data.error_code == 0 && data.high_watermark == 6 {
                break data;
            }
            assert!(began.elapsed() < PATIENCE, "node {node}: {data:?}");
        };
        assert_eq!(data.last_stable_offset, open, "node {node}");
        let told = data.aborted_transactions.unwrap_or_default();
        let told: Vec<_> = told.iter().map(|one| (one.producer_id, one.first_offset)).collect();
        assert_eq!(told, aborted, "node {node}");
        let records = ottla::record::Batches::new(data.records.unwrap().into_bytes());
        let last = records.map(|batch| batch.unwrap().header().last_offset().0).max();
        assert_eq!(last, Some(open - 1), "node {node}: nothing of what is open");
        let topic = TopicRequest { name: "a".into(), partition_indexes: vec![0] };
        let asked = DescribeProducersRequest { topics: vec![topic] };
        let told = client.call(0, asked).topics.remove(0).partitions.remove(0);
        assert_eq!(told.error_code, 0, "node {node}: {told:?}");
        let starts: Vec<_> =
            told.active_producers.iter().map(|one| one.current_txn_start_offset).collect();
        assert_eq!(starts, [open], "node {node}");
        // What is not there yet is waited for, and comes with the end of the transaction.
        let mut request = FetchRequest { isolation_level: 1, ..fetch_request("a", 0, open) };
        (request.min_bytes, request.max_wait_ms) = (1, 50_000);
        let number = client.send(12, request);
        waiting.push((node, client, number));
    }
    assert_eq!(end(&mut at_coordinator, 5, "t", producer, true).error_code, 0);
    let began = Instant::now();
    for (node, mut client, number) in waiting {
        let mut answer = client.receive::<FetchRequest>(12, number);
        let data = answer.responses.remove(0).partitions.remove(0);
        assert_eq!(data.error_code, 0, "node {node}");
        assert!(!data.records.unwrap().is_empty(), "node {node}");
        assert!(began.elapsed() < Duration::from_secs(25), "node {node} waited to the end");
    }
    nodes.kill();
}

#[test]
fn a_topic_that_is_deleted_with_records_keeps_no_id() {
    let nodes = Nodes::start();
    let leaders = ["kept", "gone", "again"].map(|topic| (topic, nodes.create(topic)));
    let mut at_coordinator = nodes.coordinator("t");
    let producer = init(&mut at_coordinator, "t");
    for (topic, leader) in leaders {
        produce(&mut nodes.client(leader), ("t", producer), (topic, 0), b"value");
    }
    for topic in ["gone", "again"] {
        delete(&mut nodes.client(1), topic);
    }
    // Another topic by the same name has nothing to do with it.
    let leader = nodes.create("again");
    assert_eq!(end(&mut at_coordinator, 5, "t", producer, true).error_code, 0);
    assert!(wait_for(&mut at_coordinator, "t", "CompleteCommit").topics.is_empty());
    assert_eq!(committed(&nodes.all(), "kept"), ["value"]);
    let mut client = nodes.client(leader);
    assert_eq!(client.produce("again", 0, -1, batch(&[b"new"])).error_code, 0);
    let began = Instant::now();
    while committed(&nodes.all(), "again") != ["new"] {
        assert!(began.elapsed() < PATIENCE, "{:?}", committed(&nodes.all(), "again"));
    }
    nodes.kill();
}

#[test]
fn a_coordinator_that_is_killed_between_decision_and_markers_is_succeeded() {
    let mut nodes = Nodes::start();
    let leader = nodes.create("a");
    let (first, id) = (0..)
        .map(|number| format!("t{number}"))
        .find_map(|id| {
            let node = coordinator(&mut nodes.client(1), &id);
            (node != leader).then_some((node, id))
        })
        .unwrap();
    let mut at_first = nodes.client(first);
    let producer = init(&mut at_first, &id);
    produce(&mut nodes.client(leader), (&id, producer), ("a", 0), b"value");
    assert_eq!(end(&mut at_first, 5, &id, producer, true).error_code, 0);
    // The answer says that it is decided; the markers may be on their way, or not.
    nodes.nodes.remove(&first).unwrap().kill();
    let began = Instant::now();
    let second = loop {
        let other = *nodes.nodes.keys().next().unwrap();
        let node = coordinator(&mut nodes.client(other), &id);
        if node != first {
            break node;
        }
        assert!(began.elapsed() < PATIENCE);
    };
    wait_for(&mut nodes.client(second), &id, "CompleteCommit");
    assert_eq!(committed(&nodes.all(), "a"), ["value"]);
    nodes.kill();
}
