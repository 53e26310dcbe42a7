//! Membership of a consumer group: who a member is to its coordinator, which partitions are its
//! own, and what it must do next.
//!
//! ```text
//!             events (answers, ticks, the caller)          effects (requests, hand-overs)
//!   shell ──────────────────────────────────► machine ────────────────────────────────► shell
//! ```
//!
//! - [`assignor`]: who gets which partition, for the leader of a classic group.
//!
//! The shell is `crate::client::consumer::group`: it finds the coordinator, encodes the requests
//! and reports every answer, a broken connection included, as a plain value.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod assignor;
