//! Fits the arrays of a value to the columns.
//!
//! Members of structs are found by name, at any depth; one that a value lacks is null. Nulls fit
//! every type, and other values are cast where that changes none of them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, FixedSizeListArray, LargeListArray, ListArray, MapArray,
    StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::util::display::array_value_to_string;

/// Roughly the bytes that a null takes in a type without a fixed size.
const VARIABLE_NULL_BYTES: usize = 16;

/// The bytes that a null takes; with `items`, including one item of each list in it.
pub(super) fn null_bytes(of: &DataType, items: bool) -> usize {
    // A negative size counts as none.
    let count = |size: i32| usize::try_from(size).unwrap_or(usize::MAX);
    match of {
        DataType::FixedSizeBinary(size) => count(*size),
        DataType::FixedSizeList(item, size) => {
            count(*size).saturating_mul(null_bytes(item.data_type(), items).max(1))
        }
        DataType::Struct(fields) => fields
            .iter()
            .map(|field| null_bytes(field.data_type(), items))
            .fold(1, usize::saturating_add),
        DataType::Union(fields, _) => fields
            .iter()
            .map(|(_, field)| null_bytes(field.data_type(), items))
            .fold(VARIABLE_NULL_BYTES, usize::saturating_add),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::Map(item, _)
        | DataType::RunEndEncoded(_, item)
            if items =>
        {
            VARIABLE_NULL_BYTES.saturating_add(null_bytes(item.data_type(), items))
        }
        DataType::Dictionary(_, value) if items => {
            VARIABLE_NULL_BYTES.saturating_add(null_bytes(value, items))
        }
        DataType::Null => 0,
        DataType::Boolean => 1,
        other => other.primitive_width().unwrap_or(VARIABLE_NULL_BYTES),
    }
}

/// The bytes that a column takes in addition to the value's own.
pub(super) fn made_bytes(array: Option<&ArrayRef>, rows: usize, field: &Field) -> usize {
    match array {
        None => rows.saturating_mul(null_bytes(field.data_type(), false)),
        Some(array) => converted_bytes(&array.to_data(), field.data_type()),
    }
}

/// The bytes of what is not the same in the type of the column.
fn converted_bytes(data: &ArrayData, to: &DataType) -> usize {
    let from = data.data_type();
    if from == to {
        return 0;
    }
    let nulls = |of: &DataType, items| data.len().saturating_mul(null_bytes(of, items));
    let child = |at: usize, to: &FieldRef| {
        data.child_data().get(at).map_or(0, |child| converted_bytes(child, to.data_type()))
    };
    match (from, to) {
        (DataType::Null, _) => nulls(to, true),
        (DataType::Struct(members), DataType::Struct(wanted)) => wanted
            .iter()
            .map(|field| match members.find(field.name()) {
                Some((at, _)) => child(at, field),
                None => nulls(field.data_type(), true),
            })
            .fold(data.len(), usize::saturating_add),
        (DataType::Map(..), DataType::Map(entries, _)) => {
            let parts = data.child_data().first().map_or(&[][..], ArrayData::child_data);
            let wanted = entries_of(entries).into_iter().flatten();
            let parts = parts.iter().zip(wanted);
            parts
                .map(|(part, field)| converted_bytes(part, field.data_type()))
                .fold(nulls(to, false), usize::saturating_add)
        }
        _ => match item_of(to).filter(|_| item_of(from).is_some()) {
            Some(item) => child(0, item).saturating_add(nulls(to, false)),
            None => nulls(to, false),
        },
    }
}

/// The items of a list.
const fn item_of(of: &DataType) -> Option<&FieldRef> {
    match of {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item)
        }
        _ => None,
    }
}

/// The key and the value of a map's entries.
fn entries_of(entries: &FieldRef) -> Option<&Fields> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Some(fields),
        _ => None,
    }
}

