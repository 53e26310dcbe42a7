//! WriteTxnMarkers (API key 27).

use crate::protocol::primitives::Str;

message! {
    /// The body of the WriteTxnMarkers request.
    struct WriteTxnMarkersRequest versions [1-2] flexible [1+] {
        markers: Vec<WritableTxnMarker>, "Markers" [0+];
    }

    /// An element of [`WriteTxnMarkersRequest::markers`].
    struct WritableTxnMarker {
        producer_id: i64, "ProducerId" [0+];
        producer_epoch: i16, "ProducerEpoch" [0+];
        transaction_result: bool, "TransactionResult" [0+];
        topics: Vec<WritableTxnMarkerTopic>, "Topics" [0+];
        coordinator_epoch: i32, "CoordinatorEpoch" [0+];
        transaction_version: i8, "TransactionVersion" [2+], ignorable;
    }

    /// An element of [`WritableTxnMarker::topics`].
    struct WritableTxnMarkerTopic {
        name: Str, "Name" [0+];
        partition_indexes: Vec<i32>, "PartitionIndexes" [0+];
    }

    /// The body of the WriteTxnMarkers response.
    struct WriteTxnMarkersResponse versions [1-2] flexible [1+] {
        markers: Vec<WritableTxnMarkerResult>, "Markers" [0+];
    }

    /// An element of [`WriteTxnMarkersResponse::markers`].
    struct WritableTxnMarkerResult {
        producer_id: i64, "ProducerId" [0+];
        topics: Vec<WritableTxnMarkerTopicResult>, "Topics" [0+];
    }

    /// An element of [`WritableTxnMarkerResult::topics`].
    struct WritableTxnMarkerTopicResult {
        name: Str, "Name" [0+];
        partitions: Vec<WritableTxnMarkerPartitionResult>, "Partitions" [0+];
    }

    /// An element of [`WritableTxnMarkerTopicResult::partitions`].
    struct WritableTxnMarkerPartitionResult {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
    }
}
