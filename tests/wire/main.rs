//! The wire against others: Kafka's own definitions, another implementation, hostile bytes.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::cast_possible_truncation,
    reason = "a test may stop at the first surprise, and is read rather than called"
)]

mod allocation;
mod catalog;
mod conformance;
mod differential;
mod golden;
#[path = "../support/kafka.rs"]
mod kafka;
mod random;
