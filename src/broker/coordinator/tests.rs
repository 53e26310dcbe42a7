//! The runtime with another customer than groups: counters, of which each record says from where to where one moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ShardParts;
use super::kind::{KeyAndValue, Kind};
use super::runtime::Runtime;
use crate::broker::change::Change;
use crate::broker::log_threads::LogThreads;
use crate::broker::parking::Parking;
use crate::broker::partition::{Appended, Assignment, Follower, Partition, Room, Surroundings};
use crate::broker::storage::{Storage, log_config};
use crate::config::{BrokerConfig, ConfigMap, TopicConfig};
use crate::env::Env;
#[cfg(feature = "sim")]
use crate::env::sim::StallingDisk;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Append, LogDirectory};
use crate::machine::coordinator::{Coordinator, Effect, Event, Misfit, RequestId};
use crate::machine::fetch_session::{FetchInterest, FollowerView};
use crate::machine::metadata::{MetadataDelta, MetadataImage, MetadataRecord, PartitionImage};
use crate::machine::{Machine, Replicated};
use crate::record::{BatchBuilder, BatchOptions};
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionEpoch, PartitionIndex, TimestampMs,
    TopicPartition, Uuid,
};

const ME: NodeId = NodeId(1);

#[derive(Debug)]
enum Ask {
    Add {
        counter: Arc<str>,
        by: i64,
    },
    /// Answered when the time has passed and it is in the log.
    AddLater {
        counter: Arc<str>,
        after_ms: i64,
    },
    /// The report.
    Read {
        counter: Arc<str>,
    },
    /// A bug in the machine.
    Contradict {
        counter: Arc<str>,
    },
}

#[derive(Debug)]
struct Moved {
    counter: Arc<str>,
    from: i64,
    to: i64,
}

/// Topics that are gone; a counter of that name starts again.
#[derive(Debug)]
struct Gone(Vec<Arc<str>>);

#[derive(Debug, Default)]
struct Counter {
    totals: BTreeMap<Arc<str>, i64>,
    later: Vec<(TimestampMs, RequestId, Arc<str>)>,
}

impl Counter {
    fn total(&self, counter: &str) -> i64 {
        self.totals.get(counter).copied().unwrap_or(0)
    }

    fn write(&mut self, moved: Moved, request: Option<RequestId>, out: &mut Vec<Decided>) {
        let to = moved.to;
        match self.apply(&moved) {
            Ok(()) => out.push(Effect::Append {
                records: vec![moved],
                reply: request.map(|request| (request, to)),
            }),
            Err(misfit) => out.push(Effect::Undo(misfit)),
        }
    }

    fn add(&mut self, counter: Arc<str>, by: i64, request: RequestId, out: &mut Vec<Decided>) {
        let from = self.total(&counter);
        self.write(Moved { counter, from, to: from + by }, Some(request), out);
    }
}

type Decided = Effect<Moved, i64>;

impl Machine for Counter {
    type Event = Event<Ask, Gone>;
    type Effect = Decided;

