//! The table of APIs: Kafka's numbers and names, and what is served at which versions.
//!
//! This is the only place that says what is served; routing, ApiVersions and negotiation follow
//! from it. A version is in the table only once it is complete. An API that is `advertised [none]`
//! is known to our client and refused by our broker.
//!
//! Two lines differ from what the message tables describe:
//! - Produce is advertised from version 0, though 0 to 2 are refused, because librdkafka before
//!   2.8 otherwise believes that it must not compress (KAFKA-18659).
//! - InitProducerId ends before its last version, which Kafka 4.4 marks as not stable.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use crate::error::{Error, ErrorCode, Result};
use crate::protocol::messages::api_versions::{ApiVersion, ApiVersionsResponse};
use crate::protocol::messages::{
    add_offsets_to_txn, add_partitions_to_txn, add_raft_voter, allocate_producer_ids,
    alter_configs, alter_partition, alter_partition_reassignments, alter_replica_log_dirs,
    api_versions, begin_quorum_epoch, broker_heartbeat, broker_registration,
    consumer_group_describe, consumer_group_heartbeat, create_acls, create_partitions,
    create_topics, delete_acls, delete_groups, delete_records, delete_topics, describe_acls,
    describe_cluster, describe_configs, describe_groups, describe_log_dirs, describe_producers,
    describe_quorum, describe_topic_partitions, describe_transactions, elect_leaders,
    end_quorum_epoch, end_txn, envelope, fetch, fetch_snapshot, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_config_resources,
    list_groups, list_offsets, list_partition_reassignments, list_transactions, metadata,
    offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch, produce,
    remove_raft_voter, sync_group, txn_offset_commit, unregister_broker, update_features,
    update_raft_voter, vote, write_txn_markers,
};
use crate::protocol::primitives::{Decoder, Encoder};
use crate::protocol::schema::{Message, Schema, Versions};

/// Declares all of Kafka's APIs.
macro_rules! api_keys {
    ($($name:ident = $number:literal, $kafka:literal;)*) => {
        /// An API of Kafka, served or not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $(#[doc = concat!("Kafka's `", $kafka, "`.")] $name = $number,)*
        }

        impl ApiKey {
            /// Every API, by number.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The API with this number.
            pub const fn from_i16(number: i16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Kafka's name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $kafka,)*
                }
            }
        }
    };
}

