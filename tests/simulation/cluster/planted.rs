//! Faults that are planted in the product are found, each within a few seeds.

use std::fmt;

use ottla::env::sim::{Mutation, SimRun};
use ottla::machine::replica::mistakes::{self, Mistake};
use ottla::machine::transaction::mistakes as transactions;
use tokio::time::Instant;

use crate::broker::clients::Shared;
use crate::report::{self, Report};

/// What is done wrong on purpose.
#[derive(Clone, Copy)]
pub(crate) enum Planted {
    /// By what surrounds the rules.
    Shell(Mutation),
    /// By the rules of a replica.
    Rule(Mistake),
    /// By the rules of transactions.
    Transaction(transactions::Mistake),
}

impl fmt::Debug for Planted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(mutation) => mutation.fmt(formatter),
            Self::Rule(mistake) => mistake.fmt(formatter),
            Self::Transaction(mistake) => mistake.fmt(formatter),
        }
    }
}

/// Plants a fault on this thread, or takes back what was planted.
fn plant(planted: Option<Planted>) {
    let (mut mutation, mut mistake, mut of_transactions) = (None, None, None);
    match planted {
        Some(Planted::Shell(one)) => mutation = Some(one),
        Some(Planted::Rule(one)) => mistake = Some(one),
        Some(Planted::Transaction(one)) => of_transactions = Some(one),
        None => {}
    }
    ottla::env::sim::plant(mutation);
    mistakes::plant(mistake);
    transactions::plant(of_transactions);
}

/// Carries out a run with a fault, or without.
pub(crate) fn run_with(
    planted: Option<Planted>,
    live: impl AsyncFnOnce(&Shared) -> (SimRun, Vec<String>),
) -> Report {
    plant(planted);
    let report = Report::of(async |witness| {
        super::nodes::tell_time_since(Instant::now());
        live(witness).await
    });
    plant(None);
    report
}

/// Each shows in one of the seeds, mostly in the first.
const SEEDS_TO_FIND: std::ops::Range<u64> = 0..4;
const FOUND: [Planted; 4] = [
    Planted::Rule(Mistake::CommitsLogEnd),
    Planted::Shell(Mutation::FetchesBeforeSync),
    Planted::Shell(Mutation::KeepsDivergence),
    Planted::Rule(Mistake::CommitsBelowMinIsr),
];

#[test]
fn planted_faults_are_found() {
    report::find_all(FOUND, &SEEDS_TO_FIND, super::run);
}

/// Looks for others, too: `OTTLA_SIM_PLANTED=StartsEpochsLate:0..40`.
#[test]
fn sought() {
    let Ok(asked) = std::env::var("OTTLA_SIM_PLANTED") else { return };
    let (name, range) = asked.split_once(':').unwrap();
    let (first, end) = range.split_once("..").unwrap();
    let shell = Mutation::OF_REPLICAS.into_iter().map(Planted::Shell);
    let mut all = shell.chain(Mistake::ALL.into_iter().map(Planted::Rule));
    let planted = all.find(|planted| format!("{planted:?}") == name).unwrap();
    let seeds = first.parse().unwrap()..end.parse().unwrap();
    eprintln!("{planted:?}: {:?}", report::finds(seeds, |seed| super::run(seed, Some(planted))));
}
