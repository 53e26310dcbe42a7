//! A broker on a free port, a client that blocks, and batches.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream};
use std::rc::{Rc, Weak};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use ottla::broker::{Broker, BrokerOptions};
use ottla::protocol::Records;
use ottla::protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ottla::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use ottla::protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use ottla::record::{BatchBuilder, BatchOptions, Batches};
use ottla::types::TimestampMs;
use tokio::runtime::Runtime;

use crate::wire_client;
pub(crate) use crate::wire_client::{PATIENCE, WireClient as Client, is_closed, read_frame};

/// A running broker.
pub(crate) struct TestBroker {
    runtime: Runtime,
    broker: Option<Broker>,
    _gate: Gate,
}

/// Tests that measure the memory of the process run while no other broker is running.
static GATE: RwLock<()> = RwLock::new(());

type Place = RwLockReadGuard<'static, ()>;

thread_local! {
    /// The place of the brokers of this test, as long as one of them has it.
    static PLACE: RefCell<Weak<Place>> = const { RefCell::new(Weak::new()) };
}

enum Gate {
    Shared { _place: Rc<Place> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

impl Gate {
    /// The place that this test has, or a new one: a test that has a place and waits for another one would wait for ever
    /// behind a test that wants to be alone.
    fn shared() -> Self {
        let known = PLACE.with_borrow(Weak::upgrade);
        let place = known.unwrap_or_else(|| {
            let place = Rc::new(GATE.read().unwrap_or_else(PoisonError::into_inner));
            PLACE.set(Rc::downgrade(&place));
            place
        });
        Self::Shared { _place: place }
    }
}

impl TestBroker {
    /// A broker in memory.
    pub(crate) fn in_memory() -> Self {
        Self::start(BrokerOptions::in_memory())
    }

    pub(crate) fn start(options: BrokerOptions) -> Self {
        Self::try_start(options).unwrap()
    }

    /// A broker while no other one is running in this process.
    pub(crate) fn alone(options: BrokerOptions) -> Self {
        let guard = GATE.write().unwrap_or_else(PoisonError::into_inner);
        Self::start_behind(options, Gate::Alone { _guard: guard }).unwrap()
    }

    pub(crate) fn try_start(options: BrokerOptions) -> ottla::error::Result<Self> {
        Self::start_behind(options, Gate::shared())
    }

    /// A broker in surroundings of a test's own.
    #[cfg(feature = "sim")]
    pub(crate) fn start_on(env: ottla::env::Env, options: BrokerOptions) -> Self {
        let gate = Gate::shared();
        let runtime = Self::runtime();
        let broker = runtime.block_on(Broker::start_on(env, options)).unwrap();
        Self { runtime, broker: Some(broker), _gate: gate }
    }

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    fn start_behind(options: BrokerOptions, gate: Gate) -> ottla::error::Result<Self> {
        let runtime = Self::runtime();
        let broker = runtime.block_on(Broker::start(options))?;
        Ok(Self { runtime, broker: Some(broker), _gate: gate })
    }

    /// Brokers that start at the same time, since none of them may be there without the others.
    pub(crate) fn start_together(all: Vec<BrokerOptions>) -> Vec<Self> {
        let gates: Vec<Gate> = all.iter().map(|_| Gate::shared()).collect();
        let start = |options| {
            std::thread::spawn(move || {
                let runtime = Self::runtime();
                let broker = runtime.block_on(Broker::start(options)).unwrap();
                (runtime, broker)
            })
        };
        let starting: Vec<_> = all.into_iter().map(start).collect();
        let started = starting.into_iter().map(|thread| thread.join().unwrap());
        let each = started.zip(gates);
        each.map(|((runtime, broker), gate)| Self { runtime, broker: Some(broker), _gate: gate })
            .collect()
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.broker().addresses()[0]
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    pub(crate) fn socket(&self) -> TcpStream {
        wire_client::open(self.address())
    }

    /// Stops in order.
    pub(crate) fn stop(mut self) {
        let broker = self.broker.take().unwrap();
        self.runtime.block_on(broker.shutdown()).unwrap();
    }

    /// Stops as a killed process does; another start finds the directory free.
    pub(crate) fn kill(self) {
        self.runtime.block_on(self.broker().kill());
    }

    /// Stops as a crash does: nothing is flushed or marked.
    pub(crate) fn crash(mut self) {
        drop(self.broker.take());
        self.runtime.shutdown_timeout(PATIENCE);
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

impl Client {
    /// Creates a topic with settings.
    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let configs = configs
            .iter()
            .map(|&(name, value)| CreatableTopicConfig {
                name: name.into(),
                value: Some(value.into()),
            })
            .collect();
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let response = self.call(7, request);
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0]);
    }

    /// Produces to one partition, by name.
    pub(crate) fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        records: Bytes,
    ) -> PartitionProduceResponse {
        let mut response = self.call(9, produce_request(topic, partition, acks, records));
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Fetches one partition without a session and without waiting.
    pub(crate) fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let mut response = self.call(12, fetch_request(topic, partition, offset));
        assert_eq!(response.error_code, 0);
        response.responses.remove(0).partitions.remove(0)
    }

    /// All values of a partition from an offset on.
    pub(crate) fn values(&mut self, topic: &str, partition: i32, from: i64) -> Vec<(i64, Vec<u8>)> {
        let mut found = Vec::new();
        let mut offset = from;
        loop {
            let data = self.fetch(topic, partition, offset);
            assert_eq!(data.error_code, 0, "{data:?}");
            let values = values(data.records.unwrap());
            let Some(&(last, _)) = values.last() else { return found };
            found.extend(values.into_iter().filter(|&(at, _)| at >= offset));
            offset = last + 1;
        }
    }
}

pub(crate) fn produce_request(
    topic: &str,
    index: i32,
    acks: i16,
    records: Bytes,
) -> ProduceRequest {
    let data = PartitionProduceData { index, records: Some(Records::from(records)) };
    let topic = TopicProduceData {
        name: topic.into(),
        partition_data: vec![data],
        ..TopicProduceData::default()
    };
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![topic],
        ..ProduceRequest::default()
    }
}

pub(crate) fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    let partition = FetchPartition {
        partition,
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    FetchRequest {
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![partition],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// A batch of values without keys.
pub(crate) fn batch(values: &[&[u8]]) -> Bytes {
    batch_with(BatchOptions::default(), values)
}

pub(crate) fn batch_with(options: BatchOptions, values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for value in values {
        builder.append(now(), None, Some(value), &[]).unwrap();
    }
    builder.finish().unwrap()
}

pub(crate) fn now() -> TimestampMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    TimestampMs(since.as_millis() as i64)
}

/// Offset and value of every record.
pub(crate) fn values(records: Records) -> Vec<(i64, Vec<u8>)> {
    let mut found = Vec::new();
    for batch in Batches::new(records.into_bytes()) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        let records = batch.records(1 << 26).unwrap();
        for record in &records {
            let record = record.unwrap();
            found.push((record.offset.0, record.value.unwrap_or_default().to_vec()));
        }
    }
    found
}

/// Memory of this process that is not backed by a file, in bytes.
pub(crate) fn anonymous_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    kib * 1024
}
