//! What the clients and the nodes of Apache Kafka said while the cases ran: shown when a case fails for a reason
//! that only they know.
//!
//! Clients say much more than a terminal should see, so the last lines are kept in memory.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, Once, PoisonError};

const LINES_MAX: usize = 3_000;

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Prints the lines if the test that holds it fails.
#[must_use]
pub(crate) struct Shown;

#[allow(clippy::print_stderr, reason = "where the harness shows it with the test")]
impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
            lines.iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Keeps from now on what clients log at level debug.
pub(crate) fn keep() -> Shown {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        tracing_subscriber::fmt()
            .with_env_filter("ottla=debug")
            .with_ansi(false)
            .with_thread_names(true)
            .with_writer(|| Writer)
            .init();
    });
    Shown
}

/// Keeps a line.
pub(crate) fn note(line: &str) {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == LINES_MAX {
        lines.pop_front();
    }
    lines.push_back(line.trim_end().to_owned());
}

struct Writer;

impl io::Write for Writer {
    /// The subscriber writes whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        note(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
