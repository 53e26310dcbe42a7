//! The producer's batches: which are open, waiting or in flight, in which order and under which
//! sequence number.
//!
//! The accumulator owns batches of a payload `P` that it never looks into: the shell puts record
//! builders or encoded bytes there. Per partition:
//!
//! ```text
//!  append ──► open ──(full, linger, flush)──► queue ──drain──► in flight ──► acknowledged
//!                                               ▲                  │
//!                                               └──── retry ───────┴──────► failed
//! ```
//!
//! Invariants:
//! - ACC-1: batches of a partition are first sent in the order in which they were appended.
//! - ACC-2 (KIP-98): with idempotence, the sequence numbers of a partition's batches follow each
//!   other without a gap under one epoch; a batch keeps its number over all retries. After a batch
//!   has failed, the epoch is raised and the numbers restart at 0, but only when nothing of the
//!   partition is in flight and no batch that would get a new number may already be in the log
//!   under its old one: a batch in doubt is first resent unchanged.
//! - ACC-3: while a numbered batch waits for its retry, only the oldest unresolved batch is sent;
//!   while a batch in doubt is being resent, nothing else is.
//! - ACC-4: every appended batch leaves exactly once: acknowledged, or failed with a reason.
//! - ACC-5: a partition has at most `in_flight_max` batches in flight.
//! - ACC-6: with idempotence, it has one in flight until its first is acknowledged: a leader that knows nothing of a
//!   producer takes any number (KIP-360), so if it refused the first batch for the moment (too few replicas in sync, no
//!   room on the disk), it would append the second one first.
//! - ACC-7: within transactions, the epoch is the coordinator's to raise. A partition with a gap is not sent to until
//!   [`Accumulator::set_producer`] gives the epoch of the next transaction.
//!
//! The epoch is kept per partition: a broker checks sequences per partition, so a gap in one does
//! not disturb the others. Memory is bounded by the shell, which reserves `buffer.memory` before it
//! appends; `buffered_bytes` tells how much is held.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, VecDeque};

use super::backoff::Backoff;
use crate::error::ErrorCode;
use crate::types::{NodeId, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition};

mod unsettled;

#[cfg(test)]
mod tests;

/// The producer's settings that affect batches.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `linger.ms`: how long an open batch waits for more records.
    pub linger_ms: i64,
    /// `batch.size`: an open batch is closed when it would exceed this.
    pub batch_bytes: usize,
    /// `max.request.size`: no drain gives one node more than this, but at least one batch.
    pub request_bytes_max: usize,
    /// `max.in.flight.requests.per.connection`.
    pub in_flight_max: usize,
    /// `delivery.timeout.ms`: a batch older than this fails instead of being sent again.
    pub delivery_timeout_ms: i64,
    /// `retries`: how often a batch is sent again.
    pub retries: u32,
    /// `retry.backoff.ms`, `retry.backoff.max.ms`.
    pub backoff: Backoff,
    /// `enable.idempotence`.
    pub idempotent: bool,
    /// Whether all batches belong to transactions; these are idempotent.
    pub transactional: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            linger_ms: 5,
            batch_bytes: 16 * 1024,
            request_bytes_max: 1024 * 1024,
            in_flight_max: 5,
            delivery_timeout_ms: 120_000,
            retries: i32::MAX.cast_unsigned(),
            backoff: Backoff::default(),
            idempotent: true,
            transactional: false,
        }
    }
}

/// Names a batch within its accumulator; rises with the order of appending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// The stamp on the records of an idempotent producer (all `NONE` without idempotence).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The producer.
    pub producer_id: ProducerId,
    /// The incarnation of the producer for this partition.
    pub epoch: ProducerEpoch,
    /// The number of the batch's first record.
    pub sequence: Sequence,
}

impl Stamp {
    /// A batch of a producer that is not idempotent.
    pub const NONE: Self = Self {
        producer_id: ProducerId::NONE,
        epoch: ProducerEpoch::NONE,
        sequence: Sequence::NONE,
    };
}

