//! The settings of replication, typed.

use super::{BrokerConfig, ConfigError};

/// The settings that leaders and followers act on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationConfig {
    /// The listener by which brokers reach each other: `inter.broker.listener.name`, or else the one that is named after
    /// `security.inter.broker.protocol`, or else the first.
    pub inter_broker_listener: String,
    /// `replica.fetch.backoff.ms`.
    pub fetch_backoff_ms: i32,
    /// `replica.fetch.max.bytes`.
    pub fetch_max_bytes: i32,
    /// `replica.fetch.min.bytes`.
    pub fetch_min_bytes: i32,
    /// `replica.fetch.response.max.bytes`.
    pub fetch_response_max_bytes: i32,
    /// `replica.fetch.wait.max.ms`.
    pub fetch_wait_max_ms: i32,
    /// `replica.lag.time.max.ms`.
    pub lag_time_max_ms: i64,
    /// `leader.replication.throttled.rate`, in bytes per second.
    pub leader_throttled_rate: i64,
    /// `follower.replication.throttled.rate`, in bytes per second.
    pub follower_throttled_rate: i64,
    /// `replication.quota.window.num`.
    pub quota_windows: u32,
    /// `replication.quota.window.size.seconds`.
    pub quota_window_seconds: u32,
    /// Whether `replica.selector.class` sends consumers to replicas in their rack (KIP-392).
    pub is_rack_aware: bool,
}

impl ReplicationConfig {
    /// Reads the settings of `broker`, whose listeners are settled.
    pub(super) fn read(broker: &BrokerConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            inter_broker_listener: inter_broker_listener(broker)?,
            fetch_backoff_ms: broker.number("replica.fetch.backoff.ms")?,
            fetch_max_bytes: broker.number("replica.fetch.max.bytes")?,
            fetch_min_bytes: broker.number("replica.fetch.min.bytes")?,
            fetch_response_max_bytes: broker.number("replica.fetch.response.max.bytes")?,
            fetch_wait_max_ms: broker.number("replica.fetch.wait.max.ms")?,
            is_rack_aware: broker.value("replica.selector.class")?.is_some(),
            lag_time_max_ms: broker.number("replica.lag.time.max.ms")?,
            leader_throttled_rate: broker.number("leader.replication.throttled.rate")?,
            follower_throttled_rate: broker.number("follower.replication.throttled.rate")?,
            quota_windows: broker.number("replication.quota.window.num")?,
            quota_window_seconds: broker.number("replication.quota.window.size.seconds")?,
        })
    }
}

fn inter_broker_listener(broker: &BrokerConfig) -> Result<String, ConfigError> {
    if let Some(name) = broker.value("inter.broker.listener.name")? {
        return Ok(name.to_ascii_uppercase());
    }
    let protocol = broker.value("security.inter.broker.protocol")?.unwrap_or_default();
    let mut names = broker.listeners.iter().map(|listener| &listener.bind.name);
    let named = names.clone().find(|name| **name == protocol).or_else(|| names.next());
    Ok(named.cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigMap;

    #[test]
    fn brokers_reach_each_other_by_one_listener() {
        let check = |listeners: &str, named: Option<&str>, expected: &str| {
            let mut given: ConfigMap = [
                ("listeners".to_owned(), listeners.to_owned()),
                (
                    "listener.security.protocol.map".to_owned(),
                    "PLAINTEXT:PLAINTEXT,A:PLAINTEXT,B:PLAINTEXT".to_owned(),
                ),
            ]
            .into();
            given.extend(named.map(|name| ("inter.broker.listener.name".to_owned(), name.into())));
            let broker = BrokerConfig::resolve(&given).unwrap();
            assert_eq!(broker.replication.inter_broker_listener, expected, "{listeners} {named:?}");
        };
        check("A://localhost:1,PLAINTEXT://localhost:2", None, "PLAINTEXT");
        check("A://localhost:1,B://localhost:2", None, "A");
        check("A://localhost:1,B://localhost:2", Some("b"), "B");
    }
}
