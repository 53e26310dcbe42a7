//! Rows of Arrow columns as JSON objects.
//!
//! | type                         | JSON                                                        |
//! |------------------------------|-------------------------------------------------------------|
//! | bool, integers               | `true`, `42`                                                |
//! | floats                       | shortest text that reads back the same; NaN and ±Infinity are `null` |
//! | utf8 (any layout)            | string                                                      |
//! | binary (any layout)          | base64 string                                               |
//! | timestamp                    | ISO 8601 string in UTC with the unit's digits, `2026-11-21T09:30:00.123Z`; without a zone it counts as UTC |
//! | date32, date64               | `"2026-11-21"`                                              |
//! | decimal                      | string, so that no digit is lost                            |
//! | time, duration, interval     | string                                                      |
//! | list, struct                 | array, object                                               |
//! | map                          | object; keys must be text or integers                       |
//! | dictionary                   | as its values                                               |
//!
//! A null is written as `null`, so that every object has every field. Writers are made once for
//! a batch; a row costs no allocation.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    Int64Array, LargeListArray, ListArray, MapArray, StructArray, UInt8Array, UInt16Array,
    UInt32Array, UInt64Array,
};
use arrow::array::{AsArray, FixedSizeListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use simd_json::{Node, StaticNode};

use super::super::bytes_column::BytesColumn;
use super::{base64, behind};
use crate::error::{Error, Result};

/// Writes rows as JSON objects.
#[derive(Debug)]
pub(crate) struct RowWriter {
    fields: Vec<FieldWriter>,
}

#[derive(Debug)]
struct FieldWriter {
    /// `"name":`, with the brace or comma in front of it.
    label: Vec<u8>,
    value: ValueWriter,
}

impl RowWriter {
    /// A writer of all columns but those in `exclude`.
    ///
    /// # Errors
    /// An invalid argument for a column that is not there or whose type has no JSON.
    pub(crate) fn new(batch: &RecordBatch, exclude: &[String]) -> Result<Self> {
        for name in exclude {
            if batch.schema_ref().index_of(name).is_err() {
                return Err(Error::invalid(format!("there is no column {name:?} to exclude")));
            }
        }
        let columns = batch.schema_ref().fields().iter().zip(batch.columns());
        let kept = columns.filter(|(field, _)| !exclude.contains(field.name()));
        Self::of(kept.map(|(field, array)| (field.name().as_str(), array)))
    }

    fn of<'a>(columns: impl Iterator<Item = (&'a str, &'a ArrayRef)>) -> Result<Self> {
        let mut fields: Vec<FieldWriter> = Vec::new();
        let mut seen = BTreeSet::new();
        for (name, array) in columns {
            if !seen.insert(name) {
                return Err(Error::invalid(format!(
                    "there are two columns {name:?}, of which a JSON object would show one"
                )));
            }
            let mut label = vec![if fields.is_empty() { b'{' } else { b',' }];
            put_string(&mut label, name);
            label.push(b':');
            fields.push(FieldWriter { label, value: ValueWriter::new(name, array)? });
        }
        Ok(Self { fields })
    }

    /// Appends the object of a row.
    pub(crate) fn write(&self, row: usize, output: &mut Vec<u8>) {
        if self.fields.is_empty() {
            output.extend_from_slice(b"{}");
            return;
        }
        for field in &self.fields {
            output.extend_from_slice(&field.label);
            field.value.write(row, output);
        }
        output.push(b'}');
    }
}

#[derive(Debug)]
struct ValueWriter {
    nulls: Option<NullBuffer>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Null,
    Bool(BooleanArray),
    I8(Int8Array),
    I16(Int16Array),
    I32(Int32Array),
    I64(Int64Array),
    U8(UInt8Array),
    U16(UInt16Array),
    U32(UInt32Array),
    U64(UInt64Array),
    F32(Float32Array),
    F64(Float64Array),
    Text(BytesColumn),
    Bytes(BytesColumn),
    Time(TimeUnit, ScalarBuffer<i64>),
    Date(ScalarBuffer<i32>),
    /// Rare types by arrow's own formatter, as strings.
    Shown(ArrayRef),
    List(OffsetBuffer<i32>, Box<ValueWriter>),
    LargeList(OffsetBuffer<i64>, Box<ValueWriter>),
    FixedList(usize, Box<ValueWriter>),
    Map(OffsetBuffer<i32>, BytesColumn, Box<ValueWriter>),
    Object(RowWriter),
}

