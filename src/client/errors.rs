//! The sentences that stand in more than one place of the client.

use std::fmt::Display;

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

/// A request, or something about a group, was refused.
pub(super) fn of_group(code: ErrorCode, group: impl Display, what: impl Display) -> Error {
    Error::kafka(code, format!("group {group}: {what}"))
}

/// Something about a transactional id was refused.
pub(super) fn of_transactional_id(code: ErrorCode, id: impl Display, what: impl Display) -> Error {
    Error::kafka(code, format!("transactional id {id}: {what}"))
}

/// Something was asked of a node that is not the controller.
pub(super) fn not_controller(doing: impl Into<String>) -> Error {
    Error::kafka(ErrorCode::NotController, doing)
}

/// A response that leaves out what was asked for.
pub(super) fn not_mentioned(what: impl Display) -> Error {
    Error::malformed("response", format!("it does not mention {what}"))
}
