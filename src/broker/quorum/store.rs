//! The quorum's log and votes on disk, over [`crate::log::Log`].
//!
//! [`Store`] is synchronous; [`PartitionStore`] wraps it for openraft, whose calls run on the
//! blocking pool so that no fsync holds up an async worker. openraft makes one call at a time.
//!
//! - STORE-1: `append` returns, and reports that it is flushed, after the entries are on disk.
//! - STORE-2: a full disk is waited out: nothing was appended, and the quorum continues as soon as
//!   there is room. Every other failure stops the quorum.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{AnyError, OptionalSend};

use super::hard_state::{HardState, StateFile};
use super::snapshot::Checkpoint;
use super::types::{
    Entry, LogId, StorageError, StorageIOError, TypeConfig, Vote, epoch, index, offset,
};
use super::{METADATA_DIRECTORY, METADATA_TOPIC, QuorumOptions, entry};
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::env::{Env, Threads};
use crate::error::{Error, Result};
use crate::log::{Append, Log, LogConfig, LogReader, OpenOptions, ReadRequest};
use crate::record::{BatchBuilder, BatchOptions, Batches};
use crate::types::{Offset, TopicPartition, Uuid};

/// The topic id that Apache Kafka reserves for the metadata log.
const METADATA_TOPIC_ID: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// How much is read from the log at a time.
const READ_BYTES: u64 = 1 << 20;
/// The largest entry in bytes; protects against damaged files, and is not otherwise a limit.
const ENTRY_BYTES_MAX: usize = 1 << 30;
/// How long to wait before retrying when the disk is full.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);

/// The files of the metadata log.
#[derive(Debug)]
pub(super) struct Store {
    env: Env,
    directory: PathBuf,
    fsync: bool,
    /// `None` once it is closed.
    log: Option<Log>,
    reader: LogReader,
    state: StateFile,
    last: Option<LogId>,
    /// Bytes appended since the last snapshot.
    unsaved_bytes: u64,
    config: LogConfig,
}

impl Store {
    /// Opens the files, and the newest snapshot.
    pub(super) fn open(options: &QuorumOptions) -> Result<(Self, Option<Checkpoint>)> {
        let env = options.env.clone();
        let directory = options.log_dir.join(METADATA_DIRECTORY);
        let disk = &*env.disk;
        disk.create_dir_all(&directory).map_err(|error| Error::io("create", &directory, error))?;
        let state = StateFile::open(disk, &directory, options.fsync)?;
        let hard = state.state();
        let checkpoint = Checkpoint::load(disk, &directory)?;
        let start = hard.purged.map_or(Offset::ZERO, |purged| offset(purged.index).next());
        let covered = checkpoint.as_ref().and_then(|checkpoint| checkpoint.last);
        if hard.purged > covered {
            let text = "the log begins after the end of the snapshot";
            return Err(Error::corrupt(&directory, 0, text));
        }
        let open = OpenOptions {
            partition: TopicPartition::new(METADATA_TOPIC, 0),
            topic_id: METADATA_TOPIC_ID,
            config: log_config(options),
            health: options.health.clone(),
            recovery_point: hard.recovery_point,
            log_start_offset: start,
            // The active segment is always scanned: it is small, and a marker would have to be
            // removed, and that synced, before the first append.
            clean_shutdown: false,
            clean_until: None,
        };
        let (log, report) = Log::open(&env, &directory, open)?;
        if report.truncated_bytes > 0 {
            tracing::warn!(
                bytes = report.truncated_bytes,
                "cut an unfinished append from the metadata log"
            );
        }
        let reader = log.reader();
        let mut store = Self {
            env,
            directory,
            fsync: options.fsync,
            unsaved_bytes: reader.size_bytes(),
            log: Some(log),
            reader,
            state,
            last: None,
            config: log_config(options),
        };
        store.last = store.read_last().map_err(|error| error.in_file(&store.directory))?;
        Ok((store, checkpoint))
    }

    #[cfg(test)]
    pub(super) fn reader_end(&self) -> Offset {
        self.reader.log_end_offset()
    }

    #[cfg(test)]
    pub(super) fn term(&self) -> u64 {
        self.state.state().vote.map_or(0, |vote| vote.leader_id.term)
    }

    fn log(&mut self) -> Result<&mut Log> {
        self.log.as_mut().ok_or(Error::Closed { what: "the metadata log" })
    }

    fn read_last(&self) -> Result<Option<LogId>> {
        let end = index(self.reader.log_end_offset());
        let last = read_entries(&self.reader, end.saturating_sub(1)..end)?.pop();
        Ok(last.map(|entry| entry.log_id).or(self.state.state().purged))
    }

