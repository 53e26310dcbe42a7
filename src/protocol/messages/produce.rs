//! Produce (API key 0).

use crate::protocol::primitives::{Records, Str};
use crate::types::Uuid;

message! {
    /// The body of the Produce request.
    struct ProduceRequest versions [3-13] flexible [9+] {
        transactional_id: Option<Str>, "TransactionalId" [3+] nullable [3+];
        acks: i16, "Acks" [0+];
        timeout_ms: i32, "TimeoutMs" [0+];
        topic_data: Vec<TopicProduceData>, "TopicData" [0+];
    }

    /// An element of [`ProduceRequest::topic_data`].
    struct TopicProduceData {
        name: Str, "Name" [0-12], ignorable;
        topic_id: Uuid, "TopicId" [13+], ignorable;
        partition_data: Vec<PartitionProduceData>, "PartitionData" [0+];
    }

    /// An element of [`TopicProduceData::partition_data`].
    struct PartitionProduceData {
        index: i32, "Index" [0+];
        records: Option<Records>, "Records" [0+] nullable [0+];
    }

    /// The body of the Produce response.
    struct ProduceResponse versions [3-13] flexible [9+] {
        responses: Vec<TopicProduceResponse>, "Responses" [0+];
        throttle_time_ms: i32, "ThrottleTimeMs" [1+], ignorable;
        node_endpoints: Vec<NodeEndpoint>, "NodeEndpoints" [10+] tag 0 [10+];
    }

    /// An element of [`ProduceResponse::responses`].
    struct TopicProduceResponse {
        name: Str, "Name" [0-12], ignorable;
        topic_id: Uuid, "TopicId" [13+], ignorable;
        partition_responses: Vec<PartitionProduceResponse>, "PartitionResponses" [0+];
    }

    /// An element of [`TopicProduceResponse::partition_responses`].
    struct PartitionProduceResponse {
        index: i32, "Index" [0+];
        error_code: i16, "ErrorCode" [0+];
        base_offset: i64, "BaseOffset" [0+];
        log_append_time_ms: i64 = -1, "LogAppendTimeMs" [2+], ignorable;
        log_start_offset: i64 = -1, "LogStartOffset" [5+], ignorable;
        record_errors: Vec<BatchIndexAndErrorMessage>, "RecordErrors" [8+], ignorable;
        error_message: Option<Str>, "ErrorMessage" [8+] nullable [8+], ignorable;
        current_leader: LeaderIdAndEpoch, "CurrentLeader" [10+] tag 0 [10+];
    }

    /// An element of [`PartitionProduceResponse::record_errors`].
    struct BatchIndexAndErrorMessage {
        batch_index: i32, "BatchIndex" [8+];
        batch_index_error_message: Option<Str>, "BatchIndexErrorMessage" [8+] nullable [8+];
    }

    /// The value of [`PartitionProduceResponse::current_leader`].
    struct LeaderIdAndEpoch {
        leader_id: i32 = -1, "LeaderId" [10+];
        leader_epoch: i32 = -1, "LeaderEpoch" [10+];
    }

    /// An element of [`ProduceResponse::node_endpoints`].
    struct NodeEndpoint {
        node_id: i32, "NodeId" [10+];
        host: Str, "Host" [10+];
        port: i32, "Port" [10+];
        rack: Option<Str>, "Rack" [10+] nullable [10+];
    }
}
