//! Sockets.
//!
//! Why: every connection of the broker and of the client passes here, so that a simulation can delay, cut and
//! lose it, and so that a transport beside plain TCP has one place. A [`Transport`] is an enum, not a trait
//! object: a read or a write of a plain socket is the system call behind one branch.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::links::{LinkedReadHalf, LinkedStream, LinkedWriteHalf, Links};
use super::real;
#[cfg(feature = "sim")]
use super::sim::{SimHost, SimListener, SimSocket};
use crate::types::Stored;

/// The network. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub enum Net {
    /// The network of the operating system.
    #[default]
    Real,
    /// That of the operating system, with links to other nodes that can be cut.
    Linked(Links),
    /// A host of a simulated network.
    #[cfg(feature = "sim")]
    Sim(SimHost),
}

/// The options of a listening socket, and of those that it accepts.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// How many connections may wait to be accepted.
    pub backlog: i32,
    /// The size of the receive buffer; none leaves it to the operating system.
    pub receive_buffer_bytes: Option<u32>,
    /// The size of the send buffer; none leaves it to the operating system.
    pub send_buffer_bytes: Option<u32>,
}

impl Net {
    /// Binds an address and listens; port 0 is any that is free. Within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The address is taken, or not one of this machine.
    pub fn listen(&self, address: SocketAddr, options: SocketOptions) -> io::Result<Listener> {
        match self {
            Self::Real | Self::Linked(_) => real::listen(address, options).map(Listener::Tcp),
            #[cfg(feature = "sim")]
            Self::Sim(host) => host.listen(address).map(Listener::Sim),
        }
    }

