//! Black-box tests of a broker over real sockets.
//!
//! Each test starts its own broker on a free port. `support` has the broker, a small client that
//! speaks our own codec, and builders of batches; `independent` uses a codec that is not ours.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::default_trait_access,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may stop at the first surprise"
)]

mod admin;
mod cluster;
mod compaction;
mod fetching;
mod groups;
mod hostile;
mod hostile_transactions;
mod independent;
mod joining;
mod lifecycle;
mod producing;
mod settings;
#[cfg(feature = "sim")]
mod stalled_disk;
mod support;
#[path = "../support/three.rs"]
mod three;
mod tier;
mod topics;
mod transactions;
mod transactions_of_three;
#[path = "../support/wire_client.rs"]
mod wire_client;
