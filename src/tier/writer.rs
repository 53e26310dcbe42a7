//! Writes the batches of a closed segment as a file of the tier.
//!
//! Each batch is taken apart and put together again at once: if that does not give the bytes of the log, they are
//! kept beside the rows. So nothing depends on what a client, or another release, thought a batch may look like.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;

use super::blocks::Checked;
use super::footer;
use super::rows::{REBUILT_BYTES_MAX, Row, RowsBuilder, deltas};
use super::schema::{self, TypedColumn};
use super::section::{
    About, Directory, Group, Packed, SectionWriter, Totals, encode_aborted, encode_checksums,
    encode_epochs,
};
use super::table::{self, Line, Raw};
use super::values::{VALUES_KEY, ValueDecoding, ValueSchema};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{AbortedTransaction, EpochEntry};
use crate::record::{
    Batch, BatchHeader, BatchRebuilder, Compression, Headers, TimestampType, Walker, check_headers,
    compress,
};
use crate::types::{Offset, PartitionIndex, TimestampMs, Uuid};

/// A row group ends with the batch that brings it to one of these.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupLimits {
    pub(super) rows: u32,
    /// Lines of the batch table.
    pub(super) lines: usize,
    /// Bytes of records, uncompressed.
    pub(super) bytes: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self { rows: 128 << 10, lines: 128 << 10, bytes: 32 << 20 }
    }
}

/// Rows that wait to be encoded have so many bytes, or are of one batch.
const WAITING_BYTES: usize = 8 << 20;
/// A row group with typed columns ends when its pages take so much memory.
const GROUP_MEMORY_MAX: usize = 96 << 20;
/// The level for batches that are kept as they were, and are not compressed.
const RAW_LEVEL: i32 = 1;

/// A segment that is to become a file.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The name of the topic.
    pub topic: String,
    /// Its id.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset, whether there is a record with it or not.
    pub base_offset: Offset,
    /// The most bytes that the records of a batch may have uncompressed.
    pub uncompressed_bytes_max: usize,
}

/// What is known at the end of a segment, besides its batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtEnd {
    /// The offset behind the last one.
    pub end_offset: Offset,
    /// The producers, as a `.snapshot` file of Kafka's; empty if they are not known.
    pub producers: Bytes,
    /// Which leader wrote which offsets, up to the end.
    pub epochs: Vec<EpochEntry>,
    /// The aborted transactions with records in the segment.
    pub aborted: Vec<AbortedTransaction>,
}

/// Writes a file.
pub struct SegmentWriter<W: Write + Send> {
    /// How errors name the file.
    path: PathBuf,
    writer: ArrowWriter<Checked<W>>,
    segment: Segment,
    pub(super) limits: GroupLimits,
    totals: Totals,
    groups: Vec<(Group, Packed)>,
    /// The offset that the next batch may begin with.
    next: Offset,
    open: OpenGroup,
    /// The columns of the file, and what makes the typed ones, if there are any.
    schema: SchemaRef,
    values: Option<ValueDecoding>,
}

impl<W: Write + Send> std::fmt::Debug for SegmentWriter<W> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SegmentWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The group that is being written.
#[derive(Debug)]
struct OpenGroup {
    lines: Vec<Line>,
    /// What is not with the encoder yet, and how many bytes it has.
    waiting: RowsBuilder,
    waiting_bytes: usize,
    rows: u32,
    bytes: usize,
    raw_at: u64,
    raw_size: u64,
    max_timestamp: TimestampMs,
    /// Whether it takes enough memory to end.
    is_full: bool,
}

impl OpenGroup {
    fn new() -> Self {
        Self {
            lines: Vec::new(),
            waiting: RowsBuilder::new(),
            waiting_bytes: 0,
            rows: 0,
            bytes: 0,
            raw_at: 0,
            raw_size: 0,
            max_timestamp: TimestampMs::NONE,
            is_full: false,
        }
    }
}

/// What rows make of a batch.
enum Rebuilt {
    /// The batch, or for a compressed one its records: this is its header.
    Same(BatchHeader),
    /// Something else.
    Other,
}

