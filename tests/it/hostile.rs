//! Bad input over raw sockets: an error or a closed connection, memory stays flat and the broker
//! keeps serving.

use std::io::{Read, Write};
use std::net::Shutdown;

use bytes::Bytes;
use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::api::api_versions_fallback;
use ottla::protocol::messages::api_versions::ApiVersionsRequest;
use ottla::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use ottla::protocol::{ApiKey, Response, frame};

use ottla::record::{BatchOptions, Compression};

use crate::support::{
    Client, TestBroker, anonymous_memory, batch, batch_with, is_closed, read_frame,
};

/// The broker still answers.
#[track_caller]
fn check_serving(node: &TestBroker) {
    let request = ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
        ..ApiVersionsRequest::default()
    };
    assert_eq!(node.client().call(4, request).error_code, 0);
}

/// Random bytes that are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn random_bytes_close_the_connection_and_nothing_else() {
    let node = TestBroker::in_memory();
    let mut noise = Noise(0x1234_5678_9abc_def1);
    for round in 0..200 {
        let mut socket = node.socket();
        let size = (noise.next() % 300) as usize;
        let mut bytes = noise.bytes(size);
        if round % 2 == 0 {
            // A frame of the right length, with an existing API followed by noise.
            let api = (noise.next() % 80) as i16;
            let version = (noise.next() % 15) as i16;
            let mut body = api.to_be_bytes().to_vec();
            body.extend(version.to_be_bytes());
            body.append(&mut bytes);
            bytes = framed(&body);
        }
        // The broker may have closed while we still write.
        drop(socket.write_all(&bytes));
        drop(socket.shutdown(Shutdown::Write));
        let mut rest = Vec::new();
        drop(socket.read_to_end(&mut rest));
    }
    check_serving(&node);
    node.stop();
}

#[test]
fn impossible_lengths_close_the_connection_at_once() {
    let node = TestBroker::in_memory();
    for length in [-1_i32, i32::MIN, i32::MAX, 104_857_601] {
        let mut socket = node.socket();
        socket.write_all(&length.to_be_bytes()).unwrap();
        assert!(is_closed(&mut socket), "{length}");
    }
    for body in [&[][..], &[0], &[0, 3, 0, 1, 0, 0, 0, 1]] {
        let mut socket = node.socket();
        socket.write_all(&framed(body)).unwrap();
        assert!(is_closed(&mut socket), "{body:?}");
    }
    check_serving(&node);
}

#[test]
fn unknown_apis_and_versions_close_the_connection() {
    let node = TestBroker::in_memory();
    // JoinGroup and EndTxn are Kafka's, but not served; 9999 is nobody's; Produce v2 is advertised
    // and refused; Metadata v99 does not exist.
    for (api, version) in [(11_i16, 0_i16), (26, 0), (9999, 0), (-1, 0), (0, 2), (3, 99), (3, -1)] {
        let mut socket = node.socket();
        let mut body = api.to_be_bytes().to_vec();
        body.extend(version.to_be_bytes());
        body.extend([0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0]);
        socket.write_all(&framed(&body)).unwrap();
        assert!(is_closed(&mut socket), "API {api} v{version}");
    }
    check_serving(&node);
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_with_the_list() {
    let node = TestBroker::in_memory();
    for version in [6_i16, 99, i16::MAX, -1] {
        let mut socket = node.socket();
        let mut body = 18_i16.to_be_bytes().to_vec();
        body.extend(version.to_be_bytes());
        body.extend([0, 0, 0, 42, 0xff, 0xff, 0, 1, 2, 3]);
        socket.write_all(&framed(&body)).unwrap();
        let answer = read_frame(&mut socket).unwrap();
        let (header, response) = frame::decode_response(ApiKey::ApiVersions, 0, answer).unwrap();
        assert_eq!(header.correlation_id, 42);
        assert_eq!(response, Response::ApiVersions(api_versions_fallback()));
    }
}

#[test]
fn counts_beyond_the_frame_cost_nothing() {
    let node = TestBroker::alone(BrokerOptions::in_memory());
    check_serving(&node);
    let before = anonymous_memory();
    for count in [i32::MAX, 0x1000_0000, 1_000_000] {
        // Metadata v1: it announces topics, but none follows.
        let mut body = 3_i16.to_be_bytes().to_vec();
        body.extend(1_i16.to_be_bytes());
        body.extend([0, 0, 0, 1, 0xff, 0xff]);
        body.extend(count.to_be_bytes());
        let mut socket = node.socket();
        socket.write_all(&framed(&body)).unwrap();
        assert!(is_closed(&mut socket), "{count}");
    }
    assert!(anonymous_memory() < before + (16 << 20));
    check_serving(&node);
}

#[test]
fn announced_bytes_that_do_not_come_take_no_memory() {
    let node = TestBroker::alone(BrokerOptions::in_memory());
    check_serving(&node);
    let before = anonymous_memory();
    let sockets: Vec<_> = (0..100)
        .map(|_| {
            let mut socket = node.socket();
            socket.write_all(&90_000_000_i32.to_be_bytes()).unwrap();
            socket.write_all(&[7; 1024]).unwrap();
            socket
        })
        .collect();
    // The broker has read all of it before it answers another connection's hundred requests.
    for _ in 0..100 {
        check_serving(&node);
    }
    let grown = anonymous_memory().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for 100 KiB");
    drop(sockets);
    node.stop();
}

#[test]
fn announced_bytes_that_do_not_come_keep_no_buffers_from_others() {
    const SIZE: usize = 4 << 20;
    let node = TestBroker::alone(BrokerOptions::in_memory());
    let garbage = framed(&vec![0xff; SIZE]);
    let send_garbage = || {
        let mut socket = node.socket();
        socket.write_all(&garbage).unwrap();
        assert!(is_closed(&mut socket));
    };
    send_garbage();
    let before = anonymous_memory();
    let sockets: Vec<_> = (0..50)
        .map(|_| {
            // Its buffer is reused, but not by a connection that merely announces something.
            send_garbage();
            let mut socket = node.socket();
            socket.write_all(&(SIZE as i32).to_be_bytes()).unwrap();
            socket.write_all(&[7]).unwrap();
            check_serving(&node);
            socket
        })
        .collect();
    let grown = anonymous_memory().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes for 250");
    drop(sockets);
    node.stop();
}

#[test]
fn idle_connections_are_cheap_and_one_more_is_served() {
    let options = BrokerOptions::in_memory().with("socket.listen.backlog.size", "4096");
    let node = TestBroker::alone(options);
    check_serving(&node);
    let before = anonymous_memory();
    let sockets: Vec<_> = (0..2000).map(|_| node.socket()).collect();
    check_serving(&node);
    let grown = anonymous_memory().saturating_sub(before);
    assert!(grown < 2000 * 16 * 1024, "{} bytes for each", grown / 2000);
    drop(sockets);
    check_serving(&node);
}

#[test]
fn a_slow_sender_is_cut_off_and_a_quiet_connection_closed() {
    let options = BrokerOptions::in_memory().with("connections.max.idle.ms", "200");
    let node = TestBroker::start(options);
    let mut slow = node.socket();
    slow.write_all(&[0, 0, 1, 0, 0, 3]).unwrap();
    assert!(is_closed(&mut slow));
    let mut quiet = node.socket();
    assert!(is_closed(&mut quiet));
    check_serving(&node);
}

#[test]
fn a_topic_cannot_be_named_like_a_path() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    for name in ["../escape", "a/b", "..", ".", "", "a\0b", "c:\\x", &"x".repeat(250)] {
        let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let response = client.call(9, request);
        let code = ErrorCode::from_i16(response.topics[0].error_code);
        assert_eq!(code, ErrorCode::InvalidTopicException, "{name:?}");
    }
    let parent = node.broker().data_dir().parent().unwrap().join("escape-0");
    assert!(!parent.exists());
}

