//! The answer to a request that failed as a whole, in the form of its API.
//!
//! Most responses have no top-level error, only one for each item requested; then every item gets it,
//! as in `getErrorResponse` of Kafka's clients.

use crate::error::Error;
use crate::protocol::messages::{
    add_offsets_to_txn::AddOffsetsToTxnResponse, add_raft_voter::AddRaftVoterResponse,
    alter_configs::AlterConfigsResponse,
    alter_partition_reassignments::AlterPartitionReassignmentsResponse,
    alter_replica_log_dirs::AlterReplicaLogDirsResponse, api_versions::ApiVersionsResponse,
    begin_quorum_epoch::BeginQuorumEpochResponse, create_acls::CreateAclsResponse,
    create_partitions::CreatePartitionsResponse, create_topics::CreateTopicsResponse,
    delete_acls::DeleteAclsResponse, delete_records::DeleteRecordsResponse,
    delete_topics::DeleteTopicsResponse, describe_acls::DescribeAclsResponse,
    describe_cluster::DescribeClusterResponse, describe_configs::DescribeConfigsResponse,
    describe_log_dirs::DescribeLogDirsResponse, describe_producers::DescribeProducersResponse,
    describe_quorum::DescribeQuorumResponse,
    describe_topic_partitions::DescribeTopicPartitionsResponse,
    elect_leaders::ElectLeadersResponse, end_quorum_epoch::EndQuorumEpochResponse,
    end_txn::EndTxnResponse, envelope::EnvelopeResponse, fetch::FetchResponse,
    fetch_snapshot::FetchSnapshotResponse, find_coordinator::FindCoordinatorResponse,
    heartbeat::HeartbeatResponse, incremental_alter_configs::IncrementalAlterConfigsResponse,
    init_producer_id::InitProducerIdResponse, leave_group::LeaveGroupResponse,
    list_config_resources::ListConfigResourcesResponse, list_groups::ListGroupsResponse,
    list_offsets::ListOffsetsResponse,
    list_partition_reassignments::ListPartitionReassignmentsResponse,
    list_transactions::ListTransactionsResponse, metadata::MetadataResponse,
    offset_delete::OffsetDeleteResponse, offset_for_leader_epoch::OffsetForLeaderEpochResponse,
    produce::ProduceResponse, remove_raft_voter::RemoveRaftVoterResponse,
    sync_group::SyncGroupResponse, unregister_broker::UnregisterBrokerResponse,
    update_features::UpdateFeaturesResponse, update_raft_voter::UpdateRaftVoterResponse,
    vote::VoteResponse,
};
use crate::protocol::messages::{
    allocate_producer_ids::AllocateProducerIdsResponse, alter_partition::AlterPartitionResponse,
    broker_heartbeat::BrokerHeartbeatResponse, broker_registration::BrokerRegistrationResponse,
    own::Outcome,
};
use crate::protocol::messages::{
    alter_configs, alter_partition_reassignments, alter_replica_log_dirs, create_acls,
    create_partitions, create_topics, delete_acls, delete_records, delete_topics, describe_configs,
    describe_producers, describe_topic_partitions, elect_leaders, find_coordinator,
    incremental_alter_configs, list_offsets, metadata, offset_for_leader_epoch, produce,
};
use crate::protocol::{Request, Response, Str};

/// The part of a response that is ottla's own.
fn own(message: Option<Str>) -> Outcome {
    Outcome { message, ..Outcome::default() }
}

