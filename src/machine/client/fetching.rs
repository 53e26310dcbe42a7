//! Positions of assigned partitions, and what to fetch next.
//!
//! ```text
//!   assigned without offset ──► resetting ──► fetching ◄──► validating (after a new leader epoch)
//!           seek, reset ─────────►┘  ▲            │
//!                                    └── offset out of range, by policy
//! ```
//!
//! Invariants:
//! - FET-1: a partition is in at most one request (fetch, reset or validation) at a time.
//! - FET-2: the answer to a request made before a seek, a reset or an unassignment is dropped on
//!   arrival: each of them starts a new [`Generation`].
//! - FET-3: no fetch is planned while `memory_bytes` are buffered, or `partition_bytes` of the
//!   partition are, so the buffer holds at most that plus one response.
//! - FET-4: a partition with an end is never fetched at or after it, and is finished by its
//!   position, not by a count: gaps left by compaction and transactions have no rows but count as
//!   progress.
//! - FET-5: a position beyond the end that nothing was fetched for, such as a stored offset of a log
//!   that was truncated, is fetched once: the broker says whether it exists.
//!
//! Offsets advance only by what was fetched (`fetch` position) and handed out (`consumed`).

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use super::backoff::Backoff;
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, TopicPartition};

/// The consumer's settings that affect fetching.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much may be buffered over all partitions before nothing more is fetched.
    pub memory_bytes: usize,
    /// How much of one partition may be buffered before its fetching pauses.
    pub partition_bytes: usize,
    /// How long to wait after a failure.
    pub backoff: Backoff,
}

/// Rises with every seek; tells responses from before it from those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// Where to continue reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The offset of the next record.
    pub offset: Offset,
    /// The leader epoch of the record before it, if known.
    pub epoch: LeaderEpoch,
}

impl Position {
    /// A position with only the offset known.
    #[must_use]
    pub const fn at(offset: Offset) -> Self {
        Self { offset, epoch: LeaderEpoch::UNKNOWN }
    }
}

/// How to find a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The log start offset.
    Earliest,
    /// The high watermark, or the last stable offset.
    Latest,
    /// The first record of this time or later, else the end.
    Timestamp(TimestampMs),
}

/// A partition to put into a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<What> {
    /// The partition.
    pub partition: TopicPartition,
    /// To be passed back with the response.
    pub generation: Generation,
    /// The position, reset or epoch to ask for.
    pub what: What,
}

/// What a response says about the partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The log start offset, or unknown.
    pub log_start: Offset,
    /// The high watermark, or unknown.
    pub high_watermark: Offset,
    /// The last stable offset, or unknown.
    pub last_stable: Offset,
}

#[derive(Debug)]
struct Assigned {
    generation: Generation,
    fetch: Option<Position>,
    consumed: Option<Position>,
    end: Option<Offset>,
    /// The position was given, lies beyond the end, and no broker has answered for it.
    unproven: bool,
    reset: Option<Reset>,
    paused: bool,
    requested: bool,
    buffered_bytes: usize,
    failures: u32,
    retry_at: TimestampMs,
    validated_under: LeaderEpoch,
    marks: Marks,
}

impl Assigned {
    fn is_free(&self, now: TimestampMs) -> bool {
        !self.requested && self.retry_at <= now
    }

    fn fetchable(&self) -> Option<Position> {
        let position = self.fetch.filter(|_| self.reset.is_none() && !self.paused)?;
        let is_wanted = self.unproven || self.end.is_none_or(|end| position.offset < end);
        is_wanted.then_some(position)
    }

    fn validation(&self, leader_epoch: LeaderEpoch) -> Option<Position> {
        let position = self.fetchable()?;
        let due = leader_epoch > self.validated_under && position.epoch > LeaderEpoch::UNKNOWN;
        due.then_some(position)
    }
}

/// The fetch state of one consumer. See the module's documentation.
#[derive(Debug)]
pub struct Fetching {
    settings: Settings,
    partitions: BTreeMap<TopicPartition, Assigned>,
    buffered_bytes: usize,
    generations: u64,
    last_fetched: Option<TopicPartition>,
}

