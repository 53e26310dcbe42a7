//! The other nodes of the cluster, and where they listen.
//!
//! A node that starts alone may be joined by others at any time, so whether there are any is asked of what the cluster
//! says, and not of the settings alone.

use std::collections::BTreeMap;

use super::state::BrokerState;
use crate::types::NodeId;

impl BrokerState {
    /// Whether there are other nodes, or should be: the controller may be on one of them, and wants to hear from this
    /// broker.
    pub(super) fn has_peers(&self) -> bool {
        self.config().has_peers() || self.was_joined()
    }

    /// Whether others belong to the cluster, whatever the settings say.
    pub(super) fn was_joined(&self) -> bool {
        let is_other = |id: NodeId| id != self.node_id();
        self.metadata().image().brokers().any(|broker| is_other(broker.id))
            || self.metadata().voters().iter().any(|voter| is_other(voter.key.id))
    }

    /// Every other node, with the address at which this one reaches it: what the settings say counts more than what is
    /// recorded, which may be from before the node moved.
    pub(super) fn other_nodes(&self) -> BTreeMap<NodeId, String> {
        let (config, image) = (self.config(), self.metadata().image());
        let voters = self.metadata().voters();
        let mut nodes = BTreeMap::new();
        for broker in image.brokers() {
            let endpoint = broker.endpoint(&config.replication.inter_broker_listener);
            if let Some(endpoint) = endpoint.or(broker.endpoints.first()) {
                nodes.insert(broker.id, endpoint.address());
            }
        }
        for voter in voters.iter() {
            if let Some(endpoint) = voter.endpoints.first() {
                nodes.insert(voter.key.id, endpoint.address());
            }
        }
        for voter in config.other_voters() {
            nodes.insert(NodeId(voter.id), voter.address());
        }
        nodes.remove(&self.node_id());
        nodes
    }

    /// Where this node reaches another.
    pub(super) fn address_of(&self, node: NodeId) -> Option<String> {
        self.other_nodes().remove(&node)
    }
}
