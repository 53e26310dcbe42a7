//! From fetched bytes to outputs of a fixed number of rows.
//!
//! Chunks (a fetch response's records of one partition, or a mapped range of a segment) are pushed
//! in, outputs are taken out. A batch that does not fit is split between two outputs; records
//! outside of the chunk's range, control batches and aborted transactions are left out.
//!
//! ```text
//! chunks   │ b │ b │ b │ b │   │ b │ b │ b │
//! outputs  │ 10,000 rows │ 10,000 rows │ rest
//! ```
//!
//! Invariants:
//!
//! - **CA-1** A record is in exactly one output, and outputs are in the order of the chunks.
//! - **CA-2** The CRC of a batch is checked before any of its records is read, here or before its chunk
//!   was pushed ([`FetchedBytes::checked`]).
//! - **CA-3** Memory is bounded by the chunks that were pushed and `decompressed_size_max`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{AsArray, BinaryViewArray, Int64Array, UInt32Array};

use bytes::Bytes;

use super::decode::{Constants, Filled, Filler, Place, Progress, Span};
use super::unpack::{Ahead, Pool, Unpack};
use crate::columnar::columns::{KafkaColumn, Projection};
use crate::error::{Error, ErrorCode, Result};
use crate::record::control::read_control_batch;
use crate::record::{
    Batch, BatchHeader, Compression, HEADER_SIZE, TimestampType, WalkError, peek_size,
};
use crate::types::{Offset, PartitionIndex, ProducerId, TopicPartition};

/// A decompressed batch smaller than this is copied together with its neighbours.
const SHARED_BATCH_MAX: usize = 64 << 10;

/// The range of a transaction that was aborted, as a fetch response tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// The producer.
    pub producer_id: ProducerId,
    /// The first offset of the transaction.
    pub first_offset: Offset,
}

/// Fetched bytes of one partition and the range of them that is wanted.
#[derive(Clone, Debug)]
pub struct FetchedBytes {
    /// The partition.
    pub partition: TopicPartition,
    /// Whole batches, and maybe a part of one at the end, which is left alone.
    pub bytes: Bytes,
    /// The first offset that is wanted.
    pub start: Offset,
    /// The offset that is not wanted any more, nor any behind it.
    pub end: Offset,
    /// The aborted transactions of these bytes, for `read_committed`; none to read all.
    pub aborted: Option<Vec<AbortedTransaction>>,
    /// Whether the checksums of these bytes were compared already where they lie in memory.
    pub checked: bool,
}

impl FetchedBytes {
    /// All records of some bytes, `read_uncommitted`.
    #[must_use]
    pub const fn whole(partition: TopicPartition, bytes: Bytes) -> Self {
        let (start, end) = (Offset::ZERO, Offset(i64::MAX));
        Self { partition, bytes, start, end, aborted: None, checked: false }
    }
}

/// How far one partition was read by an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset from which the output covers the partition.
    pub from: Offset,
    /// The offset behind everything that was read, left-out records as well: where to go on.
    pub next: Offset,
}

/// One output before its values are decoded.
#[derive(Debug)]
pub(in crate::columnar) struct Assembled {
    pub(in crate::columnar) filled: Filled,
    pub(in crate::columnar) progress: Vec<PartitionProgress>,
    /// The rows of each partition in order, for errors that name one.
    pub(in crate::columnar) origins: Vec<(TopicPartition, usize)>,
}

impl Assembled {
    /// The values, if they were asked for.
    pub(in crate::columnar) fn values(&self) -> Option<&BinaryViewArray> {
        self.filled.column(KafkaColumn::Value).and_then(|one| one.as_binary_view_opt())
    }

    /// The bytes of all values.
    pub(in crate::columnar) fn value_bytes(&self) -> usize {
        let views = self.values().into_iter().flat_map(|values| values.views().iter());
        // The size is in the lower half of a view's lower half.
        views.map(|view| *view as u32 as usize).sum()
    }

