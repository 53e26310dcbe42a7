//! A network in memory that delays, cuts, resets and forgets connections.
//!
//! # The fault model
//!
//! - What is written arrives in order, after a delay that is drawn from the seed.
//! - [`SimNet::cut`] holds back whatever one host sends another, until [`SimNet::heal`]: TCP sends it again
//!   then. A connect hangs meanwhile. One direction may be cut alone.
//! - [`SimNet::reset`] ends connections; what had not arrived is lost.
//! - A host that is killed ends its connections. One that loses power leaves them half open: nothing arrives
//!   any more, and the other side learns it from its first write after the host is up again. A connect
//!   to a host without power hangs; one to a port where nobody listens is refused.
//! - A connection holds at most [`BUFFER_BYTES`] in each direction; a writer waits for room.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::socket::{End, SimSocket};
use super::{SimRandom, Trace};

/// How much one direction of a connection holds.
pub(super) const BUFFER_BYTES: usize = 128 << 10;
/// The first port that is given to who asks for any.
const FIRST_PORT: u16 = 49_152;

/// A simulated network. Clones share it.
#[derive(Clone, Debug)]
pub struct SimNet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// A link was healed, a host came up or listens.
    changed: Notify,
    random: SimRandom,
    trace: Trace,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) hosts: BTreeMap<IpAddr, HostState>,
    listeners: BTreeMap<SocketAddr, Backlog>,
    pub(super) connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// Directions in which nothing arrives.
    cut: Vec<(IpAddr, IpAddr)>,
    delay_ms_max: u64,
}

#[derive(Debug, Default)]
pub(super) struct HostState {
    /// Counts restarts; sockets of an earlier life are dead.
    life: u64,
    pub(super) is_down: bool,
    ports: u16,
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<(End, SocketAddr)>,
    wakers: Vec<Waker>,
}

/// One of the two ends of a connection: 0 connected, 1 accepted.
pub(super) type Side = usize;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ends: [SocketAddr; 2],
    /// What each side sends.
    pub(super) pipes: [Pipe; 2],
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    /// The host of this side lost power: nothing arrives, and nobody knows.
    HalfOpen(Side),
    Reset,
}

#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) arrived: VecDeque<Bytes>,
    /// What is on its way, and when it arrives; without bytes the end.
    on_its_way: VecDeque<(Instant, Bytes)>,
    pub(super) bytes: usize,
    pub(super) has_ended: bool,
    /// Its end was sent.
    is_finished: bool,
    /// Whoever sends let go of the connection.
    pub(super) is_closed: bool,
    pub(super) readers: Vec<Waker>,
    pub(super) writers: Vec<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        for waker in self.readers.drain(..).chain(self.writers.drain(..)) {
            waker.wake();
        }
    }
}

pub(super) fn remember(wakers: &mut Vec<Waker>, context: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
        wakers.push(context.waker().clone());
    }
}

impl Connection {
    pub(super) fn reset(&mut self) {
        self.fate = Fate::Reset;
        for pipe in &mut self.pipes {
            pipe.arrived.clear();
            pipe.on_its_way.clear();
            pipe.wake();
        }
    }
}

