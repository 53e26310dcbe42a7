//! A connection from this broker to another.
//!
//! The other side is asked for its versions first, so that brokers of different releases understand each other. It is
//! also the place where brokers will prove to each other who they are.

use std::collections::BTreeMap;
use std::time::Duration;

use std::sync::Arc;

use crate::connection::{Connection, unreachable};
use crate::env::Net;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::api::Call;
use crate::protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::schema::Versions;
use crate::protocol::{ApiKey, Request, Response, Str};
use crate::types::NodeId;

/// How long a connection may take to come about. A broker that is there answers within milliseconds.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// The first version of ApiVersions that names the software; every broker knows it.
const GREETING_VERSION: i16 = 3;
/// The first version of ApiVersions that says who is meant.
const MEETING_VERSION: i16 = 5;

/// Whom a connection is to reach (KIP-1242).
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting<'a> {
    /// The cluster.
    pub(super) cluster_id: &'a str,
    /// The node.
    pub(super) node_id: NodeId,
}

/// See the module. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Link {
    connection: Arc<Connection>,
    versions: BTreeMap<ApiKey, Versions>,
}

impl Link {
    /// Connects to `host:port`.
    ///
    /// # Errors
    ///
    /// There is no broker, or none that answers within a second.
    pub(super) async fn open(net: &Net, address: &str, client_id: &str) -> Result<Self> {
        let opening = tokio::time::timeout(CONNECT_MAX, Self::greet(net, address, client_id));
        opening.await.unwrap_or_else(|_elapsed| Err(unreachable(address, CONNECT_MAX)))
    }

    /// Whether this very node listens at `host:port`.
    ///
    /// # Errors
    ///
    /// As [`Link::open`]; `REBOOTSTRAP_REQUIRED` when it is another node, or one of another cluster.
    pub(super) async fn meet(
        net: &Net,
        address: &str,
        client_id: &str,
        whom: Greeting<'_>,
    ) -> Result<()> {
        let link = Self::open(net, address, client_id).await?;
        let greeting = ApiVersionsRequest {
            cluster_id: Some(Str::from(whom.cluster_id)),
            node_id: whom.node_id.0,
            ..greeting()
        };
        let told = link.at(MEETING_VERSION, &greeting.into(), CONNECT_MAX).await?;
        let told = ApiVersionsRequest::answer(told).ok_or_else(of_another_api)?;
        let code = ErrorCode::from_i16(told.error_code);
        code.into_result(format!("{address} is not node {} of this cluster", whom.node_id))
    }

    async fn greet(net: &Net, address: &str, client_id: &str) -> Result<Self> {
        let connection = Arc::new(Connection::open(net, address, client_id, CONNECT_MAX).await?);
        let mut link = Self { connection, versions: BTreeMap::new() };
        let told = link.ping(CONNECT_MAX).await?;
        let versions = told.api_keys.iter().filter_map(|line| {
            let api = ApiKey::from_i16(line.api_key)?;
            Some((api, Versions::between(line.min_version, line.max_version)))
        });
        link.versions = versions.collect();
        Ok(link)
    }

    /// Asks for a sign of life, and gets what the other side knows.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub(super) async fn ping(&self, limit: Duration) -> Result<ApiVersionsResponse> {
        let told = self.at(GREETING_VERSION, &greeting().into(), limit).await?;
        ApiVersionsRequest::answer(told).ok_or_else(of_another_api)
    }

    /// Asks, and waits for the answer for at most `limit`; then the connection is closed. Dropping the future drops the
    /// answer.
    ///
    /// # Errors
    ///
    /// The connection ended, the other side does not know the API, or what it answers is not readable.
    pub(super) async fn call<C: Call>(&self, request: C, limit: Duration) -> Result<C::Response> {
        let answer = self.exchange(&request.into(), limit).await?;
        C::answer(answer).ok_or_else(of_another_api)
    }

    /// As [`Link::call`], for a request of any API.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub(super) async fn exchange(&self, request: &Request, limit: Duration) -> Result<Response> {
        let api = request.api();
        let theirs = self.versions.get(&api).copied().unwrap_or(Versions::NONE);
        let version = api.negotiate(theirs).ok_or_else(|| {
            let context = format!("{} does not serve {api}", self.connection.address());
            Error::kafka(ErrorCode::UnsupportedVersion, context)
        })?;
        self.at(version, request, limit).await
    }

    /// Whether the other side answers requests of an API.
    pub(super) fn knows(&self, api: ApiKey) -> bool {
        self.versions.get(&api).is_some_and(|theirs| api.negotiate(*theirs).is_some())
    }

    async fn at(&self, version: i16, request: &Request, limit: Duration) -> Result<Response> {
        let answer = self.connection.start(request, version, limit, true).await?;
        answer.ok_or_else(|| Error::malformed("answer", "there is none"))
    }

    /// Whether the connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Waits until the connection has ended, for whatever reason.
    pub(super) async fn closed(&self) {
        self.connection.closed().await;
    }
}

fn greeting() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: Str::from_static("ottla"),
        client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
        ..ApiVersionsRequest::default()
    }
}

fn of_another_api() -> Error {
    Error::malformed("answer", "it is that of another API")
}
