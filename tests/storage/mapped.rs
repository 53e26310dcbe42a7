//! Batches that were handed out do not change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ottla::env::Env;
use ottla::log::{Log, LogConfig};
use ottla::types::{Offset, TimestampMs};

use crate::support::{EPOCH, batch, create, read_all, read_from, request, values_of};

const NOW: TimestampMs = TimestampMs(1000);

#[test]
fn a_batch_outlives_segment_log_and_directory() {
    let directory = tempfile::tempdir().unwrap();
    let env = Env::real();
    let config = LogConfig { segment_bytes: 1000, file_delete_delay_ms: 0, ..LogConfig::default() };
    let mut log = create(&env, &directory.path().join("orders-0"), config);
    for step in 0..100 {
        let value = format!("value {step}");
        log.append_as_leader(&batch(1, &[&value]), EPOCH, NOW).unwrap();
    }
    let reader = log.reader();
    log.high_watermark().raise(log.log_end_offset());
    let held: Vec<_> = (0..100).map(|offset| reader.read(request(offset)).unwrap()).collect();
    let copies: Vec<Vec<u8>> = held.iter().map(|read| read.records.to_vec()).collect();
    // Truncated, deleted by retention, closed, directory removed.
    log.truncate_to(Offset(90)).expect_err("it is committed");
    log.truncate_uncleanly(Offset(90)).unwrap();
    for step in 0..20 {
        let value = format!("other {step}");
        log.append_as_leader(&batch(1, &[&value]), EPOCH, NOW).unwrap();
    }
    log.delete_records_before(Offset(60), log.log_end_offset()).unwrap();
    log.apply_retention(NOW, log.log_end_offset()).unwrap();
    assert_eq!(read_all(&reader).unwrap().first(), Some(&(60, "value 60".to_owned())));
    assert_eq!(read_from(&reader, 90).unwrap().first(), Some(&(90, "other 0".to_owned())));
    log.close().unwrap();
    drop(reader);
    directory.close().unwrap();
    for (read, copy) in held.iter().zip(&copies) {
        assert_eq!(&read.records[..], &copy[..]);
    }
    assert_eq!(values_of(held.last().unwrap()), [(99, "value 99".to_owned())]);
}

/// Where the bytes at an offset are in memory.
fn place(log: &Log, offset: i64) -> *const u8 {
    log.reader().read(request(offset)).unwrap().records.as_ptr()
}

#[cfg(unix)]
#[test]
fn what_is_committed_is_mapped_and_the_rest_is_a_copy_that_is_cut_in_place() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders-0");
    let env = Env::real();
    for segment_bytes in [1 << 20, 1000] {
        let config = LogConfig { segment_bytes, ..LogConfig::default() };
        let mut log = create(&env, &path, config);
        for step in 0..100 {
            let value = format!("value {step} {}", "x".repeat(100));
            log.append_as_leader(&batch(1, &[&value]), EPOCH, NOW).unwrap();
        }
        let reader = log.reader();
        log.high_watermark().raise(Offset(41));
        let held: Vec<_> = (0..100).map(|offset| reader.read(request(offset)).unwrap()).collect();
        let copies: Vec<Vec<u8>> = held.iter().map(|read| read.records.to_vec()).collect();
        assert_eq!(place(&log, 40), held[40].records.as_ptr(), "mapped");
        assert_eq!(held[40].next_offset, Offset(41), "a read does not cross the high watermark");
        assert_ne!(place(&log, 41), held[41].records.as_ptr(), "copied");
        let file = |base: i64| std::fs::metadata(path.join(format!("{base:020}.log"))).unwrap();
        let base =
            (0..=50).rev().find(|base| path.join(format!("{base:020}.log")).exists()).unwrap();
        let before = file(base);
        log.truncate_to(Offset(50)).unwrap();
        assert_eq!(file(base).ino(), before.ino());
        assert_eq!(place(&log, 40), place(&log, 40), "still mapped");
        assert_eq!(read_all(&reader).unwrap().len(), 50);
        assert!(reader.read(request(51)).is_err());
        for step in 0..20 {
            let value = format!("other {step} {}", "y".repeat(100));
            log.append_as_leader(&batch(1, &[&value]), EPOCH, NOW).unwrap();
        }
        log.high_watermark().raise(Offset(70));
        assert_eq!(place(&log, 69), place(&log, 69), "mapped by now");
        let found = read_all(&reader).unwrap();
        assert_eq!(found.len(), 70);
        assert!(found[49].1.starts_with("value 49") && found[50].1.starts_with("other 0"));
        for (read, copy) in held.iter().zip(&copies) {
            assert_eq!(&read.records[..], &copy[..]);
        }
        log.truncate_to(Offset(69)).expect_err("committed");
        drop((log, reader));
        std::fs::remove_dir_all(&path).unwrap();
    }
}

