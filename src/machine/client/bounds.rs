//! The bounds of a scan: what a person asks for, and the offsets they resolve to.
//!
//! A [`Bound`] is resolved once, per partition, against what the partition holds at that moment
//! ([`Extent`]); the result is plain offsets `[start, end)` that mean the same rows forever.
//!
//! Times and words are clamped to what exists: yesterday's records of a topic created today are an
//! empty range. Offsets are not: someone who names an offset expects the row to exist, so an offset
//! outside of the partition is an error (the topic was truncated, trimmed or re-created), never
//! a silently shorter result.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::types::{Offset, PartitionIndex, TimestampMs, TopicPartition, Uuid};

/// One end of a scan, as requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The first record that the partition still holds.
    Earliest,
    /// The end of what may be read now.
    Latest,
    /// The same offset in every partition.
    Offset(Offset),
    /// An offset for each partition; partitions that are not named are left out of the scan.
    Offsets(BTreeMap<PartitionIndex, Offset>),
    /// Where an earlier read stopped, by topic and partition. As a start, partitions that are not
    /// named were added since and are read from their beginning; as an end, they are left out.
    Checkpoint(BTreeMap<String, BTreeMap<PartitionIndex, Offset>>),
    /// The part of a checkpoint that concerns one topic, as a start.
    Since(BTreeMap<PartitionIndex, Offset>),
    /// The first record with this timestamp or a later one.
    Timestamp(TimestampMs),
    /// This many milliseconds before the moment at which the bound is resolved.
    Ago(u64),
    /// This many offsets before the end of each partition.
    Last(u64),
}

