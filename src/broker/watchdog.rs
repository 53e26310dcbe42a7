//! Says in the log what takes long: an append, a sync, or all threads of the runtime.
//!
//! Why: a disk that stands still, or a machine without time for us, looks like a broker that hangs, and the log of
//! one that waits is empty. Whoever operates it should see what has been waiting, and for how long, while it waits.
//!
//! Work that touches the disk is registered with [`Watchdog::watch`] for as long as it runs. A thread of its own
//! looks a few times a second, and asks the runtime for a sign of life.
//!
//! Invariants:
//! - `WATCH-1` one line when something has taken [`SLOW`], one each time that doubles, and one when it ends.
//! - `WATCH-2` the watching thread never waits for a disk or for the runtime, and nobody waits for its lines.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::partition::Partition;
use crate::env::Clock;

/// From here on something is slow.
const SLOW: Duration = Duration::from_secs(1);
/// How often the thread looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Something that runs.
struct Running {
    work: &'static str,
    partition: Arc<Partition>,
    alarm: Alarm,
}

/// When something began, and when to say next that it has not ended.
#[derive(Clone, Copy, Debug)]
struct Alarm {
    since: Duration,
    next: Duration,
}

impl Alarm {
    const fn at(since: Duration) -> Self {
        Self { since, next: SLOW }
    }

    /// How long it has taken, if that is to be said now.
    fn ring(&mut self, now: Duration) -> Option<Duration> {
        let taken = now.saturating_sub(self.since);
        if taken < self.next {
            return None;
        }
        while self.next <= taken {
            self.next *= 2;
        }
        Some(taken)
    }

    /// How long it took in the end, if that was slow.
    fn end(self, now: Duration) -> Option<Duration> {
        Some(now.saturating_sub(self.since)).filter(|taken| *taken >= SLOW)
    }
}

#[derive(Default)]
struct Work {
    next_id: u64,
    running: BTreeMap<u64, Running>,
    stopped: bool,
}

/// See the module.
pub(super) struct Watchdog {
    clock: Arc<dyn Clock>,
    work: Mutex<Work>,
    wake: Condvar,
}

impl std::fmt::Debug for Watchdog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watchdog").finish_non_exhaustive()
    }
}

/// Registered until it is dropped.
pub(super) struct Watched<'a> {
    watchdog: &'a Watchdog,
    id: u64,
}

impl Watchdog {
    pub(super) fn new(clock: &Arc<dyn Clock>) -> Self {
        Self { clock: Arc::clone(clock), work: Mutex::default(), wake: Condvar::new() }
    }

    fn work(&self) -> std::sync::MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers work on the disk, named as "append" or "sync", until the answer is dropped.
    pub(super) fn watch(&self, work: &'static str, partition: &Arc<Partition>) -> Watched<'_> {
        let alarm = Alarm::at(self.clock.monotonic());
        let running = Running { work, partition: Arc::clone(partition), alarm };
        let mut all = self.work();
        let id = all.next_id;
        all.next_id += 1;
        all.running.insert(id, running);
        Watched { watchdog: self, id }
    }

    /// Watches until [`Watchdog::stop`], on the caller's thread.
    pub(super) fn run(&self, runtime: &Handle) {
        let mut sign = Sign::default();
        loop {
            let now = self.clock.monotonic();
            // Whatever takes the lines may be slow too, and work that begins or ends must not wait for it.
            for (work, partition, taken) in self.slow(now) {
                let (partition, ms) = (partition.name(), taken.as_millis());
                tracing::warn!(%partition, work, ms, "the disk is slow: not done yet");
            }
            sign.look(runtime, now);
            let all = self.work();
            if all.stopped {
                return;
            }
            let waited = self.wake.wait_timeout(all, INTERVAL);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What is to be said of running work now.
    fn slow(&self, now: Duration) -> Vec<(&'static str, Arc<Partition>, Duration)> {
        let mut all = self.work();
        let rung = all.running.values_mut().filter_map(|running| {
            let taken = running.alarm.ring(now)?;
            Some((running.work, Arc::clone(&running.partition), taken))
        });
        rung.collect()
    }

    pub(super) fn stop(&self) {
        self.work().stopped = true;
        self.wake.notify_all();
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let now = self.watchdog.clock.monotonic();
        let ended = self.watchdog.work().running.remove(&self.id);
        let Some(Running { work, partition, alarm }) = ended else { return };
        if let Some(taken) = alarm.end(now) {
            let ms = taken.as_millis();
            tracing::warn!(partition = %partition.name(), work, ms, "the disk was slow");
        }
    }
}

/// A task that does nothing, and tells by that whether the runtime has a thread for it.
#[derive(Default)]
struct Sign {
    asked: Option<(JoinHandle<()>, Alarm)>,
}

impl Sign {
    fn look(&mut self, runtime: &Handle, now: Duration) {
        match &mut self.asked {
            Some((task, alarm)) if task.is_finished() => {
                if let Some(taken) = alarm.end(now) {
                    let ms = taken.as_millis();
                    tracing::warn!(ms, "the threads of the runtime were blocked, and go on");
                }
                self.asked = None;
            }
            Some((_, alarm)) => {
                if let Some(taken) = alarm.ring(now) {
                    let ms = taken.as_millis();
                    tracing::warn!(ms, "the threads of the runtime are blocked: nothing is served");
                }
            }
            None => self.asked = Some((runtime.spawn(async {}), Alarm::at(now))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_rings_each_time_the_duration_doubles() {
        let at = |ms| Duration::from_millis(10_000 + ms);
        let mut alarm = Alarm::at(at(0));
        let rung: Vec<u64> =
            (0..10_000).step_by(250).filter(|ms| alarm.ring(at(*ms)).is_some()).collect();
        assert_eq!(rung, [1000, 2000, 4000, 8000]);
        assert_eq!(alarm.end(at(9000)), Some(Duration::from_secs(9)));
        assert_eq!(Alarm::at(at(0)).end(at(999)), None);
        // A look that comes late rings once.
        let mut late = Alarm::at(at(0));
        assert_eq!(late.ring(at(5000)), Some(Duration::from_secs(5)));
        assert_eq!(late.ring(at(5250)), None);
    }
}
