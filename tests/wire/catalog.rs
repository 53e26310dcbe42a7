//! Every message and every record, as values that a test can go through.

use bytes::Bytes;
use kafka_protocol::messages as peer;
use kafka_protocol::protocol::{Decodable, Encodable, Message as _};
use ottla::error::Result;
use ottla::protocol::messages as ours;
use ottla::protocol::records as kept;
use ottla::protocol::schema::{Message, Schema, Versions};
use ottla::protocol::{ApiKey, Decoder, Encoder};

/// One request or response body, or one structure that is kept in opaque bytes.
pub struct Case {
    /// The API of a body.
    pub api: Option<ApiKey>,
    /// The number of the API or the type of the record, where it has one.
    pub number: Option<i16>,
    pub schema: Schema,
    /// Decodes, and returns how many bytes were left.
    pub decode: fn(Bytes, i16) -> Result<usize>,
    /// Decodes, encodes, decodes again and compares; returns the encoded bytes.
    pub round_trip: fn(Bytes, i16) -> Result<Bytes>,
    /// The versions that the peer implementation knows.
    pub peer_versions: Versions,
    /// Decodes and encodes by the peer implementation.
    pub peer_round_trip: fn(Bytes, i16) -> Result<Bytes, String>,
}

impl Case {
    pub fn name(&self) -> &'static str {
        self.schema.structure.name
    }

    pub fn versions(&self) -> std::ops::RangeInclusive<i16> {
        self.schema.versions.min..=self.schema.versions.max
    }
}

fn decode<M: Message>(bytes: Bytes, version: i16) -> Result<usize> {
    let mut decoder = Decoder::new(bytes);
    M::decode(&mut decoder, version)?;
    Ok(decoder.remaining())
}

fn round_trip<M: Message>(bytes: Bytes, version: i16) -> Result<Bytes> {
    let message = M::decode(&mut Decoder::new(bytes), version)?;
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version)?;
    let length = encoder.len();
    let pieces = encoder.finish();
    let bytes = Bytes::from(pieces.concat());
    assert_eq!(bytes.len(), length);
    let again = M::decode(&mut Decoder::new(bytes.clone()), version)?;
    assert_eq!(message, again);
    Ok(bytes)
}

fn peer_round_trip<M: Decodable + Encodable>(
    mut bytes: Bytes,
    version: i16,
) -> Result<Bytes, String> {
    let message = M::decode(&mut bytes, version).map_err(|error| format!("{error:#}"))?;
    if !bytes.is_empty() {
        return Err(format!("{} bytes left", bytes.len()));
    }
    let mut encoded = bytes::BytesMut::new();
    message.encode(&mut encoded, version).map_err(|error| format!("{error:#}"))?;
    Ok(encoded.freeze())
}

macro_rules! cases {
    ($($api:ident: $module:ident::{$($message:ident),*};)*) => {
        fn messages() -> Vec<Case> {
            vec![$($(Case {
                api: Some(ApiKey::$api),
                number: Some(ApiKey::$api.to_i16()),
                schema: <ours::$module::$message as Message>::SCHEMA,
                decode: decode::<ours::$module::$message>,
                round_trip: round_trip::<ours::$module::$message>,
                peer_versions: Versions::between(
                    peer::$message::VERSIONS.min,
                    peer::$message::VERSIONS.max,
                ),
                peer_round_trip: peer_round_trip::<peer::$message>,
            },)*)*]
        }
    };
}

macro_rules! records {
    ($($module:ident::$record:ident $($number:literal)?;)*) => {
        fn records() -> Vec<Case> {
            vec![$(Case {
                api: None,
                number: [$($number)?].first().copied(),
                schema: <kept::$module::$record as Message>::SCHEMA,
                decode: decode::<kept::$module::$record>,
                round_trip: round_trip::<kept::$module::$record>,
                peer_versions: Versions::NONE,
                peer_round_trip: |_, _| Err("no other implementation".to_owned()),
            },)*]
        }
    };
}

records! {
    transaction_log::TransactionLogKey 0;
    transaction_log::TransactionLogValue 0;
    consumer_protocol::ConsumerProtocolSubscription;
    consumer_protocol::ConsumerProtocolAssignment;
    offset_commit::OffsetCommitKey 1;
    offset_commit::OffsetCommitValue 1;
    group_metadata::GroupMetadataKey 2;
    group_metadata::GroupMetadataValue 2;
    consumer_group::ConsumerGroupMetadataKey 3;
    consumer_group::ConsumerGroupMetadataValue 3;
    consumer_group::ConsumerGroupPartitionMetadataKey 4;
    consumer_group::ConsumerGroupPartitionMetadataValue 4;
    consumer_group::ConsumerGroupMemberMetadataKey 5;
    consumer_group::ConsumerGroupMemberMetadataValue 5;
    consumer_assignment::ConsumerGroupTargetAssignmentMetadataKey 6;
    consumer_assignment::ConsumerGroupTargetAssignmentMetadataValue 6;
    consumer_assignment::ConsumerGroupTargetAssignmentMemberKey 7;
    consumer_assignment::ConsumerGroupTargetAssignmentMemberValue 7;
    consumer_assignment::ConsumerGroupCurrentMemberAssignmentKey 8;
    consumer_assignment::ConsumerGroupCurrentMemberAssignmentValue 8;
    consumer_group::ConsumerGroupRegularExpressionKey 16;
    consumer_group::ConsumerGroupRegularExpressionValue 16;
}

