//! A partition on this broker: its log, its role, and who waits for it.
//!
//! Why: the log is synchronous and has a single writer; clients are many and asynchronous. This is where
//! they meet. Appending is in [`append`], what a leader does for its followers in [`leading`], what a follower does to
//! its log in [`copying`], DeleteRecords in [`deleting`], what epochs tell in [`epochs`], the change of roles in [`role`], what the tier has in [`tiering`]; reads go to the log's reader on the caller's thread; the high watermark between them comes from [`crate::machine::replica`].
//!
//! Who calls: handlers, the log threads and the publisher of metadata. It knows none of them: what it is asked
//! to do, it does on the caller's thread.
//!
//! Invariants:
//! - `PART-1` a consumer reads only below the high watermark, an `acks=all` producer is answered only
//!   when its records are below it (ADR 0001).
//! - `PART-2` once a partition is closed (deleted, taken offline, broker stopped), nobody waits for it:
//!   producers are answered with an error, fetches are woken.
//! - `PART-3` lock order: `ledger` before `state`; neither is held across an await. `standing` is read without
//!   a lock and replaced under `state`, for another role or epoch also under `ledger`.

mod append;
mod copying;
mod deleting;
mod epochs;
mod leading;
mod role;
mod tiering;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::oneshot;

use self::append::Waiting;
use self::role::{Ledger, Standing};
use super::full_disk;
use super::parking::{Parking, PartitionKey};
use super::replication::IsrRequests;
use super::tier::TieredPartition;
use crate::broker::words;
use crate::config::{CompressionType, Durability, TopicConfig};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{
    AbortedTransaction, EpochEnd, Health, HighWatermark, Log, LogReader, ReadRequest,
};
use crate::machine::fetch_session::FetchInterest;
use crate::machine::metadata::{MetadataImage, PartitionImage};
use crate::machine::replica::{Effects, Found, LocalDurability, Replica, Rules, Token};
use crate::protocol::Records;
use crate::store::Store;
use crate::types::{Chunk, LeaderEpoch, NodeId, Offset, TopicPartition};

pub(super) use append::{Acks, AppendAnswer, Appended, Appending, Queued};
pub(super) use copying::{CopyPoint, Cut};
pub(super) use deleting::Deletion;
pub(super) use leading::Follower;

/// How far a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// To the last stable offset.
    Committed,
    /// To the high watermark.
    Uncommitted,
    /// To the log end: for followers, and tools that look as one.
    Everything,
}

/// From which replica something is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source<'a> {
    /// From the leader.
    Leader,
    /// From whichever is asked. A leader sends the consumer to one of these brokers, if it can.
    Replica(&'a [NodeId]),
}

/// What room there is in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) max_bytes: usize,
    /// Whether one batch may be larger than that.
    pub(super) at_least_one: bool,
}

/// What a fetch found.
#[derive(Debug)]
pub(super) struct FetchRead {
    pub(super) records: Records,
    pub(super) high_watermark: Offset,
    pub(super) last_stable_offset: Offset,
    pub(super) log_start_offset: Offset,
    /// Where the log starts on this disk.
    pub(super) local_start_offset: Offset,
    /// Aborted transactions of the range, by first offset; filled for [`Isolation::Committed`].
    pub(super) aborted: Vec<AbortedTransaction>,
    /// Where the fetcher's log diverges from this one; there are no records then.
    pub(super) diverging: Option<EpochEnd>,
    /// From whom a consumer should read instead; there are no records then.
    pub(super) preferred: Option<NodeId>,
    /// Whether the tier has what was asked for, and this disk has not: records are still to be read there.
    pub(super) is_cold: bool,
}

struct State {
    replica: Replica,
    /// Producers that wait for the high watermark.
    waiting: VecDeque<Waiting>,
    /// Producers that wait until the leader has their records for sure.
    waiting_for_leader: VecDeque<Waiting>,
    /// Who waits until every replica has deleted what lies before.
    waiting_for_deletion: Vec<(Offset, oneshot::Sender<Result<()>>)>,
    /// Copiers that wait until what lies before is synced.
    waiting_for_sync: Vec<(Offset, oneshot::Sender<()>)>,
    /// Since when something is to be synced by `flush.ms`, by the monotonic clock.
    unsynced_since: Option<Duration>,
}

