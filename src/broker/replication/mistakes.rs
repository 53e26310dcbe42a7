//! Mistakes that the tests plant in copying, one at a time, to show that they find them.

#![cfg_attr(
    not(feature = "sim"),
    expect(dead_code, reason = "the tests that plant them are simulated")
)]

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Mistake {
    /// An answer is taken wherever the log stands by now, in whatever epoch.
    TakesLateAnswers,
    /// A copy that diverges is not cut.
    KeepsDivergence,
    /// The next fetch does not wait for the sync of what was copied.
    FetchesBeforeSync,
    /// A follower remembers epochs that began here and have no records.
    KeepsEmptyEpochs,
    /// A leader takes a fetch for news of its follower although the logs diverge.
    TrustsDiverged,
}

thread_local! {
    static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
}

/// Plants a mistake for the tests of this thread, or takes it back.
pub(super) fn plant(mistake: Option<Mistake>) {
    PLANTED.set(mistake);
}

pub(in crate::broker) fn is_planted(mistake: Mistake) -> bool {
    PLANTED.get() == Some(mistake)
}
