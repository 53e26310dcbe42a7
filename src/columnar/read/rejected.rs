//! Records whose key or value cannot be decoded, set aside with their bytes.
//!
//! Under [`OnError::SetAside`](crate::columnar::OnError::SetAside) an output has only the rows that were
//! decoded; the others are returned with it, complete, so that they can be written elsewhere before
//! the output is handed out. Nothing is lost, and reading does not stop.
//!
//! Called by the decoder; it never writes anywhere itself.

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use super::tombstones::Tombstones;
use crate::columnar::columns::{KafkaColumn, Projection};
use crate::error::{Error, Result};
use crate::types::{Offset, TimestampMs, TopicPartition};

/// The columns from which a rejected record is built.
pub(in crate::columnar) const REJECTED_COLUMNS: Projection = Projection::NONE
    .with(KafkaColumn::Offset)
    .with(KafkaColumn::Timestamp)
    .with(KafkaColumn::Key)
    .with(KafkaColumn::Value)
    .with(KafkaColumn::Headers);

/// A record that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its partition.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp; none where it has none.
    pub timestamp: Option<TimestampMs>,
    /// Its key, unchanged.
    pub key: Option<Bytes>,
    /// Its value, unchanged.
    pub value: Option<Bytes>,
    /// Its headers in order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Why it could not be decoded.
    pub error: String,
}

/// The filled Kafka columns of an output, before rows are removed from it.
pub(in crate::columnar) struct Source<'a> {
    pub(in crate::columnar) column: &'a dyn Fn(KafkaColumn) -> Option<&'a ArrayRef>,
    /// The partition of a row.
    pub(in crate::columnar) partition: &'a dyn Fn(usize) -> TopicPartition,
}

impl Source<'_> {
    /// The record of a row.
    fn record(&self, row: usize, error: String) -> Rejected {
        let bytes = |kind| {
            let column = (self.column)(kind).map(AsArray::as_binary_view);
            let column: Option<&BinaryViewArray> = column;
            column
                .filter(|column| row < column.len() && column.is_valid(row))
                .map(|column| Bytes::copy_from_slice(column.value(row)))
        };
        let offset = (self.column)(KafkaColumn::Offset)
            .map(AsArray::as_primitive::<Int64Type>)
            .filter(|offsets| row < offsets.len())
            .map_or(Offset::UNKNOWN, |offsets| Offset(offsets.value(row)));
        let timestamp = (self.column)(KafkaColumn::Timestamp)
            .map(AsArray::as_primitive::<TimestampMillisecondType>)
            .filter(|times| row < times.len() && times.is_valid(row))
            .map(|times| TimestampMs(times.value(row)));
        Rejected {
            partition: (self.partition)(row),
            offset,
            timestamp,
            key: bytes(KafkaColumn::Key),
            value: bytes(KafkaColumn::Value),
            headers: self.headers(row),
            error,
        }
    }

    fn headers(&self, row: usize) -> Vec<(String, Option<Bytes>)> {
        let lists = (self.column)(KafkaColumn::Headers).and_then(|column| column.as_list_opt());
        let Some(lists) = lists.filter(|lists: &&arrow::array::ListArray| row < lists.len()) else {
            return Vec::new();
        };
        let list = lists.value(row);
        let Some(pairs) = list.as_struct_opt() else { return Vec::new() };
        let keys = pairs.column_by_name("key").and_then(|keys| keys.as_string_opt::<i32>());
        let values = pairs.column_by_name("value").and_then(|one| one.as_binary_opt::<i32>());
        let (Some(keys), Some(values)) = (keys, values) else { return Vec::new() };
        let pairs = keys.iter().zip(values.iter());
        pairs
            .map(|(key, value)| {
                (key.unwrap_or_default().to_owned(), value.map(Bytes::copy_from_slice))
            })
            .collect()
    }
}

/// Removes the rows with errors from an output. `errors` may name a row more than once.
///
/// # Errors
///
/// When Arrow cannot filter one of the columns.
pub(in crate::columnar) fn set_aside(
    (rows, tombstones): (&RecordBatch, &Tombstones),
    mut errors: Vec<(usize, String)>,
    source: &Source<'_>,
) -> Result<(RecordBatch, Tombstones, Vec<Rejected>)> {
    errors.sort_by_key(|(row, _)| *row);
    let mut rejected: Vec<(usize, String)> = Vec::with_capacity(errors.len());
    for (row, error) in errors {
        match rejected.last_mut() {
            Some((last, text)) if *last == row => {
                text.push_str("; ");
                text.push_str(&error);
            }
            _ => rejected.push((row, error)),
        }
    }
    let mut bad = rejected.iter().map(|(row, _)| *row).peekable();
    let keep: BooleanArray =
        (0..rows.num_rows()).map(|row| Some(bad.next_if_eq(&row).is_none())).collect();
    let kept = filter_record_batch(rows, &keep)
        .and_then(|kept| Ok((kept, tombstones.filter(&keep)?)))
        .map_err(|error| Error::invalid(format!("could not set rows aside: {error}")))?;
    let records = rejected.into_iter().map(|(row, error)| source.record(row, error)).collect();
    Ok((kept.0, kept.1, records))
}
