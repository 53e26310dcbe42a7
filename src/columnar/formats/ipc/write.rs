//! Writes rows as streams.
//!
//! ```text
//! tables ──► push: by partition and key ──► waiting rows ──► max_rows are there ──► one stream,
//!                                                   └──► finish: what is left ──┘   cut to size
//! ```
//!
//! The partitioner chooses the partition of a record without a key when the record begins, so that
//! a large table is spread over the partitions whatever the sizes of its slices.
//!
//! Text and bytes are written in the plain layouts, which every reader of Arrow knows, and a
//! dictionary with more entries than rows is reduced to those in use.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::IpcTarget;
use super::read::check;
use crate::columnar::convert::to_plain;
use crate::columnar::formats::writing::{CombineRows, CombinedRecord};
use crate::columnar::write::encode::{
    HeaderSource, PartitionSource, WriteOptions, check_partition,
};
use crate::columnar::write::sources::{key_source, partition_source};
use crate::error::{Error, Result};
use crate::record::HEADER_SIZE;
use crate::types::{PartitionIndex, TimestampMs};

/// The bytes of a record in addition to its key and value.
const RECORD_OVERHEAD: usize = 64;
/// When this many times `max_rows` rows wait for more of their key, all are written.
const WAITING_MAX: usize = 16;
/// The same for the bytes of waiting rows.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// The most bytes of rows that are copied at once: larger tables are cut first.
const COPIED_BYTES_MAX: usize = 256 << 20;

/// How the buffers of streams are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpcCompression {
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// What the rows of a record have in common: the partition of their column, and the key.
type Group = (Option<PartitionIndex>, Option<Vec<u8>>);

/// The first row of a group, and all its rows if there are other groups.
type Chosen = (usize, Option<Vec<u32>>);

/// Rows that wait for more of their group.
#[derive(Debug)]
struct Waiting {
    partition: PartitionIndex,
    timestamp: TimestampMs,
    parts: Vec<RecordBatch>,
    rows: usize,
    /// The approximate size of the parts in bytes.
    bytes: usize,
}

impl Waiting {
    const fn new(partition: PartitionIndex, timestamp: TimestampMs) -> Self {
        Self { partition, timestamp, parts: Vec::new(), rows: 0, bytes: 0 }
    }

    /// All waiting rows.
    fn rows(&self) -> Result<RecordBatch> {
        match self.parts.as_slice() {
            [] => Err(Error::invalid("a record must have at least one row")),
            [one] => Ok(one.clone()),
            [first, ..] => concat_batches(&first.schema(), &self.parts).map_err(unwritten),
        }
    }
}

/// Combines rows into records.
#[derive(Debug)]
pub(in crate::columnar) struct Streams {
    target: IpcTarget,
    /// The largest size of a record.
    bytes_max: usize,
    waiting: BTreeMap<Group, Waiting>,
    waiting_rows: usize,
    waiting_bytes: usize,
    ready: Vec<CombinedRecord>,
}

impl Streams {
    /// # Errors
    /// An invalid argument for options that do not apply to a record of many rows.
    pub(super) fn new(target: &IpcTarget, options: &WriteOptions) -> Result<Self> {
        if target.max_rows == 0 {
            return Err(Error::invalid("a record must have at least one row"));
        }
        let refused = match (&options.timestamp, &options.headers) {
            (Some(name), _) => Some((name, "timestamp, the time of writing")),
            (None, HeaderSource::None) => None,
            (None, headers) => headers.columns().next().map(|name| (name, "list of headers, none")),
        };
        if let Some((name, what)) = refused {
            return Err(Error::invalid(format!(
                "column {name:?} has a value per row, but an Arrow IPC stream holds many rows in \
                 one record, which has one {what}: leave the argument out, the column is part of \
                 the stream"
            )));
        }
        Ok(Self {
            target: target.clone(),
            bytes_max: options.batch_size.saturating_sub(HEADER_SIZE + RECORD_OVERHEAD),
            waiting: BTreeMap::new(),
            waiting_rows: 0,
            waiting_bytes: 0,
            ready: Vec::new(),
        })
    }