api_keys! {
    Produce = 0, "PRODUCE";
    Fetch = 1, "FETCH";
    ListOffsets = 2, "LIST_OFFSETS";
    Metadata = 3, "METADATA";
    LeaderAndIsr = 4, "LEADER_AND_ISR";
    StopReplica = 5, "STOP_REPLICA";
    UpdateMetadata = 6, "UPDATE_METADATA";
    ControlledShutdown = 7, "CONTROLLED_SHUTDOWN";
    OffsetCommit = 8, "OFFSET_COMMIT";
    OffsetFetch = 9, "OFFSET_FETCH";
    FindCoordinator = 10, "FIND_COORDINATOR";
    JoinGroup = 11, "JOIN_GROUP";
    Heartbeat = 12, "HEARTBEAT";
    LeaveGroup = 13, "LEAVE_GROUP";
    SyncGroup = 14, "SYNC_GROUP";
    DescribeGroups = 15, "DESCRIBE_GROUPS";
    ListGroups = 16, "LIST_GROUPS";
    SaslHandshake = 17, "SASL_HANDSHAKE";
    ApiVersions = 18, "API_VERSIONS";
    CreateTopics = 19, "CREATE_TOPICS";
    DeleteTopics = 20, "DELETE_TOPICS";
    DeleteRecords = 21, "DELETE_RECORDS";
    InitProducerId = 22, "INIT_PRODUCER_ID";
    OffsetForLeaderEpoch = 23, "OFFSET_FOR_LEADER_EPOCH";
    AddPartitionsToTxn = 24, "ADD_PARTITIONS_TO_TXN";
    AddOffsetsToTxn = 25, "ADD_OFFSETS_TO_TXN";
    EndTxn = 26, "END_TXN";
    WriteTxnMarkers = 27, "WRITE_TXN_MARKERS";
    TxnOffsetCommit = 28, "TXN_OFFSET_COMMIT";
    DescribeAcls = 29, "DESCRIBE_ACLS";
    CreateAcls = 30, "CREATE_ACLS";
    DeleteAcls = 31, "DELETE_ACLS";
    DescribeConfigs = 32, "DESCRIBE_CONFIGS";
    AlterConfigs = 33, "ALTER_CONFIGS";
    AlterReplicaLogDirs = 34, "ALTER_REPLICA_LOG_DIRS";
    DescribeLogDirs = 35, "DESCRIBE_LOG_DIRS";
    SaslAuthenticate = 36, "SASL_AUTHENTICATE";
    CreatePartitions = 37, "CREATE_PARTITIONS";
    CreateDelegationToken = 38, "CREATE_DELEGATION_TOKEN";
    RenewDelegationToken = 39, "RENEW_DELEGATION_TOKEN";
    ExpireDelegationToken = 40, "EXPIRE_DELEGATION_TOKEN";
    DescribeDelegationToken = 41, "DESCRIBE_DELEGATION_TOKEN";
    DeleteGroups = 42, "DELETE_GROUPS";
    ElectLeaders = 43, "ELECT_LEADERS";
    IncrementalAlterConfigs = 44, "INCREMENTAL_ALTER_CONFIGS";
    AlterPartitionReassignments = 45, "ALTER_PARTITION_REASSIGNMENTS";
    ListPartitionReassignments = 46, "LIST_PARTITION_REASSIGNMENTS";
    OffsetDelete = 47, "OFFSET_DELETE";
    DescribeClientQuotas = 48, "DESCRIBE_CLIENT_QUOTAS";
    AlterClientQuotas = 49, "ALTER_CLIENT_QUOTAS";
    DescribeUserScramCredentials = 50, "DESCRIBE_USER_SCRAM_CREDENTIALS";
    AlterUserScramCredentials = 51, "ALTER_USER_SCRAM_CREDENTIALS";
    Vote = 52, "VOTE";
    BeginQuorumEpoch = 53, "BEGIN_QUORUM_EPOCH";
    EndQuorumEpoch = 54, "END_QUORUM_EPOCH";
    DescribeQuorum = 55, "DESCRIBE_QUORUM";
    AlterPartition = 56, "ALTER_PARTITION";
    UpdateFeatures = 57, "UPDATE_FEATURES";
    Envelope = 58, "ENVELOPE";
    FetchSnapshot = 59, "FETCH_SNAPSHOT";
    DescribeCluster = 60, "DESCRIBE_CLUSTER";
    DescribeProducers = 61, "DESCRIBE_PRODUCERS";
    BrokerRegistration = 62, "BROKER_REGISTRATION";
    BrokerHeartbeat = 63, "BROKER_HEARTBEAT";
    UnregisterBroker = 64, "UNREGISTER_BROKER";
    DescribeTransactions = 65, "DESCRIBE_TRANSACTIONS";
    ListTransactions = 66, "LIST_TRANSACTIONS";
    AllocateProducerIds = 67, "ALLOCATE_PRODUCER_IDS";
    ConsumerGroupHeartbeat = 68, "CONSUMER_GROUP_HEARTBEAT";
    ConsumerGroupDescribe = 69, "CONSUMER_GROUP_DESCRIBE";
    ControllerRegistration = 70, "CONTROLLER_REGISTRATION";
    GetTelemetrySubscriptions = 71, "GET_TELEMETRY_SUBSCRIPTIONS";
    PushTelemetry = 72, "PUSH_TELEMETRY";
    AssignReplicasToDirs = 73, "ASSIGN_REPLICAS_TO_DIRS";
    ListConfigResources = 74, "LIST_CONFIG_RESOURCES";
    DescribeTopicPartitions = 75, "DESCRIBE_TOPIC_PARTITIONS";
    ShareGroupHeartbeat = 76, "SHARE_GROUP_HEARTBEAT";
    ShareGroupDescribe = 77, "SHARE_GROUP_DESCRIBE";
    ShareFetch = 78, "SHARE_FETCH";
    ShareAcknowledge = 79, "SHARE_ACKNOWLEDGE";
    AddRaftVoter = 80, "ADD_RAFT_VOTER";
    RemoveRaftVoter = 81, "REMOVE_RAFT_VOTER";
    UpdateRaftVoter = 82, "UPDATE_RAFT_VOTER";
    InitializeShareGroupState = 83, "INITIALIZE_SHARE_GROUP_STATE";
    ReadShareGroupState = 84, "READ_SHARE_GROUP_STATE";
    WriteShareGroupState = 85, "WRITE_SHARE_GROUP_STATE";
    DeleteShareGroupState = 86, "DELETE_SHARE_GROUP_STATE";
    ReadShareGroupStateSummary = 87, "READ_SHARE_GROUP_STATE_SUMMARY";
    StreamsGroupHeartbeat = 88, "STREAMS_GROUP_HEARTBEAT";
    StreamsGroupDescribe = 89, "STREAMS_GROUP_DESCRIBE";
    DescribeShareGroupOffsets = 90, "DESCRIBE_SHARE_GROUP_OFFSETS";
    AlterShareGroupOffsets = 91, "ALTER_SHARE_GROUP_OFFSETS";
    DeleteShareGroupOffsets = 92, "DELETE_SHARE_GROUP_OFFSETS";
    StreamsGroupTopologyDescriptionUpdate = 93, "STREAMS_GROUP_TOPOLOGY_DESCRIPTION_UPDATE";
    UnregisterController = 94, "UNREGISTER_CONTROLLER";
}

