//! What is removed from a log: old segments, records below a new log start offset, a tail that no
//! leader has.
//!
//! `RET-0`: retention deletes nothing that `Log::deletable_end` does not allow; who else needs the segments,
//! a tier that has not copied them yet, has its say there.
//! `RET-1`: a segment's files are renamed to `.deleted` first and removed later; readers that still use
//! it keep reading the old inode. `RET-2`: bytes that were published are never cut in place; a truncation
//! writes the part that is kept into a new file (the reason is in `env::real`: somebody may have them
//! mapped). `RET-3`: segments are removed oldest first, each durably before the next.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::active::create_segment;
use super::layout;
use super::rebuild::{newest_snapshot, scan_segment, walk_producers, write_aborted};
use super::segment::Segment;
use super::shared::View;
use super::writer::Log;
use crate::env::OpenMode;
use crate::error::{Error, ErrorCode, Result};
use crate::types::{Offset, TimestampMs};

/// How much is copied at once when a segment is rewritten.
const COPY_BYTES: u64 = 1 << 20;

/// What retention removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The number of segments.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Log {
    /// Deletes segments that are too old, too many, or below the log start offset; none that reaches the
    /// high watermark. The active segment is rolled first when all of it is too old.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; what was deleted before stays deleted.
    pub fn apply_retention(&mut self, now: TimestampMs, high_watermark: Offset) -> Result<Deleted> {
        self.shared.health.check()?;
        self.remove_doomed(Some(self.env.clock.monotonic()));
        let mut deleted = self.delete_below_start()?;
        if !self.config.delete_old {
            return Ok(deleted);
        }
        let end = self.deletable_end(high_watermark);
        for round in [self.expired_count(now, end)?, self.surplus_count(end)] {
            let (count, all) = round;
            if all {
                self.roll_at(self.log_end_offset(), now)?;
            }
            let more = self.delete_first(count)?;
            deleted.segments += more.segments;
            deleted.bytes += more.bytes;
        }
        Ok(deleted)
    }

    /// How far retention may delete (`RET-0`): to the high watermark.
    fn deletable_end(&self, high_watermark: Offset) -> Offset {
        high_watermark.min(self.log_end_offset())
    }

    /// How many segments from the first on are older than `retention.ms`, and whether the active one is
    /// among them.
    fn expired_count(&self, now: TimestampMs, end: Offset) -> Result<(usize, bool)> {
        if self.config.retention_ms < 0 {
            return Ok((0, false));
        }
        let view = self.shared.view.load();
        let active = self.active.segment.base_offset;
        let mut count = 0;
        for segment in &view.segments {
            let mut newest = segment.max_timestamp()?;
            if newest.0 < 0 && segment.size() > 0 {
                newest = self.active.created.min(now);
            }
            let old = now.0.saturating_sub(newest.0) > self.config.retention_ms;
            // Compaction may leave a sealed segment without batches.
            let emptied = segment.size() == 0 && segment.base_offset < active;
            if !emptied && (segment.size() == 0 || !old) || segment.next_offset() > end {
                break;
            }
            count += 1;
        }
        Ok((count, count == view.segments.len()))
    }

    /// How many segments from the first on may be deleted without the log becoming smaller than
    /// `retention.bytes`.
    fn surplus_count(&self, end: Offset) -> (usize, bool) {
        let Ok(keep) = u64::try_from(self.config.retention_bytes) else { return (0, false) };
        let view = self.shared.view.load();
        let mut surplus =
            view.segments.iter().map(|segment| segment.size()).sum::<u64>().saturating_sub(keep);
        let active = self.active.segment.base_offset;
        let mut count = 0;
        for segment in &view.segments {
            let size = segment.size();
            let emptied = size == 0 && segment.base_offset < active;
            if !emptied && (size == 0 || surplus < size)
                || surplus == 0
                || segment.next_offset() > end
            {
                break;
            }
            surplus -= size;
            count += 1;
        }
        (count, count == view.segments.len())
    }

    /// Raises the log start offset (`DeleteRecords`) and deletes the segments below it. Returns
    /// the new log start offset.
    ///
    /// # Errors
    ///
    /// `OFFSET_OUT_OF_RANGE` above the high watermark.
    pub fn delete_records_before(
        &mut self,
        offset: Offset,
        high_watermark: Offset,
    ) -> Result<Offset> {
        self.shared.health.check()?;
        if offset > high_watermark || offset > self.log_end_offset() || offset.0 < 0 {
            let name = &self.shared.partition;
            let detail = format!(
                "records of {name} before offset {offset} cannot be deleted: \
                 the high watermark is {high_watermark}"
            );
            return Err(Error::kafka(ErrorCode::OffsetOutOfRange, detail));
        }
        self.raise_start(offset);
        self.delete_below_start()?;
        Ok(self.log_start_offset())
    }

    /// Raises the log start offset without deleting: a follower copies its leader.
    pub fn raise_log_start(&mut self, offset: Offset) {
        self.raise_start(offset.min(self.log_end_offset()));
    }

    fn raise_start(&self, offset: Offset) {
        if offset > self.log_start_offset() {
            self.shared.set_starts(offset);
            let mut epochs = (**self.shared.epochs.load()).clone();
            if epochs.truncate_start(offset) {
                self.shared.epochs.store(Arc::new(epochs));
                self.shared.dirty().epochs();
            }
        }
    }

    fn delete_below_start(&mut self) -> Result<Deleted> {
        let start = self.log_start_offset();
        let count = {
            let view = self.shared.view.load();
            let sealed = view.segments.len().saturating_sub(1);
            view.segments.iter().take(sealed).take_while(|s| s.next_offset() <= start).count()
        };
        self.delete_first(count)
    }

    /// Deletes the first segments, never the active one.
    fn delete_first(&mut self, count: usize) -> Result<Deleted> {
        let view = self.shared.view.load_full();
        let count = count.min(view.segments.len().saturating_sub(1));
        let (gone, kept) = view.segments.split_at(count);
        let Some(first) = kept.first() else { return Ok(Deleted::default()) };
        if gone.is_empty() {
            return Ok(Deleted::default());
        }
        // Readers first: after this nobody starts to read what is being deleted.
        self.raise_start(first.base_offset);
        self.shared.view.store(Arc::new(View { segments: kept.to_vec() }));
        let start = first.base_offset;
        let mut aborted = self.shared.aborted.write().unwrap_or_else(PoisonError::into_inner);
        aborted.retain(|entry| entry.last_offset >= start);
        drop(aborted);
        let mut deleted = Deleted::default();
        for segment in gone {
            // Oldest first, each durably before the next: a crash leaves no hole, and never less than
            // the segment that the log now starts with.
            self.sync_dir()?;
            self.doom(segment.base_offset)?;
            deleted.segments += 1;
            deleted.bytes += segment.size();
        }
        Ok(deleted)
    }

    /// Renames the files of a segment and schedules their removal (`RET-1`).
    pub(super) fn doom(&mut self, base_offset: Offset) -> Result<()> {
        let delay = Duration::from_millis(self.config.file_delete_delay_ms);
        let due = self.env.clock.monotonic() + delay;
        let kinds = [
            layout::LOG,
            layout::OFFSET_INDEX,
            layout::TIME_INDEX,
            layout::TXN_INDEX,
            layout::SNAPSHOT,
        ];
        for extension in kinds {
            let path = layout::file(&self.home.directory, base_offset, extension);
            let doomed = layout::with_suffix(&path, layout::DELETED);
            match self.home.disk.rename(&path, &doomed) {
                Ok(()) => self.doomed.push((doomed, due)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("rename", &path, error)),
            }
        }
        self.shared.dirty().directory();
        Ok(())
    }

    /// Removes renamed files whose delay has passed; all of them when `now` is `None`.
    pub(super) fn remove_doomed(&mut self, now: Option<Duration>) {
        let disk = Arc::clone(&self.home.disk);
        self.doomed.retain(|(path, due)| {
            if now.is_some_and(|now| now < *due) {
                return true;
            }
            if let Err(error) = disk.remove_file(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                // The next start removes it.
                tracing::warn!(path = %path.display(), %error, "deleted segment not removed");
            }
            false
        });
    }

    /// Drops every batch that reaches `offset` or beyond: for a follower whose log diverges from its leader's.
    /// Readers that hold such batches keep them. Returns the new log end offset.
    ///
    /// The recovery point that was written for this log must be lowered *before*, by
    /// [`super::LogDirectory::lower_recovery_point`]: recovery treats an end below it as data loss.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Corrupt`]; the log must then be reopened.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<Offset> {
        self.shared.health.check()?;
        if offset >= self.log_end_offset() {
            return Ok(self.log_end_offset());
        }
        if offset < self.log_start_offset() {
            return self.restart_at(offset);
        }
        let view = self.shared.view.load_full();
        let index = view.index_of(offset);
        let Some(segment) = view.segments.get(index).cloned() else {
            return Ok(self.log_end_offset());
        };
        let mut behind: Vec<Offset> =
            view.segments.iter().skip(index + 1).map(|segment| segment.base_offset).collect();
        // Last one first, so that a crash leaves no hole.
        behind.reverse();
        for base in behind {
            self.doom(base)?;
        }
        self.sync_dir()?;
        let position = segment.position_of(offset)?;
        self.rewrite(&segment, position)?;
        let end = self.active.segment.next_offset();
        let mut segments = view.segments.get(..index).unwrap_or_default().to_vec();
        segments.push(Arc::clone(&self.active.segment));
        self.publish_cut(segments, end)?;
        Ok(end)
    }

    /// Writes the first `size` bytes of a segment into a new file that takes its name (`RET-2`) and is
    /// active from then on.
    fn rewrite(&mut self, segment: &Segment, size: u64) -> Result<()> {
        let path = segment.path();
        let temporary = layout::with_suffix(path, layout::TEMPORARY);
        let failed = |error| Error::io("write", &temporary, error);
        let file = self.home.disk.open(&temporary, OpenMode::CreateEmpty).map_err(failed)?;
        let mut position = 0;
        while position < size {
            let end = size.min(position + COPY_BYTES);
            file.write_all_at(&[&segment.slice(position, end)?], position).map_err(failed)?;
            position = end;
        }
        if let Err(error) = file.sync_data() {
            self.shared.health.take_offline(format!("could not sync {}: {error}", path.display()));
            return self.shared.health.check();
        }
        self.home
            .disk
            .rename(&temporary, path)
            .map_err(|error| Error::io("rename", path, error))?;
        self.shared.dirty().directory();
        self.sync_dir()?;
        let base = segment.base_offset;
        let scanned = scan_segment(&self.home, &self.config, base, size, |_, _| Ok(()))?;
        if let Some(damage) = scanned.damage {
            return Err(segment.corrupt(damage));
        }
        let created = self.env.clock.now();
        self.active = scanned.active;
        self.active.created = created;
        self.active.segment.verified.set_own(size);
        for extension in [layout::OFFSET_INDEX, layout::TIME_INDEX] {
            let path = layout::file(&self.home.directory, base, extension);
            let emptied = self.home.disk.open(&path, OpenMode::CreateEmpty);
            emptied.map_err(|error| Error::io("create", &path, error))?;
        }
        self.shared.dirty().directory();
        self.flush_indexes()
    }

    /// Deletes everything and starts over, empty, at `offset`: what a follower does when its leader's log
    /// starts beyond its own end. The recovery point must have been lowered to 0 before, see
    /// [`Log::truncate_to`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; the log must then be reopened.
    pub fn restart_at(&mut self, offset: Offset) -> Result<Offset> {
        self.shared.health.check()?;
        let view = self.shared.view.load_full();
        for segment in view.segments.iter().rev() {
            self.doom(segment.base_offset)?;
        }
        self.active = create_segment(&self.home, &self.shared, &self.config, offset, &self.env)?;
        self.shared.set_starts(offset);
        self.publish_cut(vec![Arc::clone(&self.active.segment)], offset)?;
        Ok(offset)
    }

    /// Publishes a log that ends earlier than before, and reverts the state that derived from its
    /// tail.
    fn publish_cut(&mut self, segments: Vec<Arc<Segment>>, end: Offset) -> Result<()> {
        {
            let mut synced = self.shared.synced();
            synced.generation += 1;
            synced.recovery_point = synced.recovery_point.min(end);
        }
        // The cut may fall on a batch that holds the log start offset.
        self.shared.set_starts(self.log_start_offset().min(end));
        self.shared.set_log_end(end);
        self.shared.view.store(Arc::new(View { segments }));
        let mut epochs = (**self.shared.epochs.load()).clone();
        epochs.truncate_end(end);
        epochs.truncate_start(self.log_start_offset());
        self.shared.epochs.store(Arc::new(epochs));
        self.shared.dirty().epochs();
        self.reload_producers(end)
    }

    fn reload_producers(&self, end: Offset) -> Result<()> {
        let directory = &*self.home.directory;
        let entries = self
            .home
            .disk
            .read_dir(directory)
            .map_err(|error| Error::io("list", directory, error))?;
        let mut snapshots = Vec::new();
        for entry in entries {
            match layout::parse(&entry.name) {
                Some((offset, layout::SNAPSHOT)) if offset > end => {
                    let path = directory.join(&entry.name);
                    let removed = self.home.disk.remove_file(&path);
                    removed.map_err(|error| Error::io("remove", &path, error))?;
                }
                Some((offset, layout::SNAPSHOT)) => snapshots.push(offset),
                _ => {}
            }
        }
        let (mut producers, from) =
            newest_snapshot(&self.home, &snapshots, self.log_start_offset())?;
        walk_producers(&self.shared, &mut producers, from)?;
        *self.shared.producers() = producers;
        let had = {
            let mut aborted = self.shared.aborted.write().unwrap_or_else(PoisonError::into_inner);
            let before = aborted.len();
            aborted.retain(|entry| entry.last_offset < end);
            before != aborted.len()
        };
        if had {
            write_aborted(&self.home, &self.shared, &self.active.segment)?;
        }
        Ok(())
    }
}
