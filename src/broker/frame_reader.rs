//! Reads whole frames from the bytes of a socket.
//!
//! Invariants:
//! - `FRAME-1` a length is checked before anything is reserved, and the buffer grows with what arrives: it
//!   is never larger than four times what was received plus 16 KiB, except for what [`ReceiveBuffers`]
//!   lends to all frames together.
//! - `FRAME-2` nothing is read into a buffer before it is paid for; the payment counts until the
//!   request is answered.

use std::io;

use bytes::{BufMut, Bytes};
use futures::FutureExt;

use super::memory::{MemoryBudget, MemoryHold};
use super::receive_buffers::{self, ReceiveBuffer, ReceiveBuffers};
use crate::env::Transport;
use crate::error::Result;

/// The limits of frames.
#[derive(Clone, Debug)]
pub(super) struct FrameLimits {
    /// `socket.request.max.bytes`.
    pub(super) bytes_max: usize,
    /// `queued.max.request.bytes`.
    pub(super) memory: MemoryBudget,
    /// Where their buffers come from.
    pub(super) buffers: ReceiveBuffers,
}

/// A complete frame and the memory that it pays for.
#[derive(Debug)]
pub(super) struct Frame {
    /// The frame without its length.
    pub(super) bytes: Bytes,
    /// To be held until it is answered.
    pub(super) hold: MemoryHold,
}

/// The result of a read.
#[derive(Debug)]
pub(super) enum Step {
    Progress,
    Frame(Frame),
    /// The peer will send no more.
    End,
    /// A length that is negative or above the limit.
    BadLength(i32),
}

/// Collects the bytes of one frame after another.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    prefix: [u8; 4],
    prefix_len: usize,
    body: Option<Box<Body>>,
}

#[derive(Debug)]
struct Body {
    length: usize,
    buffer: ReceiveBuffer,
    hold: MemoryHold,
    paid: usize,
    /// Whether it waits until others have returned memory.
    waits: bool,
}

impl FrameReader {
    /// Whether a frame has been started.
    pub(super) fn is_amid(&self) -> bool {
        self.prefix_len > 0
    }

    /// Whether the frame waits for memory of the broker: its client may have sent everything.
    pub(super) fn awaits_memory(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.waits)
    }

    /// Reads what is available. `Step::Progress`: something arrived, or there is memory for it again, but no
    /// frame is complete.
    ///
    /// Cancel-safe: what was read is kept.
    pub(super) async fn read(
        &mut self,
        stream: &Transport,
        limits: &FrameLimits,
    ) -> io::Result<Step> {
        loop {
            stream.readable().await?;
            if self.prefix_len < 4 {
                let space = self.prefix.get_mut(self.prefix_len..).unwrap_or_default();
                match stream.try_read(space) {
                    Ok(0) => return Ok(Step::End),
                    Ok(count) => self.prefix_len += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                }
                if self.prefix_len < 4 {
                    return Ok(Step::Progress);
                }
                let length = i32::from_be_bytes(self.prefix);
                let allowed = usize::try_from(length).ok();
                let allowed = allowed.filter(|&length| length <= limits.bytes_max);
                let Some(length) = allowed else { return Ok(Step::BadLength(length)) };
                self.body = Some(Box::new(Body {
                    length,
                    buffer: limits.buffers.take(length),
                    hold: MemoryHold::default(),
                    paid: 0,
                    waits: false,
                }));
            }
            let Some(body) = &mut self.body else { return Ok(Step::End) };
            if body.buffer.len() < body.length {
                if body.make_room(&limits.memory).await.map_err(io::Error::other)? {
                    return Ok(Step::Progress);
                }
                let room = body.length - body.buffer.len();
                // The buffer may have more room than the frame is long.
                let mut space = body.buffer.bytes_mut().limit(room);
                match stream.try_read_buf(&mut space) {
                    Ok(0) => return Ok(Step::End),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                }
            }
            if body.buffer.len() < body.length {
                return Ok(Step::Progress);
            }
            self.prefix_len = 0;
            let Some(body) = self.body.take() else { return Ok(Step::End) };
            let Body { buffer, hold, .. } = *body;
            return Ok(Step::Frame(Frame { bytes: buffer.freeze(), hold }));
        }
    }
}

impl Body {
    /// Makes sure that there is room to read into, and that it is paid for. Returns whether it had to wait.
    async fn make_room(&mut self, memory: &MemoryBudget) -> Result<bool> {
        let have = self.buffer.capacity();
        let room = if self.buffer.len() < have {
            have
        } else {
            let grown = receive_buffers::SMALL.max(have.saturating_mul(4));
            receive_buffers::size_for(self.length).min(grown)
        };
        let mut has_waited = false;
        if room > self.paid {
            let price = room - self.paid;
            match memory.pay(&mut self.hold, price).now_or_never() {
                Some(paid) => paid?,
                None => {
                    self.waits = true;
                    memory.pay(&mut self.hold, price).await?;
                    self.waits = false;
                    has_waited = true;
                }
            }
            self.paid = room;
        }
        self.buffer.grow_to(room);
        Ok(has_waited)
    }
}