impl ApiKey {
    /// The number on the wire.
    pub const fn to_i16(self) -> i16 {
        self as i16
    }

    /// Whether requests of this API are answered.
    pub const fn is_served(self) -> bool {
        !self.advertised().is_empty()
    }

    /// Whether only nodes ask each other this.
    pub const fn is_between_nodes(self) -> bool {
        matches!(
            self,
            Self::Vote
                | Self::BeginQuorumEpoch
                | Self::EndQuorumEpoch
                | Self::AlterPartition
                | Self::Envelope
                | Self::FetchSnapshot
                | Self::BrokerRegistration
                | Self::BrokerHeartbeat
                | Self::AllocateProducerIds
                | Self::UpdateRaftVoter
        )
    }

    /// The versions that are known, and answered where the API is served.
    pub const fn versions(self) -> Versions {
        match self.entry() {
            Some(entry) => entry.versions,
            None => Versions::NONE,
        }
    }

    /// The versions that ApiVersions reports; see the module documentation for where they differ.
    pub const fn advertised(self) -> Versions {
        match self.entry() {
            Some(entry) => entry.advertised,
            None => Versions::NONE,
        }
    }

    /// Whether requests at `version` are answered.
    pub const fn supports(self, version: i16) -> bool {
        self.versions().contains(version)
    }

    /// Whether requests and responses at `version` have compact lengths and tagged fields. True
    /// for future versions, false for an API that is not served.
    pub const fn is_flexible(self, version: i16) -> bool {
        match self.entry() {
            Some(entry) => entry.request.flexible.contains(version),
            None => false,
        }
    }

    /// The version of the request header.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the response header; always 0 for ApiVersions (KIP-511).
    pub const fn response_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) && !matches!(self, Self::ApiVersions) { 1 } else { 0 }
    }

    /// The highest version that both we and a peer with this range know.
    pub fn negotiate(self, peer: Versions) -> Option<i16> {
        let common = self.versions().intersection(peer);
        (!common.is_empty()).then_some(common.max)
    }

    fn check(self, version: i16) -> Result<()> {
        if self.supports(version) {
            return Ok(());
        }
        Err(Error::unknown_version(self, version, self.versions()))
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One line of the table of served APIs.
#[derive(Debug)]
pub struct Entry {
    /// The API.
    pub api: ApiKey,
    /// The versions that are answered.
    pub versions: Versions,
    /// The versions that ApiVersions reports.
    pub advertised: Versions,
    /// The table of the request.
    pub request: Schema,
    /// The table of the response.
    pub response: Schema,
}

/// A request body that knows its API and its response type.
pub trait Call: Message + Into<Request> + Send + 'static {
    /// The API.
    const API: ApiKey;
    /// Its response type.
    type Response: Message + Into<Response> + Send + 'static;

    /// The body inside `response`; `None` when that is a response of another API.
    fn answer(response: Response) -> Option<Self::Response>;
}

/// The second range if there is one, else the first.
macro_rules! last_range {
    ([$($first:tt)*]) => {
        versions!($($first)*)
    };
    ([$($first:tt)*] [$($second:tt)*]) => {
        versions!($($second)*)
    };
}

