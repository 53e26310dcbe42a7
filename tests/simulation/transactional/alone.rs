//! Transactions on a node that is alone.

use std::sync::Arc;
use std::time::Duration;

use ottla::env::sim::SimRun;
use tokio::time::Instant;

use super::Stage;
use crate::broker::clients::{Plan, Promise, Shared, address_of};
use crate::broker::faults;
use crate::broker::node::{ADDRESS, Node};
use crate::cluster::nodes;
use crate::cluster::planted::{self, Planted};
use crate::report::{Report, check_twice, try_fresh};

/// The seeds that are tried each time.
const SEEDS: std::ops::Range<u64> = 0..3;
/// How many fresh ones are tried besides.
const FRESH: u64 = 1;
/// How many transactions a writer begins.
const TRANSACTIONS: usize = 16;
/// A run in which fewer records are acknowledged proves nothing.
const ACKNOWLEDGED_MIN: usize = 60;
/// How long a run may take, in its own time, after everything went wrong that does.
const END_MAX: Duration = Duration::from_secs(300);

pub(super) fn run(seed: u64, planted: Option<Planted>) -> Report {
    planted::plant(planted);
    let report = Report::of(async |witness| {
        nodes::tell_time_since(Instant::now());
        live(seed, witness).await
    });
    planted::plant(None);
    report
}

async fn live(seed: u64, witness: &Shared) -> (SimRun, Vec<String>) {
    let run = SimRun::new(seed);
    run.net.set_delay_ms_max(seed % 4);
    let mut node = Node::start(&run).await;
    let disks = vec![Arc::clone(&node.machine.disk)];
    let promise = Promise { disks, copies: 1, synced: true };
    let plan = Plan { servers: vec![ADDRESS.to_owned()], records: 40, pause_ms: 300, promise };
    let servings = vec![Arc::clone(&node.serving)];
    let stage = Stage::set(&run, plan, servings, witness, TRANSACTIONS).await;
    let cast = stage.begin();
    let clients: Vec<_> = (1..=9).map(address_of).collect();
    faults::play(&run, &mut node, &clients).await;
    stage.end_within(END_MAX, cast, Instant::now()).await;
    run.trace.note(|| "end".to_owned());
    (run, Vec::new())
}

fn check(seed: u64) -> usize {
    check_twice(seed, "transactional::alone", ACKNOWLEDGED_MIN, || run(seed, None))
}

#[test]
fn nothing_is_torn_and_each_seed_is_one_run() {
    for seed in SEEDS {
        check(seed);
    }
}

#[test]
fn fresh_seeds_find_nothing() {
    try_fresh(FRESH, check);
}

/// Runs the seed of `OTTLA_SIM_SEED`, and prints what happened; with `OTTLA_LOG=info` also what the node says.
#[test]
fn replayed() {
    super::replay(|seed| run(seed, None), check);
}