/// All of them.
pub fn all() -> Vec<Case> {
    let mut all = messages();
    all.extend(records());
    all
}

cases! {
    Produce: produce::{ProduceRequest, ProduceResponse};
    Fetch: fetch::{FetchRequest, FetchResponse};
    ListOffsets: list_offsets::{ListOffsetsRequest, ListOffsetsResponse};
    Metadata: metadata::{MetadataRequest, MetadataResponse};
    FindCoordinator: find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
    ApiVersions: api_versions::{ApiVersionsRequest, ApiVersionsResponse};
    CreateTopics: create_topics::{CreateTopicsRequest, CreateTopicsResponse};
    DeleteTopics: delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
    DeleteRecords: delete_records::{DeleteRecordsRequest, DeleteRecordsResponse};
    InitProducerId: init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
    OffsetForLeaderEpoch: offset_for_leader_epoch::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
    AddPartitionsToTxn: add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
    AddOffsetsToTxn: add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
    EndTxn: end_txn::{EndTxnRequest, EndTxnResponse};
    WriteTxnMarkers: write_txn_markers::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
    TxnOffsetCommit: txn_offset_commit::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
    DescribeTransactions: describe_transactions::{DescribeTransactionsRequest, DescribeTransactionsResponse};
    ListTransactions: list_transactions::{ListTransactionsRequest, ListTransactionsResponse};
    DescribeAcls: describe_acls::{DescribeAclsRequest, DescribeAclsResponse};
    CreateAcls: create_acls::{CreateAclsRequest, CreateAclsResponse};
    DeleteAcls: delete_acls::{DeleteAclsRequest, DeleteAclsResponse};
    DescribeConfigs: describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse};
    AlterConfigs: alter_configs::{AlterConfigsRequest, AlterConfigsResponse};
    DescribeLogDirs: describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
    CreatePartitions: create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse};
    IncrementalAlterConfigs: incremental_alter_configs::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
    ListPartitionReassignments: list_partition_reassignments::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};
    ElectLeaders: elect_leaders::{ElectLeadersRequest, ElectLeadersResponse};
    AlterPartitionReassignments: alter_partition_reassignments::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
    AlterReplicaLogDirs: alter_replica_log_dirs::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
    UpdateFeatures: update_features::{UpdateFeaturesRequest, UpdateFeaturesResponse};
    UnregisterBroker: unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse};
    DescribeQuorum: describe_quorum::{DescribeQuorumRequest, DescribeQuorumResponse};
    AlterPartition: alter_partition::{AlterPartitionRequest, AlterPartitionResponse};
    BrokerRegistration: broker_registration::{BrokerRegistrationRequest, BrokerRegistrationResponse};
    BrokerHeartbeat: broker_heartbeat::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};
    AllocateProducerIds: allocate_producer_ids::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};
    DescribeCluster: describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
    DescribeProducers: describe_producers::{DescribeProducersRequest, DescribeProducersResponse};
    ListConfigResources: list_config_resources::{ListConfigResourcesRequest, ListConfigResourcesResponse};
    DescribeTopicPartitions: describe_topic_partitions::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
    JoinGroup: join_group::{JoinGroupRequest, JoinGroupResponse};
    SyncGroup: sync_group::{SyncGroupRequest, SyncGroupResponse};
    Heartbeat: heartbeat::{HeartbeatRequest, HeartbeatResponse};
    LeaveGroup: leave_group::{LeaveGroupRequest, LeaveGroupResponse};
    OffsetCommit: offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
    OffsetFetch: offset_fetch::{OffsetFetchRequest, OffsetFetchResponse};
    OffsetDelete: offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
    DescribeGroups: describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
    ListGroups: list_groups::{ListGroupsRequest, ListGroupsResponse};
    DeleteGroups: delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
    ConsumerGroupHeartbeat: consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
    ConsumerGroupDescribe: consumer_group_describe::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
    Vote: vote::{VoteRequest, VoteResponse};
    BeginQuorumEpoch: begin_quorum_epoch::{BeginQuorumEpochRequest, BeginQuorumEpochResponse};
    EndQuorumEpoch: end_quorum_epoch::{EndQuorumEpochRequest, EndQuorumEpochResponse};
    FetchSnapshot: fetch_snapshot::{FetchSnapshotRequest, FetchSnapshotResponse};
    AddRaftVoter: add_raft_voter::{AddRaftVoterRequest, AddRaftVoterResponse};
    RemoveRaftVoter: remove_raft_voter::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};
    UpdateRaftVoter: update_raft_voter::{UpdateRaftVoterRequest, UpdateRaftVoterResponse};
    Envelope: envelope::{EnvelopeRequest, EnvelopeResponse};
}

#[test]
fn every_known_api_is_in_the_catalog() {
    let mut catalogued: Vec<_> = all().iter().filter_map(|case| case.api).collect();
    catalogued.sort();
    let known: Vec<_> = ottla::protocol::api::KNOWN.iter().map(|entry| entry.api).collect();
    let twice: Vec<_> = known.iter().flat_map(|&api| [api, api]).collect();
    assert_eq!(catalogued, twice);
}
