//! The settings of one broker, typed.

use super::describe::{broker_chain, effective};
use super::listeners::parse_listeners;
use super::topic_config::{parse_boolean, unreadable};
use super::{
    ConfigError, ConfigMap, Listener, ListenerAddress, QuorumVoter, Scope, definition, validate,
    without_effect,
};

/// The settings of one broker that the engine acts on, and the maps from which they were resolved.
///
/// Immutable: a change at run time creates a new one with [`BrokerConfig::with_dynamic`].
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// The listeners to open: `listeners`, without those of `controller.listener.names` where this node is the only
    /// voter. Those of clients come first.
    pub listeners: Vec<Listener>,
    /// Those of `controller.listener.names`.
    pub controller_listeners: Vec<ListenerAddress>,
    /// `auto.create.topics.enable`.
    pub auto_create_topics_enable: bool,
    /// `broker.rack`.
    pub broker_rack: Option<String>,
    /// The settings of the group coordinator.
    pub coordinator: super::CoordinatorConfig,
    /// `log.cleaner.*`.
    pub cleaner: CleanerConfig,
    /// The settings for transactions.
    pub transactions: super::TransactionsConfig,
    /// The settings of a node among others.
    pub cluster: ClusterConfig,
    /// `connections.max.idle.ms`.
    pub connections_max_idle_ms: i64,
    /// `default.replication.factor`.
    pub default_replication_factor: i32,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
    /// `fetch.max.bytes`.
    pub fetch_max_bytes: i32,
    /// `log.dirs`, or else `log.dir`.
    pub log_dir: Option<String>,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub recovery_point_checkpoint_interval_ms: i32,
    /// `log.flush.scheduler.interval.ms`.
    pub log_flush_scheduler_interval_ms: i64,
    /// `log.flush.start.offset.checkpoint.interval.ms`.
    pub log_start_checkpoint_interval_ms: i32,
    /// `log.retention.check.interval.ms`.
    pub log_retention_check_interval_ms: i64,
    /// `max.connections`.
    pub max_connections: i32,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: i32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub max_incremental_fetch_session_cache_slots: i32,
    /// `max.request.partition.size.limit`.
    pub max_request_partition_size_limit: i32,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub metadata_log_max_record_bytes_between_snapshots: i64,
    /// `metadata.log.segment.bytes`.
    pub metadata_log_segment_bytes: i32,
    /// `node.id`, or else `broker.id`.
    pub node_id: i32,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i32,
    /// `queued.max.request.bytes`; `None` is no limit.
    pub queued_max_request_bytes: Option<u64>,
    /// `controller.quorum.bootstrap.servers`, without this node: whose cluster it joins.
    pub bootstrap_servers: Vec<String>,
    /// `controller.quorum.auto.join.enable`.
    pub auto_join: bool,
    /// `controller.quorum.voters`; empty for a node that stores the metadata alone, or joins others.
    pub quorum_voters: Vec<QuorumVoter>,
    /// The settings of replication.
    pub replication: super::ReplicationConfig,
    /// Where the tier is.
    pub tier: super::TierConfig,
    /// How transactions are verified.
    pub verification: super::VerificationConfig,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub high_watermark_checkpoint_interval_ms: i64,
    /// `socket.listen.backlog.size`.
    pub socket_listen_backlog_size: i32,
    /// `socket.receive.buffer.bytes`; `None` leaves it to the operating system.
    pub socket_receive_buffer_bytes: Option<u32>,
    /// `socket.request.max.bytes`.
    pub socket_request_max_bytes: i32,
    /// `socket.send.buffer.bytes`; `None` leaves it to the operating system.
    pub socket_send_buffer_bytes: Option<u32>,
    /// Settings given at startup.
    pub(super) fixed: ConfigMap,
    /// Settings made at run time for all brokers.
    pub(super) dynamic_default: ConfigMap,
    /// Settings made at run time for this broker.
    pub(super) dynamic_broker: ConfigMap,
}

/// The settings of the cleaner of compacted topics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CleanerConfig {
    /// `log.cleaner.enable`.
    pub enable: bool,
    /// `log.cleaner.threads`.
    pub threads: u16,
    /// `log.cleaner.backoff.ms`.
    pub backoff_ms: i64,
    /// `log.cleaner.dedupe.buffer.size`.
    pub dedupe_buffer_size: u64,
    /// `log.cleaner.io.buffer.load.factor`.
    pub io_buffer_load_factor: f64,
    /// `log.cleaner.io.buffer.size`.
    pub io_buffer_size: u32,
    /// `log.cleaner.io.max.bytes.per.second`.
    pub io_max_bytes_per_second: f64,
}

