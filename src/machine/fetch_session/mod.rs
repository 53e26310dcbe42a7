//! Fetch sessions (KIP-227): the broker remembers what a client fetches, so that the client need
//! only send changes.
//!
//! Why: a consumer of a thousand partitions would otherwise list all of them in each request, and
//! be told about all of them in each response. In a session the request carries what changed, and
//! the response the partitions that have something to say.
//!
//! Invariants:
//! - `SESSION-1` a response without a session names every partition of its request; an incremental
//!   one names a partition if it has records, an error, or another high watermark or log start
//!   offset than the client was last told.
//! - `SESSION-2` the epoch grows by one per request of a session, and wraps from `i32::MAX` to 1;
//!   any other epoch is refused, so that no request is answered twice with different changes.
//! - `SESSION-3` there are never more sessions than slots. A new one replaces one that has not been
//!   used for the eviction time, failing that a smaller one that is older than that, failing that
//!   there is no session.
//! - `SESSION-4` a session either names topics or uses topic ids (KIP-516); a request that does the
//!   opposite is refused with `FETCH_SESSION_TOPIC_ID_ERROR`.
//!
//! A partition that was answered with records moves to the end of its session, so that each gets
//! its turn even when `max_bytes` is always reached.
//!
//! Pure: [`FetchSessions::open`] when a request comes, [`FetchSessions::close`] when its answer is
//! ready. Kafka's counterpart is `FetchSession.scala`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::ErrorCode;
use crate::types::{LeaderEpoch, Offset, PartitionIndex, SplitMix64, TimestampMs, TopicId};

mod handler;
#[cfg(test)]
mod tests;

pub use self::handler::{FetchSessionHandler, SessionPart};

/// The epoch of a request that wants a new session.
pub const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that wants none, and ends the one it names.
pub const FINAL_EPOCH: i32 = -1;
/// The id of a request or response without a session.
pub const NO_SESSION: i32 = 0;

/// A topic as a fetch names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FetchTopicKey {
    /// By name, up to version 12.
    Name(Arc<str>),
    /// By id, from version 13 on.
    Id(TopicId),
}

/// A partition as a fetch names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchKey {
    /// The topic.
    pub topic: FetchTopicKey,
    /// The index of the partition.
    pub partition: PartitionIndex,
}

/// What a client wants from a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchInterest {
    /// The offset to read from.
    pub fetch_offset: Offset,
    /// The most bytes to return for this partition.
    pub max_bytes: i32,
    /// The leader epoch that the client believes in; -1 when it does not say.
    pub current_leader_epoch: LeaderEpoch,
    /// The epoch of the last record that a follower has; -1 when it does not say.
    pub last_fetched_epoch: LeaderEpoch,
    /// What a follower knows of the leader's log; it is told at once when there is something newer.
    pub known: FollowerView,
}

/// What a follower knows of its leader's log besides the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerView {
    /// The high watermark.
    pub high_watermark: Offset,
    /// Where the log starts.
    pub log_start: Offset,
    /// Where the log starts on the leader's disk. Only who has a tier asks for it.
    pub local_start: Offset,
}

impl FollowerView {
    /// The fetcher does not ask for any of it.
    pub const UNASKED: Self = Self {
        high_watermark: Offset(i64::MAX),
        log_start: Offset(i64::MAX),
        local_start: Offset(i64::MAX),
    };
}

/// A request, as far as its session is concerned.
#[derive(Debug)]
pub struct SessionRequest {
    /// The session that it belongs to, or [`NO_SESSION`].
    pub session_id: i32,
    /// Its position in the session, [`INITIAL_EPOCH`] or [`FINAL_EPOCH`].
    pub epoch: i32,
    /// Whether it names topics by id.
    pub uses_topic_ids: bool,
    /// Whether it is a follower's; its session is evicted last.
    pub privileged: bool,
    /// New or changed partitions.
    pub interests: Vec<(FetchKey, FetchInterest)>,
    /// Partitions to drop from the session.
    pub forgotten: Vec<FetchKey>,
}

/// What is kept between the two halves of a request.
#[derive(Debug)]
pub struct FetchContext {
    kind: ContextKind,
    /// The partitions to read, in order.
    pub interests: Vec<(FetchKey, FetchInterest)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContextKind {
    Sessionless,
    Full { uses_topic_ids: bool, privileged: bool },
    Incremental { session_id: i32, epoch: i32 },
}

/// What a response is about to say about a partition; one for each interest, in the same order.
#[derive(Clone, Copy, Debug)]
pub struct FetchOutcome {
    /// Whether it has records, or another reason to be in the response (a diverging epoch, a
    /// preferred replica).
    pub must_respond: bool,
    /// Whether it has records.
    pub has_records: bool,
    /// Its error.
    pub error: ErrorCode,
    /// Its high watermark.
    pub high_watermark: Offset,
    /// Its log start offset.
    pub log_start_offset: Offset,
}

/// The session part of a response.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionResponse {
    /// The error of the whole response.
    pub error: ErrorCode,
    /// The session to continue with, or [`NO_SESSION`].
    pub session_id: i32,
    /// For each interest, whether it is in the response. Empty when there is an error.
    pub included: Vec<bool>,
}