/// The answer to `request` that reports `error`.
#[allow(clippy::too_many_lines, reason = "one arm for each API")]
pub(in crate::broker) fn response(request: &Request, version: i16, error: &Error) -> Response {
    let failure = Failure { code: error.code().to_i16(), text: Str::from(error.chain()), version };
    let message = Some(failure.text.clone());
    let error_code = failure.code;
    match request {
        Request::ApiVersions(_) => ApiVersionsResponse { error_code, ..Default::default() }.into(),
        Request::Fetch(_) => FetchResponse { error_code, ..Default::default() }.into(),
        Request::InitProducerId(_) => {
            InitProducerIdResponse { error_code, producer_epoch: -1, ..Default::default() }.into()
        }
        Request::ListConfigResources(_) => {
            ListConfigResourcesResponse { error_code, ..Default::default() }.into()
        }
        Request::DescribeCluster(_) => {
            DescribeClusterResponse { error_code, error_message: message, ..Default::default() }
                .into()
        }
        Request::DescribeLogDirs(_) => {
            DescribeLogDirsResponse { error_code, ..Default::default() }.into()
        }
        Request::ListPartitionReassignments(_) => ListPartitionReassignmentsResponse {
            error_code,
            error_message: message,
            ..Default::default()
        }
        .into(),
        Request::DescribeQuorum(_) => {
            DescribeQuorumResponse { error_code, error_message: message, ..Default::default() }
                .into()
        }
        Request::Vote(_) => VoteResponse { error_code, ..Default::default() }.into(),
        Request::BeginQuorumEpoch(_) => {
            BeginQuorumEpochResponse { error_code, ..Default::default() }.into()
        }
        Request::EndQuorumEpoch(_) => {
            EndQuorumEpochResponse { error_code, ..Default::default() }.into()
        }
        Request::FetchSnapshot(_) => {
            FetchSnapshotResponse { error_code, ..Default::default() }.into()
        }
        Request::AddRaftVoter(_) => {
            AddRaftVoterResponse { error_code, error_message: message, ..Default::default() }.into()
        }
        Request::RemoveRaftVoter(_) => {
            RemoveRaftVoterResponse { error_code, error_message: message, ..Default::default() }
                .into()
        }
        Request::UpdateRaftVoter(_) => {
            UpdateRaftVoterResponse { error_code, ..Default::default() }.into()
        }
        Request::Envelope(_) => EnvelopeResponse { error_code, ..Default::default() }.into(),
        Request::AlterPartition(_) => {
            AlterPartitionResponse { error_code, ottla: own(message), ..Default::default() }.into()
        }
        Request::BrokerRegistration(_) => {
            BrokerRegistrationResponse { error_code, ottla: own(message), ..Default::default() }
                .into()
        }
        Request::BrokerHeartbeat(_) => {
            BrokerHeartbeatResponse { error_code, ottla: own(message), ..Default::default() }.into()
        }
        Request::AllocateProducerIds(_) => {
            AllocateProducerIdsResponse { error_code, ottla: own(message), ..Default::default() }
                .into()
        }
        Request::DescribeAcls(_) => {
            DescribeAclsResponse { error_code, error_message: message, ..Default::default() }.into()
        }
        Request::Metadata(body) => failure.metadata(body).into(),
        Request::FindCoordinator(body) => failure.find_coordinator(body).into(),
        Request::Produce(body) => failure.produce(body).into(),
        Request::ListOffsets(body) => failure.list_offsets(body).into(),
        Request::OffsetForLeaderEpoch(body) => failure.offset_for_leader_epoch(body).into(),
        Request::DeleteRecords(body) => failure.delete_records(body).into(),
        Request::DescribeProducers(body) => failure.describe_producers(body).into(),
        Request::DescribeTopicPartitions(body) => failure.describe_topic_partitions(body).into(),
        Request::CreateTopics(body) => failure.create_topics(body).into(),
        Request::DeleteTopics(body) => failure.delete_topics(body).into(),
        Request::CreatePartitions(body) => failure.create_partitions(body).into(),
        Request::DescribeConfigs(body) => failure.describe_configs(body).into(),
        Request::AlterConfigs(body) => failure.alter_configs(body).into(),
        Request::IncrementalAlterConfigs(body) => failure.incremental_alter_configs(body).into(),
        Request::CreateAcls(body) => failure.create_acls(body).into(),
        Request::DeleteAcls(body) => failure.delete_acls(body).into(),
        Request::UpdateFeatures(_) => {
            UpdateFeaturesResponse { error_code, error_message: message, ..Default::default() }
                .into()
        }
        Request::UnregisterBroker(_) => {
            UnregisterBrokerResponse { error_code, error_message: message, ..Default::default() }
                .into()
        }
        Request::ElectLeaders(body) => failure.elect_leaders(body).into(),
        Request::AlterPartitionReassignments(body) => {
            failure.alter_partition_reassignments(body).into()
        }
        Request::AlterReplicaLogDirs(body) => failure.alter_replica_log_dirs(body).into(),
        Request::JoinGroup(_) => failure.join_group().into(),
        Request::SyncGroup(_) => SyncGroupResponse { error_code, ..Default::default() }.into(),
        Request::Heartbeat(_) => HeartbeatResponse { error_code, ..Default::default() }.into(),
        Request::LeaveGroup(_) => LeaveGroupResponse { error_code, ..Default::default() }.into(),
        Request::OffsetDelete(_) => {
            OffsetDeleteResponse { error_code, ..Default::default() }.into()
        }
        Request::ListGroups(_) => ListGroupsResponse { error_code, ..Default::default() }.into(),
        Request::ConsumerGroupHeartbeat(_) => failure.consumer_group_heartbeat().into(),
        Request::OffsetCommit(body) => failure.offset_commit(body).into(),
        Request::OffsetFetch(body) => failure.offset_fetch(body).into(),
        Request::DescribeGroups(body) => failure.describe_groups(body).into(),
        Request::DeleteGroups(body) => failure.delete_groups(body).into(),
        Request::ConsumerGroupDescribe(body) => failure.consumer_group_describe(body).into(),
        Request::AddPartitionsToTxn(body) => failure.add_partitions_to_txn(body).into(),
        Request::AddOffsetsToTxn(_) => {
            AddOffsetsToTxnResponse { error_code, ..Default::default() }.into()
        }
        Request::EndTxn(_) => EndTxnResponse { error_code, ..Default::default() }.into(),
        Request::TxnOffsetCommit(body) => failure.txn_offset_commit(body).into(),
        Request::WriteTxnMarkers(body) => failure.write_txn_markers(body).into(),
        Request::DescribeTransactions(body) => failure.describe_transactions(body).into(),
        Request::ListTransactions(_) => {
            ListTransactionsResponse { error_code, ..Default::default() }.into()
        }
    }
}

