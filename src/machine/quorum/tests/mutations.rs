//! Planted mistakes: each must be found by simulated runs. `search` finds some of them again, on the shortest way;
//! those that only cost time are found in `scenarios`.

use super::super::*;
use super::simulation::checked;

/// Every mistake, and the first seed that finds it. When the runs become others, `where_each_is_found` prints the seeds.
const ALL: &[(Mutation, u64)] = &[
    (Mutation::UnsavedVoteCounts, 0),
    (Mutation::UnsavedVoteIsAnswered, 0),
    (Mutation::TwoVotesInAnEpoch, 0),
    (Mutation::LogIsNotCompared, 3),
    (Mutation::OlderEpochIsCommitted, 0),
    (Mutation::UnsyncedIsAcknowledged, 0),
    (Mutation::UnsyncedLeaderCounts, 0),
    (Mutation::DivergenceIsNotSeen, 0),
    (Mutation::ResponseIsNotMatched, 0),
    (Mutation::PreVoteIsAlwaysGranted, 0),
    (Mutation::PreVoteIsSkipped, 0),
    (Mutation::NoCheckQuorum, 0),
    (Mutation::ChangeBeforeCommit, 306),
    (Mutation::ChangesOverlap, 7),
    (Mutation::DirectoryIsIgnored, 42),
    (Mutation::VotersAreNotTruncated, 615),
    (Mutation::SnapshotEpochIsIgnored, 722),
    (Mutation::HeldUpHighWatermark, 396),
    (Mutation::RemovedLeaderCounts, 0),
    (Mutation::RemovedDoesNotStand, 71),
    (Mutation::ResignedLeaderVotesAgain, 0),
];
/// How many seeds it may take from there.
const PATIENCE: u64 = 40;

fn first(mutation: Mutation, mut seeds: std::ops::Range<u64>) -> Option<(u64, String)> {
    let planted: &'static [Mutation] = Box::leak(Box::new([mutation]));
    seeds.find_map(|seed| checked(seed, planted).err().map(|why| (seed, why)))
}

#[test]
fn every_planted_mistake_is_found() {
    let overlooked: Vec<_> = ALL
        .iter()
        .filter(|(mutation, from)| first(*mutation, *from..from + PATIENCE).is_none())
        .collect();
    assert!(overlooked.is_empty(), "not found within {PATIENCE} seeds: {overlooked:?}");
}

#[test]
#[ignore = "prints where each mistake is found first"]
fn where_each_is_found() {
    for (mutation, _) in ALL {
        let found = first(*mutation, 0..3_000);
        println!("{mutation:?}: {found:?}");
    }
}
