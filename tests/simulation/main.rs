//! The log on a simulated disk: model, crashes at every call, bit rot, full disk; the group coordinator with
//! clients, network and log; and a whole broker with its clients.
//!
//! A run is a function of its seed; a failing assertion prints it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "test code"
)]

#[path = "../support/log.rs"]
mod support;

mod broker;
mod compaction;
mod consumer_groups;
mod epochs;
mod faults;
mod groups;
mod model;
mod network;
mod power;
mod truncation;
