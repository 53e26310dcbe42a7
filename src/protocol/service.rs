//! [`Service`]: what answers requests, over a socket or in the same process.
//!
//! The broker implements it; connections and the in-process client call it. It lives here, below
//! both, so that the client needs to know nothing of the broker.

use std::fmt;
use std::net::SocketAddr;

use futures::future::BoxFuture;

use crate::error::Result;
use crate::protocol::api::{Request, Response};
use crate::protocol::primitives::Str;

/// Distinguishes connections within one process; in-process clients have one too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Who asks, and how.
#[derive(Clone, Debug, Default)]
pub struct RequestContext {
    /// The connection that the request came over.
    pub connection: ConnectionId,
    /// The version of the request, which is also that of the response.
    pub api_version: i16,
    /// The name that the client gives itself.
    pub client_id: Option<Str>,
    /// The name of the client's software, once it has sent it in ApiVersions 3 or later (KIP-511).
    pub client_software_name: Option<Str>,
    /// The version of that software.
    pub client_software_version: Option<Str>,
    /// The name of the listener that accepted the connection; `None` in-process.
    pub listener: Option<Str>,
    /// The local address of the connection, by which the client knows us; `None`
    /// in-process.
    pub local_address: Option<SocketAddr>,
    /// The remote address of the connection; `None` in-process.
    pub peer_address: Option<SocketAddr>,
}

/// The pending answer.
pub type ServiceFuture = BoxFuture<'static, Result<Option<Response>>>;

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    ///
    /// `Ok(None)` means that the protocol has no answer (Produce with `acks=0`). An error closes
    /// the connection; whatever the client is to be told goes into the response.
    ///
    /// Order: effects on a partition happen in the order of the calls of one connection, so the
    /// part that determines the order must run within the call, before the future is first polled.
    fn call(&self, context: RequestContext, request: Request) -> ServiceFuture;
}
