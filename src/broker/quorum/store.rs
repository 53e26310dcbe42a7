//! The quorum's files on disk, over [`crate::log::Log`]. Synchronous: [`super::queues`] runs it beside the tasks.
//!
//! - STORE-1: what [`Store::run`] was given is on disk when it returns.
//! - STORE-2: a full disk is waited out: what was not written is still to be, and the quorum continues as soon as there is
//!   room. Every other failure stops the quorum.
//! - STORE-3: a snapshot takes the place of the log in two steps: it gets its name, then the log starts over behind it.
//!   Whoever opens the files in between finds a snapshot that reaches beyond the log, or whose epoch the log
//!   contradicts, and takes the second step.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::entry::Entry;
use super::frames::METADATA_TOPIC_ID;
use super::hard_state::{HardState, StateFile};
use super::snapshot::{self, Checkpoint};
use super::{METADATA_DIRECTORY, METADATA_TOPIC, QuorumOptions, batches};
use crate::env::Env;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{HighWatermark, Log, LogConfig, LogReader, OpenOptions, ReadRequest};
use crate::machine::quorum::{OffsetAndEpoch, Payload, Stored, VoteState};
use crate::types::{LeaderEpoch, Offset, TopicPartition};

/// How much is read from the log, and written to it, at a time.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// What an entry takes besides its value, more or less.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// The size of an entry, as far as it matters for how many are taken at once.
pub(super) fn size_of(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Records(value) => ENTRY_OVERHEAD_BYTES + value.len(),
        Payload::LeaderChange { .. } | Payload::Voters(_) => ENTRY_OVERHEAD_BYTES,
    }
}

/// What others than the log's writer know of the log.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Bytes appended since the last snapshot.
    pub(super) unsaved_bytes: AtomicU64,
    /// Everything before is committed.
    committed: AtomicI64,
}

impl Facts {
    pub(super) fn commit(&self, offset: Offset) {
        self.committed.store(offset.0, Ordering::Release);
    }
}

/// Something to be done to the log.
#[derive(Debug)]
pub(super) enum Job {
    /// Add entries.
    Append(Vec<Entry>),
    /// Cut it, so that it ends there.
    Truncate(Offset),
    /// Let it start there.
    Prune(OffsetAndEpoch),
    /// Add bytes to the snapshot that is being fetched.
    WritePart {
        /// Where they belong.
        position: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Put the fetched snapshot in the place of the log.
    Install(OffsetAndEpoch),
}

/// The file with the vote, which is written beside the log.
#[derive(Clone, Debug)]
pub(super) struct Votes(Arc<Mutex<StateFile>>);

impl Votes {
    fn file(&self) -> MutexGuard<'_, StateFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves a vote.
    pub(super) fn save(&self, vote: VoteState) -> Result<()> {
        self.update(|state| state.vote = vote)
    }

    fn state(&self) -> HardState {
        self.file().state()
    }

    fn update(&self, change: impl FnOnce(&mut HardState)) -> Result<()> {
        let mut file = self.file();
        let mut state = file.state();
        change(&mut state);
        file.save(state)
    }
}

/// The files of the log.
#[derive(Debug)]
pub(super) struct Store {
    env: Env,
    directory: PathBuf,
    fsync: bool,
    /// `None` once it is closed.
    log: Option<Log>,
    high_watermark: HighWatermark,
    votes: Votes,
    facts: Arc<Facts>,
    /// Something was appended that is not synced.
    is_dirty: bool,
    config: LogConfig,
}

/// What is found in the files.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) votes: Votes,
    pub(super) reader: LogReader,
    pub(super) facts: Arc<Facts>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) stored: Stored,
}

/// What the entries of a log say, apart from their records.
#[derive(Debug, Default)]
struct Found {
    epochs: Vec<(LeaderEpoch, Offset)>,
    voters: BTreeMap<Offset, crate::machine::quorum::VoterSet>,
}

impl Found {
    fn note(&mut self, entry: &Entry) {
        if self.epochs.last().is_none_or(|(epoch, _)| *epoch < entry.epoch) {
            self.epochs.push((entry.epoch, entry.offset));
        }
        if let Payload::Voters(set) = &entry.payload {
            self.voters.insert(entry.offset, set.clone());
        }
    }

    /// The epoch before an offset of a log that starts at `start`.
    fn epoch_before(&self, start: OffsetAndEpoch, offset: Offset) -> LeaderEpoch {
        let before = self.epochs.iter().rev().find(|(_, first)| *first < offset);
        before.map_or(start.epoch, |(epoch, _)| *epoch)
    }
}

