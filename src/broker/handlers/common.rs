//! What several handlers need: nodes, authorized operations.

use std::collections::BTreeSet;

use crate::broker::listener::Reached;
use crate::broker::state::BrokerState;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::{CreateTopics, NewTopic, Refusal};
use crate::machine::metadata::MetadataImage;
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

/// The code and message of a controller's answer.
pub(super) fn refusal(result: Result<(), Refusal>) -> (i16, Option<Str>) {
    match result {
        Ok(()) => (0, None),
        Err(refusal) => (refusal.code.to_i16(), Some(refusal.message.into())),
    }
}

/// How long the creation of an internal topic may take.
const CREATE_TIMEOUT_MS: i32 = 5000;

/// How many partitions an internal topic has, which coordinators keep their state in; it is created when it does not exist.
///
/// # Errors
///
/// `COORDINATOR_NOT_AVAILABLE` when it could not be created.
pub(super) async fn partitions_of_state(
    state: &BrokerState,
    name: &str,
    topic: impl FnOnce() -> NewTopic,
) -> Result<i32> {
    if let Some(topic) = state.image().topic(name) {
        return Ok(topic.partition_count());
    }
    let command = CreateTopics { topics: vec![topic()], validate_only: false };
    let unavailable = |why: &str| {
        let context = format!("{name} could not be created: {why}");
        Error::kafka(ErrorCode::CoordinatorNotAvailable, context)
    };
    let submitted = state.submit(command, CREATE_TIMEOUT_MS).await;
    let created = submitted.map_err(|error| unavailable(&error.chain()))?;
    if let Some(Err(refusal)) = created.into_iter().next()
        && refusal.code != ErrorCode::TopicAlreadyExists
    {
        return Err(unavailable(&refusal.message));
    }
    match state.image().topic(name) {
        Some(topic) => Ok(topic.partition_count()),
        None => Err(unavailable("it does not exist after its creation")),
    }
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

/// Who leads, as far as clients can be sent there.
pub(super) struct Leaders<'a> {
    /// The metadata.
    pub(super) image: &'a MetadataImage,
    doubted: BTreeSet<NodeId>,
}

impl<'a> Leaders<'a> {
    pub(super) fn of(state: &BrokerState, image: &'a MetadataImage) -> Self {
        Self { image, doubted: state.sighted().doubted() }
    }

    /// Whether clients can be sent to a leader: it is registered, not fenced, and its connection has not just ended.
    pub(super) fn has(&self, leader: NodeId) -> bool {
        is_alive(self.image, leader) && !self.doubted.contains(&leader)
    }
}

/// Those of `replicas` that cannot be reached.
pub(super) fn offline(image: &MetadataImage, replicas: &[NodeId]) -> Vec<i32> {
    replicas.iter().filter(|&&node| !is_alive(image, node)).map(|node| node.0).collect()
}

/// The brokers that are alive, as a client that came this way is told.
pub(super) fn brokers(state: &BrokerState, reached: Option<&Reached>) -> Vec<BrokerNode> {
    all_brokers(state, reached).into_iter().filter(|node| !node.fenced).collect()
}

/// All registered brokers, as a client that came this way is told: by
/// their listeners of the same name, as in Kafka.
pub(super) fn all_brokers(state: &BrokerState, reached: Option<&Reached>) -> Vec<BrokerNode> {
    let image = state.image();
    let node = |broker: &std::sync::Arc<crate::machine::metadata::BrokerImage>| {
        let (host, port) = if broker.id == state.node_id() {
            state.own_address(reached)
        } else {
            let endpoint = match reached {
                Some(reached) => broker.endpoint(reached.listener.name())?,
                None => broker.endpoints.first()?,
            };
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
    fn authorized_operations_are_kafkas_bits() {
        assert_eq!((TOPIC_OPERATIONS, CLUSTER_OPERATIONS), (3576, 8096));
    }
}
