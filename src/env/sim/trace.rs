//! What happened in a simulated run, so that two runs of one seed can be compared.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SimClock;
use crate::env::Clock;

/// A line for each thing that happened. Clones share it; by default it takes no notes.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    clock: Arc<SimClock>,
    lines: Mutex<Vec<String>>,
}

impl Trace {
    /// A trace whose lines begin with the milliseconds of `clock`.
    #[must_use]
    pub fn new(clock: Arc<SimClock>) -> Self {
        Self { inner: Some(Arc::new(Inner { clock, lines: Mutex::default() })) }
    }

    /// Notes something.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let Some(inner) = &self.inner else { return };
        let mut line = inner.clock.monotonic().as_millis().to_string();
        let _ = write!(line, " {}", what());
        lines(inner).push(line);
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.inner.as_ref().map(|inner| lines(inner).clone()).unwrap_or_default()
    }

    /// One number for all lines so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let all = self.lines();
        all.iter().flat_map(String::as_bytes).fold(0xcbf2_9ce4_8422_2325, fold)
    }
}

fn lines(inner: &Inner) -> MutexGuard<'_, Vec<String>> {
    inner.lines.lock().unwrap_or_else(PoisonError::into_inner)
}
