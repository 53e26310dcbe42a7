//! What a value format implements to be written.
//!
//! Calls through these traits are made for each block of rows, never for each row.

use std::fmt::Debug;

use arrow::datatypes::{Fields, Schema};
use arrow::record_batch::RecordBatch;

use super::ValueSource;
use crate::columnar::read::tombstones::Tombstones;
use crate::columnar::write::bytes_column::BytesColumn;
use crate::columnar::write::encode::WriteOptions;
use crate::columnar::write::prepared::Values;
use crate::columnar::write::shown;
use crate::error::Result;
use crate::types::{PartitionIndex, TimestampMs};

/// How the columns of a table become values.
pub(in crate::columnar) trait WriteFormat {
    /// The columns that are left out of values, or the one column that is the value.
    fn named_columns(&self) -> &[String];

    /// Whether a record holds many rows.
    fn is_many_rows(&self) -> bool {
        false
    }

    /// Refuses columns whose types would be lost.
    ///
    /// # Errors
    /// An invalid argument that names the column.
    fn check_types(&self, _table: &Schema) -> Result<()> {
        Ok(())
    }

    /// The columns that a schema wants; none where values take any, or the schema is not settled.
    ///
    /// # Errors
    /// An invalid argument for types that have no Arrow type.
    fn fields(&self) -> Result<Option<Fields>> {
        Ok(None)
    }

    /// Whether [`Self::settle`] has nothing to do.
    fn is_settled(&self) -> bool {
        true
    }

    /// The format with the schema for the values of a topic and the columns of a table, which is
    /// found or registered; may block. `others` are columns that are not part of values unless the
    /// schema has them.
    ///
    /// # Errors
    /// The registry could not be asked, or does not take the schema.
    fn settle(
        &self,
        _topic: &str,
        _table: &Schema,
        _others: &[String],
    ) -> Result<Option<ValueSource>> {
        Ok(None)
    }

    /// The format for values that come alone: a schema cannot be derived from their columns.
    ///
    /// # Errors
    /// An invalid argument where there is no schema, nor a registry to ask for it.
    fn without_table(&self) -> Result<Option<ValueSource>> {
        Ok(None)
    }

    /// The values of the rows of a table.
    ///
    /// # Errors
    /// An invalid argument for columns that do not exist, or do not match the format.
    fn values(&self, rows: &RecordBatch) -> Result<ValueColumn>;

    /// What combines rows into records of many, if the format does.
    ///
    /// # Errors
    /// An invalid argument for options that do not apply to such records.
    fn combiner(&self, _options: &WriteOptions) -> Result<Option<Box<dyn CombineRows>>> {
        Ok(None)
    }

    /// All rows of a table as one value, if the format combines rows.
    ///
    /// # Errors
    /// An invalid argument for columns that do not match the format.
    fn combined(&self, _rows: &RecordBatch) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// Refuses extension types whose storage means nothing without them, in the columns that are
/// written.
pub(super) fn refuse_storage(table: &Schema, exclude: &[String]) -> Result<()> {
    let mut written = table.fields().iter().filter(|field| !exclude.contains(field.name()));
    written.try_for_each(|field| shown::refuse_storage(field))
}

/// Where the values of rows come from.
pub(in crate::columnar) enum ValueColumn {
    /// Each is null.
    Null,
    /// They are in a column.
    Borrowed(BytesColumn),
    Encoded(Box<dyn EncodeValues>),
}

/// Encodes the values of a table's rows.
pub(in crate::columnar) trait EncodeValues: Send {
    /// Appends the values of the first rows, but for those of tombstones, up to one that cannot be
    /// encoded.
    fn encode(&self, rows: usize, tombstones: &Tombstones, values: &mut Values);
}

/// Encodes the values of rows one by one.
pub(in crate::columnar) trait RowEncoder: Send {
    /// Appends the value of a row.
    ///
    /// # Errors
    /// What is wrong with the row; then some of it may have been appended.
    fn write(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String>;
}

impl<E: RowEncoder> EncodeValues for E {
    fn encode(&self, rows: usize, tombstones: &Tombstones, values: &mut Values) {
        for row in 0..rows {
            if !tombstones.contains(row)
                && let Err(detail) = self.write(row, &mut values.bytes)
            {
                values.bytes.truncate(values.ends.last().copied().unwrap_or(0));
                values.failed = Some(detail);
                return;
            }
            values.ends.push(values.bytes.len());
        }
    }
}

/// Combines rows into records of many.
pub(in crate::columnar) trait CombineRows: Debug + Send + Sync {
    /// Accepts rows; `partitioner` is called once for each record that begins with them.
    ///
    /// # Errors
    /// An invalid argument for columns that do not match the format, or a partition that does not
    /// exist.
    fn push(
        &mut self,
        rows: &RecordBatch,
        options: &WriteOptions,
        now: TimestampMs,
        partitioner: &mut dyn FnMut(Option<&[u8]>, usize) -> PartitionIndex,
    ) -> Result<()>;

    /// Completes the waiting records.
    ///
    /// # Errors
    /// An invalid argument for rows that cannot be put together.
    fn finish(&mut self) -> Result<()>;

    /// The complete records.
    fn take(&mut self) -> Vec<CombinedRecord>;
}

/// A complete record of many rows.
#[derive(Debug)]
pub(in crate::columnar) struct CombinedRecord {
    pub(in crate::columnar) partition: PartitionIndex,
    pub(in crate::columnar) timestamp: TimestampMs,
    pub(in crate::columnar) key: Option<Vec<u8>>,
    pub(in crate::columnar) value: Vec<u8>,
}
