//! A broker on a free port, a client that blocks, and batches.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use ottla::broker::{Broker, BrokerOptions};
use ottla::protocol::api::Call;
use ottla::protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ottla::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use ottla::protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use ottla::protocol::{Records, Request, RequestHeader, frame};
use ottla::record::{BatchBuilder, BatchOptions, Batches};
use ottla::types::TimestampMs;
use tokio::runtime::Runtime;

/// No answer takes longer than this; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running broker.
pub(crate) struct World {
    runtime: Runtime,
    broker: Option<Broker>,
    _gate: Gate,
}

/// Tests that measure the memory of the process run while no other broker is running.
static GATE: RwLock<()> = RwLock::new(());

enum Gate {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

impl World {
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
        let guard = GATE.read().unwrap_or_else(PoisonError::into_inner);
        Self::start_behind(options, Gate::Shared { _guard: guard })
    }

    /// A broker in surroundings of a test's own.
    #[cfg(feature = "sim")]
    pub(crate) fn start_on(env: ottla::env::Env, options: BrokerOptions) -> Self {
        let guard = GATE.read().unwrap_or_else(PoisonError::into_inner);
        let runtime = Self::runtime();
        let broker = runtime.block_on(Broker::start_on(env, options)).unwrap();
        Self { runtime, broker: Some(broker), _gate: Gate::Shared { _guard: guard } }
    }

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    fn start_behind(options: BrokerOptions, gate: Gate) -> ottla::error::Result<Self> {
        let runtime = Self::runtime();
        let broker = runtime.block_on(Broker::start(options))?;
        Ok(Self { runtime, broker: Some(broker), _gate: gate })
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
        let socket = TcpStream::connect(self.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Stops in order.
    pub(crate) fn stop(mut self) {
        let broker = self.broker.take().unwrap();
        self.runtime.block_on(broker.shutdown()).unwrap();
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

/// A connection that sends one request at a time.
pub(crate) struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, correlation_id: 0 }
    }

    /// Sends a request without waiting for its answer.
    pub(crate) fn send<C: Call>(&mut self, version: i16, request: C) -> i32 {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: C::API.to_i16(),
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some("test".into()),
        };
        let request: Request = request.into();
        let chunks = frame::encode_request(&header, &request).unwrap();
        self.stream.write_all(&chunks.concat()).unwrap();
        self.correlation_id
    }

    /// Takes the answer to the request with this number.
    pub(crate) fn receive<C: Call>(&mut self, version: i16, correlation_id: i32) -> C::Response {
        let body = read_frame(&mut self.stream).expect("an answer");
        let (header, response) = frame::decode_response(C::API, version, body).unwrap();
        assert_eq!(header.correlation_id, correlation_id);
        C::answer(response).unwrap()
    }

    /// The next frame; none when the connection ends.
    pub(crate) fn next_frame(&mut self) -> Option<Bytes> {
        read_frame(&mut self.stream)
    }

    pub(crate) fn call<C: Call>(&mut self, version: i16, request: C) -> C::Response {
        let correlation_id = self.send(version, request);
        self.receive::<C>(version, correlation_id)
    }

    /// Whether the broker closes the connection without sending another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        is_closed(&mut self.stream)
    }

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

pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(Bytes::from(body))
}

/// Whether the broker closes the connection without sending another byte.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
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