/// Refuses members that have the same name, or that no column has where the columns were `found` in
/// the first values.
pub(super) fn check_members(
    path: &str,
    members: &Fields,
    wanted: &Fields,
    found: bool,
) -> Result<(), String> {
    for (at, member) in members.iter().enumerate() {
        let name = member.name();
        if wanted.find(name).is_none() {
            if found {
                return Err(format!(
                    "column {:?} is not among the columns, which are those of the first value: \
                     pass arrow_ipc() a schema, and it is read if the schema has it",
                    inside(path, name)
                ));
            }
        } else if members.iter().take(at).any(|other| other.name() == name) {
            return Err(format!("there are two columns {:?}", inside(path, name)));
        }
    }
    Ok(())
}

fn inside(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Fits an array to the type of a column; `found` as in [`check_members`].
pub(super) fn fit(
    path: &str,
    array: &ArrayRef,
    to: &DataType,
    found: bool,
) -> Result<ArrayRef, String> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    let wrong = |_error| unfit(path, array, to, None);
    match (from, to) {
        (DataType::Struct(members), DataType::Struct(wanted)) => {
            check_members(path, members, wanted, found)?;
            let (_, arrays, nulls) = array.as_struct().clone().into_parts();
            let column = |field: &FieldRef| match members.find(field.name()) {
                Some((at, _)) => arrays.get(at).map_or_else(
                    || Err(unfit(path, array, to, None)),
                    |part| fit(&inside(path, field.name()), part, field.data_type(), found),
                ),
                None => Ok(new_null_array(field.data_type(), array.len())),
            };
            let columns = wanted.iter().map(column).collect::<Result<Vec<_>, _>>()?;
            let fitted =
                StructArray::try_new_with_length(wanted.clone(), columns, nulls, array.len());
            Ok(Arc::new(fitted.map_err(wrong)?))
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let fields = entries_of(entries).ok_or_else(|| unfit(path, array, to, None))?;
            let (_, offsets, rows, nulls, _) = array.as_map().clone().into_parts();
            let parts = rows.columns().iter().zip(fields);
            let path = format!("{path}{{}}");
            let parts = parts
                .map(|(part, field)| fit(&path, part, field.data_type(), found))
                .collect::<Result<Vec<_>, _>>()?;
            let rows = StructArray::try_new(fields.clone(), parts, None).map_err(wrong)?;
            let map = MapArray::try_new(Arc::clone(entries), offsets, rows, nulls, *sorted);
            Ok(Arc::new(map.map_err(wrong)?))
        }
        _ if array.logical_null_count() == array.len() => Ok(new_null_array(to, array.len())),
        (_, DataType::Null) => Err(format!(
            "column {path:?} is {from}, but has only nulls in the first values, so its type is not \
             known: pass arrow_ipc() a schema"
        )),
        _ => match item_of(to).filter(|_| item_of(from).is_some()) {
            Some(item) => cast_alike(path, &with_items(path, array, item, found)?, to),
            // Arrow's casts find the members of structs by position.
            None if from.is_nested() || to.is_nested() => Err(unfit(path, array, to, None)),
            None => cast_alike(path, array, to),
        },
    }
}

/// Lists of the same kind, whose items are fitted.
fn with_items(
    path: &str,
    array: &ArrayRef,
    item: &FieldRef,
    found: bool,
) -> Result<ArrayRef, String> {
    let wrong = |_error| unfit(path, array, item.data_type(), None);
    let fitted = |items: &ArrayRef| fit(&format!("{path}[]"), items, item.data_type(), found);
    let item = Arc::clone(item);
    Ok(match array.data_type() {
        DataType::LargeList(_) => {
            let (_, offsets, items, nulls) = array.as_list::<i64>().clone().into_parts();
            let lists = LargeListArray::try_new(item, offsets, fitted(&items)?, nulls);
            Arc::new(lists.map_err(wrong)?)
        }
        DataType::FixedSizeList(..) => {
            let (_, size, items, nulls) = array.as_fixed_size_list().clone().into_parts();
            let lists = FixedSizeListArray::try_new(item, size, fitted(&items)?, nulls);
            Arc::new(lists.map_err(wrong)?)
        }
        _ => {
            let (_, offsets, items, nulls) = array.as_list::<i32>().clone().into_parts();
            let lists = ListArray::try_new(item, offsets, fitted(&items)?, nulls);
            Arc::new(lists.map_err(wrong)?)
        }
    })
}

