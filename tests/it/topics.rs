//! Topics: created, seen, changed, deleted; and their settings.

use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterableConfig,
};
use ottla::protocol::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use ottla::protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatableTopicResult,
    CreateTopicsRequest,
};
use ottla::protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use ottla::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResult,
};
use ottla::protocol::messages::incremental_alter_configs::{
    self as incremental, IncrementalAlterConfigsRequest,
};
use ottla::protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse,
};
use ottla::types::Uuid;

use crate::support::{Client, TestBroker, batch};

#[track_caller]
fn check_code(code: i16, expected: ErrorCode) {
    assert_eq!(ErrorCode::from_i16(code), expected);
}

fn metadata(client: &mut Client, version: i16, names: Option<&[&str]>) -> MetadataResponse {
    let topic =
        |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
    let topics = names.map(|names| names.iter().map(topic).collect());
    // Version 4 introduced the choice.
    let allow_auto_topic_creation = version < 4;
    let request = MetadataRequest { topics, allow_auto_topic_creation, ..Default::default() };
    client.call(version, request)
}

fn names(response: &MetadataResponse) -> Vec<String> {
    let names = response.topics.iter().map(|topic| topic.name.as_deref().unwrap().to_owned());
    names.collect()
}

fn create(client: &mut Client, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    client.call(7, CreateTopicsRequest { topics, ..Default::default() }).topics
}

fn topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    }
}

#[test]
fn a_topic_is_in_metadata_when_its_creation_is_answered_and_gone_when_its_deletion_is() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    for round in 0..20 {
        client.create_topic("t", 2, &[]);
        let seen = metadata(&mut node.client(), 12, None);
        assert_eq!(names(&seen), ["t"], "round {round}");
        let partitions = &seen.topics[0].partitions;
        assert!(partitions.iter().all(|partition| partition.leader_id == seen.brokers[0].node_id));
        assert_eq!(client.produce("t", 1, -1, batch(&[b"x"])).base_offset, 0);
        let request = DeleteTopicsRequest {
            topic_names: vec!["t".into()],
            timeout_ms: 10_000,
            ..Default::default()
        };
        assert_eq!(client.call(5, request).responses[0].error_code, 0);
        assert_eq!(names(&metadata(&mut node.client(), 12, None)), Vec::<String>::new());
        let gone = client.produce("t", 0, -1, batch(&[b"x"]));
        check_code(gone.error_code, ErrorCode::UnknownTopicOrPartition);
    }
}

#[test]
fn metadata_knows_all_none_and_some() {
    let options = BrokerOptions::in_memory().with("auto.create.topics.enable", "false");
    let node = TestBroker::start(options);
    let mut client = node.client();
    client.create_topic("a", 1, &[]);
    client.create_topic("b", 3, &[]);
    for version in 1..=13 {
        assert_eq!(names(&metadata(&mut client, version, None)), ["a", "b"], "v{version}");
        assert_eq!(names(&metadata(&mut client, version, Some(&[]))), Vec::<String>::new());
        let some = metadata(&mut client, version, Some(&["b", "missing", "b"]));
        assert_eq!(names(&some), ["b", "missing"]);
        assert_eq!(some.topics[0].partitions.len(), 3);
        let code = some.topics[1].error_code;
        check_code(code, ErrorCode::UnknownTopicOrPartition);
        let broker = &some.brokers[0];
        assert_eq!(broker.host.as_str(), "127.0.0.1", "the address that the client used");
        assert_eq!(broker.port, i32::from(node.address().port()));
        if version >= 2 {
            assert_eq!(some.cluster_id.as_deref(), Some(node.broker().cluster_id()));
        }
    }
    assert_eq!(names(&metadata(&mut client, 0, Some(&[]))), ["a", "b"], "v0: empty is all");
}

