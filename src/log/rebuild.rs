//! Reads segments for recovery and truncation, and rebuilds the state that derives from their
//! batches.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::ops::Range;
use std::sync::Arc;

use super::active::Active;
use super::append::read_marker;
use super::config::LogConfig;
use super::index::OffsetEntry;
use super::layout;
use super::producers::{AbortedTransaction, Producers};
use super::scan::{Damage, Expected, Found, PIECE_BYTES, Scan, read_batches};
use super::segment::{Home, Segment};
use super::shared::Shared;
use super::snapshot;
use crate::env::{File, OpenMode};
use crate::error::{Error, Result};
use crate::record::{BatchHeader, HEADER_SIZE};
use crate::types::{Offset, TimestampMs};

/// A segment after a scan.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) active: Active,
    pub(super) next_offset: Offset,
    pub(super) size: u64,
    pub(super) damage: Option<Damage>,
}

/// How much of a segment becomes the active one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) size: u64,
    /// The offset of the first batch that is not kept.
    pub(super) end: Offset,
}

/// The producers of the newest snapshot that can be read, and its offset.
pub(super) fn newest_snapshot(
    home: &Home,
    snapshots: &[Offset],
    start: Offset,
) -> Result<(Producers, Offset)> {
    for &offset in snapshots.iter().rev() {
        let path = layout::file(&home.directory, offset, layout::SNAPSHOT);
        let bytes = home.disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
        match snapshot::decode(&bytes.unwrap_or_default()) {
            Ok(producers) => return Ok((producers, offset)),
            Err(detail) => {
                tracing::warn!(path = %path.display(), detail, "producer snapshot is not usable");
                home.disk.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
            }
        }
    }
    Ok((Producers::default(), start))
}

/// Applies the batches of a range, which ends where one does; returns the transactions that they abort.
pub(super) fn walk_producers(
    shared: &Shared,
    producers: &mut Producers,
    range: Range<Offset>,
) -> Result<Vec<AbortedTransaction>> {
    let Range { start: from, end } = range;
    let view = shared.view.load();
    let mut aborted = Vec::new();
    for segment in view.segments.iter().skip(view.index_of(from)) {
        if segment.next_offset() <= from {
            continue;
        }
        if segment.base_offset >= end {
            break;
        }
        segment.walk(segment.seek(from), |scan, found| {
            let header = &found.header;
            if header.base_offset >= end {
                return Ok(false);
            }
            // A log may start in the middle of a batch.
            if header.next_offset() <= from || !header.has_producer_id() {
                return Ok(true);
            }
            let marker = if header.is_control() {
                let batch = scan.batch_of(found).map_err(|damage| segment.corrupt(damage))?;
                read_marker(&batch)?
            } else {
                None
            };
            if marker.is_some_and(|marker| !marker.committed) {
                aborted.extend(producers.aborted_by([(header, marker)]));
            }
            producers.apply(header, marker, header.max_timestamp);
            Ok(true)
        })?;
    }
    Ok(aborted)
}

