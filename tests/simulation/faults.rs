//! Rot, a full disk, and a disk that fails.

use std::io;
use std::path::Path;

use ottla::env::sim::{Fault, Simulation};
use ottla::error::{Error, ErrorCode};
use ottla::log::{CheckpointedOffsets, Log, LogConfig, LogDirectory, OpenOptions};
use ottla::types::{NodeId, Offset, TimestampMs, TopicPartition};

use crate::support::{EPOCH, batch, create, options, read_all, reopen, request, values_of};

const NOW: TimestampMs = TimestampMs(1_000);
const PATH: &str = "data/orders-0";

fn config() -> LogConfig {
    LogConfig { segment_bytes: 500, index_interval_bytes: 100, ..LogConfig::default() }
}

/// A log with sealed segments, synced and reopened, so that nothing of it is verified.
fn rotten(
    simulation: &Simulation,
    clean: bool,
    flip: Option<(&str, usize, u8)>,
) -> ottla::error::Result<Log> {
    let env = simulation.env();
    let mut log = create(&env, Path::new(PATH), config());
    for step in 0..12 {
        log.append_as_leader(&batch(step, &["some value", "another"]), EPOCH, NOW).unwrap();
    }
    let recovery_point = log.close().unwrap();
    if let Some((name, byte, bit)) = flip {
        simulation.disk.flip_bit(&Path::new(PATH).join(name), byte, bit).unwrap();
    }
    let opening = OpenOptions { recovery_point, clean_shutdown: clean, ..options(config()) };
    Ok(Log::open(&env, Path::new(PATH), opening)?.0)
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_found_and_never_served() {
    let name = "00000000000000000000.log";
    let (size, segment_end) = {
        let simulation = Simulation::new(1);
        let log = rotten(&simulation, true, None).unwrap();
        assert!(log.reader().segment_count() >= 3);
        assert_eq!(read_all(&log.reader()).unwrap().len(), 24);
        let disk = simulation.env().disk;
        let size = disk.read(&Path::new(PATH).join(name)).unwrap().unwrap().len();
        let entries = disk.read_dir(Path::new(PATH)).unwrap();
        let logs = entries.iter().filter_map(|entry| entry.name.strip_suffix(".log"));
        let second: i64 = logs.map(|name| name.parse().unwrap()).nth(1).unwrap();
        (size, second)
    };
    for byte in 0..size {
        for bit in [0, 3, 7] {
            let simulation = Simulation::new(1);
            let log = rotten(&simulation, true, Some((name, byte, bit))).unwrap();
            let reader = log.reader();

            for offset in 0..segment_end {
                match reader.read(request(offset)) {
                    Err(Error::Corrupt { path, position, .. }) => {
                        assert!(path.ends_with(name), "{}", path.display());
                        // A broken length shows where the next batch should be.
                        assert!(position < size as u64, "{position} {byte}");
                    }
                    Err(error) => panic!("byte {byte} bit {bit}: {}", error.chain()),
                    Ok(read) => {
                        // Intact batches other than the damaged one may be served.
                        for (offset, value) in values_of(&read) {
                            let expected = if offset % 2 == 0 { "some value" } else { "another" };
                            assert_eq!(value, expected, "byte {byte} bit {bit} offset {offset}");
                        }
                    }
                }
            }
            let whole = (0..segment_end).all(|offset| reader.read(request(offset)).is_ok());
            assert!(!whole, "byte {byte} of {size} bit {bit} up to {segment_end} was not found");
        }
    }
}

#[test]
fn rot_below_the_recovery_point_is_reported_and_above_it_is_a_torn_tail() {
    // The recovery point is at the end: header damage in the last segment is corruption.
    let simulation = Simulation::new(2);
    let env = simulation.env();
    let mut log = create(&env, Path::new(PATH), LogConfig::default());
    for step in 0..10 {
        log.append_as_leader(&batch(step, &["some value"]), EPOCH, NOW).unwrap();
    }
    log.sync().unwrap();
    drop(log);
    let file = Path::new(PATH).join("00000000000000000000.log");
    let size = env.disk.read(&file).unwrap().unwrap().len();
    let place = size / 10 * 6 + 70;
    simulation.disk.flip_bit(&file, place, 1).unwrap();
    let (log, report) = reopen(&env, Path::new(PATH), LogConfig::default(), Offset(3)).unwrap();
    assert_eq!(log.log_end_offset(), Offset(6), "cut in front of the damaged batch");
    assert_eq!(report.truncated_bytes, (size / 10 * 4) as u64);
    drop(log);
    let error = reopen(&env, Path::new(PATH), LogConfig::default(), Offset(8)).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{}", error.chain());
    assert!(error.to_string().contains("was synced up to 8"), "{error}");
}

#[test]
fn a_full_disk_refuses_appends_and_takes_them_again_later() {
    for room in [0, 1, 30, 61, 100, 150, 1000, 1003, 1100] {
        let simulation = Simulation::new(3);
        let env = simulation.env();
        let mut log = create(&env, Path::new(PATH), config());
        let mut appended = 0;
        let append = |log: &mut Log, appended: &mut i64| {
            let done = log.append_as_leader(&batch(*appended, &["a value"]), EPOCH, NOW);
            if done.is_ok() {
                *appended += 1;
            }
            done
        };
        for _ in 0..5 {
            append(&mut log, &mut appended).unwrap();
        }
        simulation.disk.set_capacity(simulation.disk.used_bytes() + room);
        let mut refused = 0;
        for _ in 0..40 {
            if let Err(error) = append(&mut log, &mut appended) {
                assert_eq!(error.code(), ErrorCode::KafkaStorageError);
                assert!(matches!(error, Error::Io { .. }), "{}", error.chain());
                refused += 1;
            }
            assert_eq!(log.log_end_offset().0, appended);
            assert_eq!(read_all(&log.reader()).unwrap().len() as i64, appended);
        }
        assert!(refused > 0);
        drop(log.sync());
        // A restart on the full disk serves the existing data, too.
        drop(log);
        let (mut log, _) = reopen(&env, Path::new(PATH), config(), Offset(0)).unwrap();
        assert_eq!(log.log_end_offset().0, appended);
        assert_eq!(read_all(&log.reader()).unwrap().len() as i64, appended);
        simulation.disk.set_capacity(u64::MAX);
        for _ in 0..5 {
            append(&mut log, &mut appended).unwrap();
        }
        log.sync().unwrap();
        drop(log);
        simulation.disk.power_cut();
        let (log, _) = reopen(&env, Path::new(PATH), config(), Offset(appended)).unwrap();
        assert_eq!(read_all(&log.reader()).unwrap().len() as i64, appended);
    }
}

#[test]
fn a_failed_sync_takes_the_directory_offline_for_good() {
    let simulation = Simulation::new(4);
    let env = simulation.env();
    let mut log = create(&env, Path::new(PATH), config());
    log.append_as_leader(&batch(1, &["a"]), EPOCH, NOW).unwrap();
    log.sync().unwrap();
    log.append_as_leader(&batch(1, &["b"]), EPOCH, NOW).unwrap();
    let kind = io::ErrorKind::Other;
    simulation.disk.inject(Fault { call: "sync", path_suffix: ".log".into(), skip: 0, kind });
    assert!(matches!(log.sync(), Err(Error::Offline { .. })));
    assert_eq!(log.recovery_point(), Offset(1));
    assert!(matches!(log.sync(), Err(Error::Offline { .. })), "never retried");
    let append = log.append_as_leader(&batch(1, &["c"]), EPOCH, NOW);
    assert!(matches!(append, Err(Error::Offline { .. })));
    assert!(matches!(log.reader().read(request(0)), Err(Error::Offline { .. })));
}

#[test]
fn a_failed_write_leaves_the_log_as_it_was() {
    for skip in 0..3 {
        let simulation = Simulation::new(5);
        let env = simulation.env();
        let mut log = create(&env, Path::new(PATH), config());
        let kind = io::ErrorKind::Other;
        simulation.disk.inject(Fault { call: "write", path_suffix: ".log".into(), skip, kind });
        let mut done = 0_i64;
        for _ in 0..20 {
            if log.append_as_leader(&batch(1, &["value"]), EPOCH, NOW).is_ok() {
                done += 1;
            }
            assert_eq!(log.log_end_offset().0, done);
        }
        assert_eq!(done, 19);
        assert_eq!(read_all(&log.reader()).unwrap().len(), 19);
    }
}

#[test]
fn a_sync_that_was_overtaken_claims_no_more_than_is_durable() {
    let simulation = Simulation::new(6);
    let env = simulation.env();
    let mut log = create(&env, Path::new(PATH), config());
    for _ in 0..10 {
        log.append_as_leader(&batch(1, &["some longer value"]), EPOCH, NOW).unwrap();
    }
    let first = log.sync_handle();
    log.append_as_leader(&batch(1, &["x"]), EPOCH, NOW).unwrap();
    let second = log.sync_handle();
    drop(first);
    assert_eq!(second.run().unwrap(), Offset(11));
    // A truncation between taking and running a handle: the old claim does not count.
    let stale = log.sync_handle();
    log.truncate_to(Offset(4)).unwrap();
    log.append_as_leader(&batch(1, &["y"]), EPOCH, NOW).unwrap();
    assert_eq!(stale.run().unwrap(), Offset(4));
    log.sync().unwrap();
    drop(log);
    simulation.disk.power_cut();
    let (log, _) = reopen(&env, Path::new(PATH), config(), Offset(5)).unwrap();
    assert_eq!(log.log_end_offset(), Offset(5));
}

#[test]
fn many_partitions_are_deleted_at_the_price_of_their_renames_and_one_failure_is_its_own() {
    const PARTITIONS: i32 = 50;
    let simulation = Simulation::new(1);
    let (env, path) = (simulation.env(), Path::new("data"));
    let directory = LogDirectory::open(&env, path, NodeId(1), None).unwrap();
    let partitions: Vec<TopicPartition> =
        (0..PARTITIONS).map(|index| TopicPartition::new("orders", index)).collect();
    for partition in &partitions {
        create(&env, &directory.partition_path(partition), LogConfig::default()).close().unwrap();
    }
    let offsets = partitions.iter().map(|one| (one.clone(), CheckpointedOffsets::default()));
    directory.write_checkpoints(offsets).unwrap();

    simulation.disk.inject(Fault {
        call: "rename",
        path_suffix: "orders-7".to_owned(),
        skip: 0,
        kind: io::ErrorKind::PermissionDenied,
    });
    let before = simulation.disk.calls();
    let renamed = directory.delete_partitions(&partitions).unwrap();
    let calls = simulation.disk.calls() - before;

    let failed: Vec<usize> = (0..renamed.len()).filter(|&one| renamed[one].is_err()).collect();
    assert_eq!(failed, [7]);
    let left = directory.partitions().unwrap();
    assert_eq!(left.iter().map(|found| found.partition.partition.0).collect::<Vec<_>>(), [7]);
    // The rest: three checkpoints, each replaced with a few calls, and the sync of the directory.
    assert!(calls < PARTITIONS as u64 + 20, "{calls}");
}

#[test]
fn a_disk_that_is_full_can_be_emptied_and_a_new_log_does_not_trust_the_old_ones_checkpoint() {
    let simulation = Simulation::new(1);
    let (env, path) = (simulation.env(), Path::new("data"));
    let partition = TopicPartition::new("orders", 0);
    let directory = LogDirectory::open(&env, path, NodeId(1), None).unwrap();
    create(&env, &directory.partition_path(&partition), LogConfig::default()).close().unwrap();
    let recovery_point = Offset(5);
    let offsets = CheckpointedOffsets { recovery_point, ..CheckpointedOffsets::default() };
    directory.write_checkpoints([(partition.clone(), offsets)]).unwrap();
    assert!(directory.may_know(&partition) && !directory.may_know(&TopicPartition::new("new", 0)));

    simulation.disk.set_capacity(0);
    let renamed = directory.delete_partitions(std::slice::from_ref(&partition)).unwrap();
    directory.remove_dir(renamed[0].as_ref().unwrap()).unwrap();
    assert!(directory.may_know(&partition), "the file still says 5");
    assert!(directory.forget([&partition]).is_err());
    simulation.disk.set_capacity(u64::MAX);
    directory.forget([&partition]).unwrap();
    assert!(!directory.may_know(&partition));
    drop(directory);
    let directory = LogDirectory::open(&env, path, NodeId(1), None).unwrap();
    assert_eq!(directory.checkpointed(&partition), CheckpointedOffsets::default());
}
