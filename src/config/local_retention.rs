//! How much of what the tier has stays on the local disk as well, by Kafka's rules.

use super::{ConfigError, TopicConfig};

/// As long, or as much, as is kept altogether.
const AS_THE_WHOLE: i64 = -2;
const NO_LIMIT: i64 = -1;

/// `local.retention.bytes` and `local.retention.ms`, as they are set: -2 means the limit of the whole, -1 none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRetention {
    /// `local.retention.bytes`.
    pub bytes: i64,
    /// `local.retention.ms`.
    pub ms: i64,
}

impl LocalRetention {
    /// The limit in bytes, with that of the whole; -1 for none.
    #[must_use]
    pub fn bytes_of(self, retention_bytes: i64) -> i64 {
        limit(self.bytes, retention_bytes)
    }

    /// The limit in milliseconds, with that of the whole; -1 for none.
    #[must_use]
    pub fn ms_of(self, retention_ms: i64) -> i64 {
        limit(self.ms, retention_ms)
    }
}

/// Not above that of the whole, whatever a default of the broker says.
fn limit(local: i64, whole: i64) -> i64 {
    match (local, whole) {
        (AS_THE_WHOLE, _) => whole,
        (local, ..=NO_LIMIT) => local,
        (..=NO_LIMIT, whole) => whole,
        (local, whole) => local.min(whole),
    }
}

/// Checks that a topic with a tier keeps no more here than altogether. Not part of [`TopicConfig::resolve`]: a default that
/// changes later is no reason to stop serving the topic.
///
/// # Errors
///
/// A local limit is above that of the whole; or it is another one, though nothing is copied to the tier.
pub fn check_local_retention(topic: &TopicConfig) -> Result<(), ConfigError> {
    if !topic.tier.is_enabled() {
        return Ok(());
    }
    let LocalRetention { bytes, ms } = topic.local_retention;
    let limits = [
        ("local.retention.bytes", bytes, "retention.bytes", topic.retention_bytes),
        ("local.retention.ms", ms, "retention.ms", topic.retention_ms),
    ];
    for (name, local, of_whole, whole) in limits {
        if local == AS_THE_WHOLE || local == whole {
            continue;
        }
        if !topic.tier.copies() {
            let text = format!(
                "When `remote.log.copy.disable` is set to true, the `{name}` and `{of_whole}` must be set to the identical value because there will be no more logs copied to the remote storage."
            );
            return Err(ConfigError::new(name, text));
        }
        let why = match (local, whole) {
            (_, ..=NO_LIMIT) => continue,
            (NO_LIMIT, _) => format!("Value must not be -1 as {of_whole} value is set as {whole}."),
            _ if local > whole => {
                format!("Value must not be more than {of_whole} property value: {whole}")
            }
            _ => continue,
        };
        let text = format!("Invalid value {local} for configuration {name}: {why}");
        return Err(ConfigError::new(name, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{BrokerConfig, ConfigMap, TopicConfig, TopicTier};
    use super::*;

    #[test]
    fn the_local_limit_is_never_above_that_of_the_whole() {
        let local = LocalRetention { bytes: -2, ms: 500 };
        assert_eq!((local.bytes_of(100), local.bytes_of(-1)), (100, -1));
        assert_eq!((local.ms_of(100), local.ms_of(1000), local.ms_of(-1)), (100, 500, 500));
        let none = LocalRetention { bytes: -1, ms: -1 };
        assert_eq!((none.bytes_of(100), none.ms_of(-1)), (100, -1));
    }

    fn check(settings: &[(&str, &str)], tier: TopicTier, expected: Result<(), &str>) {
        let map: ConfigMap = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut topic = TopicConfig::resolve(&map, &BrokerConfig::default()).unwrap();
        topic.tier = tier;
        let found = check_local_retention(&topic).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{settings:?}");
    }

    #[test]
    fn what_kafka_refuses_is_refused_in_its_words() {
        let copied = TopicTier::Copied;
        check(&[("local.retention.ms", "9999999999")], TopicTier::None, Ok(()));
        check(&[("local.retention.ms", "1000"), ("local.retention.bytes", "5")], copied, Ok(()));
        check(&[("retention.ms", "-1"), ("local.retention.ms", "-1")], copied, Ok(()));
        check(
            &[("local.retention.ms", "-1")],
            copied,
            Err(
                "Invalid value -1 for configuration local.retention.ms: Value must not be -1 as retention.ms value is set as 604800000.",
            ),
        );
        check(
            &[("retention.bytes", "100"), ("local.retention.bytes", "200")],
            copied,
            Err(
                "Invalid value 200 for configuration local.retention.bytes: Value must not be more than retention.bytes property value: 100",
            ),
        );
        check(
            &[("retention.ms", "1000"), ("local.retention.ms", "500")],
            TopicTier::ReadOnly,
            Err(
                "When `remote.log.copy.disable` is set to true, the `local.retention.ms` and `retention.ms` must be set to the identical value because there will be no more logs copied to the remote storage.",
            ),
        );
        check(
            &[("retention.ms", "1000"), ("local.retention.ms", "1000")],
            TopicTier::ReadOnly,
            Ok(()),
        );
    }
}