    /// The same with the records of these rows, which go up.
    pub(in crate::columnar) fn taken(&self, records: &[u32]) -> Result<Self> {
        let rows = UInt32Array::from(records.to_vec());
        let filled = self.filled.taken(&rows).map_err(|error| {
            Error::invalid(format!("could not repeat the columns of records: {error}"))
        })?;
        let mut origins = Vec::with_capacity(self.origins.len());
        let (mut end, mut done) = (0_usize, 0_usize);
        for (partition, count) in &self.origins {
            end = end.saturating_add(*count);
            let until = records.partition_point(|record| (*record as usize) < end);
            origins.push((partition.clone(), until.saturating_sub(done)));
            done = until;
        }
        Ok(Self { filled, progress: self.progress.clone(), origins })
    }

    /// How far partitions are read with the records before one of them, and the rest from it on.
    pub(in crate::columnar) fn split(&self, at: usize) -> Result<(Vec<PartitionProgress>, Self)> {
        let behind: Vec<u32> = (at..self.filled.rows).map(|row| row as u32).collect();
        let mut rest = self.taken(&behind)?;
        let mut before: BTreeSet<&TopicPartition> = BTreeSet::new();
        let mut firsts: BTreeMap<&TopicPartition, usize> = BTreeMap::new();
        let mut row = 0_usize;
        for (partition, count) in &self.origins {
            let end = row.saturating_add(*count);
            if row < at.min(end) {
                before.insert(partition);
            }
            if at < end {
                firsts.entry(partition).or_insert_with(|| row.max(at));
            }
            row = end;
        }
        let offsets = self.filled.column(KafkaColumn::Offset).map(AsArray::as_primitive);
        let offset = |row| {
            let offsets: Option<&Int64Array> = offsets;
            let offset = offsets.and_then(|offsets| offsets.values().get(row).copied());
            offset.map(Offset).ok_or_else(|| {
                Error::invalid("the records of an output cannot be split without their offsets")
            })
        };
        let mut progress = Vec::with_capacity(self.progress.len());
        rest.progress.clear();
        for known in &self.progress {
            let Some(&first) = firsts.get(&known.partition) else {
                progress.push(known.clone());
                continue;
            };
            let mut behind = known.clone();
            if before.contains(&known.partition) {
                behind.from = offset(first)?;
                progress.push(PartitionProgress { next: behind.from, ..known.clone() });
            }
            rest.progress.push(behind);
        }
        Ok((progress, rest))
    }
}

/// The batch that is being read.
#[derive(Debug)]
struct Open {
    header: BatchHeader,
    /// The uncompressed records.
    data: Bytes,
    progress: Progress,
}

/// A pushed chunk and how far it was read.
#[derive(Debug)]
struct Cursor {
    chunk: FetchedBytes,
    /// Where the next batch starts; the open one starts at `open_at`.
    at: usize,
    open_at: usize,
    open: Option<Open>,
    /// What is decompressed before its turn.
    ahead: Ahead,
    /// How many of the aborted transactions have begun, and who is in one.
    aborted_seen: usize,
    aborted_now: BTreeSet<i64>,
    /// The offset behind everything that was read.
    position: Offset,
    /// The buffer of the current output that covers the chunk's bytes from a place on.
    window: Option<Window>,
    /// Registered in the current output.
    index: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    buffer: u32,
    start: usize,
    end: usize,
}

/// What [`Assembler::next`] came to.
#[derive(Debug)]
pub(in crate::columnar) enum Next {
    Output(Assembled),
    /// More chunks are needed.
    Input,
    /// A batch that is being decompressed is next.
    Blocked,
}

/// What became of a step.
enum Stepped {
    More,
    /// The chunk is read.
    End,
    /// The next batch is being decompressed.
    Blocked,
}

/// Cuts chunks into outputs.
#[derive(Debug)]
pub(in crate::columnar) struct Assembler {
    projection: Projection,
    max_rows: usize,
    max_bytes: usize,
    decompressed_size_max: usize,
    cursors: VecDeque<Cursor>,
    filler: Filler,
    constants: Option<Constants>,
    wants_to_unpack: bool,
    pool: Pool,
    partitions: Vec<(Arc<str>, PartitionIndex)>,
    progress: Vec<PartitionProgress>,
    origins: Vec<(TopicPartition, usize)>,
}

