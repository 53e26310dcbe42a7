//! Apache Kafka's own tool reads what the log writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use ottla::env::Env;
use ottla::log::LogConfig;
use ottla::record::control::TransactionMarker;
use ottla::record::{BatchOptions, Compression};
use ottla::types::{LeaderEpoch, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::support::{batch_with, create};

/// The directory of Apache Kafka's jars, when the test can run.
fn libraries() -> Option<PathBuf> {
    let libs = std::env::var_os("OTTLA_KAFKA_LIBS").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".cache/ottla-peers/kafka/libs"))
    })?;
    let java = Command::new("java").arg("-version").output().is_ok_and(|out| out.status.success());
    (libs.is_dir() && java).then_some(libs)
}

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
    let config =
        LogConfig { segment_bytes: 20_000, index_interval_bytes: 1000, ..LogConfig::default() };
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
            let marker = TransactionMarker { committed: false, coordinator_epoch: 0 };
            let marker = marker.batch(ProducerId(2), ProducerEpoch(0), TimestampMs(1)).unwrap();
            log.append_internal(&marker, LeaderEpoch(4), TimestampMs(1_000)).unwrap();
        }
    }
    assert!(log.reader().segment_count() > 2);
    log.close().unwrap();
    let mut files: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn kafka_dump_log_reads_every_file() {
    let Some(libs) = libraries() else {
        eprintln!("skipped: needs java and Apache Kafka's jars (OTTLA_KAFKA_LIBS)");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let files = write(&root.path().join("orders-0"));
    let kind = |extension: &str| -> Vec<PathBuf> {
        let named = |file: &&PathBuf| file.extension().is_some_and(|found| found == extension);
        files.iter().filter(named).cloned().collect()
    };
    let text = dump(&libs, &kind("log"), &["--deep-iteration", "--print-data-log"]);
    assert_eq!(text.matches(" payload: ").count(), 1000, "{text}");
    assert!(text.contains("endTxnMarker: ABORT"), "{text}");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        assert!(text.contains(&format!("compresscodec: {codec}")), "{codec}");
    }
    assert!(!text.contains("isvalid: false"), "{text}");
    let indexes = [kind("index"), kind("timeindex")].concat();
    assert!(indexes.len() >= 6);
    for options in [&["--index-sanity-check"][..], &["--verify-index-only"], &["--deep-iteration"]]
    {
        let text = dump(&libs, &indexes, options);
        for complaint in ["Found", "Mismatches", "mismatch", "out of order", "rror"] {
            assert!(!text.contains(complaint), "{options:?}: {text}");
        }
    }
    let text = dump(&libs, &kind("index"), &[]);
    assert!(text.matches("offset: ").count() > 20, "{text}");
    let text = dump(&libs, &kind("txnindex"), &[]);
    assert!(text.contains("producerId: 2") && text.contains("firstOffset: 4"), "{text}");
    let snapshots = kind("snapshot");
    let text = dump(&libs, &snapshots[snapshots.len() - 1..], &[]);
    for expected in ["producerId: 0", "producerId: 1", "producerId: 2", "coordinatorEpoch: 0"] {
        assert!(text.contains(expected), "{text}");
    }
}
