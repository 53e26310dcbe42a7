//! The APIs by which tools look at a broker.

use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::messages::api_versions::ApiVersionsRequest;
use ottla::protocol::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use ottla::protocol::messages::create_acls::{AclCreation, CreateAclsRequest};
use ottla::protocol::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use ottla::protocol::messages::describe_acls::DescribeAclsRequest;
use ottla::protocol::messages::describe_cluster::DescribeClusterRequest;
use ottla::protocol::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsRequest,
};
use ottla::protocol::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use ottla::protocol::messages::describe_quorum::{DescribeQuorumRequest, PartitionData, TopicData};
use ottla::protocol::messages::describe_topic_partitions::{
    self as topic_partitions, Cursor, DescribeTopicPartitionsRequest,
};
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::list_config_resources::ListConfigResourcesRequest;
use ottla::protocol::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use ottla::protocol::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use ottla::protocol::{ApiKey, api};
use ottla::record::BatchOptions;
use ottla::types::{ProducerEpoch, ProducerId, Sequence};

use crate::support::{Client, TestBroker, batch, batch_with};

#[track_caller]
fn check_code(code: i16, expected: ErrorCode) {
    assert_eq!(ErrorCode::from_i16(code), expected);
}

#[test]
fn api_versions_lists_what_is_served_and_finalized() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    let request = ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1.0".into(),
        ..ApiVersionsRequest::default()
    };
    for version in 0..=5 {
        let response = client.call(version, request.clone());
        assert_eq!((response.error_code, &response.api_keys), (0, &api::advertised()));
        if version >= 3 {
            let levels: Vec<_> =
                response.finalized_features.iter().map(|f| f.name.as_str()).collect();
            let expected = [
                "eligible.leader.replicas.version",
                "group.version",
                "metadata.version",
                "transaction.version",
            ];
            assert_eq!(levels, expected);
            assert!(response.finalized_features_epoch >= 0);
        }
    }
    let produce = api::advertised().into_iter().find(|one| one.api_key == ApiKey::Produce.to_i16());
    assert_eq!(produce.unwrap().min_version, 0, "or old librdkafka does not compress");
    let nameless = ApiVersionsRequest { client_software_name: "-".into(), ..request };
    check_code(client.call(3, nameless).error_code, ErrorCode::InvalidRequest);
}

#[test]
fn the_cluster_is_described_with_its_broker() {
    let node = TestBroker::in_memory();
    let request = DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        ..Default::default()
    };
    let response = node.client().call(2, request);
    assert_eq!(response.cluster_id.as_str(), node.broker().cluster_id());
    assert_eq!(response.brokers.len(), 1);
    assert_eq!(response.brokers[0].port, i32::from(node.address().port()));
    assert!(!response.brokers[0].is_fenced);
    assert_eq!(response.controller_id, node.broker().node_id().0);
    assert_eq!(response.cluster_authorized_operations, 8096);
    let other = DescribeClusterRequest { endpoint_type: 2, ..Default::default() };
    check_code(node.client().call(2, other).error_code, ErrorCode::MismatchedEndpointType);
    let other = DescribeClusterRequest { endpoint_type: 9, ..Default::default() };
    check_code(node.client().call(2, other).error_code, ErrorCode::UnsupportedEndpointType);
}

#[test]
fn partitions_are_described_page_by_page() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("a", 3, &[]);
    client.create_topic("b", 4, &[]);
    let mut cursor = None;
    let mut seen = Vec::new();
    loop {
        let request = DescribeTopicPartitionsRequest {
            topics: Vec::new(),
            response_partition_limit: 2,
            cursor: cursor.take(),
        };
        let response = client.call(0, request);
        let mut count = 0;
        for topic in &response.topics {
            count += topic.partitions.len();
            let name = topic.name.as_deref().unwrap();
            seen.extend(topic.partitions.iter().map(|p| (name.to_owned(), p.partition_index)));
        }
        assert!(count <= 2);
        match response.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let expected: Vec<_> = (0..3)
        .map(|index| ("a".to_owned(), index))
        .chain((0..4).map(|index| ("b".to_owned(), index)))
        .collect();
    assert_eq!(seen, expected);
    let named = |name: &str| topic_partitions::TopicRequest { name: name.into() };
    let request = DescribeTopicPartitionsRequest {
        topics: vec![named("b"), named("missing")],
        response_partition_limit: 100,
        cursor: Some(Cursor { topic_name: "b".into(), partition_index: 2 }),
    };
    let response = client.call(0, request.clone());
    assert_eq!(response.topics[0].partitions.len(), 2);
    check_code(response.topics[1].error_code, ErrorCode::UnknownTopicOrPartition);
    let outside = DescribeTopicPartitionsRequest {
        cursor: Some(Cursor { topic_name: "a".into(), partition_index: 0 }),
        ..request
    };
    check_code(client.call(0, outside).topics[0].error_code, ErrorCode::InvalidRequest);
}

#[test]
fn log_directories_are_described_with_sizes() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("a", 1, &[]);
    client.create_topic("b", 2, &[]);
    client.produce("b", 1, -1, batch(&[&[7; 1000]]));
    let all = client.call(4, DescribeLogDirsRequest { topics: None });
    let directory = &all.results[0];
    assert_eq!(directory.log_dir.as_str(), node.broker().data_dir().display().to_string());
    assert!(directory.usable_bytes > 0);
    assert!(directory.total_bytes >= directory.usable_bytes, "{}", directory.total_bytes);
    let names: Vec<_> = directory.topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(directory.topics[1].partitions[1].partition_size > 1000);
    let topics = vec![DescribableLogDirTopic { topic: "b".into(), partitions: vec![1, 9] }];
    let some = client.call(4, DescribeLogDirsRequest { topics: Some(topics) });
    assert_eq!(some.results[0].topics.len(), 1);
    assert_eq!(some.results[0].topics[0].partitions.len(), 1);
}

