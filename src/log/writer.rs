//! The one writer of a log.
//!
//! [`Log`] is used by one thread at a time (its methods take `&mut self`); readers go through
//! [`LogReader`] and never wait for it. Appending is: check, assign offsets, one vectored write,
//! update the indexes, publish. Nothing is published before its bytes are written, so a failed
//! write (a full disk) leaves the log as it was.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::active::{Active, create_segment};
use super::append::{Append, Prepared, Proof, no_batch, prepare, recompresses};
use super::committed::Mark;
use super::config::LogConfig;
use super::index::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use super::layout;
use super::producers::{Check, OwnBatch, ProducerBatch, Verified};
use super::reader::{HighWatermark, LogReader, Verifier};
use super::segment::Home;
use super::shared::{Shared, View};
use super::snapshot;
use super::sync::SyncHandle;
use crate::env::{Env, File, OpenMode};
use crate::error::{Error, ErrorCode, Result};
use crate::record::{BatchHeader, TimestampType};
use crate::types::{LeaderEpoch, Offset, TimestampMs, TopicId, TopicPartition};

/// Index entries are written out once this many have accumulated (about 1 MiB of batches).
const INDEX_PENDING_MAX: usize = 256;

/// With more sealed files than this waiting for a sync, rolling syncs them itself.
const DIRTY_FILES_MAX: usize = 64;

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    /// The offset of the first record.
    pub base_offset: Offset,
    /// The offset of the last record.
    pub last_offset: Offset,
    /// The number of records.
    pub record_count: i64,
    /// The largest timestamp.
    pub max_timestamp: TimestampMs,
    /// The broker's time when the topic has `message.timestamp.type=LogAppendTime`, otherwise -1.
    pub log_append_time: TimestampMs,
    /// The log start offset.
    pub log_start_offset: Offset,
    /// The bytes written.
    pub size_bytes: usize,
    /// Whether nothing was written because the batch is one of the producer's last five: the offsets
    /// are those of the original append.
    pub duplicate: bool,
    /// Whether a new segment was begun: a sync should follow soon, even under `durability=os`.
    pub rolled: bool,
}

/// One partition's log, to be written by one thread.
#[derive(Debug)]
pub struct Log {
    pub(super) env: Env,
    pub(super) home: Home,
    pub(super) topic_id: TopicId,
    pub(super) config: LogConfig,
    pub(super) shared: Arc<Shared>,
    pub(super) active: Active,
    /// Where the log ended when it was opened after a clean shutdown; none after a recovery.
    pub(super) closed_at: Option<Offset>,
    /// Renamed files, and when (monotonic) they are to be removed.
    pub(super) doomed: Vec<(std::path::PathBuf, Duration)>,
}

