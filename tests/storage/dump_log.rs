//! Apache Kafka's own tool reads what the log writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use ottla::env::Env;
use ottla::log::{Cleaner, CleanerLimits, Log, LogConfig, Progress};
use ottla::record::{BatchBuilder, BatchOptions, Compression};
use ottla::types::{LeaderEpoch, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::kafka::jars;
use crate::support::{EPOCH, batch_with, create, marker};

fn dump(libs: &Path, files: &[PathBuf], options: &[&str]) -> String {
    let files: Vec<_> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let output = Command::new("java")
        .arg("-cp")
        .arg(libs.join("*"))
        .args(["-Xmx256M", "org.apache.kafka.tools.DumpLogSegments", "--files", &files.join(",")])
        .args(options)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

fn write(path: &Path) -> Vec<PathBuf> {
    let config = LogConfig {
        segment_bytes: 20_000,
        index_interval_bytes: 1000,
        verifies_transactions: false,
        ..LogConfig::default()
    };
    let mut log = create(&Env::real(), path, config);
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for (step, codec) in (0..500_i32).zip(codecs.iter().cycle()) {
        let options = BatchOptions {
            compression: *codec,
            producer_id: ProducerId(i64::from(step % 3)),
            producer_epoch: ProducerEpoch(0),
            base_sequence: Sequence(step / 3 * 2),
            transactional: step % 3 == 2,
            ..BatchOptions::default()
        };
        let text = format!("value {step} {}", "x".repeat(150));
        let records = batch_with(options, i64::from(step) * 100, &[&text, "short"]);
        log.append_as_leader(&records, LeaderEpoch(step / 100), TimestampMs(1_000)).unwrap();
        if step == 400 {
            log.append(marker(2, 0, false), LeaderEpoch(4), TimestampMs(1_000)).unwrap();
        }
    }
    assert!(log.reader().segment_count() > 2);
    log.close().unwrap();
    files_in(path)
}

fn files_in(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn of_kind(files: &[PathBuf], extension: &str) -> Vec<PathBuf> {
    let named = |file: &&PathBuf| file.extension().is_some_and(|found| found == extension);
    files.iter().filter(named).cloned().collect()
}

fn check_indexes(libs: &Path, files: &[PathBuf]) {
    let indexes = [of_kind(files, "index"), of_kind(files, "timeindex")].concat();
    assert!(indexes.len() >= 2);
    for options in [&["--index-sanity-check"][..], &["--verify-index-only"], &["--deep-iteration"]]
    {
        let text = dump(libs, &indexes, options);
        for complaint in ["Found", "Mismatches", "mismatch", "out of order", "rror"] {
            assert!(!text.contains(complaint), "{options:?}: {text}");
        }
    }
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn kafka_dump_log_reads_every_file() {
    let libs = jars();
    let root = tempfile::tempdir().unwrap();
    let files = write(&root.path().join("orders-0"));
    let kind = |extension: &str| of_kind(&files, extension);
    let text = dump(&libs, &kind("log"), &["--deep-iteration", "--print-data-log"]);
    assert_eq!(text.matches(" payload: ").count(), 1000, "{text}");
    assert!(text.contains("endTxnMarker: ABORT"), "{text}");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        assert!(text.contains(&format!("compresscodec: {codec}")), "{codec}");
    }
    assert!(!text.contains("isvalid: false"), "{text}");
    check_indexes(&libs, &files);
    let text = dump(&libs, &kind("index"), &[]);
    assert!(text.matches("offset: ").count() > 20, "{text}");
    let text = dump(&libs, &kind("txnindex"), &[]);
    assert!(text.contains("producerId: 2") && text.contains("firstOffset: 4"), "{text}");
    let snapshots = kind("snapshot");
    let text = dump(&libs, &snapshots[snapshots.len() - 1..], &[]);
    for expected in ["producerId: 0", "producerId: 1", "producerId: 2", "coordinatorEpoch: 2"] {
        assert!(text.contains(expected), "{text}");
    }
}

fn compact(log: &mut Log, config: &LogConfig, now: TimestampMs) {
    log.sync().unwrap();
    log.high_watermark().raise(log.log_end_offset());
    let (env, reader) = (Env::real(), log.reader());
    let dirtiness = reader.dirtiness(config, None, now).unwrap();
    assert!(dirtiness.is_due);
    let mut cleaner =
        Cleaner::new(&env, &reader, config, CleanerLimits::default(), &dirtiness, now);
    loop {
        match cleaner.step().unwrap() {
            Progress::More(_) => {}
            Progress::Cleaned(cleaned) => assert!(log.replace_segments(cleaned).unwrap()),
            Progress::Done(_) => return,
        }
    }
}

/// A table of a hundred keys that was changed many times, also by transactions, and compacted.
fn write_compacted(path: &Path) -> Vec<PathBuf> {
    let config = LogConfig {
        segment_bytes: 30_000,
        index_interval_bytes: 500,
        compacted: true,
        delete_retention_ms: 1000,
        verifies_transactions: false,
        ..LogConfig::default()
    };
    let mut log = create(&Env::real(), path, config.clone());
    let codecs = [Compression::None, Compression::Gzip, Compression::Lz4, Compression::Zstd];
    for (step, codec) in (0..600_i32).zip(codecs.iter().cycle()) {
        let mut builder = BatchBuilder::new(BatchOptions {
            compression: *codec,
            producer_id: ProducerId(i64::from(step % 2)),
            producer_epoch: ProducerEpoch(0),
            base_sequence: Sequence(step / 2 * 3),
            transactional: step % 2 == 1,
            ..BatchOptions::default()
        });
        for record in 0..3 {
            let key = format!("key {}", (step * 7 + record * 13) % 100);
            let value = format!("value {step}.{record} {}", "x".repeat(100));
            let value = (record + step % 11 != 0).then_some(value.as_bytes());
            builder.append(TimestampMs(i64::from(step)), Some(key.as_bytes()), value, &[]).unwrap();
        }
        log.append_as_leader(&builder.finish().unwrap(), EPOCH, TimestampMs(1_000)).unwrap();
        if step % 20 == 19 {
            log.append(marker(1, 0, step % 40 == 39), EPOCH, TimestampMs(1_000)).unwrap();
        }
    }
    compact(&mut log, &config, TimestampMs(5_000));
    compact(&mut log, &config, TimestampMs(5_500));
    log.close().unwrap();
    files_in(path)
}

#[test]
#[ignore = "needs Java and Apache Kafka's jars"]
fn kafka_dump_log_reads_what_compaction_wrote() {
    let root = tempfile::tempdir().unwrap();
    let files = write_compacted(&root.path().join("orders-0"));
    assert!(
        !files.iter().any(|file| {
            file.extension().is_some_and(|kind| kind == "cleaned" || kind == "swap")
        })
    );
    let libs = jars();
    let logs = of_kind(&files, "log");
    let text = dump(&libs, &logs, &["--deep-iteration", "--print-data-log"]);
    let records = text.matches(" keySize: ").count();
    assert!((100..700).contains(&records), "{records}");
    assert!(!text.contains("isvalid: false"), "{text}");
    assert!(text.contains("deleteHorizonMs: OptionalLong[6000]"), "{text}");
    assert!(text.contains("endTxnMarker: ABORT"), "{text}");
    for codec in ["none", "gzip", "lz4", "zstd"] {
        assert!(text.contains(&format!("compresscodec: {codec}")), "{codec}");
    }
    check_indexes(&libs, &files);
    dump(&libs, &of_kind(&files, "txnindex"), &[]);
}
