//! Arrays in the form that the encoders of binary formats read: cast once, then read row by row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, Float32Type, Float64Type, Int32Type, Int64Type,
    TimeUnit,
};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;

use super::bytes_column::BytesColumn;
use super::shown;
use crate::error::{Error, Result};

/// A column, and its field, which may say more than the type.
pub(in crate::columnar) type Typed<'a> = (&'a Field, &'a ArrayRef);
/// The items of lists, or the keys or values of maps.
pub(in crate::columnar) type Items = (FieldRef, ArrayRef);

/// The column of items.
pub(in crate::columnar) fn typed((field, array): &Items) -> Typed<'_> {
    (field.as_ref(), array)
}

/// Casts a column; a value that does not fit, or would change, is an error.
pub(in crate::columnar) fn cast_exactly(
    path: &str,
    array: &ArrayRef,
    to: &DataType,
) -> Result<ArrayRef> {
    let done = cast(path, array, to)?;
    if array.data_type() == to || *array.data_type() == DataType::Null {
        return Ok(done);
    }
    // A value that overflows on the way back has changed as well.
    let back = cast_with_options(&done, array.data_type(), &CastOptions::default())
        .map_err(|error| Error::invalid(format!("column {path:?}: {error}")))?;
    let differs = |row: &usize| back.slice(*row, 1).to_data() != array.slice(*row, 1).to_data();
    if back.to_data() == array.to_data() {
        return Ok(done);
    }
    match (0..array.len()).find(differs) {
        Some(row) => {
            let value = array_value_to_string(array, row).unwrap_or_default();
            let detail =
                format!("column {path:?}: {value} would change as {to}; round or cast it first");
            Err(Error::Row { row, detail })
        }
        None => Ok(done),
    }
}

/// Casts a column; a value that does not fit is an error, not a null.
pub(in crate::columnar) fn cast(path: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let fits = |row: &usize| cast_with_options(&array.slice(*row, 1), to, &options).is_ok();
    cast_with_options(array, to, &options).map_err(|error| {
        match (0..array.len()).find(|row| !fits(row)) {
            Some(row) => {
                let value = array_value_to_string(array, row).unwrap_or_default();
                let detail = format!("column {path:?}: {value} does not fit {to}; cast it first");
                Error::Row { row, detail }
            }
            None => Error::invalid(format!("column {path:?}: {error}")),
        }
    })
}

/// An error of an item of lists or maps, as one of the row that has the item.
pub(in crate::columnar) fn in_row_of(offsets: &OffsetBuffer<i32>, error: Error) -> Error {
    match error {
        Error::Row { row: item, detail } => {
            let is_before = |&end: &i32| usize::try_from(end).is_ok_and(|end| end <= item);
            let row = offsets.partition_point(is_before).saturating_sub(1);
            Error::Row { row, detail }
        }
        other => other,
    }
}

/// The decoded array of a dictionary, or the array itself.
pub(in crate::columnar) fn plain(path: &str, array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Dictionary(_, value) => cast(path, array, value),
        _ => Ok(Arc::clone(array)),
    }
}

fn primitives<T: ArrowPrimitiveType>(
    path: &str,
    array: &ArrayRef,
    to: &DataType,
) -> Result<ScalarBuffer<T::Native>> {
    Ok(cast_exactly(path, array, to)?.as_primitive::<T>().values().clone())
}

fn whole_or_refuse(path: &str, array: &ArrayRef) -> Result<()> {
    match array.data_type() {
        one if one.is_integer() || *one == DataType::Null => Ok(()),
        other => Err(unfit(path, other, "whole numbers")),
    }
}

#[cold]
pub(in crate::columnar) fn unfit(path: &str, found: &DataType, wanted: &str) -> Error {
    Error::invalid(format!("column {path:?} is {found}, but must contain {wanted}; cast it"))
}

pub(in crate::columnar) fn i32s(path: &str, array: &ArrayRef) -> Result<ScalarBuffer<i32>> {
    let array = plain(path, array)?;
    whole_or_refuse(path, &array)?;
    primitives::<Int32Type>(path, &array, &DataType::Int32)
}

