//! What clients did and saw, for the checker. One line each, so that a history can be read, kept, and written by
//! other programs.

use std::fmt;

/// A client's name.
pub(crate) type Process = String;

/// What became of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was acknowledged at this offset.
    Acknowledged(i64),
    /// It was refused for certain.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process sent a value; the sends of a process to a partition stand in the order of their calls.
    Send { process: Process, partition: i32, value: String, outcome: Outcome },
    /// A process polls a partition from anywhere next.
    Assign { process: Process, partition: i32 },
    /// A process was given records, by offset.
    Poll { process: Process, partition: i32, records: Vec<(i64, String)> },
    /// Everything was over, and a process had read the partition from the start to the end.
    Drained { process: Process, partition: i32 },
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { process, partition, value, outcome } => {
                write!(formatter, "send {process} {partition} {value} ")?;
                match outcome {
                    Outcome::Acknowledged(offset) => write!(formatter, "at {offset}"),
                    Outcome::Refused => write!(formatter, "refused"),
                    Outcome::Unknown => write!(formatter, "unknown"),
                }
            }
            Self::Assign { process, partition } => {
                write!(formatter, "assign {process} {partition}")
            }
            Self::Poll { process, partition, records } => {
                write!(formatter, "poll {process} {partition}")?;
                records
                    .iter()
                    .try_for_each(|(offset, value)| write!(formatter, " {offset}={value}"))
            }
            Self::Drained { process, partition } => {
                write!(formatter, "drained {process} {partition}")
            }
        }
    }
}

/// The events of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
    /// What clients were told that they never should be.
    pub(crate) complaints: Vec<String>,
}

impl History {
    /// Notes a send that has begun; [`History::end`] says what became of it.
    pub(crate) fn begin(&mut self, process: &str, partition: i32, value: &str) -> usize {
        let (process, value) = (process.to_owned(), value.to_owned());
        self.events.push(Event::Send { process, partition, value, outcome: Outcome::Unknown });
        self.events.len() - 1
    }

    pub(crate) fn end(&mut self, begun: usize, ended: Outcome) {
        let Some(Event::Send { outcome, .. }) = self.events.get_mut(begun) else {
            panic!("event {begun} is not a send");
        };
        *outcome = ended;
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.events.push(event);
    }
}
