//! Records as rows, and rows as records.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int64Array, Int64Builder,
    ListArray, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::schema;
use crate::record::{BatchHeader, BatchRebuilder, Header, TimestampType};
use crate::types::{Offset, TimestampMs};

const MICROS: i64 = 1000;
/// A batch that is larger uncompressed is kept as it was, so that a reader needs no more memory for it.
pub(super) const REBUILT_BYTES_MAX: usize = 64 << 20;

/// One record, as it becomes a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) offset: Offset,
    pub(super) timestamp: TimestampMs,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [Header<'a>],
}

impl Row<'_> {
    /// Whether the row says all of the record: a time that microseconds cannot express is null, and a
    /// header's key that is no text is made one.
    pub(super) fn is_faithful(&self) -> bool {
        let text = |header: &Header<'_>| std::str::from_utf8(header.key).is_ok();
        micros(self.timestamp).is_some() != (self.timestamp == TimestampMs::NONE)
            && self.headers.iter().all(text)
    }

    /// Whether a row that was read back says what can be said of a record.
    pub(super) fn says(&self, record: &Row<'_>) -> bool {
        let same = |(found, expected): (&Header<'_>, &Header<'_>)| {
            found.key == String::from_utf8_lossy(expected.key).as_bytes()
                && found.value == expected.value
        };
        (self.offset, self.key, self.value) == (record.offset, record.key, record.value)
            && micros(self.timestamp) == micros(record.timestamp)
            && self.headers.len() == record.headers.len()
            && self.headers.iter().zip(record.headers).all(same)
    }
}

/// None for no time, and for one that is beyond 290,000 years.
fn micros(timestamp: TimestampMs) -> Option<i64> {
    if timestamp == TimestampMs::NONE { None } else { timestamp.0.checked_mul(MICROS) }
}

/// Collects rows.
#[derive(Debug)]
pub(super) struct RowsBuilder {
    offsets: Int64Builder,
    timestamps: TimestampMicrosecondBuilder,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    /// Where the headers of each row end.
    header_ends: Vec<i32>,
    header_keys: StringBuilder,
    header_values: BinaryBuilder,
}

impl RowsBuilder {
    pub(super) fn new() -> Self {
        Self {
            offsets: Int64Builder::new(),
            timestamps: TimestampMicrosecondBuilder::new().with_timezone(schema::UTC),
            keys: BinaryBuilder::new(),
            values: BinaryBuilder::new(),
            header_ends: vec![0],
            header_keys: StringBuilder::new(),
            header_values: BinaryBuilder::new(),
        }
    }

    pub(super) fn push(&mut self, row: &Row<'_>) {
        self.offsets.append_value(row.offset.0);
        self.timestamps.append_option(micros(row.timestamp));
        self.keys.append_option(row.key);
        self.values.append_option(row.value);
        for header in row.headers {
            self.header_keys.append_value(String::from_utf8_lossy(header.key));
            self.header_values.append_option(header.value);
        }
        // A header has at least two bytes of a batch, which has fewer than an i32 can count.
        self.header_ends.push(i32::try_from(self.header_values.len()).unwrap_or(i32::MAX));
    }

    /// The rows so far, and no rows from then on.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let ends = std::mem::replace(&mut self.header_ends, vec![0]);
        let fields: Vec<ArrayRef> =
            vec![Arc::new(self.header_keys.finish()), Arc::new(self.header_values.finish())];
        let headers = StructArray::try_new(schema::header_fields(), fields, None)?;
        let headers = ListArray::try_new(
            Arc::new(schema::header_field()),
            OffsetBuffer::new(ScalarBuffer::from(ends)),
            Arc::new(headers),
            None,
        )?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.offsets.finish()),
            Arc::new(self.timestamps.finish()),
            Arc::new(self.keys.finish()),
            Arc::new(self.values.finish()),
            Arc::new(headers),
        ];
        RecordBatch::try_new(schema::schema(), columns)
    }
}

