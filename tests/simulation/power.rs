//! The power goes at every system call of a run, one after the other.

use std::path::Path;

use ottla::env::sim::Simulation;
use ottla::log::{
    Beginning, CheckpointedOffsets, EpochEntry, LocalRetention, Log, LogConfig, LogDirectory,
    OpenOptions,
};
use ottla::types::{LeaderEpoch, NodeId, Offset, ProducerId, TimestampMs};

use crate::support::{EPOCH, batch, create, idempotent, options, read_all, read_from, reopen};

const NOW: TimestampMs = TimestampMs(1_000);

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 700,
        index_interval_bytes: 100,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

/// What the client of a run knows.
#[derive(Debug, Default)]
struct Known {
    /// Every value that was sent, in order.
    sent: Vec<String>,
    /// How many of them a finished sync covers.
    acknowledged: usize,
    /// The requested log start offset.
    deleted_before: i64,
}

/// Appends, syncs, checkpoints, deletes and closes until the machine stops.
fn run(simulation: &Simulation, known: &mut Known) -> ottla::error::Result<()> {
    let env = simulation.env();
    let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None)?;
    let partition = options(config()).partition;
    let opening = OpenOptions { health: directory.health(), ..options(config()) };
    let mut log = Log::create(&env, &directory.partition_path(&partition), opening)?;
    for step in 0..24_i32 {
        let value = format!("value {step} {}", "x".repeat(60));
        known.sent.push(value.clone());
        log.append_as_leader(&idempotent(4, 0, step, &[&value]), EPOCH, NOW)?;
        if step % 3 == 2 {
            known.acknowledged =
                usize::try_from(log.sync_handle().run()?.0).unwrap().max(known.acknowledged);
        }
        if step % 5 == 4 {
            checkpoint(&directory, &log)?;
        }
        if step == 15 {
            known.deleted_before = 6;
            log.delete_records_before(Offset(6), log.log_end_offset())?;
            checkpoint(&directory, &log)?;
            log.apply_retention(NOW, log.log_end_offset())?;
        }
    }
    let offsets = offsets(&log);
    known.acknowledged = usize::try_from(log.close()?.0).unwrap();
    directory.write_checkpoints([(partition, offsets)])?;
    directory.close()
}

fn offsets(log: &Log) -> CheckpointedOffsets {
    CheckpointedOffsets {
        recovery_point: log.recovery_point(),
        log_start_offset: log.log_start_offset(),
        high_watermark: log.log_end_offset(),
    }
}

fn checkpoint(directory: &LogDirectory, log: &Log) -> ottla::error::Result<()> {
    directory.write_checkpoints([(log.partition().clone(), offsets(log))])
}

/// Opens what the crash left. Nothing acknowledged is lost, nothing is out of order, and appending
/// continues.
fn check(simulation: &Simulation, known: &Known, what: &str) {
    let env = simulation.env();
    let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None)
        .unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    let partition = options(config()).partition;
    let checkpointed = directory.checkpointed(&partition);
    let path = directory.partition_path(&partition);
    if !env.disk.exists(&path).unwrap() {
        assert_eq!(known.acknowledged, 0, "{what}");
        return;
    }
    let opening = OpenOptions {
        health: directory.health(),
        recovery_point: checkpointed.recovery_point,
        log_start_offset: checkpointed.log_start_offset,
        clean_shutdown: directory.was_clean(),
        ..options(config())
    };
    let (mut log, _) =
        Log::open(&env, &path, opening).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    let end = usize::try_from(log.log_end_offset().0).unwrap();
    assert!(end >= known.acknowledged, "{what}: {end} records left of {known:?}");
    assert!(log.log_start_offset().0 <= known.deleted_before, "{what}");
    let found = read_all(&log.reader()).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    assert_eq!(found.len() as i64, end as i64 - log.log_start_offset().0, "{what}");
    for (offset, value) in &found {
        let sent = known.sent.get(usize::try_from(*offset).unwrap());
        assert_eq!(Some(value), sent, "{what}: offset {offset}");
    }
    // The producers are those of the remaining batches.
    if end > 0 {
        let again = idempotent(4, 0, i32::try_from(end).unwrap() - 1, &["x"]);
        let again = log.append_as_leader(&again, EPOCH, NOW).unwrap();
        assert!(again.duplicate, "{what}");
        let gap = idempotent(4, 0, i32::try_from(end).unwrap() + 1, &["x"]);
        log.append_as_leader(&gap, EPOCH, NOW).expect_err(what);
    }
    let next = idempotent(4, 0, i32::try_from(end).unwrap(), &["next"]);
    let next = log.append_as_leader(&next, EPOCH, NOW).unwrap();
    assert_eq!(next.base_offset.0, end as i64, "{what}");
    log.sync().unwrap();
}

