//! Connections that can be cut, for several nodes in one process: `ottla.Cluster.cut`.
//!
//! Why: what a cluster does when its nodes do not see each other is worth a try before it happens, and without the
//! rights that a firewall takes. A node of such a cluster opens its connections through [`Links`]; a
//! broker that is started otherwise has none of this.
//!
//! A cut is that of a cable. Nothing arrives and nothing leaves; neither side is told; a new connection is neither taken
//! nor refused; and the end of a connection is not seen either: a socket that is closed meanwhile stays open below
//! until the link heals. Then everything goes on where it was. Only the side that opened a connection knows that it
//! is cut, so both directions of a pair of nodes are cut by cutting the links of both.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The links of one node to others, by their addresses. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Links {
    gates: Arc<Mutex<BTreeMap<SocketAddr, Arc<Gate>>>>,
}

/// Whether anything passes to one address.
#[derive(Default)]
pub(super) struct Gate {
    is_cut: AtomicBool,
    state: Mutex<Closed>,
}

/// What waits for a link to heal.
#[derive(Default)]
struct Closed {
    tasks: Vec<Waker>,
    /// What was dropped, and is not to be seen to end.
    dropped: Vec<Dropped>,
}

/// A part of a connection that is only kept.
enum Dropped {
    Whole { _stream: TcpStream },
    Reading { _half: OwnedReadHalf },
    Writing { _half: OwnedWriteHalf },
}

impl Links {
    fn gates(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Arc<Gate>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self, address: SocketAddr) -> Arc<Gate> {
        Arc::clone(self.gates().entry(address).or_default())
    }

    /// Cuts the link to an address: what is open, and what would be opened.
    pub fn cut(&self, address: SocketAddr) {
        self.gate(address).is_cut.store(true, Ordering::SeqCst);
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        let gates: Vec<Arc<Gate>> = self.gates().values().cloned().collect();
        for gate in gates {
            gate.is_cut.store(false, Ordering::SeqCst);
            let Closed { tasks, dropped } = std::mem::take(&mut *gate.state());
            drop(dropped);
            tasks.into_iter().for_each(Waker::wake);
        }
    }

    /// Connects to the first of these addresses that accepts; waits while one is cut.
    pub(super) async fn connect(&self, addresses: &[SocketAddr]) -> io::Result<LinkedStream> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            let gate = self.gate(*address);
            gate.open().await;
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(LinkedStream { stream: Some(stream), gate });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl Debug for Gate {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gate").field("is_cut", &self.is_cut()).finish_non_exhaustive()
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, Closed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    fn poll_open(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_cut() {
            return Poll::Ready(());
        }
        let mut state = self.state();
        // Under the lock, so that a healing link sees the task.
        if !self.is_cut() {
            return Poll::Ready(());
        }
        if !state.tasks.iter().any(|known| known.will_wake(context.waker())) {
            state.tasks.push(context.waker().clone());
        }
        Poll::Pending
    }

    async fn open(&self) {
        poll_fn(|context| self.poll_open(context)).await;
    }

    /// Drops something now, or when the link heals.
    fn end(&self, part: Dropped) {
        let mut state = self.state();
        if self.is_cut() {
            state.dropped.push(part);
        }
    }
}

/// A connection over a link.
#[derive(Debug)]
pub struct LinkedStream {
    /// Taken when it ends.
    stream: Option<TcpStream>,
    gate: Arc<Gate>,
}

fn ended() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl LinkedStream {
    fn stream(&self) -> io::Result<&TcpStream> {
        self.stream.as_ref().ok_or_else(ended)
    }

    /// The stream, if its link is not cut.
    fn open(&self) -> io::Result<&TcpStream> {
        if self.gate.is_cut() { Err(io::ErrorKind::WouldBlock.into()) } else { self.stream() }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream()?.local_addr()
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.stream()?.readable().await?;
        self.gate.open().await;
        Ok(())
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.stream()?.writable().await?;
        self.gate.open().await;
        Ok(())
    }

    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.open()?.try_read(buffer)
    }

    pub(super) fn try_read_buf(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        self.open()?.try_read_buf(buffer)
    }

    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.open()?.try_write_vectored(slices)
    }

    pub(super) fn into_split(mut self) -> (LinkedReadHalf, LinkedWriteHalf) {
        let (reading, writing) = self.stream.take().map(TcpStream::into_split).unzip();
        let gate = Arc::clone(&self.gate);
        let reading = LinkedReadHalf { half: reading, gate: Arc::clone(&gate) };
        (reading, LinkedWriteHalf { half: writing, gate })
    }
}