impl ValueWriter {
    fn new(name: &str, array: &ArrayRef) -> Result<Self> {
        let kind = match array.data_type() {
            DataType::Null => Kind::Null,
            DataType::Boolean => Kind::Bool(array.as_boolean().clone()),
            DataType::Int8 => Kind::I8(array.as_primitive().clone()),
            DataType::Int16 => Kind::I16(array.as_primitive().clone()),
            DataType::Int32 => Kind::I32(array.as_primitive().clone()),
            DataType::Int64 => Kind::I64(array.as_primitive().clone()),
            DataType::UInt8 => Kind::U8(array.as_primitive().clone()),
            DataType::UInt16 => Kind::U16(array.as_primitive().clone()),
            DataType::UInt32 => Kind::U32(array.as_primitive().clone()),
            DataType::UInt64 => Kind::U64(array.as_primitive().clone()),
            DataType::Float32 => Kind::F32(array.as_primitive().clone()),
            DataType::Float64 => Kind::F64(array.as_primitive().clone()),
            DataType::Float16 => return Self::new(name, &recast(name, array, &DataType::Float32)?),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Kind::Text(BytesColumn::new(name, array)?)
            }
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Kind::Bytes(BytesColumn::new(name, array)?),
            DataType::Timestamp(unit, _) => Kind::Time(*unit, time_values(array, *unit)),
            DataType::Date32 => Kind::Date(array.as_primitive::<Date32Type>().values().clone()),
            DataType::Date64 => return Self::new(name, &recast(name, array, &DataType::Date32)?),
            DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Duration(_)
            | DataType::Interval(_) => Kind::Shown(Arc::clone(array)),
            DataType::List(_) => {
                let list: &ListArray = array.as_list();
                let items = Self::new(name, list.values())?;
                Kind::List(list.offsets().clone(), Box::new(items))
            }
            DataType::LargeList(_) => {
                let list: &LargeListArray = array.as_list();
                let items = Self::new(name, list.values())?;
                Kind::LargeList(list.offsets().clone(), Box::new(items))
            }
            DataType::FixedSizeList(_, size) => {
                let list: &FixedSizeListArray = array.as_fixed_size_list();
                let items = Self::new(name, list.values())?;
                Kind::FixedList(usize::try_from(*size).unwrap_or(0), Box::new(items))
            }
            DataType::Map(..) => Self::map(name, array.as_map())?,
            DataType::Struct(fields) => {
                let object: &StructArray = array.as_struct();
                let names = fields.iter().map(|field| field.name().as_str());
                Kind::Object(RowWriter::of(names.zip(object.columns()))?)
            }
            DataType::Dictionary(_, values) => {
                return Self::new(name, &recast(name, array, values)?);
            }
            other => {
                return Err(Error::invalid(format!(
                    "column {name:?}: {other} cannot be written as JSON; cast or exclude it"
                )));
            }
        };
        Ok(Self { nulls: array.logical_nulls(), kind })
    }

    fn map(name: &str, map: &MapArray) -> Result<Kind> {
        let keys = match map.keys().data_type() {
            integer if integer.is_integer() => recast(name, map.keys(), &DataType::Utf8)?,
            _ => Arc::clone(map.keys()),
        };
        if !matches!(keys.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
            return Err(Error::invalid(format!(
                "column {name:?}: the keys of a map must be text or integers to be JSON"
            )));
        }
        let values = Self::new(name, map.values())?;
        Ok(Kind::Map(map.offsets().clone(), BytesColumn::new(name, &keys)?, Box::new(values)))
    }

    #[inline]
    fn write(&self, row: usize, output: &mut Vec<u8>) {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            output.extend_from_slice(b"null");
            return;
        }
        match &self.kind {
            Kind::Null => output.extend_from_slice(b"null"),
            Kind::Bool(array) => {
                output.extend_from_slice(if array.value(row) { b"true" } else { b"false" });
            }
            Kind::I8(array) => put_i64(output, i64::from(array.value(row))),
            Kind::I16(array) => put_i64(output, i64::from(array.value(row))),
            Kind::I32(array) => put_i64(output, i64::from(array.value(row))),
            Kind::I64(array) => put_i64(output, array.value(row)),
            Kind::U8(array) => put_u64(output, u64::from(array.value(row))),
            Kind::U16(array) => put_u64(output, u64::from(array.value(row))),
            Kind::U32(array) => put_u64(output, u64::from(array.value(row))),
            Kind::U64(array) => put_u64(output, array.value(row)),
            Kind::F32(array) => put_number(output, &array.value(row)),
            Kind::F64(array) => put_number(output, &array.value(row)),
            Kind::Text(column) => put_text(output, column.get(row).unwrap_or_default()),
            Kind::Bytes(column) => {
                output.push(b'"');
                base64::encode(column.get(row).unwrap_or_default(), output);
                output.push(b'"');
            }
            Kind::Time(unit, values) => {
                put_time(output, values.get(row).copied().unwrap_or(0), *unit);
            }
            Kind::Date(values) => {
                output.push(b'"');
                put_date(output, i64::from(values.get(row).copied().unwrap_or(0)));
                output.push(b'"');
            }
            _ => self.write_nested(row, output),
        }
    }

    fn write_nested(&self, row: usize, output: &mut Vec<u8>) {
        let next = row.saturating_add(1);
        match &self.kind {
            Kind::List(offsets, items) => {
                let range = bound(offsets, row)..bound(offsets, next);
                items.write_items(range, output);
            }
            Kind::LargeList(offsets, items) => {
                let range = bound(offsets, row)..bound(offsets, next);
                items.write_items(range, output);
            }
            Kind::FixedList(size, items) => {
                items.write_items(row.saturating_mul(*size)..next.saturating_mul(*size), output);
            }
            Kind::Map(offsets, keys, values) => {
                output.push(b'{');
                let range = bound(offsets, row)..bound(offsets, next);
                for (count, entry) in range.enumerate() {
                    if count > 0 {
                        output.push(b',');
                    }
                    put_text(output, keys.get(entry).unwrap_or_default());
                    output.push(b':');
                    values.write(entry, output);
                }
                output.push(b'}');
            }
            Kind::Object(object) => object.write(row, output),
            Kind::Shown(array) => {
                let text = ArrayFormatter::try_new(array, &FormatOptions::default())
                    .and_then(|formatter| formatter.value(row).try_to_string());
                match text {
                    Ok(text) => put_string(output, &text),
                    Err(_) => output.extend_from_slice(b"null"),
                }
            }
            _ => {}
        }
    }

    fn write_items(&self, range: std::ops::Range<usize>, output: &mut Vec<u8>) {
        output.push(b'[');
        for (count, item) in range.enumerate() {
            if count > 0 {
                output.push(b',');
            }
            self.write(item, output);
        }
        output.push(b']');
    }
}

