//! Record batches to Arrow and back.
//!
//! Decoding: [`Decoder`] takes [`FetchedBytes`]s (fetched or mapped bytes of a partition, and a range of
//! offsets) and gives Arrow record batches of about ten thousand rows. Keys and values are views
//! into the very bytes that were fetched; a column that is not asked for costs nothing. Values can
//! be decoded to text or to the typed fields of JSON objects. Encoding: [`Encoder`] turns rows of
//! Arrow columns into record batches per partition, column-wise, without an object per record.
//!
//! ```text
//!         FetchedBytes                  Filled                      Decoded
//! bytes ──► assemble ──► decode ──► Kafka columns ──► decoder ──► RecordBatch, progress
//!           (batches)   (records)   (views)           (JSON, text, layout)
//!
//! RecordBatch ──► encode ──► (key, value, headers, partition) ──► record::BatchBuilder ──► bytes
//! ```
//!
//! Memory: an array keeps the buffers alive that its views point into, whoever made them; that is
//! a fetch response, a mapped segment, or the decompressed records of a batch. [`nbytes`] says how
//! much that is, and [`compact`] copies rows out of it. Pure code: no I/O, no clock, no async.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "columns move between the formats' i32, i64 and memory sizes; sizes are bounded first"
)]

mod columns;
mod convert;
mod formats;
mod read;
pub mod types;
mod write;

pub use columns::{KafkaColumn, Projection};
pub use convert::{compact, nbytes, plain_type, to_plain};
pub use formats::avro::{AvroFormat, AvroSchema, AvroTarget};
pub use formats::debezium::{DebeziumFormat, DecimalStrings};
pub use formats::ipc::{IpcCompression, IpcFormat, IpcTarget};
pub use formats::json::clock::time as parse_time;
pub use formats::json::explain::{excerpt, not_json};
pub use formats::json::write::NonFinite;
pub use formats::json::{Extra, JsonFormat, JsonTarget};
pub use formats::protobuf::{ProtobufFormat, ProtobufSchema, ProtobufTarget};
pub use formats::registry::{
    Framing, ReaderSchema, Registered, SchemaId, SchemaKind, SchemaReference, SchemaRequest,
    SchemaSource,
};
pub use formats::{ValueDecoder, ValueFormat, ValueSource};
pub use read::assemble::{AbortedTransaction, FetchedBytes, PartitionProgress};
pub use read::block::{Block, BlockOutcome};
pub use read::decoder::{DecodeOptions, Decoded, Decoder, KeyFormat, Looked, OnError, Step, Taken};
pub use read::headers::HeaderField;
pub use read::layout::{KAFKA_STRUCT, TOMBSTONE_COLUMN, VALUE_RAW_COLUMN};
pub use read::rejected::Rejected;
pub use read::tombstones::Tombstones;
pub use read::unpack::Unpack;
pub use write::encode::{
    EncodedBatch, Encoder, FullBatch, HeaderSource, PartitionSource, WriteOptions,
};
pub use write::prepared::Prepared;
pub use write::single::{encode_value, put_json, put_json_string};

#[cfg(test)]
mod tests;
