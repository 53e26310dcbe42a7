//! Connections against a handler that echoes: order, limits, time-outs, ends.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::broker::listener::BoundListener;
use crate::broker::memory::MemoryBudget;
use crate::broker::receive_buffers::{ReceiveBuffers, SMALL};
use crate::config::{Listener, ListenerAddress, SecurityProtocol};

/// Echoes frames; the first byte says how: `n`ow, `l`ater, `s`ilent, `x` is an error.
#[derive(Default)]
struct Echo {
    later: Mutex<Vec<oneshot::Sender<()>>>,
    /// How many frames came. None is kept, so that its buffer is used again.
    seen: Mutex<usize>,
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

impl FrameHandler for Echo {
    fn handle(self: Arc<Self>, _peer: Arc<PeerInfo>, frame: Bytes) -> BoxFuture<Result<Handled>> {
        Box::pin(async move {
            *self.seen.lock().unwrap() += 1;
            let reply = vec![Bytes::from(framed(&frame)).into()];
            match frame.first() {
                Some(b'n') => Ok(Handled::Reply(reply)),
                Some(b's') => Ok(Handled::Later(Box::pin(async { Ok(None) }))),
                Some(b'l') => {
                    let (sender, receiver) = oneshot::channel();
                    self.later.lock().unwrap().push(sender);
                    Ok(Handled::Later(Box::pin(async move {
                        receiver.await.ok();
                        Ok(Some(reply))
                    })))
                }
                _ => Err(Error::malformed("request", "unknown")),
            }
        })
    }
}

struct World {
    client: TcpStream,
    echo: Arc<Echo>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

async fn world(limits: ConnectionLimits) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let address = stream.local_addr().unwrap();
    let listener = Listener {
        bind: ListenerAddress { name: "PLAINTEXT".to_owned(), host: None, port: 0 },
        protocol: SecurityProtocol::Plaintext,
        advertised: None,
    };
    let listener = BoundListener { listener, address };
    let info = Arc::new(PeerInfo {
        address: peer,
        reached: Reached { listener: Arc::new(listener), address },
        gone: CancellationToken::new(),
        software: OnceLock::new(),
    });
    let echo = Arc::new(Echo::default());
    let stop = CancellationToken::new();
    let tokens = (stop.clone(), CancellationToken::new());
    let server = tokio::spawn(serve(stream.into(), info, echo.clone(), limits, tokens));
    World { client, echo, stop, server }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        frames: FrameLimits {
            bytes_max: 100_000_000,
            memory: MemoryBudget::new(Some(1 << 20)),
            buffers: ReceiveBuffers::default(),
        },
        idle: None,
    }
}

async fn read_frame(client: &mut TcpStream) -> Vec<u8> {
    let length = client.read_u32().await.unwrap();
    let mut body = vec![0; length as usize];
    client.read_exact(&mut body).await.unwrap();
    body
}

#[tokio::test]
async fn responses_leave_in_the_order_of_the_requests() {
    let mut world = world(limits()).await;
    for body in [&b"later 1"[..], b"now 2", b"silent 3", b"later 4", b"now 5"] {
        world.client.write_all(&framed(body)).await.unwrap();
    }
    // All were taken up, though the first is not answered.
    while *world.echo.seen.lock().unwrap() < 5 {
        tokio::task::yield_now().await;
    }
    let senders = std::mem::take(&mut *world.echo.later.lock().unwrap());
    for sender in senders.into_iter().rev() {
        sender.send(()).unwrap();
    }
    for expected in [&b"later 1"[..], b"now 2", b"later 4", b"now 5"] {
        assert_eq!(read_frame(&mut world.client).await, expected);
    }
    drop(world.client);
    world.server.await.unwrap();
}

