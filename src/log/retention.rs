//! What is removed from the front of a log: old segments, and records below a new log start offset.
//!
//! `RET-0`: retention deletes nothing that `Log::deletable_end` does not allow; who else needs the segments,
//! a tier that has not copied them yet, has its say there. Where a tier has what is deleted, the log goes on to start
//! where it did, and only the local start moves: how long the whole is kept, the tier decides.
//! `RET-1`: a segment's files are renamed to `.deleted` first and removed later; readers that still use
//! it keep reading the old inode. `RET-2`: segments are removed oldest first, each durably before the next. `RET-3`: where a
//! tier has what is deleted, what is derived from it is durable before.

use std::sync::Arc;
use std::time::Duration;

use super::config::LocalRetention;
use super::layout;
use super::shared::View;
use super::writer::Log;
use crate::error::{Error, ErrorCode, Result};
use crate::types::{Offset, TimestampMs};

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
        let limits = self.limits();
        let end = self.deletable_end(high_watermark);
        for round in 0..2 {
            let (count, all) = match round {
                0 => self.expired_count(limits.ms, now, end)?,
                _ => self.surplus_count(limits.bytes, end),
            };
            if all {
                self.roll_at(self.log_end_offset(), now)?;
            }
            let more = self.delete_first(count)?;
            deleted.segments += more.segments;
            deleted.bytes += more.bytes;
        }
        Ok(deleted)
    }

    /// Retention by a replica that follows. Of a topic with a tier it deletes nothing by the limits: what the leader does not
    /// have on its disk any more is in the tier, and only the leader knows what else is. See [`Log::delete_tiered_before`].
    ///
    /// # Errors
    ///
    /// As [`Log::apply_retention`].
    pub fn apply_retention_as_follower(
        &mut self,
        now: TimestampMs,
        high_watermark: Offset,
    ) -> Result<Deleted> {
        if self.config.local_retention.is_none() {
            return self.apply_retention(now, high_watermark);
        }
        self.shared.health.check()?;
        self.remove_doomed(Some(self.env.clock.monotonic()));
        self.delete_below_start()
    }

    /// How far retention may delete (`RET-0`): to the high watermark, and of a log whose segments are tiered to
    /// where the tier is known to end.
    fn deletable_end(&self, high_watermark: Offset) -> Offset {
        let end = high_watermark.min(self.log_end_offset());
        let (local_start, tiered_end) = (self.shared.local_start(), self.shared.tiered_end());
        match self.config.local_retention {
            Some(local) if local.copies => end.min(tiered_end),
            // Before it is known what the tier has: it would not belong to the log any more.
            Some(_) if tiered_end == Offset::UNKNOWN && self.log_start_offset() < local_start => {
                end.min(local_start)
            }
            _ => end,
        }
    }

    /// What is kept on this disk.
    fn limits(&self) -> LocalRetention {
        let all = LocalRetention {
            ms: self.config.retention_ms,
            bytes: self.config.retention_bytes,
            copies: false,
        };
        self.config.local_retention.unwrap_or(all)
    }

    /// Hears which offsets the tier has, `end` not included, whenever its manifest was read or has changed. A log
    /// that starts where neither the tier nor this disk has anything, as after a crash before the checkpoint of its
    /// start was written, starts where there is something.
    pub fn set_tiered(&mut self, start: Offset, end: Offset) {
        self.shared.set_tiered(start, end);
        self.raise_log_start(start.min(self.shared.local_start()));
    }

    /// Nobody says any more what the tier has: nothing is deleted because it has it.
    pub fn forget_tiered(&mut self) {
        self.shared.forget_tiered();
    }

    /// How many segments from the first on are older than allowed, and whether the active one is
    /// among them.
    fn expired_count(
        &self,
        retention_ms: i64,
        now: TimestampMs,
        end: Offset,
    ) -> Result<(usize, bool)> {
        if retention_ms < 0 {
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
            let old = now.0.saturating_sub(newest.0) > retention_ms;
            // Compaction may leave a sealed segment without batches.
            let emptied = segment.size() == 0 && segment.base_offset < active;
            if !emptied && (segment.size() == 0 || !old) || segment.next_offset() > end {
                break;
            }
            count += 1;
        }
        Ok((count, count == view.segments.len()))
    }

    /// How many segments from the first on may be deleted without the log becoming smaller here than
    /// `retention_bytes`.
    fn surplus_count(&self, retention_bytes: i64, end: Offset) -> (usize, bool) {
        let Ok(keep) = u64::try_from(retention_bytes) else { return (0, false) };
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
        self.raise_log_start(offset);
        self.delete_below_start()?;
        Ok(self.log_start_offset())
    }

    /// Follows a leader that does not have what lies before `offset` on its disk any more, because its tier has it: deletes
    /// the segments that lie before, and reads nothing from there. The log starts where it did.
    ///
    /// # Errors
    ///
    /// As [`Log::apply_retention`].
    pub fn delete_tiered_before(&mut self, offset: Offset) -> Result<()> {
        self.shared.health.check()?;
        if self.config.local_retention.is_some() {
            let committed = self.shared.high_watermark().min(self.log_end_offset());
            self.shared.raise_local_start(offset.min(committed));
            self.delete_below_start()?;
        }
        Ok(())
    }

    /// Raises the log start offset without deleting: a follower copies its leader, whose log starts at what is
    /// committed.
    pub fn raise_log_start(&mut self, offset: Offset) {
        let offset = offset.min(self.log_end_offset());
        if offset > self.log_start_offset() {
            self.shared.raise_high_watermark(offset);
            self.shared.raise_log_start(offset);
            let mut epochs = (**self.shared.epochs.load()).clone();
            if epochs.truncate_start(offset) {
                self.shared.epochs.store(Arc::new(epochs));
                self.shared.dirty().epochs();
            }
        }
    }

    fn delete_below_start(&mut self) -> Result<Deleted> {
        let start = self.shared.local_start();
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
        // What lies before the local start is not read here any more: elsewhere, or nowhere.
        let is_read_here = first.base_offset > self.shared.local_start();
        let is_tiered =
            self.config.local_retention.is_some() && first.base_offset <= self.shared.tiered_end();
        let is_gone = is_read_here && !is_tiered;
        if !is_gone {
            self.sync_derived(first.base_offset)?;
        }
        // Readers first: after this nobody starts to read what is being deleted.
        self.shared.raise_local_start(first.base_offset);
        if is_gone {
            // Nothing is kept elsewhere: the log starts where it starts here (`LOG-9`).
            self.raise_log_start(first.base_offset);
        } else if is_tiered {
            // What lies before the tier was here only: the log start that a crash has taken back.
            self.raise_log_start(self.shared.tiered_start().min(first.base_offset));
        }
        self.shared.view.store(Arc::new(View { segments: kept.to_vec() }));
        let start = first.base_offset;
        self.shared.aborted_mut().retain(|entry| entry.last_offset >= start);
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

    /// What goes on this disk, and stays in the tier, cannot be read here again after a crash: the leader epochs that it had,
    /// and the producers where the rest begins, must be durable before (`RET-3`).
    fn sync_derived(&self, start: Offset) -> Result<()> {
        if self.log_start_offset() < start {
            self.write_durable_snapshot(start, &self.producer_snapshot(start)?)?;
            if self.recovery_point() < start || self.shared.dirty().epochs.is_some() {
                self.sync()?;
            }
        }
        Ok(())
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
}
