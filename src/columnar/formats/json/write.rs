//! Rows of Arrow columns as JSON objects.
//!
//! | type                         | JSON                                                        |
//! |------------------------------|-------------------------------------------------------------|
//! | bool, integers               | `true`, `42`                                                |
//! | floats                       | shortest text that reads back the same; NaN and ±Infinity by [`NonFinite`] |
//! | utf8 (any layout)            | string                                                      |
//! | binary (any layout)          | base64 string; the text of a UUID where the column is `arrow.uuid` |
//! | timestamp                    | ISO 8601 string in UTC with the unit's digits, `2026-11-21T09:30:00.123Z`; without a zone it counts as UTC |
//! | date32, date64               | `"2026-11-21"`                                              |
//! | time32, time64               | `"09:30:00.123"` with the unit's digits                     |
//! | duration                     | ISO 8601 string, `"PT90.5S"`                                |
//! | decimal                      | string, so that no digit is lost                            |
//! | list, struct                 | array, object                                               |
//! | map                          | object; keys must be text or integers                       |
//! | dictionary                   | as its values                                               |
//!
//! A null is written as `null`, so that every object has every field. A writer is created once per
//! batch; a row needs no allocation.

mod put;

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
use arrow::datatypes::{DataType, Date32Type, Date64Type, Field, FieldRef, Int64Type, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::base64;
use crate::columnar::formats::fail::Fail;
use crate::columnar::formats::writing::RowEncoder;
use crate::columnar::write::bytes_column::BytesColumn;
use crate::error::{Error, Result};
use put::{
    put_date, put_duration, put_non_finite, put_number, put_text, put_time, put_time_of_day,
    put_uuid,
};
pub(crate) use put::{put_i64, put_string, put_u64};

/// How to write NaN and the infinities, which JSON cannot represent as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NonFinite {
    /// The row is refused.
    #[default]
    Refuse,
    /// They become null, like a missing value.
    Null,
    /// They become the strings NaN, Infinity and -Infinity.
    Text,
}

/// Writes rows as JSON objects.
#[derive(Debug)]
pub(crate) struct RowWriter {
    fields: Vec<FieldWriter>,
}

#[derive(Debug)]
struct FieldWriter {
    name: String,
    /// `"name":`, preceded by a brace or comma.
    label: Vec<u8>,
    value: ValueWriter,
}

impl RowWriter {
    /// A writer of all columns except those in `exclude`.
    ///
    /// # Errors
    /// An invalid argument for a column that does not exist or whose type has no JSON
    /// representation.
    pub(crate) fn new(
        batch: &RecordBatch,
        exclude: &[String],
        non_finite: NonFinite,
    ) -> Result<Self> {
        for name in exclude {
            if batch.schema_ref().index_of(name).is_err() {
                return Err(Error::invalid(format!("there is no column {name:?} to exclude")));
            }
        }
        let columns = batch.schema_ref().fields().iter().zip(batch.columns());
        let kept = columns.filter(|(field, _)| !exclude.contains(field.name()));
        Self::of(kept, non_finite)
    }

    fn of<'a>(
        columns: impl Iterator<Item = (&'a FieldRef, &'a ArrayRef)>,
        non_finite: NonFinite,
    ) -> Result<Self> {
        let mut fields: Vec<FieldWriter> = Vec::new();
        let mut seen = BTreeSet::new();
        for (field, array) in columns {
            let name = field.name();
            if !seen.insert(name) {
                return Err(Error::invalid(format!(
                    "there are two columns {name:?}, but a JSON object can have only one"
                )));
            }
            let mut label = vec![if fields.is_empty() { b'{' } else { b',' }];
            put_string(&mut label, name);
            label.push(b':');
            let value = ValueWriter::new(field, array, non_finite)?;
            fields.push(FieldWriter { name: name.clone(), label, value });
        }
        Ok(Self { fields })
    }

    /// Appends the object of a row.
    fn object(&self, row: usize, output: &mut Vec<u8>) -> Result<(), Fail> {
        if self.fields.is_empty() {
            output.extend_from_slice(b"{}");
            return Ok(());
        }
        for field in &self.fields {
            output.extend_from_slice(&field.label);
            field.value.write(row, output).map_err(|fail| fail.under(&field.name))?;
        }
        output.push(b'}');
        Ok(())
    }
}

impl RowEncoder for RowWriter {
    fn write(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        self.object(row, output).map_err(|fail| fail.in_column())
    }
}

