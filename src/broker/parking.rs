//! Waiting for a partition to move: the shell around [`Purgatory`].
//!
//! A waiter parks first and checks its partitions afterwards, so a move between the two wakes it.
//! Dropping [`Parked`] removes it, whatever ended the wait: an answer, a timeout, or a closed
//! connection.
//!
//! A follower's session ([`Watch`]) stays, and remembers which of its partitions have moved: of a thousand, the next
//! fetch reads those.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::machine::purgatory::{Purgatory, WaiterId};
use crate::types::{PartitionIndex, TopicId};

/// How many fetches may be parked; Kafka has no limit. Any further fetch is answered at once.
const PARKED_MAX: usize = 1 << 16;

/// A partition, identified independently of its topic's name.
pub(super) type PartitionKey = (TopicId, PartitionIndex);

/// What a parked fetch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// More that is committed, as a consumer does.
    Committed,
    /// Whatever is appended, as a follower does, or committed.
    Appended,
}

type Waiters = Mutex<Purgatory<PartitionKey, Arc<Moved>>>;

/// What tells a waiter that something has moved.
#[derive(Debug, Default)]
struct Moved {
    signal: Notify,
    /// What it was, for a watch.
    keys: Option<Mutex<BTreeSet<PartitionKey>>>,
}

impl Moved {
    fn keys(&self) -> Option<MutexGuard<'_, BTreeSet<PartitionKey>>> {
        Some(self.keys.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, key: &PartitionKey) {
        if let Some(mut keys) = self.keys() {
            keys.insert(*key);
        }
        self.signal.notify_one();
    }
}

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

    fn waiters(&self, awaited: Awaited) -> MutexGuard<'_, Purgatory<PartitionKey, Arc<Moved>>> {
        let waiters = match awaited {
            Awaited::Committed => &self.consumers,
            Awaited::Appended => &self.followers,
        };
        waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parks under `keys`; `None` when there is no room.
    pub(super) fn park(
        self: &Arc<Self>,
        awaited: Awaited,
        keys: Vec<PartitionKey>,
    ) -> Option<Parked> {
        let moved = Arc::new(Moved::default());
        let id = self.waiters(awaited).park(keys, Arc::clone(&moved))?;
        Some(Parked { parking: Arc::clone(self), awaited, id, moved })
    }

    /// Watches nothing yet; `None` when there is no room.
    pub(super) fn watch(self: &Arc<Self>, awaited: Awaited) -> Option<Watch> {
        let moved = Arc::new(Moved { keys: Some(Mutex::default()), ..Moved::default() });
        let id = self.waiters(awaited).park(Vec::new(), Arc::clone(&moved))?;
        Some(Watch(Parked { parking: Arc::clone(self), awaited, id, moved }))
    }

    /// Wakes those who watch `key`: more is committed, or whatever else they are to see.
    pub(super) fn wake(&self, key: &PartitionKey) {
        self.tell(Awaited::Committed, key);
        self.tell(Awaited::Appended, key);
    }

    /// Wakes those who also wait for what is not committed.
    pub(super) fn wake_followers(&self, key: &PartitionKey) {
        self.tell(Awaited::Appended, key);
    }

    fn tell(&self, awaited: Awaited, key: &PartitionKey) {
        let waiters = self.waiters(awaited);
        if waiters.is_empty() {
            return;
        }
        waiters.watchers(key).for_each(|moved| moved.tell(key));
    }
}

/// A place in the purgatory.
#[derive(Debug)]
pub(super) struct Parked {
    parking: Arc<Parking>,
    awaited: Awaited,
    id: WaiterId,
    moved: Arc<Moved>,
}

impl Parked {
    /// Returns when a watched partition has moved since the last call, or since parking.
    ///
    /// Cancel-safe: a wake-up that is not taken is kept.
    pub(super) async fn moved(&self) {
        self.moved.signal.notified().await;
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.parking.waiters(self.awaited).release(self.id);
    }
}

/// Partitions that are watched for long, and which of them have moved.
#[derive(Debug)]
pub(super) struct Watch(Parked);

impl Watch {
    /// Watches one more.
    pub(super) fn add(&self, key: PartitionKey) {
        self.0.parking.waiters(self.0.awaited).add(self.0.id, key);
    }

    /// Watches one less.
    pub(super) fn remove(&self, key: &PartitionKey) {
        self.0.parking.waiters(self.0.awaited).remove(self.0.id, key);
        if let Some(mut keys) = self.0.moved.keys() {
            keys.remove(key);
        }
    }

    /// Returns when something may have moved since the last call.
    pub(super) async fn moved(&self) {
        self.0.moved().await;
    }

    /// What has moved since it was last taken, or was put back.
    pub(super) fn take(&self) -> BTreeSet<PartitionKey> {
        self.0.moved.keys().map(|mut keys| std::mem::take(&mut *keys)).unwrap_or_default()
    }

    /// Counts these as moved, and wakes nobody.
    pub(super) fn put_back(&self, again: impl IntoIterator<Item = PartitionKey>) {
        if let Some(mut keys) = self.0.moved.keys() {
            keys.extend(again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Uuid;

    #[tokio::test]
    async fn a_move_before_the_wait_is_not_lost_and_a_drop_leaves_nothing() {
        let parking = Arc::new(Parking::new());
        let key = (Uuid([1; 16]), PartitionIndex(0));
        let parked = parking.park(Awaited::Committed, vec![key]).unwrap();
        parking.wake(&key);
        parked.moved().await;
        assert!(futures::poll!(Box::pin(parked.moved())).is_pending());
        parking.wake(&(Uuid([1; 16]), PartitionIndex(1)));
        assert!(futures::poll!(Box::pin(parked.moved())).is_pending());
        drop(parked);
        assert!(parking.consumers.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_watch_knows_what_has_moved() {
        let parking = Arc::new(Parking::new());
        let key = |index| (Uuid([1; 16]), PartitionIndex(index));
        let watch = parking.watch(Awaited::Appended).unwrap();
        watch.add(key(0));
        watch.add(key(1));
        watch.add(key(2));
        watch.remove(&key(2));
        (0..4).for_each(|index| parking.wake_followers(&key(index)));
        watch.moved().await;
        assert_eq!(watch.take(), BTreeSet::from([key(0), key(1)]));
        assert_eq!(watch.take(), BTreeSet::new());
        watch.put_back([key(1)]);
        assert!(futures::poll!(Box::pin(watch.moved())).is_pending());
        parking.wake(&key(0));
        watch.moved().await;
        assert_eq!(watch.take(), BTreeSet::from([key(0), key(1)]));
    }

    #[tokio::test]
    async fn what_is_not_committed_wakes_followers_only() {
        let parking = Arc::new(Parking::new());
        let key = (Uuid([1; 16]), PartitionIndex(0));
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
