//! Rows whose values are made, ready to be put into batches.
//!
//! Making values (JSON, Avro, Protobuf) is most of the work of writing a table, and no value depends on
//! another; so it may be done for many blocks of rows at once, on any thread. Which batch a record goes
//! into does depend on those before it: [`crate::columnar::Encoder::push_prepared`] takes the blocks in order.

use arrow::record_batch::RecordBatch;

use super::encode::WriteOptions;
use super::sources::Sources;
use crate::columnar::formats::target::ValueSource;
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
    /// Records have many rows, which are put together first.
    Streams(RecordBatch),
    Rows(Box<Sources>, Values),
    /// The columns do not fit.
    Failed(Error),
}

/// The values of rows.
#[derive(Default)]
pub(in crate::columnar) struct Values {
    /// Whether they were made; those of a column are borrowed from it.
    made: bool,
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// The rows whose values are null instead.
    tombstones: Tombstones,
    /// Why there are no more.
    failed: Option<String>,
}

impl Values {
    fn new(sources: &mut Sources, rows: usize, tombstones: &Tombstones) -> Self {
        let (made, tombstones) = (sources.value.is_made(), tombstones.clone());
        let mut values = Self { made, tombstones, ..Self::default() };
        if values.made {
            values.ends.reserve(rows);
            for row in 0..rows {
                if values.tombstones.contains(row) {
                    values.ends.push(values.bytes.len());
                    continue;
                }
                if let Err(detail) = sources.value.read(row) {
                    values.failed = Some(detail);
                    break;
                }
                values.bytes.extend_from_slice(sources.value.current(row).unwrap_or_default());
                values.ends.push(values.bytes.len());
            }
        }
        values
    }

    /// The value of a row.
    ///
    /// # Errors
    /// Why it could not be made.
    #[inline]
    pub(in crate::columnar) fn get<'a>(
        &'a self,
        sources: &'a Sources,
        row: usize,
    ) -> Result<Option<&'a [u8]>, String> {
        if !self.made {
            return Ok(sources.value.current(row));
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
            _ if matches!(options.value, ValueSource::ArrowIpc(_)) => {
                if tombstones.any() {
                    Kind::Failed(no_row())
                } else {
                    Kind::Streams(rows.clone())
                }
            }
            Ok(mut sources) => {
                let values = Values::new(&mut sources, rows.num_rows(), tombstones);
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
            Kind::Streams(_) | Kind::Failed(_) => 0,
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
