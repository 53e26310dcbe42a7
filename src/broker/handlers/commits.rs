//! What OffsetCommit and TxnOffsetCommit have in common: which offsets the coordinator is asked to store, and what each
//! partition is told.

use super::groups;
use super::topics::{TopicKey, Topics};
use crate::error::{ErrorCode, Result};
use crate::machine::group::{CommitPartition, CommitTopic, GroupError, PartitionResults};
use crate::protocol::Str;
use crate::types::{LeaderEpoch, Offset, PartitionIndex};

/// What a request says of one partition.
pub(super) fn partition(
    partition: PartitionIndex,
    (offset, leader_epoch): (i64, i32),
    metadata: Option<&Str>,
) -> CommitPartition {
    CommitPartition {
        partition,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(leader_epoch),
        metadata: groups::optional(metadata),
    }
}

/// The answer for each partition of a topic as far as it is known, and the request for the coordinator. Partitions in
/// that request have no error yet.
pub(super) fn split(
    topics: &Topics,
    key: TopicKey<'_>,
    partitions: Vec<CommitPartition>,
) -> (Vec<ErrorCode>, Option<CommitTopic>) {
    let known = match topics.find(key) {
        Ok(known) => known,
        Err(error) => return (vec![error.code(); partitions.len()], None),
    };
    let check = |partition: &CommitPartition| match known.partition(partition.partition) {
        Some(_) => ErrorCode::None,
        None => ErrorCode::UnknownTopicOrPartition,
    };
    let codes = partitions.iter().map(check).collect();
    let partitions: Vec<_> =
        partitions.into_iter().filter(|partition| check(partition).is_ok()).collect();
    let wanted = CommitTopic { name: known.name.clone(), id: known.id, partitions };
    (codes, (!wanted.partitions.is_empty()).then_some(wanted))
}

/// Fills the coordinator's results into the places that have no error yet, which are in the same
/// order. What failed as a whole is told in the words of the version.
pub(super) fn fill<'a>(
    places: impl Iterator<Item = &'a mut i16>,
    result: Result<Vec<PartitionResults>, GroupError>,
    to_client: impl Fn(ErrorCode) -> ErrorCode,
) {
    let places = places.filter(|place| **place == ErrorCode::None.to_i16());
    match result {
        Err(error) => places.for_each(|place| *place = to_client(error.code).to_i16()),
        Ok(topics) => {
            let codes = topics.into_iter().flat_map(|topic| topic.partitions);
            places.zip(codes).for_each(|(place, (_, code))| *place = code.to_i16());
        }
    }
}
