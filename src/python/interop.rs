//! Arrow data to and from Python: the PyCapsule interface, both ways.
//!
//! Exporting boxes the C structures of `arrow::ffi` into capsules; the box releases what no
//! consumer took. Importing moves the structures out of the producer's capsules. This is the only
//! file of `python/` with `unsafe`: the C data interface is pointers by nature, and the names of
//! the capsules are the only proof of what they point to, so every import checks the name first.
//!
//! Accepted are objects with `__arrow_c_stream__` (dataframes, tables, readers, our own scans) or
//! `__arrow_c_array__` (one record batch).

#![allow(unsafe_code, reason = "the Arrow C data interface passes structures by pointer")]

use std::ffi::{CStr, c_void};

use arrow::array::{Array, ArrayData, ArrayRef, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow::ffi_stream::FFI_ArrowArrayStream;
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

/// The schema that a consumer requested, if it has the same columns; the interface lets a producer
/// ignore a request that it cannot fulfil.
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

/// Reads the `arrow_schema` capsule of a record batch or table; the capsule keeps its schema.
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

/// The schema of any object with `__arrow_c_schema__`, or with rows.
pub(super) fn import_any_schema(object: &Bound<'_, PyAny>) -> PyResult<Schema> {
    if object.hasattr(intern!(object.py(), "__arrow_c_schema__"))? {
        return import_schema(object);
    }
    Ok(Schema::clone(&import_reader(object)?.schema()))
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
        return import_stream(object, capsule.cast()?);
    }
    if object.hasattr(intern!(py, "__arrow_c_array__"))? {
        let pair = object.call_method0(intern!(py, "__arrow_c_array__"))?;
        let batch = import_batch(object, pair.cast()?)?;
        let schema = batch.schema();
        return Ok(Box::new(RecordBatchIterator::new([Ok(batch)], schema)));
    }
    Err(PyTypeError::new_err(format!(
        "{} holds no Arrow data: pass a dataframe (polars, pandas 2.2 or newer), a pyarrow table, \
         or anything with __arrow_c_stream__ or __arrow_c_array__",
        object.get_type().qualname()?
    )))
}

fn import_stream(
    object: &Bound<'_, PyAny>,
    capsule: &Bound<'_, PyCapsule>,
) -> PyResult<Box<dyn RecordBatchReader + Send>> {
    let pointer = capsule.pointer_checked(Some(STREAM))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: the name was checked; the stream is moved out, which leaves a released one for the
    // destructor of the capsule.
    let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.as_ptr()) };
    Ok(Box::new(ImportedStream::new(object, stream)?))
}

/// A reader of another library's stream. Unlike that of `arrow`, it accepts columns of the type
/// null as polars exports them ([`drop_untyped_buffers`]), and refuses rows that are null as a
/// whole.
struct ImportedStream {
    stream: FFI_ArrowArrayStream,
    schema: SchemaRef,
}

impl ImportedStream {
    fn new(object: &Bound<'_, PyAny>, mut stream: FFI_ArrowArrayStream) -> PyResult<Self> {
        let released = || PyValueError::new_err("this stream of Arrow data has already been read");
        if stream.release().is_none() {
            return Err(released());
        }
        let get_schema = stream.get_schema().ok_or_else(released)?;
        let mut schema = FFI_ArrowSchema::empty();
        // SAFETY: the callback is that of this stream, which was not released.
        let code = unsafe { get_schema(&raw mut stream, &raw mut schema) };
        if code != 0 {
            return Err(PyValueError::new_err(stream_error(&mut stream, code)));
        }
        let field = Field::try_from(&schema).map_err(arrow_error)?;
        let DataType::Struct(fields) = field.data_type() else {
            return Err(no_columns(object, field.data_type())?);
        };
        let schema = Schema::new_with_metadata(fields.clone(), field.metadata().clone());
        Ok(Self { stream, schema: SchemaRef::new(schema) })
    }
}

impl Iterator for ImportedStream {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let get_next = self.stream.get_next()?;
        let mut array = FFI_ArrowArray::empty();
        // SAFETY: the callback is that of this stream, which was not released.
        let code = unsafe { get_next(&raw mut self.stream, &raw mut array) };
        if code != 0 {
            let text = stream_error(&mut self.stream, code);
            return Some(Err(ArrowError::CDataInterface(text)));
        }
        if array.is_released() {
            return None;
        }
        // SAFETY: arrays of a stream have the type of its schema.
        Some(unsafe { batch_of(array, &self.schema) })
    }
}

impl RecordBatchReader for ImportedStream {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }
}