/// Writes the values of one column.
#[derive(Debug)]
pub(crate) struct ValueWriter {
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
    F32(Float32Array, NonFinite),
    F64(Float64Array, NonFinite),
    Text(BytesColumn),
    Bytes(BytesColumn),
    Uuid(BytesColumn),
    Time(TimeUnit, ScalarBuffer<i64>),
    Date(ScalarBuffer<i32>),
    /// In milliseconds.
    LongDate(ScalarBuffer<i64>),
    TimeOfDay(TimeUnit, ScalarBuffer<i64>),
    Duration(TimeUnit, ScalarBuffer<i64>),
    /// Rare types, formatted as strings by arrow itself.
    Shown(ArrayRef),
    List(OffsetBuffer<i32>, Box<ValueWriter>),
    LargeList(OffsetBuffer<i64>, Box<ValueWriter>),
    FixedList(usize, Box<ValueWriter>),
    Map(OffsetBuffer<i32>, BytesColumn, Box<ValueWriter>),
    Object(RowWriter),
}

impl ValueWriter {
    pub(crate) fn new(field: &Field, array: &ArrayRef, non_finite: NonFinite) -> Result<Self> {
        let name = field.name();
        let again = |array: &ArrayRef| Self::new(field, array, non_finite);
        let inside = |item: &FieldRef, items: &ArrayRef| {
            Self::new(&item.as_ref().clone().with_name(name), items, non_finite)
        };
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
            DataType::Float32 => Kind::F32(array.as_primitive().clone(), non_finite),
            DataType::Float64 => Kind::F64(array.as_primitive().clone(), non_finite),
            DataType::Float16 => return again(&recast(name, array, &DataType::Float32)?),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Kind::Text(BytesColumn::new(name, array)?)
            }
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => bytes_kind(field, BytesColumn::new(name, array)?),
            DataType::Timestamp(unit, _) => Kind::Time(*unit, numbers(name, array)?),
            DataType::Time64(unit) => Kind::TimeOfDay(*unit, numbers(name, array)?),
            DataType::Time32(unit) => {
                let array = recast(name, array, &DataType::Int32)?;
                Kind::TimeOfDay(*unit, numbers(name, &array)?)
            }
            DataType::Duration(unit) => Kind::Duration(*unit, numbers(name, array)?),
            DataType::Date32 => Kind::Date(array.as_primitive::<Date32Type>().values().clone()),
            DataType::Date64 => Kind::LongDate(array.as_primitive::<Date64Type>().values().clone()),
            DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Kind::Shown(Arc::clone(array)),
            DataType::List(item) => {
                let list: &ListArray = array.as_list();
                Kind::List(list.offsets().clone(), Box::new(inside(item, list.values())?))
            }
            DataType::LargeList(item) => {
                let list: &LargeListArray = array.as_list();
                Kind::LargeList(list.offsets().clone(), Box::new(inside(item, list.values())?))
            }
            DataType::FixedSizeList(item, size) => {
                let list: &FixedSizeListArray = array.as_fixed_size_list();
                let items = inside(item, list.values())?;
                Kind::FixedList(usize::try_from(*size).unwrap_or(0), Box::new(items))
            }
            DataType::Map(..) => Self::map(name, array.as_map(), non_finite)?,
            DataType::Struct(fields) => {
                let object: &StructArray = array.as_struct();
                let columns = fields.iter().zip(object.columns());
                Kind::Object(RowWriter::of(columns, non_finite)?)
            }
            DataType::Dictionary(_, values) => return again(&recast(name, array, values)?),
            other => {
                return Err(Error::invalid(format!(
                    "column {name:?}: {other} cannot be written as JSON; cast or exclude it"
                )));
            }
        };
        Ok(Self { nulls: array.logical_nulls(), kind })
    }

    fn map(name: &str, map: &MapArray, non_finite: NonFinite) -> Result<Kind> {
        let keys = match map.keys().data_type() {
            integer if integer.is_integer() => recast(name, map.keys(), &DataType::Utf8)?,
            _ => Arc::clone(map.keys()),
        };
        if !matches!(keys.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
            return Err(Error::invalid(format!(
                "column {name:?}: the keys of a map must be text or integers to be JSON"
            )));
        }
        let (_, values) = map.entries_fields();
        let values = Self::new(&values.clone().with_name(name), map.values(), non_finite)?;
        Ok(Kind::Map(map.offsets().clone(), BytesColumn::new(name, &keys)?, Box::new(values)))
    }

    #[inline]
    pub(crate) fn write(&self, row: usize, output: &mut Vec<u8>) -> Result<(), Fail> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            output.extend_from_slice(b"null");
            return Ok(());
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
            Kind::F32(array, non_finite) => {
                let value = array.value(row);
                if !value.is_finite() {
                    return put_non_finite(output, f64::from(value), *non_finite);
                }
                put_number(output, &value);
            }
            Kind::F64(array, non_finite) => {
                let value = array.value(row);
                if !value.is_finite() {
                    return put_non_finite(output, value, *non_finite);
                }
                put_number(output, &value);
            }
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
            Kind::LongDate(values) => {
                let days = days(values.get(row).copied().unwrap_or(0))?;
                output.push(b'"');
                put_date(output, i64::from(days));
                output.push(b'"');
            }
            _ => return self.write_nested(row, output),
        }
        Ok(())
    }

    fn write_nested(&self, row: usize, output: &mut Vec<u8>) -> Result<(), Fail> {
        let next = row.saturating_add(1);
        match &self.kind {
            Kind::List(offsets, items) => {
                let range = bound(offsets, row)..bound(offsets, next);
                return items.write_items(range, output);
            }
            Kind::LargeList(offsets, items) => {
                let range = bound(offsets, row)..bound(offsets, next);
                return items.write_items(range, output);
            }
            Kind::FixedList(size, items) => {
                let range = row.saturating_mul(*size)..next.saturating_mul(*size);
                return items.write_items(range, output);
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
                    values.write(entry, output)?;
                }
                output.push(b'}');
            }
            Kind::Object(object) => return object.object(row, output),
            Kind::Uuid(column) => put_uuid(output, column.get(row).unwrap_or_default()),
            Kind::TimeOfDay(unit, values) => {
                return put_time_of_day(output, values.get(row).copied().unwrap_or(0), *unit);
            }
            Kind::Duration(unit, values) => {
                put_duration(output, values.get(row).copied().unwrap_or(0), *unit);
            }
            Kind::Shown(array) => {
                let text = ArrayFormatter::try_new(array, &FormatOptions::default())
                    .and_then(|formatter| formatter.value(row).try_to_string())
                    .map_err(|error| Fail::new(error.to_string()))?;
                put_string(output, &text);
            }
            _ => {}
        }
        Ok(())
    }

    fn write_items(&self, range: std::ops::Range<usize>, output: &mut Vec<u8>) -> Result<(), Fail> {
        output.push(b'[');
        for (count, item) in range.enumerate() {
            if count > 0 {
                output.push(b',');
            }
            self.write(item, output)?;
        }
        output.push(b']');
        Ok(())
    }
}

