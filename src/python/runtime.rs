//! The tokio runtime inside a Python process, and how a Python thread waits for it.
//!
//! One multi-threaded runtime serves the whole process. It is started by the first call that
//! needs it and remembered together with the id of its process: a child created by `fork` inherits
//! the memory of the runtime but none of its threads, so anything that waits for it, even to drop
//! it, would hang forever. The child therefore leaks the old one and starts its own
//! (`tests/python/test_process.py` forks with work in flight).
//!
//! ```text
//!   Python thread            wait(): detach from the interpreter
//!        │   ┌──────────────── block_on(future, at most 50 ms)
//!        │   │   not done ───► attach, check signals, check the deadline ──┐
//!        │   └──────────────────────────────────────────────────────────────┘
//!        ▼   done: attach, return the value or raise
//! ```
//!
//! At the exit of the interpreter, [`finish`] ends all waits within one slice, so that no thread
//! returns to an interpreter that is gone.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};

use super::logging;
use crate::client::{Client, Watch};
use crate::error::{Error, Result};

/// The longest time between two checks for signals.
const SLICE: Duration = Duration::from_millis(50);

/// How long the exit of the interpreter waits for other threads to leave their waits.
const EXIT_GRACE: Duration = Duration::from_secs(2);

/// A Python callable and its one argument.
pub(super) type Callback = (Py<PyAny>, Py<PyAny>);

/// A runtime, and the process that its threads belong to.
struct Owned {
    process: u32,
    /// The channel to the thread that calls back into Python.
    callbacks: mpsc::Sender<Callback>,
    /// Never dropped: in a forked child its threads do not exist and dropping would join them.
    runtime: ManuallyDrop<Runtime>,
}

static CURRENT: ArcSwapOption<Owned> = ArcSwapOption::const_empty();
static MAIN_THREAD: OnceLock<ThreadId> = OnceLock::new();
static EXITING: AtomicBool = AtomicBool::new(false);
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// The handle of this process's runtime, which is started if needed.
///
/// # Errors
///
/// When the operating system refuses the threads.
pub(super) fn handle() -> Result<Handle> {
    Ok(owned()?.runtime.handle().clone())
}

/// Where calls back into Python are queued; each belongs to an earlier call of the program, which
/// bounds their number.
pub(super) fn callbacks() -> Result<mpsc::Sender<Callback>> {
    Ok(owned()?.callbacks.clone())
}

fn owned() -> Result<Arc<Owned>> {
    let process = std::process::id();
    loop {
        let current = CURRENT.load();
        if let Some(owned) = current.as_ref()
            && owned.process == process
        {
            return Ok(Arc::clone(owned));
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(worker_threads())
            .thread_name("ottla")
            .on_thread_start(stay_after_broken_pipes)
            .enable_all()
            .build()
            .map_err(|source| Error::io("start", "the threads of the runtime", source))?;
        let callbacks = start_callbacks()?;
        let runtime = ManuallyDrop::new(runtime);
        let fresh = Arc::new(Owned { process, callbacks, runtime });
        let previous = CURRENT.compare_and_swap(&current, Some(Arc::clone(&fresh)));
        if same(previous.as_ref(), current.as_ref()) {
            if let Some(inherited) = previous.as_ref() {
                // The parent's runtime: leak it.
                std::mem::forget(Arc::clone(inherited));
            }
            return Ok(fresh);
        }
        // Another thread was faster: this runtime is unshared and idle, so it can be dropped.
        if let Ok(owned) = Arc::try_unwrap(fresh) {
            ManuallyDrop::into_inner(owned.runtime).shutdown_background();
        }
    }
}

/// A peer that disconnects during a write should only fail that write. Programs that have restored
/// SIGPIPE's default, as Python's documentation recommends for filters, must not die.
fn stay_after_broken_pipes() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal};
        SigSet::from(Signal::SIGPIPE).thread_block().ok();
    }
}

