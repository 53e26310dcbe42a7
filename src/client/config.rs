//! The client's settings, under Kafka's names.
//!
//! One table, `OPTIONS`, holds every name that is understood: Java's dotted names and, where
//! librdkafka calls the same thing otherwise, that one too. A name that is not in the table is an
//! error with the nearest name as a suggestion; nothing is accepted and ignored.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::client::worker_pool;
use crate::error::{Error, Result};
use crate::machine::client::backoff::Backoff;
use crate::record::Compression;

/// What a client needs to know. The defaults are Kafka's unless said otherwise.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `bootstrap.servers`: `host:port` of some brokers.
    pub bootstrap_servers: Vec<String>,
    /// `client.id`: the name that brokers log and apply quotas to.
    pub client_id: String,
    /// `request.timeout.ms`: how long one request may take.
    pub request_timeout: Duration,
    /// `default.api.timeout.ms`: how long a call with its retries may take.
    pub api_timeout: Duration,
    /// `socket.connection.setup.timeout.ms`.
    pub connect_timeout: Duration,
    /// `retry.backoff.ms` and `retry.backoff.max.ms`.
    pub backoff: Backoff,
    /// `metadata.max.age.ms`.
    pub metadata_max_age: Duration,
    /// `client.rack`: lets a consumer fetch from a replica nearby, when the brokers choose one.
    pub client_rack: String,
    /// `allow.auto.create.topics`: whether asking for a topic that does not exist may create it.
    pub allow_auto_create_topics: bool,
    /// `threads` (ours): how many threads decode, encode and compress for one reader or writer; as many
    /// as there are processors for the process when none.
    pub threads: Option<NonZeroUsize>,
    /// What concerns producers.
    pub producer: ProducerConfig,
    /// What concerns consumers and scans.
    pub consumer: ConsumerConfig,
}

/// How many acknowledgements a produced batch waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// None: sent and forgotten; offsets are not known.
    None,
    /// That of the leader.
    Leader,
    /// Those of all replicas in sync.
    #[default]
    All,
}

impl Acks {
    /// The number in a Produce request.
    #[must_use]
    pub const fn to_i16(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// The settings of a producer.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// `acks`.
    pub acks: Acks,
    /// `enable.idempotence`; on by default, off when `acks` is not `all`.
    pub idempotence: Option<bool>,
    /// `linger.ms`.
    pub linger: Duration,
    /// `batch.size`, in bytes.
    pub batch_bytes: usize,
    /// `buffer.memory`, in bytes.
    pub buffer_bytes: usize,
    /// `max.request.size`, in bytes.
    pub request_bytes_max: usize,
    /// `max.block.ms`: how long `send` waits for memory and metadata, and each step of a transaction for its coordinator.
    pub block_max: Duration,
    /// `delivery.timeout.ms`.
    pub delivery_timeout: Duration,
    /// `retries`.
    pub retries: u32,
    /// `max.in.flight.requests.per.connection`.
    pub in_flight_max: usize,
    /// `compression.type`.
    pub compression: Compression,
    /// `compression.gzip.level`, `compression.lz4.level` or `compression.zstd.level`.
    pub compression_level: Option<i32>,
    /// `transaction.timeout.ms`: how long a transaction may stay open before its coordinator aborts it.
    pub transaction_timeout: Duration,
}

/// Which records of transactions are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IsolationLevel {
    /// All.
    #[default]
    ReadUncommitted,
    /// Those of committed transactions, up to the last stable offset.
    ReadCommitted,
}

impl IsolationLevel {
    /// The number in a request.
    #[must_use]
    pub const fn to_i8(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// Where a consumer starts that has no position, or whose position does not exist any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoOffsetReset {
    /// At the log start offset.
    Earliest,
    /// At the end.
    #[default]
    Latest,
    /// Nowhere: that is an error.
    Error,
}

/// What happens when records that were asked for do not exist any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDataLoss {
    /// An [`Error::DataLoss`].
    #[default]
    Raise,
    /// A warning in the log; reading goes on with what there is.
    Warn,
}

impl OnDataLoss {
    /// Reads `raise` or `warn`.
    ///
    /// # Errors
    ///
    /// The text is neither.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "raise" | "error" => Ok(Self::Raise),
            "warn" => Ok(Self::Warn),
            other => Err(Error::invalid(format!("on_data_loss={other:?}: use raise or warn"))),
        }
    }
}

