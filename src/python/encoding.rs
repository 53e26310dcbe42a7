//! Single values: encodes a Python object as the value of a record, in a given format.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Fields, Schema};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMapping};

use super::convert::Format;
use super::interop::{self, arrow_error};
use super::{json_value, rows, runtime};
use crate::columnar::{ValueSource, encode_value};
use crate::error::{Error, Result};

/// A format with its schema, for single values of one topic.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct ValueEncoder {
    source: ValueSource,
    /// The columns that the schema requires.
    fields: Option<Fields>,
}

impl ValueEncoder {
    /// Finds or registers the schema.
    pub(super) fn settle(
        py: Python<'_>,
        topic: &str,
        format: &Format,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let mut source = format.writing_one()?;
        if !source.is_settled() {
            let topic = topic.to_owned();
            let timeout = runtime::timeout(timeout)?;
            source = runtime::wait(py, "the schema of a value", timeout, async move {
                let settling = tokio::task::spawn_blocking(move || {
                    source.settle(&topic, &Schema::empty(), &[])
                });
                settling.await.map_err(|error| {
                    Error::invalid(format!("could not determine the schema of a value: {error}"))
                })?
            })?;
        }
        let fields = source.fields()?;
        Ok(Self { source, fields })
    }
}

#[pymethods]
impl ValueEncoder {
    /// The bytes of a value.
    fn encode<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let py = value.py();
        let encoded = if let Ok(mapping) = value.cast::<PyMapping>() {
            if let ValueSource::Json(target) = &self.source {
                Some(json_value::object(mapping, &target.exclude, target.non_finite)?)
            } else {
                let rows = rows::one_row(mapping, self.fields.as_ref())?;
                encode_value(&rows, &self.source)?
            }
        } else if self.source.is_many_rows() {
            let rows = table(value)?;
            py.detach(|| encode_value(&rows, &self.source))?
        } else {
            let field = match (&self.source, self.fields.as_deref()) {
                // A schema that is not a record takes a bare value.
                (ValueSource::Avro(_), Some([field])) if field.name() == "value" => field,
                _ => return Err(unfit(value)?),
            };
            let rows = rows::one_value(field, value)?;
            encode_value(&rows, &self.source)?
        };
        Ok(encoded.map(|bytes| PyBytes::new(py, &bytes)))
    }
}

#[cold]
fn unfit(value: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    Ok(PyTypeError::new_err(format!(
        "a value of this format must be a mapping of names to values, not {}; send bytes and text \
         that are already encoded without value_format=",
        value.get_type().qualname()?
    )))
}

/// All rows of any Arrow data.
fn table(value: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let reader = interop::import_reader(value)?;
    let schema = reader.schema();
    let read = || -> Result<RecordBatch, arrow::error::ArrowError> {
        concat_batches(&schema, &reader.collect::<Result<Vec<_>, _>>()?)
    };
    value.py().detach(read).map_err(arrow_error)
}
