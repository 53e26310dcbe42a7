//! Record batches to Arrow and back.
//!
//! Decoding: [`Decoder`] takes [`Chunk`]s (fetched or mapped bytes of a partition, and a range of
//! offsets) and gives Arrow record batches of about ten thousand rows. Keys and values are views
//! into the very bytes that were fetched; a column that is not asked for costs nothing. Values can
//! be decoded to text or to the typed fields of JSON objects. Encoding: [`Encoder`] turns rows of
//! Arrow columns into record batches per partition, column-wise, without an object per record.
//!
//! ```text
//!            Chunk                     Filled                      Decoded
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

mod assemble;
mod avro;
mod block;
mod builder;
mod bytes_column;
mod cells;
mod columns;
mod convert;
mod debezium;
mod decode;
mod decoder;
mod encode;
mod fail;
mod headers;
mod ipc;
mod json;
mod layout;
mod output;
mod prepared;
mod protobuf;
mod registry;
mod rejected;
mod row_errors;
mod rows;
mod shown;
mod single;
mod sources;
mod target;
mod tombstones;
mod unpack;
mod values;
mod varint;

pub use assemble::{AbortedTransaction, Chunk, PartitionProgress};
pub use avro::{AvroFormat, AvroSchema};
pub use block::{Block, BlockOutcome};
pub use columns::{KafkaColumn, Projection};
pub use convert::{compact, nbytes, plain_type, to_plain};
pub use debezium::{DebeziumFormat, DecimalStrings};
pub use decoder::{DecodeOptions, Decoded, Decoder, KeyFormat, Looked, OnError, Step, Taken};
pub use encode::{EncodedBatch, Encoder, FullBatch, HeaderSource, PartitionSource, WriteOptions};
pub use headers::HeaderField;
pub use ipc::{IpcCompression, IpcFormat, IpcTarget};
pub use json::clock::time as parse_time;
pub use json::explain::{excerpt, not_json};
pub use json::write::NonFinite;
pub use json::{Extra, JsonFormat};
pub use layout::{KAFKA_STRUCT, TOMBSTONE_COLUMN, VALUE_RAW_COLUMN};
pub use prepared::Prepared;
pub use protobuf::{ProtobufFormat, ProtobufSchema};
pub use registry::{
    ReaderSchema, Registered, SchemaId, SchemaKind, SchemaReference, SchemaRequest, SchemaSource,
};
pub use rejected::Rejected;
pub use single::{encode_value, put_json, put_json_string};
pub use target::{AvroTarget, Framing, ProtobufTarget, ValueSource};
pub use tombstones::Tombstones;
pub use unpack::Unpack;
pub use values::ValueFormat;

#[cfg(test)]
mod encode_tests;

#[cfg(test)]
mod tests;
