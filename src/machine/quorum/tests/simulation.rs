//! Clusters of one, three and five voters and observers under every fault, then without faults.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::super::*;
use super::world::{Faults, World, key, ms, voter};
use crate::types::Uuid;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) trace: u64,
    pub(super) steps: u64,
    pub(super) elections: u64,
    pub(super) truncations: u64,
    pub(super) snapshots: u64,
    pub(super) committed: i64,
    pub(super) voter_changes: u64,
    pub(super) wipes: u64,
}

struct Run {
    world: World,
    voters_change: bool,
    wipes_allowed: bool,
    wiped: Vec<ReplicaKey>,
    wipes: u64,
    voter_changes: u64,
}

/// One run, from its seed.
pub(super) fn run(seed: u64, planted: &'static [Mutation], verbose: bool) -> Summary {
    let mut plan = crate::types::SplitMix64::new(seed ^ 0x5eed);
    let mut draw = |count: u64| plan.draw() % count;
    let voters = [1, 2, 3, 3, 3, 4, 5][draw(7) as usize];
    let observers = draw(3) as usize;
    let unknown_directories = draw(4) == 0;
    let configured = VoterSet::new((0..voters).map(|node| {
        let mut key = key(node, 0);
        if unknown_directories {
            key.directory_id = Uuid::ZERO;
        }
        voter(key)
    }));
    let timing = Timing::default();
    let mut world = World::with(seed, configured, voters + observers, timing, planted);
    world.verbose = verbose;
    world.prune_hard = draw(2) == 0;
    let slow_net = [ms(5), ms(20), ms(150)][draw(3) as usize];
    let slow_disk = [ms(4), ms(30), ms(120)][draw(3) as usize];
    world.faults = Faults {
        lost: [0, 10, 100][draw(3) as usize],
        doubled: [0, 50, 200][draw(3) as usize],
        delay: (ms(0), slow_net),
        disk: (ms(0), slow_disk),
        stalled: ([0, 20, 100, 300][draw(4) as usize], ms(2500)),
    };
    let faults_per_second = [1, 3, 6][draw(3) as usize];
    let time = ms(8_000 + draw(20_000));
    let voters_change = draw(2) == 0;
    // A wiped voter of a list without directories would vote again, and any node that is listed alone would lead: that
    // is for who starts it to prevent.
    let wipes_allowed = !unknown_directories;
    let mut run =
        Run { world, voters_change, wipes_allowed, wiped: Vec::new(), wipes: 0, voter_changes: 0 };
    run.suffer(time, faults_per_second);
    run.recover();
    run.stay();
    let Run { world, wipes, voter_changes, .. } = run;
    Summary {
        trace: world.trace(),
        steps: world.steps,
        elections: world.elections,
        truncations: world.truncations,
        snapshots: world.snapshots_installed,
        committed: world.checks.committed_end().0,
        voter_changes,
        wipes,
    }
}

impl Run {
    fn any(&mut self) -> usize {
        let count = self.world.nodes.len() as u64;
        self.world.draw(count) as usize
    }

    fn suffer(&mut self, time: Duration, faults_per_second: u64) {
        let end = self.world.now + time;
        while self.world.now < end {
            let pause = (ms(0), ms(2_000 / (faults_per_second + 12)));
            let until = self.world.now + self.world.between(pause);
            self.world.run_until(until, |_| false);
            if self.world.draw(faults_per_second + 12) < faults_per_second {
                self.fault();
            } else {
                self.work();
            }
        }
    }

    fn work(&mut self) {
        match self.world.draw(10) {
            0 => {
                let node = self.any();
                self.world.propose(node);
            }
            1 => {
                let node = self.any();
                self.world.snapshot(node);
            }
            2 if self.voters_change => self.change_voters(),
            _ => {
                let leaders: Vec<_> = (0..self.world.nodes.len())
                    .filter(|n| self.world.nodes[*n].is_leader())
                    .collect();
                for leader in leaders {
                    for _ in 0..=self.world.draw(3) {
                        self.world.propose(leader);
                    }
                }
            }
        }
    }