pub(in crate::columnar) fn i64s(path: &str, array: &ArrayRef) -> Result<ScalarBuffer<i64>> {
    let array = plain(path, array)?;
    whole_or_refuse(path, &array)?;
    primitives::<Int64Type>(path, &array, &DataType::Int64)
}

fn number_or_refuse(path: &str, array: &ArrayRef) -> Result<()> {
    match array.data_type() {
        one if one.is_numeric() || *one == DataType::Null => Ok(()),
        other => Err(unfit(path, other, "numbers")),
    }
}

pub(in crate::columnar) fn f32s(path: &str, array: &ArrayRef) -> Result<ScalarBuffer<f32>> {
    let array = plain(path, array)?;
    number_or_refuse(path, &array)?;
    if *array.data_type() != DataType::Float64 {
        return primitives::<Float32Type>(path, &array, &DataType::Float32);
    }
    // A schema with fewer digits asks for rounding, but not for a different magnitude.
    let wide = array.as_primitive::<Float64Type>();
    let narrow = wide.unary::<_, Float32Type>(|value| value as f32);
    let overflows = |row: &usize| {
        wide.is_valid(*row) && wide.value(*row).is_finite() && !narrow.value(*row).is_finite()
    };
    match (0..wide.len()).find(overflows) {
        Some(row) => {
            let value = wide.value(row);
            let detail = format!("column {path:?}: {value} is out of range for a 32-bit float");
            Err(Error::Row { row, detail })
        }
        None => Ok(narrow.values().clone()),
    }
}

pub(in crate::columnar) fn f64s(path: &str, array: &ArrayRef) -> Result<ScalarBuffer<f64>> {
    let array = plain(path, array)?;
    number_or_refuse(path, &array)?;
    primitives::<Float64Type>(path, &array, &DataType::Float64)
}

pub(in crate::columnar) fn bools(
    path: &str,
    array: &ArrayRef,
) -> Result<arrow::buffer::BooleanBuffer> {
    let array = plain(path, array)?;
    match array.data_type() {
        DataType::Boolean | DataType::Null => {
            Ok(cast(path, &array, &DataType::Boolean)?.as_boolean().values().clone())
        }
        other => Err(unfit(path, other, "booleans")),
    }
}

/// Days since 1970.
pub(in crate::columnar) fn days(path: &str, array: &ArrayRef) -> Result<ScalarBuffer<i32>> {
    match array.data_type() {
        DataType::Date32 | DataType::Date64 | DataType::Null => {
            let days = cast_exactly(path, array, &DataType::Date32)?;
            Ok(days.as_primitive::<arrow::datatypes::Date32Type>().values().clone())
        }
        other => Err(unfit(path, other, "dates")),
    }
}

/// Times of the day in a unit, as 64-bit numbers.
pub(in crate::columnar) fn times_of_day(
    path: &str,
    array: &ArrayRef,
    unit: TimeUnit,
) -> Result<ScalarBuffer<i64>> {
    match array.data_type() {
        DataType::Time32(from) => {
            let raw = cast(path, &cast(path, array, &DataType::Int32)?, &DataType::Int64)?;
            scaled(path, raw.as_primitive::<Int64Type>(), *from, unit)
        }
        DataType::Time64(from) => {
            let raw = cast(path, array, &DataType::Int64)?;
            scaled(path, raw.as_primitive::<Int64Type>(), *from, unit)
        }
        DataType::Null => Ok(std::iter::repeat_n(0, array.len()).collect()),
        other => Err(unfit(path, other, "times of day")),
    }
}

