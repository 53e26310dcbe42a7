//! Delivers acknowledgements from the sender task to whoever waits for a record.
//!
//! One channel per batch, shared by all its records; a record knows its index in the batch.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::types::{Offset, TimestampMs, TopicPartition};

/// Where a record was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset; unknown with `acks=0`, and when an old broker only reported a duplicate.
    pub offset: Offset,
    /// The timestamp: the record's own, or that of the append if the topic uses it.
    pub timestamp: TimestampMs,
}

/// Where a batch was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchAck {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset of the first record; unknown as in [`RecordMetadata::offset`].
    pub base_offset: Offset,
    /// The number of records.
    pub records: i32,
    /// When the broker appended it, if the topic uses that as the timestamp.
    pub log_append_time: Option<TimestampMs>,
    /// The highest timestamp of a batch that was passed in whole.
    pub max_timestamp: TimestampMs,
}

/// The outcome of a batch, once it is known.
type Settled = Option<Result<BatchAck>>;

/// The sender task's end of a batch's channel.
#[derive(Debug)]
pub(super) struct Promise {
    partition: TopicPartition,
    records: i32,
    /// Whether the batch was passed in whole: then it has one delivery, not one per record.
    is_whole: bool,
    max_timestamp: TimestampMs,
    sender: watch::Sender<Settled>,
}

impl Promise {
    /// The promise of a batch that is passed in whole, or of an empty one to which records are
    /// added.
    pub(super) fn new(partition: TopicPartition, records: i32, max_timestamp: TimestampMs) -> Self {
        let is_whole = records > 0;
        Self { partition, records, is_whole, max_timestamp, sender: watch::Sender::new(None) }
    }

    /// Counts a record added to a batch.
    pub(super) fn add_record(&mut self) {
        self.records = self.records.saturating_add(1);
    }

    pub(super) fn records(&self) -> u64 {
        u64::from(self.records.unsigned_abs())
    }

    pub(super) const fn topic(&self) -> &Arc<str> {
        &self.partition.topic
    }

    /// The records whose delivery nobody kept.
    pub(super) fn unheard(&self) -> u64 {
        match self.sender.receiver_count() {
            0 => self.records(),
            _ if self.is_whole => 0,
            kept => self.records().saturating_sub(kept as u64),
        }
    }

    pub(super) fn delivery(&self) -> BatchDelivery {
        BatchDelivery { receiver: self.sender.subscribe() }
    }

    pub(super) fn acknowledge(self, base_offset: Offset, log_append_time: Option<TimestampMs>) {
        let ack = BatchAck {
            partition: self.partition,
            base_offset,
            records: self.records,
            log_append_time,
            max_timestamp: self.max_timestamp,
        };
        self.sender.send_replace(Some(Ok(ack)));
    }

    pub(super) fn fail(self, reason: Error) {
        self.sender.send_replace(Some(Err(reason)));
    }
}

/// The pending acknowledgement of a batch. May be dropped; the batch is sent nevertheless.
#[derive(Clone, Debug)]
pub struct BatchDelivery {
    receiver: watch::Receiver<Settled>,
}

impl BatchDelivery {
    /// Waits.
    ///
    /// # Errors
    ///
    /// Why the batch was not acknowledged, with topic and partition.
    pub async fn wait(mut self) -> Result<BatchAck> {
        let settled = self.receiver.wait_for(Option::is_some).await;
        let settled = settled.map_err(|_closed| Error::Closed { what: "the producer" })?;
        match settled.as_ref() {
            Some(Ok(ack)) => Ok(ack.clone()),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err(Error::Closed { what: "the producer" }),
        }
    }

    /// Whether it has been acknowledged or has failed, so that [`Self::wait`] returns at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.receiver.borrow().is_some()
    }
}

/// The pending acknowledgement of a record. May be dropped; the record is sent nevertheless.
#[derive(Clone, Debug)]
pub struct Delivery {
    batch: BatchDelivery,
    index: i32,
    timestamp: TimestampMs,
}

impl Delivery {
    pub(super) const fn new(batch: BatchDelivery, index: i32, timestamp: TimestampMs) -> Self {
        Self { batch, index, timestamp }
    }

    /// Waits.
    ///
    /// # Errors
    ///
    /// Why the record was not acknowledged, with topic and partition.
    pub async fn wait(self) -> Result<RecordMetadata> {
        let ack = self.batch.wait().await?;
        let offset = if ack.base_offset < Offset::ZERO {
            Offset::UNKNOWN
        } else {
            ack.base_offset.plus(i64::from(self.index))
        };
        let timestamp = ack.log_append_time.unwrap_or(self.timestamp);
        Ok(RecordMetadata { partition: ack.partition, offset, timestamp })
    }

    /// Whether it has been acknowledged or has failed, so that [`Self::wait`] returns at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.batch.is_done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_unheard_whose_delivery_nobody_kept() {
        let partition = TopicPartition::new("orders", 0);
        let mut single = Promise::new(partition.clone(), 0, TimestampMs::NONE);
        (0..3).for_each(|_| single.add_record());
        let (first, second) = (single.delivery(), single.delivery());
        assert_eq!(single.unheard(), 1);
        drop(first);
        assert_eq!(single.unheard(), 2);
        drop(second);
        assert_eq!(single.unheard(), 3);

        let whole = Promise::new(partition, 3, TimestampMs::NONE);
        let kept = whole.delivery();
        assert_eq!(whole.unheard(), 0);
        drop(kept);
        assert_eq!(whole.unheard(), 3);
    }
}
