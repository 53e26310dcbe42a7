//! A few threads that work through jobs, for one reader or writer.
//!
//! The threads are those that tokio keeps for blocking work: one is borrowed when a job is handed in
//! and fewer than allowed are at work, and it is given back when no job is left. So nothing idles and
//! nothing spins; a forked child, which has a runtime of its own, has threads of its own; and at the end
//! of the process there is nothing to stop. See ADR 0016.
//!
//! Jobs begin in the order in which they were handed in. When the pool is dropped, those that did not
//! begin are dropped with it.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::env::Threads;
use crate::error::{Error, Result};

/// As many threads as tokio lends without making others wait.
const THREADS_MAX: usize = 256;

/// A number of threads, as a user gives it.
///
/// # Errors
/// It is not between 1 and `THREADS_MAX`.
pub fn checked(threads: usize) -> Result<NonZeroUsize> {
    NonZeroUsize::new(threads)
        .filter(|threads| threads.get() <= THREADS_MAX)
        .ok_or_else(|| Error::invalid(format!("threads must be 1 to {THREADS_MAX}, not {threads}")))
}

/// The threads that a reader or writer may use: those that were asked for, or one for each processor
/// that the process may run on, by its affinity and its control group.
pub(crate) fn threads(env: &Threads, asked: Option<NonZeroUsize>) -> NonZeroUsize {
    asked.unwrap_or_else(|| env.parallelism())
}

type Job = Box<dyn FnOnce() + Send>;

struct Work {
    jobs: VecDeque<Job>,
    /// The threads that are at work.
    active: usize,
}

struct Shared {
    work: Mutex<Work>,
    threads: usize,
    env: Threads,
    /// A job ended.
    done: Notify,
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until no job is left.
    fn run(&self) {
        loop {
            let job = {
                let mut work = self.work();
                let Some(job) = work.jobs.pop_front() else {
                    work.active = work.active.saturating_sub(1);
                    return;
                };
                job
            };
            // Whoever waits for a job that panicked finds out from what it leaves behind.
            catch_unwind(AssertUnwindSafe(job)).ok();
            self.done.notify_one();
        }
    }
}

/// The result of a job, once it is there.
#[derive(Debug)]
pub(crate) struct Promise<T>(Arc<Mutex<Option<T>>>);

impl<T> Promise<T> {
    /// A result that is there already.
    pub(crate) fn kept(result: T) -> Self {
        Self(Arc::new(Mutex::new(Some(result))))
    }

    /// The result; none until it is there.
    pub(crate) fn result(&self) -> MutexGuard<'_, Option<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the job ended without a result: it panicked.
    pub(crate) fn is_abandoned(&self) -> bool {
        // The count first: a job that ends in between leaves its result.
        Arc::strong_count(&self.0) == 1 && self.result().is_none()
    }

    /// Whether the job ended; without a result where it panicked.
    fn is_done(&self) -> bool {
        // The count is read first: a job that ends in between has left its result.
        Arc::strong_count(&self.0) == 1 || self.result().is_some()
    }

    /// The result of a job that ended.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn take(self, what: &str) -> Result<T> {
        let result = self.result().take();
        result.ok_or_else(|| Error::invalid(format!("{what} failed: its thread panicked")))
    }
}

/// See the module's documentation.
pub(crate) struct WorkerPool {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for WorkerPool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("WorkerPool")
            .field("threads", &self.shared.threads)
            .finish_non_exhaustive()
    }
}

impl WorkerPool {
    /// A pool of so many threads; none where that is one, since the caller has that already.
    pub(crate) fn new(env: &Threads, threads: NonZeroUsize) -> Option<Self> {
        (threads.get() > 1).then(|| Self::beside(env, threads))
    }

    /// A pool of so many threads beside the caller's.
    pub(crate) fn beside(env: &Threads, threads: NonZeroUsize) -> Self {
        let work = Mutex::new(Work { jobs: VecDeque::new(), active: 0 });
        let threads = threads.get().min(THREADS_MAX);
        let (env, done) = (env.clone(), Notify::new());
        Self { shared: Arc::new(Shared { work, threads, env, done }) }
    }

    /// Hands in a job with a result.
    pub(crate) fn promise<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Promise<T> {
        let result = Arc::new(Mutex::new(None));
        let promise = Promise(Arc::clone(&result));
        self.submit(move || {
            let made = job();
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        });
        promise
    }

    /// Waits until a job ended; its result stays. One caller at a time.
    pub(crate) async fn ended<T>(&self, promise: &Promise<T>) {
        while !promise.is_done() {
            self.wait().await;
        }
    }

    /// How many may be at work.
    pub(crate) fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Hands in a job. Called within a tokio runtime.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut work = self.shared.work();
        work.jobs.push_back(Box::new(job));
        if work.active < self.shared.threads {
            work.active = work.active.saturating_add(1);
            drop(work);
            let shared = Arc::clone(&self.shared);
            self.shared.env.spawn_blocking(move || shared.run());
        }
    }

    /// How many jobs did not begin yet.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.work().jobs.len()
    }

    /// Waits until a job ended that nobody waited for yet. One caller at a time.
    pub(crate) async fn wait(&self) {
        self.shared.done.notified().await;
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        let jobs = std::mem::take(&mut self.shared.work().jobs);
        drop(jobs);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn pool(threads: usize) -> WorkerPool {
        WorkerPool::new(&Threads::Real, NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    #[test]
    fn a_pool_of_one_is_the_caller() {
        assert!(WorkerPool::new(&Threads::Real, NonZeroUsize::MIN).is_none());
        assert_eq!(threads(&Threads::Real, NonZeroUsize::new(3)).get(), 3);
        assert_eq!(threads(&Threads::Real, None), std::thread::available_parallelism().unwrap());
    }

    #[tokio::test]
    async fn never_more_threads_are_at_work_than_allowed_and_none_stays() {
        let pool = pool(3);
        let (now, most, done) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        for _ in 0..100 {
            let (now, most, done) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&done));
            pool.submit(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        while done.load(Ordering::SeqCst) < 100 {
            pool.wait().await;
        }
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
        while pool.shared.work().active > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_ends_a_job_and_not_the_pool() {
        let pool = pool(2);
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        pool.submit(move || {
            let _sender = sender;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(receiver.await.is_err());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        pool.submit(move || sender.send(7).unwrap());
        assert_eq!(receiver.await, Ok(7));
    }

    #[tokio::test]
    async fn what_did_not_begin_is_dropped_with_the_pool() {
        let pool = pool(2);
        let (begin, begun) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        for _ in 0..2 {
            let (begin, released) = (begin.clone(), Arc::clone(&released));
            pool.submit(move || {
                begin.send(()).unwrap();
                released.lock().unwrap().recv().ok();
            });
        }
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        pool.submit(move || drop(sender));
        let begun = tokio::task::spawn_blocking(move || (begun.recv(), begun.recv()));
        begun.await.unwrap().0.unwrap();
        assert_eq!(pool.waiting(), 1);
        drop(pool);
        assert!(receiver.await.is_err());
        drop(release);
    }
}
