//! How a segment is read: which batches, from where, and whether they are what was written.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Segment;
use crate::error::Result;
use crate::log::epochs::EpochCache;
use crate::log::scan::{Damage, Expected, Found, Scan, check_crc};
use crate::record::{BatchHeader, HEADER_SIZE};
use crate::types::{LeaderEpoch, Offset, Stored, TimestampMs};

/// How a segment is read.
#[derive(Clone, Copy, Debug)]
pub(in crate::log) struct Want {
    pub(in crate::log) offset: Offset,
    pub(in crate::log) max_bytes: u64,
    pub(in crate::log) upper: Offset,
    pub(in crate::log) at_least_one: bool,
}

/// What a read of one segment found.
#[derive(Clone, Debug)]
pub(in crate::log) enum SegmentRead {
    /// Whole batches.
    Batches(ReadBatches),
    /// The batch that holds the offset reaches the upper bound, or alone is too large.
    Stop,
    /// The segment ends before the offset: compaction leaves gaps at its end.
    Beyond,
}

/// Whole batches of a segment.
#[derive(Clone, Debug)]
pub(in crate::log) struct ReadBatches {
    pub(in crate::log) records: Bytes,
    pub(in crate::log) stored: Option<Stored>,
    pub(in crate::log) base_offset: Offset,
    pub(in crate::log) next_offset: Offset,
}

/// Which batches a read returns, by position.
#[derive(Clone, Copy, Debug)]
struct Selection {
    start: u64,
    end: u64,
    base_offset: Offset,
    next_offset: Offset,
}

enum Selected {
    Batches(Selection),
    Stop,
    Beyond,
}

impl Selection {
    /// The batches among bytes that begin at `from`.
    fn slice(&self, data: &Bytes, from: u64, stored: Option<Stored>) -> ReadBatches {
        let place = |position: u64| usize::try_from(position - from).unwrap_or(usize::MAX);
        ReadBatches {
            records: data.slice(place(self.start)..place(self.end)),
            stored,
            base_offset: self.base_offset,
            next_offset: self.next_offset,
        }
    }
}

impl Segment {
    /// Whether a read would probably wait for the disk: its range was neither appended nor read by this
    /// process before. At most reads an index itself.
    pub(in crate::log) fn is_cold(&self, want: &Want) -> bool {
        if self.file.is_none() && self.offset_index.get().is_none() {
            return true;
        }
        let (start, _) = self.seek(want.offset);
        let end = self.size().min(start.saturating_add(want.max_bytes));
        start < end && !self.verified.covers(&(start..end))
    }

    /// Whole batches, starting with the one that holds `want.offset`: of the mapping if they are committed,
    /// otherwise in a buffer.
    pub(in crate::log) fn read(&self, want: &Want, epochs: &EpochCache) -> Result<SegmentRead> {
        let (start, expected) = self.seek(want.offset);
        let committed = self.committed();
        if start < committed {
            let data = self.slice(start, committed)?;
            match self.select(want, Scan::new(&data, start, expected), committed)? {
                Selected::Batches(batches) => {
                    self.verify(batches.start, batches.end, epochs)?;
                    let stored = self.mapping()?.stored(batches.start);
                    return Ok(SegmentRead::Batches(batches.slice(&data, start, stored)));
                }
                Selected::Stop => return Ok(SegmentRead::Stop),
                Selected::Beyond => {}
            }
        }
        if committed >= self.size() {
            Ok(SegmentRead::Beyond)
        } else {
            self.read_above(want, epochs, committed)
        }
    }

    /// As [`Segment::read`], for what is not known to be committed: the offset is not below the position
    /// `committed`. That of now may be further on, behind the offset.
    #[cold]
    fn read_above(&self, want: &Want, epochs: &EpochCache, committed: u64) -> Result<SegmentRead> {
        let (mut at, mut expected) = self.seek(want.offset);
        if committed > at {
            (at, expected) = (committed, Expected::anywhere(self.base_offset));
        }
        if let Some(mark) = self.committed.floor(want.offset)
            && mark.position > at
        {
            (at, expected) = (mark.position, Expected::anywhere(mark.next_offset));
        }
        loop {
            let data = self.buffer(at, want.max_bytes)?;
            if data.is_empty() {
                return Ok(SegmentRead::Beyond);
            }
            let end = at + data.len() as u64;
            match self.select(want, Scan::new(&data, at, expected), end)? {
                Selected::Batches(batches) => {
                    self.verify_in(&data, at, batches.start..batches.end, epochs)?;
                    return Ok(SegmentRead::Batches(batches.slice(&data, at, None)));
                }
                Selected::Stop => return Ok(SegmentRead::Stop),
                Selected::Beyond => (at, expected) = (end, Expected::anywhere(self.base_offset)),
            }
        }
    }