#[test]
fn producers_are_described() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let options = BatchOptions {
        producer_id: ProducerId(42),
        producer_epoch: ProducerEpoch(3),
        base_sequence: Sequence(0),
        ..BatchOptions::default()
    };
    assert_eq!(client.produce("t", 0, -1, batch_with(options, &[b"a", b"b"])).error_code, 0);
    let request = DescribeProducersRequest {
        topics: vec![
            TopicRequest { name: "t".into(), partition_indexes: vec![0, 5] },
            TopicRequest { name: "a/b".into(), partition_indexes: vec![0] },
        ],
    };
    let response = client.call(0, request);
    let producer = &response.topics[0].partitions[0].active_producers[0];
    assert_eq!((producer.producer_id, producer.producer_epoch, producer.last_sequence), (42, 3, 1));
    check_code(response.topics[0].partitions[1].error_code, ErrorCode::UnknownTopicOrPartition);
    check_code(response.topics[1].partitions[0].error_code, ErrorCode::InvalidTopicException);
}

#[test]
fn the_quorum_is_this_broker() {
    let node = TestBroker::in_memory();
    let partition = |index| PartitionData { partition_index: index };
    let topic = TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![partition(0), partition(1)],
    };
    let response = node.client().call(2, DescribeQuorumRequest { topics: vec![topic] });
    let partitions = &response.topics[0].partitions;
    assert_eq!((response.error_code, partitions[0].error_code), (0, 0));
    assert_eq!(partitions[0].leader_id, node.broker().node_id().0);
    assert_eq!(partitions[0].current_voters.len(), 1);
    assert!(partitions[0].high_watermark > 0);
    check_code(partitions[1].error_code, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(response.nodes[0].node_id, node.broker().node_id().0);
}

#[test]
fn without_its_feature_the_consumer_protocol_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let set = |client: &mut Client, max_version_level: i16| {
        let update = FeatureUpdateKey {
            feature: "group.version".into(),
            max_version_level,
            upgrade_type: if max_version_level == 0 { 2 } else { 1 },
            ..Default::default()
        };
        let request = UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() };
        check_code(client.call(2, request).error_code, ErrorCode::None);
    };
    let heartbeat = |client: &mut Client| {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: "g".into(),
            member_id: "member".into(),
            rebalance_timeout_ms: 10_000,
            subscribed_topic_names: Some(vec!["t".into()]),
            topic_partitions: Some(Vec::new()),
            ..Default::default()
        };
        client.call(1, request).error_code
    };
    let node = TestBroker::start(BrokerOptions::in_directory(directory.path()));
    let mut client = node.client();
    set(&mut client, 0);
    check_code(heartbeat(&mut client), ErrorCode::UnsupportedVersion);
    node.stop();
    // It stays off over a restart, and can be turned on again.
    let node = TestBroker::start(BrokerOptions::in_directory(directory.path()));
    let mut client = node.client();
    check_code(heartbeat(&mut client), ErrorCode::UnsupportedVersion);
    set(&mut client, 1);
    // The coordinator is not there yet, as nobody has looked for it.
    let code = ErrorCode::from_i16(heartbeat(&mut client));
    assert_ne!(code, ErrorCode::UnsupportedVersion);
}

#[test]
fn what_does_not_exist_yet_says_so() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let none = client.call(0, ListPartitionReassignmentsRequest::default());
    assert_eq!((none.error_code, none.topics.len()), (0, 0));
    let describe = DescribeAclsRequest {
        resource_type_filter: 1,
        pattern_type_filter: 1,
        operation: 1,
        permission_type: 1,
        ..Default::default()
    };
    check_code(client.call(3, describe).error_code, ErrorCode::SecurityDisabled);
    let create = CreateAclsRequest { creations: vec![AclCreation::default()] };
    check_code(client.call(3, create).results[0].error_code, ErrorCode::SecurityDisabled);
    let delete = DeleteAclsRequest { filters: vec![DeleteAclsFilter::default()] };
    let response = client.call(3, delete);
    check_code(response.filter_results[0].error_code, ErrorCode::SecurityDisabled);
    let share_group = FindCoordinatorRequest { key: "t".into(), key_type: 2, ..Default::default() };
    check_code(client.call(3, share_group).error_code, ErrorCode::InvalidRequest);
    let share_groups = FindCoordinatorRequest {
        coordinator_keys: vec!["t".into(), "u".into()],
        key_type: 2,
        ..Default::default()
    };
    let response = client.call(4, share_groups);
    assert_eq!(response.coordinators.len(), 2);
    check_code(response.coordinators[1].error_code, ErrorCode::InvalidRequest);
    let resources = client.call(1, ListConfigResourcesRequest { resource_types: vec![2] });
    assert_eq!(resources.config_resources.len(), 1);
    let unknown = ListConfigResourcesRequest { resource_types: vec![3] };
    check_code(client.call(1, unknown).error_code, ErrorCode::UnsupportedVersion);
}
