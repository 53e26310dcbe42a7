//! Arrow data across the border: the PyCapsule interface, both ways.
//!
//! Export boxes the C structures of `arrow::ffi` into capsules; the box releases what no consumer
//! took. Import moves the structures out of the producer's capsules. This is the only file of
//! `python/` with `unsafe`: the C data interface is pointers by nature, and the names of the
//! capsules are the only proof of what they point to, so every import checks the name first.
//!
//! Accepted are objects with `__arrow_c_stream__` (dataframes, tables, readers, our own scans) or
//! `__arrow_c_array__` (one record batch).

#![allow(unsafe_code, reason = "the Arrow C data interface passes structures by pointer")]

use std::ffi::CStr;

use arrow::array::{Array, ArrayData, ArrayRef, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi};
use arrow::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use arrow::record_batch::{
    RecordBatch, RecordBatchIterator, RecordBatchOptions, RecordBatchReader,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

use crate::columnar::plain_type;

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
const STREAM: &CStr = c"arrow_array_stream";

/// An arrow error as a Python `ValueError`.
pub(super) fn arrow_error(error: ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Exports a schema as an `arrow_schema` capsule.
pub(super) fn export_schema<'py>(
    py: Python<'py>,
    schema: &Schema,
) -> PyResult<Bound<'py, PyCapsule>> {
    let schema = FFI_ArrowSchema::try_from(schema).map_err(arrow_error)?;
    PyCapsule::new_with_value(py, schema, SCHEMA)
}

/// Exports the type of one column as an `arrow_schema` capsule.
pub(super) fn export_field<'py>(py: Python<'py>, field: &Field) -> PyResult<Bound<'py, PyCapsule>> {
    let schema = FFI_ArrowSchema::try_from(field).map_err(arrow_error)?;
    PyCapsule::new_with_value(py, schema, SCHEMA)
}

fn export_data<'py>(
    py: Python<'py>,
    schema: FFI_ArrowSchema,
    data: &ArrayData,
) -> PyResult<Bound<'py, PyTuple>> {
    let schema = PyCapsule::new_with_value(py, schema, SCHEMA)?;
    let array = PyCapsule::new_with_value(py, FFI_ArrowArray::new(data), ARRAY)?;
    PyTuple::new(py, [schema, array])
}

/// Exports a batch as the pair of capsules of `__arrow_c_array__`.
pub(super) fn export_batch<'py>(
    py: Python<'py>,
    batch: &RecordBatch,
    requested: Option<&Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let batch = match requested {
        Some(requested) => cast_batch(batch, &requested_schema(batch.schema_ref(), requested)?)?,
        None => batch.clone(),
    };
    let schema = FFI_ArrowSchema::try_from(batch.schema_ref().as_ref()).map_err(arrow_error)?;
    export_data(py, schema, &StructArray::from(batch).to_data())
}

/// Exports one column as the pair of capsules of `__arrow_c_array__`.
pub(super) fn export_array<'py>(
    py: Python<'py>,
    field: &Field,
    array: &ArrayRef,
    requested: Option<&Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let Some(requested) = requested else {
        let schema = FFI_ArrowSchema::try_from(field).map_err(arrow_error)?;
        return export_data(py, schema, &array.to_data());
    };
    let wanted = field_of(requested)?;
    let array = cast(array, wanted.data_type()).map_err(arrow_error)?;
    let schema = FFI_ArrowSchema::try_from(&wanted).map_err(arrow_error)?;
    export_data(py, schema, &array.to_data())
}

/// Exports a reader as an `arrow_array_stream` capsule; with a requested schema its batches are
/// cast as they are read.
pub(super) fn export_stream<'py>(
    py: Python<'py>,
    reader: Box<dyn RecordBatchReader + Send>,
    requested: Option<&Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let reader: Box<dyn RecordBatchReader + Send> = match requested {
        None => reader,
        Some(requested) => {
            let schema = requested_schema(&reader.schema(), requested)?;
            Box::new(Casting { inner: reader, schema })
        }
    };
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(reader), STREAM)
}

/// A reader whose batches are cast to a schema.
struct Casting {
    inner: Box<dyn RecordBatchReader + Send>,
    schema: SchemaRef,
}

impl Iterator for Casting {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.inner.next()?;
        Some(batch.and_then(|batch| cast_columns(&batch, &self.schema)))
    }
}

impl RecordBatchReader for Casting {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }
}

fn cast_columns(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(ArrayRef::clone(column))
            } else {
                cast(column, field.data_type())
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)
}

/// The same rows with the types of `schema`, which has the same columns.
pub(super) fn cast_batch(batch: &RecordBatch, schema: &SchemaRef) -> PyResult<RecordBatch> {
    cast_columns(batch, schema).map_err(arrow_error)
}

