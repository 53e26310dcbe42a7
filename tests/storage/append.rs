//! What a leader accepts, refuses and changes.

use ottla::env::Env;
use ottla::error::{Error, ErrorCode};
use ottla::log::{Append, EpochEnd, FirstBatch, Log, LogConfig};
use ottla::record::{Batch, BatchOptions, Batches, Compression, TimestampType};
use ottla::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::support::{
    EPOCH, append_verified, batch, batch_with, create, idempotent, marker, read_all, reopen,
    request, transactional, values_of,
};

struct Bench {
    log: Log,
    _directory: tempfile::TempDir,
}

fn bench(config: LogConfig) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let log = create(&Env::real(), &directory.path().join("orders-0"), config);
    Bench { log, _directory: directory }
}

const NOW: TimestampMs = TimestampMs(1_000_000);

fn refused(log: &mut Log, records: &bytes::Bytes) -> ErrorCode {
    let end = log.log_end_offset();
    let error = log.append_as_leader(records, EPOCH, NOW).expect_err("it is refused");
    assert_eq!(log.log_end_offset(), end);
    error.code()
}

#[test]
fn offsets_epochs_and_values_come_back() {
    let mut bench = bench(LogConfig::default());
    for step in 0..50_i64 {
        let first = format!("a{step}");
        let info = bench.log.append_as_leader(&batch(step, &[&first, "b"]), EPOCH, NOW).unwrap();
        assert_eq!((info.base_offset.0, info.last_offset.0), (step * 2, step * 2 + 1));
        assert_eq!((info.record_count, info.duplicate), (2, false));
    }
    let reader = bench.log.reader();
    let all = read_all(&reader).unwrap();
    assert_eq!(all.len(), 100);
    assert_eq!(all.get(42), Some(&(42, "a21".to_owned())));
    let read = reader.read(request(43)).unwrap();
    assert_eq!(read.base_offset, Offset(42), "the whole batch that holds the offset");
    for batch in Batches::new(read.records) {
        assert_eq!(batch.unwrap().header().leader_epoch, EPOCH);
    }
    let one = reader.read(ottla::log::ReadRequest { max_bytes: 1, ..request(10) }).unwrap();
    assert_eq!((one.base_offset.0, one.next_offset.0), (10, 12));
    let none = reader
        .read(ottla::log::ReadRequest { max_bytes: 1, at_least_one: false, ..request(10) })
        .unwrap();
    assert!(none.records.is_empty() && none.next_offset == Offset(10));
    let bounded =
        reader.read(ottla::log::ReadRequest { upper: Offset(13), ..request(10) }).unwrap();
    assert_eq!(bounded.next_offset, Offset(12), "no batch that reaches the upper end");
    assert!(reader.read(request(100)).unwrap().records.is_empty());
    assert!(matches!(reader.read(request(101)), Err(Error::OffsetOutOfRange { .. })));
    assert!(matches!(reader.read(request(-1)), Err(Error::OffsetOutOfRange { .. })));
}

#[test]
fn a_read_takes_all_batches_that_fit() {
    // Each batch has an entry in the index, or every other one.
    for index_interval_bytes in [4096, 12_000] {
        let mut bench = bench(LogConfig { index_interval_bytes, ..LogConfig::default() });
        let value = "x".repeat(8000);
        let mut size = 0;
        for step in 0..40 {
            let one = batch(step, &[&value]);
            size = one.len() as u64;
            bench.log.append_as_leader(&one, EPOCH, NOW).unwrap();
        }
        let reader = bench.log.reader();
        for max_bytes in [1, size, size * 2 - 1, size * 2, 50_000, 100_000, size * 40 + 1] {
            let read = ottla::log::ReadRequest { max_bytes, ..request(3) };
            let read = reader.read(read).unwrap();
            let batches = (max_bytes / size).clamp(1, 37);
            let next = 3 + i64::try_from(batches).unwrap();
            assert_eq!(read.records.len() as u64, batches * size, "of {max_bytes} bytes");
            assert_eq!(read.next_offset, Offset(next));
            let upper = Offset(20);
            let bounded = ottla::log::ReadRequest { max_bytes, upper, ..request(3) };
            let bounded = reader.read(bounded).unwrap();
            assert_eq!(bounded.next_offset.0, next.min(20));
        }
    }
}

