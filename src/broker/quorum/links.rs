//! Connections to the other nodes of the quorum.
//!
//! A node is reached by up to three connections, since answers come in the order of the requests and must not wait for
//! each other: *control* (votes, epochs), *fetch*, which may wait for news, and *commands*, which wait until they are
//! committed. Each is made when it is first needed and again after it was lost. A connection is a [`Link`].
//!
//! Nothing is repeated here: the machine says when to ask again, the submitter what may be sent twice.
//!
//! Invariants:
//! - `LINK-1` every call ends: after [`CALL_MAX`], and for a fetch after the time that it may wait, in addition.
//! - `LINK-2` a command that is refused with NOT_CONTROLLER was not sent, or the other node says that it does not lead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;

use super::frames;
use super::peers::{Peers, Target};
use crate::broker::connection::BoxFuture;
use crate::broker::link::Link;
use crate::config::BrokerConfig;
use crate::env::Net;
use crate::error::{Error, ErrorCode, Result};
use crate::log::LogDirectory;
use crate::machine::controller::{AnyCommand, CommandAnswer};
use crate::machine::quorum::{Leader, Peer, Request, Response};
use crate::protocol::messages::envelope::EnvelopeRequest;
use crate::protocol::{self, ApiKey};
use crate::types::NodeId;

/// How long a call may take, from the connection on.
const CALL_MAX: Duration = Duration::from_secs(2);
/// How long a command may take until it is committed.
const COMMAND_MAX: Duration = Duration::from_secs(30);

/// Who sends a command: the principal of an Envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::broker) struct Sender {
    /// The node.
    pub(in crate::broker) node_id: NodeId,
    /// Its cluster, once it knows it.
    pub(in crate::broker) cluster_id: Option<String>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Control,
    Fetch,
    Commands,
}

type Slot = Arc<AsyncMutex<Option<Arc<Link>>>>;

/// The way to the other nodes.
#[derive(Debug)]
pub(super) struct Links {
    net: Net,
    node_id: NodeId,
    client_id: String,
    /// Where the configuration says that the nodes listen. It counts more than what is recorded in the log, which may be
    /// from before they moved.
    listed: BTreeMap<NodeId, String>,
    /// Whom the configuration says to ask for a cluster to join.
    bootstrap: Vec<String>,
    /// It says to which cluster this node belongs, as soon as that is known. Whoever closes it closes this.
    directory: Weak<LogDirectory>,
    slots: Arc<Mutex<BTreeMap<(String, Lane), Slot>>>,
}

impl Links {
    pub(super) fn new(
        net: Net,
        node_id: NodeId,
        config: &BrokerConfig,
        directory: &Arc<LogDirectory>,
    ) -> Self {
        let client_id = format!("ottla-node-{node_id}");
        let listed = config.other_voters().map(|voter| (NodeId(voter.id), voter.address()));
        let (listed, directory) = (listed.collect(), Arc::downgrade(directory));
        let bootstrap = config.bootstrap_servers.clone();
        Self { net, node_id, client_id, listed, bootstrap, directory, slots: Arc::default() }
    }

    fn cluster_id(&self) -> Option<String> {
        self.directory.upgrade().and_then(|directory| directory.meta().cluster_id)
    }

    fn address(&self, target: &Target) -> Result<String> {
        if let Peer::Node(id) = target.peer
            && let Some(address) = self.listed.get(&id)
        {
            return Ok(address.clone());
        }
        if let Peer::Bootstrap(place) = target.peer
            && let Some(address) = self.bootstrap.get(place)
        {
            return Ok(address.clone());
        }
        let endpoint = target.endpoints.first().ok_or_else(|| {
            let node = target.peer;
            Error::invalid(format!("it is not known where {node:?} of the metadata quorum listens"))
        })?;
        Ok(endpoint.address())
    }