/// Declares the served APIs and all that follows from the list.
macro_rules! served {
    ($(
        $name:ident: $module:ident::{$request:ident, $response:ident} [$($versions:tt)*]
        $(advertised [$($advertised:tt)*])?;
    )*) => {
        /// The body of a request.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $(#[doc = concat!("A request of [`ApiKey::", stringify!($name), "`].")]
            $name($module::$request),)*
        }

        /// The body of a response.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Response {
            $(#[doc = concat!("A response of [`ApiKey::", stringify!($name), "`].")]
            $name($module::$response),)*
        }

        /// The APIs that are known, by number; those that have advertised versions are served.
        pub const KNOWN: &[Entry] = &[$(Entry {
            api: ApiKey::$name,
            versions: versions!($($versions)*),
            advertised: last_range!([$($versions)*] $([$($advertised)*])?),
            request: <$module::$request as Message>::SCHEMA,
            response: <$module::$response as Message>::SCHEMA,
        }),*];

        impl ApiKey {
            /// The line of the table, when the API is served.
            pub const fn entry(self) -> Option<&'static Entry> {
                match self {
                    $(Self::$name => {
                        const ENTRY: &Entry = &Entry {
                            api: ApiKey::$name,
                            versions: versions!($($versions)*),
                            advertised: last_range!([$($versions)*] $([$($advertised)*])?),
                            request: <$module::$request as Message>::SCHEMA,
                            response: <$module::$response as Message>::SCHEMA,
                        };
                        Some(ENTRY)
                    })*
                    _ => None,
                }
            }
        }

        impl Request {
            /// The API.
            pub const fn api(&self) -> ApiKey {
                match self {
                    $(Self::$name(_) => ApiKey::$name,)*
                }
            }

            /// Reads the body of a request.
            ///
            /// # Errors
            ///
            /// When the version is not served or the bytes do not follow it.
            pub fn decode(api: ApiKey, version: i16, decoder: &mut Decoder) -> Result<Self> {
                api.check(version)?;
                match api {
                    $(ApiKey::$name => Message::decode(decoder, version).map(Self::$name),)*
                    _ => Err(not_served(api)),
                }
            }

            /// Writes the body.
            ///
            /// # Errors
            ///
            /// When the version cannot carry it.
            pub fn encode(&self, version: i16, encoder: &mut Encoder) -> Result<()> {
                self.api().check(version)?;
                match self {
                    $(Self::$name(body) => body.encode(encoder, version),)*
                }
            }
        }

        impl Response {
            /// The API.
            pub const fn api(&self) -> ApiKey {
                match self {
                    $(Self::$name(_) => ApiKey::$name,)*
                }
            }

            /// Reads the body of a response.
            ///
            /// # Errors
            ///
            /// When the version is not known or the bytes do not follow it.
            pub fn decode(api: ApiKey, version: i16, decoder: &mut Decoder) -> Result<Self> {
                api.check(version)?;
                match api {
                    $(ApiKey::$name => Message::decode(decoder, version).map(Self::$name),)*
                    _ => Err(not_served(api)),
                }
            }

            /// Writes the body.
            ///
            /// # Errors
            ///
            /// When the version cannot carry it.
            pub fn encode(&self, version: i16, encoder: &mut Encoder) -> Result<()> {
                self.api().check(version)?;
                match self {
                    $(Self::$name(body) => body.encode(encoder, version),)*
                }
            }
        }

        $(
            impl From<$module::$request> for Request {
                fn from(body: $module::$request) -> Self {
                    Self::$name(body)
                }
            }

            impl From<$module::$response> for Response {
                fn from(body: $module::$response) -> Self {
                    Self::$name(body)
                }
            }

            impl Call for $module::$request {
                const API: ApiKey = ApiKey::$name;
                type Response = $module::$response;

                fn answer(response: Response) -> Option<Self::Response> {
                    match response {
                        Response::$name(body) => Some(body),
                        _ => None,
                    }
                }
            }
        )*
    };
}

