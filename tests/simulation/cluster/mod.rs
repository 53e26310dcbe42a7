//! Three or five whole nodes as one cluster, with clients, on simulated time, network and disks (ADR 0019).
//!
//! ```text
//! producers, consumers, group, watcher, mover ── SimNet ──► Broker::start × 3 or 5 ──► a SimDisk each
//!        │                                         ▲   └─── quorum, replication ───┘      ▲
//!     History ──► checker                          └──────────── faults ──────────────────┘
//!        │                                                                                │
//!     watermarks: never back                                    replicas: equal, in the end
//! ```
//!
//! A run is a function of its seed. `OTTLA_SIM_SEED=7` replays one, `OTTLA_SIM_RUNS=1000` tries so many fresh ones.
//!
//! What goes wrong stays within what `src/manual/guarantees.md` promises to survive: under `durability=fsync` that is any
//! combination of faults, under `auto` no power is lost.

pub(crate) mod faults;
pub(crate) mod moves;
pub(crate) mod nodes;
pub(crate) mod planted;
pub(crate) mod replicas;
mod silence;
pub(crate) mod tiered;
mod waits;
mod watermarks;

use std::time::Duration;

use ottla::env::sim::SimRun;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::clients::{PARTITIONS, Peer, Plan, Shared, TOPIC, address_of};
use crate::broker::groups::Group;
use crate::broker::tiered as of_one_node;
use crate::report::{Report, Suite};
use moves::OFFSETS;
use nodes::Cluster;
use planted::Planted;

/// How long a run may take, in its own time, after everything went wrong that does.
const END_MAX: Duration = Duration::from_secs(240);
/// How long the cluster may take to serve again after the last fault.
const SERVES_MAX: Duration = Duration::from_secs(20);

/// Every fourth seed has five nodes.
const SUITE: Suite = Suite {
    module: "cluster",
    seeds: 0..4,
    fresh: 1,
    acknowledged_min: 60,
    run: |seed| run(seed, None),
};

/// Carries out the run of a seed.
fn run(seed: u64, planted: Option<Planted>) -> Report {
    run_of(seed, planted, false)
}

/// The same, with a tier or without.
fn run_of(seed: u64, planted: Option<Planted>, is_tiered: bool) -> Report {
    planted::run_with(planted, async |witness| live(seed, witness, is_tiered).await)
}

/// The run itself; returns the topics that should be there.
#[expect(clippy::too_many_lines, reason = "who takes part, in the order in which it happens")]
async fn live(seed: u64, witness: &Shared, is_tiered: bool) -> (SimRun, Vec<String>) {
    let run = SimRun::new(seed);
    run.net.set_delay_ms_max(seed % 4);
    let mut cluster = Cluster::new(&run, if seed % 4 == 3 { 5 } else { 3 });
    if is_tiered {
        cluster.give_tier(&run);
    }
    let plan = Plan {
        servers: cluster.servers(),
        records: 120,
        pause_ms: 500,
        promise: cluster.promise(),
    };
    cluster.boot_all().await;
    let admin = Peer::new(&run, &plan, 0, witness);
    let topic = if is_tiered { of_one_node::topic() } else { Peer::topic(TOPIC) };
    admin.create(topic).await.unwrap();
    let (stop, all_well) = (CancellationToken::new(), CancellationToken::new());
    let peers = |index| Peer::new(&run, &plan, index, witness);
    let inside = |index| {
        let node = index as usize % cluster.nodes.len();
        Peer::inside((&run, &plan), index, &cluster.nodes[node].serving, witness)
    };
    let producing = [
        tokio::spawn(peers(1).produce()),
        tokio::spawn(peers(2).produce()),
        tokio::spawn(peers(3).produce()),
        tokio::spawn(inside(1).produce()),
    ];
    let creating = tokio::spawn(peers(4).create_topics());
    let consuming = [
        tokio::spawn(peers(5).consume(stop.clone())),
        tokio::spawn(inside(2).consume(stop.clone())),
    ];
    let watching = tokio::spawn(watermarks::watch(peers(8), stop.clone()));
    let topics = [(OFFSETS, 1), (TOPIC, PARTITIONS), (TOPIC, PARTITIONS)];
    let moving = moves::play(peers(9), cluster.nodes.len(), topics.to_vec(), all_well.clone());
    let moving = tokio::spawn(moving);
    let group = Group::new(seed);
    let members =
        [peers(6), peers(7), inside(3)].map(|peer| tokio::spawn(peer.take_part(group.clone())));
    if let Some(disk) = cluster.tier.clone() {
        tokio::spawn(of_one_node::disturb(run.clone(), disk, stop.clone()));
    }
    let clients: Vec<_> = (1..=7).map(address_of).collect();
    faults::play(&run, &mut cluster, &clients).await;
    all_well.cancel();
    let healed = Instant::now();
    let end = async {
        moving.await?;
        tokio::spawn(peers(10).show_that_it_serves(healed)).await?;
        for task in producing {
            task.await?;
        }
        let mut created = creating.await?;
        created.push(TOPIC.to_owned());
        stop.cancel();
        for task in consuming {
            task.await?;
        }
        watching.await?;
        group.settle(&admin).await;
        for task in members {
            task.await?;
        }
        let missing = admin.missing(&created).await;
        replicas::check(&mut cluster, &admin).await;
        Ok::<_, JoinError>(missing)
    };
    let missing = match tokio::time::timeout(END_MAX, end).await {
        Ok(Ok(missing)) => missing,
        Ok(Err(error)) => {
            admin.complain(&format!("a client panicked: {error}"));
            Vec::new()
        }
        Err(_) => {
            let group = group.describe();
            admin.complain(&format!("the clients do not come to an end; {group}"));
            Vec::new()
        }
    };
    if let Some(disk) = &cluster.tier {
        let faults = (0..PARTITIONS).filter_map(|index| tiered::fault_of_files(&**disk, index));
        faults.for_each(|fault| admin.complain(&fault));
    }
    run.trace.note(|| "end".to_owned());
    (run, missing)
}

impl Peer {
    /// A record to each partition is acknowledged within a bounded time.
    async fn show_that_it_serves(self, healed: Instant) {
        let connected = self.connect().await;
        for partition in 0..PARTITIONS {
            let mut count = 0;
            loop {
                let value = self.value(partition as usize * 1000 + count);
                count += 1;
                if self.send_one(&connected.client, partition, &value).await {
                    break;
                }
                if healed.elapsed() > SERVES_MAX * 3 {
                    break;
                }
            }
        }
        let took = healed.elapsed();
        if took > SERVES_MAX {
            self.complain(&format!("served again only {took:?} after the last fault"));
        }
    }
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
