//! The simulated network does what its fault model says.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ottla::env::sim::{SimMachine, SimRun};
use ottla::env::{Listener, Net, SocketOptions, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);
const OPTIONS: SocketOptions =
    SocketOptions { backlog: 10, receive_buffer_bytes: None, send_buffer_bytes: None };

fn host(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn address() -> SocketAddr {
    SocketAddr::new(host(1), 9092)
}

/// A server and a client, each on its machine.
struct Two {
    run: SimRun,
    server: SimMachine,
    client: Net,
}

impl Two {
    fn new() -> Self {
        let run = SimRun::new(1);
        run.net.set_delay_ms_max(5);
        let (server, client) = (run.machine("server", host(1)), run.machine("client", host(2)));
        let client = client.env().net;
        Self { run, server, client }
    }

    fn listen(&self) -> Listener {
        self.server.env().net.listen(address(), OPTIONS).unwrap()
    }

    async fn connected(&self, listener: &Listener) -> (Transport, Transport) {
        let client = self.client.connect(&[address()]).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }
}

fn simulated(test: impl AsyncFnOnce(Two)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { test(Two::new()).await });
}

#[test]
fn bytes_arrive_in_order_and_the_end_behind_them() {
    simulated(async |two| {
        let listener = two.listen();
        let (client, server) = two.connected(&listener).await;
        let ((_reading, mut writing), (mut reading, _writing)) =
            (client.into_split(), server.into_split());
        let sent: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let sender = tokio::spawn(async move {
            for part in sent.chunks(7_777) {
                writing.write_all(part).await.unwrap();
            }
        });
        let mut received = Vec::new();
        reading.read_to_end(&mut received).await.unwrap();
        sender.await.unwrap();
        assert!(received == expected);
    });
}

#[test]
fn a_writer_waits_for_room() {
    simulated(async |two| {
        let listener = two.listen();
        let (client, server) = two.connected(&listener).await;
        let ((_reading, mut writing), (mut reading, _writing)) =
            (client.into_split(), server.into_split());
        let much = vec![1; 1 << 20];
        assert!(timeout(SECOND, writing.write_all(&much)).await.is_err());
        let mut received = vec![0; 64 << 10];
        reading.read_exact(&mut received).await.unwrap();
        assert!(timeout(SECOND, writing.write_all(&[2; 1000])).await.is_ok());
    });
}

#[test]
fn what_one_way_is_cut_arrives_when_it_is_healed_and_the_other_way_goes_on() {
    simulated(async |two| {
        let listener = two.listen();
        let (client, server) = two.connected(&listener).await;
        let ((mut answers, mut requests), (mut asked, mut answering)) =
            (client.into_split(), server.into_split());
        two.run.net.cut(host(2), host(1));
        requests.write_all(b"question").await.unwrap();
        answering.write_all(b"news").await.unwrap();
        let (mut news, mut question) = ([0; 4], [0; 8]);
        answers.read_exact(&mut news).await.unwrap();
        assert!(timeout(SECOND, asked.read_exact(&mut question)).await.is_err());
        assert!(timeout(SECOND, two.client.connect(&[address()])).await.is_err(), "it hangs");
        two.run.net.heal();
        timeout(SECOND, asked.read_exact(&mut question)).await.unwrap().unwrap();
        assert_eq!((&news, &question), (b"news", b"question"));
    });
}

#[test]
fn nobody_listens_is_refused_and_nobody_there_hangs() {
    simulated(async |two| {
        let _env = two.server.env();
        let refused = two.client.connect(&[address()]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        two.server.power_cut();
        assert!(timeout(SECOND, two.client.connect(&[address()])).await.is_err());
    });
}

#[test]
fn a_killed_process_resets_its_connections() {
    simulated(async |two| {
        let listener = two.listen();
        let (client, server) = two.connected(&listener).await;
        two.server.kill();
        client.readable().await.unwrap();
        let error = client.try_read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        drop((listener, server));
    });
}

#[test]
fn without_power_a_connection_is_half_open_until_something_is_written_to_the_new_life() {
    simulated(async |two| {
        let listener = two.listen();
        let (client, server) = two.connected(&listener).await;
        two.server.power_cut();
        assert!(timeout(SECOND, client.readable()).await.is_err(), "silence");
        let slices = [io::IoSlice::new(b"hello")];
        assert_eq!(client.try_write(&slices, false).unwrap(), 5);
        assert!(timeout(SECOND, client.readable()).await.is_err(), "still silence");
        let _again = two.listen();
        assert_eq!(client.try_write(&slices, false).unwrap(), 5);
        client.readable().await.unwrap();
        assert_eq!(
            client.try_read(&mut [0; 10]).unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        drop((listener, server));
    });
}

#[test]
fn nothing_of_a_dead_process_listens_or_writes() {
    simulated(async |two| {
        let dead = two.server.env();
        two.server.kill();
        let env = two.server.env();
        assert!(dead.net.listen(address(), OPTIONS).is_err());
        let path = std::path::Path::new("/file");
        assert!(dead.disk.write_atomically(path, b"old").is_err());
        env.disk.write_atomically(path, b"new").unwrap();
    });
}
