//! A connection to another broker: one request at a time.
//!
//! Why not the client's: a follower sends one fetch and appends what it answers before it sends the next, so that nothing
//! is pipelined, and the bytes of a response go from the frame into the log. It is also the place where brokers will
//! prove to each other who they are.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::broker::frame_writer::write_some;
use crate::env::{Net, Transport};
use crate::error::{Error, Result};
use crate::protocol::api::Call;
use crate::protocol::{Request, RequestHeader, Str, frame};
use crate::types::Chunk;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// How long the other broker may be silent in the middle of an exchange.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The largest response: what was asked for, and one batch.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// How many bytes are read at least, if there are as many.
const READ_BYTES: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Peer {
    address: String,
    client_id: Str,
    stream: Transport,
    received: BytesMut,
    correlation_id: i32,
}

impl Peer {
    /// Connects to `host:port`.
    pub(super) async fn connect(net: &Net, address: &str, client_id: &str) -> Result<Self> {
        let failed = |action, source: io::Error| Error::network(action, address, source);
        let connect = async {
            let found = net.lookup(address).await.map_err(|source| failed("resolve", source))?;
            net.connect(&found).await.map_err(|source| failed("connect to", source))
        };
        let stream = tokio::time::timeout(CONNECT_MAX, connect)
            .await
            .map_err(|_elapsed| failed("connect to", io::ErrorKind::TimedOut.into()))??;
        Ok(Self {
            address: address.to_owned(),
            client_id: client_id.into(),
            stream,
            received: BytesMut::new(),
            correlation_id: 0,
        })
    }

    /// Sends a request, in the newest version that there is.
    pub(super) async fn send<C: Call>(&mut self, request: C) -> Result<()> {
        self.correlation_id = self.correlation_id.wrapping_add(1) & i32::MAX;
        let header = RequestHeader {
            api_key: C::API.to_i16(),
            api_version: C::API.versions().max,
            correlation_id: self.correlation_id,
            client_id: Some(self.client_id.clone()),
        };
        let request: Request = request.into();
        let mut out: VecDeque<Chunk> = frame::encode_request(&header, &request)?.into();
        while !out.is_empty() {
            let written = write_some(&self.stream, &mut out);
            self.within(SILENCE_MAX, "write to", written).await?;
        }
        Ok(())
    }

    /// Waits until something of the answer has arrived, which may take `patience` longer than an answer that the other
    /// broker gives at once. Cancel-safe.
    pub(super) async fn answered(&self, patience: Duration) -> Result<()> {
        if !self.received.is_empty() {
            return Ok(());
        }
        self.within(patience + SILENCE_MAX, "read from", self.stream.readable()).await
    }

    /// Takes the answer.
    pub(super) async fn receive<C: Call>(&mut self) -> Result<C::Response> {
        let body = self.next_frame().await?;
        let (header, response) = frame::decode_response(C::API, C::API.versions().max, body)?;
        if header.correlation_id != self.correlation_id {
            let (found, due) = (header.correlation_id, self.correlation_id);
            let detail = format!("correlation id {found} instead of {due}");
            return Err(Error::malformed("response", detail));
        }
        C::answer(response).ok_or_else(|| Error::malformed("response", "of another API"))
    }

    async fn next_frame(&mut self) -> Result<Bytes> {
        loop {
            if let Some(body) = frame::split(&mut self.received, FRAME_BYTES_MAX)? {
                return Ok(body);
            }
            self.within(SILENCE_MAX, "read from", self.stream.readable()).await?;
            // Twice as much as there is, so that a long frame takes few steps, and no more memory than it is long.
            self.received.reserve(READ_BYTES.max(self.received.len()));
            let room = self.received.capacity() - self.received.len();
            let read = self.stream.try_read_buf(&mut (&mut self.received).limit(room));
            let read = match read {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                read => read,
            };
            read.map_err(|source| Error::network("read from", self.address.as_str(), source))?;
        }
    }

    async fn within<T>(
        &self,
        max: Duration,
        action: &'static str,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T> {
        let done = tokio::time::timeout(max, work).await;
        let done = done.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        done.map_err(|source| Error::network(action, self.address.as_str(), source))
    }
}
