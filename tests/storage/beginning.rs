//! A log that begins in the middle, with what a tier knows there; and a log that follows one that has a tier.

use ottla::env::Env;
use ottla::log::{Beginning, EpochEntry, LocalRetention, Log, LogConfig};
use ottla::types::{LeaderEpoch, Offset, ProducerId, TimestampMs};
use tempfile::tempdir;

use crate::support::{
    EPOCH, append_verified, create, idempotent, marker, read_from, reopen, transactional,
};

const NOW: TimestampMs = TimestampMs(1_000);

fn config() -> LogConfig {
    let local = LocalRetention { ms: -1, bytes: 1, copies: true };
    LogConfig {
        segment_bytes: 900,
        index_interval_bytes: 100,
        file_delete_delay_ms: 0,
        local_retention: Some(local),
        ..LogConfig::default()
    }
}

/// A leader's log: producer 4 has written 20 records, and a transaction of producer 5 is open, which began at 20.
fn leader(directory: &std::path::Path) -> Log {
    let mut log = create(&Env::real(), directory, config());
    for sequence in 0..20 {
        let value = format!("value {sequence}");
        log.append_as_leader(&idempotent(4, 0, sequence, &[&value]), EPOCH, NOW).unwrap();
    }
    append_verified(&mut log, &transactional(5, 0, 0, &["open"]), NOW).unwrap();
    log.roll(NOW).unwrap();
    log
}

fn beginning(leader: &Log) -> Beginning {
    let end = leader.log_end_offset();
    Beginning {
        offset: end,
        log_start: Offset(7),
        epochs: vec![
            EpochEntry { epoch: LeaderEpoch(1), start_offset: Offset(0) },
            EpochEntry { epoch: EPOCH, start_offset: Offset(10) },
        ],
        producers: leader.producer_snapshot(end).unwrap(),
    }
}

#[test]
fn a_copy_begins_with_the_epochs_and_producers_that_were_known_there() {
    let (one, other) = (tempdir().unwrap(), tempdir().unwrap());
    let mut leader = leader(&one.path().join("orders-0"));
    let beginning = beginning(&leader);
    let path = other.path().join("orders-0");
    let mut copy = create(&Env::real(), &path, config());
    copy.append_as_leader(&idempotent(9, 0, 0, &["of before"]), LeaderEpoch(0), NOW).unwrap();
    assert_eq!(copy.begin_at(&beginning).unwrap(), Offset(21));
    let check = |copy: &mut Log| {
        let reader = copy.reader();
        let starts = (reader.log_start_offset().0, reader.local_start_offset().0);
        assert_eq!((starts, reader.log_end_offset()), ((7, 21), Offset(21)));
        let epochs: Vec<_> =
            reader.epochs().iter().map(|one| (one.epoch.0, one.start_offset.0)).collect();
        assert_eq!(epochs, [(1, 7), (EPOCH.0, 10)]);
        assert_eq!(reader.producer(ProducerId(9)), None);
        let open = reader.producer(ProducerId(5)).unwrap().current_txn_first_offset;
        assert_eq!(open, Some(Offset(20)));
        let again =
            copy.append_as_leader(&idempotent(4, 0, 19, &["value 19"]), EPOCH, NOW).unwrap();
        assert!(again.duplicate && again.base_offset == Offset(19), "{again:?}");
        copy.append_as_leader(&idempotent(4, 0, 21, &["a gap"]), EPOCH, NOW).unwrap_err();
    };
    check(&mut copy);
    copy.sync().unwrap();
    drop(copy);
    // As after a crash before any checkpoint was written, but for where the log starts: the leader tells it again.
    let (mut copy, _) = reopen(&Env::real(), &path, config(), Offset(0)).unwrap();
    copy.raise_log_start(Offset(7));
    check(&mut copy);
    // The transaction is aborted here, too.
    leader.append(marker(5, 0, false), EPOCH, NOW).unwrap();
    let ended = leader.reader().read(crate::support::request(21)).unwrap();
    copy.append_as_follower(&ended.records, EPOCH, NOW).unwrap();
    let aborted = copy.reader().aborted_transactions(Offset(21), Offset(22));
    assert_eq!(aborted.iter().map(|one| one.first_offset.0).collect::<Vec<_>>(), [20]);
}

