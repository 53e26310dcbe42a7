//! The threads that write and sync logs (ADR 0001).
//!
//! Why: a log has a single writer and blocks. Each partition belongs to one of a few `ottla-log-N`
//! threads, which take appends from a bounded queue in the order they came in. What is appended quickly, into
//! the page cache, is not worth waking another thread: whoever brings it appends it, unless something is queued
//! for the partition or the disk keeps writers waiting. Where an append must be
//! synced before it is acknowledged, the partition is handed to the `ottla-sync-N` threads: while one
//! fsync runs, appends of all partitions go on, and the next fsync covers all that came meanwhile.
//!
//! Invariants:
//! - `LOG-THREAD-1` work on one partition is done in the order in which it was queued.
//! - `LOG-THREAD-2` a queue holds at most [`QUEUE_MAX`] tasks; whoever has more waits, and with it the
//!   connection that it came from.
//! - `LOG-THREAD-3` a partition is at most once in the queue of the sync threads.
//! - `LOG-THREAD-4` a panic takes its partition offline, never the thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::coop::consume_budget;

use super::partition::{Acks, Appended, Appending, Partition, Queued};
use super::watchdog::Watchdog;
use crate::env::{Clock, Env, Queue, Thread};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Append, Guard, Log};
use crate::record::{Batch, Compression};
use crate::types::LeaderEpoch;

/// How many tasks may wait for one log thread.
const QUEUE_MAX: usize = 1024;
/// The most log threads; more do not help, the page cache is the limit.
const LOG_THREADS_MAX: usize = 4;
/// How many syncs run side by side: different files of one device share its journal.
const SYNC_THREADS: usize = 2;
/// Plain records that are appended by who brings them have at most this size: about a third of a millisecond.
const HERE_BYTES_MAX: usize = 1 << 20;
/// And compressed ones this, since they are decompressed to be checked.
const HERE_COMPRESSED_BYTES_MAX: usize = 64 << 10;
/// When an append takes longer than this, the disk is busy most likely, and others wait for the caller's
/// thread: ...
const HERE_TIME_MAX: Duration = Duration::from_millis(20);
/// ... then all are queued for so long.
const QUEUED_TIME: Duration = Duration::from_secs(1);

type Work = Box<dyn FnOnce(&Partition) + Send>;

enum Task {
    Append { partition: Queued, appending: Appending },
    Work { partition: Queued, work: Work },
}

/// The threads and their queues.
pub(super) struct LogThreads {
    senders: Mutex<Vec<mpsc::Sender<Task>>>,
    syncer: Arc<Syncer>,
    threads: Mutex<Started>,
    clock: Arc<dyn Clock>,
    watchdog: Arc<Watchdog>,
    /// How many appends may be made by those who bring them at one time: half of the runtime's threads, none where
    /// there is one, so that a disk that stands still never has all of them.
    here: Semaphore,
    /// Until when all appends are queued because one took long; microseconds of the monotonic clock.
    queued_until: AtomicU64,
}

/// The threads, until somebody waits for them.
#[derive(Default)]
struct Started {
    logs: Vec<Thread>,
    syncs: Vec<Thread>,
}

impl std::fmt::Debug for LogThreads {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LogThreads").finish_non_exhaustive()
    }
}

impl LogThreads {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// The operating system gives no thread.
    pub(super) fn start(env: &Env) -> Result<Self> {
        let Env { clock, threads, .. } = env;
        let cores = threads.parallelism().get();
        let watchdog = Arc::new(Watchdog::new(clock));
        let syncer = Arc::new(Syncer::new(&watchdog));
        let mut senders = Vec::new();
        let mut started = Started::default();
        let failed = |source: std::io::Error| Error::network("start", "a thread", source);
        for index in 0..cores.min(LOG_THREADS_MAX) {
            let (sender, receiver) = mpsc::channel(QUEUE_MAX);
            senders.push(sender);
            let (syncer, clock) = (Arc::clone(&syncer), Arc::clone(clock));
            let work = move |task| write_log(task, &syncer, &clock);
            let thread = threads.serve(format!("ottla-log-{index}"), receiver, work);
            started.logs.push(thread.map_err(failed)?);
        }
        for index in 0..SYNC_THREADS {
            let (queue, syncer) = (Arc::clone(&syncer.queue), Arc::clone(&syncer));
            let work = move |partition| syncer.sync(&partition);
            let thread = threads.take_from(format!("ottla-sync-{index}"), queue, work);
            started.syncs.push(thread.map_err(failed)?);
        }
        let (watching, runtime) = (Arc::clone(&watchdog), Handle::current());
        let thread = threads.watch("ottla-watchdog".to_owned(), move || watching.run(&runtime));
        started.syncs.extend(thread.map_err(failed)?);
        Ok(Self {
            senders: Mutex::new(senders),
            syncer,
            threads: Mutex::new(started),
            clock: Arc::clone(clock),
            watchdog,
            here: Semaphore::new(threads.of_runtime() / 2),
            queued_until: AtomicU64::new(0),
        })
    }

