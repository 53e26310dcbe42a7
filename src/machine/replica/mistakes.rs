//! Mistakes that tests plant in the machine, one at a time, to show that its properties find them, and that simulated
//! clusters do.

use std::cell::Cell;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
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
    /// The controller takes a broker that lost records for one that has everything.
    TrustsLostCopies,
}

impl Mistake {
    /// Those of a replica; the last one is the controller's, and found by brokers that lose their power.
    pub const ALL: [Self; 9] = [
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
    static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
}

/// Plants a mistake on this thread, or takes it back.
pub fn plant(mistake: Option<Mistake>) {
    PLANTED.set(mistake);
}

pub(crate) fn is_planted(mistake: Mistake) -> bool {
    PLANTED.get() == Some(mistake)
}
