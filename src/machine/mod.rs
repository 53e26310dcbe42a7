//! Every decision, without I/O.
//!
//! A machine is a value that is told what happened and what time it is, and answers with what
//! should be done. It reads no clock, no disk and no socket, and uses no randomness other than
//! its seed, so that a run can be repeated exactly: tests drive it directly, and a simulator
//! drives many of them for millions of steps.
//!
//! Invariants of everything below this module:
//!
//! - MACHINE-1: no async, no `env`, no wire structs; collections have an order (no `HashMap`).
//! - MACHINE-2: time is an argument; a timer is state, reported by [`Machine::next_deadline`].
//! - MACHINE-3: what must survive changes only in [`Replicated::apply`].

use crate::types::TimestampMs;

pub mod client;
pub mod controller;
pub mod coordinator;
pub mod fetch_session;
pub mod group;
pub mod metadata;
mod pattern;
pub mod purgatory;
pub mod quorum;
pub mod replica;
pub mod replication_quota;
pub mod tier;
pub mod transaction;

/// Events and time in, effects out.
pub trait Machine {
    /// What can happen to it.
    type Event;
    /// What it asks its shell to do.
    type Effect;

    /// Takes one event. `out` gets the effects in the order in which they must be carried out.
    fn step(&mut self, now: TimestampMs, event: Self::Event, out: &mut Vec<Self::Effect>);

    /// When it must be stepped again at the latest; `None` when it only waits for an event.
    fn next_deadline(&self) -> Option<TimestampMs>;
}

/// A machine whose hard state is the sum of a log of records.
///
/// It proposes records; its shell appends them, and calls `apply` with each in the order of the log. Soft state (who
/// waits, when a session ends) may change otherwise and disappears with the leadership.
pub trait Replicated {
    /// One record of the log.
    type Record;
    /// Why a record cannot be applied.
    type Error;

    /// Takes one record of the log.
    ///
    /// # Errors
    ///
    /// The record does not fit the state: the log is damaged, or from a newer version.
    fn apply(&mut self, record: &Self::Record) -> Result<(), Self::Error>;
}
