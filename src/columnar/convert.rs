//! Conversions for consumers that cannot read view types, or must not keep a whole buffer alive.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, MapArray, StructArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::error::{Error, Result};

/// The same type with plain utf8 and binary in place of views, at any depth.
#[must_use]
pub fn plain_type(data_type: &DataType) -> DataType {
    let item = |field: &FieldRef| Arc::new(plain_field(field));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(field) => DataType::List(item(field)),
        DataType::LargeList(field) => DataType::LargeList(item(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(item(field), *size),
        DataType::Map(field, sorted) => DataType::Map(item(field), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(item).collect()),
        DataType::Dictionary(key, value) => {
            DataType::Dictionary(key.clone(), Box::new(plain_type(value)))
        }
        other => other.clone(),
    }
}

fn plain_field(field: &FieldRef) -> Field {
    Field::clone(field).with_data_type(plain_type(field.data_type()))
}

pub(super) fn plain_array(array: &ArrayRef) -> Result<ArrayRef> {
    let wanted = plain_type(array.data_type());
    if wanted == *array.data_type() {
        return Ok(Arc::clone(array));
    }
    cast(array, &wanted)
        .map_err(|error| Error::invalid(format!("could not make views plain: {error}")))
}

/// The same rows with plain utf8 and binary columns in place of views; copies those columns.
///
/// # Errors
/// An invalid argument when a column has more than 2 GiB of text or bytes.
pub fn to_plain(batch: &RecordBatch) -> Result<RecordBatch> {
    let fields: Vec<_> =
        batch.schema_ref().fields().iter().map(|field| Arc::new(plain_field(field))).collect();
    let columns = batch.columns().iter().map(plain_array).collect::<Result<Vec<_>>>()?;
    rebuild(batch, fields, columns)
}

/// The same rows in buffers that hold nothing else, so that the fetched bytes can be released.
///
/// # Errors
/// None for columns produced by this module.
pub fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(compact_array).collect::<Result<Vec<_>>>()?;
    rebuild(batch, batch.schema_ref().fields().to_vec(), columns)
}

fn rebuild(
    batch: &RecordBatch,
    fields: Vec<FieldRef>,
    columns: Vec<ArrayRef>,
) -> Result<RecordBatch> {
    let schema = Schema::new_with_metadata(fields, batch.schema_ref().metadata().clone());
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &options).map_err(internal)
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn internal(error: arrow::error::ArrowError) -> Error {
    Error::invalid(format!("could not rebuild the columns: {error}"))
}

fn compact_array(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::BinaryView => Arc::new(take_all(array)?.as_binary_view().gc()),
        DataType::Utf8View => Arc::new(take_all(array)?.as_string_view().gc()),
        DataType::Struct(fields) => {
            let object = array.as_struct();
            let children =
                object.columns().iter().map(compact_array).collect::<Result<Vec<_>>>()?;
            let nulls = object.nulls().map(|nulls| nulls.iter().collect());
            let object =
                StructArray::try_new_with_length(fields.clone(), children, nulls, array.len());
            Arc::new(object.map_err(internal)?)
        }
        DataType::List(item) => {
            let taken = take_all(array)?;
            let (_, offsets, values, nulls) = taken.as_list::<i32>().clone().into_parts();
            let values = compact_array(&values)?;
            let list = arrow::array::ListArray::try_new(Arc::clone(item), offsets, values, nulls);
            Arc::new(list.map_err(internal)?)
        }
        DataType::Map(entries, sorted) => {
            let taken = take_all(array)?;
            let (_, offsets, rows, nulls, _) = taken.as_map().clone().into_parts();
            let rows = compact_array(&(Arc::new(rows) as ArrayRef))?.as_struct().clone();
            let map = MapArray::try_new(Arc::clone(entries), offsets, rows, nulls, *sorted);
            Arc::new(map.map_err(internal)?)
        }
        _ => take_all(array)?,
    })
}

fn take_all(array: &ArrayRef) -> Result<ArrayRef> {
    let rows =
        u32::try_from(array.len()).map_err(|_source| Error::invalid("too many rows in a batch"))?;
    let indices: UInt32Array = (0..rows).collect();
    take(array, &indices, None).map_err(internal)
}

/// The size of the distinct buffers behind the columns: what the rows keep alive, not what they
/// take themselves. A buffer that several columns share counts once.
#[must_use]
pub fn nbytes(batch: &RecordBatch) -> usize {
    let mut seen = BTreeSet::new();
    batch.columns().iter().map(|column| data_size(&column.to_data(), &mut seen)).sum()
}

fn data_size(data: &ArrayData, seen: &mut BTreeSet<(usize, usize)>) -> usize {
    let nulls = data.nulls().map(arrow::buffer::NullBuffer::buffer);
    let own: usize = data
        .buffers()
        .iter()
        .chain(nulls)
        .filter(|buffer| seen.insert((buffer.data_ptr().as_ptr() as usize, buffer.len())))
        .map(arrow::buffer::Buffer::len)
        .sum();
    let children = data.child_data().iter().map(|child| data_size(child, seen));
    own.saturating_add(children.sum())
}
