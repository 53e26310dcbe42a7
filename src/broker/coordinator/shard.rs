//! The task of one state partition.
//!
//! It takes what is in its queue, steps the machine through it, appends all records as one batch and
//! answers once that is committed; while one append is in progress, requests collect for the next. What belongs to
//! transactions are batches of their own, which do not wait for each other. It
//! steps the machine only in between, so the state is never ahead by more than that; but for reports about
//! subjects which that append says nothing about (see [`ahead`](super::ahead)): a disk that stands still must not cost
//! members of groups their sessions.
//!
//! ```text
//! Loading ──read back──► Active ──append failed──► Loading …
//!    └──── cannot be read ──► Failed ──after a while──► Loading …
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::ahead::Ahead;
use super::batch::{Batch, Replies};
use super::fencing::{self, Proof};
use super::kind::{Kind, NewsOf, RecordOf, ReplyOf, RequestOf};
use super::replay;
use super::runtime::stopped;
use super::status::{Setter, Status};
use crate::broker::log_threads::LogThreads;
use crate::broker::partition::{Appended, Partition};
use crate::broker::words;
use crate::env::Env;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Append, Guard};
use crate::machine::Machine as _;
use crate::machine::coordinator::{Coordinator as _, Effect, Event, RequestId, TransactionEnd};
use crate::record::control::TransactionMarker;
use crate::types::{LeaderEpoch, TimestampMs};

/// The most requests that share an append.
const BATCH_MAX: usize = 512;
/// How long to wait before reading a shard is retried.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// From this difference on, one of the clocks was set and did not merely drift. A machine that was
/// asleep sets the wall clock when it wakes up.
const CLOCK_SET_MS_MIN: i64 = 1000;

/// A request, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Job<K: Kind> {
    pub(super) request: RequestOf<K>,
    /// What shows that it may add to a transaction.
    pub(super) proof: Proof,
    pub(super) reply: oneshot::Sender<Result<ReplyOf<K>>>,
}

/// An append that was handed over, and the answers that follow it.
struct InFlight<K: Kind> {
    /// None for answers that follow what is before them alone.
    appended: Option<Appended>,
    /// Whether records of later appends may presume those of this one.
    is_presumed: bool,
    replies: Replies<K>,
}

/// Everything that the task owns.
pub(super) struct ShardTask<K: Kind> {
    partition: Arc<Partition>,
    /// The epoch in which this broker leads the partition as long as the task runs.
    epoch: LeaderEpoch,
    env: Env,
    log_threads: Arc<LogThreads>,
    queue: mpsc::Receiver<Job<K>>,
    world: watch::Receiver<K::World>,
    /// What the machine was last told.
    told: K::World,
    status: Setter,
    stop: CancellationToken,
    machine: K::Machine,
    /// The wall clock and the monotonic clock when the machine was last stepped.
    clocks: (TimestampMs, Duration),
    waiting: BTreeMap<RequestId, oneshot::Sender<Result<ReplyOf<K>>>>,
    /// Of the verifications of transactions that requests begin here, until their records are handed over.
    guards: BTreeMap<RequestId, Guard>,
    next_request: u64,
    effects: Vec<Effect<RecordOf<K>, ReplyOf<K>>>,
    /// Appends that are not known to be committed, oldest first.
    in_flight: VecDeque<InFlight<K>>,
    /// What came while an append was in progress, and waits for its end.
    kept: VecDeque<Job<K>>,
    ahead: Ahead,
}

impl<K: Kind> ShardTask<K> {
    pub(super) fn new(
        (partition, epoch): (Arc<Partition>, LeaderEpoch),
        (env, log_threads): (Env, Arc<LogThreads>),
        queue: mpsc::Receiver<Job<K>>,
        (mut world, status, stop): (watch::Receiver<K::World>, Setter, CancellationToken),
    ) -> Self {
        let told = world.borrow_and_update().clone();
        let machine = K::machine(env.random.u64());
        let clocks = (env.clock.now(), env.clock.monotonic());
        Self {
            partition,
            epoch,
            env,
            log_threads,
            queue,
            world,
            told,
            status,
            stop,
            machine,
            clocks,
            waiting: BTreeMap::new(),
            guards: BTreeMap::new(),
            next_request: 0,
            effects: Vec::new(),
            in_flight: VecDeque::new(),
            kept: VecDeque::new(),
            ahead: Ahead::default(),
        }
    }