served! {
    Produce: produce::{ProduceRequest, ProduceResponse} [3-13] advertised [0-13];
    Fetch: fetch::{FetchRequest, FetchResponse} [4-18];
    ListOffsets: list_offsets::{ListOffsetsRequest, ListOffsetsResponse} [1-11];
    Metadata: metadata::{MetadataRequest, MetadataResponse} [0-13];
    OffsetCommit: offset_commit::{OffsetCommitRequest, OffsetCommitResponse} [2-10];
    OffsetFetch: offset_fetch::{OffsetFetchRequest, OffsetFetchResponse} [1-10];
    FindCoordinator: find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse} [0-6];
    JoinGroup: join_group::{JoinGroupRequest, JoinGroupResponse} [0-9];
    Heartbeat: heartbeat::{HeartbeatRequest, HeartbeatResponse} [0-4];
    LeaveGroup: leave_group::{LeaveGroupRequest, LeaveGroupResponse} [0-5];
    SyncGroup: sync_group::{SyncGroupRequest, SyncGroupResponse} [0-5];
    DescribeGroups: describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse} [0-6];
    ListGroups: list_groups::{ListGroupsRequest, ListGroupsResponse} [0-5];
    ApiVersions: api_versions::{ApiVersionsRequest, ApiVersionsResponse} [0-5];
    CreateTopics: create_topics::{CreateTopicsRequest, CreateTopicsResponse} [2-7];
    DeleteTopics: delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse} [1-6];
    DeleteRecords: delete_records::{DeleteRecordsRequest, DeleteRecordsResponse} [0-2];
    InitProducerId: init_producer_id::{InitProducerIdRequest, InitProducerIdResponse} [0-5];
    OffsetForLeaderEpoch: offset_for_leader_epoch::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse} [2-4];
    AddPartitionsToTxn: add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse} [0-5];
    AddOffsetsToTxn: add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse} [0-4];
    EndTxn: end_txn::{EndTxnRequest, EndTxnResponse} [0-5];
    WriteTxnMarkers: write_txn_markers::{WriteTxnMarkersRequest, WriteTxnMarkersResponse} [1-2];
    TxnOffsetCommit: txn_offset_commit::{TxnOffsetCommitRequest, TxnOffsetCommitResponse} [0-6];
    DescribeAcls: describe_acls::{DescribeAclsRequest, DescribeAclsResponse} [1-3];
    CreateAcls: create_acls::{CreateAclsRequest, CreateAclsResponse} [1-3];
    DeleteAcls: delete_acls::{DeleteAclsRequest, DeleteAclsResponse} [1-3];
    DescribeConfigs: describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse} [1-4];
    AlterConfigs: alter_configs::{AlterConfigsRequest, AlterConfigsResponse} [0-2];
    AlterReplicaLogDirs: alter_replica_log_dirs::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse} [1-2];
    DescribeLogDirs: describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse} [1-5];
    CreatePartitions: create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse} [0-3];
    DeleteGroups: delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse} [0-3];
    ElectLeaders: elect_leaders::{ElectLeadersRequest, ElectLeadersResponse} [0-2];
    IncrementalAlterConfigs: incremental_alter_configs::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse} [0-1];
    AlterPartitionReassignments: alter_partition_reassignments::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse} [0-1];
    ListPartitionReassignments: list_partition_reassignments::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse} [0];
    OffsetDelete: offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse} [0];
    Vote: vote::{VoteRequest, VoteResponse} [0-2];
    BeginQuorumEpoch: begin_quorum_epoch::{BeginQuorumEpochRequest, BeginQuorumEpochResponse} [0-1];
    EndQuorumEpoch: end_quorum_epoch::{EndQuorumEpochRequest, EndQuorumEpochResponse} [0-1];
    DescribeQuorum: describe_quorum::{DescribeQuorumRequest, DescribeQuorumResponse} [0-2];
    AlterPartition: alter_partition::{AlterPartitionRequest, AlterPartitionResponse} [2-3];
    UpdateFeatures: update_features::{UpdateFeaturesRequest, UpdateFeaturesResponse} [0-2];
    Envelope: envelope::{EnvelopeRequest, EnvelopeResponse} [0];
    FetchSnapshot: fetch_snapshot::{FetchSnapshotRequest, FetchSnapshotResponse} [0-1];
    DescribeCluster: describe_cluster::{DescribeClusterRequest, DescribeClusterResponse} [0-2];
    DescribeProducers: describe_producers::{DescribeProducersRequest, DescribeProducersResponse} [0];
    BrokerRegistration: broker_registration::{BrokerRegistrationRequest, BrokerRegistrationResponse} [0-4];
    BrokerHeartbeat: broker_heartbeat::{BrokerHeartbeatRequest, BrokerHeartbeatResponse} [0-2];
    UnregisterBroker: unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse} [0];
    DescribeTransactions: describe_transactions::{DescribeTransactionsRequest, DescribeTransactionsResponse} [0];
    ListTransactions: list_transactions::{ListTransactionsRequest, ListTransactionsResponse} [0-2];
    AllocateProducerIds: allocate_producer_ids::{AllocateProducerIdsRequest, AllocateProducerIdsResponse} [0];
    ConsumerGroupHeartbeat: consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse} [0-1];
    ConsumerGroupDescribe: consumer_group_describe::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse} [0-1];
    ListConfigResources: list_config_resources::{ListConfigResourcesRequest, ListConfigResourcesResponse} [0-1];
    DescribeTopicPartitions: describe_topic_partitions::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse} [0];
    AddRaftVoter: add_raft_voter::{AddRaftVoterRequest, AddRaftVoterResponse} [0-1];
    RemoveRaftVoter: remove_raft_voter::{RemoveRaftVoterRequest, RemoveRaftVoterResponse} [0];
    UpdateRaftVoter: update_raft_voter::{UpdateRaftVoterRequest, UpdateRaftVoterResponse} [0];
}

