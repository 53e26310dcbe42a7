//! DescribeLogDirs: v1-v5.
//!
//! Behaviour: the one log directory, the size and the free space of its file system (-1 where the operating
//! system does not report it), and the size of each partition asked for (null for all). The lag of a
//! current replica is how far its log end is behind the high watermark, so 0 here. What is in the tier
//! counts in none of the sizes; the leader says in a field of our own what it knows of it. Versions: v2
//! flexible, with that field; v3 an error for the whole request; v4 sizes (KIP-827); v5 cordoned
//! directories (KIP-1066; never). Errors: KAFKA_STORAGE_ERROR for the directory when it is offline.

use std::collections::{BTreeMap, BTreeSet};

use super::topics::{TopicKey, Topics};
use crate::broker::dispatch::Call;
use crate::broker::partition::Partition;
use crate::error::ErrorCode;
use crate::machine::tier::FileEntry;
use crate::protocol::Str;
use crate::protocol::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest,
    DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::protocol::messages::own::TierState;
use crate::types::{Offset, PartitionIndex};

pub(in crate::broker) fn handle<'a>(
    call: &Call<'_>,
    request: &'a DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let storage = call.state.partitions().storage();
    let mut result = DescribeLogDirsResult {
        log_dir: storage.path().display().to_string().into(),
        ..DescribeLogDirsResult::default()
    };
    if storage.health().is_offline() {
        result.error_code = ErrorCode::KafkaStorageError.to_i16();
        return DescribeLogDirsResponse { results: vec![result], ..Default::default() };
    }
    let asked: Option<BTreeSet<(&str, PartitionIndex)>> = request.topics.as_ref().map(|topics| {
        let of = |topic: &'a DescribableLogDirTopic| {
            topic.partitions.iter().map(|&index| (topic.topic.as_str(), PartitionIndex(index)))
        };
        topics.iter().flat_map(of).collect()
    });
    let known = Topics::of(call);
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in call.state.partitions().all() {
        let name = partition.name();
        if asked.as_ref().is_some_and(|asked| !asked.contains(&(&*name.topic, name.partition))) {
            continue;
        }
        let (topic_id, _) = partition.key();
        if known.find(TopicKey::Id(topic_id)).is_err() {
            continue;
        }
        topics.entry(name.topic.to_string()).or_default().push(DescribeLogDirsPartition {
            partition_index: name.partition.0,
            partition_size: partition.size_bytes(),
            offset_lag: 0,
            is_future_key: false,
            tier: tier_state(&partition),
        });
    }
    result.topics = topics
        .into_iter()
        .map(|(name, mut partitions)| {
            partitions.sort_by_key(|partition| partition.partition_index);
            DescribeLogDirsTopic { name: Str::from(name), partitions }
        })
        .collect();
    result.total_bytes = storage.total_bytes();
    result.usable_bytes = storage.usable_bytes();
    DescribeLogDirsResponse { results: vec![result], ..Default::default() }
}

/// What the leader knows of the tier; nothing of a partition that has none, or is led elsewhere.
fn tier_state(partition: &Partition) -> TierState {
    let Some(tier) = partition.tier().filter(|_| partition.check_leader().is_ok()) else {
        return TierState::default();
    };
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    // Where nothing is copied, nobody is waited for.
    let wanted = Some(tier.wanted()).filter(|_| partition.config().tier.copies());
    let mut state = TierState {
        wanted_offset: wanted.unwrap_or(Offset::UNKNOWN).0,
        failure: tier.failure().map(|why| Str::from(why.as_str())),
        ..TierState::default()
    };
    if let Some(pending) = partition.pending_upload() {
        let reader = partition.reader();
        let copied: u64 =
            reader.closed_segments(pending).iter().map(|segment| segment.size_bytes).sum();
        state.pending_offset = pending.0;
        state.pending_bytes = number(reader.size_bytes().saturating_sub(copied));
    }
    if let Some(manifest) = tier.manifest() {
        let files = &manifest.content().files;
        let sum = |of: fn(&FileEntry) -> u64| number(files.iter().map(of).sum());
        state.files = number(files.len() as u64);
        state.file_bytes = sum(|file| file.file_bytes);
        state.log_bytes = sum(|file| file.log_bytes);
    }
    state
}