    fn sender(&self, partition: &Partition) -> Result<mpsc::Sender<Task>> {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, index) = partition.key();
        let mixed = id.0.iter().fold(index.0.unsigned_abs() as usize, |mixed, &byte| {
            mixed.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
        let place = mixed % senders.len().max(1);
        senders.get(place).cloned().ok_or(Error::Closed { what: "the broker" })
    }

    async fn send(sender: &mpsc::Sender<Task>, task: Task) -> Result<()> {
        sender.send(task).await.map_err(|_closed| Error::Closed { what: "the broker" })
    }

    /// Appends a producer's batch, with the guard of its verification, or queues it. Appends to one partition happen in
    /// the order of these calls.
    ///
    /// # Errors
    ///
    /// The threads have ended. What becomes of the append, the receiver is told when `acks` is reached: that
    /// this broker does not lead the partition, too.
    pub(super) async fn append(
        &self,
        partition: &Arc<Partition>,
        (batch, guard): (Batch, Option<Guard>),
        acks: Acks,
    ) -> Result<Appended> {
        let quick = is_quick(&batch);
        self.bring(partition, Appending::produced(batch, guard, acks), quick).await
    }

    /// Appends the end of a transaction, or queues it, with `acks=all`.
    ///
    /// # Errors
    ///
    /// As [`LogThreads::append`].
    pub(super) async fn append_marker(
        &self,
        partition: &Arc<Partition>,
        batch: Bytes,
        transaction_version: i16,
    ) -> Result<Appended> {
        let appending = Appending::marker(batch, transaction_version);
        self.bring(partition, appending, true).await
    }

    async fn bring(
        &self,
        partition: &Arc<Partition>,
        (appending, receiver): (Appending, Appended),
        quick: bool,
    ) -> Result<Appended> {
        // Held to the end: the threads, and with them the logs, do not end while there is a sender.
        let sender = self.sender(partition)?;
        let mut appending = Some(appending);
        if quick {
            self.append_here(partition, &mut appending);
        }
        match appending {
            Some(appending) => Self::queue(&sender, partition, appending).await?,
            // Many appends, one after the other, are a long time for whoever waits for this thread.
            None => consume_budget().await,
        }
        Ok(receiver)
    }

    /// Queues records of a coordinator that became active in `epoch`, with `acks=all`, also where appending them
    /// would be quick: its task is not to wait for the disk. In a later epoch they are refused.
    ///
    /// # Errors
    ///
    /// As [`LogThreads::append`].
    pub(super) async fn append_own(
        &self,
        partition: &Arc<Partition>,
        epoch: LeaderEpoch,
        append: Append,
    ) -> Result<Appended> {
        let sender = self.sender(partition)?;
        let (appending, receiver) = Appending::own(append, epoch);
        Self::queue(&sender, partition, appending).await?;
        Ok(receiver)
    }

    async fn queue(
        sender: &mpsc::Sender<Task>,
        partition: &Arc<Partition>,
        appending: Appending,
    ) -> Result<()> {
        // Counted before there is room in the queue, so that no later append overtakes it.
        let task = Task::Append { partition: Queued::new(partition), appending };
        Self::send(sender, task).await
    }

    /// Appends on the caller's thread, where that is quick: two threads need not be woken then, and the records are
    /// still in this core's cache (ADR 0001).
    fn append_here(&self, partition: &Arc<Partition>, appending: &mut Option<Appending>) {
        let start = self.clock.monotonic();
        if start < Duration::from_micros(self.queued_until.load(Ordering::Relaxed)) {
            return;
        }
        let Ok(_place) = self.here.try_acquire() else { return };
        let now = self.clock.now();
        self.syncer.after(partition, || partition.try_append(appending, now));
        let end = self.clock.monotonic();
        if end.saturating_sub(start) > HERE_TIME_MAX {
            let until = u64::try_from((end + QUEUED_TIME).as_micros()).unwrap_or(u64::MAX);
            self.queued_until.store(until, Ordering::Relaxed);
        }
    }

    /// Has the partition synced, unless it is about to be.
    pub(super) fn sync(&self, partition: &Arc<Partition>) {
        if partition.queue_sync() {
            self.syncer.queue.push(Arc::clone(partition));
        }
    }

    /// Does something with the log of a partition, after what is queued for it.
    ///
    /// # Errors
    ///
    /// Those of the work; and when the partition is closed.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        partition: &Arc<Partition>,
        work: impl FnOnce(&mut Log) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.run_on(partition, move |partition| partition.with_log(work)).await
    }

