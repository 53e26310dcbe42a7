//! `Pending`: native work that a Python program waits for, in a thread or in an event loop.
//!
//! The same object has `result(timeout)` like a `concurrent.futures.Future` and can be awaited.
//! The work continues whether or not anybody waits. Callbacks run on a single separate thread,
//! never on a thread of the runtime: a runtime whose threads waited for the GIL could not serve the
//! thread that holds it.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use pyo3::prelude::*;

use super::errors::to_exception;
use super::runtime;
use crate::client::{Client, Watch};
use crate::error::{Error, Result};

/// Converts a finished result to a Python object.
type Make = Arc<dyn Fn(Python<'_>) -> PyResult<Py<PyAny>> + Send + Sync>;

type Finished = std::result::Result<Make, Arc<Error>>;

/// Work in progress, and its result once it is available.
///
/// Examples
/// --------
/// >>> import ottla
/// >>> done = []
/// >>> with ottla.Broker() as broker:
/// ...     pending = broker.client().send_async("words", "one")
/// ...     pending.add_done_callback(done.append)
/// ...     pending.result(10).offset, pending.exception(), pending.done()
/// (0, None, True)
#[pyclass(frozen, module = "ottla")]
pub(super) struct Pending {
    future: Shared<BoxFuture<'static, Finished>>,
    what: &'static str,
    /// Says what is in the way of work that takes too long.
    watch: Watch,
    process: u32,
}

impl fmt::Debug for Pending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pending").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Pending {
    /// Wraps a future of a client; `make` turns its value into a Python object, once per caller that
    /// asks.
    pub(super) fn new<F, T, M>(client: &Client, what: &'static str, future: F, make: M) -> Self
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + Sync + 'static,
        M: Fn(Python<'_>, &T) -> PyResult<Py<PyAny>> + Send + Sync + 'static,
    {
        let make = Arc::new(make);
        let watch = client.watch();
        let future = watch.over(future).map(move |result| match result {
            Ok(value) => Ok(Arc::new(move |py: Python<'_>| make(py, &value)) as Make),
            Err(error) => Err(Arc::new(error)),
        });
        Self { future: future.boxed().shared(), what, watch, process: std::process::id() }
    }

    fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} was started in process {}, of which this one is a fork: wait for it there",
            self.what, self.process
        )))
    }

    /// The outcome, if available; starts the work if it has not started yet.
    fn peek(&self) -> Result<Option<Finished>> {
        let _context = runtime::handle()?.enter();
        Ok(self.future.clone().now_or_never())
    }

    fn outcome(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Finished> {
        self.check_process()?;
        if let Some(outcome) = self.peek()? {
            return Ok(outcome);
        }
        let future = self.future.clone();
        let timed_out = |after| self.watch.timed_out(self.what, after);
        let waiting = async move { Ok(future.await) };
        runtime::wait_or(py, runtime::timeout(timeout)?, timed_out, waiting)
    }
}

#[pymethods]
impl Pending {
    /// Wait for the result and return it, or raise its error.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    /// How long to wait, in seconds; forever by default.
    ///
    /// Raises
    /// ------
    /// TimeoutError
    /// When it is not available in time; the work continues.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        match self.outcome(py, timeout)? {
            Ok(make) => make(py),
            Err(error) => Err(to_exception(py, &error)),
        }
    }

    /// Wait until it is done; return the error, or None if there is none.
    #[pyo3(signature = (timeout=None))]
    fn exception(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        match self.outcome(py, timeout)? {
            Ok(_value) => Ok(None),
            Err(error) => Ok(Some(to_exception(py, &error).into_value(py).into_any())),
        }
    }

    /// Whether there is a result or an error.
    fn done(&self) -> bool {
        self.process == std::process::id() && matches!(self.peek(), Ok(Some(_)))
    }

    /// Call `callback(pending)` once it is done, from one of ottla's threads.
    fn add_done_callback(slf: &Bound<'_, Self>, callback: Py<PyAny>) -> PyResult<()> {
        let this = slf.get();
        this.check_process()?;
        let future = this.future.clone();
        let pending = slf.clone().unbind();
        let callbacks = runtime::callbacks()?;
        let _task = runtime::handle()?.spawn(async move {
            let _outcome = future.await;
            // The thread only ends with the process.
            let _gone = callbacks.send((callback, pending.into_any()));
        });
        Ok(())
    }

    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().check_process()?;
        slf.py().import("ottla._aio")?.call_method1("wait", (slf,))
    }

    fn __repr__(&self) -> String {
        let state = if self.done() { "done" } else { "pending" };
        format!("<ottla.Pending {}: {state}>", self.what)
    }
}