    fn step(&mut self, now: TimestampMs, event: Self::Event, out: &mut Vec<Decided>) {
        match event {
            Event::Request { id, request } => match request {
                Ask::Add { counter, by } => self.add(counter, by, id, out),
                Ask::AddLater { counter, after_ms } => {
                    self.later.push((now.plus(after_ms), id, counter));
                }
                Ask::Read { counter } => {
                    out.push(Effect::Reply { request: id, reply: self.total(&counter) });
                }
                Ask::Contradict { counter } => {
                    let from = self.total(&counter) + 1;
                    self.write(Moved { counter, from, to: 0 }, Some(id), out);
                }
            },
            Event::News(Gone(names)) => {
                for counter in names {
                    let from = self.total(&counter);
                    self.write(Moved { counter, from, to: 0 }, None, out);
                }
            }
            Event::ClockSet { .. } => {}
            Event::Tick => {
                for (_, id, counter) in
                    self.later.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>()
                {
                    self.add(counter, 1, id, out);
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<TimestampMs> {
        self.later.iter().map(|(at, ..)| *at).min()
    }
}

impl Replicated for Counter {
    type Record = Moved;
    type Error = Misfit;

    fn apply(&mut self, record: &Moved) -> Result<(), Misfit> {
        let total = self.total(&record.counter);
        if total != record.from {
            let Moved { counter, from, .. } = record;
            return Err(Misfit(format!("{counter} moves from {from}, but is at {total}")));
        }
        self.totals.insert(Arc::clone(&record.counter), record.to);
        Ok(())
    }
}

impl Coordinator for Counter {
    type Request = Ask;
    type Reply = i64;
    type News = Gone;

    fn restored(&mut self, _now: TimestampMs, _out: &mut Vec<Decided>) {}
}

#[derive(Debug)]
struct Counters;

impl Kind for Counters {
    const TOPIC: &'static str = "__counters";
    const WHAT: &'static str = "counters";

    type Machine = Counter;
    type World = BTreeSet<Arc<str>>;
    type Attendant = ();

    fn machine(_seed: u64) -> Counter {
        Counter::default()
    }

    fn look(world: &mut Self::World, change: &Change<'_>) -> bool {
        let now = change.image.topics().map(|topic| Arc::clone(&topic.name)).collect();
        let changed = *world != now;
        *world = now;
        changed
    }

    fn news(before: Option<&Self::World>, now: &Self::World) -> Vec<Gone> {
        vec![Gone(before.into_iter().flat_map(|before| before.difference(now)).cloned().collect())]
    }

    fn encode(record: &Moved) -> Result<KeyAndValue> {
        let value = format!("{} {}", record.from, record.to);
        Ok((record.counter.to_string().into(), Some(value.into())))
    }

    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Moved>> {
        let counter: Arc<str> = String::from_utf8_lossy(&key).into();
        if counter.starts_with('?') {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
        let numbers = text.split_once(' ');
        let numbers = numbers.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
        let (from, to) = numbers.ok_or_else(|| Error::malformed("move of a counter", text))?;
        Ok(Some(Moved { counter, from, to }))
    }

    fn report(request: &Ask) -> Option<&Arc<str>> {
        match request {
            Ask::Read { counter } => Some(counter),
            _ => None,
        }
    }

    fn subject(record: &Moved) -> Option<&Arc<str>> {
        Some(&record.counter)
    }

    fn subjects<'a>(request: &'a Ask, mut each: impl FnMut(&'a Arc<str>)) {
        match request {
            Ask::Add { counter, .. } | Ask::AddLater { counter, .. } => each(counter),
            Ask::Read { .. } | Ask::Contradict { .. } => {}
        }
    }
}

/// A partition with its runtime.
pub(super) struct Rig<K: Kind> {
    pub(super) runtime: Arc<Runtime<K>>,
    pub(super) partition: Arc<Partition>,
    log_threads: Arc<LogThreads>,
    _directory: tempfile::TempDir,
}

impl<K: Kind<Attendant = ()>> Rig<K> {
    pub(super) fn new(env: &Env) -> Self {
        Self::with_replicas(env, &[ME])
    }

    /// One that leads, with the others in sync as far as the controller knows.
    fn with_replicas(env: &Env, replicas: &[NodeId]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let opened = LogDirectory::open(env, directory.path(), ME, None).unwrap();
        let storage = Storage::new(env, Arc::new(opened));
        let broker = BrokerConfig::default();
        let config = Arc::new(TopicConfig::resolve(&ConfigMap::new(), &broker).unwrap());
        let name = TopicPartition::new(K::TOPIC, 0);
        let topic_id = Uuid([7; 16]);
        let log = storage.open_log(&name, topic_id, log_config(&config, &broker)).unwrap();
        let around = Surroundings {
            node_id: ME,
            health: storage.health().clone(),
            parking: Arc::new(Parking::new()),
            isr_requests: Arc::default(),
            store: None,
            volatile: false,
        };
        let image = PartitionImage {
            replicas: replicas.to_vec(),
            isr: replicas.to_vec(),
            removing: vec![],
            adding: vec![],
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            leader: ME,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
        };
        let brokers = MetadataImage::default();
        let now = std::time::Duration::ZERO;
        let assignment =
            Assignment { state: &image, config, brokers: &brokers, lag_time_max: now, now };
        let partition =
            Partition::new((topic_id, PartitionIndex(0)), log, &assignment, &around).unwrap();
        let log_threads = Arc::new(LogThreads::start(env).unwrap());
        let parts = ShardParts {
            env: env.clone(),
            log_threads: Arc::clone(&log_threads),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let runtime = Arc::new(Runtime::new(parts, ()));
        Self { runtime, partition, log_threads, _directory: directory }
    }

    pub(super) fn lead(&self) {
        self.runtime.lead(BTreeMap::from([(PartitionIndex(0), Arc::clone(&self.partition))]));
    }

    /// Another shard takes over: all that it knows is in the log.
    pub(super) fn restart(&self) {
        self.runtime.lead(BTreeMap::new());
        self.lead();
    }

    pub(super) fn log_end(&self) -> Offset {
        self.partition.reader().log_end_offset()
    }
}

impl Rig<Counters> {
    fn started() -> Self {
        let rig = Self::new(&Env::real());
        rig.lead();
        rig
    }

    async fn ask(&self, request: Ask) -> Result<i64> {
        self.runtime.send(PartitionIndex(0), request).await?.wait().await
    }

    async fn add(&self, counter: &str, by: i64) -> Result<i64> {
        self.ask(Ask::Add { counter: counter.into(), by }).await
    }

    async fn read(&self, counter: &str) -> Result<i64> {
        self.ask(Ask::Read { counter: counter.into() }).await
    }

    /// Appends to the log behind the back of the coordinator.
    async fn plant(&self, key: &str, value: &str) {
        self.append(key, value).await.await.unwrap().unwrap();
    }

    async fn append(&self, key: &str, value: &str) -> Appended {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        let (key, value) = (key.as_bytes(), value.as_bytes());
        batch.append(TimestampMs(1), Some(key), Some(value), &[]).unwrap();
        let records = batch.finish().unwrap();
        let epoch = self.partition.leader_epoch();
        self.log_threads.append_own(&self.partition, epoch, Append::own(records)).await.unwrap()
    }

    /// A follower has everything.
    fn is_copied_by(&self, node: NodeId) {
        let follower = Follower { node, broker_epoch: BrokerEpoch::UNKNOWN };
        let interest = FetchInterest {
            fetch_offset: self.log_end(),
            max_bytes: 1 << 20,
            current_leader_epoch: LeaderEpoch::UNKNOWN,
            last_fetched_epoch: LeaderEpoch::UNKNOWN,
            known: FollowerView::UNASKED,
        };
        let room = Room { max_bytes: 1 << 20, at_least_one: true };
        let now = Some(std::time::Duration::ZERO);
        self.partition.fetch_for_follower(follower, &interest, room, now).unwrap();
    }
}

#[tokio::test]
async fn what_was_answered_is_in_the_log() {
    let rig = Rig::started();
    assert_eq!(rig.add("a", 2).await.unwrap(), 2);
    assert_eq!(rig.add("a", 3).await.unwrap(), 5);
    rig.plant("?", "of a newer version").await;
    rig.restart();
    assert_eq!(rig.read("a").await.unwrap(), 5);
    assert_eq!(rig.runtime.led(), [PartitionIndex(0)]);
}

#[tokio::test]
async fn nothing_is_answered_before_what_was_read_is_committed() {
    let other = NodeId(2);
    let rig: Rig<Counters> = Rig::with_replicas(&Env::real(), &[ME, other]);
    let appended = rig.append("a", "0 2").await;
    // A log thread may have it to do yet.
    while rig.log_end() == Offset::ZERO {
        tokio::task::yield_now().await;
    }
    rig.lead();
    let early = rig.read("a").await.unwrap_err();
    assert_eq!(early.code(), ErrorCode::CoordinatorLoadInProgress);
    rig.is_copied_by(other);
    appended.await.unwrap().unwrap();
    assert_eq!(rig.read("a").await.unwrap(), 2);
}

#[tokio::test]
async fn a_deadline_that_passes_is_written_and_answered() {
    let rig = Rig::started();
    let asked = rig.ask(Ask::AddLater { counter: "a".into(), after_ms: 20 });
    assert_eq!(asked.await.unwrap(), 1);
    rig.restart();
    assert_eq!(rig.read("a").await.unwrap(), 1);
}

#[tokio::test]
async fn a_record_that_does_not_fit_is_not_passed_over() {
    let rig: Rig<Counters> = Rig::new(&Env::real());
    rig.plant("a", "0 2").await;
    rig.plant("a", "3 4").await;
    rig.plant("a", "2 5").await;
    rig.lead();
    let error = rig.read("a").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::CoordinatorNotAvailable);
    let text = error.chain();
    for part in ["__counters-0 at offset 1", "does not fit", "a moves from 3, but is at 2"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_not_passed_over() {
    let rig: Rig<Counters> = Rig::new(&Env::real());
    rig.plant("a", "0 2").await;
    rig.plant("a", "nonsense").await;
    rig.lead();
    let error = rig.read("a").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::CoordinatorNotAvailable);
    assert!(error.chain().contains("__counters-0 at offset 1"), "{}", error.chain());
}

#[tokio::test]
async fn a_decision_that_contradicts_the_state_never_reaches_the_log() {
    let rig = Rig::started();
    assert_eq!(rig.add("a", 2).await.unwrap(), 2);
    let before = rig.log_end();
    // Both are queued before the shard takes the first, so they share a step with it or follow it.
    let bad = rig.ask(Ask::Contradict { counter: "a".into() });
    let (bad, good) = tokio::join!(bad, rig.add("b", 1));
    assert_eq!(bad.unwrap_err().code(), ErrorCode::UnknownServerError);
    // Asked in the same step, it did not happen either; its client was told.
    let happened = i64::from(good.is_ok());
    assert_eq!(rig.log_end(), Offset(before.0 + happened));
    assert_eq!(rig.read("a").await.unwrap(), 2);
    assert_eq!(rig.read("b").await.unwrap(), happened);
    assert_eq!(rig.add("a", 1).await.unwrap(), 3);
}

#[cfg(feature = "sim")]
#[tokio::test]
async fn a_report_overtakes_an_append_that_says_nothing_about_it() {
    let disk = Arc::new(StallingDisk::over(Env::real().disk));
    let rig: Rig<Counters> = Rig::new(&Env { disk: Arc::clone(&disk) as _, ..Env::real() });
    rig.lead();
    assert_eq!(rig.add("b", 7).await.unwrap(), 7);
    disk.stall(true);
    let adding =
        rig.runtime.send(PartitionIndex(0), Ask::Add { counter: "a".into(), by: 1 }).await.unwrap();
    let stalled = Arc::clone(&disk);
    tokio::task::spawn_blocking(move || stalled.wait_for(1)).await.unwrap();
    let kept =
        rig.runtime.send(PartitionIndex(0), Ask::Add { counter: "c".into(), by: 1 }).await.unwrap();
    let of_append =
        rig.runtime.send(PartitionIndex(0), Ask::Read { counter: "a".into() }).await.unwrap();
    let of_kept =
        rig.runtime.send(PartitionIndex(0), Ask::Read { counter: "c".into() }).await.unwrap();
    assert_eq!(rig.read("b").await.unwrap(), 7);
    disk.stall(false);
    assert_eq!(adding.wait().await.unwrap(), 1);
    assert_eq!(kept.wait().await.unwrap(), 1);
    assert_eq!(of_append.wait().await.unwrap(), 1);
    assert_eq!(of_kept.wait().await.unwrap(), 1);
}

#[tokio::test]
async fn machines_are_told_what_changes_in_the_cluster() {
    let rig = Rig::started();
    assert_eq!(rig.add("t", 4).await.unwrap(), 4);
    let config = BrokerConfig::default();
    let mut delta = MetadataDelta::new(MetadataImage::empty());
    delta.replay(&MetadataRecord::Topic { name: "t".into(), id: Uuid([9; 16]) }).unwrap();
    let image = &delta.apply(Offset(0), LeaderEpoch(0));
    let change = Change { delta: &delta, image, config: &config, has_new_config: false };
    rig.runtime.tell(&change);
    assert_eq!(rig.add("t", 1).await.unwrap(), 5);
    rig.runtime.tell(&Change { image: &MetadataImage::empty(), ..change });
    assert_eq!(rig.read("t").await.unwrap(), 0);
    rig.restart();
    assert_eq!(rig.read("t").await.unwrap(), 0);
}

#[tokio::test]
async fn everybody_is_answered_when_the_leadership_ends() {
    let rig = Rig::started();
    let request = Ask::AddLater { counter: "a".into(), after_ms: 3_600_000 };
    let waiting = rig.runtime.send(PartitionIndex(0), request).await.unwrap();
    rig.runtime.lead(BTreeMap::new());
    assert_eq!(waiting.wait().await.unwrap_err().code(), ErrorCode::NotCoordinator);
    assert_eq!(rig.read("a").await.unwrap_err().code(), ErrorCode::NotCoordinator);
}
