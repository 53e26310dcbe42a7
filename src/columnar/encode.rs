//! Rows of Arrow columns to record batches per partition, column-wise.
//!
//! Key, value, timestamp, headers and partition of a row are read from their columns and written
//! straight into the batch of the row's partition; no record exists in between. A batch is sealed
//! when the next record would not fit `batch_size`; a single record may be larger, and whether the
//! broker takes it is for the broker to say.
//!
//! - **Keys**: text and bytes as they are, integers as decimal text (`42`), a null as a null key.
//! - **Timestamps**: any timestamp type (without a zone it counts as UTC) or date, to
//!   milliseconds, rounding down; a null takes the time that the caller gives. Kafka has no
//!   times before 1970, so they are refused.
//! - **Headers**: list(struct(key, value)) or map(key, value) of text or bytes; null for none.
//! - **Partition**: a fixed one, an integer column, or what the caller's function says from key
//!   and row: partitioners and their stickiness live in the producer.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use super::avro::AvroWriter;
use super::bytes_column::BytesColumn;
use super::json::write::{RowWriter, put_i64, put_u64};
use super::protobuf::ProtobufWriter;
use super::target::{Framing, ValueSource};
use crate::error::{Error, Result};
use crate::record::{
    BatchBuilder, BatchOptions, Compression, HEADER_SIZE, Header, record_size_upper_bound,
};
use crate::types::TimestampMs;

/// How the partition of a row is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PartitionSource {
    /// By the function that is given with the rows.
    #[default]
    Partitioner,
    /// By an integer column without nulls.
    Column(String),
    /// All rows go to one partition.
    Fixed(i32),
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
    /// The column of timestamps; the time that is given with the rows without one.
    pub timestamp: Option<String>,
    /// The column of headers.
    pub headers: Option<String>,
    /// The number of partitions of the topic.
    pub partition_count: i32,
    /// The size at which a batch is sealed, before compression.
    pub batch_size: usize,
    /// How batches are compressed.
    pub compression: Compression,
    /// The codec's level; its default when none.
    pub compression_level: Option<i32>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            key: None,
            value: ValueSource::Json { exclude: Vec::new() },
            partition: PartitionSource::Partitioner,
            timestamp: None,
            headers: None,
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
        [self.key.as_ref(), self.timestamp.as_ref(), self.headers.as_ref(), partition]
            .into_iter()
            .flatten()
    }
}

/// A sealed record batch. It has no producer state; see [`crate::record::patch_producer`].
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    /// The partition that it goes to.
    pub partition: i32,
    /// The batch.
    pub bytes: Bytes,
    /// The number of its records.
    pub record_count: i32,
}

/// Encodes rows of one table; batches go on over the borders of Arrow record batches.
#[derive(Debug)]
pub struct Encoder {
    options: WriteOptions,
    open: Vec<Option<BatchBuilder>>,
    sealed: Vec<EncodedBatch>,
}

impl Encoder {
    /// An encoder without rows.
    ///
    /// # Errors
    /// An invalid argument for a number of partitions, a partition or a batch size that cannot be.
    pub fn new(options: WriteOptions) -> Result<Self> {
        let count = usize::try_from(options.partition_count).unwrap_or(0);
        if count == 0 {
            return Err(Error::invalid("a topic has at least one partition"));
        }
        if let PartitionSource::Fixed(partition) = options.partition {
            check_partition(partition, options.partition_count)?;
        }
        if i32::try_from(options.batch_size).is_err() {
            return Err(Error::invalid(format!("batch size {} is too large", options.batch_size)));
        }
        Ok(Self { options, open: (0..count).map(|_| None).collect(), sealed: Vec::new() })
    }

