//! Work that blocks, and threads.
//!
//! Why: a thread runs when the operating system likes, so whatever depends on one cannot be replayed. Threads of
//! the broker and of the client are therefore started here. In a simulation there are none: what would run on
//! a thread is done by a task of the one runtime, after a pause that is drawn from the seed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

#[cfg(feature = "sim")]
use super::sim::SimThreads;

/// With fewer items, a thread costs more than it gains.
const ITEMS_MIN: usize = 3;

/// Where work that blocks is done. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub enum Threads {
    /// On threads of the operating system.
    #[default]
    Real,
    /// By tasks, at simulated times.
    #[cfg(feature = "sim")]
    Sim(Arc<SimThreads>),
}

impl Threads {
    /// Does something that blocks, beside the tasks of the runtime; it is done also when nobody waits for it.
    pub fn spawn_blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<R> {
        match self {
            Self::Real => tokio::task::spawn_blocking(work),
            #[cfg(feature = "sim")]
            Self::Sim(threads) => {
                let threads = Arc::clone(threads);
                tokio::spawn(async move {
                    threads.pause("blocking").await;
                    work()
                })
            }
        }
    }

    /// As [`Threads::spawn_blocking`], for somebody who may lose interest: once the result is dropped, the pauses of
    /// the work end ([`Threads::pause`]).
    pub fn spawn_interruptible<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Interruptible<R> {
        let interest = Arc::new(Interest::default());
        let own = Arc::clone(&interest);
        let task = self.spawn_blocking(move || {
            let before = INTEREST.replace(Some(own));
            let result = work();
            INTEREST.set(before);
            result
        });
        Interruptible { task, interest }
    }

    /// Lets time pass in work that blocks; whether anybody still waits for its result. A call within a simulation
    /// takes no time.
    #[must_use]
    pub fn pause(&self, duration: Duration) -> bool {
        match self {
            Self::Real => match INTEREST.with_borrow(Clone::clone) {
                Some(interest) => interest.lasts(duration),
                None => {
                    std::thread::sleep(duration);
                    true
                }
            },
            #[cfg(feature = "sim")]
            Self::Sim(_) => true,
        }
    }

    /// How many threads can run at a time: the processors that the process may run on, by its affinity and its
    /// control group.
    #[must_use]
    pub fn parallelism(&self) -> NonZeroUsize {
        match self {
            Self::Real => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            #[cfg(feature = "sim")]
            Self::Sim(_) => NonZeroUsize::MIN,
        }
    }

    /// How many threads carry out the tasks of the current runtime.
    #[must_use]
    pub fn of_runtime(&self) -> usize {
        match self {
            Self::Real => tokio::runtime::Handle::current().metrics().num_workers(),
            #[cfg(feature = "sim")]
            Self::Sim(threads) => threads.of_runtime(),
        }
    }

    /// Starts a thread that works on whatever is sent, until there is no sender.
    ///
    /// # Errors
    ///
    /// The operating system gives no thread.
    pub fn serve<T: Send + 'static>(
        &self,
        name: String,
        mut receiver: mpsc::Receiver<T>,
        mut work: impl FnMut(T) + Send + 'static,
    ) -> io::Result<Thread> {
        match self {
            Self::Real => Thread::start(name, move || {
                while let Some(item) = receiver.blocking_recv() {
                    work(item);
                }
            }),
            #[cfg(feature = "sim")]
            Self::Sim(threads) => {
                let threads = Arc::clone(threads);
                Ok(Thread::Sim(tokio::spawn(async move {
                    while let Some(item) = receiver.recv().await {
                        threads.pause(&name).await;
                        work(item);
                    }
                })))
            }
        }
    }

    /// Starts a thread that works on whatever is pushed to a queue, until that is closed. Several threads
    /// may take from one queue.
    ///
    /// # Errors
    ///
    /// The operating system gives no thread.
    pub fn take_from<T: Send + 'static>(
        &self,
        name: String,
        queue: Arc<Queue<T>>,
        mut work: impl FnMut(T) + Send + 'static,
    ) -> io::Result<Thread> {
        match self {
            Self::Real => Thread::start(name, move || {
                while let Some(item) = queue.take() {
                    work(item);
                }
            }),
            #[cfg(feature = "sim")]
            Self::Sim(threads) => {
                let threads = Arc::clone(threads);
                Ok(Thread::Sim(tokio::spawn(async move {
                    while let Some(item) = queue.taken().await {
                        threads.pause(&name).await;
                        work(item);
                    }
                })))
            }
        }
    }

    /// Starts a thread that watches the others. A simulation has none, since nothing waits for a thread there.
    ///
    /// # Errors
    ///
    /// The operating system gives no thread.
    pub fn watch(
        &self,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<Option<Thread>> {
        match self {
            Self::Real => Thread::start(name, work).map(Some),
            #[cfg(feature = "sim")]
            Self::Sim(_) => Ok(None),
        }
    }

    /// Calls `work` on every item, on at most `threads_max` threads at a time; the results are in the order of
    /// the items. Blocks.
    pub fn each<T: Sync, R: Send>(
        &self,
        threads_max: usize,
        items: &[T],
        work: impl Fn(&T) -> R + Sync,
    ) -> Vec<R> {
        match self {
            Self::Real if items.len() >= ITEMS_MIN => each_on_threads(threads_max, items, work),
            _ => items.iter().map(work).collect(),
        }
    }
}

