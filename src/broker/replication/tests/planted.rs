//! Mistakes that are planted in copying, and in the rules of a replica, are found by the tests beside this one.

use std::panic::catch_unwind;

use super::{followers, leaders, schedules};
use crate::broker::replication::mistakes;
use crate::machine::replica::mistakes as rules;

const TESTS: &[(&str, fn())] = &[
    (
        "a_follower_reads_what_is_not_committed_and_its_next_fetch_commits_it",
        leaders::a_follower_reads_what_is_not_committed_and_its_next_fetch_commits_it,
    ),
    (
        "a_follower_is_woken_by_records_and_by_a_high_watermark_that_moves_alone",
        leaders::a_follower_is_woken_by_records_and_by_a_high_watermark_that_moves_alone,
    ),
    (
        "who_is_no_follower_learns_nothing_and_moves_nothing",
        leaders::who_is_no_follower_learns_nothing_and_moves_nothing,
    ),
    (
        "a_follower_whose_log_diverges_is_told_where_and_moves_nothing",
        leaders::a_follower_whose_log_diverges_is_told_where_and_moves_nothing,
    ),
    (
        "who_lags_leaves_the_isr_and_who_has_caught_up_joins_it",
        leaders::who_lags_leaves_the_isr_and_who_has_caught_up_joins_it,
    ),
    (
        "acks_all_is_refused_as_long_as_too_few_are_in_sync",
        leaders::acks_all_is_refused_as_long_as_too_few_are_in_sync,
    ),
    ("replicas_are_alike_byte_for_byte", followers::replicas_are_alike_byte_for_byte),
    (
        "who_is_gone_leaves_the_isr_and_who_comes_back_joins_it",
        followers::who_is_gone_leaves_the_isr_and_who_comes_back_joins_it,
    ),
    (
        "with_two_in_sync_demanded_nothing_is_committed_by_one",
        followers::with_two_in_sync_demanded_nothing_is_committed_by_one,
    ),
    (
        "a_leader_that_was_replaced_cuts_what_it_alone_has",
        followers::a_leader_that_was_replaced_cuts_what_it_alone_has,
    ),
    (
        "a_leader_that_never_wrote_in_its_epoch_copies_what_was_there_before",
        followers::a_leader_that_never_wrote_in_its_epoch_copies_what_was_there_before,
    ),
    ("deleted_records_are_deleted_everywhere", followers::deleted_records_are_deleted_everywhere),
    (
        "with_fsync_no_power_cut_takes_what_is_acknowledged",
        followers::with_fsync_no_power_cut_takes_what_is_acknowledged,
    ),
    (
        "the_high_watermark_of_a_follower_outlives_it",
        followers::the_high_watermark_of_a_follower_outlives_it,
    ),
    (
        "an_answer_of_a_leader_that_was_replaced_meanwhile_is_dropped",
        followers::an_answer_of_a_leader_that_was_replaced_meanwhile_is_dropped,
    ),
    (
        "what_is_acknowledged_stays_whoever_leads",
        schedules::what_is_acknowledged_stays_whoever_leads,
    ),
];

/// Those of the rules that show whether they are asked at all; the machine has tests of its own for each of them.
const RULES: [rules::Mistake; 2] =
    [rules::Mistake::CommitsBelowMinIsr, rules::Mistake::CommitsLogEnd];

fn finds() -> Option<&'static str> {
    TESTS.iter().find(|(_, test)| catch_unwind(test).is_err()).map(|(name, _)| *name)
}

#[test]
fn planted_mistakes_are_found() {
    let mut overlooked = Vec::new();
    for mistake in mistakes::Mistake::ALL {
        mistakes::plant(Some(mistake));
        let found = finds();
        mistakes::plant(None);
        eprintln!("{mistake:?}: {found:?}");
        overlooked.extend(found.is_none().then(|| format!("{mistake:?}")));
    }
    for mistake in RULES {
        rules::plant(Some(mistake));
        let found = finds();
        rules::plant(None);
        eprintln!("{mistake:?}: {found:?}");
        overlooked.extend(found.is_none().then(|| format!("{mistake:?}")));
    }
    assert!(overlooked.is_empty(), "not found: {overlooked:?}");
}