impl Log {
    /// The directory of the partition.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.home.directory
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.shared.partition
    }

    /// The topic's id.
    #[must_use]
    pub const fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The current settings.
    #[must_use]
    pub const fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings; they apply from the next append on.
    pub fn update_config(&mut self, config: LogConfig) {
        self.active.segment.raise_limit(u64::from(config.segment_bytes));
        if config.compacted {
            self.home.gaps.store(true, Ordering::Release);
        }
        let leaves_tier = self.config.local_retention.is_some() && config.local_retention.is_none();
        self.config = config;
        if leaves_tier {
            // What is in the tier goes, as in Kafka: the log is what is here (`LOG-9`).
            self.shared.forget_tiered();
            self.raise_log_start(self.shared.local_start());
        }
    }

    /// A reader, for any thread.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    /// The high watermark, to be moved.
    #[must_use]
    pub fn high_watermark(&self) -> HighWatermark {
        HighWatermark { shared: Arc::clone(&self.shared) }
    }

    /// What begins the verification of transactions.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier { shared: Arc::clone(&self.shared) }
    }

    /// The first offset that may be read.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.shared.log_start()
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.shared.log_end()
    }

    /// Appends a producer's batch. See [`Log::append`].
    ///
    /// # Errors
    ///
    /// As [`Append::produced`] and [`Log::append`].
    pub fn append_as_leader(
        &mut self,
        records: &Bytes,
        leader_epoch: LeaderEpoch,
        now: TimestampMs,
    ) -> Result<AppendInfo> {
        self.append(Append::produced(records)?, leader_epoch, now)
    }

    /// Whether an append takes only a write: no new segment is due, and nothing is recompressed.
    #[must_use]
    pub fn appends_by_a_write(&self, append: &Append, now: TimestampMs) -> bool {
        let header = match append {
            Append::Produced { batch, .. } => Ok(*batch.header()),
            Append::Marker { batch, .. } => BatchHeader::parse(batch),
            Append::Own { .. } => return false,
        };
        let Ok(header) = header else { return false };
        let last = Offset(self.log_end_offset().0 + i64::from(header.last_offset_delta.max(0)));
        !recompresses(&header, &self.config)
            && !self.should_roll(header.size_bytes as u64, last, header.max_timestamp, now)
    }

    /// Appends as a leader: checks what whoever wrote it must keep to, as Kafka does, assigns offsets,
    /// writes it.
    ///
    /// # Errors
    ///
    /// `CORRUPT_MESSAGE`, `INVALID_RECORD`, `MESSAGE_TOO_LARGE`, `RECORD_LIST_TOO_LARGE`,
    /// `INVALID_TIMESTAMP`, `OUT_OF_ORDER_SEQUENCE_NUMBER`, `INVALID_PRODUCER_EPOCH`, `INVALID_TXN_STATE`,
    /// `TRANSACTION_COORDINATOR_FENCED`;
    /// [`Error::InvalidArgument`] when the epoch is older than the log's; [`Error::Io`] when
    /// the disk is full: nothing is appended then, and a later call may succeed; [`Error::Offline`].
    pub fn append(
        &mut self,
        append: Append,
        leader_epoch: LeaderEpoch,
        now: TimestampMs,
    ) -> Result<AppendInfo> {
        self.shared.health.check()?;
        self.check_epoch(leader_epoch, self.shared.epochs.load().latest())?;
        let proof = append.proof();
        let mut prepared = prepare(append, &self.config, now)?;
        if let Check::Duplicate(batch) = self.check_producers(&prepared, proof)? {
            return Ok(self.duplicate(&batch));
        }
        let size: usize = prepared.iter().map(|batch| batch.header.size_bytes).sum();
        if size > self.config.segment_bytes as usize {
            let max = self.config.segment_bytes;
            let detail = format!("{size} bytes of batches are larger than segment.bytes ({max})");
            return Err(Error::kafka(ErrorCode::RecordListTooLarge, detail));
        }
        let mut next = self.log_end_offset();
        for batch in &mut prepared {
            batch.place(next, leader_epoch)?;
            next = batch.header.next_offset();
        }
        let mut info = self.write(&prepared, now)?;
        if self.config.message_timestamp_type == TimestampType::LogAppendTime {
            info.log_append_time = now;
        }
        Ok(info)
    }

    /// Checks what producers and coordinators may append, by what is known of the producers now.
    fn check_producers(&self, prepared: &[Prepared], proof: Proof) -> Result<Check> {
        if !prepared.iter().any(|batch| batch.header.has_producer_id()) {
            return Ok(Check::Append);
        }
        let producers = self.shared.producers();
        let is_in_transaction = prepared.iter().any(|batch| batch.header.is_transactional());
        let verifications = is_in_transaction.then(|| self.shared.verifications());
        let verified = Verified {
            verifications: verifications.as_deref(),
            is_required: self.config.verifies_transactions,
        };
        match (proof, prepared) {
            (Proof::Produced(guard), [only]) => producers.check(&only.header, guard, verified),
            _ => {
                let (guard, transaction_version) = proof.of_own();
                for batch in prepared {
                    let (header, marker) = (&batch.header, batch.marker());
                    let own = OwnBatch { header, marker, transaction_version, guard };
                    producers.check_own(&own, verified)?;
                }
                Ok(Check::Append)
            }
        }
    }

    fn duplicate(&self, batch: &ProducerBatch) -> AppendInfo {
        AppendInfo {
            base_offset: batch.first_offset(),
            last_offset: batch.last_offset,
            record_count: i64::from(batch.offset_delta) + 1,
            max_timestamp: batch.timestamp,
            log_append_time: match self.config.message_timestamp_type {
                TimestampType::CreateTime => TimestampMs::NONE,
                TimestampType::LogAppendTime => batch.timestamp,
            },
            log_start_offset: self.log_start_offset(),
            size_bytes: 0,
            duplicate: true,
            rolled: false,
        }
    }

    /// Writes placed batches, in one call, and publishes them.
    pub(super) fn write(&mut self, prepared: &[Prepared], now: TimestampMs) -> Result<AppendInfo> {
        let size: usize = prepared.iter().map(|batch| batch.header.size_bytes).sum();
        let (Some(first), Some(last)) = (prepared.first(), prepared.last()) else {
            return Err(no_batch());
        };
        let (base, end) = (first.header.base_offset, self.log_end_offset());
        assert!(base >= end, "LOG-7: {} ends at {end}, not {base}", self.shared.partition);
        let max_timestamp = prepared.iter().map(|batch| batch.header.max_timestamp).max();
        let max_timestamp = max_timestamp.unwrap_or(TimestampMs::NONE);
        let rolled = self.should_roll(size as u64, last.header.last_offset(), max_timestamp, now);
        if rolled {
            // Where batches that are copied leave a gap, it is within the new segment: recovery takes one between two
            // for what a power cut took.
            let fits = i32::try_from(last.header.last_offset().0 - end.0).is_ok();
            self.roll_at(if fits { end } else { base }, now)?;
        }
        self.clean_tail()?;
        let start = self.active.segment.size();
        if size > self.config.segment_bytes as usize {
            self.active.segment.raise_limit(start + size as u64);
        }
        if let Err(error) = self.write_bytes(prepared, start) {
            self.active.tail_dirty = true;
            if let Err(error) = self.clean_tail() {
                tracing::warn!(
                    error = error.chain(),
                    "could not cut a failed append, will try again later"
                );
            }
            return Err(error);
        }
        self.note(prepared, start, now);
        self.active.segment.appended(prepared.iter().scan(start, |position, batch| {
            *position += batch.header.size_bytes as u64;
            Some(Mark { next_offset: batch.header.next_offset(), position: *position })
        }));
        let end = last.header.next_offset();
        self.active.segment.publish(start + size as u64, end, max_timestamp);
        self.shared.set_log_end(end);
        self.flush_indexes_when_due();
        Ok(AppendInfo {
            base_offset: first.header.base_offset,
            last_offset: last.header.last_offset(),
            record_count: prepared.iter().map(|batch| i64::from(batch.header.record_count)).sum(),
            max_timestamp,
            log_append_time: TimestampMs::NONE,
            log_start_offset: self.log_start_offset(),
            size_bytes: size,
            duplicate: false,
            rolled,
        })
    }

    /// Writes batches at `start`, and which transactions they abort.
    fn write_bytes(&mut self, prepared: &[Prepared], start: u64) -> Result<()> {
        let parts: Vec<&[u8]> = prepared.iter().flat_map(Prepared::parts).collect();
        let written = self.active.file.write_all_at(&parts, start);
        written.map_err(|error| Error::io("write", self.active.segment.path(), error))?;
        let aborts = |batch: &Prepared| batch.marker().is_some_and(|marker| !marker.committed);
        if !prepared.iter().any(aborts) {
            return Ok(());
        }
        let batches = prepared.iter().map(|batch| (&batch.header, batch.marker()));
        let aborted = self.shared.producers().aborted_by(batches);
        self.write_aborted(&aborted)
    }

    /// Updates the state that derives from batches written at `position`.
    fn note(&mut self, prepared: &[Prepared], mut position: u64, now: TimestampMs) {
        for batch in prepared {
            let header = &batch.header;
            self.active.index(header, position, self.config.index_interval_bytes);
            position += header.size_bytes as u64;
            self.note_epoch(header);
            if header.has_producer_id() {
                let marker = batch.marker();
                self.shared.change_producers(|producers| producers.apply(header, marker, now));
                if header.is_transactional() {
                    let (id, epoch) = (header.producer_id, header.producer_epoch);
                    self.shared.verifications().appended(id, epoch, header.is_control());
                }
            }
        }
    }

    /// Cuts what a failed write left beyond the published end. No reader has seen those bytes.
    fn clean_tail(&mut self) -> Result<()> {
        if self.active.tail_dirty {
            let size = self.active.segment.size();
            let cut = self.active.file.set_len(size);
            cut.map_err(|error| Error::io("write", self.active.segment.path(), error))?;
            self.clean_transaction_index()?;
            self.active.tail_dirty = false;
        }
        Ok(())
    }

    /// Kafka's `LogSegment.shouldRoll`.
    fn should_roll(&self, size: u64, last: Offset, newest: TimestampMs, now: TimestampMs) -> bool {
        let segment = &self.active.segment;
        if segment.size() + size > u64::from(self.config.segment_bytes) {
            return segment.size() > 0;
        }
        let relative = i32::try_from(last.0 - segment.base_offset.0);
        segment.size() > 0
            && (relative.is_err()
                || self.is_old(newest, now)
                || segment.offset_index().len()
                    >= self.config.index_entries_max(OFFSET_ENTRY_BYTES)
                || segment.time_index().len() + 1
                    >= self.config.index_entries_max(TIME_ENTRY_BYTES))
    }

    /// Whether `segment.ms` has passed: by the records' timestamps if they have any.
    pub(super) fn is_old(&self, newest: TimestampMs, now: TimestampMs) -> bool {
        let waited = match self.active.first_timestamp {
            Some(first) => newest.0.saturating_sub(first.0),
            None => now.0.saturating_sub(self.active.created.0),
        };
        waited > self.config.segment_ms.saturating_sub(self.active.jitter_ms)
    }

    /// Begins a new segment when the active one has records and is older than `segment.ms`. Returns whether
    /// it did.
    pub fn maybe_roll(&mut self, now: TimestampMs) -> Result<bool> {
        self.shared.health.check()?;
        let due = self.active.segment.size() > 0
            && now.0.saturating_sub(self.active.created.0)
                > self.config.segment_ms.saturating_sub(self.active.jitter_ms);
        if due {
            self.roll_at(self.log_end_offset(), now)?;
        }
        Ok(due)
    }

    /// Seals the active segment and begins the next one at `base_offset`.
    pub(super) fn roll_at(&mut self, base_offset: Offset, now: TimestampMs) -> Result<()> {
        self.clean_tail()?;
        if self.shared.dirty().files.len() > DIRTY_FILES_MAX {
            self.sync()?;
        }
        // A segment's name is durable before the next one is created; otherwise a power cut could
        // keep the later and lose the earlier, so that the log would not be a prefix.
        self.sync_dir()?;
        self.active.note_time();
        self.flush_indexes()?;
        self.write_snapshot(base_offset)?;
        let mut next =
            create_segment(&self.home, &self.shared, &self.config, base_offset, &self.env)?;
        next.created = now;
        self.indexes_dirty();
        self.shared.dirty().file(Arc::clone(&self.active.file));
        let sealed = Arc::new(self.active.segment.seal());
        let mut segments = self.shared.view.load().segments.clone();
        segments.pop();
        // A segment without batches (all of them were truncated) is replaced by the next one.
        if sealed.size() > 0 {
            segments.push(sealed);
        }
        segments.push(Arc::clone(&next.segment));
        self.active = next;
        self.shared.view.store(Arc::new(View { segments }));
        Ok(())
    }

    /// Writes the producers as of `offset`, which is the log end offset.
    pub(super) fn write_snapshot(&self, offset: Offset) -> Result<()> {
        let bytes = snapshot::encode(&self.shared.producers());
        let path = layout::file(&self.home.directory, offset, layout::SNAPSHOT);
        let write = || -> std::io::Result<()> {
            let file = self.home.disk.open(&path, OpenMode::CreateEmpty)?;
            file.write_all_at(&[&bytes], 0)?;
            self.shared.dirty().file(file);
            Ok(())
        };
        write().map_err(|error| Error::io("write", &path, error))
    }

    fn flush_indexes_when_due(&mut self) {
        let pending = self.active.segment.offset_index().len() - self.active.offset_entries_written;
        // Recovery rebuilds a lagging index file: not worth failing an append that has been
        // written.
        if pending >= INDEX_PENDING_MAX
            && let Err(error) = self.flush_indexes()
        {
            tracing::warn!(error = error.chain(), "could not write out an index");
        }
    }

    /// Writes the entries that are only in memory to the index files of the active segment.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; another call may succeed.
    pub fn flush_indexes(&mut self) -> Result<()> {
        let segment = Arc::clone(&self.active.segment);
        let (offsets, times) = (segment.offset_index(), segment.time_index());
        let entries = offsets.encode(self.active.offset_entries_written);
        let at = self.active.offset_entries_written as u64 * u64::from(OFFSET_ENTRY_BYTES);
        self.write_index(layout::OFFSET_INDEX, &entries, at)?;
        self.active.offset_entries_written = offsets.len();
        let entries = times.encode(self.active.time_entries_written);
        let at = self.active.time_entries_written as u64 * u64::from(TIME_ENTRY_BYTES);
        self.write_index(layout::TIME_INDEX, &entries, at)?;
        self.active.time_entries_written = times.len();
        Ok(())
    }

    fn write_index(&self, extension: &str, entries: &[u8], position: u64) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let path = layout::file(&self.home.directory, self.active.segment.base_offset, extension);
        let write = || -> std::io::Result<()> {
            let file = self.home.disk.open(&path, OpenMode::Create)?;
            file.write_all_at(&[entries], position)
        };
        write().map_err(|error| Error::io("write", &path, error))
    }

    /// Includes the indexes of the active segment in the next sync. Only those of a sealed segment are
    /// trusted after a crash. An index that cannot be opened now will be found missing then.
    fn indexes_dirty(&self) {
        for extension in [layout::OFFSET_INDEX, layout::TIME_INDEX] {
            let base = self.active.segment.base_offset;
            let path = layout::file(&self.home.directory, base, extension);
            match self.home.disk.open(&path, OpenMode::ReadWrite) {
                Ok(file) => self.shared.dirty().file(file),
                Err(error) => tracing::warn!(path = %path.display(), %error, "index not synced"),
            }
        }
    }

    /// What must be synced so that everything appended so far is durable; run it on any thread.
    #[must_use]
    pub fn sync_handle(&self) -> SyncHandle {
        let dirty = self.shared.dirty();
        let mut files: Vec<Arc<dyn File>> =
            dirty.files.iter().map(|(_, file)| Arc::clone(file)).collect();
        if !files.iter().any(|file| Arc::ptr_eq(file, &self.active.file)) {
            files.push(Arc::clone(&self.active.file));
        }
        SyncHandle {
            generation: self.shared.synced().generation,
            end: self.log_end_offset(),
            mark: dirty.mark,
            files,
            directory_dirty: dirty.directory.is_some(),
            epochs: dirty.epochs.map(|_| self.shared.epochs.load().encode()),
            shared: Arc::clone(&self.shared),
            disk: Arc::clone(&self.home.disk),
            directory: Arc::clone(&self.home.directory),
        }
    }

    /// Makes everything appended so far durable. Blocks.
    ///
    /// # Errors
    ///
    /// As [`SyncHandle::run`].
    pub fn sync(&self) -> Result<Offset> {
        self.sync_handle().run()
    }

    /// Makes the names of the files durable, when any changed since the last sync.
    pub(super) fn sync_dir(&self) -> Result<()> {
        let changed = self.shared.dirty().directory;
        let Some(mark) = changed else { return Ok(()) };
        let directory = &*self.home.directory;
        if let Err(error) = self.home.disk.sync_dir(directory) {
            let reason = format!("could not sync {}: {error}", directory.display());
            self.shared.health.take_offline(reason);
        }
        self.shared.health.check()?;
        let mut dirty = self.shared.dirty();
        dirty.directory = dirty.directory.filter(|&changed| changed > mark);
        Ok(())
    }

    /// Every offset below it survives a power cut.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        self.shared.synced().recovery_point
    }

    /// Forgets producers that were silent for `producer.id.expiration.ms`.
    pub fn expire_producers(&mut self, now: TimestampMs) {
        let expiration_ms = self.config.producer_id_expiration_ms;
        self.shared.producers().expire(now, expiration_ms);
        self.shared.verifications().expire(now, expiration_ms);
    }

    /// Writes out indexes and producers and syncs everything, so that the next
    /// [`Log::open`] with `clean_shutdown` reads nothing but the indexes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Offline`]; the log is then recovered when it is next opened.
    pub fn close(mut self) -> Result<Offset> {
        self.shared.health.check()?;
        self.clean_tail()?;
        if self.is_as_it_was_closed() {
            self.remove_doomed(None);
            return Ok(self.log_end_offset());
        }
        self.active.note_time();
        self.flush_indexes()?;
        self.indexes_dirty();
        self.write_snapshot(self.log_end_offset())?;
        self.remove_doomed(None);
        self.sync()
    }
}

impl Log {
    /// Whether everything on disk is as the last clean shutdown synced it, so that this one has
    /// nothing to do.
    fn is_as_it_was_closed(&self) -> bool {
        let end = self.log_end_offset();
        let snapshot = layout::file(&self.home.directory, end, layout::SNAPSHOT);
        self.closed_at == Some(end)
            && self.shared.dirty().mark == 0
            && self.shared.synced().generation == 0
            && self.home.disk.exists(&snapshot).unwrap_or(false)
    }
}
