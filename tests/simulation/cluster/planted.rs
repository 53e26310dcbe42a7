//! Faults that are planted in the product are found, each within a few seeds.

use std::fmt;

use ottla::env::sim::Mutation;
use ottla::machine::replica::mistakes::{self, Mistake};

/// What is done wrong on purpose.
#[derive(Clone, Copy)]
pub(crate) enum Planted {
    /// By what surrounds the rules.
    Shell(Mutation),
    /// By the rules of a replica.
    Rule(Mistake),
}

impl fmt::Debug for Planted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(mutation) => mutation.fmt(formatter),
            Self::Rule(mistake) => mistake.fmt(formatter),
        }
    }
}

/// Plants a fault on this thread, or takes back what was planted.
pub(crate) fn plant(planted: Option<Planted>) {
    let (mut mutation, mut mistake) = (None, None);
    match planted {
        Some(Planted::Shell(one)) => mutation = Some(one),
        Some(Planted::Rule(one)) => mistake = Some(one),
        None => {}
    }
    ottla::env::sim::plant(mutation);
    mistakes::plant(mistake);
}

/// The first seed that finds a planted fault, and what it finds.
fn finds(planted: Planted, seeds: std::ops::Range<u64>) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| {
        // Where a fault keeps a node from starting, the run ends with a panic.
        let findings = std::panic::catch_unwind(|| super::run(seed, Some(planted)).findings)
            .unwrap_or_else(|_| vec!["the run panicked".to_owned()]);
        Some((seed, findings.into_iter().next()?))
    })
}

/// Those that are looked for, the ones first that show soon.
fn all() -> Vec<Planted> {
    let first = [
        Planted::Rule(Mistake::CommitsLogEnd),
        Planted::Shell(Mutation::FetchesBeforeSync),
        Planted::Shell(Mutation::KeepsDivergence),
        Planted::Rule(Mistake::CommitsBelowMinIsr),
        Planted::Rule(Mistake::BelievesLeader),
        Planted::Rule(Mistake::ForgetsFollowers),
        Planted::Shell(Mutation::StartsEpochsLate),
        Planted::Shell(Mutation::KeepsEmptyEpochs),
        Planted::Rule(Mistake::IgnoresPendingIsr),
        Planted::Shell(Mutation::TakesLateAnswers),
        Planted::Rule(Mistake::JoinsBeforeEpochStart),
        Planted::Rule(Mistake::TrustsAnyBroker),
        Planted::Shell(Mutation::TrustsDiverged),
        Planted::Shell(Mutation::ServesBeforeCommitted),
        Planted::Rule(Mistake::LeavesJoiningBehind),
        Planted::Rule(Mistake::CutsCommitted),
    ];
    first.to_vec()
}

/// Looks for each of them within some seeds: `OTTLA_SIM_PLANTED=0..40`.
#[test]
fn survey() {
    let Ok(range) = std::env::var("OTTLA_SIM_PLANTED") else { return };
    let (first, end) = range.split_once("..").unwrap();
    let seeds = first.parse().unwrap()..end.parse().unwrap();
    for planted in all() {
        eprintln!("{planted:?}: {:?}", finds(planted, seeds.clone()));
    }
}
