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

#[cfg(test)]
pub(in crate::columnar) use read::Room;
pub(in crate::columnar) use read::{IpcDecoder, IpcProbe};
pub use write::{IpcCompression, IpcTarget};
pub(in crate::columnar) use write::{Streams, one_stream};

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
