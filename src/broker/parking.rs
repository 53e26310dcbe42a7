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

/// What a parked fetch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// More that is committed, as a consumer does.
    Committed,
    /// Whatever is appended, as a follower does, or committed.
    Appended,
}

type Waiters = Mutex<Purgatory<PartitionKey, Arc<Notify>>>;

/// The parked fetches of a broker. Followers are apart: an append that is not committed yet is nothing to consumers.
#[derive(Debug)]
pub(super) struct Parking {
    consumers: Waiters,
    followers: Waiters,
}

impl Parking {
    pub(super) fn new() -> Self {
        let waiters = || Mutex::new(Purgatory::new(PARKED_MAX));
        Self { consumers: waiters(), followers: waiters() }
    }

    const fn waiters(&self, awaited: Awaited) -> &Waiters {
        match awaited {
            Awaited::Committed => &self.consumers,
            Awaited::Appended => &self.followers,
        }
    }

    /// Parks under `keys`; `None` when there is no room.
    pub(super) fn park(
        self: &Arc<Self>,
        awaited: Awaited,
        keys: Vec<PartitionKey>,
    ) -> Option<Parked> {
        let signal = Arc::new(Notify::new());
        let mut inner = self.waiters(awaited).lock().unwrap_or_else(PoisonError::into_inner);
        let id = inner.park(keys, Arc::clone(&signal))?;
        Some(Parked { parking: Arc::clone(self), awaited, id, signal })
    }

    /// Wakes those who watch `key`: more is committed, or whatever else they are to see.
    pub(super) fn wake(&self, key: &PartitionKey) {
        Self::signal(&self.consumers, key);
        Self::signal(&self.followers, key);
    }

    /// Wakes those who also wait for what is not committed.
    pub(super) fn wake_followers(&self, key: &PartitionKey) {
        Self::signal(&self.followers, key);
    }

    fn signal(waiters: &Waiters, key: &PartitionKey) {
        let inner = waiters.lock().unwrap_or_else(PoisonError::into_inner);
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
    awaited: Awaited,
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
        let waiters = self.parking.waiters(self.awaited);
        waiters.lock().unwrap_or_else(PoisonError::into_inner).release(self.id);
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
        let parked = parking.park(Awaited::Committed, vec![key]).unwrap();
        parking.wake(&key);
        parked.moved().await;
        assert!(futures::poll!(Box::pin(parked.moved())).is_pending());
        parking.wake(&(Uuid([1; 16]), 1));
        assert!(futures::poll!(Box::pin(parked.moved())).is_pending());
        drop(parked);
        assert!(parking.consumers.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_committed_wakes_followers_only() {
        let parking = Arc::new(Parking::new());
        let key = (Uuid([1; 16]), 0);
        let consumer = parking.park(Awaited::Committed, vec![key]).unwrap();
        let follower = parking.park(Awaited::Appended, vec![key]).unwrap();
        parking.wake_followers(&key);
        follower.moved().await;
        assert!(futures::poll!(Box::pin(consumer.moved())).is_pending());
        parking.wake(&key);
        follower.moved().await;
        consumer.moved().await;
    }
}
