//! Reads a history, and finds what must not happen.
//!
//! Every value is sent once, so what a log holds at an offset is what anybody saw there: in a poll, or in an
//! acknowledgement. The names of the anomalies of logs are those of Jepsen's Kafka workload.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, Group, History, Origin, Partition, Process, Transaction, transactions};

/// What must not happen, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// An acknowledged value was passed over by whoever read beyond it.
    LostWrite { partition: Partition, value: String, offset: i64 },
    /// Two values at one offset.
    InconsistentOffsets { partition: Partition, offset: i64, values: [String; 2] },
    /// One value at two offsets.
    Duplicate { partition: Partition, value: String, offsets: [i64; 2] },
    /// A poll passed over a value that is there.
    PollSkip { process: Process, partition: Partition, from: i64, to: i64 },
    /// A poll went back.
    NonmonotonicPoll { process: Process, partition: Partition, from: i64, to: i64 },
    /// A later send was acknowledged at an earlier offset.
    NonmonotonicSend { process: Process, partition: Partition, from: i64, to: i64 },
    /// A value was acknowledged, and the drained log does not have it.
    Unseen { partition: Partition, value: String },
    /// A value was read whose send was refused.
    AbortedRead { partition: Partition, value: String },
    /// A value was read, or acknowledged, that nobody sent.
    Invented { partition: Partition, value: String },
    /// A value was sent twice: the history says nothing then.
    SentTwice { partition: Partition, value: String },
    /// A member began before an offset whose commit was acknowledged, or at which another one had begun.
    OffsetsWentBack { group: Group, partition: Partition, committed: i64, began: i64 },
    /// A member committed beyond a value that no member had been given.
    CommitSkip { group: Group, partition: Partition, offset: i64, value: String },
    /// An acknowledged value that no member was given, although the group had read everything.
    UnseenByGroup { group: Group, partition: Partition, value: String },
    /// A member was given a record of a partition that it did not have.
    StrayPoll { process: Process, group: Group, partition: Partition, offset: i64 },
    /// The members that had a partition when the group had come to rest: not one.
    Owners { group: Group, partition: Partition, owners: Vec<Process> },
    /// A reader of what is committed was given a value of a transaction before anybody had asked to commit that.
    EarlyRead { process: Process, transaction: Transaction, partition: Partition, value: String },
    /// Of a transaction, some values are there for readers of what is committed, and some are not.
    Torn { transaction: Transaction, seen: String, missing: String },
    /// A later write of a process is at an earlier offset.
    NonmonotonicWrite { process: Process, partition: Partition, from: i64, to: i64 },
    /// A last stable offset was behind one that was told before.
    StableWentBack { partition: Partition, from: (i32, i64), to: (i32, i64) },
    /// A last stable offset was beyond a record of a transaction that was open, and was committed later.
    StablePassesOpen { transaction: Transaction, partition: Partition, record: i64, stable: i64 },
    /// Two committed values were made from one.
    MadeTwice { of: Origin, values: [String; 2] },
    /// No committed value was made from one that is committed.
    NotMade { of: Origin, value: String },
    /// A member began beyond every offset that anybody had asked to commit.
    BeganTooFar { group: Group, partition: Partition, committed: i64, began: i64 },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Acknowledged(i64),
    Refused,
    Unknown,
}

/// The values of one partition.
#[derive(Default)]
struct Log {
    values: BTreeMap<i64, String>,
    offsets: BTreeMap<String, i64>,
    polled: BTreeSet<String>,
    outcomes: BTreeMap<String, Outcome>,
    is_drained: bool,
}

/// All anomalies of a history.
pub(crate) fn check(history: &History) -> Vec<Anomaly> {
    let mut found = Vec::new();
    for view in transactions::views(history) {
        // What is wrong with sends shows in each of the views.
        for anomaly in check_view(&view) {
            if !found.contains(&anomaly) {
                found.push(anomaly);
            }
        }
    }
    transactions::check(history, &mut found);
    found
}

