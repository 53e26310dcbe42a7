//! The events of `tracing` as records of Python's `logging`, under the loggers `ottla.client` and
//! `ottla.broker`.
//!
//! Events occur on threads of the runtime, for which Python code may be waiting while it holds the
//! GIL. So no such thread ever waits for the interpreter: it puts the event into a bounded queue,
//! and a dedicated thread passes the events on to Python.
//!
//! ```text
//!   any thread ── enabled? (an atomic) ── try_send ──► queue ──► "ottla-logging" ──► logging
//!                                            │ full: counted                 │
//!                                            └───── reported as a warning ◄──┘
//! ```
//!
//! - **LOG-1** An event that nobody listens to costs one comparison: the levels of the two loggers
//!   are copied here whenever a call is about to wait, so that a level counts from the next call on,
//!   and once a second. When they change, `tracing` is told to discard what it has cached about its
//!   callsites.
//! - **LOG-2** The queue belongs to one process. A forked child finds the queue of its parent without
//!   the thread that empties it; it leaves that queue alone and makes its own.
//! - **LOG-3** The thread counts as waiting while it is inside the interpreter, so that the exit
//!   waits for it, and it attaches only with `try_attach` (PY-4).

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use super::{process, runtime};

/// How many events may wait for Python.
const QUEUE_MAX: usize = 4_096;

/// Longer messages are cut off here.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// How often the levels are looked at while no call does so.
const IDLE_LOOK_EVERY: Duration = Duration::from_secs(1);

/// A logger of Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logger {
    Client,
    Broker,
}

impl Logger {
    const ALL: [Self; 2] = [Self::Client, Self::Broker];

    const fn name(self) -> &'static str {
        match self {
            Self::Client => "ottla.client",
            Self::Broker => "ottla.broker",
        }
    }

    /// The logger of an event, by the module that it comes from.
    fn of(target: &str) -> Option<Self> {
        let mut rooms = target.split("::");
        match (rooms.next()?, rooms.next().unwrap_or_default(), rooms.next()) {
            ("ottla", "client" | "columnar" | "python", _)
            | ("ottla", "machine", Some("client")) => Some(Self::Client),
            ("ottla", _, _) => Some(Self::Broker),
            _ => None,
        }
    }
}

/// What each logger receives: nothing (0), errors (1), … everything (5).
static HEARD: [AtomicU8; 2] = [const { AtomicU8::new(0) }; 2];

fn heard(logger: Logger) -> u8 {
    HEARD.get(logger as usize).map_or(0, |heard| heard.load(Ordering::Relaxed))
}

