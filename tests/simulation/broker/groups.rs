//! A group of consumers, of either protocol: its members come, leave and crash; one of them lives in the process of
//! the broker. When all is well again, they share the partitions and have read everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::client::{
    AutoOffsetReset, Client, ConsumerConfig, GroupConsumer, GroupOptions, GroupProtocol,
    OffsetAndMetadata, PollOptions, Polled, Subscription,
};
use ottla::env::sim::SimRandom;
use ottla::error::{Error, ErrorCode};
use ottla::types::{Offset, TopicPartition};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clients::{Connected, PARTITIONS, Peer, TOPIC, decode, named};
use crate::history::Event;

const GROUP: &str = "readers";
/// How long a commit may take before its caller does something else; it may still be carried out.
const COMMIT_MAX: Duration = Duration::from_secs(4);

/// The positions of the members, by process and partition.
type Positions = BTreeMap<(String, i32), i64>;

/// What the members have in common. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Group {
    protocol: GroupProtocol,
    /// Members stay from now on.
    calm: CancellationToken,
    over: CancellationToken,
    positions: Arc<Mutex<Positions>>,
}

impl Group {
    pub(crate) fn new(seed: u64) -> Self {
        let is_classic = SimRandom::stream(seed, "group").one_in(2);
        Self {
            protocol: if is_classic { GroupProtocol::Classic } else { GroupProtocol::Consumer },
            calm: CancellationToken::new(),
            over: CancellationToken::new(),
            positions: Arc::default(),
        }
    }

    /// Who is where.
    pub(crate) fn describe(&self) -> String {
        format!("{:?} group at {:?}", self.protocol, self.positions.lock().unwrap())
    }

    /// Has the members stay, waits until they have read everything, each partition by another of them, and ends
    /// them.
    pub(crate) async fn settle(&self, admin: &Peer) {
        self.calm.cancel();
        let ends = admin.ends().await;
        loop {
            let positions = self.positions.lock().unwrap().clone();
            let is_read = |(partition, end): (&TopicPartition, &Offset)| {
                let of = positions.iter().filter(|((_, index), _)| *index == partition.partition.0);
                let owners: Vec<i64> = of.map(|(_, position)| *position).collect();
                matches!(owners[..], [position] if position >= end.0)
            };
            let owners: BTreeSet<&String> = positions.keys().map(|(process, _)| process).collect();
            if ends.iter().all(is_read) && owners.len() == PARTITIONS as usize {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for partition in 0..PARTITIONS {
            admin.note(Event::Settled { group: GROUP.to_owned(), partition: named(partition) });
        }
        self.over.cancel();
    }
}

/// One process of a member.
struct Life<'a> {
    peer: &'a Peer,
    group: &'a Group,
    process: String,
    /// What it has, with the position behind what it was given.
    has: BTreeMap<i32, i64>,
}

impl Peer {
    /// Is a member, again and again, until the group is over.
    pub(crate) async fn take_part(self, group: Group) {
        let mut lives = 0;
        while !group.over.is_cancelled() {
            self.rest(1000).await;
            let Connected { client, ended } = self.connect().await;
            lives += 1;
            let process = format!("{}.{lives}", self.name);
            let mut life = Life { peer: &self, group: &group, process, has: BTreeMap::new() };
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = group.over.cancelled() => {}
                result = life.live(&client) => match result {
                    Err(error) if self.is_stopping(&error) => ended.cancelled().await,
                    // A request to join that was late came from it before, as with Apache Kafka.
                    Err(error) if error.code() == ErrorCode::FencedInstanceId => {}
                    // It gave up after it had said so: it never reached the node (OBS-2).
                    Ok(()) | Err(Error::Closed { .. }) => {}
                    Err(error) => return self.complain(&format!("as a member: {}", error.chain())),
                },
            }
            self.note(Event::Ended { process: life.process.clone() });
            life.forget();
        }
    }

    fn options(&self, group: &Group) -> GroupOptions {
        let topics = Subscription::Topics(vec![TOPIC.to_owned()]);
        GroupOptions {
            protocol: group.protocol,
            // One is the same member in each of its lives.
            instance_id: (self.name == "client7").then(|| self.name.clone()),
            session_timeout: Duration::from_secs(2),
            heartbeat_interval: Duration::from_millis(300),
            rebalance_timeout: Duration::from_secs(4),
            ..GroupOptions::new(GROUP, topics)
        }
    }
}

