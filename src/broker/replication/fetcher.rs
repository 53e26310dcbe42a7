//! Copying from one leader: the task that fetches from it everything that is followed here.
//!
//! ```text
//! ┌─► where each copy stands that has moved ──► Fetch ──► answer ──► append, cut, or back off ──► sync, if need be ─┐
//! └──────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Each connection has a fetch session (KIP-227): the leader is told of what has changed, and tells of what has moved.
//!
//! Invariants:
//! - `FETCHER-1` the offset that is asked for is the end of the log here: the leader takes it for what this broker has.
//! - `FETCHER-2` what goes wrong with one partition holds up no other: it is left out for a while, a longer one each
//!   time, unless the metadata changes.
//! - `FETCHER-3` nothing that is to be copied waits for an answer about others: when something is added while the leader
//!   has nothing to tell, the question is asked anew.
//! - `FETCHER-4` where a copy stands changes only by an answer, or with its assignment; the leader knows the rest. One that
//!   begins in the middle of a log is left out until it has ([`beginning`]).

mod beginning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::round::{self, Asked, Session};
use super::throttles::Throttles;
use crate::broker::link::Link;
use crate::broker::log_threads::LogThreads;
use crate::broker::parking::PartitionKey;
use crate::broker::partition::{Cut, Partition};
use crate::broker::storage::Storage;
use crate::config::ReplicationConfig;
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::log::EpochEnd;
use crate::machine::fetch_session::INITIAL_EPOCH;
use crate::machine::replica::FromLeader;
use crate::protocol::messages::fetch::PartitionData;
use crate::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use crate::types::{LeaderEpoch, NodeId, Offset};

/// How long to wait after the first failure; twice as long after each further one.
const BACKOFF: Duration = Duration::from_millis(20);

/// How much longer than it was asked to wait the leader may take to answer.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long something is left out at most because the limit is exceeded, before it is looked whether it still is, and
/// whether the settings are still the same.
const THROTTLED_MAX: Duration = Duration::from_secs(1);

/// How many failures one after the other are told of.
const FAILURES_TOLD: u32 = 5;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// What the fetchers of a broker share.
#[derive(Clone, Debug)]
pub(in crate::broker) struct FetcherParts {
    pub(in crate::broker) env: Env,
    pub(in crate::broker) node_id: NodeId,
    pub(in crate::broker) config: ReplicationConfig,
    pub(in crate::broker) storage: Arc<Storage>,
    pub(in crate::broker) log_threads: Arc<LogThreads>,
    /// The registration of this broker.
    pub(in crate::broker) broker_epoch: Arc<AtomicI64>,
    pub(in crate::broker) throttles: Arc<Throttles>,
}

impl FetcherParts {
    /// The registration in which this broker fetches.
    pub(super) fn registration(&self) -> i64 {
        self.broker_epoch.load(Ordering::Acquire)
    }

    fn backoff(&self, failures: u32) -> Duration {
        let max = Duration::from_millis(self.config.fetch_backoff_ms.max(0).unsigned_abs().into());
        BACKOFF.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(max)
    }
}

/// A partition that is copied from the leader.
#[derive(Debug)]
struct Assigned {
    partition: Arc<Partition>,
    /// Which assignment it is, of all of this fetcher.
    number: u64,
    failures: u32,
    not_before: Option<Instant>,
    /// Whether it had all that is committed, when the leader answered last.
    is_in_sync: bool,
}

#[derive(Debug, Default)]
struct Shared {
    assigned: BTreeMap<PartitionKey, Assigned>,
    assignments: u64,
    /// Of what the leader may have to be told something: it was assigned, removed, or answered.
    stirred: BTreeSet<PartitionKey>,
    /// What is left out, and until when.
    left_out: BTreeSet<(Instant, PartitionKey)>,
    /// What is left out because its copy begins in the middle: waiting for its turn, or, without a question, under way.
    beginning: BTreeMap<PartitionKey, Option<Asked>>,
    /// Where the leader is reached; none when it is not registered.
    address: Option<String>,
}

