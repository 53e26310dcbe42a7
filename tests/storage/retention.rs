//! What retention deletes and keeps.

use ottla::env::Env;
use ottla::error::ErrorCode;
use ottla::log::{LocalRetention, Log, LogConfig};
use ottla::types::{Offset, TimestampMs};

use crate::support::{EPOCH, batch, create, read_all, reopen};

fn filled(directory: &std::path::Path, config: LogConfig) -> Log {
    let mut log = create(&Env::real(), &directory.join("orders-0"), config);
    for step in 0..100 {
        log.append_as_leader(&batch(step, &["0123456789"]), EPOCH, TimestampMs(step)).unwrap();
    }
    log
}

fn names(log: &Log) -> Vec<String> {
    let entries = std::fs::read_dir(log.directory()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn old_segments_go_up_to_the_high_watermark() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig {
        segment_bytes: 900,
        retention_ms: 50,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    };
    let mut log = filled(directory.path(), config);
    let segments = log.reader().segment_count();
    assert_eq!(log.apply_retention(TimestampMs(100), Offset(0)).unwrap().segments, 0);
    let deleted = log.apply_retention(TimestampMs(100), Offset(100)).unwrap();
    assert_eq!(log.reader().segment_count(), segments - deleted.segments);
    let start = log.log_start_offset();
    assert!(start > Offset(30) && start <= Offset(50), "{start}");
    assert_eq!(read_all(&log.reader()).unwrap().first().map(|first| first.0), Some(start.0));
    // All of it is old: the active segment goes too, and the offsets continue.
    log.apply_retention(TimestampMs(10_000), Offset(100)).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(100), Offset(100)));
    assert!(read_all(&log.reader()).unwrap().is_empty());
    log.apply_retention(TimestampMs(10_000), Offset(100)).unwrap();
    assert!(!names(&log).iter().any(|name| name.ends_with(".deleted")), "{:?}", names(&log));
    let path = log.directory().to_path_buf();
    let config = log.config().clone();
    log.sync().unwrap();
    drop(log);
    let (log, _) = reopen(&Env::real(), &path, config, Offset(100)).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(100), Offset(100)));
}

#[test]
fn a_log_that_is_too_large_loses_its_oldest_segments() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig {
        segment_bytes: 900,
        retention_ms: -1,
        retention_bytes: 4000,
        ..LogConfig::default()
    };
    let mut log = filled(directory.path(), config);
    log.apply_retention(TimestampMs(0), Offset(100)).unwrap();
    let size = log.reader().size_bytes();
    assert!((4000..4900).contains(&size), "{size}");
    assert!(names(&log).iter().any(|name| name.ends_with(".deleted")), "kept for the delay");
}

#[test]
fn records_are_deleted_up_to_the_high_watermark_only() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes: 900, ..LogConfig::default() };
    let mut log = filled(directory.path(), config.clone());
    let error = log.delete_records_before(Offset(51), Offset(50)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
    assert_eq!(log.delete_records_before(Offset(50), Offset(50)).unwrap(), Offset(50));
    assert_eq!(log.delete_records_before(Offset(20), Offset(50)).unwrap(), Offset(50));
    assert_eq!(read_all(&log.reader()).unwrap().first().map(|first| first.0), Some(50));
    assert_eq!(log.reader().epochs().first().map(|entry| entry.start_offset), Some(Offset(50)));
    // Keeping the log start offset is the checkpoint's job.
    let path = log.directory().to_path_buf();
    drop(log);
    let options =
        ottla::log::OpenOptions { log_start_offset: Offset(50), ..crate::support::options(config) };
    let (log, _) = Log::open(&Env::real(), &path, options).unwrap();
    assert_eq!(log.log_start_offset(), Offset(50));
}

#[test]
fn the_local_limits_delete_what_the_tier_has_and_the_log_starts_where_it_did() {
    let directory = tempfile::tempdir().unwrap();
    let local = LocalRetention { ms: -1, bytes: 2000, copies: true };
    let config = LogConfig {
        segment_bytes: 900,
        retention_ms: 1,
        retention_bytes: 1,
        local_retention: Some(local),
        ..LogConfig::default()
    };
    let mut log = filled(directory.path(), config.clone());
    let retain = |log: &mut Log| {
        log.apply_retention(TimestampMs(10_000), Offset(100)).unwrap();
        (log.log_start_offset().0, log.reader().local_start_offset().0)
    };
    assert_eq!(retain(&mut log), (0, 0), "nobody has said what the tier has");
    log.set_tiered(Offset(0), Offset(60));
    let (start, here) = retain(&mut log);
    assert!(start == 0 && (45..=60).contains(&here), "{start} {here}");
    assert!(log.reader().size_bytes() > 2900, "the tier has no more");
    log.set_tiered(Offset(0), Offset(99));
    assert_eq!(retain(&mut log).0, 0);
    assert!((2000..2900).contains(&log.reader().size_bytes()));
    log.forget_tiered();
    let before = log.reader().size_bytes();
    log.update_config(LogConfig {
        local_retention: Some(LocalRetention { bytes: 1000, ..local }),
        ..config
    });
    retain(&mut log);
    assert_eq!(log.reader().size_bytes(), before, "nobody says it any more");
    // A start that the tier does not have, and this disk has not either, is none.
    log.set_tiered(Offset(20), Offset(60));
    assert_eq!(log.log_start_offset(), Offset(20));
    // Nothing is copied any more: the limits are those of the whole, and what goes is gone.
    log.update_config(LogConfig {
        local_retention: Some(LocalRetention { ms: -1, bytes: 1000, copies: false }),
        ..config
    });
    let (start, here) = retain(&mut log);
    assert!(start == here && here > 60, "{start} {here}");
    assert_eq!(log.reader().epochs().first().map(|entry| entry.start_offset.0), Some(start));
}

#[test]
fn a_log_that_loses_its_tier_starts_on_this_disk() {
    let directory = tempfile::tempdir().unwrap();
    let local = LocalRetention { ms: 0, bytes: -1, copies: true };
    let config =
        LogConfig { segment_bytes: 900, local_retention: Some(local), ..LogConfig::default() };
    let mut log = filled(directory.path(), config.clone());
    log.set_tiered(Offset(0), Offset(60));
    log.apply_retention(TimestampMs(10_000), Offset(100)).unwrap();
    let here = log.reader().local_start_offset();
    assert!(log.log_start_offset() == Offset(0) && here > Offset(40));
    log.update_config(LogConfig { local_retention: None, ..config });
    assert_eq!(log.log_start_offset(), here);
    assert_eq!(read_all(&log.reader()).unwrap().first().map(|first| first.0), Some(here.0));
}
