//! The clients: the real producer, consumer and admin client, each on a machine of its own or in the process of
//! the broker.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use ottla::client::admin::NewTopic;
use ottla::client::{
    AssignedConsumer, Client, ClientConfig, PollOptions, ProducerConfig, ProducerRecord, StartAt,
};
use ottla::columnar::DecodeOptions;
use ottla::env::Env;
use ottla::env::sim::{SimDisk, SimMachine, SimRandom, SimRun};
use ottla::error::{Error, ErrorCode};
use ottla::types::{Offset, TopicPartition};
use tokio_util::sync::CancellationToken;

use super::node::{Process, Serving};
use crate::history::{Event, History};

pub(crate) const TOPIC: &str = "orders";
pub(crate) const PARTITIONS: i32 = 2;

/// How many sends of a producer are unanswered at a time.
const AHEAD: usize = 4;
/// How long anything may take once all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What clients did and saw, and what they were told that they never should be.
#[derive(Clone, Default)]
pub(crate) struct Witness {
    pub(crate) history: History,
    pub(crate) complaints: Vec<String>,
}

pub(crate) type Shared = Arc<Mutex<Witness>>;

/// Whether a file in the directory of a partition has its records.
pub(crate) fn is_segment(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "log")
}

/// A partition of the topic, as histories name it.
pub(crate) fn named(partition: i32) -> String {
    TopicPartition::new(TOPIC, partition).to_string()
}

pub(crate) fn address_of(index: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, index))
}

/// What a reader needs to see.
pub(crate) fn decode() -> DecodeOptions {
    DecodeOptions {
        columns: Some(["partition", "offset", "value"].map(str::to_owned).to_vec()),
        views: false,
        ..DecodeOptions::default()
    }
}

/// What clients know, and how much they do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) servers: Vec<String>,
    /// How many records each process sends.
    pub(crate) records: usize,
    /// The longest pause before a record.
    pub(crate) pause_ms: u64,
    pub(crate) promise: Promise,
}

/// What holds for a record from its acknowledgement on.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// The disks of all brokers.
    pub(crate) disks: Vec<Arc<SimDisk>>,
    /// How many of them have it at least.
    pub(crate) copies: usize,
    /// Whether these are synced.
    pub(crate) synced: bool,
}

impl Promise {
    /// Whether it is kept.
    fn holds(&self, partition: &str, value: &str) -> bool {
        let has = |disk: &&Arc<SimDisk>| {
            let directory = Path::new("/data").join(partition);
            let Ok(names) = disk.names(&directory) else { return false };
            let mut segments = names.into_iter().rev().filter(|name| is_segment(name));
            // It is probably in the last one.
            segments.any(|name| {
                let content = disk.content(&directory.join(name), self.synced);
                content.is_ok_and(|content| String::from_utf8_lossy(&content).contains(value))
            })
        };
        self.disks.iter().filter(has).count() >= self.copies
    }
}

/// Where a client lives.
enum Home {
    Machine(SimMachine),
    /// In the process of the broker that serves at the time.
    Broker(Serving),
}

/// A client, and the process that it is in.
pub(crate) struct Connected {
    pub(crate) client: Client,
    /// Whoever was in the process is gone, and saw nothing more.
    pub(crate) ended: CancellationToken,
}

/// Somebody with a client.
pub(crate) struct Peer {
    home: Home,
    pub(crate) plan: Plan,
    pub(crate) name: String,
    pub(crate) random: SimRandom,
    witness: Shared,
}

impl Peer {
    /// On a machine of its own.
    pub(crate) fn new(run: &SimRun, plan: &Plan, index: u8, witness: &Shared) -> Self {
        let name = format!("client{index}");
        let machine = run.machine(&name, address_of(index));
        Self::at(Home::Machine(machine), (run, plan), name, witness)
    }

    /// In the process of the broker; it starts anew whenever that does.
    pub(crate) fn inside(
        (run, plan): (&SimRun, &Plan),
        index: u8,
        serving: &Serving,
        witness: &Shared,
    ) -> Self {
        let home = Home::Broker(Arc::clone(serving));
        Self::at(home, (run, plan), format!("inside{index}"), witness)
    }

    fn at(home: Home, (run, plan): (&SimRun, &Plan), name: String, witness: &Shared) -> Self {
        let random = SimRandom::stream(run.seed, &name);
        Self { home, plan: plan.clone(), name, random, witness: Arc::clone(witness) }
    }

    /// The surroundings of a process on the peer's machine.
    pub(crate) fn own_env(&self) -> Env {
        match &self.home {
            Home::Machine(machine) => machine.env(),
            Home::Broker(_) => panic!("{} has no machine", self.name),
        }
    }