/// A batch handed to the shell to be sent now. Give it back with [`Accumulator::settle`].
#[derive(Debug)]
pub struct Drained<P> {
    /// Its name.
    pub id: BatchId,
    /// Where it goes.
    pub partition: TopicPartition,
    /// What to write into its header; differs from that of an earlier attempt after a new epoch.
    pub stamp: Stamp,
    /// What the shell appended.
    pub payload: P,
}

/// What a broker made of a batch that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The broker has it.
    Acknowledged,
    /// The broker answered with an error.
    Refused(ErrorCode),
    /// The broker answered with an error, and the caller does not want to try again.
    GivenUp(ErrorCode),
    /// The connection ended or timed out before an answer came: the broker may have it or not.
    Lost,
}

/// Why a batch is abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The broker refused it permanently, or again after the last retry.
    Refused(ErrorCode),
    /// The answer was lost on the last attempt.
    Lost,
    /// `delivery.timeout.ms` passed; the code is that of the last refusal, if there was one.
    Expired(Option<ErrorCode>),
}

/// What the accumulator did with a settled batch.
#[derive(Debug)]
pub enum Settled<P> {
    /// Tell the caller that the broker has it.
    Acknowledged(P),
    /// It waits for another attempt.
    Retrying,
    /// Tell the caller that it failed.
    Failed(P, Failure),
}

#[derive(Debug)]
struct Pending<P> {
    id: BatchId,
    created_at: TimestampMs,
    bytes: usize,
    records: i32,
    failures: u32,
    last_refusal: Option<ErrorCode>,
    retry_at: TimestampMs,
    stamp: Option<Stamp>,
    in_doubt: bool,
    payload: P,
}

/// What is kept of a batch while the shell has its payload.
#[derive(Debug)]
struct InFlight {
    created_at: TimestampMs,
    bytes: usize,
    records: i32,
    failures: u32,
    stamp: Stamp,
    /// An earlier attempt may have reached the log.
    in_doubt: bool,
}

#[derive(Debug)]
struct Queue<P> {
    open: Option<Pending<P>>,
    sealed: VecDeque<Pending<P>>,
    in_flight: BTreeMap<BatchId, InFlight>,
    next_sequence: Sequence,
    epochs_raised: i16,
    /// A batch was acknowledged: the leaders know the producer.
    is_known: bool,
    /// The oldest batch whose number was used and will not reach the log: from there on the
    /// numbers restart at 0 under a higher epoch, as soon as [`Queue::heal`] can do it.
    gap: Option<BatchId>,
}

impl<P> Queue<P> {
    const fn new() -> Self {
        Self {
            open: None,
            sealed: VecDeque::new(),
            in_flight: BTreeMap::new(),
            next_sequence: Sequence(0),
            epochs_raised: 0,
            is_known: false,
            gap: None,
        }
    }

    fn is_idle(&self) -> bool {
        self.open.is_none() && self.sealed.is_empty() && self.in_flight.is_empty()
    }

    fn seal(&mut self) -> bool {
        self.open.take().map(|batch| self.sealed.push_back(batch)).is_some()
    }

    /// Puts a batch back where its age belongs.
    fn requeue(&mut self, batch: Pending<P>) {
        let place = self.sealed.iter().position(|other| other.id > batch.id);
        self.sealed.insert(place.unwrap_or(self.sealed.len()), batch);
    }

    /// Whether an older batch of the partition is queued or in flight.
    fn has_older(&self, id: BatchId) -> bool {
        self.in_flight.keys().next().is_some_and(|&oldest| oldest < id)
            || self.sealed.front().is_some_and(|oldest| oldest.id < id && oldest.stamp.is_some())
    }

    fn note_gap(&mut self, id: BatchId) {
        self.gap = Some(self.gap.map_or(id, |gap| gap.min(id)));
    }

    /// Raises the epoch and restarts the numbers, when there is a gap and it is safe (ACC-2).
    ///
    /// The front batch decides: if it is older than the gap, or may lie in the log, it is sent
    /// again under its own number first. If it does not lie in the log, no later one does.
    fn heal(&mut self, settings: &Settings) {
        let heals = !settings.transactional && self.in_flight.is_empty();
        let Some(gap) = self.gap.filter(|_| heals) else { return };
        let keeps_number =
            |front: &Pending<P>| front.stamp.is_some() && (front.id < gap || front.in_doubt);
        if self.sealed.front().is_some_and(keeps_number) {
            return;
        }
        self.gap = None;
        self.next_sequence = Sequence(0);
        self.epochs_raised = self.epochs_raised.saturating_add(1);
        for batch in &mut self.sealed {
            batch.stamp = None;
        }
    }