/// The settings of a node among others: when it counts as gone, and who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `broker.session.timeout.ms`.
    pub session_timeout_ms: u32,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: u32,
    /// `initial.broker.registration.timeout.ms`.
    pub registration_timeout_ms: u32,
    /// `controlled.shutdown.enable`.
    pub controlled_shutdown_enable: bool,
    /// `auto.leader.rebalance.enable`.
    pub leader_rebalance_enable: bool,
    /// `leader.imbalance.check.interval.seconds`.
    pub imbalance_check_seconds: u64,
}

impl BrokerConfig {
    /// Resolves the settings that a broker is started with.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a name or a value that is not acceptable.
    pub fn resolve(fixed: &ConfigMap) -> Result<Self, ConfigError> {
        for (name, value) in fixed {
            validate(Scope::Broker, name, value)?;
        }
        Self::build(fixed.clone(), ConfigMap::new(), ConfigMap::new())
    }

    /// The same broker with its data in `directory`, whatever the settings said. Any name will do: it is not read
    /// as a list.
    #[must_use]
    pub fn in_directory(mut self, directory: &str) -> Self {
        self.fixed.insert("log.dirs".to_owned(), directory.to_owned());
        self.log_dir = Some(directory.to_owned());
        self
    }

    /// The same broker after a change at run time: `dynamic_default` for all brokers,
    /// `dynamic_broker` for this one.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a stored value that this version does not accept.
    pub fn with_dynamic(
        &self,
        dynamic_default: &ConfigMap,
        dynamic_broker: &ConfigMap,
    ) -> Result<Self, ConfigError> {
        Self::build(self.fixed.clone(), dynamic_default.clone(), dynamic_broker.clone())
    }

    /// The settings given at startup.
    #[must_use]
    pub fn fixed(&self) -> &ConfigMap {
        &self.fixed
    }

    /// The effective value of any broker setting, as text; `None` is null.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a name that is not in the table.
    pub fn value(&self, name: &str) -> Result<Option<String>, ConfigError> {
        Ok(effective(&broker_chain(definition(Scope::Broker, name)?, self)))
    }

    /// An otherwise empty configuration, on which [`BrokerConfig::value`] can be called.
    fn unresolved(fixed: ConfigMap, dynamic_default: ConfigMap, dynamic_broker: ConfigMap) -> Self {
        Self {
            listeners: Vec::new(),
            controller_listeners: Vec::new(),
            auto_create_topics_enable: false,
            broker_rack: None,
            coordinator: super::CoordinatorConfig::default(),
            transactions: super::TransactionsConfig::default(),
            cleaner: CleanerConfig::default(),
            cluster: ClusterConfig::default(),
            connections_max_idle_ms: 0,
            default_replication_factor: 0,
            delete_topic_enable: false,
            fetch_max_bytes: 0,
            log_dir: None,
            recovery_point_checkpoint_interval_ms: 0,
            log_flush_scheduler_interval_ms: 0,
            log_start_checkpoint_interval_ms: 0,
            log_retention_check_interval_ms: 0,
            max_connections: 0,
            max_connections_per_ip: 0,
            max_incremental_fetch_session_cache_slots: 0,
            max_request_partition_size_limit: 0,
            metadata_log_max_record_bytes_between_snapshots: 0,
            metadata_log_segment_bytes: 0,
            node_id: 0,
            num_partitions: 0,
            producer_id_expiration_ms: 0,
            queued_max_request_bytes: None,
            bootstrap_servers: Vec::new(),
            auto_join: false,
            quorum_voters: Vec::new(),
            replication: super::ReplicationConfig::default(),
            tier: super::TierConfig::default(),
            verification: super::VerificationConfig::default(),
            high_watermark_checkpoint_interval_ms: 0,
            socket_listen_backlog_size: 0,
            socket_receive_buffer_bytes: None,
            socket_request_max_bytes: 0,
            socket_send_buffer_bytes: None,
            fixed,
            dynamic_default,
            dynamic_broker,
        }
    }