/// The anomalies of what readers of one kind are to see.
fn check_view(history: &History) -> Vec<Anomaly> {
    let mut logs: BTreeMap<&str, Log> = BTreeMap::new();
    let mut found = Vec::new();
    for event in &history.events {
        match event {
            Event::Send { partition, value, .. } => {
                let log = logs.entry(partition).or_default();
                if log.outcomes.insert(value.clone(), Outcome::Unknown).is_some() {
                    let (partition, value) = (partition.clone(), value.clone());
                    found.push(Anomaly::SentTwice { partition, value });
                }
            }
            Event::Acknowledged { partition, value, offset, .. } => {
                let log = logs.entry(partition).or_default();
                log.ended_as(partition, value, Outcome::Acknowledged(*offset), &mut found);
                log.see(partition, *offset, value, &mut found);
            }
            Event::Refused { partition, value, .. } => {
                let log = logs.entry(partition).or_default();
                log.ended_as(partition, value, Outcome::Refused, &mut found);
            }
            Event::Poll { partition, offset, value, .. } => {
                let log = logs.entry(partition).or_default();
                log.see(partition, *offset, value, &mut found);
                log.polled.insert(value.clone());
            }
            Event::Drained { partition, .. } => {
                logs.entry(partition).or_default().is_drained = true;
            }
            _ => {}
        }
    }
    for (partition, log) in &logs {
        log.check(partition, &mut found);
    }
    check_order_of_sends(history, &logs, &mut found);
    check_order_of_polls(history, &logs, &mut found);
    check_groups(history, &logs, &mut found);
    found
}

impl Log {
    fn ended_as(
        &mut self,
        partition: &str,
        value: &str,
        outcome: Outcome,
        found: &mut Vec<Anomaly>,
    ) {
        if self.outcomes.insert(value.to_owned(), outcome).is_none() {
            let (partition, value) = (partition.to_owned(), value.to_owned());
            found.push(Anomaly::Invented { partition, value });
        }
    }

    fn see(&mut self, partition: &str, offset: i64, value: &str, found: &mut Vec<Anomaly>) {
        let first = self.values.entry(offset).or_insert_with(|| value.to_owned());
        if first != value {
            let values = [first.clone(), value.to_owned()];
            let partition = partition.to_owned();
            found.push(Anomaly::InconsistentOffsets { partition, offset, values });
        }
        let first = *self.offsets.entry(value.to_owned()).or_insert(offset);
        if first != offset {
            let (partition, value) = (partition.to_owned(), value.to_owned());
            found.push(Anomaly::Duplicate { partition, value, offsets: [first, offset] });
        }
    }

    fn check(&self, partition: &str, found: &mut Vec<Anomaly>) {
        let furthest = self.polled.iter().filter_map(|value| self.offsets.get(value)).max();
        let partition = || partition.to_owned();
        for (value, outcome) in &self.outcomes {
            let is_polled = self.polled.contains(value);
            let value = value.clone();
            match *outcome {
                Outcome::Acknowledged(offset) if !is_polled => {
                    if furthest.is_some_and(|furthest| offset <= *furthest) {
                        found.push(Anomaly::LostWrite { partition: partition(), value, offset });
                    } else if self.is_drained {
                        found.push(Anomaly::Unseen { partition: partition(), value });
                    }
                }
                Outcome::Refused if is_polled => {
                    found.push(Anomaly::AbortedRead { partition: partition(), value });
                }
                _ => {}
            }
        }
        for value in self.polled.iter().filter(|value| !self.outcomes.contains_key(*value)) {
            found.push(Anomaly::Invented { partition: partition(), value: value.clone() });
        }
    }
}

fn check_order_of_sends(history: &History, logs: &BTreeMap<&str, Log>, found: &mut Vec<Anomaly>) {
    let mut last: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for event in &history.events {
        let Event::Send { process, partition, value } = event else { continue };
        let outcome = logs.get(partition.as_str()).and_then(|log| log.outcomes.get(value));
        let Some(Outcome::Acknowledged(to)) = outcome.copied() else { continue };
        let from = last.insert((process, partition), to);
        if let Some(from) = from.filter(|from| *from >= to) {
            let (process, partition) = (process.clone(), partition.clone());
            found.push(Anomaly::NonmonotonicSend { process, partition, from, to });
        }
    }
}