    /// Appends entries and makes them durable.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<()> {
        let now = self.env.clock.now();
        let fsync = self.fsync;
        #[cfg(feature = "sim")]
        let fsync = fsync && !is_planted(Mutation::ForgetsMetadata);
        let mut at = 0;
        // Entries of the same term are appended together; a leader's are all of its own term.
        while let Some(first) = entries.get(at) {
            let term = first.log_id.leader_id.term;
            let rest = entries.get(at..).unwrap_or_default();
            let same: Vec<&Entry> =
                rest.iter().take_while(|entry| entry.log_id.leader_id.term == term).collect();
            let log = self.log()?;
            if log.log_end_offset() != offset(first.log_id.index) {
                let (end, index) = (log.log_end_offset(), first.log_id.index);
                let text =
                    format!("entry {index} does not follow the end {end} of the metadata log");
                return Err(Error::invalid(text));
            }
            let mut bytes = BytesMut::new();
            for entry in &same {
                let mut batch = BatchBuilder::new(BatchOptions::default());
                batch.append(now, None, Some(&entry::encode(entry)?), &[])?;
                bytes.extend_from_slice(&batch.finish()?);
            }
            let info = log.append(Append::Own(bytes.freeze()), epoch(term), now)?;
            self.unsaved_bytes += u64::try_from(info.size_bytes).unwrap_or(0);
            at += same.len();
            self.last = same.last().map(|entry| entry.log_id).or(self.last);
        }
        if fsync {
            self.log()?.sync()?;
        }
        Ok(())
    }

    /// Removes the entries from `first` on.
    fn truncate(&mut self, first: u64) -> Result<()> {
        let state = self.state.state().clone();
        if offset(first) < state.recovery_point {
            self.state.save(HardState { recovery_point: offset(first), ..state })?;
        }
        self.log()?.truncate_to(offset(first))?;
        self.last = self.read_last()?;
        Ok(())
    }

    /// Removes the entries up to `last`, which are in the snapshot.
    fn purge(&mut self, last: LogId) -> Result<()> {
        let end = offset(last.index).next();
        let recovery_point = self.log()?.recovery_point();
        let state = self.state.state().clone();
        let recovery_point = recovery_point.max(state.recovery_point);
        // The state first: a log that begins before the purge position is trimmed when it is
        // opened, one that begins after it would have a hole.
        self.state.save(HardState { purged: Some(last), recovery_point, ..state })?;
        let now = self.env.clock.now();
        let config = self.config.clone();
        let log = self.log()?;
        if end > log.log_end_offset() {
            // A snapshot from the leader that is ahead of this log.
            log.restart_at(end)?;
        } else {
            // Only whole segments are removed, so the one with these entries is closed now,
            // whatever its size.
            log.update_config(LogConfig { segment_ms: -1, ..config });
            let rolled = log.maybe_roll(now);
            log.update_config(config);
            rolled?;
            log.delete_records_before(end, end)?;
            log.apply_retention(now, end)?;
        }
        self.last = self.read_last()?;
        Ok(())
    }

    pub(super) fn save_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.unsaved_bytes = 0;
        checkpoint.save(&*self.env.disk, &self.directory, self.fsync)
    }

    pub(super) fn load_checkpoint(&self) -> Result<Option<Checkpoint>> {
        Checkpoint::load(&*self.env.disk, &self.directory)
    }

    fn close(&mut self) -> Result<()> {
        let Some(log) = self.log.take() else { return Ok(()) };
        let recovery_point = log.close()?;
        let state = self.state.state().clone();
        self.state.save(HardState { recovery_point, ..state })
    }
}

fn log_config(options: &QuorumOptions) -> LogConfig {
    LogConfig {
        segment_bytes: u32::try_from(options.config.metadata_log_segment_bytes).unwrap_or(u32::MAX),
        segment_ms: i64::MAX,
        retention_ms: -1,
        retention_bytes: -1,
        // Only what is in a snapshot is removed, with `delete_records_before`.
        delete_old: false,
        file_delete_delay_ms: 0,
        // An entry is as large as the controller made it.
        max_message_bytes: u32::MAX,
        uncompressed_bytes_max: ENTRY_BYTES_MAX,
        ..LogConfig::default()
    }
}

/// The entries in a range of indexes that are in the log.
fn read_entries(reader: &LogReader, range: std::ops::Range<u64>) -> Result<Vec<Entry>> {
    let upper = offset(range.end).min(reader.log_end_offset());
    let mut next = offset(range.start).max(reader.log_start_offset());
    let mut entries = Vec::new();
    while next < upper {
        let request =
            ReadRequest { offset: next, max_bytes: READ_BYTES, upper, at_least_one: true };
        let read = reader.read(request)?;
        if read.next_offset <= next {
            break;
        }
        decode_batches(read.records, next..upper, &mut entries)?;
        next = read.next_offset;
    }
    Ok(entries)
}

