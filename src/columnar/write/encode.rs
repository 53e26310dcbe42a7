//! Rows of Arrow columns to record batches per partition, column-wise.
//!
//! Key, value, timestamp, headers and partition of a row are read from their columns and written
//! straight into the batch of the row's partition; no record object exists in between. A batch is
//! sealed when the next record would not fit `batch_size`; a single record may be larger, and the
//! broker decides whether to accept it.
//!
//! - **Keys**: text and bytes unchanged, integers as decimal text (`42`), booleans, decimals,
//!   dates, times and UUIDs as described in [`super::shown`], a null as a null key.
//! - **Timestamps**: any timestamp type (without a zone it counts as UTC) or date, to
//!   milliseconds, rounding down. Nulls are refused, and so are times before 1970, which Kafka
//!   does not have.
//! - **Headers**: list(struct(key, value)) or map(key, value) of text or bytes, null for none; or
//!   single columns of the types of keys, each a header of its row unless it is null.
//! - **Partition**: a fixed one, an integer column, or the result of the caller's function of key
//!   and row: partitioners and their stickiness are in the producer.
//!
//! A format may combine rows into records of many, as Arrow IPC does, and decides which go together.

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use super::prepared::{Kind, Prepared};
use super::sources::Sources;
use crate::columnar::formats::ValueSource;
use crate::columnar::formats::writing::CombineRows;
use crate::columnar::read::tombstones::Tombstones;
use crate::error::{Error, Result};
use crate::record::{
    BatchBuilder, BatchOptions, Compression, HEADER_SIZE, Header, record_size_upper_bound,
};
use crate::types::{PartitionIndex, TimestampMs};

/// How the partition of a row is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PartitionSource {
    /// By the function that is passed with the rows.
    #[default]
    Partitioner,
    /// By an integer column without nulls.
    Column(String),
    /// All rows go to one partition.
    Fixed(PartitionIndex),
}

/// Where the headers of a row are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HeaderSource {
    /// Records have no headers.
    #[default]
    None,
    /// A column of lists or maps.
    Column(String),
    /// Keys of headers and the columns of their values; a null means no header.
    Single(Vec<(String, String)>),
}

impl HeaderSource {
    /// The columns.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        let (list, single) = match self {
            Self::None => (None, [].as_slice()),
            Self::Column(name) => (Some(name), [].as_slice()),
            Self::Single(headers) => (None, headers.as_slice()),
        };
        list.into_iter().chain(single.iter().map(|(_, name)| name))
    }
}

/// How rows become records.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// The column of keys; null keys without one.
    pub key: Option<String>,
    /// What values are made from.
    pub value: ValueSource,
    /// How partitions are found.
    pub partition: PartitionSource,
    /// The column of timestamps, without nulls; by default, the time that is passed with the rows.
    pub timestamp: Option<String>,
    /// Where headers are found.
    pub headers: HeaderSource,
    /// The number of partitions of the topic.
    pub partition_count: i32,
    /// The size at which a batch is sealed, before compression.
    pub batch_size: usize,
    /// How batches are compressed.
    pub compression: Compression,
    /// The codec's level; none for its default.
    pub compression_level: Option<i32>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            key: None,
            value: ValueSource::json(Vec::new()),
            partition: PartitionSource::Partitioner,
            timestamp: None,
            headers: HeaderSource::None,
            partition_count: 1,
            batch_size: 1 << 20,
            compression: Compression::None,
            compression_level: None,
        }
    }
}

impl WriteOptions {
    /// The columns of keys, timestamps, headers and partitions.
    pub fn other_columns(&self) -> impl Iterator<Item = &String> {
        let partition = match &self.partition {
            PartitionSource::Column(name) => Some(name),
            PartitionSource::Partitioner | PartitionSource::Fixed(_) => None,
        };
        let single = [self.key.as_ref(), self.timestamp.as_ref(), partition];
        single.into_iter().flatten().chain(self.headers.columns())
    }
}

/// A sealed record batch. It has no producer state; see [`crate::record::patch_producer`].
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    /// The partition that it goes to.
    pub partition: PartitionIndex,
    /// The batch.
    pub bytes: Bytes,
    /// The number of its records.
    pub record_count: i32,
}

