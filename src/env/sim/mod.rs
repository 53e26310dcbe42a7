//! A simulated clock, disk, network, threads and source of random numbers, all from one seed.
//!
//! A run is a function of its seed: a failing seed is replayed by name. Each consumer of randomness
//! draws from its own stream ([`SimRandom::stream`]), so that an extra draw in one place does not
//! change the others.
//!
//! [`Simulation`] is for what is synchronous: a disk, and a clock that is moved by hand. [`SimRun`] is for whole
//! processes: machines with disks on one network, on the paused time of a tokio runtime.

mod disk;
mod file;
mod machine;
mod mutation;
mod net;
mod socket;
mod stalling;
mod threads;
mod trace;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Clock, Env, Net, Random, Threads};
use crate::types::TimestampMs;

pub use disk::{Fault, SimDisk};
pub use machine::{SimMachine, SimRun};
pub use mutation::{Mutation, is_planted, plant};
pub use net::{SimHost, SimListener, SimNet};
pub use socket::{SimReadHalf, SimSocket, SimWriteHalf};
pub use stalling::StallingDisk;
pub use threads::SimThreads;
pub use trace::Trace;

/// A simulated machine.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The clock, moved by hand.
    pub clock: Arc<SimClock>,
    /// The disk.
    pub disk: Arc<SimDisk>,
    seed: u64,
}

impl Simulation {
    /// A machine whose faults follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            clock: Arc::new(SimClock::new(TimestampMs(1_700_000_000_000))),
            disk: Arc::new(SimDisk::new(SimRandom::stream(seed, "disk"))),
            seed,
        }
    }

    /// The machine as components see it.
    #[must_use]
    pub fn env(&self) -> Env {
        Env {
            clock: Arc::<SimClock>::clone(&self.clock),
            disk: Arc::<SimDisk>::clone(&self.disk),
            random: Arc::new(SimRandom::stream(self.seed, "identifiers")),
            net: Net::Real,
            threads: Threads::Real,
        }
    }

    /// A stream of random numbers for one purpose.
    #[must_use]
    pub fn random(&self, purpose: &str) -> SimRandom {
        SimRandom::stream(self.seed, purpose)
    }
}

/// A clock that stands still until it is moved, or that follows the paused time of a runtime.
#[derive(Debug)]
pub struct SimClock {
    start: i64,
    /// By how much the wall clock was moved, and the monotonic one.
    moved: (AtomicI64, AtomicI64),
    /// When a clock that follows a runtime began to.
    since: Option<Instant>,
}

impl SimClock {
    /// A clock set to `start`, which stands still.
    #[must_use]
    pub fn new(start: TimestampMs) -> Self {
        Self { start: start.0, moved: Default::default(), since: None }
    }

    /// A clock set to `start`, which goes on with the time of the current runtime.
    #[must_use]
    pub fn of_runtime(start: TimestampMs) -> Self {
        Self { since: Some(Instant::now()), ..Self::new(start) }
    }

    /// Advances the clock.
    pub fn advance(&self, duration_ms: i64) {
        self.moved.0.fetch_add(duration_ms, Ordering::AcqRel);
        self.moved.1.fetch_add(duration_ms, Ordering::AcqRel);
    }

    /// Sets the wall clock forward or, when negative, back.
    pub fn set_by(&self, duration_ms: i64) {
        self.moved.0.fetch_add(duration_ms, Ordering::AcqRel);
    }

    fn elapsed(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Clock for SimClock {
    fn now(&self) -> TimestampMs {
        let elapsed = i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX);
        TimestampMs(self.start + self.moved.0.load(Ordering::Acquire) + elapsed)
    }

    fn monotonic(&self) -> Duration {
        let moved = u64::try_from(self.moved.1.load(Ordering::Acquire)).unwrap_or(0);
        Duration::from_millis(moved) + self.elapsed()
    }
}

/// Random numbers from a seed (SplitMix64).
#[derive(Debug)]
pub struct SimRandom {
    state: Mutex<u64>,
}

impl SimRandom {
    /// The numbers for one purpose under one seed.
    #[must_use]
    pub fn stream(seed: u64, purpose: &str) -> Self {
        let mixed = purpose.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |state, byte| {
            (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { state: Mutex::new(mixed) }
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// True once in `times` calls on average.
    pub fn one_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }
}

impl Random for SimRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            for (place, byte) in chunk.iter_mut().zip(word) {
                *place = byte;
            }
        }
    }
}