fn bound<T: Copy + TryInto<usize>>(offsets: &[T], index: usize) -> usize {
    offsets.get(index).and_then(|&offset| offset.try_into().ok()).unwrap_or(0)
}

fn recast(name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast(array, to).map_err(|error| Error::invalid(format!("column {name:?}: {error}")))
}

fn time_values(array: &ArrayRef, unit: TimeUnit) -> ScalarBuffer<i64> {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values().clone(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values().clone(),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values().clone(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values().clone(),
    }
}

const DIGIT_PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

pub(crate) fn put_u64(output: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    while number >= 100 {
        at = at.wrapping_sub(2);
        let pair = DIGIT_PAIRS[(number % 100) as usize];
        digits[at] = pair[0];
        digits[at.wrapping_add(1)] = pair[1];
        number /= 100;
    }
    if number >= 10 {
        at = at.wrapping_sub(2);
        let pair = DIGIT_PAIRS[number as usize];
        digits[at] = pair[0];
        digits[at.wrapping_add(1)] = pair[1];
    } else {
        at = at.wrapping_sub(1);
        digits[at] = b'0'.wrapping_add(number as u8);
    }
    output.extend_from_slice(&digits[at..]);
}

pub(crate) fn put_i64(output: &mut Vec<u8>, number: i64) {
    if number < 0 {
        output.push(b'-');
    }
    put_u64(output, number.unsigned_abs());
}

/// Appends a number; NaN and the infinities become null.
fn put_number<T: serde::Serialize>(output: &mut Vec<u8>, number: &T) {
    let before = output.len();
    if serde_json::to_writer(&mut *output, number).is_err() {
        output.truncate(before);
        output.extend_from_slice(b"null");
    }
}

fn put_two(output: &mut Vec<u8>, number: i64) {
    output.extend_from_slice(&DIGIT_PAIRS[(number.unsigned_abs() % 100) as usize]);
}

/// Appends `YYYY-MM-DD` of days since 1970-01-01 (Howard Hinnant's civil_from_days).
fn put_date(output: &mut Vec<u8>, days: i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if (0..=9999).contains(&year) {
        put_two(output, year / 100);
        put_two(output, year % 100);
    } else {
        // ISO 8601 writes years of more than four digits with a sign.
        output.push(if year < 0 { b'-' } else { b'+' });
        put_u64(output, year.unsigned_abs());
    }
    output.push(b'-');
    put_two(output, month);
    output.push(b'-');
    put_two(output, day);
}

fn put_time(output: &mut Vec<u8>, value: i64, unit: TimeUnit) {
    let (per_second, digits) = match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1000, 3),
        TimeUnit::Microsecond => (1_000_000, 6),
        TimeUnit::Nanosecond => (1_000_000_000, 9),
    };
    let seconds = value.div_euclid(per_second);
    let mut fraction = value.rem_euclid(per_second);
    let second_of_day = seconds.rem_euclid(86_400);
    output.push(b'"');
    put_date(output, seconds.div_euclid(86_400));
    // `T00:00:00.`, and the digits of the fraction.
    let mut clock = *b"T00:00:00.000000000";
    let mut set_two = |at: usize, number: i64| {
        [clock[at], clock[at + 1]] = DIGIT_PAIRS[(number.unsigned_abs() % 100) as usize];
    };
    set_two(1, second_of_day / 3600);
    set_two(4, second_of_day / 60 % 60);
    set_two(7, second_of_day % 60);
    for place in clock[10..10 + digits].iter_mut().rev() {
        *place = b'0' + (fraction % 10) as u8;
        fraction /= 10;
    }
    let size = if digits == 0 { 9 } else { 10 + digits };
    output.extend_from_slice(&clock[..size]);
    output.extend_from_slice(b"Z\"");
}

