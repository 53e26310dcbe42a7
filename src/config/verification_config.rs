//! The settings by which leaders verify transactions, typed.

use std::time::Duration;

use super::{BrokerConfig, ConfigError};

/// How the leader of a partition asks the transaction coordinator before a transaction begins there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerificationConfig {
    /// `transaction.partition.verification.enable`.
    pub is_enabled: bool,
    /// `add.partitions.to.txn.retry.backoff.ms`.
    pub retry_backoff: Duration,
    /// `add.partitions.to.txn.retry.backoff.max.ms`, which `request.timeout.ms` limits.
    pub retry_backoff_max: Duration,
}

impl VerificationConfig {
    /// Reads the settings of `broker`.
    pub(super) fn read(broker: &BrokerConfig) -> Result<Self, ConfigError> {
        let duration = |name: &str| Ok(Duration::from_millis(broker.number::<u64>(name)?));
        let limit = duration("request.timeout.ms")?;
        Ok(Self {
            is_enabled: broker.boolean("transaction.partition.verification.enable")?,
            retry_backoff: duration("add.partitions.to.txn.retry.backoff.ms")?,
            retry_backoff_max: duration("add.partitions.to.txn.retry.backoff.max.ms")?.min(limit),
        })
    }
}