    fn build(
        fixed: ConfigMap,
        dynamic_default: ConfigMap,
        dynamic_broker: ConfigMap,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::unresolved(fixed, dynamic_default, dynamic_broker);
        config.settle()?;
        config.auto_create_topics_enable = config.boolean("auto.create.topics.enable")?;
        config.broker_rack = config.checked("broker.rack")?.filter(|rack| !rack.is_empty());
        config.cleaner = CleanerConfig {
            enable: config.boolean("log.cleaner.enable")?,
            threads: config.number("log.cleaner.threads")?,
            backoff_ms: config.number("log.cleaner.backoff.ms")?,
            dedupe_buffer_size: config.number("log.cleaner.dedupe.buffer.size")?,
            io_buffer_load_factor: config.number("log.cleaner.io.buffer.load.factor")?,
            io_buffer_size: config.number("log.cleaner.io.buffer.size")?,
            io_max_bytes_per_second: config.number("log.cleaner.io.max.bytes.per.second")?,
        };
        config.cluster = ClusterConfig {
            session_timeout_ms: config.number("broker.session.timeout.ms")?,
            heartbeat_interval_ms: config.number("broker.heartbeat.interval.ms")?,
            registration_timeout_ms: config.number("initial.broker.registration.timeout.ms")?,
            controlled_shutdown_enable: config.boolean("controlled.shutdown.enable")?,
            leader_rebalance_enable: config.boolean("auto.leader.rebalance.enable")?,
            imbalance_check_seconds: config.number("leader.imbalance.check.interval.seconds")?,
        };
        config.coordinator = super::CoordinatorConfig::read(&config)?;
        config.transactions = super::TransactionsConfig::read(&config)?;
        config.connections_max_idle_ms = config.number("connections.max.idle.ms")?;
        config.default_replication_factor = config.number("default.replication.factor")?;
        config.delete_topic_enable = config.boolean("delete.topic.enable")?;
        config.fetch_max_bytes = config.number("fetch.max.bytes")?;
        config.recovery_point_checkpoint_interval_ms =
            config.number("log.flush.offset.checkpoint.interval.ms")?;
        config.log_flush_scheduler_interval_ms =
            config.number("log.flush.scheduler.interval.ms")?;
        config.log_start_checkpoint_interval_ms =
            config.number("log.flush.start.offset.checkpoint.interval.ms")?;
        config.log_retention_check_interval_ms =
            config.number("log.retention.check.interval.ms")?;
        config.max_connections = config.number("max.connections")?;
        config.max_connections_per_ip = config.number("max.connections.per.ip")?;
        config.max_incremental_fetch_session_cache_slots =
            config.number("max.incremental.fetch.session.cache.slots")?;
        config.max_request_partition_size_limit =
            config.number("max.request.partition.size.limit")?;
        config.metadata_log_max_record_bytes_between_snapshots =
            config.number("metadata.log.max.record.bytes.between.snapshots")?;
        config.metadata_log_segment_bytes = config.number("metadata.log.segment.bytes")?;
        config.num_partitions = config.number("num.partitions")?;
        config.producer_id_expiration_ms = config.number("producer.id.expiration.ms")?;
        config.queued_max_request_bytes = config.limit("queued.max.request.bytes")?;
        config.replication = super::ReplicationConfig::read(&config)?;
        config.tier = super::TierConfig::read(&config)?;
        config.verification = super::VerificationConfig::read(&config)?;
        config.high_watermark_checkpoint_interval_ms =
            config.number("replica.high.watermark.checkpoint.interval.ms")?;
        config.socket_listen_backlog_size = config.number("socket.listen.backlog.size")?;
        config.socket_receive_buffer_bytes = config.limit("socket.receive.buffer.bytes")?;
        config.socket_request_max_bytes = config.number("socket.request.max.bytes")?;
        config.socket_send_buffer_bytes = config.limit("socket.send.buffer.bytes")?;
        // What topics inherit must be valid too, or creating the first topic would fail.
        super::TopicConfig::resolve(&ConfigMap::new(), &config)?;
        Ok(config)
    }

    pub(super) fn checked(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let value = self.value(name)?;
        if let Some(value) = &value {
            validate(Scope::Broker, name, value)?;
        }
        Ok(value.map(|value| value.trim().to_owned()))
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, ConfigError> {
        let text = self.checked(name)?.unwrap_or_default();
        text.parse().map_err(|_error| unreadable(name, &text))
    }

    /// A number that has no default of its own.
    pub(super) fn number_if_set<T: std::str::FromStr>(
        &self,
        name: &str,
    ) -> Result<Option<T>, ConfigError> {
        self.fixed().contains_key(name).then(|| self.number(name)).transpose()
    }

    /// A size; -1 means no limit.
    fn limit<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ConfigError> {
        let text = self.checked(name)?.unwrap_or_default();
        if text == "-1" {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_error| unreadable(name, &text))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<bool, ConfigError> {
        let text = self.checked(name)?.unwrap_or_default();
        parse_boolean(&text).ok_or_else(|| unreadable(name, &text))
    }

    pub(super) fn listener_list(&self, name: &str) -> Result<Vec<ListenerAddress>, ConfigError> {
        self.checked(name)?.map_or_else(|| Ok(Vec::new()), |value| parse_listeners(name, &value))
    }

    /// Those of the settings given at startup or at run time that are accepted without effect.
    #[must_use]
    pub fn without_effect(&self) -> Vec<&str> {
        let maps = [&self.fixed, &self.dynamic_default, &self.dynamic_broker];
        let given = maps.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
        without_effect(Scope::Broker, given)
    }
}

impl Default for BrokerConfig {
    /// Every setting at its default.
    #[expect(clippy::expect_used, reason = "a test resolves the defaults of the table")]
    fn default() -> Self {
        Self::resolve(&ConfigMap::new()).expect("the defaults of the table are valid")
    }
}