#[tokio::test]
async fn a_long_frame_in_pieces_comes_back_whole() {
    let mut world = world(limits()).await;
    let mut body = vec![b'n'; 3_000_000];
    for (index, byte) in body.iter_mut().enumerate().skip(1) {
        *byte = u8::try_from(index % 251).unwrap();
    }
    let frame = framed(&body);
    let (mut read, mut write) = world.client.split();
    let send = async {
        for piece in frame.chunks(70_001) {
            write.write_all(piece).await.unwrap();
        }
    };
    let receive = async {
        let mut answer = vec![0; frame.len()];
        read.read_exact(&mut answer).await.unwrap();
        assert!(answer == frame);
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn frames_in_a_buffer_that_was_used_before_come_back_as_they_are() {
    let mut world = world(limits()).await;
    for (round, size) in [600_000, 524_289, 700_000, 20_000, 600_001].into_iter().enumerate() {
        let mut body = vec![u8::try_from(round).unwrap(); size];
        body[0] = b'n';
        // What follows in the same packets is not the first one's.
        let frames = [framed(&body), framed(b"n small"), framed(&body)].concat();
        let (mut read, mut write) = world.client.split();
        let mut answers = vec![0; frames.len()];
        let (sent, received) =
            tokio::join!(write.write_all(&frames), read.read_exact(&mut answers));
        sent.unwrap();
        received.unwrap();
        assert!(answers == frames, "{size}");
    }
}

#[tokio::test]
async fn bad_lengths_and_bad_frames_close_the_connection() {
    for bytes in [(-1_i32).to_be_bytes().to_vec(), i32::MAX.to_be_bytes().to_vec(), framed(b"x")] {
        let mut world = world(limits()).await;
        world.client.write_all(&bytes).await.unwrap();
        assert_eq!(world.client.read(&mut [0; 8]).await.unwrap_or(0), 0);
        world.server.await.unwrap();
    }
}

#[tokio::test]
async fn an_announced_frame_pays_only_for_what_came() {
    let limits = limits();
    let memory = limits.frames.memory.clone();
    let mut world = world(limits).await;
    world.client.write_all(&90_000_000_i32.to_be_bytes()).await.unwrap();
    world.client.write_all(&[7; 1000]).await.unwrap();
    // The budget is 1 MiB: nearly all of it must still be there.
    let mut hold = MemoryHold::default();
    memory.pay(&mut hold, (1 << 20) - 2 * SMALL).await.unwrap();
    drop(world.client);
    world.server.await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_so_is_a_slow_sender() {
    let idle = ConnectionLimits { idle: Some(Duration::from_millis(50)), ..limits() };
    let mut quiet = world(idle.clone()).await;
    assert_eq!(quiet.client.read(&mut [0; 8]).await.unwrap_or(0), 0);
    quiet.server.await.unwrap();
    let mut slow = world(idle).await;
    slow.client.write_all(&[0, 0, 1]).await.unwrap();
    assert_eq!(slow.client.read(&mut [0; 8]).await.unwrap_or(0), 0);
    slow.server.await.unwrap();
}

#[tokio::test]
async fn a_connection_is_not_idle_while_the_broker_has_not_answered() {
    let idle = ConnectionLimits { idle: Some(Duration::from_millis(50)), ..limits() };
    let mut world = world(idle).await;
    world.client.write_all(&framed(b"later")).await.unwrap();
    let mut byte = [0];
    let waited = tokio::time::timeout(Duration::from_millis(300), world.client.read(&mut byte));
    assert!(waited.await.is_err(), "closed");
    let sender = world.echo.later.lock().unwrap().pop().unwrap();
    sender.send(()).unwrap();
    assert_eq!(read_frame(&mut world.client).await, b"later");
    world.server.await.unwrap();
}

#[tokio::test]
async fn who_waits_for_the_memory_of_the_broker_is_not_slow() {
    let limits = ConnectionLimits { idle: Some(Duration::from_millis(500)), ..limits() };
    let memory = limits.frames.memory.clone();
    // All there is, and what one may take above it.
    let (mut all, mut above) = (MemoryHold::default(), MemoryHold::default());
    memory.pay(&mut all, 1 << 20).await.unwrap();
    memory.pay(&mut above, 1).await.unwrap();
    let mut world = world(limits).await;
    let (begin, end) = (framed(b"now it is"), b" there");
    let length = u32::try_from(begin.len() - 4 + end.len()).unwrap();
    world.client.write_all(&length.to_be_bytes()).await.unwrap();
    world.client.write_all(&begin[4..]).await.unwrap();
    let mut byte = [0];
    let waited = tokio::time::timeout(Duration::from_millis(1500), world.client.read(&mut byte));
    assert!(waited.await.is_err(), "closed");
    drop((all, above));
    world.client.write_all(end).await.unwrap();
    assert_eq!(read_frame(&mut world.client).await, b"now it is there");
    // Its client can be slow again.
    world.client.write_all(&[0, 0, 1]).await.unwrap();
    assert_eq!(world.client.read(&mut [0; 8]).await.unwrap_or(0), 0);
    world.server.await.unwrap();
}

#[tokio::test]
async fn requests_of_a_peer_that_left_are_still_carried_out() {
    let mut world = world(limits()).await;
    for _ in 0..10 {
        world.client.write_all(&framed(b"silent")).await.unwrap();
    }
    drop(world.client);
    world.server.await.unwrap();
    assert_eq!(*world.echo.seen.lock().unwrap(), 10);
}

#[tokio::test]
async fn stopping_answers_what_is_open_and_reads_no_more() {
    let mut world = world(limits()).await;
    world.client.write_all(&framed(b"later")).await.unwrap();
    while world.echo.later.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    world.stop.cancel();
    tokio::task::yield_now().await;
    let sender = world.echo.later.lock().unwrap().pop().unwrap();
    sender.send(()).unwrap();
    assert_eq!(read_frame(&mut world.client).await, b"later");
    assert_eq!(world.client.read(&mut [0; 8]).await.unwrap(), 0);
    world.server.await.unwrap();
}
