//! The listening sockets: `listeners` and `advertised.listeners`, and who may connect.
//!
//! Why: "localhost:9092 does not connect" is the most frequently asked question about Kafka. A name
//! with an IPv4 and an IPv6 address is bound on both, on the same port; and by default a client is
//! sent back to exactly the address that it used.
//!
//! Invariants:
//! - `LISTEN-1` no more than `max.connections` connections are open; the next ones wait in the
//!   backlog. No more than `max.connections.per.ip` from one address; the next one is closed.
//! - `LISTEN-2` only loopback addresses are bound unless a listener says otherwise.
//!
//! Only `PLAINTEXT` listeners exist so far; `config` refuses any other protocol by name.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{self, ConnectionLimits, FrameHandler, PeerInfo};
use crate::config::{BrokerConfig, Listener};
use crate::error::{Error, Result};

/// How many times to look for a port that is free on every address.
const PORT_ATTEMPTS: usize = 20;

/// The addresses of a listener. A host with both IPv4 and IPv6 addresses yields both.
fn resolve(listener: &Listener) -> Result<Vec<IpAddr>> {
    let Some(host) = listener.host.as_deref() else {
        return Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
    };
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let resolved = (host, listener.port).to_socket_addrs();
    let found = resolved.map_err(|source| Error::network("resolve", host, source))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

/// The options of sockets.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketOptions {
    /// `socket.listen.backlog.size`.
    pub(super) backlog: i32,
    /// `socket.receive.buffer.bytes`; none leaves it to the operating system.
    pub(super) receive_buffer_bytes: Option<u32>,
    /// `socket.send.buffer.bytes`; none leaves it to the operating system.
    pub(super) send_buffer_bytes: Option<u32>,
}

impl SocketOptions {
    pub(super) fn of(config: &BrokerConfig) -> Self {
        Self {
            backlog: config.socket_listen_backlog_size,
            receive_buffer_bytes: config.socket_receive_buffer_bytes,
            send_buffer_bytes: config.socket_send_buffer_bytes,
        }
    }

    /// Sets the options of an accepted socket.
    fn apply(self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        match self.send_buffer_bytes {
            Some(bytes) => SockRef::from(stream).set_send_buffer_size(bytes as usize),
            None => Ok(()),
        }
    }
}

fn bind_one(address: SocketAddr, options: SocketOptions) -> io::Result<std::net::TcpListener> {
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
    Ok(socket.into())
}

/// Whether this machine lacks an address family.
fn is_absent(error: &io::Error) -> bool {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return true;
    }
    #[cfg(unix)]
    return error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT);
    #[cfg(not(unix))]
    return false;
}

/// Binds every address on one port.
fn bind_all(
    ips: &[IpAddr],
    port: u16,
    options: SocketOptions,
) -> io::Result<Vec<std::net::TcpListener>> {
    let mut bound: Vec<std::net::TcpListener> = Vec::new();
    let mut port = port;
    let mut absent = None;
    for &ip in ips {
        match bind_one(SocketAddr::new(ip, port), options) {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                bound.push(listener);
            }
            Err(error) if ips.len() > 1 && is_absent(&error) => absent = Some(error),
            Err(error) => return Err(error),
        }
    }
    match absent {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

/// The bound sockets of a broker.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    names: Vec<String>,
    options: SocketOptions,
}

/// Name, port and addresses of each listener. One that is listed twice, for IPv4 and for IPv6, has one port.
fn grouped(listeners: &[Listener]) -> Result<Vec<(&str, u16, Vec<IpAddr>)>> {
    let mut groups: Vec<(&str, u16, Vec<IpAddr>)> = Vec::new();
    for listener in listeners {
        let found = resolve(listener)?;
        match groups.iter_mut().find(|(name, ..)| *name == listener.name) {
            Some((name, port, _)) if *port != listener.port => {
                let detail =
                    format!("listeners: names must be unique, but {name} is listed with two ports");
                return Err(Error::invalid(detail));
            }
            Some((_, _, ips)) => ips.extend(found),
            None => groups.push((&listener.name, listener.port, found)),
        }
    }
    Ok(groups)
}

/// Binds every address on one port; looks for another when a free one was asked for.
fn bind_retrying(
    ips: &[IpAddr],
    port: u16,
    options: SocketOptions,
) -> Result<Vec<std::net::TcpListener>> {
    let mut attempts = 0;
    loop {
        match bind_all(ips, port, options) {
            Ok(bound) => return Ok(bound),
            Err(error)
                if port == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && attempts < PORT_ATTEMPTS =>
            {
                attempts += 1;
            }
            Err(source) => {
                let names: Vec<_> =
                    ips.iter().map(|&ip| SocketAddr::new(ip, port).to_string()).collect();
                let address = names.join(" and ");
                return Err(Error::network("bind", address, source));
            }
        }
    }
}

impl Listeners {
    /// Binds all endpoints; with port 0, one free port for all addresses of a listener if there is one.
    ///
    /// # Errors
    ///
    /// An address that cannot be resolved or bound, by name; a name that is listed with two ports.
    pub(super) fn bind(listeners: &[Listener], options: SocketOptions) -> Result<Self> {
        let mut bound =
            Self { sockets: Vec::new(), addresses: Vec::new(), names: Vec::new(), options };
        for (name, port, ips) in grouped(listeners)? {
            for socket in bind_retrying(&ips, port, options)? {
                let network = |source: io::Error| Error::network("bind", "a listener", source);
                bound.addresses.push(socket.local_addr().map_err(network)?);
                bound.sockets.push(TcpListener::from_std(socket).map_err(network)?);
                bound.names.push(name.to_owned());
            }
        }
        Ok(bound)
    }