/// Instants (or local times) since 1970 in a unit.
pub(in crate::columnar) fn instants(
    path: &str,
    array: &ArrayRef,
    unit: TimeUnit,
    local: bool,
) -> Result<ScalarBuffer<i64>> {
    match array.data_type() {
        // A cast to a type without a zone yields the zone's local time.
        DataType::Timestamp(from, Some(_)) if local => {
            let array = cast(path, array, &DataType::Timestamp(*from, None))?;
            instants(path, &array, unit, local)
        }
        DataType::Timestamp(from, _) => {
            let raw = cast(path, array, &DataType::Int64)?;
            scaled(path, raw.as_primitive::<Int64Type>(), *from, unit)
        }
        DataType::Date32 | DataType::Date64 => {
            let array = cast(path, array, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
            instants(path, &array, unit, local)
        }
        DataType::Null => Ok(std::iter::repeat_n(0, array.len()).collect()),
        other => Err(unfit(path, other, "timestamps")),
    }
}

const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Times in another unit; those that it cannot hold exactly are refused.
fn scaled(
    path: &str,
    times: &Int64Array,
    from: TimeUnit,
    to: TimeUnit,
) -> Result<ScalarBuffer<i64>> {
    let (from_rate, to_rate) = (per_second(from), per_second(to));
    if from_rate == to_rate {
        return Ok(times.values().clone());
    }
    let (up, down) = (to_rate / from_rate.min(to_rate), from_rate / from_rate.min(to_rate));
    let mut scaled = Vec::with_capacity(times.len());
    for (row, &time) in times.values().iter().enumerate() {
        let exact = if time.checked_rem(down) == Some(0) {
            time.checked_div(down).and_then(|time| time.checked_mul(up))
        } else {
            None
        };
        // The value under a null does not matter.
        match exact.or_else(|| times.is_null(row).then_some(0)) {
            Some(time) => scaled.push(time),
            None => {
                let detail = format!(
                    "column {path:?}: {time} {from:?}s since the epoch are not a whole 64-bit \
                     number of {to:?}s; round or cast it first"
                );
                return Err(Error::Row { row, detail });
            }
        }
    }
    Ok(scaled.into())
}

/// Text; UUIDs in their text form.
pub(in crate::columnar) fn texts(path: &str, (field, array): Typed<'_>) -> Result<BytesColumn> {
    let array = plain(path, array)?;
    match array.data_type() {
        DataType::FixedSizeBinary(16) if shown::is_uuid(field) => {
            BytesColumn::new(path, &shown::uuids(&array))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            BytesColumn::new(path, &array)
        }
        other => Err(unfit(path, other, "text")),
    }
}

/// Bytes, or text as its bytes.
pub(in crate::columnar) fn bytes(path: &str, array: &ArrayRef) -> Result<BytesColumn> {
    BytesColumn::new(path, array)
}

/// The offsets of lists or maps that are all null, and what is in them.
fn nothing_in(array: &ArrayRef) -> (OffsetBuffer<i32>, Items) {
    let field = Arc::new(Field::new("", DataType::Null, true));
    (OffsetBuffer::new_zeroed(array.len()), (field, new_null_array(&DataType::Null, 0)))
}

/// The offsets of some of a table's lists, the place of their first item, and how many they have: the
/// items of other rows are neither cast nor counted.
fn from_zero(offsets: &OffsetBuffer<i32>) -> (OffsetBuffer<i32>, usize, usize) {
    let ends: &[i32] = offsets;
    let (first, last) = (ends.first().copied(), ends.last().copied());
    let (first, last) = (first.unwrap_or(0), last.unwrap_or(0));
    let moved =
        offsets.iter().map(|offset| offset.wrapping_sub(first)).collect::<ScalarBuffer<_>>();
    let place = |offset: i32| offset.unsigned_abs() as usize;
    (OffsetBuffer::new(moved), place(first), place(last.wrapping_sub(first)))
}

/// The offsets and the items of lists.
pub(in crate::columnar) fn lists(
    path: &str,
    array: &ArrayRef,
) -> Result<(OffsetBuffer<i32>, Items)> {
    match array.data_type() {
        _ if is_untyped(array) => Ok(nothing_in(array)),
        DataType::List(item) => {
            let lists = array.as_list::<i32>();
            let (offsets, first, count) = from_zero(lists.offsets());
            Ok((offsets, (Arc::clone(item), lists.values().slice(first, count))))
        }
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            lists(path, &cast(path, array, &DataType::List(Arc::clone(item)))?)
        }
        other => Err(unfit(path, other, "lists")),
    }
}