    /// Encodes all rows of a batch. `now` is the timestamp of rows without one; `partitioner`
    /// is asked with the key (none for a null key) and the row, if partitions are not given.
    ///
    /// # Errors
    /// An invalid argument for columns that are not there, have a type that does not fit, or name
    /// a partition that does not exist; the rows before it were encoded.
    pub fn push(
        &mut self,
        rows: &RecordBatch,
        now: TimestampMs,
        mut partitioner: impl FnMut(Option<&[u8]>, usize) -> i32,
    ) -> Result<()> {
        let mut sources = Sources::new(rows, &self.options)?;
        for row in 0..rows.num_rows() {
            sources.read(row).map_err(|detail| Error::invalid(format!("row {row}: {detail}")))?;
            let key = sources.key.current(row);
            let partition = match &sources.partition {
                Some(column) => column.get(row).copied().unwrap_or(-1),
                None => match self.options.partition {
                    PartitionSource::Fixed(partition) => partition,
                    _ => partitioner(key, row),
                },
            };
            let value = sources.value.current(row);
            let timestamp = sources.timestamp.as_ref().map_or(now, |column| column.get(row, now));
            if timestamp < TimestampMs(0) {
                return Err(Error::invalid(format!(
                    "row {row}: timestamp {timestamp} ms is before 1970, which Kafka cannot hold"
                )));
            }
            let slot = usize::try_from(partition).ok().and_then(|at| self.open.get_mut(at));
            let Some(slot) = slot else {
                check_partition(partition, self.options.partition_count)
                    .map_err(|error| Error::invalid(format!("row {row}: {error}")))?;
                continue;
            };
            let headers: &[Header<'_>] = match &sources.headers {
                Some(column) => &column.of(row),
                None => &[],
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
                seal(slot, partition, &mut self.sealed)?;
            }
            let options = &self.options;
            let builder = slot.get_or_insert_with(|| new_builder(options));
            builder.append(timestamp, key, value, headers)?;
        }
        Ok(())
    }

    /// The batches that are full, in the order in which they were filled.
    pub fn take_sealed(&mut self) -> Vec<EncodedBatch> {
        std::mem::take(&mut self.sealed)
    }

    /// Seals every batch and returns all that were not taken.
    ///
    /// # Errors
    /// An invalid argument for a compression level that the codec does not have.
    pub fn finish(&mut self) -> Result<Vec<EncodedBatch>> {
        for (partition, slot) in (0_i32..).zip(&mut self.open) {
            seal(slot, partition, &mut self.sealed)?;
        }
        Ok(self.take_sealed())
    }
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

fn seal(
    slot: &mut Option<BatchBuilder>,
    partition: i32,
    sealed: &mut Vec<EncodedBatch>,
) -> Result<()> {
    if let Some(builder) = slot.take() {
        let record_count = builder.record_count();
        sealed.push(EncodedBatch { partition, bytes: builder.finish()?, record_count });
    }
    Ok(())
}

fn check_partition(partition: i32, count: i32) -> Result<()> {
    if (0..count).contains(&partition) {
        return Ok(());
    }
    Err(Error::invalid(format!("there is no partition {partition}; there are {count}, from 0")))
}

/// The columns that records are made from.
struct Sources {
    key: KeySource,
    value: RowValue,
    partition: Option<ScalarBuffer<i32>>,
    timestamp: Option<TimeColumn>,
    headers: Option<HeadersColumn>,
}

impl Sources {
    fn new(rows: &RecordBatch, options: &WriteOptions) -> Result<Self> {
        let key = match &options.key {
            Some(name) => KeySource::new(name, column(rows, name)?)?,
            None => KeySource::Null,
        };
        let value = match &options.value {
            ValueSource::Json { exclude } => {
                RowValue::Json(RowWriter::new(rows, exclude)?, Vec::new())
            }
            ValueSource::Column(name) => {
                RowValue::Column(BytesColumn::new(name, column(rows, name)?)?)
            }
            ValueSource::Avro(target) => {
                let schema = target.schema.as_ref().ok_or_else(unsettled)?;
                let writer = AvroWriter::new(rows, schema, &target.exclude)?;
                RowValue::Avro(writer, framing(&target.framing)?, Vec::new())
            }
            ValueSource::Protobuf(target) => {
                let schema = target.schema.as_ref().ok_or_else(unsettled)?;
                let writer = ProtobufWriter::new(rows, schema, &target.exclude)?;
                let mut header = Vec::new();
                if let framed @ Framing::Id(_) = framing(&target.framing)? {
                    framed.put(&mut header);
                    schema.put_indexes(&mut header);
                }
                RowValue::Protobuf(writer, header, Vec::new())
            }
            ValueSource::Null => RowValue::Null,
        };
        let partition = match &options.partition {
            PartitionSource::Column(name) => Some(partition_column(name, column(rows, name)?)?),
            PartitionSource::Partitioner | PartitionSource::Fixed(_) => None,
        };
        let timestamp = match &options.timestamp {
            Some(name) => Some(TimeColumn::new(name, column(rows, name)?)?),
            None => None,
        };
        let headers = match &options.headers {
            Some(name) => Some(HeadersColumn::new(name, column(rows, name)?)?),
            None => None,
        };
        Ok(Self { key, value, partition, timestamp, headers })
    }