/// The settings of a consumer.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// `fetch.min.bytes`.
    pub fetch_bytes_min: usize,
    /// `fetch.max.bytes`.
    pub fetch_bytes_max: usize,
    /// `max.partition.fetch.bytes`. Larger than Kafka's 1 MiB, since rows are read by the thousands.
    pub partition_bytes_max: usize,
    /// `fetch.max.wait.ms`.
    pub fetch_wait_max: Duration,
    /// `isolation.level`.
    pub isolation_level: IsolationLevel,
    /// `auto.offset.reset`. When none, the end; the beginning for a member that stops where it has
    /// caught up, which would never read anything otherwise.
    pub auto_offset_reset: Option<AutoOffsetReset>,
    /// `queued.max.bytes` (ours): how much a consumer fetches ahead before it waits for its caller.
    pub memory_bytes: usize,
    /// What to do about positions below the log start; see [`OnDataLoss`].
    pub on_data_loss: OnDataLoss,
    /// `check.crcs`. When none, the checksums of what came over a network are compared; what an
    /// embedded broker hands out was compared by its log, once per process, in the same memory.
    pub check_crcs: Option<bool>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            client_id: "ottla".to_owned(),
            request_timeout: Duration::from_secs(30),
            api_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            backoff: Backoff::default(),
            metadata_max_age: Duration::from_secs(300),
            client_rack: String::new(),
            allow_auto_create_topics: true,
            threads: None,
            producer: ProducerConfig::default(),
            consumer: ConsumerConfig::default(),
        }
    }
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotence: None,
            linger: Duration::from_millis(5),
            batch_bytes: 16 * 1024,
            buffer_bytes: 32 * 1024 * 1024,
            request_bytes_max: 1024 * 1024,
            block_max: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            retries: i32::MAX.cast_unsigned(),
            in_flight_max: 5,
            compression: Compression::None,
            compression_level: None,
            transaction_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            fetch_bytes_min: 1,
            fetch_bytes_max: 50 * 1024 * 1024,
            partition_bytes_max: 8 * 1024 * 1024,
            fetch_wait_max: Duration::from_millis(500),
            isolation_level: IsolationLevel::ReadUncommitted,
            auto_offset_reset: None,
            memory_bytes: 64 * 1024 * 1024,
            on_data_loss: OnDataLoss::Raise,
            check_crcs: None,
        }
    }
}

impl ProducerConfig {
    /// Whether batches carry sequence numbers.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.idempotence.unwrap_or(self.acks == Acks::All)
    }

    /// Checks what contradicts each other.
    ///
    /// # Errors
    ///
    /// Names both settings and the remedy.
    pub fn check(&self) -> Result<()> {
        if self.idempotence == Some(true) && self.acks != Acks::All {
            return Err(Error::invalid("enable.idempotence=true needs acks=all"));
        }
        if self.is_idempotent() && !(1..=5).contains(&self.in_flight_max) {
            return Err(Error::invalid(
                "max.in.flight.requests.per.connection must be 1 to 5 with idempotence, because a \
                 broker remembers the last five batches",
            ));
        }
        if self.in_flight_max == 0 {
            return Err(Error::invalid("max.in.flight.requests.per.connection must be at least 1"));
        }
        if self.idempotence == Some(true) && self.retries == 0 {
            return Err(Error::invalid("enable.idempotence=true needs retries above 0"));
        }
        Ok(())
    }

    /// The settings of a transactional producer: these, checked for what transactions need.
    ///
    /// # Errors
    ///
    /// Names the setting and the remedy.
    pub fn for_transactions(&self) -> Result<Self> {
        if self.acks != Acks::All || self.idempotence == Some(false) {
            return Err(Error::invalid(
                "transactions need acks=all and enable.idempotence=true, which are the defaults",
            ));
        }
        let config = Self { idempotence: Some(true), ..self.clone() };
        config.check()?;
        Ok(config)
    }
}

/// One name of the table.
pub struct ConfigOption {
    /// Kafka's name, then other names for the same.
    pub names: &'static [&'static str],
    /// What it does, in one line.
    pub doc: &'static str,
    set: fn(&mut ClientConfig, &str) -> Result<()>,
}

impl std::fmt::Debug for ConfigOption {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ConfigOption").field("names", &self.names).finish_non_exhaustive()
    }
}

