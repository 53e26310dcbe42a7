//! The columns of a table as the parts of records: keys, values, timestamps, headers, partitions.
//!
//! Each column is prepared once per table; then a row is read, which formats what cannot be
//! borrowed, and its parts are taken. Called by the encoder, and for single values.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;

use super::bytes_column::BytesColumn;
use super::encode::{HeaderSource, PartitionSource, WriteOptions};
use super::shown;
use crate::columnar::formats::json::write::{put_i64, put_u64};
use crate::columnar::formats::writing::ValueColumn;
use crate::error::{Error, Result};
use crate::record::Header;
use crate::types::TimestampMs;

/// The columns from which records are built.
pub(in crate::columnar) struct Sources {
    pub(in crate::columnar) key: TextSource,
    pub(in crate::columnar) value: ValueColumn,
    pub(in crate::columnar) partition: Option<ScalarBuffer<i32>>,
    pub(in crate::columnar) timestamp: Option<TimeColumn>,
    pub(in crate::columnar) headers: HeaderColumns,
}

impl Sources {
    pub(in crate::columnar) fn new(rows: &RecordBatch, options: &WriteOptions) -> Result<Self> {
        let key = key_source(rows, options)?;
        let value = options.value.values(rows)?;
        let partition = partition_source(rows, options)?;
        let timestamp = match &options.timestamp {
            Some(name) => Some(TimeColumn::new(name, column(rows, name)?)?),
            None => None,
        };
        let headers = HeaderColumns::new(rows, &options.headers)?;
        Ok(Self { key, value, partition, timestamp, headers })
    }

    /// Formats those parts of a row's key and headers that cannot be borrowed.
    #[inline]
    pub(in crate::columnar) fn read(&mut self, row: usize) {
        self.key.read(row);
        if let HeaderColumns::Single(columns) = &mut self.headers {
            for (_, column) in columns {
                column.read(row);
            }
        }
    }
}

/// The keys of rows; nulls without a column.
pub(in crate::columnar) fn key_source(
    rows: &RecordBatch,
    options: &WriteOptions,
) -> Result<TextSource> {
    match &options.key {
        Some(name) => TextSource::new("key", &field(rows, name)?, column(rows, name)?),
        None => Ok(TextSource::Null),
    }
}

/// The partitions of rows, if a column has them.
pub(in crate::columnar) fn partition_source(
    rows: &RecordBatch,
    options: &WriteOptions,
) -> Result<Option<ScalarBuffer<i32>>> {
    match &options.partition {
        PartitionSource::Column(name) => partition_column(name, column(rows, name)?).map(Some),
        PartitionSource::Partitioner | PartitionSource::Fixed(_) => Ok(None),
    }
}

/// The column of a name.
pub(in crate::columnar) fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| {
        let schema = rows.schema_ref();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Error::invalid(format!("there is no column {name:?}; there are {}", names.join(", ")))
    })
}

fn field(rows: &RecordBatch, name: &str) -> Result<Field> {
    column(rows, name)?;
    rows.schema_ref()
        .field_with_name(name)
        .cloned()
        .map_err(|error| Error::invalid(format!("column {name:?}: {error}")))
}

/// Text and bytes unchanged, integers as decimal text, others as described in [`shown`].
pub(in crate::columnar) enum TextSource {
    Null,
    Bytes(BytesColumn),
    Int(IntColumn, Vec<u8>),
}

impl TextSource {
    fn new(what: &str, field: &Field, array: &ArrayRef) -> Result<Self> {
        shown::refuse_storage(field)?;
        let name = field.name();
        let of_dictionary = match array.data_type() {
            DataType::Dictionary(_, values) => values.is_integer(),
            _ => false,
        };
        if array.data_type().is_integer() || of_dictionary {
            return Ok(Self::Int(IntColumn::new(name, array)?, Vec::new()));
        }
        if let Some(texts) = shown::as_text(field, array)? {
            return Ok(Self::Bytes(BytesColumn::new(name, &texts)?));
        }
        match BytesColumn::new(name, array) {
            Ok(column) => Ok(Self::Bytes(column)),
            Err(_) => Err(Error::invalid(format!(
                "{what} column {name:?} is {}; {what}s must be text, bytes, integers, booleans, \
                 decimals, dates or times, so cast it",
                array.data_type()
            ))),
        }
    }

    /// Formats the number of a row as text.
    #[inline]
    pub(in crate::columnar) fn read(&mut self, row: usize) {
        if let Self::Int(numbers, scratch) = self {
            scratch.clear();
            numbers.put(row, scratch);
        }
    }

    /// The bytes of the row that was read.
    #[inline]
    pub(in crate::columnar) fn current(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Null => None,
            Self::Bytes(column) => column.get(row),
            Self::Int(numbers, scratch) => numbers.is_valid(row).then_some(&scratch[..]),
        }
    }
}

