//! The `.snapshot` file (the producers as of an offset) and the `.txnindex` file, in Kafka's formats.
//!
//! ```text
//! .snapshot  version i16 = 1 │ crc u32 │ count i32 │ entries
//!   entry    producer id i64 │ epoch i16 │ last sequence i32 │ last offset i64 │ offset delta i32 │
//!            timestamp i64 │ coordinator epoch i32 │ first offset of the open transaction i64
//! .txnindex  version i16 = 0 │ producer id i64 │ first offset i64 │ last offset i64 │
//!            last stable offset i64                                          34 bytes an entry
//! ```
//!
//! The CRC-32C covers everything after it.
//!
//! A producer has an entry for each of its last batches, oldest first, so that whatever it may send again after a
//! restart is recognized. Kafka writes an entry for the last one only; where it reads several of one
//! producer, the last counts.

use std::collections::VecDeque;

use super::producers::{AbortedTransaction, ProducerBatch, ProducerState, Producers};
use crate::types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

const VERSION: i16 = 1;
const CRC_END: usize = 6;
/// The size of an entry of the `.txnindex`.
pub(super) const TRANSACTION_ENTRY_BYTES: usize = 34;

pub(super) fn encode(producers: &Producers) -> Vec<u8> {
    let mut body = Vec::new();
    let mut count = 0_i32;
    for state in producers.states() {
        let mut batches = state.batches.iter();
        let last = batches.next_back();
        for batch in batches {
            count += 1;
            encode_entry(state, Some(batch), batch.timestamp, &mut body);
        }
        count += 1;
        encode_entry(state, last, state.last_timestamp, &mut body);
    }
    let covered = [&count.to_be_bytes()[..], &body].concat();
    let crc = crc32c::crc32c(&covered);
    [&VERSION.to_be_bytes()[..], &crc.to_be_bytes(), &covered].concat()
}

fn encode_entry(
    state: &ProducerState,
    batch: Option<&ProducerBatch>,
    timestamp: TimestampMs,
    body: &mut Vec<u8>,
) {
    let sequence = batch.map_or(Sequence::NONE, |batch| batch.last_sequence);
    let offset = batch.map_or(Offset::UNKNOWN, |batch| batch.last_offset);
    body.extend_from_slice(&state.producer_id.0.to_be_bytes());
    body.extend_from_slice(&state.epoch.0.to_be_bytes());
    body.extend_from_slice(&sequence.0.to_be_bytes());
    body.extend_from_slice(&offset.0.to_be_bytes());
    body.extend_from_slice(&batch.map_or(0, |batch| batch.offset_delta).to_be_bytes());
    body.extend_from_slice(&timestamp.0.to_be_bytes());
    body.extend_from_slice(&state.coordinator_epoch.to_be_bytes());
    let open = state.current_txn_first_offset.unwrap_or(Offset::UNKNOWN);
    body.extend_from_slice(&open.0.to_be_bytes());
}

/// Reads big-endian numbers from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }
}

/// # Errors
///
/// The reason, as text: the file is of another version, torn or damaged.
pub(super) fn decode(bytes: &[u8]) -> Result<Producers, String> {
    let mut reader = Reader(bytes);
    let version = reader.i16().ok_or("the file is too short")?;
    if version != VERSION {
        return Err(format!("version {version} is unknown"));
    }
    let stored = reader.take().map(u32::from_be_bytes).ok_or("the file is too short")?;
    let computed = crc32c::crc32c(bytes.get(CRC_END..).unwrap_or_default());
    if stored != computed {
        return Err(format!("the checksum is {computed:#010x}, but {stored:#010x} is stored"));
    }
    let count = reader.i32().ok_or("the file is too short")?;
    let mut producers = Producers::default();
    for _ in 0..count {
        let entry = decode_entry(&mut reader).ok_or("the file ends in the middle of an entry")?;
        producers.insert_newer(entry);
    }
    Ok(producers)
}

