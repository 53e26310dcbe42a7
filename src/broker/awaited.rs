//! A value that tasks wait for; they go on in the order in which they came.
//!
//! Why not a `watch` channel: it wakes those who wait in an order that tokio draws, so that a run in which they act
//! could not be repeated (ADR 0019).

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub(super) struct Awaited<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Clone> Awaited<T> {
    pub(super) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    fn value(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> T {
        self.value().clone()
    }

    pub(super) fn set(&self, value: T) {
        *self.value() = value;
        self.changed.notify_waiters();
    }

    /// The value as soon as it is as wanted.
    pub(super) async fn wait_for(&self, is_wanted: impl Fn(&T) -> bool) -> T {
        loop {
            let changed = self.changed.notified();
            let value = self.get();
            if is_wanted(&value) {
                return value;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_go_on_in_their_order() {
        let (awaited, order) = (Arc::new(Awaited::new(0)), Arc::new(Mutex::new(Vec::new())));
        let waiting: Vec<_> = (0..40)
            .map(|number| {
                let (awaited, order) = (Arc::clone(&awaited), Arc::clone(&order));
                tokio::spawn(async move {
                    assert_eq!(awaited.wait_for(|value| *value > 1).await, 2);
                    order.lock().unwrap().push(number);
                })
            })
            .collect();
        for value in [1, 2] {
            tokio::task::yield_now().await;
            assert!(order.lock().unwrap().is_empty());
            awaited.set(value);
        }
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..40).collect::<Vec<_>>());
    }
}
