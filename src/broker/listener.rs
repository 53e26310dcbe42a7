//! The listening sockets: `listeners` and `advertised.listeners`, and who may connect.
//!
//! Why: "localhost:9092 does not connect" is the most frequently asked question about Kafka. A name
//! with an IPv4 and an IPv6 address is bound on both, on the same port; and by default a client is
//! sent back to exactly the address that it used.
//!
//! Invariants:
//! - `LISTEN-1` no more than `max.connections` connections are served, by whichever listener they came. As in
//!   Kafka, each listening socket accepts one more, which waits for a place; the next ones wait in the
//!   backlog. No more than `max.connections.per.ip` from one address; the next one is closed.
//! - `LISTEN-2` only loopback addresses are bound unless a listener says otherwise.
//!
//! Only `PLAINTEXT` listeners exist so far; `config` refuses any other protocol by name.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{self, ConnectionLimits, FrameHandler, PeerInfo};
use crate::config::{BrokerConfig, Listener, ListenerAddress};
use crate::env::{self, Net, SocketOptions, Transport};
use crate::error::{Error, Result};

/// How many times to look for a port that is free on every address.
const PORT_ATTEMPTS: usize = 20;

/// The addresses of a listener. A host with both IPv4 and IPv6 addresses yields both.
fn resolve(net: &Net, bind: &ListenerAddress) -> Result<Vec<IpAddr>> {
    let Some(host) = bind.host.as_deref() else {
        return Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
    };
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let resolved = net.resolve(host, bind.port);
    let found = resolved.map_err(|source| Error::network("resolve", host, source))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

/// The options of sockets, from the settings.
pub(super) fn socket_options(config: &BrokerConfig) -> SocketOptions {
    SocketOptions {
        backlog: config.socket_listen_backlog_size,
        receive_buffer_bytes: config.socket_receive_buffer_bytes,
        send_buffer_bytes: config.socket_send_buffer_bytes,
    }
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
    (net, options): (&Net, SocketOptions),
    ips: &[IpAddr],
    port: u16,
) -> io::Result<Vec<env::Listener>> {
    let mut bound: Vec<env::Listener> = Vec::new();
    let mut port = port;
    let mut absent = None;
    for &ip in ips {
        match net.listen(SocketAddr::new(ip, port), options) {
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

/// What a listening socket belongs to, and where it is bound. Its connections keep it.
#[derive(Debug)]
pub(super) struct BoundListener {
    /// What the settings say about the listener.
    pub(super) listener: Listener,
    pub(super) address: SocketAddr,
}

impl BoundListener {
    /// The name of the listener.
    pub(super) fn name(&self) -> &str {
        &self.listener.bind.name
    }

    /// The host and port by which this broker is known: to a client that connected to the address `reached` or, without
    /// one, to everybody else. That is `advertised.listeners`; if it is silent, the address that the client used, and
    /// for everybody else the host of `listeners`.
    pub(super) fn told(&self, reached: Option<SocketAddr>) -> (String, u16) {
        let bound = self.address.port();
        match (&self.listener.advertised, reached, &self.listener.bind.host) {
            (Some(told), _, _) => {
                (told.host.clone(), if told.port == 0 { bound } else { told.port })
            }
            (None, Some(address), _) => (address.ip().to_string(), address.port()),
            (None, None, Some(host)) => (host.clone(), bound),
            (None, None, None) => (self.address.ip().to_string(), bound),
        }
    }
}

/// How a client reached this broker.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    pub(super) listener: Arc<BoundListener>,
    /// The address that the client connected to, which may be any that the listener is bound to.
    pub(super) address: SocketAddr,
}

/// A listening socket.
#[derive(Debug)]
struct Bound {
    listener: Arc<BoundListener>,
    socket: env::Listener,
}

/// The bound sockets of a broker.
#[derive(Debug)]
pub(super) struct Listeners {
    bound: Vec<Bound>,
    options: SocketOptions,
}

/// Name, port and addresses of each listener. One that is listed twice, for IPv4 and for IPv6, has one port.
fn grouped<'a>(net: &Net, listeners: &'a [Listener]) -> Result<Vec<(&'a Listener, Vec<IpAddr>)>> {
    let mut groups: Vec<(&Listener, Vec<IpAddr>)> = Vec::new();
    for listener in listeners {
        let found = resolve(net, &listener.bind)?;
        match groups.iter_mut().find(|(first, _)| first.bind.name == listener.bind.name) {
            Some((first, _)) if first.bind.port != listener.bind.port => {
                let name = &first.bind.name;
                let detail =
                    format!("listeners: names must be unique, but {name} is listed with two ports");
                return Err(Error::invalid(detail));
            }
            Some((_, ips)) => ips.extend(found),
            None => groups.push((listener, found)),
        }
    }
    Ok(groups)
}

/// Binds every address on one port; looks for another when a free one was asked for.
fn bind_retrying(
    with: (&Net, SocketOptions),
    ips: &[IpAddr],
    port: u16,
) -> Result<Vec<env::Listener>> {
    let mut attempts = 0;
    loop {
        match bind_all(with, ips, port) {
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
    pub(super) fn bind(net: &Net, listeners: &[Listener], options: SocketOptions) -> Result<Self> {
        let mut bound = Vec::new();
        for (listener, ips) in grouped(net, listeners)? {
            for socket in bind_retrying((net, options), &ips, listener.bind.port)? {
                let network = |source: io::Error| Error::network("bind", "a listener", source);
                let address = socket.local_addr().map_err(network)?;
                let listener = BoundListener { listener: listener.clone(), address };
                bound.push(Bound { listener: Arc::new(listener), socket });
            }
        }
        Ok(Self { bound, options })
    }

    /// What is bound, in the order of the settings.
    pub(super) fn bound(&self) -> Vec<Arc<BoundListener>> {
        self.bound.iter().map(|bound| Arc::clone(&bound.listener)).collect()
    }

    /// Accepts connections until `stop`.
    pub(super) fn accept(self, acceptor: &Arc<Acceptor>, tasks: &TaskTracker) {
        for bound in self.bound {
            let acceptor = Arc::clone(acceptor);
            let tasks_of_connections = tasks.clone();
            let BoundListener { listener, address } = &*bound.listener;
            let (name, protocol) = (&listener.bind.name, listener.protocol);
            tracing::debug!(name, ?protocol, %address, "listening");
            let options = self.options;
            tasks.spawn(async move { acceptor.run(bound, options, &tasks_of_connections).await });
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
        Bound { listener, socket }: Bound,
        options: SocketOptions,
        tasks: &TaskTracker,
    ) {
        loop {
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
                    // Only now: a socket that nobody connects to holds no slot.
                    let slot = tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return,
                        slot = Arc::clone(&self.slots).acquire_owned() => slot,
                    };
                    let Ok(slot) = slot else { return };
                    if let Err(error) = stream.set_options(options) {
                        tracing::debug!(%peer, %error, "could not set the options of a socket");
                    }
                    let (acceptor, listener) = (Arc::clone(&self), Arc::clone(&listener));
                    tasks.spawn(async move {
                        acceptor.serve(stream, listener, peer).await;
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

    async fn serve(&self, stream: Transport, listener: Arc<BoundListener>, peer: SocketAddr) {
        let Ok(local) = stream.local_addr() else { return };
        let info = Arc::new(PeerInfo {
            address: unmapped(peer),
            reached: Reached { listener, address: unmapped(local) },
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
    use socket2::SockRef;
    use tokio::net::TcpStream;

    use super::*;
    use crate::config::ConfigMap;

    const OPTIONS: SocketOptions =
        SocketOptions { backlog: 128, receive_buffer_bytes: None, send_buffer_bytes: None };

    fn parsed(value: &str) -> Vec<Listener> {
        let fixed = ConfigMap::from([("listeners".to_owned(), value.to_owned())]);
        BrokerConfig::resolve(&fixed).unwrap().listeners
    }

    #[tokio::test]
    async fn the_buffers_of_a_connection_have_the_configured_sizes() {
        let wanted = parsed("PLAINTEXT://127.0.0.1:0");
        let sizes = |options: SocketOptions| {
            let listeners = Listeners::bind(&Net::Real, &wanted, options).unwrap();
            async move {
                let client = TcpStream::connect(listeners.bound()[0].address).await.unwrap();
                let (stream, _) = listeners.bound[0].socket.accept().await.unwrap();
                stream.set_options(options).unwrap();
                drop(client);
                let Transport::Tcp(stream) = &stream else { panic!("{stream:?}") };
                let socket = SockRef::from(stream);
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
        let wanted = parsed("PLAINTEXT://localhost:0");
        let listeners = Listeners::bind(&Net::Real, &wanted, OPTIONS).unwrap();
        let ports: Vec<_> = listeners.bound().iter().map(|one| one.address.port()).collect();
        assert!(!ports.is_empty() && ports.iter().all(|&port| port == ports[0] && port != 0));
        let taken = parsed(&format!("PLAINTEXT://127.0.0.1:{}", ports[0]));
        let error = Listeners::bind(&Net::Real, &taken, OPTIONS).unwrap_err().to_string();
        assert!(error.contains(&ports[0].to_string()), "{error}");
    }
}
