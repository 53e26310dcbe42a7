//! How fast replicas are copied that are to be copied slowly: what was copied lately, against a limit.
//!
//! The rule is Apache Kafka's (`ReplicationQuotaManager`, with its `SimpleRate`): bytes are counted in windows, of which
//! the last few are kept; the rate is their sum over the time since the oldest began, which counts as one window at
//! least. What is copied is counted afterwards, so the first copy is never too much, and the limit holds on average.

use std::collections::VecDeque;
use std::time::Duration;

/// How the rate is measured, and what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaRules {
    /// The most bytes in a second; none for no limit.
    pub bytes_per_second: Option<u64>,
    /// How long a window is.
    pub window: Duration,
    /// How many windows are kept.
    pub windows: u32,
}

impl Default for QuotaRules {
    fn default() -> Self {
        Self { bytes_per_second: None, window: Duration::from_secs(1), windows: 11 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Duration,
    last: Duration,
    bytes: u64,
}

/// See the module. Times are of a monotonic clock.
#[derive(Debug, Default)]
pub struct ReplicationQuota {
    rules: QuotaRules,
    /// Oldest first.
    kept: VecDeque<Window>,
}

impl ReplicationQuota {
    /// Has other rules from now on. What was counted stays.
    pub fn set_rules(&mut self, rules: QuotaRules) {
        self.rules = rules;
    }

    /// Counts bytes that were copied.
    pub fn record(&mut self, bytes: u64, now: Duration) {
        self.forget_old(now);
        match self.kept.back_mut() {
            Some(window) if now.saturating_sub(window.began) < self.rules.window => {
                window.last = window.last.max(now);
                window.bytes = window.bytes.saturating_add(bytes);
            }
            _ => self.kept.push_back(Window { began: now, last: now, bytes }),
        }
    }

    /// How long nothing more is to be copied; none when something can be copied now.
    pub fn pause(&mut self, now: Duration) -> Option<Duration> {
        let limit = self.rules.bytes_per_second?;
        self.forget_old(now);
        let oldest = *self.kept.front()?;
        let bytes = self.kept.iter().fold(0_u64, |sum, window| sum.saturating_add(window.bytes));
        let elapsed = now.saturating_sub(oldest.began).max(self.rules.window);
        if u128::from(bytes) * 1_000_000_000 <= u128::from(limit) * elapsed.as_nanos() {
            return None;
        }
        let expires = oldest.last.saturating_add(self.kept_for()).saturating_sub(now);
        let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(limit).max(1));
        let spread = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let average = oldest.began.saturating_add(spread).saturating_sub(now);
        Some(if limit == 0 { expires } else { expires.min(average) })
    }

    fn kept_for(&self) -> Duration {
        self.rules.window.saturating_mul(self.rules.windows)
    }

    fn forget_old(&mut self, now: Duration) {
        let kept_for = self.kept_for();
        self.kept.retain(|window| now.saturating_sub(window.last) < kept_for);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn limited(bytes_per_second: u64) -> ReplicationQuota {
        let mut quota = ReplicationQuota::default();
        quota.set_rules(QuotaRules {
            bytes_per_second: Some(bytes_per_second),
            ..QuotaRules::default()
        });
        quota
    }

    #[test]
    fn what_was_copied_is_paid_for_afterwards() {
        let mut quota = limited(1000);
        assert_eq!(quota.pause(ms(0)), None);
        // As much as fits into the first window is not too much.
        quota.record(1000, ms(0));
        assert_eq!(quota.pause(ms(0)), None);
        quota.record(4000, ms(500));
        assert_eq!(quota.pause(ms(500)), Some(ms(4500)));
        assert_eq!(quota.pause(ms(4999)), Some(ms(1)));
        assert_eq!(quota.pause(ms(5000)), None);
    }

    #[test]
    fn a_window_is_forgotten_as_a_whole() {
        let mut quota = limited(10);
        quota.record(1_000_000, ms(0));
        quota.record(1, ms(5000));
        // It would take longer on average; but after eleven windows nothing is known of it.
        assert_eq!(quota.pause(ms(5000)), Some(ms(6000)));
        assert_eq!(quota.pause(ms(10_999)), Some(ms(1)));
        assert_eq!(quota.pause(ms(11_000)), None);
    }

    #[test]
    fn nothing_is_limited_without_a_limit_and_a_limit_of_zero_lets_little_pass() {
        let mut quota = ReplicationQuota::default();
        quota.record(u64::MAX, ms(0));
        quota.record(u64::MAX, ms(0));
        assert_eq!(quota.pause(ms(0)), None);
        let mut quota = limited(0);
        assert_eq!(quota.pause(ms(0)), None);
        quota.record(1, ms(0));
        assert_eq!(quota.pause(ms(0)), Some(ms(11_000)));
        assert_eq!(quota.pause(ms(11_000)), None);
    }

    #[test]
    fn the_average_keeps_to_the_limit() {
        let (mut quota, mut now, mut copied) = (limited(10_000), ms(0), 0);
        while now < ms(60_000) {
            match quota.pause(now) {
                Some(pause) => now += pause,
                None => {
                    quota.record(3000, now);
                    copied += 3000;
                    now += ms(1);
                }
            }
        }
        assert!((570_000..=640_000).contains(&copied), "{copied}");
    }
}
