//! One round of compaction over one log, in steps.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::filter::{Rules, read_marker};
use super::offset_map::OffsetMap;
use super::output::{Cleaned, Output};
use super::transactions::{Marker, Transactions};
use super::{CleanerLimits, Dirtiness};
use crate::env::Env;
use crate::error::Result;
use crate::log::config::LogConfig;
use crate::log::index::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use crate::log::producers::{AbortedTransaction, ProducerState};
use crate::log::reader::LogReader;
use crate::log::scan::{Expected, Found, Scan};
use crate::log::segment::Segment;
use crate::log::shared::Shared;
use crate::record::{Batch, BatchHeader};
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// A step processes about this many bytes.
const STEP_BYTES: u64 = 1 << 20;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanerSummary {
    /// Everything below it is clean; to be saved with
    /// [`LogDirectory::write_cleaner_offset`](crate::log::LogDirectory::write_cleaner_offset).
    pub end: Offset,
    /// The records that were read.
    pub records_before: u64,
    /// The records that were kept.
    pub records_after: u64,
    /// The bytes of the old segments.
    pub bytes_before: u64,
    /// The bytes of the new segments.
    pub bytes_after: u64,
    /// The keys of the dirty part.
    pub keys: usize,
}

/// The result of a step.
#[derive(Debug)]
pub enum Progress {
    /// There is more to do; this many bytes were read and written.
    More(u64),
    /// A segment is ready; hand it to [`Log::replace_segments`](crate::log::Log::replace_segments)
    /// before the next step. If that refuses it, abandon the round.
    Cleaned(Cleaned),
    /// The round is over.
    Done(CleanerSummary),
}

/// One round. It may be dropped at any time.
#[derive(Debug)]
pub struct Cleaner {
    shared: Arc<Shared>,
    config: LogConfig,
    limits: CleanerLimits,
    /// The sealed segments with something below the first uncleanable offset, and where the pass is.
    segments: Vec<Arc<Segment>>,
    at: (usize, u64),
    first_dirty: Offset,
    first_uncleanable: Offset,
    aborted: Vec<AbortedTransaction>,
    transactions: Transactions,
    rules: Rules,
    stage: Stage,
    summary: CleanerSummary,
}

#[derive(Debug)]
enum Stage {
    Map,
    Copy { groups: VecDeque<Vec<Arc<Segment>>>, output: Option<Box<Output>> },
    Done,
}

/// Whole batches of a segment, checked.
struct CheckedBatches {
    data: Bytes,
    start: u64,
    found: Vec<Found>,
    end: u64,
}

impl Cleaner {
    /// Begins a round. What is to be compacted should have been synced before; what was not is left for
    /// another round (`CMP-7`).
    #[must_use]
    pub fn new(
        env: &Env,
        reader: &LogReader,
        config: &LogConfig,
        limits: CleanerLimits,
        dirtiness: &Dirtiness,
        now: TimestampMs,
    ) -> Self {
        let shared = Arc::clone(&reader.shared);
        let first_dirty = dirtiness.first_dirty;
        let first_uncleanable = dirtiness.first_uncleanable.min(reader.recovery_point());
        let view = shared.view.load_full();
        let segments: Vec<Arc<Segment>> = view
            .segments
            .split_last()
            .map_or(&[][..], |(_, sealed)| sealed)
            .iter()
            .take_while(|segment| segment.base_offset < first_uncleanable)
            .cloned()
            .collect();
        let aborted = shared.aborted().clone();
        let last = |state: &ProducerState| {
            let last = state.batches.back().map(|batch| batch.last_offset);
            (state.producer_id, (state.epoch, last))
        };
        let producers = shared.producers().states().map(last).collect();
        let keys = u64::try_from(first_uncleanable.0.saturating_sub(first_dirty.0)).unwrap_or(0);
        let rules = Rules {
            map: OffsetMap::new(&*env.random, limits.map_bytes, limits.load_factor, keys),
            end: first_dirty,
            now,
            delete_retention_ms: config.delete_retention_ms,
            level: config.compression_type.zip(config.compression_level),
            uncompressed_bytes_max: config.uncompressed_bytes_max,
            producers,
        };
        let first = segments.partition_point(|segment| segment.next_offset() <= first_dirty);
        let ahead = aborted.iter().filter(|entry| entry.last_offset >= first_dirty);
        Self {
            config: config.clone(),
            limits,
            at: (first, 0),
            first_dirty,
            first_uncleanable,
            transactions: Transactions::new(ahead.copied().collect()),
            aborted,
            rules,
            segments,
            stage: Stage::Map,
            summary: CleanerSummary::default(),
            shared,
        }
    }