#[derive(Debug)]
struct Cached {
    interest: FetchInterest,
    /// The place in the order of the session.
    place: u64,
    high_watermark: Offset,
    log_start_offset: Offset,
}

#[derive(Debug)]
struct Session {
    privileged: bool,
    uses_topic_ids: bool,
    created: TimestampMs,
    last_used: TimestampMs,
    epoch: i32,
    /// The size under which the eviction order knows this session.
    known_size: usize,
    partitions: BTreeMap<FetchKey, Cached>,
    order: BTreeMap<u64, FetchKey>,
    next_place: u64,
}

impl Session {
    fn insert(&mut self, key: FetchKey, interest: FetchInterest, told: (Offset, Offset)) {
        if let Some(cached) = self.partitions.get_mut(&key) {
            cached.interest = interest;
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.order.insert(place, key.clone());
        let (high_watermark, log_start_offset) = told;
        self.partitions.insert(key, Cached { interest, place, high_watermark, log_start_offset });
    }

    fn remove(&mut self, key: &FetchKey) {
        if let Some(cached) = self.partitions.remove(key) {
            self.order.remove(&cached.place);
        }
    }

    fn interests(&self) -> Vec<(FetchKey, FetchInterest)> {
        let entry = |key: &FetchKey| Some((key.clone(), self.partitions.get(key)?.interest));
        self.order.values().filter_map(entry).collect()
    }

    /// Whether the client must be told; remembers what it is told.
    fn tell(&mut self, key: &FetchKey, outcome: &FetchOutcome) -> bool {
        let Some(cached) = self.partitions.get_mut(key) else { return true };
        let failed = !outcome.error.is_ok();
        let respond = outcome.must_respond
            || outcome.has_records
            || failed
            || cached.high_watermark != outcome.high_watermark
            || cached.log_start_offset != outcome.log_start_offset;
        // After an error the partition is reported again even if nothing else changed.
        cached.high_watermark = if failed { Offset::UNKNOWN } else { outcome.high_watermark };
        cached.log_start_offset = outcome.log_start_offset;
        if outcome.has_records {
            self.order.remove(&cached.place);
            cached.place = self.next_place;
            self.next_place += 1;
            self.order.insert(cached.place, key.clone());
        }
        respond
    }
}

/// The epoch of the request after the one of `epoch`.
pub fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        i32::MIN..0 => FINAL_EPOCH,
        i32::MAX => 1,
        other => other + 1,
    }
}

/// All fetch sessions of a broker.
#[derive(Debug)]
pub struct FetchSessions {
    slots: usize,
    eviction_ms: i64,
    random: SplitMix64,
    sessions: BTreeMap<i32, Session>,
    last_used: BTreeSet<(TimestampMs, i32)>,
    /// Sessions that anyone may evict, smallest first: those older than the eviction time.
    evictable_by_all: BTreeSet<(bool, usize, i32)>,
    /// Sessions that a follower may evict: those, and all client sessions.
    evictable_by_privileged: BTreeSet<(bool, usize, i32)>,
}

