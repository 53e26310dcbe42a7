//! Mistakes that tests plant in the rules of transactions, one at a time, to show that simulated nodes find them.

use std::cell::Cell;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A transaction is complete as soon as its markers are handed out.
    CompletesBeforeMarkers,
    /// The coordinator takes requests of producers that others have taken over from.
    TakesOldEpochs,
    /// Markers that a leader before has left to be written are forgotten.
    ForgetsMarkers,
    /// Offsets of a group count as soon as a transaction has them.
    ShowsPendingOffsets,
    /// The coordinator aborts no transaction that has lasted too long.
    ForgetsTimeouts,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::CompletesBeforeMarkers,
        Self::TakesOldEpochs,
        Self::ForgetsMarkers,
        Self::ShowsPendingOffsets,
        Self::ForgetsTimeouts,
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