    /// Does part of the work. Blocks.
    ///
    /// # Errors
    ///
    /// `Corrupt` when a batch is not what was written: none of it is rewritten;
    /// `Io`, `Offline`: see [`crate::error::Error`].
    pub fn step(&mut self) -> Result<Progress> {
        self.shared.health.check()?;
        match &mut self.stage {
            Stage::Map => self.map(),
            Stage::Copy { .. } => self.copy(),
            Stage::Done => Ok(Progress::Done(self.summary)),
        }
    }

    /// The first pass: the last offset of each key of the dirty part.
    fn map(&mut self) -> Result<Progress> {
        let (index, position) = self.at;
        let Some(segment) = self.segments.get(index).cloned() else { return Ok(self.mapped()) };
        let Some(chunk) = read_chunk(&segment, position, &self.shared)? else {
            self.at = (index + 1, 0);
            return Ok(Progress::More(0));
        };
        for found in &chunk.found {
            let header = &found.header;
            if header.next_offset() > self.first_uncleanable {
                return Ok(self.mapped());
            }
            if !self.map_batch(&chunk.batch(found, &segment)?)? {
                return Ok(self.mapped());
            }
        }
        self.at = (index, chunk.end);
        Ok(Progress::More(chunk.end - chunk.start))
    }

    /// Adds the keys of a batch to the map; false when the map is full.
    fn map_batch(&mut self, batch: &Batch) -> Result<bool> {
        let header = *batch.header();
        let skip = if header.is_control() {
            let _: Marker = self.transactions.control(&header, read_marker(batch)?);
            true
        } else {
            self.transactions.data(&header)
        };
        if !skip && header.last_offset() >= self.first_dirty {
            for record in &batch.records(self.config.uncompressed_bytes_max)? {
                let record = record?;
                let Some(key) = record.key else { continue };
                if record.offset >= self.first_dirty && !self.rules.map.put(key, record.offset) {
                    self.rules.end = record.offset;
                    return Ok(false);
                }
            }
        }
        self.rules.end = self.rules.end.max(header.next_offset());
        Ok(true)
    }

    /// Between the passes.
    fn mapped(&mut self) -> Progress {
        self.summary.keys = self.rules.map.len();
        self.summary.end = self.rules.end;
        let end = self.rules.end;
        self.segments.retain(|segment| segment.base_offset < end);
        let first = self.segments.first().map_or(end, |segment| segment.base_offset);
        let behind = self.aborted.iter().filter(|entry| entry.last_offset >= first);
        self.transactions = Transactions::new(behind.copied().collect());
        let nothing = end == self.first_dirty;
        let groups = if nothing { VecDeque::new() } else { group(&self.segments, &self.config) };
        self.stage = Stage::Copy { groups, output: None };
        Progress::More(0)
    }

