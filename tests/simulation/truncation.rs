//! A follower cuts what its leader does not have and goes on with what the leader has, and the power goes: what is
//! left is one history, and everything that is derived from the records agrees with them.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use ottla::env::sim::Simulation;
use ottla::log::{CheckpointedOffsets, Log, LogConfig, LogDirectory, LogReader, OpenOptions};
use ottla::record::{BatchHeader, BatchOptions, Batches};
use ottla::types::{LeaderEpoch, NodeId, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::support::{batch_with, options, read_all, request};

const NOW: TimestampMs = TimestampMs(1_000);
const HIGH_WATERMARK: Offset = Offset(3);

/// A record: its offset, the epoch of its leader, its producer and sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    offset: i64,
    epoch: i32,
    producer: i64,
    sequence: i32,
}

/// Records of an epoch, one a batch, whose producer has written nothing before.
fn term(epoch: i32, producer: i64, offsets: std::ops::Range<i64>) -> Vec<Written> {
    (0..)
        .zip(offsets)
        .map(|(sequence, offset)| Written { offset, epoch, producer, sequence })
        .collect()
}

/// What the replica had, then what its leader has. They are equal up to offset 5, in bytes, too; what follows is as
/// long in both, so that a batch of the one could stand in the place of one of the other.
fn before() -> Vec<Written> {
    [term(1, 4, 0..5), term(4, 5, 5..8), term(6, 6, 8..10)].concat()
}

fn after() -> Vec<Written> {
    [term(1, 4, 0..5), term(3, 7, 5..7), term(7, 8, 7..9)].concat()
}

const CUT: i64 = 5;

fn config(segment_bytes: u32) -> LogConfig {
    LogConfig {
        segment_bytes,
        index_interval_bytes: 100,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

fn bytes(one: Written) -> Bytes {
    let options = BatchOptions {
        base_offset: Offset(one.offset),
        leader_epoch: LeaderEpoch(one.epoch),
        producer_id: ProducerId(one.producer),
        producer_epoch: ProducerEpoch(0),
        base_sequence: Sequence(one.sequence),
        ..BatchOptions::default()
    };
    let value = format!("offset {} of epoch {} {}", one.offset, one.epoch, "x".repeat(80));
    batch_with(options, NOW.0, &[&value])
}

/// What happens to the log.
#[derive(Clone, Copy, Debug)]
enum How {
    Cut,
    /// What is cut is one batch after the other, as several leaders find more and more.
    TwoCuts,
    /// The leader was elected uncleanly.
    Uncleanly,
    Restart,
}

fn offsets(log: &Log) -> CheckpointedOffsets {
    CheckpointedOffsets {
        recovery_point: log.recovery_point(),
        log_start_offset: log.log_start_offset(),
        high_watermark: log.high_watermark().get(),
    }
}

/// Returns the histories that a crash from now on may leave a prefix of.
fn run(
    simulation: &Simulation,
    (how, segment_bytes): (How, u32),
    reached: &mut usize,
) -> ottla::error::Result<()> {
    let env = simulation.env();
    let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None)?;
    let partition = options(config(segment_bytes)).partition;
    let opening = OpenOptions { health: directory.health(), ..options(config(segment_bytes)) };
    let mut log = Log::create(&env, &directory.partition_path(&partition), opening)?;
    for one in before() {
        log.append_as_follower(&bytes(one), LeaderEpoch(i32::MAX), NOW)?;
    }
    log.sync()?;
    log.high_watermark().raise(HIGH_WATERMARK);
    directory.write_checkpoints([(partition.clone(), offsets(&log))])?;
    // Somebody reads to the end, as a consumer up to the high watermark and as a follower beyond.
    let held = read_all(&log.reader())?;
    assert_eq!(held.len(), before().len());
    *reached = 1;
    let goes_on = match how {
        How::Cut => {
            directory.lower_checkpoints(&partition, Offset(CUT))?;
            assert_eq!(log.truncate_to(Offset(CUT))?, Offset(CUT));
            after()
        }
        How::TwoCuts => {
            for cut in [9, CUT] {
                directory.lower_checkpoints(&partition, Offset(cut))?;
                assert_eq!(log.truncate_to(Offset(cut))?, Offset(cut));
            }
            after()
        }
        How::Uncleanly => {
            log.truncate_to(Offset(2)).expect_err("below the high watermark");
            directory.lower_checkpoints(&partition, Offset(2))?;
            assert_eq!(log.truncate_uncleanly(Offset(2))?, Offset(2));
            assert_eq!(log.high_watermark().get(), Offset(2));
            [term(1, 4, 0..2), term(7, 8, 2..5)].concat()
        }
        How::Restart => {
            directory.lower_checkpoints(&partition, Offset(0))?;
            assert_eq!(log.restart_at(Offset(20))?, Offset(20));
            assert_eq!(
                (log.log_start_offset(), log.high_watermark().get()),
                (Offset(20), Offset(20))
            );
            term(5, 8, 20..23)
        }
    };
    *reached = 2;
    check_derived(&log.reader(), &format!("{how:?}, at once"));
    let end = log.log_end_offset().0;
    for one in goes_on.into_iter().filter(|one| one.offset >= end) {
        log.append_as_follower(&bytes(one), LeaderEpoch(i32::MAX), NOW)?;
    }
    check_derived(&log.reader(), &format!("{how:?}, at the end"));
    log.sync()?;
    directory.write_checkpoints([(partition, offsets(&log))])?;
    *reached = 3;
    Ok(())
}

fn headers(reader: &LogReader) -> Vec<BatchHeader> {
    let mut found = Vec::new();
    let mut at = reader.log_start_offset();
    loop {
        let read = reader.read(request(at.0)).unwrap();
        if read.records.is_empty() {
            return found;
        }
        found.extend(Batches::new(read.records).map(|batch| *batch.unwrap().header()));
        at = read.next_offset;
    }
}

fn written(header: &BatchHeader) -> Written {
    Written {
        offset: header.base_offset.0,
        epoch: header.leader_epoch.0,
        producer: header.producer_id.0,
        sequence: header.base_sequence.0,
    }
}

/// Producers and epochs are those of the records.
fn check_derived(reader: &LogReader, what: &str) {
    let found = headers(reader);
    let mut last: BTreeMap<i64, i32> = BTreeMap::new();
    let mut starts: Vec<(i32, i64)> = Vec::new();
    for one in found.iter().map(written) {
        last.insert(one.producer, one.sequence);
        if starts.last().is_none_or(|(epoch, _)| *epoch != one.epoch) {
            starts.push((one.epoch, one.offset));
        }
    }
    let state = |one: &ottla::log::ProducerState| {
        (one.producer_id.0, one.batches.back().unwrap().last_sequence.0)
    };
    let known: BTreeMap<i64, i32> = reader.producers().iter().map(state).collect();
    assert_eq!(known, last, "{what}: producers");
    let epochs: Vec<_> =
        reader.epochs().iter().map(|entry| (entry.epoch.0, entry.start_offset.0)).collect();
    assert_eq!(epochs, starts, "{what}: epochs");
    let late = reader.offset_for_timestamp(NOW, Offset(i64::MAX)).unwrap();
    assert_eq!(
        late.map(|(_, offset, _)| offset),
        found.first().map(|first| first.base_offset),
        "{what}"
    );
}

fn check(simulation: &Simulation, (how, segment_bytes): (How, u32), reached: usize, what: &str) {
    let env = simulation.env();
    let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None).unwrap();
    let partition = options(config(segment_bytes)).partition;
    let path = directory.partition_path(&partition);
    if !env.disk.exists(&path).unwrap() {
        assert_eq!(reached, 0, "{what}");
        return;
    }
    let saved = directory.checkpointed(&partition);
    let opening = OpenOptions {
        health: directory.health(),
        recovery_point: saved.recovery_point,
        log_start_offset: saved.log_start_offset,
        ..options(config(segment_bytes))
    };
    let (mut log, _) =
        Log::open(&env, &path, opening).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    let reader = log.reader();
    read_all(&reader).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    let found: Vec<Written> = headers(&reader).iter().map(written).collect();
    let is_prefix = |of: &[Written]| of.starts_with(&found);
    let (new, kept) = match how {
        How::Cut | How::TwoCuts => (after(), usize::try_from(CUT).unwrap()),
        How::Uncleanly => ([term(1, 4, 0..2), term(7, 8, 2..5)].concat(), 2),
        How::Restart => (term(5, 8, 20..23), 0),
    };
    let fits = match reached {
        0 => is_prefix(&before()),
        1 => is_prefix(&before()) && found.len() >= kept,
        2 => is_prefix(&new) && found.len() >= kept || how_restarts(how) && found.is_empty(),
        _ => found == new,
    };
    assert!(fits, "{what}: {found:?}");
    check_derived(&reader, what);
    // What counts as committed is.
    assert!(reached < 1 || saved.high_watermark <= HIGH_WATERMARK || how_restarts(how), "{what}");
    let end = log.log_end_offset();
    let next = Written { offset: end.0, epoch: 9, producer: 1, sequence: 0 };
    log.append_as_follower(&bytes(next), LeaderEpoch(i32::MAX), NOW).unwrap();
    log.sync().unwrap();
    check_derived(&reader, what);
}

