//! Record batches (magic 2) as bytes: the one form in which records travel, are stored and are
//! read.
//!
//! A batch is the same bytes in a produce request, in a segment, in the page cache and in a fetch
//! response. This module reads and writes those bytes; it never does I/O, knows no clock and
//! keeps no state.
//!
//! ```text
//!  0         8        12        16    17     21     23      27         35
//!  ├─────────┼─────────┼─────────┼─────┼──────┼──────┼───────┼──────────┼──────────┐
//!  │  base   │  batch  │ leader  │magic│ CRC- │ attri│ last  │   base   │   max    │
//!  │ offset  │ length  │  epoch  │ = 2 │ 32C  │ butes│ offset│timestamp │timestamp │
//!  │   i64   │   i32   │   i32   │ i8  │ u32  │ i16  │delta  │   i64    │   i64    │
//!  └─────────┴─────────┴─────────┴─────┴──────┴──────┴───────┴──────────┴──────────┘
//!  43        51      53         57      61
//!  ├─────────┼────────┼──────────┼───────┼──────────────────────────────────────────┐
//!  │producer │producer│   base   │record │ records, compressed as one block         │
//!  │   id    │ epoch  │ sequence │ count │ when bits 0-2 of the attributes say so   │
//!  └─────────┴────────┴──────────┴───────┴──────────────────────────────────────────┘
//! ```
//!
//! Invariants:
//!
//! - **RB-1** The CRC covers everything from the attributes on. Base offset and leader epoch lie
//!   outside, so a broker assigns both without another pass over the data.
//! - **RB-2** Nothing is allocated on the strength of the input alone: every length and count
//!   is compared with the bytes that are present, and decompression grows step by step to its
//!   limit.
//! - **RB-3** Reading hostile bytes ends in an error, never in a panic or an endless loop. Errors
//!   carry Kafka's code: `CORRUPT_MESSAGE` for damaged bytes, `INVALID_RECORD` for a batch that is
//!   intact but not acceptable, `UNSUPPORTED_FOR_MESSAGE_FORMAT` for magic 0 and 1.
//!
//! Called by `log` (append, recovery, compaction), `client` (producer, consumer), `columnar` and
//! the record-level parts of `machine`.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the codec moves between the format's i32, i64 and memory sizes; each place that a \
              hostile number can reach compares it with the bytes that are there first"
)]

mod batch;
mod builder;
mod compression;
pub mod control;
mod header;
mod rebuild;
mod validate;
mod walk;

pub use batch::{Batch, Batches, Header, Headers, RecordView, Records, RecordsIter, Truncated};
pub use builder::{BatchBuilder, BatchOptions, record_size_upper_bound};
pub use compression::{Codec, Compression, Decompressor, compress, decompress};
pub use header::{
    Attributes, BatchHeader, HEADER_SIZE, LENGTH_PREFIX_SIZE, TimestampType,
    patch_base_offset_and_epoch, patch_max_timestamp, patch_producer, patch_transaction, peek_size,
};
pub use rebuild::BatchRebuilder;
pub use validate::{AppendFacts, AppendRules, validate_for_append};
pub(crate) use walk::ShortRecord;
pub use walk::{RawRecord, WalkError, Walker, check_headers};

#[cfg(test)]
mod tests;
