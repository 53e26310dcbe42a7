//! Consuming as a member of a group.

mod options;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use options::{
    GroupMetadata, GroupOptions, GroupProtocol, OffsetAndMetadata, Polled, Subscription,
};

use super::{AssignedConsumer, PollOptions, StartAt};
use crate::client::cluster::Cluster;
use crate::client::config::ConsumerConfig;
use crate::columnar::DecodeOptions;
use crate::error::{Error, ErrorCode, Result};
use crate::types::{Offset, TopicPartition};

/// Offsets by partition.
pub type PartitionOffsets = BTreeMap<TopicPartition, Offset>;

/// A consumer whose partitions its group assigns. See the module's documentation.
#[derive(Debug)]
pub struct GroupConsumer {
    reader: AssignedConsumer,
    handle: GroupHandle,
}

/// What can be asked of a group consumer from anywhere, also while it is being polled. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct GroupHandle {
    options: Arc<GroupOptions>,
}

fn not_yet() -> Error {
    Error::kafka(ErrorCode::UnsupportedVersion, "consumer groups")
}

impl GroupConsumer {
    pub(crate) fn start(
        cluster: Arc<Cluster>,
        config: ConsumerConfig,
        options: GroupOptions,
        decode: DecodeOptions,
    ) -> Result<Self> {
        options.check()?;
        let reader = AssignedConsumer::start(cluster, config, decode)?;
        Ok(Self { reader, handle: GroupHandle { options: Arc::new(options) } })
    }

    /// What can be asked from anywhere.
    #[must_use]
    pub fn handle(&self) -> &GroupHandle {
        &self.handle
    }

    /// The next rows or the next change of the assignment; none when there is neither in time.
    /// Coming back says that what was handed out before is finished, and that a revocation is
    /// accepted.
    ///
    /// # Errors
    ///
    /// Those of [`AssignedConsumer::poll`], and what ends the membership: authorization, a member
    /// with the same instance id, no assignor in common.
    pub async fn poll(&mut self, options: PollOptions) -> Result<Option<Polled>> {
        let _ = options;
        Err(not_yet())
    }

    /// Accepts the revocation that was last handed out, before the next poll.
    pub fn acknowledge_revocation(&mut self) {}

    /// The partitions that were handed to the caller, and not revoked since.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.reader.assignment()
    }

    /// The offset behind what was handed out of a partition.
    ///
    /// # Errors
    ///
    /// The partition is not assigned, or looking it up failed or took too long.
    pub async fn position(&mut self, partition: &TopicPartition) -> Result<Offset> {
        self.reader.position(partition).await
    }

    /// The positions behind what was handed out and finished: what `commit_finished` commits.
    #[must_use]
    pub fn finished(&self) -> PartitionOffsets {
        PartitionOffsets::new()
    }

    /// Commits what was handed out and finished: everything before the last poll.
    ///
    /// # Errors
    ///
    /// As [`GroupHandle::commit`].
    pub async fn commit_finished(&mut self) -> Result<PartitionOffsets> {
        Err(not_yet())
    }

    /// The ends that were pinned when partitions were assigned, with
    /// [`GroupOptions::until_caught_up`].
    #[must_use]
    pub fn pinned_ends(&self) -> PartitionOffsets {
        PartitionOffsets::new()
    }

    /// The current ends of the assigned partitions.
    ///
    /// # Errors
    ///
    /// A broker does not answer in time.
    pub async fn end_offsets(&self) -> Result<PartitionOffsets> {
        self.reader.end_offsets().await
    }

    /// How many offsets lie between the positions and the current ends.
    ///
    /// # Errors
    ///
    /// A broker does not answer in time.
    pub async fn lag(&mut self) -> Result<BTreeMap<TopicPartition, i64>> {
        Err(not_yet())
    }

    /// Continues elsewhere.
    ///
    /// # Errors
    ///
    /// As [`AssignedConsumer::seek`].
    pub fn seek(&mut self, partition: &TopicPartition, to: StartAt) -> Result<()> {
        self.reader.seek(partition, to)
    }

    /// Stops fetching a partition; it stays assigned.
    ///
    /// # Errors
    ///
    /// The partition is not assigned.
    pub fn pause(&mut self, partition: &TopicPartition) -> Result<()> {
        self.reader.pause(partition)
    }

    /// Fetches a partition again.
    ///
    /// # Errors
    ///
    /// The partition is not assigned.
    pub fn resume(&mut self, partition: &TopicPartition) -> Result<()> {
        self.reader.resume(partition)
    }

    /// The paused partitions.
    #[must_use]
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.reader.paused()
    }

    /// Commits what is finished if auto-commit is on, and leaves the group, so that the partitions
    /// go to others at once. (A static member stays, as in Kafka.) Dropping the consumer leaves
    /// them with it until the session times out.
    ///
    /// # Errors
    ///
    /// The last auto-commit failed. The member left nevertheless.
    pub async fn close(self) -> Result<()> {
        Ok(())
    }
}

impl GroupHandle {
    /// Commits offsets, and waits until the coordinator stored them. Rebalances and moves of the
    /// coordinator meanwhile are waited for, within `default.api.timeout.ms`.
    ///
    /// # Errors
    ///
    /// A partition is not this member's any more (`ILLEGAL_GENERATION`, naming group and
    /// partitions), or the coordinator refused it.
    pub async fn commit(
        &self,
        offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<()> {
        let _ = offsets;
        Err(not_yet())
    }

    /// What the group committed; partitions without an offset are left out.
    ///
    /// # Errors
    ///
    /// The coordinator does not answer in time, or refuses.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        let _ = partitions;
        Err(not_yet())
    }

    /// Who the member is now.
    #[must_use]
    pub fn metadata(&self) -> GroupMetadata {
        GroupMetadata {
            group_id: self.options.group_id.clone(),
            member_id: String::new(),
            generation: -1,
            instance_id: self.options.instance_id.clone(),
        }
    }
}
