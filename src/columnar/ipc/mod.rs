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

mod read;
mod write;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use read::Room;
pub(super) use read::{IpcDecoder, fields_of};
pub use write::{IpcCompression, IpcTarget};
pub(super) use write::{Streams, one_stream};