fn calls_of_a_run() -> u64 {
    let simulation = Simulation::new(0);
    run(&simulation, &mut Known::default()).unwrap();
    simulation.disk.calls()
}

#[test]
fn a_power_cut_at_every_call_loses_nothing_that_was_synced() {
    let calls = calls_of_a_run();
    assert!(calls > 100, "{calls}");
    for point in 0..=calls {
        for seed in 0..6 {
            let simulation = Simulation::new(seed);
            simulation.disk.crash_after(point);
            let mut known = Known::default();
            let finished = run(&simulation, &mut known).is_ok();
            assert_eq!(finished, point >= calls);
            simulation.disk.power_cut();
            let what = format!("power cut at call {point} with seed {seed}");
            check(&simulation, &known, &what);
        }
    }
}

#[test]
fn a_kill_at_every_call_loses_nothing_that_was_written() {
    for point in 0..=calls_of_a_run() {
        let simulation = Simulation::new(point);
        simulation.disk.crash_after(point);
        let mut known = Known::default();
        drop(run(&simulation, &mut known));
        simulation.disk.kill();
        // Every append that returned was written, so all but the last are there.
        known.acknowledged = known.acknowledged.max(known.sent.len().saturating_sub(1));
        check(&simulation, &known, &format!("kill at call {point}"));
    }
}

#[test]
fn a_power_cut_during_recovery_loses_nothing_either() {
    for seed in 0..40 {
        let mut point = 0;
        loop {
            let simulation = Simulation::new(seed);
            simulation.disk.crash_after(60 + seed);
            let mut known = Known::default();
            run(&simulation, &mut known).expect_err("the machine stops");
            simulation.disk.power_cut();
            simulation.disk.crash_after(point);
            let recovered = recover(&simulation);
            simulation.disk.power_cut();
            let what = format!("seed {seed}, second power cut at call {point}");
            check(&simulation, &known, &what);
            if recovered.is_ok() {
                break;
            }
            point += 1;
        }
    }
}

fn recover(simulation: &Simulation) -> ottla::error::Result<()> {
    let env = simulation.env();
    let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None)?;
    let partition = options(config()).partition;
    let checkpointed = directory.checkpointed(&partition);
    let opening = OpenOptions {
        health: directory.health(),
        recovery_point: checkpointed.recovery_point,
        log_start_offset: checkpointed.log_start_offset,
        clean_shutdown: directory.was_clean(),
        ..options(config())
    };
    let path = directory.partition_path(&partition);
    let (log, _) = Log::open(&env, &path, opening)?;
    checkpoint(&directory, &log)?;
    log.sync()?;
    checkpoint(&directory, &log)
}

#[test]
fn a_segment_whose_indexes_were_not_synced_is_not_taken_for_an_old_one() {
    let path = Path::new("orders-0");
    for seed in 0..60 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let now = env.clock.now();
        let mut log = create(&env, path, config());
        log.append_as_leader(&batch(now.0, &["the only one"]), EPOCH, now).unwrap();
        let synced = log.sync().unwrap();
        assert!(log.maybe_roll(now.plus(LogConfig::default().segment_ms + 1)).unwrap());
        simulation.disk.power_cut();
        drop(log);
        let (mut log, _) = reopen(&env, path, config(), synced).unwrap();
        let deleted = log.apply_retention(now, synced).unwrap();
        assert_eq!(
            (deleted.segments, read_all(&log.reader()).unwrap().len()),
            (0, 1),
            "seed {seed}"
        );
    }
}

