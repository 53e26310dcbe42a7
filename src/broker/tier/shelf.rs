//! What was loaded, until there is no room for it, and what is being loaded, once.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use crate::broker::words;
use crate::error::{ErrorCode, Result};

type Loading<V> = Shared<BoxFuture<'static, Result<V>>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Shelf<K, V> {
    inner: Mutex<Inner<K, V>>,
    /// How many things there may be.
    count_max: usize,
}

#[derive(Debug)]
struct Inner<K, V> {
    ready: BTreeMap<K, (V, u64)>,
    /// By when they were used last.
    order: BTreeMap<u64, K>,
    loading: BTreeMap<K, Loading<V>>,
    uses: u64,
    /// How many wait for room, so that nothing may be kept.
    waiting: usize,
}

impl<K, V> Shelf<K, V>
where
    K: Clone + Ord + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(count_max: usize) -> Self {
        let inner = Inner {
            ready: BTreeMap::new(),
            order: BTreeMap::new(),
            loading: BTreeMap::new(),
            uses: 0,
            waiting: 0,
        };
        Self { inner: Mutex::new(inner), count_max }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there, or is being loaded, or is loaded now: by a task of its own, so that it goes on when whoever asked has
    /// gone. A failure is told to all who wait, and forgotten.
    pub(super) async fn get<F>(self: &Arc<Self>, key: K, load: impl FnOnce() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let loading = {
            let mut inner = self.inner();
            if let Some(value) = inner.used(&key) {
                return Ok(value);
            }
            match inner.loading.get(&key) {
                Some(loading) => loading.clone(),
                None => {
                    let loading = self.spawn(key.clone(), load());
                    inner.loading.insert(key, loading.clone());
                    loading
                }
            }
        };
        loading.await
    }

    fn spawn(
        self: &Arc<Self>,
        key: K,
        load: impl Future<Output = Result<V>> + Send + 'static,
    ) -> Loading<V> {
        let shelf = Arc::clone(self);
        let task = tokio::spawn(async move {
            let loaded = AssertUnwindSafe(load).catch_unwind().await;
            let loaded = loaded.unwrap_or_else(|_reported| Err(failed()));
            shelf.loaded(&key, loaded.as_ref().ok());
            loaded
        });
        async move { task.await.unwrap_or_else(|_ended| Err(failed())) }.boxed().shared()
    }

    fn loaded(&self, key: &K, value: Option<&V>) {
        let mut inner = self.inner();
        inner.loading.remove(key);
        if let Some(value) = value
            && inner.waiting == 0
        {
            inner.put(key.clone(), value.clone());
            while inner.ready.len() > self.count_max {
                inner.drop_oldest();
            }
        }
    }

    /// Lets go what was not used for longest; false when there is nothing.
    pub(super) fn drop_oldest(&self) -> bool {
        self.inner().drop_oldest()
    }

    /// As long as the result lives, nothing is kept that is not there yet.
    pub(super) fn wait_for_room(&self) -> WaitsForRoom<'_, K, V> {
        self.inner().waiting += 1;
        WaitsForRoom(self)
    }
}

fn failed() -> crate::error::Error {
    words::broker_failed(ErrorCode::KafkaStorageError, "read from the tier")
}

/// See [`Shelf::wait_for_room`].
pub(super) struct WaitsForRoom<'a, K, V>(&'a Shelf<K, V>);

impl<K, V> Drop for WaitsForRoom<'_, K, V> {
    fn drop(&mut self) {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner).waiting -= 1;
    }
}

impl<K: Clone + Ord, V: Clone> Inner<K, V> {
    fn used(&mut self, key: &K) -> Option<V> {
        let (value, at) = self.ready.get_mut(key)?;
        self.uses += 1;
        self.order.remove(at);
        self.order.insert(self.uses, key.clone());
        *at = self.uses;
        Some(value.clone())
    }

    fn put(&mut self, key: K, value: V) {
        self.uses += 1;
        self.order.insert(self.uses, key.clone());
        if let Some((_, before)) = self.ready.insert(key, (value, self.uses)) {
            self.order.remove(&before);
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_first() else { return false };
        self.ready.remove(&key);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    fn shelf(count_max: usize) -> Arc<Shelf<u8, u8>> {
        Arc::new(Shelf::new(count_max))
    }

    #[tokio::test]
    async fn what_many_want_is_loaded_once_and_the_oldest_goes() {
        let (shelf, loads) = (shelf(2), Arc::new(AtomicUsize::new(0)));
        let get = |key: u8| {
            let (shelf, loads) = (Arc::clone(&shelf), Arc::clone(&loads));
            async move {
                let load = || async move {
                    loads.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    Ok(key * 2)
                };
                shelf.get(key, load).await.unwrap()
            }
        };
        let all = futures::future::join_all((0..50).map(|_| get(7))).await;
        assert!(all.iter().all(|value| *value == 14));
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        for key in [1, 7, 2] {
            get(key).await;
        }
        assert_eq!(loads.load(Ordering::Relaxed), 3, "7 was there");
        get(7).await;
        get(1).await;
        assert_eq!(loads.load(Ordering::Relaxed), 4, "1 was used last before 7 and 2");
    }

    #[tokio::test]
    async fn a_failure_is_forgotten_and_nothing_is_kept_while_somebody_waits_for_room() {
        let shelf = shelf(9);
        let fails = || async { Err(Error::invalid("no")) };
        shelf.get(1, fails).await.unwrap_err();
        let panics = || async { panic!("a bug") };
        assert_eq!(shelf.get(1, panics).await.unwrap_err().code(), ErrorCode::KafkaStorageError);
        let waits = shelf.wait_for_room();
        assert_eq!(shelf.get(1, || async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(shelf.get(1, || async { Ok(2) }).await.unwrap(), 2);
        drop(waits);
        assert_eq!(shelf.get(1, || async { Ok(3) }).await.unwrap(), 3);
        assert_eq!(shelf.get(1, || async { Ok(4) }).await.unwrap(), 3);
        assert!(shelf.drop_oldest() && !shelf.drop_oldest());
    }
}
