//! Transactions in a history: what readers of each kind are to see of them, and what only transactions can do wrong.
//!
//! A history with transactions is two histories without: one of those who read everything, to whom a write is a send; and
//! one of those who read what is committed, to whom a write is acknowledged when its transaction is committed, and refused when
//! that is aborted. So everything that the checker knows of logs and groups holds for both.

use std::collections::{BTreeMap, BTreeSet};

use super::checker::Anomaly;
use super::{Event, History, Origin};

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    Aborted,
    /// Somebody asked to commit it, and was not told.
    Unknown,
}

/// Who reads what, and what became of the transactions.
struct Overview<'a> {
    readers_of_committed: BTreeSet<&'a str>,
    fates: BTreeMap<&'a str, Fate>,
    /// Groups whose members read what is committed.
    groups_of_committed: BTreeSet<&'a str>,
}

impl<'a> Overview<'a> {
    fn of(history: &'a History) -> Self {
        let mut readers_of_committed = BTreeSet::new();
        let mut fates = BTreeMap::new();
        for event in &history.events {
            match event {
                Event::ReadsCommitted { process } => {
                    readers_of_committed.insert(process.as_str());
                }
                Event::Begin { transaction, .. } | Event::Write { transaction, .. } => {
                    fates.entry(transaction.as_str()).or_insert(Fate::Aborted);
                }
                Event::End { transaction, commits: true } => {
                    fates.insert(transaction, Fate::Unknown);
                }
                Event::Decided { transaction, committed } => {
                    let fate = if *committed { Fate::Committed } else { Fate::Aborted };
                    fates.insert(transaction, fate);
                }
                _ => {}
            }
        }
        let groups = history.events.iter().filter_map(|event| match event {
            Event::Assigned { process, group, .. } => {
                readers_of_committed.contains(process.as_str()).then_some(group.as_str())
            }
            _ => None,
        });
        let groups_of_committed = groups.collect();
        Self { readers_of_committed, fates, groups_of_committed }
    }

    fn reads_committed(&self, process: &str) -> bool {
        self.readers_of_committed.contains(process)
    }

    /// Whether an event concerns readers of this kind; what was sent concerns all.
    fn concerns(&self, event: &Event, committed: bool) -> bool {
        match event {
            Event::Assign { process, .. }
            | Event::Poll { process, .. }
            | Event::Drained { process, .. }
            | Event::Assigned { process, .. }
            | Event::Revoked { process, .. }
            | Event::Commit { process, .. }
            | Event::Committed { process, .. }
            | Event::Ended { process } => self.reads_committed(process) == committed,
            Event::Settled { group, .. } => {
                self.groups_of_committed.contains(group.as_str()) == committed
            }
            _ => true,
        }
    }
}

/// The histories without transactions that a history is.
pub(super) fn views(history: &History) -> Vec<History> {
    let overview = Overview::of(history);
    if overview.fates.is_empty() && overview.readers_of_committed.is_empty() {
        return vec![history.clone()];
    }
    vec![view(history, &overview, false), view(history, &overview, true)]
}

fn view(history: &History, overview: &Overview<'_>, committed: bool) -> History {
    let mut view = History::default();
    // What each transaction commits for groups.
    let mut offsets: BTreeMap<&str, Vec<Event>> = BTreeMap::new();
    for event in &history.events {
        match event {
            Event::Write { process, transaction, partition, value, .. } => {
                let (process, partition, value) =
                    (process.clone(), partition.clone(), value.clone());
                view.push(Event::Send {
                    process: process.clone(),
                    partition: partition.clone(),
                    value: value.clone(),
                });
                if committed && overview.fates.get(transaction.as_str()) == Some(&Fate::Aborted) {
                    view.push(Event::Refused { process, partition, value });
                }
            }
            Event::Wrote { process, transaction, partition, value, offset } => {
                let is_committed =
                    overview.fates.get(transaction.as_str()) == Some(&Fate::Committed);
                if is_committed || !committed {
                    let (process, partition) = (process.clone(), partition.clone());
                    let (value, offset) = (value.clone(), *offset);
                    view.push(Event::Acknowledged { process, partition, value, offset });
                }
            }
            Event::Offsets { process, transaction, group, partition, offset }
                if overview.reads_committed(process) == committed =>
            {
                let offset = *offset;
                let (process, group, partition) =
                    (process.clone(), group.clone(), partition.clone());
                offsets.entry(transaction).or_default().push(Event::Committed {
                    process: process.clone(),
                    group: group.clone(),
                    partition: partition.clone(),
                    offset,
                });
                view.push(Event::Commit { process, group, partition, offset });
            }
            Event::Decided { transaction, committed: true } => {
                view.events.extend(offsets.remove(transaction.as_str()).unwrap_or_default());
            }
            Event::Begin { .. }
            | Event::Offsets { .. }
            | Event::End { .. }
            | Event::Decided { .. }
            | Event::ReadsCommitted { .. }
            | Event::Stable { .. } => {}
            other if overview.concerns(other, committed) => view.push(other.clone()),
            _ => {}
        }
    }
    view
}

