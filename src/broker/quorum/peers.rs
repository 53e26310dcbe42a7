//! The way to the other nodes of the quorum, as the driver sees it.
//!
//! The driver knows whom it wants to ask, and where that node listens; how a connection is made and what a request looks
//! like on it is behind [`Peers`]. The other way round, a connection brings what other nodes ask to
//! [`Quorum::handle`](super::Quorum::handle) and [`Quorum::arrived`](super::Quorum::arrived).

use std::fmt::Debug;

use bytes::Bytes;

use crate::broker::connection::BoxFuture;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::{AnyCommand, CommandAnswer};
use crate::machine::metadata::Endpoint;
use crate::machine::quorum::{Leader, Peer, Request, Response};

/// Another node of the quorum, or an address at which there should be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Target {
    /// The node, or the place in the list of addresses that the configuration has.
    pub(in crate::broker) peer: Peer,
    /// Where the node listens; nothing for an address of the configuration.
    pub(in crate::broker) endpoints: Vec<Endpoint>,
}

/// The other nodes. What is called may take its time, but every call must end.
pub(in crate::broker) trait Peers: Send + Sync + Debug {
    /// Asks a node. The payload of a record is the value of its entry, as it lies in the log (see `entry`).
    ///
    /// The place, time and position of the request are repeated in the response, as the machine wants it.
    fn call(&self, to: Target, request: Request) -> BoxFuture<Result<Response<Bytes>>>;

    /// Has the leader carry out a command; what it answers is for the one who asked.
    ///
    /// # Errors
    ///
    /// `NOT_CONTROLLER` where the command certainly was not proposed: there was no connection, or the other node says so.
    /// Anything else where it may have been.
    fn forward(&self, leader: Leader, command: AnyCommand) -> BoxFuture<Result<CommandAnswer>>;
}

/// No other nodes: a quorum of one never asks any.
#[derive(Debug)]
pub(super) struct Nobody;

impl Nobody {
    fn unreachable<T: Send + 'static>() -> BoxFuture<Result<T>> {
        let text = "metadata traffic between nodes is not served yet";
        Box::pin(async move { Err(Error::kafka(ErrorCode::NotController, text)) })
    }
}

impl Peers for Nobody {
    fn call(&self, _to: Target, _request: Request) -> BoxFuture<Result<Response<Bytes>>> {
        Self::unreachable()
    }

    fn forward(&self, _leader: Leader, _command: AnyCommand) -> BoxFuture<Result<CommandAnswer>> {
        Self::unreachable()
    }
}