impl FetchSessions {
    /// Room for `slots` sessions (`max.incremental.fetch.session.cache.slots`); one that has not
    /// been used for `eviction_ms` gives way to any other. Ids are drawn from `seed`.
    pub fn new(slots: usize, eviction_ms: i64, seed: u64) -> Self {
        Self {
            slots,
            eviction_ms,
            random: SplitMix64::new(seed),
            sessions: BTreeMap::new(),
            last_used: BTreeSet::new(),
            evictable_by_all: BTreeSet::new(),
            evictable_by_privileged: BTreeSet::new(),
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Finds what a request wants to read.
    ///
    /// # Errors
    ///
    /// `FETCH_SESSION_ID_NOT_FOUND`, `INVALID_FETCH_SESSION_EPOCH` or
    /// `FETCH_SESSION_TOPIC_ID_ERROR`; the response then carries that code, [`NO_SESSION`] and no
    /// partition.
    pub fn open(
        &mut self,
        now: TimestampMs,
        request: SessionRequest,
    ) -> Result<FetchContext, ErrorCode> {
        if request.epoch == INITIAL_EPOCH || request.epoch == FINAL_EPOCH {
            self.remove(request.session_id);
            let kind = if request.epoch == FINAL_EPOCH {
                ContextKind::Sessionless
            } else {
                let SessionRequest { uses_topic_ids, privileged, .. } = request;
                ContextKind::Full { uses_topic_ids, privileged }
            };
            return Ok(FetchContext { kind, interests: unique(request.interests) });
        }
        let session_id = request.session_id;
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return Err(ErrorCode::FetchSessionIdNotFound);
        };
        if session.epoch != request.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != request.uses_topic_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        for (key, interest) in &request.interests {
            session.insert(key.clone(), *interest, (Offset::UNKNOWN, Offset::UNKNOWN));
        }
        for key in &request.forgotten {
            session.remove(key);
        }
        if session.partitions.is_empty() {
            self.remove(session_id);
            let interests = unique(request.interests);
            return Ok(FetchContext { kind: ContextKind::Sessionless, interests });
        }
        session.epoch = next_epoch(session.epoch);
        let kind = ContextKind::Incremental { session_id, epoch: session.epoch };
        let interests = session.interests();
        self.touch(session_id, now);
        Ok(FetchContext { kind, interests })
    }

    /// Decides which parts of a finished read go into the response. `outcomes` are those of
    /// `context.interests`, in the same order.
    pub fn close(
        &mut self,
        now: TimestampMs,
        context: &FetchContext,
        outcomes: &[FetchOutcome],
    ) -> SessionResponse {
        let pairs = || context.interests.iter().zip(outcomes);
        let all = |session_id| SessionResponse {
            error: ErrorCode::None,
            session_id,
            included: vec![true; outcomes.len()],
        };
        match context.kind {
            ContextKind::Sessionless => all(NO_SESSION),
            ContextKind::Full { uses_topic_ids, privileged } => {
                if !self.make_room(now, privileged, outcomes.len()) {
                    return all(NO_SESSION);
                }
                let mut session = Session {
                    privileged,
                    uses_topic_ids,
                    created: now,
                    last_used: now,
                    epoch: next_epoch(INITIAL_EPOCH),
                    known_size: 0,
                    partitions: BTreeMap::new(),
                    order: BTreeMap::new(),
                    next_place: 0,
                };
                for ((key, interest), outcome) in pairs() {
                    let told = (outcome.high_watermark, outcome.log_start_offset);
                    session.insert(key.clone(), *interest, told);
                }
                let session_id = self.new_id();
                self.sessions.insert(session_id, session);
                self.touch(session_id, now);
                all(session_id)
            }
            ContextKind::Incremental { session_id, epoch } => {
                let session = self.sessions.get_mut(&session_id);
                // Evicted meanwhile: the client is told what changed all the same, and finds out
                // with its next request.
                let Some(session) = session else { return all(session_id) };
                if session.epoch != epoch {
                    let error = ErrorCode::InvalidFetchSessionEpoch;
                    return SessionResponse { error, session_id, included: Vec::new() };
                }
                let included =
                    pairs().map(|((key, _), outcome)| session.tell(key, outcome)).collect();
                SessionResponse { error: ErrorCode::None, session_id, included }
            }
        }
    }

    fn new_id(&mut self) -> i32 {
        loop {
            let id = i32::try_from(self.random.draw() >> 33).unwrap_or(NO_SESSION);
            if id != NO_SESSION && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    fn make_room(&mut self, now: TimestampMs, privileged: bool, size: usize) -> bool {
        if self.sessions.len() < self.slots {
            return true;
        }
        let Some(&(used, oldest)) = self.last_used.first() else { return false };
        if now.0 - used.0 > self.eviction_ms {
            self.remove(oldest);
            return true;
        }
        let order = if privileged { &self.evictable_by_privileged } else { &self.evictable_by_all };
        match order.first().copied() {
            Some(smallest) if (privileged, size, 0) >= smallest => {
                self.remove(smallest.2);
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, session_id: i32) {
        if let Some(session) = self.sessions.remove(&session_id) {
            self.last_used.remove(&(session.last_used, session_id));
            let key = (session.privileged, session.known_size, session_id);
            self.evictable_by_all.remove(&key);
            self.evictable_by_privileged.remove(&key);
        }
    }

    fn touch(&mut self, session_id: i32, now: TimestampMs) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        self.last_used.remove(&(session.last_used, session_id));
        session.last_used = now;
        self.last_used.insert((now, session_id));
        let old = (session.privileged, session.known_size, session_id);
        self.evictable_by_all.remove(&old);
        self.evictable_by_privileged.remove(&old);
        session.known_size = session.partitions.len();
        let key = (session.privileged, session.known_size, session_id);
        let aged = now.0 - session.created.0 > self.eviction_ms;
        if aged || !session.privileged {
            self.evictable_by_privileged.insert(key);
        }
        if aged {
            self.evictable_by_all.insert(key);
        }
    }
}

/// The interests in order, each partition once; the last mention counts.
fn unique(interests: Vec<(FetchKey, FetchInterest)>) -> Vec<(FetchKey, FetchInterest)> {
    let mut places: BTreeMap<FetchKey, usize> = BTreeMap::new();
    let mut kept: Vec<(FetchKey, FetchInterest)> = Vec::with_capacity(interests.len());
    for (key, interest) in interests {
        if let Some(entry) = places.get(&key).and_then(|&place| kept.get_mut(place)) {
            entry.1 = interest;
        } else {
            places.insert(key.clone(), kept.len());
            kept.push((key, interest));
        }
    }
    kept
}
