//! What consumers say inside the classic protocol, as far as the coordinator must read it, and
//! the assignments that it writes for them in a consumer group.
//!
//! ```text
//! subscription  version i16 │ topics [string] │ user data bytes │ v1: owned [topic, [i32]]
//!               │ v2: generation i32 │ v3: rack string
//! assignment    version i16 │ partitions [topic, [i32]] │ user data bytes
//! ```
//!
//! The bytes come from clients: nothing is trusted, and nothing is allocated before its bytes are
//! there.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::PartitionIndex;

/// The newest version of both.
const VERSION_MAX: i16 = 3;

/// Partitions of one topic, by name.
pub(super) type NamedIndexes = (Arc<str>, Vec<PartitionIndex>);

/// What a consumer subscribes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) topics: Vec<Arc<str>>,
    /// What it owns; empty when the version cannot say.
    pub(super) owned: Vec<NamedIndexes>,
    pub(super) rack: Option<Arc<str>>,
}

/// The topics of an encoded subscription (any version of `ConsumerProtocolSubscription`: version,
/// topics, and more after them). `None` when it is something else.
pub(super) fn subscribed_topics(metadata: &[u8]) -> Option<Vec<&str>> {
    let mut reader = Reader(metadata);
    reader.version()?;
    reader.topics()
}

/// Reads a subscription.
pub(super) fn subscription(metadata: &[u8]) -> Option<Subscription> {
    let mut reader = Reader(metadata);
    let version = reader.version()?;
    let topics = reader.topics()?.into_iter().map(Arc::from).collect();
    reader.skip_bytes()?;
    let owned = if version >= 1 { reader.partitions()? } else { Vec::new() };
    if version >= 2 {
        reader.i32()?;
    }
    let rack = if version >= 3 { reader.string_or("")? } else { "" };
    Some(Subscription { topics, owned, rack: (!rack.is_empty()).then(|| rack.into()) })
}

/// Reads an assignment; empty bytes mean no partitions.
pub(super) fn assignment(bytes: &[u8]) -> Option<Vec<NamedIndexes>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut reader = Reader(bytes);
    reader.version()?;
    reader.partitions()
}

/// Writes an assignment for a member that sent that subscription, in the version that it used.
pub(super) fn write_assignment(partitions: &[NamedIndexes], subscription: &[u8]) -> Bytes {
    let version = Reader(subscription).version().unwrap_or(0).min(VERSION_MAX);
    let mut bytes = BytesMut::new();
    bytes.put_i16(version);
    bytes.put_i32(length(partitions.len()));
    for (topic, indexes) in partitions {
        // A topic's name has at most 249 bytes.
        bytes.put_i16(i16::try_from(topic.len()).unwrap_or(i16::MAX));
        bytes.put_slice(topic.as_bytes());
        bytes.put_i32(length(indexes.len()));
        for &index in indexes {
            bytes.put_i32(index.0);
        }
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

fn length(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn i16(&mut self) -> Option<i16> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i16::from_be_bytes(*number))
    }

    fn i32(&mut self) -> Option<i32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*number))
    }

    fn version(&mut self) -> Option<i16> {
        self.i16().filter(|&version| version >= 0)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn string(&mut self) -> Option<&'a str> {
        let count = self.i16()?;
        str::from_utf8(self.take(usize::try_from(count).ok()?)?).ok()
    }

    /// A string, or a default in place of null.
    fn string_or(&mut self, other: &'a str) -> Option<&'a str> {
        if self.0.starts_with(&[0xff, 0xff]) {
            self.i16()?;
            return Some(other);
        }
        self.string()
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.i32()?).ok()
    }

    fn topics(&mut self) -> Option<Vec<&'a str>> {
        let mut topics = Vec::new();
        for _ in 0..self.count()? {
            topics.push(self.string()?);
        }
        Some(topics)
    }

    fn skip_bytes(&mut self) -> Option<()> {
        match self.i32()? {
            -1 => {}
            count => {
                self.take(usize::try_from(count).ok()?)?;
            }
        }
        Some(())
    }

    fn partitions(&mut self) -> Option<Vec<NamedIndexes>> {
        let mut list = Vec::new();
        for _ in 0..self.count()? {
            let topic = self.string()?;
            let mut indexes = Vec::new();
            for _ in 0..self.count()? {
                indexes.push(PartitionIndex(self.i32()?));
            }
            list.push((topic.into(), indexes));
        }
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_of_a_subscription_are_found_whatever_follows() {
        let bytes = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff more";
        assert_eq!(subscribed_topics(bytes), Some(vec!["a", "bc"]));
    }

    #[test]
    fn bytes_that_are_no_subscription_are_none() {
        for bytes in [&b""[..], b"\0", b"\0\0\x7f\xff\xff\xff", b"\0\0\0\0\0\x01\0\x09a"] {
            assert_eq!(subscribed_topics(bytes), None);
            assert_eq!(subscription(bytes), None);
        }
        assert_eq!(subscribed_topics(b"\xff\xff\0\0\0\0"), None);
        assert_eq!(subscribed_topics(b"\0\0\xff\xff\xff\xff"), None);
        assert_eq!(subscription(b"\0\x01\0\0\0\0\xff\xff\xff\xff\x7f\xff\xff\xff"), None);
    }

    #[test]
    fn a_subscription_is_read_in_every_version() {
        let old = b"\0\0\0\0\0\x01\0\x01a\xff\xff\xff\xff";
        let expected = Subscription { topics: vec!["a".into()], ..Subscription::default() };
        assert_eq!(subscription(old), Some(expected));
        let new = b"\0\x03\0\0\0\x01\0\x01a\0\0\0\x01u\0\0\0\x01\0\x01a\0\0\0\x01\0\0\0\x05\0\0\0\x07\0\x01r";
        let expected = Subscription {
            topics: vec!["a".into()],
            owned: vec![("a".into(), vec![PartitionIndex(5)])],
            rack: Some("r".into()),
        };
        assert_eq!(subscription(new), Some(expected));
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written_and_in_the_version_of_the_member() {
        let partitions = vec![("a".into(), PartitionIndex::list(&[0, 2])), ("bc".into(), vec![])];
        let bytes = write_assignment(&partitions, b"\0\x01\0\0\0\0");
        assert_eq!(bytes.first_chunk(), Some(&[0, 1]));
        assert_eq!(assignment(&bytes), Some(partitions));
        assert_eq!(assignment(b""), Some(Vec::new()));
        assert_eq!(assignment(b"\0\0\0\0\0\x01"), None);
    }
}
