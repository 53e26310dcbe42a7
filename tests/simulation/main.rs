//! The log on a simulated disk: model, crashes at every call, bit rot, full disk; and a whole broker with its
//! clients.
//!
//! A run is a function of its seed; a failing assertion prints it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::large_futures,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "test code"
)]

#[path = "../support/history/mod.rs"]
mod history;
#[path = "../support/log.rs"]
mod support;

mod broker;
mod cluster;
mod compaction;
mod epochs;
mod faults;
mod histories;
mod model;
mod network;
mod power;
mod report;
mod transactional;
mod transactions;
mod truncation;