fn decode_entry(reader: &mut Reader<'_>) -> Option<ProducerState> {
    let producer_id = ProducerId(reader.i64()?);
    let epoch = ProducerEpoch(reader.i16()?);
    let last_sequence = Sequence(reader.i32()?);
    let last_offset = Offset(reader.i64()?);
    let offset_delta = reader.i32()?;
    let last_timestamp = TimestampMs(reader.i64()?);
    let coordinator_epoch = reader.i32()?;
    let open = Offset(reader.i64()?);
    let batch =
        ProducerBatch { last_sequence, last_offset, offset_delta, timestamp: last_timestamp };
    Some(ProducerState {
        producer_id,
        epoch,
        batches: if last_offset.0 >= 0 { VecDeque::from([batch]) } else { VecDeque::new() },
        coordinator_epoch,
        last_timestamp,
        current_txn_first_offset: (open.0 >= 0).then_some(open),
    })
}

pub(super) fn encode_aborted(aborted: &AbortedTransaction) -> [u8; TRANSACTION_ENTRY_BYTES] {
    let mut entry = [0; TRANSACTION_ENTRY_BYTES];
    let fields = [
        aborted.producer_id.0,
        aborted.first_offset.0,
        aborted.last_offset.0,
        aborted.last_stable_offset.0,
    ];
    // The first two bytes are the version, 0.
    for (place, field) in entry.iter_mut().skip(2).zip(fields.iter().flat_map(|f| f.to_be_bytes()))
    {
        *place = field;
    }
    entry
}

/// The entries of a `.txnindex`, up to the first that is incomplete or not of version 0.
pub(super) fn decode_aborted(bytes: &[u8]) -> Vec<AbortedTransaction> {
    let mut reader = Reader(bytes);
    let mut entries = Vec::new();
    while let Some(0) = reader.i16() {
        let entry = (|| {
            Some(AbortedTransaction {
                producer_id: ProducerId(reader.i64()?),
                first_offset: Offset(reader.i64()?),
                last_offset: Offset(reader.i64()?),
                last_stable_offset: Offset(reader.i64()?),
            })
        })();
        match entry {
            Some(entry) => entries.push(entry),
            None => break,
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_comes_back_and_damage_is_seen() {
        let mut producers = Producers::default();
        for id in 0..3_i64 {
            producers.insert(ProducerState {
                producer_id: ProducerId(id),
                epoch: ProducerEpoch(2),
                batches: (0..=i32::try_from(id).unwrap())
                    .map(|count| ProducerBatch {
                        last_sequence: Sequence(9 + 5 * count),
                        last_offset: Offset(100 + id + 10 * i64::from(count)),
                        offset_delta: 4,
                        timestamp: TimestampMs(77 - id + i64::from(count)),
                    })
                    .collect(),
                coordinator_epoch: -1,
                last_timestamp: TimestampMs(77),
                current_txn_first_offset: (id == 1).then_some(Offset(96)),
            });
        }
        let bytes = encode(&producers);
        assert_eq!(decode(&bytes), Ok(producers));
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            assert!(decode(&damaged).is_err(), "byte {place}");
            assert!(decode(&bytes[..place]).is_err(), "cut at {place}");
        }
        assert_eq!(decode(&encode(&Producers::default())), Ok(Producers::default()));
    }

    #[test]
    fn aborted_transactions_come_back() {
        let aborted = AbortedTransaction {
            producer_id: ProducerId(3),
            first_offset: Offset(4),
            last_offset: Offset(9),
            last_stable_offset: Offset(10),
        };
        let mut bytes = [encode_aborted(&aborted), encode_aborted(&aborted)].concat();
        assert_eq!(bytes.len(), 68);
        assert_eq!(decode_aborted(&bytes), [aborted, aborted]);
        bytes.pop();
        assert_eq!(decode_aborted(&bytes), [aborted]);
    }
}
