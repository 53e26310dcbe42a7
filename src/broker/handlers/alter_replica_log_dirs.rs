//! AlterReplicaLogDirs: v1-v2.
//!
//! Behaviour: there is one log directory, so every replica is where it can be: moving it there
//! changes nothing, and there is no other to move it to. Versions: v2 flexible. Errors:
//! LOG_DIR_NOT_FOUND for another directory; KAFKA_STORAGE_ERROR when the directory is offline;
//! UNKNOWN_TOPIC_OR_PARTITION; REPLICA_NOT_AVAILABLE for a partition whose replicas are elsewhere.

use std::path::Path;

use super::topics::{TopicKey, Topics};
use crate::broker::dispatch::Call;
use crate::error::ErrorCode;
use crate::protocol::messages::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopic,
    AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse,
};
use crate::types::PartitionIndex;

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let known = Topics::of(call);
    let node = call.state.node_id();
    let storage = call.state.partitions().storage();
    let in_dir = |dir: &AlterReplicaLogDir| {
        let refused = if Path::new(dir.path.as_str()) != storage.path() {
            Some(ErrorCode::LogDirNotFound)
        } else if storage.health().is_offline() {
            Some(ErrorCode::KafkaStorageError)
        } else {
            None
        };
        let missing = |topic: &str, index| {
            let topic = known.find(TopicKey::Name(topic)).ok();
            match topic.and_then(|topic| topic.partition(index)) {
                None => Some(ErrorCode::UnknownTopicOrPartition),
                Some(state) if state.replicas.contains(&node) => None,
                Some(_) => Some(ErrorCode::ReplicaNotAvailable),
            }
        };
        let result = |topic: &AlterReplicaLogDirTopic| AlterReplicaLogDirTopicResult {
            topic_name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|&partition_index| {
                    let refused =
                        refused.or_else(|| missing(&topic.name, PartitionIndex(partition_index)));
                    let error_code = refused.map_or(0, ErrorCode::to_i16);
                    AlterReplicaLogDirPartitionResult { partition_index, error_code }
                })
                .collect(),
        };
        dir.topics.iter().map(result).collect::<Vec<_>>()
    };
    let results = request.dirs.iter().flat_map(in_dir).collect();
    AlterReplicaLogDirsResponse { results, throttle_time_ms: 0 }
}