    /// Makes the key and the value of a row that are written and not just borrowed.
    #[inline]
    fn read(&mut self, row: usize) -> Result<(), String> {
        if let KeySource::Int(numbers, scratch) = &mut self.key {
            scratch.clear();
            numbers.put(row, scratch);
        }
        match &mut self.value {
            RowValue::Json(writer, scratch) => {
                scratch.clear();
                writer.write(row, scratch);
            }
            RowValue::Avro(writer, framing, scratch) => {
                scratch.clear();
                framing.put(scratch);
                writer.write(row, scratch)?;
            }
            RowValue::Protobuf(writer, header, scratch) => {
                scratch.clear();
                scratch.extend_from_slice(header);
                writer.write(row, scratch)?;
            }
            RowValue::Column(_) | RowValue::Null => {}
        }
        Ok(())
    }
}

#[cold]
fn unsettled() -> Error {
    Error::invalid("the schema of the values is not settled; see ValueSource::settle")
}

fn framing(framing: &Framing) -> Result<Framing> {
    match framing {
        Framing::Register { .. } => Err(unsettled()),
        settled => Ok(settled.clone()),
    }
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| {
        let schema = rows.schema_ref();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Error::invalid(format!("there is no column {name:?}; there are {}", names.join(", ")))
    })
}

enum KeySource {
    Null,
    Bytes(BytesColumn),
    Int(IntColumn, Vec<u8>),
}

impl KeySource {
    fn new(name: &str, array: &ArrayRef) -> Result<Self> {
        let of_dictionary = match array.data_type() {
            DataType::Dictionary(_, values) => values.is_integer(),
            _ => false,
        };
        if array.data_type().is_integer() || of_dictionary {
            return Ok(Self::Int(IntColumn::new(name, array)?, Vec::new()));
        }
        match BytesColumn::new(name, array) {
            Ok(column) => Ok(Self::Bytes(column)),
            Err(_) => Err(Error::invalid(format!(
                "key column {name:?} is {}; keys are text, bytes or integers, so cast it",
                array.data_type()
            ))),
        }
    }

    #[inline]
    fn current(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Null => None,
            Self::Bytes(column) => column.get(row),
            Self::Int(numbers, scratch) => numbers.is_valid(row).then_some(&scratch[..]),
        }
    }
}

struct IntColumn {
    nulls: Option<NullBuffer>,
    values: Ints,
}

enum Ints {
    Signed(ScalarBuffer<i64>),
    Unsigned(ScalarBuffer<u64>),
}

impl IntColumn {
    fn new(name: &str, array: &ArrayRef) -> Result<Self> {
        let unsigned = *array.data_type() == DataType::UInt64
            || matches!(array.data_type(), DataType::Dictionary(_, to) if **to == DataType::UInt64);
        let to = if unsigned { DataType::UInt64 } else { DataType::Int64 };
        let array = recast(name, array, &to)?;
        let values = if unsigned {
            let array = array.as_primitive::<arrow::datatypes::UInt64Type>();
            Ints::Unsigned(array.values().clone())
        } else {
            Ints::Signed(array.as_primitive::<Int64Type>().values().clone())
        };
        Ok(Self { nulls: array.nulls().cloned(), values })
    }

    fn is_valid(&self, row: usize) -> bool {
        self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
    }

    fn put(&self, row: usize, output: &mut Vec<u8>) {
        match &self.values {
            Ints::Signed(values) => put_i64(output, values.get(row).copied().unwrap_or(0)),
            Ints::Unsigned(values) => put_u64(output, values.get(row).copied().unwrap_or(0)),
        }
    }
}

enum RowValue {
    Json(RowWriter, Vec<u8>),
    Avro(AvroWriter, Framing, Vec<u8>),
    Protobuf(ProtobufWriter, Vec<u8>, Vec<u8>),
    Column(BytesColumn),
    Null,
}