#[test]
fn damaged_batches_are_refused_and_the_next_good_one_is_taken() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let good = batch(&[b"value"]);
    let damaged = |at: usize, to: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = to;
        Bytes::from(bytes)
    };
    let last = good.len() - 1;
    let cases = [
        ("value", damaged(last - 1, 0), ErrorCode::CorruptMessage),
        ("crc", damaged(17, good[17] ^ 1), ErrorCode::CorruptMessage),
        ("magic 1", damaged(16, 1), ErrorCode::InvalidRecord),
        ("magic 9", damaged(16, 9), ErrorCode::InvalidRecord),
        ("short", good.slice(..30), ErrorCode::CorruptMessage),
        ("cut", good.slice(..last), ErrorCode::CorruptMessage),
        ("nothing", Bytes::new(), ErrorCode::InvalidRecord),
        ("twice", [&good[..], &good[..]].concat().into(), ErrorCode::InvalidRecord),
    ];
    for (name, records, code) in cases {
        let response = client.produce("t", 0, -1, records);
        assert_eq!(ErrorCode::from_i16(response.error_code), code, "{name}: {response:?}");
        assert_eq!(response.base_offset, -1, "{name}");
    }
    assert_eq!(client.produce("t", 0, -1, good).base_offset, 0);
}

#[test]
fn a_compression_bomb_is_refused_and_leaves_no_trace() {
    let node = TestBroker::alone(BrokerOptions::in_memory());
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let bomb = {
        let zeros = vec![0; 200 << 20];
        let options = BatchOptions { compression: Compression::Zstd, ..BatchOptions::default() };
        batch_with(options, &[&zeros])
    };
    assert!(bomb.len() < 1 << 20);
    let before = anonymous_memory();
    for _ in 0..10 {
        let response = client.produce("t", 0, -1, bomb.clone());
        assert_ne!(response.error_code, 0);
    }
    assert!(anonymous_memory() < before + (96 << 20));
    assert_eq!(client.produce("t", 0, -1, batch(&[b"value"])).base_offset, 0);
}

#[test]
fn connections_of_one_address_are_bounded() {
    let options = BrokerOptions::in_memory().with("max.connections.per.ip", "3");
    let node = TestBroker::start(options);
    let mut held: Vec<_> = (0..3).map(|_| node.client()).collect();
    let mut fourth = node.socket();
    assert!(is_closed(&mut fourth));
    held[0].create_topic("t", 1, &[]);
}

#[test]
fn connections_are_counted_not_the_sockets_that_wait_for_them() {
    // Two sockets listen, one for each family of addresses, or for each listener.
    let options = BrokerOptions {
        listeners: Some("PLAINTEXT://127.0.0.1:0,OTHER://127.0.0.1:0".to_owned()),
        ..BrokerOptions::in_memory()
    };
    let options = options
        .with("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT")
        .with("max.connections", "2");
    let node = TestBroker::start(options);
    let [first, second] = [0, 1].map(|index| node.broker().addresses()[index]);
    let versions = |client: &mut Client| client.call(2, ApiVersionsRequest::default()).error_code;
    let (mut one, mut two) = (Client::connect(first), Client::connect(first));
    assert_eq!((versions(&mut one), versions(&mut two)), (0, 0));
    // The next one waits for one of them, by whichever listener it comes.
    let mut three = Client::connect(second);
    let sent = three.send(2, ApiVersionsRequest::default());
    assert_eq!(versions(&mut one), 0);
    drop(two);
    assert_eq!(three.receive::<ApiVersionsRequest>(2, sent).error_code, 0);
}
