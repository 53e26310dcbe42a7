//! The log on the real file system: what it accepts, what it serves, what it leaves on disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "test code"
)]

#[path = "../support/log.rs"]
mod support;

mod append;
mod beginning;
mod directory;
mod dump_log;
#[path = "../support/kafka.rs"]
mod kafka;
mod mapped;
mod retention;
