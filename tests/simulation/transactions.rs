//! Transactions in a log against a model: whatever is appended, committed, cut, and lost in a crash, a `read_committed`
//! consumer sees what is decided, all of it, and nothing else.

mod model;

use std::collections::BTreeSet;
use std::path::Path;

use ottla::env::OpenMode;
use ottla::env::sim::{Fault, Mutation, Simulation, plant};
use ottla::log::{Append, FirstBatch, Health, Log, LogConfig, LogReader, OpenOptions, ReadRequest};
use ottla::record::control::{TransactionMarker, read_control_batch};
use ottla::record::{Batch, Batches};
use ottla::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};
use proptest::prelude::*;

use model::{Entry, Model};

use crate::support::{EPOCH, batch, create, options, transactional};

const PATH: &str = "data/orders-0";
const COPY: &str = "data/copy-0";

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 900,
        index_interval_bytes: 100,
        segment_ms: 1000,
        retention_ms: -1,
        file_delete_delay_ms: 10,
        ..LogConfig::default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Plain,
    Data {
        producer: i64,
        count: usize,
    },
    End {
        producer: i64,
        committed: bool,
        version: i16,
    },
    Commit(u8),
    Sync,
    Roll,
    Truncate(u8),
    TruncateUncleanly(u8),
    DeleteBefore(u8),
    Close,
    Kill,
    PowerCut,
    FailedWrite {
        of_index: bool,
    },
    /// The system writes files out: one bit for each of [`KINDS`], and one for the directory.
    Flush(u8),
    Consume {
        from: u8,
        bytes: u16,
    },
}

const KINDS: [&str; 5] = [".log", ".snapshot", ".txnindex", ".index", ".timeindex"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Plain),
        8 => (1..4_i64, 1..4_usize).prop_map(|(producer, count)| Step::Data { producer, count }),
        6 => (1..4_i64, any::<bool>(), 1..3_i16)
            .prop_map(|(producer, committed, version)| Step::End { producer, committed, version }),
        5 => any::<u8>().prop_map(Step::Commit),
        3 => Just(Step::Sync),
        2 => Just(Step::Roll),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::TruncateUncleanly),
        1 => any::<u8>().prop_map(Step::DeleteBefore),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => Just(Step::PowerCut),
        1 => any::<bool>().prop_map(|of_index| Step::FailedWrite { of_index }),
        3 => any::<u8>().prop_map(Step::Flush),
        4 => (any::<u8>(), any::<u16>()).prop_map(|(from, bytes)| Step::Consume { from, bytes }),
    ]
}

struct Pair {
    simulation: Simulation,
    log: Option<Log>,
    model: Model,
    synced: i64,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let simulation = Simulation::new(seed);
        let log = create(&simulation.env(), Path::new(PATH), config());
        log.sync().unwrap();
        Self { simulation, log: Some(log), model: Model::default(), synced: 0 }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn now(&self) -> TimestampMs {
        self.simulation.env().clock.now()
    }

    fn data(&mut self, producer: i64, count: usize) -> bool {
        let (epoch, sequence, _) =
            self.model.all().1.get(&producer).copied().unwrap_or((0, 0, None));
        let values = vec!["a value of some length"; count];
        let records = transactional(producer, epoch, sequence, &values);
        let first = FirstBatch {
            producer_id: ProducerId(producer),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: Sequence(sequence),
            supports_epoch_bump: false,
        };
        let now = self.now();
        let guard = self.log().verifier().begin(&first, now).unwrap();
        let batch = Batch::parse(&records).unwrap();
        let done = self.log().append(Append::Produced { batch, guard }, EPOCH, now);
        if let Ok(info) = &done {
            assert!(!info.duplicate);
            let (offset, count) = (info.base_offset.0, i64::try_from(count).unwrap());
            self.model.entries.push(Entry::Data { offset, count, producer, epoch });
        }
        done.is_ok()
    }

    fn end(&mut self, producer: i64, committed: bool, version: i16) -> bool {
        let Some((epoch, _, _)) = self.model.all().1.get(&producer).copied() else { return true };
        let epoch = if version >= 2 { epoch + 1 } else { epoch };
        let marker = TransactionMarker { committed, coordinator_epoch: 1 };
        let now = self.now();
        let batch = marker.batch(ProducerId(producer), ProducerEpoch(epoch), now).unwrap();
        let append = Append::Marker { batch, transaction_version: version };
        let done = self.log().append(append, EPOCH, now);
        if let Ok(info) = &done {
            let offset = info.base_offset.0;
            self.model.entries.push(Entry::Marker { offset, producer, epoch, committed });
        }
        done.is_ok()
    }

