//! Settings that are declared as supported have an effect.

use std::time::Instant;

use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use ottla::protocol::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, TopicRequest,
};
use ottla::protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use ottla::record::{BatchBuilder, BatchOptions, Batches, Compression};
use ottla::types::TimestampMs;

use crate::support::{Client, PATIENCE, World, batch, now};

/// Sets a default of all brokers.
fn set_for_all_brokers(client: &mut Client, name: &str, value: &str) {
    let config =
        AlterableConfig { name: name.into(), config_operation: 0, value: Some(value.into()) };
    let resource =
        AlterConfigsResource { resource_type: 4, resource_name: "".into(), configs: vec![config] };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let response = client.call(1, request).responses.remove(0);
    assert_eq!(response.error_code, 0, "{response:?}");
}

/// Value, source and whether it is read only, of a setting of the broker.
fn described(client: &mut Client, name: &str) -> (Option<String>, i8, bool) {
    let resource = DescribeConfigsResource {
        resource_type: 4,
        resource_name: "1".into(),
        configuration_keys: Some(vec![name.into()]),
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        ..DescribeConfigsRequest::default()
    };
    let entry = client.call(4, request).results.remove(0).configs.remove(0);
    let first = entry.synonyms.first().map(|synonym| (synonym.value.clone(), synonym.source));
    if entry.config_source != 5 {
        assert_eq!(first, Some((entry.value.clone(), entry.config_source)), "{name}");
    }
    (entry.value.map(String::from), entry.config_source, entry.read_only)
}

#[test]
fn what_a_broker_was_started_with_is_described_as_such() {
    const GIVEN: i8 = 4;
    const DEFAULT: i8 = 5;
    let parent = tempfile::tempdir().unwrap();
    // A comma separates the elements of a list, but this is no list.
    let directory = parent.path().join("data, and more");
    let text = directory.to_str().unwrap().to_owned();
    let listeners = "PLAINTEXT://127.0.0.1:0";
    let mut options = BrokerOptions::in_directory(&directory)
        .with("log.dirs", "/not/used")
        .with("node.id", "1")
        .with("num.partitions", "3");
    options.listeners = Some(listeners.to_owned());
    let world = World::start(options);
    assert_eq!(world.broker().data_dir(), directory);
    let mut client = world.client();
    for (name, value, source) in [
        ("log.dirs", Some(text.as_str()), GIVEN),
        ("listeners", Some(listeners), GIVEN),
        ("node.id", Some("1"), GIVEN),
        ("num.partitions", Some("3"), GIVEN),
        ("advertised.listeners", None, DEFAULT),
        ("default.replication.factor", Some("1"), DEFAULT),
    ] {
        let expected = (value.map(str::to_owned), source, true);
        assert_eq!(described(&mut client, name), expected, "{name}");
    }
    // A change at run time leaves them as they are.
    set_for_all_brokers(&mut client, "log.retention.ms", "60000");
    assert_eq!(described(&mut client, "log.dirs"), (Some(text), GIVEN, true));
    world.stop();
}

/// Batches that compress well.
fn compressible() -> bytes::Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for number in 0..2000_u64 {
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44;
        let value = format!("{{\"id\":{number},\"name\":\"customer {mixed}\",\"state\":\"new\"}}");
        builder.append(now(), None, Some(value.as_bytes()), &[]).unwrap();
    }
    builder.finish().unwrap()
}

/// The codec and the size of the first batch of a topic.
fn stored(client: &mut Client, topic: &str) -> (Compression, usize) {
    let records = client.fetch(topic, 0, 0).records.unwrap();
    let batch = Batches::new(records.into_bytes()).next().unwrap().unwrap();
    (batch.header().compression, batch.header().size_bytes)
}

#[test]
fn the_level_of_compression_is_honoured_where_the_broker_compresses() {
    let world = World::in_memory();
    let mut client = world.client();
    let codecs = [
        ("gzip", Compression::Gzip, ["1", "9"]),
        ("lz4", Compression::Lz4, ["1", "12"]),
        ("zstd", Compression::Zstd, ["1", "19"]),
    ];
    for (name, codec, levels) in codecs {
        let sizes = levels.map(|level| {
            let topic = format!("{name}-{level}");
            let key = format!("compression.{name}.level");
            client.create_topic(&topic, 1, &[("compression.type", name), (&key, level)]);
            assert_eq!(client.produce(&topic, 0, -1, compressible()).error_code, 0);
            let (found, size) = stored(&mut client, &topic);
            assert_eq!(found, codec);
            size
        });
        assert!(sizes[1] < sizes[0], "{name}: {sizes:?}");
    }
}