    fn change_voters(&mut self) {
        // An operator asks whoever says that it leads, also one that is wrong about it.
        let leaders: Vec<_> =
            (0..self.world.nodes.len()).filter(|n| self.world.nodes[*n].is_leader()).collect();
        for leader in leaders {
            let Some(replica) = &self.world.nodes[leader].replica else { continue };
            let voters = replica.voters().clone();
            let lost = self.wiped.iter().find(|key| voters.iter().any(|voter| voter.key == **key));
            let change = if let Some(lost) = lost {
                VoterChange::Remove(*lost)
            } else {
                let node = self.any();
                let key = self.world.nodes[node].key;
                if voters.get(key.id).is_none() {
                    VoterChange::Add(voter(key))
                } else if self.world.draw(3) == 0 {
                    VoterChange::Remove(key)
                } else {
                    continue;
                }
            };
            self.voter_changes += 1;
            self.world.change(leader, change);
        }
    }

    fn fault(&mut self) {
        let node = self.any();
        let other = self.any();
        match self.world.draw(12) {
            0 | 1 => {
                self.world.kill(node);
                // Some see that the process is dead.
                let id = NodeId(node as i32);
                for peer in 0..self.world.nodes.len() {
                    if self.world.draw(2) == 0 {
                        self.world.step(peer, Event::Crashed(id));
                    }
                }
            }
            2..=4 => {
                for node in 0..self.world.nodes.len() {
                    if self.world.nodes[node].replica.is_none() && self.world.draw(2) == 0 {
                        self.world.start(node);
                    }
                }
            }
            5 => {
                self.world.cut.insert((node, other));
            }
            6 => {
                for peer in 0..self.world.nodes.len() {
                    self.world.cut.insert((node, peer));
                    if self.world.draw(3) > 0 {
                        self.world.cut.insert((peer, node));
                    }
                }
            }
            7 | 8 => self.world.cut.clear(),
            9 => {
                for node in 0..self.world.nodes.len() {
                    if self.world.draw(3) == 0 {
                        self.world.kill(node);
                    }
                }
            }
            10 => {
                if self.world.nodes[node].is_leader() && self.world.draw(2) == 0 {
                    self.world.step(node, Event::Resign);
                    self.world.run_for(ms(20));
                    self.world.kill(node);
                } else {
                    // Nobody has proof that a node is dead which is not; but it costs only an election.
                    self.world.step(other, Event::Crashed(NodeId(node as i32)));
                }
            }
            _ => self.wipe(node),
        }
    }

    /// Empties a disk, when the cluster is bound to survive it.
    fn wipe(&mut self, node: usize) {
        let key = self.world.nodes[node].key;
        let replicas = self.world.nodes.iter().filter_map(|node| node.replica.as_ref());
        let sets: Vec<VoterSet> = replicas.map(|replica| replica.voters().clone()).collect();
        let all_run = sets.len() == self.world.nodes.len();
        let all_agree = sets.windows(2).all(|pair| pair[0] == pair[1]);
        let all_known = sets
            .iter()
            .flat_map(VoterSet::iter)
            .all(|voter| voter.key.directory_id != Uuid::ZERO && !self.wiped.contains(&voter.key));
        let is_voter = sets.first().is_some_and(|set| set.contains(&key));
        let is_bearable = sets.first().is_some_and(|set| set.len() >= 3 && self.voters_change);
        if self.wipes_allowed && all_run && all_agree && all_known && (!is_voter || is_bearable) {
            self.wipes += 1;
            self.wiped.push(key);
            self.world.wipe(node);
            self.world.start(node);
        }
    }

    /// The faults end: there is a leader in bounded time, and everything that was proposed has an outcome.
    fn recover(&mut self) {
        let world = &mut self.world;
        world.cut.clear();
        world.faults = Faults::none();
        for node in 0..world.nodes.len() {
            // One that was told to stop stands no more.
            if world.nodes[node].replica.is_none() {
                world.start(node);
            }
        }
        // A write that has begun takes as long as it takes.
        world.run_for(ms(3000));
        let limit = world.now + ms(6000);
        let led = world.run_until(limit, |world| world.leader().is_some());
        assert!(led, "QUORUM-G: there is no leader {:?} after the faults ended", ms(9000));
        let limit = world.now + ms(8000);
        let mut tag = None;
        let done = loop {
            let Some(leader) = world.leader() else {
                let until = world.now + ms(50);
                world.run_for(ms(50));
                if until > limit {
                    break false;
                }
                continue;
            };
            let asked = *tag.get_or_insert_with(|| world.propose(leader));
            let until = world.now + ms(300);
            world.run_until(until, |world| world.outcomes.contains_key(&asked));
            match world.outcomes.get(&asked) {
                Some(Ok(_)) => break true,
                Some(Err(_)) => tag = None,
                None => {}
            }
            if world.now > limit {
                break false;
            }
        };
        assert!(done, "QUORUM-G: nothing is committed after the faults ended");
        world.run_for(ms(1500));
        assert!(
            world.waiting.is_empty(),
            "QUORUM-G: proposals have no outcome: {:?}",
            world.waiting
        );
        let ends: Vec<_> =
            world.nodes.iter().map(|node| (node.log.end(), node.high_watermark)).collect();
        assert!(
            ends.windows(2).all(|pair| pair[0] == pair[1]) && ends[0].0 == ends[0].1,
            "QUORUM-G: the replicas end at different places: {ends:?}"
        );
    }