const fn verbosity(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// What a logger receives at one of Python's levels.
const fn verbosity_of(number: i32) -> u8 {
    match number {
        ..=5 => 5,
        6..=10 => 4,
        11..=20 => 3,
        21..=30 => 2,
        31..=40 => 1,
        _ => 0,
    }
}

/// The number of a level in Python, which has none for TRACE.
const fn number(level: Level) -> i32 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

/// An event on its way to Python.
#[derive(Debug)]
struct Told {
    logger: Logger,
    level: Level,
    text: String,
    file: &'static str,
    line: u32,
}

/// The queue of a process (LOG-2).
struct Queue {
    process: u32,
    sender: SyncSender<Told>,
    /// How many events were put into the queue, and how many were handed over.
    sent: AtomicU64,
    handed: AtomicU64,
    dropped: AtomicU64,
}

static QUEUE: ArcSwapOption<Queue> = ArcSwapOption::const_empty();

impl Queue {
    fn new() -> (Arc<Self>, Receiver<Told>) {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let counts = || AtomicU64::new(0);
        let (sent, handed, dropped) = (counts(), counts(), counts());
        let queue = Self { process: process::current(), sender, sent, handed, dropped };
        (Arc::new(queue), receiver)
    }

    /// Puts an event into the queue; never waits.
    fn put(&self, told: Told) {
        match self.sender.try_send(told) {
            Ok(()) => self.sent.fetch_add(1, Ordering::Relaxed),
            Err(_full_or_over) => self.dropped.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// Receives all events of this process.
struct Bridge;

impl Bridge {
    fn hears(metadata: &Metadata<'_>) -> bool {
        let logger = Logger::of(metadata.target());
        logger.is_some_and(|logger| verbosity(*metadata.level()) <= heard(logger))
    }
}

impl Subscriber for Bridge {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::hears(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Self::hears(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match Logger::ALL.map(heard).into_iter().max().unwrap_or(0) {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, _attributes: &Attributes<'_>) -> Id {
        // Our code has no spans, and those of other crates are not reported.
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let level = *metadata.level();
        let Some(logger) = Logger::of(metadata.target()) else { return };
        let queue = QUEUE.load();
        let Some(queue) = queue.as_ref().filter(|queue| queue.process == process::current()) else {
            return;
        };
        let mut text = Text::default();
        event.record(&mut text);
        let (file, line) = (metadata.file().unwrap_or_default(), metadata.line().unwrap_or(0));
        queue.put(Told { logger, level, text: text.whole(), file, line });
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// The message of an event, followed by its fields: `message name=value …`.
#[derive(Debug, Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn whole(mut self) -> String {
        self.message.push_str(&self.fields);
        if self.message.len() > MESSAGE_BYTES_MAX {
            let mut end = MESSAGE_BYTES_MAX;
            while !self.message.is_char_boundary(end) {
                end -= 1;
            }
            self.message.truncate(end);
            self.message.push('…');
        }
        self.message
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        if field.name() == "message" {
            write!(self.message, "{value:?}").ok();
        } else {
            write!(self.fields, " {}={value:?}", field.name()).ok();
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            write!(self.fields, " {}={value}", field.name()).ok();
        }
    }
}

/// Looks at the levels of the loggers; called where a call from Python is about to wait. The first
/// call in a process starts the reporting.
pub(super) fn look(py: Python<'_>) {
    let is_here = QUEUE.load().as_ref().is_some_and(|queue| queue.process == process::current());
    if is_here {
        read_levels(py);
    } else {
        begin(py);
    }
}

fn begin(py: Python<'_>) {
    static SUBSCRIBED: Once = Once::new();
    let (queue, receiver) = Queue::new();
    let inherited = QUEUE.swap(Some(Arc::clone(&queue)));
    // The parent's: leaked, since its locks may be held by threads that do not exist here.
    std::mem::forget(inherited);
    read_levels(py);
    SUBSCRIBED.call_once(|| {
        // The command line has installed its own, which writes to standard error.
        tracing::subscriber::set_global_default(Bridge).ok();
    });
    let thread = std::thread::Builder::new().name("ottla-logging".to_owned());
    // Without the thread nothing is logged, but everything else works.
    drop(thread.spawn(move || hand_over(&queue, &receiver)));
}

/// Copies the levels from Python (LOG-1).
fn read_levels(py: Python<'_>) {
    let mut has_changed = false;
    for logger in Logger::ALL {
        // An interpreter that is shutting down receives nothing.
        let level = level_of(py, logger).map_or(0, verbosity_of);
        if let Some(heard) = HEARD.get(logger as usize) {
            has_changed |= heard.swap(level, Ordering::Relaxed) != level;
        }
    }
    if has_changed {
        py.detach(tracing::callsite::rebuild_interest_cache);
    }
}

fn level_of(py: Python<'_>, logger: Logger) -> PyResult<i32> {
    let found = get(py, logger)?.bind(py);
    let level: i32 = found.call_method0(intern!(py, "getEffectiveLevel"))?.extract()?;
    let disabled = found.getattr(intern!(py, "manager"))?.getattr(intern!(py, "disable"))?;
    // Levels that `logging.disable` turns off are not received either.
    Ok(level.max(disabled.extract::<i32>()?.saturating_add(1)))
}

/// A logger, which Python keeps for the life of the process.
fn get(py: Python<'_>, logger: Logger) -> PyResult<&'static Py<PyAny>> {
    static CLIENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static BROKER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let known = match logger {
        Logger::Client => &CLIENT,
        Logger::Broker => &BROKER,
    };
    known.get_or_try_init(py, || {
        let logging = py.import(intern!(py, "logging"))?;
        Ok(logging.call_method1(intern!(py, "getLogger"), (logger.name(),))?.unbind())
    })
}

/// The thread that passes events on to Python, until the process ends.
fn hand_over(queue: &Queue, receiver: &Receiver<Told>) {
    loop {
        let first = match receiver.recv_timeout(IDLE_LOOK_EVERY) {
            Ok(told) => Some(told),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(_inside) = runtime::inside() else { return };
        let attached = Python::try_attach(|py| {
            read_levels(py);
            for told in first.into_iter().chain(receiver.try_iter().take(QUEUE_MAX)) {
                tell(py, &told);
                queue.handed.fetch_add(1, Ordering::Relaxed);
            }
            let dropped = queue.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let text = format!("{dropped} messages were dropped, as logging was too slow");
                let (level, file, line) = (Level::WARN, file!(), line!());
                tell(py, &Told { logger: Logger::Client, level, text, file, line });
            }
        });
        if attached.is_none() {
            return;
        }
    }
}

fn tell(py: Python<'_>, told: &Told) {
    let handed = || -> PyResult<()> {
        let logger = get(py, told.logger)?.bind(py);
        let level = number(told.level);
        if logger.call_method1(intern!(py, "isEnabledFor"), (level,))?.is_truthy()? {
            let (file, line, text) = (told.file, told.line, told.text.as_str());
            let parts = (told.logger.name(), level, file, line, text, py.None(), py.None());
            let record = logger.call_method1(intern!(py, "makeRecord"), parts)?;
            logger.call_method1(intern!(py, "handle"), (record,))?;
        }
        Ok(())
    };
    if let Err(error) = handed() {
        // An exception of a handler is reported the way `logging` itself does it.
        error.write_unraisable(py, None);
    }
}

/// Waits until all events so far have been handed over; for the exit, without the GIL.
pub(super) fn finish(limit: Duration) {
    let queue = QUEUE.load();
    let Some(queue) = queue.as_ref().filter(|queue| queue.process == process::current()) else {
        return;
    };
    let started = Instant::now();
    let is_behind = || queue.handed.load(Ordering::Relaxed) < queue.sent.load(Ordering::Relaxed);
    while is_behind() && started.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_by_whom_they_come_from() {
        let told = |target| Logger::of(target).map(Logger::name);
        for target in ["ottla::client::cluster", "ottla::machine::client", "ottla::python::client"]
        {
            assert_eq!(told(target), Some("ottla.client"), "{target}");
        }
        for target in ["ottla::broker::server", "ottla::log::health", "ottla::machine::group"] {
            assert_eq!(told(target), Some("ottla.broker"), "{target}");
        }
        assert_eq!(told("ureq::pool"), None);
    }

    #[test]
    fn each_level_is_heard_from_its_number_on() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
            assert!(verbosity(level) <= verbosity_of(number(level)), "{level}");
            assert!(verbosity(level) > verbosity_of(number(level) + 1), "{level}");
        }
        assert_eq!(verbosity_of(0), 5);
        assert_eq!(verbosity_of(50), 0);
    }

    #[test]
    fn a_full_queue_counts_and_does_not_wait() {
        let (queue, receiver) = Queue::new();
        let told = || Told {
            logger: Logger::Client,
            level: Level::INFO,
            text: String::new(),
            file: "",
            line: 0,
        };
        (0..QUEUE_MAX + 3).for_each(|_| queue.put(told()));
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(receiver.try_iter().count(), QUEUE_MAX);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = Text { message: "é".repeat(MESSAGE_BYTES_MAX), fields: String::new() };
        let whole = text.whole();
        assert!(whole.len() <= MESSAGE_BYTES_MAX + '…'.len_utf8() && whole.ends_with("é…"));
    }
}
