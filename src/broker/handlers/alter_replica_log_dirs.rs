//! AlterReplicaLogDirs: v1-v2.
//!
//! Behaviour: there is one log directory, so every replica is where it can be: moving it there
//! changes nothing, and there is no other to move it to. The place of the tier (`ottla.tier.url`) counts as a directory,
//! of partitions that are copied there and led here: moving one there closes its active segment and has all that is in the log
//! copied as soon as it is stable. As in Kafka, the answer does not wait for the move; DescribeLogDirs tells how far it
//! is. Versions: v2 flexible. Errors: LOG_DIR_NOT_FOUND for another directory; KAFKA_STORAGE_ERROR when the directory is
//! offline; UNKNOWN_TOPIC_OR_PARTITION; REPLICA_NOT_AVAILABLE for a partition whose replicas are elsewhere; of the tier,
//! INVALID_CONFIG for a partition that is not copied there, and NOT_LEADER_OR_FOLLOWER.

use std::path::Path;

use super::topics::{TopicKey, Topics};
use crate::broker::dispatch::Call;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::messages::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse,
};
use crate::types::PartitionIndex;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let known = Topics::of(call);
    let mut results = Vec::new();
    for dir in &request.dirs {
        for topic in &dir.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for &partition_index in &topic.partitions {
                let index = PartitionIndex(partition_index);
                let moved = move_to(call, &known, dir, (&topic.name, index)).await;
                let error_code = moved.map_or_else(|error| error.code().to_i16(), |()| 0);
                partitions.push(AlterReplicaLogDirPartitionResult { partition_index, error_code });
            }
            let topic_name = topic.name.clone();
            results.push(AlterReplicaLogDirTopicResult { topic_name, partitions });
        }
    }
    AlterReplicaLogDirsResponse { results, throttle_time_ms: 0 }
}

async fn move_to(
    call: &Call<'_>,
    known: &Topics,
    dir: &AlterReplicaLogDir,
    (topic, index): (&str, PartitionIndex),
) -> Result<()> {
    let (state, path) = (call.state, dir.path.as_str());
    let refused = |code| Err(Error::kafka(code, format!("moving {topic}-{index} to {path}")));
    let storage = state.partitions().storage();
    if state.config().tier.url.as_deref() == Some(path) {
        return copy_now(call, known, (topic, index)).await;
    }
    if Path::new(path) != storage.path() {
        return refused(ErrorCode::LogDirNotFound);
    }
    storage.health().check()?;
    let found = known.find(TopicKey::Name(topic))?;
    match found.partition(index) {
        None => refused(ErrorCode::UnknownTopicOrPartition),
        Some(assigned) if assigned.replicas.contains(&state.node_id()) => Ok(()),
        Some(_) => refused(ErrorCode::ReplicaNotAvailable),
    }
}

/// Has what is in the log copied to the tier.
async fn copy_now(
    call: &Call<'_>,
    known: &Topics,
    (topic, index): (&str, PartitionIndex),
) -> Result<()> {
    let partition = known.leader(TopicKey::Name(topic), index)?;
    let tier = partition.tier().filter(|_| partition.config().tier.copies());
    let tier = tier.ok_or_else(|| {
        let context = format!("{} is not copied to the tier", partition.name());
        Error::kafka(ErrorCode::InvalidConfig, context)
    })?;
    let now = call.state.env().clock.now();
    let rolled = call.state.log_threads().run(&partition, move |log| {
        // Of what is in the tier already, no segment is made.
        let end = log.log_end_offset();
        if log.reader().tiered_end_offset().is_none_or(|tiered| tiered < end) {
            log.roll(now)?;
        }
        Ok(end)
    });
    tier.want(rolled.await?);
    Ok(())
}