fn check_order_of_polls(history: &History, logs: &BTreeMap<&str, Log>, found: &mut Vec<Anomaly>) {
    let mut last: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for event in &history.events {
        match event {
            Event::Assign { process, partition } | Event::Assigned { process, partition, .. } => {
                last.remove(&(process.as_str(), partition.as_str()));
            }
            Event::Poll { process, partition, offset: to, .. } => {
                let to = *to;
                let from = last.insert((process, partition), to);
                let Some(from) = from else { continue };
                let skips = || {
                    let log = logs.get(partition.as_str())?;
                    log.values.range((from + 1)..to).next()
                };
                let (process, partition) = (process.clone(), partition.clone());
                if from >= to {
                    found.push(Anomaly::NonmonotonicPoll { process, partition, from, to });
                } else if skips().is_some() {
                    found.push(Anomaly::PollSkip { process, partition, from, to });
                }
            }
            _ => {}
        }
    }
}

/// A partition, as one group has it.
#[derive(Default)]
struct Shared<'a> {
    owners: BTreeSet<&'a str>,
    given: BTreeSet<&'a str>,
    /// The furthest commit that was acknowledged.
    committed: Option<i64>,
    /// The furthest offset up to which a commit was checked.
    checked: i64,
}

fn check_groups(history: &History, logs: &BTreeMap<&str, Log>, found: &mut Vec<Anomaly>) {
    let mut shared: BTreeMap<(&str, &str), Shared<'_>> = BTreeMap::new();
    // The group that each process is a member of.
    let mut members: BTreeMap<&str, &str> = BTreeMap::new();
    for event in &history.events {
        match event {
            Event::Assigned { process, group, partition, offset } => {
                members.insert(process, group);
                let state = shared.entry((group, partition)).or_default();
                state.owners.insert(process);
                if let Some(committed) = state.committed.filter(|committed| committed > offset) {
                    let (group, partition, began) = (group.clone(), partition.clone(), *offset);
                    found.push(Anomaly::OffsetsWentBack { group, partition, committed, began });
                }
                // What a coordinator has told is committed.
                state.committed = state.committed.max(Some(*offset));
            }
            Event::Revoked { process, group, partition } => {
                shared.entry((group, partition)).or_default().owners.remove(process.as_str());
            }
            Event::Ended { process } => {
                for state in shared.values_mut() {
                    state.owners.remove(process.as_str());
                }
            }
            Event::Poll { process, partition, offset, value } => {
                let Some(group) = members.get(process.as_str()).copied() else { continue };
                let state = shared.entry((group, partition)).or_default();
                state.given.insert(value);
                if !state.owners.contains(process.as_str()) {
                    let (process, group) = (process.clone(), group.to_owned());
                    let (partition, offset) = (partition.clone(), *offset);
                    found.push(Anomaly::StrayPoll { process, group, partition, offset });
                }
            }
            Event::Commit { group, partition, offset, .. } => {
                let state = shared.entry((group, partition)).or_default();
                let from = state.checked;
                state.checked = from.max(*offset);
                let Some(log) = logs.get(partition.as_str()) else { continue };
                for value in log.values.range(from..state.checked).map(|(_, value)| value) {
                    if !state.given.contains(value.as_str()) {
                        let (group, partition) = (group.clone(), partition.clone());
                        let (offset, value) = (*offset, value.clone());
                        found.push(Anomaly::CommitSkip { group, partition, offset, value });
                    }
                }
            }
            Event::Committed { group, partition, offset, .. } => {
                let state = shared.entry((group, partition)).or_default();
                state.committed = state.committed.max(Some(*offset));
            }
            Event::Settled { group, partition } => {
                let state = shared.entry((group, partition)).or_default();
                if state.owners.len() != 1 {
                    let owners = state.owners.iter().map(|&owner| owner.to_owned()).collect();
                    let (group, partition) = (group.clone(), partition.clone());
                    found.push(Anomaly::Owners { group, partition, owners });
                }
                let outcomes = logs.get(partition.as_str()).map(|log| &log.outcomes);
                for (value, outcome) in outcomes.into_iter().flatten() {
                    let is_there = matches!(outcome, Outcome::Acknowledged(_));
                    if is_there && !state.given.contains(value.as_str()) {
                        let (group, partition) = (group.clone(), partition.clone());
                        let value = value.clone();
                        found.push(Anomaly::UnseenByGroup { group, partition, value });
                    }
                }
            }
            _ => {}
        }
    }
}
