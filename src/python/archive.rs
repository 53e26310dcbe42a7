//! Scans as files of the tier.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;

use super::runtime;
use crate::archive;
use crate::client::Scan;
use crate::error::Result;

/// Tells a Python function how many offsets were done since it was told last.
#[derive(Debug)]
pub(super) struct Told {
    progress: Option<Py<PyAny>>,
    done: i64,
    /// So many are worth a call.
    step: i64,
    error: Raised,
}

/// What the function has raised.
#[derive(Clone, Debug, Default)]
pub(super) struct Raised(Arc<Mutex<Option<PyErr>>>);

impl Raised {
    pub(super) fn is_some(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn take(&self) -> Option<PyErr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Told {
    pub(super) fn new(progress: Option<Py<PyAny>>, raised: &Raised) -> Self {
        Self { progress, done: 0, step: 1, error: raised.clone() }
    }

    pub(super) fn tell(&mut self, done: i64, is_end: bool) {
        let Some(progress) = &self.progress else { return };
        let count = done.saturating_sub(self.done);
        if count == 0 || (count < self.step && !is_end) {
            return;
        }
        self.done = done;
        if let Err(error) = Python::attach(|py| progress.call1(py, (count,)).map(drop)) {
            self.progress = None;
            *self.error.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }
}

/// Writes the records of a scan to files below a folder; returns their paths.
pub(super) fn write<F>(
    py: Python<'_>,
    scan: F,
    folder: PathBuf,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<PathBuf>>
where
    F: Future<Output = Result<Scan>> + Send,
{
    let raised = Raised::default();
    let mut told = Told::new(progress, &raised);
    let files = runtime::wait(py, "the files of a scan", None, async move {
        let scan = scan.await?;
        let total = scan.offsets().count();
        told.step = total / 200;
        let files = archive::write(&scan, &folder, |done| told.tell(done, done == total)).await;
        told.tell(total, true);
        files
    })?;
    match raised.take() {
        Some(error) => Err(error),
        None => Ok(files.into_iter().map(|file| file.path).collect()),
    }
}
