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

pub(crate) mod clients;
pub(crate) mod faults;
pub(crate) mod frames;
pub(crate) mod groups;
pub(crate) mod node;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use ottla::env::sim::{Mutation, SimRun, plant};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use clients::{Peer, Plan, Promise, Shared, TOPIC, address_of};
use groups::Group;
use node::{ADDRESS, Node};

use crate::report::{Report, check_twice};

/// The seeds that are tried each time.
const SEEDS: std::ops::Range<u64> = 0..6;
/// How many fresh ones are tried besides.
const FRESH: u64 = 2;
/// Within these seeds a planted fault is found; they begin where the rarest is found soon.
const SEEDS_TO_FIND: std::ops::Range<u64> = 14..94;
/// A run in which fewer records are acknowledged proves nothing.
const ACKNOWLEDGED_MIN: usize = 40;
/// How long a run may take, in its own time, after everything went wrong that does.
const END_MAX: Duration = Duration::from_secs(600);

fn run(seed: u64, mutation: Option<Mutation>) -> Report {
    plant(mutation);
    let report = Report::of(async |witness| live(seed, witness).await);
    plant(None);
    report
}

/// The run itself; returns the topics that should be there.
async fn live(seed: u64, witness: &Shared) -> (SimRun, Vec<String>) {
    let run = SimRun::new(seed);
    run.net.set_delay_ms_max(seed % 4);
    let mut node = Node::start(&run).await;
    let disks = vec![Arc::clone(&node.machine.disk)];
    let promise = Promise { disks, copies: 1, synced: true };
    let plan = Plan { servers: vec![ADDRESS.to_owned()], records: 60, pause_ms: 120, promise };
    let admin = Peer::new(&run, &plan, 0, witness);
    admin.create_topic(TOPIC).await.unwrap();
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
    faults::play(&run, &mut node, &clients).await;
    let end = async {
        for task in producing {
            task.await?;
        }
        let mut created = creating.await?;
        created.push(TOPIC.to_owned());
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
    run.trace.note(|| "end".to_owned());
    (run, missing)
}

/// Nothing is known of topics then.
fn complain(witness: &Shared, what: &str) -> Vec<String> {
    let mut witness = witness.lock().unwrap_or_else(PoisonError::into_inner);
    witness.complaints.push(what.to_owned());
    Vec::new()
}

/// See [`check_twice`].
fn check(seed: u64) {
    check_twice(seed, "broker", ACKNOWLEDGED_MIN, || run(seed, None));
}

/// The first seed that finds a planted fault, and what it finds.
fn finds(mutation: Mutation) -> Option<(u64, String)> {
    let mut seeds = SEEDS_TO_FIND;
    seeds.find_map(|seed| {
        // Where a fault keeps the node from starting, the run ends with a panic.
        let findings = std::panic::catch_unwind(|| run(seed, Some(mutation)).findings)
            .unwrap_or_else(|_| vec!["the run panicked".to_owned()]);
        Some((seed, findings.into_iter().next()?))
    })
}

#[test]
fn every_planted_fault_is_found() {
    let mut overlooked = Vec::new();
    for mutation in Mutation::OF_ONE_NODE {
        match finds(mutation) {
            Some((seed, finding)) => eprintln!("{mutation:?}: seed {seed}: {finding:.100}"),
            None => overlooked.push(mutation),
        }
    }
    assert!(overlooked.is_empty(), "not found within the seeds {SEEDS_TO_FIND:?}: {overlooked:?}");
}

#[test]
fn nothing_is_lost_and_each_seed_is_one_run() {
    for seed in SEEDS {
        check(seed);
    }
}

#[test]
fn fresh_seeds_find_nothing() {
    let asked = std::env::var("OTTLA_SIM_RUNS").ok();
    let runs = asked.map_or(FRESH, |asked| asked.parse().unwrap());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let first = now.as_secs() << 16;
    eprintln!("fresh seeds {first} to {}", first + runs - 1);
    for seed in first..first + runs {
        check(seed);
    }
}

/// Runs the seed of `OTTLA_SIM_SEED`, and prints what happened.
#[test]
fn replayed() {
    let Ok(seed) = std::env::var("OTTLA_SIM_SEED") else { return };
    let report = run(seed.parse().unwrap(), None);
    let (text, hash) = (report.text(), report.hash);
    eprintln!("{text}hash {hash:016x}\nfindings {:#?}", report.findings);
    check(seed.parse().unwrap());
}