/// A follower reads the tail while it is cut and grows again: whole batches of one history each time.
#[test]
fn a_read_during_a_cut_is_not_torn() {
    let directory = tempfile::tempdir().unwrap();
    let env = Env::real();
    let config = LogConfig { segment_bytes: 3000, file_delete_delay_ms: 0, ..LogConfig::default() };
    let mut log = create(&env, &directory.path().join("orders-0"), config);
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (reader, stop) = (log.reader(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut reads = 0_u64;
                while !stop.load(Ordering::Acquire) {
                    let mut at = 0;
                    while let Ok(read) = reader.read(request(at)) {
                        let values = values_of(&read);
                        let Some((last, _)) = values.last() else { break };
                        assert!((at..).zip(&values).all(|(due, (offset, _))| due == *offset));
                        let round = |value: &str| value.split(' ').next().unwrap().to_owned();
                        let rounds: Vec<_> = values.iter().map(|(_, value)| round(value)).collect();
                        assert!(rounds.is_sorted(), "{rounds:?}");
                        at = last + 1;
                        reads += 1;
                    }
                }
                reads
            })
        })
        .collect();
    for round in 0..200 {
        for step in 0..20 + round % 7 {
            let value = format!("{round:04} {step} {}", "x".repeat(round % 50));
            log.append_as_leader(&batch(1, &[&value]), EPOCH, NOW).unwrap();
        }
        let cut = log.log_end_offset().0.min(10 + i64::try_from(round).unwrap() % 30);
        log.truncate_to(Offset(cut)).unwrap();
    }
    stop.store(true, Ordering::Release);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
}

#[test]
fn readers_never_wait_and_never_see_a_torn_end() {
    let directory = tempfile::tempdir().unwrap();
    let env = Env::real();
    let config = LogConfig { segment_bytes: 20_000, ..LogConfig::default() };
    let mut log = create(&env, &directory.path().join("orders-0"), config);
    let stop = Arc::new(AtomicBool::new(false));
    let high_watermark = log.high_watermark();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (reader, stop) = (log.reader(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut seen = 0_i64;
                loop {
                    let last = stop.load(Ordering::Acquire);
                    for (offset, value) in read_from(&reader, seen).unwrap() {
                        assert_eq!((offset, value), (seen, format!("value {seen}")));
                        seen += 1;
                    }
                    if last {
                        return seen;
                    }
                }
            })
        })
        .collect();
    for step in 0..5000 {
        let value = format!("value {step}");
        log.append_as_leader(&batch(1, &[&value]), EPOCH, NOW).unwrap();
        // Now far behind the end, now at it, past the readers.
        if step % 37 == 0 {
            high_watermark.raise(Offset(step - step % 111));
        } else if step / 500 % 2 == 1 {
            high_watermark.raise(Offset(step));
        }
    }
    stop.store(true, Ordering::Release);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 5000);
    }
}

#[test]
fn what_was_appended_or_read_before_is_warm() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders-0");
    let env = Env::real();
    let config = LogConfig { segment_bytes: 2000, ..LogConfig::default() };
    let mut log = create(&env, &path, config.clone());
    for _ in 0..100 {
        log.append_as_leader(&batch(1, &["some value"]), EPOCH, NOW).unwrap();
    }
    assert!(!log.reader().is_cold(&request(99)));
    log.close().unwrap();
    let opened =
        ottla::log::OpenOptions { clean_shutdown: true, ..crate::support::options(config) };
    let (log, report) = Log::open(&env, &path, opened).unwrap();
    assert_eq!(report, ottla::log::RecoveryReport::default());
    let reader = log.reader();
    assert!(reader.is_cold(&request(0)));
    let read = reader.read(request(0)).unwrap();
    assert!(!reader.is_cold(&request(0)));
    assert!(reader.is_cold(&request(read.next_offset.0)));
    assert_eq!(read_all(&reader).unwrap().len(), 100);
}
