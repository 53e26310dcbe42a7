//! Batches that were handed out do not change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ottla::env::Env;
use ottla::log::LogConfig;
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
    let held: Vec<_> = (0..100).map(|offset| reader.read(request(offset)).unwrap()).collect();
    let copies: Vec<Vec<u8>> = held.iter().map(|read| read.records.to_vec()).collect();
    // Truncated, deleted by retention, closed, directory removed.
    log.truncate_to(Offset(90)).unwrap();
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

#[test]
fn readers_never_wait_and_never_see_a_torn_end() {
    let directory = tempfile::tempdir().unwrap();
    let env = Env::real();
    let config = LogConfig { segment_bytes: 20_000, ..LogConfig::default() };
    let mut log = create(&env, &directory.path().join("orders-0"), config);
    let stop = Arc::new(AtomicBool::new(false));
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
    let (log, report) = ottla::log::Log::open(&env, &path, opened).unwrap();
    assert_eq!(report, ottla::log::RecoveryReport::default());
    let reader = log.reader();
    assert!(reader.is_cold(&request(0)));
    let read = reader.read(request(0)).unwrap();
    assert!(!reader.is_cold(&request(0)));
    assert!(reader.is_cold(&request(read.next_offset.0)));
    assert_eq!(read_all(&reader).unwrap().len(), 100);
}