    fn may_send_front(&self, now: TimestampMs, settings: &Settings) -> bool {
        let Some(front) = self.sealed.front() else { return false };
        let is_first = settings.idempotent && !self.is_known;
        let in_flight_max = if is_first { 1 } else { settings.in_flight_max };
        let heals_first =
            self.gap.is_some() && (settings.transactional || !self.in_flight.is_empty());
        if heals_first || front.retry_at > now || self.in_flight.len() >= in_flight_max {
            return false;
        }
        // ACC-3. A leader remembers the last five batches of a producer: if more were appended
        // after a batch in doubt, its duplicate could no longer be recognised.
        let doubtful = self.in_flight.values().any(|batch| batch.in_doubt);
        let oldest = self.in_flight.keys().next().is_none_or(|&oldest| oldest > front.id);
        !doubtful && (front.stamp.is_none() || oldest)
    }
}

/// The batches of one producer. See the module's documentation.
#[derive(Debug)]
pub struct Accumulator<P> {
    settings: Settings,
    producer: Option<(ProducerId, ProducerEpoch)>,
    queues: BTreeMap<TopicPartition, Queue<P>>,
    next_id: u64,
    buffered_bytes: usize,
    last_drained: Option<TopicPartition>,
}

impl<P> Accumulator<P> {
    /// An empty accumulator.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            producer: None,
            queues: BTreeMap::new(),
            next_id: 0,
            buffered_bytes: 0,
            last_drained: None,
        }
    }

    /// Whether batches wait for a producer id.
    #[must_use]
    pub fn needs_producer_id(&self) -> bool {
        self.settings.idempotent && self.producer.is_none()
    }

    /// Sets the id and the epoch under which batches are sent from now on, with numbers from 0. Batches are not drained
    /// before. Nothing may be in flight, nor wait to be sent again.
    pub fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch) {
        let is_same = self.producer.is_some_and(|(before, _)| before == id);
        self.producer = Some((id, epoch));
        for queue in self.queues.values_mut() {
            queue.next_sequence = Sequence(0);
            queue.epochs_raised = 0;
            queue.gap = None;
            queue.is_known &= is_same;
        }
    }

    /// The bytes of all batches that are open, queued or in flight.
    #[must_use]
    pub const fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Whether nothing is open, queued or in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queues.values().all(Queue::is_idle)
    }

    /// How many batches of a partition are open or wait to be sent.
    #[must_use]
    pub fn queued(&self, partition: &TopicPartition) -> u32 {
        self.queues.get(partition).map_or(0, |queue| {
            u32::try_from(queue.sealed.len() + usize::from(queue.open.is_some()))
                .unwrap_or(u32::MAX)
        })
    }

    /// Adds a record of `bytes` to the partition's open batch, which `open` creates when there
    /// is none or no room in it. Returns the payload to write the record into, and whether an older
    /// batch was closed by this.
    pub fn append(
        &mut self,
        now: TimestampMs,
        partition: &TopicPartition,
        bytes: usize,
        open: impl FnOnce() -> P,
    ) -> (&mut P, bool) {
        let id = BatchId(self.next_id);
        let batch_bytes = self.settings.batch_bytes;
        let queue = queue_of(&mut self.queues, partition);
        let full = queue
            .open
            .as_ref()
            .is_some_and(|batch| batch.bytes + bytes > batch_bytes || batch.records == i32::MAX);
        let closed = full && queue.seal();
        if queue.open.is_none() {
            self.next_id += 1;
        }
        let batch = queue.open.get_or_insert_with(|| new_batch(id, now, open()));
        batch.bytes += bytes;
        batch.records += 1;
        self.buffered_bytes += bytes;
        (&mut batch.payload, closed)
    }

    /// Adds a whole batch. It does not linger.
    pub fn append_batch(
        &mut self,
        now: TimestampMs,
        partition: &TopicPartition,
        bytes: usize,
        records: i32,
        payload: P,
    ) {
        let queue = queue_of(&mut self.queues, partition);
        queue.seal();
        let mut batch = new_batch(BatchId(self.next_id), now, payload);
        batch.bytes = bytes;
        batch.records = records;
        queue.sealed.push_back(batch);
        self.next_id += 1;
        self.buffered_bytes += bytes;
    }

    /// The name that the next batch will get: all batches so far have lower ones.
    #[must_use]
    pub const fn next_id(&self) -> BatchId {
        BatchId(self.next_id)
    }

    /// The oldest batch that is not settled.
    #[must_use]
    pub fn oldest(&self) -> Option<BatchId> {
        let of_queue = |queue: &Queue<P>| {
            let open = queue.open.as_ref().map(|batch| batch.id);
            let sealed = queue.sealed.front().map(|batch| batch.id);
            let in_flight = queue.in_flight.keys().next().copied();
            [open, sealed, in_flight].into_iter().flatten().min()
        };
        self.queues.values().filter_map(of_queue).min()
    }

    /// Closes all open batches, so that they leave without lingering.
    pub fn seal_all(&mut self) {
        for queue in self.queues.values_mut() {
            queue.seal();
        }
    }

    /// Whether any batch could be sent now, if its leader is known and has a free slot.
    #[must_use]
    pub fn has_ready(&self, now: TimestampMs) -> bool {
        !self.needs_producer_id()
            && self.queues.values().any(|queue| queue.may_send_front(now, &self.settings))
    }

    /// The partitions that have something to send, now or later.
    pub fn waiting_partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.queues
            .iter()
            .filter(|(_, queue)| queue.open.is_some() || !queue.sealed.is_empty())
            .map(|(partition, _)| partition)
    }

    /// Closes the open batches that lingered long enough.
    pub fn seal_lingered(&mut self, now: TimestampMs) {
        let Settings { linger_ms, batch_bytes, .. } = self.settings;
        for queue in self.queues.values_mut() {
            let lingered = |batch: &Pending<P>| {
                batch.created_at.plus(linger_ms) <= now || batch.bytes >= batch_bytes
            };
            // Closing a batch that waits behind others would not make it leave earlier.
            if queue.sealed.is_empty() && queue.open.as_ref().is_some_and(lingered) {
                queue.seal();
            }
        }
    }

    /// Takes one request's worth of batches for a node: at most one per partition, in turn, as
    /// many as fit the request size, at least one if any is ready.
    pub fn drain(
        &mut self,
        now: TimestampMs,
        node: NodeId,
        leader: impl Fn(&TopicPartition) -> Option<NodeId>,
    ) -> Vec<Drained<P>> {
        let mut drained = Vec::new();
        if self.needs_producer_id() {
            return drained;
        }
        let mut bytes = 0;
        for partition in self.in_turn(now, node, leader) {
            let Some(queue) = self.queues.get_mut(&partition) else { continue };
            let Some(front_bytes) = queue.sealed.front().map(|front| front.bytes) else { continue };
            if !drained.is_empty() && bytes + front_bytes > self.settings.request_bytes_max {
                break;
            }
            let Some(batch) = queue.sealed.pop_front() else { continue };
            bytes += batch.bytes;
            let stamp = stamp_of(&batch, queue, self.producer.filter(|_| self.settings.idempotent));
            let rest = InFlight {
                created_at: batch.created_at,
                bytes: batch.bytes,
                records: batch.records,
                failures: batch.failures,
                stamp,
                in_doubt: batch.in_doubt,
            };
            queue.in_flight.insert(batch.id, rest);
            self.last_drained = Some(partition.clone());
            drained.push(Drained { id: batch.id, partition, stamp, payload: batch.payload });
        }
        drained
    }

    /// The partitions of a node whose front batch may leave, starting after the last one served.
    fn in_turn(
        &self,
        now: TimestampMs,
        node: NodeId,
        leader: impl Fn(&TopicPartition) -> Option<NodeId>,
    ) -> Vec<TopicPartition> {
        let mut ready: Vec<_> = self
            .queues
            .iter()
            .filter(|(partition, queue)| {
                queue.may_send_front(now, &self.settings) && leader(partition) == Some(node)
            })
            .map(|(partition, _)| partition.clone())
            .collect();
        if let Some(last) = &self.last_drained {
            let first = ready.partition_point(|partition| partition <= last);
            ready.rotate_left(first);
        }
        ready
    }

    /// Takes a sent batch back, with what became of it.
    pub fn settle(
        &mut self,
        now: TimestampMs,
        batch: Drained<P>,
        verdict: Verdict,
        random: u64,
    ) -> Settled<P> {
        let settings = self.settings;
        let queue = queue_of(&mut self.queues, &batch.partition);
        let Some(rest) = queue.in_flight.remove(&batch.id) else {
            // Given back twice: the first answer stands. Cannot happen with a correct shell.
            return Settled::Failed(batch.payload, Failure::Lost);
        };
        let settled = match verdict {
            Verdict::Acknowledged | Verdict::Refused(ErrorCode::DuplicateSequenceNumber) => {
                queue.is_known = true;
                Settled::Acknowledged(batch.payload)
            }
            verdict => {
                let expired = rest.created_at.plus(settings.delivery_timeout_ms) <= now;
                let may_retry = match verdict {
                    // No epoch is raised within a transaction (ACC-7).
                    Verdict::Refused(_) if settings.transactional && starts_again(verdict) => {
                        queue.has_older(batch.id)
                    }
                    Verdict::Refused(code) => retry_helps(code, settings.idempotent),
                    Verdict::GivenUp(_) => false,
                    Verdict::Lost | Verdict::Acknowledged => true,
                };
                if may_retry && !expired && rest.failures < settings.retries {
                    if starts_again(verdict) && !queue.has_older(batch.id) {
                        queue.note_gap(batch.id);
                    }
                    let failures = rest.failures + 1;
                    queue.requeue(Pending {
                        id: batch.id,
                        created_at: rest.created_at,
                        bytes: rest.bytes,
                        records: rest.records,
                        failures,
                        last_refusal: refusal(verdict),
                        retry_at: now.plus(delay(settings.backoff, failures, random)),
                        stamp: settings.idempotent.then_some(rest.stamp),
                        in_doubt: doubt(verdict).unwrap_or(rest.in_doubt),
                        payload: batch.payload,
                    });
                    queue.heal(&settings);
                    return Settled::Retrying;
                }
                if settings.idempotent {
                    queue.note_gap(batch.id);
                }
                Settled::Failed(batch.payload, failure(verdict, expired && may_retry))
            }
        };
        queue.heal(&settings);
        self.buffered_bytes -= rest.bytes;
        settled
    }

    /// Takes out the waiting batches that are older than `delivery.timeout.ms`.
    pub fn expire(&mut self, now: TimestampMs) -> Vec<(TopicPartition, P, Failure)> {
        let timeout_ms = self.settings.delivery_timeout_ms;
        self.remove_waiting(|batch| batch.created_at.plus(timeout_ms) <= now)
            .into_iter()
            .map(|(partition, batch)| {
                (partition, batch.payload, Failure::Expired(batch.last_refusal))
            })
            .collect()
    }

    /// Takes out everything that waits, for a producer that is closed without flushing, or whose
    /// partition is gone.
    pub fn abandon(
        &mut self,
        concerns: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<(TopicPartition, P)> {
        let (settings, mut taken) = (self.settings, Vec::new());
        for (partition, queue) in &mut self.queues {
            if concerns(partition) {
                queue.seal();
                for batch in std::mem::take(&mut queue.sealed) {
                    if batch.stamp.is_some() {
                        queue.note_gap(batch.id);
                    }
                    self.buffered_bytes -= batch.bytes;
                    taken.push((partition.clone(), batch.payload));
                }
                queue.heal(&settings);
            }
        }
        taken
    }

    fn remove_waiting(
        &mut self,
        leaves: impl Fn(&Pending<P>) -> bool,
    ) -> Vec<(TopicPartition, Pending<P>)> {
        let (settings, mut removed) = (self.settings, Vec::new());
        for (partition, queue) in &mut self.queues {
            if queue.open.as_ref().is_some_and(&leaves) {
                queue.seal();
            }
            while queue.sealed.front().is_some_and(&leaves) {
                let Some(batch) = queue.sealed.pop_front() else { break };
                // A number that was used and is not used again leaves a gap.
                if batch.stamp.is_some() {
                    queue.note_gap(batch.id);
                }
                self.buffered_bytes -= batch.bytes;
                removed.push((partition.clone(), batch));
            }
            queue.heal(&settings);
        }
        removed
    }

    /// The first moment after `now` at which something changes without an event: a linger ends, a
    /// backoff ends, a batch expires.
    #[must_use]
    pub fn next_deadline(&self, now: TimestampMs) -> Option<TimestampMs> {
        let settings = &self.settings;
        let moments = |queue: &Queue<P>| {
            let open = queue.open.as_ref().map(|batch| batch.created_at);
            let front = queue.sealed.front();
            [
                open.map(|created_at| created_at.plus(settings.linger_ms)),
                open.map(|created_at| created_at.plus(settings.delivery_timeout_ms)),
                front.map(|batch| batch.retry_at),
                front.map(|batch| batch.created_at.plus(settings.delivery_timeout_ms)),
            ]
        };
        self.queues.values().flat_map(moments).flatten().filter(|&moment| moment > now).min()
    }
}

