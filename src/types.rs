//! The vocabulary of the engine as types: identifiers, offsets, epochs and times.
//!
//! A bare `i64` never crosses a function boundary when it means an offset, an epoch, an identifier or
//! the index of a partition; each has its own newtype here, so that two of them cannot be swapped by accident.
//! The numbers and their sentinels are Kafka's.
//!
//! Every module imports this one; it imports nothing from the crate.

mod chunk;
mod random;

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

pub use chunk::{Chunk, Stored};
pub use random::SplitMix64;

/// Declares a newtype over an integer with the derives that every identifier here has.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl From<$name> for $inner {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

number! {
    /// A broker or controller of the cluster (`node.id`).
    NodeId(i32)
}
number! {
    /// The index of a partition in its topic, from 0.
    PartitionIndex(i32)
}
number! {
    /// The position of a record in its partition. Ends are exclusive: a log end offset is the
    /// offset that the next record will get.
    Offset(i64)
}
number! {
    /// The term of a partition leader; raised by the controller at every election (KIP-101).
    LeaderEpoch(i32)
}
number! {
    /// The version of a partition's state in the controller (KIP-497); raised by every change.
    PartitionEpoch(i32)
}
number! {
    /// The incarnation of a registered broker; -1 when not known (KIP-380).
    BrokerEpoch(i64)
}
number! {
    /// Identifies an idempotent or transactional producer; -1 for none (KIP-98).
    ProducerId(i64)
}
number! {
    /// Fences an older incarnation of the same producer id; -1 for none (KIP-98).
    ProducerEpoch(i16)
}
number! {
    /// The position of a record in the stream of one producer to one partition; -1 for none. Wraps
    /// from `i32::MAX` to 0.
    Sequence(i32)
}
number! {
    /// Milliseconds since the Unix epoch, UTC; -1 for none.
    TimestampMs(i64)
}

impl NodeId {
    /// No node: a partition without a leader, a replica that is the client itself.
    pub const NONE: Self = Self(-1);
}

impl PartitionIndex {
    /// No partition: an index that no topic has.
    pub const NONE: Self = Self(-1);

    /// The indexes of a topic with `count` partitions.
    pub fn all(count: i32) -> impl DoubleEndedIterator<Item = Self> + Clone {
        (0..count).map(Self)
    }

    /// All partitions of a topic, in their order, with their indexes.
    pub fn enumerate<I: IntoIterator>(all: I) -> impl Iterator<Item = (Self, I::Item)> {
        Self::enumerate_from(Self(0), all)
    }

    /// Partitions that follow each other, with their indexes; `first` is that of the first one.
    pub fn enumerate_from<I: IntoIterator>(
        first: Self,
        some: I,
    ) -> impl Iterator<Item = (Self, I::Item)> {
        (first.0..).map(Self).zip(some)
    }

    /// How many partitions a list of all partitions of a topic has, as Kafka counts them.
    #[must_use]
    pub fn count<T>(all: &[T]) -> i32 {
        Self::at(all.len()).0
    }

    /// The index of the partition that has this place in a list of all partitions of a topic.
    #[must_use]
    pub fn at(place: usize) -> Self {
        Self(i32::try_from(place).unwrap_or(i32::MAX))
    }

    /// The place in a list of all partitions of a topic; none for a negative index.
    #[must_use]
    pub fn place(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }

    /// The indexes of a wire struct, which has them as numbers.
    #[must_use]
    pub fn list(numbers: &[i32]) -> Vec<Self> {
        numbers.iter().copied().map(Self).collect()
    }

    /// The numbers of a list, for a wire struct.
    #[must_use]
    pub fn numbers(all: &[Self]) -> Vec<i32> {
        all.iter().map(|index| index.0).collect()
    }

    /// Whether a topic with `count` partitions has it.
    #[must_use]
    pub fn is_below(self, count: i32) -> bool {
        (0..count).contains(&self.0)
    }
}

impl FromStr for PartitionIndex {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

impl Offset {
    /// The first offset of every log.
    pub const ZERO: Self = Self(0);
    /// The answer to a lookup that found nothing.
    pub const UNKNOWN: Self = Self(-1);

    /// The offset after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The offset `count` positions further on.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0 + count)
    }

    /// How many offsets there are from `start` (inclusive) to this one (exclusive); never negative.
    #[must_use]
    pub const fn since(self, start: Self) -> i64 {
        let distance = self.0 - start.0;
        if distance < 0 { 0 } else { distance }
    }
}

impl LeaderEpoch {
    /// An epoch that is not known, or that the request does not carry.
    pub const UNKNOWN: Self = Self(-1);

    /// The epoch of the next election.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl PartitionEpoch {
    /// The epoch after the next change.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl BrokerEpoch {
    /// An epoch that is not known.
    pub const UNKNOWN: Self = Self(-1);
}

impl ProducerId {
    /// A batch of a producer that is not idempotent.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// A batch of a producer that is not idempotent.
    pub const NONE: Self = Self(-1);
}

