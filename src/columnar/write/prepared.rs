//! Rows whose values are made, ready to be put into batches.
//!
//! Making values (JSON, Avro, Protobuf) is most of the work of writing a table, and no value depends on
//! another; so it may be done for many blocks of rows at once, on any thread. Which batch a record goes
//! into does depend on those before it: [`crate::columnar::Encoder::push_prepared`] takes the blocks in order.

use arrow::record_batch::RecordBatch;

use super::encode::WriteOptions;
use super::sources::Sources;
use crate::columnar::formats::writing::ValueColumn;
use crate::columnar::read::tombstones::Tombstones;
use crate::error::Error;

/// Some rows of a table with their values.
pub struct Prepared {
    pub(in crate::columnar) rows: usize,
    pub(in crate::columnar) kind: Kind,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Prepared").field("rows", &self.rows).finish_non_exhaustive()
    }
}

pub(in crate::columnar) enum Kind {
    /// Records have many rows, which are combined first.
    Many(RecordBatch),
    Rows(Box<Sources>, Values),
    /// The columns do not fit.
    Failed(Error),
}

/// The values of rows that were encoded.
#[derive(Default)]
pub(in crate::columnar) struct Values {
    pub(in crate::columnar) bytes: Vec<u8>,
    /// Where each ends.
    pub(in crate::columnar) ends: Vec<usize>,
    /// Why there are no more.
    pub(in crate::columnar) failed: Option<String>,
    /// The rows whose values are null instead.
    tombstones: Tombstones,
}

impl Values {
    pub(super) fn new(column: &ValueColumn, rows: usize, tombstones: &Tombstones) -> Self {
        let mut values = Self::default();
        if let ValueColumn::Encoded(encoder) = column {
            values.tombstones = tombstones.clone();
            values.ends.reserve(rows);
            encoder.encode(rows, tombstones, &mut values);
        }
        values
    }

    /// The value of a row.
    ///
    /// # Errors
    /// Why it could not be encoded.
    #[inline]
    pub(in crate::columnar) fn get<'a>(
        &'a self,
        column: &'a ValueColumn,
        row: usize,
    ) -> Result<Option<&'a [u8]>, String> {
        match column {
            ValueColumn::Null => return Ok(None),
            ValueColumn::Borrowed(column) => return Ok(column.get(row)),
            ValueColumn::Encoded(_) => {}
        }
        if self.tombstones.contains(row) {
            return Ok(None);
        }
        let Some(&end) = self.ends.get(row) else {
            return Err(self.failed.clone().unwrap_or_default());
        };
        let start = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        Ok(self.bytes.get(start.unwrap_or(0)..end))
    }
}

impl Prepared {
    /// Makes the values of some rows, for an encoder with the same options; those of tombstones are
    /// null, unless a column of its own has the values. What does not fit is told when they are pushed.
    #[must_use]
    pub fn new(rows: &RecordBatch, tombstones: &Tombstones, options: &WriteOptions) -> Self {
        let kind = match Sources::new(rows, options) {
            _ if options.value.is_many_rows() => {
                if tombstones.any() {
                    Kind::Failed(no_row())
                } else {
                    Kind::Many(rows.clone())
                }
            }
            Ok(sources) => {
                let values = Values::new(&sources.value, rows.num_rows(), tombstones);
                Kind::Rows(Box::new(sources), values)
            }
            Err(error) => Kind::Failed(error),
        };
        Self { rows: rows.num_rows(), kind }
    }

    /// The bytes of the values that were made.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Rows(_, values) => values.bytes.len(),
            Kind::Many(_) | Kind::Failed(_) => 0,
        }
    }
}

#[cold]
fn no_row() -> Error {
    Error::invalid(
        "a row comes from a tombstone, a record without a value, which cannot be one of the many rows \
         of an Arrow IPC stream: write it with another format, or copy the raw values of the topic",
    )
}