#[test]
fn a_client_over_ipv6_is_sent_back_to_ipv6() {
    let node = TestBroker::in_memory();
    let Some(address) = node.broker().addresses().iter().find(|address| address.is_ipv6()) else {
        return;
    };
    let seen = metadata(&mut Client::connect(*address), 12, None);
    assert_eq!(seen.brokers[0].host.as_str(), "::1");
    assert_eq!(seen.brokers[0].port, i32::from(node.address().port()));
}

#[test]
fn advertised_listeners_are_what_clients_are_told() {
    let options =
        BrokerOptions::in_memory().with("advertised.listeners", "PLAINTEXT://broker.example:9999");
    let node = TestBroker::start(options);
    let seen = metadata(&mut node.client(), 12, None);
    assert_eq!((seen.brokers[0].host.as_str(), seen.brokers[0].port), ("broker.example", 9999));
}

#[test]
fn topics_are_found_by_id() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let id = metadata(&mut client, 12, None).topics[0].topic_id;
    let by_id = |topic_id| {
        let topics = Some(vec![MetadataRequestTopic { name: None, topic_id }]);
        MetadataRequest { topics, ..Default::default() }
    };
    let found = client.call(12, by_id(id));
    assert_eq!(found.topics[0].name.as_deref(), Some("t"));
    let missing = client.call(12, by_id(Uuid([1; 16])));
    check_code(missing.topics[0].error_code, ErrorCode::UnknownTopicId);
    assert_eq!(missing.topics[0].name, None);
}

#[test]
fn a_topic_is_created_on_first_use_only_where_both_sides_want_it() {
    for (setting, asked, expected) in
        [("true", true, true), ("true", false, false), ("false", true, false)]
    {
        let options = BrokerOptions::in_memory()
            .with("auto.create.topics.enable", setting)
            .with("num.partitions", "3");
        let node = TestBroker::start(options);
        let mut client = node.client();
        let topic = MetadataRequestTopic { name: Some("new".into()), ..Default::default() };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: asked,
            ..Default::default()
        };
        let response = client.call(9, request);
        let count = response.topics[0].partitions.len();
        assert_eq!(count, if expected { 3 } else { 0 }, "{setting} {asked}");
        assert_eq!(names(&metadata(&mut client, 9, None)).len(), usize::from(expected));
    }
}

#[test]
fn each_topic_of_a_creation_has_its_own_answer() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("there", 1, &[]);
    let configured = |name: &str, setting: &str, value: &str| CreatableTopic {
        configs: vec![CreatableTopicConfig { name: setting.into(), value: Some(value.into()) }],
        ..topic(name, 1)
    };
    let assigned = CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![CreatableReplicaAssignment {
            partition_index: 0,
            broker_ids: vec![node.broker().node_id().0],
        }],
        ..topic("assigned", 1)
    };
    let cases = [
        (topic("there", 1), ErrorCode::TopicAlreadyExists),
        (topic("bad/name", 1), ErrorCode::InvalidTopicException),
        (topic("zero", 0), ErrorCode::InvalidPartitions),
        (
            CreatableTopic { replication_factor: 3, ..topic("three", 1) },
            ErrorCode::InvalidReplicationFactor,
        ),
        (configured("what", "no.such.setting", "1"), ErrorCode::InvalidConfig),
        (configured("how", "retention.ms", "soon"), ErrorCode::InvalidConfig),
        (topic("twice", 1), ErrorCode::InvalidRequest),
        (topic("twice", 1), ErrorCode::InvalidRequest),
        (CreatableTopic { replication_factor: -1, ..topic("default", -1) }, ErrorCode::None),
        (configured("good", "retention.ms", "1000"), ErrorCode::None),
        (assigned, ErrorCode::None),
    ];
    let (topics, codes): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let results = create(&mut client, topics.clone());
    assert_eq!(results.len(), codes.len() - 1, "a topic that is named twice is answered once");
    for result in &results {
        let place = topics.iter().position(|topic| topic.name == result.name).unwrap();
        check_code(result.error_code, codes[place]);
        assert_eq!(result.error_code == 0, result.topic_id != Uuid::ZERO);
    }
    let good = results.iter().find(|result| result.name.as_str() == "good").unwrap();
    let retention =
        good.configs.as_ref().unwrap().iter().find(|c| c.name.as_str() == "retention.ms");
    assert_eq!(retention.unwrap().value.as_deref(), Some("1000"));
    assert_eq!(names(&metadata(&mut client, 9, None)), ["assigned", "default", "good", "there"]);
}