    fn plain(&mut self) {
        let now = self.now();
        let info = self.log().append_as_leader(&batch(now.0, &["plain"]), EPOCH, now).unwrap();
        self.model.entries.push(Entry::Plain { offset: info.base_offset.0 });
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Plain => self.plain(),
            // The last batch of a producer may be forgotten together with what was deleted.
            Step::Data { producer, count } => {
                assert!(self.data(producer, count) || self.model.start > 0);
            }
            Step::End { producer, committed, version } => {
                assert!(self.end(producer, committed, version));
            }
            Step::Commit(at) => {
                let place = self.place(at);
                // Of whole batches.
                let ends = self.model.entries.iter().map(Entry::next);
                let place = ends.filter(|end| *end <= place).max().unwrap_or(0);
                self.log().high_watermark().raise(Offset(place));
                self.model.high_watermark = self.model.high_watermark.max(place);
            }
            Step::Sync => self.synced = self.log().sync().unwrap().0,
            Step::Roll => {
                self.simulation.clock.advance(2000);
                let later = self.now();
                self.log().maybe_roll(later).unwrap();
            }
            Step::Truncate(at) => {
                let target = Offset(self.place(at).max(self.model.high_watermark));
                let end = self.log().truncate_to(target).unwrap();
                self.cut(end.0);
            }
            Step::TruncateUncleanly(at) => {
                let target = self.place(at);
                let end = self.log().truncate_uncleanly(Offset(target)).unwrap();
                self.cut(end.0);
            }
            Step::DeleteBefore(at) => {
                let target = Offset(self.place(at).min(self.model.high_watermark));
                let end = self.log().high_watermark().get();
                self.model.start = self.log().delete_records_before(target, end).unwrap().0;
            }
            Step::Close => {
                self.synced = self.log.take().unwrap().close().unwrap().0;
                self.open(true);
            }
            Step::Kill => {
                self.log = None;
                self.simulation.disk.kill();
                self.open(false);
            }
            Step::PowerCut => {
                self.log = None;
                self.simulation.disk.power_cut();
                self.open(false);
            }
            Step::FailedWrite { of_index } => self.failed_write(of_index),
            Step::Flush(which) => self.flush(which),
            Step::Consume { from, bytes } => {
                let from = self.place(from);
                self.consume(from, u64::from(bytes % 700));
            }
        }
        self.check();
    }

    /// An append whose write fails leaves everything as it was.
    fn failed_write(&mut self, of_index: bool) {
        let kind = std::io::ErrorKind::StorageFull;
        let path_suffix = if of_index { ".txnindex" } else { ".log" };
        let fault = Fault { call: "write", path_suffix: path_suffix.into(), skip: 0, kind };
        if of_index {
            let open = self.model.all().1.into_iter().find(|(_, known)| known.2.is_some());
            // What began before the log start may be forgotten.
            let Some((producer, _)) = open.filter(|_| self.model.start == 0) else { return };
            self.simulation.disk.inject(fault);
            assert!(!self.end(producer, false, 1));
        } else {
            self.simulation.disk.inject(fault);
            assert!(!self.data(3, 1));
        }
    }

    fn flush(&self, which: u8) {
        let disk = self.simulation.env().disk;
        for entry in disk.read_dir(Path::new(PATH)).unwrap() {
            let kind = KINDS.iter().position(|kind| entry.name.ends_with(kind));
            if kind.is_some_and(|kind| which & 1 << kind != 0) {
                let file = disk.open(&Path::new(PATH).join(entry.name), OpenMode::ReadWrite);
                file.unwrap().sync_data().unwrap();
            }
        }
        if which & 1 << KINDS.len() != 0 {
            disk.sync_dir(Path::new(PATH)).unwrap();
        }
    }

    fn place(&mut self, at: u8) -> i64 {
        let (start, end) = (self.model.start, self.model.end());
        start + (end - start) * i64::from(at) / 255
    }

    fn cut(&mut self, end: i64) {
        self.model.entries.retain(|entry| entry.next() <= end);
        self.model.high_watermark = self.model.high_watermark.min(end);
        self.model.start = self.log().log_start_offset().0;
        self.model.forgotten = self.model.forgotten.min(end);
        self.synced = self.synced.min(end);
    }

    fn open(&mut self, clean: bool) {
        let opening = OpenOptions {
            recovery_point: Offset(self.synced),
            log_start_offset: Offset(self.model.start),
            clean_shutdown: clean,
            health: Health::new(Path::new("data")),
            ..options(config())
        };
        let opened = Log::open(&self.simulation.env(), Path::new(PATH), opening);
        self.log = Some(opened.unwrap_or_else(|error| panic!("{}", error.chain())).0);
        let end = self.log().log_end_offset().0;
        assert!(end >= self.synced);
        self.cut(end);
        self.model.forgotten = end;
        // A broker goes on from what it saved.
        let saved = Offset(self.model.high_watermark);
        self.log().high_watermark().raise(saved);
    }

    fn check(&mut self) {
        let reader = self.log().reader();
        let (strict, lenient) = self.model.stable();
        let stable = reader.last_stable_offset().0;
        let what = format!("{stable} of {strict} to {lenient} in {:?}", self.model);
        assert!((strict..=lenient).contains(&stable), "{what}");
        self.consume(self.model.start, u64::MAX);
        if self.model.start == 0 {
            let end = Offset(self.model.end());
            assert_eq!(reader.aborted_transactions(Offset(0), end), self.model.aborted());
            let known = reader.producers();
            let known = known.iter().map(|state| {
                let first = state.current_txn_first_offset.map(|first| first.0);
                (state.producer_id.0, (state.epoch.0, first))
            });
            let (transactions, producers) = self.model.all();
            let expected = producers.iter().map(|(id, (epoch, _, open))| {
                (*id, (*epoch, open.map(|index| transactions[index].first())))
            });
            assert_eq!(known.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
    }

    /// Reads as a consumer does, fetch by fetch.
    fn consume(&mut self, from: i64, max_bytes: u64) {
        let reader = self.log().reader();
        let stable = reader.last_stable_offset();
        let seen = consume(&reader, from, stable, max_bytes);
        assert_eq!(seen, self.model.visible(from, stable.0), "from {from} to {stable}");
    }
}

/// What a `read_committed` consumer is shown, by Kafka's rules: each fetch is filtered by what came with it.
fn consume(reader: &LogReader, from: i64, stable: Offset, max_bytes: u64) -> Vec<i64> {
    let mut seen = Vec::new();
    let mut offset = Offset(from);
    while offset < stable {
        let request = ReadRequest { offset, max_bytes, upper: stable, at_least_one: true };
        let read = reader.read(request).unwrap();
        if read.records.is_empty() {
            break;
        }
        let mut aborted = reader.aborted_transactions(offset, read.next_offset);
        assert!(aborted.is_sorted_by_key(|entry| entry.first_offset));
        aborted.reverse();
        let mut aborting = BTreeSet::new();
        for batch in Batches::new(read.records.clone()) {
            let batch = batch.unwrap();
            let header = *batch.header();
            while let Some(next) = aborted.pop_if(|next| next.first_offset <= header.last_offset())
            {
                aborting.insert(next.producer_id);
            }
            if header.is_control() {
                if !read_control_batch(&batch).unwrap().1.unwrap().committed {
                    aborting.remove(&header.producer_id);
                }
            } else if !header.is_transactional() || !aborting.contains(&header.producer_id) {
                let offsets = header.base_offset.0..=header.last_offset().0;
                seen.extend(offsets.filter(|offset| *offset >= from));
            }
        }
        offset = read.next_offset;
    }
    seen
}

fn run(seed: u64, steps: &[Step]) {
    let mut pair = Pair::new(seed);
    for step in steps {
        pair.apply(step);
    }
    copied(&mut pair);
}

/// A follower that copies the log knows the same of every prefix of it.
fn copied(pair: &mut Pair) {
    let (reader, now) = (pair.log().reader(), pair.now());
    let env = pair.simulation.env();
    let start = reader.log_start_offset();
    let opening = OpenOptions { log_start_offset: start, ..options(config()) };
    let mut copy = Log::create(&env, Path::new(COPY), opening).unwrap();
    let mut model = Model { high_watermark: 0, forgotten: 0, ..pair.model.clone() };
    model.entries.clear();
    let mut left = pair.model.entries.iter().filter(|entry| entry.next() > start.0).copied();
    while copy.log_end_offset() < reader.log_end_offset() {
        let offset = copy.log_end_offset();
        let upper = reader.log_end_offset();
        let request = ReadRequest { offset, max_bytes: 150, upper, at_least_one: true };
        let records = reader.read(request).unwrap().records;
        if start.0 > 0 && copy.append_as_follower(&records, LeaderEpoch(9), now).is_err() {
            // The log starts in the middle of a batch.
            return;
        } else if start.0 == 0 {
            copy.append_as_follower(&records, LeaderEpoch(9), now).unwrap();
        }
        while model.end() < copy.log_end_offset().0 {
            model.entries.push(left.next().unwrap());
        }
        for high_watermark in model.high_watermark..=model.end() {
            copy.high_watermark().raise(Offset(high_watermark));
            model.high_watermark = high_watermark;
            let stable = copy.reader().last_stable_offset();
            if start.0 == 0 {
                assert_eq!(stable.0, model.stable().0, "{model:?}");
            }
            let from = start.0.min(stable.0);
            let seen = consume(&copy.reader(), from.max(start.0), stable, 200);
            assert_eq!(seen, model.visible(start.0, stable.0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_consumer_sees_what_is_decided_and_nothing_else(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..70),
    ) {
        run(seed, &steps);
    }
}

/// Runs that aim at the planted faults, until one of them sees it.
fn finds(mutation: Mutation, runs: impl Iterator<Item = (u64, Vec<Step>)>) -> bool {
    let mut found = false;
    for (seed, steps) in runs {
        plant(None);
        run(seed, &steps);
        plant(Some(mutation));
        found |= std::panic::catch_unwind(|| run(seed, &steps)).is_err();
        plant(None);
        if found {
            break;
        }
    }
    found
}

#[test]
fn an_end_that_is_not_committed_is_found_if_it_counts() {
    let steps = [
        Step::Plain,
        Step::Data { producer: 1, count: 2 },
        Step::Commit(255),
        Step::End { producer: 1, committed: true, version: 2 },
        Step::Plain,
    ];
    assert!(finds(Mutation::StableBeforeMarker, std::iter::once((1, steps.to_vec()))));
}

#[test]
fn an_index_that_is_lost_beside_a_snapshot_is_found_if_it_is_trusted() {
    let steps = [
        Step::Plain,
        Step::Sync,
        Step::Data { producer: 1, count: 2 },
        Step::End { producer: 1, committed: false, version: 1 },
        Step::Plain,
        Step::Roll,
        Step::Plain,
        Step::Flush(0b11_1011),
        Step::PowerCut,
        Step::Commit(255),
    ];
    let runs = (0..20).map(|seed| (seed, steps.to_vec()));
    assert!(finds(Mutation::TrustsTransactionIndex, runs));
}

/// A marker that was sent twice, and whose second copy comes in the next transaction.
#[test]
fn a_marker_of_the_transaction_before_is_found_if_it_is_taken() {
    let mut pair = Pair::new(1);
    assert!(pair.data(1, 1) && pair.end(1, true, 2) && pair.data(1, 1));
    let now = pair.now();
    let mut late = || {
        let marker = TransactionMarker { committed: true, coordinator_epoch: 1 };
        let batch = marker.batch(ProducerId(1), ProducerEpoch(1), now).unwrap();
        pair.log().append(Append::Marker { batch, transaction_version: 2 }, EPOCH, now).is_ok()
    };
    assert!(!late());
    plant(Some(Mutation::TakesOldProducers));
    let taken = late();
    plant(None);
    assert!(taken);
}

#[test]
fn a_batch_without_its_guard_is_found_if_it_is_taken() {
    let simulation = Simulation::new(1);
    let mut log = create(&simulation.env(), Path::new(PATH), config());
    let now = TimestampMs(1000);
    let mut late = || {
        let batch = Batch::parse(&transactional(1, 0, 0, &["late"])).unwrap();
        log.append(Append::Produced { batch, guard: None }, EPOCH, now).is_ok()
    };
    assert!(!late());
    plant(Some(Mutation::ForgetsGuards));
    let taken = late();
    plant(None);
    assert!(taken);
}