/// A value, and where it was sent.
type Place<'a> = (&'a str, &'a str);

/// What is known at the end of a history.
#[derive(Default)]
struct Known<'a> {
    /// The transaction of each value.
    transactions: BTreeMap<Place<'a>, &'a str>,
    writes: BTreeMap<&'a str, Vec<Place<'a>>>,
    offsets: BTreeMap<Place<'a>, i64>,
    /// What readers of what is committed were given.
    seen: BTreeSet<Place<'a>>,
    drained: BTreeSet<&'a str>,
    origins: BTreeMap<Place<'a>, &'a Origin>,
    /// Groups whose offsets are committed in transactions.
    groups: BTreeSet<&'a str>,
}

impl<'a> Known<'a> {
    fn of(history: &'a History, overview: &Overview<'_>) -> Self {
        let mut known = Self::default();
        for event in &history.events {
            match event {
                Event::Write { transaction, partition, value, of, .. } => {
                    let place = (partition.as_str(), value.as_str());
                    known.transactions.insert(place, transaction);
                    known.writes.entry(transaction).or_default().push(place);
                    if let Some(of) = of {
                        known.origins.insert(place, of);
                    }
                }
                Event::Wrote { partition, value, offset, .. } => {
                    known.offsets.entry((partition, value)).or_insert(*offset);
                }
                Event::Poll { process, partition, offset, value } => {
                    let place = (partition.as_str(), value.as_str());
                    known.offsets.entry(place).or_insert(*offset);
                    if overview.reads_committed(process) {
                        known.seen.insert(place);
                    }
                }
                Event::Drained { process, partition } if overview.reads_committed(process) => {
                    known.drained.insert(partition);
                }
                Event::Offsets { group, .. } => {
                    known.groups.insert(group);
                }
                _ => {}
            }
        }
        known
    }

    /// Whether a transaction took effect.
    fn took_effect(&self, transaction: &str, fate: Fate) -> bool {
        let writes = || self.writes.get(transaction).into_iter().flatten();
        match fate {
            Fate::Committed => true,
            Fate::Aborted => false,
            Fate::Unknown => writes().any(|place| self.seen.contains(place)),
        }
    }
}

/// Finds what only transactions can do wrong.
pub(super) fn check(history: &History, found: &mut Vec<Anomaly>) {
    let overview = Overview::of(history);
    if overview.fates.is_empty() && overview.readers_of_committed.is_empty() {
        return;
    }
    let known = Known::of(history, &overview);
    check_early_reads(history, &overview, &known, found);
    check_whole(&overview, &known, found);
    check_order(history, &known, found);
    check_stable(history, &overview, &known, found);
    check_made(history, &known, found);
    check_beginnings(history, &known, found);
}

fn check_early_reads(
    history: &History,
    overview: &Overview<'_>,
    known: &Known<'_>,
    found: &mut Vec<Anomaly>,
) {
    let mut asked: BTreeSet<&str> = BTreeSet::new();
    for event in &history.events {
        match event {
            Event::End { transaction, commits: true } => {
                asked.insert(transaction);
            }
            Event::Poll { process, partition, value, .. } if overview.reads_committed(process) => {
                let place = (partition.as_str(), value.as_str());
                let Some(&transaction) = known.transactions.get(&place) else { continue };
                // What is aborted must not be read at all, and is found as that.
                let is_aborted = overview.fates.get(transaction) == Some(&Fate::Aborted);
                if !is_aborted && !asked.contains(transaction) {
                    found.push(Anomaly::EarlyRead {
                        process: process.clone(),
                        transaction: transaction.to_owned(),
                        partition: partition.clone(),
                        value: value.clone(),
                    });
                }
            }
            _ => {}
        }
    }
}

fn check_whole(overview: &Overview<'_>, known: &Known<'_>, found: &mut Vec<Anomaly>) {
    for (transaction, writes) in &known.writes {
        if overview.fates.get(transaction) == Some(&Fate::Aborted) {
            continue;
        }
        let seen = writes.iter().find(|place| known.seen.contains(*place));
        let missing = writes
            .iter()
            .find(|place| known.drained.contains(place.0) && !known.seen.contains(*place));
        if let (Some(seen), Some(missing)) = (seen, missing) {
            let named = |(partition, value): &Place<'_>| format!("{value} in {partition}");
            let (seen, missing) = (named(seen), named(missing));
            found.push(Anomaly::Torn { transaction: (*transaction).to_owned(), seen, missing });
        }
    }
}

fn check_order(history: &History, known: &Known<'_>, found: &mut Vec<Anomaly>) {
    let mut last: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for event in &history.events {
        let Event::Write { process, partition, value, .. } = event else { continue };
        let place = (partition.as_str(), value.as_str());
        let Some(&to) = known.offsets.get(&place) else { continue };
        let from = last.insert((process, partition), to);
        if let Some(from) = from.filter(|from| *from >= to) {
            let (process, partition) = (process.clone(), partition.clone());
            found.push(Anomaly::NonmonotonicWrite { process, partition, from, to });
        }
    }
}