impl RowValue {
    #[inline]
    fn current(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Json(_, scratch) | Self::Avro(_, _, scratch) | Self::Protobuf(_, _, scratch) => {
                Some(scratch)
            }
            Self::Column(column) => column.get(row),
            Self::Null => None,
        }
    }
}

fn recast(name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast(array, to).map_err(|error| Error::invalid(format!("column {name:?}: {error}")))
}

fn partition_column(name: &str, array: &ArrayRef) -> Result<ScalarBuffer<i32>> {
    if !array.data_type().is_integer() {
        return Err(Error::invalid(format!(
            "partition column {name:?} is {}, but integers are needed",
            array.data_type()
        )));
    }
    // A number that does not fit becomes null.
    let array = recast(name, array, &DataType::Int32)?;
    if array.null_count() > 0 {
        return Err(Error::invalid(format!(
            "partition column {name:?} has nulls or numbers that are no partitions"
        )));
    }
    Ok(array.as_primitive::<Int32Type>().values().clone())
}

struct TimeColumn {
    values: ScalarBuffer<i64>,
    nulls: Option<NullBuffer>,
}

impl TimeColumn {
    fn new(name: &str, array: &ArrayRef) -> Result<Self> {
        let per_ms = match array.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => Some(1000),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(1_000_000),
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => None,
            other => {
                return Err(Error::invalid(format!(
                    "timestamp column {name:?} is {other}; a timestamp or a date is needed, since \
                     a number has no unit"
                )));
            }
        };
        if let Some(per_ms) = per_ms {
            // Rounding down, before 1970 as well, which a cast would not do.
            let plain = recast(name, array, &DataType::Int64)?;
            let numbers = plain.as_primitive::<Int64Type>();
            let values = numbers.values().iter().map(|value| value.div_euclid(per_ms)).collect();
            return Ok(Self { values, nulls: numbers.nulls().cloned() });
        }
        let array = recast(name, array, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
        let times = array.as_primitive::<TimestampMillisecondType>();
        Ok(Self { values: times.values().clone(), nulls: times.nulls().cloned() })
    }

    #[inline]
    fn get(&self, row: usize, now: TimestampMs) -> TimestampMs {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return now;
        }
        self.values.get(row).map_or(now, |&time| TimestampMs(time))
    }
}

struct HeadersColumn {
    offsets: OffsetBuffer<i32>,
    nulls: Option<NullBuffer>,
    keys: BytesColumn,
    values: BytesColumn,
}

impl HeadersColumn {
    fn new(name: &str, array: &ArrayRef) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!(
                "headers column {name:?} is {}; list(struct(key, value)) or map(key, value) of \
                 text or bytes is needed",
                array.data_type()
            ))
        };
        let (offsets, keys, values) = match array.data_type() {
            DataType::Map(..) => {
                let map = array.as_map();
                (map.offsets().clone(), map.keys().clone(), map.values().clone())
            }
            DataType::List(item) if matches!(item.data_type(), DataType::Struct(_)) => {
                let list = array.as_list::<i32>();
                let entries = list.values().as_struct();
                let find = |wanted: &str, place: usize| {
                    let named = entries.column_by_name(wanted);
                    named.or_else(|| entries.columns().get(place)).cloned().ok_or_else(wrong)
                };
                (list.offsets().clone(), find("key", 0)?, find("value", 1)?)
            }
            DataType::LargeList(item) => {
                let smaller = recast(name, array, &DataType::List(item.clone()))?;
                return Self::new(name, &smaller);
            }
            _ => return Err(wrong()),
        };
        Ok(Self {
            offsets,
            nulls: array.nulls().cloned(),
            keys: BytesColumn::new(name, &keys).map_err(|_source| wrong())?,
            values: BytesColumn::new(name, &values).map_err(|_source| wrong())?,
        })
    }

    fn of(&self, row: usize) -> Vec<Header<'_>> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Vec::new();
        }
        let bound = |at: usize| {
            self.offsets.get(at).and_then(|&offset| usize::try_from(offset).ok()).unwrap_or(0)
        };
        (bound(row)..bound(row.saturating_add(1)))
            .map(|entry| Header {
                key: self.keys.get(entry).unwrap_or_default(),
                value: self.values.get(entry),
            })
            .collect()
    }
}
