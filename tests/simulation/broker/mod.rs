//! A whole broker with its clients, from socket to disk, on simulated time, network and disk (ADR 0019).
//!
//! ```text
//! producer, frames by hand, consumer, admin ── SimNet ──► Broker::start ──► SimDisk
//!                  │                              ▲ cuts, resets, delays      ▲ power cuts, failing syncs, no room
//!               History ──► checker               └───────── faults ──────────┘
//!                  │
//! producer and consumer in the broker's process ── Service ──► the same broker; they end with it
//! ```
//!
//! A run is a function of its seed. `OTTLA_SIM_SEED=7` replays one and prints its trace; `OTTLA_SIM_RUNS=1000`
//! tries so many fresh ones.

mod bucket;
pub(crate) mod clients;
pub(crate) mod faults;
pub(crate) mod frames;
pub(crate) mod groups;
pub(crate) mod node;
pub(crate) mod tiered;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ottla::broker::BrokerOptions;
use ottla::env::sim::{Mutation, SimRun, plant};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use clients::{Peer, Plan, Promise, Shared, TOPIC, address_of};
use groups::Group;
use node::{ADDRESS, Node};

use crate::report::{self, Report, Suite};

/// Within these seeds a planted fault is found; they begin where the rarest is found soon.
const SEEDS_TO_FIND: std::ops::Range<u64> = 14..94;
/// How long a run may take, in its own time, after everything went wrong that does.
const END_MAX: Duration = Duration::from_secs(600);

const SUITE: Suite = Suite {
    module: "broker",
    seeds: 0..6,
    fresh: 2,
    acknowledged_min: 40,
    run: |seed| run(seed, None),
};

fn run(seed: u64, mutation: Option<Mutation>) -> Report {
    plant(mutation);
    let report = Report::of(async |witness| live(seed, witness, Kind::Local).await);
    plant(None);
    report
}

/// Where the records are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In the log.
    Local,
    /// In the log at first, and then in the tier, a folder on the disk of the broker.
    Tiered,
    /// The same, but in a bucket.
    Bucket,
}

impl Kind {
    /// The settings of the broker.
    fn options(self) -> BrokerOptions {
        let options = node::options(ADDRESS);
        if self == Self::Local { options } else { tiered::options(options) }
    }
}

/// The run itself; returns the topics that should be there.
async fn live(seed: u64, witness: &Shared, kind: Kind) -> (SimRun, Vec<String>) {
    let run = SimRun::new(seed);
    run.net.set_delay_ms_max(seed % 4);
    let is_tiered = kind != Kind::Local;
    let bucket = (kind == Kind::Bucket).then(|| bucket::open(&run));
    let mut node = Node::start_with(&run, kind.options(), bucket.clone()).await;
    let disks = vec![Arc::clone(&node.machine.disk)];
    // What is in the tier may be gone from the log by the time that it is acknowledged.
    let promise = Promise { disks, copies: usize::from(!is_tiered), synced: true };
    let plan = Plan { servers: vec![ADDRESS.to_owned()], records: 60, pause_ms: 120, promise };
    let admin = Peer::new(&run, &plan, 0, witness);
    admin.create(if is_tiered { tiered::topic() } else { Peer::topic(TOPIC) }).await.unwrap();
    let stop = CancellationToken::new();
    let peers = |index| Peer::new(&run, &plan, index, witness);
    let inside = |index| Peer::inside((&run, &plan), index, &node.serving, witness);
    let producing = [
        tokio::spawn(peers(1).produce()),
        tokio::spawn(peers(2).produce()),
        tokio::spawn(peers(3).produce_by_hand()),
        tokio::spawn(inside(1).produce()),
    ];
    let creating = tokio::spawn(peers(4).create_topics());
    let consuming = [
        tokio::spawn(peers(5).consume(stop.clone())),
        tokio::spawn(inside(2).consume(stop.clone())),
    ];
    let group = Group::new(seed);
    let members =
        [peers(6), peers(7), inside(3)].map(|peer| tokio::spawn(peer.take_part(group.clone())));
    let clients: Vec<_> = (1..=7).map(address_of).collect();
    if is_tiered {
        tiered::begin((&run, &node, kind), peers(8), &stop);
    }
    faults::play(&run, &mut node, &clients).await;
    if bucket.is_some() {
        bucket::write_on(&admin).await;
    }
    let end = async {
        for task in producing {
            task.await?;
        }
        let mut created = creating.await?;
        created.push(TOPIC.to_owned());
        if let Some(bucket) = &bucket {
            bucket.disturb(0);
        }
        stop.cancel();
        for task in consuming {
            task.await?;
        }
        group.settle(&admin).await;
        for task in members {
            task.await?;
        }
        Ok::<_, JoinError>(admin.missing(&created).await)
    };
    let missing = match tokio::time::timeout(END_MAX, end).await {
        Ok(Ok(missing)) => missing,
        Ok(Err(error)) => complain(witness, &format!("a client panicked: {error}")),
        Err(_) => {
            let group = group.describe();
            complain(witness, &format!("the clients do not come to an end; {group}"))
        }
    };
    if is_tiered && let Some(fault) = fault_of_tier(&mut node, &admin, peers(9)).await {
        return (run, complain(witness, &fault));
    }
    run.trace.note(|| "end".to_owned());
    (run, missing)
}

/// What is wrong with the tier in the end. One in a bucket is read once more.
async fn fault_of_tier(node: &mut Node, admin: &Peer, reader: Peer) -> Option<String> {
    let Some(bucket) = node.bucket.clone() else {
        return tiered::fault_in(&*node.machine.disk);
    };
    bucket::settle(node, &bucket, admin).await;
    bucket::read_again(reader).await;
    tiered::fault_in(&bucket)
}

/// Nothing is known of topics then.
fn complain(witness: &Shared, what: &str) -> Vec<String> {
    let mut witness = witness.lock().unwrap_or_else(PoisonError::into_inner);
    witness.complaints.push(what.to_owned());
    Vec::new()
}

#[test]
fn every_planted_fault_is_found() {
    report::find_all(Mutation::OF_ONE_NODE, &SEEDS_TO_FIND, run);
}

#[test]
fn nothing_is_lost_and_each_seed_is_one_run() {
    SUITE.try_seeds();
}

#[test]
fn fresh_seeds_find_nothing() {
    SUITE.try_fresh();
}

#[test]
fn replayed() {
    SUITE.replay();
}
