//! Entries of the metadata log as record batches, which is how they lie on disk and travel: a batch for each, with its
//! offset and its leader's epoch.

use bytes::{Bytes, BytesMut};

use super::entry::{self, Entry};
use crate::error::Result;
use crate::record::{BatchBuilder, BatchOptions, Batches};
use crate::types::{Offset, TimestampMs};

/// The largest entry in bytes; protects against damaged files, and is not otherwise a limit.
pub(super) const ENTRY_BYTES_MAX: usize = 1 << 30;

/// The batches of some entries.
pub(in crate::broker) fn encode<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    now: TimestampMs,
) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    for entry in entries {
        let mut batch = BatchBuilder::new(BatchOptions {
            base_offset: entry.offset,
            leader_epoch: entry.epoch,
            ..BatchOptions::default()
        });
        batch.append(now, None, Some(&entry::encode(entry)?), &[])?;
        bytes.extend_from_slice(&batch.finish()?);
    }
    Ok(bytes.freeze())
}

/// The entries from `start` up to `end` in some batches.
pub(in crate::broker) fn decode(records: Bytes, start: Offset, end: Offset) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for batch in Batches::new(records) {
        let batch = batch?;
        let records = batch.records(ENTRY_BYTES_MAX)?;
        let epoch = records.header().leader_epoch;
        for record in &records {
            let record = record?;
            if record.offset >= start && record.offset < end {
                entries.push(entry::decode(
                    record.offset,
                    epoch,
                    record.value.unwrap_or_default(),
                )?);
            }
        }
    }
    Ok(entries)
}