/// Starts the thread that calls back into Python.
fn start_callbacks() -> Result<mpsc::Sender<Callback>> {
    let (sender, receiver) = mpsc::channel::<Callback>();
    std::thread::Builder::new()
        .name("ottla-callbacks".to_owned())
        .spawn(move || {
            while let Ok(first) = receiver.recv() {
                let Ok(_waiting) = Waiting::enter() else { return };
                let _exiting = Python::try_attach(|py| {
                    for (callback, argument) in std::iter::once(first).chain(receiver.try_iter()) {
                        if let Err(error) = callback.call1(py, (argument,)) {
                            error.write_unraisable(py, Some(callback.bind(py)));
                        }
                    }
                });
            }
        })
        .map_err(|source| Error::io("start", "the thread of callbacks", source))?;
    Ok(sender)
}

fn same(left: Option<&Arc<Owned>>, right: Option<&Arc<Owned>>) -> bool {
    match (left, right) {
        (None, None) => true,
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        _ => false,
    }
}

fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 16)
}

/// Records the thread that imports the module: signals are delivered to Python code only on the
/// main thread, which is this one in nearly all programs.
pub(super) fn remember_main_thread() {
    let _already = MAIN_THREAD.set(std::thread::current().id());
}

/// Whether the calling thread is the one that runs Python's signal handlers.
pub(super) fn on_main_thread() -> bool {
    MAIN_THREAD.get() == Some(&std::thread::current().id())
}

/// Counts a thread that waits, for [`finish`].
pub(super) struct Waiting;

/// Counts a thread that is about to enter the interpreter, unless that is exiting.
pub(super) fn inside() -> Option<Waiting> {
    Waiting::enter().ok()
}

impl Waiting {
    fn enter() -> Result<Self> {
        if EXITING.load(Ordering::SeqCst) {
            return Err(exiting());
        }
        WAITING.fetch_add(1, Ordering::SeqCst);
        Ok(Self)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

fn exiting() -> Error {
    Error::Closed { what: "the Python interpreter" }
}

/// Waits for `future` without the GIL; Ctrl-C is noticed within 50 ms.
///
/// # Errors
///
/// The error of the future, whatever a signal handler raises, or a timeout that names `what`.
pub(super) fn wait<F, T>(
    py: Python<'_>,
    what: &str,
    timeout: Option<Duration>,
    future: F,
) -> PyResult<T>
where
    F: Future<Output = Result<T>> + Send,
    T: Send,
{
    wait_or(py, timeout, |after| Error::timeout(what, after), future)
}

/// As [`wait`], for a call of a client: the timeout says what was in its way.
pub(super) fn wait_for<F, T>(
    py: Python<'_>,
    client: &Client,
    what: &str,
    timeout: Option<Duration>,
    future: F,
) -> PyResult<T>
where
    F: Future<Output = Result<T>> + Send,
    T: Send,
{
    let watch = client.watch();
    wait_or(py, timeout, |after| watch.timed_out(what, after), watch.over(future))
}

/// Several waits of one call that are limited together.
#[derive(Debug)]
pub(super) struct Limited<'call> {
    watch: Watch,
    what: &'call str,
    timeout: Option<Duration>,
    started: Instant,
}

impl<'call> Limited<'call> {
    pub(super) fn new(client: &Client, what: &'call str, timeout: Option<Duration>) -> Self {
        Self { watch: client.watch(), what, timeout, started: Instant::now() }
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self) -> bool {
        self.timeout.is_some_and(|timeout| self.started.elapsed() >= timeout)
    }