    /// Writes the rows of a group as records of `max_rows`; the rest begins another one, whose
    /// partition comes from `partition`.
    fn complete(
        &mut self,
        group: &Group,
        now: TimestampMs,
        mut partition: impl FnMut() -> Result<PartitionIndex>,
    ) -> Result<()> {
        let Some(mut waiting) = self.waiting.remove(group) else { return Ok(()) };
        self.waiting_rows = self.waiting_rows.saturating_sub(waiting.rows);
        self.waiting_bytes = self.waiting_bytes.saturating_sub(waiting.bytes);
        let mut rows = waiting.rows()?;
        let most = self.target.max_rows;
        loop {
            let left = rows.num_rows().saturating_sub(most);
            self.write(&rows.slice(0, most), &waiting, group.1.as_deref())?;
            if left == 0 {
                return Ok(());
            }
            rows = rows.slice(most, left);
            waiting = Waiting::new(partition()?, now);
            if left < most {
                break;
            }
        }
        (waiting.rows, waiting.bytes) = (rows.num_rows(), slice_bytes(&rows));
        self.waiting_rows = self.waiting_rows.saturating_add(waiting.rows);
        self.waiting_bytes = self.waiting_bytes.saturating_add(waiting.bytes);
        waiting.parts.push(rows);
        self.waiting.insert(group.clone(), waiting);
        Ok(())
    }

    /// Writes rows as one record, or as several where it would be too large.
    fn write(&mut self, rows: &RecordBatch, of: &Waiting, key: Option<&[u8]>) -> Result<()> {
        let bytes_max = self.bytes_max.saturating_sub(key.map_or(0, <[u8]>::len)).max(1);
        let count = rows.num_rows();
        let stream = if count > 1 && slice_bytes(rows) > COPIED_BYTES_MAX {
            Err(Error::invalid("the rows are too large"))
        } else {
            stream(rows, self.target.compression)
        };
        let pieces = match stream {
            Ok(value) => {
                let fits = value.len() <= bytes_max && check(&value).is_ok();
                if fits || count == 1 {
                    self.ready.push(CombinedRecord {
                        partition: of.partition,
                        timestamp: of.timestamp,
                        key: key.map(<[u8]>::to_vec),
                        value,
                    });
                    return Ok(());
                }
                // Rows differ in size, so leave a little more room than the average.
                value.len().div_ceil(bytes_max).saturating_mul(9).div_ceil(8).max(2)
            }
            Err(error) if count == 1 => return Err(error),
            // Perhaps it is only too large for the plain layouts.
            Err(_error) => 2,
        };
        let step = count.div_ceil(pieces).max(1);
        (0..count)
            .step_by(step)
            .try_for_each(|from| self.write(&rows.slice(from, step.min(count - from)), of, key))
    }
}

impl CombineRows for Streams {
    fn push(
        &mut self,
        rows: &RecordBatch,
        options: &WriteOptions,
        now: TimestampMs,
        partitioner: &mut dyn FnMut(Option<&[u8]>, usize) -> PartitionIndex,
    ) -> Result<()> {
        let values = without(rows, &self.target.exclude)?;
        for (group, (first, chosen)) in groups(rows, options)? {
            let part = match chosen {
                Some(chosen) => {
                    take_record_batch(&values, &UInt32Array::from(chosen)).map_err(unwritten)?
                }
                None => values.clone(),
            };
            let mut partition = || -> Result<PartitionIndex> {
                let partition = match (group.0, &options.partition) {
                    (Some(partition), _) | (None, &PartitionSource::Fixed(partition)) => partition,
                    (None, _) => partitioner(group.1.as_deref(), first),
                };
                check_partition(partition, options.partition_count)
                    .map_err(|error| Error::Row { row: first, detail: error.to_string() })?;
                Ok(partition)
            };
            let (count, bytes) = (part.num_rows(), slice_bytes(&part));
            self.waiting_rows = self.waiting_rows.saturating_add(count);
            self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
            let waiting = match self.waiting.entry(group.clone()) {
                Entry::Occupied(waiting) => waiting.into_mut(),
                Entry::Vacant(none) => none.insert(Waiting::new(partition()?, now)),
            };
            waiting.rows = waiting.rows.saturating_add(count);
            waiting.bytes = waiting.bytes.saturating_add(bytes);
            waiting.parts.push(part);
            if waiting.rows >= self.target.max_rows {
                self.complete(&group, now, partition)?;
            }
        }
        if self.waiting_rows > self.target.max_rows.saturating_mul(WAITING_MAX)
            || self.waiting_bytes > WAITING_BYTES_MAX
        {
            self.finish()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().try_for_each(|((_, key), waiting)| {
            self.write(&waiting.rows()?, &waiting, key.as_deref())
        })
    }

    fn take(&mut self) -> Vec<CombinedRecord> {
        std::mem::take(&mut self.ready)
    }
}

/// All rows of a table as the value of one record, whatever its size.
pub(super) fn one_stream(rows: &RecordBatch, target: &IpcTarget) -> Result<Vec<u8>> {
    let value = stream(&without(rows, &target.exclude)?, target.compression)?;
    check(&value).map_err(Error::invalid)?;
    Ok(value)
}

/// The groups of rows.
fn groups(rows: &RecordBatch, options: &WriteOptions) -> Result<BTreeMap<Group, Chosen>> {
    let mut groups = BTreeMap::new();
    if rows.num_rows() == 0 {
        return Ok(groups);
    }
    let mut keys = key_source(rows, options)?;
    let partitions = partition_source(rows, options)?;
    if options.key.is_none() && partitions.is_none() {
        groups.insert((None, None), (0, None));
        return Ok(groups);
    }
    for row in 0..rows.num_rows() {
        keys.read(row);
        let partition =
            partitions.as_ref().and_then(|column| column.get(row).copied().map(PartitionIndex));
        let group = (partition, keys.current(row).map(<[u8]>::to_vec));
        let (_, chosen) = groups.entry(group).or_insert_with(|| (row, Some(Vec::new())));
        if let Some(chosen) = chosen {
            chosen.push(row as u32);
        }
    }
    Ok(groups)
}

/// The columns of the values.
fn without(rows: &RecordBatch, exclude: &[String]) -> Result<RecordBatch> {
    let fields = rows.schema_ref().fields();
    let kept: Vec<usize> = fields
        .iter()
        .enumerate()
        .filter(|(_, field)| !exclude.contains(field.name()))
        .map(|(index, _)| index)
        .collect();
    if kept.is_empty() {
        return Err(Error::invalid("there is no column to write"));
    }
    rows.project(&kept).map_err(unwritten)
}

fn stream(rows: &RecordBatch, compression: Option<IpcCompression>) -> Result<Vec<u8>> {
    let rows = in_use(&to_plain(rows)?)?;
    let compression = compression.map(|compression| match compression {
        IpcCompression::Lz4 => CompressionType::LZ4_FRAME,
        IpcCompression::Zstd => CompressionType::ZSTD,
    });
    let write = || {
        let options = IpcWriteOptions::default().try_with_compression(compression)?;
        let mut writer =
            StreamWriter::try_new_with_options(Vec::new(), rows.schema_ref(), options)?;
        writer.write(&rows)?;
        writer.into_inner()
    };
    write().map_err(unwritten)
}

/// The same rows, with dictionaries reduced to what they use where that is smaller.
fn in_use(rows: &RecordBatch) -> Result<RecordBatch> {
    let column = |array: &ArrayRef| match array.data_type() {
        DataType::Dictionary(_, value)
            if array.as_any_dictionary().values().len() > array.len() =>
        {
            cast(&cast(array, value)?, array.data_type())
        }
        _ => Ok(Arc::clone(array)),
    };
    let columns = rows.columns().iter().map(column).collect::<Result<Vec<_>, ArrowError>>();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(rows.schema(), columns, &options))
        .map_err(unwritten)
}