const fn how_restarts(how: How) -> bool {
    matches!(how, How::Restart)
}

#[test]
fn a_power_cut_anywhere_in_a_truncation_leaves_one_history() {
    for case in [
        (How::Cut, 1 << 20),
        (How::Cut, 500),
        (How::TwoCuts, 500),
        (How::Uncleanly, 1 << 20),
        (How::Uncleanly, 500),
        (How::Restart, 500),
    ] {
        let calls = {
            let simulation = Simulation::new(0);
            run(&simulation, case, &mut 0).unwrap();
            simulation.disk.calls()
        };
        assert!(calls > 30, "{calls}");
        for point in 0..=calls {
            for seed in 0..8 {
                let simulation = Simulation::new(seed);
                simulation.disk.crash_after(point);
                let mut reached = 0;
                assert_eq!(run(&simulation, case, &mut reached).is_ok(), point >= calls);
                simulation.disk.power_cut();
                let what = format!("{case:?}: power cut at call {point} of {calls}, seed {seed}");
                check(&simulation, case, reached, &what);
            }
        }
    }
}

#[test]
fn a_cut_log_closes_and_opens_as_it_is() {
    for case in [(How::Cut, 1 << 20), (How::Cut, 500), (How::TwoCuts, 500), (How::Restart, 500)] {
        let simulation = Simulation::new(1);
        run(&simulation, case, &mut 0).unwrap();
        simulation.disk.kill();
        let env = simulation.env();
        for _ in 0..2 {
            let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None).unwrap();
            let partition = options(config(case.1)).partition;
            let path = directory.partition_path(&partition);
            let opening = OpenOptions {
                health: directory.health(),
                clean_shutdown: directory.was_clean(),
                log_start_offset: directory.checkpointed(&partition).log_start_offset,
                ..options(config(case.1))
            };
            let (log, _) = Log::open(&env, &path, opening).unwrap();
            check_derived(&log.reader(), &format!("{case:?}"));
            let saved = offsets(&log);
            log.close().unwrap();
            directory.write_checkpoints([(partition, saved)]).unwrap();
            directory.close().unwrap();
        }
    }
}
