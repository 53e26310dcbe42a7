//! One reading of a scan as an Arrow stream, for libraries that call it from threads of their own.
//!
//! An Arrow stream has a text for an error and no progress: what a library turned into words of its own is kept
//! here, and raised again by [`Stream::finish`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch as Rows, RecordBatchReader};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use super::scan::{Reading, Scan};
use super::{interop, runtime};
use crate::columnar::to_plain;

/// What a stream tells while it is read by a library.
#[derive(Debug)]
struct Told {
    /// Called with numbers of rows.
    progress: Option<Py<PyAny>>,
    /// The rows that `progress` was not told yet.
    rows: AtomicUsize,
    /// Our own error, which the library turned into words of its own.
    error: Mutex<Option<PyErr>>,
}

/// A scan as an Arrow stream for one reading, with progress and errors of our own.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct Stream {
    scan: Py<Scan>,
    plain: bool,
    told: Arc<Told>,
}

impl Stream {
    pub(super) fn new(scan: Py<Scan>, plain: bool, progress: Option<Py<PyAny>>) -> Self {
        let told = Told { progress, rows: AtomicUsize::new(0), error: Mutex::new(None) };
        Self { scan, plain, told: Arc::new(told) }
    }
}

#[pymethods]
impl Stream {
    /// Raises the error that ended the stream, if one did; tells the rest of the progress.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let error = self.told.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.told.report(py)?;
        error.map_or(Ok(()), Err)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        self.scan.get().__arrow_c_schema__(py)
    }

    #[pyo3(signature = (requested_schema=None))]
    pub(super) fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let (reading, schema) = self.scan.get().read(py)?;
        let schema = if self.plain { interop::plain_schema(&schema) } else { schema };
        let reader = Reader { reading, schema, plain: self.plain, told: Arc::clone(&self.told) };
        interop::export_stream(py, Box::new(reader), requested_schema)
    }
}

impl Told {
    fn report(&self, py: Python<'_>) -> PyResult<()> {
        let rows = self.rows.swap(0, Ordering::SeqCst);
        if let Some(progress) = &self.progress
            && rows > 0
        {
            progress.call1(py, (rows,))?;
        }
        Ok(())
    }

    /// Keeps an error for `finish`, and says it in words to the library.
    fn fail(&self, error: PyErr) -> ArrowError {
        let words = error.to_string();
        let interrupted = Python::try_attach(|py| {
            let interrupted = error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py);
            if interrupted && let Ok(thread) = py.import(intern!(py, "_thread")) {
                // The library may swallow the interrupt; Python sees it as soon as it is back.
                let _raised = thread.call_method0(intern!(py, "interrupt_main"));
            }
            interrupted
        });
        if interrupted != Some(true) {
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
        ArrowError::ExternalError(words.into())
    }
}

/// The reader behind an exported stream; a library calls it from any thread.
struct Reader {
    reading: Reading,
    schema: SchemaRef,
    plain: bool,
    told: Arc<Told>,
}

impl Iterator for Reader {
    type Item = Result<Rows, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let reading = &mut self.reading;
        let plain = self.plain;
        let result = runtime::wait_from_callback("the rows of a scan", async {
            match reading.next().await? {
                Some(decoded) if plain => to_plain(&decoded.rows).map(Some),
                Some(decoded) => Ok(Some(decoded.rows)),
                None => Ok(None),
            }
        });
        let rows = match result {
            Ok(rows) => rows?,
            Err(error) => return Some(Err(self.told.fail(error))),
        };
        self.told.rows.fetch_add(rows.num_rows(), Ordering::SeqCst);
        if self.told.progress.is_some() && runtime::on_main_thread() {
            let reported = Python::try_attach(|py| self.told.report(py));
            if let Some(Err(error)) = reported {
                return Some(Err(self.told.fail(error)));
            }
        }
        Some(Ok(rows))
    }
}

impl RecordBatchReader for Reader {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }
}
