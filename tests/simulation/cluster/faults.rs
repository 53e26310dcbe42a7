//! What goes wrong, drawn from the seed: processes and machines that end, one after the other or together, and beside
//! that whatever else happens to networks, disks and clocks.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ottla::env::sim::{Fault, SimDisk, SimRandom, SimRun, SimThreads};

use super::nodes::Cluster;
use crate::broker::node::Node;

/// How often processes end, and how often something else goes wrong, in a run.
const DEATHS: u64 = 5;
const WEATHER: u64 = 6;

fn ms(random: &SimRandom, min: u64, max: u64) -> Duration {
    Duration::from_millis(min + random.below(max - min))
}

/// What of a machine goes on while its processes come and go.
struct Ground {
    ip: IpAddr,
    disk: Arc<SimDisk>,
    threads: Arc<SimThreads>,
}

/// Lets things go wrong, and mends them.
pub(crate) async fn play(run: &SimRun, cluster: &mut Cluster, clients: &[IpAddr]) {
    let ground = |node: &Node| Ground {
        ip: node.machine.ip,
        disk: Arc::clone(&node.machine.disk),
        threads: Arc::clone(&node.machine.threads),
    };
    let grounds: Vec<Ground> = cluster.nodes.iter().map(ground).collect();
    let dying = die(run, cluster);
    let weather = async {
        let random = SimRandom::stream(run.seed, "weather");
        for _ in 0..WEATHER {
            tokio::time::sleep(ms(&random, 100, 4000)).await;
            change(run, &random, &grounds, clients).await;
        }
    };
    tokio::join!(dying, weather);
    run.trace.note(|| "all is well again".to_owned());
}

/// Ends processes, and starts them again.
async fn die(run: &SimRun, cluster: &mut Cluster) {
    let random = SimRandom::stream(run.seed, "deaths");
    let power = cluster.by_fsync;
    for _ in 0..DEATHS {
        tokio::time::sleep(ms(&random, 500, 6000)).await;
        let what = random.below(8);
        let count = cluster.nodes.len() as u64;
        let victim = random.below(count) as usize;
        run.trace.note(|| format!("death {what} of {victim}"));
        match what {
            0 => cluster.nodes[victim].kill(ms(&random, 0, 6000)).await,
            1 => {
                let node = &mut cluster.nodes[victim];
                fail_syncs(&node.machine.disk);
                tokio::time::sleep(ms(&random, 100, 1500)).await;
                node.machine.disk.forget_faults();
                // Whoever sees a failed sync takes its directory offline, until it is started again.
                let off = ms(&random, 0, 1000);
                if power && random.one_in(2) {
                    node.power_cut(off).await;
                } else {
                    node.kill(off).await;
                }
            }
            2 | 3 if power => {
                let (calls, off) = (random.below(60), ms(&random, 0, 6000));
                cluster.nodes[victim].power_cut_within(calls, off).await;
            }
            2 | 3 => cluster.nodes[victim].kill(ms(&random, 0, 100)).await,
            4 => {
                // One after the other, as for an upgrade.
                for node in &mut cluster.nodes {
                    node.restart().await;
                    tokio::time::sleep(ms(&random, 0, 1000)).await;
                }
            }
            5 => cluster.nodes[victim].restart().await,
            _ => {
                // Several of them, or all.
                let is_all = random.one_in(3);
                let nodes = cluster.nodes.iter_mut();
                let chosen: Vec<_> = nodes.filter(|_| is_all || random.one_in(2)).collect();
                let ends = chosen.into_iter().map(|node| {
                    let (off, by_power) = (ms(&random, 0, 4000), power && random.one_in(2));
                    async move {
                        if by_power { node.power_cut(off).await } else { node.kill(off).await }
                    }
                });
                join_all(ends).await;
            }
        }
    }
}

/// One thing that goes wrong and is mended, whoever runs.
async fn change(run: &SimRun, random: &SimRandom, grounds: &[Ground], clients: &[IpAddr]) {
    let what = random.below(10);
    let victim = random.below(grounds.len() as u64) as usize;
    let other = (victim + 1 + random.below(grounds.len() as u64 - 1) as usize) % grounds.len();
    run.trace.note(|| format!("weather {what} at {victim}, {other}"));
    let node = &grounds[victim];
    match what {
        // A link between two nodes, both ways or one.
        0 | 1 => {
            let one_way = random.one_in(2);
            cut(run, node.ip, &[grounds[other].ip], one_way, ms(random, 500, 8000)).await;
        }
        // A node from all other nodes; clients reach it.
        2 => {
            let others: Vec<IpAddr> =
                grounds.iter().map(|one| one.ip).filter(|ip| *ip != node.ip).collect();
            cut(run, node.ip, &others, random.one_in(3), ms(random, 1000, 10_000)).await;
        }
        // A process that is stopped: nobody hears of it, and what it is told waits.
        3 => {
            let nodes = grounds.iter().map(|one| one.ip).filter(|ip| *ip != node.ip);
            let all: Vec<IpAddr> = nodes.chain(clients.iter().copied()).collect();
            node.threads.set_pauses(2000, 2000);
            cut(run, node.ip, &all, false, ms(random, 8000, 14_000)).await;
            node.threads.set_pauses(1, 4);
        }
        4 => run.net.reset(node.ip, 1 + random.below(2)),
        // A slow machine.
        5 | 6 => {
            node.threads.set_pauses(random.below(20), random.below(2500));
            tokio::time::sleep(ms(random, 500, 5000)).await;
            node.threads.set_pauses(1, 4);
        }
        7 => {
            let used = node.disk.used_bytes();
            node.disk.set_capacity(used + random.below(4000));
            tokio::time::sleep(ms(random, 100, 3000)).await;
            node.disk.set_capacity(u64::MAX);
        }
        8 => tokio::time::advance(ms(random, 100, 8000)).await,
        _ => {
            let minutes = 30 * random.below(60_000) as i64;
            run.clock.set_by(if random.one_in(2) { minutes } else { -minutes });
        }
    }
}

async fn cut(run: &SimRun, ip: IpAddr, others: &[IpAddr], one_way: bool, lasts: Duration) {
    for other in others {
        run.net.cut(ip, *other);
        if !one_way {
            run.net.cut(*other, ip);
        }
    }
    tokio::time::sleep(lasts).await;
    for other in others {
        run.net.mend(ip, *other);
        if !one_way {
            run.net.mend(*other, ip);
        }
    }
}

/// Has the syncs of a disk fail from now on.
fn fail_syncs(disk: &SimDisk) {
    for _ in 0..100 {
        disk.inject(Fault {
            call: "sync",
            path_suffix: ".log".to_owned(),
            skip: 0,
            kind: io::ErrorKind::Other,
        });
    }
}