pub(in crate::columnar) struct IntColumn {
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

fn recast(name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast(array, to).map_err(|error| Error::invalid(format!("column {name:?}: {error}")))
}

fn partition_column(name: &str, array: &ArrayRef) -> Result<ScalarBuffer<i32>> {
    if !array.data_type().is_integer() {
        return Err(Error::invalid(format!(
            "partition column {name:?} is {}, but must be integers",
            array.data_type()
        )));
    }
    // A number that does not fit becomes null.
    let numbers = recast(name, array, &DataType::Int32)?;
    if let Some(row) = first_null(numbers.nulls()) {
        let detail = match shown_value(array, row) {
            Some(value) => format!("partition column {name:?}: {value} is not a partition"),
            None => format!("the partition column {name:?} is null"),
        };
        return Err(Error::Row { row, detail });
    }
    Ok(numbers.as_primitive::<Int32Type>().values().clone())
}

fn first_null(nulls: Option<&NullBuffer>) -> Option<usize> {
    let nulls = nulls.filter(|nulls| nulls.null_count() > 0)?;
    (0..nulls.len()).find(|&row| nulls.is_null(row))
}

/// A value as text; none for a null.
fn shown_value(array: &ArrayRef, row: usize) -> Option<String> {
    array.is_valid(row).then(|| array_value_to_string(array, row).unwrap_or_default())
}

/// The times of rows.
pub(in crate::columnar) struct TimeColumn {
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
                    "timestamp column {name:?} is {other}, but must be a timestamp or a date, since \
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
        let millis = recast(name, array, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
        let times = millis.as_primitive::<TimestampMillisecondType>();
        // A time that is out of range becomes null.
        let is_out = |row: &usize| times.is_null(*row) && array.is_valid(*row);
        if times.null_count() > array.null_count()
            && let Some(row) = (0..times.len()).find(is_out)
        {
            let plain = array_value_to_string(&recast(name, array, &DataType::Int64)?, row);
            let detail = format!(
                "timestamp column {name:?}: {} ({}) is out of range: Kafka's timestamps are \
                 milliseconds in 64 bits",
                plain.unwrap_or_default(),
                array.data_type()
            );
            return Err(Error::Row { row, detail });
        }
        Ok(Self { values: times.values().clone(), nulls: times.nulls().cloned() })
    }

    #[inline]
    pub(in crate::columnar) fn get(&self, row: usize, now: TimestampMs) -> TimestampMs {
        self.values.get(row).map_or(now, |&time| TimestampMs(time))
    }

    /// The first row without a time.
    pub(in crate::columnar) fn first_null(&self) -> Option<usize> {
        first_null(self.nulls.as_ref())
    }

    /// The oldest of the times.
    pub(in crate::columnar) fn oldest(&self) -> Option<TimestampMs> {
        self.values.iter().min().map(|&time| TimestampMs(time))
    }
}

/// The headers of rows.
pub(in crate::columnar) enum HeaderColumns {
    None,
    Lists(Box<ListColumn>),
    Single(Vec<(String, TextSource)>),
}

impl HeaderColumns {
    fn new(rows: &RecordBatch, source: &HeaderSource) -> Result<Self> {
        Ok(match source {
            HeaderSource::None => Self::None,
            HeaderSource::Column(name) => match column(rows, name)? {
                nulls if *nulls.data_type() == DataType::Null => Self::None,
                lists => Self::Lists(Box::new(ListColumn::new(name, lists)?)),
            },
            HeaderSource::Single(headers) => {
                let mut columns = Vec::with_capacity(headers.len());
                for (key, name) in headers {
                    let source =
                        TextSource::new("header", &field(rows, name)?, column(rows, name)?)?;
                    columns.push((key.clone(), source));
                }
                Self::Single(columns)
            }
        })
    }

    /// The headers of the row that was read.
    #[inline]
    pub(in crate::columnar) fn of(&self, row: usize) -> Vec<Header<'_>> {
        match self {
            Self::None => Vec::new(),
            Self::Lists(column) => column.of(row),
            Self::Single(columns) => columns
                .iter()
                .filter_map(|(key, column)| {
                    let value = column.current(row)?;
                    Some(Header { key: key.as_bytes(), value: Some(value) })
                })
                .collect(),
        }
    }
}

/// A column of lists or maps of headers.
pub(in crate::columnar) struct ListColumn {
    offsets: OffsetBuffer<i32>,
    nulls: Option<NullBuffer>,
    keys: BytesColumn,
    values: BytesColumn,
}

impl ListColumn {
    fn new(name: &str, array: &ArrayRef) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!(
                "headers column {name:?} is {}, but must be list(struct(key, value)) or map(key, value) \
                 of text or bytes",
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{TimestampMicrosecondArray, TimestampNanosecondArray};

    use super::*;

    /// As the docstrings say: record timestamps are milliseconds, rounded down.
    #[test]
    fn digits_of_a_time_below_the_millisecond_are_cut_off_downwards() {
        let times = |array: ArrayRef| {
            let column = TimeColumn::new("c", &array).unwrap();
            (0..array.len()).map(|row| column.get(row, TimestampMs(7)).0).collect::<Vec<_>>()
        };
        let micros = vec![0, 999, 1000, 1999, -1, -999, -1000, -1001];
        let wanted = [0, 0, 1, 1, -1, -1, -1, -2];
        let nanos: Vec<i64> = micros.iter().map(|it| it * 1000).collect();
        assert_eq!(times(Arc::new(TimestampMicrosecondArray::from(micros))), wanted);
        assert_eq!(times(Arc::new(TimestampNanosecondArray::from(nanos))), wanted);
    }
}
