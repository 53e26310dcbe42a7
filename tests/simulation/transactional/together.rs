//! Transactions on three nodes or five.

use std::time::Duration;

use ottla::env::sim::SimRun;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{COPIES, Stage};
use crate::broker::clients::{PARTITIONS, Plan, Shared, TOPIC, address_of};
use crate::cluster::moves::OFFSETS;
use crate::cluster::nodes::{self, Cluster};
use crate::cluster::planted::{self, Planted};
use crate::cluster::{faults, moves, replicas};
use crate::report::{Report, check_twice, try_fresh};

/// The seeds that are tried each time; every fourth has five nodes.
const SEEDS: std::ops::Range<u64> = 0..1;
/// How many fresh ones are tried besides.
const FRESH: u64 = 1;
/// How many transactions a writer begins.
const TRANSACTIONS: usize = 24;
/// A run in which fewer records are acknowledged proves nothing.
const ACKNOWLEDGED_MIN: usize = 80;
/// How long a run may take, in its own time, after everything went wrong that does.
const END_MAX: Duration = Duration::from_secs(300);
/// The topic of transactions, with as many partitions as the nodes give it.
const TRANSACTIONS_TOPIC: (&str, i32) = ("__transaction_state", 2);

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

fn check(seed: u64) -> usize {
    check_twice(seed, "transactional::together", ACKNOWLEDGED_MIN, || run(seed, None))
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

/// Runs the seed of `OTTLA_SIM_SEED`, and prints what happened; with `OTTLA_LOG=info` also what the nodes say.
#[test]
fn replayed() {
    super::replay(|seed| run(seed, None), check);
}