#[test]
fn what_contradicts_itself_begins_nothing() {
    let (one, other) = (tempdir().unwrap(), tempdir().unwrap());
    let known = beginning(&leader(&one.path().join("orders-0")));
    let mut copy = create(&Env::real(), &other.path().join("orders-0"), config());
    copy.append_as_leader(&idempotent(9, 0, 0, &["stays"]), LeaderEpoch(0), NOW).unwrap();
    let torn = known.producers.slice(..known.producers.len() - 1);
    let backwards = known.epochs.iter().rev().copied().collect();
    for wrong in [
        Beginning { producers: torn, ..known.clone() },
        Beginning { producers: bytes::Bytes::new(), ..known.clone() },
        Beginning { epochs: backwards, ..known.clone() },
        Beginning { log_start: Offset(22), ..known },
    ] {
        wrong.check().unwrap_err();
        copy.begin_at(&wrong).unwrap_err();
    }
    assert_eq!(read_from(&copy.reader(), 0).unwrap().len(), 1);
}

#[test]
fn producers_at_an_offset_are_found_without_their_snapshot() {
    let directory = tempdir().unwrap();
    let log = leader(&directory.path().join("orders-0"));
    let kept = log.producer_snapshot(Offset(21)).unwrap();
    let path = log.directory().join(format!("{:020}.snapshot", 21));
    std::fs::write(&path, b"torn").unwrap();
    let found = log.producer_snapshot(Offset(21)).unwrap();
    assert_eq!(found, kept);
    let earlier = log.reader().closed_segments(Offset(21))[0].end_offset;
    std::fs::remove_file(log.directory().join(format!("{:020}.snapshot", earlier.0))).unwrap();
    let found = log.producer_snapshot(earlier).unwrap();
    assert_ne!(found, kept, "what came later does not count");
}

#[test]
fn a_follower_deletes_what_its_leader_has_not_on_its_disk_and_nothing_by_itself() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("orders-0");
    let mut log = leader(&path);
    let end = log.log_end_offset();
    log.high_watermark().raise(Offset(15));
    let starts = |log: &Log| (log.log_start_offset().0, log.reader().local_start_offset().0);
    let old = TimestampMs(i64::MAX / 2);
    log.apply_retention_as_follower(old, end).unwrap();
    assert_eq!(starts(&log), (0, 0), "by the limits, all of it is too old");
    log.delete_tiered_before(Offset(12)).unwrap();
    assert_eq!(starts(&log), (0, 12));
    let first = log.reader().closed_segments(end)[0].base_offset;
    assert!(first > Offset(0) && first <= Offset(12), "{first}");
    assert_eq!(log.reader().epochs()[0].start_offset, Offset(0));
    read_from(&log.reader(), 11).unwrap_err();
    assert_eq!(read_from(&log.reader(), 12).unwrap()[0].0, 12);
    log.delete_tiered_before(end).unwrap();
    assert_eq!(starts(&log), (0, 15), "as far as it is committed");
    // It leads, and does not know what the tier has yet; then it does.
    log.apply_retention(old, end).unwrap();
    assert_eq!(starts(&log), (0, 15));
    log.update_config(LogConfig {
        local_retention: Some(LocalRetention { ms: 1, bytes: -1, copies: false }),
        ..config()
    });
    log.apply_retention(old, end).unwrap();
    assert_eq!(starts(&log), (0, 15));
    log.set_tiered(Offset(0), Offset(15));
    log.apply_retention(old, end).unwrap();
    assert!(starts(&log).0 > 15, "{:?}", starts(&log));
}

#[test]
fn a_copy_that_is_cut_in_the_middle_of_the_tier_begins_from_the_start() {
    let (one, other) = (tempdir().unwrap(), tempdir().unwrap());
    let known = beginning(&leader(&one.path().join("orders-0")));
    let mut copy = create(&Env::real(), &other.path().join("orders-0"), config());
    copy.begin_at(&known).unwrap();
    assert_eq!(copy.truncate_uncleanly(Offset(15)).unwrap(), Offset(7));
    let reader = copy.reader();
    assert_eq!((reader.log_start_offset(), reader.local_start_offset()), (Offset(7), Offset(7)));
    assert_eq!((reader.last_epoch(), reader.producers().len()), (None, 0));
}

#[test]
fn the_epochs_and_producers_of_what_only_the_tier_has_survive_a_crash() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("orders-0");
    let mut log = leader(&path);
    for sequence in 0..30 {
        log.append_as_leader(&idempotent(9, 0, sequence, &["later"]), LeaderEpoch(5), NOW).unwrap();
    }
    let end = log.log_end_offset();
    log.high_watermark().raise(end);
    log.delete_tiered_before(Offset(45)).unwrap();
    let epochs = log.reader().epochs();
    drop(log);
    let (log, _) = reopen(&Env::real(), &path, config(), Offset(0)).unwrap();
    let start = log.reader().local_start_offset();
    assert!(start > Offset(21), "{start}");
    assert_eq!(log.reader().epochs(), epochs);
    assert_eq!(epochs.iter().map(|one| one.epoch.0).collect::<Vec<_>>(), [EPOCH.0, 5]);
    assert!(log.reader().producer(ProducerId(4)).is_some());
}
