//! Consuming as a member of a group.
//!
//! ```text
//!   coordinator ◄──► membership task ──► hand-over ──► poll ──► the caller
//!   (Lane::Group)    machine::client::group   ▲           │
//!                                             └─ consent ─┤ positions, commits
//!   leaders ◄──► fetcher task ──► buffer ──► decoder ─────┘
//! ```
//!
//! The membership runs in a separate task: a caller that is busy for an hour keeps its partitions,
//! unless it sets `max.poll.interval.ms`. What the caller has changes only when it polls:
//!
//! - GRC-1: rows of a partition come between its [`Polled::Assigned`] and its [`Polled::Revoked`]
//!   or [`Polled::Lost`], never outside; what was fetched ahead is dropped.
//! - GRC-2: a revoked partition goes to another member only after the caller has returned from
//!   [`Polled::Revoked`], or the rebalance timeout has passed.
//! - GRC-3: partitions that stay keep their positions and what was fetched ahead.
//! - GRC-4: what is committed automatically was handed out, and the caller has returned since.
//!
//! A call of [`GroupConsumer::poll`] may be dropped at any time; what it found is not lost.

mod committing;
mod handle;
mod link;
mod options;
mod placing;
mod settled;
mod task;
mod waiting;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

pub use handle::GroupHandle;
pub use options::{
    GroupMetadata, GroupOptions, GroupProtocol, OffsetAndMetadata, Polled, Subscription,
};

use self::committing::Committing;
use self::link::Link;
use self::placing::Placed;
use super::{AssignedConsumer, PollOptions, StartAt};
use crate::client::cluster::{Cluster, Lane};
use crate::client::config::{AutoOffsetReset, ConsumerConfig, IsolationLevel};
use crate::client::coordinator::Coordinator;
use crate::columnar::DecodeOptions;
use crate::error::{Error, Result};
use crate::machine::client::fetching::Position;
use crate::machine::client::group::Partitions;
use crate::machine::client::group::handover::Told;
use crate::types::{Offset, TopicPartition};

/// How long the commit before a revocation may delay the hand-over at most.
const LAST_COMMIT_MAX: Duration = Duration::from_secs(10);

/// How often a member that has read everything asks whether it will get more partitions.
const SETTLE_PERIOD: Duration = Duration::from_millis(100);

/// Offsets by partition.
pub type PartitionOffsets = BTreeMap<TopicPartition, Offset>;

type Commits = BTreeMap<TopicPartition, OffsetAndMetadata>;

/// What must be finished before anything else is handed out.
#[derive(Debug)]
enum Stage {
    /// One task, which ends with the consumer: it may wait for somebody else's transaction.
    Placing {
        partitions: Partitions,
        task: JoinSet<Result<Vec<Placed>>>,
    },
    Committing {
        revoked: Partitions,
        task: JoinHandle<()>,
    },
}

/// A consumer whose partitions its group assigns. See the module's documentation.
#[derive(Debug)]
pub struct GroupConsumer {
    reader: AssignedConsumer,
    handle: GroupHandle,
    config: ConsumerConfig,
    membership: Option<JoinHandle<()>>,
    stage: Option<Stage>,
    /// The positions when the caller last returned, including those of a revocation until the next
    /// time.
    finished: BTreeMap<TopicPartition, Position>,
    /// The positions last committed.
    stored: BTreeMap<TopicPartition, Position>,
    ends: PartitionOffsets,
    /// The caller has been told of its first assignment.
    has_joined: bool,
    commit_at: Instant,
    committing: Committing,
    /// The pending question whether more partitions are coming.
    settling: Option<JoinHandle<Result<bool>>>,
}

/// Tells the membership that the caller is polling.
struct Polling<'a> {
    link: &'a Link,
    tell: bool,
}

impl<'a> Polling<'a> {
    fn begin(link: &'a Link, options: &GroupOptions) -> Self {
        let tell = options.max_poll_interval.is_some();
        link.polls(true, tell);
        Self { link, tell }
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.link.polls(false, self.tell);
    }
}

