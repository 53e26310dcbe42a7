//! ottla: an event-streaming engine that speaks Apache Kafka's protocol on both sides.
//!
//! The layers, from the top; a module imports only from lines below its own (enforced
//! by `tests/tidy`):
//!
//! ```text
//! python                                   the extension module, thin
//! cli                                      the command line, thin
//! broker                                   async shell: sockets, handlers, partitions, quorum
//! archive                                  topics as files in the layout of the tier
//! client                                   async: connections, producer, consumer, scan, admin
//! tier                                     closed segments as Parquet, and back
//! machine | columnar | log                 decisions | batches to Arrow | a partition on disk
//! protocol | record | config | env         wire | record batches | settings | clock and disk
//! types, error                             the words
//! ```

pub mod archive;
pub mod broker;
pub mod cli;
pub mod client;
pub mod columnar;
pub mod config;
mod connection;
pub mod env;
pub mod error;
pub mod log;
pub mod machine;
pub mod manual;
pub mod protocol;
#[cfg(feature = "python")]
pub mod python;
pub mod record;
pub mod store;
pub mod tier;
pub mod types;
