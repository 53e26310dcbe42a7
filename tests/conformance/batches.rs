//! Batches to produce, and the shape of those that are fetched.

use std::fmt::Write as _;

use bytes::Bytes;
use ottla::protocol::Records;
use ottla::record::{BatchBuilder, BatchHeader, BatchOptions};
use ottla::types::{ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// The time of the first record of every batch; the following ones are a second apart.
pub(crate) const TIME: i64 = 1_600_000_000_000;

/// A batch of this many records with keys.
pub(crate) fn batch(count: usize) -> Bytes {
    batch_with(BatchOptions::default(), TIME, count)
}

pub(crate) fn batch_with(options: BatchOptions, time: i64, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for number in 0..i64::try_from(count).unwrap() {
        let timestamp = TimestampMs(time + 1000 * number);
        builder.append(timestamp, Some(b"key"), Some(b"value"), &[]).unwrap();
    }
    builder.finish().unwrap()
}

/// A batch of an idempotent producer.
pub(crate) fn sequenced(id: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    let options = BatchOptions {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        ..BatchOptions::default()
    };
    batch_with(options, TIME, count)
}

/// A batch with other bytes at a position, and the right checksum if `sealed`.
pub(crate) fn patched(batch: &Bytes, at: usize, bytes: &[u8], sealed: bool) -> Bytes {
    const CRC: usize = 17;
    const CHECKED: usize = 21;
    let mut patched = batch.to_vec();
    patched[at..at + bytes.len()].copy_from_slice(bytes);
    if sealed {
        let crc = crc32c::crc32c(&patched[CHECKED..]);
        patched[CRC..CHECKED].copy_from_slice(&crc.to_be_bytes());
    }
    patched.into()
}

/// One message in a format that is no longer accepted.
pub(crate) fn old_message(magic: u8) -> Bytes {
    let mut body = vec![magic, 0];
    if magic == 1 {
        body.extend(TIME.to_be_bytes());
    }
    body.extend((-1_i32).to_be_bytes());
    body.extend(5_i32.to_be_bytes());
    body.extend(b"value");
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    let mut message = vec![0; 8];
    message.extend((u32::try_from(body.len()).unwrap() + 4).to_be_bytes());
    message.extend(crc.sum().to_be_bytes());
    message.extend(body);
    message.into()
}

/// Offsets, epochs and sizes of fetched batches, and the bytes of one that was truncated.
pub(crate) fn shape(records: Option<&Records>) -> String {
    let Some(records) = records else { return "null".to_owned() };
    let bytes = records.clone().into_bytes();
    let mut shape = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let whole = rest.len() >= 61;
        let size = if whole { 12 + u32::from_be_bytes(rest[8..12].try_into().unwrap()) } else { 0 };
        if !whole || rest.len() < size as usize {
            write!(shape, "[{} bytes of a batch]", rest.len()).unwrap();
            break;
        }
        let header = BatchHeader::parse(rest).unwrap();
        write!(
            shape,
            "[{}-{} epoch {} {} bytes, attributes {:?}, times {}-{}]",
            header.base_offset,
            header.base_offset.0 + i64::from(header.last_offset_delta),
            header.leader_epoch,
            size,
            header.attributes.0,
            header.base_timestamp.0 - TIME,
            header.max_timestamp.0 - TIME,
        )
        .unwrap();
        at += size as usize;
    }
    shape
}
