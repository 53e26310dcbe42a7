//! The same client cases against our broker and against Apache Kafka: a difference is a bug.
//!
//! Peers: our broker, in-process and over TCP, always; Apache Kafka where `OTTLA_CONFORMANCE_SERVERS` names a
//! running one (`host:port`). Every case creates its own topics, so cases can run side by side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures,
    clippy::too_many_lines,
    reason = "a test may stop at the first surprise"
)]

mod admin;
mod batches;
mod compare;
mod difference_table;
mod differences;
mod groups;
#[path = "../support/page.rs"]
mod page;
mod peers;
mod produce;
mod scan;
mod transcript;
mod wire_classic;
mod wire_cluster;
mod wire_configs;
mod wire_consumer;
mod wire_fetch;
mod wire_logs;
mod wire_metadata;
mod wire_offsets;
mod wire_produce;
mod wire_topics;