fn decode_batches(
    records: Bytes,
    range: std::ops::Range<Offset>,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    for batch in Batches::new(records) {
        let batch = batch?;
        let records = batch.records(ENTRY_BYTES_MAX)?;
        let term = u64::try_from(records.header().leader_epoch.0).unwrap_or(0);
        for record in &records {
            let record = record?;
            if range.contains(&record.offset) {
                let value = record.value.unwrap_or_default();
                entries.push(entry::decode(index(record.offset), term, value)?);
            }
        }
    }
    Ok(())
}

/// The store, as openraft uses it. Clones share the files.
#[derive(Clone, Debug)]
pub(super) struct PartitionStore {
    store: Arc<Mutex<Store>>,
    /// Set at shutdown: a full disk is then no longer waited out.
    stopping: Arc<AtomicBool>,
    threads: Threads,
}

impl PartitionStore {
    pub(super) fn new(store: Store, threads: &Threads) -> Self {
        let (store, stopping) = (Arc::new(Mutex::new(store)), Arc::default());
        Self { store, stopping, threads: threads.clone() }
    }

    /// Runs a call on the blocking pool.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.store.clone();
        let task = self.threads.spawn_blocking(move || {
            call(&mut store.lock().unwrap_or_else(PoisonError::into_inner))
        });
        task.await.map_err(super::stopped)?
    }

    fn reader(&self) -> LogReader {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).reader.clone()
    }

    /// How many bytes a snapshot would free.
    pub(super) fn unsaved_bytes(&self) -> u64 {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).unsaved_bytes
    }

    /// Whether the disk has room for this many more bytes.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.env.disk.free_bytes(&store.directory).is_ok_and(|free| free >= bytes)
    }

    /// Where the log is.
    pub(super) fn directory(&self) -> PathBuf {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.directory.clone()
    }

    pub(super) fn stop_waiting(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.run(Store::close).await
    }

    /// Appends; waits while the disk is full (STORE-2).
    async fn append_when_there_is_room(&self, entries: Vec<Entry>) -> Result<()> {
        let entries = Arc::new(entries);
        loop {
            let batch = entries.clone();
            match self.run(move |store| store.append(&batch)).await {
                Err(Error::Io { source, path, .. })
                    if source.kind() == io::ErrorKind::StorageFull
                        && !self.stopping.load(Ordering::Acquire) =>
                {
                    tracing::warn!(path = %path.display(), "disk full: the metadata log waits");
                    tokio::time::sleep(FULL_DISK_PAUSE).await;
                }
                result => return result,
            }
        }
    }
}

/// Converts an error to openraft's type.
pub(super) fn any(error: &Error) -> AnyError {
    AnyError::new(error)
}

/// Reads entries while the log is written to.
#[derive(Clone, Debug)]
pub(super) struct EntryReader(LogReader);

impl RaftLogReader<TypeConfig> for EntryReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        Ok(read_entries(&self.0, start..end)
            .map_err(|error| StorageIOError::read_logs(any(&error)))?)
    }
}

impl RaftLogReader<TypeConfig> for PartitionStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        EntryReader(self.reader()).try_get_log_entries(range).await
    }
}

impl RaftLogStorage<TypeConfig> for PartitionStore {
    type LogReader = EntryReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(LogState { last_purged_log_id: store.state.state().purged, last_log_id: store.last })
    }

    async fn get_log_reader(&mut self) -> EntryReader {
        EntryReader(self.reader())
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let saved = self.run(move |store| store.state.save_vote(vote)).await;
        Ok(saved.map_err(|error| StorageIOError::write_vote(any(&error)))?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.store.lock().unwrap_or_else(PoisonError::into_inner).state.state().vote)
    }

    /// Only kept in memory: it is written to disk with the next vote or purge. It is a lower bound;
    /// if it is lost, the leader's next commit restores it.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).state.note_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.store.lock().unwrap_or_else(PoisonError::into_inner).state.state().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let appended = self.append_when_there_is_room(entries).await;
        match appended {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(io::Error::other(error.chain())));
                Err(StorageIOError::write_logs(any(&error)).into())
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let truncated = self.run(move |store| store.truncate(log_id.index)).await;
        Ok(truncated.map_err(|error| StorageIOError::write_logs(any(&error)))?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let purged = self.run(move |store| store.purge(log_id)).await;
        Ok(purged.map_err(|error| StorageIOError::write_logs(any(&error)))?)
    }
}