/// The error message of a stream's producer.
fn stream_error(stream: &mut FFI_ArrowArrayStream, code: i32) -> String {
    let text = match stream.get_last_error() {
        // SAFETY: the last call of a callback of this stream failed.
        Some(get_last_error) => unsafe { get_last_error(&raw mut *stream) },
        None => std::ptr::null(),
    };
    if text.is_null() {
        return format!("the producer of the Arrow data failed with code {code}");
    }
    // SAFETY: a zero-terminated text that lives until the next call.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The error for one column where a table is expected; a series of polars or pandas may have a name.
#[cold]
fn no_columns(object: &Bound<'_, PyAny>, data_type: &DataType) -> PyResult<PyErr> {
    let py = object.py();
    let name = object.getattr_opt(intern!(py, "name"))?;
    let name = name.filter(|name| name.is_truthy().unwrap_or(true));
    let is_series = object.hasattr(intern!(py, "to_frame"))?;
    let shown = match &name {
        Some(name) => format!("the column {} of {data_type}", name.repr()?),
        None => format!("one column of {data_type} without a name"),
    };
    let remedy = match (is_series, name) {
        (true, Some(_)) => "pass it as series.to_frame()",
        (true, None) => "pass it as series.to_frame(\"name\")",
        (false, _) => "pass a dataframe, a table or a record batch",
    };
    Ok(PyTypeError::new_err(format!("this is {shown}, not a table: {remedy}")))
}

fn import_batch(object: &Bound<'_, PyAny>, pair: &Bound<'_, PyTuple>) -> PyResult<RecordBatch> {
    let (schema, array) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
    let schema = schema.cast::<PyCapsule>()?.pointer_checked(Some(SCHEMA))?;
    let array = array.cast::<PyCapsule>()?.pointer_checked(Some(ARRAY))?;
    // SAFETY: the name was checked, and the capsule outlives this function.
    let schema = unsafe { schema.cast::<FFI_ArrowSchema>().as_ref() };
    let field = Field::try_from(schema).map_err(arrow_error)?;
    let DataType::Struct(fields) = field.data_type() else {
        return Err(no_columns(object, field.data_type())?);
    };
    let schema = Schema::new_with_metadata(fields.clone(), field.metadata().clone());
    // SAFETY: the name was checked; the array is moved out of its capsule.
    let array = unsafe { FFI_ArrowArray::from_raw(array.cast::<FFI_ArrowArray>().as_ptr()) };
    // SAFETY: both came in one tuple of `__arrow_c_array__`, so the schema describes the array.
    unsafe { batch_of(array, &SchemaRef::new(schema)) }.map_err(arrow_error)
}

/// The rows of an array of structs.
///
/// # Safety
/// The array has the columns of the schema.
unsafe fn batch_of(
    mut array: FFI_ArrowArray,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let data_type = DataType::Struct(schema.fields().clone());
    let structure = (&raw mut array).cast::<CArray>();
    // SAFETY: the array was moved here with all its children, and is of this type.
    unsafe { drop_untyped_buffers(structure, &data_type) };
    // SAFETY: the caller guarantees it.
    let data = unsafe { from_ffi_and_data_type(array, data_type) }?;
    if data.null_count() > 0 {
        return Err(ArrowError::InvalidArgumentError(format!(
            "{} rows are null as a whole, which rows of a table cannot be",
            data.null_count()
        )));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(data.len()));
    let columns = StructArray::from(data).into_parts().1;
    RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)
}

/// The C structure of an array; the fields of `arrow`'s own cannot be set.
#[repr(C)]
struct CArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut Self,
    dictionary: *mut Self,
}

/// Removes the buffers of arrays of the type null, which have none by the specification; polars
/// gives them one for a bitmap that does not exist. The producer still releases its own structures.
///
/// # Safety
/// The array is of this type, was not released, and nobody else has it.
unsafe fn drop_untyped_buffers(array: *mut CArray, data_type: &DataType) {
    // SAFETY: the caller guarantees that there is one.
    let Some(array) = (unsafe { array.as_mut() }) else { return };
    let child = |index: usize, field: &Field| {
        if index < usize::try_from(array.n_children).unwrap_or(0) {
            // SAFETY: there are this many children.
            let child = unsafe { *array.children.add(index) };
            // SAFETY: a child has the type of its field.
            unsafe { drop_untyped_buffers(child, field.data_type()) };
        }
    };
    match data_type {
        DataType::Null => array.n_buffers = 0,
        DataType::Struct(fields) => {
            fields.iter().enumerate().for_each(|(index, field)| child(index, field));
        }
        DataType::Union(fields, _) => {
            fields.iter().enumerate().for_each(|(index, (_, field))| child(index, field));
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => child(0, item),
        DataType::RunEndEncoded(_, values) => child(1, values),
        // SAFETY: a dictionary has the type of its values.
        DataType::Dictionary(_, values) => unsafe {
            drop_untyped_buffers(array.dictionary, values);
        },
        _ => {}
    }
}