    /// Runs until it is told to stop; then answers everyone who waits.
    pub(super) async fn run(mut self) {
        if self.load().await {
            self.serve().await;
        }
        self.finish().await;
    }

    async fn serve(&mut self) {
        loop {
            let deadline = self.machine.next_deadline();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                changed = self.world.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.look_around();
                }
                job = next_job(&mut self.kept, &mut self.queue) => match job {
                    None => return,
                    Some(job) => self.take(job),
                },
                () = until(&self.env, deadline) => self.step(Event::Tick),
            }
            if let Err(error) = self.carry_out().await
                && !self.start_over(&error).await
            {
                return;
            }
        }
    }

    /// Steps the machine through a request and those queued behind it, of each producer one at most.
    fn take(&mut self, first: Job<K>) {
        let mut producers = BTreeSet::new();
        let mut next = Some(first);
        for _ in 0..BATCH_MAX {
            let Some(job) = next.take().or_else(|| self.try_next_job()) else { break };
            let producer = K::of_transaction(&job.request).map(|what| what.producer_id());
            if producer.is_some_and(|producer| !producers.insert(producer)) {
                self.kept.push_front(job);
                break;
            }
            self.request(job);
        }
    }

    fn try_next_job(&mut self) -> Option<Job<K>> {
        self.kept.pop_front().or_else(|| self.queue.try_recv().ok())
    }

    fn request(&mut self, Job { request, proof, reply }: Job<K>) {
        if let Some(what) = K::of_transaction(&request)
            && let Err(refusal) = fencing::check(&self.partition, &what, proof)
        {
            // The requester may be gone.
            drop(reply.send(Err(refusal)));
            return;
        }
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.waiting.insert(id, reply);
        if let Proof::Confirmed(guard) = proof {
            self.guards.insert(id, guard);
        }
        self.step(Event::Request { id, request });
    }

    fn step(&mut self, event: Event<RequestOf<K>, NewsOf<K>>) {
        let clocks = (self.env.clock.now(), self.env.clock.monotonic());
        let by_ms = set_by_ms(std::mem::replace(&mut self.clocks, clocks), clocks);
        if by_ms.abs() >= CLOCK_SET_MS_MIN {
            tracing::warn!(by_ms, "the clock was set; the deadlines of coordinators were shifted");
            self.machine.step(clocks.0, Event::ClockSet { by_ms }, &mut self.effects);
        }
        self.machine.step(clocks.0, event, &mut self.effects);
    }

    /// Tells the machine what has changed in the cluster.
    fn look_around(&mut self) {
        let now = self.world.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.told, now);
        for news in K::news(Some(&before), &self.told) {
            self.step(Event::News(news));
        }
    }

    /// Appends the machine's decisions, and gives the answers.
    async fn carry_out(&mut self) -> Result<()> {
        // Reports that were answered meanwhile may have led to further decisions.
        while !self.effects.is_empty() {
            self.carry_out_once().await?;
        }
        Ok(())
    }

    async fn carry_out_once(&mut self) -> Result<()> {
        self.ahead = Ahead::of::<K>(&self.effects);
        self.check_decisions()?;
        let mut batch = Batch::<K>::new(self.env.clock.now());
        let bytes_max = usize::try_from(self.partition.config().max_message_bytes).unwrap_or(0);
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Reply { request, reply } => batch.replies.push((request, reply)),
                Effect::Append { records, reply } => {
                    let encoded = records.iter().map(K::encode).collect::<Result<Vec<_>>>()?;
                    if !batch.has_room(&encoded, bytes_max) {
                        let full = std::mem::replace(&mut batch, Batch::new(self.env.clock.now()));
                        self.hand_over(full).await?;
                    }
                    batch.push(&encoded)?;
                    batch.replies.extend(reply);
                }
                Effect::AppendInTransaction { producer, records, reply } => {
                    let now = self.env.clock.now();
                    self.hand_over(std::mem::replace(&mut batch, Batch::new(now))).await?;
                    let guard = self.guards.remove(&reply.0);
                    let mut part = Batch::<K>::in_transaction(producer, now);
                    part.push(&records.iter().map(K::encode).collect::<Result<Vec<_>>>()?)?;
                    let append = part.records()?.0.map(|records| Append::Own { records, guard });
                    self.append(append, false, vec![reply]).await?;
                }
                Effect::EndTransaction { end, reply } => {
                    let now = self.env.clock.now();
                    self.hand_over(std::mem::replace(&mut batch, Batch::new(now))).await?;
                    self.append(Some(marker(&end, now)?), false, vec![reply]).await?;
                }
                // Checked above.
                Effect::Undo(_) => {}
            }
        }
        self.hand_over(batch).await?;
        self.settle().await
    }

    /// Before anything is appended: whether a replay will accept what the machine decided.
    fn check_decisions(&self) -> Result<()> {
        let undone = self.effects.iter().find_map(|effect| match effect {
            Effect::Undo(misfit) => Some(misfit),
            Effect::Append { .. }
            | Effect::AppendInTransaction { .. }
            | Effect::EndTransaction { .. }
            | Effect::Reply { .. } => None,
        });
        match undone {
            None => Ok(()),
            Some(misfit) => {
                let name = self.partition.name();
                let context = format!("{name}: a decision contradicts the state: {misfit}");
                Err(Error::kafka(ErrorCode::UnknownServerError, context))
            }
        }
    }

    /// Hands a batch that is part of no transaction to the log.
    async fn hand_over(&mut self, batch: Batch<K>) -> Result<()> {
        let (records, replies) = batch.records()?;
        self.append(records.map(Append::own), true, replies).await
    }

    /// Hands records to the log; the answers follow when they, and all that was handed over before, are committed. A
    /// replay of records without those that they presume would fail, so that those wait until the others are
    /// committed. What belongs to transactions fits whatever is before it.
    async fn append(
        &mut self,
        append: Option<Append>,
        is_presumed: bool,
        replies: Replies<K>,
    ) -> Result<()> {
        #[cfg(feature = "sim")]
        let append = append.filter(|_| !is_planted(Mutation::ForgetsOffsets));
        let Some(append) = append else {
            if !replies.is_empty() {
                self.in_flight.push_back(InFlight { appended: None, is_presumed: false, replies });
            }
            return Ok(());
        };
        if is_presumed && self.in_flight.iter().any(|before| before.is_presumed) {
            self.settle().await?;
        }
        let appended = self.log_threads.append_own(&self.partition, self.epoch, append).await?;
        self.in_flight.push_back(InFlight { appended: Some(appended), is_presumed, replies });
        Ok(())
    }

    /// Waits until all that was handed over is committed, and gives the answers.
    async fn settle(&mut self) -> Result<()> {
        while let Some(InFlight { appended, replies, .. }) = self.in_flight.pop_front() {
            if let Some(appended) = appended {
                self.appended(appended).await?;
            }
            for (request, reply) in replies {
                self.answer(request, reply);
            }
        }
        Ok(())
    }

    fn answer(&mut self, request: RequestId, reply: ReplyOf<K>) {
        if let Some(waiter) = self.waiting.remove(&request) {
            // The requester may be gone.
            drop(waiter.send(Ok(reply)));
        }
    }

    /// Waits until an append is committed. Meanwhile reports are answered, and other requests kept.
    async fn appended(&mut self, mut appended: Appended) -> Result<()> {
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                answer = &mut appended => {
                    answer.map_err(|_dropped| {
                        let code = ErrorCode::NotLeaderOrFollower;
                        words::partition_closed(code, self.partition.name())
                    })??;
                    return Ok(());
                }
                job = self.queue.recv(), if open && self.kept.len() < BATCH_MAX => match job {
                    None => open = false,
                    Some(job) if self.ahead.lets_through::<K>(&job.request) => self.report(job),
                    Some(job) => {
                        self.ahead.keep::<K>(&job.request);
                        self.kept.push_back(job);
                    }
                },
            }
        }
    }

    /// Steps the machine through a report while an append is in progress. What it is answered with at once is
    /// committed; from its first record on, everything waits for the next append.
    fn report(&mut self, job: Job<K>) {
        let mut waiting = std::mem::take(&mut self.effects);
        self.request(job);
        let mut at_once = true;
        for effect in std::mem::take(&mut self.effects) {
            at_once &= matches!(effect, Effect::Reply { .. });
            match effect {
                Effect::Reply { request, reply } if at_once => self.answer(request, reply),
                later => {
                    self.ahead.note::<K>(&later);
                    waiting.push(later);
                }
            }
        }
        self.effects = waiting;
    }

    /// After a failed append: what the machine decided did not happen. Everyone who waits is told so,
    /// and the state is read back. False when the task should end.
    async fn start_over(&mut self, error: &Error) -> bool {
        let code = to_client(error.code());
        tracing::warn!(
            partition = %self.partition.name(), error = %error.chain(),
            "what the coordinator decided was not written; reading its log again"
        );
        self.status.set(Status::Loading);
        self.effects.clear();
        self.fail_waiting(code, &error.chain());
        self.load().await
    }

    fn fail_waiting(&mut self, code: ErrorCode, text: &str) {
        self.guards.clear();
        for waiter in std::mem::take(&mut self.waiting).into_values() {
            drop(waiter.send(Err(Error::kafka(code, text))));
        }
    }

    /// Reads the log back, retrying until it succeeds. False when the task should end.
    async fn load(&mut self) -> bool {
        let mut pause = RETRY_MIN;
        loop {
            let error = match self.try_load().await {
                Ok(()) => match self.carry_out().await {
                    Ok(()) => {
                        self.status.set(Status::Active);
                        return true;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if self.stop.is_cancelled() {
                return false;
            }
            tracing::error!(
                partition = %self.partition.name(), error = %error.chain(),
                "the {} of a partition cannot be served", K::WHAT
            );
            self.effects.clear();
            self.status.set(Status::Failed(error.chain()));
            self.fail_waiting(ErrorCode::CoordinatorNotAvailable, &error.chain());
            while let Some(job) = self.try_next_job() {
                let code = ErrorCode::CoordinatorNotAvailable;
                drop(job.reply.send(Err(error.under_code(code))));
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn try_load(&mut self) -> Result<()> {
        // What was handed over before an append that failed may still come to the log.
        self.in_flight.clear();
        self.log_threads.run_on(&self.partition, |_| Ok(())).await?;
        self.told = self.world.borrow_and_update().clone();
        let mut machine = K::machine(self.env.random.u64());
        let (partition, now) = (Arc::clone(&self.partition), self.env.clock.now());
        let news = K::news(None, &self.told);
        let started = self.env.clock.monotonic();
        let work = move || {
            let mut effects = Vec::new();
            for news in news {
                machine.step(now, Event::News(news), &mut effects);
            }
            let replayed = replay::replay::<K>(&partition, &mut machine)?;
            Ok::<_, Error>((machine, replayed, partition.committed()?))
        };
        let joined = self.env.threads.spawn_blocking(work).await;
        let (machine, replayed, committed) = joined.map_err(|error| {
            let context = format!("reading {} failed: {error}", self.partition.name());
            Error::kafka(ErrorCode::UnknownServerError, context)
        })??;
        self.committed(committed).await?;
        self.machine = machine;
        self.clocks = (self.env.clock.now(), self.env.clock.monotonic());
        self.machine.restored(self.clocks.0, &mut self.effects);
        if replayed.records > 0 {
            tracing::info!(
                partition = %self.partition.name(), records = replayed.records,
                unknown = replayed.unknown,
                took_ms = self.env.clock.monotonic().saturating_sub(started).as_millis(),
                "{} loaded", K::WHAT
            );
        }
        Ok(())
    }

    /// Waits until what was read is committed: before that, another leader may be elected that does not have it, and
    /// whoever was told of it would see it undone. Requests that were there already are put off meanwhile.
    async fn committed(&mut self, mut committed: Appended) -> Result<()> {
        #[cfg(feature = "sim")]
        if is_planted(Mutation::ServesBeforeCommitted) {
            return Ok(());
        }
        let mut open = true;
        loop {
            let job = tokio::select! {
                biased;
                answer = &mut committed => {
                    answer.map_err(|_dropped| stopped())??;
                    return Ok(());
                }
                () = self.stop.cancelled() => return Err(stopped()),
                job = next_job(&mut self.kept, &mut self.queue), if open => job,
            };
            let Some(job) = job else {
                open = false;
                continue;
            };
            let context = format!("{} is not known to be committed", self.partition.name());
            let code = ErrorCode::CoordinatorLoadInProgress;
            drop(job.reply.send(Err(Error::kafka(code, context))));
        }
    }

    /// Answers what was sent before the end, then everyone who is still waiting.
    async fn finish(mut self) {
        self.queue.close();
        if self.status.is(&Status::Active) {
            while let Some(job) = next_job(&mut self.kept, &mut self.queue).await {
                self.take(job);
                if let Err(error) = self.carry_out().await {
                    self.fail_waiting(to_client(error.code()), &error.chain());
                    break;
                }
            }
        }
        while let Some(job) = next_job(&mut self.kept, &mut self.queue).await {
            drop(job.reply.send(Err(stopped())));
        }
        self.fail_waiting(ErrorCode::NotCoordinator, "the coordinator is stopping");
        tracing::debug!(partition = %self.partition.name(), "coordinator stopped");
    }
}

/// How far the wall clock advanced beyond the monotonic clock.
fn set_by_ms(before: (TimestampMs, Duration), now: (TimestampMs, Duration)) -> i64 {
    let steady = now.1.saturating_sub(before.1);
    let steady_ms = i64::try_from(steady.as_millis()).unwrap_or(i64::MAX);
    now.0.0.saturating_sub(before.0.0).saturating_sub(steady_ms)
}

/// The batch that ends a transaction.
fn marker(end: &TransactionEnd, now: TimestampMs) -> Result<Append> {
    let TransactionEnd { producer, committed, coordinator_epoch, transaction_version } = *end;
    let marker = TransactionMarker { committed, coordinator_epoch };
    let batch = marker.batch(producer.id, producer.epoch, now)?;
    Ok(Append::Marker { batch, transaction_version })
}

/// The code that tells a client of a failed append what to do: retry, or look up the coordinator
/// again.
fn to_client(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => ErrorCode::UnknownServerError,
        code => code,
    }
}

/// The next request: what was kept comes first.
///
/// Cancel-safe: nothing is taken that is not returned.
async fn next_job<K: Kind>(
    kept: &mut VecDeque<Job<K>>,
    queue: &mut mpsc::Receiver<Job<K>>,
) -> Option<Job<K>> {
    match kept.pop_front() {
        Some(job) => Some(job),
        None => queue.recv().await,
    }
}

async fn until(env: &Env, deadline: Option<TimestampMs>) {
    match deadline {
        None => std::future::pending().await,
        Some(deadline) => {
            let left = deadline.0.saturating_sub(env.clock.now().0);
            tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_set_when_it_leaves_the_steady_one() {
        let at = |wall, steady| (TimestampMs(wall), Duration::from_millis(steady));
        assert_eq!(
            set_by_ms(at(5_000, 100), at(65_000, 60_100)),
            0,
            "a process that was suspended"
        );
        assert_eq!(set_by_ms(at(5_000, 100), at(65_000, 110)), 59_990, "a machine that was asleep");
        assert_eq!(set_by_ms(at(65_000, 100), at(5_000, 110)), -60_010);
    }
}
