//! Errors that several modules report, each worded here: the callers say what it is about.
//!
//! Why: the same failure is to read the same wherever it is found, and its words, of which clients
//! see many, are to change in one place. What only the broker or only the client reports in several
//! places stands in `broker/words.rs` and `client/errors.rs`, what one place reports in that place.

use std::fmt::Display;

use super::{Error, ErrorCode};
use crate::types::{NodeId, Offset, PartitionIndex, TopicPartition};

impl Error {
    /// A partition that a topic does not have.
    #[must_use]
    pub fn no_partition(topic: &str, partition: PartitionIndex, count: usize) -> Self {
        let has = match count {
            1 => "it has one, partition 0".to_owned(),
            count => format!("it has {count}, numbered from 0"),
        };
        let text = format!("topic {topic} has no partition {partition}: {has}");
        Self::told(ErrorCode::UnknownTopicOrPartition, text)
    }

    /// A broker that the cluster does not have.
    #[must_use]
    pub fn no_broker(id: NodeId, known: impl IntoIterator<Item = NodeId>) -> Self {
        let known: Vec<String> = known.into_iter().map(|id| id.to_string()).collect();
        let text = format!("there is no broker {id}; the brokers are {}", known.join(", "));
        Self::told(ErrorCode::BrokerIdNotRegistered, text)
    }

    /// A record batch is damaged, or not acceptable.
    pub fn of_batch(code: ErrorCode, base_offset: Offset, detail: impl Display) -> Self {
        Self::kafka(code, format!("record batch at offset {base_offset}: {detail}"))
    }

    /// What a partition has at an offset is damaged, or not acceptable.
    pub fn at_offset(
        code: ErrorCode,
        partition: &TopicPartition,
        offset: Offset,
        detail: impl Display,
    ) -> Self {
        Self::kafka(code, format!("{partition} at offset {offset}: {detail}"))
    }

    /// This error of some records, with the partition that they are of.
    #[must_use]
    pub fn in_partition(self, partition: &TopicPartition) -> Self {
        match self {
            Self::Kafka { code, context, .. } => {
                Self::kafka(code, format!("{partition}: {context}"))
            }
            other => other,
        }
    }

    /// A message in a version that is not among those known.
    pub fn unknown_version(message: impl Display, version: i16, known: impl Display) -> Self {
        let context = format!("{message} version {version} (known: {known})");
        Self::kafka(ErrorCode::UnsupportedVersion, context)
    }

    /// This error for someone to whom another code says what to do; the words stay.
    #[must_use]
    pub fn under_code(&self, code: ErrorCode) -> Self {
        Self::kafka(code, self.chain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_what_there_is() {
        let none = |count| Error::no_partition("t", PartitionIndex(5), count).to_string();
        let code = "(UNKNOWN_TOPIC_OR_PARTITION)";
        assert_eq!(none(1), format!("topic t has no partition 5: it has one, partition 0 {code}"));
        assert_eq!(
            none(3),
            format!("topic t has no partition 5: it has 3, numbered from 0 {code}")
        );
        assert_eq!(
            Error::no_broker(NodeId(7), [1, 2].map(NodeId)).to_string(),
            "there is no broker 7; the brokers are 1, 2 (BROKER_ID_NOT_REGISTERED)"
        );
    }

    #[test]
    fn another_code_or_a_partition_leaves_the_words() {
        let error = Error::of_batch(ErrorCode::CorruptMessage, Offset(3), "it ends early");
        let error = error.in_partition(&TopicPartition::new("t", 1));
        let text = error.to_string();
        assert!(text.starts_with("t-1: record batch at offset 3: it ends early: "), "{text}");
        let other = error.under_code(ErrorCode::KafkaStorageError);
        assert_eq!(other.code(), ErrorCode::KafkaStorageError);
        assert!(other.to_string().starts_with(&text), "{other}");
        let full = Error::io("write", "/x", std::io::ErrorKind::StorageFull.into());
        assert_eq!(
            full.clone().in_partition(&TopicPartition::new("t", 1)).to_string(),
            full.to_string()
        );
    }
}
