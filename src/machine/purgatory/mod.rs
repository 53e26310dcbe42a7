//! Who waits for which partition: the requests that are parked until there is enough to answer
//! with.
//!
//! Why: a Fetch that finds less than `min_bytes` waits for the high watermark of any of its
//! partitions to move. Polling would cost a wake-up per client and interval; here a move wakes
//! exactly those who watch that partition and nobody else.
//!
//! Invariants:
//! - `PARK-1` a waiter is found under each of its keys for as long as it is parked, and under none
//!   after it was released.
//! - `PARK-2` there are never more waiters than the capacity: one more is refused, and is then
//!   answered with what is available.
//!
//! The shell parks first and looks at the partition afterwards, so a move between the two finds
//! the waiter. Deadlines belong to the shell: it releases a waiter whose time has come. Generic
//! over the key, and over the token by which the shell wakes a waiter.

use std::collections::{BTreeMap, BTreeSet};

/// Identifies a parked waiter; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaiterId(u64);

#[derive(Debug)]
struct Waiter<K, T> {
    keys: BTreeSet<K>,
    token: T,
}

/// The parked waiters and what they watch.
#[derive(Debug)]
pub struct Purgatory<K, T> {
    capacity: usize,
    next: u64,
    waiters: BTreeMap<WaiterId, Waiter<K, T>>,
    watched: BTreeMap<K, BTreeSet<WaiterId>>,
}

impl<K: Ord + Clone, T> Purgatory<K, T> {
    /// A purgatory for at most `capacity` waiters.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, next: 0, waiters: BTreeMap::new(), watched: BTreeMap::new() }
    }

    /// Parks a waiter under `keys`; `None` when the purgatory is full.
    pub fn park(&mut self, keys: Vec<K>, token: T) -> Option<WaiterId> {
        if self.waiters.len() >= self.capacity {
            return None;
        }
        let id = WaiterId(self.next);
        self.next += 1;
        for key in &keys {
            self.watched.entry(key.clone()).or_default().insert(id);
        }
        let keys = keys.into_iter().collect();
        self.waiters.insert(id, Waiter { keys, token });
        Some(id)
    }

    /// Parks a waiter under one more key; no effect when it is gone.
    pub fn add(&mut self, id: WaiterId, key: K) {
        let Some(waiter) = self.waiters.get_mut(&id) else { return };
        if waiter.keys.insert(key.clone()) {
            self.watched.entry(key).or_default().insert(id);
        }
    }

    /// Parks a waiter no longer under a key.
    pub fn remove(&mut self, id: WaiterId, key: &K) {
        if self.waiters.get_mut(&id).is_some_and(|waiter| waiter.keys.remove(key)) {
            self.unwatch(id, key);
        }
    }

    fn unwatch(&mut self, id: WaiterId, key: &K) {
        if let Some(waiting) = self.watched.get_mut(key) {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.watched.remove(key);
            }
        }
    }

    /// Removes a waiter; no effect when it is already gone.
    pub fn release(&mut self, id: WaiterId) {
        let Some(waiter) = self.waiters.remove(&id) else { return };
        for key in &waiter.keys {
            self.unwatch(id, key);
        }
    }

    /// The tokens of those who watch `key`, oldest first.
    pub fn watchers<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a T> + 'a {
        let waiting = self.watched.get(key);
        waiting
            .into_iter()
            .flatten()
            .filter_map(|id| self.waiters.get(id).map(|waiter| &waiter.token))
    }

    /// How many are parked.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody is parked.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_wakes_those_who_watch_that_partition_and_nobody_else() {
        let mut purgatory = Purgatory::new(10);
        let first = purgatory.park(vec!["a", "b"], 1).unwrap();
        let _second = purgatory.park(vec!["b"], 2).unwrap();
        assert_eq!(purgatory.watchers(&"a").copied().collect::<Vec<_>>(), [1]);
        assert_eq!(purgatory.watchers(&"b").copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(purgatory.watchers(&"c").count(), 0);
        purgatory.release(first);
        purgatory.release(first);
        assert_eq!(purgatory.watchers(&"b").copied().collect::<Vec<_>>(), [2]);
        assert_eq!(purgatory.watchers(&"a").count(), 0);
    }

    #[test]
    fn a_waiter_is_found_under_the_keys_that_it_has_by_now() {
        let mut purgatory = Purgatory::new(10);
        let id = purgatory.park(vec!["a"], 1).unwrap();
        purgatory.add(id, "b");
        purgatory.add(id, "b");
        purgatory.remove(id, &"a");
        purgatory.remove(id, &"c");
        assert_eq!(purgatory.watchers(&"a").count(), 0);
        assert_eq!(purgatory.watchers(&"b").copied().collect::<Vec<_>>(), [1]);
        purgatory.release(id);
        purgatory.add(id, "d");
        assert!(purgatory.is_empty() && purgatory.watched.is_empty());
    }

    #[test]
    fn a_full_purgatory_refuses_and_an_empty_one_holds_nothing() {
        let mut purgatory = Purgatory::new(1);
        let id = purgatory.park(vec![1, 1, 2], ()).unwrap();
        assert_eq!(purgatory.park(vec![3], ()), None);
        purgatory.release(id);
        assert!(purgatory.is_empty() && purgatory.watched.is_empty());
        assert!(purgatory.park(vec![3], ()).is_some());
    }
}
