//! Transactions on a node that is alone.

use std::sync::Arc;
use std::time::Duration;

use ottla::env::sim::SimRun;
use tokio::time::Instant;

use super::Stage;
use crate::broker::clients::{Plan, Promise, Shared, address_of};
use crate::broker::faults;
use crate::broker::node::{ADDRESS, Node};
use crate::cluster::planted::{self, Planted};
use crate::report::{Report, Suite};

/// How many transactions a writer begins.
const TRANSACTIONS: usize = 16;
/// How long a run may take, in its own time, after everything went wrong that does.
const END_MAX: Duration = Duration::from_secs(300);

const SUITE: Suite = Suite {
    module: "transactional::alone",
    seeds: 0..3,
    fresh: 1,
    acknowledged_min: 60,
    run: |seed| run(seed, None),
};

pub(super) fn run(seed: u64, planted: Option<Planted>) -> Report {
    planted::run_with(planted, async |witness| live(seed, witness).await)
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

#[test]
fn nothing_is_torn_and_each_seed_is_one_run() {
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
