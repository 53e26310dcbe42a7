//! Does the same blocking work for many partitions, on a few threads.
//!
//! Why: opening and closing a log waits for the disk several times, and syncs of different files that wait
//! together share a commit of the file system's journal.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many partitions are opened or closed at the same time. They wait for the disk more than they
/// compute, so this has nothing to do with the number of cores.
const THREADS_MAX: usize = 16;
/// With fewer items, a thread costs more than it gains.
const ITEMS_MIN: usize = 3;

/// Calls `work` on every item; the results are in the order of the items. Blocks.
pub(super) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < ITEMS_MIN {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let take_turns = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return };
            let result = work(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS_MAX.min(items.len()) {
            scope.spawn(take_turns);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_its_result_in_its_place() {
        for count in [0, 1, 2, 3, 100] {
            let items: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = items.iter().map(|item| item * 2).collect();
            assert_eq!(each(&items, |item| item * 2), doubled);
        }
    }
}
