//! The settings of a broker for its log, in the order of their names: mostly the defaults that
//! topics inherit.

use super::broker_table::broker;
use super::definition::ConfigType::{Boolean, Double, Int, List, Long, String};
use super::definition::UpdateMode::{ClusterWide, ReadOnly};
use super::definition::Validator::{Any, AnyOf, AtLeast, Between, Check, Fraction, OneOf};
use super::definition::{Definition, split_list};

pub(super) fn one_directory(value: &str) -> Result<(), std::string::String> {
    match split_list(value).count() {
        1 => Ok(()),
        0 => Err("must name a directory".to_owned()),
        count => Err(format!("names {count} directories; ottla keeps its log in one")),
    }
}

pub(super) const LOG: &[Definition] = &[
    broker!(
        "log.cleaner.backoff.ms",
        Long,
        "15000",
        AtLeast(0),
        ClusterWide,
        "How long the cleaner sleeps when no compacted log is dirty enough."
    ),
    broker!(
        "log.cleaner.dedupe.buffer.size",
        Long,
        "134217728",
        AtLeast(1_048_576),
        ClusterWide,
        "The most memory for the keys of the logs that are being cleaned, over all cleaner threads. With more memory, one round can clean more of a log."
    ),
    broker!(
        "log.cleaner.delete.retention.ms",
        Long,
        "86400000",
        AtLeast(0),
        ClusterWide,
        "Default of delete.retention.ms of topics."
    ),
    broker!(
        "log.cleaner.enable",
        Boolean,
        "true",
        Any,
        ReadOnly,
        "Run the cleaner of compacted topics."
    ),
    broker!(
        "log.cleaner.io.buffer.load.factor",
        Double,
        "0.9",
        Fraction(0.01, 0.95),
        ClusterWide,
        "How full the memory for keys may get. The fuller it is, the longer a lookup takes."
    ),
    broker!(
        "log.cleaner.io.buffer.size",
        Int,
        "524288",
        AtLeast(0),
        ClusterWide,
        "How much the cleaner buffers before it writes, over all cleaner threads."
    ),
    broker!(
        "log.cleaner.io.max.bytes.per.second",
        Double,
        "1.7976931348623157E308",
        Fraction(1.0, f64::MAX),
        ClusterWide,
        "The most bytes per second that all cleaner threads together read and write."
    ),
    broker!(
        "log.cleaner.max.compaction.lag.ms",
        Long,
        "9223372036854775807",
        AtLeast(1),
        ClusterWide,
        "Default of max.compaction.lag.ms of topics."
    ),
    broker!(
        "log.cleaner.min.cleanable.ratio",
        Double,
        "0.5",
        Fraction(0.0, 1.0),
        ClusterWide,
        "Default of min.cleanable.dirty.ratio of topics."
    ),
    broker!(
        "log.cleaner.min.compaction.lag.ms",
        Long,
        "0",
        AtLeast(0),
        ClusterWide,
        "Default of min.compaction.lag.ms of topics."
    ),
    broker!(
        "log.cleaner.threads",
        Int,
        "1",
        Between(1, 64),
        ClusterWide,
        "The number of logs that are cleaned at the same time."
    ),
    broker!(
        "log.cleanup.policy",
        List,
        "delete",
        AnyOf(&["compact", "delete"]),
        ClusterWide,
        "Default of cleanup.policy of topics."
    ),
    broker!(
        "log.dirs",
        List,
        null,
        Check(one_directory),
        ReadOnly,
        "The directory that holds the log."
    ),
    broker!(
        "log.flush.interval.messages",
        Long,
        "9223372036854775807",
        AtLeast(1),
        ClusterWide,
        "Default of flush.messages of topics."
    ),
    broker!(
        "log.flush.interval.ms",
        Long,
        null,
        AtLeast(0),
        ClusterWide,
        "Default of flush.ms of topics."
    ),
    broker!(
        "log.flush.offset.checkpoint.interval.ms",
        Int,
        "60000",
        AtLeast(1),
        ReadOnly,
        "How often the offsets from which recovery would start are saved to disk."
    ),
    broker!(
        "log.flush.scheduler.interval.ms",
        Long,
        "9223372036854775807",
        AtLeast(0),
        ReadOnly,
        "How often it is checked whether a flush is due; at least once a second."
    ),
    broker!(
        "log.flush.start.offset.checkpoint.interval.ms",
        Int,
        "60000",
        AtLeast(1),
        ReadOnly,
        "How often the log start offsets are saved to disk."
    ),
    broker!(
        "log.index.interval.bytes",
        Int,
        "4096",
        AtLeast(0),
        ClusterWide,
        "Default of index.interval.bytes of topics."
    ),
    broker!(
        "log.index.size.max.bytes",
        Int,
        "10485760",
        AtLeast(4),
        ClusterWide,
        "Default of segment.index.bytes of topics."
    ),
    broker!(
        "log.local.retention.bytes",
        Long,
        "-2",
        AtLeast(-2),
        ClusterWide,
        "Default of local.retention.bytes of topics."
    ),
    broker!(
        "log.local.retention.ms",
        Long,
        "-2",
        AtLeast(-2),
        ClusterWide,
        "Default of local.retention.ms of topics."
    ),
    broker!(
        "log.message.timestamp.after.max.ms",
        Long,
        "3600000",
        AtLeast(0),
        ClusterWide,
        "Default of message.timestamp.after.max.ms of topics."
    ),
    broker!(
        "log.message.timestamp.before.max.ms",
        Long,
        "9223372036854775807",
        AtLeast(0),
        ClusterWide,
        "Default of message.timestamp.before.max.ms of topics."
    ),
    broker!(
        "log.message.timestamp.type",
        String,
        "CreateTime",
        OneOf(&["CreateTime", "LogAppendTime"]),
        ClusterWide,
        "Default of message.timestamp.type of topics."
    ),
    broker!(
        "log.preallocate",
        Boolean,
        "false",
        Any,
        ClusterWide,
        "Default of preallocate of topics."
    )
    .idle(),
    broker!(
        "log.retention.bytes",
        Long,
        "-1",
        AtLeast(-1),
        ClusterWide,
        "Default of retention.bytes of topics."
    ),
    broker!(
        "log.retention.check.interval.ms",
        Long,
        "300000",
        AtLeast(1),
        ReadOnly,
        "How often segments are checked against retention."
    ),
    broker!(
        "log.retention.hours",
        Int,
        "168",
        AtLeast(-1),
        ReadOnly,
        "Default of retention.ms of topics, in hours; log.retention.minutes and log.retention.ms override it."
    ),
    broker!(
        "log.retention.minutes",
        Int,
        null,
        AtLeast(-1),
        ReadOnly,
        "Default of retention.ms of topics, in minutes; log.retention.ms overrides it."
    ),
    broker!(
        "log.retention.ms",
        Long,
        null,
        AtLeast(-1),
        ClusterWide,
        "Default of retention.ms of topics."
    ),
    broker!(
        "log.roll.hours",
        Int,
        "168",
        AtLeast(1),
        ReadOnly,
        "Default of segment.ms of topics, in hours; log.roll.ms overrides it."
    ),
    broker!(
        "log.roll.jitter.hours",
        Int,
        "0",
        AtLeast(0),
        ReadOnly,
        "Default of segment.jitter.ms of topics, in hours; log.roll.jitter.ms overrides it."
    ),
    broker!(
        "log.roll.jitter.ms",
        Long,
        null,
        AtLeast(0),
        ClusterWide,
        "Default of segment.jitter.ms of topics."
    ),
    broker!("log.roll.ms", Long, null, AtLeast(1), ClusterWide, "Default of segment.ms of topics."),
    broker!(
        "log.segment.bytes",
        Int,
        "1073741824",
        AtLeast(1_048_576),
        ClusterWide,
        "Default of segment.bytes of topics."
    ),
    broker!(
        "log.segment.delete.delay.ms",
        Long,
        "60000",
        AtLeast(0),
        ClusterWide,
        "Default of file.delete.delay.ms of topics."
    ),
];