impl Assembler {
    pub(in crate::columnar) fn new(
        projection: Projection,
        (max_rows, max_bytes): (usize, usize),
        decompressed_size_max: usize,
    ) -> Self {
        Self {
            projection,
            max_rows,
            max_bytes,
            decompressed_size_max,
            cursors: VecDeque::new(),
            filler: Filler::new(projection, max_rows, max_bytes),
            constants: None,
            wants_to_unpack: false,
            pool: Pool::default(),
            partitions: Vec::new(),
            progress: Vec::new(),
            origins: Vec::new(),
        }
    }

    pub(in crate::columnar) fn push(&mut self, mut chunk: FetchedBytes) {
        if let Some(aborted) = &mut chunk.aborted {
            aborted.sort_by_key(|transaction| transaction.first_offset);
        }
        self.cursors.push_back(Cursor {
            position: chunk.start,
            chunk,
            at: 0,
            open_at: 0,
            open: None,
            ahead: Ahead::default(),
            aborted_seen: 0,
            aborted_now: BTreeSet::new(),
            window: None,
            index: None,
        });
    }

    /// Changes the columns of the outputs after the one in work, which must be empty.
    pub(in crate::columnar) fn set_projection(&mut self, projection: Projection) {
        self.projection = projection;
        if self.filler.rows() == 0 {
            self.filler = Filler::new(projection, self.max_rows, self.max_bytes);
        }
    }

    /// The bytes of chunks that were pushed and not yet read.
    pub(in crate::columnar) fn pending_bytes(&self) -> usize {
        let left = |cursor: &Cursor| cursor.chunk.bytes.len().saturating_sub(cursor.at);
        self.cursors.iter().map(left).sum()
    }

    /// Batches to decompress ahead of their turn.
    pub(in crate::columnar) fn unpack(&mut self) -> Option<Unpack> {
        let size_max = self.decompressed_size_max;
        let (mut found, mut hungry) = (None, true);
        for cursor in &mut self.cursors {
            found = cursor.ahead.next((&cursor.chunk, cursor.at), size_max, &self.pool);
            hungry = cursor.ahead.is_hungry();
            if found.is_some() || !hungry {
                break;
            }
        }
        self.wants_to_unpack = found.is_none() && hungry;
        found
    }

    /// About how many bytes are, or will be, decompressed ahead of their turn.
    pub(in crate::columnar) fn unpacked_bytes(&self) -> usize {
        self.cursors.iter().map(|cursor| cursor.ahead.bytes()).sum()
    }

    /// Whether more chunks would give [`Self::unpack`] something to do, as far as it knows.
    pub(in crate::columnar) const fn wants_to_unpack(&self) -> bool {
        self.wants_to_unpack
    }

    /// The next output: a full one, or with `finish` what is there.
    ///
    /// With `finish`, an output may have no rows where all records were left out but progress
    /// was made.
    pub(in crate::columnar) fn next(&mut self, finish: bool) -> Result<Next> {
        while !self.filler.is_full() {
            let Some(mut cursor) = self.cursors.pop_front() else { break };
            let step = self.step(&mut cursor);
            match step {
                Ok(Stepped::More) => self.cursors.push_front(cursor),
                Ok(Stepped::Blocked) => {
                    self.cursors.push_front(cursor);
                    return Ok(Next::Blocked);
                }
                Ok(Stepped::End) => self.leave(&mut cursor),
                Err(error) => {
                    // The rest of the chunk cannot be trusted; rows before stay.
                    self.leave(&mut cursor);
                    return Err(error.in_partition(&cursor.chunk.partition));
                }
            }
        }
        if self.filler.is_full() || (finish && !self.progress.is_empty()) {
            return self.cut().map(Next::Output);
        }
        Ok(Next::Input)
    }