/// The approximate size of the rows themselves in bytes, counting only their part of shared
/// buffers.
pub(super) fn slice_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| array_bytes(column)).fold(0, usize::saturating_add)
}

fn array_bytes(array: &dyn Array) -> usize {
    let items = |values: &ArrayRef, first: usize, end: usize| {
        array_bytes(&values.slice(first, end.saturating_sub(first)))
    };
    let inside = match array.data_type() {
        DataType::Utf8View => view_bytes(array.as_string_view().lengths()),
        DataType::BinaryView => view_bytes(array.as_binary_view().lengths()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            items(list.values(), bound(offsets.first()), bound(offsets.last()))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.value_offsets();
            items(list.values(), bound(offsets.first()), bound(offsets.last()))
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let offsets = map.value_offsets();
            let (first, end) = (bound(offsets.first()), bound(offsets.last()));
            array_bytes(&map.entries().slice(first, end.saturating_sub(first)))
        }
        DataType::FixedSizeList(..) => array_bytes(array.as_fixed_size_list().values()),
        DataType::Struct(_) => {
            let columns = array.as_struct().columns().iter();
            columns.map(|column| array_bytes(column)).fold(0, usize::saturating_add)
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            // Only the entries in use are written.
            let values = dictionary.values();
            let entries = values.len().min(array.len());
            let each = array_bytes(values).div_ceil(values.len().max(1));
            array_bytes(dictionary.keys()).saturating_add(each.saturating_mul(entries))
        }
        _ => return array.to_data().get_slice_memory_size().unwrap_or(usize::MAX),
    };
    // The offsets of lists and the bits of nulls.
    inside.saturating_add(array.len().saturating_mul(size_of::<u32>()))
}

fn bound<T: Copy + TryInto<usize>>(offset: Option<&T>) -> usize {
    offset.and_then(|offset| (*offset).try_into().ok()).unwrap_or(0)
}

fn view_bytes(lengths: impl Iterator<Item = u32>) -> usize {
    lengths.fold(0, |sum, length| sum.saturating_add(length as usize))
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn unwritten(error: ArrowError) -> Error {
    Error::invalid(format!("could not write an Arrow IPC stream: {error}"))
}
