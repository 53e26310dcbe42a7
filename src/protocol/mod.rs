//! Kafka's wire protocol, without I/O: bytes to messages and back, for the server and the client.
//!
//! The wire is what other programs see of ottla, so it is described once, as data: `messages`
//! holds one table per message (field, type, versions, nullability, tags, defaults), from which
//! `message!` generates the struct, its encoder and its decoder; [`api`] holds the single table of
//! APIs, with the versions that are served; `records` holds the structures kept in opaque bytes.
//!
//! ```text
//! socket bytes -> frame::split -> header::RequestHeader -> api::Request -> Service
//! socket bytes <- Vec<Chunk>   <- header::ResponseHeader <- api::Response <-'
//! ```
//!
//! Invariants:
//! - WIRE-1: decoding never allocates more than [`primitives::BUDGET_FACTOR`] times the bytes
//!   received (and a small constant): every length and count is checked against what remains,
//!   and collections are charged to a budget before they are reserved.
//! - WIRE-2: strings, bytes and record sets are slices of the received frame, not copies; record
//!   sets are spliced into an outgoing message without a copy.
//! - WIRE-3: a value that a version cannot carry is an error when it is encoded, unless Kafka
//!   declares the field ignorable.
//! - WIRE-4: whatever the bytes are, decoding ends with a message or an
//!   [`Error`](crate::error::Error), never with a panic.
//!
//! It knows no clock, no socket and no broker. The meaning of a field is the handlers' business.

#[macro_use]
mod table;

pub mod api;
pub mod frame;
pub mod header;
pub mod messages;
pub mod primitives;
pub mod records;
pub mod schema;
pub mod service;

pub use api::{ApiKey, Request, Response};
pub use header::{RequestHeader, ResponseHeader};
pub use primitives::{Decoder, Encoder, Records, Str};
pub use schema::Message;
pub use service::{Service, ServiceFuture};