#[test]
fn validate_only_creates_nothing() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    let request = CreateTopicsRequest {
        topics: vec![topic("t", 4)],
        validate_only: true,
        ..Default::default()
    };
    let result = client.call(7, request).topics.remove(0);
    assert_eq!((result.error_code, result.num_partitions), (0, 4));
    assert!(metadata(&mut client, 9, None).topics.is_empty());
}

#[test]
fn deletions_by_name_and_id_have_their_own_answers() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    for name in ["a", "b", "c"] {
        client.create_topic(name, 1, &[]);
    }
    let id = metadata(&mut client, 12, Some(&["b"])).topics[0].topic_id;
    let state =
        |name: Option<&str>, topic_id| DeleteTopicState { name: name.map(Into::into), topic_id };
    let topics = vec![
        state(Some("a"), Uuid::ZERO),
        state(None, id),
        state(None, Uuid([5; 16])),
        state(Some("missing"), Uuid::ZERO),
        state(Some("c"), Uuid([5; 16])),
        state(None, Uuid::ZERO),
    ];
    let request = DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() };
    let responses = client.call(6, request).responses;
    let code = |name: Option<&str>, id: Uuid| {
        let found = responses.iter().find(|one| one.name.as_deref() == name && one.topic_id == id);
        ErrorCode::from_i16(
            found.unwrap_or_else(|| panic!("{name:?} {id}: {responses:?}")).error_code,
        )
    };
    assert_eq!(code(Some("b"), id), ErrorCode::None);
    assert_eq!(code(None, Uuid([5; 16])), ErrorCode::UnknownTopicId);
    assert_eq!(code(Some("missing"), Uuid::ZERO), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(code(Some("c"), Uuid([5; 16])), ErrorCode::InvalidRequest);
    assert_eq!(code(None, Uuid::ZERO), ErrorCode::InvalidRequest);
    assert_eq!(names(&metadata(&mut client, 9, None)), ["c"]);
}

#[test]
fn partitions_are_added_and_never_taken_away() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 2, &[]);
    let mut ask = |name: &str, count: i32| {
        let topic = CreatePartitionsTopic { name: name.into(), count, assignments: None };
        let request =
            CreatePartitionsRequest { topics: vec![topic], timeout_ms: 5000, ..Default::default() };
        ErrorCode::from_i16(client.call(3, request).results[0].error_code)
    };
    assert_eq!(ask("t", 5), ErrorCode::None);
    assert_eq!(ask("t", 5), ErrorCode::InvalidPartitions);
    assert_eq!(ask("t", 1), ErrorCode::InvalidPartitions);
    assert_eq!(ask("missing", 5), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(client.produce("t", 4, -1, batch(&[b"x"])).base_offset, 0);
}

fn describe(client: &mut Client, kind: i8, name: &str) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    client.call(4, request).results.remove(0)
}

fn setting(result: &DescribeConfigsResult, name: &str) -> (Option<String>, i8) {
    let found = result.configs.iter().find(|config| config.name.as_str() == name).unwrap();
    assert!(found.documentation.as_ref().is_some_and(|text| !text.is_empty()), "{name}");
    (found.value.as_deref().map(str::to_owned), found.config_source)
}

