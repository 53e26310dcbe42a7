//! Compaction against a model: whatever is appended, compacted and interrupted by a power cut, a
//! consumer that starts anywhere ends with the state that the whole log would give.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ottla::env::sim::Simulation;
use ottla::error::Result;
use ottla::log::{
    Cleaner, CleanerLimits, CleanerSummary, Health, Log, LogConfig, OpenOptions, Progress,
};
use ottla::record::control::read_control_batch;
use ottla::record::{BatchBuilder, BatchOptions, Batches, Compression};
use ottla::types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};
use proptest::prelude::*;

use crate::support::{EPOCH, marker, options, request};

const PATH: &str = "data/orders-0";
const RETENTION_MS: i64 = 500;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1500,
        index_interval_bytes: 100,
        compacted: true,
        delete_old: false,
        delete_retention_ms: RETENTION_MS,
        min_cleanable_dirty_ratio: 0.0,
        file_delete_delay_ms: 10,
        verifies_transactions: false,
        ..LogConfig::default()
    }
}

/// One record as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    offset: i64,
    key: String,
    value: Option<String>,
    /// The transaction that it belongs to.
    transaction: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug, Default)]
struct Model {
    records: Vec<Written>,
    fates: Vec<Fate>,
    /// Producer → its open transaction and next sequence.
    open: BTreeMap<i64, usize>,
    sequences: BTreeMap<i64, i32>,
    /// Producer → its last batch of data: first sequence, first offset and number of records.
    last: BTreeMap<i64, (i32, i64, usize)>,
    end: i64,
    clean_until: Option<Offset>,
    steps: u64,
}

impl Model {
    fn is_visible(&self, record: &Written) -> bool {
        record.transaction.is_none_or(|index| self.fates[index] == Fate::Committed)
    }

    /// What a consumer that starts at `from` and reads to `end` knows at the end.
    fn state(&self, from: i64, end: i64) -> BTreeMap<String, String> {
        let seen = self.records.iter().filter(|record| (from..end).contains(&record.offset));
        fold(seen.filter(|record| self.is_visible(record)).cloned())
    }
}

fn fold(records: impl Iterator<Item = Written>) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for Written { key, value, .. } in records {
        match value {
            Some(value) => drop(state.insert(key, value)),
            None => drop(state.remove(&key)),
        }
    }
    state
}

struct Run {
    simulation: Simulation,
    log: Option<Log>,
    model: Model,
    synced: i64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let simulation = Simulation::new(seed);
        let log = Log::create(&simulation.env(), Path::new(PATH), options(config())).unwrap();
        log.sync().unwrap();
        Self { simulation, log: Some(log), model: Model::default(), synced: 0 }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn now(&self) -> TimestampMs {
        self.simulation.env().clock.now()
    }

    fn append(&mut self, producer: i64, keys: &[(u8, bool)], codec: Compression) {
        let now = self.now();
        let transactional = producer >= 10;
        let sequence = *self.model.sequences.entry(producer).or_insert(0);
        let mut builder = BatchBuilder::new(BatchOptions {
            compression: codec,
            producer_id: ProducerId(producer),
            producer_epoch: ProducerEpoch(if producer < 0 { -1 } else { 0 }),
            base_sequence: Sequence(if producer < 0 { -1 } else { sequence }),
            transactional,
            ..BatchOptions::default()
        });
        let transaction = transactional.then(|| {
            *self.model.open.entry(producer).or_insert_with(|| {
                self.model.fates.push(Fate::Open);
                self.model.fates.len() - 1
            })
        });
        let first = self.model.end;
        for (key, has_value) in keys {
            self.model.steps += 1;
            let key = format!("key {key}");
            let value = has_value.then(|| format!("value {} {}", self.model.steps, "x".repeat(40)));
            let bytes = value.as_ref().map(String::as_bytes);
            builder.append(now, Some(key.as_bytes()), bytes, &[]).unwrap();
            self.model.records.push(Written { offset: self.model.end, key, value, transaction });
            self.model.end += 1;
        }
        let count = keys.len();
        if producer >= 0 {
            self.model.sequences.insert(producer, sequence + i32::try_from(count).unwrap());
            self.model.last.insert(producer, (sequence, first, count));
        }
        let info = self.log().append_as_leader(&builder.finish().unwrap(), EPOCH, now).unwrap();
        assert_eq!(info.base_offset.0, first);
    }

    fn end_transaction(&mut self, producer: i64, committed: bool) {
        let Some(index) = self.model.open.remove(&producer) else { return };
        let now = self.now();
        self.log().append(marker(producer, 0, committed), EPOCH, now).unwrap();
        self.model.fates[index] = if committed { Fate::Committed } else { Fate::Aborted };
        self.model.end += 1;
    }

