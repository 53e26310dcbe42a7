//! The settings for transactions, typed.

use super::{BrokerConfig, ConfigError};

const REPLICATION_FACTOR: &str = "transaction.state.log.replication.factor";
const MIN_ISR: &str = "transaction.state.log.min.isr";

/// The settings for transactions that the engine acts on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionsConfig {
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_interval_ms: i32,
    /// `transaction.max.timeout.ms`.
    pub timeout_ms_max: i32,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiration_interval_ms: i32,
    /// `transaction.state.log.min.isr`, if it is set.
    pub log_min_isr: Option<i32>,
    /// `transaction.state.log.num.partitions`.
    pub log_num_partitions: i32,
    /// `transaction.state.log.replication.factor`, if it is set.
    pub log_replication_factor: Option<i16>,
    /// `transaction.state.log.segment.bytes`.
    pub log_segment_bytes: i32,
    /// `transactional.id.expiration.ms`.
    pub id_expiration_ms: i32,
}

impl TransactionsConfig {
    /// Reads the settings of `broker`.
    pub(super) fn read(broker: &BrokerConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            abort_interval_ms: broker
                .number("transaction.abort.timed.out.transaction.cleanup.interval.ms")?,
            timeout_ms_max: broker.number("transaction.max.timeout.ms")?,
            expiration_interval_ms: broker
                .number("transaction.remove.expired.transaction.cleanup.interval.ms")?,
            log_min_isr: broker.number_if_set(MIN_ISR)?,
            log_num_partitions: broker.number("transaction.state.log.num.partitions")?,
            log_replication_factor: broker.number_if_set(REPLICATION_FACTOR)?,
            log_segment_bytes: broker.number("transaction.state.log.segment.bytes")?,
            id_expiration_ms: broker.number("transactional.id.expiration.ms")?,
        })
    }
}
