//! The settings of a broker for groups and telemetry, in the order of their names. That for telemetry belongs to a
//! feature that does not exist yet: it is reported, and cannot be changed.

use super::broker_table::broker;
use super::definition::ConfigType::{Int, List, Long, Short, String};
use super::definition::Definition;
use super::definition::UpdateMode::{ClusterWide, ReadOnly};
use super::definition::Validator::{AtLeast, Check, EachOneOf};

const MIGRATION_POLICIES: [&str; 4] = ["disabled", "upgrade", "downgrade", "bidirectional"];

/// Kafka accepts the word in upper or lower case.
fn check_migration_policy(value: &str) -> Result<(), std::string::String> {
    if MIGRATION_POLICIES.contains(&value.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(format!("must be one of {}", MIGRATION_POLICIES.join(", ")))
}

pub(super) const COORDINATOR: &[Definition] = &[
    broker!(
        "group.consumer.assignment.interval.ms",
        Int,
        "1000",
        AtLeast(0),
        ClusterWide,
        "The shortest time between two assignments of a group of the consumer protocol, so that members that join together are assigned together. An embedded broker, such as ottla.Broker() in Python, uses 0 unless it is set."
    ),
    broker!(
        "group.consumer.assignors",
        List,
        "uniform,range",
        EachOneOf(&["uniform", "range"]),
        ReadOnly,
        "The assignors of the consumer protocol; a group that asks for none gets the first."
    ),
    broker!(
        "group.consumer.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        ReadOnly,
        "How often a member of the consumer protocol sends a heartbeat."
    ),
    broker!(
        "group.consumer.max.assignment.interval.ms",
        Int,
        "15000",
        AtLeast(0),
        ReadOnly,
        "The longest assignment interval that may be set for a group."
    ),
    broker!(
        "group.consumer.max.heartbeat.interval.ms",
        Int,
        "15000",
        AtLeast(1),
        ReadOnly,
        "The longest heartbeat interval that may be set for a group."
    ),
    broker!(
        "group.consumer.max.session.timeout.ms",
        Int,
        "60000",
        AtLeast(1),
        ReadOnly,
        "The longest session timeout that may be set for a group."
    ),
    broker!(
        "group.consumer.max.size",
        Int,
        "2147483647",
        AtLeast(1),
        ReadOnly,
        "The largest number of members of a group of the consumer protocol."
    ),
    broker!(
        "group.consumer.migration.policy",
        String,
        "bidirectional",
        Check(check_migration_policy),
        ReadOnly,
        "Which protocol a group may be converted to while it has members: \"disabled\", \"upgrade\" to the consumer protocol, \"downgrade\" to the classic one, or \"bidirectional\"."
    ),
    broker!(
        "group.consumer.min.assignment.interval.ms",
        Int,
        "0",
        AtLeast(0),
        ReadOnly,
        "The shortest assignment interval that may be set for a group."
    ),
    broker!(
        "group.consumer.min.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        ReadOnly,
        "The shortest heartbeat interval that may be set for a group."
    ),
    broker!(
        "group.consumer.min.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        ReadOnly,
        "The shortest session timeout that may be set for a group."
    ),
    broker!(
        "group.consumer.regex.refresh.interval.ms",
        Int,
        "600000",
        AtLeast(10000),
        ReadOnly,
        "How often the topics that match the pattern of a member are looked up again."
    ),
    broker!(
        "group.consumer.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        ReadOnly,
        "A member of the consumer protocol that sends no heartbeat for this long is removed."
    ),
    broker!(
        "group.initial.rebalance.delay.ms",
        Int,
        "3000",
        AtLeast(0),
        ReadOnly,
        "How long a new group waits for more members. An embedded broker, such as ottla.Broker() in Python, uses 0 unless it is set."
    ),
    broker!(
        "group.max.session.timeout.ms",
        Int,
        "1800000",
        AtLeast(1),
        ReadOnly,
        "The longest session timeout of a classic member."
    ),
    broker!(
        "group.max.size",
        Int,
        "2147483647",
        AtLeast(1),
        ReadOnly,
        "The largest number of members of a group."
    ),
    broker!(
        "group.min.session.timeout.ms",
        Int,
        "6000",
        AtLeast(1),
        ReadOnly,
        "The shortest session timeout of a classic member."
    ),
    broker!(
        "offset.metadata.max.bytes",
        Int,
        "4096",
        AtLeast(0),
        ReadOnly,
        "The longest metadata text that may be stored with a committed offset."
    ),
    broker!(
        "offsets.retention.check.interval.ms",
        Long,
        "600000",
        AtLeast(1),
        ReadOnly,
        "How often committed offsets are checked for expiry."
    ),
    broker!(
        "offsets.retention.minutes",
        Int,
        "10080",
        AtLeast(1),
        ReadOnly,
        "How long the offsets of an empty group are kept."
    ),
    broker!(
        "offsets.topic.num.partitions",
        Int,
        "50",
        AtLeast(1),
        ReadOnly,
        "The number of partitions with which the topic that holds group offsets is created."
    ),
    broker!(
        "offsets.topic.replication.factor",
        Short,
        "3",
        AtLeast(1),
        ReadOnly,
        "The number of replicas with which the topic that holds group offsets is created."
    ),
    broker!(
        "offsets.topic.segment.bytes",
        Int,
        "104857600",
        AtLeast(1),
        ReadOnly,
        "The segment size with which the topic that holds group offsets is created."
    ),
    broker!(
        "telemetry.max.bytes",
        Int,
        "1048576",
        AtLeast(1),
        ReadOnly,
        "The largest push of client metrics."
    )
    .idle(),
];
