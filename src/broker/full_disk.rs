//! Says in the log that a disk is full, once a minute for each directory.
//!
//! Clients that are refused come back several times a second; each of them is told, the log need not
//! say it again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// How long nothing is said again of a directory.
const PERIOD: Duration = Duration::from_secs(60);

/// So many directories are remembered; more are not said to be full.
const DIRECTORIES_MAX: usize = 1_000;

/// When it was said last, by directory.
static SAID: Mutex<BTreeMap<PathBuf, Instant>> = Mutex::new(BTreeMap::new());

/// Says it, if that is the error.
pub(super) fn warn_of(error: &Error) {
    if let Error::Io { path, .. } = error
        && error.is_disk_full()
    {
        // A file of a partition: what is full is where the partitions are.
        let directory = path.parent().and_then(Path::parent).unwrap_or(path);
        warn(directory, &error.chain());
    }
}

/// Says why something of a directory is refused.
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