#[test]
fn bad_batches_are_refused_with_kafkas_codes() {
    let config = LogConfig {
        max_message_bytes: 500,
        segment_bytes: 2000,
        message_timestamp_before_max_ms: 10_000,
        message_timestamp_after_max_ms: 10_000,
        ..LogConfig::default()
    };
    let mut bench = bench(LogConfig { compacted: true, ..config });
    let log = &mut bench.log;
    let good = batch(NOW.0, &["v"]);
    let mut damaged = good.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(log, &damaged.into()), ErrorCode::CorruptMessage);
    assert_eq!(refused(log, &good.slice(..good.len() - 1)), ErrorCode::CorruptMessage);
    assert_eq!(refused(log, &bytes::Bytes::new()), ErrorCode::InvalidRecord);
    let two: bytes::Bytes = [good.clone(), good.clone()].concat().into();
    assert_eq!(refused(log, &two), ErrorCode::InvalidRecord);
    let large = batch(NOW.0, &["x".repeat(500).as_str()]);
    assert_eq!(refused(log, &large), ErrorCode::MessageTooLarge);
    assert_eq!(refused(log, &batch(NOW.0 - 20_000, &["v"])), ErrorCode::InvalidTimestamp);
    assert_eq!(refused(log, &batch(NOW.0 + 20_000, &["v"])), ErrorCode::InvalidTimestamp);
    let control = BatchOptions { control: true, ..BatchOptions::default() };
    assert_eq!(refused(log, &batch_with(control, NOW.0, &["v"])), ErrorCode::InvalidRecord);
    let append_time = BatchOptions { log_append_time: Some(NOW), ..BatchOptions::default() };
    let code = refused(log, &batch_with(append_time, NOW.0, &["v"]));
    assert_eq!(code, ErrorCode::InvalidTimestamp);
    let mut keyless = ottla::record::BatchBuilder::new(BatchOptions::default());
    keyless.append(NOW, None, Some(b"v"), &[]).unwrap();
    assert_eq!(refused(log, &keyless.finish().unwrap()), ErrorCode::InvalidRecord);
    let wide = LogConfig { max_message_bytes: 1 << 20, compacted: false, ..log.config().clone() };
    log.update_config(wide);
    let huge = batch(NOW.0, &["x".repeat(3000).as_str()]);
    assert_eq!(refused(log, &huge), ErrorCode::RecordListTooLarge);
    log.append_as_leader(&good, EPOCH, NOW).unwrap();
}

#[test]
fn duplicates_are_answered_with_their_offsets_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders-0");
    let env = Env::real();
    let mut log = create(&env, &path, LogConfig::default());
    for step in 0..7 {
        let info = log.append_as_leader(&idempotent(9, 0, step * 2, &["a", "b"]), EPOCH, NOW);
        assert_eq!(info.unwrap().base_offset.0, i64::from(step) * 2);
    }
    for step in 2..7 {
        let again = log.append_as_leader(&idempotent(9, 0, step * 2, &["a", "b"]), EPOCH, NOW);
        let again = again.unwrap();
        assert!(again.duplicate && again.base_offset.0 == i64::from(step) * 2);
    }
    let gap = idempotent(9, 0, 99, &["a"]);
    assert_eq!(refused(&mut log, &gap), ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(log.log_end_offset(), Offset(14));
    for clean in [false, true] {
        if clean {
            log.close().unwrap();
        } else {
            drop(log);
        }
        let opened = ottla::log::OpenOptions {
            clean_shutdown: clean,
            ..crate::support::options(LogConfig::default())
        };
        log = Log::open(&env, &path, opened).unwrap().0;
        let again = log.append_as_leader(&idempotent(9, 0, 12, &["a", "b"]), EPOCH, NOW).unwrap();
        assert!(again.duplicate && again.base_offset == Offset(12));
        assert_eq!(refused(&mut log, &gap), ErrorCode::OutOfOrderSequenceNumber);
    }
    log.append_as_leader(&idempotent(9, 1, 0, &["a"]), EPOCH, NOW).unwrap();
    let old = idempotent(9, 0, 14, &["a"]);
    assert_eq!(refused(&mut log, &old), ErrorCode::InvalidProducerEpoch);
    let state = log.reader().producers();
    assert_eq!(state.first().map(|state| (state.producer_id.0, state.epoch.0)), Some((9, 1)));
}

