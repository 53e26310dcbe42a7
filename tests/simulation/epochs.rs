//! Leaders come and go, with and without records, and the power goes: whoever leads next knows where every
//! epoch ended.

use std::path::Path;

use ottla::env::sim::Simulation;
use ottla::log::{CheckpointedOffsets, Log, LogConfig, LogDirectory, OpenOptions, ReadRequest};
use ottla::record::Batches;
use ottla::types::{LeaderEpoch, NodeId, Offset, TimestampMs};

use crate::support::{batch, options};

const NOW: TimestampMs = TimestampMs(1_000);
/// How many records each leader appends, and whether it syncs them.
const TERMS: [(i64, bool); 9] = [
    (0, false),
    (2, true),
    (0, false),
    (0, true),
    (3, false),
    (1, true),
    (0, false),
    (2, false),
    (1, false),
];

fn config() -> LogConfig {
    LogConfig { segment_bytes: 400, index_interval_bytes: 100, ..LogConfig::default() }
}

/// The epoch of each record that was sent, and how many are acknowledged.
#[derive(Default)]
struct Known {
    epochs: Vec<i32>,
    acknowledged: usize,
}

fn epoch_of(term: usize) -> LeaderEpoch {
    // Not every election is of this broker.
    LeaderEpoch(i32::try_from(term * 2).unwrap())
}

fn run(simulation: &Simulation, known: &mut Known) -> ottla::error::Result<()> {
    let env = simulation.env();
    let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None)?;
    let partition = options(config()).partition;
    let opening = OpenOptions { health: directory.health(), ..options(config()) };
    let mut log = Log::create(&env, &directory.partition_path(&partition), opening)?;
    for (term, (records, syncs)) in TERMS.into_iter().enumerate() {
        let epoch = epoch_of(term);
        let start = log.start_epoch(epoch)?;
        assert_eq!(start, log.log_end_offset());
        for _ in 0..records {
            known.epochs.push(epoch.0);
            log.append_as_leader(&batch(NOW.0, &["some value of a record"]), epoch, NOW)?;
        }
        if syncs {
            known.acknowledged = usize::try_from(log.sync()?.0).unwrap();
            let offsets = CheckpointedOffsets {
                recovery_point: log.recovery_point(),
                ..CheckpointedOffsets::default()
            };
            directory.write_checkpoints([(partition.clone(), offsets)])?;
        }
    }
    known.acknowledged = usize::try_from(log.close()?.0).unwrap();
    Ok(())
}

/// What KIP-101 says of the records alone: the largest epoch up to `asked`, and where a later one starts.
fn end_of(epochs: &[i32], asked: i32, leader: i32) -> (i32, i64) {
    let end = i64::try_from(epochs.len()).unwrap();
    if asked == leader {
        return (asked, end);
    }
    let after = epochs.iter().position(|&epoch| epoch > asked);
    let floor = epochs.iter().copied().filter(|&epoch| epoch <= asked).max();
    (floor.unwrap_or(asked), after.map_or(end, |after| i64::try_from(after).unwrap()))
}

fn check(simulation: &Simulation, known: &Known, what: &str) {
    let env = simulation.env();
    let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None).unwrap();
    let partition = options(config()).partition;
    let path = directory.partition_path(&partition);
    if !env.disk.exists(&path).unwrap() {
        assert_eq!(known.acknowledged, 0, "{what}");
        return;
    }
    let opening = OpenOptions {
        health: directory.health(),
        recovery_point: directory.checkpointed(&partition).recovery_point,
        ..options(config())
    };
    let (mut log, _) =
        Log::open(&env, &path, opening).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    let end = usize::try_from(log.log_end_offset().0).unwrap();
    assert!(end >= known.acknowledged, "{what}");
    let epochs = &known.epochs[..end];
    let reader = log.reader();
    for (offset, &epoch) in (0..).zip(epochs) {
        let request = ReadRequest {
            offset: Offset(offset),
            max_bytes: 1,
            upper: Offset(i64::MAX),
            at_least_one: true,
        };
        let read = reader.read(request).unwrap();
        let found = Batches::new(read.records).next().unwrap().unwrap();
        assert_eq!(found.header().leader_epoch, LeaderEpoch(epoch), "{what}: offset {offset}");
        assert_eq!(reader.epoch_of(Offset(offset)), Some(LeaderEpoch(epoch)), "{what}: {offset}");
    }
    let leader = epoch_of(TERMS.len());
    log.start_epoch(leader).unwrap();
    for asked in 0..=leader.0 {
        let end = reader.end_offset_for_epoch(LeaderEpoch(asked)).unwrap();
        assert_eq!(
            (end.epoch.0, end.end_offset.0),
            end_of(epochs, asked, leader.0),
            "{what}: epoch {asked}"
        );
    }
    // An older leader has nothing to say any more, once there are records of a newer one.
    log.append_as_leader(&batch(NOW.0, &["next"]), leader, NOW).unwrap();
    log.start_epoch(LeaderEpoch(leader.0 - 1)).expect_err(what);
    log.append_as_leader(&batch(NOW.0, &["x"]), LeaderEpoch(leader.0 - 1), NOW).expect_err(what);
    log.sync().unwrap();
}

#[test]
fn the_next_leader_knows_where_every_epoch_ended_wherever_the_power_goes() {
    let calls = {
        let simulation = Simulation::new(0);
        run(&simulation, &mut Known::default()).unwrap();
        simulation.disk.calls()
    };
    assert!(calls > 20, "{calls}");
    for point in 0..=calls {
        for seed in 0..6 {
            let simulation = Simulation::new(seed);
            simulation.disk.crash_after(point);
            let mut known = Known::default();
            assert_eq!(run(&simulation, &mut known).is_ok(), point >= calls);
            simulation.disk.power_cut();
            check(&simulation, &known, &format!("power cut at call {point} with seed {seed}"));
        }
    }
}
