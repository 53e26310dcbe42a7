//! Every message, as values that a test can go through.

use bytes::Bytes;
use kafka_protocol::messages as peer;
use kafka_protocol::protocol::{Decodable, Encodable, Message as _};
use ottla::error::Result;
use ottla::protocol::messages as ours;
use ottla::protocol::schema::{Message, Schema, Versions};
use ottla::protocol::{ApiKey, Decoder, Encoder};

/// One request or response body.
pub struct Case {
    pub api: ApiKey,
    pub schema: Schema,
    /// Decodes, and says how many bytes were left.
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
        pub fn all() -> Vec<Case> {
            vec![$($(Case {
                api: ApiKey::$api,
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
    DescribeAcls: describe_acls::{DescribeAclsRequest, DescribeAclsResponse};
    CreateAcls: create_acls::{CreateAclsRequest, CreateAclsResponse};
    DeleteAcls: delete_acls::{DeleteAclsRequest, DeleteAclsResponse};
    DescribeConfigs: describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse};
    AlterConfigs: alter_configs::{AlterConfigsRequest, AlterConfigsResponse};
    DescribeLogDirs: describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
    CreatePartitions: create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse};
    IncrementalAlterConfigs: incremental_alter_configs::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
    ListPartitionReassignments: list_partition_reassignments::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};
    DescribeQuorum: describe_quorum::{DescribeQuorumRequest, DescribeQuorumResponse};
    DescribeCluster: describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
    DescribeProducers: describe_producers::{DescribeProducersRequest, DescribeProducersResponse};
    ListConfigResources: list_config_resources::{ListConfigResourcesRequest, ListConfigResourcesResponse};
    DescribeTopicPartitions: describe_topic_partitions::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
}

#[test]
fn every_served_api_is_in_the_catalog() {
    let mut catalogued: Vec<_> = all().iter().map(|case| case.api).collect();
    catalogued.sort();
    let served: Vec<_> = ottla::protocol::api::SERVED.iter().map(|entry| entry.api).collect();
    let twice: Vec<_> = served.iter().flat_map(|&api| [api, api]).collect();
    assert_eq!(catalogued, twice);
}