/// One partition.
pub(super) struct Partition {
    key: PartitionKey,
    name: TopicPartition,
    node_id: NodeId,
    /// The log, while it is open: one may write to it at a time.
    ledger: Mutex<Option<Ledger>>,
    reader: LogReader,
    state: Mutex<State>,
    standing: ArcSwap<Standing>,
    /// Moved with `state`.
    high_watermark: HighWatermark,
    /// How many tasks in the queue of its log thread are for it; see [`Queued`].
    queued: AtomicUsize,
    /// Whether it is in the queue of the sync threads.
    sync_queued: AtomicBool,
    health: Health,
    parking: Arc<Parking>,
    isr_requests: Arc<IsrRequests>,
    /// Where tiers are, on a broker with one.
    store: Option<Arc<dyn Store>>,
    /// The tier of this partition, as its settings want it.
    tier: ArcSwapOption<TieredPartition>,
    /// Whether the data is temporary, so that nothing is synced.
    volatile: bool,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Partition").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A log as it was found.
#[derive(Debug)]
pub(super) struct OpenLog {
    pub(super) log: Log,
    /// The high watermark that was saved for it.
    pub(super) high_watermark: Offset,
}

/// What the metadata says of a partition, and the time.
#[derive(Clone, Debug)]
pub(super) struct Assignment<'a> {
    pub(super) state: &'a PartitionImage,
    pub(super) config: Arc<TopicConfig>,
    /// Who is registered.
    pub(super) brokers: &'a MetadataImage,
    /// `replica.lag.time.max.ms`.
    pub(super) lag_time_max: Duration,
    /// By the monotonic clock.
    pub(super) now: Duration,
}

/// What the partitions of a broker share.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) node_id: NodeId,
    pub(super) health: Health,
    pub(super) parking: Arc<Parking>,
    pub(super) isr_requests: Arc<IsrRequests>,
    /// Where tiers are; none on a broker without.
    pub(super) store: Option<Arc<dyn Store>>,
    pub(super) volatile: bool,
}

impl Partition {
    /// Creates the partition.
    ///
    /// # Errors
    ///
    /// When the recovered data could not be synced, or the log contradicts the metadata.
    pub(super) fn new(
        key: PartitionKey,
        OpenLog { log, high_watermark }: OpenLog,
        assignment: &Assignment<'_>,
        around: &Surroundings,
    ) -> Result<Arc<Self>> {
        let (name, reader) = (log.partition().clone(), log.reader());
        let rules = rules(assignment, around.volatile);
        if rules.durability == LocalDurability::Synced
            && reader.recovery_point() < reader.log_end_offset()
        {
            // What a crash left in the page cache is shown to consumers, so it must not vanish
            // later.
            log.sync_handle().run()?;
        }
        let found = Found {
            log_start: reader.log_start_offset(),
            log_end: reader.log_end_offset(),
            synced_end: reader.recovery_point(),
            // What was deleted here while a tier has it was committed.
            high_watermark: high_watermark.max(reader.local_start_offset()),
        };
        let replica = Replica::new(around.node_id, rules, found);
        log.high_watermark().raise(replica.high_watermark());
        let partition = Self {
            key,
            name,
            node_id: around.node_id,
            high_watermark: log.high_watermark(),
            ledger: Mutex::new(Some(Ledger { log, token: Token::NONE })),
            reader,
            state: Mutex::new(State {
                replica,
                waiting: VecDeque::new(),
                waiting_for_leader: VecDeque::new(),
                waiting_for_deletion: Vec::new(),
                waiting_for_sync: Vec::new(),
                unsynced_since: None,
            }),
            standing: ArcSwap::from_pointee(Standing::new(Arc::clone(&assignment.config))),
            queued: AtomicUsize::new(0),
            sync_queued: AtomicBool::new(false),
            health: around.health.clone(),
            parking: Arc::clone(&around.parking),
            isr_requests: Arc::clone(&around.isr_requests),
            store: around.store.clone(),
            tier: ArcSwapOption::empty(),
            volatile: around.volatile,
        };
        partition.take_role(assignment)?;
        Ok(Arc::new(partition))
    }

