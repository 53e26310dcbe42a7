//! Runs the compaction of logs whose `cleanup.policy` has `compact`.
//!
//! Why: [`crate::log::Cleaner`] knows how to clean one log; this module decides which log, when, and at
//! which rate. As in Kafka, the dirtiest log that is due is cleaned first, `log.cleaner.threads` at a
//! time, and when none is due the cleaner sleeps for `log.cleaner.backoff.ms`. All settings may change at
//! run time.
//!
//! Invariants:
//! - `CLEAN-1` reading and writing run on the blocking pool, in steps; the log thread of a partition is
//!   asked only for the swap of a finished segment.
//! - `CLEAN-2` a log is cleaned by one task at a time.
//! - `CLEAN-3` the checkpoint has an entry before the first segment of a log is replaced (`DIR-2`).
//! - `CLEAN-4` a damaged log is reported once, at error level, and left alone until the next start.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::parking::PartitionKey;
use super::partition::Partition;
use super::state::BrokerState;
use super::storage::log_config;
use crate::config::CleanerConfig;
use crate::env::Threads;
use crate::error::{Error, Result};
use crate::log::{Cleaner, CleanerLimits, CleanerSummary, Dirtiness, Progress, SyncHandle};

/// The largest map of keys, as in Kafka.
const MAP_BYTES_MAX: usize = i32::MAX.unsigned_abs() as usize;
/// The shortest pause, however small `log.cleaner.backoff.ms` is.
const BACKOFF_MIN: Duration = Duration::from_millis(10);

/// The outcome for a partition that was chosen.
enum RoundEnd {
    /// Something was cleaned.
    Cleaned,
    /// There was no room, the partition was closed, or the like: try again later.
    Postponed,
    /// It is damaged.
    Damaged,
}

/// Starts the cleaner.
pub(super) fn start(state: &Arc<BrokerState>, tasks: &TaskTracker, stop: &CancellationToken) {
    if !state.config().cleaner.enable {
        return;
    }
    let (state, stop) = (Arc::clone(state), stop.clone());
    tasks.spawn(async move { manage(&state, &stop).await });
}