    /// Reads one batch, or what of it fits.
    fn step(&mut self, cursor: &mut Cursor) -> Result<Stepped> {
        if cursor.open.is_none() {
            match self.open(cursor)? {
                Stepped::More => {}
                other => return Ok(other),
            }
        }
        // `open` left this out: a control batch, an aborted one, one in front of the range.
        let Some(mut open) = cursor.open.take() else { return Ok(Stepped::More) };
        let index = self.register(cursor);
        let before = self.filler.rows();
        let place = self.place(cursor, &open);
        let header = &open.header;
        let span = Span {
            base_offset: header.base_offset.0,
            last_offset_delta: header.last_offset_delta.unsigned_abs(),
            base_timestamp: header.base_timestamp.0,
            log_append_time: (header.timestamp_type() == TimestampType::LogAppendTime)
                .then_some(header.max_timestamp.0),
            start: cursor.chunk.start.0,
            end: cursor.chunk.end.0,
        };
        let result = self.filler.fill(&open.data, place, &span, (open.progress, index));
        let (progress, failed) = match result {
            Ok(progress) => (progress, None),
            Err((progress, error)) => (progress, Some(error)),
        };
        let rows = self.filler.rows().saturating_sub(before);
        let done = progress.left <= 0;
        let next = if done { header.next_offset() } else { Offset(progress.next_offset) };
        self.advance(cursor, next, rows);
        if let Some(error) = failed {
            return Err(broken(header, progress.at, error));
        }
        if progress.reached_end {
            return Ok(Stepped::End);
        }
        if !done {
            open.progress = progress;
            cursor.open = Some(open);
        }
        Ok(Stepped::More)
    }

    /// Opens the next batch of the chunk if it is wanted.
    fn open(&mut self, cursor: &mut Cursor) -> Result<Stepped> {
        let bytes = cursor.chunk.bytes.clone();
        let rest = bytes.get(cursor.at..).unwrap_or_default();
        let Some(size) = peek_size(rest)?.filter(|size| *size <= rest.len()) else {
            return Ok(Stepped::End);
        };
        let whole = rest.get(..size).unwrap_or_default();
        let header = BatchHeader::parse(whole)?;
        if header.base_offset >= cursor.chunk.end {
            self.advance(cursor, cursor.chunk.end, 0);
            return Ok(Stepped::End);
        }
        if cursor.ahead.is_pending(cursor.at) {
            return Ok(Stepped::Blocked);
        }
        let ahead = cursor.ahead.take(cursor.at);
        cursor.open_at = cursor.at;
        cursor.at = cursor.at.saturating_add(size);
        let in_front = header.next_offset() <= cursor.chunk.start;
        if in_front && !(header.is_control() && cursor.chunk.aborted.is_some()) {
            return Ok(Stepped::More);
        }
        // The checksums of those that were decompressed ahead were compared then.
        let is_verified = cursor.chunk.checked || (ahead.is_some() && !is_aborted(cursor, &header));
        if !is_verified {
            header.verify_crc(whole)?;
        }
        if header.is_control() || is_aborted(cursor, &header) {
            if header.is_control() {
                end_transaction(cursor, &header)?;
            }
            if !in_front {
                self.advance(cursor, header.next_offset(), 0);
            }
            return Ok(Stepped::More);
        }
        let from = cursor.open_at.saturating_add(HEADER_SIZE);
        let stored = bytes.slice(from..cursor.at);
        let data = match ahead {
            Some(ahead) => ahead?,
            None if header.compression == Compression::None => stored,
            None => self.pool.unpacked(&header, &stored, self.decompressed_size_max)?,
        };
        header.check_count(data.len())?;
        let progress = Progress {
            left: header.record_count,
            at: 0,
            reached_end: false,
            next_offset: header.base_offset.0,
        };
        cursor.open = Some(Open { header, data, progress });
        Ok(Stepped::More)
    }

    /// Finds the place of the open batch's records in a buffer of the output (CD-1, CD-2).
    fn place(&mut self, cursor: &mut Cursor, open: &Open) -> Place {
        if !self.filler.wants_views() {
            return Place { buffer: 0, at: 0 };
        }
        if open.header.compression != Compression::None {
            if open.data.len() <= SHARED_BATCH_MAX {
                return self.filler.share(&open.data);
            }
            let buffer = self.filler.add_buffer();
            self.filler.set_buffer(buffer, open.data.clone());
            return Place { buffer, at: 0 };
        }
        let fits = |window: &Window| {
            i32::try_from(cursor.at.saturating_sub(window.start)).is_ok()
                && cursor.open_at >= window.start
        };
        let mut window = if let Some(window) = cursor.window.filter(fits) {
            window
        } else {
            self.close_window(cursor);
            let buffer = self.filler.add_buffer();
            Window { buffer, start: cursor.open_at, end: cursor.at }
        };
        window.end = window.end.max(cursor.at);
        cursor.window = Some(window);
        let records_at = cursor.open_at.saturating_add(HEADER_SIZE);
        let at = u32::try_from(records_at.saturating_sub(window.start)).unwrap_or(u32::MAX);
        Place { buffer: window.buffer, at }
    }