impl Life<'_> {
    /// Reads until its time is over; then it leaves, or dies.
    async fn live(&mut self, client: &Client) -> Result<(), Error> {
        let config = ConsumerConfig {
            auto_offset_reset: Some(AutoOffsetReset::Earliest),
            ..ConsumerConfig::default()
        };
        let options = self.peer.options(self.group);
        let mut consumer = client.group_consumer_with(config, options, decode())?;
        let end = Instant::now() + Duration::from_millis(1000 + self.peer.random.below(6000));
        let wait = PollOptions { max_wait: Duration::from_millis(300), fill: false };
        loop {
            if Instant::now() >= end && !self.group.calm.is_cancelled() {
                if self.peer.random.one_in(2) {
                    self.peer.kill();
                    return Ok(());
                }
                drop(consumer.close().await);
                return Ok(());
            }
            match consumer.poll(wait).await {
                Ok(Some(polled)) => self.polled(&mut consumer, polled).await?,
                Ok(None) => {}
                Err(error) if error.retriable() => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn polled(&mut self, consumer: &mut GroupConsumer, polled: Polled) -> Result<(), Error> {
        match polled {
            Polled::Assigned(partitions) => {
                for partition in partitions {
                    let position = loop {
                        match consumer.position(&partition).await {
                            Ok(position) => break position.0,
                            Err(error) if error.retriable() => {}
                            Err(error) => return Err(error),
                        }
                    };
                    self.peer.note(Event::Assigned {
                        process: self.process.clone(),
                        group: GROUP.to_owned(),
                        partition: partition.to_string(),
                        offset: position,
                    });
                    self.is_at(partition.partition.0, position);
                }
            }
            Polled::Batch(decoded) => {
                for (partition, position) in self.peer.polled(&self.process, &decoded.rows) {
                    self.is_at(partition, position);
                }
                if self.peer.random.one_in(3) {
                    self.commit(consumer, self.has.clone()).await;
                }
            }
            Polled::Revoked(partitions) => {
                self.peer.rest(500).await;
                if self.peer.random.one_in(2) {
                    let revoked =
                        |index: &i32| partitions.iter().any(|one| one.partition.0 == *index);
                    let has = self.has.clone().into_iter();
                    self.commit(consumer, has.filter(|(index, _)| revoked(index)).collect()).await;
                }
                self.gave_up(&partitions);
            }
            Polled::Lost { partitions, .. } => self.gave_up(&partitions),
            Polled::Waiting(_) | Polled::CaughtUp => {}
        }
        Ok(())
    }

    async fn commit(&self, consumer: &GroupConsumer, has: BTreeMap<i32, i64>) {
        let note = |event: fn(String, String, String, i64) -> Event| {
            for (&partition, &offset) in &has {
                let (process, group) = (self.process.clone(), GROUP.to_owned());
                self.peer.note(event(process, group, named(partition), offset));
            }
        };
        note(|process, group, partition, offset| Event::Commit {
            process,
            group,
            partition,
            offset,
        });
        let offsets = has.iter().map(|(&partition, &offset)| {
            let offset = OffsetAndMetadata::from(Offset(offset));
            (TopicPartition::new(TOPIC, partition), offset)
        });
        let offsets = offsets.collect();
        let committing = consumer.handle().commit(&offsets);
        if let Ok(Ok(())) = tokio::time::timeout(COMMIT_MAX, committing).await {
            note(|process, group, partition, offset| Event::Committed {
                process,
                group,
                partition,
                offset,
            });
        }
    }

    fn is_at(&mut self, partition: i32, position: i64) {
        self.has.insert(partition, position);
        let mut positions = self.group.positions.lock().unwrap();
        positions.insert((self.process.clone(), partition), position);
    }

    fn gave_up(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.has.remove(&partition.partition.0);
            let mut positions = self.group.positions.lock().unwrap();
            positions.remove(&(self.process.clone(), partition.partition.0));
            drop(positions);
            self.peer.note(Event::Revoked {
                process: self.process.clone(),
                group: GROUP.to_owned(),
                partition: partition.to_string(),
            });
        }
    }

    /// It has nothing any more.
    fn forget(&mut self) {
        let process = &self.process;
        self.group.positions.lock().unwrap().retain(|(other, _), _| other != process);
    }
}