macro_rules! options {
    ($([$($name:literal),+] $doc:literal, $set:expr;)*) => {
        /// Every name that [`ClientConfig::set`] understands.
        const OPTIONS: &[ConfigOption] = &[
            $(ConfigOption { names: &[$($name),+], doc: $doc, set: $set }),*
        ];
    };
}

options! {
    ["bootstrap.servers", "metadata.broker.list"] "host:port of some brokers, separated by commas",
        |config, value| {
            config.bootstrap_servers = servers(value)?;
            Ok(())
        };
    ["client.id"] "the name that brokers log and apply quotas to",
        |config, value| { value.clone_into(&mut config.client_id); Ok(()) };
    ["client.rack"] "the rack of the client, for fetching from a replica nearby",
        |config, value| { value.clone_into(&mut config.client_rack); Ok(()) };
    ["security.protocol"] "PLAINTEXT",
        |_, value| security_protocol(value);
    ["request.timeout.ms", "socket.timeout.ms"] "how long one request may take",
        |config, value| { config.request_timeout = positive_ms(value)?; Ok(()) };
    ["default.api.timeout.ms"] "how long a call with its retries may take",
        |config, value| { config.api_timeout = positive_ms(value)?; Ok(()) };
    ["socket.connection.setup.timeout.ms"] "how long connecting may take",
        |config, value| { config.connect_timeout = positive_ms(value)?; Ok(()) };
    ["retry.backoff.ms"] "the wait before the first retry",
        |config, value| { config.backoff.initial_ms = number(value)?; Ok(()) };
    ["retry.backoff.max.ms"] "the longest wait between retries",
        |config, value| { config.backoff.max_ms = number(value)?; Ok(()) };
    ["metadata.max.age.ms", "topic.metadata.refresh.interval.ms"] "how old metadata may become",
        |config, value| { config.metadata_max_age = positive_ms(value)?; Ok(()) };
    ["allow.auto.create.topics"] "whether asking for an unknown topic may create it",
        |config, value| { config.allow_auto_create_topics = boolean(value)?; Ok(()) };
    ["threads"] "how many threads decode, encode and compress for one reader or writer",
        |config, value| { config.threads = Some(worker_pool::checked(number(value)?)?); Ok(()) };
    ["acks", "request.required.acks"] "0, 1 or all",
        |config, value| {
            config.producer.acks = match value {
                "all" | "-1" => Acks::All,
                "1" => Acks::Leader,
                "0" => Acks::None,
                _ => return Err(Error::invalid("use all, 1 or 0")),
            };
            Ok(())
        };
    ["enable.idempotence"] "whether a retry can never write a record twice",
        |config, value| { config.producer.idempotence = Some(boolean(value)?); Ok(()) };
    ["linger.ms", "queue.buffering.max.ms"] "how long a batch waits for more records",
        |config, value| { config.producer.linger = ms(value)?; Ok(()) };
    ["batch.size"] "the size of a batch in bytes",
        |config, value| { config.producer.batch_bytes = number(value)?; Ok(()) };
    ["buffer.memory"] "how many bytes of records may wait to be sent",
        |config, value| { config.producer.buffer_bytes = at_least_one(value)?; Ok(()) };
    ["max.request.size", "message.max.bytes"] "the size of a produce request in bytes",
        |config, value| { config.producer.request_bytes_max = at_least_one(value)?; Ok(()) };
    ["max.block.ms"] "how long send waits for memory and metadata, and a step of a transaction for its coordinator",
        |config, value| { config.producer.block_max = ms(value)?; Ok(()) };
    ["delivery.timeout.ms", "message.timeout.ms"] "how long a record may take to be acknowledged",
        |config, value| { config.producer.delivery_timeout = positive_ms(value)?; Ok(()) };
    ["retries", "message.send.max.retries"] "how often a batch is sent again",
        |config, value| { config.producer.retries = number(value)?; Ok(()) };
    ["transaction.timeout.ms"] "how long a transaction may stay open before its coordinator aborts it",
        |config, value| { config.producer.transaction_timeout = positive_ms(value)?; Ok(()) };
    ["max.in.flight.requests.per.connection", "max.in.flight"] "how many produce requests are on their way to one broker",
        |config, value| { config.producer.in_flight_max = at_least_one(value)?; Ok(()) };
    ["compression.type", "compression.codec"] "none, gzip, snappy, lz4 or zstd",
        |config, value| {
            config.producer.compression = Compression::from_name(value)
                .ok_or_else(|| Error::invalid("use none, gzip, snappy, lz4 or zstd"))?;
            Ok(())
        };
    ["compression.level", "compression.zstd.level", "compression.gzip.level", "compression.lz4.level"]
        "how hard the codec tries",
        |config, value| { config.producer.compression_level = Some(number(value)?); Ok(()) };
    ["fetch.min.bytes"] "how many bytes a broker waits for before it answers a fetch",
        |config, value| { config.consumer.fetch_bytes_min = number(value)?; Ok(()) };
    ["fetch.max.bytes"] "the size of a fetch response in bytes",
        |config, value| { config.consumer.fetch_bytes_max = at_least_one(value)?; Ok(()) };
    ["max.partition.fetch.bytes", "fetch.message.max.bytes"] "the bytes of one partition in a fetch response",
        |config, value| { config.consumer.partition_bytes_max = at_least_one(value)?; Ok(()) };
    ["fetch.max.wait.ms", "fetch.wait.max.ms"] "how long a broker may wait before it answers a fetch",
        |config, value| { config.consumer.fetch_wait_max = ms(value)?; Ok(()) };
    ["isolation.level"] "read_uncommitted or read_committed",
        |config, value| {
            config.consumer.isolation_level = match value {
                "read_uncommitted" => IsolationLevel::ReadUncommitted,
                "read_committed" => IsolationLevel::ReadCommitted,
                _ => return Err(Error::invalid("use read_uncommitted or read_committed")),
            };
            Ok(())
        };
    ["check.crcs"] "whether checksums are verified; by default, all but those from an embedded broker, whose log has verified them",
        |config, value| { config.consumer.check_crcs = Some(boolean(value)?); Ok(()) };
    ["auto.offset.reset"] "earliest, latest or none",
        |config, value| {
            config.consumer.auto_offset_reset = Some(match value {
                "earliest" | "smallest" | "beginning" => AutoOffsetReset::Earliest,
                "latest" | "largest" | "end" => AutoOffsetReset::Latest,
                "error" | "none" => AutoOffsetReset::Error,
                _ => return Err(Error::invalid("use earliest, latest or none")),
            });
            Ok(())
        };
    ["queued.max.bytes"] "how many bytes a consumer fetches ahead",
        |config, value| { config.consumer.memory_bytes = at_least_one(value)?; Ok(()) };
    ["queued.max.messages.kbytes"] "how many kilobytes a consumer fetches ahead",
        |config, value| {
            config.consumer.memory_bytes = at_least_one(value)?.saturating_mul(1024);
            Ok(())
        };
}