#[test]
fn the_topics_timestamp_type_and_codec_are_applied() {
    let mut bench = bench(LogConfig {
        message_timestamp_type: TimestampType::LogAppendTime,
        compression_type: Some(Compression::Zstd),
        ..LogConfig::default()
    });
    let values = ["one", "two", "three"];
    let info = bench.log.append_as_leader(&batch(5, &values), EPOCH, NOW).unwrap();
    assert_eq!((info.log_append_time, info.max_timestamp), (NOW, NOW));
    let read = bench.log.reader().read(request(0)).unwrap();
    let stored = Batches::new(read.records.clone()).next().unwrap().unwrap();
    stored.verify_crc().unwrap();
    assert_eq!(stored.header().compression, Compression::Zstd);
    assert_eq!(stored.header().timestamp_type(), TimestampType::LogAppendTime);
    for record in &stored.records(1 << 20).unwrap() {
        assert_eq!(record.unwrap().timestamp, NOW);
    }
    assert_eq!(values_of(&read).len(), 3);
}

#[test]
fn times_and_epochs_are_found_by_record() {
    let config =
        LogConfig { segment_bytes: 600, index_interval_bytes: 100, ..LogConfig::default() };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders-0");
    let env = Env::real();
    let mut log = create(&env, &path, config.clone());
    // Timestamps 0, 10, 20 … in batches of three; every tenth record is out of order.
    for step in 0..40_i64 {
        let mut builder = ottla::record::BatchBuilder::new(BatchOptions::default());
        for index in 0..3 {
            let offset = step * 3 + index;
            let time = if offset % 10 == 9 { 1 } else { offset * 10 };
            builder.append(TimestampMs(time), None, Some(b"v"), &[]).unwrap();
        }
        let epoch = LeaderEpoch(i32::try_from(step / 10).unwrap() * 2);
        log.append_as_leader(&builder.finish().unwrap(), epoch, NOW).unwrap();
    }
    for _ in 0..2 {
        let reader = log.reader();
        assert!(reader.segment_count() > 5);
        let upper = reader.log_end_offset();
        let find = |time: i64| {
            let found = reader.offset_for_timestamp(TimestampMs(time), upper).unwrap();
            found.map(|(time, offset, epoch)| (time.0, offset.0, epoch.0))
        };
        assert_eq!(find(0), Some((0, 0, 0)));
        assert_eq!(find(1), Some((10, 1, 0)));
        assert_eq!(find(335), Some((340, 34, 2)));
        assert_eq!(find(985), Some((1000, 100, 6)), "record 99 is out of order");
        assert_eq!(find(1190), None, "record 119 is out of order");
        assert_eq!(find(1180), Some((1180, 118, 6)));
        let max = reader.max_timestamp(upper).unwrap().unwrap();
        assert_eq!((max.0.0, max.1.0), (1180, 118));
        let end = |epoch| reader.end_offset_for_epoch(LeaderEpoch(epoch));
        let at = |epoch, end_offset| EpochEnd {
            epoch: LeaderEpoch(epoch),
            end_offset: Offset(end_offset),
        };
        assert_eq!(end(3), Some(at(2, 60)));
        assert_eq!(end(6), Some(at(6, 120)));
        assert_eq!(end(7), None);
        drop(log);
        log = reopen(&env, &path, config.clone(), Offset(50)).unwrap().0;
    }
}

#[test]
fn a_transaction_holds_back_the_last_stable_offset_and_is_listed_when_aborted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders-0");
    let env = Env::real();
    let mut log = create(&env, &path, LogConfig::default());
    log.append_as_leader(&batch(1, &["a"]), EPOCH, NOW).unwrap();
    append_verified(&mut log, &transactional(5, 0, 0, &["b", "c"]), NOW).unwrap();
    log.append_as_leader(&batch(3, &["d"]), EPOCH, NOW).unwrap();
    let (reader, high_watermark) = (log.reader(), log.high_watermark());
    high_watermark.raise(Offset(4));
    assert_eq!(reader.last_stable_offset(), Offset(1));
    log.append(marker(5, 0, false), EPOCH, NOW).unwrap();
    assert_eq!(reader.last_stable_offset(), Offset(1), "the marker is not committed yet");
    high_watermark.raise(Offset(5));
    assert_eq!(reader.last_stable_offset(), Offset(5));
    drop(log);
    for _ in 0..2 {
        let (log, _) = reopen(&env, &path, LogConfig::default(), Offset(0)).unwrap();
        let aborted = log.reader().aborted_transactions(Offset(0), Offset(5));
        let aborted = aborted.first().copied().unwrap();
        assert_eq!((aborted.first_offset.0, aborted.last_offset.0), (1, 4));
        assert_eq!(aborted.last_stable_offset, Offset(5));
        assert!(log.reader().aborted_transactions(Offset(0), Offset(1)).is_empty());
        log.close().unwrap();
    }
}

