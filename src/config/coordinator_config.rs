//! The settings of the group coordinator, typed.

use super::definition::split_list;
use super::topic_config::unreadable;
use super::{BrokerConfig, ConfigError, ConfigMap, Scope, check_all};

/// The settings that the group coordinator acts on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoordinatorConfig {
    /// `group.consumer.assignment.interval.ms`.
    pub consumer_assignment_interval_ms: i32,
    /// `group.consumer.assignors`.
    pub consumer_assignors: Vec<String>,
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.max.assignment.interval.ms`.
    pub consumer_max_assignment_interval_ms: i32,
    /// `group.consumer.max.heartbeat.interval.ms`.
    pub consumer_max_heartbeat_interval_ms: i32,
    /// `group.consumer.max.session.timeout.ms`.
    pub consumer_max_session_timeout_ms: i32,
    /// `group.consumer.max.size`.
    pub consumer_max_size: i32,
    /// `group.consumer.migration.policy`.
    pub consumer_migration_policy: String,
    /// `group.consumer.min.assignment.interval.ms`.
    pub consumer_min_assignment_interval_ms: i32,
    /// `group.consumer.min.heartbeat.interval.ms`.
    pub consumer_min_heartbeat_interval_ms: i32,
    /// `group.consumer.min.session.timeout.ms`.
    pub consumer_min_session_timeout_ms: i32,
    /// `group.consumer.regex.refresh.interval.ms`.
    pub consumer_regex_refresh_interval_ms: i32,
    /// `group.consumer.session.timeout.ms`.
    pub consumer_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.max.size`.
    pub max_size: i32,
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: i32,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.retention.minutes`.
    pub offsets_retention_minutes: i32,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_num_partitions: i32,
    /// `offsets.topic.replication.factor`, if it is set.
    pub offsets_topic_replication_factor: Option<i16>,
    /// `offsets.topic.segment.bytes`.
    pub offsets_topic_segment_bytes: i32,
}

impl CoordinatorConfig {
    /// Reads the settings of `broker`, and checks that they fit together.
    pub(super) fn read(broker: &BrokerConfig) -> Result<Self, ConfigError> {
        let assignors = broker.checked("group.consumer.assignors")?.unwrap_or_default();
        let config = Self {
            consumer_assignment_interval_ms: broker
                .number("group.consumer.assignment.interval.ms")?,
            consumer_max_assignment_interval_ms: broker
                .number("group.consumer.max.assignment.interval.ms")?,
            consumer_min_assignment_interval_ms: broker
                .number("group.consumer.min.assignment.interval.ms")?,
            consumer_assignors: split_list(&assignors).map(str::to_owned).collect(),
            consumer_heartbeat_interval_ms: broker
                .number("group.consumer.heartbeat.interval.ms")?,
            consumer_max_heartbeat_interval_ms: broker
                .number("group.consumer.max.heartbeat.interval.ms")?,
            consumer_max_session_timeout_ms: broker
                .number("group.consumer.max.session.timeout.ms")?,
            consumer_max_size: broker.number("group.consumer.max.size")?,
            consumer_migration_policy: broker
                .checked("group.consumer.migration.policy")?
                .unwrap_or_default(),
            consumer_min_heartbeat_interval_ms: broker
                .number("group.consumer.min.heartbeat.interval.ms")?,
            consumer_min_session_timeout_ms: broker
                .number("group.consumer.min.session.timeout.ms")?,
            consumer_regex_refresh_interval_ms: broker
                .number("group.consumer.regex.refresh.interval.ms")?,
            consumer_session_timeout_ms: broker.number("group.consumer.session.timeout.ms")?,
            initial_rebalance_delay_ms: broker.number("group.initial.rebalance.delay.ms")?,
            max_session_timeout_ms: broker.number("group.max.session.timeout.ms")?,
            max_size: broker.number("group.max.size")?,
            min_session_timeout_ms: broker.number("group.min.session.timeout.ms")?,
            offset_metadata_max_bytes: broker.number("offset.metadata.max.bytes")?,
            offsets_retention_check_interval_ms: broker
                .number("offsets.retention.check.interval.ms")?,
            offsets_retention_minutes: broker.number("offsets.retention.minutes")?,
            offsets_topic_num_partitions: broker.number("offsets.topic.num.partitions")?,
            offsets_topic_replication_factor: broker
                .number_if_set("offsets.topic.replication.factor")?,
            offsets_topic_segment_bytes: broker.number("offsets.topic.segment.bytes")?,
        };
        config.check_together()?;
        Ok(config)
    }

    fn check_together(&self) -> Result<(), ConfigError> {
        let session = self.consumer_session_timeout_ms;
        let interval = self.consumer_heartbeat_interval_ms;
        let not_above = |(name, value): (&str, i32), (bound_name, bound): (&str, i32)| {
            if value <= bound {
                return Ok(());
            }
            let text = format!("{name}={value} must not be above {bound_name}={bound}");
            Err(ConfigError::new(name, text))
        };
        let session = ("group.consumer.session.timeout.ms", session);
        let interval = ("group.consumer.heartbeat.interval.ms", interval);
        not_above(
            ("group.consumer.min.session.timeout.ms", self.consumer_min_session_timeout_ms),
            session,
        )?;
        not_above(
            session,
            ("group.consumer.max.session.timeout.ms", self.consumer_max_session_timeout_ms),
        )?;
        not_above(
            ("group.consumer.min.heartbeat.interval.ms", self.consumer_min_heartbeat_interval_ms),
            interval,
        )?;
        not_above(
            interval,
            ("group.consumer.max.heartbeat.interval.ms", self.consumer_max_heartbeat_interval_ms),
        )?;
        let pause = ("group.consumer.assignment.interval.ms", self.consumer_assignment_interval_ms);
        not_above(
            ("group.consumer.min.assignment.interval.ms", self.consumer_min_assignment_interval_ms),
            pause,
        )?;
        not_above(
            pause,
            ("group.consumer.max.assignment.interval.ms", self.consumer_max_assignment_interval_ms),
        )?;
        not_above((interval.0, interval.1.saturating_add(1)), session)?;
        not_above(
            ("group.min.session.timeout.ms", self.min_session_timeout_ms),
            ("group.max.session.timeout.ms", self.max_session_timeout_ms),
        )
    }

    /// Checks the settings of a group: each one, against the broker's bounds, and all together.
    ///
    /// # Errors
    ///
    /// The first setting that is not acceptable.
    pub fn check_group(&self, settings: &ConfigMap) -> Result<(), ConfigError> {
        check_all(Scope::Group, settings)?;
        let read = |name: &str, default: i32| match settings.get(name) {
            None => Ok(default),
            Some(text) => text.parse::<i32>().map_err(|_error| unreadable(name, text)),
        };
        let bounded = |name: &str, bounds: (&str, i32, i32), default: i32| {
            let value = read(name, default)?;
            let (what, least, most) = bounds;
            if settings.contains_key(name) && !(least..=most).contains(&value) {
                let text = format!(
                    "{name}={value} must be from group.consumer.min.{what}={least} to \
                     group.consumer.max.{what}={most}"
                );
                return Err(ConfigError::new(name, text));
            }
            Ok(value)
        };
        let interval = bounded(
            "consumer.heartbeat.interval.ms",
            (
                "heartbeat.interval.ms",
                self.consumer_min_heartbeat_interval_ms,
                self.consumer_max_heartbeat_interval_ms,
            ),
            self.consumer_heartbeat_interval_ms,
        )?;
        let session = bounded(
            "consumer.session.timeout.ms",
            (
                "session.timeout.ms",
                self.consumer_min_session_timeout_ms,
                self.consumer_max_session_timeout_ms,
            ),
            self.consumer_session_timeout_ms,
        )?;
        bounded(
            "consumer.assignment.interval.ms",
            (
                "assignment.interval.ms",
                self.consumer_min_assignment_interval_ms,
                self.consumer_max_assignment_interval_ms,
            ),
            self.consumer_assignment_interval_ms,
        )?;
        if session <= interval {
            let name = "consumer.session.timeout.ms";
            let text =
                format!("{name}={session} must be above consumer.heartbeat.interval.ms={interval}");
            return Err(ConfigError::new(name, text));
        }
        Ok(())
    }
}
