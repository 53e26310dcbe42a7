//! Nodes that join a cluster while it runs, voters that come and go, and nodes that are kept out, through sockets.

use std::collections::BTreeMap;
use std::time::Instant;

use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::messages::add_raft_voter::{AddRaftVoterRequest, Listener};
use ottla::protocol::messages::describe_quorum::{PartitionQuorum, ReplicaState};
use ottla::protocol::messages::remove_raft_voter::RemoveRaftVoterRequest;
use ottla::types::Uuid;

use crate::cluster::{create, create_with, metadata, quorum, try_quorum};
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
            // Nobody answers who asks a leader that has just died.
            let told = try_quorum(&mut self.any());
            if let Some(told) = &told
                && told.error_code == 0
                && is_so(told)
            {
                return told.clone();
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

#[test]
fn an_observer_follows_leads_and_becomes_a_voter_when_it_is_told_to() {
    let mut cluster = Growing::start();
    let options = cluster.joining(2, false);
    cluster.add(2, options);
    let told = cluster.quorum_when(|told| {
        of(&told.observers, 2).is_some_and(|one| one.log_end_offset >= told.high_watermark)
    });
    assert!(!votes(&told, 2), "{told:?}");
    let observer = of(&told.observers, 2).unwrap().clone();
    assert_ne!(observer.replica_directory_id, Uuid::ZERO);
    // It tells what the leader knows, and takes commands, like any other.
    let seen = quorum(&mut cluster.running[&2].client());
    assert_eq!(seen.leader_id, 1);
    create_with(&mut cluster.running[&2].client(), "t", 2, 2);
    cluster.until_in_sync("t", 2);
    cluster.produce("t", "1");
    let described = metadata(&mut cluster.any(), "t").topics.remove(0);
    assert!(described.partitions.iter().any(|partition| partition.leader_id == 2), "{described:?}");

    assert_eq!(cluster.add_voter(&observer, &cluster.running[&2]), ErrorCode::None);
    cluster.quorum_when(|told| votes(told, 2) && !observes(told, 2));
    assert_eq!(cluster.add_voter(&observer, &cluster.running[&2]), ErrorCode::DuplicateVoter);
    // One of two does not go on alone, until it is the only voter again.
    assert_eq!(cluster.remove_voter(&observer), ErrorCode::None);
    assert_eq!(cluster.remove_voter(&observer), ErrorCode::VoterNotFound);
    cluster.quorum_when(|told| !votes(told, 2) && observes(told, 2));
    cluster.kill(2);
    create_with(&mut cluster.any(), "alone", 1, 1);
}

#[test]
fn a_fourth_node_stays_an_observer_and_finds_every_leader() {
    let mut cluster = Growing::three();
    cluster.join(4);
    cluster.quorum_when(|told| observes(told, 4));
    let leader = cluster.quorum_when(|_| true).leader_id;
    cluster.kill(leader);
    let mut of_observer = cluster.running[&4].client();
    let began = Instant::now();
    // Whatever it is asked, it asks the leader, whoever that is.
    let leads = |told: PartitionQuorum| told.error_code == 0 && told.leader_id != leader;
    while !try_quorum(&mut of_observer).is_some_and(leads) {
        assert!(began.elapsed() < PATIENCE, "node 4 finds no leader");
        std::thread::yield_now();
    }
    create_with(&mut of_observer, "t", 1, 3);
    let told = cluster.quorum_when(|told| observes(told, 4));
    assert_eq!(told.current_voters.len(), 3, "{told:?}");
}

#[test]
fn a_leader_that_is_removed_hands_over_and_the_rest_goes_on() {
    let mut cluster = Growing::three();
    let before = cluster.quorum_when(|told| told.current_voters.len() == 3);
    let leader = of(&before.current_voters, before.leader_id).unwrap();
    assert_eq!(cluster.remove_voter(leader), ErrorCode::None);
    let after = cluster
        .quorum_when(|told| told.leader_id != before.leader_id && observes(told, before.leader_id));
    assert_eq!(after.current_voters.len(), 2, "{after:?}");
    assert!(after.leader_epoch > before.leader_epoch);
    // It serves on, and does not become a voter again by itself.
    create_with(&mut cluster.running[&before.leader_id].client(), "t", 1, 3);
    cluster.until_in_sync("t", 3);
    let after = cluster.quorum_when(|_| true);
    assert!(!votes(&after, before.leader_id), "{after:?}");
    // The two that are left are the quorum: without it, they go on.
    cluster.kill(before.leader_id);
    create_with(&mut cluster.any(), "after", 1, 2);
}

#[test]
fn a_voter_that_lost_its_directory_votes_when_it_is_added_again() {
    let mut cluster = Growing::three();
    let before = cluster.quorum_when(|told| told.current_voters.len() == 3);
    let lost = [1, 2, 3].into_iter().find(|id| *id != before.leader_id).unwrap();
    let old = of(&before.current_voters, lost).unwrap().clone();
    cluster.kill(lost);
    std::fs::remove_dir_all(cluster.directory.path().join(lost.to_string())).unwrap();
    let options = cluster.joining(lost, false);
    cluster.add(lost, options);
    let told = cluster.quorum_when(|told| observes(told, lost));
    let new = of(&told.observers, lost).unwrap().clone();
    assert_ne!(new.replica_directory_id, old.replica_directory_id);
    assert_eq!(
        of(&told.current_voters, lost).unwrap().replica_directory_id,
        old.replica_directory_id
    );
    assert_eq!(cluster.add_voter(&new, &cluster.running[&lost]), ErrorCode::DuplicateVoter);
    assert_eq!(cluster.remove_voter(&new), ErrorCode::VoterNotFound);
    assert_eq!(cluster.remove_voter(&old), ErrorCode::None);
    cluster.quorum_when(|told| {
        // Its predecessor is an observer now, of which nothing is heard.
        let is_new = |one: &&ReplicaState| one.replica_directory_id == new.replica_directory_id;
        let known = told.observers.iter().find(is_new);
        known.is_some_and(|one| one.log_end_offset >= told.high_watermark)
    });
    assert_eq!(cluster.add_voter(&new, &cluster.running[&lost]), ErrorCode::None);
    let told = cluster.quorum_when(|told| votes(told, lost));
    assert_eq!(
        of(&told.current_voters, lost).unwrap().replica_directory_id,
        new.replica_directory_id
    );

    // One that joins by itself takes its own place again.
    cluster.kill(lost);
    std::fs::remove_dir_all(cluster.directory.path().join(lost.to_string())).unwrap();
    cluster.join(lost);
    let told = cluster.quorum_when(|told| {
        let voter = of(&told.current_voters, lost);
        voter.is_some_and(|one| one.replica_directory_id != new.replica_directory_id)
    });
    assert_eq!(told.current_voters.len(), 3, "{told:?}");
}

#[test]
fn who_cannot_join_is_told_why() {
    let mut cluster = Growing::start();
    let refused = |options: BrokerOptions| TestBroker::try_start(options).err().unwrap();

    // A directory of another cluster.
    let stranger = TestBroker::start(cluster.options_of(2));
    let theirs = stranger.broker().cluster_id().to_owned();
    stranger.kill();
    let ours = cluster.running[&1].broker().cluster_id().to_owned();
    assert_ne!(ours, theirs);
    let error = refused(cluster.joining(2, true));
    assert_eq!(error.code(), ErrorCode::InconsistentClusterId, "{}", error.chain());
    assert!(error.chain().contains(&ours) && error.chain().contains(&theirs), "{}", error.chain());

    // The id of the node that leads, and of one that follows.
    let mut options = cluster.joining(1, true);
    options.data_dir = Some(cluster.directory.path().join("other-1"));
    let error = refused(options);
    assert_eq!(error.code(), ErrorCode::DuplicateBrokerRegistration, "{}", error.chain());
    cluster.join(3);
    let mut options = cluster.joining(3, true);
    options.data_dir = Some(cluster.directory.path().join("other-3"));
    let error = refused(options);
    assert_eq!(error.code(), ErrorCode::DuplicateBrokerRegistration, "{}", error.chain());
    assert!(error.chain().contains("node.id"), "{}", error.chain());

    // Nobody listens.
    let options = cluster
        .options_of(5)
        .with("controller.quorum.bootstrap.servers", "127.0.0.1:1,127.0.0.1:2")
        .with("initial.broker.registration.timeout.ms", "1500");
    let error = refused(options);
    assert!(error.chain().contains("127.0.0.1:1, 127.0.0.1:2"), "{}", error.chain());
}

#[test]
fn changes_of_voters_that_cannot_be_are_refused() {
    let broker = TestBroker::in_memory();
    let mut client = broker.client();
    let told = quorum(&mut client);
    let own = told.current_voters[0].replica_directory_id;
    assert_ne!(own, Uuid::ZERO);
    let mut remove = |cluster_id: Option<&str>, voter_id, voter_directory_id| {
        let cluster_id = cluster_id.map(Into::into);
        let request = RemoveRaftVoterRequest { cluster_id, voter_id, voter_directory_id };
        ErrorCode::from_i16(client.call(0, request).error_code)
    };
    assert_eq!(remove(Some("another"), 1, own), ErrorCode::InconsistentClusterId);
    assert_eq!(remove(None, 1, Uuid::ZERO), ErrorCode::InvalidRequest);
    assert_eq!(remove(None, 1, Uuid([7; 16])), ErrorCode::VoterNotFound);
    assert_eq!(remove(None, 1, own), ErrorCode::VoterNotFound, "the last voter stays");
    // Another broker that is running and is no node of this cluster.
    let other = TestBroker::in_memory();
    let listener = Listener {
        name: "PLAINTEXT".into(),
        host: "127.0.0.1".into(),
        port: other.address().port(),
    };
    let request = AddRaftVoterRequest {
        cluster_id: None,
        timeout_ms: 10_000,
        voter_id: 2,
        voter_directory_id: own,
        listeners: vec![listener],
        ack_when_committed: false,
    };
    let told = client.call(1, request);
    assert_eq!(ErrorCode::from_i16(told.error_code), ErrorCode::RequestTimedOut, "{told:?}");
    assert_eq!(quorum(&mut client).current_voters.len(), 1);
}
