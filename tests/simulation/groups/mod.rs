//! The group coordinator with clients that come, go, crash and repeat themselves, on a network that
//! delays, drops, duplicates and reorders, over a log that loses what was not committed.
//!
//! Invariants, checked while it runs and when it has come to rest:
//!
//! - SIM-GROUP-1: no partition is given to two members in one generation of a group.
//! - SIM-GROUP-2: a fetch shows a commit no older than those acknowledged before it.
//! - SIM-GROUP-3: when the faults end, every live member gets an assignment, and every
//!   partition has one owner.
//! - SIM-GROUP-4: a live coordinator answers each of its requests once.
//!
//! `GROUPS_SEED=n cargo test --features sim --test simulation groups` runs one seed.

mod client;
mod world;

use world::World;

const SEEDS: u64 = 100;

fn seeds() -> Vec<u64> {
    match std::env::var("GROUPS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    }
}

#[test]
fn groups_keep_their_promises_through_crashes_delays_and_repeats() {
    let mut commits = 0;
    let mut generations = 0;
    for seed in seeds() {
        let mut world = World::new(seed);
        world.run();
        commits += world.acknowledged_commits();
        generations += world.generations();
    }
    // A simulation in which nothing happens holds every invariant.
    if std::env::var("GROUPS_SEED").is_err() {
        assert!(commits > 10 * SEEDS, "only {commits} commits were acknowledged");
        assert!(generations > 3 * SEEDS, "only {generations} generations were assigned");
    }
}
