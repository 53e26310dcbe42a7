//! Faults planted in the product, so that a test can show that the simulation finds them.
//!
//! The code that asks [`is_planted`] is compiled with feature `sim` only. A fault is planted for one thread: a
//! simulated run has no other.

use std::cell::Cell;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A record is acknowledged when it is written, whatever its durability.
    AcknowledgesBeforeSync,
    /// The high watermark is the end of the log, also before that is synced.
    ShowsBeforeSync,
    /// A sync that failed counts as one.
    IgnoresFailedSync,
    /// A batch at the end of the log is taken for whole after a crash.
    TrustsTornTail,
    /// What a producer sends once more is appended once more.
    AppendsDuplicates,
    /// The metadata log is not synced.
    ForgetsMetadata,
    /// A coordinator answers, and does not write what it decided.
    ForgetsOffsets,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::AcknowledgesBeforeSync,
        Self::ShowsBeforeSync,
        Self::IgnoresFailedSync,
        Self::TrustsTornTail,
        Self::AppendsDuplicates,
        Self::ForgetsMetadata,
        Self::ForgetsOffsets,
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Plants a fault on this thread, or takes it back.
pub fn plant(mutation: Option<Mutation>) {
    PLANTED.set(mutation);
}

/// Whether this fault is planted.
#[must_use]
pub fn is_planted(mutation: Mutation) -> bool {
    PLANTED.get() == Some(mutation)
}
