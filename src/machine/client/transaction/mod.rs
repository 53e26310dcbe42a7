//! The transactions of one producer: what it may do now, what to ask the coordinators, and what their answers mean.
//!
//! ```text
//!                 Initialize             begin
//! Uninitialized ────────────► Ready ──────────────► InTransaction ─complete─► Committing ──┐
//!       ▲                       ▲                    │         │                │          │
//!       │                       │           (refused)│         └───give up───► Aborting ───┤
//!       │                       │                    ▼                          ▲          │
//!       │                       │                Abortable ──────give up────────┘          │
//!       │                       └──────────────────(answered)──────────────────────────────┤
//!       └──────────(nobody knows how it ended, or a new epoch is needed)───────────────────┘
//!
//! any ──(another producer took over)──► Fatal
//! ```
//!
//! Whoever drives it starts an [`Operation`] and does what [`Transaction::next`] says until that is
//! [`Next::Done`]: call, and report the answer; or wait. Partitions of version 1 are added beside it, by
//! [`Transaction::to_add`].
//!
//! Invariants:
//! - TXN-1: the version is fixed when a transaction begins. In version 1 (KIP-98), a partition is sent to only after
//!   the coordinator has it. In version 2 (KIP-890), leaders and group coordinators add what they are sent.
//! - TXN-2: a commit that was asked for and not answered is told as [`Failure::Unknown`]. Nothing begins after
//!   it before the coordinator gave a new epoch: the request may still arrive, and would commit what comes next.
//! - TXN-3: in version 1, where all transactions have one epoch, this also holds after any request without an answer,
//!   and after a batch that failed.
//! - TXN-4: a new epoch is asked for with the current one (KIP-360), so a producer that was replaced cannot
//!   take the id back.
//! - TXN-5: after [`State::Abortable`] nothing is sent but the abort.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use table::{Call, Judgement};
use table::{is_doubtful, judge, judge_batch};

use super::backoff::Backoff;
use crate::error::ErrorCode;
use crate::types::{ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

/// The wait before asking a coordinator again that is still completing the transaction before.
const SOON_MS: i64 = 20;

/// How transactions are done, from the finalized feature `transaction.version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// KIP-98: the producer adds partitions, and keeps its epoch.
    #[default]
    One,
    /// KIP-890: brokers add partitions, and each transaction has an epoch of its own.
    Two,
}

impl Version {
    /// The version for a level of the feature; it is 0 where nobody has finalized it.
    #[must_use]
    pub const fn of_feature(level: i16) -> Self {
        if level >= 2 { Self::Two } else { Self::One }
    }
}

/// Where the producer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no epoch that it may use.
    Uninitialized,
    /// A transaction can begin.
    Ready,
    /// A transaction is open.
    InTransaction,
    /// It is being committed.
    Committing,
    /// It is being aborted.
    Aborting,
    /// It can only be aborted.
    Abortable,
    /// The producer cannot continue.
    Fatal,
}

/// Why something did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is not allowed in this state.
    Misplaced(State),
    /// It was refused, or had no success in time; the producer is as before.
    Refused(Reason),
    /// The transaction can only be aborted.
    Abortable(Reason),
    /// Another producer with the same transactional id took over. With `in_doubt`, the commit may have succeeded before.
    Fenced {
        /// Whether a commit was asked for that was not answered.
        in_doubt: bool,
    },
    /// The producer cannot continue; `in_doubt` as for [`Self::Fenced`].
    Fatal {
        /// Why.
        reason: Reason,
        /// Whether a commit was asked for that was not answered.
        in_doubt: bool,
    },
    /// Nobody knows whether the transaction was committed.
    Unknown(Reason),
}

/// What stood in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What was asked for; none for a batch.
    pub call: Option<Call>,
    /// The last answer, if there was one.
    pub code: Option<ErrorCode>,
    /// Whether the time ran out.
    pub expired: bool,
}

