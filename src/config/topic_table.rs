//! The settings of a topic, in the order of their names.
//!
//! Apache Kafka 4.4's list is complete; `durability` is ottla's own. A test compares the names,
//! types, defaults and limits with what Kafka 4.4 reports (`kafka-configs --describe --all`).

use super::definition::ConfigType::{Boolean, Double, Int, List, Long, String};
use super::definition::Validator::{
    Any, AnyOf, AtLeast, Between, Check, Fraction, MinusOneOrBetween, OneOf,
};
use super::definition::{Definition, Synonym};
use super::throttled::ThrottledReplicas;
use super::tier_config;

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// What `compression.type` accepts.
pub(super) const COMPRESSION_TYPES: &[&str] =
    &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
/// What `durability` accepts.
pub(super) const DURABILITIES: &[&str] = &["auto", "fsync", "os"];

const fn same(name: &'static str) -> Synonym {
    Synonym { name, factor: 1 }
}

macro_rules! topic {
    ($name:literal, $kind:ident, $default:literal, $validator:expr, [$($synonym:expr),*], $doc:literal) => {
        Definition::topic($name, $kind, $default, $validator, &[$($synonym),*], $doc)
    };
}

pub(super) const TOPIC: &[Definition] = &[
    topic!(
        "cleanup.policy",
        List,
        "delete",
        AnyOf(&["compact", "delete"]),
        [same("log.cleanup.policy")],
        "What happens to old segments: \"delete\" drops them by age and size, \"compact\" keeps the last record of every key; if neither is set, nothing is dropped."
    ),
    topic!(
        "compression.gzip.level",
        Int,
        "-1",
        MinusOneOrBetween(1, 9),
        [same("compression.gzip.level")],
        "The compression level when the broker compresses with gzip; -1 for the codec's default."
    ),
    topic!(
        "compression.lz4.level",
        Int,
        "9",
        Between(1, 17),
        [same("compression.lz4.level")],
        "The compression level when the broker compresses with lz4."
    ),
    topic!(
        "compression.type",
        String,
        "producer",
        OneOf(COMPRESSION_TYPES),
        [same("compression.type")],
        "The codec in which batches are stored. \"producer\" keeps each batch as it was sent."
    ),
    topic!(
        "compression.zstd.level",
        Int,
        "3",
        Between(-131_072, 22),
        [same("compression.zstd.level")],
        "The compression level when the broker compresses with zstd."
    ),
    topic!(
        "delete.retention.ms",
        Long,
        "86400000",
        AtLeast(0),
        [same("log.cleaner.delete.retention.ms")],
        "How long a compacted topic keeps the tombstone of a deleted key."
    ),
    topic!(
        "durability",
        String,
        "auto",
        OneOf(DURABILITIES),
        [same("durability")],
        "When an acks=all record counts as stored: \"fsync\" once it is synced to disk, \"os\" once the operating system has it, \"auto\" once it is synced where min.insync.replicas is 1, and once it is replicated otherwise. Ottla's own setting."
    ),
    topic!(
        "errors.deadletterqueue.group.enable",
        Boolean,
        "false",
        Any,
        [],
        "Let share groups write records that they gave up to this topic."
    )
    .idle(),
    topic!(
        "file.delete.delay.ms",
        Long,
        "60000",
        AtLeast(0),
        [same("log.segment.delete.delay.ms")],
        "How long the files of a deleted segment are kept before they are removed."
    ),
    topic!(
        "flush.messages",
        Long,
        "9223372036854775807",
        AtLeast(1),
        [same("log.flush.interval.messages")],
        "Sync the log to disk after this many records; under durability=os, since each acknowledged record is synced otherwise."
    ),
    topic!(
        "flush.ms",
        Long,
        "9223372036854775807",
        AtLeast(0),
        [same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")],
        "Sync the log to disk after this time; under durability=os, since each acknowledged record is synced otherwise."
    ),
    topic!(
        "follower.replication.throttled.replicas",
        List,
        "",
        Check(ThrottledReplicas::check),
        [],
        "Replicas that fetch at the rate of follower.replication.throttled.rate while they are not in sync, as partition:broker pairs or \"*\"."
    ),
    topic!(
        "index.interval.bytes",
        Int,
        "4096",
        AtLeast(0),
        [same("log.index.interval.bytes")],
        "How many bytes of log there are between two entries of the offset index."
    ),
    Definition {
        default: None,
        ..topic!(
            "internal.segment.bytes",
            Int,
            "",
            Any,
            [],
            "The size of a segment in tests of Kafka itself; use segment.bytes."
        )
    }
    .only(&[], "segments as small as those of Kafka's own tests"),
    topic!(
        "leader.replication.throttled.replicas",
        List,
        "",
        Check(ThrottledReplicas::check),
        [],
        "Leaders that serve followers that are not in sync at the rate of leader.replication.throttled.rate, as partition:broker pairs or \"*\"."
    ),
    topic!(
        "local.retention.bytes",
        Long,
        "-2",
        AtLeast(-2),
        [same("log.local.retention.bytes")],
        "How many bytes are kept on the local disk after they were tiered; -2 follows retention.bytes."
    ),
    topic!(
        "local.retention.ms",
        Long,
        "-2",
        AtLeast(-2),
        [same("log.local.retention.ms")],
        "How long segments are kept on the local disk after they were tiered; -2 follows retention.ms."
    ),
    topic!(
        "max.compaction.lag.ms",
        Long,
        "9223372036854775807",
        AtLeast(1),
        [same("log.cleaner.max.compaction.lag.ms")],
        "The longest time that a record may wait for compaction."
    ),
    topic!(
        "max.decompressed.message.bytes",
        Int,
        "2147483639",
        Between(1, 2_147_483_639),
        [same("max.decompressed.message.bytes")],
        "The largest record that is accepted in a compressed batch, by its size before compression."
    ),
    topic!(
        "max.message.bytes",
        Int,
        "1048588",
        AtLeast(0),
        [same("message.max.bytes")],
        "The largest record batch that the topic accepts, after compression."
    ),
    topic!(
        "message.timestamp.after.max.ms",
        Long,
        "3600000",
        AtLeast(0),
        [same("log.message.timestamp.after.max.ms")],
        "How far in the future the timestamp of a record may be; not checked with LogAppendTime."
    ),
    topic!(
        "message.timestamp.before.max.ms",
        Long,
        "9223372036854775807",
        AtLeast(0),
        [same("log.message.timestamp.before.max.ms")],
        "How far in the past the timestamp of a record may be; not checked with LogAppendTime."
    ),
    topic!(
        "message.timestamp.type",
        String,
        "CreateTime",
        OneOf(&["CreateTime", "LogAppendTime"]),
        [same("log.message.timestamp.type")],
        "Whether a record keeps its producer's timestamp or gets the time at which it is appended."
    ),
    topic!(
        "min.cleanable.dirty.ratio",
        Double,
        "0.5",
        Fraction(0.0, 1.0),
        [same("log.cleaner.min.cleanable.ratio")],
        "The fraction of a log that must be uncompacted before the cleaner compacts it."
    ),
    topic!(
        "min.compaction.lag.ms",
        Long,
        "0",
        AtLeast(0),
        [same("log.cleaner.min.compaction.lag.ms")],
        "The shortest time that a record is protected from compaction."
    ),
    topic!(
        "min.insync.replicas",
        Int,
        "1",
        AtLeast(1),
        [same("min.insync.replicas")],
        "How many replicas must be in sync for an acks=all record to be accepted."
    ),
    topic!(
        "ottla.tier.table",
        String,
        "none",
        OneOf(&["none", "delta"]),
        [],
        "Which table the files of the topic in the tier are: \"delta\" for a Delta Lake table, \"none\". Ottla's own setting."
    ),
    topic!(
        "ottla.tier.value.schema",
        String,
        "",
        Check(tier_config::check_value_schema),
        [],
        "Which typed columns the files of the topic in the tier have beside the values, as JSON: a \"format\" (\"json\", \"avro\" or \"protobuf\") with          its \"columns\" or its \"schema\". Empty for none. Ottla's own setting."
    ),
    topic!(
        "preallocate",
        Boolean,
        "false",
        Any,
        [same("log.preallocate")],
        "Reserve the full size of a segment file when it is created."
    )
    .idle(),
    topic!(
        "remote.copy.lag.bytes",
        Long,
        "-1",
        AtLeast(-1),
        [same("log.remote.copy.lag.bytes")],
        "How many bytes of closed segments may wait to be tiered."
    )
    .idle(),
    topic!(
        "remote.copy.lag.ms",
        Long,
        "0",
        AtLeast(-1),
        [same("log.remote.copy.lag.ms")],
        "How long a closed segment may wait to be tiered."
    )
    .idle(),
    topic!(
        "remote.log.copy.disable",
        Boolean,
        "false",
        Any,
        [],
        "Stop copying segments to the tier; what is already there stays readable."
    ),
    topic!(
        "remote.log.delete.on.disable",
        Boolean,
        "false",
        Any,
        [],
        "Whether what is in the tier may be removed, so that remote.storage.enable can be turned off."
    ),
    topic!(
        "remote.storage.enable",
        Boolean,
        "false",
        Any,
        [],
        "Keep closed segments in the tier, as Parquet; local.retention.* says how long they stay on the local disk as well."
    ),
    topic!(
        "retention.bytes",
        Long,
        "-1",
        AtLeast(-1),
        [same("log.retention.bytes")],
        "The size above which a partition drops its oldest segments; -1 for no limit."
    ),
    topic!(
        "retention.ms",
        Long,
        "604800000",
        AtLeast(-1),
        [
            same("log.retention.ms"),
            Synonym { name: "log.retention.minutes", factor: MINUTE_MS },
            Synonym { name: "log.retention.hours", factor: HOUR_MS }
        ],
        "The age after which a partition drops its oldest segments; -1 for no limit."
    ),
    topic!(
        "segment.bytes",
        Int,
        "1073741824",
        AtLeast(1_048_576),
        [same("log.segment.bytes")],
        "The size at which a segment is closed and a new one begun."
    ),
    topic!(
        "segment.index.bytes",
        Int,
        "10485760",
        AtLeast(4),
        [same("log.index.size.max.bytes")],
        "The largest size of a segment's offset index; a full index closes the segment."
    ),
    topic!(
        "segment.jitter.ms",
        Long,
        "0",
        AtLeast(0),
        [same("log.roll.jitter.ms"), Synonym { name: "log.roll.jitter.hours", factor: HOUR_MS }],
        "The most by which segment.ms is randomly shortened, so that segments do not all close at the same time."
    ),
    topic!(
        "segment.ms",
        Long,
        "604800000",
        AtLeast(1),
        [same("log.roll.ms"), Synonym { name: "log.roll.hours", factor: HOUR_MS }],
        "The age at which a segment is closed even if it is not full."
    ),
    topic!(
        "unclean.leader.election.enable",
        Boolean,
        "false",
        Any,
        [same("unclean.leader.election.enable")],
        "Let a replica that is not in sync become leader when no other is alive. Acknowledged records may be lost."
    ),
];
