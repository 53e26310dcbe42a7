//! DeleteRecords: v0-v2.
//!
//! Behaviour: moves the log start offset forward, to the offset given or, with -1, to the high
//! watermark; the answer, which carries the new log start offset, comes once every replica whose broker is active has
//! done so. An offset at or before the current start changes nothing. The new start is saved before the answer.
//! Versions: v2 flexible. Errors: OFFSET_OUT_OF_RANGE beyond the high watermark or below -1;
//! REQUEST_TIMED_OUT when replicas did not follow in `timeout_ms`; the leader has deleted the records then;
//! UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER; POLICY_VIOLATION where the cleanup policy has no delete;
//! KAFKA_STORAGE_ERROR.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::topics::{TopicKey, Topics};
use crate::broker::blocking::blocking;
use crate::broker::dispatch::Call;
use crate::broker::partition::Deletion;
use crate::error::{Error, Result};
use crate::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::types::{Offset, PartitionIndex};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let max = Duration::from_millis(request.timeout_ms.max(0).unsigned_abs().into());
    let deadline = Instant::now() + max;
    let known = Topics::of(call);
    // All leaders delete before any of them is waited for.
    let mut begun = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            partitions.push(delete(call, &known, &topic.name, wanted).await);
        }
        begun.push(partitions);
    }
    let mut topics = Vec::with_capacity(request.topics.len());
    for (topic, begun) in request.topics.iter().zip(begun) {
        let mut partitions = Vec::with_capacity(begun.len());
        for (wanted, begun) in topic.partitions.iter().zip(begun) {
            let done = match begun {
                Ok(deletion) => finish(call, deletion, deadline, max).await,
                Err(error) => Err(error),
            };
            let (low_watermark, error_code) = match done {
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
) -> Result<Deletion> {
    let partition = topics.leader(TopicKey::Name(topic), PartitionIndex(wanted.partition_index))?;
    let offset = Offset(wanted.offset);
    let threads = call.state.log_threads();
    let deletion =
        threads.run_on(&partition, move |partition| partition.delete_records(offset)).await?;
    let storage = Arc::clone(call.state.partitions().storage());
    let threads = &call.state.env().threads;
    blocking(threads, move || storage.checkpoint([&partition])).await?;
    Ok(deletion)
}

async fn finish(
    call: &Call<'_>,
    Deletion { start, everywhere }: Deletion,
    deadline: Instant,
    max: Duration,
) -> Result<Offset> {
    let answered = tokio::select! {
        biased;
        answered = tokio::time::timeout_at(deadline, everywhere) => answered,
        () = call.gone.cancelled() => return Err(Error::Closed { what: "the connection" }),
    };
    match answered {
        Ok(Ok(done)) => done.map(|()| start),
        Ok(Err(_gone)) => Err(Error::Closed { what: "the partition" }),
        Err(_elapsed) => Err(Error::timeout("all replicas to delete records", max)),
    }
}