    /// Does something with a partition on its log thread, after what is queued for it.
    ///
    /// # Errors
    ///
    /// Those of the work; and when the threads have ended.
    pub(super) async fn run_on<R: Send + 'static>(
        &self,
        partition: &Arc<Partition>,
        work: impl FnOnce(&Partition) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |partition| drop(sender.send(work(partition))));
        let task = Task::Work { partition: Queued::new(partition), work };
        Self::send(&self.sender(partition)?, task).await?;
        receiver.await.map_err(|_dropped| Error::Closed { what: "the partition" })?
    }

    /// Ends the threads after what is queued; nobody waits for them.
    pub(super) fn release(&self) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.syncer.queue.close();
        self.watchdog.stop();
    }

    /// Ends the threads after what is queued, and waits for them.
    pub(super) async fn stop(&self) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let started =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        Thread::all_ended(started.logs).await;
        // What the log threads queued last is still synced.
        self.syncer.queue.close();
        self.watchdog.stop();
        Thread::all_ended(started.syncs).await;
    }
}

impl Drop for LogThreads {
    fn drop(&mut self) {
        self.release();
    }
}

/// Whether a batch is small enough for whoever brings it.
fn is_quick(batch: &Batch) -> bool {
    let max = match batch.header().compression {
        Compression::None => HERE_BYTES_MAX,
        _ => HERE_COMPRESSED_BYTES_MAX,
    };
    batch.bytes().len() <= max
}

fn write_log(task: Task, syncer: &Syncer, clock: &Arc<dyn Clock>) {
    match task {
        Task::Append { partition: queued, appending } => {
            let partition = queued.partition();
            let now = clock.now();
            syncer.after(partition, || partition.append_now(appending, now));
        }
        Task::Work { partition: queued, work } => {
            let partition = queued.partition();
            guarded(partition, || work(partition));
        }
    }
}

/// A panic closes the partition.
fn guarded<R>(partition: &Partition, work: impl FnOnce() -> R) -> Option<R> {
    let result = catch_unwind(AssertUnwindSafe(work));
    if result.is_err() {
        tracing::error!(partition = %partition.name(), "a panic takes the partition offline");
        partition.close(ErrorCode::KafkaStorageError);
    }
    result.ok()
}

/// Partitions that wait for a sync.
struct Syncer {
    watchdog: Arc<Watchdog>,
    queue: Arc<Queue<Arc<Partition>>>,
}

impl Syncer {
    fn new(watchdog: &Arc<Watchdog>) -> Self {
        let watchdog = Arc::clone(watchdog);
        Self { watchdog, queue: Arc::default() }
    }

    /// Does an append, and queues the partition when the append says that a sync must follow.
    fn after(&self, partition: &Arc<Partition>, append: impl FnOnce() -> bool) {
        let watched = self.watchdog.watch("append", partition);
        let appended = guarded(partition, append);
        drop(watched);
        if appended.unwrap_or(false) && partition.queue_sync() {
            self.queue.push(Arc::clone(partition));
        }
    }

    fn sync(&self, partition: &Arc<Partition>) {
        let _watched = self.watchdog.watch("sync", partition);
        guarded(partition, || partition.sync_now());
    }
}
