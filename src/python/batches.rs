//! The batches of a scan, one after the other.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use super::batch::RecordBatch;
use super::runtime;
use super::scan::Reading;
use crate::error::{Error, ErrorCode};

/// An iterator of the batches of a scan.
#[pyclass(frozen, module = "ottla._ottla")]
pub(super) struct Batches {
    reading: tokio::sync::Mutex<Reading>,
    /// What ended the reading; going on behind it would leave out the rows around it.
    broken: Mutex<Option<PyErr>>,
}

impl Batches {
    pub(super) fn new(reading: Reading) -> Self {
        Self { reading: tokio::sync::Mutex::new(reading), broken: Mutex::new(None) }
    }
}

/// Whether an error is about the records, so that what was decoded with them is gone.
fn is_about_records(error: &Error) -> bool {
    match error {
        Error::Decode { .. } | Error::Corrupt { .. } | Error::Malformed { .. } => true,
        Error::Kafka { code, .. } => {
            matches!(code, ErrorCode::CorruptMessage | ErrorCode::InvalidRecord)
        }
        _ => false,
    }
}

#[pymethods]
impl Batches {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<RecordBatch>> {
        let broken = || self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &*broken() {
            return Err(error.clone_ref(py));
        }
        let read = runtime::wait(py, "the rows of a scan", None, async {
            let read = self.reading.lock().await.next().await;
            match read {
                Err(error) if is_about_records(&error) => Ok(Err(error)),
                read => read.map(Ok),
            }
        })?;
        match read {
            Ok(decoded) => Ok(decoded.map(RecordBatch::from)),
            Err(error) => {
                let error = PyErr::from(error);
                *broken() = Some(error.clone_ref(py));
                Err(error)
            }
        }
    }
}
