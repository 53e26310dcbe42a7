//! A value that tasks wait for.
//!
//! Why not tokio's `watch`: it wakes those who wait in a random order, so that a simulation could not be replayed. Here
//! they are woken in the order in which they came.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub(super) struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Clone> Watched<T> {
    pub(super) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    fn value(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> T {
        self.value().clone()
    }

    /// Changes the value, and wakes everybody.
    pub(super) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value());
        self.changed.notify_waiters();
    }

    /// The value, once it is like this.
    pub(super) async fn wait_for(&self, is_so: impl Fn(&T) -> bool) -> T {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        loop {
            // Before the value is read, so that no change of it is missed.
            changed.as_mut().enable();
            let value = self.get();
            if is_so(&value) {
                return value;
            }
            changed.as_mut().await;
            changed.set(self.changed.notified());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn everybody_is_woken_in_the_order_of_coming() {
        let (watched, woken) = (Arc::new(Watched::new(0)), Arc::new(Mutex::new(Vec::new())));
        let waiters: Vec<_> = (0..50)
            .map(|index| {
                let (watched, woken) = (Arc::clone(&watched), Arc::clone(&woken));
                tokio::spawn(async move {
                    assert_eq!(watched.wait_for(|value| *value >= 2).await, 2);
                    woken.lock().unwrap().push(index);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        watched.change(|value| *value = 1);
        tokio::task::yield_now().await;
        assert!(woken.lock().unwrap().is_empty());
        watched.change(|value| *value = 2);
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!(*woken.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
