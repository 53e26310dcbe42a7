//! Commits, and other calls on a member from any thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::link::{Link, View};
use super::options::{GroupMetadata, GroupOptions, OffsetAndMetadata};
use crate::client::coordinator::{Committed, Coordinator};
use crate::client::errors;
use crate::client::obstacles::note_failure;
use crate::error::{Error, ErrorCode, Result};
use crate::types::TopicPartition;

/// How many partitions an error names.
const NAMED_MAX: usize = 10;

/// What can be called on a group consumer from any thread, even while it is being polled. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct GroupHandle {
    pub(super) options: Arc<GroupOptions>,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) link: Arc<Link>,
    /// Only committed records are read, so this waits for offsets of pending transactions.
    pub(super) stable: bool,
}

/// Codes that say the coordinator disagrees about the membership.
const fn is_about_membership(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::IllegalGeneration
            | ErrorCode::UnknownMemberId
            | ErrorCode::FencedMemberEpoch
            | ErrorCode::StaleMemberEpoch
            | ErrorCode::RebalanceInProgress
    )
}

fn list<'a>(partitions: impl Iterator<Item = &'a TopicPartition> + Clone) -> String {
    let names: Vec<String> = partitions.clone().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = partitions.count().saturating_sub(names.len());
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.join(", ") + &rest
}

impl GroupHandle {
    /// Commits offsets, and waits until the coordinator has stored them. Waits for rebalances and
    /// moves of the coordinator meanwhile, within `default.api.timeout.ms`.
    ///
    /// # Errors
    ///
    /// When a partition no longer belongs to this member (`ILLEGAL_GENERATION`, naming group and
    /// partitions), or the coordinator refused it.
    pub async fn commit(
        &self,
        offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<()> {
        if let Some((partition, value)) = offsets.iter().find(|(_, value)| value.offset.0 < 0) {
            return Err(Error::invalid(format!(
                "offset {} of {partition} is negative",
                value.offset
            )));
        }
        let cluster = &self.coordinator.cluster;
        let deadline = Instant::now() + cluster.config.api_timeout;
        let mut view = self.link.view.subscribe();
        let mut left = offsets.clone();
        let mut failures = 0;
        let mut last = None;
        while !left.is_empty() {
            let now = view.borrow_and_update().clone();
            self.check_owned(&left, &now)?;
            let member = self.metadata_of(&now);
            let call = self.coordinator.commit(Some(&member), &left);
            let error = match tokio::time::timeout_at(deadline, call).await {
                Ok(Ok(codes)) => match self.sort_out(&codes, &mut left)? {
                    Some(error) => error,
                    None => break,
                },
                Ok(Err(error)) if error.retriable() => error,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let group = &self.options.group_id;
                    let what = format!("group {group}: committing {}", list(left.keys()));
                    let error = Error::timeout(what, cluster.config.api_timeout);
                    return Err(error.because(last.or_else(|| cluster.obstacle())));
                }
            };
            failures += 1;
            let wait_ms = cluster.config.backoff.delay_ms(failures, cluster.env.random.u64());
            let wait = Duration::from_millis(wait_ms);
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            tracing::debug!(error = %error.chain(), "committing again");
            let error = Arc::new(error);
            note_failure(&error);
            last = Some(error);
            tokio::time::timeout(wait, view.changed()).await.ok();
        }
        Ok(())
    }

    /// Keeps what must be retried, and says why; returns the error of what must not.
    fn sort_out(
        &self,
        codes: &BTreeMap<TopicPartition, ErrorCode>,
        left: &mut Committed,
    ) -> Result<Option<Error>> {
        left.retain(|partition, _| codes.get(partition).is_none_or(|code| !code.is_ok()));
        let of = |partition: &TopicPartition| codes.get(partition).copied().unwrap_or_default();
        let error = |code| {
            let refused = left.keys().filter(|one| of(one) == code).collect::<Vec<_>>();
            let what = format!("committing {}", list(refused.into_iter()));
            errors::of_group(code, &self.options.group_id, what)
        };
        let for_good =
            left.keys().map(of).find(|&code| !code.retriable() && !is_about_membership(code));
        if let Some(code) = for_good {
            return Err(error(code));
        }
        Ok(left.keys().map(of).next().map(error))
    }

    fn check_owned(&self, offsets: &Committed, now: &View) -> Result<()> {
        // A partition that was lost, and is the member's again before the caller has heard of it: another member may
        // have read on meanwhile, so that these offsets would take the group back.
        let is_foreign = |partition: &&TopicPartition| {
            !now.owned.contains(*partition) || self.link.is_outdated(partition)
        };
        let foreign: Vec<&TopicPartition> = offsets.keys().filter(is_foreign).collect();
        if foreign.is_empty() {
            return Ok(());
        }
        let snapshot = self.coordinator.cluster.snapshot();
        for one in &foreign {
            let known = snapshot.topics.get(&one.topic).map(|topic| topic.partition_count());
            if let Some(count) = known.filter(|count| !one.partition.is_below(*count)) {
                let count = usize::try_from(count).unwrap_or_default();
                return Err(Error::no_partition(&one.topic, one.partition, count));
            }
        }
        let why = match now.lost_reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        let what = format!(
            "committing {}: not assigned to this member{why}; a member commits only what it owns, and \
             whoever owns these continues from their last commit",
            list(foreign.into_iter())
        );
        Err(errors::of_group(ErrorCode::IllegalGeneration, &self.options.group_id, what))
    }

    /// The group's committed offsets; partitions without an offset are left out.
    ///
    /// # Errors
    ///
    /// When the coordinator does not answer in time, or refuses.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        self.coordinator.committed(Some(partitions), self.stable).await
    }

    /// As [`Self::committed`]; waits for offsets of pending transactions, whatever is read.
    ///
    /// # Errors
    ///
    /// As [`Self::committed`].
    pub async fn committed_for_certain(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        self.coordinator.committed(Some(partitions), true).await
    }

    /// The identity of the member for a transaction with these offsets.
    ///
    /// # Errors
    ///
    /// When a partition no longer belongs to this member, or was lost and is its again since the caller last polled
    /// (`ILLEGAL_GENERATION`): the coordinator only compares generations, and this member may be in one that gave the partition to
    /// another, or in one after that.
    pub fn metadata_of_owner(
        &self,
        offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<GroupMetadata> {
        let view = self.link.view.borrow();
        self.check_owned(offsets, &view)?;
        Ok(self.metadata_of(&view))
    }

    /// The current identity of the member.
    #[must_use]
    pub fn metadata(&self) -> GroupMetadata {
        self.metadata_of(&self.link.view.borrow())
    }

    fn metadata_of(&self, view: &View) -> GroupMetadata {
        GroupMetadata {
            group_id: self.options.group_id.clone(),
            member_id: view.identity.member_id.clone(),
            generation: view.identity.generation,
            instance_id: self.options.instance_id.clone(),
        }
    }
}
