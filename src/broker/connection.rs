//! One connection: frames in, frames out, in order.
//!
//! Why: this module limits what a client can do to the broker through a socket: how much memory it
//! takes, how slow it may be, how far ahead it may send. What its frames mean is up to a
//! [`FrameHandler`].
//!
//! Invariants:
//! - `CONN-1` responses leave in the order of their requests. The handler sees one frame at a time, in
//!   order; only waits that it returns as [`Handled::Later`] overlap with later frames, so two
//!   Produce requests of one connection append in order but share an fsync.
//! - `CONN-2` a frame takes memory as it arrives, and pays for it until it is answered: see
//!   [`frame_reader`](super::frame_reader).
//! - `CONN-3` at most [`PIPELINE_MAX`] requests are unanswered; beyond that nothing more is read.
//!   The next response is not requested until the previous one has left.
//! - `CONN-4` an idle connection holds no buffer.
//! - `CONN-5` record bytes are written from where they are stored: see
//!   [`frame_writer`](super::frame_writer).
//!
//! One task per connection. When the peer has disconnected, frames that arrived in full are still
//! carried out (a producer with `acks=0` may send and leave), and `gone` wakes whatever waits on
//! its behalf.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::frame_reader::{Frame, FrameLimits, FrameReader, Step};
use super::frame_writer::write_some;
use super::listener::Reached;
use super::memory::MemoryHold;
use crate::env::Transport;
use crate::error::{Error, ErrorCode, Result};
use crate::types::Chunk;

/// How many requests of one connection may be unanswered.
pub(super) const PIPELINE_MAX: usize = 64;
/// A frame that has begun must make progress within this time, unless it waits for the broker's memory.
const STALL_MAX: Duration = Duration::from_secs(30);

/// A future that owns everything it needs.
pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The handler's response to a frame.
pub(super) enum Handled {
    /// The response, as chunks with their length prefix.
    Reply(Vec<Chunk>),
    /// The response comes later; the next frame may be handled meanwhile. `None` is no response.
    Later(BoxFuture<Result<Option<Vec<Chunk>>>>),
}

/// Handles frames.
pub(super) trait FrameHandler: Send + Sync + 'static {
    /// Handles the frame, without its length. An error closes the connection.
    fn handle(self: Arc<Self>, peer: Arc<PeerInfo>, frame: Bytes) -> BoxFuture<Result<Handled>>;
}

/// The client at the other end.
#[derive(Debug)]
pub(super) struct PeerInfo {
    /// The address of the client.
    pub(super) address: SocketAddr,
    /// The listener and the address that the client connected to.
    pub(super) reached: Reached,
    /// Cancelled when the peer disconnects or the broker shuts down: waits on its behalf end.
    pub(super) gone: CancellationToken,
    /// The name and version of the client's library, once it has sent them.
    pub(super) software: OnceLock<(String, String)>,
}

/// The limits of a connection.
#[derive(Clone, Debug)]
pub(super) struct ConnectionLimits {
    /// The limits of its frames.
    pub(super) frames: FrameLimits,
    /// `connections.max.idle.ms`; `None` means forever.
    pub(super) idle: Option<Duration>,
}

/// A response that is pending or ready.
struct Slot {
    wait: BoxFuture<Result<Option<Vec<Chunk>>>>,
    hold: MemoryHold,
}

struct Connection {
    stream: Transport,
    info: Arc<PeerInfo>,
    handler: Arc<dyn FrameHandler>,
    limits: ConnectionLimits,
    reader: FrameReader,
    /// Frames that wait for the current one.
    frames: VecDeque<Frame>,
    /// The current frame.
    current: Option<(BoxFuture<Result<Handled>>, MemoryHold)>,
    /// Responses in the order of their requests.
    slots: VecDeque<Slot>,
    out: VecDeque<Chunk>,
    reading: bool,
    last_activity: Instant,
}

/// Serves a connection until it ends. `stop`: no new requests, open ones are answered; `kill`: ends
/// at once.
pub(super) async fn serve(
    stream: Transport,
    info: Arc<PeerInfo>,
    handler: Arc<dyn FrameHandler>,
    limits: ConnectionLimits,
    (stop, kill): (CancellationToken, CancellationToken),
) {
    let mut connection = Connection {
        stream,
        info: Arc::clone(&info),
        handler,
        limits,
        reader: FrameReader::default(),
        frames: VecDeque::new(),
        current: None,
        slots: VecDeque::new(),
        out: VecDeque::new(),
        reading: true,
        last_activity: Instant::now(),
    };
    let _gone = info.gone.clone().drop_guard();
    tokio::select! {
        biased;
        () = kill.cancelled() => {}
        result = connection.run(&stop) => match result {
            Ok(()) => tracing::trace!(peer = %info.address, "connection closed"),
            // The handler logs what is not served, once for each client.
            Err(error) if error.code() == ErrorCode::UnsupportedVersion => tracing::debug!(
                peer = %info.address,
                error = %error.chain(),
                "connection closed"
            ),
            Err(error) => tracing::warn!(
                peer = %info.address,
                error = %error.chain(),
                "connection closed"
            ),
        },
    }
}

