//! What the failures of transactions are called in errors, each with its remedy.

use std::sync::Arc;

use super::calls::Coordinators;
use crate::client::errors;
use crate::error::{Error, ErrorCode};
use crate::machine::client::transaction::{Call, Failure, Reason, State};

impl Coordinators {
    /// The error of a failure; `cause` is what was last answered, or why a batch failed.
    pub(in crate::client) fn error(&self, failure: Failure, cause: Option<Arc<Error>>) -> Error {
        let id = self.id();
        match failure {
            Failure::Misplaced(state) => {
                Error::invalid(format!("transactional id {id}: {}", misplaced(state)))
            }
            Failure::Refused(reason) => self.refused(reason, cause),
            Failure::Abortable(reason) => {
                let text = format!(
                    "transactional id {id}: {}: the transaction can only be aborted; abort it, and do its work again",
                    what_failed(reason)
                );
                Error::told(ErrorCode::TransactionAbortable, text).because(cause)
            }
            Failure::Fenced { in_doubt } => {
                let text = format!(
                    "transactional id {id}: another producer with this id took over, or the transaction took longer \
                     than its timeout ({} ms){}; stop the other one, or give this one an id of its own, or raise the \
                     timeout, and make a new producer",
                    self.timeout.as_millis(),
                    doubt(in_doubt)
                );
                Error::told(ErrorCode::ProducerFenced, text).because(cause)
            }
            Failure::Fatal { reason, in_doubt } => {
                let what = format!(
                    "{}{}; this producer cannot continue: close it, and make a new one",
                    what_failed(reason),
                    doubt(in_doubt)
                );
                let code = reason.code.unwrap_or(ErrorCode::UnknownServerError);
                errors::of_transactional_id(code, id, what).because(cause)
            }
            Failure::Unknown(_) => Error::UnknownOutcome {
                what: format!(
                    "transactional id {id}: the coordinator did not answer a commit in time: nobody knows whether the \
                     transaction was committed. The next transaction settles it, by a new epoch; until then, look \
                     with isolation_level=read_committed before its work is done again"
                ),
                source: cause,
            },
        }
    }

    fn refused(&self, reason: Reason, cause: Option<Arc<Error>>) -> Error {
        let id = self.id();
        let what = match reason.call {
            Some(Call::Abort) => {
                "aborting; the transaction is aborted when the next one begins, or after its timeout"
            }
            _ => "asking for an epoch",
        };
        if reason.expired {
            let last = match (&cause, reason.code) {
                (None, Some(code)) => format!("; last answer: {code}"),
                _ => String::new(),
            };
            let what = format!("transactional id {id}: {what} (max.block.ms){last}");
            return Error::timeout(what, self.block_max).because(cause);
        }
        let code = reason.code.unwrap_or(ErrorCode::UnknownServerError);
        let remedy = match code {
            ErrorCode::InvalidTransactionTimeout => format!(
                "; it asked for {} ms: make it shorter, or raise transaction.max.timeout.ms of the brokers",
                self.timeout.as_millis()
            ),
            ErrorCode::UnsupportedVersion => {
                "; the brokers do not serve transactions, or are too old for them".to_owned()
            }
            _ => String::new(),
        };
        errors::of_transactional_id(code, id, format_args!("{what}{remedy}")).because(cause)
    }
}

const fn misplaced(state: State) -> &'static str {
    match state {
        State::Uninitialized | State::Ready => "no transaction is open; begin one first",
        State::InTransaction => "a transaction is open; commit or abort it first",
        State::Committing => "the transaction is being committed, and takes nothing more",
        State::Aborting => "the transaction is being aborted, and takes nothing more",
        State::Abortable => "the transaction can only be aborted",
        State::Fatal => "this producer cannot continue",
    }
}

fn what_failed(reason: Reason) -> String {
    let what = match reason.call {
        None => "a batch was not acknowledged",
        Some(Call::Initialize) => "there is no epoch",
        Some(Call::AddPartitions) => "a partition could not be added",
        Some(Call::AddOffsets | Call::CommitOffsets) => "the offsets were not accepted",
        Some(Call::Commit) if reason.code == Some(ErrorCode::InvalidTxnState) => {
            "its coordinator aborted it, since it took longer than its timeout"
        }
        Some(Call::Commit) => "it was not committed",
        Some(Call::Abort) => "it could not be aborted",
    };
    match reason.code {
        _ if reason.expired => format!("{what} in time"),
        Some(code) => format!("{what} ({code})"),
        None => what.to_owned(),
    }
}

const fn doubt(in_doubt: bool) -> &'static str {
    if in_doubt {
        ". A commit was asked for before and not answered, so nobody knows whether it took effect"
    } else {
        ""
    }
}