#[test]
fn a_default_of_all_brokers_reaches_topics_that_exist() {
    let options = BrokerOptions::in_memory().with("log.retention.check.interval.ms", "10");
    let world = World::start(options);
    let mut client = world.client();
    client.create_topic("t", 1, &[]);
    client.create_topic("own", 1, &[("retention.ms", "-1"), ("compression.type", "producer")]);
    let mut old = BatchBuilder::new(BatchOptions::default());
    old.append(TimestampMs(now().0 - 3_600_000), None, Some(b"old"), &[]).unwrap();
    let old = old.finish().unwrap();
    for topic in ["t", "own"] {
        assert_eq!(client.produce(topic, 0, -1, old.clone()).error_code, 0);
        assert_eq!(client.produce(topic, 0, -1, batch(&[b"new"])).error_code, 0);
        assert_eq!(client.fetch(topic, 0, 0).log_start_offset, 0);
    }
    set_for_all_brokers(&mut client, "compression.type", "zstd");
    for (topic, codec) in [("t", Compression::Zstd), ("own", Compression::None)] {
        assert_eq!(client.produce(topic, 0, -1, batch(&[b"more"])).error_code, 0);
        let records = client.fetch(topic, 0, 2).records.unwrap();
        let batch = Batches::new(records.into_bytes()).last().unwrap().unwrap();
        assert_eq!(batch.header().compression, codec, "{topic}");
    }
    client.create_topic("alone", 1, &[]);
    assert_eq!(client.produce("alone", 0, -1, old).error_code, 0);
    set_for_all_brokers(&mut client, "log.retention.ms", "60000");
    let begin = Instant::now();
    while client.fetch("alone", 0, 0).error_code != ErrorCode::OffsetOutOfRange.to_i16() {
        assert!(begin.elapsed() < PATIENCE, "the retention of all brokers has no effect");
        std::thread::yield_now();
    }
    assert_eq!(client.fetch("own", 0, 0).log_start_offset, 0);
}

#[test]
fn a_description_of_partitions_is_cut_at_the_brokers_limit() {
    let options = BrokerOptions::in_memory().with("max.request.partition.size.limit", "2");
    let world = World::start(options);
    let mut client = world.client();
    client.create_topic("t", 3, &[]);
    let request = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest { name: "t".into() }],
        response_partition_limit: 2000,
        ..DescribeTopicPartitionsRequest::default()
    };
    let response = client.call(0, request);
    assert_eq!(response.topics[0].partitions.len(), 2);
    assert_eq!(response.next_cursor.unwrap().partition_index, 2);
}

#[test]
fn the_bad_records_of_a_batch_are_named() {
    let world = World::in_memory();
    let mut client = world.client();
    client.create_topic("compacted", 1, &[("cleanup.policy", "compact")]);
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for key in [Some(&b"k"[..]), None, Some(b"k"), None] {
        builder.append(now(), key, Some(b"v"), &[]).unwrap();
    }
    let response = client.produce("compacted", 0, -1, builder.finish().unwrap());
    assert_eq!(ErrorCode::from_i16(response.error_code), ErrorCode::InvalidRecord);
    let named = |response: &ottla::protocol::messages::produce::PartitionProduceResponse| {
        let errors = response.record_errors.iter();
        errors.map(|error| error.batch_index).collect::<Vec<_>>()
    };
    assert_eq!(named(&response), [1, 3]);
    let message = response.record_errors[0].batch_index_error_message.as_deref().unwrap();
    assert!(message.contains("no key"), "{message}");
    assert!(response.error_message.unwrap().contains("record 1"));
    client.create_topic("timed", 1, &[("message.timestamp.before.max.ms", "60000")]);
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for age in [0, 3_600_000, 1000, 7_200_000] {
        builder.append(TimestampMs(now().0 - age), None, Some(b"v"), &[]).unwrap();
    }
    let response = client.produce("timed", 0, -1, builder.finish().unwrap());
    assert_eq!(ErrorCode::from_i16(response.error_code), ErrorCode::InvalidTimestamp);
    assert_eq!(named(&response), [1, 3]);
}