impl GroupConsumer {
    pub(crate) fn start(
        cluster: Arc<Cluster>,
        mut config: ConsumerConfig,
        options: GroupOptions,
        decode: DecodeOptions,
    ) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        options.check()?;
        if options.until_caught_up {
            config.auto_offset_reset.get_or_insert(AutoOffsetReset::Earliest);
        }
        let mut reader = AssignedConsumer::start(Arc::clone(&cluster), config.clone(), decode)?;
        if options.until_caught_up {
            reader.stop_at_ends();
        }
        let options = Arc::new(options);
        let coordinator = Arc::new(Coordinator::new(cluster, options.group_id.as_str()));
        let link = Arc::new(Link::new(Arc::clone(reader.shared_state())));
        let lane = Lane::Group(NEXT.fetch_add(1, Ordering::Relaxed));
        let task = task::Task::new(
            Arc::clone(&coordinator),
            Arc::clone(&options),
            Arc::clone(&link),
            lane,
        );
        let stable = config.isolation_level == IsolationLevel::ReadCommitted;
        Ok(Self {
            reader,
            handle: GroupHandle { options, coordinator, link, stable },
            config,
            membership: Some(tokio::spawn(task.run())),
            stage: None,
            finished: BTreeMap::new(),
            stored: BTreeMap::new(),
            ends: PartitionOffsets::new(),
            has_joined: false,
            commit_at: Instant::now(),
            committing: Committing::default(),
            settling: None,
        })
    }

    /// A handle for calls from any thread.
    #[must_use]
    pub const fn handle(&self) -> &GroupHandle {
        &self.handle
    }

    /// The next rows or the next change of the assignment; none if there is neither in time.
    /// Calling again means that what was handed out before is finished, and that a revocation is
    /// accepted.
    ///
    /// # Errors
    ///
    /// Those of [`AssignedConsumer::poll`], and errors that end the membership: authorization, a
    /// member with the same instance id, no assignor in common.
    pub async fn poll(&mut self, options: PollOptions) -> Result<Option<Polled>> {
        let deadline = Instant::now() + options.max_wait;
        let link = Arc::clone(&self.handle.link);
        let _polling = Polling::begin(&link, &Arc::clone(&self.handle.options));
        self.come_back();
        loop {
            if self.stage.is_some() {
                match self.finish_stage(deadline).await? {
                    Some(polled) => return Ok(Some(polled)),
                    None if self.stage.is_some() => return Ok(None),
                    None => {}
                }
            }
            if let Some(error) = link.take_failure() {
                return Err(error);
            }
            if let Some(told) = link.tell() {
                if let Some(polled) = self.begin(told)? {
                    return Ok(Some(polled));
                }
                continue;
            }
            if let Some(words) = link.take_waiting() {
                return Ok(Some(Polled::Waiting(Some(words).filter(|words| !words.is_empty()))));
            }
            if link.is_over() {
                return Err(Error::Closed { what: "the group consumer" });
            }
            let max_wait = deadline.saturating_duration_since(Instant::now());
            let polled = self
                .reader
                .poll_unless(PollOptions { max_wait, ..options }, || link.has_news())
                .await?;
            if let Some(decoded) = polled {
                return Ok(Some(Polled::Batch(decoded)));
            }
            if link.has_news() {
                continue;
            }
            let mut wake_at = deadline;
            if self.is_caught_up() {
                let is_settled = self.is_settled(deadline).await?;
                if is_settled && self.is_caught_up() && !link.has_news() {
                    return Ok(Some(Polled::CaughtUp));
                }
                wake_at = deadline.min(Instant::now() + SETTLE_PERIOD);
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::timeout_at(wake_at, self.reader.wait()).await.ok();
        }
    }

    /// Marks what was handed out as finished, and commits it if a commit is due.
    fn come_back(&mut self) {
        // A revocation that waits for its last commit was not handed out, so nobody consented to it.
        if self.stage.is_some() {
            return;
        }
        self.handle.link.acknowledge();
        self.finished = self.reader.known_positions();
        let Some(interval) = self.handle.options.auto_commit else { return };
        if Instant::now() < self.commit_at {
            return;
        }
        self.commit_at = Instant::now() + interval;
        let commits = self.unstored();
        self.committing.add(&self.handle, commits);
    }

    /// What is finished in some partitions.
    fn finished_of(&self, of: impl Fn(&TopicPartition) -> bool) -> Commits {
        let finished = self.finished.iter().filter(|(partition, _)| of(partition));
        finished.map(|(partition, position)| (partition.clone(), to_commit(*position))).collect()
    }

    /// What is finished and not yet committed; counts as committed from now on.
    fn unstored(&mut self) -> Commits {
        let mut commits = Commits::new();
        for (partition, position) in &self.finished {
            if self.stored.get(partition) != Some(position) {
                self.stored.insert(partition.clone(), *position);
                commits.insert(partition.clone(), to_commit(*position));
            }
        }
        commits
    }

    fn spawn_commit(&self, commits: Commits) -> JoinHandle<()> {
        let handle = self.handle.clone();
        tokio::spawn(async move { committing::commit(&handle, &commits).await })
    }

    /// Begins reporting a change to the caller; returns it at once if it takes no time.
    fn begin(&mut self, told: Told) -> Result<Option<Polled>> {
        self.settling = None;
        match told {
            Told::Assigned(partitions) => {
                self.has_joined = true;
                let task = self.spawn_placing(partitions.clone());
                self.stage = Some(Stage::Placing { partitions, task });
                Ok(None)
            }
            Told::Revoked(revoked) => {
                self.forget(&revoked)?;
                let commits = match self.handle.options.auto_commit {
                    Some(_) => self.finished_of(|partition| revoked.contains(partition)),
                    None => Commits::new(),
                };
                for partition in &revoked {
                    self.stored.remove(partition);
                }
                if commits.is_empty() {
                    return Ok(Some(Polled::Revoked(revoked.into_iter().collect())));
                }
                let task = self.spawn_commit(commits);
                self.stage = Some(Stage::Committing { revoked, task });
                Ok(None)
            }
            Told::Lost { partitions, reason } => {
                self.forget(&partitions)?;
                for partition in &partitions {
                    self.stored.remove(partition);
                    self.finished.remove(partition);
                }
                Ok(Some(Polled::Lost { partitions: partitions.into_iter().collect(), reason }))
            }
        }
    }

    fn forget(&mut self, partitions: &Partitions) -> Result<()> {
        self.ends.retain(|partition, _| !partitions.contains(partition));
        self.committing.forget(partitions);
        self.reader.remove(partitions)
    }

    fn spawn_placing(&self, partitions: Partitions) -> JoinSet<Result<Vec<Placed>>> {
        let coordinator = Arc::clone(&self.handle.coordinator);
        let until = self.handle.options.until_caught_up;
        let mut task = JoinSet::new();
        task.spawn(placing::place(coordinator, self.config.clone(), partitions, until));
        task
    }

    /// Waits for the stage, which stays if the time runs out.
    async fn finish_stage(&mut self, deadline: Instant) -> Result<Option<Polled>> {
        let ended = |_| Error::Closed { what: "the runtime of the group consumer" };
        match &mut self.stage {
            None => Ok(None),
            Some(Stage::Committing { task, .. }) => {
                if tokio::time::timeout_at(deadline, task).await.is_err() {
                    return Ok(None);
                }
                let Some(Stage::Committing { revoked, .. }) = self.stage.take() else {
                    return Ok(None);
                };
                Ok(Some(Polled::Revoked(revoked.into_iter().collect())))
            }
            Some(Stage::Placing { task, .. }) => {
                let Ok(Some(placed)) = tokio::time::timeout_at(deadline, task.join_next()).await
                else {
                    return Ok(None);
                };
                let Some(Stage::Placing { partitions, .. }) = self.stage.take() else {
                    return Ok(None);
                };
                let placed = match placed.map_err(ended)? {
                    Ok(placed) => placed,
                    Err(error) => {
                        // The next poll tries again.
                        let task = self.spawn_placing(partitions.clone());
                        self.stage = Some(Stage::Placing { partitions, task });
                        return Err(error);
                    }
                };
                let assigned = placed.iter().map(|placed| placed.partition.clone()).collect();
                for Placed { partition, topic_id, start, end } in placed {
                    if let Ok(position) = start {
                        self.stored.insert(partition.clone(), position);
                    }
                    if let Some(end) = end {
                        self.ends.insert(partition.clone(), end);
                    }
                    self.reader.add(&partition, topic_id, start, end);
                }
                Ok(Some(Polled::Assigned(assigned)))
            }
        }
    }

    fn is_caught_up(&self) -> bool {
        self.handle.options.until_caught_up
            && self.has_joined
            && self.handle.link.view.borrow().is_stable
            && self.reader.is_drained()
    }

    /// Whether the group has nothing more for this member; keeps asking the coordinator until the
    /// deadline.
    async fn is_settled(&mut self, deadline: Instant) -> Result<bool> {
        let task = match &mut self.settling {
            Some(task) => task,
            none => {
                let coordinator = &self.handle.coordinator;
                let link = Arc::clone(&self.handle.link);
                let cluster = Arc::clone(&coordinator.cluster);
                let group = coordinator.id.clone();
                let topics = Arc::clone(&self.handle.options);
                none.insert(tokio::spawn(async move {
                    let settled = settled::is_settled(&cluster, &group, &link.view).await?;
                    if settled {
                        settled::check_topics(&cluster, &topics).await?;
                    }
                    Ok(settled)
                }))
            }
        };
        let Ok(settled) = tokio::time::timeout_at(deadline, task).await else { return Ok(false) };
        self.settling = None;
        let ended = |_| Error::Closed { what: "the runtime of the group consumer" };
        settled.map_err(ended)?
    }

    /// Accepts the last revocation handed out, before the next poll. From then on the partitions
    /// are not this member's to commit.
    pub fn acknowledge_revocation(&mut self) {
        if self.stage.is_some() {
            return;
        }
        self.handle.link.acknowledge();
        let held: Partitions = self.reader.assignment().into_iter().collect();
        self.finished.retain(|partition, _| held.contains(partition));
    }

    /// Whether the member has all partitions that the group has for it: it has joined, and neither it nor the
    /// coordinator, which is asked, knows of a rebalance. Until then there may be records that it is handed later.
    ///
    /// # Errors
    ///
    /// When the coordinator does not answer in time.
    pub async fn has_its_partitions(&self) -> Result<bool> {
        let link = &self.handle.link;
        if !self.has_joined || self.stage.is_some() || !link.view.borrow().is_stable {
            return Ok(false);
        }
        let coordinator = &self.handle.coordinator;
        settled::is_settled(&coordinator.cluster, &coordinator.id, &link.view).await
    }

    /// The partitions that were handed to the caller and have not been revoked since.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.reader.assignment()
    }

    /// The offset after what was handed out from a partition.
    ///
    /// # Errors
    ///
    /// The partition is not assigned, or looking it up failed or took too long.
    pub async fn position(&mut self, partition: &TopicPartition) -> Result<Offset> {
        self.reader.position(partition).await
    }

    /// The positions after what was handed out and finished: what [`Self::commit_finished`]
    /// commits.
    #[must_use]
    pub fn finished(&self) -> PartitionOffsets {
        let offset = |(partition, position): (&TopicPartition, &Position)| {
            (partition.clone(), position.offset)
        };
        self.finished.iter().map(offset).collect()
    }

    /// Commits what was handed out and finished: everything before the last poll, including
    /// partitions whose revocation that poll handed out.
    ///
    /// # Errors
    ///
    /// As [`GroupHandle::commit`].
    pub async fn commit_finished(&mut self) -> Result<PartitionOffsets> {
        let commits = self.finished_of(|_| true);
        self.handle.commit(&commits).await?;
        for partition in commits.keys() {
            if let Some(position) = self.finished.get(partition) {
                self.stored.insert(partition.clone(), *position);
            }
        }
        Ok(self.finished())
    }

    /// How many offsets are between the positions and the pinned ends; none while a position is
    /// unknown.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        let positions = self.reader.known_positions();
        let left = self.ends.iter().map(|(partition, end)| {
            let position = positions.get(partition)?;
            Some(end.since(position.offset).max(0).unsigned_abs())
        });
        left.sum()
    }

    /// The current ends of the assigned partitions.
    ///
    /// # Errors
    ///
    /// A broker does not answer in time.
    pub async fn end_offsets(&self) -> Result<PartitionOffsets> {
        self.reader.end_offsets().await
    }

    /// How many offsets are between the positions and the current ends.
    ///
    /// # Errors
    ///
    /// A broker does not answer in time.
    pub async fn lag(&mut self) -> Result<BTreeMap<TopicPartition, i64>> {
        let ends = self.reader.end_offsets().await?;
        let mut lag = BTreeMap::new();
        for (partition, end) in ends {
            let position = self.reader.position(&partition).await?;
            lag.insert(partition, end.since(position));
        }
        Ok(lag)
    }

    /// Continues at another position.
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

    /// Resumes fetching a partition.
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

    /// Commits what was handed out if auto-commit is on, and leaves the group, so that the
    /// partitions go to other members at once. (A static member stays a member, as in Kafka.) A
    /// consumer that is dropped leaves too, but commits nothing.
    ///
    /// # Errors
    ///
    /// When the last auto-commit failed. The member has left nevertheless.
    pub async fn close(mut self) -> Result<()> {
        if self.handle.options.auto_commit.is_some() {
            self.finished = self.reader.known_positions();
        }
        self.close_unfinished().await
    }

    /// As [`Self::close`], but what was last handed out is not finished: the partitions' next owner
    /// reads it again. What was finished before is committed if auto-commit is on.
    ///
    /// # Errors
    ///
    /// As [`Self::close`].
    pub async fn close_unfinished(mut self) -> Result<()> {
        let mut result = Ok(());
        if self.handle.options.auto_commit.is_some() {
            self.committing.settle().await;
            let owned = self.handle.link.view.borrow().owned.clone();
            let commits = self.finished_of(|partition| owned.contains(partition));
            result = tokio::time::timeout(LAST_COMMIT_MAX, self.handle.commit(&commits))
                .await
                .unwrap_or_else(|_| {
                    let error = Error::timeout("the commit before closing", LAST_COMMIT_MAX);
                    Err(error.because(self.handle.coordinator.cluster.obstacle()))
                });
        }
        self.handle.link.close();
        if let Some(membership) = self.membership.take() {
            membership.await.ok();
        }
        result
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        // The task leaves the group by itself.
        self.handle.link.close();
    }
}

const fn to_commit(position: Position) -> OffsetAndMetadata {
    OffsetAndMetadata {
        offset: position.offset,
        leader_epoch: position.epoch,
        metadata: String::new(),
    }
}
