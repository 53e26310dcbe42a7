//! Logs that a disk is full, once a minute for each directory.
//!
//! Refused clients retry several times a second; each of them is told, but the log need not repeat
//! it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// How long a directory is not logged again.
const PERIOD: Duration = Duration::from_secs(60);

/// How many directories are remembered; further ones are not logged.
const DIRECTORIES_MAX: usize = 1_000;

/// When each directory was last logged.
static SAID: Mutex<BTreeMap<PathBuf, Instant>> = Mutex::new(BTreeMap::new());

/// Logs it, if that is the error.
pub(super) fn warn_of(error: &Error) {
    if let Error::Io { path, .. } = error
        && error.is_disk_full()
    {
        // The file of a partition: the full directory is the one that holds the partitions.
        let directory = path.parent().and_then(Path::parent).unwrap_or(path);
        warn(directory, &error.chain());
    }
}

/// Logs why writes to a directory are refused.
pub(super) fn warn(directory: &Path, why: &str) {
    if is_due(directory, Instant::now()) {
        tracing::error!(error = why, "writes are refused until there is room");
    }
}

fn is_due(directory: &Path, now: Instant) -> bool {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    said.retain(|_, at| now.saturating_duration_since(*at) < PERIOD);
    if said.contains_key(directory) || said.len() >= DIRECTORIES_MAX {
        return false;
    }
    said.insert(directory.to_path_buf(), now);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute_for_each_directory() {
        let now = Instant::now();
        let (one, two) = (Path::new("/full/one"), Path::new("/full/two"));
        assert!(is_due(one, now) && is_due(two, now));
        assert!(!is_due(one, now + PERIOD / 2));
        assert!(is_due(one, now + PERIOD));
    }
}