    pub(super) fn key(&self) -> PartitionKey {
        self.key
    }

    pub(super) fn name(&self) -> &TopicPartition {
        &self.name
    }

    pub(super) fn reader(&self) -> &LogReader {
        &self.reader
    }

    pub(super) fn size_bytes(&self) -> i64 {
        i64::try_from(self.reader.size_bytes()).unwrap_or(i64::MAX)
    }

    pub(super) fn high_watermark(&self) -> Offset {
        self.high_watermark.get()
    }

    pub(super) fn leader_epoch(&self) -> LeaderEpoch {
        self.standing.load().token.epoch()
    }

    pub(super) fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.standing.load().config)
    }

    pub(super) fn compresses_with_zstd(&self) -> bool {
        self.standing.load().config.compression_type == CompressionType::Zstd
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of what a reader may see.
    pub(super) fn end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::Committed => self.reader.last_stable_offset(),
            Isolation::Uncommitted => self.high_watermark(),
            Isolation::Everything => self.reader.log_end_offset(),
        }
    }

    /// Fails unless this broker leads the partition or follows a leader, and is not closed.
    ///
    /// # Errors
    ///
    /// As [`Partition::check_leader`].
    pub(super) fn check_replica(&self) -> Result<()> {
        self.health.check()?;
        self.standing.load().has_leader(&self.name)
    }

    /// Fails while a client may have been told of a later end than this leader knows of.
    ///
    /// # Errors
    ///
    /// `OFFSET_NOT_AVAILABLE`: the followers have not come to the start of the leader's epoch.
    pub(super) fn check_end(&self, isolation: Isolation) -> Result<()> {
        match isolation {
            Isolation::Everything => Ok(()),
            Isolation::Committed | Isolation::Uncommitted => {
                self.standing.load().check_end(self.high_watermark(), &self.name)
            }
        }
    }

    /// Checks the leader epoch that a client assumes (KIP-320).
    ///
    /// # Errors
    ///
    /// `FENCED_LEADER_EPOCH` for an older one, `UNKNOWN_LEADER_EPOCH` for a newer one.
    pub(super) fn check_epoch(&self, epoch: LeaderEpoch) -> Result<()> {
        self.standing.load().check_epoch(epoch, &self.name)
    }

    /// Reads for a consumer. May wait for the disk when [`Partition::is_cold`] says so.
    ///
    /// A follower gives what it knows to be committed (KIP-392). It may lag: where it has nothing, the consumer has to ask
    /// the leader.
    ///
    /// # Errors
    ///
    /// `OFFSET_OUT_OF_RANGE`, the errors of epochs, and damage on disk.
    pub(super) fn fetch(
        &self,
        interest: &FetchInterest,
        room: Room,
        isolation: Isolation,
        from: Source<'_>,
    ) -> Result<FetchRead> {
        self.health.check()?;
        let standing = self.standing.load();
        match from {
            Source::Leader => drop(standing.leads(&self.name)?),
            Source::Replica(_) => standing.has_leader(&self.name)?,
        }
        let near = match from {
            Source::Leader => &[],
            Source::Replica(near) => near,
        };
        standing.check_epoch(interest.current_leader_epoch, &self.name)?;
        // In this order: what is stable is then not below what is said to be committed, unless a transaction is open.
        let high_watermark = self.high_watermark();
        let last_stable_offset = self.reader.last_stable_offset().min(high_watermark);
        // In this order: a follower that hears of a local start hears of the log start that came with it.
        let local_start_offset = self.reader.local_start_offset();
        let log_start_offset = self.reader.log_start_offset();
        let mut found = FetchRead {
            records: Records::new(),
            high_watermark,
            last_stable_offset,
            log_start_offset,
            local_start_offset,
            aborted: Vec::new(),
            diverging: None,
            preferred: None,
            is_cold: false,
        };
        if isolation != Isolation::Everything
            && !near.is_empty()
            && standing.leads(&self.name).is_ok()
        {
            found.preferred = self.state().replica.nearest(near, interest.fetch_offset);
            if found.preferred.is_some() {
                return Ok(found);
            }
        }
        found.diverging = self.divergence(interest)?;
        if found.diverging.is_some() {
            return Ok(found);
        }
        let request = Self::read_request(
            interest,
            room,
            match isolation {
                Isolation::Committed => last_stable_offset,
                Isolation::Uncommitted => high_watermark,
                Isolation::Everything => self.reader.log_end_offset(),
            },
        );
        let read = match self.reader.read(request) {
            // Afterwards: the local start moves on.
            Err(Error::OffsetOutOfRange { .. }) if self.is_in_tier(interest.fetch_offset) => {
                // A follower sends consumers to the leader. That the offset is out of range would be taken for the end of
                // retention.
                standing.leads(&self.name)?;
                found.is_cold = true;
                return Ok(found);
            }
            read => read?,
        };
        let beyond = !read.records.is_empty() && read.next_offset > request.upper;
        assert!(!beyond, "PART-1: {} was read beyond {}", self.name, request.upper);
        if isolation == Isolation::Committed && !read.records.is_empty() {
            found.aborted =
                self.reader.aborted_transactions(interest.fetch_offset, read.next_offset);
        }
        found.log_start_offset = read.log_start_offset;
        found.records = Chunk::new(read.records, read.stored).into();
        Ok(found)
    }

    fn read_request(interest: &FetchInterest, room: Room, upper: Offset) -> ReadRequest {
        ReadRequest {
            offset: interest.fetch_offset,
            max_bytes: room.max_bytes as u64,
            upper,
            at_least_one: room.at_least_one,
        }
    }

    /// Whether the log goes on behind an offset.
    pub(super) fn has_beyond(&self, offset: Offset) -> bool {
        self.reader.log_end_offset() > offset
    }

    /// Whether a fetch would probably wait for the disk.
    pub(super) fn is_cold(
        &self,
        interest: &FetchInterest,
        max_bytes: usize,
        isolation: Isolation,
    ) -> bool {
        let upper = match isolation {
            Isolation::Everything => self.reader.log_end_offset(),
            Isolation::Committed | Isolation::Uncommitted => self.high_watermark(),
        };
        let room = Room { max_bytes, at_least_one: true };
        self.reader.is_cold(&Self::read_request(interest, room, upper))
    }

    /// Works on the log, with exclusive access.
    pub(super) fn with_log<R>(&self, work: impl FnOnce(&mut Log) -> Result<R>) -> Result<R> {
        self.with_ledger(|ledger| work(&mut ledger.log))
    }

    fn with_ledger<R>(&self, work: impl FnOnce(&mut Ledger) -> Result<R>) -> Result<R> {
        let mut ledger = self.ledger.lock().map_err(|_poisoned| {
            Error::kafka(ErrorCode::KafkaStorageError, format!("{} failed earlier", self.name))
        })?;
        match ledger.as_mut() {
            Some(ledger) => work(ledger),
            None => {
                let code = self.standing.load().closed.unwrap_or(ErrorCode::NotLeaderOrFollower);
                Err(words::partition_closed(code, &self.name))
            }
        }
    }

    /// Takes the log, to close or delete it.
    pub(super) fn take_log(&self) -> Option<Log> {
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).take();
        ledger.map(|ledger| ledger.log)
    }

    /// Whether a sync must follow what was appended: for the high watermark, or by `flush.messages`.
    fn needs_sync(&self, state: &State) -> bool {
        let due = || self.unsynced_records() >= self.standing.load().config.flush_messages;
        state.replica.needs_sync() || !self.volatile && due()
    }

    fn unsynced_records(&self) -> i64 {
        self.reader.log_end_offset().0 - self.reader.recovery_point().0
    }

    /// Whether a sync is due that no append asked for: `flush.ms` has passed since this was called first with
    /// something to sync, or what was written before counts only once it is synced, since the settings or the
    /// replicas changed.
    pub(super) fn is_flush_due(&self, now: Duration) -> bool {
        let standing = self.standing.load();
        let flush_ms = standing.config.flush_ms;
        let mut state = self.state();
        if standing.closed.is_none() && state.replica.needs_sync() {
            return true;
        }
        let interval = u64::try_from(flush_ms).unwrap_or(0);
        if self.volatile || flush_ms == i64::MAX || self.unsynced_records() <= 0 {
            state.unsynced_since = None;
            return false;
        }
        let since = *state.unsynced_since.get_or_insert(now);
        if now.saturating_sub(since) < Duration::from_millis(interval) {
            return false;
        }
        state.unsynced_since = None;
        true
    }

    /// Marks it as queued for a sync; false when it already is.
    pub(super) fn queue_sync(&self) -> bool {
        !self.sync_queued.swap(true, Ordering::AcqRel)
    }

    /// Syncs what was appended so far, on a sync thread; appends go on meanwhile. While this runs the
    /// partition counts as queued, so no other thread syncs it at the same time.
    pub(super) fn sync_now(&self) {
        loop {
            let handle = self.with_log(|log| Ok(log.sync_handle()));
            let synced = handle.and_then(crate::log::SyncHandle::run);
            // Who waits goes on waiting; the next append tries once more, or the maintenance.
            let is_full = synced.as_ref().is_err_and(Error::is_disk_full);
            match synced {
                Ok(end) => self.synced(end),
                Err(error) if is_full => full_disk::warn_of(&error),
                Err(error) => self.sync_failed(&error),
            }
            self.sync_queued.store(false, Ordering::Release);
            if is_full {
                return;
            }
            // Appends since the handle was created did not queue the partition again.
            let state = self.state();
            let again = self.standing.load().closed.is_none() && self.needs_sync(&state);
            drop(state);
            if !again || !self.queue_sync() {
                return;
            }
        }
    }

    fn sync_failed(&self, error: &Error) {
        let code = error.code();
        if self.standing.load().closed.is_some() {
            tracing::debug!(partition = %self.name, error = %error.chain(), "could not sync");
        } else {
            tracing::error!(partition = %self.name, error = %error.chain(), "sync failed");
            self.close(code);
        }
    }

    fn synced(&self, end: Offset) {
        let mut state = self.state();
        let effects = state.replica.synced(end);
        let moved = self.publish(&mut state, &effects);
        drop(state);
        if moved {
            self.parking.wake(&self.key);
        }
    }

    /// Publishes what came of a change of the replica, answers the producers that waited for it, and passes on what
    /// the controller is to be asked for. Returns whether the high watermark moved.
    fn publish(&self, state: &mut State, effects: &Effects) -> bool {
        if let Some(request) = &effects.request {
            self.isr_requests.put(self.key, request.clone());
        }
        if let Some(high_watermark) = effects.high_watermark {
            let before = self.high_watermark.get();
            assert!(before <= high_watermark, "HW-1: from {before} to {high_watermark}");
            self.high_watermark.raise(high_watermark);
        }
        let (committed, stored) = (state.replica.high_watermark(), state.replica.stored_end());
        let queues = [(&mut state.waiting, committed), (&mut state.waiting_for_leader, stored)];
        for (queue, end) in queues {
            while queue.front().is_some_and(|waiting| waiting.until <= end) {
                if let Some(Waiting { answer, reply, .. }) = queue.pop_front() {
                    drop(reply.send(Ok(answer)));
                }
            }
        }
        let replica = &state.replica;
        let deletions = state
            .waiting_for_deletion
            .extract_if(.., |(start, sender)| sender.is_closed() || replica.have_deleted(*start));
        for (_, sender) in deletions {
            // Who waited may have had enough.
            sender.send(Ok(())).ok();
        }
        for (_, sender) in state.waiting_for_sync.extract_if(.., |(end, _)| *end <= stored) {
            // The fetcher may have ended.
            sender.send(()).ok();
        }
        effects.high_watermark.is_some()
    }
}

/// What the settings ask of a partition. How much the copy on this broker counts: ADR 0001.
fn rules(assignment: &Assignment<'_>, volatile: bool) -> Rules {
    let Assignment { state, config, lag_time_max, .. } = assignment;
    let min_in_sync = state.min_in_sync(config.min_insync_replicas);
    let synced = match config.durability {
        _ if volatile => false,
        Durability::Os => false,
        Durability::Fsync => true,
        Durability::Auto => min_in_sync <= 1,
    };
    let durability = if synced { LocalDurability::Synced } else { LocalDurability::Written };
    Rules { durability, min_in_sync, lag_time_max: *lag_time_max }
}
