//! How a request reaches a broker: over TCP, or as a value in the same process.
//!
//! Everything above this file is the same for both. In process, nothing is encoded: a produce
//! passes its record sets, a fetch returns mapped files.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::client::config::ClientConfig;
use crate::client::errors;
use crate::client::obstacles::{self, Obstacles};
use crate::connection::Connection;
use crate::env::Net;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::api::Call;
use crate::protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::schema::Versions;
use crate::protocol::{ApiKey, Request, Response, Service, Str};

/// The software name sent to brokers (KIP-511).
const SOFTWARE_NAME: &str = "ottla";

/// A route to one broker, with the versions that it supports.
#[derive(Debug)]
pub(crate) struct Route {
    kind: Kind,
    versions: BTreeMap<ApiKey, Versions>,
    features: ApiVersionsResponse,
}

enum Kind {
    Tcp(Arc<Connection>),
    Local { service: Arc<dyn Service>, client_id: Str },
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(connection) => connection.fmt(formatter),
            Self::Local { client_id, .. } => formatter
                .debug_struct("Local")
                .field("client_id", client_id)
                .finish_non_exhaustive(),
        }
    }
}

impl Route {
    /// Connects and asks for the versions, within `socket.connection.setup.timeout.ms`; notes what
    /// is in the way.
    pub(crate) async fn tcp(
        net: &Net,
        address: &str,
        config: &ClientConfig,
        noted: &Arc<Obstacles>,
    ) -> Result<Self> {
        let attempt = noted.attempt(address);
        let started = Instant::now();
        let timeout = config.connect_timeout;
        let opening = async {
            let connection = Connection::open(net, address, &config.client_id, timeout).await?;
            attempt.connected();
            let left = timeout.saturating_sub(started.elapsed());
            let greeting = Self::greet(Kind::Tcp(Arc::new(connection)), config);
            let greeted = tokio::time::timeout(left, greeting).await;
            greeted.unwrap_or_else(|_elapsed| Err(obstacles::silent(address, timeout)))
        };
        let opened = opening.await;
        attempt.end(&opened);
        opened
    }

    /// Opens an in-process connection and asks for the versions.
    pub(crate) async fn local(service: Arc<dyn Service>, config: &ClientConfig) -> Result<Self> {
        let client_id = Str::from(config.client_id.as_str());
        Self::greet(Kind::Local { service, client_id }, config).await
    }