impl Shared {
    /// Says what the leader is to be asked for from now on. Returns when there is more. With a `pause`, what is throttled
    /// is left out for so long.
    fn tell(&mut self, session: &mut Session, pause: Option<Duration>) -> Option<Instant> {
        let now = Instant::now();
        while let Some((due, key)) = self.left_out.first().copied().filter(|(due, _)| *due <= now) {
            self.left_out.remove(&(due, key));
            self.stirred.insert(key);
        }
        for key in std::mem::take(&mut self.stirred) {
            let assigned = self.assigned.get(&key);
            let assigned = assigned.filter(|_| !self.beginning.contains_key(&key));
            match assigned.and_then(|assigned| Some((assigned, assigned.asked(key, now)?))) {
                Some((assigned, _)) if pause.is_some() && assigned.is_throttled() => {
                    session.forget(&key);
                    let pause = pause.unwrap_or_default().min(THROTTLED_MAX);
                    self.left_out.insert((now + pause, key));
                }
                Some((_, asked)) => session.want(key, asked),
                None => session.forget(&key),
            }
        }
        self.left_out.first().map(|(due, _)| *due)
    }

    /// The limit is exceeded: the leader is not to be asked for anything any more that is throttled.
    fn hold_back(&mut self) {
        let throttled = self.assigned.iter().filter(|(_, assigned)| assigned.is_throttled());
        self.stirred.extend(throttled.map(|(key, _)| *key));
    }
}

impl Assigned {
    /// Whether it waits while the limit is exceeded. Who is in sync does not: it would leave the ISR.
    fn is_throttled(&self) -> bool {
        !self.is_in_sync && self.partition.is_follower_throttled()
    }

