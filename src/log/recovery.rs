//! Opening a log: what a crash left behind becomes a log again.
//!
//! After a clean shutdown only the indexes are looked at. After a crash everything from the recovery
//! point on is scanned by checksum:
//!
//! - `REC-1`: the log is cut at the first batch above the recovery point that is not whole;
//!   everything after it, including later segments, is removed. The result is a prefix of what was
//!   appended.
//! - `REC-2`: below the recovery point every batch was synced, so damage there is not a torn tail but
//!   corruption: it is reported with file and position, and nothing is removed.
//! - `REC-3`: segments that end below the recovery point are not read, so the time to start is bounded by
//!   the unclean tail and one segment. The sync that moved the recovery point beyond the end of a segment was for its
//!   indexes, too.
//! - `REC-4`: indexes, leader epochs, producers and aborted transactions of the scanned part are rebuilt from the
//!   batches.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::active::{Active, create_segment};
use super::compaction::swap;
use super::config::LogConfig;
use super::epochs::EpochCache;
use super::health::Health;
use super::layout;
use super::properties;
use super::rebuild::{Kept, Scanned, load_indexed, newest_snapshot, scan_segment, walk_producers};
use super::scan::{Damage, check_crc};
use super::segment::{Home, Segment};
use super::shared::{Shared, View};
use super::transaction_index;
use super::writer::Log;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};
use crate::types::{Offset, TimestampMs, TopicId, TopicPartition};

/// How to open a log.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's id; compared with the one in the directory.
    pub topic_id: TopicId,
    /// The settings.
    pub config: LogConfig,
    /// The state of the log directory, from [`super::LogDirectory::health`].
    pub health: Health,
    /// The offset up to which the log was synced, from the checkpoint.
    pub recovery_point: Offset,
    /// Where the log starts, from the checkpoint; a new log starts there.
    pub log_start_offset: Offset,
    /// Whether the log directory was shut down cleanly.
    pub clean_shutdown: bool,
    /// The offset up to which the log was compacted, from [`super::LogDirectory::cleaner_offset`];
    /// none when it never was. If it was, offsets may be missing, even when it is no longer
    /// compacted.
    pub clean_until: Option<Offset>,
}

/// What opening a log found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The segments that were scanned by checksum.
    pub scanned_segments: usize,
    /// The bytes that were scanned.
    pub scanned_bytes: u64,
    /// The bytes that were cut from the tail.
    pub truncated_bytes: u64,
    /// The segments that were removed after the cut.
    pub removed_segments: usize,
    /// The sealed segments whose indexes were missing and were rebuilt.
    pub rebuilt_indexes: usize,
}

/// The files of a partition.
#[derive(Debug, Default)]
struct Inventory {
    /// Base offset → size.
    segments: BTreeMap<Offset, u64>,
    modified: BTreeMap<Offset, TimestampMs>,
    /// Base offset and extension of everything else.
    others: BTreeSet<(Offset, String)>,
}

impl Log {
    /// Creates the directory of a new partition and opens its log.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::InvalidArgument`] when the directory holds another topic.
    pub fn create(env: &Env, directory: &Path, options: OpenOptions) -> Result<Self> {
        options.health.check()?;
        env.disk
            .create_dir_all(directory)
            .map_err(|error| Error::io("create", directory, error))?;
        Ok(Self::open(env, directory, options)?.0)
    }

    /// Opens a log, and recovers it when it was not shut down cleanly.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for damage below the recovery point; [`Error::InvalidArgument`] when the
    /// directory belongs to another topic; [`Error::Io`].
    pub fn open(
        env: &Env,
        directory: &Path,
        options: OpenOptions,
    ) -> Result<(Self, RecoveryReport)> {
        options.health.check()?;
        properties::check_topic_id(&*env.disk, directory, options.topic_id, &options.partition)?;
        let home = Home {
            disk: Arc::clone(&env.disk),
            directory: Arc::from(directory),
            gaps: Arc::new(AtomicBool::new(
                options.config.compacted || options.clean_until.is_some(),
            )),
        };
        let max = options.config.uncompressed_bytes_max;
        let shared = Arc::new(Shared::new(options.partition.clone(), options.health.clone(), max));
        swap::finish_interrupted(&home)?;
        let inventory = take_inventory(&home)?;
        let mut opening = Opening { env, home, options, shared, report: RecoveryReport::default() };
        let log = opening.run(inventory)?;
        Ok((log, opening.report))
    }
}

