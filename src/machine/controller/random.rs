//! Randomness determined by a seed.

use crate::types::{SplitMix64, Uuid};

/// Two SplitMix64 streams side by side: one is too short for ids that must never repeat.
#[derive(Clone, Debug)]
pub(super) struct Draw {
    streams: [SplitMix64; 2],
}

impl Draw {
    pub(super) const fn new(seed: [u64; 2]) -> Self {
        let [first, second] = seed;
        Self { streams: [SplitMix64::new(first), SplitMix64::new(second)] }
    }

    pub(super) fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        let (high, low) = bytes.split_at_mut(8);
        high.copy_from_slice(&self.streams[0].draw().to_be_bytes());
        low.copy_from_slice(&self.streams[1].draw().to_be_bytes());
        Uuid::from_random(bytes)
    }

    /// A number below `end`; 0 when there is none.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        let drawn = self.streams[0].draw().checked_rem(end).unwrap_or(0);
        usize::try_from(drawn).unwrap_or(0)
    }
}
