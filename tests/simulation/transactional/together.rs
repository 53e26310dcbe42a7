//! Transactions on three nodes or five.

use std::time::Duration;

use ottla::env::sim::SimRun;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{COPIES, Stage};
use crate::broker::clients::{PARTITIONS, Plan, Shared, TOPIC, address_of};
use crate::cluster::moves::OFFSETS;
use crate::cluster::nodes::Cluster;
use crate::cluster::planted::{self, Planted};
use crate::cluster::{faults, moves, replicas};
use crate::report::{Report, Suite};

/// How many transactions a writer begins.
const TRANSACTIONS: usize = 24;
/// How long a run may take, in its own time, after everything went wrong that does.
const END_MAX: Duration = Duration::from_secs(300);
/// The topic of transactions, with as many partitions as the nodes give it.
const TRANSACTIONS_TOPIC: (&str, i32) = ("__transaction_state", 2);

/// Every fourth seed has five nodes.
const SUITE: Suite = Suite {
    module: "transactional::together",
    seeds: 0..1,
    fresh: 1,
    acknowledged_min: 80,
    run: |seed| run(seed, None),
};

pub(super) fn run(seed: u64, planted: Option<Planted>) -> Report {
    planted::run_with(planted, async |witness| live(seed, witness).await)
}

async fn live(seed: u64, witness: &Shared) -> (SimRun, Vec<String>) {
    let run = SimRun::new(seed);
    run.net.set_delay_ms_max(seed % 4);
    let mut cluster = Cluster::new(&run, if seed % 4 == 3 { 5 } else { 3 });
    let plan =
        Plan { servers: cluster.servers(), records: 60, pause_ms: 600, promise: cluster.promise() };
    cluster.boot_all().await;
    let servings = cluster.nodes.iter().map(|node| node.serving.clone()).collect();
    let stage = Stage::set(&run, plan, servings, witness, TRANSACTIONS).await;
    let cast = stage.begin();
    let all_well = CancellationToken::new();
    let topics = vec![(TOPIC, PARTITIONS), (COPIES, PARTITIONS), (OFFSETS, 1), TRANSACTIONS_TOPIC];
    let moving = moves::play(stage.peer(15), cluster.nodes.len(), topics, all_well.clone());
    let moving = tokio::spawn(moving);
    let clients: Vec<_> = (1..=9).map(address_of).collect();
    faults::play(&run, &mut cluster, &clients).await;
    all_well.cancel();
    if let Err(error) = moving.await {
        stage.admin.complain(&format!("the mover panicked: {error}"));
    }
    stage.end_within(END_MAX, cast, Instant::now()).await;
    replicas::check(&mut cluster, &stage.admin).await;
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
