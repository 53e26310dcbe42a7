//! Who may commit and read offsets of a consumer group.
//!
//! A member that reports an older epoch than its own may still commit what it has owned since then:
//! the answer that raised its epoch may be in transit while it commits (KIP-1251).

use super::member::{Member, Owned};
use super::state::ConsumerGroup;
use crate::error::ErrorCode;
use crate::machine::group::CommitOffsetsRequest;
use crate::machine::group::reply::GroupError;
use crate::types::{PartitionIndex, TopicId};

/// The error of an epoch that is not the member's, as its protocol knows it.
const fn stale(member: &Member) -> ErrorCode {
    if member.uses_classic_protocol() {
        ErrorCode::IllegalGeneration
    } else {
        ErrorCode::StaleMemberEpoch
    }
}

/// The same in the answer to a commit.
const fn stale_commit(member: &Member, request: &CommitOffsetsRequest) -> ErrorCode {
    // Without a transaction such a member is refused before.
    if member.uses_classic_protocol() || !request.knows_member_epochs {
        ErrorCode::IllegalGeneration
    } else {
        ErrorCode::StaleMemberEpoch
    }
}

impl ConsumerGroup {
    /// Whether offsets may be committed in its name.
    pub(in crate::machine::group) fn validate_commit(
        &self,
        request: &CommitOffsetsRequest,
    ) -> Result<(), GroupError> {
        let epoch = request.generation_or_epoch;
        if epoch < 0 && self.is_empty() {
            return Ok(());
        }
        if request.is_transaction_without_member() {
            return Ok(());
        }
        let member = self.expect_member(&request.group_id, &request.member_id)?;
        if request.transaction.is_none()
            && !member.uses_classic_protocol()
            && !request.knows_member_epochs
        {
            let message = format!(
                "group {}: a member of the consumer protocol must commit with version 9 or above",
                request.group_id
            );
            return Err(GroupError::new(ErrorCode::UnsupportedVersion, message));
        }
        if epoch <= member.current.epoch {
            return Ok(());
        }
        let message = format!(
            "group {}: member {} commits in epoch {epoch}, but is in epoch {}",
            request.group_id, request.member_id, member.current.epoch
        );
        Err(GroupError::new(stale_commit(member, request), message))
    }

    /// Whether the offset of one partition may be committed, in a commit that is valid as a whole.
    pub(in crate::machine::group) fn validate_commit_partition(
        &self,
        request: &CommitOffsetsRequest,
        topic: TopicId,
        partition: PartitionIndex,
    ) -> ErrorCode {
        let epoch = request.generation_or_epoch;
        let Some(member) = self.member(&request.member_id) else { return ErrorCode::None };
        if epoch == member.current.epoch {
            return ErrorCode::None;
        }
        let since = |owned: &Owned| owned.get(&topic)?.get(&partition).copied();
        let assigned_in =
            since(&member.current.assigned).or_else(|| since(&member.current.pending_revocation));
        match assigned_in {
            Some(assigned_in) if epoch >= assigned_in => ErrorCode::None,
            _ => stale_commit(member, request),
        }
    }

    /// Whether offsets may be read in its name.
    pub(in crate::machine::group) fn validate_fetch(
        &self,
        group: &str,
        member: Option<&str>,
        epoch: i32,
    ) -> Result<(), GroupError> {
        let Some(id) = member else {
            // An administrator, or a client that does not say who it is.
            if epoch < 0 {
                return Ok(());
            }
            return self.expect_member(group, "").map(|_| ());
        };
        let member = self.expect_member(group, id)?;
        if epoch == member.current.epoch {
            return Ok(());
        }
        let message = format!(
            "group {group}: member {id} reads offsets in epoch {epoch}, but is in epoch {}",
            member.current.epoch
        );
        Err(GroupError::new(stale(member), message))
    }

    fn expect_member(&self, group: &str, id: &str) -> Result<&Member, GroupError> {
        self.member(id).ok_or_else(|| {
            let message = format!("group {group}: {id:?} is not a member");
            GroupError::new(ErrorCode::UnknownMemberId, message)
        })
    }
}
