//! What several handlers need: names of topics, nodes, authorized operations.

use std::net::SocketAddr;

use crate::broker::state::BrokerState;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::Refusal;
use crate::machine::metadata::{MetadataImage, TopicImage, is_internal_topic};
use crate::protocol::Str;
use crate::types::NodeId;

/// Every operation that exists on a topic, as bits: there is no authorizer that could forbid one.
/// READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub(super) const TOPIC_OPERATIONS: i32 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// Every operation that exists on the cluster: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION,
/// DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE.
pub(super) const CLUSTER_OPERATIONS: i32 =
    1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// The longest name of a topic: a directory is named after it, with the partition and a suffix.
const TOPIC_NAME_MAX: usize = 249;

/// Whether a topic may have this name.
pub(super) fn is_topic_name(name: &str) -> bool {
    let legal =
        |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_' || byte == b'-';
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= TOPIC_NAME_MAX
        && name.bytes().all(legal)
}

/// The error for a topic that does not exist.
pub(super) fn unknown_topic(name: &str) -> ErrorCode {
    if is_topic_name(name) {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::InvalidTopicException
    }
}

/// Whether a topic is internal to the engine.
pub(super) fn is_internal(name: &str) -> bool {
    is_internal_topic(name)
}

/// Finds a topic by name.
pub(super) fn find_topic<'a>(image: &'a MetadataImage, name: &str) -> Result<&'a TopicImage> {
    image.topic(name).map(|topic| &**topic).ok_or_else(|| {
        let context = format!("topic {name:?} does not exist");
        Error::kafka(ErrorCode::UnknownTopicOrPartition, context)
    })
}

/// Adds the partition to an error of its records.
pub(super) fn at(topic: &str, partition: i32, error: Error) -> Error {
    match error {
        Error::Kafka { code, context, .. } => {
            Error::kafka(code, format!("{topic}-{partition}: {context}"))
        }
        other => other,
    }
}

/// The code and message of a controller's answer.
pub(super) fn refusal(result: Result<(), Refusal>) -> (i16, Option<Str>) {
    match result {
        Ok(()) => (0, None),
        Err(refusal) => (refusal.code.to_i16(), Some(refusal.message.into())),
    }
}

/// The answer is to a different question; a bug in ottla.
pub(super) fn wrong_reply(what: &str) -> Error {
    let context = format!("the controller's answer to {what} has an unexpected form");
    Error::kafka(ErrorCode::UnknownServerError, context)
}

/// A broker, as a client sees it.
pub(super) struct BrokerNode {
    pub(super) id: NodeId,
    pub(super) host: Str,
    pub(super) port: i32,
    pub(super) rack: Option<Str>,
    pub(super) fenced: bool,
}

/// Whether a node can be reached.
pub(super) fn is_alive(image: &MetadataImage, node: NodeId) -> bool {
    image.broker(node).is_some_and(|broker| !broker.fenced)
}

/// Those of `replicas` that cannot be reached.
pub(super) fn offline(image: &MetadataImage, replicas: &[NodeId]) -> Vec<i32> {
    replicas.iter().filter(|&&node| !is_alive(image, node)).map(|node| node.0).collect()
}

/// The brokers that are alive, for a client that connected to `local`.
pub(super) fn brokers(state: &BrokerState, local: Option<SocketAddr>) -> Vec<BrokerNode> {
    all_brokers(state, local).into_iter().filter(|node| !node.fenced).collect()
}

/// All registered brokers, for a client that connected to `local`.
pub(super) fn all_brokers(state: &BrokerState, local: Option<SocketAddr>) -> Vec<BrokerNode> {
    let image = state.image();
    let node = |broker: &std::sync::Arc<crate::machine::metadata::BrokerImage>| {
        let (host, port) = if broker.id == state.node_id() {
            state.own_address(local)
        } else {
            let endpoint = broker.endpoints.first()?;
            (Str::from(&endpoint.host), i32::from(endpoint.port))
        };
        let rack = broker.rack.as_ref().map(Str::from);
        Some(BrokerNode { id: broker.id, host, port, rack, fenced: broker.fenced })
    };
    image.brokers().filter_map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_topics_cannot_be_paths() {
        for name in ["a", "a.b-c_D9", &"x".repeat(249)] {
            assert!(is_topic_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "../x", "a\0", "a b", "\u{e9}", &"x".repeat(250)] {
            assert!(!is_topic_name(name), "{name}");
        }
    }

    #[test]
    fn authorized_operations_are_kafkas_bits() {
        assert_eq!((TOPIC_OPERATIONS, CLUSTER_OPERATIONS), (3576, 8096));
    }
}
