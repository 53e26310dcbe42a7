//! The settings of a broker about groups, transactions and telemetry, in the order of their names.
//! All belong to features that are not there yet: they are reported, and stay as they are.

use super::broker_table::broker;
use super::definition::ConfigType::{Int, List, Short};
use super::definition::Definition;
use super::definition::UpdateMode::ReadOnly;
use super::definition::Validator::{Any, AtLeast};

const GROUPS: &str = "consumer groups";
const TRANSACTIONS: &str = "transactions";
const TELEMETRY: &str = "client telemetry";

pub(super) const COORDINATOR: &[Definition] = &[
    broker!(
        "group.consumer.assignors",
        List,
        "uniform,range",
        Any,
        ReadOnly,
        "The assignors of the consumer protocol."
    )
    .only(&[], GROUPS),
    broker!(
        "group.consumer.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        ReadOnly,
        "How often a member of the consumer protocol reports."
    )
    .only(&[], GROUPS),
    broker!(
        "group.consumer.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        ReadOnly,
        "When a silent member of the consumer protocol is removed."
    )
    .only(&[], GROUPS),
    broker!(
        "group.initial.rebalance.delay.ms",
        Int,
        "3000",
        AtLeast(0),
        ReadOnly,
        "How long a new group waits for more members."
    )
    .only(&["0"], GROUPS),
    broker!(
        "group.max.session.timeout.ms",
        Int,
        "1800000",
        AtLeast(1),
        ReadOnly,
        "The longest session timeout of a classic member."
    )
    .only(&[], GROUPS),
    broker!(
        "group.max.size",
        Int,
        "2147483647",
        AtLeast(1),
        ReadOnly,
        "The largest number of members of a group."
    )
    .only(&[], GROUPS),
    broker!(
        "group.min.session.timeout.ms",
        Int,
        "6000",
        AtLeast(1),
        ReadOnly,
        "The shortest session timeout of a classic member."
    )
    .only(&[], GROUPS),
    broker!(
        "offsets.retention.minutes",
        Int,
        "10080",
        AtLeast(1),
        ReadOnly,
        "How long the offsets of an empty group are kept."
    )
    .only(&[], GROUPS),
    broker!(
        "offsets.topic.num.partitions",
        Int,
        "50",
        AtLeast(1),
        ReadOnly,
        "Partitions of the topic that holds group offsets."
    )
    .only(&[], GROUPS),
    // One copy until there are clusters; Kafka's default is 3.
    broker!(
        "offsets.topic.replication.factor",
        Short,
        "1",
        AtLeast(1),
        ReadOnly,
        "Replicas of the topic that holds group offsets."
    )
    .only(&[], GROUPS),
    broker!(
        "offsets.topic.segment.bytes",
        Int,
        "104857600",
        AtLeast(1),
        ReadOnly,
        "Segment size of the topic that holds group offsets."
    )
    .only(&[], GROUPS),
    broker!(
        "telemetry.max.bytes",
        Int,
        "1048576",
        AtLeast(1),
        ReadOnly,
        "The largest push of client metrics."
    )
    .only(&[], TELEMETRY),
    broker!(
        "transaction.max.timeout.ms",
        Int,
        "900000",
        AtLeast(1),
        ReadOnly,
        "The longest timeout of a transaction."
    )
    .only(&[], TRANSACTIONS),
    // One copy until there are clusters; Kafka's default is 2.
    broker!(
        "transaction.state.log.min.isr",
        Int,
        "1",
        AtLeast(1),
        ReadOnly,
        "min.insync.replicas of the topic that holds transactions."
    )
    .only(&[], TRANSACTIONS),
    broker!(
        "transaction.state.log.num.partitions",
        Int,
        "50",
        AtLeast(1),
        ReadOnly,
        "Partitions of the topic that holds transactions."
    )
    .only(&[], TRANSACTIONS),
    // One copy until there are clusters; Kafka's default is 3.
    broker!(
        "transaction.state.log.replication.factor",
        Short,
        "1",
        AtLeast(1),
        ReadOnly,
        "Replicas of the topic that holds transactions."
    )
    .only(&[], TRANSACTIONS),
    broker!(
        "transactional.id.expiration.ms",
        Int,
        "604800000",
        AtLeast(1),
        ReadOnly,
        "How long an unused transactional id is remembered."
    )
    .only(&[], TRANSACTIONS),
];
