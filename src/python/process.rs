//! Objects of one process that another process holds after a `fork`.

use std::sync::Arc;

use super::runtime;
use crate::error::{Error, Result};

/// The id of this process.
pub(super) fn current() -> u32 {
    std::process::id()
}

/// A value whose threads and sockets belong to the process that created it.
///
/// A forked child cannot use it, and leaks it instead of dropping it: dropping could wait for a
/// lock that a thread held at the moment of the fork.
#[derive(Debug)]
pub(super) struct OfProcess<T> {
    process: u32,
    /// Present until the drop.
    value: Option<Arc<T>>,
}

impl<T> OfProcess<T> {
    pub(super) fn new(value: T) -> Self {
        Self { process: current(), value: Some(Arc::new(value)) }
    }

    /// Whether this process created it.
    pub(super) fn is_here(&self) -> bool {
        self.process == current()
    }

    /// The value, in the process that created it.
    ///
    /// # Errors
    ///
    /// In a fork: that `what` belongs to another process, and the `remedy`.
    pub(super) fn get(&self, what: &'static str, remedy: &str) -> Result<&Arc<T>> {
        if !self.is_here() {
            return Err(Error::invalid(format!(
                "{what} belongs to process {}, of which this one is a fork: {remedy}",
                self.process
            )));
        }
        self.value.as_ref().ok_or(Error::Closed { what })
    }

    /// The value, without the check; only for what needs no thread.
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
        // The drop may stop tasks, some of which expect this to happen within the runtime.
        if let Ok(handle) = runtime::handle() {
            let _context = handle.enter();
            drop(value);
        }
    }
}