    /// Without faults the leader stays, also when a replica that was cut off comes back.
    fn stay(&mut self) {
        let world = &mut self.world;
        let leader = world.leader().unwrap();
        let epoch = world.epoch(leader);
        let node = world.draw(world.nodes.len() as u64) as usize;
        if node != leader {
            let both = world.draw(3) > 0;
            for peer in 0..world.nodes.len() {
                world.cut.insert((peer, node));
                if both {
                    world.cut.insert((node, peer));
                }
            }
        }
        world.run_for(ms(4000));
        world.cut.clear();
        world.run_for(ms(2500));
        let voters = world.nodes[leader].replica.as_ref().map(|replica| replica.voters().clone());
        let voters = voters.unwrap_or_default();
        let there = world.nodes.iter().enumerate().filter(|(index, there)| {
            voters.contains(&there.key) && (*index != node || node == leader)
        });
        // The majority of two voters is both, and a voter that was wiped is no voter.
        if there.count() >= voters.majority() {
            assert_eq!(
                (world.leader(), world.epoch(leader)),
                (Some(leader), epoch),
                "QUORUM-G: the leader was deposed by {node}, which came back"
            );
        }
    }
}

/// Runs a seed; a failure says how to replay it.
pub(super) fn checked(seed: u64, planted: &'static [Mutation]) -> Result<Summary, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, planted, false)))
        .map_err(|panic| text_of(panic.as_ref()))
}

/// What a panic said.
pub(super) fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn many_from(first: u64, count: u64) -> Summary {
    let mut total = Summary::default();
    for seed in first..first + count {
        let once = checked(seed, &[]);
        let once = once.unwrap_or_else(|why| {
            panic!(
                "seed {seed}: {why}\nreplay: OTTLA_QUORUM_SEED={seed} cargo test --lib \
                 quorum::tests::simulation::replayed -- --ignored --nocapture"
            )
        });
        assert_eq!(once, run(seed, &[], false), "seed {seed} is not the same twice");
        total.steps += once.steps;
        total.elections += once.elections;
        total.truncations += once.truncations;
        total.snapshots += once.snapshots;
        total.committed += once.committed;
        total.voter_changes += once.voter_changes;
        total.wipes += once.wipes;
    }
    total
}

#[test]
fn clusters_survive_every_fault_and_recover() {
    let total = many_from(0, 40);
    // The runs must be what they claim to be.
    assert!(total.steps > 100_000, "{total:?}");
    assert!(total.truncations > 20 && total.snapshots > 20, "{total:?}");
    assert!(total.voter_changes > 50 && total.wipes > 5, "{total:?}");
}

/// Many runs on fresh seeds: `OTTLA_QUORUM_RUNS` of them, or until a million steps are done.
#[test]
#[ignore = "a minute or more; run by name"]
fn many() {
    let runs = std::env::var("OTTLA_QUORUM_RUNS").map_or(400, |runs| runs.parse().unwrap());
    let first = std::env::var("OTTLA_QUORUM_FIRST").map_or(1_000, |first| first.parse().unwrap());
    println!("seeds {first} to {}", first + runs - 1);
    let total = many_from(first, runs);
    println!("{total:?}");
    assert!(total.steps > 1_000_000 || runs < 400, "{total:?}");
}

#[test]
#[ignore = "replays the seed of OTTLA_QUORUM_SEED"]
fn replayed() {
    let seed = std::env::var("OTTLA_QUORUM_SEED").unwrap().parse().unwrap();
    println!("{:?}", run(seed, &[], true));
}
