//! `Column`: the values of one column of a batch, as Python sees them.
//!
//! A handle on an Arrow array, which says nothing of the records that the values come from.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::FieldRef;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyIterator, PyList, PyTuple};

use super::batch::frames;
use super::interop::{self, arrow_error};
use super::values;
use crate::columnar::types;

/// One column of a batch; `numpy.asarray(column)`, `pyarrow.array(column)`, `column[row]`.
///
/// Examples
/// --------
/// >>> import ottla
/// >>> with ottla.Broker() as broker:
/// ...     kafka = broker.client()
/// ...     _ = kafka.write("orders", [{"id": 1}, {"id": None}])
/// ...     column = kafka.scan("orders", value={"id": "int64"}).head()["id"]
/// >>> column.name, column.type, column.null_count, column.nbytes > 0
/// ('id', 'int64', 1, True)
/// >>> column.to_pylist(), column.to_pyarrow().sum().as_py(), column.plain()[0]
/// ([1, None], 1, 1)
/// >>> column.to_numpy().tolist()
/// [1.0, nan]
#[pyclass(frozen, module = "ottla")]
#[derive(Debug)]
pub(super) struct Column {
    pub(super) field: FieldRef,
    pub(super) array: ArrayRef,
}

#[pymethods]
impl Column {
    /// The name of the column.
    #[getter]
    fn name(&self) -> &str {
        self.field.name()
    }

    /// The Arrow type.
    #[getter]
    fn r#type(&self) -> String {
        types::name(self.field.data_type())
    }

    /// The number of nulls.
    #[getter]
    fn null_count(&self) -> usize {
        self.array.null_count()
    }

    /// The size in bytes of the memory that the column keeps alive.
    #[getter]
    fn nbytes(&self) -> usize {
        self.array.get_buffer_memory_size()
    }

    fn __len__(&self) -> usize {
        self.array.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: isize) -> PyResult<Bound<'py, PyAny>> {
        let length = self.array.len();
        let place = if index < 0 { index.checked_add_unsigned(length) } else { Some(index) };
        match place.and_then(|place| usize::try_from(place).ok()).filter(|place| *place < length) {
            Some(place) => values::value(py, &self.array, place),
            None => Err(PyIndexError::new_err(format!("row {index} of {length}"))),
        }
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        values::values(py, &self.array)?.try_iter()
    }

    /// Return the values as a list. Copies.
    fn to_pylist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        values::values(py, &self.array)
    }

    /// Return a `numpy.ndarray`: a read-only view of the memory for numbers, booleans and times
    /// without nulls, a copy for others.
    fn to_numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        frames(slf.py())?.call_method1("numpy_column", (slf,))
    }

    /// Return a `pyarrow.Array`; with `string_view` text and bytes are not copied.
    #[pyo3(signature = (*, string_view=false))]
    fn to_pyarrow<'py>(slf: &Bound<'py, Self>, string_view: bool) -> PyResult<Bound<'py, PyAny>> {
        frames(slf.py())?.call_method1("pyarrow_column", (slf, string_view))
    }

    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        frames(slf.py())?.call_method1("numpy_protocol", (slf, dtype, copy))
    }

    fn _memory(&self) -> PyResult<Option<values::Memory>> {
        values::memory(&self.array)
    }

    /// Return the same values as plain utf8 or binary instead of views. Copies.
    fn plain(&self) -> PyResult<Self> {
        let schema = arrow::datatypes::Schema::new([FieldRef::clone(&self.field)]);
        let plain = interop::plain_schema(&schema);
        let field = plain.field(0).clone();
        let array = arrow::compute::cast(&self.array, field.data_type()).map_err(arrow_error)?;
        Ok(Self { field: Arc::new(field), array })
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        interop::export_field(py, &self.field)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        interop::export_array(py, &self.field, &self.array, requested_schema)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        frames(slf.py())?.call_method1("column_text", (slf,))?.extract()
    }
}
