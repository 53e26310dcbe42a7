//! Structures that travel or are stored inside opaque bytes: one table each, as in Apache Kafka
//! 4.4.
//!
//! Two kinds: what consumers put into JoinGroup and SyncGroup, and the keys and values of the
//! records of `__consumer_offsets`. They are separate from `messages` because no API carries them;
//! the tables, the encoder and the decoder are the same, and `tests/wire` compares them with
//! Kafka's.
//!
//! ```text
//! consumer protocol    int16 version ‖ structure at that version
//! record key           int16 record type ‖ structure at version 0
//! record value         int16 version ‖ structure at that version
//! ```
//!
//! Invariants: those of [`protocol`](crate::protocol); unknown versions of values are errors, later
//! versions of the consumer protocol are read as far as their fields are known, as Kafka's clients
//! do.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod consumer_assignment;
pub mod consumer_group;
pub mod consumer_protocol;
pub mod group_metadata;
pub mod offset_commit;
pub mod transaction_log;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::protocol::primitives::{Decoder, Encoder};
use crate::protocol::schema::Message;

/// The version that keys of records have.
const KEY_VERSION: i16 = 0;

fn write_prefixed<M: Message>(prefix: i16, message: &M, version: i16) -> Result<Bytes> {
    let mut encoder = Encoder::new();
    encoder.put_i16(prefix);
    message.encode(&mut encoder, version)?;
    Ok(encoder.finish_joined())
}

/// Writes the key of a record of this type.
///
/// # Errors
///
/// When a field does not fit its encoding.
pub fn write_key<M: Message>(record_type: i16, key: &M) -> Result<Bytes> {
    write_prefixed(record_type, key, KEY_VERSION)
}

/// Splits the type of a record off its key; the rest is for [`read_key`].
///
/// # Errors
///
/// [`Error::Malformed`] when the key does not even have a type.
pub fn record_type(key: Bytes) -> Result<(i16, Decoder)> {
    let mut decoder = Decoder::new(key);
    let record_type = decoder.get_i16()?;
    Ok((record_type, decoder))
}

/// Reads what follows the type in a key.
///
/// # Errors
///
/// [`Error::Malformed`] when the bytes are not such a key.
pub fn read_key<M: Message>(mut decoder: Decoder) -> Result<M> {
    let key = M::decode(&mut decoder, KEY_VERSION)?;
    check_end(&decoder)?;
    Ok(key)
}

/// Writes a value at `version`, which comes first.
///
/// # Errors
///
/// When the version cannot carry the value.
pub fn write_versioned<M: Message>(message: &M, version: i16) -> Result<Bytes> {
    write_prefixed(version, message, version)
}

/// Reads the value of a record.
///
/// # Errors
///
/// [`Error::Malformed`] when the bytes are not such a value, an unsupported version when its
/// version is unknown.
pub fn read_value<M: Message>(value: Bytes) -> Result<M> {
    let mut decoder = Decoder::new(value);
    let version = decoder.get_i16()?;
    let value = M::decode(&mut decoder, version)?;
    check_end(&decoder)?;
    Ok(value)
}

/// Reads a structure of the consumer protocol and its version. An unknown version is read as the
/// last known one: later versions only append fields, so the rest is skipped.
///
/// # Errors
///
/// [`Error::Malformed`] when the bytes are cut short or the version is negative.
pub fn read_embedded<M: Message>(bytes: Bytes) -> Result<(i16, M)> {
    let mut decoder = Decoder::new(bytes);
    let version = decoder.get_i16()?;
    let message = M::decode(&mut decoder, version.min(M::SCHEMA.versions.max))?;
    Ok((version, message))
}

fn check_end(decoder: &Decoder) -> Result<()> {
    if decoder.is_empty() {
        return Ok(());
    }
    let detail = format!("{} bytes after its end", decoder.remaining());
    Err(Error::malformed("coordinator record", detail))
}

#[cfg(test)]
mod tests {
    use super::consumer_protocol::{AssignedPartition, ConsumerProtocolAssignment};
    use super::offset_commit::{OffsetCommitKey, OffsetCommitValue};
    use super::*;

    #[test]
    fn a_key_begins_with_its_type_and_a_value_with_its_version() {
        let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 2 };
        let bytes = write_key(1, &key).unwrap();
        assert_eq!(&bytes[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x02");
        let (found, rest) = record_type(bytes).unwrap();
        assert_eq!((found, read_key::<OffsetCommitKey>(rest).unwrap()), (1, key));

        let value = OffsetCommitValue { offset: 7, ..OffsetCommitValue::default() };
        for version in [0, 1, 3, 4] {
            let bytes = write_versioned(&value, version).unwrap();
            assert!(bytes.starts_with(&version.to_be_bytes()));
            assert_eq!(read_value::<OffsetCommitValue>(bytes).unwrap(), value);
        }
        assert!(read_value::<OffsetCommitValue>(Bytes::from_static(b"\0\x09")).is_err());
    }

    #[test]
    fn a_later_version_of_the_consumer_protocol_is_read_by_what_is_known() {
        let assignment = ConsumerProtocolAssignment {
            assigned_partitions: vec![AssignedPartition {
                topic: "t".into(),
                partitions: vec![0, 1],
            }],
            user_data: None,
        };
        let known = write_versioned(&assignment, 3).unwrap();
        let mut bytes = 9_i16.to_be_bytes().to_vec();
        bytes.extend(known.get(2..).unwrap());
        bytes.extend(b"something new");
        let (version, read) =
            read_embedded::<ConsumerProtocolAssignment>(Bytes::from(bytes)).unwrap();
        assert_eq!((version, read), (9, assignment));
        assert!(read_embedded::<ConsumerProtocolAssignment>(Bytes::from_static(b"\xff")).is_err());
    }
}
