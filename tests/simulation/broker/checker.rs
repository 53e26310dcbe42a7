//! Reads a history, and finds what must not happen.
//!
//! Every value is sent once, so what a log holds at an offset is what anybody saw there: in a poll, or in an
//! acknowledgement. The names of the anomalies are those of Jepsen's Kafka workload.

use std::collections::BTreeMap;

use super::history::{Event, History, Outcome};

/// What must not happen, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// An acknowledged value was passed over by whoever read beyond it.
    LostWrite { partition: i32, value: String, offset: i64 },
    /// Two values at one offset.
    InconsistentOffsets { partition: i32, offset: i64, values: [String; 2] },
    /// One value at two offsets.
    Duplicate { partition: i32, value: String, offsets: [i64; 2] },
    /// A poll passed over a value that is there.
    PollSkip { process: String, partition: i32, from: i64, to: i64 },
    /// A poll went back.
    NonmonotonicPoll { process: String, partition: i32, from: i64, to: i64 },
    /// A later send was acknowledged at an earlier offset.
    NonmonotonicSend { process: String, partition: i32, from: i64, to: i64 },
    /// A value was acknowledged, and the drained log does not have it.
    Unseen { partition: i32, value: String },
    /// A value was read whose send was refused.
    AbortedRead { partition: i32, value: String },
    /// A value was read that nobody sent.
    Invented { partition: i32, value: String },
}

/// The values of one partition.
#[derive(Default)]
struct Log {
    values: BTreeMap<i64, String>,
    offsets: BTreeMap<String, i64>,
    /// Whether it was polled, by value.
    polled: BTreeMap<String, bool>,
    outcomes: BTreeMap<String, Outcome>,
    is_drained: bool,
}

/// All anomalies of a history.
pub(crate) fn check(history: &History) -> Vec<Anomaly> {
    let mut logs: BTreeMap<i32, Log> = BTreeMap::new();
    let mut found = Vec::new();
    for event in &history.events {
        match event {
            Event::Send { partition, value, outcome, .. } => {
                let log = logs.entry(*partition).or_default();
                log.outcomes.insert(value.clone(), outcome.clone());
                if let Outcome::Acknowledged(offset) = outcome {
                    log.see(*partition, *offset, value, &mut found);
                }
            }
            Event::Poll { partition, records, .. } => {
                let log = logs.entry(*partition).or_default();
                for (offset, value) in records {
                    log.see(*partition, *offset, value, &mut found);
                    log.polled.insert(value.clone(), true);
                }
            }
            Event::Drained { partition, .. } => {
                logs.entry(*partition).or_default().is_drained = true;
            }
            Event::Assign { .. } => {}
        }
    }
    for (partition, log) in &logs {
        log.check(*partition, &mut found);
    }
    check_order_of_sends(history, &mut found);
    check_order_of_polls(history, &logs, &mut found);
    found
}

impl Log {
    fn see(&mut self, partition: i32, offset: i64, value: &str, found: &mut Vec<Anomaly>) {
        let first = self.values.entry(offset).or_insert_with(|| value.to_owned());
        if first != value {
            let values = [first.clone(), value.to_owned()];
            found.push(Anomaly::InconsistentOffsets { partition, offset, values });
        }
        let first = *self.offsets.entry(value.to_owned()).or_insert(offset);
        if first != offset {
            let (value, offsets) = (value.to_owned(), [first, offset]);
            found.push(Anomaly::Duplicate { partition, value, offsets });
        }
    }

    fn check(&self, partition: i32, found: &mut Vec<Anomaly>) {
        let furthest = self.polled.keys().filter_map(|value| self.offsets.get(value)).max();
        for (value, outcome) in &self.outcomes {
            let is_polled = self.polled.contains_key(value);
            let value = value.clone();
            match outcome {
                Outcome::Acknowledged(offset) if !is_polled => {
                    let offset = *offset;
                    if furthest.is_some_and(|furthest| offset <= *furthest) {
                        found.push(Anomaly::LostWrite { partition, value, offset });
                    } else if self.is_drained {
                        found.push(Anomaly::Unseen { partition, value });
                    }
                }
                Outcome::Refused if is_polled => {
                    found.push(Anomaly::AbortedRead { partition, value });
                }
                _ => {}
            }
        }
        for value in self.polled.keys().filter(|value| !self.outcomes.contains_key(*value)) {
            found.push(Anomaly::Invented { partition, value: value.clone() });
        }
    }
}