impl State {
    fn is_cut(&self, from: IpAddr, to: IpAddr) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Lets arrive what is due.
    fn deliver(&mut self, id: u64, side: Side, trace: &Trace) {
        let Some(connection) = self.connections.get(&id) else { return };
        let [from, to] = [connection.ends[side], connection.ends[1 - side]];
        if connection.fate != Fate::Open || self.is_cut(from.ip(), to.ip()) {
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let pipe = &mut connection.pipes[side];
        let now = Instant::now();
        let mut any = false;
        while let Some((due, _)) = pipe.on_its_way.front()
            && *due <= now
            && let Some((_, bytes)) = pipe.on_its_way.pop_front()
        {
            any = true;
            trace
                .note(|| format!("net {from} {to} {:08x}+{}", crc32c::crc32c(&bytes), bytes.len()));
            if bytes.is_empty() {
                pipe.has_ended = true;
            } else {
                pipe.arrived.push_back(bytes);
            }
        }
        if any {
            pipe.wake();
        }
    }
}

impl SimNet {
    /// A network without hosts, whose delays are drawn from `random`.
    #[must_use]
    pub fn new(random: SimRandom, trace: Trace) -> Self {
        let state = Mutex::default();
        Self { inner: Arc::new(Inner { state, changed: Notify::new(), random, trace }) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host with this address, as a process on it sees it until it is killed. Nothing that it sends
    /// leaves it while `stopped` is set.
    #[must_use]
    pub fn host(&self, ip: IpAddr, stopped: Arc<AtomicBool>) -> SimHost {
        let mut state = self.state();
        let host = state.hosts.entry(ip).or_default();
        host.is_down = false;
        let life = host.life;
        drop(state);
        self.inner.changed.notify_waiters();
        SimHost { net: self.clone(), ip, life, stopped }
    }

    /// The longest time that bytes are on their way.
    pub fn set_delay_ms_max(&self, max: u64) {
        self.state().delay_ms_max = max;
    }

    /// Holds back what `from` sends to `to`.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.state().cut.push((from, to));
    }

    /// Takes one [`SimNet::cut`] back.
    pub fn mend(&self, from: IpAddr, to: IpAddr) {
        let mut state = self.state();
        if let Some(place) = state.cut.iter().position(|cut| *cut == (from, to)) {
            state.cut.swap_remove(place);
        }
        self.let_through(state);
    }

    /// Connects everything again.
    pub fn heal(&self) {
        let mut state = self.state();
        state.cut.clear();
        self.let_through(state);
    }

    /// Delivers what is not held back any more.
    fn let_through(&self, mut state: MutexGuard<'_, State>) {
        let ids: Vec<u64> = state.connections.keys().copied().collect();
        for id in ids {
            state.deliver(id, 0, &self.inner.trace);
            state.deliver(id, 1, &self.inner.trace);
        }
        drop(state);
        self.inner.changed.notify_waiters();
    }

    /// Resets each connection of a host once in `times`, on average.
    pub fn reset(&self, ip: IpAddr, times: u64) {
        for connection in self.state().connections.values_mut() {
            let concerned = connection.ends.iter().any(|end| end.ip() == ip);
            if concerned && self.inner.random.one_in(times) {
                connection.reset();
            }
        }
    }

    /// Ends the processes of a host: their connections are reset, or half open if the host lost its power and
    /// stays down until [`SimNet::host`] is called.
    pub fn stop(&self, ip: IpAddr, has_power: bool) {
        let mut state = self.state();
        let host = state.hosts.entry(ip).or_default();
        host.life += 1;
        host.is_down = !has_power;
        let gone: Vec<SocketAddr> =
            state.listeners.keys().filter(|address| address.ip() == ip).copied().collect();
        let backlogs: Vec<Backlog> =
            gone.iter().filter_map(|address| state.listeners.remove(address)).collect();
        for connection in state.connections.values_mut() {
            let Some(side) = connection.ends.iter().position(|end| end.ip() == ip) else {
                continue;
            };
            if has_power {
                connection.reset();
            } else if connection.fate == Fate::Open {
                connection.fate = Fate::HalfOpen(side);
                connection.pipes.iter_mut().for_each(Pipe::wake);
            }
        }
        drop(state);
        for backlog in backlogs {
            backlog.wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// The time at which something arrives that is sent now, after what is on its way.
    fn due(&self, state: &State, after: Option<Instant>) -> Instant {
        let delay = Duration::from_millis(self.inner.random.below(state.delay_ms_max + 1));
        let due = Instant::now() + delay;
        after.map_or(due, |after| after.max(due))
    }

    /// Puts bytes, or the end, on their way.
    pub(super) fn send(&self, state: &mut State, id: u64, side: Side, bytes: Bytes) {
        let Some(connection) = state.connections.get(&id) else { return };
        let after = connection.pipes[side].on_its_way.back().map(|(due, _)| *due);
        let due = self.due(state, after);
        let Some(connection) = state.connections.get_mut(&id) else { return };
        connection.pipes[side].bytes += bytes.len();
        connection.pipes[side].on_its_way.push_back((due, bytes));
        let net = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(due).await;
            net.state().deliver(id, side, &net.inner.trace);
        });
    }

    /// One side sends no more.
    pub(super) fn finish(&self, id: u64, side: Side) {
        let mut state = self.state();
        let Some(connection) = state.connections.get_mut(&id) else { return };
        let is_open = connection.fate == Fate::Open;
        if !std::mem::replace(&mut connection.pipes[side].is_finished, true) && is_open {
            self.send(&mut state, id, side, Bytes::new());
        }
    }

    /// One side lets go of the connection.
    pub(super) fn close(&self, id: u64, side: Side) {
        // Sockets are dropped with the runtime, too, when nothing is sent any more.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.finish(id, side);
        let mut state = self.state();
        let Some(connection) = state.connections.get_mut(&id) else { return };
        connection.pipes[side].is_closed = true;
        connection.pipes[1 - side].wake();
        if connection.pipes.iter().all(|pipe| pipe.is_closed) {
            state.connections.remove(&id);
        }
    }
}

/// A process's way into the network.
#[derive(Clone, Debug)]
pub struct SimHost {
    net: SimNet,
    ip: IpAddr,
    life: u64,
    stopped: Arc<AtomicBool>,
}

impl SimHost {
    fn is_alive(&self, state: &State) -> bool {
        !self.stopped.load(Ordering::Acquire)
            && state.hosts.get(&self.ip).is_some_and(|host| host.life == self.life)
    }

