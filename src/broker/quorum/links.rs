//! Connections to the other nodes of the quorum.
//!
//! A node is reached by up to three connections, since answers come in the order of the requests and must not wait for
//! each other: *control* (votes, epochs), *fetch*, which may wait for news, and *commands*, which wait until they are
//! committed. Each is made when it is first needed and again after it was lost. On a new connection the other side is
//! asked for its versions, so that nodes of different releases understand each other.
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
use crate::connection::{Connection, unreachable};
use crate::env::Net;
use crate::error::{Error, ErrorCode, Result};
use crate::log::LogDirectory;
use crate::machine::quorum::{Leader, Peer, Request, Response};
use crate::protocol::messages::api_versions::ApiVersionsRequest;
use crate::protocol::messages::envelope::EnvelopeRequest;
use crate::protocol::schema::Versions;
use crate::protocol::{self, ApiKey, Str};
use crate::types::NodeId;

/// How long a call may take, from the connection on.
const CALL_MAX: Duration = Duration::from_secs(2);
/// How long a connection may take. A node that is there answers within milliseconds.
const CONNECT_MAX: Duration = Duration::from_millis(500);
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

/// A connection, and what the other side understands.
#[derive(Debug)]
struct Link {
    connection: Arc<Connection>,
    versions: BTreeMap<ApiKey, Versions>,
}

impl Link {
    async fn open(net: &Net, address: &str, client_id: &str) -> Result<Self> {
        let connection = Arc::new(Connection::open(net, address, client_id, CONNECT_MAX).await?);
        let greeting = ApiVersionsRequest {
            client_software_name: Str::from_static("ottla"),
            client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
            ..ApiVersionsRequest::default()
        };
        // Version 3 is the first that names the software, and known to all.
        let asked = connection.start(&greeting.into(), 3, CONNECT_MAX, true).await?;
        let Some(protocol::Response::ApiVersions(told)) = asked else {
            return Err(Error::malformed("answer to ApiVersions", "it is that of another API"));
        };
        let versions = told.api_keys.iter().filter_map(|line| {
            let api = ApiKey::from_i16(line.api_key)?;
            Some((api, Versions::between(line.min_version, line.max_version)))
        });
        Ok(Self { connection, versions: versions.collect() })
    }

    async fn call(
        &self,
        request: &protocol::Request,
        limit: Duration,
    ) -> Result<protocol::Response> {
        let api = request.api();
        let theirs = self.versions.get(&api).copied().unwrap_or(Versions::NONE);
        let version = api.negotiate(theirs).ok_or_else(|| {
            let context = format!("{} does not serve {api}", self.connection.address());
            Error::kafka(ErrorCode::UnsupportedVersion, context)
        })?;
        let answer = self.connection.start(request, version, limit, true).await?;
        answer.ok_or_else(|| Error::malformed("answer", "there is none"))
    }
}

type Slot = Arc<AsyncMutex<Option<Arc<Link>>>>;

/// The way to the other nodes.
#[derive(Debug)]
pub(super) struct Links {
    net: Net,
    node_id: NodeId,
    client_id: String,
    /// The addresses that the configuration lists, in its order.
    bootstrap: Vec<String>,
    /// It says to which cluster this node belongs, as soon as that is known. Whoever closes it closes this.
    directory: Weak<LogDirectory>,
    slots: Arc<Mutex<BTreeMap<(String, Lane), Slot>>>,
}

impl Links {
    pub(super) fn new(
        net: Net,
        node_id: NodeId,
        bootstrap: Vec<String>,
        directory: &Arc<LogDirectory>,
    ) -> Self {
        let client_id = format!("ottla-node-{node_id}");
        let directory = Arc::downgrade(directory);
        Self { net, node_id, client_id, bootstrap, directory, slots: Arc::default() }
    }

    fn cluster_id(&self) -> Option<String> {
        self.directory.upgrade().and_then(|directory| directory.meta().cluster_id)
    }

    fn address(&self, target: &Target) -> Result<String> {
        if let Some(endpoint) = target.endpoints.first() {
            return Ok(host_and_port(&endpoint.host, endpoint.port));
        }
        let listed = match target.peer {
            Peer::Bootstrap(place) => self.bootstrap.get(place).cloned(),
            Peer::Node(_) => None,
        };
        listed.ok_or_else(|| {
            let text =
                format!("it is not known where {:?} of the metadata quorum listens", target.peer);
            Error::invalid(text)
        })
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
            if let Some(link) = link.as_ref().filter(|link| !link.connection.is_closed()) {
                return Ok(Arc::clone(link));
            }
            *link = None;
            let opening =
                tokio::time::timeout(2 * CONNECT_MAX, Link::open(&net, &address, &client_id));
            let opened =
                opening.await.unwrap_or_else(|_elapsed| Err(unreachable(&address, CONNECT_MAX)));
            let opened = Arc::new(opened?);
            *link = Some(Arc::clone(&opened));
            Ok(opened)
        }
    }
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
            let answer = link.call(&frame, limit).await?;
            frames::read_answer(&request, answer)
        })
    }

    fn forward(&self, leader: Leader, command: Vec<u8>) -> BoxFuture<Result<Vec<u8>>> {
        let to = Target { peer: Peer::Node(leader.id), endpoints: leader.endpoints };
        let link = self.address(&to).map(|address| self.link(address, Lane::Commands));
        let sender = Sender { node_id: self.node_id, cluster_id: self.cluster_id() };
        let envelope = EnvelopeRequest {
            request_data: command.into(),
            request_principal: serde_json::to_vec(&sender).ok().map(Bytes::from),
            ..EnvelopeRequest::default()
        };
        Box::pin(async move {
            let not_sent = |error: Error| {
                let context = format!("node {}, which leads, was not reached", leader.id);
                Error::kafka(ErrorCode::NotController, context).because(Some(Arc::new(error)))
            };
            let link = link.map_err(not_sent)?.await.map_err(not_sent)?;
            match link.call(&envelope.into(), COMMAND_MAX).await? {
                protocol::Response::Envelope(body) => {
                    let code = ErrorCode::from_i16(body.error_code);
                    if !code.is_ok() {
                        let context = format!("node {} refused a command", leader.id);
                        return Err(Error::kafka(code, context));
                    }
                    Ok(body.response_data.unwrap_or_default().into())
                }
                _ => Err(Error::malformed("answer to Envelope", "it is that of another API")),
            }
        })
    }
}

fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