impl<W: Write + Send> SegmentWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    pub fn new(output: W, path: impl AsRef<Path>, segment: Segment) -> Result<Self> {
        Self::create(output, path.as_ref(), segment, &[], None)
    }

    /// Begins a file with typed columns: those of the schema, by these names and field ids.
    ///
    /// # Errors
    ///
    /// When the output cannot be written; an invalid argument for names that are not those of the schema's columns.
    pub fn with_values(
        output: W,
        path: impl AsRef<Path>,
        segment: Segment,
        (values, names): (ValueSchema, &[(String, u32)]),
    ) -> Result<Self> {
        let typed = values.typed(names)?;
        let names = names.iter().map(|(name, _)| name.clone()).collect();
        let values = ValueDecoding::new(values, names)?;
        Self::create(output, path.as_ref(), segment, &typed, Some(values))
    }

    fn create(
        output: W,
        path: &Path,
        segment: Segment,
        typed: &[TypedColumn],
        values: Option<ValueDecoding>,
    ) -> Result<Self> {
        let path = path.to_path_buf();
        let options = ArrowWriterOptions::new()
            .with_properties(schema::properties(typed)?)
            .with_skip_arrow_metadata(true);
        let schema = schema::schema_with(typed);
        let checked = Checked::new(output);
        let writer = ArrowWriter::try_new_with_options(checked, Arc::clone(&schema), options)
            .map_err(|error| failed(&path, error))?;
        Ok(Self {
            path,
            writer,
            next: segment.base_offset,
            segment,
            limits: GroupLimits::default(),
            totals: Totals::default(),
            groups: Vec::new(),
            open: OpenGroup::new(),
            schema,
            values,
        })
    }

    /// Adds the next batch of the log, and says whether it is of a transaction that was aborted.
    ///
    /// # Errors
    ///
    /// `CORRUPT_MESSAGE` or `INVALID_RECORD` for a batch that is damaged or does not follow the one before;
    /// [`Error::Io`] when the output cannot be written. The file is of no use then.
    pub fn append(&mut self, batch: &Batch, is_aborted: bool) -> Result<()> {
        batch.verify_crc()?;
        let header = *batch.header();
        if header.base_offset < self.next {
            let detail = format!("it does not follow offset {}", self.next);
            return Err(refused(&header, &detail));
        }
        let has_rows = !header.is_control() && !is_aborted;
        let is_kept = match header.record_count {
            // What compaction has left is its header.
            0 => header.is_control() || header.compression != Compression::None,
            _ => !has_rows,
        };
        let rebuilt = if is_kept { Rebuilt::Other } else { self.take_apart(batch)? };
        let (header, raw) = match rebuilt {
            Rebuilt::Same(header) => (header, None),
            Rebuilt::Other => (header, Some(self.keep(batch)?)),
        };
        self.totals.batches += 1;
        self.totals.log_bytes += batch.bytes().len() as u64;
        self.next = header.next_offset();
        let group = &mut self.open;
        group.lines.push(Line { header, has_rows, raw });
        group.max_timestamp = group.max_timestamp.max(header.max_timestamp);
        let GroupLimits { rows, lines, bytes } = self.limits;
        let is_full = group.is_full || group.bytes >= bytes;
        if is_full || group.rows >= rows || group.lines.len() >= lines {
            self.close_group()?;
        }
        Ok(())
    }

    /// Makes rows of the records, and says whether the batch can be rebuilt from them.
    fn take_apart(&mut self, batch: &Batch) -> Result<Rebuilt> {
        let header = batch.header();
        let data = batch.uncompressed(self.segment.uncompressed_bytes_max)?;
        header.check_count(data.len())?;
        if self.open.waiting_bytes > 0 && self.open.waiting_bytes + data.len() > WAITING_BYTES {
            self.encode_waiting()?;
        }
        let mut rebuilder = BatchRebuilder::with_capacity(data.len().min(REBUILT_BYTES_MAX));
        let mut is_same = data.len() <= REBUILT_BYTES_MAX;
        let mut hides_times = false;
        let mut walker = Walker::new(&data);
        let mut offset_min = header.base_offset;
        let mut headers = Vec::new();
        for _ in 0..header.record_count {
            let raw = walker
                .next_record()
                .and_then(|raw| check_headers(&data, &raw).map(|()| raw))
                .map_err(|error| refused(header, error.text()))?;
            headers.clear();
            headers.extend(Headers::of_raw(&data, &raw));
            let offset = Offset(header.base_offset.0.wrapping_add(raw.offset_delta.into()));
            let timestamp = match header.timestamp_type() {
                TimestampType::CreateTime => {
                    TimestampMs(header.base_timestamp.0.wrapping_add(raw.timestamp_delta))
                }
                TimestampType::LogAppendTime => header.max_timestamp,
            };
            let row = Row {
                offset,
                timestamp,
                key: raw.key(&data),
                value: raw.value(&data),
                headers: &headers,
            };
            let counted = deltas(header, offset, timestamp).filter(|_| offset >= offset_min);
            let (_, offset_delta) = counted.ok_or_else(|| {
                refused(header, &format!("its records are not in order at offset {offset}"))
            })?;
            offset_min = offset.next();
            hides_times |=
                header.timestamp_type() == TimestampType::LogAppendTime && raw.timestamp_delta != 0;
            is_same &= row.is_faithful();
            if is_same {
                // With its own delta: a hidden time alone is no reason to keep the batch.
                let own = (raw.timestamp_delta, offset_delta);
                rebuilder.append(own, row.key, row.value, row.headers)?;
            }
            self.open.waiting.push(&row);
        }
        if !walker.is_at_end() {
            return Err(refused(header, "there are bytes behind its records"));
        }
        let count = u32::try_from(header.record_count).unwrap_or(0);
        self.open.rows += count;
        self.totals.rows += u64::from(count);
        self.open.waiting_bytes += data.len();
        self.open.bytes += data.len();
        if !is_same || rebuilder.records() != &*data {
            return Ok(Rebuilt::Other);
        }
        if hides_times {
            rebuilder = without_times(header, &data)?;
        }
        let bytes = rebuilder.finish(header)?;
        let rebuilt = BatchHeader::parse(&bytes)?;
        // The compression of the log is remembered; the batch is served without it.
        Ok(Rebuilt::Same(BatchHeader {
            attributes: header.attributes,
            compression: header.compression,
            ..rebuilt
        }))
    }

    /// Keeps a batch as it is.
    fn keep(&mut self, batch: &Batch) -> Result<Raw> {
        let mut packed = Vec::new();
        if batch.header().compression == Compression::None {
            compress(Compression::Zstd, Some(RAW_LEVEL), batch.bytes(), &mut packed)?;
        }
        let is_packed = !packed.is_empty() && packed.len() < batch.bytes().len();
        let bytes = if is_packed { &*packed } else { &**batch.bytes() };
        if self.open.raw_size == 0 {
            self.open.raw_at = self.writer.bytes_written() as u64;
        }
        self.writer.write_all(bytes).map_err(|error| Error::io("write", &self.path, error))?;
        let raw = Raw { at: self.open.raw_size, size: bytes.len() as u64, is_packed };
        self.open.raw_size += raw.size;
        self.open.bytes += batch.bytes().len();
        Ok(raw)
    }

    fn encode_waiting(&mut self) -> Result<()> {
        self.open.waiting_bytes = 0;
        let rows = self.open.waiting.finish();
        let rows = rows.map_err(|error| failed(&self.path, error.into()))?;
        let Some(values) = &mut self.values else {
            return self.writer.write(&rows).map_err(|error| failed(&self.path, error));
        };
        let (mut at, step) = (0, values.rows_max());
        while at < rows.num_rows() {
            let part = rows.slice(at, step.min(rows.num_rows() - at));
            let mut columns = part.columns().to_vec();
            columns.extend(values.columns(&part)?);
            let written = RecordBatch::try_new(Arc::clone(&self.schema), columns)
                .map_err(ParquetError::from)
                .and_then(|part| self.writer.write(&part));
            written.map_err(|error| failed(&self.path, error))?;
            at += part.num_rows();
        }
        // Small values may have large columns.
        self.open.is_full = self.writer.memory_size() >= GROUP_MEMORY_MAX;
        Ok(())
    }

    fn close_group(&mut self) -> Result<()> {
        self.encode_waiting()?;
        self.writer.flush().map_err(|error| failed(&self.path, error))?;
        let group = std::mem::replace(&mut self.open, OpenGroup::new());
        let base_offset = match self.groups.last() {
            Some((before, _)) => before.end_offset,
            None => self.segment.base_offset,
        };
        let table = Packed::new(&table::encode(base_offset, &group.lines))?;
        let entry = Group {
            base_offset,
            end_offset: self.next,
            lines: u32::try_from(group.lines.len()).unwrap_or(u32::MAX),
            rows: group.rows,
            raw_at: group.raw_at,
            raw_size: group.raw_size,
            max_timestamp: group.max_timestamp,
            table: table.unplaced(),
        };
        self.groups.push((entry, table));
        Ok(())
    }

    /// Completes the file: the batches are all there.
    ///
    /// # Errors
    ///
    /// An invalid argument for an end that lies before that of the last batch; [`Error::Io`] when the output cannot be
    /// written.
    pub fn finish(mut self, at_end: &AtEnd) -> Result<(W, Totals)> {
        let end = at_end.end_offset;
        if end < self.next {
            let next = self.next;
            return Err(Error::invalid(format!(
                "offset {end} is before the end of the batches, {next}"
            )));
        }
        // Compaction may have left nothing at the end, or nothing at all.
        if !self.open.lines.is_empty() || (self.groups.is_empty() && self.next < end) {
            self.next = end;
            self.close_group()?;
        } else if let Some((last, _)) = self.groups.last_mut() {
            last.end_offset = end;
        }
        self.writer.sync().map_err(|error| Error::io("write", &self.path, error))?;
        let start = self.writer.bytes_written() as u64;
        let checksums = self.writer.inner_mut().hold();
        let mut section = SectionWriter::new(start);
        let mut groups = Vec::with_capacity(self.groups.len());
        for (group, packed) in &self.groups {
            groups.push(Group { table: section.add(packed), ..*group });
        }
        let mut add = |bytes: &[u8]| Ok::<_, Error>(section.add(&Packed::new(bytes)?));
        let directory = Directory {
            about: About {
                topic: self.segment.topic.clone(),
                topic_id: self.segment.topic_id,
                partition: self.segment.partition,
                base_offset: self.segment.base_offset,
                end_offset: end,
            },
            totals: self.totals,
            groups,
            producers: add(&at_end.producers)?,
            epochs: add(&encode_epochs(&at_end.epochs))?,
            aborted: add(&encode_aborted(&at_end.aborted))?,
            checksums: add(&encode_checksums(&checksums))?,
        };
        let section = section.finish(&directory);
        self.write_section(start, &section)?;
        let totals = self.totals;
        let output = self.close(section.len())?;
        Ok((output, totals))
    }

    fn write_section(&mut self, start: u64, section: &[u8]) -> Result<()> {
        let written = self.writer.write_all(section);
        written.map_err(|error| Error::io("write", &self.path, error))?;
        if let Some(values) = &self.values {
            let text = serde_json::to_string(values.report());
            let text = text.map_err(|error| Error::invalid(error.to_string()))?;
            self.writer.append_key_value_metadata(KeyValue::new(VALUES_KEY.to_owned(), text));
        }
        self.writer.append_key_value_metadata(footer::entry(start, section.len() as u64));
        Ok(())
    }

    /// Writes what was held back: the section and, sealed, what Parquet puts behind it.
    fn close(self, section_size: usize) -> Result<W> {
        let path = self.path;
        let checked = self.writer.into_inner().map_err(|error| failed(&path, error))?;
        let (mut output, mut held) = checked.into_parts();
        let tail = held.get_mut(section_size..).unwrap_or_default();
        if !footer::seal(tail) {
            let detail = io::Error::other("Parquet did not write the footer that was expected");
            return Err(Error::io("write", &path, detail));
        }
        let written = output.write_all(&held).and_then(|()| output.flush());
        written.map_err(|error| Error::io("write", &path, error))?;
        Ok(output)
    }
}

/// The records of a batch whose times the broker has set, without those of the producer.
fn without_times(header: &BatchHeader, data: &[u8]) -> Result<BatchRebuilder> {
    let mut rebuilder = BatchRebuilder::with_capacity(data.len());
    let mut walker = Walker::new(data);
    let mut headers = Vec::new();
    while !walker.is_at_end() {
        let raw = walker.next_record().map_err(|error| refused(header, error.text()))?;
        headers.clear();
        headers.extend(Headers::of_raw(data, &raw));
        let (key, value) = (raw.key(data), raw.value(data));
        rebuilder.append((0, raw.offset_delta), key, value, &headers)?;
    }
    Ok(rebuilder)
}

fn failed(path: &Path, error: ParquetError) -> Error {
    Error::io("write", path, io::Error::other(error))
}

#[cold]
fn refused(header: &BatchHeader, detail: &str) -> Error {
    let base_offset = header.base_offset;
    let context = format!("record batch at offset {base_offset}: {detail}");
    Error::kafka(ErrorCode::InvalidRecord, context)
}
