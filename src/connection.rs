//! One TCP connection to a broker: requests pipelined, answers in order. Clients have them, and brokers among themselves.
//!
//! Two tasks own the halves of the socket. The writer takes frames from a bounded queue and records
//! what it sent; the reader matches each answer to the oldest record. When either ends, the
//! connection is closed and every caller still waiting gets a network error. A request that times
//! out closes it too: the protocol answers in order, so nothing after it can be answered earlier.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::env::{Net, ReadHalf, WriteHalf};
use crate::error::{Error, Result};
use crate::protocol::{ApiKey, Request, RequestHeader, Response, ResponseHeader, Str, frame};
use crate::types::Chunk;

/// How many requests may wait for the writer of one connection.
const QUEUE_REQUESTS_MAX: usize = 64;

/// The largest frame that is accepted. Fetch responses are limited to `fetch.max.bytes` plus one
/// batch; nothing else comes close.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// The largest first answer, which lists the APIs of the broker; a larger number at its start means
/// another protocol.
const GREETING_BYTES_MAX: usize = 1 << 20;

/// Up to this size, the memory for a frame is reserved when it is announced; above it, as it
/// arrives.
const RESERVE_BYTES_MAX: usize = 64 << 20;

struct Waiting {
    since: Instant,
    correlation_id: i32,
    api: ApiKey,
    version: i16,
    answer: oneshot::Sender<Result<Response>>,
}

struct Outgoing {
    frames: Vec<Chunk>,
    waiting: Option<Waiting>,
    /// Signalled once the operating system has the bytes, for requests without an answer.
    written: Option<oneshot::Sender<Result<Response>>>,
}

/// The state that the tasks and the callers share.
struct Shared {
    address: String,
    waiting: Mutex<VecDeque<Waiting>>,
    closed: CancellationToken,
    /// The first reason for closing it; later ones are consequences.
    failure: OnceLock<Error>,
    trust: AtomicU8,
}

/// How much the other side has proved to be a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Nothing has arrived from it yet.
    None,
    /// It has answered ApiVersions, as every Kafka listener does.
    Greeted,
    /// It answers requests.
    Full,
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes, and tells everyone who waits why.
    fn close(&self, error: &Error) {
        let error = self.failure.get_or_init(|| error.clone());
        self.closed.cancel();
        for waiting in std::mem::take(&mut *self.queue()) {
            waiting.answer.send(Err(error.clone())).ok();
        }
    }

    fn failed(&self, action: &'static str, source: impl Into<io::Error>) -> Error {
        Error::network(action, self.address.as_str(), source)
    }

    /// Why the other side ended the connection, judging by its answers.
    fn read_failed(&self, error: io::Error) -> Error {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            return self.failed("read from", error);
        }
        let detail = match self.trust() {
            Trust::None => {
                "it closed the connection without an answer; is it a Kafka listener, without TLS?"
            }
            Trust::Greeted => {
                "it closed the connection at the first request; a listener that requires SASL does \
                 that, and SASL is not supported yet"
            }
            Trust::Full => "the broker closed the connection",
        };
        self.failed("read from", io::Error::new(error.kind(), detail))
    }

    fn trust(&self) -> Trust {
        match self.trust.load(Ordering::Relaxed) {
            0 => Trust::None,
            1 => Trust::Greeted,
            _ => Trust::Full,
        }
    }

    /// Called when an answer has been decoded.
    fn answered(&self, api: ApiKey) {
        let trust = if api == ApiKey::ApiVersions { 1 } else { 2 };
        self.trust.fetch_max(trust, Ordering::Relaxed);
    }
}

