//! From the rows of Arrow tables to record batches.
//!
//! `sources` says which columns are the parts of records, the target of the value format makes the values, and `encode`
//! puts the records into batches, one for each partition.

pub(super) mod bytes_column;
pub(super) mod cells;
pub(super) mod encode;
pub(super) mod prepared;
pub(super) mod shown;
pub(super) mod single;
pub(super) mod sources;

#[cfg(test)]
mod encode_tests;