    /// The bound addresses.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The name of the listener of each bound address.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Accepts connections until `stop`.
    pub(super) fn accept(self, acceptor: &Arc<Acceptor>, tasks: &TaskTracker) {
        for socket in self.sockets {
            let acceptor = Arc::clone(acceptor);
            let tasks_of_connections = tasks.clone();
            let socket = (socket, self.options);
            tasks.spawn(async move { acceptor.run(socket, &tasks_of_connections).await });
        }
    }
}

/// Admits connections.
pub(super) struct Acceptor {
    handler: Arc<dyn FrameHandler>,
    limits: ConnectionLimits,
    slots: Arc<Semaphore>,
    per_ip_max: usize,
    per_ip: Mutex<BTreeMap<IpAddr, usize>>,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Acceptor {
    /// Admits at most `max` connections, `per_ip_max` of one address.
    pub(super) fn new(
        handler: Arc<dyn FrameHandler>,
        limits: ConnectionLimits,
        (max, per_ip_max): (usize, usize),
        (stop, kill): (CancellationToken, CancellationToken),
    ) -> Arc<Self> {
        Arc::new(Self {
            handler,
            limits,
            slots: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            per_ip_max,
            per_ip: Mutex::default(),
            stop,
            kill,
        })
    }

    async fn run(
        self: Arc<Self>,
        (socket, options): (TcpListener, SocketOptions),
        tasks: &TaskTracker,
    ) {
        loop {
            let slot = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                slot = Arc::clone(&self.slots).acquire_owned() => slot,
            };
            let Ok(slot) = slot else { return };
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(place) = Self::take_place(&self, peer.ip()) else {
                        tracing::debug!(%peer, "too many connections from this address");
                        continue;
                    };
                    if let Err(error) = options.apply(&stream) {
                        tracing::debug!(%peer, %error, "could not set the options of a socket");
                    }
                    let acceptor = Arc::clone(&self);
                    tasks.spawn(async move {
                        acceptor.serve(stream, peer).await;
                        drop((place, slot));
                    });
                }
                Err(error) => {
                    // Most likely out of file descriptors: some of those in use must be released
                    // first.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let Ok(local) = stream.local_addr() else { return };
        let info = Arc::new(PeerInfo {
            peer: unmapped(peer),
            local: unmapped(local),
            gone: self.stop.child_token(),
            software: OnceLock::new(),
        });
        let tokens = (self.stop.clone(), self.kill.clone());
        let handler = Arc::clone(&self.handler);
        connection::serve(stream, info, handler, self.limits.clone(), tokens).await;
    }

    fn take_place(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let mut counts = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_insert(0);
        if *count >= self.per_ip_max {
            return None;
        }
        *count += 1;
        Some(Place { acceptor: Arc::clone(self), ip })
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Acceptor").field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// A connection's slot among those of its address.
struct Place {
    acceptor: Arc<Acceptor>,
    ip: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.acceptor.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

/// An IPv4 address that arrived through an IPv6 socket, as IPv4.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_listeners;

    const OPTIONS: SocketOptions =
        SocketOptions { backlog: 128, receive_buffer_bytes: None, send_buffer_bytes: None };

    #[tokio::test]
    async fn the_buffers_of_a_connection_have_the_configured_sizes() {
        let wanted = parse_listeners("listeners", "PLAINTEXT://127.0.0.1:0").unwrap();
        let sizes = |options: SocketOptions| {
            let listeners = Listeners::bind(&wanted, options).unwrap();
            async move {
                let client = TcpStream::connect(listeners.addresses()[0]).await.unwrap();
                let (stream, _) = listeners.sockets[0].accept().await.unwrap();
                options.apply(&stream).unwrap();
                drop(client);
                let socket = SockRef::from(&stream);
                (socket.recv_buffer_size().unwrap(), socket.send_buffer_size().unwrap())
            }
        };
        let given = SocketOptions {
            receive_buffer_bytes: Some(20_000),
            send_buffer_bytes: Some(30_000),
            ..OPTIONS
        };
        let (receive, send) = sizes(given).await;
        // Linux doubles the requested size.
        assert!((20_000..=40_000).contains(&receive), "{receive}");
        assert!((30_000..=60_000).contains(&send), "{send}");
        let unset = sizes(OPTIONS).await;
        assert!(unset.0 > receive && unset.1 > send, "{unset:?}");
    }

    #[tokio::test]
    async fn a_free_port_is_the_same_on_both_families() {
        let wanted = parse_listeners("listeners", "PLAINTEXT://localhost:0").unwrap();
        let listeners = Listeners::bind(&wanted, OPTIONS).unwrap();
        let ports: Vec<_> = listeners.addresses().iter().map(SocketAddr::port).collect();
        assert!(!ports.is_empty() && ports.iter().all(|&port| port == ports[0] && port != 0));
        let taken = parse_listeners("listeners", &format!("PLAINTEXT://127.0.0.1:{}", ports[0]));
        let error = Listeners::bind(&taken.unwrap(), OPTIONS).unwrap_err().to_string();
        assert!(error.contains(&ports[0].to_string()), "{error}");
    }
}