#[test]
fn settings_are_described_with_their_source() {
    let node = TestBroker::start(BrokerOptions::in_memory().with("log.retention.ms", "5000"));
    let mut client = node.client();
    client.create_topic("t", 1, &[("segment.bytes", "2000000")]);
    let topic = describe(&mut client, 2, "t");
    assert_eq!(topic.error_code, 0);
    assert_eq!(setting(&topic, "segment.bytes"), (Some("2000000".to_owned()), 1));
    assert_eq!(setting(&topic, "retention.ms"), (Some("5000".to_owned()), 4));
    assert_eq!(setting(&topic, "max.message.bytes").1, 5);
    let own = node.broker().node_id().to_string();
    let broker = describe(&mut client, 4, &own);
    assert_eq!(setting(&broker, "log.retention.ms"), (Some("5000".to_owned()), 4));
    // What a new cluster has: its leaders and its controller must agree on it.
    let cluster = describe(&mut client, 4, "");
    assert_eq!(cluster.configs.len(), 1);
    assert_eq!(setting(&cluster, "min.insync.replicas"), (Some("1".to_owned()), 3));
    for (kind, name, code) in [
        (2, "missing", ErrorCode::UnknownTopicOrPartition),
        (2, "a/b", ErrorCode::InvalidTopicException),
        (4, "77", ErrorCode::InvalidRequest),
        (99, "x", ErrorCode::InvalidRequest),
        (32, "", ErrorCode::InvalidRequest),
    ] {
        check_code(describe(&mut client, kind, name).error_code, code);
    }
}

fn alter(
    client: &mut Client,
    kind: i8,
    name: &str,
    op: i8,
    key: &str,
    value: Option<&str>,
) -> ErrorCode {
    let config = incremental::AlterableConfig {
        name: key.into(),
        config_operation: op,
        value: value.map(Into::into),
    };
    let resource = incremental::AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    ErrorCode::from_i16(client.call(1, request).responses[0].error_code)
}

#[test]
fn changed_settings_are_in_force_when_the_change_is_answered() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let big = batch(&[&[7; 5000]]);
    assert_eq!(client.produce("t", 0, -1, big.clone()).error_code, 0);
    assert_eq!(alter(&mut client, 2, "t", 0, "max.message.bytes", Some("1000")), ErrorCode::None);
    let code = client.produce("t", 0, -1, big.clone()).error_code;
    check_code(code, ErrorCode::MessageTooLarge);
    assert_eq!(alter(&mut client, 2, "t", 1, "max.message.bytes", None), ErrorCode::None);
    assert_eq!(client.produce("t", 0, -1, big.clone()).error_code, 0);
    // For all brokers: inherited by the topic.
    assert_eq!(alter(&mut client, 4, "", 0, "message.max.bytes", Some("1000")), ErrorCode::None);
    check_code(client.produce("t", 0, -1, big).error_code, ErrorCode::MessageTooLarge);
    let defaults = describe(&mut client, 4, "");
    assert_eq!(setting(&defaults, "message.max.bytes"), (Some("1000".to_owned()), 3));
    for (kind, name, op, key, value, code) in [
        (2, "t", 0, "no.such", Some("1"), ErrorCode::InvalidConfig),
        (2, "t", 0, "retention.ms", Some("soon"), ErrorCode::InvalidConfig),
        (2, "t", 0, "retention.ms", None, ErrorCode::InvalidConfig),
        (2, "t", 9, "retention.ms", Some("1"), ErrorCode::InvalidRequest),
        (2, "missing", 0, "retention.ms", Some("1"), ErrorCode::UnknownTopicOrPartition),
        (4, "", 0, "listeners", Some("PLAINTEXT://:1"), ErrorCode::InvalidConfig),
        (32, "g", 0, "x", Some("1"), ErrorCode::InvalidConfig),
    ] {
        let found = alter(&mut client, kind, name, op, key, value);
        assert_eq!(found, code, "{kind} {name} {key}");
    }
}

#[test]
fn the_old_alteration_replaces_all_settings() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[("retention.ms", "1000")]);
    let config = AlterableConfig { name: "segment.ms".into(), value: Some("60000".into()) };
    let resource =
        AlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs: vec![config] };
    let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
    assert_eq!(client.call(2, request).responses[0].error_code, 0);
    let topic = describe(&mut client, 2, "t");
    assert_eq!(setting(&topic, "segment.ms"), (Some("60000".to_owned()), 1));
    assert_ne!(setting(&topic, "retention.ms").1, 1);
}
