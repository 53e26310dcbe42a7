//! The rows of an output that could not be decoded, and where they are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringViewBuilder};
use arrow::datatypes::Int64Type;

use super::assemble::Assembled;
use super::decoder::OnError;
use crate::columnar::columns::KafkaColumn;
use crate::error::{Error, Result};
use crate::types::{Offset, PartitionIndex, TopicPartition};

/// The rows of an output that could not be decoded.
pub(in crate::columnar) struct RowErrors {
    on_error: OnError,
    rows: Vec<(usize, String)>,
}

impl RowErrors {
    pub(in crate::columnar) const fn new(on_error: OnError) -> Self {
        Self { on_error, rows: Vec::new() }
    }

    #[cold]
    pub(in crate::columnar) fn add(
        &mut self,
        what: &'static str,
        row: usize,
        detail: String,
        assembled: &Assembled,
    ) -> Result<()> {
        if self.on_error == OnError::Raise {
            let (partition, offset) = locate(assembled, row);
            let detail = format!("{detail}; on_error= offers other ways to handle such records");
            return Err(Error::Decode { what, partition, offset, detail });
        }
        self.rows.push((row, format!("{what}: {detail}")));
        Ok(())
    }

    /// Maps records to their rows, where those that could not be decoded have one each.
    pub(in crate::columnar) fn move_to(&mut self, records: &[u32]) {
        for (row, _) in &mut self.rows {
            *row = records.partition_point(|record| (*record as usize) < *row);
        }
    }

    /// The rows to leave out, with their errors.
    pub(in crate::columnar) fn take_set_aside(&mut self) -> Vec<(usize, String)> {
        if self.on_error == OnError::SetAside { std::mem::take(&mut self.rows) } else { Vec::new() }
    }

    pub(in crate::columnar) fn column(mut self, rows: usize) -> ArrayRef {
        self.rows.sort_by_key(|(row, _)| *row);
        let mut builder = StringViewBuilder::with_capacity(rows);
        let mut errors = self.rows.into_iter().peekable();
        for row in 0..rows {
            let mut text: Option<String> = None;
            while let Some((_, more)) = errors.next_if(|(at, _)| *at == row) {
                text = Some(text.map_or_else(|| more.clone(), |text| format!("{text}; {more}")));
            }
            builder.append_option(text);
        }
        Arc::new(builder.finish())
    }
}

/// The partition and offset of a row.
pub(in crate::columnar) fn locate(assembled: &Assembled, row: usize) -> (TopicPartition, Offset) {
    let mut left = row;
    let mut found = None;
    for (partition, rows) in &assembled.origins {
        if left < *rows {
            found = Some(partition.clone());
            break;
        }
        left = left.saturating_sub(*rows);
    }
    let offset = assembled
        .filled
        .column(KafkaColumn::Offset)
        .map(AsArray::as_primitive::<Int64Type>)
        .filter(|offsets: &&Int64Array| row < offsets.len())
        .map_or(Offset::UNKNOWN, |offsets| Offset(offsets.value(row)));
    (found.unwrap_or_else(|| TopicPartition::new("", PartitionIndex::NONE)), offset)
}
