//! A disk that stands still delays what needs it, and nothing else; and the log says so.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ottla::broker::BrokerOptions;
use ottla::env::Env;
use ottla::env::sim::StallingDisk;
use ottla::error::ErrorCode;
use ottla::protocol::messages::api_versions::ApiVersionsRequest;
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::metadata::MetadataRequest;
use ottla::protocol::messages::offset_commit::OffsetCommitRequest;
use ottla::protocol::messages::produce::ProduceRequest;
use ottla::protocol::{Request, Str};

use crate::groups::{commit_request, enter, heartbeat};
use crate::support::{Client, PATIENCE, TestBroker, batch, produce_request, values};

const PARTITIONS: i32 = 8;

/// Goes on at the end, also of a test that failed.
struct Stalled(StallingDisk);

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.stall(false);
    }
}

/// What the watchdog says, of all brokers of this process.
static SAID: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Ear;

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        SAID.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn listen() {
    tracing_subscriber::fmt()
        .with_env_filter("ottla::broker::watchdog=warn")
        .with_ansi(false)
        .with_writer(|| Ear)
        .try_init()
        .unwrap();
}

fn wait_for_words(words: &[&str]) {
    let begin = Instant::now();
    loop {
        let said = String::from_utf8_lossy(&SAID.lock().unwrap()).into_owned();
        if said.lines().any(|line| words.iter().all(|word| line.contains(word))) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "not said: {words:?}; but:\n{said}");
        std::thread::yield_now();
    }
}

fn node() -> (TestBroker, StallingDisk, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let real = Env::real();
    let disk = StallingDisk::over(Arc::clone(&real.disk));
    let env = Env { disk: Arc::new(disk.clone()), ..real };
    // One coordinator for all groups.
    let options =
        BrokerOptions::in_directory(directory.path()).with("offsets.topic.num.partitions", "1");
    (TestBroker::start_on(env, options), disk, directory)
}

/// What does not need the disk is answered.
fn check_serving(node: &TestBroker) {
    let mut client = node.client();
    let versions = client.call(2, ApiVersionsRequest::default());
    assert!(versions.api_keys.len() > 20);
    let topics = client.call(12, MetadataRequest { topics: None, ..Default::default() }).topics;
    assert!(topics.len() >= 2, "{topics:?}");
    let request = FindCoordinatorRequest { key: "any".into(), ..FindCoordinatorRequest::default() };
    assert_eq!(client.call(3, request).error_code, 0);
    for partition in 0..PARTITIONS {
        let data = client.fetch("t", partition, 0);
        assert_eq!(values(data.records.unwrap()), [(0, b"before".to_vec())]);
    }
}

#[test]
fn a_disk_that_stands_still_delays_only_what_needs_it() {
    listen();
    let (node, disk, _directory) = node();
    let mut client = node.client();
    client.create_topic("t", PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        assert_eq!(client.produce("t", partition, -1, batch(&[b"before"])).error_code, 0);
    }
    let (mut one, mut two) = (node.client(), node.client());
    let (generation, member) = enter(&mut one, "one");
    let (other_generation, other) = enter(&mut two, "two");

    let stalled = Stalled(disk.clone());
    disk.stall(true);
    // The coordinator of both groups waits for the disk, ...
    let mut committer = node.client();
    let request = commit_request("one", (generation, &member), "t", 1);
    let committed = committer.send(9, request);
    disk.wait_for(1);
    // ... and so does a thread of the runtime, and both log threads.
    let mut producers: Vec<(Client, i32)> = Vec::new();
    for partition in 0..PARTITIONS {
        let mut producer = node.client();
        let sent = producer.send(9, produce_request("t", partition, 1, batch(&[b"during"])));
        producers.push((producer, sent));
    }
    disk.wait_for(2);
    for _ in 0..20 {
        assert_eq!(heartbeat(&mut one, "one", generation, &member), ErrorCode::None);
        assert_eq!(heartbeat(&mut two, "two", other_generation, &other), ErrorCode::None);
        let stranger = heartbeat(&mut two, "two", other_generation, &member);
        assert_eq!(stranger, ErrorCode::UnknownMemberId);
        check_serving(&node);
    }
    wait_for_words(&["not done yet", "__consumer_offsets-0", "append"]);

    drop(stalled);
    let answer = committer.receive::<OffsetCommitRequest>(9, committed);
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    for (mut producer, sent) in producers {
        let answer = producer.receive::<ProduceRequest>(9, sent).responses.remove(0);
        let partition = &answer.partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, 1));
    }
    wait_for_words(&["the disk was slow", "append"]);
    node.stop();
}

#[test]
fn a_stop_ends_though_nobody_polls_a_request_in_the_process() {
    const QUEUED: usize = 1100;
    let (node, disk, _directory) = node();
    node.client().create_topic("t", 1, &[]);
    let stalled = Stalled(disk.clone());
    disk.stall(true);
    // One append takes the only thread of the runtime that may wait for the disk, ...
    let mut producer = node.client();
    producer.send(9, produce_request("t", 0, 1, batch(&[b"first"])));
    disk.wait_for(1);
    // ... so these fill the queue of the log thread, and the last ones wait for room in it.
    let services: Vec<_> = (0..QUEUED).step_by(50).map(|_| node.broker().service()).collect();
    let mut calls: Vec<_> = (0..QUEUED)
        .map(|index| {
            let request = Request::from(produce_request("t", 0, -1, batch(&[b"more"])));
            services[index / 50].call(&Str::EMPTY, 9, request)
        })
        .collect();
    node.block_on(async {
        for call in &mut calls {
            assert!(futures::poll!(call.as_mut()).is_pending());
        }
    });
    drop(stalled);
    let stop = async { tokio::time::timeout(PATIENCE, node.broker().shutdown()).await };
    node.block_on(stop).expect("it ends").unwrap();
    drop(calls);
}
