//! A few whole brokers on simulated machines, whose metadata is decided by one controller that is always there.
//!
//! The controller does nothing by itself: it fences nobody and elects nobody. Tests move leaders by records.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use crate::broker::boot;
use crate::broker::frame_writer::write_some;
use crate::broker::metadata_log::MetadataLog;
use crate::broker::metadata_log::tests::{RemoteLeader, ToRemote};
use crate::broker::parking::PartitionKey;
use crate::broker::partition::Partition;
use crate::broker::{Broker, BrokerOptions};
use crate::env::sim::{SimMachine, SimRun};
use crate::env::{Disk, Env};
use crate::error::ErrorCode;
use crate::log::LogDirectory;
use crate::machine::controller::{BrokerRegistration, CreateTopics, NewTopic};
use crate::machine::metadata::{MetadataRecord, PartitionImage, PartitionRecord};
use crate::protocol::api::Call;
use crate::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use crate::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchTopic, PartitionData, ReplicaState,
};
use crate::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use crate::protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use crate::protocol::{Records, RequestHeader, frame};
use crate::record::{BatchBuilder, BatchOptions};
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionEpoch, PartitionIndex, TimestampMs, TopicId,
    Uuid,
};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

const TOPIC: &str = "orders";

/// `replica.lag.time.max.ms` of all brokers.
pub(super) const LAG: Duration = Duration::from_secs(2);

/// Runs a test in simulated time.
pub(super) fn simulate(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(work);
}

struct Node {
    machine: SimMachine,
    broker: Option<Broker>,
}

/// See the module.
pub(super) struct Cluster {
    run: SimRun,
    pub(super) controller: Arc<RemoteLeader>,
    nodes: BTreeMap<i32, Node>,
    client: Env,
    /// Settings of all brokers besides.
    settings: Vec<(&'static str, &'static str)>,
}

fn ip(id: i32) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(id).unwrap()).into()
}

/// What a test says of itself when it fetches as a follower.
#[derive(Clone, Copy)]
pub(super) struct As {
    pub(super) node: i32,
    pub(super) epoch: BrokerEpoch,
    pub(super) version: i16,
}

/// What it asks for.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    pub(super) offset: i64,
    pub(super) last_epoch: i32,
    pub(super) leader_epoch: i32,
    pub(super) wait_ms: i32,
    pub(super) known: i64,
    pub(super) rack: &'static str,
}

impl Ask {
    pub(super) fn at(offset: i64) -> Self {
        Self { offset, last_epoch: -1, leader_epoch: -1, wait_ms: 0, known: i64::MAX, rack: "" }
    }
}

impl Cluster {
    /// Brokers with these numbers, which serve.
    pub(super) async fn start(seed: u64, ids: &[i32]) -> Self {
        Self::start_with(seed, ids, &[]).await
    }

    /// The same, with settings.
    pub(super) async fn start_with(
        seed: u64,
        ids: &[i32],
        settings: &[(&'static str, &'static str)],
    ) -> Self {
        let run = SimRun::new(seed);
        run.net.set_delay_ms_max(seed % 3);
        let client = run.machine("client", ip(100)).env();
        let controller = RemoteLeader::new(usize::MAX >> 4);
        let (nodes, settings) = (BTreeMap::new(), settings.to_vec());
        let mut cluster = Self { run, controller, nodes, client, settings };
        for id in ids {
            cluster.boot(*id).await;
        }
        cluster
    }

    /// Starts a broker, on a new machine or one that was killed.
    pub(super) async fn boot(&mut self, id: i32) {
        let run = &self.run;
        let node = self.nodes.entry(id).or_insert_with(|| {
            let machine = run.machine(&format!("broker {id}"), ip(id));
            let (env, path) = (machine.env(), Path::new("/data"));
            drop(LogDirectory::open(&env, path, NodeId(id), Some("cluster")).unwrap());
            Node { machine, broker: None }
        });
        let lag = LAG.as_millis().to_string();
        let options = BrokerOptions {
            listeners: Some(format!("PLAINTEXT://10.0.0.{id}:9092")),
            ..BrokerOptions::in_directory("/data")
        }
        .with("node.id", id.to_string())
        .with("broker.rack", format!("r{id}"))
        .with("replica.selector.class", RACK_AWARE)
        .with("replica.lag.time.max.ms", lag);
        let options = self
            .settings
            .iter()
            .fold(options, |options, (name, value)| options.with(*name, *value));
        let quorum: Arc<dyn MetadataLog> = Arc::new(ToRemote(Arc::clone(&self.controller)));
        let broker = boot::tests::start_on(node.machine.env(), &options, quorum).await;
        node.broker = Some(broker.unwrap());
    }