async fn manage(state: &Arc<BrokerState>, stop: &CancellationToken) {
    let mut running: JoinSet<(PartitionKey, RoundEnd)> = JoinSet::new();
    let mut busy = BTreeSet::new();
    let mut damaged = BTreeSet::new();
    // Those that could not be cleaned wait until after the next pause.
    let mut postponed = BTreeSet::new();
    let throttle = Arc::new(Throttle::default());
    while !stop.is_cancelled() {
        let config = state.config().cleaner;
        let mut rest = None;
        while running.len() < usize::from(config.threads) && rest.is_none() {
            let skip = busy.union(&damaged).chain(&postponed).copied().collect();
            match dirtiest(state, skip).await {
                Some((partition, dirtiness)) => {
                    busy.insert(partition.key());
                    let (state, throttle) = (Arc::clone(state), Arc::clone(&throttle));
                    let stop = stop.clone();
                    running.spawn(async move {
                        let round = Round { state, throttle, stop, partition };
                        let (key, name) = (round.partition.key(), round.partition.name().clone());
                        let outcome = AssertUnwindSafe(round.run(dirtiness)).catch_unwind().await;
                        let outcome = outcome.unwrap_or_else(|_panic| {
                            tracing::error!(partition = %name, "cleaning panicked; it is not cleaned until a restart");
                            RoundEnd::Damaged
                        });
                        (key, outcome)
                    });
                }
                None => rest = Some(backoff(&config)),
            }
        }
        let rested = async {
            match rest {
                Some(rest) => tokio::time::sleep(rest).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = running.join_next(), if !running.is_empty() => {
                let Ok((key, outcome)) = ended else { continue };
                busy.remove(&key);
                match outcome {
                    RoundEnd::Cleaned => {}
                    RoundEnd::Postponed => drop(postponed.insert(key)),
                    RoundEnd::Damaged => drop(damaged.insert(key)),
                }
            }
            () = rested => postponed.clear(),
        }
    }
    // Each stops at its next step.
    while running.join_next().await.is_some() {}
}

fn backoff(config: &CleanerConfig) -> Duration {
    Duration::from_millis(u64::try_from(config.backoff_ms).unwrap_or(0)).max(BACKOFF_MIN)
}

/// The partition that is due and has the largest dirty fraction.
async fn dirtiest(
    state: &Arc<BrokerState>,
    skip: BTreeSet<PartitionKey>,
) -> Option<(Arc<Partition>, Dirtiness)> {
    let examined = Arc::clone(state);
    let found = state.env().threads.spawn_blocking(move || {
        let mut most: Option<(Arc<Partition>, Dirtiness)> = None;
        for partition in examined.partitions().all() {
            if !partition.config().cleanup_policy.compact || skip.contains(&partition.key()) {
                continue;
            }
            match dirtiness(&examined, &partition) {
                Ok(found) if found.is_due => {
                    let ratio = most.as_ref().map_or(-1.0, |(_, most)| most.ratio());
                    if found.ratio() > ratio {
                        most = Some((partition, found));
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    let partition = partition.name();
                    tracing::debug!(%partition, error = %error.chain(), "could not be examined");
                }
            }
        }
        most
    });
    found.await.ok()?
}

fn dirtiness(state: &BrokerState, partition: &Partition) -> Result<Dirtiness> {
    let config = log_config(&partition.config(), &state.config());
    let clean_until = state.partitions().storage().cleaner_offset(partition.name())?;
    partition.reader().dirtiness(&config, clean_until, state.env().clock.now())
}

/// The cleaning of one log.
struct Round {
    state: Arc<BrokerState>,
    throttle: Arc<Throttle>,
    stop: CancellationToken,
    partition: Arc<Partition>,
}

impl Round {
    async fn run(&self, dirtiness: Dirtiness) -> RoundEnd {
        let partition = self.partition.name();
        match self.clean(dirtiness).await {
            Ok(Some(summary)) => {
                tracing::info!(
                    %partition,
                    end = %summary.end,
                    records_before = summary.records_before,
                    records_after = summary.records_after,
                    bytes_before = summary.bytes_before,
                    bytes_after = summary.bytes_after,
                    "compacted"
                );
                if summary.end > dirtiness.first_dirty {
                    RoundEnd::Cleaned
                } else {
                    RoundEnd::Postponed
                }
            }
            Ok(None) => RoundEnd::Postponed,
            Err(error) if matches!(error, Error::Corrupt { .. }) => {
                tracing::error!(%partition, error = %error.chain(), "a damaged log is not compacted");
                RoundEnd::Damaged
            }
            Err(error) => {
                tracing::warn!(%partition, error = %error.chain(), "not compacted");
                RoundEnd::Postponed
            }
        }
    }

    /// One round; none when it was abandoned.
    async fn clean(&self, dirtiness: Dirtiness) -> Result<Option<CleanerSummary>> {
        let mut cleaner = self.begin(dirtiness).await?;
        loop {
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            let (back, progress) = blocking(&self.state.env().threads, move || {
                let progress = cleaner.step();
                Ok((cleaner, progress))
            })
            .await?;
            cleaner = back;
            match progress? {
                Progress::More(bytes) => {
                    let rate = self.state.config().cleaner.io_max_bytes_per_second;
                    let wait = self.throttle.take(self.state.env().clock.monotonic(), bytes, rate);
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return Ok(None),
                        () = tokio::time::sleep(wait), if !wait.is_zero() => {}
                        () = std::future::ready(()), if wait.is_zero() => {}
                    }
                }
                Progress::Cleaned(cleaned) => {
                    let threads = self.state.log_threads();
                    let swap = threads.run(&self.partition, |log| log.replace_segments(cleaned));
                    if !swap.await? {
                        return Ok(None);
                    }
                }
                Progress::Done(summary) => {
                    self.write_checkpoint(summary.end).await?;
                    return Ok(Some(summary));
                }
            }
        }
    }

    /// Makes the part to be cleaned durable, and plans the round.
    async fn begin(&self, dirtiness: Dirtiness) -> Result<Cleaner> {
        let (state, partition) = (Arc::clone(&self.state), Arc::clone(&self.partition));
        blocking(&self.state.env().threads, move || {
            if partition.reader().recovery_point() < dirtiness.first_uncleanable {
                partition.with_log(|log| Ok(log.sync_handle())).and_then(SyncHandle::run)?;
            }
            let storage = state.partitions().storage();
            storage.write_cleaner_offset(&partition, dirtiness.first_dirty)?;
            let config = log_config(&partition.config(), &state.config());
            let limits = limits(&state.config().cleaner);
            let (env, now) = (state.env(), state.env().clock.now());
            Ok(Cleaner::new(env, partition.reader(), &config, limits, &dirtiness, now))
        })
        .await
    }

    async fn write_checkpoint(&self, end: crate::types::Offset) -> Result<()> {
        let (state, partition) = (Arc::clone(&self.state), Arc::clone(&self.partition));
        blocking(&self.state.env().threads, move || {
            state.partitions().storage().write_cleaner_offset(&partition, end)
        })
        .await
    }
}

fn limits(config: &CleanerConfig) -> CleanerLimits {
    let threads = u64::from(config.threads).max(1);
    let bytes = |bytes: u64| usize::try_from(bytes / threads).unwrap_or(usize::MAX);
    CleanerLimits {
        map_bytes: bytes(config.dedupe_buffer_size).min(MAP_BYTES_MAX),
        load_factor: config.io_buffer_load_factor,
        buffer_bytes: bytes(u64::from(config.io_buffer_size)),
    }
}

/// Runs something that blocks.
async fn blocking<T: Send + 'static>(
    threads: &Threads,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match threads.spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Error::invalid("the cleaner failed, see the log")),
        Err(_stopped) => Err(Error::Closed { what: "the broker" }),
    }
}

/// Keeps all rounds together below a rate.
#[derive(Debug, Default)]
struct Throttle {
    /// The (monotonic) time at which everything taken so far is paid for.
    paid: Mutex<Duration>,
}

impl Throttle {
    /// Takes `bytes`; returns how long to wait before the next ones.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 52 bits")]
    fn take(&self, now: Duration, bytes: u64, rate: f64) -> Duration {
        let cost = Duration::try_from_secs_f64(bytes as f64 / rate).unwrap_or_default();
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        *paid = (*paid).max(now) + cost;
        // Less than a millisecond is not worth a timer.
        Some(paid.saturating_sub(now))
            .filter(|wait| *wait >= Duration::from_millis(1))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_holds_its_rate_over_all_who_take() {
        let throttle = Throttle::default();
        let now = Duration::from_secs(10);
        assert_eq!(throttle.take(now, 500, 1000.0), Duration::from_millis(500));
        assert_eq!(throttle.take(now, 500, 1000.0), Duration::from_secs(1));
        assert_eq!(throttle.take(Duration::from_secs(20), 1, 1e300), Duration::ZERO);
    }
}