fn each_on_threads<T: Sync, R: Send>(
    threads_max: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let take_turns = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return };
            let result = work(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads_max.min(items.len()) {
            scope.spawn(take_turns);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

thread_local! {
    /// Whether somebody waits for what this thread is doing.
    static INTEREST: RefCell<Option<Arc<Interest>>> = const { RefCell::new(None) };
}

#[derive(Debug, Default)]
struct Interest {
    is_lost: Mutex<bool>,
    changed: Condvar,
}

impl Interest {
    /// Whether it lasts for so long.
    fn lasts(&self, duration: Duration) -> bool {
        let is_lost = self.is_lost.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_lost, duration, |is_lost| !*is_lost);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lose(&self) {
        *self.is_lost.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// Work that blocks, as long as somebody waits for it.
#[derive(Debug)]
pub struct Interruptible<R> {
    task: JoinHandle<R>,
    interest: Arc<Interest>,
}

impl<R> Future for Interruptible<R> {
    type Output = Result<R, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.task).poll(context)
    }
}

impl<R> Drop for Interruptible<R> {
    fn drop(&mut self) {
        self.interest.lose();
    }
}

/// A thread that was started. It goes on when this is dropped.
#[derive(Debug)]
pub enum Thread {
    /// One of the operating system.
    Real(std::thread::JoinHandle<()>),
    /// A task.
    #[cfg(feature = "sim")]
    Sim(JoinHandle<()>),
}

impl Thread {
    fn start(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        std::thread::Builder::new().name(name).spawn(work).map(Self::Real)
    }

    /// Waits until all of these have ended.
    pub async fn all_ended(threads: Vec<Self>) {
        for thread in threads {
            match thread {
                Self::Real(thread) => {
                    let joined = tokio::task::spawn_blocking(move || thread.join());
                    // A panic of the thread was reported by itself.
                    drop(joined.await);
                }
                #[cfg(feature = "sim")]
                Self::Sim(task) => drop(task.await),
            }
        }
    }
}

/// What a few threads take from, in the order in which it was pushed.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<QueueState<T>>,
    ready: Condvar,
    #[cfg(feature = "sim")]
    changed: tokio::sync::Notify,
}

#[derive(Debug)]
struct QueueState<T> {
    items: VecDeque<T>,
    is_closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(QueueState { items: VecDeque::new(), is_closed: false }),
            ready: Condvar::new(),
            #[cfg(feature = "sim")]
            changed: tokio::sync::Notify::new(),
        }
    }
}

impl<T> Queue<T> {
    fn state(&self) -> MutexGuard<'_, QueueState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item at the end.
    pub fn push(&self, item: T) {
        let mut state = self.state();
        state.items.push_back(item);
        self.ready.notify_one();
        drop(state);
        #[cfg(feature = "sim")]
        self.changed.notify_one();
    }

    /// Has the threads end when they have taken what is left.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.ready.notify_all();
        #[cfg(feature = "sim")]
        {
            self.changed.notify_waiters();
            self.changed.notify_one();
        }
    }

    /// The next item; none at the end. Blocks.
    fn take(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            if state.is_closed {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`Queue::take`], for a task.
    #[cfg(feature = "sim")]
    async fn taken(&self) -> Option<T> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                if let Some(item) = state.items.pop_front() {
                    return Some(item);
                }
                if state.is_closed {
                    // For whoever else takes from it.
                    self.changed.notify_one();
                    return None;
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_its_result_in_its_place() {
        for count in [0, 1, 2, 3, 100] {
            let items: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = items.iter().map(|item| item * 2).collect();
            assert_eq!(Threads::Real.each(16, &items, |item| item * 2), doubled);
        }
    }

    #[tokio::test]
    async fn a_pause_ends_when_nobody_waits_for_the_work() {
        let long = Duration::from_secs(600);
        let (tell, told) = tokio::sync::oneshot::channel();
        let work = Threads::Real.spawn_interruptible(move || tell.send(Threads::Real.pause(long)));
        drop(work);
        assert!(!told.await.unwrap());
        let soon = Duration::from_millis(1);
        let work = Threads::Real.spawn_interruptible(move || Threads::Real.pause(soon));
        assert!(work.await.unwrap());
        assert!(Threads::Real.pause(soon), "nobody is asked");
    }

    #[tokio::test]
    async fn a_closed_queue_is_emptied_before_its_threads_end() {
        let (queue, taken) = (Arc::new(Queue::default()), Arc::new(AtomicUsize::new(0)));
        for item in 1..=100 {
            queue.push(item);
        }
        queue.close();
        let threads = (0..2).map(|index| {
            let taken = Arc::clone(&taken);
            let add = move |item| {
                taken.fetch_add(item, Ordering::SeqCst);
            };
            Threads::Real.take_from(format!("taker-{index}"), Arc::clone(&queue), add).unwrap()
        });
        Thread::all_ended(threads.collect()).await;
        assert_eq!(taken.load(Ordering::SeqCst), 5050);
    }
}
