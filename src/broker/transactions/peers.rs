//! One connection to each other node, for one purpose.
//!
//! Answers on a connection come in order, so what may take long has connections of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::broker::link::Link;
use crate::broker::state::BrokerState;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::api::Call;
use crate::types::NodeId;

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Peers {
    purpose: &'static str,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
}

/// The connection to one node. The lock is held while it is made: all who want it wait for the same one.
#[derive(Debug, Default)]
struct Peer {
    link: tokio::sync::Mutex<Option<(String, Arc<Link>)>>,
}

impl Peers {
    /// Nobody is connected yet. The purpose becomes part of the client id.
    pub(in crate::broker) fn new(purpose: &'static str) -> Self {
        Self { purpose, peers: Mutex::default() }
    }

    /// Asks another node, for at most `limit`.
    ///
    /// # Errors
    ///
    /// It is not known, cannot be reached, or did not answer.
    pub(in crate::broker) async fn call<C: Call>(
        &self,
        state: &BrokerState,
        node: NodeId,
        request: C,
        limit: Duration,
    ) -> Result<C::Response> {
        let link = self.link(state, node).await?;
        link.call(request, limit).await
    }

    async fn link(&self, state: &BrokerState, node: NodeId) -> Result<Arc<Link>> {
        let image = state.image();
        let listener = &state.config().replication.inter_broker_listener;
        let broker = image.broker(node).and_then(|broker| broker.endpoint(listener));
        let Some(endpoint) = broker else {
            let context = format!("node {node} is not known");
            return Err(Error::kafka(ErrorCode::BrokerNotAvailable, context));
        };
        let address = endpoint.address();
        let peer = {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            peers.retain(|node, _| image.broker(*node).is_some());
            Arc::clone(peers.entry(node).or_default())
        };
        let mut known = peer.link.lock().await;
        if let Some((at, link)) = &*known
            && *at == address
            && !link.is_closed()
        {
            return Ok(Arc::clone(link));
        }
        let client_id = format!("broker-{}-{}", state.node_id(), self.purpose);
        let link = Arc::new(Link::open(&state.env().net, &address, &client_id).await?);
        *known = Some((address, Arc::clone(&link)));
        Ok(link)
    }
}