    fn port(&self, state: &mut State) -> u16 {
        let host = state.hosts.entry(self.ip).or_default();
        host.ports = host.ports.wrapping_add(1) % (u16::MAX - FIRST_PORT);
        FIRST_PORT + host.ports
    }

    /// Only addresses have addresses here.
    pub(in crate::env) fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
        let parsed = address.parse::<SocketAddr>();
        Ok(vec![parsed.map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?])
    }

    pub(in crate::env) fn listen(&self, address: SocketAddr) -> io::Result<SimListener> {
        let mut state = self.net.state();
        if address.ip() != self.ip || !self.is_alive(&state) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut address = address;
        if address.port() == 0 {
            address.set_port(self.port(&mut state));
        }
        if state.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.listeners.insert(address, Backlog::default());
        drop(state);
        self.net.inner.changed.notify_waiters();
        Ok(SimListener { host: self.clone(), address })
    }

    pub(in crate::env) async fn connect(&self, addresses: &[SocketAddr]) -> io::Result<SimSocket> {
        let mut failure = io::Error::from(io::ErrorKind::InvalidInput);
        for &address in addresses {
            match self.connect_to(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<SimSocket> {
        let due = self.net.due(&self.net.state(), None);
        tokio::time::sleep_until(due).await;
        loop {
            let changed = self.net.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(connected) = self.try_connect(address) {
                return connected;
            }
            changed.await;
        }
    }

    /// None while nothing comes back from there.
    fn try_connect(&self, address: SocketAddr) -> Option<io::Result<SimSocket>> {
        let mut state = self.net.state();
        let ip = address.ip();
        let is_down = state.hosts.get(&ip).is_none_or(|host| host.is_down);
        if is_down
            || !self.is_alive(&state)
            || state.is_cut(self.ip, ip)
            || state.is_cut(ip, self.ip)
        {
            return None;
        }
        if !state.listeners.contains_key(&address) {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        let id = state.next_connection;
        state.next_connection += 1;
        let own = SocketAddr::new(self.ip, self.port(&mut state));
        let connection = Connection {
            ends: [own, address],
            pipes: [Pipe::default(), Pipe::default()],
            fate: Fate::Open,
        };
        state.connections.insert(id, connection);
        let end = |side| End { net: self.net.clone(), id, side };
        let ours = SimSocket::new(end(0), own, &self.stopped);
        let theirs = (end(1), own);
        let wakers = match state.listeners.get_mut(&address) {
            Some(backlog) => {
                backlog.waiting.push_back(theirs);
                std::mem::take(&mut backlog.wakers)
            }
            None => Vec::new(),
        };
        self.net.inner.trace.note(|| format!("net {own} {address} connected"));
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        Some(Ok(ours))
    }
}

/// A listening socket of a simulated host.
#[derive(Debug)]
pub struct SimListener {
    host: SimHost,
    address: SocketAddr,
}

impl SimListener {
    pub(in crate::env) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub(in crate::env) async fn accept(&self) -> io::Result<(SimSocket, SocketAddr)> {
        poll_fn(|context| {
            let mut state = self.host.net.state();
            if !self.host.is_alive(&state) {
                return Poll::Pending;
            }
            let Some(backlog) = state.listeners.get_mut(&self.address) else {
                return Poll::Pending;
            };
            match backlog.waiting.pop_front() {
                Some((end, peer)) => {
                    let socket = SimSocket::new(end, self.address, &self.host.stopped);
                    Poll::Ready(Ok((socket, peer)))
                }
                None => {
                    remember(&mut backlog.wakers, context);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut state = self.host.net.state();
        let is_own = state.hosts.get(&self.host.ip).is_some_and(|host| host.life == self.host.life);
        let backlog = if is_own { state.listeners.remove(&self.address) } else { None };
        drop(state);
        // Those who were not accepted are closed.
        drop(backlog);
    }
}
