//! The settings of one topic, typed.

use std::sync::Arc;

use super::describe::{effective, topic_chain};
use super::{
    BrokerConfig, ConfigError, ConfigMap, LocalRetention, Scope, ThrottledReplicas, TopicTier,
    definition, tier_config,
};

/// A setting whose values are words: the enum, its parser and its text.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The value that Kafka's word stands for.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's word for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// `compression.type`.
    CompressionType {
        /// Each batch keeps its producer's codec.
        Producer = "producer",
        /// Not compressed.
        Uncompressed = "uncompressed",
        /// gzip.
        Gzip = "gzip",
        /// snappy.
        Snappy = "snappy",
        /// lz4.
        Lz4 = "lz4",
        /// zstd.
        Zstd = "zstd",
    }
}

words! {
    /// `message.timestamp.type`.
    TimestampType {
        /// The producer's time.
        CreateTime = "CreateTime",
        /// The time of the append.
        LogAppendTime = "LogAppendTime",
    }
}

words! {
    /// `durability`.
    Durability {
        /// Synced where `min.insync.replicas` is 1, replicated otherwise.
        Auto = "auto",
        /// Synced before every acknowledgement of `acks=all`.
        Fsync = "fsync",
        /// Written to disk whenever the operating system chooses.
        Os = "os",
    }
}

words! {
    /// `ottla.tier.table`.
    TierTable {
        /// None.
        None = "none",
        /// A Delta Lake table.
        Delta = "delta",
    }
}

/// `cleanup.policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments are dropped by age and size.
    pub delete: bool,
    /// The last record of every key is kept.
    pub compact: bool,
}