    /// The connection to an address, which is made if there is none.
    fn link(
        &self,
        address: String,
        lane: Lane,
    ) -> impl Future<Output = Result<Arc<Link>>> + 'static {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry((address.clone(), lane)).or_default())
        };
        let (net, client_id) = (self.net.clone(), self.client_id.clone());
        async move {
            let mut link = slot.lock().await;
            if let Some(link) = link.as_ref().filter(|link| !link.is_closed()) {
                return Ok(Arc::clone(link));
            }
            *link = None;
            let opened = Link::open(&net, &address, &client_id).await;
            let opened = Arc::new(opened?);
            *link = Some(Arc::clone(&opened));
            Ok(opened)
        }
    }
}

/// How a command travels.
#[derive(Debug)]
enum Form {
    /// As Kafka's request.
    Frame(protocol::Request),
    /// As ottla's own.
    Envelope(EnvelopeRequest),
}

/// Kafka has a request for what brokers say of themselves; a node of an earlier release does not know it.
fn form(command: &AnyCommand, sender: &Sender, knows: impl Fn(ApiKey) -> bool) -> Result<Form> {
    let frame = frames::command_request(command).filter(|request| knows(request.api()));
    if let Some(request) = frame {
        return Ok(Form::Frame(request));
    }
    Ok(Form::Envelope(EnvelopeRequest {
        request_data: command.encode()?.into(),
        request_principal: serde_json::to_vec(sender).ok().map(Bytes::from),
        ..EnvelopeRequest::default()
    }))
}

impl Peers for Links {
    fn call(&self, to: Target, request: Request) -> BoxFuture<Result<Response<Bytes>>> {
        let (lane, limit) = match &request {
            Request::Fetch(fetch) => (Lane::Fetch, fetch.max_wait + CALL_MAX),
            Request::FetchSnapshot(_) => (Lane::Fetch, CALL_MAX),
            _ => (Lane::Control, CALL_MAX),
        };
        let link = self.address(&to).map(|address| self.link(address, lane));
        let frame = frames::request(self.cluster_id().as_deref(), &request);
        Box::pin(async move {
            let link = link?.await?;
            let answer = link.exchange(&frame, limit).await?;
            frames::read_answer(&request, answer)
        })
    }

    fn forward(&self, leader: Leader, command: AnyCommand) -> BoxFuture<Result<CommandAnswer>> {
        let to = Target { peer: Peer::Node(leader.id), endpoints: leader.endpoints };
        let link = self.address(&to).map(|address| self.link(address, Lane::Commands));
        let sender = Sender { node_id: self.node_id, cluster_id: self.cluster_id() };
        Box::pin(async move {
            let not_sent = |error: Error| {
                let context = format!("node {}, which leads, was not reached", leader.id);
                Error::kafka(ErrorCode::NotController, context).because(Some(Arc::new(error)))
            };
            let link = link.map_err(not_sent)?.await.map_err(not_sent)?;
            match form(&command, &sender, |api| link.knows(api))? {
                Form::Frame(request) => {
                    let response = link.exchange(&request, COMMAND_MAX).await?;
                    frames::read_command_answer(&command, response)
                }
                Form::Envelope(envelope) => {
                    let answer = link.call(envelope, COMMAND_MAX).await?;
                    let code = ErrorCode::from_i16(answer.error_code);
                    code.into_result(format!("node {} refused a command", leader.id))?;
                    CommandAnswer::decode(&answer.response_data.unwrap_or_default())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::controller::{AllocateProducerIds, UnregisterBroker};
    use crate::types::BrokerEpoch;

    #[test]
    fn a_node_of_an_earlier_release_gets_an_envelope() {
        let sender = Sender { node_id: NodeId(2), cluster_id: Some("c".to_owned()) };
        let ids = AllocateProducerIds { broker: NodeId(2), epoch: BrokerEpoch(3) };
        let ids = AnyCommand::AllocateProducerIds(ids);
        let known = form(&ids, &sender, |api| api == ApiKey::AllocateProducerIds).unwrap();
        assert!(matches!(known, Form::Frame(_)), "{known:?}");
        for (command, knows) in
            [(ids, false), (AnyCommand::UnregisterBroker(UnregisterBroker { id: NodeId(1) }), true)]
        {
            let Form::Envelope(envelope) = form(&command, &sender, |_| knows).unwrap() else {
                panic!("a frame for {command:?}")
            };
            assert_eq!(AnyCommand::decode(&envelope.request_data).unwrap(), command);
        }
    }
}