    /// Whether the broker in the same process stops in order.
    pub(crate) fn is_stopping(&self, error: &Error) -> bool {
        matches!((error, &self.home), (Error::Closed { .. }, Home::Broker(_)))
    }

    /// Ends the processes of its machine, if it has one.
    pub(crate) fn kill(&self) {
        if let Home::Machine(machine) = &self.home {
            machine.kill();
        }
    }

    /// A client; in the process of the broker as soon as that serves.
    pub(crate) async fn connect(&self) -> Connected {
        let config = ClientConfig {
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
        let serving = match &self.home {
            Home::Machine(machine) => {
                let config =
                    ClientConfig { bootstrap_servers: self.plan.servers.clone(), ..config };
                let client = Client::connect_on(machine.env(), config).unwrap();
                return Connected { client, ended: CancellationToken::new() };
            }
            Home::Broker(serving) => serving,
        };
        loop {
            let process = serving.lock().unwrap().clone();
            if let Some(Process { env, service, node, ended }) = process {
                let client = Client::local_on(env, service, Some(node), config).unwrap();
                return Connected { client, ended };
            }
            self.rest(100).await;
        }
    }

    pub(crate) async fn rest(&self, max_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.below(max_ms))).await;
    }

    pub(crate) fn note(&self, event: Event) {
        self.witness.lock().unwrap().history.push(event);
    }

    pub(crate) fn complain(&self, what: &str) {
        self.witness.lock().unwrap().complaints.push(format!("{}: {what}", self.name));
    }

    /// A value that nobody else sends, of a random length.
    pub(crate) fn value(&self, count: usize) -> String {
        let filling = "x".repeat(self.random.below(300) as usize);
        format!("{}-{count}-{filling}", self.name)
    }

    pub(crate) async fn create_topic(&self, name: &str) -> Result<(), Error> {
        self.create(Self::topic(name)).await
    }

    /// A topic as all others.
    pub(crate) fn topic(name: &str) -> NewTopic {
        NewTopic::new(name, PARTITIONS)
    }

    pub(crate) async fn create(&self, topic: NewTopic) -> Result<(), Error> {
        let Connected { client, .. } = self.connect().await;
        let made = client.admin().create_topics(&[topic], false).await?;
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
        let mut count = 0;
        while count < self.plan.records {
            let Connected { client, ended } = self.connect().await;
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = self.produce_with(&client, &mut count) => {}
            }
        }
    }

    /// Sends one record; whether it was acknowledged.
    pub(crate) async fn send_one(&self, client: &Client, partition: i32, value: &str) -> bool {
        self.sends(partition, value);
        let Ok(producer) = client.producer() else { return false };
        let record = ProducerRecord {
            partition: Some(partition.into()),
            ..ProducerRecord::new(TOPIC, Bytes::from(value.to_owned()))
        };
        let Ok(delivery) = producer.send(record).await else { return false };
        let Ok(told) = delivery.wait().await else { return false };
        self.acknowledged(partition, value.to_owned(), told.offset.0);
        true
    }

    /// Sends what is left, counting; what is unanswered when this is dropped stays unknown.
    async fn produce_with(&self, client: &Client, count: &mut usize) {
        let producer = client.producer().unwrap();
        let mut unanswered = VecDeque::new();
        while *count < self.plan.records {
            self.rest(self.plan.pause_ms).await;
            let partition = self.random.below(PARTITIONS as u64) as i32;
            let value = self.value(*count);
            *count += 1;
            self.sends(partition, &value);
            let record = ProducerRecord {
                partition: Some(partition.into()),
                ..ProducerRecord::new(TOPIC, Bytes::from(value.clone()))
            };
            if let Ok(delivery) = producer.send(record).await {
                unanswered.push_back((partition, value, delivery));
            }
            while unanswered.len() > AHEAD
                && let Some((partition, value, delivery)) = unanswered.pop_front()
            {
                if let Ok(told) = delivery.wait().await {
                    self.acknowledged(partition, value, told.offset.0);
                }
            }
        }
        for (partition, value, delivery) in unanswered {
            if let Ok(told) = delivery.wait().await {
                self.acknowledged(partition, value, told.offset.0);
            }
        }
    }

    pub(crate) fn sends(&self, partition: i32, value: &str) {
        let (process, value) = (self.name.clone(), value.to_owned());
        self.note(Event::Send { process, partition: named(partition), value });
    }

    pub(crate) fn acknowledged(&self, partition: i32, value: String, offset: i64) {
        self.check_promise(&named(partition), &value, offset);
        let (process, partition) = (self.name.clone(), named(partition));
        self.note(Event::Acknowledged { process, partition, value, offset });
    }

    /// Complains if a value that was acknowledged is not where it should be.
    pub(crate) fn check_promise(&self, partition: &str, value: &str, offset: i64) {
        if !self.plan.promise.holds(partition, value) {
            let copies = self.plan.promise.copies;
            let what = "was acknowledged before it was on disk as often as promised";
            self.complain(&format!("{partition} at {offset}: {value:.12} {what}: {copies}"));
        }
    }

    /// Reads both partitions until it is told to stop; then once more, from the start to the end.
    pub(crate) async fn consume(self, stop: CancellationToken) {
        for is_last in [false, true] {
            loop {
                let Connected { client, ended } = self.connect().await;
                let until = if is_last { None } else { Some(&stop) };
                tokio::select! {
                    biased;
                    () = ended.cancelled() => {}
                    result = self.consume_with(&client, until) => match result {
                        Ok(()) => break,
                        Err(error) if self.is_stopping(&error) => {
                            ended.cancelled().await;
                        }
                        Err(error) => return self.complain(&error.chain()),
                    },
                }
            }
        }
    }

    /// Reads from the start: until it is told to stop, or once to the end.
    async fn consume_with(
        &self,
        client: &Client,
        until: Option<&CancellationToken>,
    ) -> Result<(), Error> {
        let partitions = || (0..PARTITIONS).map(|index| TopicPartition::new(TOPIC, index));
        let wait = PollOptions { max_wait: Duration::from_millis(500), fill: false };
        let mut consumer = client.consumer(decode())?;
        let starts: Vec<_> = partitions().map(|one| (one, StartAt::Earliest)).collect();
        // As often as it takes: the node may be down for longer than a client waits.
        while let Err(error) = consumer.assign(&starts).await {
            if !error.retriable() {
                return Err(error);
            }
            self.rest(100).await;
        }
        for partition in 0..PARTITIONS {
            let process = self.name.clone();
            self.note(Event::Assign { process, partition: named(partition) });
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let ends = if until.is_none() { Some(self.ends_of(&consumer).await) } else { None };
        loop {
            match consumer.poll(wait).await {
                Ok(Some(decoded)) => drop(self.polled(&self.name, &decoded.rows)),
                Ok(None) => {}
                Err(error) if error.retriable() => {}
                Err(error) => return Err(error),
            }
            if until.is_some_and(CancellationToken::is_cancelled) {
                return Ok(());
            }
            let Some(ends) = &ends else { continue };
            if is_at(&mut consumer, ends).await {
                for partition in 0..PARTITIONS {
                    let process = self.name.clone();
                    self.note(Event::Drained { process, partition: named(partition) });
                }
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::timeout("draining the log", PATIENCE));
            }
        }
    }

    pub(crate) async fn ends_of(
        &self,
        consumer: &AssignedConsumer,
    ) -> BTreeMap<TopicPartition, Offset> {
        loop {
            match consumer.end_offsets().await {
                Ok(ends) => return ends,
                Err(_) => self.rest(100).await,
            }
        }
    }

    /// Notes the rows; returns the position behind them, by partition.
    pub(crate) fn polled(&self, process: &str, rows: &RecordBatch) -> BTreeMap<i32, i64> {
        let partitions = rows["partition"].as_primitive::<Int32Type>();
        let offsets = rows["offset"].as_primitive::<Int64Type>();
        let values = rows["value"].as_binary::<i32>();
        let mut behind = BTreeMap::new();
        for row in 0..rows.num_rows() {
            assert!(values.is_valid(row));
            let (partition, offset) = (partitions.value(row), offsets.value(row));
            behind.insert(partition, offset + 1);
            self.note(Event::Poll {
                process: process.to_owned(),
                partition: named(partition),
                offset,
                value: String::from_utf8_lossy(values.value(row)).into_owned(),
            });
        }
        behind
    }

    /// The ends of both partitions, as soon as the node tells.
    pub(crate) async fn ends(&self) -> BTreeMap<TopicPartition, Offset> {
        let Connected { client, .. } = self.connect().await;
        let mut consumer = client.consumer(decode()).unwrap();
        let partitions = (0..PARTITIONS).map(|index| TopicPartition::new(TOPIC, index));
        let starts: Vec<_> = partitions.map(|one| (one, StartAt::Earliest)).collect();
        while consumer.assign(&starts).await.is_err() {
            self.rest(100).await;
        }
        self.ends_of(&consumer).await
    }

    /// Those of these topics that do not exist.
    pub(crate) async fn missing(&self, topics: &[String]) -> Vec<String> {
        let known = match self.connect().await.client.admin().list_topics().await {
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

/// Whether all before these ends was read.
pub(crate) async fn is_at(
    consumer: &mut AssignedConsumer,
    ends: &BTreeMap<TopicPartition, Offset>,
) -> bool {
    let mut at_end = true;
    for (partition, end) in ends {
        let position = consumer.position(partition).await;
        at_end &= position.is_ok_and(|position| position >= *end);
    }
    at_end
}