impl Bound {
    /// Reads what the command line accepts: `earliest`, `latest`, an offset (`1200`), the last N
    /// of each partition (`last:100`), offsets (`{"0": 17, "1": 0}`), a checkpoint (`{"orders":
    /// {"0": 17}}`), a time (RFC 3339, or a date with or without a time, taken as UTC), a duration
    /// ago (`-6h`, `-15min`).
    ///
    /// # Errors
    ///
    /// The text is none of these; the message lists them.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        match text {
            "earliest" | "beginning" | "smallest" => return Ok(Self::Earliest),
            "latest" | "end" | "now" | "largest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(offset) = text.parse::<u64>() {
            return i64::try_from(offset)
                .map(|offset| Self::Offset(Offset(offset)))
                .map_err(|error| Error::invalid(format!("offset {text}: {error}")));
        }
        if let Some(count) = text.strip_prefix("last:").and_then(|count| count.parse().ok()) {
            return Ok(Self::Last(count));
        }
        if text.starts_with('{') {
            if let Ok(checkpoint) = serde_json::from_str(text) {
                return Ok(Self::Checkpoint(checkpoint));
            }
            return serde_json::from_str(text).map(Self::Offsets).map_err(|error| {
                Error::invalid(format!(
                    "offsets {text}: {error}; pass offsets such as {{\"0\": 17}}, or a checkpoint such \
                     as {{\"orders\": {{\"0\": 17}}}}, which also reads partitions that were added since"
                ))
            });
        }
        if let Some(ago) = text.strip_prefix('-')
            && let Ok(duration) = humantime::parse_duration(ago)
        {
            return Ok(Self::Ago(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)));
        }
        if let Some(time) = parse_time(text) {
            return Ok(Self::Timestamp(TimestampMs(time.timestamp_millis())));
        }
        Err(Error::invalid(format!(
            "cannot parse bound {text:?}; use earliest, latest, an offset, last:N, \
             {{\"partition\": offset}}, a checkpoint, a time such as 2026-01-31T12:00:00Z, or a duration such \
             as -6h"
        )))
    }

    /// This bound as the start of a scan of a topic.
    ///
    /// # Errors
    ///
    /// A checkpoint that does not name the topic.
    pub fn start_in(self, topic: &str) -> Result<Self> {
        match self {
            Self::Checkpoint(all) => in_topic(all, topic).map(Self::Since),
            other => Ok(other),
        }
    }

    /// This bound as the end of a scan of a topic.
    ///
    /// # Errors
    ///
    /// A checkpoint that does not name the topic.
    pub fn end_in(self, topic: &str) -> Result<Self> {
        match self {
            Self::Checkpoint(all) => in_topic(all, topic).map(Self::Offsets),
            other => Ok(other),
        }
    }

    /// The time to look up, for bounds that need one; `now` for durations.
    #[must_use]
    pub fn timestamp(&self, now: TimestampMs) -> Option<TimestampMs> {
        match self {
            Self::Timestamp(timestamp) => Some(*timestamp),
            Self::Ago(ms) => Some(TimestampMs(now.0.saturating_sub_unsigned(*ms).max(0))),
            Self::Earliest
            | Self::Latest
            | Self::Offset(_)
            | Self::Offsets(_)
            | Self::Checkpoint(_)
            | Self::Since(_)
            | Self::Last(_) => None,
        }
    }

    /// Whether a partition is part of a scan with this bound.
    #[must_use]
    pub fn covers(&self, partition: PartitionIndex) -> bool {
        !matches!(self, Self::Offsets(offsets) if !offsets.contains_key(&partition))
    }

    /// The offset of this bound in one partition, and whether it was named as an offset.
    fn locate(
        &self,
        partition: PartitionIndex,
        extent: &Extent,
        looked_up: Option<Offset>,
    ) -> (Offset, bool) {
        match self {
            Self::Earliest | Self::Checkpoint(_) => (extent.start, false),
            Self::Latest => (extent.end, false),
            Self::Offset(offset) => (*offset, true),
            Self::Offsets(offsets) | Self::Since(offsets) => match offsets.get(&partition) {
                Some(offset) => (*offset, true),
                None => (extent.start, false),
            },
            Self::Timestamp(_) | Self::Ago(_) => (looked_up.unwrap_or(extent.end), false),
            Self::Last(count) => {
                (Offset(extent.end.0.saturating_sub_unsigned(*count).max(extent.start.0)), false)
            }
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => formatter.write_str("earliest"),
            Self::Latest => formatter.write_str("latest"),
            Self::Offset(offset) => write!(formatter, "{offset}"),
            Self::Offsets(offsets) | Self::Since(offsets) => {
                formatter.write_str(&serde_json::to_string(offsets).map_err(|_error| fmt::Error)?)
            }
            Self::Checkpoint(all) => {
                formatter.write_str(&serde_json::to_string(all).map_err(|_error| fmt::Error)?)
            }
            Self::Timestamp(timestamp) => match DateTime::from_timestamp_millis(timestamp.0) {
                Some(time) => {
                    write!(
                        formatter,
                        "{}",
                        time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
                    )
                }
                None => write!(formatter, "{timestamp} ms"),
            },
            Self::Ago(ms) => write!(
                formatter,
                "-{}",
                humantime::format_duration(std::time::Duration::from_millis(*ms))
            ),
            Self::Last(count) => write!(formatter, "last:{count}"),
        }
    }
}

fn in_topic<T>(mut all: BTreeMap<String, T>, topic: &str) -> Result<T> {
    all.remove(topic).ok_or_else(|| {
        let named: Vec<String> = all.into_keys().collect();
        Error::invalid(format!(
            "the checkpoint has offsets of {}, not of {topic}",
            named.join(", ")
        ))
    })
}

fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc));
    }
    let naive =
        ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    naive
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
        .map(|time| time.and_utc())
}

/// What a partition holds at the moment of resolving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The log start offset.
    pub start: Offset,
    /// The high watermark; the last stable offset for a reader of committed records only.
    pub end: Offset,
}

/// The rows of one partition: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first offset.
    pub start: Offset,
    /// The offset after the last.
    pub end: Offset,
}

impl Range {
    /// Whether there is no offset in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end.0 <= self.start.0
    }
}

