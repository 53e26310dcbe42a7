//! The limits of replication on this broker: what it gives to followers, and what it takes from leaders.
//!
//! Only replicas that the settings of their topic list are counted, and held back once the limit is exceeded; and of
//! these, only those that are not in sync (as in Apache Kafka): who is in sync would leave the ISR otherwise.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::ReplicationConfig;
use crate::machine::replication_quota::{QuotaRules, ReplicationQuota};

/// See the module.
#[derive(Debug, Default)]
pub(in crate::broker) struct Throttles {
    /// `leader.replication.throttled.rate`.
    pub(in crate::broker) leader: Throttle,
    /// `follower.replication.throttled.rate`.
    pub(in crate::broker) follower: Throttle,
}

/// One of the two limits.
#[derive(Debug, Default)]
pub(in crate::broker) struct Throttle(Mutex<ReplicationQuota>);

impl Throttles {
    /// Takes the limits from the settings.
    pub(super) fn set(&self, config: &ReplicationConfig) {
        let rules = |rate: i64| QuotaRules {
            // Kafka's default, the largest number, is no limit.
            bytes_per_second: u64::try_from(rate).ok().filter(|_| rate != i64::MAX),
            window: Duration::from_secs(config.quota_window_seconds.into()),
            windows: config.quota_windows,
        };
        self.leader.quota().set_rules(rules(config.leader_throttled_rate));
        self.follower.quota().set_rules(rules(config.follower_throttled_rate));
    }
}

impl Throttle {
    fn quota(&self) -> MutexGuard<'_, ReplicationQuota> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the bytes of records of replicas that are listed, whether or not they are in sync.
    pub(in crate::broker) fn record(&self, bytes: usize, now: Duration) {
        if bytes > 0 {
            self.quota().record(u64::try_from(bytes).unwrap_or(u64::MAX), now);
        }
    }

    /// How long those are to be held back that are listed and not in sync.
    pub(in crate::broker) fn pause(&self, now: Duration) -> Option<Duration> {
        self.quota().pause(now)
    }
}
