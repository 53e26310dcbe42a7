//! The records of `__transaction_state` as Kafka writes them, and back.
//!
//! A value has version 1 from level 1 of `transaction.version` on, and 0 before. Where version 1 has a place for them, the
//! producer ids before and after the current one are written, so that an end at which the epochs run out survives its
//! coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::KeyAndValue;
use crate::error::{Error, Result};
use crate::machine::transaction::{TransactionRecord, TransactionState, TransactionValue};
use crate::protocol::records::transaction_log::{
    PartitionsSchema, TransactionLogKey, TransactionLogValue,
};
use crate::protocol::records::{read_key, read_value, record_type, write_key, write_versioned};
use crate::types::{ProducerId, TimestampMs, TopicPartition};

/// The type of record, at the start of a key.
const TRANSACTION_LOG: i16 = 0;

/// Writes a record.
///
/// # Errors
///
/// When a name is longer than Kafka's strings can be.
pub(super) fn encode(record: &TransactionRecord) -> Result<KeyAndValue> {
    let TransactionRecord { transactional_id, value, has_tags } = record;
    let key = TransactionLogKey { transactional_id: transactional_id.into() };
    let value = value.as_ref().map(|value| {
        let version = i16::from(*has_tags);
        write_versioned(&write(value, *has_tags), version)
    });
    Ok((write_key(TRANSACTION_LOG, &key)?, value.transpose()?))
}

fn write(value: &TransactionValue, has_tags: bool) -> TransactionLogValue {
    let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
    for TopicPartition { topic, partition } in &*value.partitions {
        topics.entry(topic).or_default().push(partition.0);
    }
    let topic = |(topic, partition_ids): (&Arc<str>, Vec<i32>)| PartitionsSchema {
        topic: topic.into(),
        partition_ids,
    };
    let partitions =
        (value.state != TransactionState::Empty).then(|| topics.into_iter().map(topic).collect());
    let written = TransactionLogValue {
        producer_id: value.producer_id.0,
        producer_epoch: value.producer_epoch,
        transaction_timeout_ms: value.timeout_ms,
        transaction_status: value.state.id(),
        transaction_partitions: partitions,
        transaction_last_update_timestamp_ms: value.last_update.0,
        transaction_start_timestamp_ms: value.start.0,
        ..TransactionLogValue::default()
    };
    if !has_tags {
        return written;
    }
    TransactionLogValue {
        previous_producer_id: value.previous_producer_id.0,
        next_producer_id: value.next_producer_id.0,
        client_transaction_version: value.version,
        ..written
    }
}

/// Reads a record; `None` for a type that this version does not know.
///
/// # Errors
///
/// When the bytes do not match their type, or their version is unknown.
pub(super) fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<TransactionRecord>> {
    let (record_type, rest) = record_type(key)?;
    if record_type != TRANSACTION_LOG {
        return Ok(None);
    }
    let key: TransactionLogKey = read_key(rest)?;
    // The version is the first two bytes.
    let has_tags = value.as_deref().is_some_and(|bytes| bytes.get(..2) != Some(&[0, 0]));
    let value = value.map(read_value).transpose()?.map(read).transpose()?;
    Ok(Some(TransactionRecord { transactional_id: key.transactional_id.into(), value, has_tags }))
}

