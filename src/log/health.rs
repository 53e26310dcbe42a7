//! Whether a log directory may still be used.
//!
//! A failed `fsync` means that the kernel may have dropped the dirty pages: a second call would
//! succeed without the data being on disk. So the first failure takes the whole directory offline
//! permanently, and every log in it answers [`Error::Offline`]. A full disk is not such a failure.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};

/// Shared by a log directory, its logs and their readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    reason: OnceLock<String>,
    last_act: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, reason, .. } = self;
        formatter
            .debug_struct("Inner")
            .field("path", path)
            .field("reason", reason)
            .finish_non_exhaustive()
    }
}

impl Health {
    /// A healthy directory.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let (reason, last_act) = (OnceLock::new(), OnceLock::new());
        Self { inner: Arc::new(Inner { path: path.to_path_buf(), reason, last_act }) }
    }

    /// Sets what is done when the directory goes offline. The first one counts.
    pub(super) fn on_offline(&self, act: impl Fn() + Send + Sync + 'static) {
        drop(self.inner.last_act.set(Box::new(act)));
    }

    /// Fails when the directory is offline.
    ///
    /// # Errors
    ///
    /// [`Error::Offline`] with the first failure.
    pub fn check(&self) -> Result<()> {
        match self.inner.reason.get() {
            None => Ok(()),
            Some(reason) => {
                Err(Error::Offline { path: self.inner.path.clone(), reason: reason.clone() })
            }
        }
    }

    /// Whether the directory is offline.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.inner.reason.get().is_some()
    }

    /// Takes the directory offline. The first reason is kept.
    pub fn take_offline(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.inner.reason.set(reason.clone()).is_ok() {
            tracing::error!(path = %self.inner.path.display(), reason, "log directory goes offline");
            if let Some(act) = self.inner.last_act.get() {
                act();
            }
        }
    }
}
