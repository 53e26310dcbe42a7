//! Every state of small clusters, breadth first, so that what is found is found on the shortest way; and walks at
//! random, to where no search comes. The steps are those of `states`.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::*;
use super::simulation::text_of;
use super::states::{Action, Bounds, Search, State, hash};
use crate::types::SplitMix64;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    states: usize,
    steps: usize,
    /// Whether there is nothing more within the bounds.
    is_all: bool,
    leaders: usize,
    committed: i64,
}
/// They promise nothing, so that less is to be seen with them.
const WITHOUT_PRE_VOTES: &[Mutation] = &[Mutation::PreVoteIsSkipped];

impl Search {
    /// Searches. An error tells what is broken, and how one gets there.
    fn run(&self) -> Result<Extent, String> {
        let first = self.first();
        let mut seen = BTreeSet::from([hash(&first)]);
        // The parent of each state, and which of its actions led here.
        let mut ways: Vec<(usize, usize)> = vec![(0, 0)];
        let mut queue = VecDeque::from([(0, first)]);
        let mut extent = Extent { states: 1, steps: 0, is_all: true, leaders: 0, committed: 0 };
        while let Some((index, state)) = queue.pop_front() {
            for (choice, action) in self.actions(&state).iter().enumerate() {
                extent.steps += 1;
                let next = catch_unwind(AssertUnwindSafe(|| self.after(&state, action)));
                let next = next.map_err(|panic| {
                    format!("{}\n{}", text_of(panic.as_ref()), self.way(&ways, index, action))
                })?;
                if !self.is_within(&next) || !seen.insert(hash(&next)) {
                    continue;
                }
                if seen.len() > self.bounds.states {
                    extent.is_all = false;
                    return Ok(extent);
                }
                extent.states += 1;
                let leaders = next.nodes.iter().filter(|node| node.replica.is_leader()).count();
                extent.leaders = extent.leaders.max(leaders);
                extent.committed = extent.committed.max(next.checks.committed_end().0);
                ways.push((index, choice));
                queue.push_back((ways.len() - 1, next));
            }
        }
        Ok(extent)
    }

    /// Goes at random where the search does not come to: far, with everything. Says how much was committed.
    fn walk(&self, seed: u64, steps: usize) -> Result<i64, String> {
        let mut random = SplitMix64::new(seed);
        let mut state = self.first();
        for _ in 0..steps {
            let actions = self.actions(&state);
            // What happens often in a cluster that works is drawn often.
            let weight = |action: &Action| match action {
                Action::VoteStored(_) | Action::LogStored(_) => 16,
                Action::Deliver(_) => 8,
                Action::Propose(_) | Action::Change(..) | Action::Snapshot(_) => 4,
                Action::Tick(_) | Action::Crash(_) => 1,
            };
            let total: u64 = actions.iter().map(weight).sum();
            let mut drawn = random.draw() % total.max(1);
            let action = actions.iter().find(|action| {
                let weight = weight(action);
                let is_it = drawn < weight;
                drawn = drawn.saturating_sub(weight);
                is_it
            });
            let Some(action) = action else { break };
            let next = catch_unwind(AssertUnwindSafe(|| self.after(&state, action)));
            let next = next.map_err(|panic| text_of(panic.as_ref()))?;
            if self.is_within(&next) {
                state = next;
            }
        }
        Ok(state.checks.committed_end().0)
    }

    fn way(&self, ways: &[(usize, usize)], mut index: usize, last: &Action) -> String {
        let mut choices = Vec::new();
        while index > 0 {
            choices.push(ways[index].1);
            index = ways[index].0;
        }
        let mut state = self.first();
        let mut text = String::new();
        for choice in choices.into_iter().rev() {
            let action = self.actions(&state).swap_remove(choice);
            text += &described(&state, &action);
            state = self.after(&state, &action);
        }
        text + &described(&state, last)
    }
}
fn described(state: &State, action: &Action) -> String {
    match action {
        Action::Deliver(id) => format!("  deliver {:?}\n", state.network[id]),
        action => format!("  {action:?}\n"),
    }
}
fn search(bounds: Bounds, planted: &'static [Mutation]) -> Result<Extent, String> {
    Search { bounds, planted }.run()
}

fn must_be_right(bounds: Bounds) -> Extent {
    let extent = search(bounds, WITHOUT_PRE_VOTES);
    let extent = extent.unwrap_or_else(|why| panic!("{bounds:?}: {why}"));
    println!("{bounds:?}: {extent:?}");
    extent
}

const fn fast(bounds: Bounds) -> Bounds {
    Bounds { slow_disks: false, ..bounds }
}

#[test]
fn every_state_of_two_voters_is_right() {
    for bounds in [fast(Bounds::new(2, 2, 0, 0)), Bounds::new(2, 1, 0, 0)] {
        let extent = must_be_right(bounds);
        assert!(extent.is_all && extent.committed > 0, "{extent:?}");
    }
    let with_pre_votes = Bounds { states: 3_000, ..fast(Bounds::new(2, 1, 0, 0)) };
    let extent = search(with_pre_votes, &[]);
    assert!(extent.is_ok(), "{extent:?}");
}

