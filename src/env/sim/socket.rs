//! The ends of simulated connections: what is asked of a socket.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use tokio::io::ReadBuf;

use super::net::{BUFFER_BYTES, Fate, Side, SimNet, remember};

/// Closes its side when it is dropped.
#[derive(Debug)]
pub(super) struct End {
    pub(super) net: SimNet,
    pub(super) id: u64,
    pub(super) side: Side,
}

impl Drop for End {
    fn drop(&mut self) {
        self.net.close(self.id, self.side);
    }
}

/// One end of a simulated connection.
#[derive(Debug)]
pub struct SimSocket {
    end: Arc<End>,
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl SimSocket {
    pub(super) fn new(end: End, address: SocketAddr, stopped: &Arc<AtomicBool>) -> Self {
        Self { end: Arc::new(end), address, stopped: Arc::clone(stopped) }
    }

    pub(in crate::env) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub(in crate::env) async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.end.poll_readable(context)).await;
        Ok(())
    }

    pub(in crate::env) async fn writable(&self) -> io::Result<()> {
        poll_fn(|context| self.end.poll_writable(context)).await;
        Ok(())
    }

    pub(in crate::env) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = buffer;
        self.end.try_read(&mut buffer)
    }

    pub(in crate::env) fn try_read_buf(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        self.end.try_read(buffer)
    }

    pub(in crate::env) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.end.try_write(slices, &self.stopped)
    }

    pub(in crate::env) fn into_split(self) -> (SimReadHalf, SimWriteHalf) {
        let Self { end, stopped, .. } = self;
        (SimReadHalf(Arc::clone(&end)), SimWriteHalf { end, stopped })
    }
}

impl End {
    /// Whether a read would not wait.
    fn poll_readable(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.net.state();
        let Some(connection) = state.connections.get_mut(&self.id) else { return Poll::Ready(()) };
        let fate = connection.fate;
        let pipe = &mut connection.pipes[1 - self.side];
        let is_ready = !pipe.arrived.is_empty() || pipe.has_ended || fate == Fate::Reset;
        // Whoever is on the host without power never learns anything.
        if is_ready && fate != Fate::HalfOpen(self.side) {
            return Poll::Ready(());
        }
        remember(&mut pipe.readers, context);
        Poll::Pending
    }

    fn poll_writable(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.net.state();
        let Some(connection) = state.connections.get_mut(&self.id) else { return Poll::Ready(()) };
        let fate = connection.fate;
        let pipe = &mut connection.pipes[self.side];
        if pipe.bytes < BUFFER_BYTES || fate == Fate::Reset {
            return Poll::Ready(());
        }
        remember(&mut pipe.writers, context);
        Poll::Pending
    }

    fn try_read(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        let mut state = self.net.state();
        let Some(connection) = state.connections.get_mut(&self.id) else { return Ok(0) };
        match connection.fate {
            Fate::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
            Fate::HalfOpen(side) if side == self.side => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            _ => {}
        }
        let pipe = &mut connection.pipes[1 - self.side];
        let mut count = 0;
        while buffer.has_remaining_mut()
            && let Some(bytes) = pipe.arrived.front_mut()
        {
            let length = bytes.len().min(buffer.remaining_mut());
            buffer.put_slice(&bytes[..length]);
            bytes.advance(length);
            count += length;
            if bytes.is_empty() {
                pipe.arrived.pop_front();
            }
        }
        pipe.bytes -= count;
        if count > 0 {
            for waker in pipe.writers.drain(..) {
                waker.wake();
            }
            return Ok(count);
        }
        if pipe.has_ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn try_write(&self, slices: &[IoSlice<'_>], stopped: &AtomicBool) -> io::Result<usize> {
        let mut state = self.net.state();
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let Some(connection) = state.connections.get_mut(&self.id) else { return Err(reset()) };
        let peer = connection.ends[1 - self.side].ip();
        if connection.pipes[1 - self.side].is_closed {
            connection.reset();
        }
        let fate = connection.fate;
        if fate == Fate::Reset {
            return Err(reset());
        }
        let room = BUFFER_BYTES.saturating_sub(connection.pipes[self.side].bytes);
        let mut bytes = Vec::new();
        for slice in slices {
            bytes.extend_from_slice(&slice[..slice.len().min(room - bytes.len())]);
        }
        if bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len();
        match fate {
            Fate::HalfOpen(side) if side != self.side => {
                connection.pipes[self.side].bytes += count;
                if state.hosts.get(&peer).is_some_and(|host| !host.is_down) {
                    // It is up again, and knows nothing of this connection.
                    if let Some(connection) = state.connections.get_mut(&self.id) {
                        connection.reset();
                    }
                }
            }
            Fate::Open if !stopped.load(Ordering::Acquire) => {
                self.net.send(&mut state, self.id, self.side, bytes.into());
            }
            // What a machine without power writes goes nowhere.
            _ => {}
        }
        Ok(count)
    }
}

/// The half of a simulated connection that is read from.
#[derive(Debug)]
pub struct SimReadHalf(Arc<End>);

impl SimReadHalf {
    pub(in crate::env) fn poll_read(
        &self,
        context: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.poll_readable(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let mut room = buffer.initialize_unfilled();
                let read = self.0.try_read(&mut room);
                Poll::Ready(read.map(|count| buffer.advance(count)))
            }
        }
    }
}

/// The half of a simulated connection that is written to.
#[derive(Debug)]
pub struct SimWriteHalf {
    end: Arc<End>,
    stopped: Arc<AtomicBool>,
}

impl SimWriteHalf {
    pub(in crate::env) fn poll_write(
        &self,
        context: &Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.end.poll_writable(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(self.end.try_write(slices, &self.stopped)),
        }
    }

    pub(in crate::env) fn end(&self) {
        self.end.net.finish(self.end.id, self.end.side);
    }
}

impl Drop for SimWriteHalf {
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.end();
        }
    }
}
