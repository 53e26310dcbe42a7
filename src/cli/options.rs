//! Options that several commands have.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Failure;
use crate::client::{Client, ClientConfig, IsolationLevel};
use crate::config::parse_properties;
use crate::error::{Error, Result};

/// How to reach the cluster.
#[derive(Clone, Debug, Args)]
pub(super) struct Connection {
    /// host:port of some brokers, separated by commas.
    #[arg(
        long = "bootstrap-server",
        short = 'b',
        env = "OTTLA_BOOTSTRAP_SERVER",
        default_value = "localhost:9092",
        value_name = "HOST:PORT"
    )]
    pub(super) bootstrap_server: String,
    /// A client setting by Kafka's name, for example -X compression.type=zstd.
    #[arg(short = 'X', long = "client-config", value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
    /// A file of client settings.
    #[arg(long = "command-config", value_name = "FILE")]
    settings_file: Option<PathBuf>,
}

impl Connection {
    /// The client's settings.
    pub(super) fn config(&self) -> Result<ClientConfig> {
        let mut config = ClientConfig::for_servers(&self.bootstrap_server)?;
        "ottla-cli".clone_into(&mut config.client_id);
        // Somebody is waiting for the command, so it reports an error sooner than a service would.
        config.api_timeout = std::time::Duration::from_secs(15);
        // Nobody wants to see what will be taken back; unlike for Kafka's tools, that is to be asked for.
        config.consumer.isolation_level = IsolationLevel::ReadCommitted;
        if let Some(file) = &self.settings_file {
            let text = read_text(file)?;
            let settings = parse_properties(&text)
                .map_err(|error| Error::invalid(format!("{}: {error}", file.display())))?;
            for (name, value) in &settings {
                config.set(name, value)?;
            }
        }
        for (name, value) in &self.settings {
            config.set(name, value)?;
        }
        Ok(config)
    }

    pub(super) fn client(&self) -> Result<Client> {
        Client::connect(self.config()?)
    }
}

/// Reads a small text file.
pub(super) fn read_text(file: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|error| Error::io("read", file, error))
}

/// How results other than records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Splits `key=value`.
pub(super) fn key_value(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("use KEY=VALUE".to_owned()),
    }
}

/// A topic, given with Kafka's `--topic` or as a plain argument.
#[derive(Clone, Debug, Args)]
pub(super) struct TopicName {
    /// The topic.
    #[arg(value_name = "TOPIC", required_unless_present = "topic")]
    positional: Option<String>,
    /// The topic.
    #[arg(long, value_name = "TOPIC", conflicts_with = "positional")]
    topic: Option<String>,
}

impl TopicName {
    pub(super) fn get(&self) -> std::result::Result<&str, Failure> {
        let given = self.topic.as_deref().or(self.positional.as_deref());
        given.ok_or_else(|| Failure::Usage("name a topic".to_owned()))
    }
}

/// Several topics.
#[derive(Clone, Debug, Args)]
pub(super) struct TopicNames {
    /// The topics.
    #[arg(value_name = "TOPIC")]
    positional: Vec<String>,
    /// A topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
}

impl TopicNames {
    pub(super) fn get(&self) -> Vec<&str> {
        self.positional.iter().chain(&self.topic).map(String::as_str).collect()
    }
}

/// Pairs as a map; the last value of a name counts.
pub(super) fn to_map(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}
