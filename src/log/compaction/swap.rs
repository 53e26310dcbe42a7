//! Replaces old segments with a new one, so that a crash leaves either the old or the new.
//!
//! The states, as in Apache Kafka, each durable before the next begins (X is the first offset of the old
//! segments, Y of any other of them):
//!
//! ```text
//!  X.log.cleaned, X.index.cleaned …      being written                    → start removes them
//!  X.log.cleaned, X.index.swap …         complete                         → start removes them
//!  X.log.swap,    X.index.swap …, Y.log  the new segment counts           → start goes on from here
//!  X.log.swap,    X.index.swap …         the old ones are removed         → start goes on from here
//!  X.log,         X.index …              done
//! ```
//!
//! `X.log.cleaned` becomes `X.log.swap` by one rename: from that moment the new segment counts
//! (`CMP-6`). The files of segment X are replaced by renames, too. Kafka's rule for files of both
//! kinds holds: `.swap` files at or above the lowest `.cleaned` one do not count yet.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::output::{Cleaned, Files, KINDS, rename, sync_dir};
use crate::env::OpenMode;
use crate::error::{Error, Result};
use crate::log::layout;
use crate::log::scan::{Damage, Expected, PIECE_BYTES, Scan, read_batches};
use crate::log::segment::{Home, Segment};
use crate::log::shared::View;
use crate::log::writer::Log;
use crate::types::{LeaderEpoch, Offset};

impl Log {
    /// Replaces the segments that a compacted segment was made from. Returns false, changing nothing,
    /// when one of them is no longer in the log: it was truncated or retention deleted it meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] before anything was changed; [`Error::Offline`] after a failure that leaves the change half
    /// done: the next start completes it.
    pub fn replace_segments(&mut self, mut cleaned: Cleaned) -> Result<bool> {
        self.shared.health.check()?;
        let view = self.shared.view.load_full();
        let Some(place) = place_of(&view, &cleaned.sources) else { return Ok(false) };
        let names = [layout::CLEANED, layout::SWAP].map(|end| cleaned.files.path(layout::LOG, end));
        let home = self.home.clone();
        home.disk
            .rename(&names[0], &names[1])
            .map_err(|error| Error::io("rename", &names[0], error))?;
        cleaned.files.kept = true;
        if let Err(error) = self.finish_swap(&cleaned) {
            self.shared.health.take_offline(format!(
                "could not finish the compaction of {}: {}",
                self.shared.partition,
                error.chain()
            ));
            self.shared.health.check()?;
        }
        let range = cleaned.range();
        let segment = Segment::sealed(&home, range.start, range.end, cleaned.size);
        segment.commit(self.shared.high_watermark());
        let mut segments = view.segments.clone();
        segments.splice(place..place + cleaned.sources.len(), [Arc::new(segment)]);
        self.shared.view.store(Arc::new(View { segments }));
        let mut aborted = self.shared.aborted_mut();
        aborted.retain(|entry| !range.contains(&entry.last_offset));
        aborted.extend(&cleaned.aborted);
        aborted.sort_by_key(|entry| entry.last_offset);
        Ok(true)
    }

    fn finish_swap(&mut self, cleaned: &Cleaned) -> Result<()> {
        let health = self.shared.health.clone();
        sync_dir(&cleaned.files.home, &health)?;
        for source in cleaned.sources.iter().skip(1) {
            self.doom(source.base_offset)?;
        }
        sync_dir(&cleaned.files.home, &health)?;
        take_place(&cleaned.files)?;
        sync_dir(&cleaned.files.home, &health)
    }
}

/// Where the segments are in the log, one after another; the active one is not among them.
fn place_of(view: &View, sources: &[Arc<Segment>]) -> Option<usize> {
    let first = sources.first()?;
    let place = view.segments.iter().position(|segment| Arc::ptr_eq(segment, first))?;
    let found = view.segments.get(place..place.checked_add(sources.len())?)?;
    let same = found.iter().zip(sources).all(|(found, source)| Arc::ptr_eq(found, source));
    (same && place + sources.len() < view.segments.len()).then_some(place)
}

