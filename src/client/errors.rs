//! The sentences that stand in more than one place of the client.

use crate::error::{Error, ErrorCode};
use crate::types::TopicPartition;

/// What a broker said of a topic.
pub(super) fn of_topic(code: ErrorCode, name: &str) -> Error {
    Error::kafka(code, format!("topic {name}"))
}

/// A topic that does not exist, as far as the brokers know.
pub(super) fn unknown_topic(name: &str) -> Error {
    of_topic(ErrorCode::UnknownTopicOrPartition, name)
}

/// A partition without a leader.
pub(super) fn no_leader(partition: &TopicPartition) -> Error {
    Error::kafka(ErrorCode::LeaderNotAvailable, format!("partition {partition}"))
}

/// Something that the brokers of the cluster are too old for.
pub(super) fn unsupported(what: impl Into<String>) -> Error {
    Error::kafka(ErrorCode::UnsupportedVersion, what.into())
}
