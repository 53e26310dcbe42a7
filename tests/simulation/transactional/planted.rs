//! Faults that are planted in what serves transactions are found.
//!
//! Those of the log show where three things come together that seldom do: a marker that is lost with its leader
//! (`StableBeforeMarker`), one that arrives twice (`TakesOldProducers`), a batch that is overtaken by the end of its
//! transaction (`ForgetsGuards`). The log alone, in `tests/simulation/transactions.rs`, shows them at once.

use ottla::env::sim::Mutation;
use ottla::machine::transaction::mistakes::Mistake;

use super::{alone, together};
use crate::cluster::planted::Planted;
use crate::report;

/// Within these seeds each of them shows.
const SEEDS_TO_FIND: std::ops::Range<u64> = 0..4;

/// Those that a node shows that is alone. `ForgetsMarkers` shows, too, but only at the end of all patience.
const ALONE: [Planted; 5] = [
    Planted::Shell(Mutation::ShowsOpenTransactions),
    Planted::Transaction(Mistake::CompletesBeforeMarkers),
    Planted::Transaction(Mistake::TakesOldEpochs),
    Planted::Transaction(Mistake::ShowsPendingOffsets),
    Planted::Transaction(Mistake::ForgetsTimeouts),
];

#[test]
fn planted_faults_are_found() {
    report::find_all(ALONE, &SEEDS_TO_FIND, alone::run);
}

/// Looks for one: `OTTLA_SIM_PLANTED=alone:TakesOldEpochs:0..40`.
#[test]
fn sought() {
    let Ok(asked) = std::env::var("OTTLA_SIM_PLANTED") else { return };
    let [place, name, range] = asked.splitn(3, ':').collect::<Vec<_>>()[..] else { return };
    let (first, end) = range.split_once("..").unwrap();
    let run = match place {
        "alone" => alone::run,
        _ => together::run,
    };
    let shell = Mutation::OF_TRANSACTIONS.into_iter().map(Planted::Shell);
    let mut all = shell.chain(Mistake::ALL.into_iter().map(Planted::Transaction));
    let planted = all.find(|planted| format!("{planted:?}") == name).unwrap();
    let seeds = first.parse().unwrap()..end.parse().unwrap();
    eprintln!("{planted:?}: {:?}", report::finds(seeds, |seed| run(seed, Some(planted))));
}