fn read(value: TransactionLogValue) -> Result<TransactionValue> {
    let state = TransactionState::from_id(value.transaction_status).ok_or_else(|| {
        let text = format!("there is no state {}", value.transaction_status);
        Error::malformed("transaction", text)
    })?;
    let partitions: BTreeSet<TopicPartition> = value
        .transaction_partitions
        .into_iter()
        .flatten()
        .filter(|_| state != TransactionState::Empty)
        .flat_map(|topic| {
            let name: Arc<str> = topic.topic.into();
            let partition = move |id| TopicPartition::new(Arc::clone(&name), id);
            topic.partition_ids.into_iter().map(partition)
        })
        .collect();
    Ok(TransactionValue {
        producer_id: ProducerId(value.producer_id),
        previous_producer_id: ProducerId(value.previous_producer_id),
        next_producer_id: ProducerId(value.next_producer_id),
        producer_epoch: value.producer_epoch,
        last_producer_epoch: -1,
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions: Arc::new(partitions),
        last_update: TimestampMs(value.transaction_last_update_timestamp_ms),
        start: TimestampMs(value.transaction_start_timestamp_ms),
        version: value.client_transaction_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(state: TransactionState, partitions: &[(&str, i32)]) -> TransactionValue {
        let partitions = partitions.iter().map(|(topic, id)| TopicPartition::new(*topic, *id));
        TransactionValue {
            producer_id: ProducerId(7),
            previous_producer_id: ProducerId(6),
            next_producer_id: ProducerId(8),
            producer_epoch: 3,
            last_producer_epoch: -1,
            timeout_ms: 60_000,
            state,
            partitions: Arc::new(partitions.collect()),
            last_update: TimestampMs(11),
            start: TimestampMs(10),
            version: 2,
        }
    }

    fn record(value: Option<TransactionValue>, has_tags: bool) -> TransactionRecord {
        TransactionRecord { transactional_id: "t".into(), value, has_tags }
    }

    #[test]
    fn records_come_back_in_the_form_of_their_version() {
        let partitions = [("a", 0), ("a", 2), ("b", 1)];
        let written = value(TransactionState::PrepareCommit, &partitions);
        let tagged = record(Some(written.clone()), true);
        let (key, bytes) = encode(&tagged).unwrap();
        assert_eq!(&key[..], b"\0\0\0\x01t");
        assert_eq!(bytes.as_deref().map(|bytes| bytes[..2].to_vec()), Some(vec![0, 1]));
        assert_eq!(decode(key.clone(), bytes).unwrap(), Some(tagged));
        let (_, bytes) = encode(&record(Some(written.clone()), false)).unwrap();
        let plain = TransactionValue {
            previous_producer_id: ProducerId::NONE,
            next_producer_id: ProducerId::NONE,
            version: 0,
            ..written
        };
        assert_eq!(bytes.as_deref().map(|bytes| bytes[..2].to_vec()), Some(vec![0, 0]));
        assert_eq!(decode(key.clone(), bytes).unwrap(), Some(record(Some(plain), false)));
        let tombstone = encode(&record(None, true)).unwrap();
        assert_eq!(tombstone, (key.clone(), None));
        assert_eq!(decode(key, None).unwrap(), Some(record(None, false)));
    }

    #[test]
    fn an_id_without_a_transaction_has_no_list_of_partitions() {
        let empty = record(Some(value(TransactionState::Empty, &[])), false);
        let (_, bytes) = encode(&empty).unwrap();
        // After version, id, epoch, timeout and state: a null array.
        assert_eq!(bytes.unwrap()[17..21], [0xff; 4]);
        let complete = record(Some(value(TransactionState::CompleteAbort, &[])), false);
        assert_eq!(encode(&complete).unwrap().1.unwrap()[17..21], [0; 4]);
    }

    #[test]
    fn what_is_unknown_is_left_alone_and_what_is_broken_is_an_error() {
        assert_eq!(decode(Bytes::from_static(b"\0\x01\0\x01t"), None).unwrap(), None);
        assert!(decode(Bytes::from_static(b"\0\0\0"), None).is_err());
        let (key, bytes) =
            encode(&record(Some(value(TransactionState::Empty, &[])), false)).unwrap();
        let mut bytes = bytes.unwrap().to_vec();
        bytes[16] = 9;
        assert!(decode(key, Some(bytes.into())).is_err());
        // Version 2.
        let (key, bytes) =
            encode(&record(Some(value(TransactionState::Empty, &[])), true)).unwrap();
        let mut bytes = bytes.unwrap().to_vec();
        bytes[1] = 2;
        assert!(decode(key, Some(bytes.into())).is_err());
    }
}