impl Sequence {
    /// A batch of a producer that is not idempotent.
    pub const NONE: Self = Self(-1);

    /// The sequence `count` records further on, with Kafka's wrap from `i32::MAX` to 0.
    #[must_use]
    pub fn plus(self, count: i32) -> Self {
        let sum = i64::from(self.0) + i64::from(count);
        let wrapped = sum.rem_euclid(i64::from(i32::MAX) + 1);
        Self(i32::try_from(wrapped).unwrap_or(i32::MAX))
    }
}

impl TimestampMs {
    /// No timestamp.
    pub const NONE: Self = Self(-1);

    /// Why no record may have this time, if it may not: Kafka's times begin in 1970, and those below
    /// are words of its protocol.
    #[must_use]
    pub fn refusal(self) -> Option<String> {
        if self.0 >= 0 {
            return None;
        }
        let time = chrono::DateTime::from_timestamp_millis(self.0).map_or_else(
            || format!("{self} ms"),
            |time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        );
        Some(format!("the timestamp {time} is before 1970, which Kafka cannot hold"))
    }

    /// The time `duration_ms` later; saturates at the end of time.
    #[must_use]
    pub const fn plus(self, duration_ms: i64) -> Self {
        Self(self.0.saturating_add(duration_ms))
    }
}

/// A 128-bit identifier as Kafka writes it: 16 bytes on the wire, 22 characters of URL-safe
/// base64 in text.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Uuid(pub [u8; 16]);

/// The identity of a topic: a new one for every creation, even under an old name (KIP-516).
pub type TopicId = Uuid;

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// No identifier: sixteen zero bytes.
    pub const ZERO: Self = Self([0; 16]);

    /// Builds a version 4 identifier from random bytes.
    #[must_use]
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// Reads the 22 characters that [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 22 {
            return None;
        }
        let mut bits: u128 = 0;
        let mut left = 128_u32;
        for character in text.bytes() {
            let value = BASE64_URL.iter().position(|&known| known == character)? as u128;
            if left >= 6 {
                bits = (bits << 6) | value;
                left -= 6;
            } else {
                bits = (bits << left) | (value >> (6 - left));
                left = 0;
            }
        }
        Some(Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for place in 0..22_u32 {
            let six = if place < 21 { bits >> (122 - place * 6) } else { bits << 4 };
            let character = BASE64_URL[(six & 0x3f) as usize] as char;
            fmt::Write::write_char(formatter, character)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// One partition of one topic, by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicPartition {
    /// The name of the topic.
    pub topic: Arc<str>,
    /// The index of the partition, from 0.
    pub partition: PartitionIndex,
}

impl TopicPartition {
    /// Names a partition; its index may still be the number of a wire struct.
    pub fn new(topic: impl Into<Arc<str>>, partition: impl Into<PartitionIndex>) -> Self {
        Self { topic: topic.into(), partition: partition.into() }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_and_places_of_partitions_agree() {
        assert!(PartitionIndex::all(3).eq([0, 1, 2].map(PartitionIndex)));
        assert_eq!((PartitionIndex::all(0).next(), PartitionIndex::all(-1).next()), (None, None));
        let numbered: Vec<_> = PartitionIndex::enumerate(["a", "b"]).collect();
        assert_eq!(numbered, [(PartitionIndex(0), "a"), (PartitionIndex(1), "b")]);
        assert_eq!(
            (PartitionIndex::at(2), PartitionIndex(2).place()),
            (PartitionIndex(2), Some(2))
        );
        assert_eq!(
            (PartitionIndex::at(usize::MAX), PartitionIndex(-1).place()),
            (PartitionIndex(i32::MAX), None)
        );
        assert_eq!(PartitionIndex::count(&["a", "b"]), 2);
        let known = [-1, 0, 1, 2].map(|index| PartitionIndex(index).is_below(2));
        assert_eq!(known, [false, true, true, false]);
    }

    #[test]
    fn a_partition_is_written_as_its_number() {
        let named = TopicPartition::new("t", 7);
        assert_eq!(named.to_string(), "t-7");
        assert_eq!(serde_json::to_string(&named).unwrap(), r#"{"topic":"t","partition":7}"#);
        assert_eq!("7".parse(), Ok(PartitionIndex(7)));
    }

    #[test]
    fn a_uuid_is_the_same_after_text_and_back() {
        for seed in 0..200_u128 {
            let bytes = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes();
            let uuid = Uuid::from_random(bytes);
            assert_eq!(Uuid::parse(&uuid.to_string()), Some(uuid));
        }
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(
            Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]).to_string(),
            "AAAAAAAAAAAAAAAAAAAAAQ"
        );
        assert_eq!(Uuid::parse("too short"), None);
    }

    #[test]
    fn a_sequence_wraps_to_zero() {
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 1).plus(3), Sequence(1));
        assert_eq!(Sequence(5).plus(3), Sequence(8));
    }
}