/// Encodes rows of one table; batches may span several Arrow record batches.
#[derive(Debug)]
pub struct Encoder {
    options: WriteOptions,
    open: Vec<Option<BatchBuilder>>,
    full: Vec<FullBatch>,
    /// The rows that become records of many rows.
    combiner: Option<Box<dyn CombineRows>>,
    /// The rows that were pushed before, for errors.
    rows_before: usize,
    oldest: Option<TimestampMs>,
}

impl Encoder {
    /// An encoder without rows.
    ///
    /// # Errors
    /// An invalid argument for an impossible number of partitions, partition or batch size.
    pub fn new(options: WriteOptions) -> Result<Self> {
        let count = usize::try_from(options.partition_count).unwrap_or(0);
        if count == 0 {
            return Err(Error::invalid("a topic must have at least one partition"));
        }
        if let PartitionSource::Fixed(partition) = options.partition {
            check_partition(partition, options.partition_count)?;
        }
        if i32::try_from(options.batch_size).is_err() {
            return Err(Error::invalid(format!("batch size {} is too large", options.batch_size)));
        }
        let combiner = options.value.combiner(&options)?;
        let open = (0..count).map(|_| None).collect();
        Ok(Self { options, open, full: Vec::new(), combiner, rows_before: 0, oldest: None })
    }

    /// Whether several rows are combined into one record.
    #[must_use]
    pub const fn has_many_rows(&self) -> bool {
        self.combiner.is_some()
    }

    /// The oldest time in the column of timestamps.
    #[must_use]
    pub const fn oldest(&self) -> Option<TimestampMs> {
        self.oldest
    }

    /// Encodes all rows of a batch. `now` is the timestamp of rows without one; `partitioner` is
    /// called with the key (none for a null key) and the row, unless partitions are given; for
    /// records of many rows, once at the start of each.
    ///
    /// # Errors
    /// An invalid argument for columns that do not exist, have an unsuitable type, or name a
    /// partition that does not exist; the rows before it were encoded.
    pub fn push(
        &mut self,
        rows: &RecordBatch,
        now: TimestampMs,
        partitioner: impl FnMut(Option<&[u8]>, usize) -> PartitionIndex,
    ) -> Result<()> {
        self.push_prepared(Prepared::new(rows, &Tombstones::NONE, &self.options), now, partitioner)
    }