/// What is done with coordinators, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Get an id and an epoch, and have an open transaction of the same transactional id aborted.
    Initialize,
    /// Make offsets part of the transaction.
    Offsets,
    /// Commit, after [`Transaction::complete`]; all batches have been acknowledged.
    Commit,
    /// Abort, after [`Transaction::give_up`]; no batch is on its way.
    Abort,
}

/// What to do next for the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Make this call, and report its answer.
    Call(Call),
    /// Nothing before this time.
    Wait(TimestampMs),
    /// It has ended.
    Done(Result<(), Failure>),
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The coordinator's answer, and the id and epoch in it.
    Said(ErrorCode, Option<(ProducerId, ProducerEpoch)>),
    /// It could not be asked.
    NotAsked,
    /// It was asked, and did not answer.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    call: Call,
    deadline: TimestampMs,
    retry_at: TimestampMs,
    failures: u32,
    last: Option<ErrorCode>,
    /// The coordinator may have done it, or may still do it.
    in_doubt: bool,
    outcome: Option<Result<(), Failure>>,
}

/// Partitions of version 1 on their way into the transaction.
#[derive(Clone, Debug, Default)]
struct Adding {
    wanted: BTreeSet<TopicPartition>,
    asked: BTreeSet<TopicPartition>,
    added: BTreeSet<TopicPartition>,
    failures: u32,
    retry_at: TimestampMs,
}

/// The transactions of one producer. See the module's documentation.
#[derive(Debug)]
pub struct Transaction {
    backoff: Backoff,
    state: State,
    producer: Option<(ProducerId, ProducerEpoch)>,
    version: Version,
    /// The next transaction needs another epoch (TXN-2, TXN-3).
    wants_epoch: bool,
    /// The coordinator has something to end. If it may have, because it did not answer, the next epoch ends that: asked to
    /// end what it does not have, it would refuse for good.
    is_started: bool,
    adding: Adding,
    failure: Option<Failure>,
    running: Option<Running>,
}

