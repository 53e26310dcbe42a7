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
use ottla::protocol::messages::metadata::MetadataRequest;
use ottla::record::{BatchBuilder, BatchOptions, Batches, Compression};
use ottla::types::TimestampMs;

use crate::support::{Client, PATIENCE, TestBroker, batch, batch_with, now};

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
    let node = TestBroker::start(options);
    assert_eq!(node.broker().data_dir(), directory);
    let mut client = node.client();
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
    node.stop();
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
    let node = TestBroker::in_memory();
    let mut client = node.client();
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
    let node = TestBroker::start(options);
    let mut client = node.client();
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
    let node = TestBroker::start(options);
    let mut client = node.client();
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
    let node = TestBroker::in_memory();
    let mut client = node.client();
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

/// Alters one setting; the code and the message.
fn alter(
    client: &mut Client,
    resource: (i8, &str),
    name: &str,
    value: &str,
) -> (ErrorCode, String) {
    let config =
        AlterableConfig { name: name.into(), config_operation: 0, value: Some(value.into()) };
    let resource = AlterConfigsResource {
        resource_type: resource.0,
        resource_name: resource.1.into(),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let response = client.call(1, request).responses.remove(0);
    let message = response.error_message.map(String::from).unwrap_or_default();
    (ErrorCode::from_i16(response.error_code), message)
}

#[test]
fn every_setting_of_kafka_is_altered_or_refused_with_its_reason() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let (mut altered, mut refused) = (0, 0);
    for line in include_str!("../../src/config/kafka-4.4.0-settings.txt").lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [scope, name, kind, default, mode] = fields[..] else { continue };
        let resource = match scope {
            "topic" => (2, "t"),
            "group" => (32, "g"),
            // One for all brokers, while eligible leaders are kept.
            _ if name == "min.insync.replicas" => (4, ""),
            // Secrets are set for one broker, as in Kafka.
            _ => (4, "1"),
        };
        let value = match (default, kind) {
            ("(empty)", _) => "",
            ("null", "STRING" | "LIST" | "CLASS" | "PASSWORD") => "x",
            ("null", "BOOLEAN") => "true",
            ("null", _) => "1",
            (default, _) => default,
        };
        let (code, message) = alter(&mut client, resource, name, value);
        let reasons = ["restart", " needs "];
        if code == ErrorCode::None {
            assert_ne!(mode, "read-only", "{name}");
            altered += 1;
        } else {
            assert_eq!(code, ErrorCode::InvalidConfig, "{name}: {message}");
            assert!(reasons.iter().any(|reason| message.contains(reason)), "{name}: {message}");
            refused += 1;
        }
    }
    assert!(altered > 150 && refused > 200, "{altered} altered, {refused} refused");
    // They are in force together, and the topic works.
    assert_eq!(client.produce("t", 0, 1, batch(&[b"a"])).error_code, 0);
    assert_eq!(described(&mut client, "sasl.kerberos.min.time.before.relogin").1, 2);
}

/// The recovery point of a partition, as it was last written down.
fn recovery_point(node: &TestBroker, topic: &str) -> Option<i64> {
    let file = node.broker().data_dir().join("recovery-point-offset-checkpoint");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let start = format!("{topic} 0 ");
    text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
}

#[test]
fn a_log_without_fsync_is_flushed_by_count_and_by_time() {
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::in_directory(directory.path())
        .with("log.flush.offset.checkpoint.interval.ms", "10")
        .with("log.flush.scheduler.interval.ms", "10");
    let node = TestBroker::start(options);
    let mut client = node.client();
    // The interval of the check is the default of the time, as in Kafka.
    let never = ("flush.ms", "9223372036854775807");
    client.create_topic("never", 1, &[("durability", "os"), never]);
    client.create_topic("count", 1, &[("durability", "os"), never, ("flush.messages", "3")]);
    client.create_topic("time", 1, &[("durability", "os"), ("flush.ms", "20")]);
    for topic in ["never", "count", "time"] {
        for _ in 0..3 {
            assert_eq!(client.produce(topic, 0, -1, batch(&[b"a"])).error_code, 0);
        }
    }
    for topic in ["count", "time"] {
        let begin = Instant::now();
        while recovery_point(&node, topic) != Some(3) {
            assert!(begin.elapsed() < PATIENCE, "{topic} is not flushed");
            std::thread::yield_now();
        }
    }
    assert_eq!(recovery_point(&node, "never"), Some(0));
    node.stop();
}

#[test]
fn a_record_that_is_large_uncompressed_is_refused_where_the_topic_says_so() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[("max.decompressed.message.bytes", "1000")]);
    let lz4 = BatchOptions { compression: Compression::Lz4, ..BatchOptions::default() };
    let large = [0; 5000];
    let response = client.produce("t", 0, -1, batch_with(lz4, &[b"small", &large]));
    assert_eq!(ErrorCode::from_i16(response.error_code), ErrorCode::InvalidRecord);
    assert!(response.error_message.unwrap().contains("max.decompressed.message.bytes"));
    let many: Vec<&[u8]> = vec![&large[..900]; 5];
    assert_eq!(client.produce("t", 0, -1, batch_with(lz4, &many)).error_code, 0);
    assert_eq!(client.produce("t", 0, -1, batch(&[&large])).error_code, 0);
}

#[test]
fn a_client_is_told_the_address_of_the_listener_that_it_used() {
    let options = BrokerOptions::in_memory()
        .with("listeners", "INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.1:0,CONTROLLER://127.0.0.1:0")
        .with("controller.listener.names", "CONTROLLER")
        .with("advertised.listeners", "OUTSIDE://broker.example:19092")
        .with(
            "listener.security.protocol.map",
            "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
        );
    let node = TestBroker::start(options);
    let addresses = node.broker().addresses().to_vec();
    assert_eq!(addresses.len(), 2, "that of the controller is not opened");
    let told = |at: std::net::SocketAddr| {
        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
        let broker = Client::connect(at).call(12, request).brokers.remove(0);
        (broker.host.to_string(), broker.port)
    };
    assert_eq!(told(addresses[0]), ("127.0.0.1".to_owned(), i32::from(addresses[0].port())));
    assert_eq!(told(addresses[1]), ("broker.example".to_owned(), 19092));
}
