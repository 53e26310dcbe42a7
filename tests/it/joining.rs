//! Nodes that join a cluster while it runs, voters that come and go, and nodes that are kept out, through sockets.

use std::collections::BTreeMap;
use std::time::Instant;

use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::messages::add_raft_voter::{AddRaftVoterRequest, Listener};
use ottla::protocol::messages::describe_quorum::{PartitionQuorum, ReplicaState};
use ottla::protocol::messages::remove_raft_voter::RemoveRaftVoterRequest;
use ottla::types::Uuid;

use crate::cluster::{create, metadata, quorum};
use crate::support::{Client, PATIENCE, TestBroker, batch};

/// A cluster that begins with one node.
struct Growing {
    options: BTreeMap<i32, BrokerOptions>,
    running: BTreeMap<i32, TestBroker>,
    directory: tempfile::TempDir,
}

impl Growing {
    /// Node 1, alone.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Self { options: BTreeMap::new(), running: BTreeMap::new(), directory };
        let options = cluster.options_of(1);
        cluster.add(1, options);
        cluster
    }

    fn options_of(&self, node: i32) -> BrokerOptions {
        let mut options = BrokerOptions::in_directory(self.directory.path().join(node.to_string()))
            .with("node.id", node.to_string())
            .with("min.insync.replicas", "2");
        options.listeners = Some("PLAINTEXT://127.0.0.1:0".to_owned());
        options
    }

    /// The options of a node that joins those that run.
    fn joining(&self, node: i32, votes: bool) -> BrokerOptions {
        let addresses: Vec<String> =
            self.running.values().map(|node| node.address().to_string()).collect();
        self.options_of(node)
            .with("controller.quorum.bootstrap.servers", addresses.join(","))
            .with("controller.quorum.auto.join.enable", votes.to_string())
    }

    fn add(&mut self, node: i32, options: BrokerOptions) {
        self.options.insert(node, options.clone());
        self.running.insert(node, TestBroker::start(options));
    }

    /// A node joins, as a voter if there is a place for it.
    fn join(&mut self, node: i32) {
        let options = self.joining(node, true);
        self.add(node, options);
    }

    fn three() -> Self {
        let mut cluster = Self::start();
        for node in [2, 3] {
            cluster.join(node);
            cluster.quorum_when(|told| votes(told, node));
        }
        cluster
    }

    fn any(&self) -> Client {
        self.running.values().next().unwrap().client()
    }

    fn kill(&mut self, node: i32) {
        self.running.remove(&node).unwrap().kill();
    }

    /// Asks until the quorum is as it should be, whoever is asked.
    fn quorum_when(&self, is_so: impl Fn(&PartitionQuorum) -> bool) -> PartitionQuorum {
        let began = Instant::now();
        loop {
            let told = quorum(&mut self.any());
            if told.error_code == 0 && is_so(&told) {
                return told;
            }
            assert!(began.elapsed() < PATIENCE, "{told:?}");
            std::thread::yield_now();
        }
    }

    fn until_in_sync(&self, topic: &str, count: usize) {
        let began = Instant::now();
        loop {
            let partition = metadata(&mut self.any(), topic).topics.remove(0).partitions.remove(0);
            if partition.isr_nodes.len() == count && partition.leader_id >= 0 {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{partition:?}");
            std::thread::yield_now();
        }
    }

    fn produce(&self, topic: &str, value: &str) {
        let began = Instant::now();
        loop {
            let partition = metadata(&mut self.any(), topic).topics.remove(0).partitions.remove(0);
            if let Some(node) = self.running.get(&partition.leader_id) {
                let produced = node.client().produce(topic, 0, -1, batch(&[value.as_bytes()]));
                if produced.error_code == 0 {
                    return;
                }
                let code = ErrorCode::from_i16(produced.error_code);
                assert!(code.retriable(), "{code:?}");
            }
            assert!(began.elapsed() < PATIENCE, "{topic} has no leader that takes records");
            std::thread::yield_now();
        }
    }

    fn add_voter(&self, told: &ReplicaState, at: &TestBroker) -> ErrorCode {
        let address = at.address();
        let listener = Listener {
            name: "PLAINTEXT".into(),
            host: address.ip().to_string().as_str().into(),
            port: address.port(),
        };
        let request = AddRaftVoterRequest {
            cluster_id: None,
            timeout_ms: 10_000,
            voter_id: told.replica_id,
            voter_directory_id: told.replica_directory_id,
            listeners: vec![listener],
            ..AddRaftVoterRequest::default()
        };
        ErrorCode::from_i16(self.any().call(1, request).error_code)
    }

    fn remove_voter(&self, told: &ReplicaState) -> ErrorCode {
        let request = RemoveRaftVoterRequest {
            cluster_id: None,
            voter_id: told.replica_id,
            voter_directory_id: told.replica_directory_id,
        };
        ErrorCode::from_i16(self.any().call(0, request).error_code)
    }
}

fn of(replicas: &[ReplicaState], node: i32) -> Option<&ReplicaState> {
    replicas.iter().find(|replica| replica.replica_id == node)
}

fn votes(told: &PartitionQuorum, node: i32) -> bool {
    of(&told.current_voters, node).is_some()
}

fn observes(told: &PartitionQuorum, node: i32) -> bool {
    of(&told.observers, node).is_some()
}

#[test]
fn one_node_grows_to_three_of_which_any_may_die() {
    let mut cluster = Growing::three();
    let told = cluster.quorum_when(|told| told.current_voters.len() == 3);
    assert!(told.observers.is_empty(), "{told:?}");
    assert!(told.current_voters.iter().all(|one| one.replica_directory_id != Uuid::ZERO));
    create(&mut cluster.any(), "t");
    cluster.until_in_sync("t", 3);
    let mut expected = Vec::new();
    for node in [1, 2, 3] {
        let before = format!("before {node}");
        cluster.produce("t", &before);
        cluster.kill(node);
        let after = format!("after {node}");
        cluster.produce("t", &after);
        expected.extend([before, after]);
        // It is found again although its port is another one.
        let options = cluster.options[&node].clone();
        cluster.add(node, options);
        cluster.until_in_sync("t", 3);
        cluster.quorum_when(|told| told.current_voters.iter().all(|one| one.log_end_offset > 0));
    }
    let leader = metadata(&mut cluster.any(), "t").topics[0].partitions[0].leader_id;
    let values = cluster.running[&leader].client().values("t", 0, 0);
    let mut found: Vec<String> =
        values.into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect();
    found.dedup();
    assert_eq!(found, expected);
}