    /// Chooses batches among those of a scan, whose bytes end at position `size`.
    fn select(&self, want: &Want, mut scan: Scan<'_>, size: u64) -> Result<Selected> {
        let Some(first) = self.find(&mut scan, |header| header.last_offset() >= want.offset)?
        else {
            return Ok(Selected::Beyond);
        };
        let first_size = first.header.size_bytes as u64;
        if first.header.next_offset() > want.upper
            || first_size > want.max_bytes && !want.at_least_one
        {
            return Ok(Selected::Stop);
        }
        let limit = first.position.saturating_add(want.max_bytes).min(size);
        let (mut end, mut next_offset) = (first.end(), first.header.next_offset());
        self.jump_ahead(&mut scan, limit, want.upper, end);
        while end < limit {
            let Some(found) = self.next(&mut scan)? else { break };
            // What a jump skipped is within the limits, whether this batch is or not.
            if found.position > end {
                (end, next_offset) = (found.position, found.header.base_offset);
            }
            if found.end() > limit || found.header.next_offset() > want.upper {
                break;
            }
            (end, next_offset) = (found.end(), found.header.next_offset());
        }
        let (start, base_offset) = (first.position, first.header.base_offset);
        Ok(Selected::Batches(Selection { start, end, base_offset, next_offset }))
    }

    /// Skips batches that the index proves to be within the limits.
    fn jump_ahead(&self, scan: &mut Scan<'_>, limit: u64, upper: Offset, from: u64) {
        let last = upper.0 - self.base_offset.0;
        let ahead = self
            .offset_index()
            .floor(|entry| u64::from(entry.position) < limit && i64::from(entry.relative) < last);
        if let Some(entry) = ahead
            && u64::from(entry.position) > from
        {
            scan.jump(u64::from(entry.position), self.base_offset);
        }
    }