    fn close_window(&mut self, cursor: &mut Cursor) {
        if let Some(window) = cursor.window.take() {
            let bytes = cursor.chunk.bytes.slice(window.start..window.end);
            self.filler.set_buffer(window.buffer, bytes);
        }
    }

    /// The number of the cursor's partition in this output.
    fn register(&mut self, cursor: &mut Cursor) -> usize {
        if let Some(index) = cursor.index {
            return index;
        }
        let partition = &cursor.chunk.partition;
        let known = self.progress.iter().position(|known| known.partition == *partition);
        let index = known.unwrap_or_else(|| {
            self.partitions.push((Arc::clone(&partition.topic), partition.partition));
            self.progress.push(PartitionProgress {
                partition: partition.clone(),
                from: cursor.position,
                next: cursor.position,
            });
            self.progress.len().saturating_sub(1)
        });
        cursor.index = Some(index);
        index
    }

    fn advance(&mut self, cursor: &mut Cursor, next: Offset, rows: usize) {
        let index = self.register(cursor);
        cursor.position = cursor.position.max(next.min(cursor.chunk.end));
        if let Some(progress) = self.progress.get_mut(index) {
            progress.next = progress.next.max(cursor.position);
        }
        let chunk = &cursor.chunk;
        if rows == 0 {
            return;
        }
        match self.origins.last_mut() {
            Some((partition, count)) if *partition == chunk.partition => {
                *count = count.saturating_add(rows);
            }
            _ => self.origins.push((chunk.partition.clone(), rows)),
        }
    }

    /// Ends the work on a chunk.
    fn leave(&mut self, cursor: &mut Cursor) {
        self.close_window(cursor);
        cursor.open = None;
    }

    /// Ends the output; the cursor in the middle goes on in the next one.
    fn cut(&mut self) -> Result<Assembled> {
        if let Some(mut cursor) = self.cursors.pop_front() {
            self.close_window(&mut cursor);
            cursor.index = None;
            self.cursors.push_front(cursor);
        }
        let empty = Filler::new(self.projection, self.max_rows, self.max_bytes);
        let filled = std::mem::replace(&mut self.filler, empty)
            .finish(&std::mem::take(&mut self.partitions), &mut self.constants)
            .map_err(|error| Error::malformed("columns", error.to_string()))?;
        Ok(Assembled {
            filled,
            progress: std::mem::take(&mut self.progress),
            origins: std::mem::take(&mut self.origins),
        })
    }
}

/// Whether the batch belongs to an aborted transaction: Kafka's consumer decides the same way,
/// from the list of the fetch response and the abort markers on the way.
fn is_aborted(cursor: &mut Cursor, header: &BatchHeader) -> bool {
    let Some(aborted) = &cursor.chunk.aborted else { return false };
    while let Some(next) = aborted.get(cursor.aborted_seen) {
        if next.first_offset > header.last_offset() {
            break;
        }
        cursor.aborted_now.insert(next.producer_id.0);
        cursor.aborted_seen = cursor.aborted_seen.saturating_add(1);
    }
    header.is_transactional()
        && header.has_producer_id()
        && cursor.aborted_now.contains(&header.producer_id.0)
}

fn end_transaction(cursor: &mut Cursor, header: &BatchHeader) -> Result<()> {
    if cursor.chunk.aborted.is_none() {
        return Ok(());
    }
    is_aborted(cursor, header);
    let batch = Batch::parse(&cursor.chunk.bytes.slice(cursor.open_at..cursor.at))?;
    if let (_, Some(marker)) = read_control_batch(&batch)?
        && !marker.committed
    {
        cursor.aborted_now.remove(&header.producer_id.0);
    }
    Ok(())
}

fn broken(header: &BatchHeader, position: usize, error: WalkError) -> Error {
    let detail = format!("at byte {position} of the records: {}", error.text());
    Error::of_batch(ErrorCode::CorruptMessage, header.base_offset, detail)
}