impl Drop for LinkedStream {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.gate.end(Dropped::Whole { _stream: stream });
        }
    }
}

/// The half of a connection over a link that is read from.
#[derive(Debug)]
pub struct LinkedReadHalf {
    /// Taken when it ends.
    half: Option<OwnedReadHalf>,
    gate: Arc<Gate>,
}

impl LinkedReadHalf {
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gate.poll_open(context).is_pending() {
            return Poll::Pending;
        }
        match &mut self.half {
            Some(half) => Pin::new(half).poll_read(context, buffer),
            None => Poll::Ready(Err(ended())),
        }
    }
}

impl Drop for LinkedReadHalf {
    fn drop(&mut self) {
        if let Some(half) = self.half.take() {
            self.gate.end(Dropped::Reading { _half: half });
        }
    }
}

/// The half of a connection over a link that is written to.
#[derive(Debug)]
pub struct LinkedWriteHalf {
    /// Taken when it ends.
    half: Option<OwnedWriteHalf>,
    gate: Arc<Gate>,
}

impl LinkedWriteHalf {
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.gate.poll_open(context).is_pending() {
            return Poll::Pending;
        }
        match &mut self.half {
            Some(half) => Pin::new(half).poll_write_vectored(context, slices),
            None => Poll::Ready(Err(ended())),
        }
    }

    /// Says that nothing more comes; while the link is cut, when it heals.
    pub(super) fn end(&mut self) {
        if let Some(half) = self.half.take() {
            self.gate.end(Dropped::Writing { _half: half });
        }
    }
}

impl Drop for LinkedWriteHalf {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::env::{Net, ReadHalf, WriteHalf};

    /// A connection over links, and its other end.
    async fn connected(links: &Links) -> (ReadHalf, WriteHalf, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let net = Net::Linked(links.clone());
        let (ours, theirs) =
            tokio::join!(net.connect(std::slice::from_ref(&address)), listener.accept());
        let (reading, writing) = ours.unwrap().into_split();
        (reading, writing, theirs.unwrap().0, address)
    }

    /// Whether something does not happen for a while, in which it otherwise would.
    async fn is_pending(what: impl Future) -> bool {
        tokio::time::timeout(Duration::from_millis(50), what).await.is_err()
    }

    #[tokio::test]
    async fn nothing_passes_while_a_link_is_cut_and_everything_after() {
        let links = Links::default();
        let (mut reading, mut writing, mut peer, address) = connected(&links).await;
        let mut byte = [0];
        writing.write_all(b"a").await.unwrap();
        peer.read_exact(&mut byte).await.unwrap();
        links.cut(address);
        peer.write_all(b"b").await.unwrap();
        assert!(is_pending(reading.read_exact(&mut byte)).await);
        assert!(is_pending(writing.write_all(b"c")).await);
        assert!(is_pending(peer.read_exact(&mut [0])).await);
        let healing = async {
            tokio::task::yield_now().await;
            links.heal();
        };
        let (read, ()) = tokio::join!(reading.read_exact(&mut byte), healing);
        read.unwrap();
        assert_eq!(&byte, b"b");
        writing.write_all(b"c").await.unwrap();
        peer.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"c");
    }

    #[tokio::test]
    async fn no_end_is_seen_and_no_connection_made_over_a_cut_link() {
        let links = Links::default();
        let (mut reading, writing, mut peer, address) = connected(&links).await;
        let net = Net::Linked(links.clone());
        links.cut(address);
        // The listener is gone, so that a new connection would be refused.
        assert!(is_pending(net.connect(&[address])).await);
        drop(writing);
        assert!(is_pending(peer.read(&mut [0])).await);
        peer.shutdown().await.unwrap();
        assert!(is_pending(reading.read(&mut [0])).await);
        links.heal();
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(reading.read(&mut [0]).await.unwrap(), 0);
        let refused = net.connect(&[address]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn other_links_are_not_cut() {
        let links = Links::default();
        let (_reading, mut writing, mut peer, _) = connected(&links).await;
        let (.., other) = connected(&links).await;
        links.cut(other);
        writing.write_all(b"a").await.unwrap();
        peer.read_exact(&mut [0]).await.unwrap();
    }
}