#[test]
fn the_first_states_of_three_voters_are_right() {
    for bounds in [
        fast(Bounds::new(3, 2, 1, 0)),
        Bounds::new(3, 2, 1, 1),
        fast(Bounds { voters: 2, changes: 2, ..Bounds::new(3, 2, 0, 0) }),
        fast(Bounds { voters: 1, snapshots: 1, ..Bounds::new(2, 2, 1, 1) }),
    ] {
        must_be_right(Bounds { states: 2_000, ..bounds });
    }
}

/// Walks of three nodes, of which `seed` decides how many vote at first.
fn walk(seed: u64, planted: &'static [Mutation]) -> Result<i64, String> {
    let voters = 1 + seed as usize % 3;
    let bounds = Bounds {
        voters,
        changes: 6,
        snapshots: 4,
        slow_disks: !seed.is_multiple_of(4),
        ..Bounds::new(3, 12, 30, 8)
    };
    Search { bounds, planted }.walk(seed, 600)
}

#[test]
fn nothing_is_wrong_on_long_walks() {
    let mut committed = 0;
    for seed in 0..60 {
        let walked = walk(seed, &[]);
        committed += walked.unwrap_or_else(|why| panic!("walk {seed}: {why}"));
    }
    assert!(committed > 200, "{committed}");
}

#[test]
#[ignore = "minutes in a release build; run by name"]
fn many_walks() {
    let walks = std::env::var("OTTLA_QUORUM_RUNS").map_or(20_000, |runs| runs.parse().unwrap());
    let mut committed = 0;
    for seed in 0..walks {
        let walked = walk(seed, &[]);
        committed += walked.unwrap_or_else(|why| panic!("walk {seed}: {why}"));
    }
    println!("{committed} records committed");
}

/// Everything that a few minutes of an optimised build suffice for: clusters of two to the end, larger ones as far as
/// `OTTLA_QUORUM_STATES` goes.
#[test]
#[ignore = "minutes in a release build; run by name"]
fn far() {
    for bounds in [
        fast(Bounds::new(2, 2, 0, 1)),
        fast(Bounds::new(2, 2, 1, 0)),
        fast(Bounds::new(2, 1, 1, 1)),
        Bounds::new(2, 1, 0, 1),
        Bounds::new(2, 1, 1, 0),
    ] {
        let extent = must_be_right(Bounds { states: 1_000_000, ..bounds });
        assert!(extent.is_all, "{extent:?}");
    }
    let states =
        std::env::var("OTTLA_QUORUM_STATES").map_or(300_000, |states| states.parse().unwrap());
    for bounds in [
        Bounds::new(2, 2, 1, 1),
        fast(Bounds::new(2, 3, 1, 1)),
        fast(Bounds::new(3, 2, 0, 0)),
        fast(Bounds::new(3, 2, 1, 1)),
        Bounds::new(3, 2, 1, 1),
        fast(Bounds { voters: 2, changes: 2, ..Bounds::new(3, 2, 0, 0) }),
        fast(Bounds { voters: 1, snapshots: 1, ..Bounds::new(2, 2, 1, 1) }),
    ] {
        must_be_right(Bounds { states, ..bounds });
    }
}

#[test]
fn planted_mistakes_are_found_on_the_shortest_way() {
    for (planted, bounds) in [
        (Mutation::UnsavedVoteCounts, Bounds::new(2, 2, 1, 1)),
        (Mutation::UnsavedVoteIsAnswered, Bounds::new(2, 2, 1, 1)),
        (Mutation::TwoVotesInAnEpoch, Bounds::new(2, 2, 1, 1)),
        (Mutation::UnsyncedIsAcknowledged, Bounds::new(2, 2, 1, 1)),
        (Mutation::UnsyncedLeaderCounts, Bounds::new(2, 2, 1, 1)),
        (Mutation::DivergenceIsNotSeen, fast(Bounds::new(3, 2, 1, 0))),
    ] {
        let planted: &'static [Mutation] =
            Box::leak(Box::new([Mutation::PreVoteIsSkipped, planted]));
        let found = search(bounds, planted);
        let Err(why) = found else { panic!("{planted:?} was overlooked: {found:?}") };
        println!("{planted:?}: {why}");
    }
}

#[test]
fn planted_mistakes_are_found_on_walks() {
    for (planted, first) in [
        (Mutation::LogIsNotCompared, 0),
        (Mutation::ResponseIsNotMatched, 0),
        (Mutation::ChangeBeforeCommit, 80),
        (Mutation::ChangesOverlap, 540),
        (Mutation::VotersAreNotTruncated, 130),
        (Mutation::SnapshotEpochIsIgnored, 40),
        (Mutation::RemovedLeaderCounts, 20),
    ] {
        let mistake: &'static [Mutation] = Box::leak(Box::new([planted]));
        let is_found = (first..first + 60).any(|seed| walk(seed, mistake).is_err());
        assert!(is_found, "{planted:?} was overlooked");
    }
}
