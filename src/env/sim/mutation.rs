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
    /// A coordinator answers before it is known whether what it read is committed.
    ServesBeforeCommitted,
    /// The epoch of a leader starts with its first record.
    StartsEpochsLate,
    /// A follower takes an answer wherever the log stands by now, in whatever epoch.
    TakesLateAnswers,
    /// A copy that diverges is not cut.
    KeepsDivergence,
    /// The next fetch of a follower does not wait for the sync of what was copied.
    FetchesBeforeSync,
    /// A follower remembers epochs that began here and have no records.
    KeepsEmptyEpochs,
    /// A leader takes a fetch for news of its follower although the logs diverge.
    TrustsDiverged,
    /// A transaction is stable as soon as it has ended, also where its marker may be lost.
    StableBeforeMarker,
    /// After a crash, the `.txnindex` is taken for whole as far as a snapshot of the producers goes.
    TrustsTransactionIndex,
    /// The first batch of a transaction is appended whatever became of its verification.
    ForgetsGuards,
    /// What is stable is what is committed, also where transactions are open.
    ShowsOpenTransactions,
    /// A batch is appended whatever the epoch of its producer.
    TakesOldProducers,
    /// A segment may go from the disk when its file is in the tier, before a version of the manifest names it.
    FreesBeforeVersion,
    /// A version that is there already is always somebody else's.
    ForgetsOwnVersions,
    /// Files that nobody knows are not looked for.
    OverlooksOrphans,
}

impl Mutation {
    /// Those that show in a broker that is alone.
    pub const OF_ONE_NODE: [Self; 7] = [
        Self::AcknowledgesBeforeSync,
        Self::ShowsBeforeSync,
        Self::IgnoresFailedSync,
        Self::TrustsTornTail,
        Self::AppendsDuplicates,
        Self::ForgetsMetadata,
        Self::ForgetsOffsets,
    ];

    /// Those of the tier.
    pub const OF_TIER: [Self; 3] =
        [Self::FreesBeforeVersion, Self::ForgetsOwnVersions, Self::OverlooksOrphans];

    /// Those of transactions.
    pub const OF_TRANSACTIONS: [Self; 5] = [
        Self::StableBeforeMarker,
        Self::TrustsTransactionIndex,
        Self::ForgetsGuards,
        Self::ShowsOpenTransactions,
        Self::TakesOldProducers,
    ];

    /// Those of replication.
    pub const OF_REPLICAS: [Self; 7] = [
        Self::ServesBeforeCommitted,
        Self::StartsEpochsLate,
        Self::TakesLateAnswers,
        Self::KeepsDivergence,
        Self::FetchesBeforeSync,
        Self::KeepsEmptyEpochs,
        Self::TrustsDiverged,
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