/// A connection. Closes when it is dropped.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
    correlation: AtomicI32,
    client_id: Option<Str>,
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("address", &self.shared.address)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to `host:port`, trying every address of the name.
    pub(crate) async fn open(
        net: &Net,
        address: &str,
        client_id: &str,
        timeout: Duration,
    ) -> Result<Self> {
        let failed = |action, source: io::Error| Error::network(action, address, source);
        let connect = async {
            let found = net.lookup(address).await;
            let found = found.map_err(|source| failed("resolve", source))?;
            let stream = net.connect(&found).await;
            stream.map_err(|source| failed("connect to", source))
        };
        let stream = tokio::time::timeout(timeout, connect)
            .await
            .map_err(|_elapsed| unreachable(address, timeout))??;
        let (reading, writing) = stream.into_split();
        let (outgoing, incoming) = mpsc::channel(QUEUE_REQUESTS_MAX);
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            waiting: Mutex::new(VecDeque::new()),
            closed: CancellationToken::new(),
            failure: OnceLock::new(),
            trust: AtomicU8::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(write_requests(Arc::clone(&shared), writing, incoming));
        tasks.spawn(read_responses(Arc::clone(&shared), reading));
        Ok(Self {
            shared,
            outgoing,
            correlation: AtomicI32::new(0),
            client_id: Some(Str::from(client_id)),
            _tasks: tasks,
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.shared.address
    }

    /// The oldest request that waits for its answer, and for how long.
    pub(crate) fn unanswered(&self) -> Option<(ApiKey, Duration)> {
        self.shared.queue().front().map(|waiting| (waiting.api, waiting.since.elapsed()))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// Closes the connection; everything that waits for an answer is told this reason.
    pub(crate) fn give_up(&self, reason: &'static str) {
        let source = io::Error::new(io::ErrorKind::TimedOut, reason);
        self.shared.close(&self.shared.failed("read from", source));
    }

    /// Waits until the connection has ended, for whatever reason.
    pub(crate) async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Passes a request to the writer and returns a future of its answer (`None`, once it is
    /// written, when it has none). Requests are written in the order of these calls, unless more
    /// than the queue holds are started at once.
    pub(crate) fn start(
        self: &Arc<Self>,
        request: &Request,
        version: i16,
        timeout: Duration,
        answered: bool,
    ) -> BoxFuture<'static, Result<Option<Response>>> {
        let api = request.api();
        let (outgoing, answered_by) = match self.outgoing(request, version, answered) {
            Ok(started) => started,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let this = Arc::clone(self);
        let queued = match self.outgoing.try_send(outgoing) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(outgoing)) => Some(outgoing),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Box::pin(std::future::ready(Err(self.gone())));
            }
        };
        Box::pin(async move {
            let exchange = async {
                if let Some(outgoing) = queued {
                    this.outgoing.send(outgoing).await.map_err(|_closed| this.gone())?;
                }
                match answered_by.await {
                    Ok(result) => result.map(Some),
                    Err(_) if answered => Err(this.gone()),
                    // Dropped without an error: it was written, and has no answer.
                    Err(_) => Ok(None),
                }
            };
            tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
                this.shared.close(&this.shared.failed("read from", io::ErrorKind::TimedOut));
                Err(Error::timeout(format!("{api} request to {}", this.shared.address), timeout))
            })
        })
    }

    fn outgoing(
        &self,
        request: &Request,
        version: i16,
        answered: bool,
    ) -> Result<(Outgoing, oneshot::Receiver<Result<Response>>)> {
        if self.is_closed() {
            return Err(self.gone());
        }
        let api = request.api();
        let correlation_id = self.correlation.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let header = RequestHeader {
            api_key: api.to_i16(),
            api_version: version,
            correlation_id,
            client_id: self.client_id.clone(),
        };
        let frames = frame::encode_request(&header, request)?;
        let (answer, answered_by) = oneshot::channel();
        let outgoing = if answered {
            let waiting = Waiting { since: Instant::now(), correlation_id, api, version, answer };
            Outgoing { frames, waiting: Some(waiting), written: None }
        } else {
            Outgoing { frames, waiting: None, written: Some(answer) }
        };
        Ok((outgoing, answered_by))
    }

    fn gone(&self) -> Error {
        let known = self.shared.failure.get().cloned();
        known.unwrap_or_else(|| self.shared.failed("read from", io::ErrorKind::ConnectionReset))
    }
}

async fn write_requests(
    shared: Arc<Shared>,
    mut writing: WriteHalf,
    mut requests: mpsc::Receiver<Outgoing>,
) {
    while let Some(request) = requests.recv().await {
        // Recorded before it is written: the answer may arrive before this task continues.
        if let Some(waiting) = request.waiting {
            shared.queue().push_back(waiting);
        }
        if shared.closed.is_cancelled() {
            shared.close(&shared.failed("write to", io::ErrorKind::ConnectionReset));
            return;
        }
        if let Err(error) = write_all(&mut writing, request.frames).await {
            let error = shared.failed("write to", error);
            if let Some(written) = request.written {
                written.send(Err(error.clone())).ok();
            }
            shared.close(&error);
            return;
        }
    }
}

