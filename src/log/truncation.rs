//! Cutting the tail of a log: records that this replica has and the leader has not.
//!
//! - `CUT-1` what lies above the high watermark is nowhere mapped ([`super::committed`]), so its files are cut in place.
//!   Below it, somebody may hold the bytes: only an unclean election cuts there, and what is kept is written into a
//!   new file that takes the name.
//! - `CUT-2` a reader never takes a torn read for a whole one: the new view is published, then the cut is announced, then
//!   files change. Whoever read into a buffer meanwhile reads again.
//! - `CUT-3` wherever the power goes, the log that is opened next is a prefix of the old one that includes what was to
//!   be kept. Everything that says otherwise about the tail (later segments, snapshots of the producers, leader epochs,
//!   checkpoints) is durably gone before the batches are, and these are before anything is appended: what
//!   followed later must not be taken for a part of the old log, nor the other way round.

use std::sync::Arc;

use super::active::{Active, create_segment};
use super::layout;
use super::rebuild::{Kept, load_indexed, newest_snapshot, scan_segment, walk_producers};
use super::scan::PIECE_BYTES;
use super::segment::Segment;
use super::shared::View;
use super::writer::Log;
use crate::env::OpenMode;
use crate::error::{Error, Result};
use crate::types::Offset;

impl Log {
    /// Drops every batch that reaches `offset` or beyond: for a follower whose log diverges from its leader's.
    /// Returns the new log end offset.
    ///
    /// What the checkpoints say of this log must be lowered *before*, by
    /// [`super::LogDirectory::lower_checkpoints`]: recovery treats an end below the recovery point as data loss.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] below the high watermark: nothing is changed then. [`Error::Io`] or
    /// [`Error::Corrupt`]; the log must then be reopened.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<Offset> {
        self.check_committed(offset)?;
        self.truncate(offset)
    }

    /// As [`Log::truncate_to`], for a follower of a leader that was elected uncleanly: also below the high watermark,
    /// which is then at most the new log end offset.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Corrupt`]; the log must then be reopened.
    pub fn truncate_uncleanly(&mut self, offset: Offset) -> Result<Offset> {
        let (log_start, local_start) = (self.log_start_offset(), self.shared.local_start());
        if offset >= local_start {
            return self.truncate(offset);
        }
        // Where the tier has what lies before, nothing is known in the middle of it: the copy begins from the start, and is
        // told where (`BEGIN-1`). The log does not start later for it, or what the tier has would go.
        self.restart(if log_start < local_start { log_start } else { offset })
    }

    /// Deletes everything and starts over, empty, at `offset`: what a follower does when its leader's log
    /// starts beyond its own end. The high watermark is there, too. The checkpoints must have been lowered to 0
    /// before, see [`Log::truncate_to`].
    ///
    /// # Errors
    ///
    /// As [`Log::truncate_to`].
    pub fn restart_at(&mut self, offset: Offset) -> Result<Offset> {
        self.check_committed(offset)?;
        self.restart(offset)
    }

    /// `CUT-1`.
    pub(super) fn check_committed(&self, offset: Offset) -> Result<()> {
        let high_watermark = self.shared.high_watermark();
        if offset >= high_watermark {
            return Ok(());
        }
        let name = &self.shared.partition;
        let detail = format!("{name} is committed up to {high_watermark} and not cut at {offset}");
        Err(Error::invalid(detail))
    }

    fn truncate(&mut self, offset: Offset) -> Result<Offset> {
        self.shared.health.check()?;
        if offset >= self.log_end_offset() {
            return Ok(self.log_end_offset());
        }
        let view = self.shared.view.load_full();
        let index = view.index_of(offset);
        let Some(segment) = view.segments.get(index).cloned() else {
            return Ok(self.log_end_offset());
        };
        let kept = Kept { size: segment.position_of(offset)?, end: offset };
        // What an earlier log of this process had handed out counts, too: it may have known of a later high watermark.
        // Elsewhere than on Unix, a file that is mapped anywhere is not cut.
        let in_place =
            kept.size >= segment.committed() && cfg!(unix) && !segment.is_handed_out(kept.size)?;
        if !in_place {
            self.rewrite(&segment, kept.size)?;
        }
        self.active = self.shortened(&segment, kept, in_place)?;
        let end = self.active.segment.next_offset();
        let mut segments = view.segments.get(..index).unwrap_or_default().to_vec();
        segments.push(Arc::clone(&self.active.segment));
        self.publish_cut(segments, end);
        // Last one first, so that a crash leaves no hole.
        for behind in view.segments.iter().skip(index + 1).rev() {
            self.doom(behind.base_offset)?;
        }
        self.forget_derived(end)?;
        if in_place {
            self.cut_file(kept.size)?;
        }
        self.rewrite_indexes()?;
        self.reload_producers(end)?;
        Ok(end)
    }

    fn restart(&mut self, offset: Offset) -> Result<Offset> {
        self.shared.health.check()?;
        self.doom_all()?;
        self.shared.epochs.store(Arc::default());
        self.forget_derived(Offset::UNKNOWN)?;
        self.active = create_segment(&self.home, &self.shared, &self.config, offset, &self.env)?;
        self.start_empty((offset, offset))?;
        Ok(offset)
    }

    /// Every segment goes.
    pub(super) fn doom_all(&mut self) -> Result<()> {
        let view = self.shared.view.load_full();
        self.shared.note_cut();
        // The first one goes when the others are gone: until then, what is left is a prefix.
        for (index, segment) in view.segments.iter().enumerate().rev() {
            if index == 0 {
                self.sync_dir()?;
            }
            self.doom(segment.base_offset)?;
        }
        Ok(())
    }

    /// The active segment is new, and all there is: publishes a log that is empty, starts there, altogether and on this
    /// disk, and is committed up to there.
    pub(super) fn start_empty(&mut self, (log_start, offset): (Offset, Offset)) -> Result<()> {
        self.shared.open_at(log_start, offset);
        self.shared.forget_tiered();
        self.shared.reset_high_watermark(offset);
        self.publish_cut(vec![Arc::clone(&self.active.segment)], offset);
        self.reload_producers(offset)
    }

    /// What is kept of a segment, as the active one. Nothing is written.
    fn shortened(&self, segment: &Segment, kept: Kept, in_place: bool) -> Result<Active> {
        let loaded = if in_place { load_indexed(&self.config, segment, kept)? } else { None };
        let scanned = match loaded {
            Some(scanned) if scanned.damage.is_none() => scanned,
            _ => {
                let (home, base) = (&self.home, segment.base_offset);
                scan_segment(home, &self.config, base, kept.size, |_, _| Ok(()))?
            }
        };
        if let Some(damage) = scanned.damage {
            return Err(segment.corrupt(damage));
        }
        let mut active = scanned.active;
        active.created = if segment.base_offset == self.active.segment.base_offset {
            self.active.created
        } else {
            self.env.clock.now()
        };
        active.segment.commit_as(segment);
        active.segment.verified.set_own(kept.size);
        Ok(active)
    }

    /// Writes the first `size` bytes of a segment into a new file that takes its name (`CUT-1`).
    fn rewrite(&self, segment: &Segment, size: u64) -> Result<()> {
        let path = segment.path();
        let temporary = layout::with_suffix(path, layout::TEMPORARY);
        let failed = |error| Error::io("write", &temporary, error);
        // Readers of the old file go on with it.
        segment.pin()?;
        let file = self.home.disk.open(&temporary, OpenMode::CreateEmpty).map_err(failed)?;
        let source = self.home.disk.open(path, OpenMode::Read).map_err(failed)?;
        let mut position = 0;
        while position < size {
            let len = usize::try_from((size - position).min(PIECE_BYTES)).unwrap_or(usize::MAX);
            let mut bytes = vec![0; len];
            source.read_exact_at(&mut bytes, position).map_err(failed)?;
            file.write_all_at(&[&bytes], position).map_err(failed)?;
            position += len as u64;
        }
        self.synced(file.sync_data())?;
        self.home
            .disk
            .rename(&temporary, path)
            .map_err(|error| Error::io("rename", path, error))?;
        self.shared.dirty().directory();
        self.sync_dir()
    }

    /// Cuts the file of the active segment, durably: a power cut after the next append must not bring back what
    /// followed here before (`CUT-3`).
    fn cut_file(&self, size: u64) -> Result<()> {
        let (file, path) = (&self.active.file, self.active.segment.path());
        file.set_len(size).map_err(|error| Error::io("write", path, error))?;
        self.synced(file.sync_data())
    }

    fn synced(&self, result: std::io::Result<()>) -> Result<()> {
        if let Err(error) = result {
            let directory = self.home.directory.display();
            self.shared.health.take_offline(format!("could not sync {directory}: {error}"));
        }
        self.shared.health.check()
    }

    /// Writes the indexes of the active segment anew; readers of the old ones keep them.
    fn rewrite_indexes(&mut self) -> Result<()> {
        for extension in [layout::OFFSET_INDEX, layout::TIME_INDEX] {
            let base = self.active.segment.base_offset;
            let path = layout::file(&self.home.directory, base, extension);
            let emptied = self.home.disk.open(&path, OpenMode::CreateEmpty);
            emptied.map_err(|error| Error::io("create", &path, error))?;
        }
        self.active.offset_entries_written = 0;
        self.active.time_entries_written = 0;
        self.shared.dirty().directory();
        self.flush_indexes()
    }

    /// Publishes a log that ends earlier than before.
    fn publish_cut(&mut self, segments: Vec<Arc<Segment>>, end: Offset) {
        {
            let mut synced = self.shared.synced();
            synced.generation += 1;
            synced.recovery_point = synced.recovery_point.min(end);
        }
        // The cut may fall on a batch that holds the log start offset.
        if self.shared.local_start() > end {
            self.shared.open_at(self.log_start_offset().min(end), end);
        }
        self.shared.reset_high_watermark(self.shared.high_watermark().min(end));
        self.shared.set_log_end(end);
        self.shared.view.store(Arc::new(View { segments }));
        self.shared.note_cut();
        let mut epochs = (**self.shared.epochs.load()).clone();
        epochs.truncate_end(end);
        epochs.truncate_start(self.log_start_offset());
        self.shared.epochs.store(Arc::new(epochs));
    }

    /// Durably removes what was derived from the tail that goes (`CUT-3`): the snapshots of producers above `end`,
    /// and the leader epochs that the log no longer has. Also makes durable that later segments are gone.
    pub(super) fn forget_derived(&self, end: Offset) -> Result<()> {
        let directory = &*self.home.directory;
        for (offset, name) in self.snapshots()? {
            if offset > end {
                let path = directory.join(name);
                let removed = self.home.disk.remove_file(&path);
                removed.map_err(|error| Error::io("remove", &path, error))?;
                self.shared.dirty().directory();
            }
        }
        let path = directory.join(layout::LEADER_EPOCHS);
        let text = self.shared.epochs.load().encode();
        let written = self.home.disk.write_atomically(&path, text.as_bytes());
        written.map_err(|error| Error::io("write", &path, error))?;
        self.sync_dir()
    }

    /// The snapshots of producers, by offset, and their file names.
    pub(super) fn snapshots(&self) -> Result<Vec<(Offset, String)>> {
        let directory = &*self.home.directory;
        let listed = self.home.disk.read_dir(directory);
        let listed = listed.map_err(|error| Error::io("list", directory, error))?;
        let snapshot = |name: String| match layout::parse(&name) {
            Some((offset, layout::SNAPSHOT)) => Some((offset, name)),
            _ => None,
        };
        Ok(listed.into_iter().filter_map(|entry| snapshot(entry.name)).collect())
    }

    /// The producers and the aborted transactions as of `end`.
    fn reload_producers(&mut self, end: Offset) -> Result<()> {
        let snapshots: Vec<Offset> =
            self.snapshots()?.into_iter().map(|(offset, _)| offset).collect();
        let (mut producers, from) =
            newest_snapshot(&self.home, &snapshots, self.log_start_offset())?;
        walk_producers(&self.shared, &mut producers, from..Offset(i64::MAX))?;
        self.shared.change_producers(|known| {
            producers.take_ended(known, from.min(end));
            producers.on_high_watermark(self.shared.high_watermark());
            *known = producers;
        });
        self.shared.verifications().clear();
        self.cut_aborted(end)
    }
}
