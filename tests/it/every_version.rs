//! Each API that is advertised, at each version, answers in the form of that version.

use ottla::protocol::messages::api_versions::ApiVersionsRequest;
use ottla::protocol::messages::*;
use ottla::protocol::{ApiKey, Request, RequestHeader, api, frame};
use std::io::Write;

use crate::support::{World, batch, fetch_request, produce_request, read_frame};

/// A request that every version of the API can carry.
fn request(api: ApiKey, version: i16) -> Request {
    let name = "t";
    match api {
        ApiKey::Produce => produce_request(name, 0, -1, batch(&[b"x"])).into(),
        ApiKey::Fetch => fetch_request(name, 0, 0).into(),
        ApiKey::ListOffsets => list_offsets::ListOffsetsRequest {
            replica_id: -1,
            topics: vec![list_offsets::ListOffsetsTopic {
                name: name.into(),
                partitions: vec![list_offsets::ListOffsetsPartition {
                    timestamp: -1,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        }
        .into(),
        ApiKey::Metadata => metadata::MetadataRequest::default().into(),
        ApiKey::FindCoordinator if version >= 4 => find_coordinator::FindCoordinatorRequest {
            coordinator_keys: vec!["g".into()],
            ..Default::default()
        }
        .into(),
        ApiKey::FindCoordinator => {
            find_coordinator::FindCoordinatorRequest { key: "g".into(), ..Default::default() }
                .into()
        }
        ApiKey::ApiVersions => ApiVersionsRequest {
            client_software_name: "a".into(),
            client_software_version: "1".into(),
        }
        .into(),
        ApiKey::CreateTopics => create_topics::CreateTopicsRequest {
            topics: vec![create_topics::CreatableTopic {
                name: "new".into(),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        ApiKey::DeleteTopics if version >= 6 => delete_topics::DeleteTopicsRequest {
            topics: vec![delete_topics::DeleteTopicState {
                name: Some("gone".into()),
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        ApiKey::DeleteTopics => delete_topics::DeleteTopicsRequest {
            topic_names: vec!["gone".into()],
            ..Default::default()
        }
        .into(),
        ApiKey::DeleteRecords => delete_records::DeleteRecordsRequest {
            topics: vec![delete_records::DeleteRecordsTopic {
                name: name.into(),
                partitions: vec![Default::default()],
            }],
            ..Default::default()
        }
        .into(),
        ApiKey::InitProducerId => {
            init_producer_id::InitProducerIdRequest { transactional_id: None, ..Default::default() }
                .into()
        }
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch::OffsetForLeaderEpochRequest {
            topics: vec![offset_for_leader_epoch::OffsetForLeaderTopic {
                topic: name.into(),
                partitions: vec![Default::default()],
            }],
            ..Default::default()
        }
        .into(),
        ApiKey::DescribeAcls => describe_acls::DescribeAclsRequest::default().into(),
        ApiKey::CreateAcls => {
            create_acls::CreateAclsRequest { creations: vec![Default::default()] }.into()
        }
        ApiKey::DeleteAcls => {
            delete_acls::DeleteAclsRequest { filters: vec![Default::default()] }.into()
        }
        ApiKey::DescribeConfigs => describe_configs::DescribeConfigsRequest {
            resources: vec![describe_configs::DescribeConfigsResource {
                resource_type: 2,
                resource_name: name.into(),
                configuration_keys: None,
            }],
            ..Default::default()
        }
        .into(),
        ApiKey::AlterConfigs => alter_configs::AlterConfigsRequest {
            resources: vec![alter_configs::AlterConfigsResource {
                resource_type: 2,
                resource_name: name.into(),
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        ApiKey::DescribeLogDirs => {
            describe_log_dirs::DescribeLogDirsRequest { topics: None }.into()
        }
        ApiKey::CreatePartitions => create_partitions::CreatePartitionsRequest {
            topics: vec![create_partitions::CreatePartitionsTopic {
                name: name.into(),
                count: 1,
                assignments: None,
            }],
            timeout_ms: 1000,
            ..Default::default()
        }
        .into(),
        ApiKey::IncrementalAlterConfigs => {
            incremental_alter_configs::IncrementalAlterConfigsRequest {
                resources: vec![incremental_alter_configs::AlterConfigsResource {
                    resource_type: 2,
                    resource_name: name.into(),
                    ..Default::default()
                }],
                ..Default::default()
            }
            .into()
        }
        ApiKey::ListPartitionReassignments => {
            list_partition_reassignments::ListPartitionReassignmentsRequest::default().into()
        }
        ApiKey::DescribeQuorum => describe_quorum::DescribeQuorumRequest::default().into(),
        ApiKey::DescribeCluster => describe_cluster::DescribeClusterRequest::default().into(),
        ApiKey::DescribeProducers => describe_producers::DescribeProducersRequest::default().into(),
        ApiKey::ListConfigResources => {
            list_config_resources::ListConfigResourcesRequest::default().into()
        }
        ApiKey::DescribeTopicPartitions => {
            describe_topic_partitions::DescribeTopicPartitionsRequest::default().into()
        }
        other => group_request(other, version),
    }
}

/// The same for the APIs of groups.
fn group_request(api: ApiKey, version: i16) -> Request {
    let group_id = || "g".into();
    match api {
        ApiKey::JoinGroup => join_group::JoinGroupRequest {
            group_id: group_id(),
            session_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![join_group::JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: bytes::Bytes::new(),
            }],
            ..Default::default()
        }
        .into(),
        ApiKey::SyncGroup => {
            sync_group::SyncGroupRequest { group_id: group_id(), ..Default::default() }.into()
        }
        ApiKey::Heartbeat => {
            heartbeat::HeartbeatRequest { group_id: group_id(), ..Default::default() }.into()
        }
        ApiKey::LeaveGroup => {
            leave_group::LeaveGroupRequest { group_id: group_id(), ..Default::default() }.into()
        }
        ApiKey::OffsetCommit => offset_commit::OffsetCommitRequest {
            group_id: group_id(),
            topics: vec![offset_commit::OffsetCommitRequestTopic {
                name: "t".into(),
                partitions: vec![Default::default()],
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        ApiKey::OffsetFetch if version >= 8 => offset_fetch::OffsetFetchRequest {
            groups: vec![offset_fetch::OffsetFetchRequestGroup {
                group_id: group_id(),
                topics: None,
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        ApiKey::OffsetFetch => {
            offset_fetch::OffsetFetchRequest { group_id: group_id(), ..Default::default() }.into()
        }
        ApiKey::OffsetDelete => {
            offset_delete::OffsetDeleteRequest { group_id: group_id(), ..Default::default() }.into()
        }
        ApiKey::DescribeGroups => describe_groups::DescribeGroupsRequest {
            groups: vec![group_id()],
            ..Default::default()
        }
        .into(),
        ApiKey::ListGroups => list_groups::ListGroupsRequest::default().into(),
        ApiKey::DeleteGroups => {
            delete_groups::DeleteGroupsRequest { groups_names: vec![group_id()] }.into()
        }
        ApiKey::ConsumerGroupHeartbeat => consumer_group_heartbeat::ConsumerGroupHeartbeatRequest {
            group_id: "c".into(),
            member_id: "m".into(),
            rebalance_timeout_ms: 10_000,
            subscribed_topic_names: Some(vec!["t".into()]),
            topic_partitions: Some(Vec::new()),
            ..Default::default()
        }
        .into(),
        ApiKey::ConsumerGroupDescribe => consumer_group_describe::ConsumerGroupDescribeRequest {
            group_ids: vec!["c".into()],
            ..Default::default()
        }
        .into(),
        other => panic!("{other} is served: give it a request here"),
    }
}

#[test]
fn every_api_answers_at_every_version() {
    let world = World::in_memory();
    world.client().create_topic("t", 1, &[]);
    for entry in api::KNOWN.iter().filter(|entry| entry.api.is_served()) {
        for api_version in entry.versions.min..=entry.versions.max {
            let mut socket = world.socket();
            let header = RequestHeader {
                api_key: entry.api.to_i16(),
                api_version,
                correlation_id: 7,
                client_id: None,
            };
            let request = request(entry.api, api_version);
            let bytes = frame::encode_request(&header, &request)
                .unwrap_or_else(|error| panic!("{} v{api_version}: {error}", entry.api))
                .concat();
            socket.write_all(&bytes).unwrap();
            let answer = read_frame(&mut socket)
                .unwrap_or_else(|| panic!("{} v{api_version} is not answered", entry.api));
            let (header, response) = frame::decode_response(entry.api, api_version, answer)
                .unwrap_or_else(|error| panic!("{} v{api_version}: {error}", entry.api));
            assert_eq!((header.correlation_id, response.api()), (7, entry.api));
        }
    }
}
