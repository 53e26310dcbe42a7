//! The settings of a broker for transactions, in the order of their names.

use super::broker_table::broker;
use super::definition::ConfigType::{Boolean, Int, Short};
use super::definition::Definition;
use super::definition::UpdateMode::{ClusterWide, ReadOnly};
use super::definition::Validator::{Any, AtLeast};

pub(super) const TRANSACTION: &[Definition] = &[
    broker!(
        "add.partitions.to.txn.retry.backoff.max.ms",
        Int,
        "100",
        AtLeast(0),
        ReadOnly,
        "How long the broker itself tries to add a partition to a transaction while the one before it is being ended; then the client is told to try again."
    ),
    broker!(
        "add.partitions.to.txn.retry.backoff.ms",
        Int,
        "20",
        AtLeast(1),
        ReadOnly,
        "How long the broker waits between two such tries."
    ),
    broker!(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        Int,
        "10000",
        AtLeast(1),
        ReadOnly,
        "How often transactions that have lasted too long are looked for, and aborted."
    ),
    broker!(
        "transaction.max.timeout.ms",
        Int,
        "900000",
        AtLeast(1),
        ReadOnly,
        "The longest timeout that a transaction may have."
    ),
    broker!(
        "transaction.partition.verification.enable",
        Boolean,
        "true",
        Any,
        ClusterWide,
        "Ask the transaction coordinator before the first batch of a transaction is appended to a partition."
    ),
    broker!(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        Int,
        "3600000",
        AtLeast(1),
        ReadOnly,
        "How often transactional ids that have expired are looked for, and forgotten."
    ),
    broker!(
        "transaction.state.log.min.isr",
        Int,
        "2",
        AtLeast(1),
        ReadOnly,
        "min.insync.replicas of the topic that holds transactions. Unless it is set, at most the number of its replicas."
    ),
    broker!(
        "transaction.state.log.num.partitions",
        Int,
        "50",
        AtLeast(1),
        ReadOnly,
        "The number of partitions with which the topic that holds transactions is created."
    ),
    broker!(
        "transaction.state.log.replication.factor",
        Short,
        "3",
        AtLeast(1),
        ReadOnly,
        "The number of replicas with which the topic that holds transactions is created. Unless it is set, at most the number of brokers that are there."
    ),
    broker!(
        "transaction.state.log.segment.bytes",
        Int,
        "104857600",
        AtLeast(1),
        ReadOnly,
        "The segment size with which the topic that holds transactions is created."
    ),
    broker!(
        "transactional.id.expiration.ms",
        Int,
        "604800000",
        AtLeast(1),
        ReadOnly,
        "How long a transactional id that nobody uses is remembered."
    ),
];
