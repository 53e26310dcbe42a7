//! DeleteRecords: v0-v2.
//!
//! Behaviour: moves the log start offset forward, to the offset given or, with -1, to the high
//! watermark; the answer carries the new log start offset. An offset at or before the current start
//! changes nothing. The new start is saved before the answer. Versions: v2 flexible. Errors:
//! OFFSET_OUT_OF_RANGE beyond the high watermark or below -1; UNKNOWN_TOPIC_OR_PARTITION,
//! NOT_LEADER_OR_FOLLOWER; POLICY_VIOLATION where the cleanup policy has no delete;
//! KAFKA_STORAGE_ERROR.

use std::sync::Arc;

use super::topics::{TopicKey, Topics};
use crate::broker::blocking::blocking;
use crate::broker::dispatch::Call;
use crate::error::Result;
use crate::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::types::Offset;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let known = Topics::of(call);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let (low_watermark, error_code) = match delete(call, &known, &topic.name, wanted).await
            {
                Ok(start) => (start.0, 0),
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "could not delete records");
                    (-1, error.code().to_i16())
                }
            };
            let partition_index = wanted.partition_index;
            partitions.push(DeleteRecordsPartitionResult {
                partition_index,
                low_watermark,
                error_code,
            });
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name.clone(), partitions });
    }
    DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() }
}

async fn delete(
    call: &Call<'_>,
    topics: &Topics,
    topic: &str,
    wanted: &DeleteRecordsPartition,
) -> Result<Offset> {
    let partition = topics.leader(TopicKey::Name(topic), wanted.partition_index)?;
    let offset = Offset(wanted.offset);
    let threads = call.state.log_threads();
    let start =
        threads.run_on(&partition, move |partition| partition.delete_records(offset)).await?;
    let storage = Arc::clone(call.state.partitions().storage());
    let threads = &call.state.env().threads;
    blocking(threads, move || storage.checkpoint([&partition])).await?;
    Ok(start)
}
