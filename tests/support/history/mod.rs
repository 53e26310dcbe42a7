//! What clients did and saw, in the order in which it happened; [`checker`] finds what must not happen in it.
//!
//! Histories come from simulated runs (`tests/simulation/broker`), from real brokers (`tests/conformance`), and as
//! files of clients in any language (`tests/python/crash/test_history.py`), which `check_history` reads
//! (`tests/support/history/main.rs`).
//!
//! # The format
//!
//! A file has one JSON object per line, in the order in which things happened; processes that write at the same
//! time append whole lines. `op` says what it is, and the other members are those of the variants of [`Event`]:
//!
//! ```text
//! {"op":"send","process":"p1","partition":"orders-0","value":"p1-7"}
//! {"op":"acknowledged","process":"p1","partition":"orders-0","value":"p1-7","offset":12}
//! {"op":"refused","process":"p1","partition":"orders-0","value":"p1-8"}
//! {"op":"assign","process":"c1","partition":"orders-0"}
//! {"op":"poll","process":"c1","partition":"orders-0","offset":12,"value":"p1-7"}
//! {"op":"drained","process":"c1","partition":"orders-0"}
//! ```
//!
//! - Every value is sent once in a history, by one process, to one partition.
//! - `send` is written before the record is handed to the client. What became of it stands later, or nowhere: then
//!   nobody knows whether it is in the log, as when its process was killed.
//! - `assign` says that a process polls from anywhere next; `drained`, that it read from the start to the end
//!   after everybody had stopped sending.
//!
//! A member of a group says besides what it was given, and what it commits:
//!
//! ```text
//! {"op":"assigned","process":"m1","group":"g","partition":"orders-0","offset":0}
//! {"op":"commit","process":"m1","group":"g","partition":"orders-0","offset":13}
//! {"op":"committed","process":"m1","group":"g","partition":"orders-0","offset":13}
//! {"op":"revoked","process":"m1","group":"g","partition":"orders-0"}
//! {"op":"ended","process":"m1"}
//! {"op":"settled","group":"g","partition":"orders-0"}
//! ```
//!
//! - `assigned` has the offset at which the member begins, `commit` is written before the request and `committed`
//!   after its answer, `revoked` when the member has given the partition up or has lost it.
//! - `ended` takes all partitions from a process: it is gone.
//! - `settled` says that the group had read the partition to the end after everybody had stopped sending.
//!
//! Transactions:
//!
//! ```text
//! {"op":"begin","process":"p1","transaction":"p1-3"}
//! {"op":"write","process":"p1","transaction":"p1-3","partition":"orders-0","value":"p1-9"}
//! {"op":"wrote","process":"p1","transaction":"p1-3","partition":"orders-0","value":"p1-9","offset":14}
//! {"op":"offsets","process":"p1","transaction":"p1-3","group":"g","partition":"in-0","offset":7}
//! {"op":"end","transaction":"p1-3","commits":true}
//! {"op":"decided","transaction":"p1-3","committed":true}
//! {"op":"reads_committed","process":"c1"}
//! {"op":"stable","partition":"orders-0","epoch":2,"offset":16}
//! ```
//!
//! - A transaction has a name of its own. `write` stands for `send`, and `wrote` for `acknowledged`. `of` in a `write` names the
//!   record that it was made from, `{"partition":"in-0","offset":6}`: of every such record that is committed, one is made that is.
//! - `offsets` is written before they are handed over; they are committed with the transaction.
//! - `end` is written before the request. Where none that commits stands, the transaction was never committed. `decided` is what it
//!   came to; where it stands nowhere, nobody was told.
//! - `reads_committed` says what a process polls, in all of the history.
//! - `stable` is a last stable offset that a leader told, as seen by one observer who asks one leader at a time.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod checker;
mod transactions;

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// A client's name.
pub(crate) type Process = String;
/// The name of a topic, a dash and an index.
pub(crate) type Partition = String;
/// The name of a group.
pub(crate) type Group = String;

/// The name of a transaction.
pub(crate) type Transaction = String;

/// The record that another one was made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Origin {
    pub(crate) partition: Partition,
    pub(crate) offset: i64,
}

/// One line of a history. See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Event {
    Send {
        process: Process,
        partition: Partition,
        value: String,
    },
    Acknowledged {
        process: Process,
        partition: Partition,
        value: String,
        offset: i64,
    },
    Refused {
        process: Process,
        partition: Partition,
        value: String,
    },
    Assign {
        process: Process,
        partition: Partition,
    },
    Poll {
        process: Process,
        partition: Partition,
        offset: i64,
        value: String,
    },
    Drained {
        process: Process,
        partition: Partition,
    },
    Assigned {
        process: Process,
        group: Group,
        partition: Partition,
        offset: i64,
    },
    Revoked {
        process: Process,
        group: Group,
        partition: Partition,
    },
    Commit {
        process: Process,
        group: Group,
        partition: Partition,
        offset: i64,
    },
    Committed {
        process: Process,
        group: Group,
        partition: Partition,
        offset: i64,
    },
    Ended {
        process: Process,
    },
    Settled {
        group: Group,
        partition: Partition,
    },
    Begin {
        process: Process,
        transaction: Transaction,
    },
    Write {
        process: Process,
        transaction: Transaction,
        partition: Partition,
        value: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Origin>,
    },
    Wrote {
        process: Process,
        transaction: Transaction,
        partition: Partition,
        value: String,
        offset: i64,
    },
    Offsets {
        process: Process,
        transaction: Transaction,
        group: Group,
        partition: Partition,
        offset: i64,
    },
    End {
        transaction: Transaction,
        commits: bool,
    },
    Decided {
        transaction: Transaction,
        committed: bool,
    },
    ReadsCommitted {
        process: Process,
    },
    Stable {
        partition: Partition,
        epoch: i32,
        offset: i64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&serde_json::to_string(self).map_err(|_unwritable| fmt::Error)?)
    }
}

/// The events of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
}

impl History {
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A line is no event; the error has its number.
    pub(crate) fn parse(text: &str) -> io::Result<Self> {
        let mut events = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let event = serde_json::from_str(line).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {error}", index + 1))
            })?;
            events.push(event);
        }
        Ok(Self { events })
    }

    /// The content of a file.
    pub(crate) fn to_text(&self) -> String {
        self.events.iter().flat_map(|event| [event.to_string(), "\n".to_owned()]).collect()
    }

    /// How many sends were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let is_one =
            |event: &&Event| matches!(event, Event::Acknowledged { .. } | Event::Wrote { .. });
        self.events.iter().filter(is_one).count()
    }

    /// How many transactions came to this end, for all that their clients were told.
    pub(crate) fn decided(&self, committed: bool) -> usize {
        let is_one = |event: &&Event| matches!(event, Event::Decided { committed: one, .. } if *one == committed);
        self.events.iter().filter(is_one).count()
    }
}