/// What the answer to `request` may need of it later: all but the records, whose memory is not to wait
/// for an answer.
pub(in crate::broker) fn without_records(mut request: Request) -> Request {
    if let Request::Produce(body) = &mut request {
        for partition in body.topic_data.iter_mut().flat_map(|topic| &mut topic.partition_data) {
            partition.records = None;
        }
    }
    request
}

/// What failed, as the answers need it. Those for groups are in `group_errors`.
pub(super) struct Failure {
    pub(super) code: i16,
    pub(super) text: Str,
    pub(super) version: i16,
}

impl Failure {
    fn metadata(&self, request: &metadata::MetadataRequest) -> MetadataResponse {
        let topic = |topic: &metadata::MetadataRequestTopic| metadata::MetadataResponseTopic {
            error_code: self.code,
            // Before version 12 a topic has a name.
            name: topic.name.clone().or_else(|| (self.version < 12).then_some(Str::EMPTY)),
            topic_id: topic.topic_id,
            ..Default::default()
        };
        MetadataResponse {
            topics: request.topics.iter().flatten().map(topic).collect(),
            error_code: self.code,
            ..Default::default()
        }
    }

    fn find_coordinator(
        &self,
        request: &find_coordinator::FindCoordinatorRequest,
    ) -> FindCoordinatorResponse {
        let coordinator = |key: &Str| find_coordinator::Coordinator {
            key: key.clone(),
            node_id: -1,
            port: -1,
            error_code: self.code,
            error_message: Some(self.text.clone()),
            ..Default::default()
        };
        if self.version >= 4 {
            let coordinators = request.coordinator_keys.iter().map(coordinator).collect();
            return FindCoordinatorResponse { coordinators, ..Default::default() };
        }
        FindCoordinatorResponse {
            error_code: self.code,
            error_message: Some(self.text.clone()),
            node_id: -1,
            port: -1,
            ..Default::default()
        }
    }

