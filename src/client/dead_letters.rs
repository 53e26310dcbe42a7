//! A dead-letter topic: where records that could not be decoded go.
//!
//! A record is written unchanged (key, value, headers, timestamp), with additional headers that say
//! where it came from and why it is here. A reader with [`OnError::SetAside`] sends what was set
//! aside, waits, and only then hands out the other rows: a crash in between repeats dead letters,
//! and never loses one.
//!
//! [`OnError::SetAside`]: crate::columnar::OnError::SetAside

use std::sync::Arc;

use bytes::Bytes;

use super::producer::{Producer, ProducerRecord};
use crate::columnar::Rejected;
use crate::error::{Error, Result};

/// The header with the topic that a dead letter was read from.
const TOPIC_HEADER: &str = "ottla.dlq.topic";
/// The header with its partition, in decimal digits.
pub const PARTITION_HEADER: &str = "ottla.dlq.partition";
/// The header with its offset, in decimal digits.
const OFFSET_HEADER: &str = "ottla.dlq.offset";
/// The header that says why it could not be decoded.
const ERROR_HEADER: &str = "ottla.dlq.error";

/// How many records are in flight at once.
const UNDER_WAY_MAX: usize = 10_000;

/// The writer of a dead-letter topic.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    topic: Arc<str>,
    producer: Arc<Producer>,
}

impl DeadLetters {
    /// Writes to `topic` through a producer, whose `acks` setting decides what acknowledged means.
    ///
    /// # Errors
    ///
    /// When the topic has no name.
    pub fn new(topic: &str, producer: Arc<Producer>) -> Result<Self> {
        if topic.is_empty() {
            return Err(Error::invalid("the dead-letter topic has no name: use dlq:TOPIC"));
        }
        Ok(Self { topic: Arc::from(topic), producer })
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Writes the records and waits until all are acknowledged.
    ///
    /// # Errors
    ///
    /// When a record comes from the dead-letter topic itself, or could not be written; some may
    /// have been.
    pub async fn send(&self, rejected: &[Rejected]) -> Result<()> {
        for part in rejected.chunks(UNDER_WAY_MAX) {
            let mut deliveries = Vec::with_capacity(part.len());
            for record in part {
                deliveries.push(self.producer.send(self.letter(record)?).await?);
            }
            // Nothing else adds to the batch, so waiting for `linger.ms` would gain nothing.
            self.producer.flush().await;
            for delivery in deliveries {
                delivery.wait().await?;
            }
        }
        Ok(())
    }

    fn letter(&self, record: &Rejected) -> Result<ProducerRecord> {
        let Rejected { partition, offset, error, .. } = record;
        if partition.topic == self.topic {
            // Otherwise it would read its own dead letters forever.
            return Err(Error::Decode {
                what: "value",
                partition: partition.clone(),
                offset: *offset,
                detail: format!("{error} (it is already in the dead-letter topic)"),
            });
        }
        let mut headers = record.headers.clone();
        let text = |text: String| Some(Bytes::from(text));
        headers.push((TOPIC_HEADER.to_owned(), text(partition.topic.to_string())));
        headers.push((PARTITION_HEADER.to_owned(), text(partition.partition.to_string())));
        headers.push((OFFSET_HEADER.to_owned(), text(offset.0.to_string())));
        headers.push((ERROR_HEADER.to_owned(), text(error.clone())));
        Ok(ProducerRecord {
            topic: Arc::clone(&self.topic),
            partition: None,
            key: record.key.clone(),
            value: record.value.clone(),
            timestamp: record.timestamp,
            headers,
        })
    }
}