#[test]
fn a_transaction_that_ended_while_it_was_verified_is_not_begun_again() {
    let mut bench = bench(LogConfig::default());
    let log = &mut bench.log;
    let first = FirstBatch {
        producer_id: ProducerId(5),
        producer_epoch: ProducerEpoch(0),
        base_sequence: Sequence(0),
        supports_epoch_bump: false,
    };
    let records = transactional(5, 0, 0, &["late"]);
    let append = |log: &mut Log, guard| {
        let batch = Batch::parse(&records).unwrap();
        log.append(Append::Produced { batch, guard }, EPOCH, NOW).map_err(|error| error.code())
    };
    assert_eq!(append(log, None), Err(ErrorCode::InvalidTxnState));
    let late = log.verifier().begin(&first, NOW).unwrap();
    assert!(late.is_some());
    log.append(marker(5, 0, false), EPOCH, NOW).unwrap();
    assert_eq!(append(log, late), Err(ErrorCode::InvalidTxnState));
    let next = log.verifier().begin(&first, NOW).unwrap();
    assert_eq!(append(log, late), Err(ErrorCode::InvalidTxnState), "of the one before");
    append(log, next).unwrap();
    assert_eq!(log.verifier().begin(&first, NOW).unwrap(), None, "it is open");
    let newer = FirstBatch { producer_epoch: ProducerEpoch(1), ..first };
    assert!(log.verifier().begin(&newer, NOW).unwrap().is_some());
    log.append(marker(5, 1, true), EPOCH, NOW).unwrap();
    let refused = log.verifier().begin(&first, NOW).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidProducerEpoch);
}

#[test]
fn a_larger_segment_size_holds_for_the_segment_that_is_open() {
    let mut bench = bench(LogConfig { segment_bytes: 500, ..LogConfig::default() });
    bench.log.append_as_leader(&batch(1, &["a"]), EPOCH, NOW).unwrap();
    let reader = bench.log.reader();
    assert_eq!(read_all(&reader).unwrap().len(), 1);
    bench.log.update_config(LogConfig { segment_bytes: 100_000, ..LogConfig::default() });
    for _ in 0..500 {
        bench.log.append_as_leader(&batch(1, &["b"]), EPOCH, NOW).unwrap();
    }
    assert_eq!((reader.segment_count(), read_all(&reader).unwrap().len()), (1, 501));
}

#[test]
fn a_log_that_exists_is_recovered_also_when_it_is_created_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders-0");
    let env = Env::real();
    let mut log = create(&env, &path, LogConfig::default());
    log.append_as_leader(&batch(1, &["a"]), EPOCH, NOW).unwrap();
    drop(log);
    let file = path.join("00000000000000000000.log");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend_from_slice(b"a torn tail");
    std::fs::write(&file, bytes).unwrap();
    let log = create(&env, &path, LogConfig::default());
    assert_eq!(read_all(&log.reader()).unwrap(), [(0, "a".to_owned())]);
    let other = ottla::log::OpenOptions {
        topic_id: ottla::types::Uuid([8; 16]),
        ..crate::support::options(LogConfig::default())
    };
    let error = Log::create(&env, &path, other).unwrap_err();
    assert!(error.to_string().contains("left over from another topic"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_has_one_file_open_also_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders-0");
    let open_files = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter(|file| file.starts_with(directory.path()))
            .count()
    };
    let env = Env::real();
    let mut log = create(&env, &path, LogConfig::default());
    let value = "x".repeat(5000);
    for step in 0..20 {
        log.append_as_leader(&batch(step, &[&value]), EPOCH, NOW).unwrap();
    }
    assert_eq!(open_files(), 1);
    drop(log);
    let (log, report) = reopen(&env, &path, LogConfig::default(), Offset(0)).unwrap();
    assert_eq!((report.scanned_segments, log.log_end_offset()), (1, Offset(20)));
    assert_eq!(open_files(), 1);
}

