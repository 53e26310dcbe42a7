//! Three nodes as one cluster, through sockets: they find each other, and what was acknowledged survives any of them.

use std::collections::BTreeMap;
use std::time::Instant;

use ottla::broker::BrokerOptions;
use ottla::client::{AssignedConsumer, ClientConfig, PollOptions, StartAt};
use ottla::columnar::DecodeOptions;
use ottla::error::ErrorCode;
use ottla::protocol::messages::allocate_producer_ids::AllocateProducerIdsRequest;
use ottla::protocol::messages::broker_heartbeat::BrokerHeartbeatRequest;
use ottla::protocol::messages::broker_registration::BrokerRegistrationRequest;
use ottla::protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use ottla::protocol::messages::describe_quorum::{
    DescribeQuorumRequest, PartitionData, PartitionQuorum, TopicData,
};
use ottla::protocol::messages::envelope::EnvelopeRequest;
use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use ottla::protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponsePartition,
};
use ottla::protocol::messages::vote::{self, VoteRequest};
use ottla::types::{Offset, TopicPartition};

use crate::support::{Client, PATIENCE, TestBroker, batch};
use crate::three::{self, NODES};

/// Each node has a rack of its own.
const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// The nodes of a cluster, running or not.
struct Cluster {
    options: BTreeMap<i32, BrokerOptions>,
    running: BTreeMap<i32, TestBroker>,
    _directory: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = three::options(directory.path());
        let options = options
            .into_iter()
            .map(|(id, options)| (id, options.with("replica.selector.class", RACK_AWARE)));
        let mut cluster =
            Self { options: options.collect(), running: BTreeMap::new(), _directory: directory };
        cluster.start_nodes(&NODES);
        cluster
    }

    /// Starts nodes at the same time: none of them can be there without a majority.
    fn start_nodes(&mut self, nodes: &[i32]) {
        let options = nodes.iter().map(|id| self.options[id].clone()).collect();
        self.running.extend(nodes.iter().copied().zip(TestBroker::start_together(options)));
    }

    fn client(&self, node: i32) -> Client {
        self.running[&node].client()
    }

    fn any(&self) -> Client {
        self.running.values().next().unwrap().client()
    }

    fn kill(&mut self, node: i32) {
        self.running.remove(&node).unwrap().kill();
    }

    /// What a running node says of the one partition of the topic.
    fn partition(&self, topic: &str) -> MetadataResponsePartition {
        let mut described = metadata(&mut self.any(), topic);
        described.topics.remove(0).partitions.remove(0)
    }

    /// Asks until the partition is as it should be.
    fn partition_when(
        &self,
        topic: &str,
        is_so: impl Fn(&MetadataResponsePartition) -> bool,
    ) -> MetadataResponsePartition {
        let began = Instant::now();
        loop {
            let partition = self.partition(topic);
            if is_so(&partition) {
                return partition;
            }
            assert!(began.elapsed() < PATIENCE, "{partition:?}");
            std::thread::yield_now();
        }
    }

    /// Produces to whoever leads until it is acknowledged.
    fn produce(&self, topic: &str, value: &str) {
        let began = Instant::now();
        loop {
            let leader = self.partition(topic).leader_id;
            if let Some(node) = self.running.get(&leader) {
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

    /// All values of the partition, from its leader, as soon as that knows what is committed.
    fn values(&self, topic: &str) -> Vec<String> {
        let leads =
            |partition: &MetadataResponsePartition| self.running.contains_key(&partition.leader_id);
        let leader = self.partition_when(topic, leads).leader_id;
        let mut client = self.client(leader);
        let began = Instant::now();
        while client.call(5, latest(topic)).topics[0].partitions[0].error_code
            == ErrorCode::OffsetNotAvailable.to_i16()
        {
            assert!(began.elapsed() < PATIENCE, "the end of {topic} stays unknown");
            std::thread::yield_now();
        }
        let values = client.values(topic, 0, 0);
        values.into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect()
    }
}

fn latest(topic: &str) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() };
    let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![partition] };
    ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() }
}

pub(crate) fn metadata(client: &mut Client, topic: &str) -> MetadataResponse {
    let topic = MetadataRequestTopic { name: Some(topic.into()), ..Default::default() };
    client.call(12, MetadataRequest { topics: Some(vec![topic]), ..Default::default() })
}

