//! Commits that nobody waits for: at most one is in progress, and what arrives meanwhile goes into
//! the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;

use super::handle::GroupHandle;
use super::{Commits, LAST_COMMIT_MAX};
use crate::machine::client::group::Partitions;

/// What is to be committed: at most one offset per partition.
#[derive(Debug, Default)]
struct Wanted {
    commits: Commits,
    is_running: bool,
}

/// Commits in the background. An offset that is added while a commit is in progress is committed
/// after it, even if the caller does not return.
#[derive(Debug, Default)]
pub(super) struct Committing {
    wanted: Arc<Mutex<Wanted>>,
    task: Option<JoinHandle<()>>,
}

fn lock(wanted: &Mutex<Wanted>) -> MutexGuard<'_, Wanted> {
    wanted.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Committing {
    /// Commits soon.
    pub(super) fn add(&mut self, handle: &GroupHandle, commits: Commits) {
        let mut wanted = lock(&self.wanted);
        wanted.commits.extend(commits);
        if wanted.is_running || wanted.commits.is_empty() {
            return;
        }
        wanted.is_running = true;
        let (handle, wanted) = (handle.clone(), Arc::clone(&self.wanted));
        self.task = Some(tokio::spawn(async move {
            while let Some(commits) = next(&wanted) {
                commit(&handle, &commits).await;
            }
        }));
    }

    /// Drops partitions that the member no longer has.
    pub(super) fn forget(&self, partitions: &Partitions) {
        lock(&self.wanted).commits.retain(|partition, _| !partitions.contains(partition));
    }

    /// Waits until no commit is in progress.
    pub(super) async fn settle(&mut self) {
        if let Some(task) = self.task.take() {
            task.await.ok();
        }
    }
}

fn next(wanted: &Mutex<Wanted>) -> Option<Commits> {
    let mut wanted = lock(wanted);
    if wanted.commits.is_empty() {
        wanted.is_running = false;
        return None;
    }
    Some(std::mem::take(&mut wanted.commits))
}

/// Commits, and logs failures.
pub(super) async fn commit(handle: &GroupHandle, commits: &Commits) {
    let group = &handle.options.group_id;
    let limit = (handle.options.rebalance_timeout / 2).min(LAST_COMMIT_MAX);
    match tokio::time::timeout(limit, handle.commit(commits)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(group, error = %error.chain(), "auto-commit failed"),
        Err(_) => tracing::warn!(group, "auto-commit took too long"),
    }
}