    async fn greet(kind: Kind, config: &ClientConfig) -> Result<Self> {
        let timeout = config.request_timeout;
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static(SOFTWARE_NAME),
            client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
            ..ApiVersionsRequest::default()
        };
        let mut version = ApiKey::ApiVersions.versions().max;
        // A broker that does not know this version says so in the form of version 0, since Kafka
        // 2.4 with the range that it knows.
        let response = loop {
            let request = request.clone();
            let response = kind.call::<ApiVersionsRequest>(request, version, timeout).await?;
            let code = ErrorCode::from_i16(response.error_code);
            if code.is_ok() {
                break response;
            }
            if version == 0 || code != ErrorCode::UnsupportedVersion {
                return Err(Error::kafka(code, format!("ApiVersions of {kind}")));
            }
            let own = ApiKey::ApiVersions.to_i16();
            let known = response.api_keys.iter().find(|line| line.api_key == own);
            version = known.map_or(0, |line| line.max_version.clamp(0, version - 1));
        };
        let versions = response
            .api_keys
            .iter()
            .filter_map(|line| {
                let range = Versions::between(line.min_version, line.max_version);
                Some((ApiKey::from_i16(line.api_key)?, range))
            })
            .collect();
        Ok(Self { kind, versions, features: response })
    }

    /// The answer of ApiVersions.
    pub(crate) const fn api_versions(&self) -> &ApiVersionsResponse {
        &self.features
    }

    /// What the other side has not answered for how long, if there is anything.
    pub(crate) fn silence(&self) -> Option<(Duration, Error)> {
        let Kind::Tcp(connection) = &self.kind else { return None };
        let (api, waited) = connection.unanswered()?;
        let address = connection.address();
        let detail = format!("it has not answered {api} for {:.1} s", waited.as_secs_f64());
        let source = io::Error::new(io::ErrorKind::TimedOut, detail);
        Some((waited, Error::network("get an answer from", address, source)))
    }

    /// Closes a connection whose broker is not in the cluster any more: everything that waits for it fails.
    pub(crate) fn give_up(&self) {
        if let Kind::Tcp(connection) = &self.kind {
            connection.give_up("it does not answer, and is not in the cluster any more");
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match &self.kind {
            Kind::Tcp(connection) => connection.is_closed(),
            Kind::Local { .. } => false,
        }
    }

    /// The newest version of an API that both sides know.
    pub(crate) fn version(&self, api: ApiKey) -> Result<i16> {
        let peer = self.versions.get(&api).copied().unwrap_or(Versions::NONE);
        api.negotiate(peer).ok_or_else(|| {
            let context = format!(
                "{} serves {api} at versions {peer}; this client knows {}",
                self.kind,
                api.versions()
            );
            errors::unsupported(context)
        })
    }

    /// Sends a request at the newest common version and waits for its answer.
    pub(crate) async fn call<C: Call>(&self, request: C, timeout: Duration) -> Result<C::Response> {
        let version = self.version(C::API)?;
        self.kind.call(request, version, timeout).await
    }

    /// Sends a request at a version of the caller's choice and waits for its answer.
    pub(crate) async fn call_at<C: Call>(
        &self,
        request: C,
        version: i16,
        timeout: Duration,
    ) -> Result<C::Response> {
        self.kind.call(request, version, timeout).await
    }

    /// Starts a request and returns the wait for its answer (`None` when it has none). Requests
    /// reach the broker in the order of these calls.
    pub(crate) fn start<C: Call>(
        &self,
        request: C,
        version: i16,
        timeout: Duration,
        answered: bool,
    ) -> BoxFuture<'static, Result<Option<C::Response>>> {
        let response = self.kind.start(request.into(), version, timeout, answered);
        Box::pin(async move { response.await?.map(answer::<C>).transpose() })
    }
}

fn answer<C: Call>(response: Response) -> Result<C::Response> {
    C::answer(response).ok_or_else(|| Error::malformed("response", "it answers another API"))
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(connection) => write!(formatter, "the broker at {}", connection.address()),
            Self::Local { .. } => formatter.write_str("the broker in this process"),
        }
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(formatter)
    }
}

impl Kind {
    async fn call<C: Call>(
        &self,
        request: C,
        version: i16,
        timeout: Duration,
    ) -> Result<C::Response> {
        let response = self.start(request.into(), version, timeout, true).await?;
        answer::<C>(response.ok_or_else(|| Error::malformed("response", "it is missing"))?)
    }

    fn start(
        &self,
        request: Request,
        version: i16,
        timeout: Duration,
        answered: bool,
    ) -> BoxFuture<'static, Result<Option<Response>>> {
        match self {
            Self::Tcp(connection) => connection.start(&request, version, timeout, answered),
            Self::Local { service, client_id } => {
                let api = request.api();
                let response = service.call(client_id, version, request);
                Box::pin(async move {
                    tokio::time::timeout(timeout, response).await.unwrap_or_else(|_| {
                        let what = format!("{api} request to the broker in this process");
                        Err(Error::timeout(what, timeout))
                    })
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::ClientConfig;

    /// What a client says of a server that sends some bytes and closes.
    async fn said_of(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            // Reads to the end, so that the connection is not reset while the answer is on its way.
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
        });
        let error = Route::tcp(&Net::Real, &address, &ClientConfig::default(), &Arc::default())
            .await
            .unwrap_err();
        server.await.unwrap();
        error.chain().replace(&address, "ADDRESS")
    }

    #[tokio::test]
    async fn who_speaks_another_protocol_is_told_from_a_broker() {
        let begins = "could not read from ADDRESS: it ";
        for (answer, told) in [
            (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "answers in HTTP: this is not a Kafka"),
            (b"\x15\x03\x01\x00\x02\x02\x0a", "answers in TLS: this listener requires"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "answers in SSH"),
            (b"220 mail.example.org ESMTP\r\n", "answers with [32, 32, 30, 20]"),
            (b"", "closed the connection without an answer"),
        ] {
            let said = said_of(answer).await;
            assert!(said.starts_with(&format!("{begins}{told}")), "{said}");
        }
    }
}
