//! The answer to a transactional request that failed as a whole, in the form of its API.
//!
//! Part of `errors`, in a file of its own because there are many.

use super::errors::Failure;
use crate::protocol::Str;
use crate::protocol::messages::{
    add_partitions_to_txn, describe_transactions, txn_offset_commit, write_txn_markers,
};

impl Failure {
    /// Up to version 3 one transaction with errors for partitions only, from 4 also one for the whole.
    pub(super) fn add_partitions_to_txn(
        &self,
        request: &add_partitions_to_txn::AddPartitionsToTxnRequest,
    ) -> add_partitions_to_txn::AddPartitionsToTxnResponse {
        use add_partitions_to_txn as m;
        let partition = |&partition_index: &i32| m::AddPartitionsToTxnPartitionResult {
            partition_index,
            partition_error_code: self.code,
        };
        let topic = |topic: &m::AddPartitionsToTxnTopic| m::AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: topic.partitions.iter().map(partition).collect(),
        };
        let topics = |topics: &[m::AddPartitionsToTxnTopic]| topics.iter().map(topic).collect();
        if self.version < 4 {
            return m::AddPartitionsToTxnResponse {
                results_by_topic_v3_and_below: topics(&request.v3_and_below_topics),
                ..Default::default()
            };
        }
        let transaction =
            |transaction: &m::AddPartitionsToTxnTransaction| m::AddPartitionsToTxnResult {
                transactional_id: transaction.transactional_id.clone(),
                topic_results: topics(&transaction.topics),
            };
        m::AddPartitionsToTxnResponse {
            error_code: self.code,
            results_by_transaction: request.transactions.iter().map(transaction).collect(),
            ..Default::default()
        }
    }

    pub(super) fn txn_offset_commit(
        &self,
        request: &txn_offset_commit::TxnOffsetCommitRequest,
    ) -> txn_offset_commit::TxnOffsetCommitResponse {
        use txn_offset_commit as m;
        let partition =
            |partition: &m::TxnOffsetCommitRequestPartition| m::TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: self.code,
            };
        let topic = |topic: &m::TxnOffsetCommitRequestTopic| m::TxnOffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic.partitions.iter().map(partition).collect(),
        };
        m::TxnOffsetCommitResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    pub(super) fn write_txn_markers(
        &self,
        request: &write_txn_markers::WriteTxnMarkersRequest,
    ) -> write_txn_markers::WriteTxnMarkersResponse {
        use write_txn_markers as m;
        let partition = |&partition_index: &i32| m::WritableTxnMarkerPartitionResult {
            partition_index,
            error_code: self.code,
        };
        let topic = |topic: &m::WritableTxnMarkerTopic| m::WritableTxnMarkerTopicResult {
            name: topic.name.clone(),
            partitions: topic.partition_indexes.iter().map(partition).collect(),
        };
        let marker = |marker: &m::WritableTxnMarker| m::WritableTxnMarkerResult {
            producer_id: marker.producer_id,
            topics: marker.topics.iter().map(topic).collect(),
        };
        m::WriteTxnMarkersResponse { markers: request.markers.iter().map(marker).collect() }
    }

    pub(super) fn describe_transactions(
        &self,
        request: &describe_transactions::DescribeTransactionsRequest,
    ) -> describe_transactions::DescribeTransactionsResponse {
        use describe_transactions as m;
        let state = |transactional_id: &Str| m::TransactionState {
            error_code: self.code,
            transactional_id: transactional_id.clone(),
            ..Default::default()
        };
        m::DescribeTransactionsResponse {
            transaction_states: request.transactional_ids.iter().map(state).collect(),
            ..Default::default()
        }
    }
}