/// Nobody here answers requests of an API.
pub(super) fn not_served(api: impl fmt::Display) -> Error {
    Error::kafka(ErrorCode::UnsupportedVersion, format!("{api} is not served"))
}

/// The list that answers ApiVersions. It has what only nodes ask each other, too: the listeners are those of a broker and
/// of a controller, and any node may be joined by others.
pub fn advertised() -> Vec<ApiVersion> {
    KNOWN.iter().filter(|entry| entry.api.is_served()).map(advertised_line).collect()
}

fn advertised_line(entry: &Entry) -> ApiVersion {
    ApiVersion {
        api_key: entry.api.to_i16(),
        min_version: entry.advertised.min,
        max_version: entry.advertised.max,
    }
}

/// The answer to ApiVersions at a version that we do not know; to be encoded at version 0, which
/// every client reads, so that it can ask again. It names ApiVersions alone (KIP-511).
pub fn api_versions_fallback() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.to_i16(),
        api_keys: ApiKey::ApiVersions.entry().map(advertised_line).into_iter().collect(),
        ..ApiVersionsResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lookup_of_an_api_agrees_with_the_list() {
        let served = ApiKey::ALL.iter().filter_map(|api| api.entry()).map(|entry| entry.api);
        assert!(served.eq(KNOWN.iter().map(|entry| entry.api)));
        for &api in ApiKey::ALL {
            assert_eq!(ApiKey::from_i16(api.to_i16()), Some(api));
            assert_eq!(api.entry().map_or(api, |entry| entry.api), api);
        }
    }

    #[test]
    fn requests_and_responses_turn_flexible_together() {
        for entry in KNOWN {
            assert_eq!(entry.request.flexible, entry.response.flexible, "{}", entry.api);
            assert_eq!(entry.request.versions, entry.response.versions, "{}", entry.api);
        }
    }

    #[test]
    fn produce_is_advertised_from_version_0_but_served_from_3() {
        assert_eq!(ApiKey::Produce.advertised(), Versions::between(0, 13));
        assert!(!ApiKey::Produce.supports(2));
        assert!(ApiKey::Produce.supports(3));
        let line = advertised().into_iter().find(|line| line.api_key == 0);
        assert_eq!(line.map(|line| (line.min_version, line.max_version)), Some((0, 13)));
    }

    #[test]
    fn the_highest_common_version_is_negotiated() {
        assert_eq!(ApiKey::Fetch.negotiate(Versions::between(0, 11)), Some(11));
        assert_eq!(ApiKey::Fetch.negotiate(Versions::between(0, 99)), Some(18));
        assert_eq!(ApiKey::Fetch.negotiate(Versions::between(0, 3)), None);
        assert_eq!(ApiKey::Produce.negotiate(Versions::between(0, 2)), None);
    }

    #[test]
    fn only_the_response_header_of_api_versions_stays_at_0() {
        assert_eq!(ApiKey::ApiVersions.response_header_version(3), 0);
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::Metadata.response_header_version(9), 1);
        assert_eq!(ApiKey::Metadata.response_header_version(8), 0);
    }
}
