//! What an answer means for the transaction, as one table.
//!
//! The rules are those of Apache Kafka's producer. Where ours differ, the row says why.

use super::Version;
use crate::error::ErrorCode;

/// The requests of a transactional producer, other than Produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// InitProducerId.
    Initialize,
    /// AddPartitionsToTxn, in version 1 only.
    AddPartitions,
    /// AddOffsetsToTxn, in version 1 only.
    AddOffsets,
    /// TxnOffsetCommit.
    CommitOffsets,
    /// EndTxn that commits.
    Commit,
    /// EndTxn that aborts.
    Abort,
}

/// What to do about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is done.
    Accepted,
    /// Ask again after the usual backoff.
    Retry,
    /// Ask again soon: the coordinator is still completing the transaction before.
    RetrySoon,
    /// This call has failed, and changed nothing that lasts.
    Refused,
    /// The transaction can only be aborted.
    Abortable,
    /// Another producer with the same transactional id took over.
    Fenced,
    /// The producer cannot continue.
    Fatal,
}

/// Judges the code that answered a call.
#[must_use]
pub(super) const fn judge(call: Call, version: Version, code: ErrorCode) -> Judgement {
    match (call, code) {
        (_, ErrorCode::None) => Judgement::Accepted,
        (_, ErrorCode::ConcurrentTransactions) => Judgement::RetrySoon,
        (_, ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch) => Judgement::Fenced,
        (Call::Initialize, code) => {
            // Nothing is under way yet, so any other refusal can be tried again.
            if code.retriable() { Judgement::Retry } else { Judgement::Refused }
        }
        (_, code) if code.retriable() => Judgement::Retry,
        // An abort that must be aborted would go round in circles.
        (Call::Abort, ErrorCode::TransactionAbortable) => Judgement::Fatal,
        // With version 2 the coordinator says this of a commit when it has aborted the transaction, because it took
        // longer than its timeout. The epoch of the abort is then ours to learn, by aborting, too.
        (Call::Commit, ErrorCode::InvalidTxnState) => match version {
            Version::Two => Judgement::Abortable,
            Version::One => Judgement::Fatal,
        },
        (
            _,
            ErrorCode::TransactionAbortable
            | ErrorCode::UnknownProducerId
            | ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::OperationNotAttempted,
        )
        | (
            Call::CommitOffsets,
            // The group goes on without this member: whoever has the partitions now does the work again.
            ErrorCode::UnknownMemberId
            | ErrorCode::IllegalGeneration
            | ErrorCode::FencedInstanceId
            | ErrorCode::FencedMemberEpoch
            | ErrorCode::StaleMemberEpoch
            | ErrorCode::RebalanceInProgress
            // Of one offset, not of the producer.
            | ErrorCode::OffsetMetadataTooLarge
            | ErrorCode::InvalidCommitOffsetSize
            | ErrorCode::InvalidGroupId
            | ErrorCode::GroupIdNotFound,
        )
        // A topic whose name is not valid, and the like.
        | (Call::AddPartitions, ErrorCode::InvalidTopicException) => Judgement::Abortable,
        _ => Judgement::Fatal,
    }
}

/// Judges the code that a batch of the transaction failed with.
#[must_use]
pub(super) const fn judge_batch(code: ErrorCode) -> Judgement {
    match code {
        ErrorCode::None => Judgement::Accepted,
        ErrorCode::ProducerFenced => Judgement::Fenced,
        ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::TransactionalIdAuthorizationFailed
        | ErrorCode::UnsupportedVersion
        | ErrorCode::InvalidProducerIdMapping => Judgement::Fatal,
        // An epoch that is not the current one, too: the coordinator says, upon the abort, whether
        // another producer took over or the transaction took too long.
        _ => Judgement::Abortable,
    }
}

/// Whether the coordinator may have done what it was asked for, or may still do it.
#[must_use]
pub(super) const fn is_doubtful(code: ErrorCode) -> bool {
    // These are said before anything is written.
    !matches!(
        code,
        ErrorCode::CoordinatorLoadInProgress | ErrorCode::ConcurrentTransactions | ErrorCode::None
    )
}