/// Walks a segment from its start; `check` may refuse a batch. Stops at the first damage.
pub(super) fn scan_segment(
    home: &Home,
    config: &LogConfig,
    base: Offset,
    size: u64,
    mut check: impl FnMut(&Scan<'_>, &Found) -> std::result::Result<(), Damage>,
) -> Result<Scanned> {
    let mut active = open_active(home, config, base, size)?;
    let start = (0, active.segment.at_start());
    let damage = walk_file(&active.segment.clone(), size, start, |scan, found| {
        check(scan, found)?;
        active.index(&found.header, found.position, config.index_interval_bytes);
        let end = found.end();
        active.segment.publish(end, found.header.next_offset(), found.header.max_timestamp);
        Ok(())
    })?;
    let (next_offset, size) = (active.segment.next_offset(), active.segment.size());
    Ok(Scanned { active, next_offset, size, damage })
}

/// Walks the batches below position `end` in the file of an active segment whose size is not known yet.
fn walk_file(
    segment: &Segment,
    end: u64,
    start: (u64, Expected),
    mut visit: impl FnMut(&Scan<'_>, &Found) -> std::result::Result<(), Damage>,
) -> Result<Option<Damage>> {
    let Some(file) = segment.active_file() else { return Ok(None) };
    let (mut at, mut expected) = start;
    loop {
        let data = read_batches(&**file, at, end, PIECE_BYTES)
            .map_err(|error| Error::io("read", segment.path(), error))?;
        if data.is_empty() {
            return Ok(None);
        }
        let mut scan = Scan::new(&data, at, expected);
        loop {
            match scan.next() {
                Ok(Some(found)) => {
                    if let Err(damage) = visit(&scan, &found) {
                        return Ok(Some(damage));
                    }
                }
                Ok(None) => break,
                Err(damage) => return Ok(Some(damage)),
            }
        }
        (at, expected) = (scan.position(), scan.expected());
    }
}

fn open_active(home: &Home, config: &LogConfig, base: Offset, size: u64) -> Result<Active> {
    let path = layout::file(&home.directory, base, layout::LOG);
    let file = home
        .disk
        .open(&path, OpenMode::ReadWrite)
        .map_err(|error| Error::io("open", &path, error))?;
    Ok(active_on(home, config, (base, size), file))
}

fn active_on(
    home: &Home,
    config: &LogConfig,
    (base, size): (Offset, u64),
    file: Arc<dyn File>,
) -> Active {
    let limit = u64::from(config.segment_bytes).max(size);
    let segment = Segment::active(home, base, Arc::clone(&file), limit, 0);
    Active::new(Arc::new(segment), file, TimestampMs::NONE, 0)
}

/// Makes a segment the active one, as far as it is to be kept, using its indexes; none when they cannot belong to
/// it. Nothing is written.
pub(super) fn load_indexed(
    config: &LogConfig,
    stored: &Segment,
    kept: Kept,
) -> Result<Option<Scanned>> {
    let (home, base, size) = (stored.home(), stored.base_offset, kept.size);
    let mut active = match stored.active_file() {
        // What was handed out through this handle stays protected by it.
        Some(file) => active_on(home, config, (base, size), Arc::clone(file)),
        None => open_active(home, config, base, size)?,
    };
    let segment = Arc::clone(&active.segment);
    segment.verified.set_own(size);
    let (offsets, times) = (stored.offset_index(), stored.time_index());
    let mut last = None;
    for entry in (0..offsets.len()).filter_map(|index| offsets.get(index)) {
        if u64::from(entry.position) >= size {
            break;
        }
        if last.is_some_and(|last: OffsetEntry| {
            entry.relative <= last.relative || entry.position <= last.position
        }) {
            return Ok(None);
        }
        segment.offset_index().push(entry);
        last = Some(entry);
    }
    for entry in (0..times.len()).filter_map(|index| times.get(index)) {
        if base.plus(i64::from(entry.relative)) >= kept.end {
            break;
        }
        segment.time_index().push_if_later(entry);
        active.largest = Some((entry.timestamp, base.plus(i64::from(entry.relative))));
    }
    active.offset_entries_written = segment.offset_index().len();
    active.time_entries_written = segment.time_index().len();
    let mut head = [0; HEADER_SIZE];
    if size >= head.len() as u64 {
        let read = active.file.read_exact_at(&mut head, 0);
        read.map_err(|error| Error::io("read", segment.path(), error))?;
        let first = BatchHeader::parse(&head).ok().map(|header| header.max_timestamp);
        active.first_timestamp = first.filter(|time| time.0 >= 0);
    }
    // Without a time entry, the largest timestamp is only known after reading all batches.
    let start = match last {
        Some(entry) if active.largest.is_some() => segment.indexed(entry),
        _ => (0, segment.at_start()),
    };
    if let Some((timestamp, _)) = active.largest {
        segment.publish(0, base, timestamp);
    }
    let damage = walk_file(&segment, size, start, |_, found| {
        let header = &found.header;
        active.index(header, found.position, config.index_interval_bytes);
        segment.publish(found.end(), header.next_offset(), header.max_timestamp);
        Ok(())
    })?;
    let (next_offset, size) = (segment.next_offset(), segment.size());
    Ok(Some(Scanned { active, next_offset, size, damage }))
}