/// Writes chunks without joining them.
async fn write_all(writing: &mut WriteHalf, frames: Vec<Chunk>) -> io::Result<()> {
    const SLICES_MAX: usize = 64;
    let mut left: VecDeque<Chunk> = frames.into_iter().filter(|chunk| !chunk.is_empty()).collect();
    while !left.is_empty() {
        let slices: Vec<IoSlice<'_>> =
            left.iter().take(SLICES_MAX).map(|chunk| IoSlice::new(chunk)).collect();
        let written = writing.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Chunk::take_off(&mut left, written);
    }
    Ok(())
}

async fn read_responses(shared: Arc<Shared>, reading: ReadHalf) {
    let mut reading = BufReader::with_capacity(16 * 1024, reading);
    let error = loop {
        let body = match read_frame(&mut reading, shared.trust()).await {
            Ok(body) => body,
            Err(error) => break shared.read_failed(error),
        };
        let Some(waiting) = shared.queue().pop_front() else {
            let detail = "received an answer without a request";
            break shared.failed("read from", io::Error::other(detail));
        };
        let decoded = decode(&waiting, body);
        let (result, fatal) = match decoded {
            Ok((header, response)) if header.correlation_id == waiting.correlation_id => {
                shared.answered(waiting.api);
                (Ok(response), None)
            }
            Ok((header, _)) => {
                let detail = format!(
                    "correlation id {} instead of {}",
                    header.correlation_id, waiting.correlation_id
                );
                (Err(Error::malformed("response", detail.clone())), Some(detail))
            }
            Err(error) => {
                let detail = error.to_string();
                (Err(error), Some(detail))
            }
        };
        waiting.answer.send(result).ok();
        if let Some(detail) = fatal {
            let source = io::Error::new(io::ErrorKind::InvalidData, detail);
            break shared.failed("read from", source);
        }
    };
    shared.close(&error);
}

/// Decodes an answer. A broker that does not know this version of ApiVersions answers in the form
/// of version 0 (KIP-511).
fn decode(waiting: &Waiting, body: Bytes) -> Result<(ResponseHeader, Response)> {
    let decoded = frame::decode_response(waiting.api, waiting.version, body.clone());
    if decoded.is_err() && waiting.api == ApiKey::ApiVersions {
        return frame::decode_response(waiting.api, 0, body);
    }
    decoded
}

async fn read_frame(reading: &mut BufReader<ReadHalf>, trust: Trust) -> io::Result<Bytes> {
    let invalid = |detail: String| io::Error::new(io::ErrorKind::InvalidData, detail);
    let mut prefix = [0; frame::PREFIX_BYTES];
    reading.read_exact(&mut prefix).await?;
    let length = if trust == Trust::None {
        frame::length(prefix, GREETING_BYTES_MAX).map_err(|_too_long| invalid(stranger(prefix)))?
    } else {
        frame::length(prefix, FRAME_BYTES_MAX).map_err(|error| invalid(error.to_string()))?
    };
    let mut body = BytesMut::with_capacity(length.min(RESERVE_BYTES_MAX));
    let mut limited = reading.take(u64::try_from(length).unwrap_or(u64::MAX));
    while body.len() < length {
        if limited.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(body.freeze())
}

/// Names the protocol of a server that is not a broker, from its first bytes.
fn stranger(prefix: [u8; frame::PREFIX_BYTES]) -> String {
    match &prefix {
        b"HTTP" => "it answers in HTTP: this is not a Kafka listener".to_owned(),
        // A record of TLS: an alert or a handshake.
        [0x15 | 0x16, 3, ..] => "it answers in TLS: this listener requires encrypted connections, \
                                 which are not supported yet"
            .to_owned(),
        b"SSH-" => "it answers in SSH: this is not a Kafka listener".to_owned(),
        _ => format!("it answers with {prefix:02x?}: this is not a Kafka listener"),
    }
}

/// An address that neither accepts nor refuses a connection.
pub(crate) fn unreachable(address: &str, waited: Duration) -> Error {
    let seconds = waited.as_secs_f64();
    let detail = format!("no answer for {seconds:.1} s; is the address right, and reachable?");
    let source = io::Error::new(io::ErrorKind::TimedOut, detail);
    Error::network("connect to", address, source)
}
