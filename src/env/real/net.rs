//! Sockets of the operating system: the options of a listener, and writes without a copy.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, ToSocketAddrs};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};

use crate::env::SocketOptions;
use crate::types::Stored;

pub(in crate::env) fn listen(
    address: SocketAddr,
    options: SocketOptions,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Set before it listens: accepted sockets inherit the size, on which the window scaling is
    // based.
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    TcpListener::from_std(socket.into())
}

pub(in crate::env) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

pub(in crate::env) fn set_options(stream: &TcpStream, options: SocketOptions) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match options.send_buffer_bytes {
        Some(bytes) => SockRef::from(stream).set_send_buffer_size(bytes as usize),
        None => Ok(()),
    }
}

/// Holds back the few bytes before a file's, so that they do not take a packet of their own.
#[cfg(target_os = "linux")]
const MORE_COMES: i32 = nix::libc::MSG_MORE;
#[cfg(not(target_os = "linux"))]
const MORE_COMES: i32 = 0;

pub(in crate::env) fn try_write(
    stream: &TcpStream,
    slices: &[IoSlice<'_>],
    more: bool,
) -> io::Result<usize> {
    let flags = if more { MORE_COMES } else { 0 };
    stream.try_io(Interest::WRITABLE, || {
        SockRef::from(stream).send_vectored_with_flags(slices, flags)
    })
}

/// Not reached on systems that cannot tell where bytes are stored; see `Mapping::stored`.
pub(in crate::env) fn try_send_file(
    stream: &TcpStream,
    stored: &Stored,
    length: usize,
) -> io::Result<usize> {
    stream.try_io(Interest::WRITABLE, || send_file(stream, stored, length))
}

#[cfg(target_os = "linux")]
fn send_file(stream: &TcpStream, stored: &Stored, length: usize) -> io::Result<usize> {
    let mut position = stored.position.try_into().map_err(io::Error::other)?;
    Ok(nix::sys::sendfile::sendfile64(stream, &*stored.file, Some(&mut position), length)?)
}

#[cfg(not(target_os = "linux"))]
fn send_file(_stream: &TcpStream, _stored: &Stored, _length: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the file system or a sandbox refuses to let a socket take bytes from a file.
#[cfg(target_os = "linux")]
pub(in crate::env) fn is_no_send_file(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, ENOSYS, EOPNOTSUPP, EPERM};
    error.raw_os_error().is_some_and(|code| [EINVAL, ENOSYS, EOPNOTSUPP, EPERM].contains(&code))
}

#[cfg(not(target_os = "linux"))]
pub(in crate::env) fn is_no_send_file(_error: &io::Error) -> bool {
    false
}