/// Appends ten values in several segments, syncs, lowers the recovery point and truncates to 5.
fn run_truncation(simulation: &Simulation) -> ottla::error::Result<()> {
    let env = simulation.env();
    let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None)?;
    let partition = options(config()).partition;
    let opening = OpenOptions { health: directory.health(), ..options(config()) };
    let mut log = Log::create(&env, &directory.partition_path(&partition), opening)?;
    for step in 0..10_i32 {
        let value = format!("value {step} {}", "x".repeat(200));
        log.append_as_leader(&idempotent(4, 0, step, &[&value]), EPOCH, NOW)?;
    }
    log.sync()?;
    checkpoint(&directory, &log)?;
    directory.lower_checkpoints(&partition, Offset(5))?;
    simulation.clock.advance(1);
    log.truncate_to(Offset(5))?;
    for step in 5..8_i32 {
        let value = format!("other {step}");
        log.append_as_leader(&idempotent(4, 0, step, &[&value]), EPOCH, NOW)?;
    }
    log.sync()?;
    checkpoint(&directory, &log)
}

#[test]
fn a_power_cut_during_truncation_leaves_the_old_log_or_the_new_one() {
    let calls = {
        let simulation = Simulation::new(0);
        run_truncation(&simulation).unwrap();
        simulation.disk.calls()
    };
    for point in 0..=calls {
        for seed in 0..6 {
            let simulation = Simulation::new(seed);
            simulation.disk.crash_after(point);
            let finished = run_truncation(&simulation).is_ok();
            simulation.disk.power_cut();
            let what = format!("power cut at call {point} of {calls} with seed {seed}");
            let env = simulation.env();
            let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None).unwrap();
            let partition = options(config()).partition;
            let path = directory.partition_path(&partition);
            if !env.disk.exists(&path).unwrap() {
                continue;
            }
            let checkpointed = directory.checkpointed(&partition);
            let opening = OpenOptions {
                health: directory.health(),
                recovery_point: checkpointed.recovery_point,
                log_start_offset: checkpointed.log_start_offset,
                ..options(config())
            };
            let (log, _) = Log::open(&env, &path, opening)
                .unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
            let found = read_all(&log.reader()).unwrap();
            assert!(!finished || found.len() == 8, "{what}");
            let mut new = false;
            for (place, (offset, value)) in (0..).zip(&found) {
                assert_eq!(*offset, place, "{what}");
                new |= value.starts_with("other");
                assert!(
                    value.starts_with(&format!("value {offset}")) && !new
                        || value.starts_with(&format!("other {offset}")) && *offset >= 5,
                    "{what}"
                );
            }
        }
    }
}

/// Joins the cluster `c` on a new directory, as far as it gets.
fn run_joining(simulation: &Simulation, adopted: &mut bool) -> ottla::error::Result<()> {
    let env = simulation.env();
    let directory = LogDirectory::open_to_join(&env, Path::new("data"), NodeId(1))?;
    directory.adopt("c")?;
    *adopted = true;
    Ok(())
}

#[test]
fn a_power_cut_while_a_cluster_is_joined_leaves_a_directory_of_it_or_of_none() {
    let calls = {
        let simulation = Simulation::new(0);
        run_joining(&simulation, &mut false).unwrap();
        simulation.disk.calls()
    };
    let mut without = 0;
    for point in 0..=calls {
        for seed in 0..6 {
            let simulation = Simulation::new(seed);
            simulation.disk.crash_after(point);
            let mut adopted = false;
            drop(run_joining(&simulation, &mut adopted));
            simulation.disk.power_cut();
            let what = format!("power cut at call {point} of {calls} with seed {seed}");
            let env = simulation.env();
            let directory = LogDirectory::open_to_join(&env, Path::new("data"), NodeId(1)).unwrap();
            let id = directory.meta().cluster_id;
            assert!(id.is_none() || id.as_deref() == Some("c"), "{what}: {id:?}");
            assert!(!adopted || id.is_some(), "{what}");
            without += u32::from(id.is_none());
            let directory_id = directory.meta().directory_id;
            directory.adopt("c").unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
            drop(directory);
            let again = LogDirectory::open(&env, Path::new("data"), NodeId(1), Some("c")).unwrap();
            assert_eq!(again.meta().directory_id, directory_id, "{what}");
        }
    }
    assert!(without > 0, "no cut came before the id was there");
}

