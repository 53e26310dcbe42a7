//! Mistakes that are planted in copying, and in the rules of a replica, are found by the tests beside this one.

use std::panic::catch_unwind;

use super::{followers, leaders};
use crate::env::sim::{Mutation, plant};
use crate::machine::replica::mistakes as rules;

/// Each with the test that finds it.
const COPYING: [(Mutation, fn()); 5] = [
    (
        Mutation::TakesLateAnswers,
        followers::an_answer_of_a_leader_that_was_replaced_meanwhile_is_dropped,
    ),
    (Mutation::KeepsDivergence, followers::a_leader_that_was_replaced_cuts_what_it_alone_has),
    (Mutation::FetchesBeforeSync, followers::with_fsync_no_power_cut_takes_what_is_acknowledged),
    (
        Mutation::KeepsEmptyEpochs,
        followers::a_leader_that_never_wrote_in_its_epoch_copies_what_was_there_before,
    ),
    (
        Mutation::TrustsDiverged,
        leaders::a_follower_whose_log_diverges_is_told_where_and_moves_nothing,
    ),
];

/// Those of the rules that show whether they are asked at all; the machine has tests of its own for each of them.
const RULES: [(rules::Mistake, fn()); 3] = [
    (
        rules::Mistake::CommitsBelowMinIsr,
        leaders::acks_all_is_refused_as_long_as_too_few_are_in_sync,
    ),
    (rules::Mistake::TrustsLostCopies, followers::a_copy_that_lost_its_end_does_not_lead),
    (
        rules::Mistake::CommitsLogEnd,
        leaders::a_follower_reads_what_is_not_committed_and_its_next_fetch_commits_it,
    ),
];

#[test]
fn planted_mistakes_are_found() {
    let mut overlooked = Vec::new();
    for (mistake, test) in COPYING {
        plant(Some(mistake));
        let found = catch_unwind(test).is_err();
        plant(None);
        overlooked.extend((!found).then(|| format!("{mistake:?}")));
    }
    for (mistake, test) in RULES {
        rules::plant(Some(mistake));
        let found = catch_unwind(test).is_err();
        rules::plant(None);
        overlooked.extend((!found).then(|| format!("{mistake:?}")));
    }
    assert!(overlooked.is_empty(), "not found: {overlooked:?}");
}