    /// The second pass: writes one group after another.
    fn copy(&mut self) -> Result<Progress> {
        let Stage::Copy { groups, output } = &mut self.stage else {
            return Ok(Progress::Done(self.summary));
        };
        let Some(writing) = output else {
            let Some(sources) = groups.pop_front() else {
                self.stage = Stage::Done;
                return Ok(Progress::Done(self.summary));
            };
            let Some(home) = sources.first().map(|first| first.home().clone()) else {
                return Ok(Progress::More(0));
            };
            for source in &sources {
                // Their names will refer to other files (`CMP-8`).
                source.pin()?;
                self.summary.bytes_before += source.size();
            }
            let (health, buffer) = (&self.shared.health, self.limits.buffer_bytes);
            let begun = Output::new(&home, health, &self.config, sources, buffer)?;
            *output = Some(Box::new(begun));
            self.at = (0, 0);
            return Ok(Progress::More(0));
        };
        let (index, position) = self.at;
        let Some(segment) = writing.sources().get(index).cloned() else {
            return match output.take() {
                Some(output) => self.complete(*output),
                None => Ok(Progress::More(0)),
            };
        };
        let Some(chunk) = read_chunk(&segment, position, &self.shared)? else {
            self.at = (index + 1, 0);
            return Ok(Progress::More(0));
        };
        let mut bytes = chunk.end - chunk.start;
        for found in &chunk.found {
            let batch = chunk.batch(found, &segment)?;
            let filtered = self.rules.filter(&batch, &mut self.transactions)?;
            self.summary.records_before += u64::from(found.header.record_count.unsigned_abs());
            self.summary.records_after += u64::from(filtered.records.unsigned_abs());
            if let Some(entry) = filtered.aborted {
                writing.note_aborted(entry);
            }
            if let Some(kept) = filtered.bytes {
                let header = BatchHeader::parse(&kept)?;
                bytes += writing.append(&header, kept)?;
            }
        }
        self.at = (index, chunk.end);
        Ok(Progress::More(bytes))
    }

    fn complete(&mut self, mut output: Output) -> Result<Progress> {
        // Markers that the round did not reach are kept in full (`CMP-3`).
        let range = output.sources().first().map_or(Offset::ZERO, |first| first.base_offset)
            ..output.sources().last().map_or(Offset::ZERO, |last| last.next_offset());
        for entry in &self.aborted {
            if range.contains(&entry.last_offset) && entry.last_offset >= self.rules.end {
                output.note_aborted(*entry);
            }
        }
        let cleaned = output.finish()?;
        self.summary.bytes_after += cleaned.size;
        Ok(Progress::Cleaned(cleaned))
    }
}

impl CheckedBatches {
    fn batch(&self, found: &Found, segment: &Segment) -> Result<Batch> {
        let expected =
            Expected { next: found.header.base_offset, exact: false, epoch: LeaderEpoch::UNKNOWN };
        let scan = Scan::new(&self.data, self.start, expected);
        scan.batch_of(found).map_err(|damage| segment.corrupt(damage))
    }
}

/// The next whole batches of a sealed segment, with verified checksums; none at its end.
fn read_chunk(segment: &Segment, position: u64, shared: &Shared) -> Result<Option<CheckedBatches>> {
    if position >= segment.size() {
        return Ok(None);
    }
    let data = segment.piece(position)?;
    let mut scan = Scan::new(&data, position, Expected::anywhere(segment.base_offset));
    let (mut found, mut end) = (Vec::new(), position);
    while end - position < STEP_BYTES {
        let Some(next) = scan.next().map_err(|damage| segment.corrupt(damage))? else { break };
        end = next.end();
        found.push(next);
    }
    segment.verify_in(&data, position, position..end, &shared.epochs.load())?;
    Ok(Some(CheckedBatches { data, start: position, found, end }))
}

/// Neighbours that fit into one segment.
fn group(segments: &[Arc<Segment>], config: &LogConfig) -> VecDeque<Vec<Arc<Segment>>> {
    let mut groups: VecDeque<Vec<Arc<Segment>>> = VecDeque::new();
    let (mut size, mut offsets, mut times) = (0_u64, 0_u64, 0_u64);
    let index_max = u64::from(config.segment_index_bytes);
    for segment in segments {
        let more = (
            segment.size(),
            segment.offset_index().len() as u64 * u64::from(OFFSET_ENTRY_BYTES),
            segment.time_index().len() as u64 * u64::from(TIME_ENTRY_BYTES),
        );
        let fits = |group: &Vec<Arc<Segment>>| {
            let base = group.first().map_or(segment.base_offset, |first| first.base_offset);
            size + more.0 <= u64::from(config.segment_bytes)
                && offsets + more.1 <= index_max
                && times + more.2 <= index_max
                && i32::try_from(segment.next_offset().0.saturating_sub(base.0)).is_ok()
        };
        match groups.back_mut() {
            Some(group) if fits(group) => {
                (size, offsets, times) = (size + more.0, offsets + more.1, times + more.2);
                group.push(Arc::clone(segment));
            }
            _ => {
                (size, offsets, times) = more;
                groups.push_back(vec![Arc::clone(segment)]);
            }
        }
    }
    groups
}
