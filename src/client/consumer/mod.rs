//! Consuming assigned partitions: positions, a bounded buffer that is filled ahead, Arrow batches.
//!
//! ```text
//! fetcher task ──► buffer (queued.max.bytes) ──► Decoder ──► poll
//!      ▲                                                      │ positions
//!      └──────────── Fetching: seek, pause, resume ◄──────────┘
//! ```
//!
//! The position of a partition is the offset behind what `poll` handed out; what was only fetched
//! ahead does not count. Rows of several partitions come in the order in which they were fetched:
//! in order within a partition, in turns between them.
//!
//! Memory: the buffer is bounded as fetched; decompressed is only what the next output needs.

mod fetcher;
pub mod group;
mod positions;
mod request;
mod shared;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::admin::{OffsetSpec, list_offsets};
use crate::client::cluster::{Cluster, Lane};
use crate::client::config::{AutoOffsetReset, ConsumerConfig, IsolationLevel};
use crate::client::consumer::shared::{Buffered, Failure, Shared};
use crate::client::decoding::{Pipeline, Turn};
use crate::client::transaction::own_commits;
use crate::columnar::{DecodeOptions, Decoded, FetchedBytes};
use crate::error::{Error, Result};
use crate::machine::client::fetching::{Fetching, Marks, Position, Reset, Settings};
use crate::types::{Offset, TimestampMs, TopicId, TopicPartition, Uuid};

/// Where to start reading a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// Where `auto.offset.reset` says.
    #[default]
    Default,
    /// At the log start offset.
    Earliest,
    /// At the end.
    Latest,
    /// At an offset.
    Offset(Offset),
    /// At the first record of this time or later.
    Timestamp(TimestampMs),
}

/// When [`AssignedConsumer::poll`] returns.
#[derive(Clone, Copy, Debug)]
pub struct PollOptions {
    /// At the latest after this time.
    pub max_wait: Duration,
    /// Only with a full output ([`DecodeOptions::max_rows`]), unless the time is over; otherwise
    /// as soon as there is a row.
    pub fill: bool,
}

impl Default for PollOptions {
    fn default() -> Self {
        Self { max_wait: Duration::from_secs(1), fill: false }
    }
}

