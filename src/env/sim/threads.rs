//! Threads that are tasks: what blocks is done at once, after a pause drawn from the seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::SimRandom;

/// How long the threads of a simulated machine take to get on.
#[derive(Debug)]
pub struct SimThreads {
    random: SimRandom,
    of_runtime: usize,
    work_ms_max: AtomicU64,
    sync_ms_max: AtomicU64,
}

impl SimThreads {
    /// Threads beside a runtime that claims to have `of_runtime` of them.
    #[must_use]
    pub fn new(random: SimRandom, of_runtime: usize) -> Self {
        let (work_ms_max, sync_ms_max) = (AtomicU64::new(1), AtomicU64::new(4));
        Self { random, of_runtime, work_ms_max, sync_ms_max }
    }

    /// The longest pauses before work that blocks, and before a sync.
    pub fn set_pauses(&self, work_ms_max: u64, sync_ms_max: u64) {
        self.work_ms_max.store(work_ms_max, Ordering::Relaxed);
        self.sync_ms_max.store(sync_ms_max, Ordering::Relaxed);
    }

    pub(in crate::env) const fn of_runtime(&self) -> usize {
        self.of_runtime
    }

    /// Waits for a thread with this name to get on.
    pub(in crate::env) async fn pause(&self, name: &str) {
        let max = if name.contains("sync") { &self.sync_ms_max } else { &self.work_ms_max };
        match self.random.below(max.load(Ordering::Relaxed) + 1) {
            0 => tokio::task::yield_now().await,
            ms => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }
}
