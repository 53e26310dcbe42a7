//! Randomness determined by a seed.

use crate::types::Uuid;

/// Two SplitMix64 streams side by side: one is too short for ids that must never repeat.
#[derive(Clone, Debug)]
pub(super) struct Draw {
    state: [u64; 2],
}

impl Draw {
    pub(super) const fn new(seed: [u64; 2]) -> Self {
        Self { state: seed }
    }

    pub(super) fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        let (high, low) = bytes.split_at_mut(8);
        high.copy_from_slice(&next(&mut self.state[0]).to_be_bytes());
        low.copy_from_slice(&next(&mut self.state[1]).to_be_bytes());
        Uuid::from_random(bytes)
    }

    /// A number below `end`; 0 when there is none.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        let drawn = next(&mut self.state[0]).checked_rem(end).unwrap_or(0);
        usize::try_from(drawn).unwrap_or(0)
    }
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