    fn compact(&mut self, map_bytes: usize) -> Result<Option<CleanerSummary>> {
        self.synced = self.log().sync()?.0;
        let limits = CleanerLimits { map_bytes, load_factor: 0.9, buffer_bytes: 300 };
        let (now, env) = (self.now(), self.simulation.env());
        let clean_until = self.model.clean_until;
        self.commit();
        let reader = self.log().reader();
        let dirtiness = reader.dirtiness(&config(), clean_until, now)?;
        if !dirtiness.is_due {
            return Ok(None);
        }
        // Like the checkpoint, which is written first.
        self.model.clean_until = Some(dirtiness.first_dirty);
        let mut cleaner = Cleaner::new(&env, &reader, &config(), limits, &dirtiness, now);
        loop {
            match cleaner.step()? {
                Progress::More(_) => {}
                Progress::Cleaned(cleaned) => assert!(self.log().replace_segments(cleaned)?),
                Progress::Done(summary) => {
                    assert!(summary.end <= dirtiness.first_uncleanable);
                    self.model.clean_until = Some(summary.end);
                    return Ok(Some(summary));
                }
            }
        }
    }

    /// Everything is committed.
    fn commit(&mut self) {
        let end = Offset(self.model.end);
        self.log().high_watermark().raise(end);
    }

    fn open(&mut self, clean: bool) {
        let opening = OpenOptions {
            recovery_point: Offset(self.synced),
            clean_shutdown: clean,
            health: Health::new(Path::new("data")),
            ..options(config())
        };
        let opened = Log::open(&self.simulation.env(), Path::new(PATH), opening);
        self.log = Some(opened.unwrap_or_else(|error| panic!("{}", error.chain())).0);
        // A power cut takes what was not synced.
        let end = self.log().log_end_offset().0;
        assert!(end >= self.synced, "{end} < {}", self.synced);
        assert!(end == self.model.end || self.model.open.is_empty() || end <= self.model.end);
        if end < self.model.end {
            self.forget(end);
        }
    }

    /// The log ends earlier: the tests sync before the power goes when it matters.
    fn forget(&mut self, end: i64) {
        self.model.records.retain(|record| record.offset < end);
        self.model.end = end;
    }

    /// All existing records, and those that a read-committed consumer is shown.
    fn read(&mut self) -> (Vec<Written>, Vec<Written>) {
        let end = Offset(self.model.end);
        self.commit();
        let reader = self.log().reader();
        let stable = reader.last_stable_offset();
        let mut aborted = reader.aborted_transactions(Offset(0), stable);
        aborted.reverse();
        let (mut all, mut visible) = (Vec::new(), Vec::new());
        let mut aborting = BTreeSet::new();
        let mut offset = 0;
        loop {
            let result = reader.read(request(offset)).unwrap();
            if result.records.is_empty() {
                assert_eq!(offset, end.0, "a reader comes to the end");
                return (all, visible);
            }
            for batch in Batches::new(result.records.clone()) {
                let batch = batch.unwrap();
                let header = *batch.header();
                while aborted.last().is_some_and(|next| next.first_offset <= header.last_offset()) {
                    aborting.insert(aborted.pop().unwrap().producer_id);
                }
                if header.is_control() {
                    if header.record_count > 0
                        && !read_control_batch(&batch).unwrap().1.unwrap().committed
                    {
                        aborting.remove(&header.producer_id);
                    }
                    continue;
                }
                let hidden = header.is_transactional() && aborting.contains(&header.producer_id)
                    || header.last_offset() >= stable;
                for record in &batch.records(1 << 20).unwrap() {
                    let record = record.unwrap();
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    let written = Written {
                        offset: record.offset.0,
                        key: text(record.key.unwrap()),
                        value: record.value.map(text),
                        transaction: None,
                    };
                    all.push(written.clone());
                    if !hidden {
                        visible.push(written);
                    }
                }
            }
            offset = result.next_offset.0;
        }
    }

