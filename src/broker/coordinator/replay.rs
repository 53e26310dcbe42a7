//! Reading a shard's log back into its machine.
//!
//! Blocks; called on a thread that may block. Control batches and transactional batches are skipped:
//! this version writes neither here.

use bytes::Bytes;

use super::kind::Kind;
use crate::broker::partition::{Isolation, Partition};
use crate::error::{Error, ErrorCode, Result};
use crate::log::ReadRequest;
use crate::machine::Replicated as _;
use crate::record::{Batch, Batches};

/// How much is read at once.
const READ_BYTES: u64 = 1 << 20;
/// The largest decompressed size of one batch.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// The extent of a replay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replayed {
    pub(super) records: u64,
    /// Records of an unknown type, which Kafka passes over as well: what a newer version wrote.
    pub(super) unknown: u64,
}

/// Applies every record of the partition to `machine`.
///
/// # Errors
///
/// When the log cannot be read, or contains a record that does not match its type or does not fit those before it;
/// Kafka refuses such a partition, too. Nothing is served then: a group that forgot its offsets would read everything
/// again.
pub(super) fn replay<K: Kind>(partition: &Partition, machine: &mut K::Machine) -> Result<Replayed> {
    let reader = partition.reader();
    let upper = partition.end(Isolation::Everything);
    let mut offset = reader.log_start_offset();
    let mut replayed = Replayed::default();
    while offset < upper {
        let request = ReadRequest { offset, max_bytes: READ_BYTES, upper, at_least_one: true };
        let read = reader.read(request)?;
        if read.records.is_empty() {
            break;
        }
        for batch in Batches::new(read.records) {
            apply_batch::<K>(partition, &batch?, machine, &mut replayed)?;
        }
        offset = read.next_offset;
    }
    Ok(replayed)
}

fn apply_batch<K: Kind>(
    partition: &Partition,
    batch: &Batch,
    machine: &mut K::Machine,
    replayed: &mut Replayed,
) -> Result<()> {
    if batch.header().is_control() || batch.header().is_transactional() {
        return Ok(());
    }
    for record in &batch.records(BATCH_BYTES_MAX)? {
        let record = record?;
        let damaged = |what: String| {
            let place = format!("{} at offset {}", partition.name(), record.offset);
            Error::kafka(ErrorCode::CorruptMessage, format!("{place}: {what}"))
        };
        let key = record.key.ok_or_else(|| damaged("a record without a key".to_owned()))?;
        let value = record.value.map(Bytes::copy_from_slice);
        let decoded = K::decode(Bytes::copy_from_slice(key), value);
        replayed.records += 1;
        match decoded.map_err(|error| damaged(error.chain()))? {
            None => replayed.unknown += 1,
            Some(decoded) => machine.apply(&decoded).map_err(|misfit| {
                damaged(format!("the record does not fit those before it: {misfit}"))
            })?,
        }
    }
    Ok(())
}
