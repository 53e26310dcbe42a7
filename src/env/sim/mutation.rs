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
    /// A leader's high watermark moves while the ISR is smaller than it must be.
    CommitsBelowMinIsr,
    /// A leader's high watermark is its log end, whatever the followers have.
    CommitsLogEnd,
    /// Who is about to join the ISR does not count before the controller has said so.
    IgnoresPendingIsr,
    /// A leader does not wait for a follower that is about to join.
    LeavesJoiningBehind,
    /// A follower joins the ISR before it has come to the start of the leader's epoch.
    JoinsBeforeEpochStart,
    /// A follower joins the ISR whoever it is registered as.
    TrustsAnyBroker,
    /// A leader forgets what it knows of its followers whenever the metadata changes.
    ForgetsFollowers,
    /// A follower's high watermark is its leader's, also beyond its own log.
    BelievesLeader,
    /// A follower cuts what is committed.
    CutsCommitted,
}

impl Mutation {
    /// Those that one broker alone can make.
    pub const ALL: [Self; 7] = [
        Self::AcknowledgesBeforeSync,
        Self::ShowsBeforeSync,
        Self::IgnoresFailedSync,
        Self::TrustsTornTail,
        Self::AppendsDuplicates,
        Self::ForgetsMetadata,
        Self::ForgetsOffsets,
    ];

    /// Those of a replica among others, which the properties of `machine/replica` find.
    pub const OF_REPLICAS: [Self; 9] = [
        Self::CommitsBelowMinIsr,
        Self::CommitsLogEnd,
        Self::IgnoresPendingIsr,
        Self::LeavesJoiningBehind,
        Self::JoinsBeforeEpochStart,
        Self::TrustsAnyBroker,
        Self::ForgetsFollowers,
        Self::BelievesLeader,
        Self::CutsCommitted,
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
