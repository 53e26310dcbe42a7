//! What each follower fetches from here, and which of it has moved: the leader's half of its fetch session (KIP-227).
//!
//! Why: a follower fetches again as soon as it has appended what came. With a thousand partitions, of which one is
//! written to, that must not name, read and answer a thousand each time. So the session knows what the follower has
//! of each partition, and is told of each append; a fetch reads what it names, and what has moved.
//!
//! Apart from those of consumers ([`crate::machine::fetch_session`]): a follower always gets one, it has one only, and
//! consumers do not take it away.
//!
//! Invariants:
//! - `FOLLOWER-1` between two fetches of a session, the follower has of a partition what it said last: whoever has
//!   appended something says so with the next fetch. So each fetch counts for what it does not name, too.
//! - `FOLLOWER-2` what has moved is read by this fetch or by the next one: it stays in the set until the follower has
//!   been told of it.
//! - `FOLLOWER-3` a session ends with the registration of its follower, whose next fetch names everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::broker::parking::{Awaited, Parking, PartitionKey, Watch};
use crate::broker::partition::Follower;
use crate::error::ErrorCode;
use crate::machine::fetch_session::{FetchInterest, INITIAL_EPOCH, NO_SESSION, next_epoch};
use crate::types::{NodeId, SplitMix64};

/// How much one follower may fetch: what one request may name.
const PARTITIONS_MAX: usize = 1_000_000;

/// What is to be read, in this order.
pub(in crate::broker) type Wanted = Vec<(PartitionKey, FetchInterest)>;

/// The sessions of all followers.
#[derive(Debug)]
pub(in crate::broker) struct FollowerSessions {
    parking: Arc<Parking>,
    random: Mutex<SplitMix64>,
    sessions: Mutex<BTreeMap<NodeId, Arc<FollowerSession>>>,
}

/// A fetch of a follower, as far as its session is concerned.
#[derive(Debug)]
pub(in crate::broker) struct SessionFetch {
    pub(in crate::broker) session_id: i32,
    pub(in crate::broker) epoch: i32,
    pub(in crate::broker) interests: Wanted,
    pub(in crate::broker) forgotten: Vec<PartitionKey>,
}

impl SessionFetch {
    /// Whether it names everything, and begins a session.
    pub(in crate::broker) const fn is_full(&self) -> bool {
        self.epoch == INITIAL_EPOCH
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct FollowerSession {
    id: i32,
    follower: Follower,
    watch: Watch,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The epoch of the next fetch.
    epoch: i32,
    interests: BTreeMap<PartitionKey, FetchInterest>,
    /// The last one that was given records: the next fetch begins behind it.
    served: Option<PartitionKey>,
}

impl FollowerSessions {
    /// Ids are drawn from `seed`.
    pub(in crate::broker) fn new(parking: Arc<Parking>, seed: u64) -> Self {
        let random = Mutex::new(SplitMix64::new(seed));
        Self { parking, random, sessions: Mutex::default() }
    }

    /// The session of a fetch, and what to read at first: what it names, and what has moved.
    ///
    /// # Errors
    ///
    /// `FETCH_SESSION_ID_NOT_FOUND` and `INVALID_FETCH_SESSION_EPOCH`, as Kafka gives them: the follower names everything
    /// then; `INVALID_REQUEST` when it fetches too much.
    pub(in crate::broker) fn open(
        &self,
        follower: Follower,
        fetch: SessionFetch,
    ) -> Result<(Arc<FollowerSession>, Wanted), ErrorCode> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = if fetch.is_full() {
            let session = Arc::new(self.begin(follower)?);
            sessions.insert(follower.node, Arc::clone(&session));
            session
        } else {
            let found = sessions.get(&follower.node);
            // `FOLLOWER-3`
            let found =
                found.filter(|found| found.id == fetch.session_id && found.follower == follower);
            Arc::clone(found.ok_or(ErrorCode::FetchSessionIdNotFound)?)
        };
        drop(sessions);
        let named = session.take(fetch)?;
        Ok((session, named))
    }

    fn begin(&self, follower: Follower) -> Result<FollowerSession, ErrorCode> {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let drawn = i32::try_from(random.draw() >> 33).unwrap_or(NO_SESSION);
        let id = drawn.max(NO_SESSION + 1);
        let watch = self.parking.watch(Awaited::Appended);
        let watch = watch.ok_or(ErrorCode::UnknownServerError)?;
        let inner = Inner { epoch: INITIAL_EPOCH, interests: BTreeMap::new(), served: None };
        Ok(FollowerSession { id, follower, watch, inner: Mutex::new(inner) })
    }
}

impl FollowerSession {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::broker) const fn id(&self) -> i32 {
        self.id
    }

    fn take(&self, fetch: SessionFetch) -> Result<Wanted, ErrorCode> {
        let mut inner = self.inner();
        if inner.epoch != fetch.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        for key in &fetch.forgotten {
            if inner.interests.remove(key).is_some() {
                self.watch.remove(key);
            }
        }
        let mut named = BTreeSet::new();
        for (key, interest) in fetch.interests {
            if inner.interests.insert(key, interest).is_none() {
                self.watch.add(key);
            }
            named.insert(key);
        }
        if inner.interests.len() > PARTITIONS_MAX {
            return Err(ErrorCode::InvalidRequest);
        }
        inner.epoch = next_epoch(inner.epoch);
        named.append(&mut self.watch.take());
        Ok(inner.in_turn(&named))
    }