/// The lowest and the highest that was told, by the epoch of the leader.
type Told = BTreeMap<i32, (i64, i64)>;

/// Everything that was stable to an earlier leader is so to a later one when it answers.
fn went_back(told: &Told, epoch: i32, offset: i64) -> Option<(i32, i64)> {
    let before = told.range(..=epoch).map(|(epoch, (_, highest))| (*epoch, *highest));
    let after = told.range(epoch + 1..).map(|(epoch, (lowest, _))| (*epoch, *lowest));
    let highest = before.max_by_key(|(_, highest)| *highest);
    let lowest = after.min_by_key(|(_, lowest)| *lowest);
    highest
        .filter(|(_, highest)| *highest > offset)
        .or_else(|| lowest.filter(|(_, lowest)| *lowest < offset))
}

fn check_stable(
    history: &History,
    overview: &Overview<'_>,
    known: &Known<'_>,
    found: &mut Vec<Anomaly>,
) {
    let mut told: BTreeMap<&str, Told> = BTreeMap::new();
    // Those that take effect later.
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for event in &history.events {
        match event {
            Event::Begin { transaction, .. } => {
                let fate = overview.fates.get(transaction.as_str());
                if fate.is_some_and(|fate| known.took_effect(transaction, *fate)) {
                    open.insert(transaction);
                }
            }
            Event::End { transaction, commits: true } => {
                open.remove(transaction.as_str());
            }
            Event::Stable { partition, epoch, offset: stable } => {
                let told = told.entry(partition).or_default();
                if let Some(from) = went_back(told, *epoch, *stable) {
                    let (partition, to) = (partition.clone(), (*epoch, *stable));
                    found.push(Anomaly::StableWentBack { partition, from, to });
                }
                let range = told.entry(*epoch).or_insert((*stable, *stable));
                *range = (range.0.min(*stable), range.1.max(*stable));
                for transaction in &open {
                    let writes = known.writes.get(transaction).into_iter().flatten();
                    let records = writes
                        .filter(|place| place.0 == partition)
                        .filter_map(|place| known.offsets.get(place));
                    if let Some(&record) = records.min().filter(|record| **record < *stable) {
                        let (transaction, partition) =
                            ((*transaction).to_owned(), partition.clone());
                        let stable = *stable;
                        found.push(Anomaly::StablePassesOpen {
                            transaction,
                            partition,
                            record,
                            stable,
                        });
                    }
                }
            }
            _ => {}
        }
    }
}

fn check_made(history: &History, known: &Known<'_>, found: &mut Vec<Anomaly>) {
    let mut made: BTreeMap<&Origin, &str> = BTreeMap::new();
    for (place, &of) in &known.origins {
        if !known.seen.contains(place) {
            continue;
        }
        if let Some(first) = made.insert(of, place.1) {
            let values = [first.to_owned(), place.1.to_owned()];
            found.push(Anomaly::MadeTwice { of: of.clone(), values });
        }
    }
    // As long as somebody may still read what was made, nothing is missing.
    if !known.origins.keys().all(|(partition, _)| known.drained.contains(partition)) {
        return;
    }
    for event in &history.events {
        let Event::Settled { group, partition } = event else { continue };
        if !known.groups.contains(group.as_str()) {
            continue;
        }
        for place in known.seen.iter().filter(|place| place.0 == partition) {
            let Some(&offset) = known.offsets.get(place) else { continue };
            let of = Origin { partition: partition.clone(), offset };
            if !made.contains_key(&of) {
                found.push(Anomaly::NotMade { of, value: place.1.to_owned() });
            }
        }
    }
}

fn check_beginnings(history: &History, known: &Known<'_>, found: &mut Vec<Anomaly>) {
    let mut waiting: BTreeMap<&str, Vec<(&str, &str, i64)>> = BTreeMap::new();
    let mut asked: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for event in &history.events {
        match event {
            Event::Commit { group, partition, offset, .. } => {
                let most = asked.entry((group, partition)).or_default();
                *most = (*most).max(*offset);
            }
            Event::Offsets { transaction, group, partition, offset, .. } => {
                waiting.entry(transaction).or_default().push((group, partition, *offset));
            }
            Event::End { transaction, commits: true } => {
                for (group, partition, offset) in
                    waiting.remove(transaction.as_str()).unwrap_or_default()
                {
                    let most = asked.entry((group, partition)).or_default();
                    *most = (*most).max(offset);
                }
            }
            Event::Assigned { group, partition, offset, .. }
                if known.groups.contains(group.as_str()) =>
            {
                let most = asked.get(&(group.as_str(), partition.as_str())).copied().unwrap_or(0);
                if *offset > most {
                    let (group, partition) = (group.clone(), partition.clone());
                    let (committed, began) = (most, *offset);
                    found.push(Anomaly::BeganTooFar { group, partition, committed, began });
                }
            }
            _ => {}
        }
    }
}
