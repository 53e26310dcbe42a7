//! Arrow IPC streams as values: a record contains a schema and the rows of one or several batches.
//!
//! Reading gives each row the offset, the key and so on of its record; writing is the reverse, and
//! combines rows into records: rows of the same partition and, where there are keys, of the same
//! key, in order, up to a number of rows and the size of a record batch. What is written is read
//! back as the same rows.
//!
//! Invariant **IP-1**: lengths within a value, including those of compressed buffers, are compared
//! with its size or a bound before Arrow's reader sees it, so that a small value takes little
//! memory and damage is an error of its record. What is written passes the same check.

mod fit;
mod read;
mod write;

#[cfg(test)]
mod tests;

use arrow::datatypes::Fields;
use arrow::record_batch::RecordBatch;

use super::ValueFormat;
use super::json::all_nullable;
use super::reading::{DecodeValues, Probe, ReadFormat};
use super::writing::{CombineRows, ValueColumn, WriteFormat};
use crate::columnar::write::encode::WriteOptions;
use crate::error::{Error, Result};
use read::IpcProbe;
use write::{Streams, one_stream};

pub(in crate::columnar) use read::IpcDecoder;
#[cfg(test)]
pub(in crate::columnar) use read::Room;
pub use write::IpcCompression;

/// How Arrow IPC streams are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpcFormat {
    /// The columns; those of the first value when none.
    pub fields: Option<Fields>,
    /// Whether the columns were found in values: then a value with others is an error.
    pub found: bool,
}

impl IpcFormat {
    /// Streams with these columns; others are not read.
    #[must_use]
    pub const fn given(fields: Fields) -> Self {
        Self { fields: Some(fields), found: false }
    }

    /// Streams whose columns are those of the first value.
    #[must_use]
    pub const fn inferred() -> Self {
        Self { fields: None, found: false }
    }
}

impl ReadFormat for IpcFormat {
    fn is_settled(&self) -> bool {
        self.fields.is_some()
    }

    fn is_many_rows(&self) -> bool {
        true
    }

    /// What is not a stream is still an error.
    fn columnless(&self) -> ValueFormat {
        ValueFormat::ArrowIpc(Self::given(Fields::empty()))
    }

    fn probe(&self) -> Result<Box<dyn Probe>> {
        Ok(Box::<IpcProbe>::default())
    }

    fn fields(&self) -> Result<Option<Fields>> {
        Ok(self.fields.as_ref().map(all_nullable))
    }

    fn decoder(&self, wanted: &[usize]) -> Result<Box<dyn DecodeValues>> {
        let fields = self.fields.clone().unwrap_or_else(Fields::empty);
        Ok(Box::new(IpcDecoder::new(&fields, self.found, wanted)))
    }
}

/// How streams are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpcTarget {
    /// The columns to leave out.
    pub exclude: Vec<String>,
    /// The most rows in a record.
    pub max_rows: usize,
    /// How buffers are compressed.
    pub compression: Option<IpcCompression>,
}

impl WriteFormat for IpcTarget {
    fn named_columns(&self) -> &[String] {
        &self.exclude
    }

    fn is_many_rows(&self) -> bool {
        true
    }

    fn values(&self, _rows: &RecordBatch) -> Result<ValueColumn> {
        Err(Error::invalid("an Arrow IPC stream is a value of many rows"))
    }

    fn combiner(&self, options: &WriteOptions) -> Result<Option<Box<dyn CombineRows>>> {
        Ok(Some(Box::new(Streams::new(self, options)?)))
    }

    fn combined(&self, rows: &RecordBatch) -> Result<Option<Vec<u8>>> {
        one_stream(rows, self).map(Some)
    }
}