    /// As [`Self::push`], with rows whose values are made.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_prepared(
        &mut self,
        prepared: Prepared,
        now: TimestampMs,
        mut partitioner: impl FnMut(Option<&[u8]>, usize) -> PartitionIndex,
    ) -> Result<()> {
        let rows = prepared.rows;
        let first = self.rows_before;
        self.rows_before = first.saturating_add(rows);
        let refused = |row: usize, detail: String| {
            let row = first.saturating_add(row);
            Error::Row { row, detail }
        };
        let moved = |error| match error {
            Error::Row { row, detail } => refused(row, detail),
            other => other,
        };
        let (mut sources, values) = match (prepared.kind, &mut self.combiner) {
            (Kind::Rows(sources, values), _) => (sources, values),
            (Kind::Many(rows), Some(combiner)) => {
                combiner.push(&rows, &self.options, now, &mut partitioner).map_err(moved)?;
                return self.append_combined();
            }
            (Kind::Many(_), None) => {
                return Err(Error::invalid("the rows were prepared for records of many"));
            }
            (Kind::Failed(error), _) => return Err(moved(error)),
        };
        self.check_times(&sources).map_err(moved)?;
        for row in 0..rows {
            sources.read(row);
            let value = values.get(&sources.value, row).map_err(|detail| refused(row, detail))?;
            let key = sources.key.current(row);
            let partition = match &sources.partition {
                Some(column) => {
                    column.get(row).copied().map_or(PartitionIndex::NONE, PartitionIndex)
                }
                None => match self.options.partition {
                    PartitionSource::Fixed(partition) => partition,
                    _ => partitioner(key, row),
                },
            };
            let timestamp = sources.timestamp.as_ref().map_or(now, |column| column.get(row, now));
            let headers = &sources.headers.of(row);
            let record = Record { partition, timestamp, key, value, headers };
            if let Some(refusal) = timestamp.refusal() {
                return Err(refused(row, refusal));
            }
            if !partition.is_below(self.options.partition_count) {
                check_partition(partition, self.options.partition_count)
                    .map_err(|error| refused(row, error.to_string()))?;
            }
            self.append(&record)?;
        }
        Ok(())
    }

    /// Refuses rows without a time, and keeps the oldest one.
    fn check_times(&mut self, sources: &Sources) -> Result<()> {
        let Some(times) = &sources.timestamp else { return Ok(()) };
        if let Some(row) = times.first_null() {
            let name = self.options.timestamp.as_deref().unwrap_or_default();
            let detail = format!(
                "the timestamp column {name:?} is null; fill it, or write these rows separately, \
                 without a timestamp column"
            );
            return Err(Error::Row { row, detail });
        }
        self.oldest = self.oldest.into_iter().chain(times.oldest()).min();
        Ok(())
    }

    /// Puts a record into the batch of its partition.
    #[inline]
    fn append(&mut self, record: &Record<'_>) -> Result<()> {
        let &Record { partition, timestamp, key, value, headers } = record;
        let slot = partition.place().and_then(|at| self.open.get_mut(at));
        let Some(slot) = slot else {
            return check_partition(partition, self.options.partition_count);
        };
        let header_bytes: usize = headers
            .iter()
            .map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len))
            .sum();
        let size = record_size_upper_bound(
            key.map_or(0, <[u8]>::len),
            value.map_or(0, <[u8]>::len),
            header_bytes,
            headers.len(),
        );
        let full = slot.as_ref().is_some_and(|builder| {
            builder.size_bytes().saturating_add(size) > self.options.batch_size
        });
        if full {
            self.full.extend(slot.take().map(|builder| FullBatch { partition, builder }));
        }
        let options = &self.options;
        let builder = slot.get_or_insert_with(|| new_builder(options));
        builder.append(timestamp, key, value, headers)
    }

    /// Appends complete records of many rows.
    fn append_combined(&mut self) -> Result<()> {
        let records = self.combiner.as_mut().map(|combiner| combiner.take()).unwrap_or_default();
        for record in records {
            let record = Record {
                partition: record.partition,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: Some(&record.value),
                headers: &[],
            };
            self.append(&record)?;
        }
        Ok(())
    }

    /// The full batches, in the order in which they were filled.
    pub fn take_full(&mut self) -> Vec<FullBatch> {
        std::mem::take(&mut self.full)
    }

    /// Ends every batch and returns all that were not taken.
    ///
    /// # Errors
    /// An invalid argument for rows that cannot be put together.
    pub fn finish_full(&mut self) -> Result<Vec<FullBatch>> {
        if let Some(combiner) = &mut self.combiner {
            combiner.finish()?;
            self.append_combined()?;
        }
        for (partition, slot) in PartitionIndex::enumerate(&mut self.open) {
            self.full.extend(slot.take().map(|builder| FullBatch { partition, builder }));
        }
        Ok(self.take_full())
    }

    /// Seals every batch and returns all that have not been taken.
    ///
    /// # Errors
    /// An invalid argument for a compression level that the codec does not have.
    pub fn finish(&mut self) -> Result<Vec<EncodedBatch>> {
        self.finish_full()?.into_iter().map(FullBatch::seal).collect()
    }
}

/// A batch with all its records, which are not compressed yet.
#[derive(Debug)]
pub struct FullBatch {
    partition: PartitionIndex,
    builder: BatchBuilder,
}

impl FullBatch {
    /// Compresses and seals it.
    ///
    /// # Errors
    /// An invalid argument for a compression level that the codec does not have.
    pub fn seal(self) -> Result<EncodedBatch> {
        let record_count = self.builder.record_count();
        let bytes = self.builder.finish()?;
        Ok(EncodedBatch { partition: self.partition, bytes, record_count })
    }
}

/// What is appended to a batch.
struct Record<'a> {
    partition: PartitionIndex,
    timestamp: TimestampMs,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [Header<'a>],
}

fn new_builder(options: &WriteOptions) -> BatchBuilder {
    /// Rows that are spread over many partitions must not reserve a batch for each at once.
    const RESERVED_MAX: usize = 4 << 20;
    let partitions = usize::try_from(options.partition_count).unwrap_or(1).max(1);
    let capacity = options.batch_size.min(RESERVED_MAX / partitions).saturating_sub(HEADER_SIZE);
    let batch = BatchOptions {
        compression: options.compression,
        level: options.compression_level,
        ..BatchOptions::default()
    };
    BatchBuilder::with_capacity(batch, capacity)
}

pub(in crate::columnar) fn check_partition(partition: PartitionIndex, count: i32) -> Result<()> {
    if partition.is_below(count) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the topic has no partition {partition}: it has {count}, numbered from 0"
    )))
}