/// Appends a JSON string.
pub(crate) fn put_string(output: &mut Vec<u8>, text: &str) {
    put_text(output, text.as_bytes());
}

/// Appends a JSON string of bytes that are UTF-8.
#[inline]
fn put_text(output: &mut Vec<u8>, text: &[u8]) {
    output.push(b'"');
    if has_escape(text) {
        put_escaped(output, text);
    } else {
        output.extend_from_slice(text);
    }
    output.push(b'"');
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Whether a byte must be escaped: below 0x20, a quote or a backslash. Eight bytes at a time.
#[inline]
fn has_escape(text: &[u8]) -> bool {
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = text.as_chunks::<8>();
    let mut found = 0_u64;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let below = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        found |= below | zero_byte(word ^ (ONES * 0x22)) | zero_byte(word ^ (ONES * 0x5c));
    }
    found != 0 || rest.iter().any(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
}

#[cold]
fn put_escaped(output: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for &byte in text {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..0x20 => {
                output.extend_from_slice(b"\\u00");
                output.push(HEX[usize::from(byte >> 4)]);
                output.push(HEX[usize::from(byte & 15)]);
                continue;
            }
            _ => {
                output.push(byte);
                continue;
            }
        };
        output.extend_from_slice(&[b'\\', short]);
    }
}

/// The JSON text of a parsed value; of a string, with its quotes.
pub(super) fn node_text(nodes: &[Node<'_>], at: usize) -> String {
    let mut output = Vec::new();
    put_node(&mut output, nodes, at);
    String::from_utf8_lossy(&output).into_owned()
}

fn put_node(output: &mut Vec<u8>, nodes: &[Node<'_>], at: usize) {
    match nodes.get(at) {
        None | Some(Node::Static(StaticNode::Null)) => output.extend_from_slice(b"null"),
        Some(Node::Static(StaticNode::Bool(value))) => {
            output.extend_from_slice(if *value { b"true" } else { b"false" });
        }
        Some(Node::Static(StaticNode::I64(value))) => put_i64(output, *value),
        Some(Node::Static(StaticNode::U64(value))) => put_u64(output, *value),
        Some(Node::Static(StaticNode::F64(value))) => put_number(output, value),
        Some(Node::String(text)) => put_string(output, text),
        Some(Node::Array { len, .. }) => {
            output.push(b'[');
            let mut item_at = at.saturating_add(1);
            for index in 0..*len {
                if index > 0 {
                    output.push(b',');
                }
                put_node(output, nodes, item_at);
                item_at = behind(nodes, item_at);
            }
            output.push(b']');
        }
        Some(Node::Object { len, .. }) => {
            output.push(b'{');
            let mut name_at = at.saturating_add(1);
            for index in 0..*len {
                if index > 0 {
                    output.push(b',');
                }
                put_node(output, nodes, name_at);
                output.push(b':');
                let value_at = name_at.saturating_add(1);
                put_node(output, nodes, value_at);
                name_at = behind(nodes, value_at);
            }
            output.push(b'}');
        }
    }
}
