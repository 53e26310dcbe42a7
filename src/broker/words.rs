//! The sentences that stand in more than one place of the broker.

use crate::error::{Error, ErrorCode};
use crate::types::{LeaderEpoch, TopicPartition};

/// A partition, or the coordinator of what belongs to it, is asked of a broker that does not lead
/// it.
pub(in crate::broker) fn not_led(code: ErrorCode, partition: &TopicPartition) -> Error {
    Error::kafka(code, format!("this broker does not lead {partition}"))
}

/// Nobody leads a partition.
pub(in crate::broker) fn no_leader(code: ErrorCode, partition: &TopicPartition) -> Error {
    Error::kafka(code, format!("{partition} has no leader"))
}

/// A partition is in another leader epoch than the caller assumes.
pub(in crate::broker) fn other_epoch(
    code: ErrorCode,
    partition: &TopicPartition,
    current: LeaderEpoch,
    assumed: LeaderEpoch,
) -> Error {
    Error::kafka(code, format!("{partition} is at leader epoch {current}, not {assumed}"))
}

/// A partition was closed here.
pub(in crate::broker) fn partition_closed(code: ErrorCode, partition: &TopicPartition) -> Error {
    Error::kafka(code, format!("{partition} was closed"))
}

/// A partition was closed while something waited to be committed; `what` with its verb, as in
/// "the records were".
pub(in crate::broker) fn closed_before_commit(what: &str) -> Error {
    let context = format!("the partition was closed before {what} committed");
    Error::kafka(ErrorCode::NotLeaderOrFollower, context)
}

/// A request without the id of a group.
pub(in crate::broker) fn no_group_id() -> Error {
    Error::kafka(ErrorCode::InvalidGroupId, "the group id must not be empty")
}

/// The broker panicked at some work.
pub(in crate::broker) fn broker_failed(code: ErrorCode, work: &str) -> Error {
    Error::kafka(code, format!("the broker failed while it {work}"))
}

/// A request without a transactional id.
pub(in crate::broker) fn no_transactional_id() -> Error {
    Error::kafka(ErrorCode::InvalidRequest, "the transactional id is empty")
}