fn queue_of<'queues, P>(
    queues: &'queues mut BTreeMap<TopicPartition, Queue<P>>,
    partition: &TopicPartition,
) -> &'queues mut Queue<P> {
    if !queues.contains_key(partition) {
        queues.insert(partition.clone(), Queue::new());
    }
    queues.entry(partition.clone()).or_insert_with(Queue::new)
}

const fn new_batch<P>(id: BatchId, now: TimestampMs, payload: P) -> Pending<P> {
    Pending {
        id,
        created_at: now,
        bytes: 0,
        records: 0,
        failures: 0,
        last_refusal: None,
        retry_at: TimestampMs::NONE,
        stamp: None,
        in_doubt: false,
        payload,
    }
}

/// The stamp that a batch has from an earlier attempt, or the next one of its partition.
fn stamp_of<P>(
    batch: &Pending<P>,
    queue: &mut Queue<P>,
    producer: Option<(ProducerId, ProducerEpoch)>,
) -> Stamp {
    let Some((producer_id, epoch)) = producer else { return Stamp::NONE };
    batch.stamp.unwrap_or_else(|| {
        let sequence = queue.next_sequence;
        queue.next_sequence = sequence.plus(batch.records);
        let epoch = ProducerEpoch(epoch.0.saturating_add(queue.epochs_raised));
        Stamp { producer_id, epoch, sequence }
    })
}