/// Casts an array; a value that would change is refused.
fn cast_alike(path: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    if Kind::of(from) != Kind::of(to) && !is_text(from) && !is_text(to) {
        return Err(unfit(path, array, to, None));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let done =
        cast_with_options(array, to, &options).map_err(|_error| unfit(path, array, to, None))?;
    // Any value has a text. Of texts, those are read that are how their value is written, and come back the
    // same; nobody can tell what is lost of others.
    if is_text(to) {
        return Ok(done);
    }
    let back = cast_with_options(&done, from, &CastOptions::default());
    let back = back.map_err(|_error| unfit(path, array, to, None))?;
    let (before, after) = (array.to_data(), back.to_data());
    if before == after {
        return Ok(done);
    }
    let differs = |row: &usize| before.slice(*row, 1) != after.slice(*row, 1);
    match (0..array.len()).find(differs) {
        Some(row) => Err(unfit(path, array, to, Some(row))),
        None => Ok(done),
    }
}

fn is_text(of: &DataType) -> bool {
    match of {
        DataType::Dictionary(_, value) => value.is_string(),
        other => other.is_string(),
    }
}

/// What values mean, apart from their range and unit; no cast changes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    Number,
    Moment,
    TimeOfDay,
    Duration,
    Bytes,
}

impl Kind {
    fn of(of: &DataType) -> Option<Self> {
        Some(match of {
            DataType::Boolean => Self::Boolean,
            other if other.is_numeric() => Self::Number,
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Self::Moment,
            DataType::Time32(_) | DataType::Time64(_) => Self::TimeOfDay,
            DataType::Duration(_) => Self::Duration,
            other if other.is_binary() => Self::Bytes,
            DataType::Dictionary(_, value) => return Self::of(value),
            _ => return None,
        })
    }
}

/// Why an array does not fit: because of its type, or of a value.
#[cold]
fn unfit(path: &str, array: &ArrayRef, to: &DataType, value: Option<usize>) -> String {
    let value = value.and_then(|row| array_value_to_string(array, row).ok());
    let value = value.map_or_else(String::new, |value| format!(": {value} would change"));
    format!("column {path:?} is {}, which cannot be read as {to}{value}", array.data_type())
}

/// The columns of a value, with the types of a later one where there were only nulls before.
pub(super) fn typed_by(fields: &Fields, later: &Fields) -> Fields {
    let typed = |field: &FieldRef| match later.find(field.name()) {
        Some((_, other)) => typed_field(field, other),
        None => Arc::clone(field),
    };
    fields.iter().map(typed).collect()
}

fn typed_field(field: &FieldRef, later: &FieldRef) -> FieldRef {
    let of = match (field.data_type(), later.data_type()) {
        // With the metadata, which may say more than the type.
        (DataType::Null, _) => {
            return Arc::new(Field::clone(later).with_name(field.name()).with_nullable(true));
        }
        (DataType::Struct(members), DataType::Struct(others)) => {
            DataType::Struct(typed_by(members, others))
        }
        (DataType::Map(entries, sorted), DataType::Map(others, _)) => {
            let (Some(members), Some(later)) = (entries_of(entries), entries_of(others)) else {
                return Arc::clone(field);
            };
            let members = members.iter().zip(later).map(|(one, other)| typed_field(one, other));
            let of = DataType::Struct(members.collect());
            DataType::Map(Arc::new(Field::clone(entries).with_data_type(of)), *sorted)
        }
        (from, other) => {
            let Some((item, later)) = item_of(from).zip(item_of(other)) else {
                return Arc::clone(field);
            };
            let item = typed_field(item, later);
            match from {
                DataType::LargeList(_) => DataType::LargeList(item),
                DataType::FixedSizeList(_, size) => DataType::FixedSizeList(item, *size),
                _ => DataType::List(item),
            }
        }
    };
    Arc::new(Field::clone(field).with_data_type(of))
}

/// Whether part of a type is unknown, because no value was seen.
pub(super) fn is_untyped(of: &DataType) -> bool {
    match of {
        DataType::Null => true,
        DataType::Struct(members) => members.iter().any(|one| is_untyped(one.data_type())),
        DataType::Map(entries, _) => is_untyped(entries.data_type()),
        other => item_of(other).is_some_and(|item| is_untyped(item.data_type())),
    }
}
