//! How long to wait before the next attempt (KIP-580).
//!
//! The wait doubles from `initial_ms` up to `max_ms`, and a jitter of a fifth to either side keeps
//! clients that failed together from coming back together.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// The settings `retry.backoff.ms` and `retry.backoff.max.ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait before the first retry, in milliseconds.
    pub initial_ms: u64,
    /// The longest wait, in milliseconds.
    pub max_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial_ms: 100, max_ms: 1_000 }
    }
}

impl Backoff {
    /// The wait after `failures` failed attempts (1 for the first), given a random number.
    #[must_use]
    pub fn delay_ms(self, failures: u32, random: u64) -> u64 {
        if failures == 0 || self.initial_ms == 0 {
            return 0;
        }
        let doublings = (failures - 1).min(30);
        let grown = self.initial_ms.saturating_mul(1 << doublings);
        let capped = grown.min(self.max_ms.max(self.initial_ms));
        // 80 % to 120 %, in steps of a thousandth.
        let per_mille = 800 + random % 401;
        (u128::from(capped) * u128::from(per_mille) / 1000).try_into().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_maximum() {
        let backoff = Backoff { initial_ms: 100, max_ms: 1_000 };
        let middle = |failures| backoff.delay_ms(failures, 200);
        assert_eq!([0, 1, 2, 3, 4, 5, 40].map(middle), [0, 100, 200, 400, 800, 1_000, 1_000]);
    }

    proptest::proptest! {
        #[test]
        fn the_jitter_is_a_fifth_at_most(failures in 1_u32..100, random: u64) {
            let backoff = Backoff { initial_ms: 50, max_ms: 2_000 };
            let middle = backoff.delay_ms(failures, 200);
            let delay = backoff.delay_ms(failures, random);
            proptest::prop_assert!(delay * 10 >= middle * 8 && delay * 10 <= middle * 12);
        }
    }
}