    fn check(&mut self, end: Option<Offset>) {
        self.commit();
        let stable = self.log().reader().last_stable_offset().0;
        let (all, visible) = self.read();
        let plain = |record: &Written| Written { transaction: None, ..record.clone() };
        let written: BTreeMap<i64, Written> =
            self.model.records.iter().map(|record| (record.offset, plain(record))).collect();
        for pair in all.windows(2) {
            assert!(pair[0].offset < pair[1].offset);
        }
        for record in &all {
            assert_eq!(Some(record), written.get(&record.offset));
        }
        if let Some(end) = end {
            let above = |record: &&Written| record.offset >= end.0;
            let found: Vec<_> = all.iter().filter(above).collect();
            let expected: Vec<_> = written.values().filter(above).collect();
            assert_eq!(found, expected, "what lies above the round is not touched");
            let mut newest = BTreeMap::new();
            for record in visible.iter().filter(|record| record.offset < end.0) {
                let before = newest.insert(record.key.clone(), record.offset);
                assert_eq!(before, None, "{} is there twice", record.key);
            }
        }
        for from in 0..=stable {
            let seen = visible.iter().filter(|record| record.offset >= from).cloned();
            assert_eq!(fold(seen), self.model.state(from, stable), "from {from}");
        }
    }

    /// The producers are known, even when they were read back from a compacted log.
    fn check_producers(&mut self) {
        let known: Vec<_> = self.model.last.clone().into_iter().collect();
        for (producer, (sequence, first, count)) in known {
            if first + i64::try_from(count).unwrap() > self.model.end {
                continue;
            }
            let mut builder = BatchBuilder::new(BatchOptions {
                producer_id: ProducerId(producer),
                producer_epoch: ProducerEpoch(0),
                base_sequence: Sequence(sequence),
                transactional: producer >= 10,
                ..BatchOptions::default()
            });
            for _ in 0..count {
                builder.append(self.now(), Some(b"k"), None, &[]).unwrap();
            }
            let now = self.now();
            let info = self.log().append_as_leader(&builder.finish().unwrap(), EPOCH, now).unwrap();
            assert!(info.duplicate, "producer {producer}");
            assert_eq!(info.base_offset.0, first);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { producer: i64, keys: Vec<(u8, bool)>, codec: u8 },
    End { producer: i64, committed: bool },
    Compact { small: bool },
    Advance(i64),
    Close,
    Kill,
    LoseSnapshots,
}

fn step() -> impl Strategy<Value = Step> {
    let keys = proptest::collection::vec((0..12_u8, prop::bool::weighted(0.8)), 1..6);
    let producer = prop_oneof![3 => Just(-1_i64), 2 => 1..3_i64, 3 => 10..13_i64];
    prop_oneof![
        12 => (producer, keys, 0..5_u8)
            .prop_map(|(producer, keys, codec)| Step::Append { producer, keys, codec }),
        4 => (10..13_i64, any::<bool>())
            .prop_map(|(producer, committed)| Step::End { producer, committed }),
        4 => prop::bool::weighted(0.2).prop_map(|small| Step::Compact { small }),
        2 => (1..600_i64).prop_map(Step::Advance),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => Just(Step::LoseSnapshots),
    ]
}

fn codec(number: u8) -> Compression {
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    codecs[usize::from(number) % codecs.len()]
}

impl Run {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append { producer, keys, codec: number } => {
                self.append(*producer, keys, codec(*number));
            }
            Step::End { producer, committed } => self.end_transaction(*producer, *committed),
            Step::Compact { small } => {
                let bytes = if *small { 24 * 70 } else { 1 << 20 };
                let summary = self.compact(bytes).unwrap();
                self.check(summary.map(|summary| summary.end));
            }
            Step::Advance(ms) => self.simulation.clock.advance(*ms),
            Step::Close => {
                self.synced = self.log.take().unwrap().close().unwrap().0;
                self.open(true);
                self.check(None);
            }
            Step::Kill => {
                self.log = None;
                self.simulation.disk.kill();
                self.open(false);
                self.check(None);
                self.check_producers();
            }
            Step::LoseSnapshots => {
                self.log().sync().unwrap();
                self.log = None;
                let disk = self.simulation.env().disk;
                for entry in disk.read_dir(Path::new(PATH)).unwrap() {
                    if entry.name.ends_with(".snapshot") {
                        disk.remove_file(&Path::new(PATH).join(&entry.name)).unwrap();
                    }
                }
                self.open(false);
                self.check(None);
                self.check_producers();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_compacted_log_gives_the_state_that_the_whole_log_would_give(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut run = Run::new(seed);
        for step in &steps {
            run.apply(step);
        }
        let summary = run.compact(1 << 20).unwrap();
        run.check(summary.map(|summary| summary.end));
    }
}

/// A log with every kind of thing in it, ready to be compacted.
fn prepared(seed: u64) -> Run {
    let mut run = Run::new(seed);
    for round in 0..8_u8 {
        run.append(-1, &[(round % 3, true), (round, round % 4 != 3)], codec(round));
        run.append(1, &[(round % 2, true)], Compression::None);
        run.append(10, &[(round % 5, true)], Compression::Lz4);
        run.append(11, &[(7, true)], Compression::None);
        run.end_transaction(10, round % 2 == 0);
        run.end_transaction(11, false);
    }
    run.log().sync().unwrap();
    run
}

/// Two rounds, the second past the delete horizon set by the first.
fn compact_twice(run: &mut Run) -> Result<()> {
    run.compact(1 << 20)?;
    run.simulation.clock.advance(RETENTION_MS + 1);
    run.append_more()?;
    run.compact(1 << 20)?;
    Ok(())
}

impl Run {
    fn append_more(&mut self) -> Result<()> {
        for round in 0..6_u8 {
            let value = format!("more {round} {}", "y".repeat(200));
            let mut builder = BatchBuilder::new(BatchOptions::default());
            let (key, now) = (format!("key {}", round % 4), self.now());
            builder.append(now, Some(key.as_bytes()), Some(value.as_bytes()), &[])?;
            self.model.records.push(Written {
                offset: self.model.end,
                key,
                value: Some(value),
                transaction: None,
            });
            self.model.end += 1;
            self.log().append_as_leader(&builder.finish()?, EPOCH, now)?;
        }
        self.synced = self.log().sync()?.0;
        Ok(())
    }
}

#[test]
fn a_crash_at_every_call_of_a_compaction_loses_nothing() {
    let calls = {
        let mut run = prepared(0);
        let before = run.simulation.disk.calls();
        compact_twice(&mut run).unwrap();
        run.check(None);
        run.simulation.disk.calls() - before
    };
    assert!(calls > 60, "{calls}");
    for point in 0..=calls {
        for seed in 0..4 {
            let mut run = prepared(seed);
            run.synced = run.model.end;
            run.simulation.disk.crash_after(point);
            let finished = compact_twice(&mut run).is_ok();
            assert_eq!(finished, point >= calls, "{point} of {calls}");
            run.log = None;
            if seed % 4 == 3 {
                run.simulation.disk.kill();
            } else {
                run.simulation.disk.power_cut();
            }
            recover(&mut run, seed);
            run.check(None);
            run.check_producers();
            // Whatever the crash left can be compacted.
            let summary = run.compact(1 << 20).unwrap();
            run.check(summary.map(|summary| summary.end));
        }
    }
}

/// Opens the log; every other time the power goes again in the middle of it.
fn recover(run: &mut Run, seed: u64) {
    if seed % 2 == 1 {
        for point in 0..4 {
            let opening = OpenOptions {
                recovery_point: Offset(run.synced),
                health: Health::new(Path::new("data")),
                ..options(config())
            };
            run.simulation.disk.crash_after(point * 3);
            drop(Log::open(&run.simulation.env(), Path::new(PATH), opening));
            run.simulation.disk.power_cut();
        }
    }
    run.open(false);
}

#[test]
fn readers_of_old_segments_go_on_while_the_names_change() {
    let mut run = prepared(3);
    let reader = run.log().reader();
    let before = reader.read(request(0)).unwrap();
    let bytes = before.records.to_vec();
    for _ in 0..3 {
        run.simulation.clock.advance(RETENTION_MS + 1);
        run.append_more().unwrap();
        run.compact(1 << 20).unwrap();
    }
    assert_eq!(before.records, bytes);
    assert!(reader.size_bytes() < 4000, "{}", reader.size_bytes());
    run.check(None);
}

#[test]
fn a_log_that_changed_meanwhile_refuses_the_new_segment() {
    let mut run = prepared(5);
    let (now, env) = (run.now(), run.simulation.env());
    run.commit();
    let reader = run.log().reader();
    let dirtiness = reader.dirtiness(&config(), None, now).unwrap();
    let limits = CleanerLimits::default();
    let mut cleaner = Cleaner::new(&env, &reader, &config(), limits, &dirtiness, now);
    let cleaned = loop {
        match cleaner.step().unwrap() {
            Progress::Cleaned(cleaned) => break cleaned,
            Progress::More(_) => {}
            Progress::Done(summary) => panic!("{summary:?}"),
        }
    };
    run.log().truncate_uncleanly(Offset(3)).unwrap();
    assert!(!run.log().replace_segments(cleaned).unwrap());
    let left = env.disk.read_dir(Path::new(PATH)).unwrap();
    let temporary = |name: &str| [".cleaned", ".swap"].iter().any(|end| name.ends_with(end));
    assert!(!left.iter().any(|entry| temporary(&entry.name)), "{left:?}");
}
