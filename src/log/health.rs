//! Whether a log directory may still be used.
//!
//! A failed `fsync` means that the kernel may have dropped the dirty pages: a second call would
//! succeed without the data being on disk. So the first failure takes the whole directory offline
//! permanently, and every log in it answers [`Error::Offline`]. A full disk is not such a failure.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};

/// Shared by a log directory, its logs and their readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    reason: OnceLock<String>,
}

impl Health {
    /// A healthy directory.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { inner: Arc::new(Inner { path: path.to_path_buf(), reason: OnceLock::new() }) }
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
        }
    }
}