/// The offsets, keys and values of maps.
pub(in crate::columnar) fn maps(
    path: &str,
    array: &ArrayRef,
) -> Result<(OffsetBuffer<i32>, Items, Items)> {
    let wrong = || unfit(path, array.data_type(), "maps");
    match array.data_type() {
        _ if is_untyped(array) => {
            let (offsets, items) = nothing_in(array);
            Ok((offsets, items.clone(), items))
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let (key, value) = map.entries_fields();
            let (offsets, first, count) = from_zero(map.offsets());
            let keys = (Arc::new(key.clone()), map.keys().slice(first, count));
            let values = (Arc::new(value.clone()), map.values().slice(first, count));
            Ok((offsets, keys, values))
        }
        // Libraries without maps represent them as lists of pairs.
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => {
                let [key, value] = fields.as_ref() else { return Err(wrong()) };
                let list = array.as_list::<i32>();
                let pairs = list.values().as_struct();
                let (offsets, first, count) = from_zero(list.offsets());
                let keys = (Arc::clone(key), pairs.column(0).slice(first, count));
                let values = (Arc::clone(value), pairs.column(1).slice(first, count));
                Ok((offsets, keys, values))
            }
            _ => Err(wrong()),
        },
        DataType::LargeList(item) => {
            maps(path, &cast(path, array, &DataType::List(Arc::clone(item)))?)
        }
        _ => Err(wrong()),
    }
}

/// The entries of a list or a map in a row.
#[inline]
pub(in crate::columnar) fn range(
    offsets: &OffsetBuffer<i32>,
    row: usize,
) -> std::ops::Range<usize> {
    let bound = |at: usize| offsets.get(at).map_or(0, |&offset| offset.unsigned_abs() as usize);
    bound(row)..bound(row.wrapping_add(1))
}

#[inline]
pub(in crate::columnar) fn is_null(nulls: Option<&NullBuffer>, row: usize) -> bool {
    nulls.is_some_and(|nulls| nulls.is_null(row))
}

/// Whether a column has only nulls, because of its type: libraries give it to columns in which they
/// have seen no value.
pub(in crate::columnar) fn is_untyped(array: &ArrayRef) -> bool {
    match array.data_type() {
        DataType::Dictionary(_, value) => **value == DataType::Null,
        other => *other == DataType::Null,
    }
}

/// The nulls of an array, including those of a dictionary's values.
pub(in crate::columnar) fn nulls(array: &ArrayRef) -> Option<NullBuffer> {
    array.logical_nulls()
}

/// The columns of a table, without those that are left out.
pub(in crate::columnar) fn columns<'a>(
    rows: &'a RecordBatch,
    exclude: &'a [String],
) -> impl Iterator<Item = Typed<'a>> {
    let fields = rows.schema_ref().fields().iter().map(AsRef::as_ref);
    fields.zip(rows.columns()).filter(|(field, _)| !exclude.contains(field.name()))
}

/// The members of structs.
pub(in crate::columnar) fn members<'a>(path: &str, array: &'a ArrayRef) -> Result<Vec<Typed<'a>>> {
    match array.data_type() {
        DataType::Struct(fields) => {
            let fields = fields.iter().map(AsRef::as_ref);
            Ok(fields.zip(array.as_struct().columns()).collect())
        }
        other => Err(unfit(path, other, "structs")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::ListArray;

    use super::*;

    fn row_of(error: &Error) -> Option<usize> {
        if let Error::Row { row, .. } = error { Some(*row) } else { None }
    }

    #[test]
    fn a_value_that_does_not_fit_is_told_by_its_row_also_in_lists() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1 << 40)]));
        let error = i32s("a", &numbers).unwrap_err();
        assert_eq!(row_of(&error), Some(2), "{error}");
        assert!(error.to_string().contains("1099511627776 does not fit Int32"), "{error}");

        let one = |items: &[i64]| Some(items.iter().map(|&item| Some(item)).collect::<Vec<_>>());
        let rows = vec![one(&[1 << 41]), one(&[1, 2]), None, one(&[]), one(&[3, 1 << 40, 4])];
        let all: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows));
        let check = |array: &ArrayRef| {
            let (offsets, items) = lists("a", array).unwrap();
            let error = i32s("a[]", &items.1).err()?;
            row_of(&in_row_of(&offsets, error))
        };
        assert_eq!(check(&all), Some(0));
        // Rows behind others, and before them: items of these are none of theirs.
        assert_eq!(check(&all.slice(1, 4)), Some(3));
        assert_eq!(check(&all.slice(1, 3)), None);
        assert_eq!(check(&all.slice(4, 1)), Some(0));
        assert_eq!(check(&all.slice(5, 0)), None);
    }
}
