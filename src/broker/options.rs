//! The options that a broker is started with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The options that a broker is started with.
///
/// The settings are Kafka's, by Kafka's names, as text; [`Broker::start`](super::Broker::start)
/// checks them against the one table in [`crate::config`] and refuses what it does not know. The
/// two fields next to them are what an embedding program sets most often.
#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    /// Where the broker keeps its data; created when missing. `None` means a temporary directory
    /// that is removed when the broker closes, with `durability=os`.
    pub data_dir: Option<PathBuf>,
    /// Kafka's `listeners`, for example `PLAINTEXT://localhost:9092`. `None` uses the setting
    /// `listeners` or, when that is not set either, any free port of the loopback interface.
    pub listeners: Option<String>,
    /// Broker settings by Kafka's names (`log.retention.hours`, `auto.create.topics.enable` …),
    /// as they would be written in a `server.properties` file.
    pub properties: BTreeMap<String, String>,
    /// Whether the broker is a standalone program, as with `ottla broker start`. Otherwise it is
    /// embedded in its user's process, and `group.initial.rebalance.delay.ms` and
    /// `group.consumer.assignment.interval.ms` are 0 unless they are set: a notebook or a test is
    /// usually a group's only member, and should not wait for others.
    pub standalone: bool,
    /// How long the start may take. When it has not come to its end by then, it closes what it
    /// opened, and fails. `None`: as long as `initial.broker.registration.timeout.ms` allows.
    pub start_timeout: Option<Duration>,
}

impl BrokerOptions {
    /// A broker in a temporary directory, on a free port of the loopback interface.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// A broker on a data directory, on a free port of the loopback interface.
    pub fn in_directory(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: Some(data_dir.into()), ..Self::default() }
    }

    /// These options with the setting `name`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }
}