/// The prefetching reader behind consumers and scans.
#[derive(Debug)]
pub(crate) struct Prefetcher {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Prefetcher {
    /// Starts the fetcher task in the current tokio runtime.
    pub(crate) fn start(cluster: Arc<Cluster>, config: ConsumerConfig) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let settings = Settings {
            memory_bytes: config.memory_bytes,
            // Two answers: the one being read, and the next one.
            partition_bytes: config.partition_bytes_max.saturating_mul(2).min(config.memory_bytes),
            backoff: cluster.config.backoff,
        };
        let lane = Lane::Fetch(NEXT.fetch_add(1, Ordering::Relaxed));
        let shared = Arc::new(Shared::new(cluster, config, lane, Fetching::new(settings)));
        let task = tokio::spawn(fetcher::run(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Assigns a partition of a topic with this id, from an offset up to an end.
    pub(crate) fn assign_range(
        &self,
        partition: TopicPartition,
        topic_id: TopicId,
        start: Offset,
        end: Offset,
    ) {
        let mut state = self.shared.state();
        state.topic_ids.insert(Arc::clone(&partition.topic), topic_id);
        state.machine.assign(partition.clone(), Some(end));
        state.machine.seek(&partition, Position::at(start));
        drop(state);
        self.shared.work.notify_one();
    }

    /// The next chunk, if one is there; else none, and whether all ends are reached.
    ///
    /// # Errors
    ///
    /// What ended the fetching, once everything before it was taken.
    pub(crate) fn try_next(&self) -> Result<(Option<(FetchedBytes, Position)>, bool)> {
        let chunk = self.try_chunk();
        if chunk.is_some() {
            return Ok((chunk, false));
        }
        let mut state = self.shared.state();
        if !state.buffer.is_empty() {
            // It has just arrived.
            return Ok((None, false));
        }
        if let Some(failure) = state.failure.take() {
            // This batch was what kept the fetcher from continuing.
            self.shared.work.notify_one();
            return Err(failure.error);
        }
        Ok((None, state.machine.is_finished()))
    }

    /// The next chunk, if one is there. What ended the fetching stays for [`Self::try_next`].
    pub(crate) fn try_chunk(&self) -> Option<(FetchedBytes, Position)> {
        let mut state = self.shared.state();
        while let Some(buffered) = state.buffer.pop_front() {
            let Buffered { chunk, generation, next } = buffered;
            if state.machine.taken(&chunk.partition, generation, chunk.bytes.len()) {
                drop(state);
                self.shared.work.notify_one();
                return Some((chunk, next));
            }
        }
        None
    }

    /// Waits until there may be a chunk.
    pub(crate) async fn wait(&self) {
        self.shared.ready.notified().await;
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.cluster.disconnect_lane(self.shared.lane);
    }
}

/// A consumer of partitions that its caller assigned. See the module's documentation.
#[derive(Debug)]
pub struct AssignedConsumer {
    prefetcher: Prefetcher,
    pipeline: Pipeline,
    /// Whether the decoder was given something since it was last emptied.
    has_input: bool,
    /// What the decoder was given and has not handed out in full, with the position behind it:
    /// when a part of it must be forgotten, the rest is given to it again.
    ahead: VecDeque<(FetchedBytes, Position)>,
    /// A poll does not wait once every partition was read up to its end.
    stops_at_ends: bool,
}

impl AssignedConsumer {
    pub(crate) fn start(
        cluster: Arc<Cluster>,
        config: ConsumerConfig,
        options: DecodeOptions,
    ) -> Result<Self> {
        let threads = options.threads.or(cluster.config.threads);
        let options = DecodeOptions { threads, ..options };
        let pipeline = Pipeline::new(&cluster.env.threads, options, config.memory_bytes)?;
        let prefetcher = Prefetcher::start(cluster, config);
        let ahead = VecDeque::new();
        Ok(Self { prefetcher, pipeline, has_input: false, ahead, stops_at_ends: false })
    }

    fn shared(&self) -> &Shared {
        &self.prefetcher.shared
    }

    /// Replaces the assignment.
    ///
    /// # Errors
    ///
    /// A topic or partition does not exist; no start is given and `auto.offset.reset` is `none`.
    pub async fn assign(&mut self, partitions: &[(TopicPartition, StartAt)]) -> Result<()> {
        let cluster = Arc::clone(&self.shared().cluster);
        let mut ids: BTreeMap<Arc<str>, TopicId> = BTreeMap::new();
        for (partition, start) in partitions {
            let name = &partition.topic;
            let topic =
                cluster.retry("looking up a topic", async || cluster.topic(name).await).await?;
            if topic.partition(partition.partition).is_none() {
                let count = topic.partitions.len();
                return Err(Error::no_partition(name, partition.partition, count));
            }
            self.check_start(partition, *start)?;
            ids.insert(Arc::clone(name), topic.id);
        }
        self.empty_decoder()?;
        let mut state = self.shared().state();
        let old: Vec<TopicPartition> = state.machine.assignment().cloned().collect();
        for partition in old {
            state.machine.unassign(&partition);
        }
        state.buffer.clear();
        state.failure = None;
        state.topic_ids = ids;
        for (partition, _) in partitions {
            state.machine.assign(partition.clone(), None);
        }
        drop(state);
        for (partition, start) in partitions {
            self.place(partition, *start);
        }
        self.shared().work.notify_one();
        Ok(())
    }

    fn check_start(&self, partition: &TopicPartition, start: StartAt) -> Result<()> {
        let reset = self.shared().config.auto_offset_reset.unwrap_or_default();
        if start == StartAt::Default && reset == AutoOffsetReset::Error {
            return Err(Error::invalid(format!(
                "{partition} has no position, and auto.offset.reset is none; give a start"
            )));
        }
        Ok(())
    }

    fn place(&self, partition: &TopicPartition, start: StartAt) {
        let reset = match (start, self.shared().config.auto_offset_reset.unwrap_or_default()) {
            (StartAt::Offset(offset), _) => {
                self.shared().state().machine.seek(partition, Position::at(offset));
                return;
            }
            (StartAt::Timestamp(timestamp), _) => Reset::Timestamp(timestamp),
            (StartAt::Earliest, _) | (StartAt::Default, AutoOffsetReset::Earliest) => {
                Reset::Earliest
            }
            (StartAt::Latest | StartAt::Default, _) => Reset::Latest,
        };
        self.shared().state().machine.reset(partition, reset);
    }

    /// The assigned partitions.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared().state().machine.assignment().cloned().collect()
    }

    /// Continues elsewhere. Earliest, latest and times are looked up at once, in the background.
    ///
    /// # Errors
    ///
    /// The partition is not assigned, or the offset is negative.
    pub fn seek(&mut self, partition: &TopicPartition, to: StartAt) -> Result<()> {
        self.check_start(partition, to)?;
        if matches!(to, StartAt::Offset(offset) if offset < Offset::ZERO) {
            return Err(Error::invalid(format!("offset of {partition} is negative")));
        }
        self.check_assigned(partition)?;
        // In this order: nothing that was found out about the old place is left afterwards.
        self.place(partition, to);
        self.forget_ahead()
    }

    fn empty_decoder(&mut self) -> Result<()> {
        self.pipeline.reset()?;
        self.has_input = false;
        self.ahead.clear();
        Ok(())
    }

    /// Drops what is fetched and decoded ahead of the positions.
    fn forget_ahead(&mut self) -> Result<()> {
        self.empty_decoder()?;
        let mut state = self.shared().state();
        state.buffer.clear();
        state.failure = None;
        state.machine.rewind();
        drop(state);
        // The fetcher may have had nothing left to do.
        self.shared().work.notify_one();
        Ok(())
    }

    fn check_assigned(&self, partition: &TopicPartition) -> Result<()> {
        if self.shared().state().machine.is_assigned(partition) {
            return Ok(());
        }
        Err(Error::invalid(format!("partition {partition} is not assigned to this consumer")))
    }

    /// Stops fetching a partition; what is buffered of it is still handed out.
    ///
    /// # Errors
    ///
    /// The partition is not assigned.
    pub fn pause(&mut self, partition: &TopicPartition) -> Result<()> {
        self.check_assigned(partition)?;
        self.shared().state().machine.set_paused(partition, true);
        Ok(())
    }

    /// Fetches a partition again.
    ///
    /// # Errors
    ///
    /// The partition is not assigned.
    pub fn resume(&mut self, partition: &TopicPartition) -> Result<()> {
        self.check_assigned(partition)?;
        self.shared().state().machine.set_paused(partition, false);
        self.shared().work.notify_one();
        Ok(())
    }

    /// The paused partitions.
    #[must_use]
    pub fn paused(&self) -> Vec<TopicPartition> {
        let state = self.shared().state();
        let machine = &state.machine;
        machine.assignment().filter(|partition| machine.is_paused(partition)).cloned().collect()
    }

    /// The offset behind what was handed out of a partition; waits while it is being looked up.
    ///
    /// # Errors
    ///
    /// The partition is not assigned, or looking it up failed or took too long.
    pub async fn position(&mut self, partition: &TopicPartition) -> Result<Offset> {
        self.check_assigned(partition)?;
        let timeout = self.shared().cluster.config.api_timeout;
        let deadline = Instant::now() + timeout;
        loop {
            {
                let mut state = self.shared().state();
                if let Some(position) = state.machine.position(partition) {
                    return Ok(position.offset);
                }
                // That of another partition is for the next poll.
                let is_its = |failure: &mut Failure| failure.partitions.contains(partition);
                if let Some(failure) = state.failure.take_if(is_its) {
                    self.shared().work.notify_one();
                    return Err(failure.error);
                }
            }
            if tokio::time::timeout_at(deadline, self.prefetcher.wait()).await.is_err() {
                let what = format!("looking up the position of {partition}");
                return Err(Error::timeout(what, timeout).because(self.shared().cluster.obstacle()));
            }
        }
    }

    /// Log start, high watermark and last stable offset of a partition as last seen.
    #[must_use]
    pub fn marks(&self, partition: &TopicPartition) -> Option<Marks> {
        self.shared().state().machine.marks(partition)
    }

    /// The current ends of the assigned partitions (high watermark, or last stable offset).
    ///
    /// # Errors
    ///
    /// A broker does not answer in time.
    pub async fn end_offsets(&self) -> Result<BTreeMap<TopicPartition, Offset>> {
        let shared = self.shared();
        let assignment = self.assignment();
        if shared.config.isolation_level == IsolationLevel::ReadCommitted {
            let topics = assignment.iter().map(|one| &*one.topic).collect();
            own_commits(&shared.cluster, &topics).await?;
        }
        let wanted =
            assignment.into_iter().map(|partition| (partition, OffsetSpec::Latest)).collect();
        let listed = list_offsets(&shared.cluster, &wanted, shared.config.isolation_level).await?;
        let known = |(partition, listed): (_, crate::client::admin::ListedOffset)| {
            Some((partition, listed.offset?))
        };
        Ok(listed.into_iter().filter_map(known).collect())
    }

    /// The next rows, and how far each partition was read with them; none when there are none in
    /// time. See [`PollOptions`] for when it returns.
    ///
    /// # Errors
    ///
    /// [`Error::DataLoss`], [`Error::Decode`], or what a broker refused. The position stays in
    /// front of what could not be handed out.
    pub async fn poll(&mut self, options: PollOptions) -> Result<Option<Decoded>> {
        self.poll_unless(options, || false).await
    }

    /// As [`Self::poll`], but returns without rows as soon as it is interrupted; whoever interrupts
    /// wakes it up.
    pub(crate) async fn poll_unless(
        &mut self,
        options: PollOptions,
        is_interrupted: impl Fn() -> bool,
    ) -> Result<Option<Decoded>> {
        let deadline = Instant::now() + options.max_wait;
        loop {
            if is_interrupted() {
                return Ok(None);
            }
            match self.turn(false).await? {
                Turn::Output(decoded) => match self.advance(*decoded) {
                    Some(decoded) => return Ok(Some(decoded)),
                    None => continue,
                },
                Turn::Room => {
                    match self.prefetcher.try_chunk() {
                        Some(fetched) => self.push(fetched),
                        None => {
                            tokio::select! {
                                biased;
                                () = self.pipeline.wait() => {}
                                () = self.prefetcher.wait() => {}
                            }
                        }
                    }
                    continue;
                }
                Turn::Busy => {
                    self.pipeline.wait().await;
                    continue;
                }
                Turn::Input => {}
            }
            let (next, is_finished) = self.prefetcher.try_next()?;
            if let Some(fetched) = next {
                self.push(fetched);
                continue;
            }
            let is_late = Instant::now() >= deadline || (is_finished && self.stops_at_ends);
            if (is_late || !options.fill)
                && let Some(decoded) = self.finish().await?
            {
                return Ok(Some(decoded));
            }
            if is_late {
                return Ok(None);
            }
            tokio::time::timeout_at(deadline, self.prefetcher.wait()).await.ok();
        }
    }

    fn push(&mut self, (chunk, next): (FetchedBytes, Position)) {
        self.ahead.push_back((chunk.clone(), next));
        self.pipeline.push(chunk);
        self.has_input = true;
    }

    async fn turn(&mut self, finish: bool) -> Result<Turn> {
        match self.pipeline.turn(finish).await {
            Err(error) => {
                self.forget_ahead()?;
                Err(error)
            }
            turn => turn,
        }
    }

    /// The rows that are no full output.
    async fn finish(&mut self) -> Result<Option<Decoded>> {
        // Finishing without input would settle an inferred schema on nothing.
        while self.has_input {
            match self.turn(true).await? {
                Turn::Output(decoded) => {
                    if let Some(decoded) = self.advance(*decoded) {
                        return Ok(Some(decoded));
                    }
                }
                Turn::Input => {
                    self.has_input = false;
                    self.ahead.clear();
                }
                Turn::Room | Turn::Busy => self.pipeline.wait().await,
            }
        }
        Ok(None)
    }

    /// Moves the positions; an output without rows only does that.
    fn advance(&mut self, decoded: Decoded) -> Option<Decoded> {
        let mut state = self.prefetcher.shared.state();
        for progress in &decoded.progress {
            state.machine.consumed(&progress.partition, Position::at(progress.next));
        }
        // What was handed out in full need not be kept.
        while let Some((chunk, next)) = self.ahead.front()
            && state
                .machine
                .position(&chunk.partition)
                .is_none_or(|position| position.offset >= next.offset)
        {
            self.ahead.pop_front();
        }
        drop(state);
        decoded.has_records().then_some(decoded)
    }

    /// What wakes a waiting poll.
    const fn shared_state(&self) -> &Arc<Shared> {
        &self.prefetcher.shared
    }

    /// From now on a poll does not wait once every partition was read up to its end.
    pub(crate) const fn stop_at_ends(&mut self) {
        self.stops_at_ends = true;
    }

    /// Adds a partition to the assignment; the others go on undisturbed.
    pub(crate) fn add(
        &mut self,
        partition: &TopicPartition,
        topic_id: TopicId,
        start: std::result::Result<Position, StartAt>,
        end: Option<Offset>,
    ) {
        let mut state = self.shared().state();
        state.topic_ids.insert(Arc::clone(&partition.topic), topic_id);
        state.machine.assign(partition.clone(), end);
        drop(state);
        match start {
            Ok(position) => drop(self.shared().state().machine.seek(partition, position)),
            Err(start) => self.place(partition, start),
        }
        self.shared().work.notify_one();
    }

    /// Takes partitions out of the assignment. Nothing of them is handed out any more; what was
    /// fetched of the others is kept.
    pub(crate) fn remove(&mut self, partitions: &BTreeSet<TopicPartition>) -> Result<()> {
        let mut state = self.prefetcher.shared.state();
        for partition in partitions {
            state.machine.unassign(partition);
        }
        state.buffer.retain(|buffered| !partitions.contains(&buffered.chunk.partition));
        let kept: BTreeSet<Arc<str>> =
            state.machine.assignment().map(|partition| Arc::clone(&partition.topic)).collect();
        state.topic_ids.retain(|topic, _| kept.contains(topic));
        state.failure.take_if(|failure| failure.partitions.is_subset(partitions));
        let old = std::mem::take(&mut self.ahead);
        if !old.iter().any(|(chunk, _)| partitions.contains(&chunk.partition)) {
            self.ahead = old;
            return Ok(());
        }
        self.pipeline.reset()?;
        self.has_input = false;
        for (mut chunk, next) in old {
            let Some(at) = state.machine.position(&chunk.partition) else { continue };
            chunk.start = chunk.start.max(at.offset);
            if chunk.start < next.offset {
                self.pipeline.push(chunk.clone());
                self.has_input = true;
                self.ahead.push_back((chunk, next));
            }
        }
        drop(state);
        self.shared().work.notify_one();
        Ok(())
    }

    /// The positions that are known, each with the leader epoch of the record before it.
    pub(crate) fn known_positions(&self) -> BTreeMap<TopicPartition, Position> {
        let state = self.shared().state();
        let machine = &state.machine;
        let known =
            machine.assignment().filter_map(|one| Some((one.clone(), machine.position(one)?)));
        known.collect()
    }

    /// Whether every partition was read and handed out up to its end.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.shared().state();
        !self.has_input && state.buffer.is_empty() && state.machine.is_finished()
    }

    /// Waits until there may be rows, or something else to look at.
    pub(crate) async fn wait(&self) {
        self.prefetcher.wait().await;
    }

    /// The identity of an assigned topic.
    #[must_use]
    pub fn topic_id(&self, topic: &str) -> Option<Uuid> {
        self.shared().state().topic_ids.get(topic).copied()
    }
}