impl ClientConfig {
    /// The defaults, for brokers given as `host:port[,host:port…]`.
    ///
    /// # Errors
    ///
    /// An address is not `host:port`.
    pub fn for_servers(bootstrap_servers: &str) -> Result<Self> {
        Ok(Self { bootstrap_servers: servers(bootstrap_servers)?, ..Self::default() })
    }

    /// Sets one option by Kafka's (or librdkafka's) name.
    ///
    /// # Errors
    ///
    /// The name is not known (with the nearest one), or the value is not acceptable.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let known = OPTIONS.iter().find(|option| option.names.contains(&name));
        let Some(option) = known else {
            if name == "transactional.id" {
                let text = "transactional.id is not a setting of a client: it belongs to one producer, which \
                            `transactional` makes";
                return Err(Error::invalid(text));
            }
            if name.starts_with("sasl.") || name.starts_with("ssl.") {
                return Err(Error::invalid(format!("{name}: {NO_SECURITY}")));
            }
            let nearest = nearest(name, OPTIONS.iter().flat_map(|option| option.names).copied())
                .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
            return Err(Error::invalid(format!("unknown client option {name:?}{nearest}")));
        };
        (option.set)(self, value.trim())
            .map_err(|error| Error::invalid(format!("{name}={value}: {error}")))
    }

    /// Sets options by name.
    ///
    /// # Errors
    ///
    /// As [`Self::set`].
    pub fn set_all<'a>(
        &mut self,
        options: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        options.into_iter().try_for_each(|(name, value)| self.set(name, value))
    }
}

const NO_SECURITY: &str =
    "TLS and SASL are not supported yet; this version connects with security.protocol=PLAINTEXT";