struct Opening<'a> {
    env: &'a Env,
    home: Home,
    options: OpenOptions,
    shared: Arc<Shared>,
    report: RecoveryReport,
}

/// Lists the directory and removes what an interrupted run left behind.
fn take_inventory(home: &Home) -> Result<Inventory> {
    let directory = &*home.directory;
    let entries =
        home.disk.read_dir(directory).map_err(|error| Error::io("list", directory, error))?;
    let mut inventory = Inventory::default();
    for entry in entries {
        let leftover =
            [layout::DELETED, layout::TEMPORARY].iter().any(|suffix| entry.name.ends_with(suffix));
        if leftover && !entry.is_dir {
            remove_file(home, &directory.join(&entry.name))?;
            continue;
        }
        match layout::parse(&entry.name) {
            Some((base, layout::LOG)) => {
                inventory.segments.insert(base, entry.size_bytes);
                inventory.modified.insert(base, entry.modified);
            }
            Some((base, extension)) => {
                inventory.others.insert((base, extension.to_owned()));
            }
            None => {}
        }
    }
    Ok(inventory)
}

fn remove_file(home: &Home, path: &Path) -> Result<()> {
    home.disk.remove_file(path).map_err(|error| Error::io("remove", path, error))
}

impl Opening<'_> {
    fn run(&mut self, mut inventory: Inventory) -> Result<Log> {
        self.load_epochs()?;
        let (mut sealed, active) = self.open_segments(&mut inventory)?;
        let first = sealed.first().map(|segment| segment.base_offset);
        let log_start = self.options.log_start_offset.max(Offset::ZERO);
        let (active, log_end) = match active {
            Some(active) => {
                let end = active.segment.next_offset();
                (active, end)
            }
            None => (self.fresh(log_start)?, log_start),
        };
        let mut log = self.assemble(active);
        let local_start = log_start.max(first.unwrap_or(log.active.segment.base_offset));
        // What is missing before the first segment may be in the tier (`LOG-9`).
        let is_tiered = self.options.config.local_retention.is_some();
        let start = if is_tiered { log_start } else { local_start };
        let mut active_end = log_end;
        if log_end < start {
            // Everything in the log is below its start offset: it starts over there, as in Kafka.
            for segment in sealed.drain(..).chain([Arc::clone(&log.active.segment)]) {
                self.remove_segment(&mut inventory, segment.base_offset)?;
            }
            // Nothing is known of anybody, either.
            self.remove_snapshots(&mut inventory)?;
            log.active = self.fresh(start)?;
            active_end = start;
        }
        sealed.push(Arc::clone(&log.active.segment));
        self.shared.view.store(Arc::new(View { segments: sealed }));
        self.shared.open_at(start, local_start);
        self.shared.set_log_end(active_end);
        // Until somebody says more.
        self.shared.reset_high_watermark(local_start);
        self.finish_epochs(start, active_end);
        self.load_producers(&inventory, local_start, &mut log)?;
        *self.shared.synced() = super::shared::Synced {
            generation: 0,
            recovery_point: if self.options.clean_shutdown {
                active_end
            } else {
                self.options.recovery_point.min(active_end)
            },
        };
        log.closed_at = self.options.clean_shutdown.then_some(active_end);
        Ok(log)
    }

    fn assemble(&self, active: Active) -> Log {
        Log {
            env: self.env.clone(),
            home: self.home.clone(),
            topic_id: self.options.topic_id,
            config: self.options.config.clone(),
            shared: Arc::clone(&self.shared),
            active,
            closed_at: None,
            doomed: Vec::new(),
        }
    }

    fn fresh(&self, base_offset: Offset) -> Result<Active> {
        create_segment(&self.home, &self.shared, &self.options.config, base_offset, self.env)
    }

    /// The sealed segments and the active one; none when there is no segment.
    fn open_segments(
        &mut self,
        inventory: &mut Inventory,
    ) -> Result<(Vec<Arc<Segment>>, Option<Active>)> {
        let bases: Vec<(Offset, u64)> =
            inventory.segments.iter().map(|(&base, &size)| (base, size)).collect();
        // Nothing above was ever compacted (`DIR-2`): offsets missing there were lost in a power
        // cut.
        let compacted = self.options.clean_until.max(Some(self.options.recovery_point));
        let compacted = compacted.unwrap_or(Offset::ZERO);
        let mut sealed: Vec<Arc<Segment>> = Vec::new();
        let mut bases = bases.into_iter().peekable();
        while let Some((base, size)) = bases.next() {
            let next_base = bases.peek().map(|&(next, _)| next);
            // `REC-3`: the indexes of one that ends at the recovery point may have been written after that sync.
            let trusted =
                |end: Offset| self.options.clean_shutdown || end < self.options.recovery_point;
            if let Some(next_base) = next_base
                && trusted(next_base)
            {
                let segment = Segment::sealed(&self.home, base, next_base, size);
                self.check_indexes(inventory, &segment)?;
                sealed.push(Arc::new(segment));
                continue;
            }
            let modified = inventory.modified.get(&base).copied().unwrap_or(TimestampMs::NONE);
            let scanned = match next_base {
                None if self.options.clean_shutdown => self.load_active(base, size, modified)?,
                _ => self.scan(base, size, modified)?,
            };
            let follows = next_base.is_none_or(|next| {
                next == scanned.next_offset
                    || next > scanned.next_offset && self.home.gaps() && next <= compacted
            });
            let active = self.settle(scanned, size)?;
            if next_base.is_none() || !follows || active.segment.size() < size {
                self.check_end(&active)?;
                let behind: Vec<Offset> = bases.map(|(behind, _)| behind).collect();
                for behind in behind {
                    self.remove_segment(inventory, behind)?;
                    self.report.removed_segments += 1;
                }
                if self.report.removed_segments > 0 {
                    let directory = &*self.home.directory;
                    self.synced(self.home.disk.sync_dir(directory), directory)?;
                }
                return Ok((sealed, Some(active)));
            }
            active.note_time();
            self.write_durable_indexes(&active.segment);
            self.shared.dirty().file(Arc::clone(&active.file));
            sealed.push(Arc::new(active.segment.seal()));
        }
        Ok((sealed, None))
    }

    /// `REC-2` for a log that ends too early.
    fn check_end(&self, active: &Active) -> Result<()> {
        let (end, due) = (active.segment.next_offset(), self.options.recovery_point);
        if end < due && !self.options.clean_shutdown {
            let detail = format!("the log ends at offset {end}, but was synced up to {due}");
            let position = active.segment.size();
            return Err(active.segment.corrupt(Damage { position, detail }));
        }
        Ok(())
    }

    /// Cuts a scanned segment after its last whole batch.
    fn settle(&mut self, scanned: Scanned, size: u64) -> Result<Active> {
        if let Some(damage) = scanned.damage {
            if scanned.next_offset < self.options.recovery_point && !self.options.clean_shutdown {
                return Err(scanned.active.segment.corrupt(damage));
            }
            let path = scanned.active.segment.path();
            tracing::info!(
                path = %path.display(), position = damage.position, reason = damage.detail,
                "cutting the torn tail of the log"
            );
            self.report.truncated_bytes += size - scanned.size;
            let cut = scanned.active.file.set_len(scanned.size);
            cut.map_err(|error| Error::io("write", path, error))?;
            // Durably, before anything is appended after it; otherwise the torn tail could come
            // back.
            self.synced(scanned.active.file.sync_data(), path)?;
        }
        Ok(scanned.active)
    }

    fn synced(&self, result: std::io::Result<()>, path: &Path) -> Result<()> {
        if let Err(error) = result {
            let reason = format!("could not sync {}: {error}", path.display());
            self.options.health.take_offline(reason);
        }
        self.options.health.check()
    }

    /// Scans a segment by checksum and rebuilds its indexes in memory.
    fn scan(&mut self, base: Offset, size: u64, modified: TimestampMs) -> Result<Scanned> {
        let crc_from = self.options.recovery_point;
        #[cfg(feature = "sim")]
        let crc_from =
            if is_planted(Mutation::TrustsTornTail) { Offset(i64::MAX) } else { crc_from };
        let mut epochs = (**self.shared.epochs.load()).clone();
        let mut unverified = 0;
        let scanned = scan_segment(&self.home, &self.options.config, base, size, |scan, found| {
            if found.header.next_offset() > crc_from {
                check_crc(found, scan.bytes_of(found).unwrap_or_default())?;
            } else {
                unverified = found.end();
            }
            epochs.assign_if_newer(found.header.leader_epoch, found.header.base_offset);
            Ok(())
        })?;
        let mut active = scanned.active;
        active.created =
            if modified == TimestampMs::NONE { self.env.clock.now() } else { modified };
        active.segment.verified.set_own(unverified);
        self.report.scanned_segments += 1;
        self.report.scanned_bytes += scanned.size;
        self.shared.epochs.store(Arc::new(epochs));
        // Those of the active segment are synced when it is sealed or closed; until then they are not
        // trusted after a crash, and cost no open file.
        self.write_indexes(&active.segment);
        self.shared.dirty().directory();
        active.offset_entries_written = active.segment.offset_index().len();
        active.time_entries_written = active.segment.time_index().len();
        Ok(Scanned { active, ..scanned })
    }

    /// Opens the last segment after a clean shutdown, by its indexes.
    fn load_active(&mut self, base: Offset, size: u64, modified: TimestampMs) -> Result<Scanned> {
        let stored = Segment::sealed(&self.home, base, Offset(i64::MAX), size);
        let kept = Kept { size, end: Offset(i64::MAX) };
        let loaded = load_indexed(&self.options.config, &stored, kept)?;
        match loaded {
            Some(mut scanned) if scanned.damage.is_none() => {
                scanned.active.created = modified;
                Ok(scanned)
            }
            _ => {
                tracing::warn!(
                    path = %stored.path().display(),
                    "the indexes do not fit the segment, scanning it"
                );
                self.scan(base, size, modified)
            }
        }
    }

    /// Writes the index files of a rebuilt segment that is sealed, and has them synced.
    fn write_durable_indexes(&self, segment: &Segment) {
        for file in self.write_indexes(segment) {
            self.shared.dirty().file(file);
        }
    }

    /// Writes the index files of a rebuilt segment. A failure to write them (a full disk) costs
    /// scans, but does not keep the log from being served.
    fn write_indexes(&self, segment: &Segment) -> Vec<Arc<dyn File>> {
        let mut written = Vec::new();
        let files = [
            (layout::OFFSET_INDEX, segment.offset_index().encode(0)),
            (layout::TIME_INDEX, segment.time_index().encode(0)),
        ];
        for (extension, bytes) in files {
            let path = layout::file(&self.home.directory, segment.base_offset, extension);
            let write = || -> std::io::Result<Arc<dyn File>> {
                let file = self.home.disk.open(&path, OpenMode::CreateEmpty)?;
                file.write_all_at(&[&bytes], 0)?;
                Ok(file)
            };
            match write() {
                Ok(file) => written.push(file),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "rebuilt index not written");
                }
            }
        }
        written
    }

    /// Rebuilds the indexes of a sealed segment when a file is missing.
    fn check_indexes(&mut self, inventory: &Inventory, segment: &Segment) -> Result<()> {
        let present = [layout::OFFSET_INDEX, layout::TIME_INDEX].iter().all(|extension| {
            inventory.others.contains(&(segment.base_offset, (*extension).to_owned()))
        });
        if present {
            return Ok(());
        }
        let (base, size) = (segment.base_offset, segment.size());
        let scanned = scan_segment(&self.home, &self.options.config, base, size, |_, _| Ok(()))?;
        if let Some(damage) = scanned.damage {
            return Err(segment.corrupt(damage));
        }
        scanned.active.note_time();
        self.write_durable_indexes(&scanned.active.segment);
        self.report.rebuilt_indexes += 1;
        Ok(())
    }

    fn remove_segment(&self, inventory: &mut Inventory, base: Offset) -> Result<()> {
        inventory.segments.remove(&base);
        let others: Vec<String> = inventory
            .others
            .iter()
            .filter(|(other, _)| *other == base)
            .map(|(_, extension)| extension.clone())
            .collect();
        // The batches first: indexes without batches are not a segment.
        remove_file(&self.home, &layout::file(&self.home.directory, base, layout::LOG))?;
        for extension in others {
            remove_file(&self.home, &layout::file(&self.home.directory, base, &extension))?;
            inventory.others.remove(&(base, extension));
        }
        self.shared.dirty().directory();
        Ok(())
    }

    /// Where the first segment starts that was scanned (`REC-3`); what belongs to those before it was synced.
    fn first_scanned(&self) -> Offset {
        let view = self.shared.view.load();
        let is_scanned =
            |segment: &&Arc<Segment>| segment.next_offset() >= self.options.recovery_point;
        let scanned = view.segments.iter().find(is_scanned).or(view.segments.last());
        scanned.map_or(Offset::ZERO, |segment| segment.base_offset)
    }

    fn remove_snapshots(&self, inventory: &mut Inventory) -> Result<()> {
        let is_snapshot = |(_, extension): &(Offset, String)| extension == layout::SNAPSHOT;
        let found = std::mem::take(&mut inventory.others);
        let (snapshots, others): (BTreeSet<_>, _) = found.into_iter().partition(is_snapshot);
        inventory.others = others;
        for (offset, _) in snapshots {
            let path = layout::file(&self.home.directory, offset, layout::SNAPSHOT);
            remove_file(&self.home, &path)?;
        }
        Ok(())
    }

    fn load_epochs(&self) -> Result<()> {
        let path = self.home.directory.join(layout::LEADER_EPOCHS);
        let bytes = self.home.disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
        let Some(bytes) = bytes else { return Ok(()) };
        match std::str::from_utf8(&bytes)
            .map_err(|error| error.to_string())
            .and_then(EpochCache::decode)
        {
            Ok(cache) => self.shared.epochs.store(Arc::new(cache)),
            Err(detail) => return Err(Error::corrupt(&path, 0, detail)),
        }
        Ok(())
    }

    fn finish_epochs(&self, start: Offset, end: Offset) {
        let mut cache = (**self.shared.epochs.load()).clone();
        let cut = cache.truncate_end(end);
        if cache.truncate_start(start) || cut || !self.options.clean_shutdown {
            self.shared.dirty().epochs();
        }
        self.shared.epochs.store(Arc::new(cache));
    }

    /// The producers: the newest usable snapshot and the batches after it (`PRD-1`, `TXI-2`).
    fn load_producers(&self, inventory: &Inventory, start: Offset, log: &mut Log) -> Result<()> {
        let end = self.shared.log_end();
        let unsynced = if self.options.clean_shutdown { end } else { self.first_scanned() };
        #[cfg(feature = "sim")]
        let unsynced = if is_planted(Mutation::TrustsTransactionIndex) { end } else { unsynced };
        let snapshots =
            inventory.others.iter().filter(|(_, extension)| extension == layout::SNAPSHOT);
        let mut usable = Vec::new();
        for (offset, _) in snapshots {
            if *offset > end {
                let path = layout::file(&self.home.directory, *offset, layout::SNAPSHOT);
                remove_file(&self.home, &path)?;
            } else if *offset <= unsynced {
                usable.push(*offset);
            }
        }
        let (mut producers, from) = newest_snapshot(&self.home, &usable, start)?;
        let indexes =
            inventory.others.iter().filter(|(_, extension)| extension == layout::TXN_INDEX);
        let indexes = indexes.map(|(base, _)| *base);
        let files = transaction_index::read_files(&self.home, &self.shared, indexes)?;
        // What is torn may look like an entry.
        let whole = files.iter().filter(|(base, _)| **base < unsynced);
        let mut aborted: Vec<_> = whole
            .flat_map(|(_, entries)| entries)
            .filter(|entry| entry.last_offset < from && entry.last_offset >= start)
            .copied()
            .collect();
        aborted.extend(walk_producers(&self.shared, &mut producers, from..Offset(i64::MAX))?);
        aborted.sort_by_key(|entry| entry.last_offset);
        let base = log.active.segment.base_offset;
        log.active.aborted_written =
            aborted.iter().filter(|entry| entry.last_offset >= base).count();
        self.shared.change_producers(|known| *known = producers);
        *self.shared.aborted_mut() = aborted;
        transaction_index::mend_files(&self.home, &self.shared, &files, unsynced)
    }
}
