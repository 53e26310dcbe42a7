//! Reading a shard's log back into its machine.
//!
//! Blocks; called on a thread that may block. What a transaction wrote is applied as such, and the marker that ends it
//! after it, in the order of the log.

use bytes::Bytes;

use super::kind::Kind;
use crate::broker::partition::{Isolation, Partition};
use crate::error::{Error, ErrorCode, Result};
use crate::log::ReadRequest;
use crate::machine::Replicated as _;
use crate::record::control::read_control_batch;
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
    let header = batch.header();
    if header.is_control() {
        return apply_control::<K>(partition, batch, machine);
    }
    let producer = header.is_transactional().then_some(header.producer_id);
    for record in &batch.records(BATCH_BYTES_MAX)? {
        let record = record?;
        let damaged = |what: String| {
            let code = ErrorCode::CorruptMessage;
            Error::at_offset(code, partition.name(), record.offset, what)
        };
        let key = record.key.ok_or_else(|| damaged("a record without a key".to_owned()))?;
        let value = record.value.map(Bytes::copy_from_slice);
        let decoded = K::decode(Bytes::copy_from_slice(key), value);
        replayed.records += 1;
        match decoded.map_err(|error| damaged(error.chain()))? {
            None => replayed.unknown += 1,
            Some(decoded) => {
                let record = match producer {
                    Some(producer) => K::in_transaction(decoded, producer),
                    None => decoded,
                };
                machine.apply(&record).map_err(|misfit| {
                    damaged(format!("the record does not fit those before it: {misfit}"))
                })?;
            }
        }
    }
    Ok(())
}

/// Applies the end of a transaction; other control records are none of the machine's business.
fn apply_control<K: Kind>(
    partition: &Partition,
    batch: &Batch,
    machine: &mut K::Machine,
) -> Result<()> {
    let header = batch.header();
    let damaged = |what: String| {
        let code = ErrorCode::CorruptMessage;
        Error::at_offset(code, partition.name(), header.base_offset, what)
    };
    // One whose marker was compacted away is empty.
    if header.record_count == 0 {
        return Ok(());
    }
    let (_, marker) = read_control_batch(batch).map_err(|error| damaged(error.chain()))?;
    let Some(marker) = marker else { return Ok(()) };
    let Some(record) = K::transaction_end(header.producer_id, marker.committed) else {
        return Ok(());
    };
    machine.apply(&record).map_err(|misfit| {
        damaged(format!("the end of a transaction does not fit what is before it: {misfit}"))
    })
}
