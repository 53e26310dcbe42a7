//! The settings that the coordinator obeys; the shell builds them from the broker's configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Which conversions between the protocols a group may make while it has members
/// (`group.consumer.migration.policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// None.
    Disabled,
    /// From the consumer protocol to the classic one.
    Downgrade,
    /// From the classic protocol to the consumer one.
    Upgrade,
    /// Both.
    Bidirectional,
}

impl MigrationPolicy {
    /// Parses Kafka's name for it, ignoring case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "disabled" => Some(Self::Disabled),
            "downgrade" => Some(Self::Downgrade),
            "upgrade" => Some(Self::Upgrade),
            "bidirectional" => Some(Self::Bidirectional),
            _ => None,
        }
    }

    /// Whether a classic group may become a consumer group.
    #[must_use]
    pub const fn allows_upgrade(self) -> bool {
        matches!(self, Self::Upgrade | Self::Bidirectional)
    }

    /// Whether a consumer group may become a classic group.
    #[must_use]
    pub const fn allows_downgrade(self) -> bool {
        matches!(self, Self::Downgrade | Self::Bidirectional)
    }
}

/// What is set for one group (resource type GROUP); `None` leaves the broker's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupOverrides {
    /// `consumer.session.timeout.ms`.
    pub consumer_session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms: Option<i32>,
    /// `consumer.assignment.interval.ms`.
    pub consumer_assignment_interval_ms: Option<i32>,
}

/// The settings of a coordinator, with Kafka's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `group.min.session.timeout.ms`.
    pub classic_session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub classic_session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub classic_initial_rebalance_delay_ms: i64,
    /// How long a member that waits for its first generation may take; Kafka has no setting for
    /// it. Clients from before Kafka 2.3 vanish without a trace while they wait.
    pub classic_new_member_join_timeout_ms: i64,
    /// `group.max.size`.
    pub classic_size_max: usize,
    /// `group.consumer.session.timeout.ms`.
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.min.session.timeout.ms`.
    pub consumer_session_timeout_ms_min: i32,
    /// `group.consumer.max.session.timeout.ms`.
    pub consumer_session_timeout_ms_max: i32,
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.min.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms_min: i32,
    /// `group.consumer.max.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms_max: i32,
    /// `group.consumer.assignment.interval.ms`: the least time between two targets of a group
    /// (KIP-1263).
    pub consumer_assignment_interval_ms: i32,
    /// `group.consumer.min.assignment.interval.ms`.
    pub consumer_assignment_interval_ms_min: i32,
    /// `group.consumer.max.assignment.interval.ms`.
    pub consumer_assignment_interval_ms_max: i32,
    /// `group.consumer.max.size`.
    pub consumer_size_max: usize,
    /// `group.consumer.assignors`; the first is the default.
    pub consumer_assignors: Vec<Arc<str>>,
    /// `group.consumer.migration.policy`.
    pub consumer_migration_policy: MigrationPolicy,
    /// `group.consumer.regex.refresh.interval.ms`.
    pub consumer_regex_refresh_interval_ms: i64,
    /// The settings of single groups, by group id.
    pub groups: BTreeMap<Arc<str>, GroupOverrides>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            offset_metadata_bytes_max: 4096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            offsets_retention_check_interval_ms: 600_000,
            classic_session_timeout_ms_min: 6_000,
            classic_session_timeout_ms_max: 1_800_000,
            classic_initial_rebalance_delay_ms: 3_000,
            classic_new_member_join_timeout_ms: 5 * 60 * 1000,
            classic_size_max: i32::MAX as usize,
            consumer_session_timeout_ms: 45_000,
            consumer_session_timeout_ms_min: 45_000,
            consumer_session_timeout_ms_max: 60_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_heartbeat_interval_ms_min: 5_000,
            consumer_heartbeat_interval_ms_max: 15_000,
            consumer_assignment_interval_ms: 1_000,
            consumer_assignment_interval_ms_min: 0,
            consumer_assignment_interval_ms_max: 15_000,
            consumer_size_max: i32::MAX as usize,
            consumer_assignors: vec!["uniform".into(), "range".into()],
            consumer_migration_policy: MigrationPolicy::Bidirectional,
            consumer_regex_refresh_interval_ms: 600_000,
            groups: BTreeMap::new(),
        }
    }
}

impl GroupConfig {
    /// The session timeout of a member of the consumer protocol, within the broker's bounds.
    #[must_use]
    pub fn consumer_session_timeout_ms(&self, group: &str) -> i32 {
        self.groups
            .get(group)
            .and_then(|overrides| overrides.consumer_session_timeout_ms)
            .unwrap_or(self.consumer_session_timeout_ms)
            .min(self.consumer_session_timeout_ms_max)
            .max(self.consumer_session_timeout_ms_min)
    }

    /// The heartbeat interval of a member of the consumer protocol, within the broker's bounds.
    #[must_use]
    pub fn consumer_heartbeat_interval_ms(&self, group: &str) -> i32 {
        self.groups
            .get(group)
            .and_then(|overrides| overrides.consumer_heartbeat_interval_ms)
            .unwrap_or(self.consumer_heartbeat_interval_ms)
            .min(self.consumer_heartbeat_interval_ms_max)
            .max(self.consumer_heartbeat_interval_ms_min)
    }

    /// The least time between two targets of a group, within the broker's bounds.
    #[must_use]
    pub fn consumer_assignment_interval_ms(&self, group: &str) -> i32 {
        self.groups
            .get(group)
            .and_then(|overrides| overrides.consumer_assignment_interval_ms)
            .unwrap_or(self.consumer_assignment_interval_ms)
            .min(self.consumer_assignment_interval_ms_max)
            .max(self.consumer_assignment_interval_ms_min)
    }
}