fn bound<T: Copy + TryInto<usize>>(offsets: &[T], index: usize) -> usize {
    offsets.get(index).and_then(|&offset| offset.try_into().ok()).unwrap_or(0)
}

fn recast(name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast(array, to).map_err(|error| Error::invalid(format!("column {name:?}: {error}")))
}

/// Bytes as base64, or as text if they are UUIDs.
fn bytes_kind(field: &Field, column: BytesColumn) -> Kind {
    match (field.data_type(), field.extension_type_name()) {
        (DataType::FixedSizeBinary(16), Some("arrow.uuid")) => Kind::Uuid(column),
        _ => Kind::Bytes(column),
    }
}

/// The underlying numbers of times.
fn numbers(name: &str, array: &ArrayRef) -> Result<ScalarBuffer<i64>> {
    Ok(recast(name, array, &DataType::Int64)?.as_primitive::<Int64Type>().values().clone())
}

/// The days since 1970 of a date in milliseconds, which may include a time of day that JSON would lose,
/// or be none that is read back.
fn days(milliseconds: i64) -> Result<i32, Fail> {
    const DAY_MS: i64 = 86_400_000;
    let days = i32::try_from(milliseconds.div_euclid(DAY_MS));
    match days {
        Ok(days) if milliseconds.rem_euclid(DAY_MS) == 0 => Ok(days),
        Ok(_) => Err(Fail::new(format!(
            "a date64 of {milliseconds} ms is not midnight; cast it to a timestamp"
        ))),
        Err(_) => Err(Fail::new(format!(
            "a date64 of {milliseconds} ms is beyond the days that 32 bits hold; cast it to a timestamp"
        ))),
    }
}
