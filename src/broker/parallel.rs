//! Does the same blocking work for many partitions, on a few threads.
//!
//! Why: opening and closing a log waits for the disk several times, and syncs of different files that wait
//! together share a commit of the file system's journal.

use crate::env::Threads;

/// How many partitions are opened or closed at the same time. They wait for the disk more than they
/// compute, so this has nothing to do with the number of cores.
const THREADS_MAX: usize = 16;

/// Calls `work` on every item; the results are in the order of the items. Blocks.
pub(super) fn each<T: Sync, R: Send>(
    threads: &Threads,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    threads.each(THREADS_MAX, items, work)
}
