//! The server: sockets, dispatch, handlers, partitions and the metadata quorum.
//!
//! Why: this is the shell around the pure parts. It owns every task, thread, socket and open log
//! of a broker; decisions are made in [`crate::machine`] and [`crate::log`], and the bytes on the
//! wire are understood in [`crate::protocol`].
//!
//! Invariants:
//! - `BROKER-1` a broker that was started is stopped by [`Broker::shutdown`], or by being dropped:
//!   no thread, task or lock file of it outlives that.
//! - `BROKER-2` nothing here panics on what a client sends: a panic in a handler answers that one
//!   request with `UNKNOWN_SERVER_ERROR`, and is logged.
//! - `BROKER-3` every queue between two tasks has a bound, and every wait has an end.
//!
//! ```text
//! listener -> connection -> dispatch -> handlers/* -> partition -> log threads -> log
//!                 ^                         |             |
//!                 +------- purgatory <------+<- high watermark advances
//! ```

mod blocking;
mod boot;
mod change;
mod cleaner;
mod connection;
mod coordinator;
mod crash_watch;
mod dispatch;
mod frame_reader;
mod frame_writer;
mod full_disk;
mod handlers;
mod joining;
mod link;
mod listener;
mod log_threads;
mod maintenance;
mod membership;
mod memory;
mod metadata_log;
mod nodes;
mod options;
mod parallel;
mod parking;
mod partition;
mod partitions;
mod phase;
mod publisher;
pub mod quorum;
mod receive_buffers;
mod reception;
mod replication;
mod server;
mod state;
mod storage;
mod tier;
mod transactions;
mod unserved;
mod watchdog;
mod watched;
mod words;

pub use options::BrokerOptions;
pub use server::Broker;

pub use crate::env::Links;