/// The rows of a row group, to be read one by one.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    offsets: &'a Int64Array,
    timestamps: &'a TimestampMicrosecondArray,
    keys: &'a BinaryArray,
    values: &'a BinaryArray,
    headers: &'a ListArray,
    header_keys: &'a StringArray,
    header_values: &'a BinaryArray,
}

impl<'a> Rows<'a> {
    /// None when the columns are not those of a file of the tier.
    pub(super) fn of(rows: &'a RecordBatch) -> Option<Self> {
        let column = |name: &str| rows.column_by_name(name);
        let headers = column(schema::HEADERS)?.as_list_opt::<i32>()?;
        let fields = headers.values().as_struct_opt()?;
        Some(Self {
            offsets: column(schema::OFFSET)?.as_primitive_opt::<Int64Type>()?,
            timestamps: column(schema::TIMESTAMP)?
                .as_primitive_opt::<TimestampMicrosecondType>()?,
            keys: column(schema::KEY)?.as_binary_opt::<i32>()?,
            values: column(schema::VALUE)?.as_binary_opt::<i32>()?,
            headers,
            header_keys: fields.column_by_name("key")?.as_string_opt::<i32>()?,
            header_values: fields.column_by_name("value")?.as_binary_opt::<i32>()?,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The row at `index`, with its headers in `headers`.
    pub(super) fn get<'b>(&self, index: usize, headers: &'b mut Vec<Header<'a>>) -> Row<'b>
    where
        'a: 'b,
    {
        headers.clear();
        let ends = self.headers.value_offsets();
        let end = |at: usize| ends.get(at).and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
        for at in end(index)..end(index + 1) {
            let value = self.header_values.is_valid(at).then(|| self.header_values.value(at));
            headers.push(Header { key: self.header_keys.value(at).as_bytes(), value });
        }
        let timestamp = if self.timestamps.is_valid(index) {
            TimestampMs(self.timestamps.value(index).div_euclid(MICROS))
        } else {
            TimestampMs::NONE
        };
        Row {
            offset: Offset(self.offsets.value(index)),
            timestamp,
            key: self.keys.is_valid(index).then(|| self.keys.value(index)),
            value: self.values.is_valid(index).then(|| self.values.value(index)),
            headers,
        }
    }

    /// The records of the batch with this header: the rows in `range`.
    ///
    /// # Errors
    ///
    /// Why the rows are not those of the batch.
    pub(super) fn rebuild(
        &self,
        header: &BatchHeader,
        range: Range<usize>,
    ) -> Result<BatchRebuilder, String> {
        let mut rebuilder = BatchRebuilder::with_capacity(header.size_bytes.min(REBUILT_BYTES_MAX));
        let mut headers = Vec::new();
        for index in range {
            let row = self.get(index, &mut headers);
            let deltas = deltas(header, row.offset, row.timestamp)
                .ok_or_else(|| format!("the row of offset {} is of another batch", row.offset))?;
            rebuilder
                .append(deltas, row.key, row.value, row.headers)
                .map_err(|error| error.to_string())?;
        }
        Ok(rebuilder)
    }
}

/// What a record with this offset and time has in a batch; none when it is not one of the batch.
pub(super) fn deltas(
    header: &BatchHeader,
    offset: Offset,
    timestamp: TimestampMs,
) -> Option<(i64, i32)> {
    let offset_delta = offset.0.checked_sub(header.base_offset.0)?;
    let offset_delta = i32::try_from(offset_delta).ok()?;
    if offset_delta < 0 || offset_delta > header.last_offset_delta {
        return None;
    }
    let timestamp_delta = match header.timestamp_type() {
        TimestampType::CreateTime => timestamp.0.wrapping_sub(header.base_timestamp.0),
        // All records have the time of the batch; what the producer had set is not kept.
        TimestampType::LogAppendTime => 0,
    };
    Some((timestamp_delta, offset_delta))
}