pub(crate) fn create(client: &mut Client, topic: &str) {
    create_with(client, topic, 1, 3);
}

pub(crate) fn create_with(client: &mut Client, topic: &str, partitions: i32, replicas: i16) {
    let topic = CreatableTopic {
        name: topic.into(),
        num_partitions: partitions,
        replication_factor: replicas,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..CreateTopicsRequest::default()
    };
    let created = client.call(7, request).topics.remove(0);
    assert_eq!(created.error_code, 0, "{created:?}");
}

pub(crate) fn quorum(client: &mut Client) -> PartitionQuorum {
    try_quorum(client).unwrap()
}

pub(crate) fn try_quorum(client: &mut Client) -> Option<PartitionQuorum> {
    let topic = TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![PartitionData::default()],
    };
    let described = client.call(2, DescribeQuorumRequest { topics: vec![topic] });
    described.topics.into_iter().flat_map(|topic| topic.partitions).next()
}

#[test]
fn what_was_acknowledged_survives_any_node() {
    let mut cluster = Cluster::start();
    // Every node tells of the quorum what its leader knows.
    let described = quorum(&mut cluster.any());
    for node in NODES {
        let described = quorum(&mut cluster.client(node));
        assert_eq!(described.current_voters.len(), 3, "{described:?}");
    }
    let follower = NODES.into_iter().find(|&id| id != described.leader_id).unwrap();
    // Asked of a node that does not lead the quorum: the command travels.
    create(&mut cluster.client(follower), "t");
    cluster.partition_when("t", |partition| partition.isr_nodes.len() == 3);
    let mut expected = Vec::new();
    for (round, node) in NODES.into_iter().enumerate() {
        for step in 0..5 {
            let value = format!("{round}.{step}");
            cluster.produce("t", &value);
            expected.push(value);
        }
        cluster.kill(node);
        for step in 5..10 {
            let value = format!("{round}.{step}");
            cluster.produce("t", &value);
            expected.push(value);
        }
        cluster.start_nodes(&[node]);
        cluster.partition_when("t", |partition| partition.isr_nodes.len() == 3);
    }
    // A value may be there twice: its producer was not idempotent, and asked again when a leader died.
    let mut found = cluster.values("t");
    found.dedup();
    assert_eq!(found, expected);
}

#[test]
fn all_nodes_can_be_killed_at_once() {
    let mut cluster = Cluster::start();
    create(&mut cluster.any(), "t");
    cluster.partition_when("t", |partition| partition.isr_nodes.len() == 3);
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for value in &expected {
        cluster.produce("t", value);
    }
    for node in NODES {
        cluster.kill(node);
    }
    cluster.start_nodes(&NODES);
    assert_eq!(cluster.values("t"), expected);
}

/// Reads until it has come to an offset.
async fn read_to(consumer: &mut AssignedConsumer, offset: i64) {
    let (partition, began) = (TopicPartition::new("t", 0), Instant::now());
    while consumer.position(&partition).await.unwrap() < Offset(offset) {
        match consumer.poll(PollOptions::default()).await {
            Ok(_) => {}
            Err(error) => assert!(error.retriable(), "{error:?}"),
        }
        assert!(began.elapsed() < PATIENCE, "it does not come to {offset}");
    }
}

