//! The settings of the coordinator, from the configuration of the broker and of groups.

use crate::broker::coordinator::replicas;
use crate::config::{BrokerConfig, ConfigMap};
use crate::machine::controller::NewTopic;
use crate::machine::group::{GroupConfig, GroupOverrides, MigrationPolicy};
use crate::machine::metadata::{ConfigResource, MetadataImage};

use super::OFFSETS_TOPIC;

const MINUTE_MS: i64 = 60_000;

/// The settings that the shards obey.
pub(super) fn group_config(broker: &BrokerConfig, image: &MetadataImage) -> GroupConfig {
    let config = &broker.coordinator;
    let count = |number: i32| usize::try_from(number).unwrap_or(0);
    let groups = image.configs().filter_map(|(resource, settings)| match resource {
        ConfigResource::Group(group) => Some((group.clone(), overrides(settings))),
        _ => None,
    });
    GroupConfig {
        offset_metadata_bytes_max: count(config.offset_metadata_max_bytes),
        offsets_retention_ms: i64::from(config.offsets_retention_minutes) * MINUTE_MS,
        offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
        classic_session_timeout_ms_min: config.min_session_timeout_ms,
        classic_session_timeout_ms_max: config.max_session_timeout_ms,
        classic_initial_rebalance_delay_ms: i64::from(config.initial_rebalance_delay_ms),
        classic_size_max: count(config.max_size),
        consumer_session_timeout_ms: config.consumer_session_timeout_ms,
        consumer_session_timeout_ms_min: config.consumer_min_session_timeout_ms,
        consumer_session_timeout_ms_max: config.consumer_max_session_timeout_ms,
        consumer_heartbeat_interval_ms: config.consumer_heartbeat_interval_ms,
        consumer_heartbeat_interval_ms_min: config.consumer_min_heartbeat_interval_ms,
        consumer_heartbeat_interval_ms_max: config.consumer_max_heartbeat_interval_ms,
        consumer_assignment_interval_ms: config.consumer_assignment_interval_ms,
        consumer_assignment_interval_ms_min: config.consumer_min_assignment_interval_ms,
        consumer_assignment_interval_ms_max: config.consumer_max_assignment_interval_ms,
        consumer_size_max: count(config.consumer_max_size),
        consumer_assignors: config
            .consumer_assignors
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        // Checked when it was set.
        consumer_migration_policy: MigrationPolicy::parse(&config.consumer_migration_policy)
            .unwrap_or(MigrationPolicy::Bidirectional),
        consumer_regex_refresh_interval_ms: i64::from(config.consumer_regex_refresh_interval_ms),
        groups: groups.collect(),
        ..GroupConfig::default()
    }
}

fn overrides(settings: &ConfigMap) -> GroupOverrides {
    // Checked when they were set.
    let number = |name: &str| settings.get(name).and_then(|text| text.parse().ok());
    GroupOverrides {
        consumer_session_timeout_ms: number("consumer.session.timeout.ms"),
        consumer_heartbeat_interval_ms: number("consumer.heartbeat.interval.ms"),
        consumer_assignment_interval_ms: number("consumer.assignment.interval.ms"),
    }
}

/// The topic of groups and offsets, created as Kafka does, but with fewer copies where there are fewer brokers.
pub(in crate::broker) fn offsets_topic(broker: &BrokerConfig, image: &MetadataImage) -> NewTopic {
    let config = &broker.coordinator;
    let set = |name: &str, value: String| (name.to_owned(), Some(value));
    let mut topic = NewTopic::new(
        OFFSETS_TOPIC,
        config.offsets_topic_num_partitions,
        replicas(config.offsets_topic_replication_factor, image),
    );
    topic.configs = vec![
        set("cleanup.policy", "compact".to_owned()),
        set("compression.type", "producer".to_owned()),
        set("segment.bytes", config.offsets_topic_segment_bytes.to_string()),
    ];
    topic
}
