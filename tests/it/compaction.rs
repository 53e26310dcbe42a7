//! Topics with `cleanup.policy=compact`, seen from a client.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::messages::incremental_alter_configs::{
    self as incremental, IncrementalAlterConfigsRequest,
};
use ottla::record::{BatchBuilder, BatchOptions, Compression};

use crate::support::{Client, PATIENCE, TestBroker, now};

const KEYS: u32 = 20;

/// The values say which key and round they belong to.
fn changes(round: u32, codec: Compression) -> Bytes {
    let options = BatchOptions { compression: codec, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for key in 0..KEYS {
        let value = format!("{key} {round} {}", "x".repeat(10_000));
        builder
            .append(now(), Some(&key.to_be_bytes()), Some(value.as_bytes()), &[])
            .expect("a small record");
    }
    builder.finish().expect("a small batch")
}

fn fill(client: &mut Client, topic: &str, rounds: std::ops::Range<u32>) {
    for round in rounds {
        let answer = client.produce(topic, 0, -1, changes(round, Compression::None));
        assert_eq!(answer.error_code, 0, "{answer:?}");
    }
}

/// How many records there are, and the last round of each key.
fn state(client: &mut Client, topic: &str) -> (usize, BTreeMap<u32, u32>) {
    let values = client.values(topic, 0, 0);
    let mut last = BTreeMap::new();
    for (_, value) in &values {
        let text = String::from_utf8(value.clone()).unwrap();
        let mut words = text.split(' ').map(str::parse::<u32>);
        let (key, round) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
        last.insert(key, round);
    }
    (values.len(), last)
}

/// Asks until fewer than `count` records are left.
fn await_fewer(client: &mut Client, topic: &str, count: usize) -> BTreeMap<u32, u32> {
    let start = Instant::now();
    loop {
        let (left, last) = state(client, topic);
        if left < count {
            return last;
        }
        assert!(start.elapsed() < PATIENCE, "{left} records are left");
    }
}

fn alter(client: &mut Client, topic: &str, settings: &[(&str, &str)]) {
    let config = |&(name, value): &(&str, &str)| incremental::AlterableConfig {
        name: name.into(),
        config_operation: 0,
        value: Some(value.into()),
    };
    let resource = incremental::AlterConfigsResource {
        resource_type: 2,
        resource_name: topic.into(),
        configs: settings.iter().map(config).collect(),
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let response = client.call(1, request);
    assert_eq!(response.responses[0].error_code, 0, "{response:?}");
}

fn options(path: &std::path::Path) -> BrokerOptions {
    BrokerOptions::in_directory(path).with("log.cleaner.backoff.ms", "1")
}

#[test]
fn a_policy_that_is_altered_compacts_and_the_state_survives_a_crash() {
    let data = tempfile::tempdir().unwrap();
    let node = TestBroker::start(options(data.path()));
    let mut client = node.client();
    client.create_topic(
        "t",
        1,
        &[("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0")],
    );
    fill(&mut client, "t", 0..60);
    let expected: BTreeMap<u32, u32> = (0..KEYS).map(|key| (key, 59)).collect();
    assert_eq!(state(&mut client, "t"), (60 * KEYS as usize, expected.clone()));
    alter(&mut client, "t", &[("cleanup.policy", "compact")]);
    // The active segment is not compacted: it holds five rounds at most.
    assert_eq!(await_fewer(&mut client, "t", 8 * KEYS as usize), expected);
    let keyless = client.produce("t", 0, -1, crate::support::batch(&[b"no key"]));
    assert_eq!(ErrorCode::from_i16(keyless.error_code), ErrorCode::InvalidRecord);
    fill(&mut client, "t", 60..100);
    let expected: BTreeMap<u32, u32> = (0..KEYS).map(|key| (key, 99)).collect();
    assert_eq!(await_fewer(&mut client, "t", 8 * KEYS as usize), expected);
    // Compacted data stays readable when the topic is no longer compacted.
    alter(&mut client, "t", &[("cleanup.policy", "delete")]);
    node.crash();

    let node = TestBroker::start(options(data.path()));
    let mut client = node.client();
    let (left, last) = state(&mut client, "t");
    assert!(left < 8 * KEYS as usize && last == expected, "{left} {last:?}");
    fill(&mut client, "t", 100..101);
    let end = client.fetch("t", 0, 100 * i64::from(KEYS));
    assert_eq!((end.error_code, end.high_watermark), (0, 101 * i64::from(KEYS)));
    node.stop();
}

#[test]
fn thousands_of_changes_of_a_few_keys_leave_a_small_log_and_a_short_restart() {
    let data = tempfile::tempdir().unwrap();
    let node = TestBroker::start(options(data.path()));
    let mut client = node.client();
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("compression.type", "zstd"),
        ("compression.zstd.level", "1"),
    ];
    client.create_topic("commits", 1, &settings);
    // Numbers do not compress as well as a single letter does.
    let mut seed = 1_u64;
    for _ in 0..4_000_u32 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for key in 0..5_u32 {
            let mut value = vec![0_u8; 400];
            for byte in &mut value {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
            builder.append(now(), Some(&key.to_be_bytes()), Some(&value), &[]).unwrap();
        }
        let answer = client.produce("commits", 0, 1, builder.finish().unwrap());
        assert_eq!(answer.error_code, 0);
    }
    let start = Instant::now();
    // Eight megabytes were written; one segment and the state are left.
    while client.values("commits", 0, 0).len() > 5_000 {
        assert!(start.elapsed() < PATIENCE);
    }
    node.stop();
    let size: u64 = std::fs::read_dir(data.path().join("commits-0"))
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "log"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(size < 3 << 20, "{size}");
    let node = TestBroker::start(options(data.path()));
    assert!(node.client().values("commits", 0, 0).len() <= 5_000);
    node.stop();
}