/// Splits and checks a list of `host:port`.
fn servers(list: &str) -> Result<Vec<String>> {
    let servers: Vec<String> = list
        .split(',')
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .map(|server| {
            if let Some((scheme, address)) = server.split_once("://") {
                return Err(Error::invalid(format!(
                    "server {server:?} is a URL; brokers are named without {scheme}://, for \
                     example {address}"
                )));
            }
            let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
            if host.is_empty()
                || host.contains(['/', '@', '?', ' '])
                || port.parse::<u16>().is_err()
            {
                return Err(Error::invalid(format!("server {server:?} is not HOST:PORT")));
            }
            Ok(server.to_owned())
        })
        .collect::<Result<_>>()?;
    if servers.is_empty() {
        return Err(Error::invalid("it is empty; pass at least one HOST:PORT"));
    }
    Ok(servers)
}

fn security_protocol(value: &str) -> Result<()> {
    if value.eq_ignore_ascii_case("PLAINTEXT") {
        return Ok(());
    }
    Err(Error::invalid(NO_SECURITY))
}

fn number<N: std::str::FromStr>(value: &str) -> Result<N> {
    value.parse().map_err(|_error: N::Err| Error::invalid("not a number in the accepted range"))
}

fn at_least_one(value: &str) -> Result<usize> {
    match number(value)? {
        0 => Err(Error::invalid("must be at least 1")),
        value => Ok(value),
    }
}

/// Milliseconds; Java accepts whole ones, librdkafka fractions for linger.
fn ms(value: &str) -> Result<Duration> {
    let ms: f64 = number(value)?;
    Duration::try_from_secs_f64(ms / 1000.0)
        .map_err(|_error| Error::invalid("not a number of milliseconds"))
}

fn positive_ms(value: &str) -> Result<Duration> {
    match ms(value)? {
        Duration::ZERO => Err(Error::invalid("must be above 0")),
        value => Ok(value),
    }
}

fn boolean(value: &str) -> Result<bool> {
    match value {
        "true" | "True" => Ok(true),
        "false" | "False" => Ok(false),
        _ => Err(Error::invalid("use true or false")),
    }
}

/// The known name with the fewest edits, if they are few.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = name.len() / 3 + 1;
    known
        .into_iter()
        .map(|known| (edits(name, known), known))
        .filter(|&(edits, _)| edits <= limit)
        .min()
        .map(|(_, known)| known)
}

/// The Levenshtein distance.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, one) in left.chars().enumerate() {
        let mut diagonal = index;
        let mut previous = index + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&right) {
            let replaced = diagonal + usize::from(one != *other);
            diagonal = *cell;
            *cell = replaced.min(previous + 1).min(diagonal + 1);
            previous = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_option_is_an_error_with_the_nearest_name() {
        let error = ClientConfig::default().set("linger.m", "5").unwrap_err().to_string();
        assert!(error.contains("did you mean linger.ms?"), "{error}");
        let error = ClientConfig::default().set("frobnicate", "5").unwrap_err().to_string();
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn names_of_java_and_librdkafka_are_understood() {
        let mut config = ClientConfig::for_servers("a:1, [::1]:2").unwrap();
        config
            .set_all([
                ("queue.buffering.max.ms", "0.5"),
                ("compression.codec", "zstd"),
                ("request.required.acks", "-1"),
                ("auto.offset.reset", "smallest"),
                ("security.protocol", "plaintext"),
                ("threads", "2"),
            ])
            .unwrap();
        assert_eq!(config.bootstrap_servers, ["a:1", "[::1]:2"]);
        assert_eq!(config.producer.linger, Duration::from_micros(500));
        assert_eq!(config.producer.compression, Compression::Zstd);
        assert_eq!(config.threads, NonZeroUsize::new(2));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let mut config = ClientConfig::default();
        for (name, value) in [
            ("security.protocol", "SASL_SSL"),
            ("acks", "2"),
            ("batch.size", "-1"),
            ("linger.ms", "soon"),
            ("bootstrap.servers", "nowhere"),
            ("bootstrap.servers", ""),
            ("threads", "0"),
            ("threads", "257"),
            ("threads", "many"),
        ] {
            let error = config.set(name, value).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        config.set_all([("acks", "1"), ("enable.idempotence", "true")]).unwrap();
        assert!(config.producer.check().is_err());
    }

    #[test]
    fn no_name_is_in_the_table_twice() {
        let mut names: Vec<_> = OPTIONS.iter().flat_map(|option| option.names).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