    /// None when the partition follows nobody, or is left out.
    fn asked(&self, key: PartitionKey, now: Instant) -> Option<Asked> {
        if self.not_before.is_some_and(|due| due > now) {
            return None;
        }
        let point = self.partition.copy_point()?;
        let (partition, assignment) = (Arc::clone(&self.partition), self.number);
        Some(Asked { key, partition, point, assignment })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fetcher {
    leader: NodeId,
    parts: FetcherParts,
    shared: Mutex<Shared>,
    changed: Notify,
    /// Something is to begin.
    begins: Notify,
    stop: CancellationToken,
}

/// What came of the answer about one partition.
enum Outcome {
    Done,
    /// To be awaited before the next round.
    Syncs(oneshot::Receiver<()>),
    /// The leader must say where its log starts and ends.
    OutOfRange,
    /// The leader has only in its tier what would come next.
    InTier,
    Failed(Error),
}

impl Fetcher {
    pub(super) fn new(leader: NodeId, parts: FetcherParts, stop: CancellationToken) -> Arc<Self> {
        let (shared, changed, begins) = (Mutex::default(), Notify::new(), Notify::new());
        Arc::new(Self { leader, parts, shared, changed, begins, stop })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies a partition, at once if it was waiting.
    pub(super) fn assign(&self, key: PartitionKey, partition: Arc<Partition>) {
        let mut shared = self.shared();
        shared.assignments += 1;
        let number = shared.assignments;
        // Of the same log, this is known until the leader answers again.
        let known = shared.assigned.get(&key);
        let is_in_sync =
            known.is_some_and(|one| one.is_in_sync && Arc::ptr_eq(&one.partition, &partition));
        let (failures, not_before) = (0, None);
        let assigned = Assigned { partition, number, failures, not_before, is_in_sync };
        shared.assigned.insert(key, assigned);
        shared.stirred.insert(key);
        drop(shared);
        self.changed.notify_one();
    }

    /// Copies a partition no longer.
    pub(super) fn remove(&self, key: &PartitionKey) {
        let mut shared = self.shared();
        shared.assigned.remove(key);
        shared.stirred.insert(*key);
    }

    /// Whether nothing is copied.
    pub(super) fn is_idle(&self) -> bool {
        self.shared().assigned.is_empty()
    }

    /// The leader is reached there from now on.
    pub(super) fn set_address(&self, address: Option<String>) {
        let mut shared = self.shared();
        if shared.address != address {
            shared.address = address;
            self.changed.notify_one();
        }
    }

    fn address(&self) -> Option<String> {
        self.shared().address.clone()
    }

    /// Ends the task.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Copies until it is stopped.
    pub(super) async fn run(self: Arc<Self>) {
        let fetching = async {
            let mut failures = 0;
            loop {
                let Some(address) = self.address() else {
                    self.changed.notified().await;
                    continue;
                };
                let Err(error) = self.fetch_from(&address, &mut failures).await else { continue };
                failures += 1;
                let (leader, error) = (self.leader, error.chain());
                // One that has ended is replaced by then, and its end was told of.
                if failures == FAILURES_TOLD {
                    tracing::warn!(%leader, address, error, "cannot copy from the leader; trying again");
                } else {
                    tracing::debug!(%leader, address, error, "could not copy from the leader; trying again");
                }
                let backoff = tokio::time::sleep(self.parts.backoff(failures));
                tokio::select! {
                    biased;
                    () = self.changed.notified() => {}
                    () = backoff => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = fetching => {}
            () = self.begin_copies() => {}
        }
    }

    /// Fetches by one connection. Returns when there should be another.
    async fn fetch_from(&self, address: &str, failures: &mut u32) -> Result<()> {
        let client_id = format!("broker-{}-fetcher", self.parts.node_id);
        let link = Link::open(&self.parts.env.net, address, &client_id).await?;
        let wait =
            Duration::from_millis(self.parts.config.fetch_wait_max_ms.max(0).unsigned_abs().into());
        let mut session = self.new_session();
        loop {
            let pause = self.parts.throttles.follower.pause(self.parts.env.clock.monotonic());
            let next = self.shared().tell(&mut session, pause);
            if session.is_idle() {
                self.wait_for_work(next).await;
                if self.address().as_deref() != Some(address) {
                    return Ok(());
                }
                continue;
            }
            // Who is left out for now does not wait for the others either.
            let due = next.map_or(wait, |next| next.saturating_duration_since(Instant::now()));
            let wait = due.min(wait);
            let part = session.next_request();
            let is_full = part.epoch == INITIAL_EPOCH;
            let request = round::request(part, &self.parts, wait);
            let response = tokio::select! {
                biased;
                response = link.call(request, wait + SILENCE_MAX) => response?,
                () = self.is_outdated(&session, address) => return Ok(()),
            };
            match ErrorCode::from_i16(response.error_code) {
                ErrorCode::None => session.answered(response.session_id),
                ErrorCode::FetchSessionIdNotFound | ErrorCode::InvalidFetchSessionEpoch
                    if !is_full =>
                {
                    session.start_over();
                    continue;
                }
                code => return Err(Error::kafka(code, "the leader refused a fetch")),
            }
            if std::mem::take(failures) >= FAILURES_TOLD {
                tracing::info!(leader = %self.leader, address, "copying from the leader again");
            }
            self.take(&link, round::answers(&session, response)).await?;
        }
    }

    /// A session that wants everything that is assigned.
    fn new_session(&self) -> Session {
        let mut shared = self.shared();
        let Shared { assigned, stirred, .. } = &mut *shared;
        stirred.extend(assigned.keys().copied());
        Session::default()
    }

    async fn wait_for_work(&self, next: Option<Instant>) {
        let due = async {
            match next {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.changed.notified() => {}
            () = due => {}
        }
    }

    /// Returns once the leader is not asked for something that is to be copied, or is reached elsewhere (`FETCHER-3`).
    async fn is_outdated(&self, session: &Session, address: &str) {
        loop {
            self.changed.notified().await;
            let shared = self.shared();
            let is_new = |key: &PartitionKey| {
                shared.assigned.get(key).is_some_and(|assigned| {
                    assigned.not_before.is_none()
                        && !shared.beginning.contains_key(key)
                        && assigned.partition.copy_point().is_some()
                        && !session.wanted(key).is_some_and(|one| one.is_about(&assigned.partition))
                })
            };
            if shared.address.as_deref() != Some(address) || shared.stirred.iter().any(is_new) {
                return;
            }
        }
    }

    /// Does what the answers to a round say.
    async fn take(&self, link: &Link, answers: Vec<(Asked, PartitionData)>) -> Result<()> {
        // `FETCHER-4`
        self.shared().stirred.extend(answers.iter().map(|(asked, _)| asked.key));
        let each = answers.into_iter().map(|(asked, data)| async {
            let outcome = self.take_one(&asked, data).await;
            (asked, outcome)
        });
        let mut syncs = Vec::new();
        for (asked, outcome) in futures::future::join_all(each).await {
            let outcome = match outcome {
                Outcome::OutOfRange => self.start_over(link, &asked).await?,
                outcome => outcome,
            };
            match outcome {
                Outcome::Failed(error) => self.failed(&asked, &error),
                Outcome::Syncs(synced) => syncs.push(synced),
                Outcome::InTier => self.want_beginning(asked),
                Outcome::Done | Outcome::OutOfRange => {}
            }
        }
        if self.parts.throttles.follower.pause(self.parts.env.clock.monotonic()).is_some() {
            self.shared().hold_back();
        }
        for synced in syncs {
            // `FOLLOW-3`; it fails when the partition is closed or led here, and then is not asked for.
            drop(synced.await);
        }
        Ok(())
    }

    async fn take_one(&self, asked: &Asked, data: PartitionData) -> Outcome {
        let taken = match ErrorCode::from_i16(data.error_code) {
            ErrorCode::None if data.diverging_epoch.epoch >= 0 => {
                let epoch = LeaderEpoch(data.diverging_epoch.epoch);
                let end_offset = Offset(data.diverging_epoch.end_offset);
                self.cut(asked, Cut::Diverged(EpochEnd { epoch, end_offset })).await
            }
            ErrorCode::None => self.copy(asked, data).await,
            ErrorCode::OffsetOutOfRange => return Outcome::OutOfRange,
            ErrorCode::OffsetMovedToTieredStorage => return Outcome::InTier,
            code => Err(Error::kafka(code, format!("the leader does not give {}", asked.name()))),
        };
        taken.unwrap_or_else(Outcome::Failed)
    }

    async fn copy(&self, asked: &Asked, data: PartitionData) -> Result<Outcome> {
        let from = FromLeader {
            high_watermark: Offset(data.high_watermark),
            log_start: Offset(data.log_start_offset),
            local_start: (data.local_log_start_offset >= 0)
                .then_some(Offset(data.local_log_start_offset)),
        };
        let records = data.records.unwrap_or_default().into_bytes();
        let known = asked.point.known;
        let is_news = from.high_watermark.min(asked.point.end) > known.high_watermark
            || from.log_start > known.log_start
            || from.local_start.is_some_and(|start| start.min(asked.point.end) > known.local_start);
        if asked.partition.is_follower_throttled() {
            self.parts.throttles.follower.record(records.len(), self.parts.env.clock.monotonic());
        }
        if records.is_empty() && !is_news {
            self.copied(asked, from.high_watermark);
            return Ok(Outcome::Done);
        }
        let (point, now) = (asked.point, self.parts.env.clock.now());
        let copied = self
            .parts
            .log_threads
            .run_on(&asked.partition, move |partition| partition.copy(&point, &records, from, now));
        let copied = copied.await?;
        self.copied(asked, from.high_watermark);
        let Some(copied) = copied else { return Ok(Outcome::Done) };
        if copied.needs_sync {
            self.parts.log_threads.sync(&asked.partition);
        }
        Ok(copied.synced.map_or(Outcome::Done, Outcome::Syncs))
    }

    async fn cut(&self, asked: &Asked, cut: Cut) -> Result<Outcome> {
        let (point, storage) = (asked.point, Arc::clone(&self.parts.storage));
        let done = self.parts.log_threads.run_on(&asked.partition, move |partition| {
            storage.cut(partition.name(), |lower| partition.cut(&point, cut, lower))
        });
        let end = done.await?;
        if end == Some(point.end) {
            // It would be asked and answered the same again, at once.
            let context = format!("the leader's log of {} does not go with the copy", asked.name());
            return Err(Error::kafka(ErrorCode::OffsetOutOfRange, context));
        }
        self.succeeded(asked);
        Ok(Outcome::Done)
    }

    /// The leader has nothing at the end of a copy: it deleted what would come next, or it lost what the copy has.
    async fn start_over(&self, link: &Link, asked: &Asked) -> Result<Outcome> {
        let end = self.offset_of_leader(link, asked, LATEST).await?;
        let start = self.offset_of_leader(link, asked, EARLIEST).await?;
        let (start, end) = match (start, end) {
            (Ok(start), Ok(end)) => (start, end),
            (Err(error), _) | (_, Err(error)) => return Ok(Outcome::Failed(error)),
        };
        let done = self.cut(asked, Cut::OutOfRange { start, end }).await;
        Ok(done.unwrap_or_else(Outcome::Failed))
    }

    /// Within, what is wrong with the partition; without, with the connection.
    async fn offset_of_leader(
        &self,
        link: &Link,
        asked: &Asked,
        timestamp: i64,
    ) -> Result<Result<Offset>> {
        let name = asked.name();
        let wanted = ListOffsetsPartition {
            partition_index: name.partition.0,
            current_leader_epoch: asked.point.epoch.0,
            timestamp,
        };
        let topic = ListOffsetsTopic { name: (&name.topic).into(), partitions: vec![wanted] };
        let request = ListOffsetsRequest {
            replica_id: self.parts.node_id.0,
            topics: vec![topic],
            ..ListOffsetsRequest::default()
        };
        let response = link.call(request, SILENCE_MAX).await?;
        let found = response.topics.iter().flat_map(|topic| &topic.partitions).next();
        Ok(match found {
            Some(found) if found.error_code == 0 => Ok(Offset(found.offset)),
            other => {
                let code = other.map_or(-1, |found| found.error_code);
                let context = format!("the leader does not tell where {name} starts and ends");
                Err(Error::kafka(ErrorCode::from_i16(code), context))
            }
        })
    }

    /// The leader, which told this high watermark, has given what it has.
    fn copied(&self, asked: &Asked, high_watermark: Offset) {
        self.succeeded(asked);
        if let Some(assigned) = self.shared().assigned.get_mut(&asked.key) {
            assigned.is_in_sync = asked.partition.reader().log_end_offset() >= high_watermark;
        }
    }

    fn succeeded(&self, asked: &Asked) {
        if let Some(assigned) = self.shared().assigned.get_mut(&asked.key) {
            assigned.failures = 0;
            assigned.not_before = None;
        }
    }

    /// `FETCHER-2`
    fn failed(&self, asked: &Asked, error: &Error) {
        let mut shared = self.shared();
        let Some(assigned) = shared.assigned.get_mut(&asked.key) else { return };
        if !asked.is_about(&assigned.partition) {
            // It is another one by now, or has another leader.
            return;
        }
        assigned.failures += 1;
        let not_before = Instant::now() + self.parts.backoff(assigned.failures);
        assigned.not_before = Some(not_before);
        let (partition, leader, error) = (asked.name(), self.leader, error.chain());
        // Brokers learn of a new leader one after the other: the first few are nothing.
        if assigned.failures == FAILURES_TOLD {
            tracing::warn!(%partition, %leader, error, "cannot copy; trying again from time to time");
        } else {
            tracing::debug!(%partition, %leader, error, "could not copy; trying again");
        }
        shared.left_out.insert((not_before, asked.key));
    }
}
