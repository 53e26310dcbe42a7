//! The clients: the real producer and consumer, and frames written by hand.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use ottla::client::admin::NewTopic;
use ottla::client::{
    AssignedConsumer, Client, ClientConfig, PollOptions, ProducerConfig, ProducerRecord, StartAt,
};
use ottla::columnar::DecodeOptions;
use ottla::env::Env;
use ottla::env::sim::{SimMachine, SimRandom, SimRun};
use ottla::error::{Error, ErrorCode};
use ottla::protocol::api::Call;
use ottla::protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ottla::protocol::{Request, RequestHeader, frame};
use ottla::record::{BatchBuilder, BatchOptions};
use ottla::types::{Offset, TimestampMs, TopicPartition};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::history::{Event, History, Outcome};
use super::node::ADDRESS;

pub(crate) const TOPIC: &str = "orders";
pub(crate) const PARTITIONS: i32 = 2;

/// How many records each process sends.
const RECORDS: usize = 60;
/// How many sends of a producer are unanswered at a time.
const AHEAD: usize = 4;
/// How long anything may take once all is well.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) type Shared = Arc<Mutex<History>>;

pub(crate) fn address_of(index: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, index))
}

/// A client on a machine of its own.
pub(crate) struct Peer {
    machine: SimMachine,
    name: String,
    random: SimRandom,
    history: Shared,
}

impl Peer {
    pub(crate) fn new(run: &SimRun, index: u8, history: &Shared) -> Self {
        let name = format!("client{index}");
        let random = SimRandom::stream(run.seed, &name);
        let machine = run.machine(&name, address_of(index));
        Self { machine, name, random, history: Arc::clone(history) }
    }

    fn env(&self) -> Env {
        self.machine.env()
    }

    fn client(&self) -> Client {
        let config = ClientConfig {
            bootstrap_servers: vec![ADDRESS.to_owned()],
            client_id: self.name.clone(),
            request_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            api_timeout: PATIENCE,
            producer: ProducerConfig {
                delivery_timeout: Duration::from_secs(30),
                block_max: Duration::from_secs(30),
                linger: Duration::from_millis(self.random.below(10)),
                ..ProducerConfig::default()
            },
            ..ClientConfig::default()
        };
        Client::connect_on(self.env(), config).unwrap()
    }