/// The resolved bounds of a scan of one topic. Its JSON form can be kept as a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets {
    /// The topic.
    pub topic: String,
    /// Its id when the bounds were resolved; zero where the broker has no topic ids.
    #[serde(with = "uuid_text", default)]
    pub topic_id: Uuid,
    /// The range of each partition of the scan.
    pub partitions: BTreeMap<PartitionIndex, Range>,
}

impl Offsets {
    /// The number of offsets covered: an upper bound of the rows.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.partitions.values().map(|range| range.end.since(range.start)).sum()
    }

    /// The ends, as the start of a scan of whatever came after.
    #[must_use]
    pub fn checkpoint(&self) -> Bound {
        let ends = self.partitions.iter().map(|(&index, range)| (index, range.end)).collect();
        Bound::Checkpoint(BTreeMap::from([(self.topic.clone(), ends)]))
    }
}

mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::types::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<Uuid, D::Error> {
        let text = String::deserialize(source)?;
        Uuid::parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a topic id")))
    }
}

/// What to look up in a partition before it is resolved: the offsets of the bounds' timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookedUp {
    /// The offset of the start's timestamp; `None` when no record is that late.
    pub start: Option<Offset>,
    /// The offset of the end's timestamp; `None` when no record is that late.
    pub end: Option<Offset>,
}

/// A resolved range, and what had to be cut off when data loss is tolerated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The rows.
    pub range: Range,
    /// What was asked for but does not exist, for a warning.
    pub lost: Option<String>,
}

