//! Waiting for a partition to move: the shell around [`Purgatory`].
//!
//! A waiter parks first and checks its partitions afterwards, so a move between the two wakes it.
//! Dropping [`Parked`] removes it, whatever ended the wait: an answer, a timeout, or a closed
//! connection.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::machine::purgatory::{Purgatory, WaiterId};
use crate::types::TopicId;

/// How many fetches may be parked; Kafka has no limit. Any further fetch is answered at once.
const PARKED_MAX: usize = 1 << 16;

/// A partition, identified independently of its topic's name.
pub(super) type PartitionKey = (TopicId, i32);

/// The parked fetches of a broker.
#[derive(Debug)]
pub(super) struct Parking {
    inner: Mutex<Purgatory<PartitionKey, Arc<Notify>>>,
}

impl Parking {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new(Purgatory::new(PARKED_MAX)) }
    }

    /// Parks under `keys`; `None` when there is no room.
    pub(super) fn park(self: &Arc<Self>, keys: Vec<PartitionKey>) -> Option<Parked> {
        let signal = Arc::new(Notify::new());
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let id = inner.park(keys, Arc::clone(&signal))?;
        Some(Parked { parking: Arc::clone(self), id, signal })
    }

    /// Wakes those who watch `key`.
    pub(super) fn wake(&self, key: &PartitionKey) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.is_empty() {
            return;
        }
        inner.watchers(key).for_each(|signal| signal.notify_one());
    }
}

/// A place in the purgatory.
#[derive(Debug)]
pub(super) struct Parked {
    parking: Arc<Parking>,
    id: WaiterId,
    signal: Arc<Notify>,
}

impl Parked {
    /// Returns when a watched partition has moved since the last call, or since parking.
    ///
    /// Cancel-safe: a wake-up that is not taken is kept.
    pub(super) async fn moved(&self) {
        self.signal.notified().await;
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let mut inner = self.parking.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.release(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Uuid;

    #[tokio::test]
    async fn a_move_before_the_wait_is_not_lost_and_a_drop_leaves_nothing() {
        let parking = Arc::new(Parking::new());
        let key = (Uuid([1; 16]), 0);
        let parked = parking.park(vec![key]).unwrap();
        parking.wake(&key);
        parked.moved().await;
        assert!(futures::poll!(Box::pin(parked.moved())).is_pending());
        parking.wake(&(Uuid([1; 16]), 1));
        assert!(futures::poll!(Box::pin(parked.moved())).is_pending());
        drop(parked);
        assert!(parking.inner.lock().unwrap().is_empty());
    }
}
