//! The settings of the coordinator of transactions, from the configuration of the broker, and its topic.

use super::TRANSACTIONS_TOPIC;
use crate::broker::change::Change;
use crate::broker::coordinator::replicas;
use crate::config::BrokerConfig;
use crate::machine::controller::NewTopic;
use crate::machine::metadata::{MetadataImage, TRANSACTION_FEATURE};
use crate::machine::transaction::TransactionConfig;

/// How many of them must be in sync, unless that is set or there are fewer.
const IN_SYNC: i32 = 2;

/// What a shard has before it is told its settings, which is the first that it is told.
pub(super) const UNKNOWN: TransactionConfig = TransactionConfig {
    version: 0,
    timeout_ms_max: 0,
    abort_interval_ms: i64::MAX,
    expiration_ms: i64::MAX,
    expiration_interval_ms: i64::MAX,
};

/// The settings that the shards obey.
pub(super) fn transaction_config(
    broker: &BrokerConfig,
    image: &MetadataImage,
) -> TransactionConfig {
    let config = &broker.transactions;
    TransactionConfig {
        version: image.feature(TRANSACTION_FEATURE),
        timeout_ms_max: config.timeout_ms_max,
        abort_interval_ms: config.abort_interval_ms.into(),
        expiration_ms: config.id_expiration_ms.into(),
        expiration_interval_ms: config.expiration_interval_ms.into(),
    }
}

/// Whether the cluster has agreed on another version of transactions.
pub(super) fn has_new_version(world: Option<&TransactionConfig>, change: &Change<'_>) -> bool {
    let version = change.image.feature(TRANSACTION_FEATURE);
    world.is_some_and(|config| config.version != version)
}

/// The topic of transactions, created as Kafka does, but with fewer copies where there are fewer brokers.
pub(in crate::broker) fn transactions_topic(
    broker: &BrokerConfig,
    image: &MetadataImage,
) -> NewTopic {
    let config = &broker.transactions;
    let replicas = replicas(config.log_replication_factor, image);
    let in_sync = config.log_min_isr.unwrap_or(i32::from(replicas).min(IN_SYNC));
    let set = |name: &str, value: String| (name.to_owned(), Some(value));
    let mut topic = NewTopic::new(TRANSACTIONS_TOPIC, config.log_num_partitions, replicas);
    topic.configs = vec![
        set("unclean.leader.election.enable", "false".to_owned()),
        set("compression.type", "uncompressed".to_owned()),
        set("cleanup.policy", "compact".to_owned()),
        set("min.insync.replicas", in_sync.to_string()),
        set("segment.bytes", config.log_segment_bytes.to_string()),
    ];
    topic
}