    /// Waits for one part of the call.
    pub(super) fn wait<F, T>(&self, py: Python<'_>, future: F) -> PyResult<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let left = self.timeout.map(|timeout| timeout.saturating_sub(self.started.elapsed()));
        let timed_out =
            |_left| self.watch.timed_out(self.what, self.timeout.unwrap_or(Duration::MAX));
        wait_or(py, left, timed_out, self.watch.over(future))
    }
}

/// As [`wait`], with the error of a timeout.
pub(super) fn wait_or<F, T>(
    py: Python<'_>,
    timeout: Option<Duration>,
    timed_out: impl Fn(Duration) -> Error,
    future: F,
) -> PyResult<T>
where
    F: Future<Output = Result<T>> + Send,
    T: Send,
{
    let _waiting = Waiting::enter()?;
    logging::look(py);
    let handle = handle()?;
    let mut future = pin!(future);
    let started = Instant::now();
    loop {
        let left = timeout.map_or(SLICE, |timeout| timeout.saturating_sub(started.elapsed()));
        let slice = left.min(SLICE);
        let outcome = py.detach(|| {
            handle.block_on(async { tokio::time::timeout(slice, future.as_mut()).await })
        });
        if let Ok(result) = outcome {
            return Ok(result?);
        }
        py.check_signals()?;
        logging::look(py);
        if EXITING.load(Ordering::SeqCst) {
            return Err(exiting().into());
        }
        if let Some(timeout) = timeout
            && started.elapsed() >= timeout
        {
            return Err(timed_out(timeout).into());
        }
    }
}

/// Waits like [`wait`], from inside a callback of a C library that may or may not hold the GIL.
///
/// On the main thread it checks for signals; what a handler raises is returned as the `Err` of the
/// outer result. Other threads never touch the interpreter here, since the thread that holds the
/// GIL may be waiting for this very call.
pub(super) fn wait_from_callback<F, T>(what: &str, future: F) -> PyResult<T>
where
    F: Future<Output = Result<T>> + Send,
    T: Send,
{
    if on_main_thread() {
        return Python::try_attach(|py| wait(py, what, None, future))
            .unwrap_or_else(|| Err(exiting().into()));
    }
    let _waiting = Waiting::enter()?;
    let handle = handle()?;
    let mut future = pin!(future);
    loop {
        let outcome = handle.block_on(async { tokio::time::timeout(SLICE, future.as_mut()).await });
        if let Ok(result) = outcome {
            return Ok(result?);
        }
        if EXITING.load(Ordering::SeqCst) {
            return Err(exiting().into());
        }
    }
}

/// Reads a timeout in seconds, `None` for no limit.
///
/// # Errors
///
/// When it is negative or not a number.
pub(super) fn timeout(seconds: Option<f64>) -> Result<Option<Duration>> {
    let Some(seconds) = seconds else { return Ok(None) };
    if seconds.is_infinite() && seconds > 0.0 {
        return Ok(None);
    }
    Duration::try_from_secs_f64(seconds).map(Some).map_err(|_out_of_range| {
        Error::invalid(format!("timeout={seconds} is not a valid number of seconds"))
    })
}

/// Waits until dropped producers are flushed; for a broker that is about to close.
#[pyfunction]
pub(super) fn settle(py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
    let limit = self::timeout(timeout)?;
    if super::client::lingering() == 0 {
        return Ok(());
    }
    wait(py, "the acknowledgement of forgotten records", limit, async {
        while super::client::lingering() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    })
}

/// Waits for dropped producers to be flushed, ends every wait of other threads, and waits until
/// they have left; called at exit. Returns how many producers were abandoned.
#[pyfunction]
pub(super) fn finish(py: Python<'_>, flush_seconds: f64) -> PyResult<usize> {
    let flush = timeout(Some(flush_seconds))?.unwrap_or(EXIT_GRACE);
    if CURRENT.load().as_ref().is_none_or(|owned| owned.process != std::process::id()) {
        EXITING.store(true, Ordering::SeqCst);
        return Ok(0);
    }
    py.detach(|| {
        let until = |done: &dyn Fn() -> bool, limit: Duration| {
            let started = Instant::now();
            while !done() && started.elapsed() < limit {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        until(&|| super::client::lingering() == 0, flush);
        logging::finish(EXIT_GRACE);
        EXITING.store(true, Ordering::SeqCst);
        until(&|| WAITING.load(Ordering::SeqCst) == 0, EXIT_GRACE);
    });
    Ok(super::client::lingering())
}