impl Transaction {
    /// A producer without an id.
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            state: State::Uninitialized,
            producer: None,
            version: Version::One,
            wants_epoch: false,
            is_started: false,
            adding: Adding::default(),
            failure: None,
            running: None,
        }
    }

    /// Where the producer is.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The version of the transaction, or of the last one.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The current id and epoch.
    #[must_use]
    pub const fn producer(&self) -> Option<(ProducerId, ProducerEpoch)> {
        self.producer
    }

    /// Whether [`Operation::Initialize`] comes before a transaction of this version.
    ///
    /// The first transaction of version 2 after others begins with a new epoch, since a partition of one before
    /// would seem to be in it.
    #[must_use]
    pub fn needs_initialization(&self, version: Version) -> bool {
        match self.state {
            State::Uninitialized => true,
            State::Ready => self.wants_epoch || version > self.version,
            _ => false,
        }
    }

    /// Begins a transaction.
    ///
    /// # Errors
    ///
    /// One is open, or the producer cannot begin one.
    pub fn begin(&mut self, version: Version) -> Result<(), Failure> {
        if self.state != State::Ready || self.needs_initialization(version) {
            return Err(self.misplaced());
        }
        self.state = State::InTransaction;
        self.version = version;
        self.is_started = false;
        self.adding = Adding::default();
        Ok(())
    }

    /// Accepts a record for a partition.
    ///
    /// # Errors
    ///
    /// No transaction is open, or it can only be aborted.
    pub fn join(&mut self, partition: &TopicPartition) -> Result<(), Failure> {
        if self.state != State::InTransaction {
            return Err(self.misplaced());
        }
        match self.version {
            Version::Two => self.is_started = true,
            Version::One => {
                let Adding { wanted, asked, added, .. } = &mut self.adding;
                if ![&*wanted, asked, added].iter().any(|set| set.contains(partition)) {
                    wanted.insert(partition.clone());
                }
            }
        }
        Ok(())
    }

    /// Whether batches of a partition may be sent (TXN-1).
    #[must_use]
    pub fn may_send(&self, partition: &TopicPartition) -> bool {
        self.is_open() && (self.version == Version::Two || self.adding.added.contains(partition))
    }

    /// Why waiting batches will not be sent any more (TXN-5); `None` while they may be.
    #[must_use]
    pub const fn obstacle(&self) -> Option<Failure> {
        match self.state {
            State::InTransaction | State::Committing => None,
            State::Abortable | State::Fatal => self.failure,
            state => Some(Failure::Misplaced(state)),
        }
    }

    /// The partitions to add now; none while others are being added. Report the answer with [`Self::added`].
    pub fn to_add(&mut self, now: TimestampMs) -> Vec<TopicPartition> {
        let is_open = self.is_open();
        let Adding { wanted, asked, retry_at, .. } = &mut self.adding;
        if !is_open || !asked.is_empty() || *retry_at > now {
            return Vec::new();
        }
        *asked = std::mem::take(wanted);
        asked.iter().cloned().collect()
    }

    /// When partitions are to be added again.
    #[must_use]
    pub fn add_at(&self) -> Option<TimestampMs> {
        let waits = self.is_open() && !self.adding.wanted.is_empty();
        (waits && self.adding.asked.is_empty()).then_some(self.adding.retry_at)
    }

    /// Whether the coordinator is being asked to add partitions.
    #[must_use]
    pub fn is_adding(&self) -> bool {
        !self.adding.asked.is_empty()
    }

    /// Takes the answer to [`Self::to_add`]: the code of the first partition that was not added.
    pub fn added(&mut self, now: TimestampMs, answer: Answer, random: u64) {
        let asked = std::mem::take(&mut self.adding.asked);
        let judgement = match answer {
            Answer::Said(code, _) => judge(Call::AddPartitions, self.version, code),
            Answer::NotAsked | Answer::Lost => Judgement::Retry,
        };
        // It may be carried out later.
        self.wants_epoch |= answer == Answer::Lost;
        let reason =
            |expired| Reason { call: Some(Call::AddPartitions), code: code(answer), expired };
        match judgement {
            Judgement::Accepted => {
                self.is_started = true;
                self.adding.failures = 0;
                self.adding.retry_at = TimestampMs::NONE;
                self.adding.added.extend(asked);
            }
            Judgement::Retry | Judgement::RetrySoon => {
                self.adding.failures = self.adding.failures.saturating_add(1);
                // A partition beside others is in no hurry: the transaction before has ended.
                let soon = judgement == Judgement::RetrySoon && self.adding.added.is_empty();
                self.adding.retry_at = now.plus(self.delay(soon, self.adding.failures, random));
                self.adding.wanted.extend(asked);
            }
            Judgement::Abortable | Judgement::Refused => {
                self.fail_abortable(Failure::Abortable(reason(false)));
            }
            Judgement::Fenced => self.fail(Failure::Fenced { in_doubt: false }),
            Judgement::Fatal => {
                self.fail(Failure::Fatal { reason: reason(false), in_doubt: false });
            }
        }
    }

    /// A batch failed, with the code if a broker gave one: the transaction cannot be committed.
    pub fn batch_failed(&mut self, code: Option<ErrorCode>, expired: bool) {
        self.lose_sequence();
        let reason = Reason { call: None, code, expired };
        let code = code.filter(|_| !expired).unwrap_or(ErrorCode::NetworkException);
        match judge_batch(code) {
            Judgement::Fenced => self.fail(Failure::Fenced { in_doubt: false }),
            Judgement::Fatal => self.fail(Failure::Fatal { reason, in_doubt: false }),
            _ => self.fail_abortable(Failure::Abortable(reason)),
        }
    }

    /// Sequence numbers were used that will not reach a log (TXN-3). The epoch of version 2 ends anyway.
    pub fn lose_sequence(&mut self) {
        self.wants_epoch |= self.version == Version::One;
    }

    const fn is_open(&self) -> bool {
        matches!(self.state, State::InTransaction | State::Committing)
    }

    /// Takes no more records: what there is will be sent, then committed.
    ///
    /// # Errors
    ///
    /// No transaction is open, or it can only be aborted.
    pub fn complete(&mut self) -> Result<(), Failure> {
        if self.state != State::InTransaction {
            return Err(self.misplaced());
        }
        self.state = State::Committing;
        Ok(())
    }

    /// Gives up the transaction: nothing is sent any more but the abort.
    ///
    /// # Errors
    ///
    /// None is open.
    pub fn give_up(&mut self) -> Result<(), Failure> {
        if !matches!(self.state, State::InTransaction | State::Abortable) {
            return Err(self.misplaced());
        }
        self.state = State::Aborting;
        self.adding.wanted.clear();
        Ok(())
    }

    /// Starts an operation. Only one is under way.
    ///
    /// # Errors
    ///
    /// The state does not allow it.
    pub fn start(&mut self, operation: Operation, deadline: TimestampMs) -> Result<(), Failure> {
        let call = match (operation, self.state) {
            (Operation::Initialize, State::Uninitialized | State::Ready) => {
                self.state = State::Uninitialized;
                Call::Initialize
            }
            (Operation::Offsets, State::InTransaction) => match self.version {
                Version::One => Call::AddOffsets,
                Version::Two => {
                    self.is_started = true;
                    Call::CommitOffsets
                }
            },
            (Operation::Commit, State::Committing) => Call::Commit,
            (Operation::Abort, State::Aborting) => Call::Abort,
            _ => return Err(self.misplaced()),
        };
        let mut running = Running {
            call,
            deadline,
            retry_at: TimestampMs::NONE,
            failures: 0,
            last: None,
            in_doubt: false,
            outcome: None,
        };
        if matches!(call, Call::Commit | Call::Abort) && !self.is_started {
            // The coordinator has not heard of it.
            self.end();
            running.outcome = Some(Ok(()));
        }
        self.running = Some(running);
        Ok(())
    }

    /// What to do now for the operation.
    pub fn next(&mut self, now: TimestampMs) -> Next {
        let Some(running) = self.running else {
            return Next::Done(Err(Failure::Misplaced(self.state)));
        };
        if let Some(outcome) = running.outcome {
            self.running = None;
            return Next::Done(outcome);
        }
        if now >= running.deadline {
            self.running = None;
            return Next::Done(Err(self.expire(running)));
        }
        if running.retry_at > now {
            return Next::Wait(running.retry_at.min(running.deadline));
        }
        Next::Call(running.call)
    }

    /// Takes the answer to the call that [`Self::next`] gave.
    pub fn answered(&mut self, now: TimestampMs, answer: Answer, random: u64) {
        let Some(mut running) = self.running.take() else { return };
        let call = running.call;
        let judgement = match answer {
            Answer::Said(code, _) => judge(call, self.version, code),
            Answer::NotAsked | Answer::Lost => Judgement::Retry,
        };
        running.last = code(answer).or(running.last);
        if answer == Answer::Lost && self.version == Version::One && call != Call::Initialize {
            self.wants_epoch = true;
        }
        let reason = Reason { call: Some(call), code: running.last, expired: false };
        let in_doubt = running.in_doubt && call == Call::Commit;
        running.outcome = match judgement {
            Judgement::Accepted => self.accepted(&mut running, answer),
            Judgement::Retry | Judgement::RetrySoon => {
                running.failures = running.failures.saturating_add(1);
                running.in_doubt |= match answer {
                    Answer::Said(code, _) => is_doubtful(code),
                    Answer::Lost => true,
                    Answer::NotAsked => false,
                };
                let soon = judgement == Judgement::RetrySoon;
                running.retry_at = now.plus(self.delay(soon, running.failures, random));
                None
            }
            Judgement::Refused => Some(Err(Failure::Refused(reason))),
            Judgement::Abortable => {
                self.wants_epoch |= self.version == Version::One
                    && running.last == Some(ErrorCode::UnknownProducerId);
                if self.state == State::Aborting {
                    // Whatever the coordinator has is aborted when the next epoch is asked for.
                    self.state = State::Uninitialized;
                    Some(Err(Failure::Refused(reason)))
                } else {
                    self.fail_abortable(Failure::Abortable(reason));
                    Some(Err(Failure::Abortable(reason)))
                }
            }
            Judgement::Fenced => {
                let failure = Failure::Fenced { in_doubt };
                self.fail(failure);
                Some(Err(failure))
            }
            Judgement::Fatal => {
                let failure = Failure::Fatal { reason, in_doubt };
                self.fail(failure);
                Some(Err(failure))
            }
        };
        self.running = Some(running);
    }

    fn accepted(&mut self, running: &mut Running, answer: Answer) -> Option<Result<(), Failure>> {
        let given = match answer {
            Answer::Said(_, given) => given,
            Answer::NotAsked | Answer::Lost => None,
        };
        match running.call {
            Call::AddOffsets => {
                self.is_started = true;
                running.call = Call::CommitOffsets;
                running.failures = 0;
                running.in_doubt = false;
                return None;
            }
            Call::Initialize => {
                self.producer = given.or(self.producer);
                self.wants_epoch = false;
                // Until a transaction of version 1 uses the epoch, either version may.
                self.version = Version::Two;
                self.state = State::Ready;
            }
            Call::Commit | Call::Abort => {
                if given.is_some() {
                    self.producer = given;
                    self.wants_epoch = false;
                }
                self.end();
            }
            Call::CommitOffsets | Call::AddPartitions => {}
        }
        Some(Ok(()))
    }

    /// The time of an operation is over.
    fn expire(&mut self, running: Running) -> Failure {
        let Running { call, last, in_doubt, .. } = running;
        let reason = Reason { call: Some(call), code: last, expired: true };
        match call {
            Call::Initialize => Failure::Refused(reason),
            Call::Commit if in_doubt => {
                self.state = State::Uninitialized;
                self.wants_epoch = true;
                Failure::Unknown(reason)
            }
            Call::Abort => {
                // The next epoch aborts it.
                self.state = State::Uninitialized;
                self.wants_epoch = true;
                Failure::Refused(reason)
            }
            Call::Commit | Call::AddOffsets | Call::CommitOffsets | Call::AddPartitions => {
                self.fail_abortable(Failure::Abortable(reason));
                Failure::Abortable(reason)
            }
        }
    }

    fn end(&mut self) {
        self.is_started = false;
        self.adding = Adding::default();
        self.failure = None;
        self.state = if self.wants_epoch { State::Uninitialized } else { State::Ready };
    }

    fn misplaced(&self) -> Failure {
        match (self.state, self.failure) {
            (State::Abortable | State::Fatal, Some(failure)) => failure,
            (state, _) => Failure::Misplaced(state),
        }
    }

    /// The first reason stays.
    fn fail_abortable(&mut self, failure: Failure) {
        if self.is_open() {
            self.state = State::Abortable;
            self.failure = Some(failure);
        }
        self.adding.wanted.clear();
    }

    fn fail(&mut self, failure: Failure) {
        if self.state != State::Fatal {
            self.state = State::Fatal;
            self.failure = Some(failure);
        }
    }

    fn delay(&self, soon: bool, failures: u32, random: u64) -> i64 {
        let wait = i64::try_from(self.backoff.delay_ms(failures, random)).unwrap_or(i64::MAX);
        if soon { wait.min(SOON_MS) } else { wait }
    }
}

const fn code(answer: Answer) -> Option<ErrorCode> {
    match answer {
        Answer::Said(code, _) => Some(code),
        Answer::NotAsked | Answer::Lost => None,
    }
}
