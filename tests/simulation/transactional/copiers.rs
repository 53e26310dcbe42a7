//! A group whose members copy one topic into the other, each batch in a transaction with the group's offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use ottla::client::{
    AutoOffsetReset, Client, ConsumerConfig, GroupConsumer, GroupOptions, GroupProtocol,
    IsolationLevel, OffsetAndMetadata, PollOptions, Polled, StartAt, Subscription,
    TransactionalProducer,
};
use ottla::env::sim::SimRandom;
use ottla::error::{Error, ErrorCode};
use ottla::types::{Offset, TopicPartition};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::readers::{self, Behind};
use super::writers::{Told, Writing};
use super::{COPIES, Row, decode, rows};
use crate::broker::clients::{Connected, PARTITIONS, Peer, TOPIC};
use crate::history::{Event, Origin};

const GROUP: &str = "copiers";
/// How often a member tries to begin a transaction, and to learn how one ended, before it starts anew.
const TRIES: usize = 5;

/// What the members have in common. Cheap to clone.
#[derive(Clone)]
pub(super) struct Copying {
    protocol: GroupProtocol,
    /// Members stay from now on.
    calm: CancellationToken,
    over: CancellationToken,
    owners: Arc<Mutex<BTreeSet<(i32, String)>>>,
}

impl Copying {
    pub(super) fn new(seed: u64) -> Self {
        let is_classic = SimRandom::stream(seed, "group").one_in(2);
        Self {
            protocol: if is_classic { GroupProtocol::Classic } else { GroupProtocol::Consumer },
            calm: CancellationToken::new(),
            over: CancellationToken::new(),
            owners: Arc::default(),
        }
    }

    pub(super) fn describe(&self) -> String {
        format!("{:?} group of {:?}", self.protocol, self.owners.lock().unwrap())
    }

    /// Has the members stay, waits until they have copied what was read, each partition by one of them, and ends them.
    pub(super) async fn settle(&self, admin: &Peer, read: &Behind) {
        self.calm.cancel();
        let input: Behind = read
            .iter()
            .filter(|(one, _)| &*one.topic == TOPIC)
            .map(|(one, at)| (one.clone(), *at))
            .collect();
        let client = admin.connect().await.client;
        loop {
            let committed = client.admin().group_offsets(GROUP, None).await.unwrap_or_default();
            let is_copied = input.iter().all(|(partition, behind)| {
                committed.get(partition).is_some_and(|at| at.offset.0 >= *behind)
            });
            let owners = self.owners.lock().unwrap().clone();
            let has_one = |index| owners.iter().filter(|(one, _)| *one == index).count() == 1;
            if is_copied && (0..PARTITIONS).all(has_one) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for partition in 0..PARTITIONS {
            let partition = TopicPartition::new(TOPIC, partition).to_string();
            admin.note(Event::Settled { group: GROUP.to_owned(), partition });
        }
        self.over.cancel();
    }
}

/// One process of a member.
struct Life<'a> {
    peer: &'a Peer,
    copying: &'a Copying,
    client: &'a Client,
    process: String,
    producer: TransactionalProducer,
    transaction_timeout: Duration,
    /// How many values the member has sent in all its lives, and how many transactions it has begun.
    sent: &'a mut usize,
    begun: &'a mut usize,
}

/// What a member does next.
#[derive(PartialEq, Eq)]
enum Then {
    GoesOn,
    StartsAnew,
}

/// What comes between a transaction and its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mishap {
    None,
    GivesUp,
    Dies,
}

/// The rows of a batch, and where it begins and ends.
struct Work {
    rows: Vec<Row>,
    begins: BTreeMap<TopicPartition, i64>,
    ends: BTreeMap<TopicPartition, OffsetAndMetadata>,
}

impl Work {
    fn of(batch: &RecordBatch) -> Self {
        let rows = rows(batch);
        let (mut begins, mut ends) = (BTreeMap::new(), BTreeMap::new());
        for row in &rows {
            begins.entry(row.partition.clone()).or_insert(row.offset);
            let end = OffsetAndMetadata::from(Offset(row.offset + 1));
            ends.insert(row.partition.clone(), end);
        }
        Self { rows, begins, ends }
    }
}