    fn produce(&self, request: &produce::ProduceRequest) -> ProduceResponse {
        let partition = |data: &produce::PartitionProduceData| produce::PartitionProduceResponse {
            index: data.index,
            error_code: self.code,
            base_offset: -1,
            error_message: Some(self.text.clone()),
            ..Default::default()
        };
        let topic = |topic: &produce::TopicProduceData| produce::TopicProduceResponse {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partition_responses: topic.partition_data.iter().map(partition).collect(),
        };
        ProduceResponse {
            responses: request.topic_data.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn list_offsets(&self, request: &list_offsets::ListOffsetsRequest) -> ListOffsetsResponse {
        let partition = |partition: &list_offsets::ListOffsetsPartition| {
            list_offsets::ListOffsetsPartitionResponse {
                partition_index: partition.partition_index,
                error_code: self.code,
                ..Default::default()
            }
        };
        let topic =
            |topic: &list_offsets::ListOffsetsTopic| list_offsets::ListOffsetsTopicResponse {
                name: topic.name.clone(),
                partitions: topic.partitions.iter().map(partition).collect(),
            };
        ListOffsetsResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn offset_for_leader_epoch(
        &self,
        request: &offset_for_leader_epoch::OffsetForLeaderEpochRequest,
    ) -> OffsetForLeaderEpochResponse {
        use offset_for_leader_epoch as m;
        let partition = |partition: &m::OffsetForLeaderPartition| m::EpochEndOffset {
            partition: partition.partition,
            error_code: self.code,
            ..Default::default()
        };
        let topic = |topic: &m::OffsetForLeaderTopic| m::OffsetForLeaderTopicResult {
            topic: topic.topic.clone(),
            partitions: topic.partitions.iter().map(partition).collect(),
        };
        OffsetForLeaderEpochResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn delete_records(
        &self,
        request: &delete_records::DeleteRecordsRequest,
    ) -> DeleteRecordsResponse {
        use delete_records as m;
        let partition = |partition: &m::DeleteRecordsPartition| m::DeleteRecordsPartitionResult {
            partition_index: partition.partition_index,
            low_watermark: -1,
            error_code: self.code,
        };
        let topic = |topic: &m::DeleteRecordsTopic| m::DeleteRecordsTopicResult {
            name: topic.name.clone(),
            partitions: topic.partitions.iter().map(partition).collect(),
        };
        DeleteRecordsResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn elect_leaders(&self, request: &elect_leaders::ElectLeadersRequest) -> ElectLeadersResponse {
        use elect_leaders as m;
        let partition = |&partition_id: &i32| m::PartitionResult {
            partition_id,
            error_code: self.code,
            error_message: Some(self.text.clone()),
        };
        let topic = |topic: &m::TopicPartitions| m::ReplicaElectionResult {
            topic: topic.topic.clone(),
            partition_result: topic.partitions.iter().map(partition).collect(),
        };
        ElectLeadersResponse {
            // Version 0 has no place for it.
            error_code: if self.version >= 1 { self.code } else { 0 },
            replica_election_results: request
                .topic_partitions
                .iter()
                .flatten()
                .map(topic)
                .collect(),
            ..Default::default()
        }
    }

    fn alter_partition_reassignments(
        &self,
        request: &alter_partition_reassignments::AlterPartitionReassignmentsRequest,
    ) -> AlterPartitionReassignmentsResponse {
        use alter_partition_reassignments as m;
        let partition = |partition: &m::ReassignablePartition| m::ReassignablePartitionResponse {
            partition_index: partition.partition_index,
            error_code: self.code,
            error_message: Some(self.text.clone()),
        };
        let topic = |topic: &m::ReassignableTopic| m::ReassignableTopicResponse {
            name: topic.name.clone(),
            partitions: topic.partitions.iter().map(partition).collect(),
        };
        AlterPartitionReassignmentsResponse {
            error_code: self.code,
            error_message: Some(self.text.clone()),
            responses: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn alter_replica_log_dirs(
        &self,
        request: &alter_replica_log_dirs::AlterReplicaLogDirsRequest,
    ) -> AlterReplicaLogDirsResponse {
        use alter_replica_log_dirs as m;
        let partition = |&partition_index: &i32| m::AlterReplicaLogDirPartitionResult {
            partition_index,
            error_code: self.code,
        };
        let topic = |topic: &m::AlterReplicaLogDirTopic| m::AlterReplicaLogDirTopicResult {
            topic_name: topic.name.clone(),
            partitions: topic.partitions.iter().map(partition).collect(),
        };
        let topics = request.dirs.iter().flat_map(|dir| &dir.topics);
        AlterReplicaLogDirsResponse { results: topics.map(topic).collect(), ..Default::default() }
    }

    fn describe_producers(
        &self,
        request: &describe_producers::DescribeProducersRequest,
    ) -> DescribeProducersResponse {
        use describe_producers as m;
        let partition = |&partition_index: &i32| m::PartitionResponse {
            partition_index,
            error_code: self.code,
            error_message: Some(self.text.clone()),
            ..Default::default()
        };
        let topic = |topic: &m::TopicRequest| m::TopicResponse {
            name: topic.name.clone(),
            partitions: topic.partition_indexes.iter().map(partition).collect(),
        };
        DescribeProducersResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn describe_topic_partitions(
        &self,
        request: &describe_topic_partitions::DescribeTopicPartitionsRequest,
    ) -> DescribeTopicPartitionsResponse {
        use describe_topic_partitions as m;
        let topic = |topic: &m::TopicRequest| m::DescribeTopicPartitionsResponseTopic {
            error_code: self.code,
            name: Some(topic.name.clone()),
            ..Default::default()
        };
        DescribeTopicPartitionsResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn create_topics(&self, request: &create_topics::CreateTopicsRequest) -> CreateTopicsResponse {
        let topic = |topic: &create_topics::CreatableTopic| create_topics::CreatableTopicResult {
            name: topic.name.clone(),
            error_code: self.code,
            error_message: Some(self.text.clone()),
            ..Default::default()
        };
        CreateTopicsResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn delete_topics(&self, request: &delete_topics::DeleteTopicsRequest) -> DeleteTopicsResponse {
        let result = |name: Option<Str>, topic_id| delete_topics::DeletableTopicResult {
            name,
            topic_id,
            error_code: self.code,
            error_message: Some(self.text.clone()),
        };
        let named = request
            .topic_names
            .iter()
            .map(|name| result(Some(name.clone()), crate::types::Uuid::ZERO));
        let states = request.topics.iter().map(|topic| result(topic.name.clone(), topic.topic_id));
        DeleteTopicsResponse { responses: named.chain(states).collect(), ..Default::default() }
    }

    fn create_partitions(
        &self,
        request: &create_partitions::CreatePartitionsRequest,
    ) -> CreatePartitionsResponse {
        use create_partitions as m;
        let topic = |topic: &m::CreatePartitionsTopic| m::CreatePartitionsTopicResult {
            name: topic.name.clone(),
            error_code: self.code,
            error_message: Some(self.text.clone()),
        };
        CreatePartitionsResponse {
            results: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn describe_configs(
        &self,
        request: &describe_configs::DescribeConfigsRequest,
    ) -> DescribeConfigsResponse {
        use describe_configs as m;
        let resource = |resource: &m::DescribeConfigsResource| m::DescribeConfigsResult {
            error_code: self.code,
            error_message: Some(self.text.clone()),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        };
        DescribeConfigsResponse {
            results: request.resources.iter().map(resource).collect(),
            ..Default::default()
        }
    }

    fn alter_configs(&self, request: &alter_configs::AlterConfigsRequest) -> AlterConfigsResponse {
        use alter_configs as m;
        let resource = |resource: &m::AlterConfigsResource| m::AlterConfigsResourceResponse {
            error_code: self.code,
            error_message: Some(self.text.clone()),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        };
        AlterConfigsResponse {
            responses: request.resources.iter().map(resource).collect(),
            ..Default::default()
        }
    }

    fn incremental_alter_configs(
        &self,
        request: &incremental_alter_configs::IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        use incremental_alter_configs as m;
        let resource = |resource: &m::AlterConfigsResource| m::AlterConfigsResourceResponse {
            error_code: self.code,
            error_message: Some(self.text.clone()),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        };
        IncrementalAlterConfigsResponse {
            responses: request.resources.iter().map(resource).collect(),
            ..Default::default()
        }
    }

    fn create_acls(&self, request: &create_acls::CreateAclsRequest) -> CreateAclsResponse {
        let result = |_: &create_acls::AclCreation| create_acls::AclCreationResult {
            error_code: self.code,
            error_message: Some(self.text.clone()),
        };
        CreateAclsResponse {
            results: request.creations.iter().map(result).collect(),
            ..Default::default()
        }
    }

    fn delete_acls(&self, request: &delete_acls::DeleteAclsRequest) -> DeleteAclsResponse {
        let result = |_: &delete_acls::DeleteAclsFilter| delete_acls::DeleteAclsFilterResult {
            error_code: self.code,
            error_message: Some(self.text.clone()),
            ..Default::default()
        };
        DeleteAclsResponse {
            filter_results: request.filters.iter().map(result).collect(),
            ..Default::default()
        }
    }
}