/// The settings of one topic that the engine acts on, each from the strongest source that sets it.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`.
    pub cleanup_policy: CleanupPolicy,
    /// `compression.gzip.level`; -1 means the codec's default.
    pub compression_gzip_level: i32,
    /// `compression.lz4.level`.
    pub compression_lz4_level: i32,
    /// `compression.type`.
    pub compression_type: CompressionType,
    /// `compression.zstd.level`.
    pub compression_zstd_level: i32,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `durability`.
    pub durability: Durability,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: i64,
    /// `flush.messages`.
    pub flush_messages: i64,
    /// `flush.ms`.
    pub flush_ms: i64,
    /// `follower.replication.throttled.replicas`.
    pub follower_throttled_replicas: ThrottledReplicas,
    /// `index.interval.bytes`.
    pub index_interval_bytes: i32,
    /// `leader.replication.throttled.replicas`.
    pub leader_throttled_replicas: ThrottledReplicas,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `max.decompressed.message.bytes`.
    pub max_decompressed_message_bytes: i32,
    /// `max.message.bytes`.
    pub max_message_bytes: i32,
    /// `message.timestamp.after.max.ms`.
    pub message_timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.type`.
    pub message_timestamp_type: TimestampType,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// `remote.storage.enable`, `remote.log.copy.disable` and `remote.log.delete.on.disable`.
    pub tier: TopicTier,
    /// `ottla.tier.table`.
    pub tier_table: TierTable,
    /// `ottla.tier.value.schema`, if it is not empty.
    pub tier_value_schema: Option<Arc<str>>,
    /// `local.retention.bytes`, `local.retention.ms`.
    pub local_retention: LocalRetention,
    /// `retention.bytes`; -1 means no limit.
    pub retention_bytes: i64,
    /// `retention.ms`; -1 means no limit.
    pub retention_ms: i64,
    /// `segment.bytes`.
    pub segment_bytes: i32,
    /// `segment.index.bytes`.
    pub segment_index_bytes: i32,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election_enable: bool,
}

impl TopicConfig {
    /// Resolves the settings of a topic: its own, then the broker's, then the defaults.
    ///
    /// # Errors
    ///
    /// A stored value that this version does not accept (CONFIG-3).
    pub fn resolve(topic: &ConfigMap, broker: &BrokerConfig) -> Result<Self, ConfigError> {
        let get = Getter { topic, broker };
        let policy = get.text("cleanup.policy")?;
        let config = Self {
            cleanup_policy: CleanupPolicy {
                delete: policy.contains("delete"),
                compact: policy.contains("compact"),
            },
            compression_gzip_level: get.number("compression.gzip.level")?,
            compression_lz4_level: get.number("compression.lz4.level")?,
            compression_zstd_level: get.number("compression.zstd.level")?,
            delete_retention_ms: get.number("delete.retention.ms")?,
            max_compaction_lag_ms: get.number("max.compaction.lag.ms")?,
            min_cleanable_dirty_ratio: get.number("min.cleanable.dirty.ratio")?,
            min_compaction_lag_ms: get.number("min.compaction.lag.ms")?,
            compression_type: get.word("compression.type", CompressionType::parse)?,
            durability: get.word("durability", Durability::parse)?,
            file_delete_delay_ms: get.number("file.delete.delay.ms")?,
            flush_messages: get.number("flush.messages")?,
            flush_ms: get.number("flush.ms")?,
            follower_throttled_replicas: get
                .word("follower.replication.throttled.replicas", ThrottledReplicas::parse)?,
            leader_throttled_replicas: get
                .word("leader.replication.throttled.replicas", ThrottledReplicas::parse)?,
            index_interval_bytes: get.number("index.interval.bytes")?,
            max_decompressed_message_bytes: get.number("max.decompressed.message.bytes")?,
            max_message_bytes: get.number("max.message.bytes")?,
            message_timestamp_after_max_ms: get.number("message.timestamp.after.max.ms")?,
            message_timestamp_before_max_ms: get.number("message.timestamp.before.max.ms")?,
            message_timestamp_type: get.word("message.timestamp.type", TimestampType::parse)?,
            min_insync_replicas: get.number("min.insync.replicas")?,
            tier: TopicTier::of(
                get.word("remote.storage.enable", parse_boolean)?,
                get.word("remote.log.copy.disable", parse_boolean)?,
                get.word("remote.log.delete.on.disable", parse_boolean)?,
            ),
            tier_table: get.word("ottla.tier.table", TierTable::parse)?,
            tier_value_schema: Some(get.text(tier_config::TIER_VALUE_SCHEMA)?)
                .filter(|text| !text.is_empty())
                .map(Arc::from),
            local_retention: LocalRetention {
                bytes: get.number("local.retention.bytes")?,
                ms: get.number("local.retention.ms")?,
            },
            retention_bytes: get.number("retention.bytes")?,
            retention_ms: get.number("retention.ms")?,
            segment_bytes: get.number("segment.bytes")?,
            segment_index_bytes: get.number("segment.index.bytes")?,
            segment_jitter_ms: get.number("segment.jitter.ms")?,
            segment_ms: get.number("segment.ms")?,
            unclean_leader_election_enable: get
                .word("unclean.leader.election.enable", parse_boolean)?,
        };
        tier_config::check_topic(&config, &broker.tier)?;
        Ok(config)
    }
}

/// Reads a checked boolean.
pub(super) fn parse_boolean(text: &str) -> Option<bool> {
    text.to_ascii_lowercase().parse().ok()
}

struct Getter<'a> {
    topic: &'a ConfigMap,
    broker: &'a BrokerConfig,
}

impl Getter<'_> {
    fn text(&self, name: &str) -> Result<String, ConfigError> {
        let definition = definition(Scope::Topic, name)?;
        let value = effective(&topic_chain(definition, self.topic, self.broker));
        let value = value.unwrap_or_default();
        definition.validate(&value)?;
        Ok(value.trim().to_owned())
    }

    fn word<T>(&self, name: &str, parse: fn(&str) -> Option<T>) -> Result<T, ConfigError> {
        let text = self.text(name)?;
        parse(&text).ok_or_else(|| unreadable(name, &text))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, ConfigError> {
        let text = self.text(name)?;
        text.parse().map_err(|_error| unreadable(name, &text))
    }
}

pub(super) fn unreadable(name: &str, text: &str) -> ConfigError {
    ConfigError::new(name, format!("invalid value {text} for configuration {name}"))
}
