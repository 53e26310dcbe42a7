//! What a shard appends at once: records as one batch, and the answers that follow it.

use bytes::Bytes;

use super::kind::{KeyAndValue, Kind, ReplyOf};
use crate::error::Result;
use crate::machine::coordinator::{Producer, RequestId};
use crate::record::{BatchBuilder, BatchOptions};
use crate::types::{Sequence, TimestampMs};

/// What a batch contains besides its records, with a margin.
const BATCH_OVERHEAD: usize = 512;
/// The most bytes that a record takes besides key and value.
const RECORD_OVERHEAD: usize = 40;

/// Answers, and to whom.
pub(super) type Replies<K> = Vec<(RequestId, ReplyOf<K>)>;

/// Records that go to the log together, and the answers that follow them.
pub(super) struct Batch<K: Kind> {
    builder: BatchBuilder,
    now: TimestampMs,
    pub(super) replies: Replies<K>,
}

impl<K: Kind> Batch<K> {
    pub(super) fn new(now: TimestampMs) -> Self {
        Self { builder: BatchBuilder::new(BatchOptions::default()), now, replies: Vec::new() }
    }

    /// One that is part of a producer's transaction. Its sequence is not the producer's: the log does not check it, as
    /// in Kafka, which writes 0, too.
    pub(super) fn in_transaction(producer: Producer, now: TimestampMs) -> Self {
        let options = BatchOptions {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: Sequence(0),
            transactional: true,
            ..BatchOptions::default()
        };
        Self { builder: BatchBuilder::new(options), now, replies: Vec::new() }
    }

    /// Whether these records fit after those already in the batch.
    pub(super) fn has_room(&self, encoded: &[KeyAndValue], bytes_max: usize) -> bool {
        let size = |(key, value): &KeyAndValue| {
            key.len() + value.as_ref().map_or(0, Bytes::len) + RECORD_OVERHEAD
        };
        let more: usize = encoded.iter().map(size).sum();
        self.builder.is_empty() || self.builder.size_bytes() + more + BATCH_OVERHEAD <= bytes_max
    }

    pub(super) fn push(&mut self, encoded: &[KeyAndValue]) -> Result<()> {
        for (key, value) in encoded {
            self.builder.append(self.now, Some(key), value.as_deref(), &[])?;
        }
        Ok(())
    }

    /// The records as bytes, if there are any.
    pub(super) fn records(self) -> Result<(Option<Bytes>, Replies<K>)> {
        let Self { builder, replies, .. } = self;
        let records = if builder.is_empty() { None } else { Some(builder.finish()?) };
        Ok((records, replies))
    }
}
