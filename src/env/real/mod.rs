//! The operating system behind the traits of [`crate::env`].

mod net;
mod storage;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Clock, Random};
use crate::types::TimestampMs;

pub(super) use net::{is_no_send_file, listen, resolve, set_options, try_send_file, try_write};
pub use storage::RealDisk;

/// The system clock.
#[derive(Debug)]
pub struct RealClock {
    start: Instant,
}

impl RealClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> TimestampMs {
        to_timestamp(SystemTime::now())
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Milliseconds since the epoch; negative before it.
pub(super) fn to_timestamp(time: SystemTime) -> TimestampMs {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    TimestampMs(match time.duration_since(UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    })
}

/// The thread's random number generator, seeded by the operating system.
#[derive(Debug)]
pub struct RealRandom;

impl Random for RealRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::Rng::fill_bytes(&mut rand::rng(), bytes);
    }
}