/// Batches as a leader has them: each with its offset and its epoch.
fn led(batches: &[(i64, i32, &str)]) -> bytes::Bytes {
    let mut bytes = Vec::new();
    for (offset, epoch, value) in batches {
        let options = BatchOptions {
            base_offset: Offset(*offset),
            leader_epoch: LeaderEpoch(*epoch),
            ..BatchOptions::default()
        };
        bytes.extend_from_slice(&batch_with(options, 1000, &[value]));
    }
    bytes.into()
}

#[test]
fn a_follower_appends_what_the_leader_has_up_to_the_epoch_that_it_asked_in() {
    let mut bench = bench(LogConfig::default());
    let records = led(&[(0, 1, "a"), (1, 2, "b"), (2, 3, "c"), (3, 2, "d")]);
    let end = bench.log.append_as_follower(&records, LeaderEpoch(2), NOW).unwrap();
    assert_eq!(end, Offset(2), "and nothing behind what is of a later one");
    let reader = bench.log.reader();
    let first_two = Batch::parse(&records).unwrap().bytes().len() * 2;
    assert_eq!(reader.read(request(0)).unwrap().records, records.slice(..first_two));
    assert_eq!(reader.last_epoch(), Some(LeaderEpoch(2)));
    let none = led(&[(2, 3, "c")]);
    assert_eq!(bench.log.append_as_follower(&none, LeaderEpoch(2), NOW).unwrap(), Offset(2));
    // What does not follow, or is damaged, leaves the log as it was, whatever comes before.
    let mut damaged = led(&[(2, 2, "c"), (3, 2, "d")]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    for wrong in [led(&[(3, 2, "c")]), led(&[(1, 2, "c")]), led(&[(2, 1, "c")]), damaged.into()] {
        bench.log.append_as_follower(&wrong, LeaderEpoch(9), NOW).unwrap_err();
        assert_eq!(bench.log.log_end_offset(), Offset(2));
    }
}

#[test]
fn what_is_copied_fills_segments_as_they_are_here() {
    let value = "x".repeat(600);
    let records = led(&[(0, 1, &value), (1, 1, &value), (2, 1, &value), (3, 1, "small")]);
    // One batch is larger than a segment here, three are longer than one together.
    for (segment_bytes, segments) in [(500, 4), (1500, 2), (1 << 20, 1)] {
        let mut bench = bench(LogConfig { segment_bytes, ..LogConfig::default() });
        let end = bench.log.append_as_follower(&records, LeaderEpoch(1), NOW).unwrap();
        assert_eq!(end, Offset(4));
        bench.log.high_watermark().raise(end);
        let reader = bench.log.reader();
        assert_eq!(reader.segment_count(), segments, "{segment_bytes}");
        let all = read_all(&reader).unwrap();
        let lengths: Vec<_> = all.iter().map(|(_, value)| value.len()).collect();
        assert_eq!(lengths, [600, 600, 600, 5], "{segment_bytes}");
    }
}

#[test]
fn gaps_that_compaction_left_at_the_leader_are_within_segments_here() {
    let config = LogConfig { compacted: true, segment_bytes: 1000, ..LogConfig::default() };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders-0");
    let value = "x".repeat(600);
    let records = led(&[(0, 1, &value), (70, 1, &value), (200, 2, &value)]);
    let mut log = create(&Env::real(), &path, config.clone());
    assert_eq!(log.append_as_follower(&records, LeaderEpoch(2), NOW).unwrap(), Offset(201));
    let before = read_all(&log.reader()).unwrap();
    assert_eq!((before.len(), log.reader().segment_count()), (3, 3));
    drop(log);
    // As after a crash: nothing is known to be synced, or compacted.
    let (log, report) = reopen(&Env::real(), &path, config, Offset::ZERO).unwrap();
    assert_eq!((report.removed_segments, report.truncated_bytes), (0, 0));
    assert_eq!(read_all(&log.reader()).unwrap(), before);
}
