//! Schedules drawn from a seed: three brokers, of which one after the other is killed, loses its power, is cut off, or made the leader, while
//! records are produced. What was acknowledged with `acks=all` must be there in the end, at its offset, on all of them.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::time::Duration;

use super::rig::{Cluster, simulate};
use crate::env::sim::SimRandom;
use crate::error::ErrorCode;
use crate::record::Batches;

const STEPS: usize = 25;
const SEEDS: std::ops::Range<u64> = 0..20;

const ALL: [i32; 3] = [1, 2, 3];

struct Schedule {
    random: SimRandom,
    cluster: Cluster,
    down: Vec<i32>,
    acknowledged: BTreeMap<i64, String>,
    produced: usize,
}

impl Schedule {
    async fn new(seed: u64) -> Self {
        let random = SimRandom::stream(seed, "schedule");
        let cluster = Cluster::start(seed, &ALL).await;
        let min_in_sync = if random.one_in(4) { "1" } else { "2" };
        let durability = if random.one_in(2) { "fsync" } else { "os" };
        let configs = [("min.insync.replicas", min_in_sync), ("durability", durability)];
        cluster.create(&ALL, &configs).await;
        let (down, acknowledged) = (Vec::new(), BTreeMap::new());
        Self { random, cluster, down, acknowledged, produced: 0 }
    }

    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap()
    }

    /// Those who may lead: in sync, as the controller knows it, and running.
    fn candidates(&self) -> Vec<i32> {
        self.cluster.isr().into_iter().filter(|id| !self.down.contains(id)).collect()
    }

    fn elect(&self) {
        let candidates = self.candidates();
        self.cluster.elect(candidates[self.below(candidates.len())], &self.cluster.isr());
    }

    async fn pause(&self, max_ms: usize) {
        tokio::time::sleep(Duration::from_millis(self.below(max_ms) as u64)).await;
    }

    /// Something that happens while a record is produced.
    async fn disturb(&self) {
        self.pause(30).await;
        match self.below(8) {
            0 | 1 => {
                let one = self.below(3);
                let other = (one + 1 + self.below(2)) % 3;
                self.cluster.cut(ALL[one], ALL[other]);
            }
            2 | 3 => self.cluster.heal(),
            4 | 5 => self.elect(),
            _ => {}
        }
    }

    async fn produce(&mut self) {
        let leader = self.cluster.state().leader.0;
        if self.down.contains(&leader) {
            return;
        }
        let acks = if self.random.one_in(3) { 1 } else { -1 };
        self.produced += 1;
        let value = format!("value {}", self.produced);
        let timeout_ms = i32::try_from(100 + self.below(3000)).unwrap();
        let (answer, ()) = tokio::join!(
            self.cluster.produce_within(leader, acks, &value, timeout_ms),
            self.disturb()
        );
        if acks == -1 && ErrorCode::from_i16(answer.error_code) == ErrorCode::None {
            let before = self.acknowledged.insert(answer.base_offset, value);
            assert_eq!(before, None, "two records at offset {}", answer.base_offset);
        }
    }

    async fn step(&mut self) {
        match self.below(12) {
            0 => {
                let victim = ALL[self.below(3)];
                let others = self.candidates().into_iter().filter(|id| *id != victim).count();
                if self.down.is_empty() && others > 0 {
                    if self.random.one_in(2) {
                        self.cluster.power_cut(victim);
                    } else {
                        self.cluster.kill(victim);
                    }
                    self.down.push(victim);
                    if self.cluster.state().leader.0 == victim {
                        self.pause(50).await;
                        self.elect();
                    }
                }
            }
            1 => {
                if let Some(id) = self.down.pop() {
                    self.cluster.boot(id).await;
                }
            }
            2 => self.pause(3000).await,
            3 => self.cluster.heal(),
            _ => self.produce().await,
        }
    }

    async fn end(mut self) {
        self.cluster.heal();
        while let Some(id) = self.down.pop() {
            self.cluster.boot(id).await;
        }
        self.cluster.until("all are in sync", |cluster| cluster.isr() == ALL).await;
        self.cluster.published().await;
        let leader = self.cluster.state().leader.0;
        let last = self.cluster.produce(leader, -1, "last").await;
        assert!(last.is_ok(), "{last:?}");
        self.cluster.settled(&ALL).await;
        let mut found = BTreeMap::new();
        for batch in Batches::new(self.cluster.segments(1).into()) {
            let batch = batch.unwrap();
            let records = batch.records(1 << 20).unwrap();
            let value = records.iter().next().unwrap().unwrap().value.unwrap();
            found.insert(batch.header().base_offset.0, String::from_utf8_lossy(value).into_owned());
        }
        for (offset, value) in self.acknowledged {
            assert_eq!(found.get(&offset), Some(&value), "acknowledged at offset {offset}");
        }
    }
}

fn run(seed: u64) {
    simulate(async {
        let mut schedule = Schedule::new(seed).await;
        for _ in 0..STEPS {
            schedule.step().await;
        }
        schedule.end().await;
    });
}

#[test]
fn what_is_acknowledged_stays_whoever_leads() {
    for seed in SEEDS {
        assert!(catch_unwind(|| run(seed)).is_ok(), "seed {seed}");
    }
}
