//! Histories of real brokers: producers, a reader and the members of a group work side by side, and the checker that
//! reads simulated runs reads what they did and saw.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use ottla::client::{
    AutoOffsetReset, Client, ConsumerConfig, GroupOptions, GroupProtocol, OffsetAndMetadata,
    PollOptions, Polled, ProducerRecord, StartAt, Subscription,
};
use ottla::columnar::{DecodeOptions, Decoded};
use ottla::error::Result;
use ottla::types::{Offset, TopicPartition};
use tokio_util::sync::CancellationToken;

use crate::history::{Event, History, checker};
use crate::peers::{Peer, unique};

const PARTITIONS: i32 = 2;
const RECORDS: i32 = 60;
const WAIT: PollOptions = PollOptions { max_wait: Duration::from_millis(100), fill: false };

against_both!(peers: a_history_of_the_classic_protocol, a_history_of_the_consumer_protocol);

async fn a_history_of_the_classic_protocol(peer: Peer) {
    nothing_is_lost(peer, GroupProtocol::Classic).await;
}

async fn a_history_of_the_consumer_protocol(peer: Peer) {
    nothing_is_lost(peer, GroupProtocol::Consumer).await;
}

async fn nothing_is_lost(peer: Peer, protocol: GroupProtocol) {
    let topic = peer.topic(PARTITIONS).await;
    let history = Arc::new(Mutex::new(History::default()));
    let case = |name: &str| Case {
        client: peer.client.clone(),
        topic: topic.clone(),
        name: name.to_owned(),
        history: Arc::clone(&history),
    };
    let positions = Positions::default();
    let group = unique("readers");
    let stop = CancellationToken::new();
    let members = ["m1", "m2"].map(|name| {
        let case = case(name);
        tokio::spawn(case.join(group.clone(), protocol, Arc::clone(&positions), stop.clone()))
    });
    let producing = ["p1", "p2"].map(|name| tokio::spawn(case(name).send_all()));
    for task in producing {
        task.await.unwrap();
    }
    let ends = case("c1").drain().await;
    loop {
        let positions = positions.lock().unwrap().clone();
        let is_read = |(partition, end): (&TopicPartition, &Offset)| {
            let of = positions.iter().filter(|((_, other), _)| other == partition);
            let owners: Vec<Offset> = of.map(|(_, position)| *position).collect();
            owners == [*end]
        };
        if ends.iter().all(is_read) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for partition in ends.keys() {
        let (group, partition) = (group.clone(), partition.to_string());
        history.lock().unwrap().push(Event::Settled { group, partition });
    }
    stop.cancel();
    for task in members {
        task.await.unwrap().unwrap();
    }
    let history = history.lock().unwrap().clone();
    let sent = usize::try_from(2 * RECORDS).unwrap();
    assert_eq!(history.acknowledged(), sent, "{}", peer.name);
    // As a file, it is the same.
    let read = History::parse(&history.to_text()).unwrap();
    assert_eq!(checker::check(&read), [], "{}", peer.name);
    let is_poll = |event: &Event| matches!(event, Event::Poll { .. });
    let polls = (0..read.events.len()).filter(|&at| is_poll(&read.events[at]));
    for at in polls.step_by(37) {
        let mut forged = read.clone();
        let Event::Poll { offset, .. } = &mut forged.events[at] else { unreachable!() };
        *offset += 1;
        assert_ne!(checker::check(&forged), [], "{}: {} is not missed", peer.name, read.events[at]);
    }
}

/// Where the members are, by process and partition.
type Positions = Arc<Mutex<BTreeMap<(String, TopicPartition), Offset>>>;

/// One process of a case.
struct Case {
    client: Client,
    topic: String,
    name: String,
    history: Arc<Mutex<History>>,
}

impl Case {
    fn note(&self, event: Event) {
        self.history.lock().unwrap().push(event);
    }

    fn decode() -> DecodeOptions {
        let columns = ["partition", "offset", "value"].map(str::to_owned).to_vec();
        DecodeOptions { columns: Some(columns), views: false, ..DecodeOptions::default() }
    }

    async fn send_all(self) {
        let producer = self.client.producer().unwrap();
        let mut unanswered = Vec::new();
        for count in 0..RECORDS {
            let partition = TopicPartition::new(self.topic.as_str(), count % PARTITIONS);
            let value = format!("{}-{count}", self.name);
            self.note(Event::Send {
                process: self.name.clone(),
                partition: partition.to_string(),
                value: value.clone(),
            });
            let record = ProducerRecord::new(self.topic.as_str(), value.clone().into_bytes());
            let record = ProducerRecord { partition: Some(partition.partition), ..record };
            unanswered.push((partition, value, producer.send(record).await.unwrap()));
            if count % 7 == 0 {
                producer.flush().await;
            }
        }
        for (partition, value, delivery) in unanswered {
            let offset = delivery.wait().await.unwrap().offset.0;
            let (process, partition) = (self.name.clone(), partition.to_string());
            self.note(Event::Acknowledged { process, partition, value, offset });
        }
    }

    /// Notes the rows; returns the positions behind them.
    fn polled(&self, decoded: &Decoded) -> BTreeMap<TopicPartition, Offset> {
        let rows = &decoded.rows;
        let partitions = rows["partition"].as_primitive::<Int32Type>();
        let offsets = rows["offset"].as_primitive::<Int64Type>();
        let values = rows["value"].as_binary::<i32>();
        let mut behind = BTreeMap::new();
        for row in 0..rows.num_rows() {
            let partition = TopicPartition::new(self.topic.as_str(), partitions.value(row));
            let offset = offsets.value(row);
            self.note(Event::Poll {
                process: self.name.clone(),
                partition: partition.to_string(),
                offset,
                value: String::from_utf8(values.value(row).to_vec()).unwrap(),
            });
            behind.insert(partition, Offset(offset + 1));
        }
        behind
    }

    /// Reads from the start to the ends, which it returns.
    async fn drain(self) -> BTreeMap<TopicPartition, Offset> {
        let mut consumer = self.client.consumer(Self::decode()).unwrap();
        let partitions =
            (0..PARTITIONS).map(|index| TopicPartition::new(self.topic.as_str(), index));
        let starts: Vec<_> = partitions.map(|one| (one, StartAt::Earliest)).collect();
        consumer.assign(&starts).await.unwrap();
        let ends = consumer.end_offsets().await.unwrap();
        for partition in ends.keys() {
            let (process, partition) = (self.name.clone(), partition.to_string());
            self.note(Event::Assign { process, partition });
        }
        let mut positions = BTreeMap::new();
        while positions != ends {
            if let Some(decoded) = consumer.poll(WAIT).await.unwrap() {
                positions.extend(self.polled(&decoded));
            }
        }
        for partition in ends.keys() {
            let (process, partition) = (self.name.clone(), partition.to_string());
            self.note(Event::Drained { process, partition });
        }
        ends
    }

    /// Is a member of the group until it is told to stop.
    async fn join(
        self,
        group: String,
        protocol: GroupProtocol,
        positions: Positions,
        stop: CancellationToken,
    ) -> Result<()> {
        let topics = Subscription::Topics(vec![self.topic.clone()]);
        let options = GroupOptions { protocol, ..GroupOptions::new(group.clone(), topics) };
        let reset = Some(AutoOffsetReset::Earliest);
        let config = ConsumerConfig { auto_offset_reset: reset, ..ConsumerConfig::default() };
        let mut consumer = self.client.group_consumer_with(config, options, Self::decode())?;
        let at = |partition: &TopicPartition, offset: Option<Offset>| {
            let key = (self.name.clone(), partition.clone());
            let mut positions = positions.lock().unwrap();
            match offset {
                Some(offset) => drop(positions.insert(key, offset)),
                None => drop(positions.remove(&key)),
            }
        };
        while !stop.is_cancelled() {
            match consumer.poll(WAIT).await? {
                Some(Polled::Assigned(partitions)) => {
                    for partition in partitions {
                        let offset = consumer.position(&partition).await?;
                        self.note(Event::Assigned {
                            process: self.name.clone(),
                            group: group.clone(),
                            partition: partition.to_string(),
                            offset: offset.0,
                        });
                        at(&partition, Some(offset));
                    }
                }
                Some(Polled::Batch(decoded)) => {
                    let behind = self.polled(&decoded);
                    self.commit(&consumer, &group, &behind).await;
                    for (partition, position) in behind {
                        at(&partition, Some(position));
                    }
                }
                Some(Polled::Revoked(partitions) | Polled::Lost { partitions, .. }) => {
                    for partition in partitions {
                        self.note(Event::Revoked {
                            process: self.name.clone(),
                            group: group.clone(),
                            partition: partition.to_string(),
                        });
                        at(&partition, None);
                    }
                }
                _ => {}
            }
        }
        consumer.close().await
    }

    async fn commit(
        &self,
        consumer: &ottla::client::GroupConsumer,
        group: &str,
        positions: &BTreeMap<TopicPartition, Offset>,
    ) {
        let fields = |partition: &TopicPartition| {
            (self.name.clone(), group.to_owned(), partition.to_string())
        };
        for (one, offset) in positions {
            let ((process, group, partition), offset) = (fields(one), offset.0);
            self.note(Event::Commit { process, group, partition, offset });
        }
        let offsets = positions.iter();
        let offsets =
            offsets.map(|(one, offset)| (one.clone(), OffsetAndMetadata::from(*offset))).collect();
        // The partitions may belong to another member already.
        if consumer.handle().commit(&offsets).await.is_err() {
            return;
        }
        for (one, offset) in positions {
            let ((process, group, partition), offset) = (fields(one), offset.0);
            self.note(Event::Committed { process, group, partition, offset });
        }
    }
}