    async fn rest(&self, max_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.below(max_ms))).await;
    }

    fn note(&self, event: Event) {
        self.history.lock().unwrap().push(event);
    }

    fn complain(&self, what: &str) {
        self.history.lock().unwrap().complaints.push(format!("{}: {what}", self.name));
    }

    /// A value that nobody else sends, of a random length.
    fn value(&self, count: usize) -> String {
        let filling = "x".repeat(self.random.below(300) as usize);
        format!("{}-{count}-{filling}", self.name)
    }

    pub(crate) async fn create_topic(&self, name: &str) -> Result<(), Error> {
        let client = self.client();
        let made = client.admin().create_topics(&[NewTopic::new(name, PARTITIONS)], false).await?;
        match made.into_iter().next().unwrap() {
            Ok(_) => Ok(()),
            // An earlier try was carried out, and its answer lost.
            Err(error) if error.code() == ErrorCode::TopicAlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Creates topics now and then; returns those that were acknowledged.
    pub(crate) async fn create_topics(self) -> Vec<String> {
        let mut created = Vec::new();
        for count in 0..4 {
            self.rest(2500).await;
            let name = format!("topic-{count}");
            if self.create_topic(&name).await.is_ok() {
                created.push(name);
            }
        }
        created
    }

    /// Sends with the idempotent producer, `acks=all`.
    pub(crate) async fn produce(self) {
        let producer = self.client().producer().unwrap();
        let mut unanswered = VecDeque::new();
        for count in 0..RECORDS {
            self.rest(120).await;
            let partition = self.random.below(PARTITIONS as u64) as i32;
            let value = self.value(count);
            let begun = self.history.lock().unwrap().begin(&self.name, partition, &value);
            let record = ProducerRecord {
                partition: Some(partition),
                ..ProducerRecord::new(TOPIC, Bytes::from(value))
            };
            match producer.send(record).await {
                Ok(delivery) => unanswered.push_back((begun, delivery)),
                Err(error) => self.ended(begun, Err(error)),
            }
            while unanswered.len() > AHEAD
                && let Some((begun, delivery)) = unanswered.pop_front()
            {
                self.ended(begun, delivery.wait().await.map(|told| told.offset));
            }
        }
        for (begun, delivery) in unanswered {
            self.ended(begun, delivery.wait().await.map(|told| told.offset));
        }
    }

    fn ended(&self, begun: usize, result: Result<Offset, Error>) {
        let outcome = match result {
            Ok(offset) => Outcome::Acknowledged(offset.0),
            Err(_) => Outcome::Unknown,
        };
        self.history.lock().unwrap().end(begun, outcome);
    }

    /// Sends frames by hand, one at a time, and never again; a new connection after each failure.
    pub(crate) async fn produce_by_hand(self) {
        let mut count = 0;
        while count < RECORDS {
            let Some(mut wire) = Wire::connect(&self.env()).await else {
                self.rest(300).await;
                continue;
            };
            while count < RECORDS {
                self.rest(120).await;
                let partition = self.random.below(PARTITIONS as u64) as i32;
                let value = self.value(count);
                count += 1;
                let begun = self.history.lock().unwrap().begin(&self.name, partition, &value);
                let Some(answer) = wire.produce(partition, &value).await else { break };
                let outcome = match answer {
                    (0, offset) => Outcome::Acknowledged(offset),
                    _ => Outcome::Unknown,
                };
                self.history.lock().unwrap().end(begun, outcome);
            }
        }
    }

    /// Reads both partitions until it is told to stop; then once more, from the start to the end.
    pub(crate) async fn consume(self, stop: tokio_util::sync::CancellationToken) {
        let decode = DecodeOptions {
            columns: Some(["partition", "offset", "value"].map(str::to_owned).to_vec()),
            views: false,
            ..DecodeOptions::default()
        };
        let client = self.client();
        let partitions = || (0..PARTITIONS).map(|index| TopicPartition::new(TOPIC, index));
        let wait = PollOptions { max_wait: Duration::from_millis(500), fill: false };
        for is_last in [false, true] {
            let mut consumer = client.consumer(decode.clone()).unwrap();
            let starts: Vec<_> = partitions().map(|one| (one, StartAt::Earliest)).collect();
            // As often as it takes: the node may be down for longer than a client waits.
            while let Err(error) = consumer.assign(&starts).await {
                if !error.retriable() {
                    return self.complain(&format!("no assignment: {}", error.chain()));
                }
                self.rest(100).await;
            }
            for partition in 0..PARTITIONS {
                self.note(Event::Assign { process: self.name.clone(), partition });
            }
            let deadline = tokio::time::Instant::now() + PATIENCE;
            let ends = if is_last { Some(self.ends_of(&consumer).await) } else { None };
            loop {
                match consumer.poll(wait).await {
                    Ok(Some(decoded)) => self.polled(&decoded.rows),
                    Ok(None) => {}
                    Err(error) if error.retriable() => {}
                    Err(error) => return self.complain(&format!("no poll: {}", error.chain())),
                }
                let Some(ends) = &ends else {
                    if stop.is_cancelled() {
                        break;
                    }
                    continue;
                };
                let mut at_end = true;
                for (partition, end) in ends {
                    let position = consumer.position(partition).await;
                    at_end &= position.is_ok_and(|position| position >= *end);
                }
                if at_end {
                    for partition in 0..PARTITIONS {
                        self.note(Event::Drained { process: self.name.clone(), partition });
                    }
                    break;
                }
                if tokio::time::Instant::now() >= deadline {
                    return self.complain("the log cannot be drained");
                }
            }
        }
    }

    async fn ends_of(&self, consumer: &AssignedConsumer) -> BTreeMap<TopicPartition, Offset> {
        loop {
            match consumer.end_offsets().await {
                Ok(ends) => return ends,
                Err(_) => self.rest(100).await,
            }
        }
    }

    fn polled(&self, rows: &arrow::record_batch::RecordBatch) {
        let partitions = rows["partition"].as_primitive::<Int32Type>();
        let offsets = rows["offset"].as_primitive::<Int64Type>();
        let values = rows["value"].as_binary::<i32>();
        for row in 0..rows.num_rows() {
            assert!(values.is_valid(row));
            let value = String::from_utf8_lossy(values.value(row)).into_owned();
            self.note(Event::Poll {
                process: self.name.clone(),
                partition: partitions.value(row),
                records: vec![(offsets.value(row), value)],
            });
        }
    }

    /// Those of these topics that do not exist.
    pub(crate) async fn missing(&self, topics: &[String]) -> Vec<String> {
        let known = match self.client().admin().list_topics().await {
            Ok(known) => known,
            Err(error) => {
                self.complain(&format!("no topics: {}", error.chain()));
                return Vec::new();
            }
        };
        let is_known = |name: &&String| known.iter().any(|topic| &*topic.name == name.as_str());
        topics.iter().filter(|name| !is_known(name)).cloned().collect()
    }
}

/// A connection for frames made by hand.
struct Wire {
    reading: ottla::env::ReadHalf,
    writing: ottla::env::WriteHalf,
    correlation_id: i32,
}

impl Wire {
    async fn connect(env: &Env) -> Option<Self> {
        let addresses: [SocketAddr; 1] = [ADDRESS.parse().unwrap()];
        let connected = tokio::time::timeout(Duration::from_secs(1), env.net.connect(&addresses));
        let (reading, writing) = connected.await.ok()?.ok()?.into_split();
        Some(Self { reading, writing, correlation_id: 0 })
    }

    /// The error and the offset that a record is answered with; none when nothing comes back.
    async fn produce(&mut self, partition: i32, value: &str) -> Option<(i16, i64)> {
        const VERSION: i16 = 9;
        let mut batch = BatchBuilder::new(BatchOptions::default());
        batch.append(TimestampMs(1_700_000_000_000), None, Some(value.as_bytes()), &[]).unwrap();
        let records = vec![batch.finish().unwrap()].into();
        let data = PartitionProduceData { index: partition, records: Some(records) };
        let topic = TopicProduceData {
            name: TOPIC.into(),
            partition_data: vec![data],
            ..TopicProduceData::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 2000,
            topic_data: vec![topic],
            ..ProduceRequest::default()
        };
        let call = self.call(VERSION, request);
        let answer = tokio::time::timeout(Duration::from_secs(3), call).await.ok()??;
        let told = answer.responses.first()?.partition_responses.first()?;
        Some((told.error_code, told.base_offset))
    }

    async fn call<C: Call>(&mut self, version: i16, request: C) -> Option<C::Response> {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: C::API.to_i16(),
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some("by hand".into()),
        };
        let request: Request = request.into();
        let chunks = frame::encode_request(&header, &request).unwrap();
        self.writing.write_all(&chunks.concat()).await.ok()?;
        let length = self.reading.read_i32().await.ok()?;
        let mut body = vec![0; length as usize];
        self.reading.read_exact(&mut body).await.ok()?;
        let (_, response) = frame::decode_response(C::API, version, body.into()).unwrap();
        C::answer(response)
    }
}