    fn find(
        &self,
        scan: &mut Scan<'_>,
        wanted: impl Fn(&BatchHeader) -> bool,
    ) -> Result<Option<Found>> {
        while let Some(found) = self.next(scan)? {
            if wanted(&found.header) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Compares the checksums of a committed range of whole batches, once per process; see [`Verified`].
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] with file and position of the first damaged batch.
    fn verify(&self, start: u64, end: u64, epochs: &EpochCache) -> Result<()> {
        let range = start..end;
        if range.is_empty() || self.verified.covers(&range) {
            return Ok(());
        }
        self.mapping()?.prefault(range.clone());
        // The batch after the range, if there is one and it may be looked at, must fit as well.
        let (committed, behind) = (self.committed(), HEADER_SIZE as u64);
        let data = self.slice(start, end.saturating_add(behind).min(committed))?;
        let inner =
            data.slice(..usize::try_from(end - start).unwrap_or(data.len()).min(data.len()));
        let due = self.check_batches(&inner, start, epochs)?;
        let after = data.slice(inner.len()..);
        if let Ok(header) = BatchHeader::parse(&after) {
            if header.base_offset < due || !self.home.gaps() && header.base_offset != due {
                let detail =
                    format!("the batch has base offset {}, expected {due}", header.base_offset);
                return Err(self.corrupt(Damage { position: end, detail }));
            }
        } else if due > self.next_offset()
            || self.file.is_none()
                && end == self.size()
                && !self.home.gaps()
                && due != self.next_offset()
        {
            let next = self.next_offset();
            let detail = format!("the last batch ends at offset {due} instead of {next}");
            return Err(self.corrupt(Damage { position: start, detail }));
        }
        self.verified.mark(range);
        Ok(())
    }

    /// As [`Segment::verify`], for some of the batches of a [`Segment::piece`] that starts at `from`.
    pub(in crate::log) fn verify_in(
        &self,
        data: &Bytes,
        from: u64,
        range: Range<u64>,
        epochs: &EpochCache,
    ) -> Result<()> {
        if range.end <= self.committed() {
            return self.verify(range.start, range.end, epochs);
        }
        if !self.verified.covers(&range) {
            let place = |position: u64| usize::try_from(position - from).unwrap_or(usize::MAX);
            let inner = data.slice(place(range.start)..place(range.end));
            self.check_batches(&inner, range.start, epochs)?;
            self.verified.mark(range);
        }
        Ok(())
    }

    /// Compares the checksums and the epochs of whole batches at position `start`; returns the offset after them.
    fn check_batches(&self, data: &Bytes, start: u64, epochs: &EpochCache) -> Result<Offset> {
        let expected = match start {
            0 => self.at_start(),
            _ if start <= self.committed() => self.expected_at(start)?,
            _ => Expected::anywhere(self.base_offset),
        };
        let mut scan = Scan::new(data, start, expected);
        while let Some(found) = self.next(&mut scan)? {
            let bytes = scan.bytes_of(&found).unwrap_or_default();
            check_crc(&found, bytes).map_err(|damage| self.corrupt(damage))?;
            self.check_epoch(&found, epochs)?;
        }
        Ok(scan.next_offset())
    }

    /// What the batch at `position` must look like, from the batches before it.
    fn expected_at(&self, position: u64) -> Result<Expected> {
        let before = self.offset_index().floor(|entry| u64::from(entry.position) < position);
        let (start, expected) = match before {
            Some(entry) => self.indexed(entry),
            None => (0, self.at_start()),
        };
        let data = self.slice(start, position)?;
        let mut scan = Scan::new(&data, start, expected);
        let mut epoch = LeaderEpoch::UNKNOWN;
        while let Some(found) = self.next(&mut scan)? {
            epoch = found.header.leader_epoch;
        }
        Ok(Expected { next: scan.next_offset(), exact: !self.home.gaps(), epoch })
    }

    fn check_epoch(&self, found: &Found, epochs: &EpochCache) -> Result<()> {
        let header = &found.header;
        match epochs.epoch_of(header.base_offset) {
            Some(known) if known != header.leader_epoch && header.leader_epoch.0 >= 0 => {
                let detail = format!(
                    "the batch at offset {} has leader epoch {}, but the epoch there was {known}",
                    header.base_offset, header.leader_epoch
                );
                Err(self.corrupt(Damage { position: found.position, detail }))
            }
            _ => Ok(()),
        }
    }

    /// The position of the first batch that reaches `offset`; the size when there is none.
    pub(in crate::log) fn position_of(&self, offset: Offset) -> Result<u64> {
        let mut position = None;
        self.walk(self.seek(offset), |_, found| {
            if found.header.last_offset() >= offset {
                position = Some(found.position);
            }
            Ok(position.is_none())
        })?;
        Ok(position.unwrap_or(self.size()))
    }

    /// The largest timestamp of a record; -1 when none has one.
    pub(in crate::log) fn max_timestamp(&self) -> Result<TimestampMs> {
        let known = self.max_timestamp.load(Ordering::Acquire);
        if known != i64::MIN {
            return Ok(TimestampMs(known));
        }
        let found = if let Some(entry) = self.time_index().last() {
            entry.timestamp
        } else {
            let mut max = TimestampMs::NONE;
            self.walk((0, self.at_start()), |_, found| {
                max = max.max(found.header.max_timestamp);
                Ok(true)
            })?;
            max
        };
        self.max_timestamp.fetch_max(found.0, Ordering::AcqRel);
        Ok(found)
    }

    /// The largest timestamp of the first batch; none when it has none.
    pub(in crate::log) fn first_timestamp(&self) -> Result<Option<TimestampMs>> {
        let mut first = TimestampMs::NONE;
        self.walk((0, self.at_start()), |_, found| {
            first = found.header.max_timestamp;
            Ok(false)
        })?;
        Ok((first.0 >= 0).then_some(first))
    }

    /// The first record from `from` on, below `upper`, that is at least as late as `target`.
    pub(in crate::log) fn find_timestamp(
        &self,
        target: TimestampMs,
        from: Offset,
        upper: Offset,
        limits: (usize, &EpochCache),
    ) -> Result<Option<(TimestampMs, Offset, LeaderEpoch)>> {
        let (uncompressed_max, epochs) = limits;
        let hint = self.time_index().floor(target).map_or(self.base_offset, |entry| {
            Offset(self.base_offset.0.saturating_add(i64::from(entry.relative)))
        });
        let mut late = None;
        self.walk(self.seek(hint.max(from)), |scan, found| {
            let header = &found.header;
            if header.base_offset >= upper {
                return Ok(false);
            }
            if header.max_timestamp < target || header.last_offset() < from {
                return Ok(true);
            }
            self.verify_found(scan, found, epochs)?;
            let batch = scan.batch_of(found).map_err(|damage| self.corrupt(damage))?;
            for record in &batch.records(uncompressed_max)? {
                let record = record?;
                if record.timestamp >= target && record.offset >= from && record.offset < upper {
                    late = Some((record.timestamp, record.offset, header.leader_epoch));
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        Ok(late)
    }

    /// As [`Segment::verify`], for one batch of a walk.
    fn verify_found(&self, scan: &Scan<'_>, found: &Found, epochs: &EpochCache) -> Result<()> {
        let range = found.position..found.end();
        if range.end <= self.committed() {
            return self.verify(range.start, range.end, epochs);
        }
        if !self.verified.covers(&range) {
            let bytes = scan.bytes_of(found).unwrap_or_default();
            check_crc(found, bytes).map_err(|damage| self.corrupt(damage))?;
            self.check_epoch(found, epochs)?;
        }
        Ok(())
    }
}