impl Connection {
    async fn run(&mut self, halt: &CancellationToken) -> Result<()> {
        let timer = tokio::time::sleep_until(self.deadline());
        let halted = halt.cancelled();
        tokio::pin!(timer, halted);
        loop {
            self.take_next_frame();
            if !self.reading && self.nothing_left() {
                return Ok(());
            }
            if timer.deadline() > self.deadline() {
                timer.as_mut().reset(self.deadline());
            }
            let may_read = self.reading && self.unanswered() < PIPELINE_MAX;
            tokio::select! {
                biased;
                result = write_some(&self.stream, &mut self.out), if !self.out.is_empty() => {
                    self.last_activity = Instant::now();
                    if let Err(error) = result {
                        return self.peer_is_gone(&error).await;
                    }
                }
                handled = poll_current(&mut self.current), if self.current.is_some() => {
                    self.place(handled?);
                }
                response = poll_front(&mut self.slots),
                    if self.out.is_empty() && !self.slots.is_empty() =>
                {
                    self.slots.pop_front();
                    self.last_activity = Instant::now();
                    self.out.extend(response?.unwrap_or_default());
                }
                step = self.reader.read(&self.stream, &self.limits.frames), if may_read => {
                    self.last_activity = Instant::now();
                    self.take_step(step)?;
                }
                () = &mut halted, if self.reading => self.reading = false,
                () = &mut timer => {
                    if Instant::now() >= self.deadline() {
                        self.timed_out()?;
                    }
                    timer.as_mut().reset(self.deadline());
                }
            }
        }
    }

    fn unanswered(&self) -> usize {
        self.frames.len() + usize::from(self.current.is_some()) + self.slots.len()
    }

    fn nothing_left(&self) -> bool {
        self.unanswered() == 0 && self.out.is_empty()
    }

    fn take_next_frame(&mut self) {
        if self.current.is_none()
            && let Some(frame) = self.frames.pop_front()
        {
            let future = Arc::clone(&self.handler).handle(Arc::clone(&self.info), frame.bytes);
            self.current = Some((future, frame.hold));
        }
    }

    fn place(&mut self, handled: Handled) {
        let Some((_, hold)) = self.current.take() else { return };
        match handled {
            Handled::Reply(chunks) if self.slots.is_empty() && self.out.is_empty() => {
                self.out.extend(chunks);
            }
            Handled::Reply(chunks) => {
                let wait: BoxFuture<_> = Box::pin(std::future::ready(Ok(Some(chunks))));
                self.slots.push_back(Slot { wait, hold });
            }
            Handled::Later(wait) => self.slots.push_back(Slot { wait, hold }),
        }
    }

    fn take_step(&mut self, step: io::Result<Step>) -> Result<()> {
        match step {
            Ok(Step::Progress) => {}
            Ok(Step::Frame(frame)) => self.frames.push_back(frame),
            Ok(Step::End) => {
                self.reading = false;
                self.info.gone.cancel();
                if self.reader.is_amid() {
                    tracing::debug!(peer = %self.info.address, "peer left in the middle of a request");
                }
            }
            Ok(Step::BadLength(length)) => {
                let limit = self.limits.frames.bytes_max;
                let detail = format!("length {length} is not between 0 and {limit} bytes");
                return Err(Error::malformed("request frame", detail));
            }
            Err(error) => {
                self.reading = false;
                self.info.gone.cancel();
                tracing::debug!(peer = %self.info.address, %error, "could not read from peer");
            }
        }
        Ok(())
    }

    /// The peer does not accept data: carries out what arrived in full, answers nothing.
    async fn peer_is_gone(&mut self, error: &io::Error) -> Result<()> {
        tracing::debug!(peer = %self.info.address, %error, "could not write to peer");
        self.info.gone.cancel();
        loop {
            self.take_next_frame();
            let Some((future, _hold)) = self.current.take() else { return Ok(()) };
            drop(future.await?);
        }
    }

    /// The time by which something must have happened.
    fn deadline(&self) -> Instant {
        let idle = self.limits.idle.unwrap_or(Duration::from_secs(86_400 * 365));
        let is_amid = self.reader.is_amid() && !self.reader.awaits_memory();
        if self.reading && is_amid && self.unanswered() < PIPELINE_MAX {
            return self.last_activity + idle.min(STALL_MAX);
        }
        self.last_activity + idle
    }

    fn timed_out(&mut self) -> Result<()> {
        if !self.out.is_empty() {
            return Err(self.timeout("the client did not read its response"));
        }
        if self.reader.awaits_memory() {
            // It is the broker that is slow.
            self.last_activity = Instant::now();
            return Ok(());
        }
        if self.reader.is_amid() {
            return Err(self.timeout("a request was begun but not completed"));
        }
        if self.unanswered() == 0 {
            tracing::debug!(peer = %self.info.address, "closing an idle connection");
            self.reading = false;
            return Ok(());
        }
        self.last_activity = Instant::now();
        Ok(())
    }

    fn timeout(&self, what: &str) -> Error {
        Error::timeout(what, self.last_activity.elapsed())
    }
}

async fn poll_current(
    current: &mut Option<(BoxFuture<Result<Handled>>, MemoryHold)>,
) -> Result<Handled> {
    match current {
        Some((future, _)) => future.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn poll_front(slots: &mut VecDeque<Slot>) -> Result<Option<Vec<Chunk>>> {
    match slots.front_mut() {
        Some(slot) => {
            let _ = &slot.hold;
            slot.wait.as_mut().await
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