/// Whether sending the same batch again can succeed.
const fn retry_helps(code: ErrorCode, idempotent: bool) -> bool {
    match code {
        ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId => idempotent,
        other => other.retriable(),
    }
}

/// Whether the broker's idea of the sequence is not ours, so that numbers must start again.
const fn starts_again(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Refused(ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId)
    )
}

/// Whether the batch may lie in the log after this verdict; `None` when that is as before.
const fn doubt(verdict: Verdict) -> Option<bool> {
    match verdict {
        // A leader checks for duplicates before it finds the sequence wrong.
        Verdict::Refused(ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId) => {
            Some(false)
        }
        // These are returned before anything is appended.
        Verdict::Refused(
            ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::CorruptMessage,
        ) => None,
        Verdict::Refused(_) | Verdict::GivenUp(_) | Verdict::Lost | Verdict::Acknowledged => {
            Some(true)
        }
    }
}

const fn refusal(verdict: Verdict) -> Option<ErrorCode> {
    match verdict {
        Verdict::Refused(code) | Verdict::GivenUp(code) => Some(code),
        Verdict::Acknowledged | Verdict::Lost => None,
    }
}

const fn failure(verdict: Verdict, expired: bool) -> Failure {
    match (verdict, expired) {
        (Verdict::GivenUp(code), _) | (Verdict::Refused(code), false) => Failure::Refused(code),
        (verdict, true) => Failure::Expired(refusal(verdict)),
        (Verdict::Acknowledged | Verdict::Lost, false) => Failure::Lost,
    }
}

fn delay(backoff: Backoff, failures: u32, random: u64) -> i64 {
    i64::try_from(backoff.delay_ms(failures, random)).unwrap_or(i64::MAX)
}
