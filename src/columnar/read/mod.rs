//! From fetched bytes to Arrow record batches.
//!
//! ```text
//! assemble ──► decode ──► output ──► decoder
//! (batches)   (records)   (rows)    (what scans and consumers use)
//! ```
//!
//! `assemble` cuts batches into outputs and `decode` fills their Kafka columns; `output` lets the value format decode
//! the values, judges errors and lays the columns out; `block` does that on other threads.

pub(super) mod assemble;
pub(super) mod block;
pub(super) mod decode;
pub(super) mod decoder;
pub(super) mod headers;
pub(super) mod layout;
pub(super) mod output;
pub(super) mod rejected;
pub(super) mod row_errors;
pub(super) mod tombstones;
pub(super) mod unpack;
