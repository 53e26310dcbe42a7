//! [`Service`]: what answers requests, over a socket or in the same process.
//!
//! The broker implements it; connections and the in-process client call it. It lives here, below
//! both, so that the client needs to know nothing of the broker.

use futures::future::BoxFuture;

use crate::error::Result;
use crate::protocol::api::{Request, Response};
use crate::protocol::primitives::Str;

/// The pending answer.
pub type ServiceFuture = BoxFuture<'static, Result<Option<Response>>>;

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request of a version, in that version.
    ///
    /// `client_id` is the name that the client gives itself; all else that is known of the caller is
    /// known to the broker, and never said by the client.
    ///
    /// `Ok(None)` means that the protocol has no answer (Produce with `acks=0`). An error closes
    /// the connection; whatever the client is to be told goes into the response.
    ///
    /// Order: effects on a partition happen in the order of the calls of one connection, so the
    /// part that determines the order must run within the call, before the future is first polled.
    fn call(&self, client_id: &Str, version: i16, request: Request) -> ServiceFuture;
}