/// What is known where a copy begins: producer 9 has written there.
fn known_beginning() -> Beginning {
    let simulation = Simulation::new(0);
    let mut log = create(&simulation.env(), Path::new("other-0"), config());
    log.append_as_leader(&idempotent(9, 0, 0, &["elsewhere"]), EPOCH, NOW).unwrap();
    log.roll(NOW).unwrap();
    let epochs = [(1, 0), (2, 50)].map(|(epoch, offset)| EpochEntry {
        epoch: LeaderEpoch(epoch),
        start_offset: Offset(offset),
    });
    let producers = log.producer_snapshot(Offset(1)).unwrap();
    Beginning { offset: Offset(100), log_start: Offset(20), epochs: epochs.to_vec(), producers }
}

fn of_a_tier() -> LogConfig {
    let local = LocalRetention { ms: -1, bytes: -1, copies: true };
    LogConfig { local_retention: Some(local), ..config() }
}

/// Appends ten values in several segments, and begins elsewhere.
fn run_beginning(simulation: &Simulation, beginning: &Beginning) -> ottla::error::Result<()> {
    let env = simulation.env();
    let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None)?;
    let partition = options(config()).partition;
    let opening = OpenOptions { health: directory.health(), ..options(of_a_tier()) };
    let mut log = Log::create(&env, &directory.partition_path(&partition), opening)?;
    for step in 0..10_i32 {
        let value = format!("value {step} {}", "x".repeat(200));
        log.append_as_leader(&idempotent(4, 0, step, &[&value]), EPOCH, NOW)?;
    }
    log.sync()?;
    checkpoint(&directory, &log)?;
    directory.lower_checkpoints(&partition, Offset(0))?;
    log.begin_at(beginning)?;
    log.append_as_leader(&idempotent(9, 0, 1, &["new 100"]), EPOCH, NOW)?;
    log.append_as_leader(&idempotent(9, 0, 2, &["new 101"]), EPOCH, NOW)?;
    log.sync()?;
    checkpoint(&directory, &log)
}

#[test]
fn a_power_cut_while_a_copy_begins_leaves_the_old_log_or_nothing_or_all_that_is_known() {
    let beginning = known_beginning();
    let calls = {
        let simulation = Simulation::new(0);
        run_beginning(&simulation, &beginning).unwrap();
        simulation.disk.calls()
    };
    let (mut old, mut none, mut begun) = (0, 0, 0);
    for point in 0..=calls {
        for seed in 0..6 {
            let simulation = Simulation::new(seed);
            simulation.disk.crash_after(point);
            let finished = run_beginning(&simulation, &beginning).is_ok();
            simulation.disk.power_cut();
            let what = format!("power cut at call {point} of {calls} with seed {seed}");
            let env = simulation.env();
            let directory = LogDirectory::open(&env, Path::new("data"), NodeId(1), None).unwrap();
            let partition = options(config()).partition;
            let path = directory.partition_path(&partition);
            if !env.disk.exists(&path).unwrap() {
                continue;
            }
            let checkpointed = directory.checkpointed(&partition);
            let opening = OpenOptions {
                health: directory.health(),
                recovery_point: checkpointed.recovery_point,
                log_start_offset: checkpointed.log_start_offset,
                ..options(of_a_tier())
            };
            let (log, _) = Log::open(&env, &path, opening)
                .unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
            let reader = log.reader();
            let epochs: Vec<i32> = reader.epochs().iter().map(|one| one.epoch.0).collect();
            let has = |id| reader.producer(ProducerId(id)).is_some();
            let start = reader.local_start_offset();
            let found = read_from(&reader, start.0).unwrap();
            let kind = if start == Offset(100) { "new" } else { "value" };
            for (place, (offset, value)) in (start.0..).zip(&found) {
                assert_eq!(*offset, place, "{what}");
                assert!(value.starts_with(&format!("{kind} {offset}")), "{what}: {value}");
            }
            assert!(!finished || start == Offset(100) && found.len() == 2, "{what}");
            if start == Offset(100) {
                assert!(has(9) && !has(4) && epochs.starts_with(&[1, 2]), "{what}: {epochs:?}");
                begun += 1;
            } else {
                assert_eq!(start, Offset(0), "{what}");
                assert!(!has(9) && has(4) != found.is_empty(), "{what}");
                assert!(epochs.iter().all(|epoch| *epoch == EPOCH.0), "{what}: {epochs:?}");
                (old, none) =
                    (old + usize::from(!found.is_empty()), none + usize::from(found.is_empty()));
            }
        }
    }
    assert!(old > 0 && none > 0 && begun > 0, "{old} {none} {begun}");
}
