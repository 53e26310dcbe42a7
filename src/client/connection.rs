//! One TCP connection to a broker: requests pipelined, answers in order.
//!
//! Two tasks own the halves of the socket. The writer takes frames from a bounded queue and notes
//! what it sent; the reader gives each answer to the oldest note. When either ends, the connection
//! is closed and whoever still waits gets a network error. A request that times out closes it too:
//! the protocol answers in order, so nothing behind it can come earlier.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::protocol::{ApiKey, Request, RequestHeader, Response, ResponseHeader, Str, frame};
use crate::types::Chunk;

/// How many requests may wait for the writer of one connection.
const QUEUE_REQUESTS_MAX: usize = 64;

/// The largest frame that is accepted. Fetch responses are bounded by `fetch.max.bytes` and one
/// batch above it; nothing else comes near.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// Up to here, the memory for a frame is reserved when it is announced; above, as it comes in.
const RESERVE_BYTES_MAX: usize = 64 << 20;

struct Waiting {
    correlation_id: i32,
    api: ApiKey,
    version: i16,
    answer: oneshot::Sender<Result<Response>>,
}

struct Outgoing {
    frames: Vec<Chunk>,
    waiting: Option<Waiting>,
    /// Told once the bytes are with the operating system, where no answer comes.
    written: Option<oneshot::Sender<Result<Response>>>,
}

/// What the tasks and the callers share.
struct Shared {
    address: String,
    waiting: Mutex<VecDeque<Waiting>>,
    closed: AtomicBool,
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, action: &'static str, error: &std::io::Error) {
        self.closed.store(true, Ordering::Release);
        for waiting in std::mem::take(&mut *self.queue()) {
            let source = std::io::Error::new(error.kind(), error.to_string());
            let address = self.address.clone();
            waiting.answer.send(Err(Error::Network { action, address, source })).ok();
        }
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
    pub(crate) async fn open(address: &str, client_id: &str, timeout: Duration) -> Result<Self> {
        let failed =
            |action, source| Error::Network { action, address: address.to_owned(), source };
        let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
            .await
            .map_err(|_elapsed| Error::Timeout {
                what: format!("connecting to {address}"),
                after_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            })?
            .map_err(|source| failed("connect to", source))?;
        stream.set_nodelay(true).map_err(|source| failed("connect to", source))?;
        let (reading, writing) = stream.into_split();
        let (outgoing, incoming) = mpsc::channel(QUEUE_REQUESTS_MAX);
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            waiting: Mutex::new(VecDeque::new()),
            closed: AtomicBool::new(false),
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

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Hands a request to the writer and returns the wait for its answer (`None` when it has none,
    /// once it is written). Requests are written in the order of these calls, unless more than the
    /// queue holds are started at once.
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
                    // Dropped without an error: written, and no answer comes.
                    Err(_) => Ok(None),
                }
            };
            tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
                this.shared.close("read from", &std::io::ErrorKind::TimedOut.into());
                Err(Error::Timeout {
                    what: format!("{api} request to {}", this.shared.address),
                    after_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
                })
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
            let waiting = Waiting { correlation_id, api, version, answer };
            Outgoing { frames, waiting: Some(waiting), written: None }
        } else {
            Outgoing { frames, waiting: None, written: Some(answer) }
        };
        Ok((outgoing, answered_by))
    }

    fn gone(&self) -> Error {
        Error::Network {
            action: "read from",
            address: self.shared.address.clone(),
            source: std::io::ErrorKind::ConnectionReset.into(),
        }
    }
}

async fn write_requests(
    shared: Arc<Shared>,
    mut writing: OwnedWriteHalf,
    mut requests: mpsc::Receiver<Outgoing>,
) {
    while let Some(request) = requests.recv().await {
        // Noted before it is written: the answer may come faster than we go on.
        if let Some(waiting) = request.waiting {
            shared.queue().push_back(waiting);
        }
        if shared.closed.load(Ordering::Acquire) {
            shared.close("write to", &std::io::ErrorKind::ConnectionReset.into());
            return;
        }
        if let Err(error) = write_all(&mut writing, request.frames).await {
            if let Some(written) = request.written {
                let address = shared.address.clone();
                let source = std::io::Error::new(error.kind(), error.to_string());
                written.send(Err(Error::Network { action: "write to", address, source })).ok();
            }
            shared.close("write to", &error);
            return;
        }
    }
}

/// Writes chunks without joining them.
async fn write_all(writing: &mut OwnedWriteHalf, frames: Vec<Chunk>) -> std::io::Result<()> {
    const SLICES_MAX: usize = 64;
    let mut left: VecDeque<Chunk> = frames.into_iter().filter(|chunk| !chunk.is_empty()).collect();
    while !left.is_empty() {
        let slices: Vec<IoSlice<'_>> =
            left.iter().take(SLICES_MAX).map(|chunk| IoSlice::new(chunk)).collect();
        let written = writing.write_vectored(&slices).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        Chunk::take_off(&mut left, written);
    }
    Ok(())
}

async fn read_responses(shared: Arc<Shared>, reading: OwnedReadHalf) {
    let mut reading = BufReader::with_capacity(16 * 1024, reading);
    let error = loop {
        let body = match read_frame(&mut reading).await {
            Ok(body) => body,
            Err(error) => break error,
        };
        let Some(waiting) = shared.queue().pop_front() else {
            break std::io::Error::other("an answer came that nobody asked for");
        };
        let decoded = decode(&waiting, body);
        let (result, fatal) = match decoded {
            Ok((header, response)) if header.correlation_id == waiting.correlation_id => {
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
            break std::io::Error::new(std::io::ErrorKind::InvalidData, detail);
        }
    };
    shared.close("read from", &error);
}

/// Decodes an answer. A broker that does not know our version of ApiVersions answers in the form
/// of version 0 (KIP-511).
fn decode(waiting: &Waiting, body: Bytes) -> Result<(ResponseHeader, Response)> {
    let decoded = frame::decode_response(waiting.api, waiting.version, body.clone());
    if decoded.is_err() && waiting.api == ApiKey::ApiVersions {
        return frame::decode_response(waiting.api, 0, body);
    }
    decoded
}

async fn read_frame(reading: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Bytes> {
    let mut prefix = [0; frame::PREFIX_BYTES];
    reading.read_exact(&mut prefix).await?;
    let length = frame::length(prefix, FRAME_BYTES_MAX)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))?;
    let mut body = BytesMut::with_capacity(length.min(RESERVE_BYTES_MAX));
    let mut limited = reading.take(u64::try_from(length).unwrap_or(u64::MAX));
    while body.len() < length {
        if limited.read_buf(&mut body).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(body.freeze())
}