fn check_order_of_sends(history: &History, found: &mut Vec<Anomaly>) {
    let mut last: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for event in &history.events {
        let Event::Send { process, partition, outcome: Outcome::Acknowledged(to), .. } = event
        else {
            continue;
        };
        let from = last.insert((process, *partition), *to);
        if let Some(from) = from.filter(|from| from >= to) {
            let (process, partition, to) = (process.clone(), *partition, *to);
            found.push(Anomaly::NonmonotonicSend { process, partition, from, to });
        }
    }
}

fn check_order_of_polls(history: &History, logs: &BTreeMap<i32, Log>, found: &mut Vec<Anomaly>) {
    let mut last: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for event in &history.events {
        match event {
            Event::Assign { process, partition } => {
                last.remove(&(process.as_str(), *partition));
            }
            Event::Poll { process, partition, records } => {
                for (to, _) in records {
                    let from = last.insert((process, *partition), *to);
                    let Some(from) = from else { continue };
                    let (process, partition, to) = (process.clone(), *partition, *to);
                    let between = (from + 1)..to;
                    if from >= to {
                        found.push(Anomaly::NonmonotonicPoll { process, partition, from, to });
                    } else if logs
                        .get(&partition)
                        .is_some_and(|log| log.values.range(between).next().is_some())
                    {
                        found.push(Anomaly::PollSkip { process, partition, from, to });
                    }
                }
            }
            _ => {}
        }
    }
}

/// Two sends, a poll of the first, and what comes behind them.
fn history(more: impl IntoIterator<Item = Event>) -> History {
    let mut events = vec![send("a", Outcome::Acknowledged(0)), send("b", Outcome::Acknowledged(1))];
    events.push(poll(&[(0, "a")]));
    events.extend(more);
    History { events, ..History::default() }
}

fn send(value: &str, outcome: Outcome) -> Event {
    let process = "producer".to_owned();
    Event::Send { process, partition: 0, value: value.to_owned(), outcome }
}

fn poll(records: &[(i64, &str)]) -> Event {
    let records = records.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect();
    Event::Poll { process: "consumer".to_owned(), partition: 0, records }
}

fn drained() -> Event {
    Event::Drained { process: "consumer".to_owned(), partition: 0 }
}

#[test]
fn a_log_that_was_read_in_order_is_in_order() {
    assert_eq!(check(&history([])), []);
    assert_eq!(check(&history([poll(&[(1, "b")]), drained()])), []);
    // Offsets of control records are nobody's, and what is unknown may be there or not.
    let unknown = [poll(&[(1, "b"), (5, "c")]), send("c", Outcome::Unknown)];
    assert_eq!(check(&history(unknown)), []);
    assert_eq!(check(&history([send("c", Outcome::Unknown), send("d", Outcome::Refused)])), []);
}

#[test]
fn every_anomaly_is_found() {
    let names = |more: &[Event]| -> Vec<String> {
        let found = check(&history(more.iter().cloned()));
        let name = |anomaly: &Anomaly| format!("{anomaly:?}");
        found.iter().map(|one| name(one).split(' ').next().unwrap().to_owned()).collect()
    };
    let c = send("c", Outcome::Acknowledged(2));
    assert_eq!(names(&[c.clone(), poll(&[(2, "c")])]), ["LostWrite", "PollSkip"]);
    assert_eq!(names(&[poll(&[(1, "b")]), c, drained()]), ["Unseen"]);
    assert_eq!(
        names(&[send("d", Outcome::Unknown), poll(&[(1, "d")])]),
        ["InconsistentOffsets", "LostWrite"]
    );
    assert_eq!(names(&[poll(&[(1, "b"), (2, "b")])]), ["Duplicate"]);
    assert_eq!(names(&[poll(&[(1, "b"), (0, "a")])]), ["NonmonotonicPoll"]);
    let again = Event::Assign { process: "consumer".to_owned(), partition: 0 };
    assert_eq!(names(&[poll(&[(1, "b")]), again, poll(&[(0, "a")])]), [""; 0]);
    let back = [poll(&[(1, "b"), (2, "e"), (3, "d")]), send("d", Outcome::Acknowledged(3))];
    let back = back.into_iter().chain([send("e", Outcome::Acknowledged(2))]);
    assert_eq!(names(&back.collect::<Vec<_>>()), ["NonmonotonicSend"]);
    let refused = send("f", Outcome::Refused);
    assert_eq!(names(&[poll(&[(1, "b"), (2, "f")]), refused]), ["AbortedRead"]);
    assert_eq!(names(&[poll(&[(1, "b"), (2, "g")])]), ["Invented"]);
}
