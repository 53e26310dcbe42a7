//! Arrow IPC streams as values: a record holds a schema and the rows of one batch or several.
//!
//! Reading gives each row the offset, the key and so on of its record; writing is the reverse, and
//! puts rows together into records: those of one partition, and of one key where there are keys,
//! in their order, up to a number of rows and the size of a record batch. What is written is read
//! back as the same rows.
//!
//! Invariant **IP-1**: lengths inside of a value, those of compressed buffers as well, are compared
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
