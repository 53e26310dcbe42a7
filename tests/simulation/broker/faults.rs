//! What goes wrong, drawn from the seed.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ottla::env::sim::{Fault, SimRandom, SimRun};

use super::node::{BROKER, Node};

/// How many things go wrong in a run.
const FAULTS: u64 = 8;

fn ms(random: &SimRandom, min: u64, max: u64) -> Duration {
    Duration::from_millis(min + random.below(max - min))
}

/// Lets things go wrong, one after the other, and mends them.
pub(crate) async fn play(run: &SimRun, node: &mut Node, clients: &[IpAddr]) {
    let random = SimRandom::stream(run.seed, "faults");
    for _ in 0..FAULTS {
        tokio::time::sleep(ms(&random, 50, 900)).await;
        if node.bucket.is_some() && random.one_in(2) {
            node.kill_within_requests(random.below(30), random.one_in(2)).await;
        } else {
            strike((run, &random), node, clients).await;
        }
    }
    run.trace.note(|| "all is well again".to_owned());
}

/// Lets one thing go wrong, and mends it.
async fn strike((run, random): (&SimRun, &SimRandom), node: &mut Node, clients: &[IpAddr]) {
    let what = random.below(13);
    run.trace.note(|| format!("fault {what}"));
    let client = clients[random.below(clients.len() as u64) as usize];
    match what {
        0 => node.power_cut(ms(random, 0, 1500)).await,
        1 | 2 => node.power_cut_within(random.below(40), ms(random, 0, 1500)).await,
        3 => node.kill(ms(random, 0, 1500)).await,
        4 => node.restart().await,
        5 => {
            run.net.cut(BROKER, client);
            if random.one_in(2) {
                run.net.cut(client, BROKER);
            }
            tokio::time::sleep(ms(random, 100, 4000)).await;
            run.net.heal();
        }
        6 => run.net.reset(BROKER, 1 + random.below(2)),
        7 => {
            node.machine.threads.set_pauses(random.below(20), random.below(1500));
            tokio::time::sleep(ms(random, 100, 2000)).await;
            node.machine.threads.set_pauses(1, 4);
        }
        8 => {
            for _ in 0..100 {
                node.machine.disk.inject(Fault {
                    call: "sync",
                    path_suffix: ".log".to_owned(),
                    skip: 0,
                    kind: io::ErrorKind::Other,
                });
            }
            tokio::time::sleep(ms(random, 100, 1000)).await;
            node.machine.disk.forget_faults();
            // Whoever sees a failed sync takes its directory offline, until it is started again.
            if random.one_in(2) {
                node.kill(ms(random, 0, 500)).await;
            } else {
                node.power_cut(ms(random, 0, 500)).await;
            }
        }
        9 => {
            let used = node.machine.disk.used_bytes();
            node.machine.disk.set_capacity(used + random.below(4000));
            tokio::time::sleep(ms(random, 100, 3000)).await;
            node.machine.disk.set_capacity(u64::MAX);
        }
        10 => {
            // Much is written, and nothing synced.
            node.machine.threads.set_pauses(0, 5000);
            tokio::time::sleep(ms(random, 300, 1500)).await;
            node.machine.threads.set_pauses(1, 4);
            node.power_cut(ms(random, 0, 500)).await;
        }
        11 => tokio::time::advance(ms(random, 100, 8000)).await,
        _ => {
            let minutes = 30 * random.below(60_000) as i64;
            run.clock.set_by(if random.one_in(2) { minutes } else { -minutes });
        }
    }
}