    /// Returns when something may have moved.
    pub(in crate::broker) async fn moved(&self) {
        self.watch.moved().await;
    }

    /// What has moved since, to be read once more for the same fetch.
    pub(in crate::broker) fn take_moved(&self) -> Wanted {
        self.inner().in_turn(&self.watch.take())
    }

    /// The answer does not say everything of these (`FOLLOWER-2`).
    pub(in crate::broker) fn put_back(&self, keys: impl IntoIterator<Item = PartitionKey>) {
        self.watch.put_back(keys);
    }

    /// The answer has records of this one; what comes behind it has its turn first.
    pub(in crate::broker) fn served(&self, key: PartitionKey) {
        self.inner().served = Some(key);
    }
}

impl Inner {
    fn in_turn(&self, keys: &BTreeSet<PartitionKey>) -> Wanted {
        let is_before = |key: &&PartitionKey| self.served.is_some_and(|served| **key <= served);
        let (before, behind): (Vec<_>, Vec<_>) = keys.iter().partition(is_before);
        let of = |key: &PartitionKey| Some((*key, *self.interests.get(key)?));
        behind.into_iter().chain(before).filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fetch_session::{FINAL_EPOCH, FollowerView};
    use crate::types::{BrokerEpoch, LeaderEpoch, Offset, PartitionIndex, Uuid};

    fn key(index: i32) -> PartitionKey {
        (Uuid([1; 16]), PartitionIndex(index))
    }

    fn at(offset: i64) -> FetchInterest {
        FetchInterest {
            fetch_offset: Offset(offset),
            max_bytes: 1024,
            current_leader_epoch: LeaderEpoch(0),
            last_fetched_epoch: LeaderEpoch(0),
            known: FollowerView::UNASKED,
        }
    }

    fn follower(epoch: i64) -> Follower {
        Follower { node: NodeId(2), broker_epoch: BrokerEpoch(epoch) }
    }

    fn full(indexes: std::ops::Range<i32>) -> SessionFetch {
        let interests = indexes.map(|index| (key(index), at(0))).collect();
        let (session_id, epoch) = (NO_SESSION, INITIAL_EPOCH);
        SessionFetch { session_id, epoch, interests, forgotten: Vec::new() }
    }

    fn next(session: &FollowerSession, epoch: i32) -> SessionFetch {
        let (interests, forgotten) = (Vec::new(), Vec::new());
        SessionFetch { session_id: session.id(), epoch, interests, forgotten }
    }

    fn sessions() -> (Arc<Parking>, FollowerSessions) {
        let parking = Arc::new(Parking::new());
        (Arc::clone(&parking), FollowerSessions::new(parking, 1))
    }

    fn keys(read: Wanted) -> Vec<i32> {
        read.into_iter().map(|((_, index), _)| index.0).collect()
    }

    #[test]
    fn a_fetch_reads_what_it_names_and_what_has_moved() {
        let (parking, sessions) = sessions();
        let (session, read) = sessions.open(follower(5), full(0..4)).unwrap();
        assert_eq!(keys(read), [0, 1, 2, 3]);
        parking.wake_followers(&key(2));
        parking.wake_followers(&key(9));
        let named = SessionFetch {
            interests: vec![(key(1), at(7))],
            forgotten: vec![key(3)],
            ..next(&session, 1)
        };
        let (same, read) = sessions.open(follower(5), named).unwrap();
        assert!(Arc::ptr_eq(&session, &same));
        assert_eq!(read, [(key(1), at(7)), (key(2), at(0))]);
        parking.wake_followers(&key(3));
        assert_eq!(session.take_moved(), []);
        session.put_back([key(0), key(3)]);
        let (_, read) = sessions.open(follower(5), next(&session, 2)).unwrap();
        assert_eq!(keys(read), [0]);
    }

    #[test]
    fn who_was_served_comes_last() {
        let (parking, sessions) = sessions();
        let (session, _) = sessions.open(follower(5), full(0..4)).unwrap();
        session.served(key(1));
        (0..4).for_each(|index| parking.wake_followers(&key(index)));
        assert_eq!(keys(session.take_moved()), [2, 3, 0, 1]);
    }

    #[test]
    fn a_fetch_of_another_session_or_registration_or_out_of_turn_is_refused() {
        let (_, sessions) = sessions();
        let (session, _) = sessions.open(follower(5), full(0..1)).unwrap();
        let refused = |registration, fetch| sessions.open(follower(registration), fetch).err();
        let unknown = SessionFetch { session_id: session.id() ^ 1, ..next(&session, 1) };
        assert_eq!(refused(5, unknown), Some(ErrorCode::FetchSessionIdNotFound));
        assert_eq!(refused(6, next(&session, 1)), Some(ErrorCode::FetchSessionIdNotFound));
        for epoch in [2, FINAL_EPOCH] {
            let fetch = next(&session, epoch);
            assert_eq!(refused(5, fetch), Some(ErrorCode::InvalidFetchSessionEpoch));
        }
        assert!(sessions.open(follower(5), next(&session, 1)).is_ok());
        let (newer, _) = sessions.open(follower(5), full(0..1)).unwrap();
        assert_eq!(refused(5, next(&session, 2)), Some(ErrorCode::FetchSessionIdNotFound));
        assert!(sessions.open(follower(5), next(&newer, 1)).is_ok());
    }
}