impl Peer {
    /// Is a member, again and again, until it is over.
    pub(super) async fn copy(self, copying: Copying) {
        let (mut lives, mut sent, mut begun) = (0, 0, 0);
        while !copying.over.is_cancelled() {
            self.rest(1000).await;
            let Connected { client, ended } = self.connect().await;
            lives += 1;
            let process = format!("{}.{lives}", self.name);
            self.reads_as(&process, IsolationLevel::ReadCommitted);
            let config = self.transactional_config(&client);
            let producer = client.transactional(&format!("copier-{}", self.name), &config).unwrap();
            let mut life = Life {
                peer: &self,
                copying: &copying,
                client: &client,
                process,
                producer,
                transaction_timeout: config.transaction_timeout,
                sent: &mut sent,
                begun: &mut begun,
            };
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = copying.over.cancelled() => {}
                result = life.live() => match result {
                    Err(error) if self.is_stopping(&error) => ended.cancelled().await,
                    Ok(()) | Err(Error::Closed { .. }) => {}
                    Err(error) => return self.complain(&format!("as a copier: {}", error.chain())),
                },
            }
            let process = life.process.clone();
            life.forget();
            self.note(Event::Ended { process });
        }
    }
}

impl Life<'_> {
    /// Copies until its time is over; then it leaves, or dies.
    async fn live(&mut self) -> Result<(), Error> {
        let config = ConsumerConfig {
            auto_offset_reset: Some(AutoOffsetReset::Earliest),
            ..readers::config(IsolationLevel::ReadCommitted)
        };
        let topics = Subscription::Topics(vec![TOPIC.to_owned()]);
        let options = GroupOptions {
            protocol: self.copying.protocol,
            session_timeout: Duration::from_secs(2),
            heartbeat_interval: Duration::from_millis(300),
            rebalance_timeout: Duration::from_secs(4),
            ..GroupOptions::new(GROUP, topics)
        };
        let mut consumer = self.client.group_consumer_with(config, options, decode())?;
        let end = Instant::now() + Duration::from_millis(2000 + self.peer.random.below(9000));
        let wait = PollOptions { max_wait: Duration::from_millis(300), fill: false };
        loop {
            if Instant::now() >= end && !self.copying.calm.is_cancelled() {
                if self.peer.random.one_in(2) {
                    self.peer.kill();
                } else {
                    self.forget();
                    drop(consumer.close().await);
                }
                return Ok(());
            }
            let polled = match consumer.poll(wait).await {
                Ok(Some(polled)) => polled,
                Ok(None) => continue,
                Err(error) if error.retriable() => continue,
                Err(error) => return Err(error),
            };
            if self.polled(&mut consumer, polled).await? == Then::StartsAnew {
                return Ok(());
            }
        }
    }

    async fn polled(
        &mut self,
        consumer: &mut GroupConsumer,
        polled: Polled,
    ) -> Result<Then, Error> {
        match polled {
            Polled::Assigned(partitions) => {
                for partition in partitions {
                    let offset = loop {
                        match consumer.position(&partition).await {
                            Ok(position) => break position.0,
                            Err(error) if error.retriable() => {}
                            Err(error) => return Err(error),
                        }
                    };
                    // It may have been lost while its position was looked up: the caller hears of that next.
                    let at = OffsetAndMetadata::from(Offset(offset));
                    let owned = BTreeMap::from([(partition.clone(), at)]);
                    if consumer.handle().metadata_of_owner(&owned).is_err() {
                        continue;
                    }
                    let (process, group) = (self.process.clone(), GROUP.to_owned());
                    let index = partition.partition;
                    let partition = partition.to_string();
                    self.peer.note(Event::Assigned { process, group, partition, offset });
                    self.copying.owners.lock().unwrap().insert((index.0, self.process.clone()));
                }
            }
            Polled::Batch(decoded) => return self.copy(consumer, Work::of(&decoded.rows)).await,
            Polled::Revoked(partitions) | Polled::Lost { partitions, .. } => {
                self.gave_up(&partitions);
            }
            Polled::Waiting(_) | Polled::CaughtUp => {}
        }
        Ok(Then::GoesOn)
    }

    /// Copies a batch in a transaction. If that is not committed, the consumer goes back.
    async fn copy(&mut self, consumer: &mut GroupConsumer, work: Work) -> Result<Then, Error> {
        for row in &work.rows {
            self.peer.note(Event::Poll {
                process: self.process.clone(),
                partition: row.partition.to_string(),
                offset: row.offset,
                value: row.value.clone(),
            });
        }
        if !self.begin().await? {
            return Ok(Then::StartsAnew);
        }
        let name = format!("{}/{}", self.peer.name, self.begun);
        *self.begun += 1;
        let mut writing = Writing::begin(self.peer, &self.process, name, &self.producer);
        let mut is_open = true;
        for row in &work.rows {
            let to = self.peer.random.below(PARTITIONS as u64) as i32;
            let of = Origin { partition: row.partition.to_string(), offset: row.offset };
            let value =
                format!("{}-{} of {}@{}", self.peer.name, self.sent, of.partition, of.offset);
            *self.sent += 1;
            is_open &= writing.write(TopicPartition::new(COPIES, to), value, Some(of)).await;
        }
        let first = self.mishap().await;
        if first == Mishap::Dies {
            return Ok(Then::StartsAnew);
        }
        is_open &= first == Mishap::None && self.send_offsets(consumer, &writing, &work).await;
        let second = if is_open { self.mishap().await } else { Mishap::None };
        let told = match second {
            Mishap::Dies => return Ok(Then::StartsAnew),
            Mishap::None if is_open => writing.commit().await,
            _ => writing.abort().await,
        };
        match told {
            Told::Committed => {}
            Told::Aborted => self.go_back(consumer, &work),
            Told::Unknown => match self.was_committed(consumer, &work).await {
                Some(true) => {}
                Some(false) => self.go_back(consumer, &work),
                // The group has the offsets, or not: whoever begins there goes on rightly.
                None => return Ok(Then::StartsAnew),
            },
        }
        if self.producer.is_over() {
            self.make_producer()?;
        }
        Ok(Then::GoesOn)
    }

    /// What happens to a member in the middle of a transaction, seldom.
    async fn mishap(&self) -> Mishap {
        match self.peer.random.below(24) {
            0 if !self.copying.calm.is_cancelled() => {
                self.peer.kill();
                Mishap::Dies
            }
            1 if !self.copying.calm.is_cancelled() => {
                // Longer than it may last.
                tokio::time::sleep(self.transaction_timeout).await;
                self.peer.rest(1500).await;
                Mishap::None
            }
            2 => Mishap::GivesUp,
            _ => Mishap::None,
        }
    }

    fn make_producer(&mut self) -> Result<(), Error> {
        let config = self.peer.transactional_config(self.client);
        self.transaction_timeout = config.transaction_timeout;
        self.producer = self.client.transactional(self.producer.id(), &config)?;
        Ok(())
    }

    async fn begin(&mut self) -> Result<bool, Error> {
        for _ in 0..TRIES {
            if self.producer.begin().await.is_ok() {
                return Ok(true);
            }
            if self.producer.is_over() {
                self.make_producer()?;
            }
        }
        Ok(false)
    }

    /// Makes the offsets part of the transaction; whether they are.
    async fn send_offsets(
        &self,
        consumer: &GroupConsumer,
        writing: &Writing<'_>,
        work: &Work,
    ) -> bool {
        let Ok(member) = consumer.handle().metadata_of_owner(&work.ends) else { return false };
        for (partition, end) in &work.ends {
            self.peer.note(Event::Offsets {
                process: self.process.clone(),
                transaction: writing.name().to_owned(),
                group: GROUP.to_owned(),
                partition: partition.to_string(),
                offset: end.offset.0,
            });
        }
        match self.producer.send_offsets(work.ends.clone(), member).await {
            Ok(()) => true,
            Err(error) => {
                if self.producer.is_over() && error.code() != ErrorCode::ProducerFenced {
                    self.peer.complain(&format!("offsets: {}", error.chain()));
                }
                false
            }
        }
    }

    /// Whether a transaction took effect whose commit was not answered; none if that cannot be learnt.
    async fn was_committed(&mut self, consumer: &GroupConsumer, work: &Work) -> Option<bool> {
        let mut tries = 0;
        while !self.producer.is_over() {
            let aborted = self.producer.abort().await;
            if aborted.is_ok() && self.producer.initialize().await.is_ok() {
                break;
            }
            tries += 1;
            if tries == TRIES {
                return None;
            }
        }
        let partitions: Vec<TopicPartition> = work.ends.keys().cloned().collect();
        let known = consumer.handle().committed_for_certain(&partitions).await.ok()?;
        let has = |(partition, end): (&TopicPartition, &OffsetAndMetadata)| {
            known.get(partition).is_some_and(|at| at.offset >= end.offset)
        };
        Some(work.ends.iter().all(has))
    }

    fn go_back(&self, consumer: &mut GroupConsumer, work: &Work) {
        for (partition, begin) in &work.begins {
            // One that it does not have any more is read by whoever has it, from the last commit.
            if consumer.seek(partition, StartAt::Offset(Offset(*begin))).is_ok() {
                let (process, partition) = (self.process.clone(), partition.to_string());
                self.peer.note(Event::Assign { process, partition });
            }
        }
    }

    fn gave_up(&self, partitions: &[TopicPartition]) {
        for partition in partitions {
            let mut owners = self.copying.owners.lock().unwrap();
            owners.remove(&(partition.partition.0, self.process.clone()));
            drop(owners);
            self.peer.note(Event::Revoked {
                process: self.process.clone(),
                group: GROUP.to_owned(),
                partition: partition.to_string(),
            });
        }
    }

    /// It has nothing any more.
    fn forget(&self) {
        self.copying.owners.lock().unwrap().retain(|(_, process)| *process != self.process);
    }
}