    /// The addresses of a name. Blocks.
    ///
    /// # Errors
    ///
    /// There is no such name.
    pub fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Real | Self::Linked(_) => real::resolve(host, port),
            #[cfg(feature = "sim")]
            Self::Sim(_) => SimHost::resolve(&format!("{host}:{port}")),
        }
    }

    /// The addresses of `host:port`.
    ///
    /// # Errors
    ///
    /// There is no such name.
    pub async fn lookup(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Real | Self::Linked(_) => Ok(tokio::net::lookup_host(address).await?.collect()),
            #[cfg(feature = "sim")]
            Self::Sim(_) => SimHost::resolve(address),
        }
    }

    /// Connects to the first of these addresses that accepts.
    ///
    /// # Errors
    ///
    /// None of them accepts; the last failure.
    pub async fn connect(&self, addresses: &[SocketAddr]) -> io::Result<Transport> {
        match self {
            Self::Real => {
                let stream = TcpStream::connect(addresses).await?;
                stream.set_nodelay(true)?;
                Ok(Transport::Tcp(stream))
            }
            Self::Linked(links) => links.connect(addresses).await.map(Transport::Linked),
            #[cfg(feature = "sim")]
            Self::Sim(host) => host.connect(addresses).await.map(Transport::Sim),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A simulated one.
    #[cfg(feature = "sim")]
    Sim(SimListener),
}

impl Listener {
    /// The address that it is bound to.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            #[cfg(feature = "sim")]
            Self::Sim(listener) => Ok(listener.local_addr()),
        }
    }

    /// The next connection, and where it comes from. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Most likely too many files are open.
    pub async fn accept(&self) -> io::Result<(Transport, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Transport::Tcp(stream), peer))
            }
            #[cfg(feature = "sim")]
            Self::Sim(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok((Transport::Sim(socket), peer))
            }
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Transport {
    /// A TCP socket.
    Tcp(TcpStream),
    /// One over a link that can be cut; only the side that connects has it.
    Linked(LinkedStream),
    /// A simulated one.
    #[cfg(feature = "sim")]
    Sim(SimSocket),
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl Transport {
    /// The address of this end.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr(),
            Self::Linked(stream) => stream.local_addr(),
            #[cfg(feature = "sim")]
            Self::Sim(socket) => Ok(socket.local_addr()),
        }
    }

    /// Sets the options of an accepted connection.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub fn set_options(&self, options: SocketOptions) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => real::set_options(stream, options),
            Self::Linked(_) => Ok(()),
            #[cfg(feature = "sim")]
            Self::Sim(_) => Ok(()),
        }
    }

    /// Waits until there is something to read, or an end or an error to be seen. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Linked(stream) => stream.readable().await,
            #[cfg(feature = "sim")]
            Self::Sim(socket) => socket.readable().await,
        }
    }

    /// Waits until there is room to write, or an error to be seen. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Linked(stream) => stream.writable().await,
            #[cfg(feature = "sim")]
            Self::Sim(socket) => socket.writable().await,
        }
    }

    /// Reads what has arrived; 0 at the end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing has arrived.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Linked(stream) => stream.try_read(buffer),
            #[cfg(feature = "sim")]
            Self::Sim(socket) => socket.try_read(buffer),
        }
    }

    /// As [`Transport::try_read`], into the room that a buffer has.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing has arrived.
    pub fn try_read_buf(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Linked(stream) => stream.try_read_buf(buffer),
            #[cfg(feature = "sim")]
            Self::Sim(socket) => socket.try_read_buf(buffer),
        }
    }

    /// Writes some of these bytes, in one system call; `more` says that others follow at once.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no room.
    pub fn try_write(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => real::try_write(stream, slices, more),
            Self::Linked(stream) => stream.try_write(slices),
            #[cfg(feature = "sim")]
            Self::Sim(socket) => socket.try_write(slices),
        }
    }

    /// Has the operating system write some of the bytes of a file, without a copy.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no room; see [`Transport::cannot_send_files`].
    pub fn try_send_file(&self, stored: &Stored, length: usize) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => real::try_send_file(stream, stored, length),
            Self::Linked(_) => Err(io::ErrorKind::Unsupported.into()),
            #[cfg(feature = "sim")]
            Self::Sim(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether an error of [`Transport::try_send_file`] says that this file, or this transport, cannot be
    /// sent so: its bytes are then to be written.
    #[must_use]
    pub fn cannot_send_files(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::Unsupported || real::is_no_send_file(error)
    }

    /// One half to read from and one to write to.
    #[must_use]
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (reading, writing) = stream.into_split();
                (ReadHalf::Tcp(reading), WriteHalf::Tcp(writing))
            }
            Self::Linked(stream) => {
                let (reading, writing) = stream.into_split();
                (ReadHalf::Linked(reading), WriteHalf::Linked(writing))
            }
            #[cfg(feature = "sim")]
            Self::Sim(socket) => {
                let (reading, writing) = socket.into_split();
                (ReadHalf::Sim(reading), WriteHalf::Sim(writing))
            }
        }
    }
}

/// The half of a connection that is read from.
#[derive(Debug)]
pub enum ReadHalf {
    /// Of a TCP socket.
    Tcp(OwnedReadHalf),
    /// Of one over a link that can be cut.
    Linked(LinkedReadHalf),
    /// Of a simulated one.
    #[cfg(feature = "sim")]
    Sim(super::sim::SimReadHalf),
}

/// The half of a connection that is written to; the other side sees the end when it is dropped.
#[derive(Debug)]
pub enum WriteHalf {
    /// Of a TCP socket.
    Tcp(OwnedWriteHalf),
    /// Of one over a link that can be cut.
    Linked(LinkedWriteHalf),
    /// Of a simulated one.
    #[cfg(feature = "sim")]
    Sim(super::sim::SimWriteHalf),
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(context, buffer),
            Self::Linked(half) => half.poll_read(context, buffer),
            #[cfg(feature = "sim")]
            Self::Sim(half) => half.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write_vectored(context, slices),
            Self::Linked(half) => half.poll_write(context, slices),
            #[cfg(feature = "sim")]
            Self::Sim(half) => half.poll_write(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_flush(context),
            Self::Linked(_) => Poll::Ready(Ok(())),
            #[cfg(feature = "sim")]
            Self::Sim(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(context),
            Self::Linked(half) => {
                half.end();
                Poll::Ready(Ok(()))
            }
            #[cfg(feature = "sim")]
            Self::Sim(half) => {
                half.end();
                Poll::Ready(Ok(()))
            }
        }
    }
}