/// Resolves the bounds of one partition.
///
/// # Errors
///
/// [`Error::DataLoss`] when a named offset lies outside of the partition and `tolerate_loss` is
/// not set.
pub fn resolve(
    partition: &TopicPartition,
    (start, end): (&Bound, &Bound),
    extent: &Extent,
    looked_up: LookedUp,
    tolerate_loss: bool,
) -> Result<Resolved> {
    let mut lost = None;
    let mut place = |which: &str, bound: &Bound, found: Option<Offset>| -> Result<Offset> {
        let (offset, named) = bound.locate(partition.partition, extent, found);
        let inside = Offset(offset.0.clamp(extent.start.0, extent.end.0.max(extent.start.0)));
        if named && inside != offset {
            let detail = format!(
                "the {which} offset {offset} is outside the range that the partition holds, [{}, \
                 {}); it was trimmed, truncated or re-created; scan from earliest, or tolerate \
                 the loss with on_data_loss=\"warn\"",
                extent.start, extent.end
            );
            if !tolerate_loss {
                return Err(Error::DataLoss { partition: partition.clone(), detail });
            }
            lost = Some(detail);
        }
        Ok(inside)
    };
    let first = place("start", start, looked_up.start)?;
    let last = place("end", end, looked_up.end)?;
    let range = Range { start: first, end: Offset(last.0.max(first.0)) };
    Ok(Resolved { range, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: Extent = Extent { start: Offset(10), end: Offset(50) };

    fn check(start: &str, end: &str, looked_up: (Option<i64>, Option<i64>)) -> Option<(i64, i64)> {
        let partition = TopicPartition::new("orders", 0);
        let bounds = (&Bound::parse(start).unwrap(), &Bound::parse(end).unwrap());
        let looked_up = LookedUp { start: looked_up.0.map(Offset), end: looked_up.1.map(Offset) };
        resolve(&partition, bounds, &EXTENT, looked_up, false)
            .ok()
            .map(|resolved| (resolved.range.start.0, resolved.range.end.0))
    }

    #[test]
    fn words_and_times_are_clamped_to_what_there_is() {
        assert_eq!(check("earliest", "latest", (None, None)), Some((10, 50)));
        assert_eq!(check("last:5", "latest", (None, None)), Some((45, 50)));
        assert_eq!(check("last:500", "latest", (None, None)), Some((10, 50)));
        assert_eq!(check("-6h", "latest", (Some(20), None)), Some((20, 50)));
        assert_eq!(check("2030-01-01", "latest", (None, None)), Some((50, 50)), "past the end");
        assert_eq!(check("2020-01-01", "2021-01-01", (Some(30), Some(20))), Some((30, 30)));
    }

    #[test]
    fn a_named_offset_must_exist() {
        assert_eq!(check("10", "50", (None, None)), Some((10, 50)));
        assert_eq!(check("50", "latest", (None, None)), Some((50, 50)), "nothing new is no loss");
        assert_eq!(check("9", "latest", (None, None)), None);
        assert_eq!(check("51", "latest", (None, None)), None);
        assert_eq!(check("earliest", "51", (None, None)), None);
        assert_eq!(check(r#"{"0": 12}"#, "latest", (None, None)), Some((12, 50)));
    }

    #[test]
    fn a_checkpoint_reads_the_partitions_that_were_added_since() {
        let text = r#"{"orders":{"0":20}}"#;
        let checkpoint = Bound::parse(text).unwrap();
        assert_eq!(checkpoint.to_string(), text);
        let range = |index, start: &Bound| {
            let partition = TopicPartition::new("orders", index);
            let bounds = (start, &Bound::Latest);
            let resolved = resolve(&partition, bounds, &EXTENT, LookedUp::default(), false);
            let range = resolved.unwrap().range;
            (range.start.0, range.end.0)
        };
        let start = checkpoint.clone().start_in("orders").unwrap();
        assert!(start.covers(PartitionIndex(0)) && start.covers(PartitionIndex(1)));
        assert_eq!((range(0, &start), range(1, &start)), ((20, 50), (10, 50)));
        let end = checkpoint.clone().end_in("orders").unwrap();
        assert!(
            end.covers(PartitionIndex(0)) && !end.covers(PartitionIndex(1)),
            "nothing of it lay before the end"
        );
        let error = checkpoint.start_in("bills").unwrap_err().to_string();
        assert!(error.contains("orders, not of bills"), "{error}");
        let ranges = Bound::parse(r#"{"0": [0, 20]}"#).unwrap_err().to_string();
        assert!(ranges.contains("checkpoint"), "{ranges}");
    }

    #[test]
    fn a_tolerated_loss_is_told() {
        let partition = TopicPartition::new("orders", 0);
        let bounds = (&Bound::Offset(Offset(3)), &Bound::Latest);
        let resolved = resolve(&partition, bounds, &EXTENT, LookedUp::default(), true).unwrap();
        assert_eq!(resolved.range, Range { start: Offset(10), end: Offset(50) });
        assert!(resolved.lost.unwrap().contains("offset 3"));
    }

    #[test]
    fn bounds_are_read_and_printed() {
        for text in ["earliest", "latest", "17", "last:3", r#"{"0":5,"2":7}"#, "-6h"] {
            assert_eq!(Bound::parse(text).unwrap().to_string(), text);
        }
        let noon = Bound::parse("2026-01-31T12:00:00Z").unwrap();
        assert_eq!(noon, Bound::parse("2026-01-31 12:00").unwrap(), "naive is UTC");
        assert_eq!(noon, Bound::parse("2026-01-31T13:00:00+01:00").unwrap());
        assert_eq!(noon.to_string(), "2026-01-31T12:00:00.000Z");
        for text in ["", "yesterday", "-", "{", "1e9", "-5"] {
            assert!(Bound::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn offsets_are_the_same_after_json_and_back() {
        let offsets = Offsets {
            topic: "orders".to_owned(),
            topic_id: Uuid([3; 16]),
            partitions: BTreeMap::from([(
                PartitionIndex(0),
                Range { start: Offset(1), end: Offset(9) },
            )]),
        };
        let json = serde_json::to_string(&offsets).unwrap();
        assert_eq!(serde_json::from_str::<Offsets>(&json).unwrap(), offsets);
        assert!(json.contains(r#""partitions":{"0":{"start":1,"end":9}}"#), "{json}");
    }
}
