//! The fetcher's half of a fetch session (KIP-227): what its next request has to say.
//!
//! A session starts with a request that names everything. From then on a request names what has changed, and what is no
//! longer wanted; the broker knows the rest. When the broker has forgotten the session, or an answer did not come,
//! everything is named again. Kafka's counterpart is `FetchSessionHandler`.
//!
//! Invariants:
//! - `HANDLER-1` what the broker knows of a session, after it has taken the next request, is exactly what is wanted.

use std::collections::{BTreeMap, BTreeSet};

use super::{INITIAL_EPOCH, NO_SESSION, next_epoch};

/// See the module. `I` is what is wanted of the partition `K`.
#[derive(Clone, Debug)]
pub struct FetchSessionHandler<K, I> {
    session_id: i32,
    epoch: i32,
    wanted: BTreeMap<K, I>,
    /// What the broker has not been told of, or was told otherwise.
    unsaid: BTreeSet<K>,
}

/// What a request says of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPart<K, I> {
    /// The session that it belongs to, or [`NO_SESSION`].
    pub session_id: i32,
    /// Its place in the session, or [`INITIAL_EPOCH`].
    pub epoch: i32,
    /// New or changed partitions; all of them in a first request.
    pub interests: Vec<(K, I)>,
    /// Partitions that are no longer wanted.
    pub forgotten: Vec<K>,
}

impl<K, I> Default for FetchSessionHandler<K, I> {
    /// Nothing is wanted, and there is no session.
    fn default() -> Self {
        Self {
            session_id: NO_SESSION,
            epoch: INITIAL_EPOCH,
            wanted: BTreeMap::new(),
            unsaid: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone, I: Clone + PartialEq> FetchSessionHandler<K, I> {
    /// Wants this of a partition from now on.
    pub fn want(&mut self, key: K, interest: I) {
        if self.wanted.get(&key) != Some(&interest) {
            self.unsaid.insert(key.clone());
            self.wanted.insert(key, interest);
        }
    }

    /// What is wanted of a partition, if anything is.
    pub fn wanted(&self, key: &K) -> Option<&I> {
        self.wanted.get(key)
    }

    /// Wants nothing of a partition any more.
    pub fn forget(&mut self, key: &K) {
        if self.wanted.remove(key).is_some() {
            self.unsaid.insert(key.clone());
        }
    }

    /// Whether nothing is wanted.
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The next request. Its answer is to be reported, or that there is none.
    pub fn next_request(&mut self) -> SessionPart<K, I> {
        let unsaid = std::mem::take(&mut self.unsaid);
        let (session_id, epoch) = (self.session_id, self.epoch);
        let (mut interests, mut forgotten) = (Vec::new(), Vec::new());
        if epoch == INITIAL_EPOCH {
            interests.extend(self.wanted.iter().map(|(key, of)| (key.clone(), of.clone())));
        } else {
            for key in unsaid {
                match self.wanted.get(&key) {
                    Some(interest) => interests.push((key, interest.clone())),
                    None => forgotten.push(key),
                }
            }
        }
        SessionPart { session_id, epoch, interests, forgotten }
    }

    /// The broker answered, and named the session to go on with, or [`NO_SESSION`].
    pub fn answered(&mut self, session_id: i32) {
        if session_id == NO_SESSION {
            self.start_over();
        } else {
            (self.session_id, self.epoch) = (session_id, next_epoch(self.epoch));
        }
    }

    /// The broker does not know the session, or it is not known what the broker has been told.
    pub fn start_over(&mut self) {
        (self.session_id, self.epoch) = (NO_SESSION, INITIAL_EPOCH);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Want(u8, u8),
        Forget(u8),
        Ask { is_answered: bool, keeps_session: bool },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..6_u8, 0..3_u8).prop_map(|(key, interest)| Step::Want(key, interest)),
            (0..6_u8).prop_map(Step::Forget),
            (prop::bool::weighted(0.8), prop::bool::weighted(0.9))
                .prop_map(|(is_answered, keeps_session)| Step::Ask { is_answered, keeps_session }),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        /// `HANDLER-1`
        #[test]
        fn the_broker_knows_what_is_wanted(steps in steps()) {
            let mut handler = FetchSessionHandler::default();
            let mut wanted = BTreeMap::new();
            // What a broker makes of the requests.
            let (mut known, mut next) = (BTreeMap::new(), INITIAL_EPOCH);
            for step in steps {
                match step {
                    Step::Want(key, interest) => {
                        handler.want(key, interest);
                        wanted.insert(key, interest);
                    }
                    Step::Forget(key) => {
                        handler.forget(&key);
                        wanted.remove(&key);
                    }
                    Step::Ask { is_answered, keeps_session } => {
                        let part = handler.next_request();
                        if part.epoch == INITIAL_EPOCH {
                            known.clear();
                        } else {
                            prop_assert_eq!((part.session_id, part.epoch), (7, next));
                        }
                        known.extend(part.interests);
                        for key in part.forgotten {
                            prop_assert!(known.remove(&key).is_some() || !wanted.contains_key(&key));
                        }
                        prop_assert_eq!(&known, &wanted);
                        next = next_epoch(part.epoch);
                        match (is_answered, keeps_session) {
                            (true, true) => handler.answered(7),
                            (true, false) => handler.answered(NO_SESSION),
                            (false, _) => handler.start_over(),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_request_says_what_has_changed() {
        let mut handler = FetchSessionHandler::default();
        handler.want("a", 1);
        handler.want("b", 1);
        assert_eq!(handler.next_request().interests, [("a", 1), ("b", 1)]);
        handler.answered(9);
        handler.want("a", 1);
        handler.want("b", 2);
        handler.want("c", 1);
        handler.forget(&"c");
        let part = handler.next_request();
        assert_eq!((part.session_id, part.epoch), (9, 1));
        assert_eq!((part.interests, part.forgotten), (vec![("b", 2)], vec!["c"]));
        assert!(!handler.is_idle());
    }
}