/// What a consumer asked for, if it names the columns that there are; the interface lets a
/// producer ignore a request which it cannot fulfil.
fn requested_schema(ours: &SchemaRef, capsule: &Bound<'_, PyCapsule>) -> PyResult<SchemaRef> {
    let wanted = schema_of(capsule)?;
    let fits = wanted.fields().len() == ours.fields().len()
        && wanted.fields().iter().zip(ours.fields()).all(|(wanted, ours)| {
            wanted.name() == ours.name()
                && arrow::compute::can_cast_types(ours.data_type(), wanted.data_type())
        });
    Ok(if fits { SchemaRef::new(wanted) } else { SchemaRef::clone(ours) })
}

/// The types that every Arrow library can compute with: views become plain strings and binaries.
pub(super) fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_data_type(plain_type(field.data_type())))
        .collect();
    SchemaRef::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Reads an `arrow_schema` capsule of a record batch or table; the capsule keeps its schema.
pub(super) fn schema_of(capsule: &Bound<'_, PyCapsule>) -> PyResult<Schema> {
    let pointer = capsule.pointer_checked(Some(SCHEMA))?.cast::<FFI_ArrowSchema>();
    // SAFETY: the name of the capsule was checked, and a capsule of that name points to a schema
    // that lives as long as the capsule.
    Schema::try_from(unsafe { pointer.as_ref() }).map_err(arrow_error)
}

/// Reads an `arrow_schema` capsule of one column.
pub(super) fn field_of(capsule: &Bound<'_, PyCapsule>) -> PyResult<Field> {
    let pointer = capsule.pointer_checked(Some(SCHEMA))?.cast::<FFI_ArrowSchema>();
    // SAFETY: as in `schema_of`.
    Field::try_from(unsafe { pointer.as_ref() }).map_err(arrow_error)
}

/// The schema of any object with `__arrow_c_schema__`.
pub(super) fn import_schema(object: &Bound<'_, PyAny>) -> PyResult<Schema> {
    schema_of(object.call_method0(intern!(object.py(), "__arrow_c_schema__"))?.cast()?)
}

/// The type of any object with `__arrow_c_schema__`, for example a `pyarrow.DataType`.
pub(super) fn import_field(object: &Bound<'_, PyAny>) -> PyResult<Field> {
    field_of(object.call_method0(intern!(object.py(), "__arrow_c_schema__"))?.cast()?)
}

/// A reader of any object that exports Arrow data.
///
/// # Errors
///
/// `TypeError` when the object exports none, or rows that are not structs.
pub(super) fn import_reader(
    object: &Bound<'_, PyAny>,
) -> PyResult<Box<dyn RecordBatchReader + Send>> {
    let py = object.py();
    if object.hasattr(intern!(py, "__arrow_c_stream__"))? {
        let capsule = object.call_method0(intern!(py, "__arrow_c_stream__"))?;
        return import_stream(capsule.cast()?);
    }
    if object.hasattr(intern!(py, "__arrow_c_array__"))? {
        let pair = object.call_method0(intern!(py, "__arrow_c_array__"))?;
        let batch = import_batch(pair.cast()?)?;
        let schema = batch.schema();
        return Ok(Box::new(RecordBatchIterator::new([Ok(batch)], schema)));
    }
    Err(PyTypeError::new_err(format!(
        "{} holds no Arrow data: pass a dataframe (polars, pandas 2.2 or newer), a pyarrow table, \
         or anything with __arrow_c_stream__ or __arrow_c_array__",
        object.get_type().qualname()?
    )))
}

fn import_stream(capsule: &Bound<'_, PyCapsule>) -> PyResult<Box<dyn RecordBatchReader + Send>> {
    let pointer = capsule.pointer_checked(Some(STREAM))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: the name was checked; the stream is moved out, which leaves a released one behind
    // for the destructor of the capsule.
    let reader = unsafe { RecordBatchStreamReader::from_raw(pointer.as_ptr()) };
    Ok(Box::new(reader.map_err(arrow_error)?))
}

fn import_batch(pair: &Bound<'_, PyTuple>) -> PyResult<RecordBatch> {
    let (schema, array) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
    let schema = schema.cast::<PyCapsule>()?.pointer_checked(Some(SCHEMA))?;
    let array = array.cast::<PyCapsule>()?.pointer_checked(Some(ARRAY))?;
    // SAFETY: the name was checked; the array is moved out of its capsule.
    let array = unsafe { FFI_ArrowArray::from_raw(array.cast::<FFI_ArrowArray>().as_ptr()) };
    // SAFETY: the name was checked, and the capsule outlives this function.
    let schema = unsafe { schema.cast::<FFI_ArrowSchema>().as_ref() };
    // SAFETY: both came in one tuple of `__arrow_c_array__`, so the schema describes the array.
    let data = unsafe { from_ffi(array, schema) }.map_err(arrow_error)?;
    if !matches!(data.data_type(), DataType::Struct(_)) {
        return Err(PyTypeError::new_err(format!(
            "an array of {} has no columns: pass a record batch or a table",
            data.data_type()
        )));
    }
    Ok(RecordBatch::from(StructArray::from(data)))
}