/// Removes `.swap` from the names, batches last.
fn take_place(files: &Files) -> Result<()> {
    for kind in KINDS {
        rename(&files.home, &[layout::SWAP, ""].map(|suffix| files.path(kind, suffix)))?;
    }
    Ok(())
}

/// Finishes or undoes what a crash interrupted. Must be called before the segments are listed.
pub(in crate::log) fn finish_interrupted(home: &Home) -> Result<()> {
    let directory = &*home.directory;
    let listed =
        home.disk.read_dir(directory).map_err(|error| Error::io("list", directory, error))?;
    let (mut cleaned, mut swaps, mut finals) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for entry in listed.iter().filter(|entry| !entry.is_dir) {
        let ends = [(layout::CLEANED, &mut cleaned), (layout::SWAP, &mut swaps)];
        let suffixed = ends.into_iter().find(|(suffix, _)| entry.name.ends_with(suffix));
        let (name, set) = match suffixed {
            Some((suffix, set)) => (entry.name.strip_suffix(suffix).unwrap_or_default(), set),
            None => (entry.name.as_str(), &mut finals),
        };
        if let Some((base, kind)) = layout::parse(name) {
            set.insert((base, kind.to_owned()));
        }
    }
    if cleaned.is_empty() && swaps.is_empty() {
        return Ok(());
    }
    home.gaps.store(true, std::sync::atomic::Ordering::Release);
    tracing::info!(path = %directory.display(), "finishing an interrupted compaction");
    if let Some((lowest, _)) = cleaned.first().cloned() {
        let undone = swaps.split_off(&(lowest, String::new()));
        remove_all(home, &undone, layout::SWAP)?;
        // Before the `.cleaned` files, which say that those did not count.
        sync(home)?;
        remove_all(home, &cleaned, layout::CLEANED)?;
    }
    for (base, _) in swaps.iter().filter(|(_, kind)| kind == layout::LOG) {
        let end = end_of_swap(home, *base)?;
        let replaced = |(other, kind): &&(Offset, String)| {
            other > base && *other < end && kind != layout::SNAPSHOT
        };
        let old: BTreeSet<_> = finals.iter().filter(replaced).cloned().collect();
        remove_all(home, &old, "")?;
        sync(home)?;
    }
    for base in swaps.iter().map(|(base, _)| *base).collect::<BTreeSet<_>>() {
        take_place(&Files { home: home.clone(), base, kept: true })?;
    }
    sync(home)
}

fn remove_all(home: &Home, files: &BTreeSet<(Offset, String)>, suffix: &str) -> Result<()> {
    // The batches first: indexes without batches are not a segment.
    let (logs, others): (Vec<_>, Vec<_>) = files.iter().partition(|(_, kind)| kind == layout::LOG);
    for (base, kind) in logs.into_iter().chain(others) {
        let path = layout::with_suffix(&layout::file(&home.directory, *base, kind), suffix);
        home.disk.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
    }
    Ok(())
}

fn sync(home: &Home) -> Result<()> {
    let directory = &*home.directory;
    home.disk.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))
}

/// The offset after the last batch of a segment that replaces others.
fn end_of_swap(home: &Home, base: Offset) -> Result<Offset> {
    let path = layout::with_suffix(&layout::file(&home.directory, base, layout::LOG), layout::SWAP);
    let failed = |error| Error::io("read", &path, error);
    let file = home.disk.open(&path, OpenMode::Read).map_err(failed)?;
    let size = file.len().map_err(failed)?;
    let mut expected = Expected { next: base, exact: false, epoch: LeaderEpoch::UNKNOWN };
    let mut at = 0;
    while at < size {
        let data = read_batches(&*file, at, size, PIECE_BYTES).map_err(failed)?;
        let mut scan = Scan::new(&data, at, expected);
        let damaged = |Damage { position, detail }| Error::corrupt(&path, position, detail);
        while scan.next().map_err(damaged)?.is_some() {}
        (at, expected) = (scan.position(), scan.expected());
    }
    Ok(expected.next)
}