impl Fetching {
    /// A consumer without partitions.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            partitions: BTreeMap::new(),
            buffered_bytes: 0,
            generations: 0,
            last_fetched: None,
        }
    }

    fn next_generation(&mut self) -> Generation {
        self.generations += 1;
        Generation(self.generations)
    }

    /// Adds a partition, or restarts it; it has no position until [`Self::seek`] or
    /// [`Self::reset`]. `end` is where reading stops.
    pub fn assign(&mut self, partition: TopicPartition, end: Option<Offset>) {
        self.unassign(&partition);
        let generation = self.next_generation();
        let assigned = Assigned {
            generation,
            fetch: None,
            consumed: None,
            end,
            unproven: false,
            reset: None,
            paused: false,
            requested: false,
            buffered_bytes: 0,
            failures: 0,
            retry_at: TimestampMs::NONE,
            validated_under: LeaderEpoch::UNKNOWN,
            marks: Marks {
                log_start: Offset::UNKNOWN,
                high_watermark: Offset::UNKNOWN,
                last_stable: Offset::UNKNOWN,
            },
        };
        self.partitions.insert(partition, assigned);
    }

    /// Removes a partition and forgets what is buffered for it.
    pub fn unassign(&mut self, partition: &TopicPartition) {
        if let Some(removed) = self.partitions.remove(partition) {
            self.buffered_bytes -= removed.buffered_bytes;
        }
    }

    /// The assigned partitions, in order.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    /// Whether the partition is assigned.
    #[must_use]
    pub fn is_assigned(&self, partition: &TopicPartition) -> bool {
        self.partitions.contains_key(partition)
    }

    /// Continues at a position. False when the partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, position: Position) -> bool {
        self.restart(partition, Some(position), None)
    }

    /// Asks for a position to be looked up. False when the partition is not assigned.
    pub fn reset(&mut self, partition: &TopicPartition, reset: Reset) -> bool {
        self.restart(partition, None, Some(reset))
    }

    fn restart(
        &mut self,
        partition: &TopicPartition,
        position: Option<Position>,
        reset: Option<Reset>,
    ) -> bool {
        let generation = self.next_generation();
        let Some(assigned) = self.partitions.get_mut(partition) else { return false };
        self.buffered_bytes -= assigned.buffered_bytes;
        assigned.generation = generation;
        assigned.buffered_bytes = 0;
        assigned.requested = false;
        assigned.failures = 0;
        assigned.retry_at = TimestampMs::NONE;
        assigned.fetch = position;
        assigned.consumed = position;
        let given = position.zip(assigned.end);
        assigned.unproven = given.is_some_and(|(position, end)| position.offset > end);
        assigned.reset = reset;
        assigned.validated_under = LeaderEpoch::UNKNOWN;
        true
    }

    /// Stops or resumes fetching; what is buffered is kept. False when not assigned.
    pub fn set_paused(&mut self, partition: &TopicPartition, paused: bool) -> bool {
        self.partitions.get_mut(partition).map(|assigned| assigned.paused = paused).is_some()
    }

    /// Whether the partition is paused.
    #[must_use]
    pub fn is_paused(&self, partition: &TopicPartition) -> bool {
        self.partitions.get(partition).is_some_and(|assigned| assigned.paused)
    }

    /// The position after what was handed out; `None` while it is being looked up.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<Position> {
        self.partitions.get(partition)?.consumed
    }

    /// What the last answer said about the partition.
    #[must_use]
    pub fn marks(&self, partition: &TopicPartition) -> Option<Marks> {
        self.partitions.get(partition).map(|assigned| assigned.marks)
    }

    /// Whether every partition has an end and was fetched up to it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.partitions.values().all(|assigned| {
            let is_there =
                matches!((assigned.end, assigned.fetch), (Some(end), Some(at)) if at.offset >= end);
            is_there && !assigned.unproven
        })
    }

    /// The end of a partition, if it has one.
    #[must_use]
    pub fn end(&self, partition: &TopicPartition) -> Option<Offset> {
        self.partitions.get(partition)?.end
    }

    /// The bytes that are buffered.
    #[must_use]
    pub const fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// The partitions whose position must be looked up now. Each is requested until
    /// [`Self::positioned`] or [`Self::failed`].
    pub fn take_resets(&mut self, now: TimestampMs) -> Vec<Target<Reset>> {
        let mut targets = Vec::new();
        for (partition, assigned) in &mut self.partitions {
            if let Some(what) = assigned.reset.filter(|_| assigned.is_free(now)) {
                assigned.requested = true;
                let generation = assigned.generation;
                targets.push(Target { partition: partition.clone(), generation, what });
            }
        }
        targets
    }

    /// Takes the answer to a reset. False when it is no longer wanted.
    pub fn positioned(&mut self, target: &Target<Reset>, position: Position) -> bool {
        let Some(assigned) = self.current(&target.partition, target.generation) else {
            return false;
        };
        assigned.requested = false;
        assigned.failures = 0;
        assigned.reset = None;
        assigned.fetch = Some(position);
        assigned.consumed = Some(position);
        true
    }

    /// The partitions whose leader changed since their position was last known to be good. Each is
    /// requested until [`Self::validated`] or [`Self::failed`] (KIP-320).
    pub fn take_validations(
        &mut self,
        now: TimestampMs,
        leader_epoch: impl Fn(&TopicPartition) -> LeaderEpoch,
    ) -> Vec<Target<Position>> {
        let mut targets = Vec::new();
        for (partition, assigned) in &mut self.partitions {
            let due = assigned.validation(leader_epoch(partition));
            if let Some(what) = due.filter(|_| assigned.is_free(now)) {
                assigned.requested = true;
                let generation = assigned.generation;
                targets.push(Target { partition: partition.clone(), generation, what });
            }
        }
        targets
    }

    /// Notes that a position is good under a leader epoch.
    pub fn validated(&mut self, target: &Target<Position>, under: LeaderEpoch) {
        if let Some(assigned) = self.current(&target.partition, target.generation) {
            assigned.requested = false;
            assigned.failures = 0;
            assigned.validated_under = under;
        }
    }

    /// Whether a partition could be fetched if there were room for it: such a partition must not
    /// wait behind a long poll for others.
    #[must_use]
    pub fn lacks_room(&self) -> bool {
        let is_full = self.buffered_bytes >= self.settings.memory_bytes;
        self.partitions.values().any(|assigned| {
            assigned.fetchable().is_some()
                && !assigned.requested
                && (is_full || assigned.buffered_bytes >= self.settings.partition_bytes)
        })
    }

    /// The nodes that lead a partition which could be fetched now.
    pub fn fetchable_leaders(
        &self,
        now: TimestampMs,
        leader: impl Fn(&TopicPartition) -> Option<NodeId>,
    ) -> BTreeSet<Option<NodeId>> {
        self.partitions
            .iter()
            .filter(|(_, assigned)| assigned.is_free(now) && assigned.fetchable().is_some())
            .map(|(partition, _)| leader(partition))
            .collect()
    }

    /// The partitions to fetch from a node now, the least recently fetched first. Each is
    /// requested until [`Self::fetched`] or [`Self::failed`].
    pub fn take_fetches(
        &mut self,
        now: TimestampMs,
        node: NodeId,
        leader: impl Fn(&TopicPartition) -> Option<(NodeId, LeaderEpoch)>,
    ) -> Vec<Target<Position>> {
        if self.buffered_bytes >= self.settings.memory_bytes {
            return Vec::new();
        }
        let mut targets = Vec::new();
        for (partition, assigned) in &mut self.partitions {
            let Some((leader, epoch)) = leader(partition) else { continue };
            let has_room = assigned.buffered_bytes < self.settings.partition_bytes;
            if leader != node
                || !has_room
                || !assigned.is_free(now)
                || assigned.validation(epoch).is_some()
            {
                continue;
            }
            if let Some(what) = assigned.fetchable() {
                assigned.requested = true;
                let generation = assigned.generation;
                targets.push(Target { partition: partition.clone(), generation, what });
            }
        }
        if let Some(last) = &self.last_fetched {
            let first = targets.partition_point(|target| target.partition <= *last);
            targets.rotate_left(first);
        }
        targets
    }

    /// Takes what was fetched: the position after it, and its size. False when it is no longer
    /// wanted and must be dropped.
    pub fn fetched(
        &mut self,
        target: &Target<Position>,
        next: Position,
        bytes: usize,
        marks: Marks,
    ) -> bool {
        let Some(assigned) = self.current(&target.partition, target.generation) else {
            return false;
        };
        assigned.requested = false;
        assigned.failures = 0;
        assigned.unproven = false;
        assigned.marks = marks;
        if next.offset > target.what.offset {
            assigned.fetch = Some(next);
            assigned.buffered_bytes += bytes;
            self.buffered_bytes += bytes;
            self.last_fetched = Some(target.partition.clone());
        }
        true
    }

    /// Gives a requested partition back without an answer, for example because it did not fit into
    /// the request.
    pub fn released<What>(&mut self, target: &Target<What>) {
        if let Some(assigned) = self.current(&target.partition, target.generation) {
            assigned.requested = false;
        }
    }

    /// Notes a failed request: the partition waits for its backoff.
    pub fn failed<What>(&mut self, now: TimestampMs, target: &Target<What>, random: u64) {
        let backoff = self.settings.backoff;
        if let Some(assigned) = self.current(&target.partition, target.generation) {
            assigned.requested = false;
            assigned.failures = assigned.failures.saturating_add(1);
            let wait_ms = backoff.delay_ms(assigned.failures, random);
            assigned.retry_at = now.plus(i64::try_from(wait_ms).unwrap_or(i64::MAX));
        }
    }

    /// Notes that buffered bytes were taken out of the buffer. False when they belong to an
    /// older generation and must be dropped.
    pub fn taken(
        &mut self,
        partition: &TopicPartition,
        generation: Generation,
        bytes: usize,
    ) -> bool {
        let Some(assigned) = self.current(partition, generation) else { return false };
        let bytes = bytes.min(assigned.buffered_bytes);
        assigned.buffered_bytes -= bytes;
        self.buffered_bytes -= bytes;
        true
    }

    /// Notes that records were handed out, up to a position.
    pub fn consumed(&mut self, partition: &TopicPartition, next: Position) {
        if let Some(assigned) = self.partitions.get_mut(partition) {
            assigned.consumed = Some(next);
        }
    }

    /// Goes back to what was handed out: everything fetched ahead is fetched again.
    pub fn rewind(&mut self) {
        let consumed: Vec<(TopicPartition, Position)> = self
            .partitions
            .iter()
            .filter_map(|(partition, assigned)| Some((partition.clone(), assigned.consumed?)))
            .collect();
        for (partition, position) in consumed {
            self.seek(&partition, position);
        }
    }

    /// Whether something of this generation may still be handed out.
    #[must_use]
    pub fn is_current(&self, partition: &TopicPartition, generation: Generation) -> bool {
        self.partitions.get(partition).is_some_and(|assigned| assigned.generation == generation)
    }

    /// The first moment after `now` at which a backoff ends.
    #[must_use]
    pub fn next_deadline(&self, now: TimestampMs) -> Option<TimestampMs> {
        self.partitions.values().map(|assigned| assigned.retry_at).filter(|&at| at > now).min()
    }

    fn current(
        &mut self,
        partition: &TopicPartition,
        generation: Generation,
    ) -> Option<&mut Assigned> {
        self.partitions.get_mut(partition).filter(|assigned| assigned.generation == generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);
    const NOW: TimestampMs = TimestampMs(0);

    fn fetching(memory_bytes: usize) -> Fetching {
        let backoff = Backoff { initial_ms: 100, max_ms: 1_000 };
        Fetching::new(Settings { memory_bytes, partition_bytes: 100, backoff })
    }

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("orders", index)
    }

    fn take(fetching: &mut Fetching) -> Vec<Target<Position>> {
        fetching.take_fetches(NOW, NODE, |_| Some((NODE, LeaderEpoch(0))))
    }

    fn marks() -> Marks {
        Marks { log_start: Offset(0), high_watermark: Offset(100), last_stable: Offset(100) }
    }

    #[test]
    fn a_partition_is_fetched_once_it_has_a_position() {
        let mut fetching = fetching(1_000);
        fetching.assign(partition(0), None);
        fetching.reset(&partition(0), Reset::Earliest);
        assert!(take(&mut fetching).is_empty());
        let resets = fetching.take_resets(NOW);
        assert_eq!(resets.len(), 1);
        assert!(fetching.take_resets(NOW).is_empty(), "asked once");
        assert!(fetching.positioned(&resets[0], Position::at(Offset(7))));
        let targets = take(&mut fetching);
        assert_eq!(targets[0].what.offset, Offset(7));
        assert!(take(&mut fetching).is_empty(), "one request at a time");
    }

    #[test]
    fn an_answer_from_before_a_seek_is_dropped() {
        let mut fetching = fetching(1_000);
        fetching.assign(partition(0), None);
        fetching.seek(&partition(0), Position::at(Offset(0)));
        let old = take(&mut fetching).remove(0);
        fetching.seek(&partition(0), Position::at(Offset(50)));
        assert!(!fetching.fetched(&old, Position::at(Offset(10)), 10, marks()));
        assert_eq!(take(&mut fetching)[0].what.offset, Offset(50));
        assert_eq!(fetching.buffered_bytes(), 0);
    }

    #[test]
    fn nothing_is_fetched_while_the_memory_is_full() {
        let mut fetching = fetching(150);
        for index in 0..3 {
            fetching.assign(partition(index), None);
            fetching.seek(&partition(index), Position::at(Offset(0)));
        }
        let targets = take(&mut fetching);
        assert!(fetching.fetched(&targets[0], Position::at(Offset(5)), 100, marks()));
        assert!(fetching.fetched(&targets[1], Position::at(Offset(5)), 60, marks()));
        fetching.released(&targets[2]);
        assert!(take(&mut fetching).is_empty(), "160 of 150 bytes are buffered");
        let generation = targets[0].generation;
        assert!(fetching.lacks_room());
        assert!(fetching.taken(&partition(0), generation, 50));
        fetching.consumed(&partition(0), Position::at(Offset(3)));
        let next = take(&mut fetching);
        assert_eq!(next[0].partition, partition(2), "the least recently fetched comes first");
        assert_eq!(fetching.position(&partition(0)), Some(Position::at(Offset(3))));
    }

    #[test]
    fn a_partition_ends_by_its_position() {
        let mut fetching = fetching(1_000);
        fetching.assign(partition(0), Some(Offset(10)));
        fetching.seek(&partition(0), Position::at(Offset(0)));
        let target = take(&mut fetching).remove(0);
        assert!(fetching.fetched(&target, Position::at(Offset(12)), 5, marks()));
        assert!(take(&mut fetching).is_empty());
        assert!(fetching.is_finished());
        fetching.rewind();
        assert!(!fetching.is_finished(), "nothing was handed out");
    }

    #[test]
    fn a_position_beyond_the_end_is_asked_for_once() {
        let mut fetching = fetching(1_000);
        fetching.assign(partition(0), Some(Offset(10)));
        fetching.seek(&partition(0), Position::at(Offset(500)));
        assert!(!fetching.is_finished(), "the offset may not exist");
        let target = take(&mut fetching).remove(0);
        assert!(fetching.fetched(&target, target.what, 0, marks()));
        assert!(fetching.is_finished(), "it does");
        assert!(take(&mut fetching).is_empty());
        fetching.seek(&partition(0), Position::at(Offset(10)));
        assert!(fetching.is_finished(), "the end itself needs no proof");
    }

    #[test]
    fn a_new_leader_epoch_is_validated_before_the_next_fetch() {
        let mut fetching = fetching(1_000);
        fetching.assign(partition(0), None);
        let position = Position { offset: Offset(9), epoch: LeaderEpoch(2) };
        fetching.seek(&partition(0), position);
        assert!(take(&mut fetching).is_empty());
        let targets = fetching.take_validations(NOW, |_| LeaderEpoch(0));
        assert_eq!(targets[0].what, position);
        fetching.validated(&targets[0], LeaderEpoch(0));
        assert_eq!(take(&mut fetching).len(), 1);
    }

    #[test]
    fn a_failure_waits_for_its_backoff() {
        let mut fetching = fetching(1_000);
        fetching.assign(partition(0), None);
        fetching.seek(&partition(0), Position::at(Offset(0)));
        let target = take(&mut fetching).remove(0);
        fetching.failed(NOW, &target, 200);
        assert!(take(&mut fetching).is_empty());
        assert_eq!(fetching.next_deadline(NOW), Some(TimestampMs(100)));
        fetching.set_paused(&partition(0), true);
        let later = |fetching: &mut Fetching| {
            fetching.take_fetches(TimestampMs(100), NODE, |_| Some((NODE, LeaderEpoch(0))))
        };
        assert!(later(&mut fetching).is_empty(), "paused");
        fetching.set_paused(&partition(0), false);
        assert_eq!(later(&mut fetching).len(), 1);
    }
}