impl Store {
    /// Opens the files, and reads what the quorum must know of them.
    pub(super) fn open(options: &QuorumOptions) -> Result<Opened> {
        let env = options.env.clone();
        let directory = directory_of(&options.log_dir);
        let disk = &*env.disk;
        disk.create_dir_all(&directory).map_err(|error| Error::io("create", &directory, error))?;
        let file = StateFile::open(disk, &directory, options.fsync)?;
        let hard = file.state();
        let votes = Votes(Arc::new(Mutex::new(file)));
        let checkpoint = Checkpoint::load(disk, &directory)?;
        let config = log_config(options);
        let open = OpenOptions {
            partition: TopicPartition::new(METADATA_TOPIC, 0),
            topic_id: METADATA_TOPIC_ID,
            config: config.clone(),
            health: options.health.clone(),
            recovery_point: hard.recovery_point,
            log_start_offset: hard.start.offset,
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
        let facts = Arc::new(Facts::default());
        facts.unsaved_bytes.store(reader.size_bytes(), Ordering::Relaxed);
        let mut store = Self {
            directory,
            fsync: options.fsync,
            high_watermark: log.high_watermark(),
            log: Some(log),
            votes: votes.clone(),
            facts: Arc::clone(&facts),
            is_dirty: reader.log_end_offset() > hard.recovery_point,
            config,
            env,
        };
        let stored = store.recover(&reader, hard, checkpoint.as_ref());
        let stored = stored.map_err(|error| error.in_file(&store.directory))?;
        Ok(Opened { store, votes, reader, facts, checkpoint, stored })
    }

    /// Takes the second step of a snapshot's installation, if only the first was taken, and makes durable what
    /// was found, because it counts.
    fn recover(
        &mut self,
        reader: &LogReader,
        hard: HardState,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Stored> {
        let snapshot = checkpoint.map(Checkpoint::snapshot);
        let id = checkpoint.map(|checkpoint| checkpoint.id);
        let mut start = hard.start;
        let first = reader.log_start_offset();
        if first != start.offset {
            // The log starts over behind a snapshot, and the state does not say so yet.
            let id = id.filter(|id| id.offset == first);
            start = id.ok_or_else(|| {
                let text = format!("the log begins at {first} instead of {}", start.offset);
                Error::corrupt(&self.directory, 0, text)
            })?;
        }
        if start.offset > id.map_or(Offset::ZERO, |id| id.offset) {
            let text = "the log begins after the end of the snapshot";
            return Err(Error::corrupt(&self.directory, 0, text));
        }
        let mut found = Found::default();
        let mut end = reader.log_end_offset();
        let mut next = start.offset;
        while next < end {
            for entry in read_entries(reader, next, end, CHUNK_BYTES)? {
                found.note(&entry);
                next = entry.offset.next();
            }
        }
        let replaced =
            id.filter(|id| id.offset > end || found.epoch_before(start, id.offset) != id.epoch);
        if let Some(id) = replaced {
            tracing::info!(offset = %id.offset, "a snapshot takes the place of the metadata log");
            self.replace_log(id)?;
            (start, end, found) = (id, id.offset, Found::default());
        }
        self.sync()?;
        let Found { epochs, voters } = found;
        Ok(Stored { vote: hard.vote, snapshot, start, end, epochs, voters })
    }

    fn log(&mut self) -> Result<&mut Log> {
        self.log.as_mut().ok_or(Error::Closed { what: "the metadata log" })
    }

    /// Does what is to be done, in order, and makes it durable; what is done is taken from the queue. Snapshots that
    /// took the place of the log are added to `installed`.
    ///
    /// # Errors
    ///
    /// The disk is full: the rest may be tried again. Anything else: the files are in an unknown state.
    pub(super) fn run(
        &mut self,
        jobs: &mut VecDeque<Job>,
        installed: &mut Vec<Checkpoint>,
    ) -> Result<()> {
        self.raise_high_watermark();
        while let Some(job) = jobs.front_mut() {
            match job {
                Job::Append(entries) => self.append(entries)?,
                Job::Truncate(end) => self.truncate(*end).map_err(final_error)?,
                Job::Prune(start) => self.prune(*start).map_err(final_error)?,
                Job::WritePart { position, bytes } => {
                    snapshot::write_part(&*self.env.disk, &self.directory, *position, bytes)?;
                }
                Job::Install(id) => installed.push(self.install(*id).map_err(final_error)?),
            }
            jobs.pop_front();
        }
        self.sync()?;
        self.raise_high_watermark();
        Ok(())
    }

    /// What is committed is never cut, so that it can be read without a copy.
    fn raise_high_watermark(&self) {
        self.high_watermark.raise(Offset(self.facts.committed.load(Ordering::Acquire)));
    }

    /// Appends; what is appended is taken from `entries`.
    fn append(&mut self, entries: &mut Vec<Entry>) -> Result<()> {
        let now = self.env.clock.now();
        while !entries.is_empty() {
            let mut bytes = 0;
            let fits = entries.iter().take_while(|entry| {
                bytes += size_of(entry);
                bytes <= CHUNK_BYTES
            });
            let count = fits.count().max(1);
            let encoded = batches::encode(entries.iter().take(count), now)?;
            // Epochs only go up.
            let latest = entries.get(count - 1).map_or(LeaderEpoch::UNKNOWN, |last| last.epoch);
            self.log()?.append_as_follower(&encoded, latest, now)?;
            self.is_dirty = true;
            let size = u64::try_from(encoded.len()).unwrap_or(u64::MAX);
            self.facts.unsaved_bytes.fetch_add(size, Ordering::Relaxed);
            drop(entries.drain(..count));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let fsync = self.fsync;
        #[cfg(feature = "sim")]
        let fsync = fsync && !is_planted(Mutation::ForgetsMetadata);
        if fsync && self.is_dirty {
            self.log()?.sync()?;
        }
        self.is_dirty = false;
        Ok(())
    }

    fn truncate(&mut self, end: Offset) -> Result<()> {
        if end < self.votes.state().recovery_point {
            self.votes.update(|state| state.recovery_point = end)?;
        }
        self.log()?.truncate_to(end)?;
        Ok(())
    }

    /// Removes the entries before `start`, which are in the snapshot.
    fn prune(&mut self, start: OffsetAndEpoch) -> Result<()> {
        let recovery_point = self.log()?.recovery_point();
        // The state first: a log that begins before the start is trimmed when it is
        // opened, one that begins after it would have a hole.
        self.votes.update(|state| {
            state.start = start;
            state.recovery_point = state.recovery_point.max(recovery_point);
        })?;
        let now = self.env.clock.now();
        let (config, as_usual) = (self.config.clone(), self.config.clone());
        let log = self.log()?;
        // Only whole segments are removed, so the one with these entries is closed now,
        // whatever its size.
        log.update_config(LogConfig { segment_ms: -1, ..config });
        let rolled = log.maybe_roll(now);
        log.update_config(as_usual);
        rolled?;
        log.delete_records_before(start.offset, start.offset)?;
        log.apply_retention(now, start.offset)?;
        Ok(())
    }

    fn install(&mut self, id: OffsetAndEpoch) -> Result<Checkpoint> {
        let checkpoint = snapshot::adopt(&*self.env.disk, &self.directory, id, self.fsync)?;
        self.replace_log(id)?;
        Ok(checkpoint)
    }

    /// The log starts over behind a snapshot that is on disk.
    fn replace_log(&mut self, id: OffsetAndEpoch) -> Result<()> {
        // What is left of the log after a crash is any part of it, or nothing.
        self.votes.update(|state| state.recovery_point = Offset::ZERO)?;
        let fsync = self.fsync;
        let log = self.log()?;
        log.restart_at(id.offset)?;
        if fsync {
            log.sync()?;
        }
        self.is_dirty = false;
        self.votes.update(|state| {
            state.start = id;
            state.recovery_point = id.offset;
        })?;
        self.facts.unsaved_bytes.store(0, Ordering::Relaxed);
        snapshot::remove_older(&*self.env.disk, &self.directory, id)
    }

    /// Closes the files cleanly.
    pub(super) fn close(&mut self) -> Result<()> {
        let Some(log) = self.log.take() else { return Ok(()) };
        let recovery_point = log.close()?;
        self.votes.update(|state| state.recovery_point = recovery_point)
    }

    #[cfg(test)]
    pub(super) fn end(&mut self) -> Offset {
        self.log().unwrap().log_end_offset()
    }
}

/// An error after which it would be wrong to try again, even if the disk is only full.
fn final_error(error: Error) -> Error {
    if error.is_disk_full() {
        return error.under_code(ErrorCode::KafkaStorageError);
    }
    error
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
        uncompressed_bytes_max: batches::ENTRY_BYTES_MAX,
        ..LogConfig::default()
    }
}

/// The entries from `from` up to `end`, or the first of them; at least one.
///
/// # Errors
///
/// They are not, or no longer, in the log, or cannot be read.
pub(super) fn read_entries(
    reader: &LogReader,
    from: Offset,
    end: Offset,
    bytes_max: usize,
) -> Result<Vec<Entry>> {
    let max_bytes = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let request = ReadRequest { offset: from, max_bytes, upper: end, at_least_one: true };
    let entries = batches::decode(reader.read(request)?.records, from, end)?;
    let mut expected = from;
    for entry in &entries {
        if entry.offset != expected {
            let text = format!("entry {} follows where {expected} is due", entry.offset);
            return Err(Error::malformed("metadata log", text));
        }
        expected = expected.next();
    }
    if entries.is_empty() {
        return Err(Error::malformed("metadata log", format!("there is no entry {from}")));
    }
    Ok(entries)
}

/// The directory of the metadata log in a log directory.
pub(super) fn directory_of(log_dir: &Path) -> PathBuf {
    log_dir.join(METADATA_DIRECTORY)
}
