//! A group of the consumer protocol (KIP-848): its epoch, members and resolved patterns.

use bytes::Bytes;

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The key of record type 3.
    struct ConsumerGroupMetadataKey versions [0] flexible [none] {
        group_id: Str, "GroupId" [0];
    }

    /// The value of record type 3.
    struct ConsumerGroupMetadataValue versions [0] flexible [0+] {
        epoch: i32, "Epoch" [0+];
        metadata_hash: i64, "MetadataHash" [0+] tag 0 [0+];
    }

    /// The key of record type 5.
    struct ConsumerGroupMemberMetadataKey versions [0] flexible [none] {
        group_id: Str, "GroupId" [0];
        member_id: Str, "MemberId" [0];
    }

    /// The value of record type 5.
    struct ConsumerGroupMemberMetadataValue versions [0] flexible [0+] {
        instance_id: Option<Str> = Some(Str::EMPTY), "InstanceId" [0+] nullable [0+];
        rack_id: Option<Str> = Some(Str::EMPTY), "RackId" [0+] nullable [0+];
        client_id: Str, "ClientId" [0+];
        client_host: Str, "ClientHost" [0+];
        subscribed_topic_names: Vec<Str>, "SubscribedTopicNames" [0+];
        subscribed_topic_regex: Option<Str> = Some(Str::EMPTY),
            "SubscribedTopicRegex" [0+] nullable [0+];
        rebalance_timeout_ms: i32 = -1, "RebalanceTimeoutMs" [0+];
        server_assignor: Option<Str> = Some(Str::EMPTY), "ServerAssignor" [0+] nullable [0+];
        classic_member_metadata: Option<ClassicMemberMetadata>,
            "ClassicMemberMetadata" [0+] nullable [0+] tag 0 [0+];
    }

    /// The value of [`ConsumerGroupMemberMetadataValue::classic_member_metadata`].
    struct ClassicMemberMetadata {
        session_timeout_ms: i32, "SessionTimeoutMs" [0+];
        supported_protocols: Vec<ClassicProtocol>, "SupportedProtocols" [0+];
    }

    /// An element of [`ClassicMemberMetadata::supported_protocols`].
    struct ClassicProtocol {
        name: Str, "Name" [0+];
        metadata: Bytes, "Metadata" [0+];
    }

    /// The key of record type 4.
    struct ConsumerGroupPartitionMetadataKey versions [0] flexible [none] {
        group_id: Str, "GroupId" [0];
    }

    /// The value of record type 4.
    struct ConsumerGroupPartitionMetadataValue versions [0] flexible [0+] {
        topics: Vec<TopicMetadata>, "Topics" [0+];
    }

    /// An element of [`ConsumerGroupPartitionMetadataValue::topics`].
    struct TopicMetadata {
        topic_id: Uuid, "TopicId" [0+];
        topic_name: Str, "TopicName" [0+];
        num_partitions: i32, "NumPartitions" [0+];
        partition_metadata: Vec<PartitionMetadata>, "PartitionMetadata" [0+];
    }

    /// An element of [`TopicMetadata::partition_metadata`].
    struct PartitionMetadata {
        partition: i32, "Partition" [0+];
        racks: Vec<Str>, "Racks" [0+];
    }

    /// The key of record type 16.
    struct ConsumerGroupRegularExpressionKey versions [0] flexible [none] {
        group_id: Str, "GroupId" [0];
        regular_expression: Str, "RegularExpression" [0];
    }

    /// The value of record type 16.
    struct ConsumerGroupRegularExpressionValue versions [0] flexible [0+] {
        topics: Vec<Str>, "Topics" [0+];
        version: i64, "Version" [0+];
        timestamp: i64, "Timestamp" [0+];
    }
}
