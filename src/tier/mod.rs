//! The tier: closed segments as Parquet, and back.
//!
//! A closed segment that lies wholly below the last stable offset becomes one file that Kafka consumers, `scan` and every
//! reader of Parquet share. It is meant to be the only copy of cold data, so the file gives back every batch, and says so
//! if it does not.
//!
//! ```text
//! topic=orders/partition=0/00000000000000000000-00000000000000131071-….parquet
//! ┌──────┬──────────────┬───────────┬──────────────┬─────┬─────────────────┬────────────┬────────┐
//! │ PAR1 │ raw batches  │ row group │ raw batches  │ ... │ private section │ page index │ footer │
//! └──────┴──────────────┴───────────┴──────────────┴─────┴─────────────────┴────────────┴────────┘
//!        └── a group ───────────────┘                     batch table, producers,
//!  └──────────── checksums of 64 KiB ──────────────┘      epochs, aborted transactions,
//!                                                         checksums, directory
//! ```
//!
//! # Invariants
//!
//! - `TIER-1` Rows are records that are committed, of every such record one, in the order of their offsets.
//! - `TIER-2` What a consumer gets is what it got from the log: the bytes of the batch, or for a batch that was compressed
//!   its records. Of a batch with `LogAppendTime` the times that the producer had set, which nobody is shown, are not kept.
//!   Whatever does not come back like this from rows is kept as it was, beside them.
//! - `TIER-3` Before a file counts it is read back and compared with the log ([`compare`]).
//! - `TIER-4` No byte is used that was not compared with a checksum: what is damaged is an error that names the file
//!   and the place.
//! - `TIER-5` The private section is behind the rows, and found by an entry of the footer: to any other reader the file is
//!   plain Parquet.
//! - `TIER-11` Nothing depends on typed columns: no value, however odd, keeps a file from being made, and a file is read and
//!   compared without them.
//!
//! The module is synchronous, and does no I/O of its own: a [`Source`] reads.

mod aborted;
mod blocks;
mod delta_lake;
mod footer;
pub mod names;
mod numbers;
mod reader;
mod rows;
mod schema;
mod section;
mod table;
mod values;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use aborted::AbortedRanges;
pub use blocks::{Source, read_range};
pub use delta_lake::delta_schema;
pub use reader::{GroupExtent, TierFile};
pub use section::{About, Totals};
pub use values::{ValueReport, ValueSchema};
pub use verify::{check, compare};
pub use writer::{AtEnd, Segment, SegmentWriter};