#[test]
fn a_consumer_reads_in_its_rack_and_elsewhere_when_nobody_is_there() {
    let mut cluster = Cluster::start();
    create(&mut cluster.any(), "t");
    for value in ["a", "b", "c"] {
        cluster.produce("t", value);
    }
    let all = |partition: &MetadataResponsePartition| partition.isr_nodes.len() == 3;
    let leader = cluster.partition_when("t", all).leader_id;
    let near = NODES.into_iter().find(|id| *id != leader).unwrap();
    let served = cluster.client(near).fetch("t", 0, 0);
    assert_eq!(served.error_code, 0, "followers serve consumers");
    let config = ClientConfig {
        bootstrap_servers: NODES
            .iter()
            .map(|id| cluster.running[id].address().to_string())
            .collect(),
        client_rack: format!("rack-{near}"),
        ..ClientConfig::default()
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let mut consumer = runtime.block_on(async {
        let client = ottla::client::Client::connect(config).unwrap();
        let mut consumer = client.consumer(DecodeOptions::default()).unwrap();
        consumer.assign(&[(TopicPartition::new("t", 0), StartAt::Earliest)]).await.unwrap();
        read_to(&mut consumer, 3).await;
        consumer
    });
    cluster.kill(near);
    cluster.produce("t", "d");
    runtime.block_on(read_to(&mut consumer, 4));
    drop(consumer);
}

#[test]
fn strangers_take_no_part_in_the_quorum() {
    let cluster = Cluster::start();
    let before = quorum(&mut cluster.any());
    let ask = |client: &mut Client, cluster_id: Option<&str>, candidate: i32| {
        let partition = vote::PartitionData {
            replica_epoch: 1_000_000,
            replica_id: candidate,
            ..vote::PartitionData::default()
        };
        let topic = vote::TopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![partition],
        };
        let request = VoteRequest {
            cluster_id: cluster_id.map(Into::into),
            topics: vec![topic],
            ..VoteRequest::default()
        };
        ErrorCode::from_i16(client.call(2, request).error_code)
    };
    let mut client = cluster.client(1);
    assert_eq!(ask(&mut client, Some("another"), 2), ErrorCode::InconsistentClusterId);
    assert_eq!(ask(&mut client, None, 9), ErrorCode::InconsistentVoterSet);
    let after = quorum(&mut client);
    assert_eq!((after.leader_id, after.leader_epoch), (before.leader_id, before.leader_epoch));
    // A node that is its whole cluster is asked nothing by others.
    let alone = TestBroker::in_memory();
    assert_eq!(ask(&mut alone.client(), None, 2), ErrorCode::InconsistentVoterSet);
    assert_eq!(quorum(&mut alone.client()).leader_id, 1);
}

#[test]
fn the_controller_answers_brokers_in_frames_and_in_envelopes() {
    let cluster = Cluster::start();
    let leader = quorum(&mut cluster.any()).leader_id;
    let follower = NODES.into_iter().find(|id| *id != leader).unwrap();
    let mut client = cluster.client(leader);
    let check = |code: i16, expected| assert_eq!(ErrorCode::from_i16(code), expected);

    // Whoever does not name its registration moves nothing.
    let beat = BrokerHeartbeatRequest {
        broker_id: follower,
        broker_epoch: 1_000_000,
        want_shut_down: true,
        ..BrokerHeartbeatRequest::default()
    };
    for version in 0..=2 {
        let told = client.call(version, beat.clone());
        check(told.error_code, ErrorCode::StaleBrokerEpoch);
        assert!(told.ottla.offset >= 0 && told.ottla.message.is_some(), "{told:?}");
    }
    let ids = AllocateProducerIdsRequest { broker_id: leader, broker_epoch: 1_000_000 };
    let told = cluster.client(follower).call(0, ids.clone());
    check(told.error_code, ErrorCode::NotController);
    // The id of the node that is asked.
    check(client.call(0, ids).error_code, ErrorCode::InconsistentVoterSet);

    // A broker that is no node of ottla, and one of another cluster.
    let registration = BrokerRegistrationRequest { broker_id: 9, ..Default::default() };
    let told = client.call(4, registration.clone());
    check(told.error_code, ErrorCode::UnsupportedVersion);
    assert!(told.ottla.message.unwrap().contains("no node of ottla"));
    let told =
        client.call(4, BrokerRegistrationRequest { cluster_id: "another".into(), ..registration });
    check(told.error_code, ErrorCode::InconsistentClusterId);

    // As a node of a release before these frames asks.
    let command = format!(
        r#"{{"version":2,"command":{{"broker_heartbeat":{{"id":{follower},"epoch":1000000,"metadata_offset":0,
        "want_fence":false,"want_shutdown":true,"handed_over":null}}}}}}"#
    );
    let principal = format!(r#"{{"node_id":{follower},"cluster_id":null}}"#);
    let envelope = EnvelopeRequest {
        request_data: command.into(),
        request_principal: Some(principal.into()),
        ..EnvelopeRequest::default()
    };
    let told = client.call(0, envelope);
    check(told.error_code, ErrorCode::None);
    let answer = String::from_utf8(told.response_data.unwrap().to_vec()).unwrap();
    assert!(answer.contains(r#""broker_heartbeat":{"Err":{"code":77"#), "{answer}");
}