    /// Registers a broker that is the test itself.
    pub(super) async fn register(&self, id: i32) -> BrokerEpoch {
        let log: Arc<dyn MetadataLog> = Arc::new(ToRemote(Arc::clone(&self.controller)));
        let registration = BrokerRegistration {
            id: NodeId(id),
            incarnation: Uuid([u8::try_from(id).unwrap(); 16]),
            directory_id: Uuid([u8::try_from(id).unwrap(); 16]),
            is_first: true,
            predecessor: None,
            cluster_id: None,
            endpoints: Vec::new(),
            rack: None,
            ready: true,
        };
        let registered = log.submit(registration).await.unwrap();
        self.published().await;
        registered.reply.unwrap()
    }

    pub(super) fn kill(&mut self, id: i32) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.machine.kill();
        drop(node.broker.take());
    }

    pub(super) fn power_cut(&mut self, id: i32) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.machine.power_cut();
        drop(node.broker.take());
    }

    pub(super) async fn stop(&mut self, id: i32) {
        let broker = self.nodes.get_mut(&id).unwrap().broker.take().unwrap();
        broker.shutdown().await.unwrap();
    }

    /// The syncs of a broker take up to so long.
    pub(super) fn slow_syncs(&self, id: i32, ms: u64) {
        self.nodes.get(&id).unwrap().machine.threads.set_pauses(1, ms);
    }

    /// Nothing passes between two brokers any more.
    pub(super) fn cut(&self, one: i32, other: i32) {
        self.run.net.cut(ip(one), ip(other));
        self.run.net.cut(ip(other), ip(one));
    }

    /// What one broker sends to another is held back.
    pub(super) fn cut_one_way(&self, from: i32, to: i32) {
        self.run.net.cut(ip(from), ip(to));
    }

    pub(super) fn heal(&self) {
        self.run.net.heal();
    }

    fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.nodes.values().filter_map(|node| node.broker.as_ref())
    }

    /// Waits until every broker that runs knows everything that is committed.
    pub(super) async fn published(&self) {
        let offset = self.controller.image().offset;
        for broker in self.brokers() {
            broker.state().published(offset).await.unwrap();
        }
    }

    /// The topic, with one partition, which has these replicas.
    pub(super) async fn create(&self, replicas: &[i32], configs: &[(&str, &str)]) {
        self.create_named(TOPIC, replicas, configs).await;
    }

    pub(super) async fn create_named(
        &self,
        name: &str,
        replicas: &[i32],
        configs: &[(&str, &str)],
    ) {
        let log: Arc<dyn MetadataLog> = Arc::new(ToRemote(Arc::clone(&self.controller)));
        let replicas: Vec<NodeId> = replicas.iter().copied().map(NodeId).collect();
        let config = |(name, value): &(&str, &str)| ((*name).to_owned(), Some((*value).to_owned()));
        let topic = NewTopic {
            assignments: vec![(PartitionIndex(0), replicas)],
            configs: configs.iter().map(config).collect(),
            ..NewTopic::new(name, -1, -1)
        };
        let created = log.submit(CreateTopics { topics: vec![topic], validate_only: false }).await;
        created.unwrap().reply.remove(0).unwrap();
        self.published().await;
    }

    pub(super) fn state(&self) -> PartitionImage {
        self.controller.image().topic(TOPIC).unwrap().partition(PartitionIndex(0)).unwrap().clone()
    }

    pub(super) fn isr(&self) -> Vec<i32> {
        let mut isr: Vec<i32> = self.state().isr.iter().map(|node| node.0).collect();
        isr.sort_unstable();
        isr
    }

    /// Who leads, as soon as somebody does and all know it.
    pub(super) async fn leader(&self) -> i32 {
        self.until("somebody leads", |cluster| cluster.state().leader != NodeId::NONE).await;
        self.published().await;
        self.state().leader.0
    }

    pub(super) fn topic_id(&self) -> TopicId {
        self.id_of(TOPIC)
    }

    pub(super) fn id_of(&self, topic: &str) -> TopicId {
        self.controller.image().topic(topic).unwrap().id
    }

    /// Another leader, in a new epoch, from among these in sync.
    pub(super) async fn lead(&self, leader: i32, isr: &[i32]) {
        self.elect(leader, isr);
        self.published().await;
    }

    /// As [`Cluster::lead`]; the brokers are told one after the other.
    pub(super) fn elect(&self, leader: i32, isr: &[i32]) {
        let before = self.state();
        let record = PartitionRecord {
            leader: Some(NodeId(leader)),
            isr: Some(isr.iter().copied().map(NodeId).collect()),
            elr: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            ..PartitionRecord::change(
                self.topic_id(),
                PartitionIndex(0),
                LeaderEpoch(before.leader_epoch.0 + 1),
                PartitionEpoch(before.partition_epoch.0 + 1),
            )
        };
        self.controller.commit(&[MetadataRecord::ChangePartition(record)]);
    }

    /// The controller takes a broker for dead.
    pub(super) fn fence(&self, id: i32) {
        let epoch = self.controller.image().broker(NodeId(id)).unwrap().epoch;
        let (id, fenced, shutting_down) = (NodeId(id), true, false);
        self.controller.commit(&[MetadataRecord::ChangeBroker {
            id,
            epoch,
            fenced,
            shutting_down,
        }]);
    }

    pub(super) fn partition(&self, id: i32) -> Arc<Partition> {
        self.replica(id, &(self.topic_id(), PartitionIndex(0)))
    }

    pub(super) fn replica(&self, id: i32, key: &PartitionKey) -> Arc<Partition> {
        let broker = self.nodes.get(&id).unwrap().broker.as_ref().unwrap();
        broker.state().partitions().get(key).unwrap()
    }

    pub(super) fn end(&self, id: i32) -> i64 {
        self.partition(id).reader().log_end_offset().0
    }

    pub(super) fn high_watermark(&self, id: i32) -> i64 {
        self.partition(id).high_watermark().0
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "it does not come about that {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One request on a connection of its own.
    pub(super) async fn call<C: Call>(&self, id: i32, version: i16, request: C) -> C::Response {
        let (header, address) = (
            RequestHeader {
                api_key: C::API.to_i16(),
                api_version: version,
                correlation_id: 7,
                client_id: None,
            },
            format!("10.0.0.{id}:9092"),
        );
        let found = self.client.net.lookup(&address).await.unwrap();
        let stream = self.client.net.connect(&found).await.unwrap();
        let mut out: VecDeque<_> = frame::encode_request(&header, &request.into()).unwrap().into();
        while !out.is_empty() {
            write_some(&stream, &mut out).await.unwrap();
        }
        let mut received = BytesMut::new();
        loop {
            if let Some(body) = frame::split(&mut received, 1 << 30).unwrap() {
                let (_, response) = frame::decode_response(C::API, version, body).unwrap();
                return C::answer(response).unwrap();
            }
            stream.readable().await.unwrap();
            let mut bytes = [0; 4096];
            match stream.try_read(&mut bytes) {
                Ok(0) => panic!("the connection was closed"),
                Ok(count) => received.extend_from_slice(&bytes[..count]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
    }

    pub(super) async fn produce_within(
        &self,
        id: i32,
        acks: i16,
        value: &str,
        timeout_ms: i32,
    ) -> PartitionProduceResponse {
        self.produce_to(TOPIC, id, acks, value, timeout_ms).await
    }

    pub(super) async fn produce_to(
        &self,
        topic: &str,
        id: i32,
        acks: i16,
        value: &str,
        timeout_ms: i32,
    ) -> PartitionProduceResponse {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        batch.append(TimestampMs(1), None, Some(value.as_bytes()), &[]).unwrap();
        let mut records = Records::new();
        records.push(batch.finish().unwrap());
        let partition = PartitionProduceData { index: 0, records: Some(records) };
        let topic = TopicProduceData {
            topic_id: self.id_of(topic),
            partition_data: vec![partition],
            ..TopicProduceData::default()
        };
        let request =
            ProduceRequest { acks, timeout_ms, topic_data: vec![topic], ..Default::default() };
        let mut response = self.call(id, 13, request).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Produces one record.
    pub(super) async fn produce(&self, id: i32, acks: i16, value: &str) -> Result<i64, ErrorCode> {
        let answer = self.produce_within(id, acks, value, 60_000).await;
        match ErrorCode::from_i16(answer.error_code) {
            ErrorCode::None => Ok(answer.base_offset),
            code => Err(code),
        }
    }

    pub(super) async fn fetch(&self, id: i32, who: Option<As>, ask: Ask) -> PartitionData {
        let version = who.map_or(18, |who| who.version);
        let partition = FetchPartition {
            partition: 0,
            current_leader_epoch: ask.leader_epoch,
            fetch_offset: ask.offset,
            last_fetched_epoch: ask.last_epoch,
            partition_max_bytes: 1 << 20,
            high_watermark: ask.known,
            ..FetchPartition::default()
        };
        let topic = FetchTopic {
            topic: if version < 13 { TOPIC.into() } else { "".into() },
            topic_id: if version < 13 { Uuid::ZERO } else { self.topic_id() },
            partitions: vec![partition],
        };
        let mut request = FetchRequest {
            max_wait_ms: ask.wait_ms,
            min_bytes: 1,
            session_epoch: -1,
            rack_id: ask.rack.into(),
            topics: vec![topic],
            ..FetchRequest::default()
        };
        match who {
            Some(who) if version >= 15 => {
                let (replica_id, replica_epoch) = (who.node, who.epoch.0);
                request.replica_state = ReplicaState { replica_id, replica_epoch };
            }
            Some(who) => request.replica_id = who.node,
            None => {}
        }
        let mut response = self.call(id, version, request).await;
        assert_eq!(response.error_code, 0);
        response.responses.remove(0).partitions.remove(0)
    }

    /// Where the log ends, as a consumer is told.
    pub(super) async fn latest(&self, id: i32, version: i16) -> (ErrorCode, i64) {
        let partition = ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() };
        let topic = ListOffsetsTopic { name: TOPIC.into(), partitions: vec![partition] };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        let mut response = self.call(id, version, request).await;
        let found = response.topics.remove(0).partitions.remove(0);
        (ErrorCode::from_i16(found.error_code), found.offset)
    }

    pub(super) async fn delete_records(&self, id: i32, offset: i64) -> i16 {
        let partition = DeleteRecordsPartition { partition_index: 0, offset };
        let topic = DeleteRecordsTopic { name: TOPIC.into(), partitions: vec![partition] };
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1000 };
        let mut response = self.call(id, 2, request).await;
        response.topics.remove(0).partitions.remove(0).error_code
    }

    /// The bytes of all segments, one after the other, as they are on the disk of a broker.
    pub(super) fn segments(&self, id: i32) -> Vec<u8> {
        let disk = self.nodes.get(&id).unwrap().machine.disk.of_this_boot();
        let directory = PathBuf::from(format!("/data/{TOPIC}-0"));
        let mut bytes = Vec::new();
        for entry in disk.read_dir(&directory).unwrap() {
            if Path::new(&entry.name).extension().is_some_and(|extension| extension == "log") {
                bytes.extend(disk.read(&directory.join(&entry.name)).unwrap().unwrap());
            }
        }
        bytes
    }

    /// Waits until brokers have the same, byte for byte, and committed it.
    pub(super) async fn settled(&self, ids: &[i32]) {
        let first = ids[0];
        self.until("the replicas are alike", |cluster| {
            let end = cluster.end(first);
            ids.iter().all(|id| cluster.end(*id) == end && cluster.high_watermark(*id) == end)
        })
        .await;
        let (bytes, epochs) = (self.segments(first), self.partition(first).reader().epochs());
        for id in &ids[1..] {
            assert!(self.segments(*id) == bytes, "{id} differs from {first}");
            // An epoch that its leader began has no record yet, and is not known to followers.
            let end = Offset(self.end(first));
            let with_records = |id| {
                let epochs = self.partition(id).reader().epochs();
                epochs.into_iter().filter(|one| one.start_offset < end).collect::<Vec<_>>()
            };
            assert_eq!(with_records(*id), with_records(first), "{epochs:?}");
        }
    }
}
