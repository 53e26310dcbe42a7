//! Things of one process in the hands of another: what `fork` leaves behind.

use std::sync::Arc;

use super::runtime;
use crate::error::{Error, Result};

/// The id of this process.
pub(super) fn current() -> u32 {
    std::process::id()
}

/// A value whose threads and sockets belong to the process that made it.
///
/// In a forked child it is refused, and leaked instead of dropped: dropping may lock what a thread
/// held at the moment of the fork.
#[derive(Debug)]
pub(super) struct OfProcess<T> {
    process: u32,
    /// There until the drop.
    value: Option<Arc<T>>,
}

impl<T> OfProcess<T> {
    pub(super) fn new(value: T) -> Self {
        Self { process: current(), value: Some(Arc::new(value)) }
    }

    /// Whether this process made it.
    pub(super) fn is_here(&self) -> bool {
        self.process == current()
    }

    /// The value, in the process that made it.
    ///
    /// # Errors
    ///
    /// In a fork: `what` was made elsewhere, and the `remedy`.
    pub(super) fn get(&self, what: &'static str, remedy: &str) -> Result<&Arc<T>> {
        if !self.is_here() {
            return Err(Error::invalid(format!(
                "{what} belongs to process {}, of which this one is a fork: {remedy}",
                self.process
            )));
        }
        self.value.as_ref().ok_or(Error::Closed { what })
    }

    /// The value, without the question; only for what needs no thread.
    pub(super) fn peek(&self) -> Option<&T> {
        self.value.as_deref()
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        let value = self.value.take();
        if !self.is_here() {
            std::mem::forget(value);
            return;
        }
        // Tasks may be stopped by the drop, which some of them expect to happen in the runtime.
        if let Ok(handle) = runtime::handle() {
            let _context = handle.enter();
            drop(value);
        }
    }
}
